// SPDX-License-Identifier: GPL-2.0-or-later
//! A command whose requests to the kernel meet an allocation that fails: first the first one that the
//! kernel makes for it, then the second, until there is none left to fail. Each time the request is
//! made again in place, so that one run of the command goes through all of them; it sees the last one,
//! which succeeds.
//!
//! The kernel counts a thread's allocations and fails the one it was told to (`fail-nth`,
//! Documentation/fault-injection/fault-injection.rst).

use std::io;
use std::process::ExitCode;

use super::kernel;
use super::trace::{Stop, Traced};

/// No request makes so many allocations.
const MOST: u32 = 5000;
/// Bytes of the instruction by which a program enters the kernel (`syscall`).
const CALL: u64 = 2;
const SWITCH: &str = "/enabled";

/// Whom allocations are failed for.
const KINDS: [&str; 2] = ["failslab", "fail_page_alloc"];

/// Runs the command; prints a line for each request that met failures.
#[must_use]
pub fn run(command: &[&str]) -> ExitCode {
    match switch_on().and_then(|()| Faults::start(command)?.follow()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cannot run {command:?} with faults: {error}");
            ExitCode::from(255)
        }
    }
}

/// Every allocation may fail, also those that may wait for memory, of whatever size; no trace is printed.
fn switch_on() -> io::Result<()> {
    let settings = [
        ("failslab", "ignore-gfp-wait", "N"),
        ("fail_page_alloc", "ignore-gfp-wait", "N"),
        ("fail_page_alloc", "ignore-gfp-highmem", "N"),
        ("fail_page_alloc", "min-order", "0"),
    ];
    let quiet = KINDS.map(|kind| (kind, "verbose", "0"));
    for (kind, name, value) in settings.into_iter().chain(quiet) {
        std::fs::write(format!("/sys/kernel/debug/{kind}/{name}"), value)?;
    }
    Ok(())
}

/// A request that is failed.
#[derive(Clone, PartialEq, Eq)]
enum Request {
    Load,
    Unload,
    Switch { file: String, value: String },
}

impl Request {
    fn name(&self) -> String {
        match self {
            Self::Load => "load".to_owned(),
            Self::Unload => "unload".to_owned(),
            Self::Switch { value, .. } => format!("switch {value}"),
        }
    }
}

struct Faults {
    process: Traced,
    /// The one that is being made again and again, and which of its allocations fails.
    current: Option<(Request, u32)>,
    /// Modules before it.
    modules: Vec<String>,
    /// How often it failed, and how often it went through without what it did not get.
    failed: u32,
    coped: u32,
}

impl Faults {
    fn start(command: &[&str]) -> io::Result<Self> {
        let process = Traced::start(command)?;
        Ok(Self { process, current: None, modules: Vec::new(), failed: 0, coped: 0 })
    }

    /// Follows the command from one system call to the next.
    fn follow(mut self) -> io::Result<ExitCode> {
        loop {
            match self.process.go_on()? {
                Stop::Ended(code) => return Ok(ExitCode::from(code)),
                Stop::Entered => self.entered()?,
                Stop::Left => self.left()?,
            }
        }
    }

    /// At the entry of a system call.
    fn entered(&mut self) -> io::Result<()> {
        let Some(request) = self.request()? else { return Ok(()) };
        let number = match &self.current {
            Some((current, number)) if *current == request => number + 1,
            _ => {
                self.failed = 0;
                self.coped = 0;
                1
            }
        };
        if number > MOST {
            return Err(io::Error::other(format!("{} goes on for ever", request.name())));
        }
        self.modules = modules()?;
        std::fs::write(self.process.file("fail-nth"), number.to_string())?;
        self.current = Some((request, number));
        Ok(())
    }

    /// Behind it: begins it again if an allocation has failed.
    fn left(&mut self) -> io::Result<()> {
        let Some((request, number)) = self.current.clone() else { return Ok(()) };
        let file = self.process.file("fail-nth");
        let rest = std::fs::read_to_string(&file)?;
        std::fs::write(&file, "0")?;
        let mut registers = self.process.registers()?;
        let result = registers.rax.cast_signed();
        if rest.trim() != "0" {
            println!(
                "{}: {} allocations, failed {}, coped {}",
                request.name(),
                number - 1,
                self.failed,
                self.coped
            );
            self.current = None;
            return Ok(());
        }
        let context = format!("{}, allocation {number}", request.name());
        if result < 0 {
            self.failed += 1;
            undisturbed(&request, &self.modules)
                .map_err(|error| io::Error::other(format!("{context}: {error}")))?;
        } else {
            self.coped += 1;
            if !self.take_back(&request)? {
                println!("{}: {number} allocations, the last one coped with", request.name());
                self.current = None;
                return Ok(());
            }
        }
        registers.rip = registers.rip.wrapping_sub(CALL);
        registers.rax = registers.orig_rax;
        self.process.set_registers(&registers)
    }

    /// Undoes what went through; false if it cannot be made again.
    fn take_back(&self, request: &Request) -> io::Result<bool> {
        match request {
            Request::Load => {
                for name in modules()?.iter().filter(|name| !self.modules.contains(name)) {
                    kernel::remove_module(name).map_err(io::Error::other)?;
                }
                Ok(true)
            }
            Request::Switch { file, value } => {
                let other = if value == "0" { "1" } else { "0" };
                std::fs::write(file, other)?;
                Ok(true)
            }
            Request::Unload => Ok(false),
        }
    }

    /// What the call is that it has entered, if it is one of those that are failed.
    fn request(&self) -> io::Result<Option<Request>> {
        let registers = self.process.registers()?;
        Ok(match registers.orig_rax.cast_signed() {
            libc::SYS_init_module | libc::SYS_finit_module => Some(Request::Load),
            libc::SYS_delete_module => Some(Request::Unload),
            libc::SYS_write => {
                let link = std::fs::read_link(self.process.file(&format!("fd/{}", registers.rdi)))?;
                let file = link.to_string_lossy().into_owned();
                let is_switch = file.ends_with(SWITCH);
                let value = || {
                    let bytes = self.process.memory(registers.rsi, registers.rdx.min(16))?;
                    io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
                };
                if is_switch { Some(Request::Switch { value: value()?, file }) } else { None }
            }
            _ => None,
        })
    }
}

/// Fails unless a request that failed has changed nothing.
fn undisturbed(request: &Request, before: &[String]) -> io::Result<()> {
    let now = modules()?;
    if now != before {
        return Err(io::Error::other(format!("the modules were {before:?} and are {now:?}")));
    }
    if let Request::Switch { file, value } = request {
        let is = std::fs::read_to_string(file)?;
        if is.trim() == value {
            return Err(io::Error::other(format!("it failed, but {file} is {value}")));
        }
    }
    Ok(())
}

/// The names of the modules that are there.
fn modules() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/modules")?;
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort();
    Ok(names)
}
