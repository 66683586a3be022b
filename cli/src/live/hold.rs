// SPDX-License-Identifier: GPL-2.0-or-later
//! Threads that sleep in old code are brought out of it, and held where they have come out.
//!
//! A call that is interrupted in its sleep leads back to the boundary to user space, and is begun
//! again from there: the thread would sleep in the old code as before. So it is interrupted and held
//! at the boundary by ptrace(2), which is no signal and which nobody else sees, while the next attempt
//! is made. Most calls go on afterwards as if nothing had been; a few end with EINTR, as they do when
//! a process is stopped and continued (signal(7) lists them). If this process ends, however, the kernel
//! lets go of all that it holds.

use std::io;
use std::time::{Duration, Instant};

use super::sysfs::Conflict;

/// How long all threads together are waited for.
const COME_OUT: Duration = Duration::from_millis(200);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// A thread that is asked to come out, or has.
struct Held {
    thread: libc::pid_t,
    /// Once it stands: the signal that it was about to take, or zero.
    stands: Option<libc::c_int>,
}

/// The threads that are held, and those that were asked.
#[derive(Default)]
pub(super) struct Holder {
    threads: Vec<Held>,
}

impl Holder {
    /// Asks those of them that were not asked yet to come out, and waits for it, shortly; whether any
    /// more stand now. Threads of the kernel do not come, nor do threads that somebody else traces; those
    /// whose sleep cannot be interrupted come when they wake.
    pub(super) fn hold(&mut self, conflicts: &[Conflict]) -> bool {
        for conflict in conflicts {
            let Ok(thread) = libc::pid_t::try_from(conflict.pid) else { continue };
            if self.threads.iter().any(|held| held.thread == thread) {
                continue;
            }
            if request(libc::PTRACE_SEIZE, thread, 0).is_ok() {
                self.threads.push(Held { thread, stands: None });
                // If this fails, it has ended, which will be seen.
                let _ = request(libc::PTRACE_INTERRUPT, thread, 0);
            }
        }
        let before = self.standing();
        let end = Instant::now() + COME_OUT;
        while self.standing() < self.threads.len() && Instant::now() < end {
            self.look();
            std::thread::sleep(LOOK);
        }
        self.standing() > before
    }

    /// Lets go of all who stand.
    pub(super) fn let_go(&mut self) {
        self.threads.retain(|held| {
            let Some(signal) = held.stands else { return true };
            // One that was killed meanwhile needs nothing.
            let _ = request(libc::PTRACE_DETACH, held.thread, signal);
            false
        });
    }

    /// Waits for so long, or until one who was asked comes out: it stands from then on.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while self.standing() == 0 && Instant::now() < end {
            self.look();
            let rest = end.saturating_duration_since(Instant::now());
            std::thread::sleep(if self.threads.is_empty() { rest } else { rest.min(LOOK) });
        }
    }

    fn standing(&self) -> usize {
        self.threads.iter().filter(|held| held.stands.is_some()).count()
    }

    /// Notes who stands by now, and forgets who has ended.
    fn look(&mut self) {
        self.threads.retain_mut(|held| {
            if held.stands.is_none() {
                match stop(held.thread) {
                    Ok(stands) => held.stands = stands,
                    Err(_) => return false,
                }
            }
            true
        });
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Who was asked and has not come is let go of when this process ends, which is soon.
        self.let_go();
    }
}

fn request(what: libc::c_uint, thread: libc::pid_t, data: libc::c_int) -> io::Result<()> {
    let data = usize::try_from(data).unwrap_or(0) as *mut libc::c_void;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: none of the requests that are made here reads or writes memory of this process.
    match unsafe { libc::ptrace(what, thread, none, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether the thread stands: then the signal that it was about to take, or zero. An error if it has
/// ended.
fn stop(thread: libc::pid_t) -> io::Result<Option<libc::c_int>> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    match unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL | libc::WNOHANG) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ if !libc::WIFSTOPPED(status) => Err(io::ErrorKind::NotFound.into()),
        // Because it was asked, or with its whole process: there is no signal to pass on.
        _ if status >> 16 == libc::PTRACE_EVENT_STOP => Ok(Some(0)),
        _ => Ok(Some(libc::WSTOPSIG(status))),
    }
}
