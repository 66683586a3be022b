// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice inspect`: what an update file holds.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use splice_core::update::{Change, Manifest, Update};

use crate::args::InspectArgs;
use crate::exit::Failure;
use crate::output::Output;

/// Where an update keeps what it was made from.
pub(crate) const PATCHES: &str = "patches/";

#[derive(Serialize)]
struct Inspected<'a> {
    /// Size of the update file in bytes.
    size: u64,
    manifest: &'a Manifest,
}

/// Reads an update file; returns its size in bytes too.
pub(crate) fn read(path: &Path) -> Result<(Update, u64), Failure> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let update = Update::read(&bytes)
        .with_context(|| format!("{} is refused", path.display()))
        .map_err(Failure::from)?;
    Ok((update, bytes.len() as u64))
}

/// Names of the functions that an update replaces.
pub(crate) fn replaced(manifest: &Manifest) -> Vec<String> {
    manifest
        .targets
        .iter()
        .flat_map(|target| &target.functions)
        .filter(|function| function.change == Change::Changed)
        .map(|function| function.name.clone())
        .collect()
}

/// Names of the data objects whose contents an update replaces.
pub(crate) fn objects(manifest: &Manifest) -> Vec<String> {
    let all = manifest.targets.iter().flat_map(|target| &target.objects);
    all.map(|object| object.name.clone()).collect()
}

pub(crate) fn run(args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let (update, size) = read(&args.file)?;
    let inspected = Inspected { size, manifest: &update.manifest };
    output.result(&inspected, || text(&inspected));
    Ok(())
}

fn text(inspected: &Inspected<'_>) -> String {
    let manifest = inspected.manifest;
    let mut out = String::new();
    let _ = writeln!(out, "{}: {}", manifest.id, manifest.description);
    let _ = writeln!(out, "  for        {} ({})", manifest.release, manifest.arch);
    let _ = writeln!(out, "  compiler   {}", manifest.compiler);
    let _ = writeln!(out, "  size       {} bytes", inspected.size);
    for target in &manifest.targets {
        let _ = writeln!(out, "  target     {} (by module {})", target.name, target.module_name);
        for unit in &target.units {
            let _ = writeln!(out, "    unit     {}", unit.name);
        }
        for function in &target.functions {
            let change = match function.change {
                Change::Changed => "changed",
                Change::New => "new    ",
            };
            let _ = writeln!(out, "    {change}  {}", function.name);
            for reason in &function.reasons {
                let _ = writeln!(out, "             {reason}");
            }
        }
        for object in &target.objects {
            let _ = writeln!(out, "    data     {} ({} bytes, in place)", object.name, object.size);
            for reason in &object.reasons {
                let _ = writeln!(out, "             {reason}");
            }
        }
        for hook in &target.hooks {
            let _ = writeln!(out, "    hook     {} ({})", hook.name, hook.words());
        }
        for shadow in &target.shadows {
            let _ = writeln!(out, "    shadow   {}", shadow.name);
        }
        let _ = writeln!(out, "    needs    {} unexported symbols", target.symbols.len());
    }
    let _ = writeln!(out, "  files");
    for file in &manifest.files {
        let _ = writeln!(out, "    {:>9}  {}", file.size, file.path);
    }
    out
}
