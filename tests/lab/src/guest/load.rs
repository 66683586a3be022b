// SPDX-License-Identifier: GPL-2.0-or-later
//! The load: processes that fork and exec, files written and read back, traffic over loopback. Every
//! result is verified, so that a wrong switch shows as a wrong result and not only as a crash.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::protocol::LoadReport;

/// Bytes in one block of a file or a connection.
const BLOCK: usize = 4096;
/// Blocks sent before a connection is given up for a new one.
const BLOCKS_PER_CONNECTION: u64 = 32;
/// At most so many wrong results are described.
const EXAMPLES: usize = 8;

#[derive(Default)]
struct Counts {
    processes: AtomicU64,
    files: AtomicU64,
    tcp_blocks: AtomicU64,
    connections: AtomicU64,
    wrong: AtomicU64,
    examples: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Counts {
    fn judge(&self, counter: &AtomicU64, what: &str, result: io::Result<bool>) {
        counter.fetch_add(1, Ordering::Relaxed);
        let why = match result {
            Ok(true) => return,
            Ok(false) => format!("{what}: not what was expected"),
            Err(error) => format!("{what}: {error}"),
        };
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES {
            examples.push(why);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Works until standard input ends, then prints a [`LoadReport`].
#[must_use]
pub fn run(threads: usize, pace: Duration) -> ExitCode {
    let counts = Counts::default();
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on loopback: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Ok(address) = listener.local_addr() else { return ExitCode::FAILURE };
    std::thread::spawn(move || echo_server(&listener));
    std::thread::scope(|scope| {
        for number in 0..threads {
            let counts = &counts;
            scope.spawn(move || repeat(counts, pace, |n| processes(counts, number, n)));
            scope.spawn(move || repeat(counts, pace, |n| files(counts, number, n)));
            scope.spawn(move || repeat(counts, pace, |n| traffic(counts, address, n, pace)));
        }
        let mut rest = Vec::new();
        // The end of the input is the signal to stop, whatever else came.
        let _ = io::stdin().read_to_end(&mut rest);
        counts.stop.store(true, Ordering::Relaxed);
    });
    let report = LoadReport {
        processes: counts.processes.into_inner(),
        files: counts.files.into_inner(),
        tcp_blocks: counts.tcp_blocks.into_inner(),
        connections: counts.connections.into_inner(),
        wrong: counts.wrong.into_inner(),
        examples: counts.examples.into_inner().unwrap_or_else(PoisonError::into_inner),
    };
    match serde_json::to_string(&report) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn repeat(counts: &Counts, pace: Duration, mut work: impl FnMut(u64)) {
    let mut round = 0;
    while !counts.stopped() {
        work(round);
        round += 1;
        std::thread::sleep(pace);
    }
}

fn processes(counts: &Counts, number: usize, round: u64) {
    let code = (round % 100) as i32;
    let ended = Command::new("/init")
        .args(["exit", &code.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let result = ended.map(|status| status.code() == Some(code));
    counts.judge(&counts.processes, &format!("process {number}.{round}"), result);
}

fn files(counts: &Counts, number: usize, round: u64) {
    let body = block(number as u64, round);
    let result = (|| {
        let first = format!("/tmp/load-{number}-{round}");
        let second = format!("{first}.renamed");
        std::fs::write(&first, &body)?;
        std::fs::rename(&first, &second)?;
        let read = std::fs::read(&second)?;
        std::fs::remove_file(&second)?;
        Ok(read == body)
    })();
    counts.judge(&counts.files, &format!("file {number}.{round}"), result);
}

fn traffic(counts: &Counts, address: SocketAddr, round: u64, pace: Duration) {
    let stream = TcpStream::connect(address);
    let mut stream = match stream {
        Ok(stream) => {
            counts.judge(&counts.connections, "connection", Ok(true));
            stream
        }
        Err(error) => return counts.judge(&counts.connections, "connection", Err(error)),
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    for number in 0..BLOCKS_PER_CONNECTION {
        if counts.stopped() {
            return;
        }
        let sent = block(round, number);
        let mut back = vec![0; sent.len()];
        let result = stream
            .write_all(&sent)
            .and_then(|()| stream.read_exact(&mut back))
            .map(|()| sent == back);
        let good = matches!(result, Ok(true));
        counts.judge(&counts.tcp_blocks, &format!("block {round}.{number}"), result);
        if !good {
            return;
        }
        std::thread::sleep(pace);
    }
}

fn echo_server(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut buffer = vec![0; BLOCK];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
                    break;
                }
            }
        });
    }
}

/// A block with contents that depend on both numbers.
fn block(first: u64, second: u64) -> Vec<u8> {
    let mut state = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second.wrapping_add(0x1234_5678);
    let mut bytes = Vec::with_capacity(BLOCK);
    while bytes.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
/// So many threads that sleep until standard input ends.
#[must_use]
pub fn sleep(number: usize) -> ExitCode {
    for n in 0..number {
        let thread = std::thread::Builder::new().stack_size(32 << 10);
        if let Err(error) = thread.spawn(|| {
            loop {
                std::thread::park();
            }
        }) {
            eprintln!("cannot begin thread {n}: {error}");
            return ExitCode::FAILURE;
        }
    }
    // Whatever comes, the end of the input is the signal.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
