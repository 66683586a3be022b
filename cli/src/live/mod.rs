// SPDX-License-Identifier: GPL-2.0-or-later
//! The running kernel: applying an update to it, undoing it, and what is there.
//!
//! The kernel side only ever makes one attempt; when to try again, and when to give up, is decided
//! here. Whatever happens to this process, the kernel is left with an update that is applied, or
//! with one that is loaded and does nothing, which the next `apply` or `undo` of it clears away.

mod apply;
mod boot;
mod error;
mod hold;
mod list;
mod load;
mod loads;
mod store;
mod switch;
mod sysfs;
mod undo;
mod users;

use std::time::Duration;

use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::runpre::AppliedUpdate;

use apply::Manner;
pub(crate) use boot::{run_boot, run_install, run_uninstall};
use error::LiveError;
use store::Installed;
use switch::Patience;
use sysfs::{Act, Status, Sysfs};
pub(crate) use users::{User, users};

use crate::args::{ApplyArgs, PatienceArgs, StatusArgs, UndoArgs};
use crate::exit::Failure;
use crate::inspect;
use crate::output::Output;
use crate::sign::Signer;

impl From<PatienceArgs> for Patience {
    fn from(args: PatienceArgs) -> Self {
        Self {
            retries: args.retries,
            timeout: Duration::from_secs(args.timeout),
            interrupts: !args.no_interrupt,
        }
    }
}

/// Updates in the kernel, as `list` and `status` without an id print them, and those that are
/// installed for the next start.
#[derive(Serialize)]
struct All {
    updates: Vec<Status>,
    installed: Vec<Installed>,
}

impl All {
    fn now() -> Result<Self, Failure> {
        Ok(Self { updates: list::list()?, installed: boot::installed()? })
    }

    /// Lines about what is installed.
    fn installed(&self) -> String {
        let line = |one: &Installed| {
            let held = if one.held { ", held: see splice install --help" } else { "" };
            format!("{:<24} installed for {}{held}\n", one.id, one.release)
        };
        self.installed.iter().map(line).collect()
    }
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
    let signer = Signer::named(&args.signing);
    load::may_load(signer.as_ref())?;
    let (update, _) = inspect::read(&args.file)?;
    let act = if args.replace { Act::Replace } else { Act::Apply };
    let manner = Manner { act, patience: args.patience.into(), signer: signer.as_ref() };
    let applied = apply::apply(arch, &update, manner, &mut |text| output.note(text))?;
    for one in boot::installed().unwrap_or_default() {
        if applied.replaced.contains(&one.id) && one.release == applied.release {
            let Installed { id, .. } = &one;
            output.note(&format!(
                "{id} is still installed for the next start: splice uninstall {id}"
            ));
        }
    }
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
    let all = All::now()?;
    output.result(&all, || {
        let lines = all.updates.iter();
        let line = |s: &Status| format!("{:<24} {:<24} {}\n", s.id, s.summary(), s.description);
        lines.map(line).collect::<String>() + &all.installed()
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
            let all = All::now()?;
            output.result(&all, || {
                let updates = all.updates.iter().map(|s| format!("{s}\n"));
                updates.collect::<String>() + &all.installed()
            });
        }
    }
    Ok(())
}
