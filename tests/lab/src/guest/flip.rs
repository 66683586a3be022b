// SPDX-License-Identifier: GPL-2.0-or-later
//! An update that goes off and on without a pause, straight through its file.

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goes on until standard input ends; prints how many switches there were, and how often somebody was in
/// the way of one.
#[must_use]
pub fn run(file: &str) -> ExitCode {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let switches = scope.spawn(|| flip(file, &over));
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
        match switches.join() {
            Ok(Ok((switched, busy))) => {
                println!("{switched} switches, somebody was in the way {busy} times");
                ExitCode::SUCCESS
            }
            Ok(Err(error)) => {
                eprintln!("cannot write {file}: {error}");
                ExitCode::FAILURE
            }
            Err(_) => ExitCode::FAILURE,
        }
    })
}

/// Ends with the update off.
fn flip(file: &str, over: &AtomicBool) -> io::Result<(u64, u64)> {
    let (mut switched, mut busy) = (0, 0);
    let mut on = std::fs::read_to_string(file)?.trim() == "1";
    while on || !over.load(Ordering::Relaxed) {
        match std::fs::write(file, if on { "0" } else { "1" }) {
            Ok(()) => {
                switched += 1;
                on = !on;
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => busy += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((switched, busy))
}
