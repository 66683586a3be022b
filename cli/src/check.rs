// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice check`: would the update apply to this kernel? Nothing is loaded.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::plan::{self, Values};
use splice_core::runpre::{
    self, CoreFile, Kallsyms, LiveError, Memory, RawDump, Refusal, Report, Snapshot,
};
use splice_core::unit::Unit;
use splice_core::update::{Manifest, Target, Update};

use crate::absent::{self, LeftOut};
use crate::args::{CheckArgs, KernelArgs};
use crate::exit::{Exit, Failure};
use crate::inspect;
use crate::live;
use crate::output::Output;
use crate::progress::Phases;
use crate::settle::{mismatch, settled};

/// A kernel that an update fits.
pub(crate) struct Checked {
    /// The update without what is not in the kernel.
    pub(crate) manifest: Manifest,
    /// Its targets that are not there.
    pub(crate) left_out: Vec<String>,
    /// What was matched.
    pub(crate) report: Report,
    /// What each target's update module is to be finished with.
    pub(crate) values: Vec<Values>,
}

#[derive(Serialize)]
struct Fits<'a> {
    id: &'a str,
    verdict: &'static str,
    /// Functions that would be replaced.
    functions: Vec<String>,
    /// Data objects whose contents would be replaced; all of them were proven.
    objects: Vec<String>,
    /// Functions of the touched units that the kernel's text was proven to hold.
    matched: usize,
    /// Their bytes.
    matched_bytes: u64,
    /// Symbol values read from the kernel's text.
    learned: usize,
    /// Targets that are not in the kernel, and would stay as they are.
    left_out: Vec<LeftOut>,
    /// Threads of the running kernel that are in the functions just now.
    in_use: Vec<live::User>,
    /// Milliseconds: reading the update, reading the kernel's symbols, matching, looking at the threads'
    /// stacks.
    phases: Phases,
    #[serde(rename = "match")]
    report: &'a Report,
}

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &CheckArgs,
    output: &Output,
) -> Result<(), Failure> {
    let mut phases = Phases::new();
    let (update, _) = inspect::read(&args.file)?;
    phases.end("read");
    let mut snapshot = snapshot(arch, &args.kernel)?;
    let is_live = args.kernel.kernel.is_none() && args.kernel.snapshot.is_none();
    if is_live {
        snapshot = snapshot.with_updates(live::applied()?);
    }
    phases.end("kernel");
    let Checked { manifest, left_out, report, .. } = check(arch, &update, &snapshot)?;
    phases.end("match");
    let manifest = &manifest;
    let in_use = if is_live { live::users(&places(manifest, &report)) } else { Vec::new() };
    phases.end("stacks");
    let result = Fits {
        id: &manifest.id,
        verdict: "fits",
        functions: inspect::replaced(manifest),
        objects: inspect::objects(manifest),
        matched: report.proven(),
        matched_bytes: report.bytes(),
        learned: report.learned(),
        left_out: LeftOut::all(&left_out),
        in_use,
        phases,
        report: &report,
    };
    output.detail(&format!("phases: {}", result.phases));
    output.result(&result, || text(&result));
    Ok(())
}

/// The functions that would be replaced: their names in the kernel's list, and their sizes.
fn places<'a>(manifest: &Manifest, report: &'a Report) -> Vec<(&'a str, u64)> {
    let replaced = inspect::replaced(manifest);
    let all = report.targets.iter().flat_map(|target| target.functions.iter().flatten());
    all.filter(|one| replaced.contains(&one.function))
        .map(|one| (one.function.as_str(), one.size))
        .collect()
}

/// The kernel that the arguments name.
pub(crate) fn snapshot(arch: &dyn Arch, args: &KernelArgs) -> Result<Snapshot, Failure> {
    let symbols = args.symbols.as_deref().map(symbols).transpose()?;
    match (&args.kernel, &args.snapshot, symbols) {
        (Some(path), _, symbols) => {
            let image =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            runpre::read_image(arch, image, symbols).map_err(|error| {
                Failure::new(Exit::Failed, format!("{} is of no use: {error}", path.display()))
            })
        }
        (None, Some(memory), Some(symbols)) => dumped(memory, symbols),
        _ => live(),
    }
}

/// A symbol list in a file.
fn symbols(path: &Path) -> Result<Kallsyms, Failure> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list =
        Kallsyms::parse(text).with_context(|| format!("{} is no symbol list", path.display()))?;
    Ok(list)
}

/// The running kernel.
pub(crate) fn live() -> Result<Snapshot, Failure> {
    Snapshot::live().map_err(|error| {
        let exit = match error {
            LiveError::NotPermitted { .. } => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    })
}

/// A kernel's memory in a file.
fn dumped(memory: &str, symbols: Kallsyms) -> Result<Snapshot, Failure> {
    let address = memory.rsplit_once("@0x").and_then(|(file, address)| {
        u64::from_str_radix(address, 16).ok().map(|address| (file, address))
    });
    let bytes: Box<dyn Memory> = match address {
        Some((file, base)) => {
            Box::new(RawDump::open(Path::new(file), base).map_err(Failure::from_error)?)
        }
        None => Box::new(CoreFile::open(Path::new(memory)).map_err(Failure::from_error)?),
    };
    Ok(Snapshot::new(None, symbols, bytes))
}

/// Matches and plans.
pub(crate) fn check(
    arch: &'static dyn Arch,
    update: &Update,
    snapshot: &Snapshot,
) -> Result<Checked, Failure> {
    if update.manifest.arch != arch.name() {
        return Err(Failure::new(
            Exit::Mismatch,
            format!(
                "the update is for {}, but this command works for {}; say --arch {} if that is \
                 the kernel's",
                update.manifest.arch,
                arch.name(),
                update.manifest.arch
            ),
        ));
    }
    let left_out = runpre::left_out(&update.manifest, snapshot).map_err(refused)?;
    let manifest = update.manifest.without(&left_out);
    let mut pre = Vec::new();
    for target in &manifest.targets {
        let mut units = Vec::new();
        for unit in &target.units {
            let bytes = update.file(&unit.pre).map_err(Failure::from_error)?;
            units.push(Unit::read(arch, &unit.name, bytes).map_err(Failure::from_error)?);
        }
        pre.push(units);
    }
    let refuse = |refusal| absent::refused(&refusal, &left_out).unwrap_or_else(|| refused(refusal));
    // In threads that end with it: idle ones sleep in the kernel's futex code, which may be just what the
    // update replaces.
    let pool = rayon::ThreadPoolBuilder::new().build().map_err(Failure::from_error)?;
    let look = || pool.install(|| runpre::check(arch, &manifest, &pre, snapshot));
    let report = settled(snapshot, look, mismatch).map_err(refuse)?;
    drop(pool);
    let values = plan::plan(arch, &manifest, &pre, &report, snapshot).map_err(refused)?;
    absent::needed(update, &manifest, &values, (&left_out, snapshot))?;
    for (target, values) in manifest.targets.iter().zip(&values) {
        let module = update.file(&target.module).map_err(Failure::from_error)?;
        let sealed = plan::sealed_key(module, &values.symbols, snapshot);
        if let Some(key) = sealed.map_err(Failure::from_error)? {
            return Err(Failure::new(Exit::Refused, read_only_key(target, &key)));
        }
    }
    Ok(Checked { manifest, left_out, report, values })
}

fn read_only_key(target: &Target, key: &str) -> String {
    let needed = target.symbols.iter().find(|symbol| symbol.link == key);
    format!(
        "new code has a jump label whose key, {}, is read-only since the kernel's start, or not in \
         the symbol list, and loading a module writes to it up to Linux 6.9; let the new code ask \
         for the key's state by static_key_enabled()",
        needed.map_or(key, |symbol| symbol.name.as_str())
    )
}

fn refused(refusal: Refusal) -> Failure {
    let exit = match &refusal {
        Refusal::Unit(_) | Refusal::Backend { .. } => Exit::Failed,
        Refusal::NoRoom { .. } => Exit::Refused,
        _ => Exit::Mismatch,
    };
    let failure = Failure::new(exit, refusal.to_string());
    match refusal {
        Refusal::Mismatch(report) => failure.with(report),
        Refusal::Data(report) => failure.with(report),
        _ => failure,
    }
}

/// Says that so many references were followed as far as the snapshot goes.
pub(crate) fn unread(count: usize) -> String {
    format!(
        "{count} references to strings or constants that the snapshot does not hold, which were \
         therefore not compared"
    )
}

fn text(result: &Fits<'_>) -> String {
    let mut out = format!("{} fits kernel {}\n", result.id, result.report.release);
    let _ = writeln!(out, "  replaces   {}", result.functions.join(", "));
    if !result.objects.is_empty() {
        let _ = writeln!(out, "  data       {}", result.objects.join(", "));
    }
    for target in &result.left_out {
        let _ = writeln!(out, "  left out   {target}");
    }
    for user in &result.in_use {
        let _ = writeln!(out, "  in use     {user}");
    }
    for target in &result.report.targets {
        let _ = writeln!(
            out,
            "  {}: {} functions proven, {} bytes, {} values learned, {} symbols for the new code",
            target.target,
            target.proven(),
            target.bytes,
            target.learned,
            target.symbols.len()
        );
        for rule in &target.rules {
            let _ = writeln!(
                out,
                "    {:<32} {:>5} places {:>6} bytes",
                rule.rule, rule.places, rule.bytes
            );
        }
        if target.unread > 0 {
            let _ = writeln!(out, "    {}", unread(target.unread));
        }
        for one in &target.unproven {
            let _ =
                writeln!(out, "    not proven, and not touched: {} ({})", one.function, one.why);
        }
    }
    out
}
