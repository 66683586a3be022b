// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with object code.
//!
//! The bits that relocations own are masked, every other bit must be equal.

use splice_core::arch::{ArchError, Code, Difference, Verdict};

use crate::{decode, insn, reloc};

/// The bytes with the bits of all relocations zero.
pub(crate) fn masked(code: &Code<'_>) -> Result<Vec<u8>, ArchError> {
    let mut bytes = code.bytes.to_vec();
    for r in code.relocs {
        let info = reloc::info_of(code, r)?;
        let start = usize::try_from(r.offset).unwrap_or(usize::MAX);
        let field = start
            .checked_add(usize::from(info.width))
            .and_then(|end| bytes.get_mut(start..end))
            .ok_or_else(|| ArchError::Outside { name: code.name.into(), offset: r.offset })?;
        for (byte, owned) in field.iter_mut().zip(info.mask.to_le_bytes()) {
            *byte &= !owned;
        }
    }
    Ok(bytes)
}

/// See [`splice_core::arch::FunctionDiff::compare`].
pub(crate) fn compare(pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
    let (a, b) = (masked(pre)?, masked(post)?);
    let places = |code: &Code<'_>| -> Vec<(u64, u32)> {
        code.relocs.iter().map(|r| (r.offset, r.r_type)).collect()
    };
    let (pre_places, post_places) = (places(pre), places(post));
    if a == b && pre_places == post_places {
        return Ok(Verdict::Same);
    }
    let byte = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let reloc = pre_places
        .iter()
        .zip(&post_places)
        .find(|(x, y)| x != y)
        .map(|(x, y)| x.0.min(y.0))
        .or_else(|| pre_places.get(post_places.len()).map(|p| p.0))
        .or_else(|| post_places.get(pre_places.len()).map(|p| p.0));
    let first = reloc.unwrap_or(u64::MAX).min(byte as u64);
    let at = first - first % insn::LEN;
    let shown = |code: &Code<'_>| {
        let rest = usize::try_from(at).ok().and_then(|at| code.bytes.get(at..)).unwrap_or_default();
        decode::disassemble(rest, 0, 1).pop().unwrap_or_default()
    };
    Ok(Verdict::Changed(Difference {
        pre_offset: at,
        post_offset: at,
        pre: shown(pre),
        post: shown(post),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Aarch64;
    use splice_core::arch::{CodeReloc, check};

    fn reloc(offset: u64, r_type: u32, key: u32) -> CodeReloc<'static> {
        CodeReloc { offset, r_type, symbol: "x", key, addend: 0, inside: None }
    }

    fn code<'a>(bytes: &'a [u8], relocs: &'a [CodeReloc<'a>]) -> Code<'a> {
        Code { name: "f", bytes, relocs, entries: &[] }
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn bits_of_relocations_do_not_count_and_all_others_do() {
        // adrp x0, x; add x0, x0, :lo12:x; bl x; ldr x1, [x0, #8]
        let a = bytes(&[0x9000_0000, 0x9100_0000, 0x9400_0000, 0xf940_0401]);
        let relocs = [reloc(0, 275, 1), reloc(4, 277, 1), reloc(8, 283, 2)];
        let owned = [0x60ff_ffe0u32, 0x003f_fc00, 0x03ff_ffff, 0];
        for bit in 0..a.len() * 8 {
            let mut b = a.clone();
            b[bit / 8] ^= 1 << (bit % 8);
            let (pre, post) = (code(&a, &relocs), code(&b, &relocs));
            let got = compare(&pre, &post).unwrap();
            assert_eq!(check::verdict(&Aarch64, &pre, &post, &got), Ok(()));
            if owned[bit / 32] & 1 << (bit % 32) != 0 {
                assert_eq!(got, Verdict::Same, "bit {bit}");
            } else {
                let Verdict::Changed(d) = got else { panic!("bit {bit}: {got:?}") };
                assert_eq!(d.pre_offset, bit as u64 / 32 * 4);
            }
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let a = bytes(&[0xd503_201f, 0xaa0003e1, 0xd65f_03c0]);
        let b = bytes(&[0xd503_201f, 0xaa0003e2, 0xd65f_03c0]);
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&b, &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!((d.pre_offset, d.post_offset), (4, 4));
        assert_eq!((d.pre.as_str(), d.post.as_str()), ("mov x1, x0", "mov x2, x0"));
    }

    #[test]
    fn length_and_relocation_differences_are_changes() {
        let a = bytes(&[0x9400_0000, 0xd65f_03c0]);
        let Verdict::Changed(d) = compare(&code(&a, &[]), &code(&a[..4], &[])).unwrap() else {
            panic!("called equal")
        };
        assert_eq!((d.pre_offset, d.pre.as_str(), d.post.as_str()), (4, "ret", ""));
        let before = [reloc(0, 283, 1)];
        for post in [&[][..], &[reloc(0, 282, 1)][..], &[reloc(0, 283, 1), reloc(4, 283, 1)][..]] {
            let got = compare(&code(&a, &before), &code(&a, post)).unwrap();
            assert!(matches!(got, Verdict::Changed(_)), "{got:?}");
        }
    }

    #[test]
    fn unknown_relocations_are_errors() {
        let a = bytes(&[0x9400_0000]);
        let relocs = [reloc(0, 311, 1)];
        let got = compare(&code(&a, &relocs), &code(&a, &relocs));
        assert!(matches!(got, Err(ArchError::UnknownRelocation { r_type: 311, .. })), "{got:?}");
        let outside = [reloc(2, 283, 1)];
        let got = compare(&code(&a, &outside), &code(&a, &[]));
        assert!(matches!(got, Err(ArchError::Outside { .. })), "{got:?}");
    }
}
