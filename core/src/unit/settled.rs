// SPDX-License-Identifier: GPL-2.0-or-later
//! Functions that share a section refer to one another without relocations, where the assembler
//! knew the distance. Such a reference means another place as soon as a function between the two
//! grows, and must lead into the running kernel if only one of the two is replaced: so the relocation
//! that it would have been is put back, and from here on it is like any other.

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, STB_LOCAL, STT_SECTION};

use super::{Reloc, SpanId, SpanKind, Symbol, SymbolPlace, Unit, UnitError};
use crate::arch::{Arch, Settled, check};

/// Puts relocations back in all sections that hold more than one function.
pub(super) fn restore(arch: &dyn Arch, unit: &mut Unit) -> Result<(), UnitError> {
    for index in 0..unit.sections.len() {
        let shared = unit.by_section.get(index).is_some_and(|spans| spans.len() > 1);
        let code = unit
            .sections
            .get(index)
            .is_some_and(|s| s.flags & SHF_ALLOC.0 != 0 && s.flags & SHF_EXECINSTR.0 != 0);
        if !shared || !code || unit.special(index).is_some() {
            continue;
        }
        let found = find(arch, unit, index)?;
        if !found.is_empty() {
            put(arch, unit, index, &found);
        }
    }
    Ok(())
}

/// The references of a section's functions to its other pieces; offsets are the section's.
fn find(arch: &dyn Arch, unit: &Unit, index: usize) -> Result<Vec<Settled>, UnitError> {
    let spans = unit.by_section.get(index).cloned().unwrap_or_default();
    let size = unit.sections.get(index).map_or(0, |s| s.size);
    let mut all = Vec::new();
    for id in spans {
        let Some(span) = unit.spans.get(id).filter(|s| s.kind == SpanKind::Function) else {
            continue;
        };
        let found = settled(arch, unit, id)?;
        for one in found {
            let Some(place) = span.offset.checked_add_signed(one.target) else { continue };
            if place >= size || unit.span_at(index, place).is_none_or(|to| to == id) {
                continue;
            }
            all.push(Settled {
                offset: span.offset + one.offset,
                addend: one.addend.wrapping_add_unsigned(span.offset),
                ..one
            });
        }
    }
    Ok(all)
}

fn settled(arch: &dyn Arch, unit: &Unit, id: SpanId) -> Result<Vec<Settled>, UnitError> {
    let answer = unit.with_code(arch, id, |code| {
        let found = arch.reloc().settled(code)?;
        check::settled(arch, code, &found)?;
        Ok(found)
    })?;
    answer.map_err(|source| UnitError::Arch { unit: unit.name.clone(), source })
}

/// Adds the relocations against the section's symbol, and clears their fields: the addend says it
/// all.
fn put(arch: &dyn Arch, unit: &mut Unit, index: usize, found: &[Settled]) {
    let symbol = match unit.section_symbol(index) {
        Some((symbol, _)) => symbol,
        None => {
            // The assembler leaves out a section's symbol that nothing refers to.
            unit.symbols.push(Symbol {
                name: String::new(),
                place: SymbolPlace::Section(index),
                value: 0,
                size: 0,
                kind: STT_SECTION.0,
                binding: STB_LOCAL.0,
                other: 0,
            });
            (unit.symbols.len() - 1) as u32
        }
    };
    let Some(section) = unit.sections.get_mut(index) else { return };
    for one in found {
        let Some(info) = arch.reloc().describe(one.r_type) else { continue };
        let from = usize::try_from(one.offset).unwrap_or(usize::MAX);
        let field = from
            .checked_add(usize::from(info.width))
            .and_then(|end| section.data.get_mut(from..end))
            .unwrap_or_default();
        for (byte, owned) in field.iter_mut().zip(info.mask.to_le_bytes()) {
            *byte &= !owned;
        }
        section.relocs.push(Reloc {
            offset: one.offset,
            r_type: one.r_type,
            symbol,
            addend: one.addend,
        });
    }
    section.relocs.sort_by_key(|r| r.offset);
}
