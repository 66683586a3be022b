// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with object code.
//!
//! The relocations' fields are masked, every other bit must be equal; the decoder only serves to
//! say where the first difference is.

use splice_core::arch::{ArchError, Code, Difference, Verdict};

use crate::decode::{self, Decoded, Insn};
use crate::reloc;

/// The bytes with all relocation fields zeroed.
pub(crate) fn masked(code: &Code<'_>) -> Result<Vec<u8>, ArchError> {
    let mut bytes = code.bytes.to_vec();
    for r in code.relocs {
        let info = reloc::describe(r.r_type).ok_or_else(|| ArchError::UnknownRelocation {
            name: code.name.into(),
            offset: r.offset,
            r_type: r.r_type,
        })?;
        let start = usize::try_from(r.offset).unwrap_or(usize::MAX);
        let field = start
            .checked_add(usize::from(info.width))
            .and_then(|end| bytes.get_mut(start..end))
            .ok_or_else(|| ArchError::Outside { name: code.name.into(), offset: r.offset })?;
        field.fill(0);
    }
    Ok(bytes)
}

/// See [`splice_core::arch::FunctionDiff::compare`].
pub(crate) fn compare(pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
    let a = masked(pre)?;
    let b = masked(post)?;
    let places = |code: &Code<'_>| -> Vec<(u64, u32)> {
        // A branch to a global symbol has the one type, to a local one the other.
        let one = |r_type| if r_type == reloc::R_PLT32 { reloc::R_PC32 } else { r_type };
        code.relocs.iter().map(|r| (r.offset, one(r.r_type))).collect()
    };
    let (pre_places, post_places) = (places(pre), places(post));
    if a == b && pre_places == post_places {
        return Ok(Verdict::Same);
    }
    let (pre_at, post_at) = first_difference(&a, &b, pre_places, post_places);
    let shown = |code: &Code<'_>, at: u64| {
        let rest = code.bytes.get(at as usize..).unwrap_or_default();
        decode::disassemble(rest, at, 1).pop().unwrap_or_default()
    };
    Ok(Verdict::Changed(Difference {
        pre_offset: pre_at,
        post_offset: post_at,
        pre: shown(pre, pre_at),
        post: shown(post, post_at),
    }))
}

/// Offsets of the first instruction that says something else, in both. A branch that only spans more
/// or less than before does not, unless nothing else differs.
fn first_difference(
    pre: &[u8],
    post: &[u8],
    mut pre_places: Vec<(u64, u32)>,
    mut post_places: Vec<(u64, u32)>,
) -> (u64, u64) {
    pre_places.sort_unstable();
    post_places.sort_unstable();
    let (old, new) = (Decoded::new(pre), Decoded::new(post));
    let mut distance = None;
    for (i, j) in old.all().iter().zip(new.all()) {
        let (x, y) = (piece(pre, i), piece(post, j));
        let (p, q) = (within(&pre_places, i), within(&post_places, j));
        let same_places = p.len() == q.len()
            && p.iter().zip(q).all(|(p, q)| (p.0 - i.start, p.1) == (q.0 - j.start, q.1));
        if x == y && same_places {
            continue;
        }
        let branches = i.distance().is_some() && j.distance().is_some();
        if !branches
            || !p.is_empty()
            || !q.is_empty()
            || decode::branch_kind(x).is_none()
            || decode::branch_kind(x) != decode::branch_kind(y)
        {
            return (i.start, j.start);
        }
        distance.get_or_insert((i.start, j.start));
    }
    // One goes on where the other ends, if not all instructions are the same but for distances.
    let end = |code: &Decoded, other: &Decoded| {
        let last = code.all().len().min(other.all().len()).checked_sub(1);
        last.and_then(|last| code.all().get(last)).map_or(0, Insn::end)
    };
    let ends = (end(&old, &new), end(&new, &old));
    match distance {
        Some(distance) if old.all().len() == new.all().len() => distance,
        _ => ends,
    }
}

fn piece<'a>(bytes: &'a [u8], insn: &Insn) -> &'a [u8] {
    bytes.get(insn.start as usize..insn.end() as usize).unwrap_or_default()
}

/// Relocations in an instruction.
fn within<'a>(places: &'a [(u64, u32)], insn: &Insn) -> &'a [(u64, u32)] {
    let from = places.partition_point(|(offset, _)| *offset < insn.start);
    let to = places.partition_point(|(offset, _)| *offset < insn.end());
    places.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    fn reloc(offset: u64, r_type: u32, key: u32) -> CodeReloc<'static> {
        CodeReloc { offset, r_type, symbol: "x", key, addend: -4, inside: None }
    }

    fn code<'a>(bytes: &'a [u8], relocs: &'a [CodeReloc<'a>]) -> Code<'a> {
        Code { name: "f", bytes, relocs, entries: &[] }
    }

    #[test]
    fn relocation_fields_do_not_count() {
        let a = [0xe8, 1, 2, 3, 4, 0xc3];
        let b = [0xe8, 9, 9, 9, 9, 0xc3];
        let got = compare(&code(&a, &[reloc(1, 4, 1)]), &code(&b, &[reloc(1, 4, 2)])).unwrap();
        assert_eq!(got, Verdict::Same);
    }

    #[test]
    fn every_other_bit_counts() {
        let a = [0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xc7, 0xc3];
        let relocs = [reloc(1, 4, 1)];
        for bit in (0..a.len() * 8).filter(|b| !(8..40).contains(b)) {
            let mut b = a;
            b[bit / 8] ^= 1 << (bit % 8);
            let got = compare(&code(&a, &relocs), &code(&b, &relocs)).unwrap();
            assert!(matches!(got, Verdict::Changed(_)), "bit {bit}: {got:?}");
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let a = [0x55, 0x48, 0x89, 0xe5, 0x31, 0xc0, 0xc3];
        let b = [0x55, 0x48, 0x89, 0xe5, 0x31, 0xd2, 0xc3];
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&b, &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!((d.pre_offset, d.post_offset), (4, 4));
        assert_eq!((d.pre.as_str(), d.post.as_str()), ("xor eax, eax", "xor edx, edx"));
    }

    #[test]
    fn a_longer_way_is_not_what_changed() {
        // je over one nop, then over two and with a near distance; the reason is the other nop.
        let a = [0x74, 0x01, 0x90, 0x31, 0xc0, 0xc3];
        let b = [0x0f, 0x84, 2, 0, 0, 0, 0x90, 0x40, 0x90, 0x31, 0xc0, 0xc3];
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&b, &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!((d.pre_offset, d.post_offset), (3, 7));
        assert_eq!(d.pre, "xor eax, eax");
        // If it is all that changed, it is.
        let c = [0x74, 0x03, 0x90, 0x31, 0xc0, 0xc3];
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&c, &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!((d.pre_offset, d.post_offset), (0, 0));
        // Another condition is no other distance.
        let d = [0x75, 0x01, 0x90, 0x31, 0xc0, 0xc3];
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&d, &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!(d.pre_offset, 0);
    }

    #[test]
    fn length_and_relocation_differences_are_changes() {
        let bytes = [0xe8, 0, 0, 0, 0, 0xc3];
        let shorter = code(&bytes[..5], &[]);
        let got = compare(&code(&bytes, &[]), &shorter).unwrap();
        let Verdict::Changed(d) = got else { panic!("{got:?}") };
        assert_eq!((d.pre.as_str(), d.post.as_str()), ("ret", ""));
        for post in [&[][..], &[reloc(1, 10, 1)][..]] {
            let got = compare(&code(&bytes, &[reloc(1, 4, 1)]), &code(&bytes, post)).unwrap();
            let Verdict::Changed(d) = got else { panic!("{got:?}") };
            assert_eq!(d.pre_offset, 0);
        }
    }

    #[test]
    fn a_branch_is_one_whoever_may_override_its_target() {
        let bytes = [0xe8, 0, 0, 0, 0, 0xc3];
        let (pre, post) = ([reloc(1, 4, 1)], [reloc(1, 2, 1)]);
        let (pre, post) = (code(&bytes, &pre), code(&bytes, &post));
        let got = compare(&pre, &post).unwrap();
        assert_eq!(got, Verdict::Same);
        splice_core::arch::check::verdict(&crate::X86_64, &pre, &post, &got).unwrap();
    }

    #[test]
    fn unknown_relocations_are_errors() {
        let bytes = [0xe8, 0, 0, 0, 0];
        let relocs = [reloc(1, 9, 1)];
        let got = compare(&code(&bytes, &relocs), &code(&bytes, &relocs));
        assert!(matches!(got, Err(ArchError::UnknownRelocation { r_type: 9, .. })), "{got:?}");
        let outside = [reloc(3, 4, 1)];
        let got = compare(&code(&bytes, &outside), &code(&bytes, &[]));
        assert!(matches!(got, Err(ArchError::Outside { .. })), "{got:?}");
    }
}
