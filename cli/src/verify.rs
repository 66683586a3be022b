// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice verify`: a kernel's text against the objects of its source. Nothing is loaded.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use rayon::prelude::*;
use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::runpre::{self, Snapshot, Survey, Verified};
use splice_core::unit::Unit;

use crate::args::VerifyArgs;
use crate::check;
use crate::exit::{Exit, Failure};
use crate::kernel;
use crate::output::Output;
use crate::prepare::jobs;
use crate::progress::Step;
use crate::settle::settled;
use crate::units::{is_linked, objects};

/// A text that few of the given units are of has so many places without a unit in its list.
const LISTED: usize = 100;
/// Version of the JSON form.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    arch: &'static str,
    /// The kernel's release, where it is known.
    release: Option<&'a str>,
    /// Number of units that were compared.
    units: usize,
    /// Objects that cannot be read as units.
    failed: Vec<String>,
    #[serde(flatten)]
    verified: Verified,
}

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &VerifyArgs,
    output: &Output,
) -> Result<(), Failure> {
    let snapshot = check::snapshot(arch, &args.kernel)?;
    let mut paths = Vec::new();
    if args.units.is_empty() {
        let units = image(arch, args, snapshot.release.as_deref())?;
        paths.extend(units.objects.into_iter().map(|below| (units.root.join(&below), below)));
    }
    for given in &args.units {
        if given.is_dir() {
            paths.extend(objects(given)?.into_iter().map(|below| (given.join(&below), below)));
        } else {
            paths.push((given.clone(), given.clone()));
        }
    }
    if args.target != runpre::VMLINUX && !snapshot.symbols.has_module(&args.target) {
        let text = format!("module {} is not loaded; load it, or leave --target out", args.target);
        return Err(Failure::new(Exit::Mismatch, text));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs(args.jobs))
        .build()
        .map_err(Failure::from_error)?;
    let look = || pool.install(|| compare(arch, &paths, &args.target, &snapshot));
    let foreign = |found: &Compared| {
        let all = found.verified.as_ref().map(|verified| verified.foreign.clone());
        all.filter(|foreign| !foreign.is_empty())
    };
    let found = settled(&snapshot, look, foreign);
    let Compared { units, failed, verified } = found;
    let Some(verified) = verified else {
        let first = failed.first().map_or("there is no object", String::as_str);
        return Err(Failure::new(Exit::Failed, format!("nothing can be compared: {first}")));
    };
    let release = snapshot.release.as_deref();
    let report = Report { version: VERSION, arch: arch.name(), release, units, failed, verified };
    output.result(&report, || text(&report));
    match report.verified.foreign.is_empty() {
        true => Ok(()),
        false => Err(Failure::reported(Exit::Mismatch)),
    }
}

/// What one look at a kernel's text came to.
struct Compared {
    units: usize,
    failed: Vec<String>,
    /// Nothing if no object could be compared.
    verified: Option<Verified>,
}

fn compare(
    arch: &'static dyn Arch,
    paths: &[(PathBuf, PathBuf)],
    target: &str,
    snapshot: &Snapshot,
) -> Compared {
    let step = Step::new("comparing units");
    let done = AtomicUsize::new(0);
    let one = |(path, name): &(PathBuf, PathBuf)| {
        let outcome = survey(arch, path, name, target, snapshot);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        step.at(&format!("comparing units: {done} of {}", paths.len()));
        outcome.map_err(|error| format!("{}: {error:#}", name.display()))
    };
    let outcomes: Vec<Result<Option<Survey>, String>> = paths.par_iter().map(one).collect();
    let mut surveys = Vec::new();
    let mut failed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(survey) => surveys.extend(survey),
            Err(why) => failed.push(why),
        }
    }
    let units = surveys.len();
    let verified = (units > 0).then(|| runpre::verify(arch, surveys, target, snapshot));
    Compared { units, failed, verified }
}

/// The prepared kernel's units.
fn image(
    arch: &'static dyn Arch,
    args: &VerifyArgs,
    release: Option<&str>,
) -> Result<kernel::Units, Failure> {
    if args.target != runpre::VMLINUX {
        let text = format!("say which objects {} was linked from", args.target);
        return Err(Failure::new(Exit::Usage, text));
    }
    let tree = kernel::find(arch, args.release.as_deref().or(release))?;
    kernel::compiled_image(&tree).ok_or_else(|| {
        let release = &tree.facts.release;
        let text = format!(
            "the units of kernel {release} are not compiled, or not all; run: splice prepare \
             --release {release} --units, or name objects"
        );
        Failure::new(Exit::Failed, text)
    })
}

/// What a unit says; nothing for an object that was linked from several, which come by themselves.
fn survey(
    arch: &dyn Arch,
    path: &Path,
    name: &Path,
    target: &str,
    snapshot: &Snapshot,
) -> anyhow::Result<Option<Survey>> {
    let bytes = std::fs::read(path).context("cannot read it")?;
    if is_linked(&bytes) {
        return Ok(None);
    }
    let unit = Unit::read(arch, &name.to_string_lossy(), &bytes)?;
    Ok(Some(runpre::survey(arch, &unit, target, snapshot)?))
}

fn text(report: &Report<'_>) -> String {
    let mut out = String::new();
    let v = &report.verified;
    for one in &v.foreign {
        let _ = writeln!(out, "{}", one.why);
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        v.unexplained.iter().partition(|one| one.why.is_some());
    for one in known.iter().chain(unknown.iter().take(LISTED)) {
        let why = one.why.as_deref().unwrap_or("no given unit has code for it");
        let _ = writeln!(
            out,
            "not proven: {} at {:#x}, {} bytes: {why}",
            one.symbol, one.address, one.size
        );
    }
    rest(&mut out, unknown.len(), "symbols that no given unit has code for");
    for gap in v.gaps.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "of nobody: {} bytes at {:#x}, behind {}",
            gap.size, gap.address, gap.symbol
        );
    }
    rest(&mut out, v.gaps.len(), "stretches of nobody");
    for failed in &report.failed {
        let _ = writeln!(out, "left out: {failed}");
    }
    let _ = writeln!(
        out,
        "{}: {} of {} symbols of the text proven ({}) by {} units, {} values learned",
        v.target,
        v.proven,
        v.symbols,
        share(v.proven as u64, v.symbols as u64),
        report.units,
        v.learned
    );
    let _ = writeln!(
        out,
        "  {} bytes of text: {} proven ({}), {} padding",
        v.text_bytes,
        v.proven_bytes,
        share(v.proven_bytes, v.text_bytes),
        v.padding_bytes
    );
    if v.unread > 0 {
        let _ = writeln!(out, "  {}", check::unread(v.unread));
    }
    for rule in &v.rules {
        let _ = writeln!(
            out,
            "    {:<32} {:>6} places {:>7} bytes",
            rule.rule, rule.places, rule.bytes
        );
    }
    out
}

/// Says how many more there are than are listed.
fn rest(out: &mut String, all: usize, what: &str) {
    if let Some(more) = all.checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(out, "and {more} more {what} (--format json lists all)");
    }
}

/// A share in hundredths of a per cent, rounded down: what is not whole must not look so.
fn share(part: u64, whole: u64) -> String {
    let basis = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02} %", basis / 100, basis % 100)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_never_rounded_up() {
        assert_eq!(share(99_999, 100_000), "99.99 %");
        assert_eq!(share(1, 3), "33.33 %");
        assert_eq!(share(0, 0), "0.00 %");
    }
}
