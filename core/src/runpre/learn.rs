// SPDX-License-Identifier: GPL-2.0-or-later
//! What matched code teaches: symbol values, checked for agreement.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use object::elf::{SHF_MERGE, STB_GLOBAL, STB_WEAK};

use super::unit::UnitMatch;
use super::{Refusal, Snapshot, VMLINUX};
use crate::unit::{SymbolPlace, Unit};
use crate::update::{NeededSymbol, Place, Target};

/// A value and the function that gave it first.
#[derive(Debug, Clone)]
pub(super) struct Taught {
    pub(super) value: u64,
    pub(super) by: String,
}

/// Values of global symbols, by name; they hold for the whole update.
#[derive(Debug, Default)]
pub(super) struct Globals(pub(super) BTreeMap<String, Taught>);

/// Run-time addresses of a unit's sections, by section index.
#[derive(Debug, Default, Clone)]
pub(super) struct Sections(pub(super) BTreeMap<usize, Taught>);

/// What a symbol's value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    /// A global symbol's value.
    pub(super) global: Option<(String, u64)>,
    /// A section's address.
    pub(super) section: Option<(usize, u64)>,
}

/// Turns a symbol's value into what it says.
///
/// Sections that the linker merges are placed piece by piece, so they have no address; a weak
/// definition may have lost to another unit's, so it says nothing about its own section.
pub(super) fn fact(unit: &Unit, key: u32, value: u64) -> Fact {
    let mut fact = Fact { global: None, section: None };
    let Some(symbol) = unit.symbols.get(key as usize) else { return fact };
    let outside = matches!(symbol.binding, b if b == STB_GLOBAL.0 || b == STB_WEAK.0);
    if outside && !symbol.name.is_empty() && symbol.place != SymbolPlace::Absolute {
        fact.global = Some((symbol.name.clone(), value));
    }
    if let SymbolPlace::Section(index) = symbol.place
        && symbol.binding != STB_WEAK.0
        && unit.sections.get(index).is_some_and(|s| s.flags & SHF_MERGE.0 == 0)
    {
        fact.section = Some((index, value.wrapping_sub(symbol.value)));
    }
    fact
}

impl Fact {
    /// Whether it contradicts what is known: the name, and both values.
    pub(super) fn contradicts(
        &self,
        unit: &Unit,
        sections: &Sections,
        globals: &Globals,
    ) -> Option<(String, Taught, u64)> {
        if let Some((name, value)) = &self.global
            && let Some(known) = globals.0.get(name)
            && known.value != *value
        {
            return Some((name.clone(), known.clone(), *value));
        }
        if let Some((index, value)) = &self.section
            && let Some(known) = sections.0.get(index)
            && known.value != *value
        {
            let name = unit.sections.get(*index).map_or("", |s| s.name.as_str());
            return Some((name.to_owned(), known.clone(), *value));
        }
        None
    }

    /// Adds it to what is known; false if it was known already.
    pub(super) fn teach(self, by: &str, sections: &mut Sections, globals: &mut Globals) -> bool {
        let mut new = false;
        if let Some((name, value)) = self.global
            && let Entry::Vacant(slot) = globals.0.entry(name)
        {
            slot.insert(Taught { value, by: by.to_owned() });
            new = true;
        }
        if let Some((index, value)) = self.section
            && let Entry::Vacant(slot) = sections.0.entry(index)
        {
            slot.insert(Taught { value, by: by.to_owned() });
            new = true;
        }
        new
    }
}

/// The address of a symbol that new code needs.
pub(super) fn resolve(
    needed: &NeededSymbol,
    target: &Target,
    units: &[UnitMatch],
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<u64, Refusal> {
    match needed.place {
        Place::Global => match globals.0.get(&needed.name) {
            Some(taught) => Ok(taught.value),
            None => unique_global(&needed.name, &target.name, snapshot),
        },
        Place::Local { unit, symbol } => {
            let matched = units.get(unit as usize).ok_or_else(|| no_symbol(needed))?;
            if let Some(value) = matched.local(symbol) {
                return Ok(value);
            }
            unique_local(needed, &target.name, snapshot)
        }
    }
}

fn no_symbol(needed: &NeededSymbol) -> Refusal {
    Refusal::NoSymbol { name: needed.name.clone(), link: needed.link.clone() }
}

/// A global name that no matched code mentions: the kernel's list must have one global symbol of
/// that name, in the target or in the image.
fn unique_global(name: &str, target: &str, snapshot: &Snapshot) -> Result<u64, Refusal> {
    let at = |module: &str| {
        let mut found: Vec<u64> = snapshot
            .symbols
            .named(name)
            .filter(|s| s.module == module && s.is_global())
            .map(|s| s.address)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let mut found = at(target);
    if found.is_empty() {
        found = at(VMLINUX);
    }
    one(name, name, found)
}

/// A local name that no matched code mentions: it must be the only one of its name.
fn unique_local(needed: &NeededSymbol, target: &str, snapshot: &Snapshot) -> Result<u64, Refusal> {
    if needed.name.is_empty() {
        return Err(no_symbol(needed));
    }
    let mut found: Vec<u64> = snapshot
        .symbols
        .named(&needed.name)
        .filter(|s| s.module == target)
        .map(|s| s.address)
        .collect();
    found.sort_unstable();
    found.dedup();
    one(&needed.name, &needed.link, found)
}

fn one(name: &str, link: &str, found: Vec<u64>) -> Result<u64, Refusal> {
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Refusal::NoSymbol { name: name.to_owned(), link: link.to_owned() }),
        _ => Err(Refusal::AmbiguousSymbol { name: name.to_owned(), addresses: found }),
    }
}
