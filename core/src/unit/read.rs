// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading an ELF relocatable object. Sizes, offsets and indexes of the file are never trusted.

use object::LittleEndian as LE;
use object::elf::{
    ET_REL, FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHN_ABS, SHN_UNDEF, SHT_NOBITS,
    SHT_REL, SHT_RELA, SHT_SYMTAB,
};
use object::read::elf::{FileHeader, Rela as _, SectionHeader, Sym};

use super::{
    Reloc, Role, Section, Symbol, SymbolPlace, Unit, UnitError, linked, settled, span, special,
};
use crate::arch::Arch;

/// Larger claims of a file are refused: no unit of a kernel comes near.
const MAX_SIZE: u64 = 1 << 30;

impl Unit {
    /// Reads the object `bytes`; `name` is for messages. Debug sections are left out, but keep
    /// their index.
    pub fn read(arch: &dyn Arch, name: &str, bytes: &[u8]) -> Result<Unit, UnitError> {
        let malformed = |why: String| UnitError::Malformed { unit: name.to_owned(), why };
        let mut unit = parse(name, bytes).map_err(malformed)?;
        if unit.e_machine != arch.e_machine() {
            return Err(malformed(format!(
                "it is for ELF machine {}, not for {}",
                unit.e_machine,
                arch.name()
            )));
        }
        if let Some(section) = unit.sections.iter().find(|s| lacks_bytes(arch, s)) {
            return Err(malformed(format!("section {} has no bytes in the file", section.name)));
        }
        if let Some(section) = unit.sections.iter().find(|s| is_part_of_file(s)) {
            return Err(malformed(format!(
                "section {} describes the file, and yet claims to be loaded",
                section.name
            )));
        }
        linked::settle(arch, &mut unit).map_err(malformed)?;
        span::cut(arch, &mut unit);
        settled::restore(arch, &mut unit)?;
        Ok(unit)
    }
}

/// Whether a section that only a linker reads is marked as one that a processor reads.
fn is_part_of_file(section: &Section) -> bool {
    section.flags & SHF_ALLOC.0 != 0 && !span::is_table(section.sh_type)
}

/// Whether a section that only its bytes can be understood by has none: all but plain data. A table
/// is read whether it is loaded or not.
fn lacks_bytes(arch: &dyn Arch, section: &Section) -> bool {
    let loaded = section.flags & SHF_ALLOC.0 != 0;
    section.sh_type == SHT_NOBITS.0
        && (loaded && section.flags & (SHF_MERGE.0 | SHF_EXECINSTR.0) != 0
            || special::row_for(arch, &section.name)
                .is_some_and(|row| row.role != Role::Dropped && !row.role.is_data()))
}

fn parse(name: &str, bytes: &[u8]) -> Result<Unit, String> {
    let text = |e: object::read::Error| e.to_string();
    let header = FileHeader64::<LE>::parse(bytes).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    if header.e_type(endian) != ET_REL {
        return Err("it is not a relocatable object".into());
    }
    let table = header.sections(endian, bytes).map_err(text)?;
    let mut sections = Vec::new();
    for section in table.iter() {
        let section_name =
            String::from_utf8_lossy(table.section_name(endian, section).map_err(text)?)
                .into_owned();
        let sh_type = section.sh_type(endian).0;
        let size = section.sh_size(endian);
        if size > MAX_SIZE {
            return Err(format!("section {section_name} claims {size} bytes"));
        }
        let debug = is_debug(&section_name);
        let data = if debug || sh_type == SHT_NOBITS.0 {
            Vec::new()
        } else {
            section.data(endian, bytes).map_err(text)?.to_vec()
        };
        let align = section.sh_addralign(endian).max(1);
        if !align.is_power_of_two() || align > 1 << 24 {
            return Err(format!("section {section_name} has alignment {align}"));
        }
        sections.push(Section {
            name: section_name,
            sh_type,
            flags: section.sh_flags(endian).0,
            align,
            entsize: section.sh_entsize(endian),
            size: if debug { 0 } else { size },
            data,
            relocs: Vec::new(),
        });
    }
    let symbol_table = table.symbols(endian, bytes, SHT_SYMTAB).map_err(text)?;
    let mut symbols = Vec::new();
    for (index, symbol) in symbol_table.enumerate() {
        let symbol_name = if index.0 == 0 {
            String::new()
        } else {
            String::from_utf8_lossy(symbol.name(endian, symbol_table.strings()).map_err(text)?)
                .into_owned()
        };
        let place = match symbol.st_shndx(endian) {
            SHN_UNDEF => SymbolPlace::Undefined,
            SHN_ABS => SymbolPlace::Absolute,
            _ => match symbol_table.symbol_section(endian, symbol, index).map_err(text)? {
                Some(section) if section.0 < sections.len() => SymbolPlace::Section(section.0),
                _ => return Err(format!("symbol {symbol_name} is in no section")),
            },
        };
        symbols.push(Symbol {
            name: symbol_name,
            place,
            value: symbol.st_value(endian),
            size: symbol.st_size(endian),
            kind: symbol.st_type().0,
            binding: symbol.st_bind().0,
            other: symbol.st_other().0,
        });
    }
    for section in table.iter() {
        let target = section.sh_info(endian) as usize;
        let sh_type = section.sh_type(endian);
        if sh_type == SHT_REL {
            return Err("it has relocations without addends".into());
        }
        if sh_type != SHT_RELA {
            continue;
        }
        let Some((relas, _)) = section.rela(endian, bytes).map_err(text)? else { continue };
        let owner = sections
            .get_mut(target)
            .ok_or_else(|| format!("relocations for section {target}, which is not there"))?;
        if is_debug(&owner.name) {
            continue;
        }
        for rela in relas {
            let symbol = rela.r_sym(endian, false);
            if symbol as usize >= symbols.len() {
                return Err(format!("a relocation of {} has no symbol", owner.name));
            }
            owner.relocs.push(Reloc {
                offset: rela.r_offset(endian),
                r_type: rela.r_type(endian, false).0,
                symbol,
                addend: rela.r_addend(endian),
            });
        }
        if owner.relocs.iter().any(|r| r.offset >= owner.size) {
            return Err(format!("a relocation of {} lies outside it", owner.name));
        }
        owner.relocs.sort_by_key(|r| r.offset);
    }
    Ok(Unit {
        name: name.to_owned(),
        e_machine: header.e_machine(endian).0,
        e_flags: header.e_flags(endian).0,
        sections,
        symbols,
        spans: Vec::new(),
        special: Vec::new(),
        uncut: Vec::new(),
        beside: Vec::new(),
        by_section: Vec::new(),
        about: Vec::new(),
    })
}

fn is_debug(section: &str) -> bool {
    section.starts_with(".debug") || section.starts_with(".zdebug")
}
