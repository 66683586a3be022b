// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocation types, as one table.
//!
//! Source: System V ABI, AMD64 supplement, section "Relocation Types". Only the types that kernel
//! objects hold are listed; the kernel's module loader takes even fewer. A type that needs a GOT
//! or thread-local storage (GOTPCREL, GOTPCRELX, TPOFF32…) has no meaning in kernel text and is
//! left out on purpose: the engine then refuses the object and names the type's number.

use splice_core::arch::{ArchError, Code, RelocInfo, RelocKind, RelocationFixup, Settled};

use crate::{X86_64, decode::Decoded};

pub(crate) const R_NONE: u32 = 0;
pub(crate) const R_64: u32 = 1;
pub(crate) const R_PC32: u32 = 2;
pub(crate) const R_PLT32: u32 = 4;
pub(crate) const R_32: u32 = 10;
pub(crate) const R_32S: u32 = 11;
pub(crate) const R_16: u32 = 12;
pub(crate) const R_PC16: u32 = 13;
pub(crate) const R_8: u32 = 14;
pub(crate) const R_PC8: u32 = 15;
pub(crate) const R_PC64: u32 = 24;

/// How a stored field is widened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Widen {
    /// The field is as wide as an address, or nothing is stored.
    Whole,
    /// Zero-extended.
    Zero,
    /// Sign-extended.
    Sign,
}

/// A row: what the engine sees, and how the field is widened.
struct Row {
    info: RelocInfo,
    widen: Widen,
}

const fn row(
    r_type: u32,
    name: &'static str,
    width: u8,
    pc_relative: bool,
    kind: RelocKind,
    widen: Widen,
) -> Row {
    let mask = match width {
        0 => 0,
        8 => u64::MAX,
        w => (1u64 << (w as u32 * 8)) - 1,
    };
    Row { info: RelocInfo { r_type, name, width, mask, pc_relative, kind }, widen }
}

use RelocKind::{Address, Branch, None as Nothing};

/// The table.
static ROWS: &[Row] = &[
    row(R_NONE, "R_X86_64_NONE", 0, false, Nothing, Widen::Whole),
    row(R_64, "R_X86_64_64", 8, false, Address, Widen::Whole),
    row(R_PC32, "R_X86_64_PC32", 4, true, Address, Widen::Sign),
    // The linker may go through a PLT; the kernel has none, so that it equals PC32.
    row(R_PLT32, "R_X86_64_PLT32", 4, true, Branch, Widen::Sign),
    row(R_32, "R_X86_64_32", 4, false, Address, Widen::Zero),
    row(R_32S, "R_X86_64_32S", 4, false, Address, Widen::Sign),
    row(R_16, "R_X86_64_16", 2, false, Address, Widen::Zero),
    row(R_PC16, "R_X86_64_PC16", 2, true, Address, Widen::Sign),
    row(R_8, "R_X86_64_8", 1, false, Address, Widen::Zero),
    row(R_PC8, "R_X86_64_PC8", 1, true, Branch, Widen::Sign),
    row(R_PC64, "R_X86_64_PC64", 8, true, Address, Widen::Whole),
];

fn find(r_type: u32) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.info.r_type == r_type)
}

/// The table's row for a type.
pub(crate) fn describe(r_type: u32) -> Option<&'static RelocInfo> {
    find(r_type).map(|r| &r.info)
}

fn unknown(r_type: u32) -> ArchError {
    ArchError::UnknownRelocation { name: "a relocation field".into(), offset: 0, r_type }
}

/// Widens `width` bytes' worth of `raw`.
fn widened(raw: u64, width: u8, widen: Widen) -> u64 {
    let unused = 64 - u32::from(width.clamp(1, 8)) * 8;
    match widen {
        Widen::Whole => raw,
        Widen::Zero => (raw << unused) >> unused,
        Widen::Sign => (((raw << unused) as i64) >> unused) as u64,
    }
}

/// Reads a little-endian word of up to eight bytes.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |w, b| (w << 8) | u64::from(*b))
}

impl RelocationFixup for X86_64 {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        describe(r_type)
    }

    fn absolute64(&self) -> u32 {
        R_64
    }

    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        let decoded = Decoded::new(code.bytes);
        code.relocs
            .iter()
            .map(|r| {
                let info = describe(r.r_type).ok_or_else(|| ArchError::UnknownRelocation {
                    name: code.name.into(),
                    offset: r.offset,
                    r_type: r.r_type,
                })?;
                let end = r.offset.checked_add(u64::from(info.width));
                if end.is_none_or(|e| e > code.bytes.len() as u64) {
                    return Err(ArchError::Outside { name: code.name.into(), offset: r.offset });
                }
                if !info.pc_relative || info.width == 0 {
                    return Ok(r.addend);
                }
                let Some(insn) = decoded.covering(r.offset).filter(|i| i.start < r.offset) else {
                    return Err(ArchError::Undecodable {
                        name: code.name.into(),
                        offset: r.offset,
                    });
                };
                // Only a displacement that the processor adds to the next instruction's address
                // is biased; a difference stored as plain data is not.
                let bias = if insn.relative_field(r.offset) { insn.end() - r.offset } else { 0 };
                Ok(r.addend.wrapping_add(bias as i64))
            })
            .collect()
    }

    fn settled(&self, code: &Code<'_>) -> Result<Vec<Settled>, ArchError> {
        let mut found = Vec::new();
        let size = code.bytes.len() as i64;
        for insn in Decoded::new(code.bytes).all() {
            let Some((at, width)) = insn.relative() else { continue };
            if code.relocs.binary_search_by_key(&at, |r| r.offset).is_ok() {
                continue;
            }
            let r_type = match (width, insn.distance().is_some()) {
                (1, _) => R_PC8,
                (4, true) => R_PLT32,
                (4, false) => R_PC32,
                _ => continue,
            };
            let field = code.bytes.get(at as usize..(at + width) as usize).unwrap_or_default();
            let distance = widened(word(field), width as u8, Widen::Sign) as i64;
            let target = distance.wrapping_add(insn.end() as i64);
            if !(0..size).contains(&target) {
                let addend = target.wrapping_sub((insn.end() - at) as i64);
                found.push(Settled { offset: at, r_type, target, addend });
            }
        }
        Ok(found)
    }

    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError> {
        let row = find(r_type).ok_or_else(|| unknown(r_type))?;
        let info = &row.info;
        if field.len() != usize::from(info.width) {
            return Err(ArchError::Outside { name: info.name.into(), offset: 0 });
        }
        let sum = value.wrapping_add(addend as u64);
        let stored = if info.pc_relative { sum.wrapping_sub(place) } else { sum };
        if widened(stored, info.width, row.widen) != stored && info.width != 0 {
            return Err(ArchError::Range { reloc: info.name, value: stored });
        }
        for (byte, new) in field.iter_mut().zip(stored.to_le_bytes()) {
            *byte = new;
        }
        Ok(())
    }

    fn recover(
        &self,
        r_type: u32,
        addend: i64,
        place: u64,
        field: &[u8],
    ) -> Result<u64, ArchError> {
        let row = find(r_type).ok_or_else(|| unknown(r_type))?;
        let info = &row.info;
        if field.len() != usize::from(info.width) || info.width == 0 {
            return Err(ArchError::Outside { name: info.name.into(), offset: 0 });
        }
        let stored = widened(word(field), info.width, row.widen);
        let sum = if info.pc_relative { stored.wrapping_add(place) } else { stored };
        Ok(sum.wrapping_sub(addend as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    const KERNEL: u64 = 0xffff_ffff_8100_0000;

    #[test]
    fn apply_and_recover_are_inverse() {
        // (type, S, A, P, stored bytes in hexadecimal)
        let table: &[(u32, u64, i64, u64, &str)] = &[
            (R_64, KERNEL, 8, 0, "08000081ffffffff"),
            (R_PC32, KERNEL + 0x100, -4, KERNEL + 1, "fb000000"),
            (R_PLT32, KERNEL, -4, KERNEL + 0x101, "fbfeffff"),
            (R_32, 0x8000_0000, 4, 0, "04000080"),
            (R_32S, KERNEL, 4, 0, "04000081"),
            (R_16, 0x1234, 1, 0, "3512"),
            (R_PC16, KERNEL, -2, KERNEL + 0x10, "eeff"),
            (R_8, 0x7f, 1, 0, "80"),
            (R_PC8, KERNEL, -1, KERNEL + 0x10, "ef"),
            (R_PC64, KERNEL, 0, KERNEL + 2, "feffffffffffffff"),
        ];
        for (r_type, s, a, p, hex) in table {
            let info = describe(*r_type).unwrap();
            let mut field = vec![0xaa; usize::from(info.width)];
            X86_64.apply(*r_type, *s, *a, *p, &mut field).unwrap();
            let got: String = field.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(&got, hex, "{}", info.name);
            assert_eq!(X86_64.recover(*r_type, *a, *p, &field).unwrap(), *s, "{}", info.name);
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let table: &[(u32, u64, i64, u64)] = &[
            (R_PC32, KERNEL, -4, KERNEL - 0x8000_0010),
            (R_PC32, KERNEL + 0x7000_0000, -4, KERNEL - 0x1000_0004),
            (R_32, KERNEL, 0, 0),
            (R_32S, 0x8000_0000, 0, 0),
            (R_16, 0x1_0000, 0, 0),
            (R_8, 0x100, 0, 0),
            (R_PC8, 0x80, 0, 0),
            (R_PC16, 0x8000, 0, 0),
        ];
        for (r_type, s, a, p) in table {
            let info = describe(*r_type).unwrap();
            let mut field = vec![0xaa; usize::from(info.width)];
            let before = field.clone();
            let got = X86_64.apply(*r_type, *s, *a, *p, &mut field);
            assert!(matches!(got, Err(ArchError::Range { .. })), "{}: {got:?}", info.name);
            assert_eq!(field, before, "{} stored something", info.name);
        }
    }

    #[test]
    fn unknown_types_and_wrong_widths_are_refused() {
        assert!(describe(9).is_none(), "GOTPCREL means nothing in kernel text");
        assert!(X86_64.apply(9, 0, 0, 0, &mut [0; 4]).is_err());
        assert!(X86_64.recover(42, 0, 0, &[0; 4]).is_err());
        assert!(X86_64.recover(R_PC32, 0, 0, &[0; 3]).is_err());
        assert!(X86_64.apply(R_64, 0, 0, 0, &mut [0; 4]).is_err());
    }

    fn offsets(bytes: &[u8], relocs: &[(u64, u32, i64)]) -> Result<Vec<i64>, ArchError> {
        let relocs: Vec<_> = relocs
            .iter()
            .map(|(offset, r_type, addend)| CodeReloc {
                offset: *offset,
                r_type: *r_type,
                symbol: "x",
                key: 1,
                addend: *addend,
                inside: None,
            })
            .collect();
        X86_64.target_offsets(&Code { name: "f", bytes, relocs: &relocs, entries: &[] })
    }

    #[test]
    fn target_offsets_know_the_rest_of_the_instruction() {
        // call x; cmpl $1, x+8(%rip); cmpb $1, x(%rip); mov $x+16, %rdi; movabs $x+3, %rax
        let bytes = [
            0xe8, 0, 0, 0, 0, //
            0x81, 0x3d, 0, 0, 0, 0, 1, 0, 0, 0, //
            0x80, 0x3d, 0, 0, 0, 0, 1, //
            0x48, 0xc7, 0xc7, 0, 0, 0, 0, //
            0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let relocs =
            [(1, R_PLT32, -4), (7, R_PC32, 0), (17, R_PC32, -5), (25, R_32S, 16), (31, R_64, 3)];
        assert_eq!(offsets(&bytes, &relocs).unwrap(), [0, 8, 0, 16, 3]);
    }

    #[test]
    fn references_without_relocation_are_found() {
        // jmp +1; call f+0x20; lea f-8(%rip), %rdi; jne f+0x30; call with a relocation
        let bytes = [
            0xeb, 0x01, 0x90, //
            0xe8, 0x18, 0, 0, 0, //
            0x48, 0x8d, 0x3d, 0xe9, 0xff, 0xff, 0xff, //
            0x75, 0x1f, //
            0xe8, 0, 0, 0, 0,
        ];
        let relocs = [CodeReloc {
            offset: 18,
            r_type: R_PLT32,
            symbol: "x",
            key: 1,
            addend: -4,
            inside: None,
        }];
        let code = Code { name: "f", bytes: &bytes, relocs: &relocs, entries: &[] };
        let found = X86_64.settled(&code).unwrap();
        let shown: Vec<_> = found.iter().map(|s| (s.offset, s.r_type, s.target)).collect();
        assert_eq!(shown, [(4, R_PLT32, 0x20), (11, R_PC32, -8), (16, R_PC8, 0x30)]);
        for one in found {
            let from = one.offset as usize;
            let to = from + usize::from(describe(one.r_type).unwrap().width);
            let mut field = bytes[from..to].to_vec();
            X86_64.apply(one.r_type, 0, one.addend, one.offset, &mut field).unwrap();
            assert_eq!(field, bytes[from..to], "{one:?}");
        }
    }

    #[test]
    fn target_offsets_refuse_what_they_cannot_place() {
        assert!(matches!(
            offsets(&[0xe8, 0, 0], &[(1, R_PLT32, -4)]),
            Err(ArchError::Outside { .. })
        ));
        let got = offsets(&[0x06, 0, 0, 0, 0], &[(0, R_PC32, -4)]);
        assert!(matches!(got, Err(ArchError::Undecodable { .. })), "{got:?}");
        let got = offsets(&[0xe8, 0, 0, 0, 0], &[(1, 9, -4)]);
        assert!(matches!(got, Err(ArchError::UnknownRelocation { .. })), "{got:?}");
    }
}
