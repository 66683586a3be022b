// SPDX-License-Identifier: GPL-2.0-or-later
//! Jump labels whose key is read-only since the start of the kernel. Up to 6.9 the module loader links
//! a module's entries into the key all the same (`jump_label_add_module`), which no such memory
//! allows: the kernel would fault while it loads the update. Since 6.10 it leaves the keys of the
//! kernel's image alone that are sealed at the end of the start (`jump_label_init_ro`).

use std::collections::{BTreeMap, BTreeSet};

use object::LittleEndian;
use object::elf::{FileHeader64, SHN_UNDEF, SHT_RELA, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader, Sym};

use super::PlanError;
use crate::arch::KernelView;
use crate::runpre::Snapshot;

/// The first key outside of an update module, by its symbol there, that the loader would have to
/// write to and cannot, or of which that is not known; `symbols` are the addresses that the module
/// will be given. A key of another module that is read-only is not seen.
pub fn sealed_key(
    ko: &[u8],
    symbols: &BTreeMap<String, u64>,
    snapshot: &Snapshot,
) -> Result<Option<String>, PlanError> {
    if !snapshot.addresses("jump_label_init_ro").is_empty() {
        return Ok(None);
    }
    let sealed = snapshot.sealed();
    for key in keys(ko)? {
        let places = match symbols.get(&key) {
            Some(address) => vec![*address],
            None => snapshot.exported(&key),
        };
        let writable = sealed.is_some_and(|(start, end)| {
            !places.is_empty() && places.iter().all(|place| !(start..end).contains(place))
        });
        if !writable {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// What the module's jump labels refer to outside of it: nothing but keys.
fn keys(ko: &[u8]) -> Result<BTreeSet<String>, PlanError> {
    let broken = |error: object::read::Error| PlanError::Elf(error.to_string());
    let header = FileHeader64::<LittleEndian>::parse(ko).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let sections = header.sections(endian, ko).map_err(broken)?;
    let table = sections.symbols(endian, ko, SHT_SYMTAB).map_err(broken)?;
    let mut keys = BTreeSet::new();
    for section in sections.iter().filter(|s| s.sh_type(endian) == SHT_RELA) {
        let about = object::SectionIndex(section.sh_info(endian) as usize);
        let about = sections.section(about).map_err(broken)?;
        if sections.section_name(endian, about).map_err(broken)? != b"__jump_table" {
            continue;
        }
        let Some((relas, _)) = section.rela(endian, ko).map_err(broken)? else { continue };
        for rela in relas {
            let index = object::SymbolIndex(rela.r_sym(endian, false) as usize);
            let symbol = table.symbol(index).map_err(broken)?;
            if symbol.st_shndx(endian) == SHN_UNDEF {
                let name = symbol.name(endian, table.strings()).map_err(broken)?;
                keys.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::runpre::{Kallsyms, RawDump};

    const LABELS: &str = "\
        .text\n1: nop\n2: nop\n\
        .bss\nown: .zero 16\n\
        .section __jump_table, \"aw\", @progbits\n\
        .long 1b - ., 2b - .\n.quad own - .\n\
        .long 1b - ., 2b - .\n.quad splice_sym_0_key - .\n\
        .long 1b - ., 2b - .\n.quad exported - .\n";

    fn object() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (s, o) = (dir.path().join("t.s"), dir.path().join("t.o"));
        std::fs::write(&s, LABELS).unwrap();
        let done = Command::new("gcc").arg("-c").arg(&s).arg("-o").arg(&o).status();
        assert!(done.expect("these tests need gcc").success());
        std::fs::read(o).unwrap()
    }

    fn sealed(listed: &str, key: u64) -> Option<String> {
        let symbols = Kallsyms::parse(format!("ffffffff81000000 T _stext\n{listed}")).unwrap();
        let snapshot = Snapshot::new(None, symbols, Box::new(RawDump::new(0, Vec::new())));
        let values = BTreeMap::from([("splice_sym_0_key".to_owned(), key)]);
        sealed_key(&object(), &values, &snapshot).unwrap()
    }

    const RANGE: &str = "ffffffff82000000 D __start_ro_after_init\n\
                         ffffffff82001000 D __end_ro_after_init\n";
    const EXPORTED: &str = "ffffffff82001000 D exported\n";

    #[test]
    fn keys_that_are_read_only_since_the_start_are_found() {
        let writable = 0xffff_ffff_8200_1010;
        let list = format!("{RANGE}{EXPORTED}");
        assert_eq!(sealed(&list, writable), None);
        assert_eq!(sealed(&list, 0xffff_ffff_8200_0ff0).as_deref(), Some("splice_sym_0_key"));
        let list = format!("{RANGE}ffffffff82000010 D exported\n");
        assert_eq!(sealed(&list, writable).as_deref(), Some("exported"));
    }

    #[test]
    fn what_is_not_known_counts_as_read_only() {
        let writable = 0xffff_ffff_8200_1010;
        assert!(sealed(EXPORTED, writable).is_some());
        assert_eq!(sealed(RANGE, writable).as_deref(), Some("exported"));
    }

    #[test]
    fn a_kernel_that_seals_its_keys_leaves_them_alone() {
        let list = "ffffffff81000100 T jump_label_init_ro\n";
        assert_eq!(sealed(list, 0xffff_ffff_8200_0ff0), None);
    }

    #[test]
    fn a_damaged_module_is_an_error() {
        let ko = object();
        let values = BTreeMap::new();
        let symbols = Kallsyms::parse("ffffffff81000000 T _stext\n".into()).unwrap();
        let snapshot = Snapshot::new(None, symbols, Box::new(RawDump::new(0, Vec::new())));
        assert!(sealed_key(&ko[..100], &values, &snapshot).is_err());
    }
}
