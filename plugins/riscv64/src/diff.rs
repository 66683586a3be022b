// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with object code: the bits that relocations own are masked, every other
//! bit must be equal.

use splice_plugin_abi::arch::{ArchError, Code, Difference, Verdict};

use crate::{disassemble, insn, reloc};

/// For each byte of the code, the bits that relocations own.
pub(crate) fn owned(code: &Code<'_>) -> Result<Vec<u8>, ArchError> {
    let mut owned = vec![0u8; code.bytes.len()];
    for r in code.relocs {
        let (info, how) = reloc::described(code.name, r.offset, r.r_type)?;
        let field = usize::try_from(r.offset)
            .ok()
            .and_then(|start| owned.get_mut(start..start.checked_add(usize::from(info.width))?))
            .ok_or_else(|| ArchError::Outside { name: code.name.into(), offset: r.offset })?;
        for (byte, mask) in field.iter_mut().zip(reloc::owned(info, how).to_le_bytes()) {
            *byte |= mask;
        }
    }
    Ok(owned)
}

/// See [`splice_plugin_abi::arch::FunctionDiff::compare`].
pub(crate) fn compare(pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
    let fixed = |code: &Code<'_>| -> Result<Vec<u8>, ArchError> {
        Ok(code.bytes.iter().zip(owned(code)?).map(|(byte, owned)| byte & !owned).collect())
    };
    let (a, b) = (fixed(pre)?, fixed(post)?);
    let places = |code: &Code<'_>| -> Vec<(u64, u32)> {
        code.relocs.iter().map(|r| (r.offset, r.r_type)).collect()
    };
    let (pre_places, post_places) = (places(pre), places(post));
    if a == b && pre_places == post_places {
        return Ok(Verdict::Same);
    }
    let line = |code: &Code<'_>, at: usize| {
        let rest = code.bytes.get(at..).unwrap_or_default();
        disassemble::lines(rest, at as u64, 1).into_iter().next().unwrap_or_default()
    };
    // Everything before the first difference is equal, so both offsets are the same.
    let mut at = 0;
    while let (Some(x), Some(y)) = (a.get(at..), b.get(at..)) {
        let (Some(n), Some(m)) = (insn::len(x), insn::len(y)) else { break };
        let within = |places: &[(u64, u32)]| -> Vec<(u64, u32)> {
            let range = at as u64..(at + n) as u64;
            places.iter().copied().filter(|(o, _)| range.contains(o)).collect()
        };
        if n != m || x.get(..n) != y.get(..m) || within(&pre_places) != within(&post_places) {
            break;
        }
        at += n;
    }
    Ok(Verdict::Changed(Difference {
        pre_offset: at as u64,
        post_offset: at as u64,
        pre: line(pre, at),
        post: line(post, at),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_plugin_abi::arch::CodeReloc;

    fn reloc(offset: u64, r_type: u32) -> CodeReloc<'static> {
        CodeReloc { offset, r_type, symbol: "x", key: 1, addend: 0, inside: None }
    }

    fn verdict(a: &[u8], x: &[CodeReloc<'_>], b: &[u8], y: &[CodeReloc<'_>]) -> Option<u64> {
        let code = |bytes, relocs| Code { name: "f", bytes, relocs, entries: &[] };
        match compare(&code(a, x), &code(b, y)).unwrap() {
            Verdict::Same => None,
            Verdict::Changed(d) => Some(d.pre_offset),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_relocations_bits_are_masked() {
        // auipc ra; jalr ra
        let call = [0x97, 0, 0, 0, 0xe7, 0x80, 0, 0];
        let relocs = [reloc(0, 19), reloc(0, 51)];
        assert_eq!(verdict(&call, &relocs, &call, &relocs), None);
        let far = [0x97, 0x10, 0x20, 0x30, 0xe7, 0x80, 0x40, 0x50];
        assert_eq!(verdict(&call, &relocs, &far, &relocs), None);
        assert_eq!(verdict(&call, &[], &far, &[]), Some(0));
        // Another register.
        let t1 = [0x17, 3, 0, 0, 0x67, 0, 3, 0];
        assert_eq!(verdict(&call, &relocs, &t1, &relocs), Some(0));
        assert_eq!(verdict(&call, &relocs, &call, &relocs[..1]), Some(0));
        // The bits of a sum count.
        assert_eq!(
            verdict(&[1, 0, 0, 0], &[reloc(0, 35)], &[2, 0, 0, 0], &[reloc(0, 35)]),
            Some(0)
        );
    }

    #[test]
    fn the_first_difference_is_an_instruction() {
        let a = [0x01, 0, 0x13, 0, 0, 0, 0x05, 0x45];
        let b = [0x01, 0, 0x13, 0, 0, 0, 0x09, 0x45];
        assert_eq!(verdict(&a, &[], &b, &[]), Some(6));
        assert_eq!(verdict(&a, &[], &a[..6], &[]), Some(6));
        let c = [0x01, 0, 0x13, 0, 0x10, 0, 0x05, 0x45];
        assert_eq!(verdict(&a, &[], &c, &[]), Some(2));
    }

    #[test]
    fn fields_outside_the_code_are_refused() {
        let code = Code { name: "f", bytes: &[0; 4], relocs: &[reloc(0, 19)], entries: &[] };
        assert!(matches!(compare(&code, &code), Err(ArchError::Outside { .. })));
    }
}
