// SPDX-License-Identifier: GPL-2.0-or-later
//! Run-pre: proves that the running text is the code that the update was built from, and learns
//! from it the address of everything that the new code needs.
//!
//! Bias: a byte that no rule explains, a name with two possible places, a symbol for which two
//! functions give different values — each is a refusal that names it. Nothing is decided by the
//! order of symbols.

mod exports;
mod image;
mod kallsyms;
mod learn;
mod live;
mod locate;
mod memory;
mod object;
mod refer;
mod refusal;
mod report;
mod snapshot;
mod stacked;
mod unit;
mod verify;

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::arch::Arch;
use crate::unit::Unit;
use crate::update::Manifest;

pub use image::{ImageError, read_image};
pub use kallsyms::{Kallsyms, KallsymsError, KernelSymbol};
pub use live::LiveError;
pub use memory::{CoreFile, Memory, MemoryError, RawDump};
pub use refusal::{DataMismatch, MismatchReport, Refusal};
pub use report::{FunctionReport, ObjectReport, Report, RuleTotal, TargetReport, Unproven};
pub use snapshot::Snapshot;
pub use stacked::AppliedUpdate;
pub use verify::{Foreign, Gap, Survey, Unexplained, Verified, survey, verify};

/// Name of the target that stands for the kernel image.
pub const VMLINUX: &str = "vmlinux";

/// The targets of an update that a kernel of its release does not have: modules that are not loaded.
/// What they share with the others is nothing, so the update may be taken without them
/// ([`Manifest::without`]); but not without all of them.
pub fn left_out(manifest: &Manifest, snapshot: &Snapshot) -> Result<Vec<String>, Refusal> {
    if let Some(running) = &snapshot.release
        && *running != manifest.release
    {
        return Err(Refusal::Release {
            update: manifest.release.clone(),
            running: running.clone(),
        });
    }
    let names = manifest.targets.iter().map(|target| &target.name);
    let absent = names.filter(|name| *name != VMLINUX && !snapshot.symbols.has_module(name));
    let absent: Vec<String> = absent.cloned().collect();
    if !absent.is_empty() && absent.len() == manifest.targets.len() {
        return Err(Refusal::NotLoaded { targets: absent });
    }
    Ok(absent)
}

/// Compares every function of every touched unit with the running text, and every data object
/// that is to be replaced with the running data.
///
/// `pre` holds the pre units of each target, in the manifest's order; every target must be there.
/// Nothing is changed and nothing is loaded.
pub fn check(
    arch: &dyn Arch,
    manifest: &Manifest,
    pre: &[Vec<Unit>],
    snapshot: &Snapshot,
) -> Result<Report, Refusal> {
    let left_out = left_out(manifest, snapshot)?;
    if !left_out.is_empty() {
        return Err(Refusal::NotLoaded { targets: left_out });
    }
    // Comparing takes the time and knows nothing of other units; deciding goes one by one.
    let found: Vec<Vec<_>> = manifest
        .targets
        .par_iter()
        .zip(pre)
        .map(|(target, units)| {
            units
                .par_iter()
                .map(|u| unit::find(arch, u, (&target.name, manifest.stacked), snapshot))
                .collect()
        })
        .collect();
    // A global symbol has one value in a target, so what one unit teaches helps all of it. Another
    // target may have its own of the same name: no two modules share an `init_module`.
    let mut matched = Vec::new();
    for ((target, units), found) in manifest.targets.iter().zip(pre).zip(found) {
        let mut globals = learn::Globals::default();
        let mut of_target = Vec::new();
        for (index, (unit, found)) in units.iter().zip(found).enumerate() {
            let needed = needed_symbols(target, index);
            let refuse = &mut |_, refusal| Err(refusal);
            let here = (arch, unit, target.name.as_str(), snapshot);
            of_target.push(unit::match_unit(here, found?, &needed, &mut globals, refuse)?);
        }
        let objects = object::prove(arch, target, units, &mut of_target, &mut globals, snapshot)?;
        matched.push((of_target, globals, objects));
    }
    let elsewhere = |name: &str, unit: u32, symbol: u32| {
        let at = manifest.targets.iter().position(|target| target.name == name)?;
        let (units, ..) = matched.get(at)?;
        units.get(unit as usize)?.local(symbol)
    };
    let mut addresses = Vec::new();
    for ((target, pre), (units, globals, _)) in manifest.targets.iter().zip(pre).zip(&matched) {
        let mut symbols = BTreeMap::new();
        for needed in &target.symbols {
            let of_target = (pre.as_slice(), units.as_slice());
            let value = learn::resolve(needed, target, of_target, globals, &elsewhere, snapshot)?;
            symbols.insert(needed.link.clone(), value);
        }
        addresses.push(symbols);
    }
    let mut targets = Vec::new();
    for ((target, (units, _, objects)), symbols) in
        manifest.targets.iter().zip(matched).zip(addresses)
    {
        targets.push(report::target(target, units, objects, symbols));
    }
    Ok(Report { release: manifest.release.clone(), targets })
}

/// The functions of a unit that the update replaces, parts included: symbol indexes.
fn needed_symbols(target: &crate::update::Target, unit: usize) -> Vec<u32> {
    target
        .functions
        .iter()
        .filter(|f| f.unit as usize == unit)
        .flat_map(|f| f.pre_symbol.into_iter().chain(f.pre_parts.iter().copied()))
        .collect()
}
