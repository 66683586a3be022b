// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice apply`: match, plan, load, switch; or leave everything as it was.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::time::Instant;

use serde::Serialize;
use splice_core::arch::Arch;
use splice_core::plan::{self, Values};
use splice_core::runpre::{Snapshot, VMLINUX};
use splice_core::update::{Manifest, Update};

use super::loads::Loads;
use super::switch::{Patience, switch};
use super::sysfs::{Act, State, Sysfs};
use super::{LiveError, Status, load, undo};
use crate::check::{self, Checked};
use crate::exit::Failure;
use crate::inspect;
use crate::sign::Signer;

/// What `apply` did.
#[derive(Debug, Serialize)]
pub(crate) struct Applied {
    /// The kernel's release.
    pub(crate) release: String,
    /// Functions replaced.
    pub(crate) functions: Vec<String>,
    /// Data objects whose contents were replaced: their names. (`objects` are their places.)
    pub(crate) data: Vec<String>,
    /// Updates that it has taken the place of: their ids.
    pub(crate) replaced: Vec<String>,
    /// Why modules of those are still in memory, without effect.
    pub(crate) still_loaded: Vec<String>,
    /// Functions of the touched units that the running text was proven to hold.
    pub(crate) matched: usize,
    /// Their bytes.
    pub(crate) matched_bytes: u64,
    /// Symbol values read from running text.
    pub(crate) learned: usize,
    /// Milliseconds spent in each phase.
    pub(crate) phases: BTreeMap<&'static str, u64>,
    /// What the kernel side says now.
    #[serde(flatten)]
    pub(crate) status: Status,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "applied {} to {}", self.status.id, self.release)?;
        writeln!(f, "  functions  {}", self.functions.join(", "))?;
        if !self.data.is_empty() {
            writeln!(f, "  data       {}", self.data.join(", "))?;
        }
        writeln!(
            f,
            "  matched    {} functions, {} bytes, {} symbols learned",
            self.matched, self.matched_bytes, self.learned
        )?;
        if !self.replaced.is_empty() {
            writeln!(f, "  replaced   {}", self.replaced.join(", "))?;
        }
        for why in &self.still_loaded {
            writeln!(f, "             their code stays in memory without effect: {why}")?;
        }
        for missed in &self.status.left_out {
            writeln!(f, "  left out   {missed}")?;
        }
        write!(
            f,
            "  switched   {} threads examined, machine stopped for {:.3} ms, {} attempts",
            self.status.threads,
            self.status.pause_ns as f64 / 1e6,
            self.status.attempts
        )
    }
}

/// Removes what was loaded, unless it is kept.
struct Loaded<'a> {
    sysfs: &'a Sysfs,
    modules: Vec<&'a str>,
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        for module in self.modules.iter().rev() {
            // What cannot be removed is without effect, and `splice list` shows it.
            let _ = load::unload(module);
        }
        if !self.modules.is_empty() {
            undo::remove_core(self.sysfs);
        }
    }
}

/// The module name of the transaction core.
pub(super) const CORE: &str = "splice";

fn core_values(manifest: &Manifest, snapshot: &Snapshot) -> Result<Values, LiveError> {
    let mut values = Values::default();
    for name in &manifest.core.symbols {
        let found: Vec<_> = snapshot
            .symbols
            .named(name)
            .filter(|symbol| symbol.module == VMLINUX && symbol.is_code())
            .map(|symbol| symbol.address)
            .collect();
        match found.as_slice() {
            [address] => values.symbols.insert(name.clone(), *address),
            _ => return Err(LiveError::CoreSymbol { name: name.clone(), count: found.len() }),
        };
    }
    Ok(values)
}

fn finished(
    update: &Update,
    file: &str,
    values: &Values,
    signer: Option<&Signer>,
) -> Result<Vec<u8>, Failure> {
    let file = update.file(file).map_err(LiveError::from)?;
    let module = plan::finalise(file, &values.symbols, &values.bytes).map_err(LiveError::from)?;
    Signer::perhaps(signer, module)
}

/// What the update modules are told if a target is left out.
fn parameters(manifest: &Manifest, left_out: &[String]) -> CString {
    if left_out.is_empty() {
        return CString::default();
    }
    let parts = manifest.targets.len();
    let text = format!("{}={parts} {}={}", plan::PARTS, plan::LEFT_OUT, left_out.join(","));
    // Without them, the kernel side misses parts.
    CString::new(text).unwrap_or_default()
}

/// The kernel that the update is held against, and the updates that it would replace.
fn kernel(sysfs: &Sysfs, act: Act) -> Result<(Snapshot, Vec<String>), Failure> {
    let snapshot = check::live()?;
    let applied = sysfs.applied()?;
    if act != Act::Replace {
        return Ok((snapshot.with_updates(applied), Vec::new()));
    }
    // What it replaces has its jumps over the original code, and that is what it was built from. The
    // kernel side holds these bytes against those that it keeps.
    let places = sysfs.originals(|address, buf| snapshot.memory.read(address, buf))?;
    let replaced = applied.into_iter().map(|update| update.id).collect();
    Ok((snapshot.with_bytes(places), replaced))
}

/// How an update is applied.
pub(crate) struct Manner<'a> {
    /// Beside what is applied, or instead of it.
    pub(crate) act: Act,
    /// When to give up.
    pub(crate) patience: Patience,
    /// Who signs its modules.
    pub(crate) signer: Option<&'a Signer>,
}

/// Applies an update to the running kernel.
pub(crate) fn apply(
    arch: &'static dyn Arch,
    update: &Update,
    Manner { act, patience, signer }: Manner,
    progress: &mut dyn FnMut(&str),
) -> Result<Applied, Failure> {
    let manifest = &update.manifest;
    let sysfs = Sysfs::default();
    load::may_load(signer)?;
    if act == Act::Replace && manifest.stacked {
        return Err(LiveError::Based(manifest.id.clone()).into());
    }
    let _lock = load::Lock::take()?;
    match sysfs.state(&manifest.id)? {
        Some(State::Applied) => {
            let left_out = sysfs.status(&manifest.id)?.map_or_else(Vec::new, |s| s.left_out);
            let come = left_out.into_iter().filter(|missed| missed.is_loaded);
            let left_out = come.map(|missed| missed.target).collect();
            return Err(LiveError::AlreadyApplied { id: manifest.id.clone(), left_out }.into());
        }
        // Left by an apply that was killed; what is loaded now may be another build.
        Some(State::Loaded) => undo::remove(&sysfs, &manifest.id)?,
        None => {}
    }

    let mut phases = BTreeMap::new();
    let mut began = Instant::now();
    let mut phase = |name| {
        let spent = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        phases.insert(name, spent);
        began = Instant::now();
    };
    progress("reading the running kernel");
    let before = Loads::now(sysfs.all_modules(), &update.manifest)?;
    let (snapshot, replaced) = kernel(&sysfs, act)?;
    phase("read");
    progress("comparing the running text with the code the update was built from");
    let Checked { manifest, left_out, report, values: all } =
        check::check(arch, update, &snapshot)?;
    let manifest = &manifest;
    before.lack(&left_out)?;
    phase("match");

    // Everything is finished before anything is loaded.
    let core = match sysfs.abi()? {
        Some(version) if version == manifest.core.abi.to_string() => None,
        Some(loaded) => {
            return Err(LiveError::Core { loaded, needed: manifest.core.abi }.into());
        }
        None => {
            let values = core_values(manifest, &snapshot)?;
            Some(finished(update, &manifest.core.file, &values, signer)?)
        }
    };
    let mut images = Vec::new();
    for (target, mut values) in manifest.targets.iter().zip(all) {
        values.symbols.insert(plan::LOAD.to_owned(), before.number(&target.name));
        images.push((
            target.module_name.as_str(),
            finished(update, &target.module, &values, signer)?,
        ));
    }

    progress("loading the update's modules");
    let mut loaded = Loaded { sysfs: &sysfs, modules: Vec::new() };
    if let Some(image) = core {
        load::load(CORE, &image, c"", signer.is_some())?;
        loaded.modules.push(CORE);
    }
    let values = parameters(manifest, &left_out);
    let still = || before.still(sysfs.all_modules(), &update.manifest);
    for (name, image) in &images {
        // That the target has gone explains best why the module is not loaded.
        load::load(name, image, &values, signer.is_some())
            .or_else(|error| still().and(Err(error)))?;
        loaded.modules.push(name);
    }
    still()?;
    phase("load");
    progress("switching");
    switch(&sysfs, &manifest.id, act, patience, progress)?;
    loaded.modules.clear();
    let removed = replaced.iter().map(|id| undo::remove(&sysfs, id));
    let still_loaded = removed.filter_map(|one| Some(one.err()?.to_string())).collect();
    phase("switch");

    let status = sysfs.status(&manifest.id)?.ok_or_else(|| LiveError::Switch {
        id: manifest.id.clone(),
        why: "it has gone after it was applied".to_owned(),
    })?;
    Ok(Applied {
        release: report.release.clone(),
        functions: inspect::replaced(manifest),
        data: inspect::objects(manifest),
        replaced,
        still_loaded,
        matched: report.proven(),
        matched_bytes: report.bytes(),
        learned: report.learned(),
        phases,
        status,
    })
}
