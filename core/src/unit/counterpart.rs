// SPDX-License-Identifier: GPL-2.0-or-later
//! One unit, compiled in two ways: which symbols name the same thing.

use object::elf::{STT_OBJECT, STT_SECTION};

use super::{Symbol, SymbolPlace, Unit};

impl Unit {
    /// The index in another object of the same unit of the symbol that names what one of this object's
    /// names: the one of its name and type, if each object has only one. A section's symbol is taken for
    /// that of what fills the section from its beginning on. Neither object is trusted to be the other's.
    pub fn counterpart(&self, symbol: u32, other: &Unit) -> Option<u32> {
        let named = match self.symbols.get(symbol as usize)? {
            section if section.kind == STT_SECTION.0 => self.filling(section)?,
            named => named,
        };
        let same = |symbol: &&Symbol| {
            matches!(symbol.place, SymbolPlace::Section(_))
                && (&symbol.name, symbol.kind) == (&named.name, named.kind)
        };
        if named.name.is_empty() || self.symbols.iter().filter(same).count() != 1 {
            return None;
        }
        let mut found = other.symbols.iter().enumerate().filter(|(_, symbol)| same(symbol));
        match (found.next(), found.next()) {
            (Some((index, symbol)), None)
                if symbol.size == named.size || named.kind != STT_OBJECT.0 =>
            {
                u32::try_from(index).ok()
            }
            _ => None,
        }
    }

    /// The only named thing in a section, if it begins where the section begins.
    fn filling(&self, section: &Symbol) -> Option<&Symbol> {
        let SymbolPlace::Section(index) = section.place else { return None };
        let mut spans = self.spans.get(self.by_section.get(index)?.clone())?.iter();
        match (spans.next(), spans.next()) {
            (Some(span), None) if span.offset == 0 => self.symbols.get(span.symbol? as usize),
            _ => None,
        }
    }
}
