// SPDX-License-Identifier: GPL-2.0-or-later
//! Two objects out of a fuzzer's bytes: a known pair with a list of edits, or two objects as they
//! are.
//!
//! The first byte chooses the pair. Behind the last pair's number the bytes are the length of the
//! first object (three bytes), the first object, and the second. Otherwise each eight bytes are
//! an edit of a field that means something to a reader: of a section's header, a symbol, a
//! relocation, a byte of a section or of the debug information. So the files stay readable long enough to reach what lies
//! behind the reader.

use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHF_ALLOC, SHT_NOBITS, SHT_PROGBITS, SHT_RELA, SHT_SYMTAB};
use object::read::elf::{FileHeader, SectionHeader};

macro_rules! pairs {
    ($($name:literal),*) => {
        /// The known pairs.
        const PAIRS: &[(&[u8], &[u8])] = &[$((
            include_bytes!(concat!("../seeds/", $name, ".before.o")),
            include_bytes!(concat!("../seeds/", $name, ".after.o")),
        )),*];
    };
}
pairs!("plain", "shared", "tables", "debug", "clang", "entries", "arm", "dwarf4", "indexed");

/// Bytes of one edit.
const EDIT: usize = 8;

/// More edits than these say nothing new.
const MOST: usize = 64;

/// The two objects that `bytes` stand for.
pub(crate) fn pair(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let Some((choice, rest)) = bytes.split_first() else { return Default::default() };
    let Some((pre, post)) = PAIRS.get(usize::from(*choice) % (PAIRS.len() + 1)) else {
        return as_they_are(rest);
    };
    let (mut pre, mut post) = (pre.to_vec(), post.to_vec());
    let (pre_fields, post_fields) = (Fields::of(&pre), Fields::of(&post));
    for edit in rest.chunks_exact(EDIT).take(MOST) {
        let Some((side, edit)) = edit.split_first() else { break };
        if side % 3 != 1 {
            pre_fields.edit(&mut pre, edit);
        }
        if side % 3 != 0 {
            post_fields.edit(&mut post, edit);
        }
    }
    (pre, post)
}

fn as_they_are(rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let [a, b, c, rest @ ..] = rest else { return Default::default() };
    let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
    let (pre, post) = rest.split_at(length.min(rest.len()));
    let post = if post.is_empty() { pre } else { post };
    (pre.to_vec(), post.to_vec())
}

/// A field of an object: offset in the file and size.
type Field = (usize, usize);

/// Fields of an object by what they belong to.
#[derive(Default)]
struct Fields {
    sections: Vec<Field>,
    symbols: Vec<Field>,
    relocations: Vec<Field>,
    contents: Vec<Field>,
    debug: Vec<Field>,
}

impl Fields {
    fn of(object: &[u8]) -> Fields {
        Fields::find(object).unwrap_or_default()
    }

    fn find(object: &[u8]) -> Option<Fields> {
        let header = FileHeader64::<LE>::parse(object).ok()?;
        let endian = header.endian().ok()?;
        let mut fields = Fields::default();
        let start = usize::try_from(header.e_shoff(endian)).ok()?;
        for (number, section) in header.sections(endian, object).ok()?.iter().enumerate() {
            // name, type, flags, addr, offset, size, link, info, addralign, entsize
            each(&mut fields.sections, start + number * 64, &[4, 4, 8, 8, 8, 8, 4, 4, 8, 8]);
            let sh_type = section.sh_type(endian);
            if sh_type == SHT_NOBITS {
                continue;
            }
            let from = usize::try_from(section.sh_offset(endian)).ok()?;
            let size = usize::try_from(section.sh_size(endian)).ok()?;
            let entries = (0..size / 24).map(|n| from + n * 24);
            if sh_type == SHT_SYMTAB {
                // name, info, other, shndx, value, size
                entries.for_each(|at| each(&mut fields.symbols, at, &[4, 1, 1, 2, 8, 8]));
            } else if sh_type == SHT_RELA {
                // offset, type, symbol, addend
                entries.for_each(|at| each(&mut fields.relocations, at, &[8, 4, 4, 8]));
            } else if section.sh_flags(endian).contains(SHF_ALLOC) {
                fields.contents.extend((from..from + size).map(|at| (at, 1)));
            } else if sh_type == SHT_PROGBITS {
                // What is not loaded is debug information.
                fields.debug.extend((from..from + size).map(|at| (at, 1)));
            }
        }
        Some(fields)
    }

    /// Carries one edit out: kind, how, two bytes that choose the field, three of a value.
    fn edit(&self, object: &mut Vec<u8>, edit: &[u8]) {
        let [kind, how, n, m, a, b, c] = *edit else { return };
        let number = usize::from(n) | usize::from(m) << 8;
        let value = u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16;
        let fields = match kind % 10 {
            0 | 1 => &self.sections,
            2 | 3 => &self.symbols,
            4 | 5 => &self.relocations,
            6 => &self.contents,
            8 | 9 => &self.debug,
            _ if how == 0xff => return object.truncate(number),
            _ => {
                if let Some(byte) = object.get_mut(number) {
                    *byte = a;
                }
                return;
            }
        };
        let Some((at, size)) = number.checked_rem(fields.len()).and_then(|n| fields.get(n)) else {
            return;
        };
        let Some(field) = object.get_mut(*at..*at + *size) else { return };
        let old = field.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let new = match how % 5 {
            0 => value,
            1 => old.wrapping_add(value),
            2 => old.wrapping_sub(value),
            3 => value.wrapping_neg(),
            _ => 1u64.rotate_left(u32::from(a)).wrapping_sub(u64::from(b & 1)),
        };
        for (byte, new) in field.iter_mut().zip(new.to_le_bytes()) {
            *byte = new;
        }
    }
}

fn each(fields: &mut Vec<Field>, mut at: usize, sizes: &[usize]) {
    for size in sizes {
        fields.push((at, *size));
        at += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_edits_the_pairs_are_what_they_were() {
        for (number, (pre, post)) in PAIRS.iter().enumerate() {
            assert_eq!(pair(&[number as u8]), (pre.to_vec(), post.to_vec()));
            assert_ne!(pre, post);
        }
    }

    #[test]
    fn an_edit_changes_the_field_that_it_names() {
        let fields = Fields::of(PAIRS[0].0);
        for list in [&fields.sections, &fields.symbols, &fields.relocations, &fields.contents] {
            assert!(list.len() > 50, "{}", list.len());
        }
        assert!(Fields::of(PAIRS[7].0).debug.len() > 1000);
        // The second symbol's value becomes 5, after the patch only.
        let (pre, post) = pair(&[0, 1, 2, 0, 10, 0, 5, 0, 0]);
        assert_eq!(pre, PAIRS[0].0);
        let (at, size) = Fields::of(&post).symbols[10];
        assert_eq!(post[at..at + size], [5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn two_objects_come_as_they_are() {
        let bytes = [PAIRS.len() as u8, 2, 0, 0, 1, 2, 3];
        assert_eq!(pair(&bytes), (vec![1, 2], vec![3]));
        assert_eq!(pair(&bytes[..6]), (vec![1, 2], vec![1, 2]));
        assert_eq!(pair(&[]), (vec![], vec![]));
    }
}
