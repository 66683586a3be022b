// SPDX-License-Identifier: GPL-2.0-or-later
//! Trying to switch until it succeeds or patience ends. The kernel side makes one attempt each
//! time.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::LiveError;
use super::sysfs::Sysfs;

/// The first pause between two attempts, which then doubles, and the longest.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Further attempts after the first.
    pub(crate) retries: u32,
    /// No attempt is begun after that time.
    pub(crate) timeout: Duration,
}

/// What an attempt came to.
enum Attempt {
    Done,
    /// Something was in the way that may go.
    Busy,
    Refused(std::io::Error),
}

fn attempt(sysfs: &Sysfs, id: &str, apply: bool) -> Attempt {
    let Err(error) = sysfs.switch(id, apply) else { return Attempt::Done };
    match Errno::from_io_error(&error) {
        // A thread in the code; a probe on the site; other bytes, which are a probe's, too.
        Some(Errno::BUSY | Errno::TXTBSY | Errno::STALE) => Attempt::Busy,
        Some(Errno::INTR) => Attempt::Busy,
        _ => Attempt::Refused(error),
    }
}

/// Applies or undoes a loaded update; returns the number of attempts.
pub(crate) fn switch(
    sysfs: &Sysfs,
    id: &str,
    apply: bool,
    patience: Patience,
    progress: &mut dyn FnMut(&str),
) -> Result<u64, LiveError> {
    let end = Instant::now().checked_add(patience.timeout);
    let mut delay = FIRST_DELAY;
    let mut attempts = 0u64;
    loop {
        attempts += 1;
        match attempt(sysfs, id, apply) {
            Attempt::Done => return Ok(attempts),
            Attempt::Refused(error) => {
                let why = sysfs.error(id)?;
                let why = if why.is_empty() { error.to_string() } else { why };
                return Err(LiveError::Switch { id: id.to_owned(), why });
            }
            Attempt::Busy => {}
        }
        let over = end.is_some_and(|end| Instant::now() + delay > end);
        if over || attempts > u64::from(patience.retries) {
            return Err(LiveError::Busy {
                id: id.to_owned(),
                attempts,
                why: sysfs.error(id)?,
                conflicts: sysfs.conflicts(id)?,
            });
        }
        progress(&format!(
            "attempt {attempts}: {}; next in {:.1} s",
            sysfs.error(id)?,
            delay.as_secs_f64()
        ));
        std::thread::sleep(delay);
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}
