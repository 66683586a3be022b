// SPDX-License-Identifier: GPL-2.0-or-later
//! A command that stops in the middle, where the test says so: its messages go to a pipe with room for
//! so many bytes only, until the input ends.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};

/// A pipe's size unless somebody changes it: 16 pages (pipe(7)).
const PIPE: usize = 65536;

/// Runs the command; its number is in `/tmp/stalled`.
pub fn run(room: usize, command: &[&str]) -> ExitCode {
    match stalled(room, command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot stall {command:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stalled(room: usize, command: &[&str]) -> io::Result<ExitCode> {
    let (program, words) = command.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let (mut reader, mut writer) = io::pipe()?;
    let filler = PIPE.saturating_sub(room);
    writer.write_all(&vec![b'.'; filler])?;
    let mut child = Command::new(program).args(words).stderr(writer).spawn()?;
    std::fs::write("/tmp/stalled", child.id().to_string())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    io::stderr().write_all(said.get(filler..).unwrap_or_default())?;
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(255)))
}
