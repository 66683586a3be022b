// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the entries of a table begin. How long they are is known, or shows from the relocations:
//! each entry has them at the same offsets, one of them at its owner's.

use object::elf::SHF_EXECINSTR;

use super::{EntrySize, Reloc, Role, Section, SpecialSection, SymbolPlace, Unit};

/// The longest entry that relocations are asked for.
const LONGEST: u64 = 64;

/// The entries of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bounds {
    /// The section is not a table of entries.
    None,
    /// Where they begin.
    Entries(Vec<u64>),
    /// They cannot be told apart.
    Unclear,
}

/// Finds the section that each parallel one runs beside: of several with the name, the one
/// that it follows most closely.
pub(super) fn beside(unit: &mut Unit) {
    let other = |index: usize, row: &Option<SpecialSection>| {
        let Role::Parallel { to } = row.as_ref()?.role else { return None };
        let named = |n: &usize| unit.sections.get(*n).is_some_and(|s| s.name == to);
        (0..index).rev().find(named).or_else(|| (index..unit.sections.len()).find(named))
    };
    unit.beside = unit.special.iter().enumerate().map(|(n, row)| other(n, row)).collect();
}

/// Cuts every table of a unit.
pub(super) fn bounds(unit: &Unit) -> Vec<Bounds> {
    let mut all: Vec<Bounds> = unit
        .sections
        .iter()
        .zip(&unit.special)
        .map(|(section, row)| match row {
            Some(row) if section.size > 0 => of(unit, section, row),
            _ => Bounds::None,
        })
        .collect();
    // Two tables that run side by side have as many entries.
    for (index, row) in unit.special.iter().enumerate() {
        let Some(Role::Parallel { .. }) = row.map(|row| row.role) else { continue };
        let length = |n: usize| match all.get(n) {
            Some(Bounds::Entries(entries)) => Some(entries.len()),
            Some(Bounds::None) => Some(0),
            _ => None,
        };
        let other = unit.beside.get(index).copied().flatten();
        let equal = length(index).is_some() && other.and_then(length) == length(index);
        if !equal && unit.sections.get(index).is_some_and(|s| s.size > 0) {
            for n in [Some(index), other].into_iter().flatten() {
                if let Some(bounds) = all.get_mut(n) {
                    *bounds = Bounds::Unclear;
                }
            }
        }
    }
    all
}

fn of(unit: &Unit, section: &Section, row: &SpecialSection) -> Bounds {
    let parallel = matches!(row.role, Role::Parallel { .. });
    if !row.role.has_owner() && !parallel {
        return Bounds::None;
    }
    let fits = |size: u64, alike| {
        size > 0 && (parallel || is_regular(unit, section, row.owner, size, alike))
    };
    let whole = |size: u64| section.size.is_multiple_of(size);
    let size = match row.size {
        // The last entry may lack the padding that makes it as long as the others.
        EntrySize::Fixed(size) => Some(size).filter(|s| fits(*s, Alike::Offsets)),
        EntrySize::FromHeader => {
            Some(section.entsize).filter(|s| *s > 0 && whole(*s) && fits(*s, Alike::Offsets))
        }
        EntrySize::OneOf(sizes) => {
            let alike = Alike::Owners { if_single: false };
            sizes.iter().copied().find(|s| whole(*s) && fits(*s, alike))
        }
        EntrySize::FromRelocations => {
            let alike = Alike::Owners { if_single: true };
            (row.owner + 1..=LONGEST.min(section.size)).find(|s| whole(*s) && fits(*s, alike))
        }
        EntrySize::Whole => Some(section.size),
    };
    match size {
        Some(size) => Bounds::Entries(
            (0..section.size.div_ceil(size)).map(|n| n.saturating_mul(size)).collect(),
        ),
        None => Bounds::Unclear,
    }
}

/// What is asked of the entries of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// Relocations at the same offsets.
    Offsets,
    /// The same, and all owners are code or none is: where a size is guessed, what looks like an
    /// owner may be another field. An entry of a single field cannot be mistaken.
    Owners {
        /// Whether that is asked of entries of a single field too.
        if_single: bool,
    },
}

/// Whether entries of that size are alike and have an owner.
fn is_regular(unit: &Unit, section: &Section, owner: u64, size: u64, alike: Alike) -> bool {
    let entry = |n: u64| {
        let (start, end) = (n.saturating_mul(size), n.saturating_add(1).saturating_mul(size));
        let from = section.relocs.partition_point(|r| r.offset < start);
        let to = section.relocs.partition_point(|r| r.offset < end);
        (start, section.relocs.get(from..to).unwrap_or_default())
    };
    let (_, first) = entry(0);
    if !first.iter().any(|r| r.offset == owner) {
        return false;
    }
    let owners = match alike {
        Alike::Offsets => false,
        Alike::Owners { if_single } => if_single || first.len() > 1,
    };
    (1..section.size.div_ceil(size)).all(|n| {
        let (start, relocs) = entry(n);
        let same = |(r, f): (&Reloc, &Reloc)| {
            // Several may be at one place, such as those of a difference.
            r.offset - start == f.offset
                && (f.offset != owner
                    || !owners
                    || leads_to_code(unit, r) == leads_to_code(unit, f))
        };
        relocs.len() == first.len() && relocs.iter().zip(first).all(same)
    })
}

fn leads_to_code(unit: &Unit, reloc: &Reloc) -> bool {
    let symbol = unit.symbols.get(reloc.symbol as usize);
    symbol.is_some_and(|symbol| match symbol.place {
        SymbolPlace::Section(section) => {
            unit.sections.get(section).is_some_and(|s| s.flags & SHF_EXECINSTR.0 != 0)
        }
        SymbolPlace::Undefined | SymbolPlace::Absolute => false,
    })
}
