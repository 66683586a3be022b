// SPDX-License-Identifier: GPL-2.0-or-later
//! What matched code teaches: symbol values, checked for agreement.

use std::collections::HashMap;

use object::elf::{SHF_EXECINSTR, SHF_MERGE, STB_GLOBAL, STB_WEAK};

use super::unit::UnitMatch;
use super::{Refusal, Snapshot, VMLINUX};
use crate::arch::{KernelView, Partial};
use crate::unit::{SymbolPlace, Unit};
use crate::update::{NeededSymbol, Place, Target};

/// Who says what the kernel's list says.
pub(super) const LIST: &str = "the kernel's symbol list";

/// A value and the function that gave it first.
#[derive(Debug, Clone)]
pub(super) struct Taught {
    pub(super) value: u64,
    pub(super) by: String,
    /// Where in its code, if that says it.
    pub(super) at: Option<u64>,
}

impl Taught {
    /// Who gave it, for a report.
    pub(super) fn who(&self) -> String {
        who(&self.by, self.at)
    }
}

/// A function, and the place in its code.
pub(super) fn who(by: &str, at: Option<u64>) -> String {
    at.map_or_else(|| by.to_owned(), |at| format!("{by}+{at:#x}"))
}

/// Values of global symbols, by name; they hold for one target.
#[derive(Debug, Default)]
pub(super) struct Globals {
    known: HashMap<String, Taught>,
}

impl Globals {
    /// All names and values.
    pub(super) fn into_known(self) -> impl Iterator<Item = (String, Taught)> {
        self.known.into_iter()
    }
}

/// Run-time addresses of a unit's sections, by section index.
#[derive(Debug, Default, Clone)]
pub(super) struct Sections(Vec<Option<Taught>>);

impl Sections {
    /// For a unit of so many sections.
    pub(super) fn new(count: usize) -> Sections {
        Sections(vec![None; count])
    }

    pub(super) fn get(&self, section: usize) -> Option<&Taught> {
        self.0.get(section)?.as_ref()
    }
}

/// What a symbol's value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact<'u> {
    /// A global symbol's value.
    global: Option<(&'u str, u64)>,
    /// A section's address.
    section: Option<(usize, u64)>,
    /// Where in a function's code it was read.
    pub(super) at: Option<u64>,
}

/// Turns a symbol's value into what it says.
///
/// Sections that the linker merges are placed piece by piece, so they have no address; a weak
/// definition may have lost to another unit's, so it says nothing about its own section.
pub(super) fn fact(unit: &Unit, key: u32, value: u64) -> Fact<'_> {
    let mut fact = Fact { global: None, section: None, at: None };
    let Some(symbol) = unit.symbols.get(key as usize) else { return fact };
    let outside = matches!(symbol.binding, b if b == STB_GLOBAL.0 || b == STB_WEAK.0);
    if outside && !symbol.name.is_empty() && symbol.place != SymbolPlace::Absolute {
        fact.global = Some((symbol.name.as_str(), value));
    }
    if let SymbolPlace::Section(index) = symbol.place
        && symbol.binding != STB_WEAK.0
        && unit.sections.get(index).is_some_and(|s| s.flags & SHF_MERGE.0 == 0)
    {
        fact.section = Some((index, value.wrapping_sub(symbol.value)));
    }
    fact
}

impl Fact<'_> {
    /// The same, read at that offset of a function.
    pub(super) fn read_at(self, offset: u64) -> Self {
        Self { at: Some(offset), ..self }
    }

    /// Whether it contradicts what is known: the name, and both values.
    pub(super) fn contradicts(
        &self,
        unit: &Unit,
        sections: &Sections,
        globals: &Globals,
    ) -> Option<(String, Taught, u64)> {
        if let Some((name, value)) = self.global
            && let Some(known) = globals.known.get(name)
            && known.value != value
        {
            return Some((name.to_owned(), known.clone(), value));
        }
        if let Some((index, value)) = self.section
            && let Some(known) = sections.get(index)
            && known.value != value
        {
            let name = unit.sections.get(index).map_or("", |s| s.name.as_str());
            return Some((name.to_owned(), known.clone(), value));
        }
        None
    }

    /// Whether both speak of the same thing and say different things.
    pub(super) fn denies(&self, other: &Fact<'_>) -> bool {
        self.global.zip(other.global).is_some_and(|((x, v), (y, w))| x == y && v != w)
            || self.section.zip(other.section).is_some_and(|((x, v), (y, w))| x == y && v != w)
    }

    /// What it says of a global symbol must be what the kernel's own list says. `by` says it.
    pub(super) fn listed(
        &self,
        by: &str,
        globals: &Globals,
        snapshot: &Snapshot,
    ) -> Result<(), Refusal> {
        // What is known already was held against the list when it was learned.
        let Some((name, value)) =
            self.global.filter(|(name, _)| !globals.known.contains_key(*name))
        else {
            return Ok(());
        };
        let listed = snapshot.addresses(name);
        match listed.first() {
            Some(first) if !listed.contains(&value) => Err(Refusal::Disagree {
                symbol: name.to_owned(),
                first: (who(by, self.at), value),
                second: (LIST.to_owned(), *first),
            }),
            _ => Ok(()),
        }
    }

    /// Adds it to what is known.
    pub(super) fn teach(self, by: &str, sections: &mut Sections, globals: &mut Globals) {
        if let Some((name, value)) = self.global
            && !globals.known.contains_key(name)
        {
            globals.known.insert(name.to_owned(), Taught { value, by: by.to_owned(), at: self.at });
        }
        if let Some((index, value)) = self.section
            && let Some(slot @ None) = sections.0.get_mut(index)
        {
            *slot = Some(Taught { value, by: by.to_owned(), at: self.at });
        }
    }
}

/// What part of a symbol's value says. It teaches nothing, but must not contradict what is known.
#[derive(Debug, Clone)]
pub(super) struct Hint {
    global: Option<String>,
    /// A section, and what is added to its address to get the symbol's value.
    section: Option<(usize, u64)>,
    partial: Partial,
    by: String,
}

/// Turns a part of a symbol's value into what it says; the limits are those of [`fact`].
pub(super) fn hint(unit: &Unit, partial: &Partial, by: &str) -> Hint {
    let whole = fact(unit, partial.key, 0);
    Hint {
        global: whole.global.map(|(name, _)| name.to_owned()),
        section: whole.section.map(|(index, value)| (index, value.wrapping_neg())),
        partial: *partial,
        by: by.to_owned(),
    }
}

impl Hint {
    fn holds(&self, value: u64) -> bool {
        let Partial { bias, known, value: bits, .. } = self.partial;
        value.wrapping_add(bias) & known == bits
    }

    /// Whether it contradicts what is known: the name, and what is known.
    pub(super) fn contradicts(
        &self,
        unit: &Unit,
        sections: &Sections,
        globals: &Globals,
    ) -> Option<(String, Taught)> {
        if let Some(name) = &self.global
            && let Some(known) = globals.known.get(name)
            && !self.holds(known.value)
        {
            return Some((name.clone(), known.clone()));
        }
        if let Some((index, offset)) = &self.section
            && let Some(known) = sections.get(*index)
            && !self.holds(known.value.wrapping_add(*offset))
        {
            let name = unit.sections.get(*index).map_or("", |s| s.name.as_str());
            return Some((name.to_owned(), known.clone()));
        }
        None
    }

    /// The refusal for a contradiction.
    pub(super) fn refusal(&self, symbol: String, known: Taught) -> Refusal {
        let Partial { bias, known: bits, value, .. } = self.partial;
        // A value that the part allows: the known one with the bits exchanged.
        let mine = (known.value.wrapping_add(bias) & !bits | value).wrapping_sub(bias);
        Refusal::Disagree {
            symbol,
            first: (known.who(), known.value),
            second: (self.by.clone(), mine),
        }
    }

    /// Whether the kernel's list has the symbol, but only where the part does not allow it: one
    /// of the places that it has.
    pub(super) fn not_listed(&self, snapshot: &Snapshot) -> Option<(String, u64)> {
        let name = self.global.as_ref()?;
        let listed = snapshot.addresses(name);
        match listed.first() {
            Some(first) if !listed.iter().any(|v| self.holds(*v)) => Some((name.clone(), *first)),
            _ => None,
        }
    }
}

/// The address of a symbol that new code needs. `elsewhere` tells what was learned of a target's unit's
/// symbol.
pub(super) fn resolve(
    needed: &NeededSymbol,
    target: &Target,
    (pre, units): (&[Unit], &[UnitMatch]),
    globals: &Globals,
    elsewhere: &dyn Fn(&str, u32, u32) -> Option<u64>,
    snapshot: &Snapshot,
) -> Result<u64, Refusal> {
    match &needed.place {
        Place::Global => match globals.known.get(&needed.name) {
            Some(taught) => Ok(taught.value),
            None => match defined(&needed.name, pre, units) {
                Some(value) => Ok(value),
                None => unique_global(&needed.name, &target.name, snapshot),
            },
        },
        Place::Elsewhere { target, unit, symbol } => {
            elsewhere(target, *unit, *symbol).ok_or_else(|| no_symbol(needed))
        }
        &Place::Local { unit, symbol } => {
            let matched = units.get(unit as usize).ok_or_else(|| no_symbol(needed))?;
            if let Some(value) = matched.local(symbol) {
                return Ok(value);
            }
            // In a list of code alone, the name is at best that of some function.
            let is_code = pre.get(unit as usize).is_some_and(|unit| names_code(unit, symbol));
            if !is_code && !snapshot.symbols.lists_data() {
                return Err(no_symbol(needed));
            }
            unique_local(needed, &target.name, snapshot)
        }
    }
}

/// A global name that no matched code mentions, but that is defined in a section whose address is known.
/// A weak definition may not be the one that stands in the kernel.
fn defined(name: &str, pre: &[Unit], units: &[UnitMatch]) -> Option<u64> {
    pre.iter().zip(units).find_map(|(unit, matched)| {
        let index = unit.symbols.iter().position(|symbol| {
            symbol.name == name
                && symbol.binding == STB_GLOBAL.0
                && matches!(symbol.place, SymbolPlace::Section(_))
        })?;
        matched.local(u32::try_from(index).ok()?)
    })
}

fn names_code(unit: &Unit, symbol: u32) -> bool {
    let place = unit.symbols.get(symbol as usize).map(|symbol| symbol.place);
    matches!(place, Some(SymbolPlace::Section(index))
        if unit.sections.get(index).is_some_and(|s| s.flags & SHF_EXECINSTR.0 != 0))
}

fn no_symbol(needed: &NeededSymbol) -> Refusal {
    Refusal::NoSymbol { name: needed.name.clone(), link: needed.link.clone() }
}

/// A global name that no matched code mentions: the kernel's list must have one symbol of that name
/// in the target, or one in the image that is global there. Of a module's symbols the list shows
/// only the exported ones as global (`s_show`, kernel/kallsyms.c), so there every namesake counts; and a
/// function of a module may have the name of another unit's object, which a list of code alone hides.
fn unique_global(name: &str, target: &str, snapshot: &Snapshot) -> Result<u64, Refusal> {
    let mut found: Vec<u64> = snapshot
        .symbols
        .named(name)
        .filter(|s| match s.module {
            VMLINUX => s.is_global(),
            module => {
                snapshot.symbols.lists_data()
                    && (module == target || snapshot.stack.update_of(module).is_some())
            }
        })
        .map(|s| s.address)
        .collect();
    found.sort_unstable();
    found.dedup();
    one(name, name, found)
}

/// A local name that no matched code mentions: it must be the only one of its name; what applied
/// updates have brought counts.
fn unique_local(needed: &NeededSymbol, target: &str, snapshot: &Snapshot) -> Result<u64, Refusal> {
    if needed.name.is_empty() {
        return Err(no_symbol(needed));
    }
    let mut found: Vec<u64> = snapshot
        .symbols
        .named(&needed.name)
        .filter(|s| s.module == target || snapshot.stack.update_of(s.module).is_some())
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
