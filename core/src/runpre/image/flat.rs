// SPDX-License-Identifier: GPL-2.0-or-later
//! A boot image that is the kernel's memory as it is loaded, from its first byte on, without an ELF header.
//!
//! Where such a kernel is linked as a position independent program, it moves itself at its start: where it
//! has pointers the image holds nothing, and a table tells what is to be there (`Elf64_Rela` with the
//! processor's relative relocation; `.rela.dyn`). The pointers tell the address that the image was linked
//! for, too: none leads before its first byte, but for those that lead nowhere, to 0 (some kernels have a
//! few hundred). Other kernels have no such table, and lie where they were linked.

use crate::arch::FlatImage;

/// Size of an entry, and where its second and third field are, in bytes.
const ENTRY: usize = 24;
const INFO: usize = 8;
const ADDEND: usize = 16;
/// Entries in a row that are no coincidence.
const ROW: usize = 1024;
/// What an image's address is a multiple of: kernels are mapped by such blocks.
const BLOCK: u64 = 2 << 20;

/// Puts the pointers in; returns the image's address.
pub(super) fn place(image: &mut [u8], flat: FlatImage) -> Result<u64, String> {
    let Some(entries) = table(image, flat.relative) else {
        return flat.address.ok_or_else(|| {
            "it has no table of relative relocations, which tells where it is linked for".into()
        });
    };
    let first = entries.iter().map(|(_, to)| *to).filter(|to| *to != 0).min().unwrap_or(0);
    let base = first & !(BLOCK - 1);
    for (place, to) in entries {
        let at = place.checked_sub(base).and_then(|at| usize::try_from(at).ok());
        let field = at.and_then(|at| image.get_mut(at..at.checked_add(8)?));
        let field = field.ok_or_else(|| {
            format!(
                "it has a pointer at {place:#x}, which is outside of what lies from {base:#x} on"
            )
        })?;
        field.copy_from_slice(&to.to_le_bytes());
    }
    Ok(base)
}

/// The entries of the longest table: where a pointer is, and where it leads.
fn table(image: &[u8], relative: u32) -> Option<Vec<(u64, u64)>> {
    let is_entry = |at: usize| word(image, at + INFO) == Some(u64::from(relative));
    let (mut start, mut longest, mut at) = (0, 0, 0);
    while at + ENTRY <= image.len() {
        let count = (0..).take_while(|n| is_entry(at + n * ENTRY)).count();
        if count > longest {
            (start, longest) = (at, count);
        }
        // Tables lie at multiples of 8.
        at += (count * ENTRY).max(8);
    }
    let entry = |n: usize| {
        let at = start + n * ENTRY;
        Some((word(image, at)?, word(image, at + ADDEND)?))
    };
    (longest >= ROW).then(|| (0..longest).filter_map(entry).collect())
}

fn word(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(image.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_8000_0800_0000;
    const RELATIVE: u32 = 1027;

    /// 64 KiB of nothing with a table at its end, each of whose entries is about a word at its beginning.
    fn image(count: u64, last_place: u64) -> Vec<u8> {
        let mut image = vec![0; 0x1_0000];
        for n in 0..count {
            let place = if n + 1 == count { last_place } else { BASE + 8 * n };
            for word in [place, u64::from(RELATIVE), BASE + 0x40 + n] {
                image.extend_from_slice(&word.to_le_bytes());
            }
        }
        image
    }

    const FLAT: FlatImage = FlatImage { relative: RELATIVE, address: None };

    #[test]
    fn pointers_are_put_in_and_tell_the_address() {
        let mut image = image(2000, BASE + 8 * 1999);
        assert_eq!(place(&mut image, FLAT), Ok(BASE));
        assert_eq!(word(&image, 0), Some(BASE + 0x40));
        assert_eq!(word(&image, 8 * 1999), Some(BASE + 0x40 + 1999));
        assert_eq!(word(&image, 8 * 2000), Some(0));
    }

    #[test]
    fn what_leads_nowhere_says_nothing_of_the_address() {
        let mut image = image(2000, BASE + 8 * 1999);
        let nowhere = 0x1_0000 + 5 * ENTRY + ADDEND;
        image[nowhere..nowhere + 8].fill(0);
        assert_eq!(place(&mut image, FLAT), Ok(BASE));
        assert_eq!(word(&image, 8 * 4), Some(BASE + 0x40 + 4));
        assert_eq!(word(&image, 8 * 5), Some(0));
    }

    #[test]
    fn a_pointer_elsewhere_and_a_short_table_are_refused() {
        for outside in [BASE - 8, BASE + 0x100_0000, u64::MAX] {
            let why = place(&mut image(2000, outside), FLAT).unwrap_err();
            assert!(why.contains(&format!("{outside:#x}")), "{why}");
        }
        assert!(place(&mut image(100, BASE), FLAT).is_err());
        assert!(place(&mut image(2000, BASE), FlatImage { relative: 3, ..FLAT }).is_err());
        assert!(place(&mut [], FLAT).is_err());
    }

    #[test]
    fn a_kernel_without_a_table_lies_where_it_is_linked() {
        let flat = FlatImage { address: Some(0x8000), ..FLAT };
        let mut short = image(100, BASE);
        let before = short.clone();
        assert_eq!(place(&mut short, flat), Ok(0x8000));
        assert_eq!(short, before);
        // A table tells better.
        assert_eq!(place(&mut image(2000, BASE), flat), Ok(BASE));
    }
}
