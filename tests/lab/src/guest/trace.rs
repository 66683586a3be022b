// SPDX-License-Identifier: GPL-2.0-or-later
//! A command that is followed from one system call to the next (ptrace(2)).

use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What marks a stop at a system call (`PTRACE_O_TRACESYSGOOD`).
const AT_CALL: i32 = libc::SIGTRAP | 0x80;

/// The command.
pub struct Traced {
    process: libc::pid_t,
    /// Whether it is in a system call.
    inside: bool,
}

/// Where it has stopped.
pub enum Stop {
    /// At the entry of a system call.
    Entered,
    /// Behind one.
    Left,
    /// It has ended.
    Ended(u8),
}

impl Traced {
    /// Starts the command; it stops where the program begins.
    pub fn start(command: &[&str]) -> io::Result<Self> {
        let (program, words) =
            command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let mut child = Command::new(program);
        child.args(words);
        // SAFETY: the closure makes one system call, which allocates nothing.
        unsafe {
            child.pre_exec(|| {
                if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = child.spawn()?;
        let process = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let traced = Self { process, inside: false };
        traced.wait()?;
        traced.ask(libc::PTRACE_SETOPTIONS, libc::PTRACE_O_TRACESYSGOOD as usize)?;
        Ok(traced)
    }

    /// Lets it go on to the next entry or end of a system call, or to its own end.
    pub fn go_on(&mut self) -> io::Result<Stop> {
        let mut signal = 0;
        loop {
            self.ask(libc::PTRACE_SYSCALL, usize::try_from(signal).unwrap_or(0))?;
            signal = match self.wait()? {
                Status::Ended(code) => return Ok(Stop::Ended(code)),
                Status::Signal(AT_CALL) => {
                    self.inside = !self.inside;
                    return Ok(if self.inside { Stop::Entered } else { Stop::Left });
                }
                Status::Signal(other) => other,
            };
        }
    }

    /// Ends it where it is.
    pub fn kill(self) -> io::Result<()> {
        // SAFETY: the process is a child of this one that was not waited for.
        if unsafe { libc::kill(self.process, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        loop {
            if let Status::Ended(_) = self.wait()? {
                return Ok(());
            }
        }
    }

    /// A file of its directory in /proc.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process)
    }

    /// Bytes of its memory.
    pub fn memory(&self, address: u64, len: u64) -> io::Result<Vec<u8>> {
        let memory = std::fs::File::open(self.file("mem"))?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        memory.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }

    /// Its registers.
    pub fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: registers are plain numbers, which may all be zero.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one that the request writes.
        let done =
            unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.process, 0, &raw mut registers) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(registers) }
    }

    /// Gives it other registers.
    pub fn set_registers(&self, registers: &libc::user_regs_struct) -> io::Result<()> {
        let registers = std::ptr::from_ref(registers);
        // SAFETY: the structure is the one that the request reads, and lives through it.
        let done = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.process, 0, registers) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn ask(&self, what: libc::c_uint, data: usize) -> io::Result<()> {
        // SAFETY: these requests take a number, and no address of this process.
        let done = unsafe { libc::ptrace(what, self.process, 0, data) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait(&self) -> io::Result<Status> {
        let mut status = 0;
        // SAFETY: the status is written, and lives through the call.
        if unsafe { libc::waitpid(self.process, &raw mut status, libc::__WALL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::WIFSTOPPED(status) {
            return Ok(Status::Signal(libc::WSTOPSIG(status)));
        }
        let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 255 };
        Ok(Status::Ended(u8::try_from(code).unwrap_or(255)))
    }
}

enum Status {
    Signal(i32),
    Ended(u8),
}
