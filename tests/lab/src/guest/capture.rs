// SPDX-License-Identifier: GPL-2.0-or-later
//! An update's module as `splice apply` hands it to the kernel.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::trace::{Stop, Traced};

/// Which of the modules that the command loads is meant: the first one is the core.
const WHICH: usize = 1;

/// Writes it into a file.
#[must_use]
pub fn run(file: &str, command: &[&str]) -> ExitCode {
    let write = |module: Vec<u8>| std::fs::write(file, module).context("cannot write");
    match captured(command).and_then(write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The module's bytes at the moment when the command would load it; the command ends there.
pub(super) fn captured(command: &[&str]) -> Result<Vec<u8>> {
    let mut process = Traced::start(command)?;
    let mut loads = 0;
    loop {
        match process.go_on()? {
            Stop::Ended(code) => bail!("the command ended with {code} before it loaded the update"),
            Stop::Left => {}
            Stop::Entered => {
                let registers = process.registers()?;
                if registers.orig_rax.cast_signed() != libc::SYS_init_module {
                    continue;
                }
                if loads == WHICH {
                    let module = process.memory(registers.rdi, registers.rsi)?;
                    process.kill()?;
                    return Ok(module);
                }
                loads += 1;
            }
        }
    }
}
