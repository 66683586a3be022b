// SPDX-License-Identifier: GPL-2.0-or-later
//! The corpus run: real fixes through create, check, apply and undo, in one machine, under load; a
//! table as the result, and each refusal with its reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::demo::switched;
use crate::fixes;
use crate::session::{Answer, Contents, Guest, Lab, search};

/// One fix on its way.
struct Row {
    id: String,
    patch: String,
    update: Option<PathBuf>,
    targets: Vec<String>,
    cells: BTreeMap<&'static str, String>,
    note: String,
    outcome: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pending,
    Passed,
    Refused,
    Failed,
}

/// How many fixes ended in which way.
pub struct Tally {
    /// Created, checked, applied, undone.
    pub passed: usize,
    /// Refused with a reason.
    pub refused: usize,
    /// Anything else.
    pub failed: usize,
}

/// Runs the fixes of the manifest, or the patches of a directory. True if every one passed or was
/// refused with a reason, and at least `limit` (or all) of the manifest's passed.
pub fn run(limit: Option<usize>, patches: Option<&Path>) -> Result<bool> {
    let all = fixes::manifest()?;
    let first = all.first().ok_or_else(|| anyhow::anyhow!("the manifest is empty"))?;
    let lab = Lab::open(&first.base, &first.target)?;
    let mut texts: Vec<(String, String)> = match patches {
        Some(directory) => fixes::directory(directory)?.into_iter().collect(),
        None => {
            fixes::prefetch(&lab.cache, &all)?;
            all.iter()
                .map(|fix| Ok((fix.id.clone(), fix.patch(&lab.cache)?)))
                .collect::<Result<_>>()?
        }
    };
    texts.truncate(limit.unwrap_or(usize::MAX));
    let tally = try_all(&lab, texts)?;
    // The manifest's fixes are all known to be within reach.
    let refusals_allowed = patches.is_some();
    Ok(tally.failed == 0 && (refusals_allowed || tally.refused == 0))
}

/// Takes each patch through create, check, apply and undo on the lab's kernel, in one machine, and
/// prints the table.
pub fn try_all(lab: &Lab, patches: Vec<(String, String)>) -> Result<Tally> {
    let mut rows: Vec<Row> = patches
        .into_iter()
        .map(|(name, patch)| Row {
            id: identifier(&name),
            patch,
            update: None,
            targets: Vec::new(),
            cells: BTreeMap::new(),
            note: String::new(),
            outcome: Verdict::Pending,
        })
        .collect();
    ensure!(!rows.is_empty(), "there is no fix to try");
    lab.prepare()?;
    create_all(lab, &mut rows)?;
    in_machine(lab, &mut rows)?;
    print(&rows);
    let count = |verdict| rows.iter().filter(|row| row.outcome == verdict).count();
    let tally = Tally {
        passed: count(Verdict::Passed),
        refused: count(Verdict::Refused),
        failed: count(Verdict::Failed),
    };
    println!(
        "{} fixes: {} passed, {} refused, {} failed",
        rows.len(),
        tally.passed,
        tally.refused,
        tally.failed
    );
    Ok(tally)
}

/// An update's id: lower-case letters, digits, `-` and `_`, at most 40 bytes.
fn identifier(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let clean = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let cut: String = clean.take(40).collect();
    cut.trim_matches('-').to_owned()
}

fn create_all(lab: &Lab, rows: &mut [Row]) -> Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let total = rows.len();
    let queue = Mutex::new((0, rows.iter_mut()));
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
                    eprintln!("create {number}/{total} {}", row.id);
                    create(lab, row);
                }
            });
        }
    });
    Ok(())
}

fn create(lab: &Lab, row: &mut Row) {
    match lab.create(&row.id, &row.patch) {
        Ok((update, answer)) => {
            row.cells.insert("create", format!("{:.1} s", answer.duration.as_secs_f64()));
            match answer.exit {
                0 => {
                    row.update = Some(update.clone());
                    if let Ok(inspected) = lab.splice(&["inspect", &update.to_string_lossy()]) {
                        row.targets = targets(&inspected);
                        row.cells.insert("target", row.targets.join(" "));
                    }
                }
                3 | 4 => row.end(Verdict::Refused, &answer.stderr),
                _ => row.end(Verdict::Failed, &format!("create: {}", answer.stderr)),
            }
        }
        Err(error) => row.end(Verdict::Failed, &format!("create: {error:#}")),
    }
}

/// Names of an update's targets.
fn targets(inspected: &Answer) -> Vec<String> {
    let Some(Value::Array(list)) = search(&inspected.json, "targets") else { return Vec::new() };
    list.iter()
        .filter_map(|target| match target {
            Value::String(name) => Some(name.clone()),
            other => other.get("name").and_then(Value::as_str).map(str::to_owned),
        })
        .collect()
}

fn in_machine(lab: &Lab, rows: &mut [Row]) -> Result<()> {
    let created: Vec<(String, PathBuf)> = rows
        .iter()
        .filter_map(|row| row.update.clone().map(|update| (row.id.clone(), update)))
        .collect();
    if created.is_empty() {
        return Ok(());
    }
    let mut modules: Vec<String> = rows
        .iter()
        .flat_map(|row| row.targets.iter().filter(|name| *name != "vmlinux").cloned())
        .collect();
    modules.sort();
    modules.dedup();
    let updates = created.iter().map(|(id, path)| (id.as_str(), path.as_path())).collect();
    let limit = Some(Duration::from_secs(300 + 60 * created.len() as u64));
    let contents = Contents { updates, modules, limit, ..Contents::default() };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    guest.machine.start_load()?;
    for row in rows.iter_mut().filter(|row| row.update.is_some()) {
        eprintln!("try {}", row.id);
        if let Err(error) = try_one(&mut guest, row) {
            row.end(Verdict::Failed, &format!("{error:#}"));
            // Without a machine nothing more can be learned.
            if guest.loaded().is_err() {
                break;
            }
        }
    }
    for row in rows.iter_mut().filter(|row| row.outcome == Verdict::Pending) {
        row.end(Verdict::Failed, "the machine was lost before its turn");
    }
    let load = guest.machine.stop_load()?;
    println!("load: {} operations meanwhile, {} wrong", load.operations(), load.wrong);
    ensure!(load.wrong == 0, "the load saw wrong results: {}", load.examples.join("; "));
    guest.expect_clean()?;
    guest.machine.power_off()
}

fn try_one(guest: &mut Guest, row: &mut Row) -> Result<()> {
    let checked = guest.check(&row.id)?;
    row.cells.insert("check", format!("{:.1} s", checked.duration.as_secs_f64()));
    if checked.exit == 4 {
        row.end(Verdict::Refused, &checked.stderr);
        return Ok(());
    }
    checked.success()?;
    let applied = guest.apply(&row.id)?.success()?;
    row.cells.insert("apply", format!("{:.1} s", applied.duration.as_secs_f64()));
    let status = guest.splice(&["status", &row.id])?.success()?;
    if let Some(pause) = status.number("pause_ns") {
        row.cells.insert("pause", format!("{:.2} ms", pause as f64 / 1e6));
    }
    row.note = switched(&status).trim_start_matches(", ").to_owned();
    let undone = guest.undo(&row.id)?.success()?;
    row.cells.insert("undo", format!("{:.1} s", undone.duration.as_secs_f64()));
    guest.expect_clean()?;
    row.outcome = Verdict::Passed;
    Ok(())
}

impl Row {
    fn end(&mut self, verdict: Verdict, why: &str) {
        self.outcome = verdict;
        self.note = why.trim().to_owned();
    }
}

fn print(rows: &[Row]) {
    let columns = ["target", "create", "check", "apply", "pause", "undo"];
    let width = |column: &str| {
        let longest = rows.iter().filter_map(|row| row.cells.get(column)).map(String::len).max();
        longest.unwrap_or(0).max(column.len())
    };
    let names = rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(3);
    let mut line = format!("{:<names$}  {:<7}", "fix", "result");
    for column in columns {
        line.push_str(&format!("  {column:<width$}", width = width(column)));
    }
    println!("{}", line.trim_end());
    for row in rows {
        let verdict = match row.outcome {
            Verdict::Pending => "pending",
            Verdict::Passed => "ok",
            Verdict::Refused => "refused",
            Verdict::Failed => "FAILED",
        };
        let mut line = format!("{:<names$}  {verdict:<7}", row.id);
        for column in columns {
            let cell = row.cells.get(column).map_or("", String::as_str);
            line.push_str(&format!("  {cell:<width$}", width = width(column)));
        }
        println!("{}", line.trim_end());
    }
    for row in rows.iter().filter(|row| row.outcome != Verdict::Passed) {
        println!("{}: {}", row.id, row.note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_within_the_rules() {
        let id = identifier("0005-tcp-restrict-so-attach-filter-to-priv-users");
        assert_eq!(id, "0005-tcp-restrict-so-attach-filter-to-pr");
        assert_eq!(identifier("X y_Z-"), "x-y-z");
    }
}
