// SPDX-License-Identifier: GPL-2.0-or-later
//! Putting addresses and expected bytes into a built module.
//!
//! An undefined symbol becomes an absolute one (`SHN_ABS`), which the kernel's own loader then
//! resolves like any other. Nothing else in the file moves: the sections, `__versions` and the
//! symbols' names, types and bindings stay as the linker wrote them. The file may be hostile; it is
//! refused, never trusted.

use std::collections::{BTreeMap, BTreeSet};

use object::LittleEndian;
use object::elf::{
    FileHeader64, SHN_ABS, SHN_LORESERVE, SHN_UNDEF, SHT_NOBITS, SHT_SYMTAB, SymbolSection,
};
use object::read::elf::{FileHeader, SectionHeader, Sym};

use super::{LOAD, OBJECT, PlanError, RANGE, SITE};

/// Size of an ELF64 symbol, and where in it the section index and the value are.
const SYM_SIZE: usize = 24;
const ST_SHNDX: usize = 6;
const ST_VALUE: usize = 8;

/// Prefixes of the undefined symbols that nobody but splice can give a value to.
const OWN: &[&str] = &["splice_sym_", SITE, OBJECT, RANGE, LOAD];

/// A symbol of the module.
struct Symbol {
    name: String,
    /// Offset of its entry in the file.
    entry: usize,
    shndx: SymbolSection,
    value: u64,
    size: u64,
    local: bool,
}

/// A section's contents in the file, if it has any.
struct Contents {
    offset: u64,
    size: u64,
}

struct Module {
    symbols: Vec<Symbol>,
    contents: Vec<Option<Contents>>,
}

fn broken(error: impl std::fmt::Display) -> PlanError {
    PlanError::Elf(error.to_string())
}

impl Module {
    fn parse(ko: &[u8]) -> Result<Self, PlanError> {
        let header = FileHeader64::<LittleEndian>::parse(ko).map_err(broken)?;
        let endian = header.endian().map_err(broken)?;
        let sections = header.sections(endian, ko).map_err(broken)?;
        let contents = sections
            .iter()
            .map(|section| {
                (section.sh_type(endian) != SHT_NOBITS).then(|| Contents {
                    offset: section.sh_offset(endian),
                    size: section.sh_size(endian),
                })
            })
            .collect();
        let table = sections.symbols(endian, ko, SHT_SYMTAB).map_err(broken)?;
        if table.is_empty() {
            return Err(broken("it has no symbol table"));
        }
        let start = sections.section(table.section()).map_err(broken)?.sh_offset(endian);
        let start = usize::try_from(start).map_err(broken)?;
        let mut symbols = Vec::with_capacity(table.len());
        for (n, symbol) in table.iter().enumerate() {
            let name = symbol.name(endian, table.strings()).map_err(broken)?;
            symbols.push(Symbol {
                name: String::from_utf8_lossy(name).into_owned(),
                entry: n
                    .checked_mul(SYM_SIZE)
                    .and_then(|offset| offset.checked_add(start))
                    .ok_or_else(|| broken("its symbol table is too long"))?,
                shndx: symbol.st_shndx(endian),
                value: symbol.st_value(endian),
                size: symbol.st_size(endian),
                local: symbol.is_local(),
            });
        }
        Ok(Self { symbols, contents })
    }

    fn is_undefined(symbol: &Symbol) -> bool {
        symbol.shndx == SHN_UNDEF && !symbol.local && !symbol.name.is_empty()
    }

    /// The one symbol of that name among those that `wanted` accepts.
    fn one(
        &self,
        name: &str,
        what: &'static str,
        wanted: impl Fn(&Symbol) -> bool,
    ) -> Result<&Symbol, PlanError> {
        let mut found = self.symbols.iter().filter(|s| s.name == name);
        match (found.next(), found.next()) {
            (Some(symbol), None) if wanted(symbol) => Ok(symbol),
            (Some(_), Some(_)) => Err(PlanError::Duplicate(name.to_owned())),
            _ => Err(PlanError::Missing { what, name: name.to_owned() }),
        }
    }

    /// Where in the file `len` bytes at a defined symbol are.
    fn place(&self, symbol: &Symbol, len: usize) -> Option<usize> {
        let contents = self.contents.get(usize::from(symbol.shndx.0))?.as_ref()?;
        let len = u64::try_from(len).ok()?;
        if symbol.shndx.0 >= SHN_LORESERVE
            || len > symbol.size
            || symbol.value.checked_add(symbol.size)? > contents.size
        {
            return None;
        }
        usize::try_from(contents.offset.checked_add(symbol.value)?).ok()
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    let end = at.checked_add(bytes.len())?;
    file.get_mut(at..end)?.copy_from_slice(bytes);
    Some(())
}

/// Names of the symbols that a module leaves undefined, without repetition, sorted.
pub fn undefined(ko: &[u8]) -> Result<Vec<String>, PlanError> {
    let module = Module::parse(ko)?;
    let names: BTreeSet<_> =
        module.symbols.into_iter().filter(Module::is_undefined).map(|symbol| symbol.name).collect();
    Ok(names.into_iter().collect())
}

/// Gives each undefined symbol of `symbols` its value, and puts the `bytes` at each defined one.
///
/// Refuses a name that the module does not have exactly once in that role, bytes that do not lie
/// inside their symbol, and a module in which a symbol that is splice's own stays undefined.
pub fn finalise(
    ko: &[u8],
    symbols: &BTreeMap<String, u64>,
    bytes: &BTreeMap<String, Vec<u8>>,
) -> Result<Vec<u8>, PlanError> {
    let module = Module::parse(ko)?;
    let mut file = ko.to_vec();
    for (name, value) in symbols {
        let symbol = module.one(name, "undefined", Module::is_undefined)?;
        let written =
            put(&mut file, symbol.entry.saturating_add(ST_SHNDX), &SHN_ABS.0.to_le_bytes())
                .and_then(|()| {
                    put(&mut file, symbol.entry.saturating_add(ST_VALUE), &value.to_le_bytes())
                });
        written.ok_or_else(|| broken("its symbol table lies outside the file"))?;
    }
    for (name, new) in bytes {
        let symbol = module.one(name, "defined", |s| s.shndx != SHN_UNDEF)?;
        module
            .place(symbol, new.len())
            .and_then(|at| put(&mut file, at, new))
            .ok_or_else(|| PlanError::Outside { name: name.clone(), len: new.len() })?;
    }
    let left = module.symbols.iter().find(|s| {
        Module::is_undefined(s)
            && !symbols.contains_key(&s.name)
            && OWN.iter().any(|prefix| s.name.starts_with(prefix))
    });
    match left {
        Some(symbol) => Err(PlanError::Unresolved(symbol.name.clone())),
        None => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    const SOURCE: &str = "\
extern const char splice_site_0[], splice_range_0[];
extern void printk(const char *);
const void *sites[] = { splice_site_0, splice_range_0 };
__attribute__((section(\".data\"))) unsigned char splice_expected_0[16];
unsigned char in_bss[16];
void f(void) { printk(\"x\"); }
";

    fn object(dir: &Path) -> Vec<u8> {
        let (c, o) = (dir.join("t.c"), dir.join("t.o"));
        std::fs::write(&c, SOURCE).unwrap();
        let ok = Command::new("gcc")
            .args(["-c", "-O2", "-fno-pic", "-o"])
            .arg(&o)
            .arg(&c)
            .status()
            .expect("these tests need gcc");
        assert!(ok.success());
        std::fs::read(o).unwrap()
    }

    fn values() -> BTreeMap<String, u64> {
        BTreeMap::from([
            ("splice_site_0".to_owned(), 0xffff_ffff_8123_4567),
            ("splice_range_0".to_owned(), 0xffff_ffff_8123_4560),
        ])
    }

    fn expected(len: u8) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([("splice_expected_0".to_owned(), (1..=len).collect())])
    }

    fn readelf(args: &[&str], file: &Path) -> String {
        let out = Command::new("readelf").args(args).arg(file).output();
        String::from_utf8(out.expect("these tests need readelf").stdout).unwrap()
    }

    #[test]
    fn readelf_sees_absolute_symbols_and_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let ko = object(dir.path());
        let done = finalise(&ko, &values(), &expected(16)).unwrap();
        assert_eq!(done.len(), ko.len());
        let path = dir.path().join("done.o");
        std::fs::write(&path, &done).unwrap();
        let symbols = readelf(&["-sW"], &path);
        let line = |name: &str| {
            let line = symbols.lines().find(|l| l.ends_with(name)).unwrap();
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line(" splice_site_0"),
            "ffffffff81234567 0 NOTYPE GLOBAL DEFAULT ABS splice_site_0"
        );
        assert_eq!(
            line(" splice_range_0"),
            "ffffffff81234560 0 NOTYPE GLOBAL DEFAULT ABS splice_range_0"
        );
        assert!(line(" printk").ends_with("GLOBAL DEFAULT UND printk"));
        let data = readelf(&["-x", ".data"], &path);
        assert!(data.contains("01020304 05060708 090a0b0c 0d0e0f10"), "{data}");
        // Only the two entries and the sixteen bytes differ.
        let changed = ko.iter().zip(&done).filter(|(a, b)| a != b).count();
        assert!(changed <= 2 * 10 + 16, "{changed} bytes changed");
    }

    #[test]
    fn undefined_symbols_are_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let names = undefined(&object(dir.path())).unwrap();
        assert_eq!(names, ["printk", "splice_range_0", "splice_site_0"]);
    }

    #[test]
    fn wrong_names_and_lengths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ko = object(dir.path());
        let none = BTreeMap::new();
        let mut more = values();
        more.insert("nowhere".to_owned(), 1);
        assert!(matches!(
            finalise(&ko, &more, &none),
            Err(PlanError::Missing { what: "undefined", name }) if name == "nowhere"
        ));
        let mut defined = values();
        defined.insert("f".to_owned(), 1);
        assert!(matches!(
            finalise(&ko, &defined, &none),
            Err(PlanError::Missing { what: "undefined", .. })
        ));
        assert!(matches!(
            finalise(&ko, &values(), &expected(17)),
            Err(PlanError::Outside { len: 17, .. })
        ));
        let bss = BTreeMap::from([("in_bss".to_owned(), vec![1])]);
        assert!(matches!(finalise(&ko, &values(), &bss), Err(PlanError::Outside { .. })));
        let undef = BTreeMap::from([("printk".to_owned(), vec![1])]);
        assert!(matches!(
            finalise(&ko, &values(), &undef),
            Err(PlanError::Missing { what: "defined", .. })
        ));
        let mut fewer = values();
        fewer.remove("splice_range_0");
        assert_eq!(
            finalise(&ko, &fewer, &none),
            Err(PlanError::Unresolved("splice_range_0".to_owned()))
        );
    }

    #[test]
    fn damaged_files_never_panic() {
        let dir = tempfile::tempdir().unwrap();
        let ko = object(dir.path());
        let mut refused = 0;
        for cut in 0..ko.len() {
            refused += usize::from(finalise(&ko[..cut], &values(), &expected(16)).is_err());
        }
        assert_eq!(refused, ko.len(), "a truncated module was accepted");
        for at in 0..ko.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = ko.clone();
                bad[at] ^= flip;
                if let Ok(done) = finalise(&bad, &values(), &expected(16)) {
                    assert_eq!(done.len(), bad.len());
                }
            }
        }
    }
}
