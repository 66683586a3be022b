// SPDX-License-Identifier: GPL-2.0-or-later
//! The corpus run: real fixes through create, check, apply and undo on a stock kernel under load. What
//! it finds out about a fix is kept, so that a run goes on where the last one was stopped; the result
//! is a table, and a page.

mod create;
pub mod exercise;
mod machine;
mod page;
mod record;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::session::Lab;
use crate::{author, fixes};
use record::{Outcome, Record, Store};

/// A fix as a patch.
pub struct Patch {
    /// The update's id.
    id: String,
    /// Its CVE number, where it is known.
    cve: String,
    /// The patch.
    text: String,
    /// The same with an author's code, for where it is refused, and words for `splice create`.
    aided: Option<Aided>,
}

/// A patch with an author's code.
struct Aided {
    text: String,
    accept: Vec<String>,
    /// Lines that the author has written.
    lines: usize,
}

impl Patch {
    /// A patch with a name of any kind.
    #[must_use]
    pub fn new(name: &str, text: String) -> Patch {
        Patch { id: identifier(name), cve: String::new(), text, aided: None }
    }
}

/// One fix on its way.
struct Row {
    patch: Patch,
    record: Record,
    update: PathBuf,
}

/// How many fixes ended in which way.
pub struct Tally {
    /// Created, checked, applied, undone.
    pub passed: usize,
    /// Refused with a reason, or without an effect on this kernel.
    pub refused: usize,
    /// What they make of the source does not compile.
    pub incomplete: usize,
    /// Anything else.
    pub failed: usize,
}

/// Words of `splice create` for that.
const DOES_NOT_COMPILE: &str = "the patched source does not compile";

/// Which fixes are to be tried.
pub enum Choice<'a> {
    /// So many of the manifest, from its start. All of them have to pass.
    First(usize),
    /// All of the manifest.
    All,
    /// The patches of a directory.
    Directory(&'a Path),
}

/// Runs the fixes, and writes the page if one is wanted. True if none failed.
pub fn run(choice: &Choice<'_>, page: Option<&Path>) -> Result<bool> {
    let mut fixes = fixes::manifest()?;
    if let Choice::First(count) = choice {
        fixes.truncate(*count);
    }
    let first = fixes.first().context("the manifest is empty")?;
    let lab = Lab::open(&first.base, &first.target)?;
    let patches = match choice {
        Choice::Directory(directory) => {
            let all = fixes::directory(directory)?.into_iter();
            all.map(|(name, text)| Patch::new(&name, text)).collect()
        }
        Choice::First(_) | Choice::All => derive(&lab, &fixes)?,
    };
    let rows = go(&lab, patches)?;
    let tally = tally(&rows);
    let together = match choice {
        Choice::First(_) => None,
        Choice::All | Choice::Directory(_) => Some(machine::together(&lab, &rows)?),
    };
    if let Some(together) = &together {
        println!(
            "{} updates at the same time; {} exclude another",
            together.applied,
            together.excluded.len()
        );
    }
    if let Some(file) = page {
        let text = page::text(&lab, &rows, together.as_ref());
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // The first of the manifest are all within reach.
    let all_within_reach = matches!(choice, Choice::First(_));
    let failed = tally.failed + tally.incomplete;
    Ok(failed == 0 && !(all_within_reach && tally.refused > 0))
}

/// Takes each patch through create, check, apply and undo on the lab's kernel, and prints the table.
pub fn try_all(lab: &Lab, patches: Vec<Patch>) -> Result<Tally> {
    Ok(tally(&go(lab, patches)?))
}

/// Updates of these fixes of the manifest, by id. All of them have to be made.
pub fn updates(lab: &Lab, fixes: &[fixes::Fix]) -> Result<Vec<(String, PathBuf)>> {
    let store = Store::open(lab)?;
    let mut rows = known(&store, derive(lab, fixes)?);
    make(lab, &store, &mut rows)?;
    for Row { patch, record, .. } in &rows {
        ensure!(!record.targets.is_empty(), "no update of {}: {}", patch.id, record.why);
    }
    Ok(rows.into_iter().map(|row| (row.patch.id, row.update)).collect())
}

fn derive(lab: &Lab, fixes: &[fixes::Fix]) -> Result<Vec<Patch>> {
    fixes::prefetch(&lab.cache, fixes)?;
    let patch = |fix: &fixes::Fix| {
        let text = fix.patch(&lab.cache)?;
        let aided = match author::of(&fix.id)? {
            Some(author) => Some(Aided {
                text: fix.patch_by(&lab.cache, Some(&author))?,
                lines: author.lines(),
                accept: author.accept,
            }),
            None => None,
        };
        Ok(Patch { id: fix.id.clone(), cve: fix.cve.clone(), text, aided })
    };
    fixes.iter().map(patch).collect()
}

/// What is known of each patch already.
fn known(store: &Store, patches: Vec<Patch>) -> Vec<Row> {
    let row = |patch: Patch| {
        let (record, update) = (store.load(&patch), store.update(&patch));
        Row { patch, record, update }
    };
    patches.into_iter().map(row).collect()
}

/// Makes the updates that are not made yet, where one can be made.
fn make(lab: &Lab, store: &Store, rows: &mut [Row]) -> Result<()> {
    ensure!(!rows.is_empty(), "there is no fix to try");
    lab.prepare()?;
    create::all(lab, store, rows)
}

fn go(lab: &Lab, patches: Vec<Patch>) -> Result<Vec<Row>> {
    let store = Store::open(lab)?;
    let mut rows = known(&store, patches);
    // A tool that is missing is missed now, and not once all updates are made.
    exercise::files(&exercise::of_all(rows.iter().map(|row| &row.record)))?;
    make(lab, &store, &mut rows)?;
    machine::one_by_one(lab, &store, &mut rows)?;
    print!("{}", page::table(&rows));
    for row in rows.iter().filter(|row| row.record.outcome != Outcome::Applied) {
        println!("{}: {}", row.patch.id, row.record.why);
    }
    let tally = tally(&rows);
    println!(
        "{} fixes: {} passed, {} refused, {} do not compile, {} failed",
        rows.len(),
        tally.passed,
        tally.refused,
        tally.incomplete,
        tally.failed
    );
    Ok(rows)
}

fn tally(rows: &[Row]) -> Tally {
    let count =
        |wanted: &[Outcome]| rows.iter().filter(|row| wanted.contains(&row.record.outcome)).count();
    let does_not_compile = |row: &&Row| {
        row.record.outcome == Outcome::Failed && row.record.why.contains(DOES_NOT_COMPILE)
    };
    let incomplete = rows.iter().filter(does_not_compile).count();
    Tally {
        passed: count(&[Outcome::Applied]),
        refused: count(&[Outcome::Refused, Outcome::Unchanged, Outcome::NotLoaded]),
        incomplete,
        failed: count(&[Outcome::Failed, Outcome::Pending, Outcome::Created]) - incomplete,
    }
}

/// An update's id: lower-case letters, digits, `-` and `_`, at most 40 bytes.
fn identifier(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let clean = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let cut: String = clean.take(40).collect();
    cut.trim_matches('-').to_owned()
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
