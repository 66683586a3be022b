// SPDX-License-Identifier: GPL-2.0-or-later
//! The debug sections of a relocatable object, with their relocations applied.
//!
//! Nothing has an address yet, so each section that will be loaded gets one of its own, far from
//! the others; an address in the debug information then names a section and a place in it.

use std::collections::BTreeMap;

use gimli::{Dwarf, DwarfSections, EndianSlice, LittleEndian, SectionId};
use object::LittleEndian as LE;
use object::elf::{
    FileHeader64, SHF_ALLOC, SHF_COMPRESSED, SHN_ABS, SHN_UNDEF, SHT_NOBITS, SHT_RELA, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, Rela as _, SectionHeader, Sym};

use super::{Budget, DebugError, Reader};
use crate::arch::{Arch, Uleb128};
use crate::unit::Unit;

/// What is read. Locations of variables, macros and unwind tables say nothing of layouts.
const READ: &[SectionId] = &[
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The sections of one object.
pub(super) struct Sections {
    data: DwarfSections<Vec<u8>>,
    /// Names of the sections that are loaded, in order.
    loaded: Vec<String>,
    /// Length of all that is read, and of the tables that units share, in bytes.
    bytes: usize,
    tables: usize,
}

/// The address given to the section that is loaded as number `number`.
fn address(number: usize) -> u64 {
    (number as u64 + 1) << 32
}

impl Sections {
    /// Reads them; an error if there are none.
    pub(super) fn read(arch: &dyn Arch, unit: &str, bytes: &[u8]) -> Result<Self, DebugError> {
        let mut loaded = Vec::new();
        let mut found = read(arch, bytes, &mut loaded)
            .map_err(|why| DebugError(format!("the debug information of {unit}: {why}")))?;
        if found.get(SectionId::DebugInfo.name()).is_none_or(Vec::is_empty) {
            return Err(DebugError(format!("{unit} has no debug information")));
        }
        let length = |id: &SectionId| found.get(id.name()).map_or(0, Vec::len);
        let bytes = READ.iter().map(length).sum();
        let tables = length(&SectionId::DebugAbbrev) + length(&SectionId::DebugLine);
        let data = DwarfSections::load(|id| {
            Ok::<_, DebugError>(found.remove(id.name()).unwrap_or_default())
        })?;
        Ok(Self { data, loaded, bytes, tables })
    }

    /// The debug information.
    pub(super) fn dwarf(&self) -> Dwarf<Reader<'_>> {
        self.data.borrow(|bytes| EndianSlice::new(bytes, LittleEndian))
    }

    /// What reading all of it may cost.
    pub(super) fn budget(&self) -> Budget {
        Budget::for_bytes(self.bytes)
    }

    /// The compiled units, with their abbreviations read.
    pub(super) fn units(
        &self,
        budget: &mut Budget,
    ) -> Result<Vec<gimli::Unit<Reader<'_>>>, DebugError> {
        let dwarf = self.dwarf();
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            // Each may claim the tables of all, which are read again for it.
            budget.spend(self.tables / 4)?;
            match header.type_() {
                gimli::UnitType::Compilation => {}
                gimli::UnitType::Partial => {}
                gimli::UnitType::Type { .. } => {
                    return Err(DebugError("the debug information has units of types".into()));
                }
                _ => return Err(DebugError("the debug information is in another file".into())),
            }
            let unit = dwarf.unit(header)?;
            if unit.dwo_id.is_some() || unit.dwo_name()?.is_some() {
                return Err(DebugError("the debug information is in another file".into()));
            }
            units.push(unit);
        }
        Ok(units)
    }

    /// The address of a place in a section of `unit`, which is of the same object, or of what
    /// was left of it without debug sections.
    pub(super) fn address(&self, unit: &Unit, section: usize, offset: u64) -> Option<u64> {
        let loaded =
            |index: &usize| unit.sections.get(*index).is_some_and(|s| s.flags & SHF_ALLOC.0 != 0);
        let number = (0..section).filter(loaded).count();
        let name = unit.sections.get(section).map(|s| s.name.as_str())?;
        let same = loaded(&section) && self.loaded.get(number).is_some_and(|n| n == name);
        same.then(|| address(number).wrapping_add(offset))
    }
}

fn read(
    arch: &dyn Arch,
    bytes: &[u8],
    loaded: &mut Vec<String>,
) -> Result<BTreeMap<&'static str, Vec<u8>>, String> {
    let text = |e: object::read::Error| e.to_string();
    let header = FileHeader64::<LE>::parse(bytes).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    let table = header.sections(endian, bytes).map_err(text)?;
    let mut found: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    let mut index_of = BTreeMap::new();
    let mut addresses = Vec::new();
    for (index, section) in table.iter().enumerate() {
        let name = table.section_name(endian, section).map_err(text)?;
        let flags = section.sh_flags(endian).0;
        if flags & SHF_ALLOC.0 != 0 {
            addresses.push(address(loaded.len()));
            loaded.push(String::from_utf8_lossy(name).into_owned());
            continue;
        }
        addresses.push(0);
        if name.starts_with(b".zdebug_") {
            return Err("it is compressed, which splice does not read".into());
        }
        if name.starts_with(b".debug_types") {
            return Err("it has units of types, which splice does not read".into());
        }
        let Some(id) = READ.iter().find(|id| id.name().as_bytes() == name) else { continue };
        if flags & SHF_COMPRESSED.0 != 0 {
            return Err("it is compressed, which splice does not read".into());
        }
        if section.sh_type(endian) == SHT_NOBITS {
            continue;
        }
        let data = section.data(endian, bytes).map_err(text)?.to_vec();
        if found.insert(id.name(), data).is_some() {
            return Err(format!("there are several sections {}", id.name()));
        }
        index_of.insert(index, id.name());
    }
    let symbols = table.symbols(endian, bytes, SHT_SYMTAB).map_err(text)?;
    for section in table.iter().filter(|s| s.sh_type(endian) == SHT_RELA) {
        let target = section.sh_info(endian) as usize;
        let Some(data) = index_of.get(&target).and_then(|name| found.get_mut(name)) else {
            continue;
        };
        let Some((relas, _)) = section.rela(endian, bytes).map_err(text)? else { continue };
        let mut differences = BTreeMap::new();
        for rela in relas {
            let index = object::SymbolIndex(rela.r_sym(endian, false) as usize);
            let symbol = symbols.symbol(index).map_err(text)?;
            let value = match symbol.st_shndx(endian) {
                SHN_UNDEF => 0,
                SHN_ABS => symbol.st_value(endian),
                _ => {
                    let section = symbols.symbol_section(endian, symbol, index).map_err(text)?;
                    let base = section.and_then(|s| addresses.get(s.0)).copied().unwrap_or(0);
                    base.wrapping_add(symbol.st_value(endian))
                }
            };
            let (offset, r_type) = (rela.r_offset(endian), rela.r_type(endian, false).0);
            let addend = rela.r_addend(endian);
            match arch.reloc().uleb128(r_type) {
                None => apply(arch, data, offset, r_type, value, addend)?,
                Some(how) => {
                    differ(&mut differences, offset, how, value.wrapping_add_signed(addend))?;
                }
            }
        }
        for (offset, difference) in differences {
            store_uleb128(data, offset, difference)?;
        }
    }
    Ok(found)
}

fn apply(
    arch: &dyn Arch,
    data: &mut [u8],
    offset: u64,
    r_type: u32,
    value: u64,
    addend: i64,
) -> Result<(), String> {
    let info = arch
        .reloc()
        .describe(r_type)
        .ok_or_else(|| format!("relocation type {r_type} is not known"))?;
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let field = from
        .checked_add(usize::from(info.width))
        .and_then(|to| data.get_mut(from..to))
        .ok_or("a relocation lies outside its section")?;
    arch.reloc().apply(r_type, value, addend, offset, field).map_err(|e| e.to_string())
}

/// One half of a difference of variable length. Halves are large, only the difference has the length of
/// its field.
fn differ(
    differences: &mut BTreeMap<u64, u64>,
    offset: u64,
    how: Uleb128,
    value: u64,
) -> Result<(), String> {
    match (how, differences.get_mut(&offset)) {
        (Uleb128::Set, None) => {
            differences.insert(offset, value);
            Ok(())
        }
        (Uleb128::Sub, Some(sum)) => {
            *sum = sum.wrapping_sub(value);
            Ok(())
        }
        _ => Err("the relocations of a number of variable length are not a difference".into()),
    }
}

/// Stores a number over one that takes as many bytes.
fn store_uleb128(data: &mut [u8], offset: u64, mut value: u64) -> Result<(), String> {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    for byte in data.get_mut(from..).unwrap_or_default() {
        let more = *byte & 0x80;
        *byte = more | (value & 0x7f) as u8;
        value >>= 7;
        if more == 0 {
            return match value {
                0 => Ok(()),
                _ => Err("a number of variable length does not fit where it belongs".into()),
            };
        }
    }
    Err("a number of variable length has no end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_takes_the_length_that_it_has() {
        let mut data = [0xff, 0x80, 0x00, 0xff];
        store_uleb128(&mut data, 1, 5).unwrap();
        assert_eq!(data, [0xff, 0x85, 0x00, 0xff]);
        store_uleb128(&mut data, 1, 0x3fff).unwrap();
        assert_eq!(data, [0xff, 0xff, 0x7f, 0xff]);
        assert!(store_uleb128(&mut data, 1, 0x4000).is_err());
        assert!(store_uleb128(&mut data, 3, 0).is_err(), "it goes on behind the section");
        assert!(store_uleb128(&mut data, 9, 0).is_err());
    }

    #[test]
    fn half_a_difference_is_refused() {
        let mut all = BTreeMap::new();
        assert!(differ(&mut all, 0, Uleb128::Sub, 1).is_err());
        differ(&mut all, 0, Uleb128::Set, 7).unwrap();
        assert!(differ(&mut all, 0, Uleb128::Set, 7).is_err());
        differ(&mut all, 0, Uleb128::Sub, 3).unwrap();
        assert_eq!(all.get(&0), Some(&4));
    }
}
