// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates of all fixes, made and held against the image on the host.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Row;
use super::record::{Outcome, Record, Store};
use crate::session::{Lab, search};

/// Makes what is not made yet, on all processors.
pub(super) fn all(lab: &Lab, store: &Store, rows: &mut [Row]) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut open: Vec<&mut Row> =
        rows.iter_mut().filter(|row| row.record.outcome == Outcome::Pending).collect();
    let total = open.len();
    if total == 0 {
        return Ok(());
    }
    let started = Instant::now();
    let queue = Mutex::new((0, open.iter_mut()));
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = {
                        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                        queue.0 += 1;
                        queue.1.next().map(|row| (queue.0, row))
                    };
                    let Some((number, row)) = next else { break };
                    eprintln!("create {number}/{total} {}", row.patch.id);
                    if let Err(error) = one(lab, store, row) {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        break;
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let took = started.elapsed().as_secs_f64();
    println!("create: {total} fixes in {took:.0} s, {:.1} s for each", took / total as f64);
    Ok(())
}

fn one(lab: &Lab, store: &Store, row: &mut Row) -> Result<()> {
    let (patch, record) = (&row.patch, &mut row.record);
    let mut made = create(lab, (&patch.text, &[]), &row.update, record);
    if record.outcome == Outcome::Refused
        && let Some(aided) = &patch.aided
    {
        let why = std::mem::take(&mut record.why);
        record.aided = Some(aided.lines);
        let text = (aided.text.as_str(), aided.accept.as_slice());
        made = create(lab, text, &row.update, record);
        if record.outcome == Outcome::Created {
            record.why = why;
        }
    }
    if let Err(error) = made {
        record.end(Outcome::Failed, &format!("create: {error:#}"));
    }
    store.save(patch, record)
}

fn create(
    lab: &Lab,
    (text, accept): (&str, &[String]),
    update: &Path,
    record: &mut Record,
) -> Result<()> {
    let accept: Vec<&str> = accept.iter().flat_map(|what| ["--accept", what]).collect();
    let answer = lab.create_at(update, &record.id, text, &accept)?;
    record.create = u64::try_from(answer.duration.as_millis())?;
    match answer.exit {
        0 => record.end(Outcome::Created, ""),
        3 => record.end(Outcome::Unchanged, &answer.stderr),
        4 => {
            let objections = search(&answer.json, "details").and_then(Value::as_array);
            record.at_start = objections.is_some_and(|all| all.iter().all(is_of_start));
            record.end(Outcome::Refused, &answer.stderr);
        }
        _ => record.end(Outcome::Failed, &format!("create: {}", answer.stderr)),
    }
    if answer.exit != 0 {
        return Ok(());
    }
    let list = |key| search(&answer.json, key).and_then(Value::as_array).cloned();
    let name = |one: &Value| one.as_str().or_else(|| one.get("name")?.as_str()).map(str::to_owned);
    let names = |key| list(key).unwrap_or_default().iter().filter_map(name).collect::<Vec<_>>();
    let changed = list("changed").context("create does not say what it has changed")?;
    record.inlined = changed.iter().filter(|function| is_inlined(function)).count();
    record.changed = names("changed");
    record.new = list("new").map_or(0, |new| new.len());
    record.data = list("objects").map_or(0, |objects| objects.len());
    record.targets = names("targets");
    ensure!(!record.targets.is_empty(), "create does not say what it patches");
    record.size = answer.number("size").unwrap_or(0);
    if let Some(Value::Object(phases)) = search(&answer.json, "phases") {
        let all = phases.iter().filter_map(|(name, time)| Some((name.clone(), time.as_u64()?)));
        record.phases = all.collect();
    }
    if record.targets.iter().any(|target| target == "vmlinux") {
        let image = lab.image.kernel.to_string_lossy().into_owned();
        let checked = lab.splice(&["check", "--kernel", &image, &update.to_string_lossy()])?;
        record.image = Some(checked.exit == 0);
        if checked.exit != 0 {
            record.end(Outcome::Failed, &format!("check --kernel: {}", checked.stderr));
        }
    }
    Ok(())
}

/// Whether an objection is to a change of code that only the start of the kernel or a module runs.
fn is_of_start(objection: &Value) -> bool {
    let why = objection.get("why").and_then(Value::as_str);
    why.is_some_and(|why| why.starts_with("it runs only while the kernel or the module starts"))
}

/// Whether a function's new code comes from one that was inlined into it.
fn is_inlined(function: &Value) -> bool {
    let reasons = function.get("reasons").and_then(Value::as_array);
    let says = |reason: &Value| reason.as_str().is_some_and(|text| text.contains("inlined "));
    reasons.is_some_and(|reasons| reasons.iter().any(says))
}
