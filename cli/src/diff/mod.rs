// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice diff`: two objects, and what changed between them; or two trees of objects.

mod tree;

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use object::FileKind;
use splice_core::arch::Arch;
use splice_core::debug::{self, Layouts};
use splice_core::diff::{ChangedItem, DiffReport, Objection, Verdict, diff_units, report};
use splice_core::unit::Unit;

use crate::args::DiffArgs;
use crate::exit::{Exit, Failure};
use crate::output::Output;

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &DiffArgs,
    output: &Output,
) -> Result<(), Failure> {
    match (args.pre.is_dir(), args.post.is_dir()) {
        (true, true) => return tree::run(arch, args, output),
        (false, false) => {}
        (pre, _) => {
            let (directory, other) =
                if pre { (&args.pre, &args.post) } else { (&args.post, &args.pre) };
            let text = format!(
                "{} is a directory and {} is not; two objects can be compared, or two directories",
                directory.display(),
                other.display()
            );
            return Err(Failure::new(Exit::Usage, text));
        }
    }
    let report = pair(arch, &args.pre, &file(&args.pre)?, &args.post, &file(&args.post)?)?;
    output.result(&report, || text(&report));
    end(report.verdict)
}

/// How the command ends.
fn end(verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Changed => Ok(()),
        Verdict::Unchanged => Err(Failure::reported(Exit::Unchanged)),
        Verdict::Refused => Err(Failure::reported(Exit::Refused)),
    }
}

fn file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The report on two objects, of which the bytes were read.
fn pair(
    arch: &dyn Arch,
    pre: &Path,
    pre_bytes: &[u8],
    post: &Path,
    post_bytes: &[u8],
) -> anyhow::Result<DiffReport> {
    if is_32_bit(pre_bytes) && is_32_bit(post_bytes) {
        let objection = Objection::new(
            "32-bit code",
            "it differs, and no update can replace it: it runs before the kernel proper, or is the \
             vDSO's, which processes run",
            "leave this change out of the patch, or restart with a kernel that has it",
        );
        let refusals = if pre_bytes == post_bytes { Vec::new() } else { vec![objection] };
        return Ok(DiffReport::bare(arch, refusals));
    }
    let pre = Unit::read(arch, &pre.to_string_lossy(), pre_bytes)?;
    let post = Unit::read(arch, &post.to_string_lossy(), post_bytes)?;
    let mut diff = diff_units(arch, &pre, &post)?;
    let layouts = debug::examine(
        arch,
        debug::Build { unit: &pre, bytes: pre_bytes },
        debug::Build { unit: &post, bytes: post_bytes },
        &|_| false,
        &mut diff,
    );
    Ok(DiffReport { layouts: Some(layouts), ..report(arch, &pre, &post, &diff) })
}

/// Whether an object is 32-bit code. A 64-bit kernel's tree has some, and none of it is the kernel.
fn is_32_bit(object: &[u8]) -> bool {
    FileKind::parse(object) == Ok(FileKind::Elf32)
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
    items(&mut out, "ignored", &report.functions.ignored);
    for name in &report.functions.removed {
        let _ = writeln!(out, "removed   {name}");
    }
    for item in &report.data.replaced {
        let _ = writeln!(out, "data      {} is replaced in place", item.name);
        for reason in &item.reason {
            let _ = writeln!(out, "          {reason}");
        }
    }
    let replaced = |name: &str| report.data.replaced.iter().any(|item| item.name == name);
    for name in report.data.changed.iter().filter(|name| !replaced(name.as_str())) {
        let _ = writeln!(out, "data      {name} changed");
    }
    for name in &report.data.new {
        let _ = writeln!(out, "data      {name} is new");
    }
    for refusal in &report.refusals {
        let _ = writeln!(out, "refused   {}: {}", refusal.what, refusal.why);
        let _ = writeln!(out, "          {}", refusal.ways());
    }
    if let Some(Layouts::Unknown(why)) = &report.layouts {
        let _ = writeln!(out, "layouts of types were not compared: {why}");
    }
    if report.verdict == Verdict::Unchanged {
        out.push_str("nothing changed that a running kernel would notice\n");
    }
    out
}
