// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice undo`: switch back, and remove what was loaded.

use std::fmt;

use serde::Serialize;

use super::apply::CORE;
use super::switch::{Patience, switch};
use super::sysfs::{Act, State, Sysfs};
use super::{LiveError, load};

/// What `undo` did.
#[derive(Debug, Serialize)]
pub(crate) struct Undone {
    /// The update.
    pub(crate) id: String,
    /// Whether it was in effect; else it was only loaded.
    pub(crate) was_applied: bool,
    /// Attempts of this command.
    pub(crate) attempts: u64,
    /// How long the stop of the machine lasted, in nanoseconds.
    pub(crate) pause_ns: u64,
    /// Threads examined in it.
    pub(crate) threads: u64,
    /// Why the update's modules are still in memory, without effect.
    pub(crate) still_loaded: Option<String>,
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.was_applied {
            write!(
                f,
                "undone {}: {} threads examined, machine stopped for {:.3} ms, {} attempts",
                self.id,
                self.threads,
                self.pause_ns as f64 / 1e6,
                self.attempts
            )?;
        } else {
            write!(f, "removed {}, which was loaded but not applied", self.id)?;
        }
        match &self.still_loaded {
            Some(why) => write!(f, "\n  its code stays in memory without effect: {why}"),
            None => Ok(()),
        }
    }
}

/// Removes the modules of an update that is not applied, and the core if that was the last one.
pub(super) fn remove(sysfs: &Sysfs, id: &str) -> Result<(), LiveError> {
    for module in sysfs.modules(id)? {
        load::unload(&module)?;
    }
    remove_core(sysfs);
    Ok(())
}

/// Removes the transaction core if no update is left. It does no harm if it stays.
pub(super) fn remove_core(sysfs: &Sysfs) {
    if sysfs.ids().is_ok_and(|ids| ids.is_empty()) {
        let _ = load::unload(CORE);
    }
}

/// Undoes an update.
pub(crate) fn undo(
    id: &str,
    patience: Patience,
    progress: &mut dyn FnMut(&str),
) -> Result<Undone, LiveError> {
    let sysfs = Sysfs::default();
    load::may_switch()?;
    let _lock = load::Lock::take()?;
    let mut undone = Undone {
        id: id.to_owned(),
        was_applied: false,
        attempts: 0,
        pause_ns: 0,
        threads: 0,
        still_loaded: None,
    };
    match sysfs.state(id)? {
        None => {
            return Err(LiveError::NotApplied { id: id.to_owned(), others: sysfs.ids()? });
        }
        Some(State::Loaded) => remove(&sysfs, id)?,
        Some(State::Applied) => {
            let above = sysfs.above(id)?;
            if !above.is_empty() {
                return Err(LiveError::StoodOn { id: id.to_owned(), above });
            }
            undone.attempts = switch(&sysfs, id, Act::Undo, patience, progress)?;
            undone.was_applied = true;
            if let Some(status) = sysfs.status(id)? {
                undone.pause_ns = status.pause_ns;
                undone.threads = status.threads;
            }
            // The old behaviour is back; that the code stays in memory does not change that.
            undone.still_loaded = remove(&sysfs, id).err().map(|error| error.to_string());
        }
    }
    Ok(undone)
}
