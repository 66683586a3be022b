// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates on and off in machines under load: many in a machine one after the other, and then all of
//! them at once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value};

use super::Row;
use super::exercise::{self, Running};
use super::record::{Outcome, Record, Store};
use crate::session::{Answer, Contents, Guest, Lab, search};

/// How many updates one machine has one after the other.
const BATCH: usize = 32;

/// Takes every created update through check, apply and undo. A machine that is lost costs the update
/// that it was lost with; the others go on in the next one.
pub(super) fn one_by_one(lab: &Lab, store: &Store, rows: &mut [Row]) -> Result<()> {
    let total = rows.iter().filter(|row| row.record.outcome == Outcome::Created).count();
    loop {
        let open = rows.iter_mut().filter(|row| row.record.outcome == Outcome::Created);
        let mut batch: Vec<&mut Row> = open.take(BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let contents = contents(batch.iter().map(|row| &**row), BATCH)?;
        let mut guest = Guest::boot(lab, &lab.image, &contents)?;
        let shared = shared_names(&mut guest)?;
        guest.machine.start_load()?;
        for row in &mut batch {
            eprintln!("try {} of {total} updates", row.patch.id);
            let tried = one(&mut guest, &mut row.record, &shared);
            if let Err(error) = &tried {
                row.record.end(Outcome::Failed, &format!("{error:#}"));
            }
            store.save(&row.patch, &row.record)?;
            if tried.is_err() {
                break;
            }
        }
        if batch.iter().any(|row| row.record.outcome == Outcome::Failed) {
            continue;
        }
        end(guest)?;
    }
}

/// What goes into a machine for these updates.
fn contents<'a>(rows: impl Iterator<Item = &'a Row> + Clone, count: usize) -> Result<Contents<'a>> {
    let updates = rows.clone().map(|row| (row.patch.id.as_str(), row.update.as_path()));
    let exercises = exercise::of_all(rows.clone().map(|row| &row.record));
    let patched = rows.flat_map(|row| row.record.modules().cloned());
    Ok(Contents {
        updates: updates.collect(),
        files: exercise::files(&exercises)?,
        carried: patched.chain(exercise::modules(&exercises)).collect(),
        limit: Some(Duration::from_secs(300 + 60 * count as u64)),
        ..Contents::default()
    })
}

/// Stops the load and switches the machine off; neither the load nor the kernel may have complained.
fn end(mut guest: Guest) -> Result<()> {
    let load = guest.machine.stop_load()?;
    println!("load: {} operations meanwhile, {} wrong", load.operations(), load.wrong);
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// Milliseconds that a command took.
fn took(answer: &Answer) -> u64 {
    u64::try_from(answer.duration.as_millis()).unwrap_or(u64::MAX)
}

/// The names that more than one symbol of the kernel image has, from the running kernel's own list.
fn shared_names(guest: &mut Guest) -> Result<BTreeSet<String>> {
    let outcome = guest.machine.run_words(&["/init", "shared-names"])?;
    ensure!(outcome.exit == Some(0), "the kernel's symbols cannot be listed: {outcome:?}");
    Ok(outcome.stdout.lines().map(str::to_owned).collect())
}

fn one(guest: &mut Guest, record: &mut Record, shared: &BTreeSet<String>) -> Result<()> {
    for module in record.modules().cloned().collect::<Vec<_>>() {
        if let Err(error) = guest.load_module(&module) {
            let why = format!("module {module} cannot be loaded in this machine: {error:#}");
            record.end(Outcome::NotLoaded, &why);
            return Ok(());
        }
    }
    let exercises = Running::begin(guest, exercise::of_all(std::iter::once(&*record)))?;
    record.exercises = exercises.names();
    let switched = there_and_back(guest, record, &exercises, shared);
    let rounds = exercises.end(guest);
    if switched? {
        record.rounds = rounds?;
        guest.expect_clean()?;
        record.outcome = Outcome::Applied;
    }
    Ok(())
}

/// Checks an update, applies it and takes it back; exercises go on before, meanwhile and after. False if it
/// was refused.
fn there_and_back(
    guest: &mut Guest,
    record: &mut Record,
    exercises: &Running,
    shared: &BTreeSet<String>,
) -> Result<bool> {
    let id = record.id.clone();
    exercises.round(guest)?;
    let checked = guest.check(&id)?;
    record.check = took(&checked);
    if checked.exit == 4 {
        record.end(Outcome::Refused, &checked.stderr);
        return Ok(false);
    }
    let checked = checked.success()?;
    let met = symbols(&checked.json);
    record.ambiguous =
        met.chain(record.changed.iter().cloned()).filter(|name| shared.contains(name)).collect();
    let applied = guest.apply(&id)?.success()?;
    record.apply = took(&applied);
    for (field, key) in [
        (&mut record.pause, "pause_ns"),
        (&mut record.attempts, "attempts"),
        (&mut record.threads, "threads"),
    ] {
        *field = applied.number(key).unwrap_or(0);
    }
    in_place(guest, record)?;
    exercises.round(guest)?;
    record.undo = took(&guest.undo(&id)?.success()?);
    // Every byte is again what the update was built from.
    guest.check(&id)?.success()?;
    exercises.round(guest)?;
    Ok(true)
}

/// The symbols of the kernel that `check` has found for the new code.
fn symbols(checked: &Value) -> impl Iterator<Item = String> {
    let targets = search(checked, "targets").and_then(Value::as_array).into_iter().flatten();
    let links = targets.filter_map(|target| target.get("symbols")?.as_object()).flat_map(Map::keys);
    // `splice_sym_NUMBER_NAME`.
    links.filter_map(|link| link.splitn(4, '_').nth(3)).map(str::to_owned)
}

/// Run-pre says of an update that is in effect that the jumps at its sites lead into it.
fn in_place(guest: &mut Guest, record: &Record) -> Result<()> {
    if record.changed.is_empty() {
        return Ok(());
    }
    let answer = guest.check(&record.id)?.expect(5)?;
    answer.says(&["has replaced", &record.id]).map(|_| ())
}

/// How many updates a machine held at once, and which were refused since another has replaced the same.
pub(super) struct Together {
    /// How many were in effect at the same time.
    pub(super) applied: usize,
    /// Those that exclude another one.
    pub(super) excluded: Vec<String>,
}

/// Applies everything that can be applied at once, and takes it back in the reverse order.
pub(super) fn together(lab: &Lab, rows: &[Row]) -> Result<Together> {
    let all: Vec<&Row> = rows.iter().filter(|row| row.record.outcome == Outcome::Applied).collect();
    let contents = contents(all.iter().copied(), all.len())?;
    // Some of the exercises switch static keys, now all the time.
    let contents = Contents { memory_mib: Some(4096), rewrites_itself: true, ..contents };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    // One thread of the emulator has to do for the load, the exercises and splice.
    guest.machine.start_load_at(Duration::from_millis(50))?;
    let exercises = exercise::of_all(all.iter().map(|row| &row.record));
    let exercises = Running::begin(&mut guest, exercises)?;
    let mut applied: Vec<&str> = Vec::new();
    let mut excluded = Vec::new();
    for (number, row) in all.iter().enumerate() {
        let id = row.patch.id.as_str();
        eprintln!("together: {} of {} {id}", number + 1, all.len());
        for module in row.record.modules() {
            guest.load_module(module)?;
        }
        let answer = guest.apply(id)?;
        match answer.exit {
            0 => applied.push(id),
            5 if answer.explanation().contains("has replaced") => excluded.push(id.to_owned()),
            _ => bail!("{} with {} others: {}", answer.what, applied.len(), answer.explanation()),
        }
    }
    let count = applied.len();
    exercises.round(&mut guest)?;
    for (number, id) in applied.into_iter().rev().enumerate() {
        eprintln!("together: {} of {count} taken back, {id}", number + 1);
        guest.undo(id)?.success()?;
    }
    exercises.round(&mut guest)?;
    let rounds = exercises.end(&mut guest)?;
    println!("exercises: {rounds} rounds meanwhile, none wrong");
    end(guest)?;
    Ok(Together { applied: count, excluded })
}
