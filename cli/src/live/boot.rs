// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice install`, `splice uninstall`, and `splice boot`, which a service runs at each start: the
//! updates that are installed for the kernel are applied to it, in their order.
//!
//! What goes wrong is said in the kernel's log, too, where the switches themselves are; to find
//! everything, search it for `splice:`.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;
use splice_core::arch::Arch;

use super::apply::{Manner, apply};
use super::load;
use super::store::{Installed, Store};
use super::sysfs::Act;
use super::sysfs::{State, Sysfs};
use crate::args::{BootArgs, InstallArgs, UninstallArgs};
use crate::exit::{Exit, Failure};
use crate::inspect;
use crate::output::Output;
use crate::sign::Signer;

/// The word of the kernel's command line with which nothing is applied.
const OFF: &str = "splice=off";

/// What became of an installed update.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Applied,
    AlreadyApplied,
    /// It was being applied when the machine went down.
    Held,
    Failed,
}

#[derive(Debug, Serialize)]
struct Update {
    id: String,
    outcome: Outcome,
    /// Why it is not in effect.
    why: Option<String>,
}

#[derive(Debug, Serialize)]
struct Booted {
    release: String,
    /// Whether the kernel's command line says that nothing is to be applied.
    off: bool,
    updates: Vec<Update>,
}

#[derive(Debug, Serialize)]
struct Uninstalled {
    id: String,
    releases: Vec<String>,
}

/// `splice install`.
pub(crate) fn run_install(args: &InstallArgs, output: &Output) -> Result<(), Failure> {
    let (update, _) = inspect::read(&args.file)?;
    let bytes = std::fs::read(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let manifest = &update.manifest;
    let store = Store::default();
    let _lock = store.lock()?;
    let installed = store.put(&manifest.release, &manifest.id, &bytes)?;
    output.result(&installed, || {
        format!(
            "{} is installed: `splice boot` applies it whenever {} starts\n  file  {}",
            installed.id,
            installed.release,
            installed.file.display()
        )
    });
    Ok(())
}

/// `splice uninstall`.
pub(crate) fn run_uninstall(args: &UninstallArgs, output: &Output) -> Result<(), Failure> {
    let store = Store::default();
    let _lock = store.lock()?;
    let mut releases = store.releases()?;
    releases.retain(|release| args.release.as_ref().is_none_or(|wanted| wanted == release));
    let mut result = Uninstalled { id: args.id.clone(), releases: Vec::new() };
    for release in releases {
        for installed in store.of(&release)?.iter().filter(|one| one.id == args.id) {
            store.take(installed)?;
            result.releases.push(release.clone());
        }
    }
    if result.releases.is_empty() {
        let text = format!("update {} is not installed; splice list shows what is", args.id);
        return Err(Failure::new(Exit::Failed, text));
    }
    output.result(&result, || {
        let releases = result.releases.join(", ");
        format!("{} is installed no more ({releases}); what is applied stays so", result.id)
    });
    Ok(())
}

/// All that is installed.
pub(super) fn installed() -> Result<Vec<Installed>, Failure> {
    let store = Store::default();
    let mut all = Vec::new();
    for release in store.releases()? {
        all.extend(store.of(&release)?);
    }
    Ok(all)
}

/// `splice boot`.
pub(crate) fn run_boot(
    arch: &'static dyn Arch,
    args: &BootArgs,
    output: &Output,
) -> Result<(), Failure> {
    let store = Store::default();
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let off = line.split_whitespace().any(|word| word == OFF);
    let mut booted = Booted { release, off, updates: Vec::new() };
    if off {
        say(&format!("nothing is applied: {OFF} is on the kernel's command line"), output);
    } else {
        load::may_switch()?;
        // Another one's mark is no sign that the machine went down.
        let _lock = store.lock()?;
        store.settle(&booted.release)?;
        for update in store.of(&booted.release)? {
            let (outcome, why) = match one(arch, args, &store, &update, output) {
                Ok(outcome) => (outcome, None),
                Err(failure) => (Outcome::Failed, Some(failure.text)),
            };
            let why = match outcome {
                Outcome::Held => Some(format!(
                    "it was being applied when the machine went down; find out why, and install {} \
                     again to have it tried",
                    update.file.display()
                )),
                _ => why,
            };
            if let Some(why) = &why {
                say(&format!("{} is not applied: {why}", update.id), output);
            }
            booted.updates.push(Update { id: update.id, outcome, why });
        }
    }
    output.result(&booted, || {
        let lines = booted.updates.iter().filter(|update| update.why.is_none());
        lines.map(|update| format!("{} is applied\n", update.id)).collect()
    });
    match booted.updates.iter().all(|update| update.why.is_none()) {
        true => Ok(()),
        false => Err(Failure::reported(Exit::Failed)),
    }
}

fn one(
    arch: &'static dyn Arch,
    args: &BootArgs,
    store: &Store,
    installed: &Installed,
    output: &Output,
) -> Result<Outcome, Failure> {
    if installed.held {
        return Ok(Outcome::Held);
    }
    installed.is_roots()?;
    if Sysfs::default().state(&installed.id)? == Some(State::Applied) {
        return Ok(Outcome::AlreadyApplied);
    }
    let signer = Signer::named(&args.signing);
    load::may_load(signer.as_ref())?;
    let (update, _) = inspect::read(&installed.file)?;
    if update.manifest.id != installed.id || update.manifest.release != installed.release {
        let text = format!(
            "{} holds update {} for {}",
            installed.file.display(),
            update.manifest.id,
            update.manifest.release
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    store.begin(installed)?;
    let signer = signer.as_ref();
    let manner = Manner { act: Act::Apply, patience: args.patience.into(), signer };
    let applied = apply(arch, &update, manner, &mut |text| output.detail(text));
    store.end(installed)?;
    applied.map(|_| Outcome::Applied)
}

/// Says something to whoever looks now, and in the kernel's log.
fn say(text: &str, output: &Output) {
    output.note(&format!("splice: {text}"));
    // <4>: a warning. One write is one line of the log.
    let line = format!("<4>splice: {}\n", text.replace('\n', " "));
    let log = std::fs::OpenOptions::new().write(true).open("/dev/kmsg");
    if let Ok(mut log) = log {
        // The log is for later; that it cannot be written changes nothing.
        let _ = log.write_all(line.as_bytes());
    }
}
