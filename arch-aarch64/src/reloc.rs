// SPDX-License-Identifier: GPL-2.0-or-later
//! Relocation types, as one table.
//!
//! Source: ELF for the Arm 64-bit Architecture (AAELF64), section "Relocation". Listed are the
//! types that the kernel's module loader takes (`apply_relocate_add`,
//! arch/arm64/kernel/module.c, 6.1), for an update must pass it. A type that needs a GOT or
//! thread-local storage has no meaning in kernel text and is left out on purpose: the engine then
//! refuses the object and names the type's number.
//!
//! Where the ABI lets 16- and 32-bit data be read as signed or unsigned, the loader decides:
//! absolute ones are unsigned, relative ones signed.

use splice_core::arch::{ArchError, Code, RelocInfo, RelocKind, RelocationFixup, Settled};

use crate::Aarch64;

pub(crate) const ABS64: u32 = 257;
pub(crate) const ADR_PAGE: u32 = 275;
pub(crate) const ADR_PAGE_NC: u32 = 276;
pub(crate) const TSTBR14: u32 = 279;
pub(crate) const CONDBR19: u32 = 280;
pub(crate) const JUMP26: u32 = 282;
pub(crate) const CALL26: u32 = 283;

/// Bytes of a page of `adrp`, whatever the kernel's page size.
pub(crate) const PAGE: u64 = 4096;

/// What is subtracted from S + A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// Nothing.
    Zero,
    /// The place.
    Place,
    /// The place's page, and from S + A what lies behind its page's start.
    Page,
}

/// Where the value's bits are in the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// That many bits from that position on.
    At(u8, u8),
    /// `adr` and `adrp`: two bits at 29, nineteen at 5.
    Adr,
    /// `movz` and `movk`: sixteen bits at 5.
    Mov,
    /// `movz` or `movn`, whichever the sign needs: sixteen bits at 5, the instruction at 29.
    MovSigned,
}

/// Which values fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fits {
    /// A signed number of that many bits.
    Signed(u8),
    /// An unsigned number of that many bits.
    Unsigned(u8),
    /// Any; the bits that are not stored are lost.
    Any,
}

/// A row: what the engine sees, and how the value becomes the field.
#[derive(Debug, Clone, Copy)]
struct Row {
    info: RelocInfo,
    from: Base,
    field: Field,
    /// The lowest bit of the value that is stored; lower ones must be zero if `aligned`.
    lowest: u8,
    aligned: bool,
    fits: Fits,
}

const fn data(r_type: u32, name: &'static str, width: u8, from: Base, fits: Fits) -> Row {
    let bits = width * 8;
    let mask = if width == 8 { u64::MAX } else { (1u64 << bits) - 1 };
    let pc_relative = matches!(from, Base::Place);
    let info = RelocInfo { r_type, name, width, mask, pc_relative, kind: RelocKind::Address };
    Row { info, from, field: Field::At(0, bits), lowest: 0, aligned: false, fits }
}

const fn insn(
    r_type: u32,
    name: &'static str,
    kind: RelocKind,
    from: Base,
    field: Field,
    lowest: u8,
    fits: Fits,
) -> Row {
    let mask = match field {
        Field::At(position, bits) => ((1u64 << bits) - 1) << position,
        Field::Adr => 0x60ff_ffe0,
        Field::Mov => 0x001f_ffe0,
        Field::MovSigned => 0x601f_ffe0,
    };
    let pc_relative = !matches!(from, Base::Zero);
    let aligned = matches!(field, Field::At(..));
    let info = RelocInfo { r_type, name, width: 4, mask, pc_relative, kind };
    Row { info, from, field, lowest, aligned, fits }
}

/// A branch: a distance in instructions.
const fn branch(r_type: u32, name: &'static str, position: u8, bits: u8) -> Row {
    let fits = Fits::Signed(bits + 2);
    insn(r_type, name, RelocKind::Branch, Base::Place, Field::At(position, bits), 2, fits)
}

/// The low 12 bits of an address, in units of the access: 12 bits of `imm12` at 10 less those
/// that alignment makes zero.
const fn low12(r_type: u32, name: &'static str, shift: u8) -> Row {
    let field = Field::At(10, 12 - shift);
    insn(r_type, name, RelocKind::Address, Base::Zero, field, shift, Fits::Any)
}

/// Sixteen bits of an address.
const fn group(
    r_type: u32,
    name: &'static str,
    from: Base,
    field: Field,
    n: u8,
    fits: Fits,
) -> Row {
    insn(r_type, name, RelocKind::Address, from, field, n * 16, fits)
}

const NOTHING: Row = Row {
    info: RelocInfo {
        r_type: 0,
        name: "R_AARCH64_NONE",
        width: 0,
        mask: 0,
        pc_relative: false,
        kind: RelocKind::None,
    },
    from: Base::Zero,
    field: Field::At(0, 0),
    lowest: 0,
    aligned: false,
    fits: Fits::Any,
};

use Base::{Page, Place, Zero};
use Field::{Adr, Mov, MovSigned};
use Fits::{Any, Signed, Unsigned};
use RelocKind::Address;

/// The table.
static ROWS: &[Row] = &[
    NOTHING,
    // 256 meant the same in drafts of the ABI; the loader takes it still.
    Row { info: RelocInfo { r_type: 256, ..NOTHING.info }, ..NOTHING },
    data(ABS64, "R_AARCH64_ABS64", 8, Zero, Any),
    data(258, "R_AARCH64_ABS32", 4, Zero, Unsigned(32)),
    data(259, "R_AARCH64_ABS16", 2, Zero, Unsigned(16)),
    data(260, "R_AARCH64_PREL64", 8, Place, Any),
    data(261, "R_AARCH64_PREL32", 4, Place, Signed(32)),
    data(262, "R_AARCH64_PREL16", 2, Place, Signed(16)),
    group(263, "R_AARCH64_MOVW_UABS_G0", Zero, Mov, 0, Unsigned(16)),
    group(264, "R_AARCH64_MOVW_UABS_G0_NC", Zero, Mov, 0, Any),
    group(265, "R_AARCH64_MOVW_UABS_G1", Zero, Mov, 1, Unsigned(32)),
    group(266, "R_AARCH64_MOVW_UABS_G1_NC", Zero, Mov, 1, Any),
    group(267, "R_AARCH64_MOVW_UABS_G2", Zero, Mov, 2, Unsigned(48)),
    group(268, "R_AARCH64_MOVW_UABS_G2_NC", Zero, Mov, 2, Any),
    group(269, "R_AARCH64_MOVW_UABS_G3", Zero, Mov, 3, Any),
    group(270, "R_AARCH64_MOVW_SABS_G0", Zero, MovSigned, 0, Signed(17)),
    group(271, "R_AARCH64_MOVW_SABS_G1", Zero, MovSigned, 1, Signed(33)),
    group(272, "R_AARCH64_MOVW_SABS_G2", Zero, MovSigned, 2, Signed(49)),
    insn(273, "R_AARCH64_LD_PREL_LO19", Address, Place, Field::At(5, 19), 2, Signed(21)),
    insn(274, "R_AARCH64_ADR_PREL_LO21", Address, Place, Adr, 0, Signed(21)),
    insn(ADR_PAGE, "R_AARCH64_ADR_PREL_PG_HI21", Address, Page, Adr, 12, Signed(33)),
    insn(ADR_PAGE_NC, "R_AARCH64_ADR_PREL_PG_HI21_NC", Address, Page, Adr, 12, Any),
    low12(277, "R_AARCH64_ADD_ABS_LO12_NC", 0),
    low12(278, "R_AARCH64_LDST8_ABS_LO12_NC", 0),
    branch(TSTBR14, "R_AARCH64_TSTBR14", 5, 14),
    branch(CONDBR19, "R_AARCH64_CONDBR19", 5, 19),
    branch(JUMP26, "R_AARCH64_JUMP26", 0, 26),
    branch(CALL26, "R_AARCH64_CALL26", 0, 26),
    low12(284, "R_AARCH64_LDST16_ABS_LO12_NC", 1),
    low12(285, "R_AARCH64_LDST32_ABS_LO12_NC", 2),
    low12(286, "R_AARCH64_LDST64_ABS_LO12_NC", 3),
    group(287, "R_AARCH64_MOVW_PREL_G0", Place, MovSigned, 0, Signed(17)),
    group(288, "R_AARCH64_MOVW_PREL_G0_NC", Place, Mov, 0, Any),
    group(289, "R_AARCH64_MOVW_PREL_G1", Place, MovSigned, 1, Signed(33)),
    group(290, "R_AARCH64_MOVW_PREL_G1_NC", Place, Mov, 1, Any),
    group(291, "R_AARCH64_MOVW_PREL_G2", Place, MovSigned, 2, Signed(49)),
    group(292, "R_AARCH64_MOVW_PREL_G2_NC", Place, Mov, 2, Any),
    group(293, "R_AARCH64_MOVW_PREL_G3", Place, MovSigned, 3, Any),
    low12(299, "R_AARCH64_LDST128_ABS_LO12_NC", 4),
];

fn find(r_type: u32) -> Option<&'static Row> {
    ROWS.iter().find(|r| r.info.r_type == r_type)
}

/// The table's row for a type.
pub(crate) fn describe(r_type: u32) -> Option<&'static RelocInfo> {
    find(r_type).map(|r| &r.info)
}

/// The row for a relocation of that code.
pub(crate) fn info_of(
    code: &Code<'_>,
    r: &splice_core::arch::CodeReloc<'_>,
) -> Result<&'static RelocInfo, ArchError> {
    describe(r.r_type).ok_or_else(|| ArchError::UnknownRelocation {
        name: code.name.into(),
        offset: r.offset,
        r_type: r.r_type,
    })
}

/// What is added to a symbol's value to get the sum of which the field tells
/// [`RelocationFixup::recovered_bits`].
pub(crate) fn bias(r_type: u32, addend: i64, place: u64) -> u64 {
    match find(r_type).map(|r| r.from) {
        Some(Place) => (addend as u64).wrapping_sub(place),
        _ => addend as u64,
    }
}

fn unknown(r_type: u32) -> ArchError {
    ArchError::UnknownRelocation { name: "a relocation field".into(), offset: 0, r_type }
}

/// Sign-extends the low `bits` bits.
pub(crate) fn signed(value: u64, bits: u8) -> u64 {
    let unused = 64 - u32::from(bits.clamp(1, 64));
    (((value << unused) as i64) >> unused) as u64
}

/// Reads a little-endian word of up to eight bytes.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |w, b| (w << 8) | u64::from(*b))
}

impl Fits {
    fn holds(self, value: u64) -> bool {
        match self {
            Fits::Signed(bits) => signed(value, bits) == value,
            Fits::Unsigned(bits) => bits >= 64 || value >> bits == 0,
            Fits::Any => true,
        }
    }
}

impl Row {
    /// The value that is stored for S + A = `sum` at `place`.
    fn value(&self, sum: u64, place: u64) -> u64 {
        match self.from {
            Zero => sum,
            Place => sum.wrapping_sub(place),
            Page => (sum & !(PAGE - 1)).wrapping_sub(place & !(PAGE - 1)),
        }
    }

    /// Puts the value's bits into the word.
    fn store(&self, word: u64, value: u64) -> u64 {
        let kept = word & !self.info.mask;
        let bits = value >> self.lowest;
        match self.field {
            Field::At(position, _) => kept | ((bits << position) & self.info.mask),
            Adr => kept | (bits & 3) << 29 | (bits >> 2 & 0x7_ffff) << 5,
            Mov => kept | (bits & 0xffff) << 5,
            // Bit 30 makes movz of movn.
            MovSigned if (value as i64) < 0 => kept | (!bits & 0xffff) << 5,
            MovSigned => kept | 1 << 30 | (bits & 0xffff) << 5,
        }
    }

    /// The value that the word holds, sign-extended as the processor would; `None` for a word
    /// that cannot be what `store` made.
    fn load(&self, word: u64) -> Option<u64> {
        let value = match self.field {
            Field::At(position, bits) => {
                let value = (word & self.info.mask) >> position << self.lowest;
                match self.fits {
                    Fits::Signed(_) => signed(value, bits + self.lowest),
                    _ => value,
                }
            }
            Adr => {
                let value = (word >> 29 & 3 | (word >> 5 & 0x7_ffff) << 2) << self.lowest;
                signed(value, 21 + self.lowest)
            }
            Mov => (word >> 5 & 0xffff) << self.lowest,
            MovSigned => {
                let bits = word >> 5 & 0xffff;
                match word >> 29 & 3 {
                    0 => !(bits << self.lowest),
                    2 => bits << self.lowest,
                    _ => return None,
                }
            }
        };
        Some(value & self.told())
    }

    /// Bits of the value that the field tells.
    fn told(&self) -> u64 {
        let from = u64::MAX << self.lowest;
        match (self.field, self.fits) {
            // The place within a page; alignment tells the lowest bits too.
            (Field::At(10, _), Any) => PAGE - 1,
            (Mov, Any) => 0xffff << self.lowest,
            // The sign tells nothing of bits that another instruction holds.
            (MovSigned, Any) => 0xffff << self.lowest,
            (Mov | MovSigned, _) => from,
            (Adr, _) if self.lowest == 12 => from,
            _ => u64::MAX,
        }
    }
}

impl RelocationFixup for Aarch64 {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        describe(r_type)
    }

    fn absolute64(&self) -> u32 {
        ABS64
    }

    /// No instruction adds a bias of its own: distances count from the instruction itself.
    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        code.relocs
            .iter()
            .map(|r| {
                let info = info_of(code, r)?;
                let end = r.offset.checked_add(u64::from(info.width));
                if end.is_none_or(|e| e > code.bytes.len() as u64) {
                    return Err(ArchError::Outside { name: code.name.into(), offset: r.offset });
                }
                Ok(r.addend)
            })
            .collect()
    }

    fn settled(&self, code: &Code<'_>) -> Result<Vec<Settled>, ArchError> {
        let mut found = Vec::new();
        let size = code.bytes.len() as i64;
        for (number, bytes) in code.bytes.chunks_exact(4).enumerate() {
            let (offset, bits) = (number as u64 * crate::insn::LEN, word(bytes) as u32);
            let Some((r_type, distance)) = crate::insn::branch(bits) else { continue };
            let target = distance.wrapping_add(offset as i64);
            let relocated = code.relocs.binary_search_by_key(&offset, |r| r.offset).is_ok();
            if !relocated && !(0..size).contains(&target) {
                found.push(Settled { offset, r_type, target, addend: target });
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
        if field.len() != usize::from(row.info.width) {
            return Err(ArchError::Outside { name: row.info.name.into(), offset: 0 });
        }
        let value = row.value(value.wrapping_add(addend as u64), place);
        let odd = row.aligned && value & !(u64::MAX << row.lowest) != 0;
        if odd || !row.fits.holds(value) {
            return Err(ArchError::Range { reloc: row.info.name, value });
        }
        let stored = row.store(word(field), value);
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
        if field.len() != usize::from(row.info.width) || row.info.width == 0 {
            return Err(ArchError::Outside { name: row.info.name.into(), offset: 0 });
        }
        let raw = word(field);
        let value = row
            .load(raw)
            .ok_or(ArchError::Range { reloc: row.info.name, value: raw & row.info.mask })?;
        let sum = match row.from {
            Zero => value,
            Place => value.wrapping_add(place),
            Page => value.wrapping_add(place & !(PAGE - 1)),
        };
        Ok(sum.wrapping_sub(addend as u64))
    }

    fn recovered_bits(&self, r_type: u32) -> u64 {
        find(r_type).map_or(u64::MAX, Row::told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::{CodeReloc, check};

    const KERNEL: u64 = 0xffff_8000_0801_0000;

    #[test]
    fn rows_are_sound_and_stand_once() {
        for (i, row) in ROWS.iter().enumerate() {
            let t = row.info.r_type;
            assert_eq!(check::described(&Aarch64, t).unwrap(), Some(&row.info));
            assert!(ROWS.iter().skip(i + 1).all(|r| r.info.r_type != t), "{t} twice");
            let bits = match row.field {
                Field::At(_, bits) => u32::from(bits),
                Adr => 21,
                Mov => 16,
                MovSigned => 18,
            };
            assert_eq!(row.info.mask.count_ones(), bits, "{}", row.info.name);
        }
        assert_eq!(check::facade(&Aarch64), Ok(()));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    // (type, the word before, S, A, P, the word after, all little-endian bytes in hexadecimal).
    // The same and many more values are compared with the linker's in tests/linker.rs.
    const TABLE: &[(u32, u64, u64, i64, u64, &str)] = &[
        (257, 0, KERNEL, 8, 0, "080001080080ffff"),
        (258, 0, 0x8000_0000, 4, 0, "04000080"),
        (261, 0, KERNEL, 0, KERNEL + 4, "fcffffff"),
        (262, 0, KERNEL, 2, KERNEL + 16, "f2ff"),
        (283, 0x9400_0000, KERNEL + 0x100, 0, KERNEL, "40000094"),
        (282, 0x1400_0000, KERNEL, 0, KERNEL + 4, "ffffff17"),
        (280, 0x5400_0001, KERNEL, 0, KERNEL + 8, "c1ffff54"),
        (279, 0x3700_0003, KERNEL + 0x20, 0, KERNEL, "03010037"),
        (273, 0x5800_0001, KERNEL + 0x10, 0, KERNEL, "81000058"),
        (274, 0x1000_0002, KERNEL + 0x13, 0, KERNEL, "82000070"),
        (275, 0x9000_0000, KERNEL + 0x5123, 0, KERNEL + 0xffc, "200000b0"),
        (277, 0x9100_0000, KERNEL + 0x123, 4, 0, "009c0491"),
        (286, 0xf940_0000, KERNEL + 0x128, 0, 0, "009440f9"),
        (299, 0x3dc0_0000, KERNEL + 0x120, 0, 0, "0048c03d"),
        (269, 0xd2e0_0000, KERNEL, 0, 0, "e0ffffd2"),
        (270, 0xd280_0001, 0xffff_ffff_ffff_fffe, 0, 0, "21008092"),
        (287, 0x9280_0001, 0x1234, 0, 0x1000, "814680d2"),
    ];

    #[test]
    fn apply_gives_the_word() {
        for (r_type, before, s, a, p, after) in TABLE {
            let info = describe(*r_type).unwrap();
            let mut field = before.to_le_bytes()[..usize::from(info.width)].to_vec();
            Aarch64.apply(*r_type, *s, *a, *p, &mut field).unwrap();
            assert_eq!(hex(&field), *after, "{}", info.name);
            // What the field tells, and nothing else.
            let back = Aarch64.recover(*r_type, *a, *p, &field).unwrap();
            let (bias, told) = (bias(*r_type, *a, *p), Aarch64.recovered_bits(*r_type));
            assert_eq!(back.wrapping_add(bias), s.wrapping_add(bias) & told, "{}", info.name);
        }
    }

    #[test]
    fn values_out_of_range_and_unaligned_ones_are_refused() {
        let table: &[(u32, u64, u64)] = &[
            (258, 1 << 32, 0),
            (258, u64::MAX, 0),
            (259, 0x1_0000, 0),
            (261, KERNEL + 0x8000_0000, KERNEL),
            (262, KERNEL, KERNEL + 0x8001),
            (263, 0x1_0000, 0),
            (265, 1 << 32, 0),
            (267, 1 << 48, 0),
            (270, 0x1_0000, 0),
            (270, u64::MAX - 0x1_0000, 0),
            (273, 0x10_0000, 0),
            (273, 2, 0),
            (274, 0x10_0000, 0),
            (275, KERNEL + (1 << 32), KERNEL),
            (275, KERNEL - (1 << 32) - 1, KERNEL),
            (279, 0x8000, 0),
            (280, 0x10_0000, 0),
            (283, KERNEL + 0x800_0000, KERNEL),
            (283, KERNEL - 0x800_0004, KERNEL),
            (283, KERNEL + 2, KERNEL),
            (284, 1, 0),
            (285, 2, 0),
            (286, 4, 0),
            (299, 8, 0),
        ];
        for (r_type, s, p) in table {
            let info = describe(*r_type).unwrap();
            let before = vec![0xaa; usize::from(info.width)];
            let mut field = before.clone();
            let got = Aarch64.apply(*r_type, *s, 0, *p, &mut field);
            assert!(matches!(got, Err(ArchError::Range { .. })), "{} {s:#x}: {got:?}", info.name);
            assert_eq!(field, before, "{} stored something", info.name);
        }
    }

    #[test]
    fn limits_fit() {
        let table: &[(u32, u64, u64)] = &[
            (258, 0xffff_ffff, 0),
            (261, KERNEL - 0x8000_0000, KERNEL),
            (275, KERNEL + 0xffff_ffff, KERNEL),
            (275, KERNEL - (1 << 32), KERNEL + 0xfff),
            (283, KERNEL + 0x7ff_fffc, KERNEL),
            (283, KERNEL - 0x800_0000, KERNEL),
            (279, 0x7ffc, 0),
            (280, KERNEL - 0x10_0000, KERNEL),
        ];
        for (r_type, s, p) in table {
            let info = describe(*r_type).unwrap();
            let mut field = vec![0; usize::from(info.width)];
            Aarch64.apply(*r_type, *s, 0, *p, &mut field).unwrap();
            let told = Aarch64.recovered_bits(*r_type);
            let back = Aarch64.recover(*r_type, 0, *p, &field).unwrap();
            assert_eq!(back, s & told, "{}", info.name);
        }
    }

    #[test]
    fn unknown_types_and_wrong_widths_are_refused() {
        assert!(describe(311).is_none(), "a GOT means nothing in kernel text");
        assert!(Aarch64.apply(311, 0, 0, 0, &mut [0; 4]).is_err());
        assert!(Aarch64.recover(512, 0, 0, &[0; 4]).is_err());
        assert!(Aarch64.recover(CALL26, 0, 0, &[0; 3]).is_err());
        assert!(Aarch64.apply(ABS64, 0, 0, 0, &mut [0; 4]).is_err());
        // A signed group's word that is neither movz nor movn.
        assert!(Aarch64.recover(270, 0, 0, &0xf280_0000u32.to_le_bytes()).is_err());
    }

    #[test]
    fn target_offsets_are_addends() {
        let bytes = [0; 8];
        let reloc = |offset, r_type, addend| CodeReloc {
            offset,
            r_type,
            symbol: "x",
            key: 1,
            addend,
            inside: None,
        };
        let relocs = [reloc(0, CALL26, 0), reloc(4, ADR_PAGE, 24)];
        let code = |relocs| Code { name: "f", bytes: &bytes, relocs, entries: &[] };
        assert_eq!(Aarch64.target_offsets(&code(&relocs)).unwrap(), [0, 24]);
        let outside = [reloc(6, CALL26, 0)];
        let got = Aarch64.target_offsets(&code(&outside));
        assert!(matches!(got, Err(ArchError::Outside { .. })), "{got:?}");
        let unknown = [reloc(0, 311, 0)];
        let got = Aarch64.target_offsets(&code(&unknown));
        assert!(matches!(got, Err(ArchError::UnknownRelocation { .. })), "{got:?}");
    }
}
