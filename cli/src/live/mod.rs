// SPDX-License-Identifier: GPL-2.0-or-later
//! The running kernel: applying an update to it, undoing it, and what is there.
//!
//! The kernel side only ever makes one attempt; when to try again, and when to give up, is decided
//! here. Whatever happens to this process, the kernel is left with an update that is applied, or
//! with one that is loaded and does nothing, which the next `apply` or `undo` of it clears away.

mod apply;
mod error;
mod hold;
mod list;
mod load;
mod loads;
mod switch;
mod sysfs;
mod undo;

use std::time::Duration;

use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::runpre::AppliedUpdate;

use error::LiveError;
use switch::Patience;
use sysfs::{Status, Sysfs};

use crate::args::{ApplyArgs, PatienceArgs, StatusArgs, UndoArgs};
use crate::exit::Failure;
use crate::inspect;
use crate::output::Output;

impl From<PatienceArgs> for Patience {
    fn from(args: PatienceArgs) -> Self {
        Self {
            retries: args.retries,
            timeout: Duration::from_secs(args.timeout),
            interrupts: !args.no_interrupt,
        }
    }
}

/// Updates in the kernel, as `list` and `status` without an id print them.
#[derive(Serialize)]
struct All {
    updates: Vec<Status>,
}

/// What the updates that are applied to the running kernel have replaced.
pub(crate) fn applied() -> Result<Vec<AppliedUpdate>, LiveError> {
    Sysfs::default().applied()
}

/// `splice apply`.
pub(crate) fn run_apply(
    arch: &'static dyn Arch,
    args: &ApplyArgs,
    output: &Output,
) -> Result<(), Failure> {
    // Who may not apply is told so before anything is read.
    load::may_load()?;
    let (update, _) = inspect::read(&args.file)?;
    let applied = apply::apply(arch, &update, args.patience.into(), &mut |text| output.note(text))?;
    output.result(&applied, || applied.to_string());
    Ok(())
}

/// `splice undo`.
pub(crate) fn run_undo(args: &UndoArgs, output: &Output) -> Result<(), Failure> {
    let undone = undo::undo(&args.id, args.patience.into(), &mut |text| output.note(text))?;
    output.result(&undone, || undone.to_string());
    Ok(())
}

/// `splice list`.
pub(crate) fn run_list(output: &Output) -> Result<(), Failure> {
    let all = All { updates: list::list()? };
    output.result(&all, || {
        let lines = all.updates.iter();
        lines.map(|s| format!("{:<24} {:<24} {}\n", s.id, s.summary(), s.description)).collect()
    });
    Ok(())
}

/// `splice status`.
pub(crate) fn run_status(args: &StatusArgs, output: &Output) -> Result<(), Failure> {
    match &args.id {
        Some(id) => {
            let status = list::status(id)?;
            output.result(&status, || status.to_string());
        }
        None => {
            let all = All { updates: list::list()? };
            output.result(&all, || all.updates.iter().map(|s| format!("{s}\n")).collect());
        }
    }
    Ok(())
}
