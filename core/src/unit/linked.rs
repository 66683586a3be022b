// SPDX-License-Identifier: GPL-2.0-or-later
//! What an assembler leaves to the linker although it lies within one section: padding that is fitted to
//! where it comes to lie, and differences of two places. Assemblers do so where linkers may shorten code.
//! A unit has them as the kernel has: then its code is as long as the running one, and its tables have
//! their numbers.

use object::elf::STT_SECTION;

use super::{Reloc, SymbolPlace, Unit};
use crate::arch::{Arch, RelocKind};

/// Padding of a section, and what the linker leaves of it.
struct Padding {
    start: u64,
    len: u64,
    left: Vec<u8>,
}

impl Padding {
    fn gone(&self) -> u64 {
        self.len.saturating_sub(self.left.len() as u64)
    }
}

/// Settles both.
pub(super) fn settle(arch: &dyn Arch, unit: &mut Unit) -> Result<(), String> {
    for index in 0..unit.sections.len() {
        let all = paddings(arch, unit, index)?;
        if !all.is_empty() {
            fit(unit, index, &all);
        }
    }
    for index in 0..unit.sections.len() {
        differences(arch, unit, index);
    }
    Ok(())
}

/// The paddings of a section, in order. A section that is aligned less than its code is no padding's
/// measure, but an assembler aligns a section as its contents.
fn paddings(arch: &dyn Arch, unit: &Unit, index: usize) -> Result<Vec<Padding>, String> {
    let Some(section) = unit.sections.get(index) else { return Ok(Vec::new()) };
    let mut all: Vec<Padding> = Vec::new();
    let (mut gone, mut behind) = (0, 0);
    for reloc in &section.relocs {
        let at = reloc.offset.saturating_sub(gone);
        let Some(left) = arch.reloc().padding(at, reloc.r_type, reloc.addend) else { continue };
        let one = Padding { start: reloc.offset, len: reloc.addend.unsigned_abs(), left };
        let end = one.start.saturating_add(one.len);
        if one.start < behind || end > section.data.len() as u64 || one.left.len() as u64 > one.len
        {
            return Err(format!("padding at {:#x} of {} has no sense", one.start, section.name));
        }
        behind = end;
        gone += one.gone();
        all.push(one);
    }
    Ok(all)
}

/// Where an offset of a section is once its paddings fit.
fn moved(paddings: &[Padding], offset: u64) -> u64 {
    let mut gone = 0;
    for one in paddings.iter().take_while(|one| one.start < offset) {
        let within = offset - one.start;
        gone += if within < one.len {
            within.saturating_sub(one.left.len() as u64)
        } else {
            one.gone()
        };
    }
    offset - gone
}

/// Fits the paddings of a section, and moves what is behind them.
fn fit(unit: &mut Unit, index: usize, paddings: &[Padding]) {
    let size = unit.sections.get(index).map_or(0, |section| section.size);
    let here = SymbolPlace::Section(index);
    for section in &mut unit.sections {
        for reloc in &mut section.relocs {
            let symbol = unit.symbols.get(reloc.symbol as usize);
            let by_offset = symbol.is_some_and(|s| s.kind == STT_SECTION.0 && s.place == here);
            if let Some(offset) =
                u64::try_from(reloc.addend).ok().filter(|a| by_offset && *a <= size)
            {
                reloc.addend = moved(paddings, offset).cast_signed();
            }
        }
    }
    for symbol in unit.symbols.iter_mut().filter(|symbol| symbol.place == here) {
        let start = moved(paddings, symbol.value);
        symbol.size = moved(paddings, symbol.value.saturating_add(symbol.size)) - start;
        symbol.value = start;
    }
    let Some(section) = unit.sections.get_mut(index) else { return };
    let mut data = Vec::with_capacity(section.data.len());
    let mut from = 0;
    let offset = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    for one in paddings {
        data.extend(section.data.get(from..offset(one.start)).unwrap_or_default());
        data.extend(&one.left);
        from = offset(one.start.saturating_add(one.len));
    }
    data.extend(section.data.get(from..).unwrap_or_default());
    section.data = data;
    section.size = moved(paddings, section.size);
    section.relocs.retain(|r| paddings.binary_search_by_key(&r.offset, |one| one.start).is_err());
    for reloc in &mut section.relocs {
        reloc.offset = moved(paddings, reloc.offset);
    }
}

/// Stores the differences of places in one section: several relocations of one field, whose sum is the same
/// wherever that section is.
fn differences(arch: &dyn Arch, unit: &mut Unit, index: usize) {
    let Some(section) = unit.sections.get(index) else { return };
    let mut stored = Vec::new();
    let fields = section.relocs.chunk_by(|a, b| a.offset == b.offset);
    for group in fields.filter(|group| group.len() > 1) {
        let sums = [0, 1 << 20].map(|base| sum(arch, unit, index, group, base));
        if let [Some(field), Some(same)] = sums
            && field == same
        {
            stored.extend(group.first().map(|r| (r.offset, field)));
        }
    }
    let Some(section) = unit.sections.get_mut(index) else { return };
    for (offset, field) in &stored {
        let from = usize::try_from(*offset).unwrap_or(usize::MAX);
        for (byte, new) in section.data.iter_mut().skip(from).zip(field) {
            *byte = *new;
        }
    }
    section.relocs.retain(|r| stored.binary_search_by_key(&r.offset, |(at, _)| *at).is_err());
}

/// What these relocations make of their field if the one section that they all refer to is at `base`.
fn sum(arch: &dyn Arch, unit: &Unit, index: usize, group: &[Reloc], base: u64) -> Option<Vec<u8>> {
    let section = unit.sections.get(index)?;
    let symbol = |reloc: &Reloc| unit.symbols.get(reloc.symbol as usize);
    let place = symbol(group.first()?)?.place;
    let width = arch.reloc().describe(group.first()?.r_type)?.width;
    let from = usize::try_from(group.first()?.offset).ok()?;
    let mut field = section.data.get(from..from.checked_add(usize::from(width))?)?.to_vec();
    for reloc in group {
        let row = arch.reloc().describe(reloc.r_type)?;
        let target = symbol(reloc).filter(|s| s.place == place)?;
        if !matches!(place, SymbolPlace::Section(_))
            || (row.kind, row.width, row.pc_relative) != (RelocKind::Address, width, false)
        {
            return None;
        }
        let value = base.wrapping_add(target.value);
        arch.reloc().apply(reloc.r_type, value, reloc.addend, reloc.offset, &mut field).ok()?;
    }
    Some(field)
}
