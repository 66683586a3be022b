// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocation types, as one table.
//!
//! Source: RISC-V ELF psABI, "Relocations"; which of them a module may have is in
//! arch/riscv/kernel/module.c (6.1). Types that need a GOT or thread-local storage have no
//! meaning in kernel text and are left out on purpose: the engine refuses them by number.
//!
//! Several types may stand at one place: `ADD32` and `SUB32` make a difference, `RELAX` beside
//! another allows the linker to shorten code.

use splice_plugin_abi::arch::{ArchError, Code, RelocInfo, RelocKind, RelocationFixup, Uleb128};

use crate::Riscv64;
use crate::insn::{self, Pieces};

pub(crate) const PCREL_HI20: u32 = 23;
pub(crate) const R_64: u32 = 2;

/// How a type's value becomes its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing is stored.
    Nothing,
    /// S + A, truncated to that many bits; for `Exact` it must fit.
    Set(u8),
    /// S + A in four bytes, zero-extended.
    Word,
    /// S + A in eight bytes.
    Whole,
    /// S + A - P in four bytes, sign-extended.
    Relative,
    /// S + A - P as a branch's distance.
    Branch(Pieces),
    /// S + A - P in `auipc` and the `jalr` behind it.
    Call,
    /// The upper part of S + A - P.
    PcHigh,
    /// The lower part of what the `PcHigh` at the symbol tells.
    PcLow(Pieces),
    /// The upper part of S + A.
    High,
    /// The lower part of S + A.
    Low(Pieces),
    /// S + A is added to what the field holds.
    Add,
    /// S + A is subtracted from what the field holds.
    Sub,
}

/// A row: what the engine sees, and how the value becomes the field.
struct Row {
    info: RelocInfo,
    how: How,
}

const fn row(r_type: u32, name: &'static str, width: u8, how: How) -> Row {
    let (mask, pc_relative, kind) = match how {
        How::Nothing => (0, false, RelocKind::None),
        How::Set(6) => (0x3f, false, RelocKind::Address),
        How::Set(_) | How::Word | How::Whole | How::Add | How::Sub => {
            (whole(width), false, RelocKind::Address)
        }
        How::Relative => (whole(width), true, RelocKind::Address),
        How::Branch(pieces) => (insn::mask(pieces), true, RelocKind::Branch),
        How::Call => (insn::mask(insn::U) | insn::mask(insn::I) << 32, true, RelocKind::Branch),
        How::PcHigh => (insn::mask(insn::U), true, RelocKind::Address),
        // It names the place of its upper part in the very code, never what the address is of:
        // like a branch it must stay in the same copy of a function.
        How::PcLow(pieces) => (insn::mask(pieces), true, RelocKind::Branch),
        How::High => (insn::mask(insn::U), false, RelocKind::Address),
        How::Low(pieces) => (insn::mask(pieces), false, RelocKind::Address),
    };
    Row { info: RelocInfo { r_type, name, width, mask, pc_relative, kind }, how }
}

const fn whole(width: u8) -> u64 {
    if width == 8 { u64::MAX } else { (1u64 << (width * 8)) - 1 }
}

const ALIGN: u32 = 43;
/// `R_RISCV_SET_ULEB128` and `R_RISCV_SUB_ULEB128`.
const SET_ULEB128: u32 = 60;
const SUB_ULEB128: u32 = 61;

/// The table. What only debugging and unwind information holds (`SUB6`, `…_ULEB128`) is left out.
static ROWS: &[Row] = &[
    row(0, "R_RISCV_NONE", 0, How::Nothing),
    row(1, "R_RISCV_32", 4, How::Word),
    row(R_64, "R_RISCV_64", 8, How::Whole),
    row(16, "R_RISCV_BRANCH", 4, How::Branch(insn::B)),
    row(17, "R_RISCV_JAL", 4, How::Branch(insn::J)),
    row(18, "R_RISCV_CALL", 8, How::Call),
    row(19, "R_RISCV_CALL_PLT", 8, How::Call),
    row(PCREL_HI20, "R_RISCV_PCREL_HI20", 4, How::PcHigh),
    row(24, "R_RISCV_PCREL_LO12_I", 4, How::PcLow(insn::I)),
    row(25, "R_RISCV_PCREL_LO12_S", 4, How::PcLow(insn::S)),
    row(26, "R_RISCV_HI20", 4, How::High),
    row(27, "R_RISCV_LO12_I", 4, How::Low(insn::I)),
    row(28, "R_RISCV_LO12_S", 4, How::Low(insn::S)),
    row(33, "R_RISCV_ADD8", 1, How::Add),
    row(34, "R_RISCV_ADD16", 2, How::Add),
    row(35, "R_RISCV_ADD32", 4, How::Add),
    row(36, "R_RISCV_ADD64", 8, How::Add),
    row(37, "R_RISCV_SUB8", 1, How::Sub),
    row(38, "R_RISCV_SUB16", 2, How::Sub),
    row(39, "R_RISCV_SUB32", 4, How::Sub),
    row(40, "R_RISCV_SUB64", 8, How::Sub),
    row(ALIGN, "R_RISCV_ALIGN", 0, How::Nothing),
    row(44, "R_RISCV_RVC_BRANCH", 2, How::Branch(insn::CB)),
    row(45, "R_RISCV_RVC_JUMP", 2, How::Branch(insn::CJ)),
    row(51, "R_RISCV_RELAX", 0, How::Nothing),
    row(53, "R_RISCV_SET6", 1, How::Set(6)),
    row(54, "R_RISCV_SET8", 1, How::Set(8)),
    row(55, "R_RISCV_SET16", 2, How::Set(16)),
    row(56, "R_RISCV_SET32", 4, How::Set(32)),
    row(57, "R_RISCV_32_PCREL", 4, How::Relative),
];

fn find(r_type: u32) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.info.r_type == r_type)
}

/// A type's row of the table, as it is for a place in `code`.
pub(crate) fn described(
    code: &str,
    offset: u64,
    r_type: u32,
) -> Result<(&'static RelocInfo, How), ArchError> {
    match find(r_type) {
        Some(row) => Ok((&row.info, row.how)),
        None => Err(ArchError::UnknownRelocation { name: code.into(), offset, r_type }),
    }
}

/// The bits of its word that a relocation replaces. Sums keep what the field held: it counts.
pub(crate) fn owned(info: &RelocInfo, how: How) -> u64 {
    if matches!(how, How::Add | How::Sub) { 0 } else { info.mask }
}

/// Types that one field does not explain.
fn alone(info: &RelocInfo, place: u64) -> ArchError {
    ArchError::Entry {
        section: info.name.into(),
        name: "a relocation field".into(),
        offset: place,
        why: "its value depends on another relocation".into(),
    }
}

fn sign_extended(value: u64, bits: u32) -> u64 {
    let unused = 64 - bits;
    (((value << unused) as i64) >> unused) as u64
}

impl RelocationFixup for Riscv64 {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        find(r_type).map(|r| &r.info)
    }

    /// As the psABI says of `R_RISCV_ALIGN`: the addend is the most that may be needed. GNU ld puts the
    /// short nop last (`_bfd_riscv_relax_align`).
    fn padding(&self, at: u64, r_type: u32, addend: i64) -> Option<Vec<u8>> {
        let most = u64::try_from(addend).ok().filter(|_| r_type == ALIGN)?;
        let align = most.checked_add(1)?.checked_next_power_of_two()?;
        let needed = align.wrapping_sub(at) % align;
        if needed > most || needed % 2 != 0 {
            return None;
        }
        let mut bytes = insn::NOP.to_le_bytes().repeat(usize::try_from(needed / 4).ok()?);
        if needed % 4 != 0 {
            bytes.extend(insn::C_NOP.to_le_bytes());
        }
        Some(bytes)
    }

    fn uleb128(&self, r_type: u32) -> Option<Uleb128> {
        match r_type {
            SET_ULEB128 => Some(Uleb128::Set),
            SUB_ULEB128 => Some(Uleb128::Sub),
            _ => None,
        }
    }

    fn absolute64(&self) -> u32 {
        R_64
    }

    /// No instruction adds a bias of its own: distances count from the instruction itself.
    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        let offset = |r: &splice_plugin_abi::arch::CodeReloc<'_>| {
            let (info, _) = described(code.name, r.offset, r.r_type)?;
            let end = r.offset.checked_add(u64::from(info.width));
            if end.is_none_or(|e| e > code.bytes.len() as u64) {
                return Err(ArchError::Outside { name: code.name.into(), offset: r.offset });
            }
            Ok(r.addend)
        };
        code.relocs.iter().map(offset).collect()
    }

    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError> {
        let (info, how) = described("a relocation field", 0, r_type)?;
        if field.len() != usize::from(info.width) {
            return Err(ArchError::Outside { name: info.name.into(), offset: 0 });
        }
        let sum = value.wrapping_add_signed(addend);
        let distance = sum.wrapping_sub(place);
        let range = |value| Err(ArchError::Range { reloc: info.name, value });
        let old = insn::word(field);
        let new = match how {
            How::Nothing => return Ok(()),
            How::Set(6) => (old & !0x3f) | (sum & 0x3f),
            How::Set(_) | How::Whole => sum,
            How::Word if u32::try_from(sum).is_err() => return range(sum),
            How::Word => sum,
            How::Relative if sign_extended(distance, 32) != distance => return range(distance),
            How::Relative => distance,
            How::Branch(pieces) => {
                let new = insn::put(pieces, old, distance);
                if insn::get(pieces, new) as u64 != distance {
                    return range(distance);
                }
                new
            }
            How::Call | How::PcHigh if !insn::reaches(distance) => return range(distance),
            How::Call => {
                let auipc = insn::put(insn::U, old & 0xffff_ffff, insn::high(distance));
                auipc | insn::put(insn::I, old >> 32, distance) << 32
            }
            How::PcHigh => insn::put(insn::U, old, insn::high(distance)),
            How::High if !insn::reaches(sum) => return range(sum),
            How::High => insn::put(insn::U, old, insn::high(sum)),
            How::Low(pieces) => insn::put(pieces, old, sum),
            How::PcLow(_) => return Err(alone(info, place)),
            How::Add => old.wrapping_add(sum),
            How::Sub => old.wrapping_sub(sum),
        };
        for (byte, new) in field.iter_mut().zip(new.to_le_bytes()) {
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
        let (info, how) = described("a relocation field", 0, r_type)?;
        if field.len() != usize::from(info.width) || info.width == 0 {
            return Err(ArchError::Outside { name: info.name.into(), offset: 0 });
        }
        let word = insn::word(field);
        let sum = match how {
            How::Set(6) => word & 0x3f,
            How::Set(_) | How::Word | How::Whole => word,
            How::Relative => place.wrapping_add(sign_extended(word, 32)),
            How::Branch(pieces) => place.wrapping_add_signed(insn::get(pieces, word)),
            How::Call => {
                place.wrapping_add_signed(insn::far(word as u32, (word >> 32) as u32, insn::I))
            }
            How::PcHigh => place.wrapping_add_signed(insn::get(insn::U, word)),
            How::High => insn::get(insn::U, word) as u64,
            How::Low(pieces) => insn::get(pieces, word) as u64 & 0xfff,
            How::Nothing | How::PcLow(_) | How::Add | How::Sub => return Err(alone(info, place)),
        };
        Ok(sum.wrapping_sub(addend.cast_unsigned()))
    }

    fn recovered_bits(&self, r_type: u32) -> u64 {
        match find(r_type).map(|r| r.how) {
            Some(How::Set(bits)) => (1 << bits) - 1,
            Some(How::Word) => 0xffff_ffff,
            Some(How::Low(_)) => 0xfff,
            // The upper part is rounded up or not: alone it tells no bit for certain.
            Some(How::PcHigh | How::High) => 0,
            Some(How::PcLow(_) | How::Add | How::Sub | How::Nothing) => 0,
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: u64 = 0xffff_ffd8_8000_0000;

    #[test]
    fn values_out_of_range_are_refused() {
        let table: &[(u32, u64, i64, u64)] = &[
            (16, KERNEL + 0x1000, 0, KERNEL),
            (16, KERNEL + 1, 0, KERNEL),
            (17, KERNEL + 0x10_0000, 0, KERNEL),
            (19, KERNEL + 0x7fff_f800, 0, KERNEL),
            (23, KERNEL - 0x8000_0801, 0, KERNEL),
            (44, KERNEL + 0x100, 0, KERNEL),
            (45, KERNEL - 0x802, 0, KERNEL),
            (57, KERNEL - 0x8000_0001, 0, KERNEL),
            (1, KERNEL, 0, 0),
            (26, 0x8000_0000, 0, 0),
        ];
        for (r_type, s, a, p) in table {
            let info = Riscv64.describe(*r_type).unwrap();
            let mut field = vec![0xaa; usize::from(info.width)];
            let before = field.clone();
            let got = Riscv64.apply(*r_type, *s, *a, *p, &mut field);
            assert!(matches!(got, Err(ArchError::Range { .. })), "{}: {got:?}", info.name);
            assert_eq!(field, before, "{} stored something", info.name);
        }
    }

    #[test]
    fn unknown_types_and_wrong_widths_are_refused() {
        assert!(Riscv64.describe(20).is_none(), "GOT_HI20 means nothing in kernel text");
        assert!(Riscv64.apply(20, 0, 0, 0, &mut [0; 4]).is_err());
        assert!(Riscv64.recover(17, 0, 0, &[0; 2]).is_err());
        assert!(Riscv64.apply(24, 0, 0, 0, &mut [0; 4]).is_err(), "a low part alone");
        assert!(Riscv64.recover(35, 0, 0, &[0; 4]).is_err(), "a sum alone");
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(ROWS.is_sorted_by_key(|r| r.info.r_type));
    }
}
