// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the pieces of out-of-line code begin: at what tables and code refer to, unless code runs
//! from one into the next.

use std::collections::BTreeSet;

use object::elf::SHF_EXECINSTR;

use super::{Reloc, Role, Section, SymbolPlace, Unit, table};
use crate::arch::{Arch, Code, CodeReloc};

/// Offsets in payload sections that entries and code refer to, and offsets in code that entries
/// about other places of it refer to: where no function covers them, replacements lie there.
pub(super) fn boundaries(arch: &dyn Arch, unit: &Unit, tables: &[table::Bounds]) -> Vec<Vec<u64>> {
    let mut bounds: Vec<Vec<u64>> = unit.sections.iter().map(|_| Vec::new()).collect();
    // Sections with pieces that are written over other code, and do not run where they are.
    let mut copied = vec![false; unit.sections.len()];
    let is_payload = |section: usize| {
        unit.special.get(section).copied().flatten().is_some_and(|r| r.role == Role::Payload)
    };
    let payload_of = |reloc: &Reloc| match unit.symbols.get(reloc.symbol as usize)?.place {
        SymbolPlace::Section(to) if is_payload(to) => Some(to),
        _ => None,
    };
    for (from, section) in unit.sections.iter().enumerate() {
        let row = unit.special.get(from).copied().flatten();
        if let Some(row) = row.filter(|r| r.role.is_rewritten())
            && let Some(table::Bounds::Entries(at)) = tables.get(from)
        {
            replacement_boundaries(unit, section, row.owner, at, &mut bounds);
        }
        if !section.relocs.iter().any(|r| payload_of(r).is_some()) {
            continue;
        }
        let special = unit.special.get(from).copied().flatten().is_some();
        let executable = section.flags & SHF_EXECINSTR.0 != 0;
        let offsets = match (special, executable) {
            (true, false) => section.relocs.iter().map(|r| r.addend).collect(),
            (_, true) => target_offsets(arch, unit, from, section),
            (false, false) => continue,
        };
        // What an entry is about is no beginning: it may be the middle of a piece.
        let owner = row.filter(|r| r.role.has_owner()).map(|r| r.owner);
        let is_owner = |reloc: &Reloc| match (owner, tables.get(from)) {
            (Some(owner), Some(table::Bounds::Entries(at))) => is_about(section, owner, at, reloc),
            _ => false,
        };
        for (reloc, offset) in section.relocs.iter().zip(offsets) {
            let to = payload_of(reloc).filter(|_| !is_owner(reloc));
            if let Some(copied) = to.and_then(|to| copied.get_mut(to)) {
                *copied |= row.is_some_and(|row| row.role.is_rewritten());
            }
            if let Some(to) = to
                && let Some(symbol) = unit.symbols.get(reloc.symbol as usize)
                && let Some(list) = bounds.get_mut(to)
            {
                list.push(symbol.value.wrapping_add_signed(offset));
            }
        }
    }
    for list in &mut bounds {
        list.sort_unstable();
        list.dedup();
    }
    for (index, section) in unit.sections.iter().enumerate() {
        if is_payload(index)
            && section.flags & SHF_EXECINSTR.0 != 0
            && !copied.get(index).copied().unwrap_or(false)
            && let Some(list) = bounds.get_mut(index)
        {
            join(arch, unit, index, section, list);
        }
    }
    bounds
}

/// Takes out the boundaries that code crosses: where it runs on into the next piece, or refers to
/// another one by a distance that the assembler knew.
fn join(arch: &dyn Arch, unit: &Unit, index: usize, section: &Section, bounds: &mut Vec<u64>) {
    bounds.retain(|at| (1..section.size).contains(at));
    let starts: Vec<u64> = std::iter::once(0).chain(bounds.iter().copied()).collect();
    let relocs = code_relocs(unit, index, section);
    let mut crossed = BTreeSet::new();
    for (n, start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(section.size);
        let (from, to) = (
            relocs.partition_point(|r| r.offset < *start),
            relocs.partition_point(|r| r.offset < end),
        );
        let own: Vec<CodeReloc<'_>> = relocs
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .map(|r| CodeReloc { offset: r.offset - start, inside: None, ..*r })
            .collect();
        let bytes = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
        let bytes = bytes.and_then(|(from, to)| section.data.get(from..to)).unwrap_or_default();
        let code = Code { name: &section.name, bytes, relocs: &own, entries: &[] };
        if arch.diff().runs_on(&code) {
            crossed.insert(end);
        }
        let Ok(settled) = arch.reloc().settled(&code) else {
            bounds.clear();
            return;
        };
        for place in settled.iter().filter_map(|one| start.checked_add_signed(one.target)) {
            // All boundaries between here and there.
            let range = if place < *start { place + 1..*start + 1 } else { end..place + 1 };
            crossed.extend(bounds.iter().copied().filter(|at| range.contains(at)));
        }
    }
    bounds.retain(|at| !crossed.contains(at));
}

/// A replacement of no bytes lies where the next one does, which may be another function's: let the
/// entry refer to the place that it is about instead.
pub(super) fn empty_replacements(arch: &dyn Arch, unit: &mut Unit, tables: &[table::Bounds]) {
    for ((section, row), table) in unit.sections.iter_mut().zip(&unit.special).zip(tables) {
        let Some(row) = row.filter(|r| r.role.is_rewritten()) else { continue };
        let table::Bounds::Entries(at) = table else { continue };
        for (n, start) in at.iter().enumerate() {
            let end = at.get(n + 1).copied().unwrap_or(section.size);
            let entry = section.data.get(*start as usize..end as usize).unwrap_or_default();
            if !arch.replaces_by_nothing(&section.name, entry) {
                continue;
            }
            let from = section.relocs.partition_point(|r| r.offset < *start);
            let to = section.relocs.partition_point(|r| r.offset < end);
            let Some(relocs) = section.relocs.get_mut(from..to) else { continue };
            let owner = relocs.iter().find(|r| Some(r.offset) == start.checked_add(row.owner));
            let Some(owner) = owner.cloned() else { continue };
            for reloc in relocs.iter_mut().filter(|r| r.r_type == owner.r_type) {
                (reloc.symbol, reloc.addend) = (owner.symbol, owner.addend);
            }
        }
    }
}

/// Whether a relocation of a table leads to the place that its entry is about.
fn is_about(section: &Section, owner: u64, entries: &[u64], reloc: &Reloc) -> bool {
    let number = entries.partition_point(|start| *start <= reloc.offset);
    let start = number.checked_sub(1).and_then(|n| entries.get(n));
    let Some(at) = start.and_then(|start| start.checked_add(owner)) else { return false };
    let owner = section.relocs.binary_search_by_key(&at, |r| r.offset);
    let owner = owner.ok().and_then(|n| section.relocs.get(n));
    owner.is_some_and(|o| (o.symbol, o.addend) == (reloc.symbol, reloc.addend))
}

/// Where the entries of a table refer to code beside the place that they are about.
fn replacement_boundaries(
    unit: &Unit,
    section: &Section,
    owner: u64,
    entries: &[u64],
    bounds: &mut [Vec<u64>],
) {
    for reloc in section.relocs.iter().filter(|r| !is_about(section, owner, entries, r)) {
        if let Some(symbol) = unit.symbols.get(reloc.symbol as usize)
            && let SymbolPlace::Section(to) = symbol.place
            && unit.sections.get(to).is_some_and(|s| s.flags & SHF_EXECINSTR.0 != 0)
            && let Some(list) = bounds.get_mut(to)
        {
            list.push(symbol.value.wrapping_add_signed(reloc.addend));
        }
    }
}

/// Target offsets of a whole section's relocations; none where the backend cannot tell, so that
/// the payload stays in one piece.
fn target_offsets(arch: &dyn Arch, unit: &Unit, from: usize, section: &Section) -> Vec<i64> {
    let relocs = code_relocs(unit, from, section);
    let code = Code { name: &section.name, bytes: &section.data, relocs: &relocs, entries: &[] };
    arch.reloc().target_offsets(&code).unwrap_or_default()
}

fn code_relocs<'u>(unit: &'u Unit, from: usize, section: &Section) -> Vec<CodeReloc<'u>> {
    section
        .relocs
        .iter()
        .map(|r| CodeReloc {
            offset: r.offset,
            r_type: r.r_type,
            symbol: unit.symbols.get(r.symbol as usize).map_or("", |s| s.name.as_str()),
            key: r.symbol,
            addend: r.addend,
            inside: unit
                .symbols
                .get(r.symbol as usize)
                .filter(|s| s.place == SymbolPlace::Section(from))
                .map(|s| s.value),
        })
        .collect()
}
