// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice diff DIR DIR`: all units of two builds of a kernel.
//!
//! Objects are paired by their paths. A pair that cannot be compared is reported and ends nothing.
//! What is printed depends on the trees alone, not on which pair was done first.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::diff::{DiffReport, Verdict};

use super::{end, file, pair, text};
use crate::args::DiffArgs;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::prepare::jobs;
use crate::progress::Step;
use crate::units::{is_linked, objects};

/// The report on two trees; the version is [`splice_core::diff::VERSION`], as for one pair.
#[derive(Serialize)]
struct TreeReport {
    arch: &'static str,
    verdict: Verdict,
    totals: Totals,
    /// Pairs that differ, in the order of their paths.
    units: Vec<UnitReport>,
    /// Units that only the second tree has.
    added: Vec<String>,
    /// Units that only the first tree has.
    removed: Vec<String>,
    /// Pairs that could not be compared.
    failed: Vec<UnitFailure>,
}

#[derive(Serialize)]
struct UnitReport {
    unit: String,
    report: DiffReport,
}

#[derive(Serialize)]
struct UnitFailure {
    unit: String,
    why: String,
}

/// Numbers of units, and of functions in the units that differ.
#[derive(Default, Serialize)]
struct Totals {
    /// In both trees, without those that were linked from others.
    pairs: usize,
    unchanged: usize,
    changed: usize,
    refused: usize,
    failed: usize,
    added: usize,
    removed: usize,
    /// Objects that were linked from several units, which are compared one by one.
    linked: usize,
    functions_changed: usize,
    functions_new: usize,
    functions_removed: usize,
}

/// What became of one pair.
enum Outcome {
    Unchanged,
    Linked,
    Differs(Box<DiffReport>),
    Failed(String),
}

pub(super) fn run(
    arch: &'static dyn Arch,
    args: &DiffArgs,
    output: &Output,
) -> Result<(), Failure> {
    let (pre, post) = (objects(&args.pre)?, objects(&args.post)?);
    let both: Vec<&PathBuf> = pre.intersection(&post).collect();
    if pre.is_empty() && post.is_empty() {
        let text = format!("no object is in {} or {}", args.pre.display(), args.post.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    let step = Step::new("comparing units");
    let done = AtomicUsize::new(0);
    let one = |path: &&PathBuf| {
        let outcome = compare(arch, &args.pre.join(path), &args.post.join(path));
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        step.at(&format!("comparing units: {done} of {}", both.len()));
        outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")))
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs(args.jobs))
        .build()
        .map_err(Failure::from_error)?;
    let outcomes: Vec<Outcome> = pool.install(|| both.par_iter().map(one).collect());
    drop(step);

    let names = |paths: Vec<&PathBuf>| paths.into_iter().map(|p| name(p)).collect();
    let mut report = TreeReport {
        arch: arch.name(),
        verdict: Verdict::Unchanged,
        totals: Totals::default(),
        units: Vec::new(),
        added: names(post.difference(&pre).collect()),
        removed: names(pre.difference(&post).collect()),
        failed: Vec::new(),
    };
    for (path, outcome) in both.iter().zip(outcomes) {
        report.add(name(path), outcome);
    }
    report.close();
    output.result(&report, || words(&report));
    if report.totals.failed > 0 {
        return Err(Failure::reported(Exit::Failed));
    }
    end(report.verdict)
}

impl TreeReport {
    fn add(&mut self, unit: String, outcome: Outcome) {
        let totals = &mut self.totals;
        match outcome {
            Outcome::Linked => totals.linked += 1,
            Outcome::Unchanged => totals.unchanged += 1,
            Outcome::Failed(why) => self.failed.push(UnitFailure { unit, why }),
            Outcome::Differs(report) => {
                totals.functions_changed += report.functions.changed.len();
                totals.functions_new += report.functions.new.len();
                totals.functions_removed += report.functions.removed.len();
                match report.verdict {
                    Verdict::Refused => totals.refused += 1,
                    _ => totals.changed += 1,
                }
                self.units.push(UnitReport { unit, report: *report });
            }
        }
    }

    /// Counts what is listed, and says what it comes to.
    fn close(&mut self) {
        let totals = &mut self.totals;
        totals.failed = self.failed.len();
        totals.added = self.added.len();
        totals.removed = self.removed.len();
        totals.pairs = totals.unchanged + totals.changed + totals.refused + totals.failed;
        self.verdict = if totals.refused > 0 {
            Verdict::Refused
        } else if totals.changed + totals.added + totals.removed > 0 {
            Verdict::Changed
        } else {
            Verdict::Unchanged
        };
    }
}

fn compare(arch: &dyn Arch, pre: &Path, post: &Path) -> anyhow::Result<Outcome> {
    let (pre_bytes, post_bytes) = (file(pre)?, file(post)?);
    if is_linked(&pre_bytes) || is_linked(&post_bytes) {
        return Ok(Outcome::Linked);
    }
    if pre_bytes == post_bytes {
        return Ok(Outcome::Unchanged);
    }
    let report = pair(arch, pre, &pre_bytes, post, &post_bytes)?;
    Ok(match report.verdict {
        Verdict::Unchanged => Outcome::Unchanged,
        _ => Outcome::Differs(Box::new(report)),
    })
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn words(report: &TreeReport) -> String {
    let mut out = String::new();
    for unit in &report.units {
        let _ = writeln!(out, "{}", unit.unit);
        for line in text(&unit.report).lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    for unit in &report.removed {
        let _ = writeln!(out, "{unit}\n  is only in the first tree");
    }
    for unit in &report.added {
        let _ = writeln!(out, "{unit}\n  is only in the second tree");
    }
    for failure in &report.failed {
        let _ = writeln!(out, "{}\n  failed    {}", failure.unit, failure.why);
    }
    let t = &report.totals;
    let _ = writeln!(
        out,
        "{} units in both: {} unchanged, {} changed, {} refused, {} failed; {} only before, {} only \
         after; {} linked from others left out",
        t.pairs, t.unchanged, t.changed, t.refused, t.failed, t.removed, t.added, t.linked
    );
    let _ = writeln!(
        out,
        "functions: {} changed, {} new, {} removed",
        t.functions_changed, t.functions_new, t.functions_removed
    );
    out
}
