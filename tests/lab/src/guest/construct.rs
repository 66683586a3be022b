// SPDX-License-Identifier: GPL-2.0-or-later
//! Calls of the constructs that the suite puts into a function of the kernel and one of a module
//! (`tests/lab/new-code`): each by its name and with a number, and a number comes back.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use super::setup::{event_descriptor, write_raw};
use super::sockets::{set_option_raw, socket};

/// The first eight bytes of a call.
const MAGIC: u64 = 0x5350_4c49_4345_0001;
/// The option of a TIPC socket that is a call.
const OPTION: i32 = 4711;
/// What a call's buffer holds before it.
const BUFFER: [u64; 2] = [0x1122_3344_5566_7788, u64::MAX];

/// Who is called.
enum Place {
    Kernel(OwnedFd),
    Module(OwnedFd),
}

/// Makes each of the calls `NAME=NUMBER`, where the number `buffer` is the address of sixteen bytes,
/// and prints for each what came back and what the buffer then holds.
#[must_use]
pub fn run(place: &str, calls: &[&str]) -> ExitCode {
    let place = match place {
        "kernel" => event_descriptor().map(Place::Kernel),
        "module" => socket(libc::AF_TIPC, libc::SOCK_RDM, 0).map(Place::Module),
        _ => Err(io::Error::other("the place is kernel or module")),
    };
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for call in calls {
        let (name, argument) = call.split_once('=').unwrap_or((call, "0"));
        let mut buffer = BUFFER;
        let argument = match argument {
            "buffer" => buffer.as_mut_ptr() as u64,
            number => match number.parse() {
                Ok(number) => number,
                Err(_) => return ExitCode::FAILURE,
            },
        };
        let result = place.call(name, argument);
        let [first, second] = std::hint::black_box(buffer);
        println!("{call} {result} {first:#x} {second:#x}");
    }
    ExitCode::SUCCESS
}

impl Place {
    fn call(&self, name: &str, argument: u64) -> i64 {
        let mut call = Vec::from(MAGIC.to_ne_bytes());
        call.extend(argument.to_ne_bytes());
        call.extend(name.bytes());
        call.resize(48, 0);
        match self {
            Self::Kernel(descriptor) => write_raw(descriptor, &call),
            Self::Module(socket) => set_option_raw(socket, libc::SOL_TIPC, OPTION, &call),
        }
    }
}
