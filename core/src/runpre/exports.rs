// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel image's own table of the symbols that it exports, found in its memory: a kernel without
//! `CONFIG_KALLSYMS_ALL` lists no data, but a module finds what is exported all the same.
//!
//! The table is an array of `struct kernel_symbol` (include/linux/export.h, 5.4 to 6.12, with
//! `CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`): where value, name and namespace are, as 32-bit distances from
//! each field. The module loader searches it by halves, so that its names are in order
//! (`find_exported_symbol_in_section`, kernel/module/main.c).

use super::Memory;

/// Size of an entry and offset of its second field, in bytes.
const ENTRY: usize = 12;
const NAME: usize = 4;
/// Longest name (`KSYM_NAME_LEN`, include/linux/kallsyms.h).
const LONGEST: usize = 512;
/// Entries in a row, with names in order, that are no coincidence.
const ROW: usize = 64;
/// What is read at once: some of it may not be mapped.
const CHUNK: usize = 64 * 1024;
/// More than an image's text and constants take.
const LARGEST: u64 = 256 << 20;

/// The address of the exported symbol of that name, if a table between these addresses holds one.
pub(super) fn find(memory: &dyn Memory, (start, end): (u64, u64), name: &str) -> Option<u64> {
    let size = end.checked_sub(start).filter(|size| *size <= LARGEST)?;
    let mut image = vec![0u8; usize::try_from(size).ok()?];
    let mut address = start;
    for chunk in image.chunks_mut(CHUNK) {
        // Where nothing is, there is no table.
        let _ = memory.read(address, chunk);
        address += chunk.len() as u64;
    }
    let mut found = None;
    let mut at = 0;
    while at + ENTRY <= image.len() {
        let row = row(&image, at);
        if row.len() < ROW {
            // The table may begin between two entries of what only looks like one.
            at += 4;
            continue;
        }
        if let Ok(index) = row.binary_search_by(|entry| entry.cmp(&name.as_bytes())) {
            let place = at + index * ENTRY;
            let value =
                start.wrapping_add(place as u64).wrapping_add_signed(distance(&image, place)?);
            if found.is_some_and(|other| other != value) {
                return None;
            }
            found = Some(value);
        }
        at += row.len() * ENTRY;
    }
    found
}

/// The names of the entries that follow one another from there on.
fn row(image: &[u8], from: usize) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut at = from;
    while let Some(name) =
        named(image, at).filter(|name| names.last().is_none_or(|last| last < name))
    {
        names.push(name);
        at += ENTRY;
    }
    names
}

/// The name that an entry there leads to: a symbol's characters up to the end of a string, which may be the
/// end of a longer one, since the linker merges such strings.
fn named(image: &[u8], entry: usize) -> Option<&[u8]> {
    let field = entry + NAME;
    let at = field.checked_add_signed(isize::try_from(distance(image, field)?).ok()?)?;
    let rest = image.get(at..image.len().min(at + LONGEST))?;
    let name = rest.get(..rest.iter().position(|byte| *byte == 0)?)?;
    let symbolic = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    (!name.is_empty() && name.iter().all(symbolic)).then_some(name)
}

fn distance(image: &[u8], at: usize) -> Option<i64> {
    let bytes = image.get(at..at.checked_add(4)?)?;
    Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::runpre::RawDump;

    /// A table as the assembler makes it, in two parts behind one another as in a kernel, with other
    /// strings around it; each value is its number behind `base`.
    fn image(names: &[Vec<String>]) -> Vec<u8> {
        let mut text = ".data\nbase: .asciz \"other\"\n.byte 0\nname_x: .asciz \"x\"\n".to_owned();
        let mut table = ".balign 4\n.long 1, 2, 3\n".to_owned();
        for (number, name) in names.iter().flatten().enumerate() {
            // Every third one is the end of a longer string.
            let before = if number.is_multiple_of(3) { ".ascii \"longer_\"\n" } else { "" };
            text += &format!("{before}name_{number}: .asciz \"{name}\"\n");
            table += &format!(".long base + {number} - ., name_{number} - ., name_x + 1 - .\n");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("t.s"), text + &table + ".long 7\n").unwrap();
        let run = |program: &str, words: &[&str]| {
            let done = Command::new(program).args(words).current_dir(dir.path()).status();
            assert!(done.expect("these tests need gcc").success());
        };
        run("gcc", &["-c", "t.s", "-o", "t.o"]);
        run("objcopy", &["-O", "binary", "-j", ".data", "t.o", "t"]);
        std::fs::read(file("t")).unwrap()
    }

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}_{number:04}")).collect()
    }

    #[test]
    fn a_symbol_is_found_in_either_part() {
        let image = image(&[names("m", 100), names("a", 70)]);
        let end = 0x1000 + image.len() as u64;
        let memory = RawDump::new(0x1000, image);
        let find = |name: &str| find(&memory, (0x1000, end), name);
        assert_eq!(find("m_0000"), Some(0x1000));
        assert_eq!(find("m_0099"), Some(0x1000 + 99));
        assert_eq!(find("a_0069"), Some(0x1000 + 169));
        assert_eq!(find("m_0100"), None);
        assert_eq!(find("other"), None);
    }

    #[test]
    fn a_short_row_is_no_table_and_two_answers_are_none() {
        let short = image(&[names("m", ROW - 1)]);
        let end = short.len() as u64;
        assert_eq!(find(&RawDump::new(0, short), (0, end), "m_0001"), None);
        let twice = image(&[names("m", 100), names("m", 100)]);
        let end = twice.len() as u64;
        assert_eq!(find(&RawDump::new(0, twice), (0, end), "m_0001"), None);
    }
}
