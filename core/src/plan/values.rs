// SPDX-License-Identifier: GPL-2.0-or-later
//! The values of an update module's open symbols: addresses of needed symbols, sites, ranges and
//! data objects, and the bytes that must stand at each site and object.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    BASES, LOAD, base_symbol, contents_symbol, expected_symbol, object_symbol, range_symbols,
    site_symbol,
};
use crate::arch::{Arch, KernelView, Site, check};
use crate::runpre::{FunctionReport, Refusal, Report, Snapshot, TargetReport};
use crate::unit::Unit;
use crate::update::{Change, Function, Manifest, Target};

/// What the finaliser writes into one target's update module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Values {
    /// Addresses, by symbol.
    pub symbols: BTreeMap<String, u64>,
    /// Contents, by symbol.
    pub bytes: BTreeMap<String, Vec<u8>>,
}

/// Plans the switch: where each trampoline stands, what must be there, and which ranges must be
/// free of threads. One [`Values`] per target, in the manifest's order.
pub fn plan(
    arch: &dyn Arch,
    manifest: &Manifest,
    pre: &[Vec<Unit>],
    report: &Report,
    snapshot: &Snapshot,
) -> Result<Vec<Values>, Refusal> {
    let mut all = Vec::new();
    for ((target, units), found) in manifest.targets.iter().zip(pre).zip(&report.targets) {
        let mut values = Values { symbols: found.symbols.clone(), bytes: BTreeMap::new() };
        let mut range = 0usize;
        let changed = target.functions.iter().filter(|f| f.change == Change::Changed);
        for (site, function) in changed.enumerate() {
            let entry = reported(found, function, function.pre_symbol, target)?;
            let unit = units.get(function.unit as usize);
            let (place, expected, borrowed) = place(arch, unit, entry, snapshot)?;
            values.symbols.insert(site_symbol(site), entry.address + place.offset);
            values.bytes.insert(expected_symbol(site), expected);
            push_range(arch, &mut values, &mut range, entry, borrowed, Some(&place))?;
            for part in &function.pre_parts {
                let part = reported(found, function, Some(*part), target)?;
                push_range(arch, &mut values, &mut range, part, 0, None)?;
            }
        }
        for (n, object) in found.objects.iter().enumerate() {
            let mut contents = vec![0; usize::try_from(object.size).unwrap_or(0)];
            if !snapshot.read(object.address, &mut contents) {
                return Err(Refusal::Unreadable {
                    function: object.object.clone(),
                    address: object.address,
                });
            }
            values.symbols.insert(object_symbol(n), object.address);
            values.bytes.insert(contents_symbol(n), contents);
        }
        // Of a module, only who is about to load the update can tell.
        values.symbols.insert(LOAD.to_owned(), 0);
        stand_on(&mut values, found, snapshot)?;
        all.push(values);
    }
    Ok(all)
}

/// Notes an address in each applied update that functions of the touched units were found in, or
/// that the new code uses something of.
fn stand_on(values: &mut Values, found: &TargetReport, snapshot: &Snapshot) -> Result<(), Refusal> {
    let functions = found.functions.iter().flatten().map(|f| f.address);
    let mut bases = BTreeMap::new();
    for address in functions.chain(found.symbols.values().copied()) {
        if let Some(update) = snapshot.update_at(address) {
            bases.entry(update).or_insert(address);
        }
    }
    if bases.len() > BASES {
        return Err(Refusal::TooManyBases {
            count: bases.len(),
            max: BASES,
            updates: bases.keys().map(|id| (*id).to_owned()).collect(),
        });
    }
    let none = std::iter::repeat(0);
    for (n, base) in bases.into_values().chain(none).take(BASES).enumerate() {
        values.symbols.insert(base_symbol(n), base);
    }
    Ok(())
}

fn reported<'a>(
    found: &'a TargetReport,
    function: &Function,
    symbol: Option<u32>,
    target: &Target,
) -> Result<&'a FunctionReport, Refusal> {
    symbol.and_then(|s| found.function(function.unit, s)).ok_or_else(|| Refusal::NotFound {
        function: function.name.clone(),
        unit: target
            .units
            .get(function.unit as usize)
            .map_or_else(|| target.name.clone(), |u| u.name.clone()),
    })
}

/// The site, the bytes that stand there now, and how many of them are
/// padding behind the function.
fn place(
    arch: &dyn Arch,
    unit: Option<&Unit>,
    entry: &FunctionReport,
    snapshot: &Snapshot,
) -> Result<(Site, Vec<u8>, u64), Refusal> {
    let no_room = |why: String| Refusal::NoRoom {
        function: entry.function.clone(),
        unit: entry.unit.clone(),
        why,
    };
    let unit = unit.ok_or_else(|| no_room("the update does not hold its unit".into()))?;
    let site = unit
        .with_code(arch, entry.span, |code| {
            let site = arch.trampoline().site(code, &entry.live, entry.padding)?;
            if let Ok(site) = &site {
                check::site(arch, code, entry.padding, &entry.live, site)?;
            }
            Ok(site)
        })
        .map_err(Refusal::Unit)?
        .map_err(|source| Refusal::Backend { unit: entry.unit.clone(), source })?
        .map_err(|why| no_room(why.0))?;
    let mut expected = vec![0; usize::try_from(site.len).unwrap_or(0)];
    if !snapshot.read(entry.address + site.offset, &mut expected) {
        return Err(Refusal::Unreadable {
            function: entry.function.clone(),
            address: entry.address + site.offset,
        });
    }
    let borrowed = (site.offset + site.len).saturating_sub(entry.size);
    Ok((site, expected, borrowed))
}

fn push_range(
    arch: &dyn Arch,
    values: &mut Values,
    range: &mut usize,
    part: &FunctionReport,
    borrowed: u64,
    site: Option<&Site>,
) -> Result<(), Refusal> {
    let (offset, len) = arch.stack().busy_range(part.size, borrowed);
    check::busy_range(arch, (offset, len), part.size, borrowed, site)
        .map_err(|source| Refusal::Backend { unit: part.unit.clone(), source })?;
    let start = part.address + offset;
    let (first, end) = range_symbols(*range);
    values.symbols.insert(first, start);
    values.symbols.insert(end, start + len);
    *range += 1;
    Ok(())
}
