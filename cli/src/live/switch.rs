// SPDX-License-Identifier: GPL-2.0-or-later
//! Trying to switch until it succeeds or patience ends. The kernel side makes one attempt each
//! time.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::LiveError;
use super::hold::Holder;
use super::sysfs::{Act, Conflict, Sysfs};

/// The first pause between two attempts, which then doubles, and the longest.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// How long any thread is held while there are more and more of them.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// When to give up, and what to do until then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Further attempts after the first.
    pub(crate) retries: u32,
    /// No attempt is begun after that time.
    pub(crate) timeout: Duration,
    /// Whether threads that are in the way are brought out of the code and held.
    pub(crate) interrupts: bool,
}

/// What an attempt came to.
enum Attempt {
    Done,
    /// Something was in the way that may go.
    Busy,
    Refused(std::io::Error),
}

fn attempt(sysfs: &Sysfs, id: &str, act: Act) -> Attempt {
    let Err(error) = sysfs.switch(id, act) else { return Attempt::Done };
    match Errno::from_io_error(&error) {
        // A thread in the code, or a hook that says so; a probe on the site; other bytes, which are a
        // probe's, too.
        Some(Errno::BUSY | Errno::TXTBSY | Errno::STALE) => Attempt::Busy,
        Some(Errno::INTR) => Attempt::Busy,
        _ => Attempt::Refused(error),
    }
}

/// Who was in the way, and how often.
#[derive(Default)]
struct Blockers {
    last: Vec<Conflict>,
    times: HashMap<u32, u64>,
}

impl Blockers {
    /// Notes who was in the way of the attempt that was just made.
    fn note(&mut self, sysfs: &Sysfs, id: &str) -> Result<(), LiveError> {
        self.last = sysfs.conflicts(id)?;
        let pids: BTreeSet<u32> = self.last.iter().map(|conflict| conflict.pid).collect();
        for pid in pids {
            *self.times.entry(pid).or_default() += 1;
        }
        for conflict in &mut self.last {
            conflict.times = self.times.get(&conflict.pid).copied().unwrap_or_default();
        }
        Ok(())
    }
}

/// Applies or undoes a loaded update; returns the number of attempts.
///
/// The first attempt disturbs nobody. Who is in its way has some time to leave by itself, and is then
/// brought out of the code and held for the moment of the next attempts.
pub(crate) fn switch(
    sysfs: &Sysfs,
    id: &str,
    act: Act,
    patience: Patience,
    progress: &mut dyn FnMut(&str),
) -> Result<u64, LiveError> {
    let end = Instant::now().checked_add(patience.timeout);
    let mut delay = FIRST_DELAY;
    let mut attempts = 0u64;
    let mut tries = 0;
    let mut blockers = Blockers::default();
    let mut holder = Holder::default();
    loop {
        tries += 1;
        let began = Instant::now();
        loop {
            attempts += 1;
            match attempt(sysfs, id, act) {
                Attempt::Done => return Ok(attempts),
                Attempt::Refused(error) => {
                    let why = sysfs.error(id)?;
                    let why = if why.is_empty() { error.to_string() } else { why };
                    // The update itself says no: a hook of it, or the data that it would lose.
                    if Errno::from_io_error(&error) == Some(Errno::CANCELED) {
                        return Err(LiveError::Refused { id: id.to_owned(), why });
                    }
                    return Err(LiveError::Switch { id: id.to_owned(), why });
                }
                Attempt::Busy => blockers.note(sysfs, id)?,
            }
            // Held threads must not wait for one that does not come.
            let holds = patience.interrupts && tries > 1 && began.elapsed() < LONGEST_HOLD;
            if !holds || !holder.hold(&blockers.last) {
                break;
            }
        }
        holder.let_go();
        let over = end.is_some_and(|end| Instant::now() + delay > end);
        if over || tries > patience.retries {
            return Err(LiveError::Busy {
                id: id.to_owned(),
                attempts,
                why: sysfs.error(id)?,
                conflicts: blockers.last,
            });
        }
        progress(&format!(
            "attempt {attempts}: {}; next in {:.1} s",
            sysfs.error(id)?,
            delay.as_secs_f64()
        ));
        holder.wait(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}
