// SPDX-License-Identifier: GPL-2.0-or-later
//! `/init` of the lab's virtual machines: it serves the host, or (by its first argument) is the load,
//! exercises, a probe, calls of new code, a stalled command, one whose allocations fail, one whose module is damaged, an
//! update that goes on and off, idle threads, unrest, a process that just ends, or one that has the kernel give
//! back what is free.

use std::process::ExitCode;
use std::time::Duration;

#[cfg(target_arch = "x86_64")]
use splice_lab::guest::{capture, faulty, mutant};
use splice_lab::guest::{construct, exercise, flip, kernel, load, probe, serve, stall, unrest};

/// How a command ends that has nothing to print but an error.
fn told(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("splice-lab-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exit", code] => ExitCode::from(code.parse::<u8>().unwrap_or(255)),
        ["probe", name] => probe::run(name),
        ["construct", place, calls @ ..] => construct::run(place, calls),
        ["stall", room, command @ ..] => match room.parse() {
            Ok(room) => stall::run(room, command),
            Err(_) => ExitCode::from(2),
        },
        #[cfg(target_arch = "x86_64")]
        ["faulty", command @ ..] => faulty::run(command),
        #[cfg(target_arch = "x86_64")]
        ["capture", file, command @ ..] => capture::run(file, command),
        #[cfg(target_arch = "x86_64")]
        ["mutant", rounds, seed, command @ ..] => match (rounds.parse(), seed.parse()) {
            (Ok(rounds), Ok(seed)) => mutant::run(rounds, seed, command),
            _ => ExitCode::from(2),
        },
        ["exercise", names @ ..] => exercise::run(names),
        ["flip", file] => flip::run(file),
        ["threads", number] => match number.parse() {
            Ok(number) => load::sleep(number),
            Err(_) => ExitCode::from(2),
        },
        ["shared-names"] => told(kernel::shared_names()),
        ["unrest", modules @ ..] => unrest::run(modules),
        ["settle"] => told(kernel::settle()),
        ["load", threads, pace] => match (threads.parse(), pace.parse()) {
            (Ok(threads), Ok(pace)) => load::run(threads, Duration::from_micros(pace)),
            _ => ExitCode::from(2),
        },
        _ if std::process::id() == 1 => {
            if let Err(error) = serve::serve() {
                eprintln!("splice-lab-init: {error:#}");
            }
            // PID 1 must not return: the machine ends here either way.
            let _ = kernel::power_off();
            ExitCode::FAILURE
        }
        _ => {
            eprintln!(
                "splice-lab-init: exit CODE | probe NAME | construct PLACE CALL… | stall ROOM COMMAND… | \
                 faulty COMMAND… | capture FILE COMMAND… | mutant ROUNDS SEED COMMAND… | exercise NAME… | flip FILE | \
                 threads NUMBER | settle | \
                 shared-names | unrest MODULE… | load THREADS PACE_US"
            );
            ExitCode::from(2)
        }
    }
}
