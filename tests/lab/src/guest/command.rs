// SPDX-License-Identifier: GPL-2.0-or-later
//! Running commands in the guest.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::protocol::{Command, Outcome};

/// Limit for a command that names none.
const DEFAULT_LIMIT: Duration = Duration::from_secs(300);

/// A started command.
pub struct Running {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    started: Instant,
}

/// Starts a command; its input stays open.
pub fn start(command: &Command) -> Result<Running> {
    let (program, arguments) = command.argv.split_first().context("a command without words")?;
    let mut process = std::process::Command::new(program);
    process
        .args(arguments)
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", "/tmp")
        .envs(&command.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(uid) = command.uid {
        process.uid(uid).gid(uid);
    }
    let started = Instant::now();
    let mut child = process.spawn().with_context(|| format!("cannot run {program}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    Ok(Running { child, stdout, stderr, started })
}

/// Runs a command to its end.
pub fn run(command: &Command) -> Result<Outcome> {
    let mut running = start(command)?;
    if let Some(mut stdin) = running.child.stdin.take() {
        // A command need not read its input.
        let _ = stdin.write_all(command.stdin.as_bytes());
    }
    if let Some(delay) = command.kill_after_us {
        wait_until(&mut running.child, running.started + Duration::from_micros(delay))?;
        // It may have ended by itself.
        let _ = running.child.kill();
    }
    running.finish(command.limit_ms.map_or(DEFAULT_LIMIT, Duration::from_millis))
}

impl Running {
    /// Closes the input, waits, kills if need be, and collects.
    pub fn stop(mut self, grace: Duration) -> Result<Outcome> {
        drop(self.child.stdin.take());
        self.started = Instant::now();
        self.finish(grace)
    }

    fn finish(mut self, limit: Duration) -> Result<Outcome> {
        let (status, timed_out) = match wait_until(&mut self.child, self.started + limit)? {
            Some(status) => (status, false),
            None => {
                self.child.kill().context("cannot kill a command whose time is over")?;
                (self.child.wait().context("cannot wait")?, true)
            }
        };
        let duration = self.started.elapsed();
        Ok(Outcome {
            exit: status.code(),
            signal: status.signal(),
            stdout: self.stdout.join().unwrap_or_default(),
            stderr: self.stderr.join().unwrap_or_default(),
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            timed_out,
        })
    }
}

fn wait_until(child: &mut Child, end: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a command")? {
            return Ok(Some(status));
        }
        let now = Instant::now();
        if now >= end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1).min(end - now));
    }
}

fn collect(source: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            // What arrived before an error still counts.
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
