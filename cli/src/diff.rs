// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice diff`: two objects, and what changed between them.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use splice_core::arch::Arch;
use splice_core::diff::{ChangedItem, DiffReport, Verdict, diff_units, report};
use splice_core::unit::Unit;

use crate::args::DiffArgs;
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &DiffArgs,
    output: &Output,
) -> Result<(), Failure> {
    let pre = read(arch, &args.pre)?;
    let post = read(arch, &args.post)?;
    let diff = diff_units(arch, &pre, &post).map_err(Failure::from_error)?;
    let report = report(arch, &pre, &post, &diff);
    output.result(&report, || text(&report));
    match report.verdict {
        Verdict::Changed => Ok(()),
        Verdict::Unchanged => Err(Failure::reported(Exit::Unchanged)),
        Verdict::Refused => Err(Failure::reported(Exit::Refused)),
    }
}

fn read(arch: &dyn Arch, path: &Path) -> Result<Unit, Failure> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Unit::read(arch, &path.to_string_lossy(), &bytes).map_err(anyhow::Error::from)?)
}

fn items(out: &mut String, title: &str, items: &[ChangedItem]) {
    for item in items {
        let _ = writeln!(out, "{title:<8}  {}", item.name);
        for reason in &item.reason {
            let _ = writeln!(out, "          {reason}");
        }
        if !item.parts.is_empty() {
            let _ = writeln!(out, "          with {}", item.parts.join(", "));
        }
    }
}

fn text(report: &DiffReport) -> String {
    let mut out = String::new();
    items(&mut out, "changed", &report.functions.changed);
    items(&mut out, "new", &report.functions.new);
    for name in &report.functions.removed {
        let _ = writeln!(out, "removed   {name}");
    }
    for name in &report.data.changed {
        let _ = writeln!(out, "data      {name} changed");
    }
    for name in &report.data.new {
        let _ = writeln!(out, "data      {name} is new");
    }
    for refusal in &report.refusals {
        let _ = writeln!(out, "refused   {}: {}", refusal.what, refusal.why);
        let _ = writeln!(out, "          {}", refusal.ways());
    }
    if report.verdict == Verdict::Unchanged {
        out.push_str("nothing changed that a running kernel would notice\n");
    }
    out
}
