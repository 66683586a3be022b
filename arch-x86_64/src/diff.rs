// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with object code.
//!
//! The relocations' fields are masked, every other bit must be equal; the decoder only serves to
//! say where the first difference is.

use splice_core::arch::{ArchError, Code, Difference, Verdict};

use crate::{decode, reloc};

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
        code.relocs.iter().map(|r| (r.offset, r.r_type)).collect()
    };
    let (pre_places, post_places) = (places(pre), places(post));
    if a == b && pre_places == post_places {
        return Ok(Verdict::Same);
    }
    // Walk both until an instruction's bytes or its relocations differ. As all before it are
    // equal, both offsets are the same.
    let mut at = 0u64;
    loop {
        let rest = |bytes: &[u8]| bytes.get(at as usize..).unwrap_or_default().to_vec();
        let (ra, rb) = (rest(&a), rest(&b));
        if ra.is_empty() || rb.is_empty() {
            break;
        }
        let (ia, ib) = (decode::one(&ra, at), decode::one(&rb, at));
        let within = |places: &[(u64, u32)]| -> Vec<(u64, u32)> {
            places.iter().copied().filter(|(o, _)| (at..ia.end()).contains(o)).collect()
        };
        let equal = ia.len == ib.len
            && ra.get(..ia.len as usize) == rb.get(..ib.len as usize)
            && within(&pre_places) == within(&post_places);
        if !equal {
            break;
        }
        at = ia.end();
    }
    let shown = |code: &Code<'_>| {
        let rest = code.bytes.get(at as usize..).unwrap_or_default();
        decode::disassemble(rest, at, 1).pop().unwrap_or_default()
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
    use splice_core::arch::CodeReloc;

    fn reloc(offset: u64, r_type: u32, key: u32) -> CodeReloc<'static> {
        CodeReloc { offset, r_type, symbol: "x", key, addend: -4 }
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
    fn length_and_relocation_differences_are_changes() {
        let bytes = [0xe8, 0, 0, 0, 0, 0xc3];
        let shorter = code(&bytes[..5], &[]);
        let got = compare(&code(&bytes, &[]), &shorter).unwrap();
        let Verdict::Changed(d) = got else { panic!("{got:?}") };
        assert_eq!((d.pre.as_str(), d.post.as_str()), ("ret", ""));
        for post in [&[][..], &[reloc(1, 2, 1)][..]] {
            let got = compare(&code(&bytes, &[reloc(1, 4, 1)]), &code(&bytes, post)).unwrap();
            let Verdict::Changed(d) = got else { panic!("{got:?}") };
            assert_eq!(d.pre_offset, 0);
        }
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
