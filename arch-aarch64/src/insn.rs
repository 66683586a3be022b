// SPDX-License-Identifier: GPL-2.0-or-later
//! The few instructions that the rules must know, as words. Source: Arm Architecture Reference
//! Manual for A-profile, section "A64 instruction set encoding".

use crate::reloc::{CALL26, CONDBR19, JUMP26, PAGE, TSTBR14, signed};

/// Bytes of an instruction.
pub(crate) const LEN: u64 = 4;

/// `nop`.
pub(crate) const NOP: u32 = 0xd503_201f;
/// `mov x9, x30`: what the kernel puts before a call of the tracer.
pub(crate) const MOV_X9_X30: u32 = 0xaa1e_03e9;
/// `paciasp` and `pacibsp`: sign the return address; landing pads too, where those are enforced.
pub(crate) const PACIASP: u32 = 0xd503_233f;
pub(crate) const PACIBSP: u32 = 0xd503_237f;
/// `hvc #0` and `smc #0`: calls of the firmware.
pub(crate) const HVC: u32 = 0xd400_0002;
pub(crate) const SMC: u32 = 0xd400_0003;
/// `brk #4`: what a probe puts in an instruction's place (`BRK64_OPCODE_KPROBES`,
/// asm/debug-monitors.h).
pub(crate) const PROBE: u32 = 0xd420_0080;

/// `b` and `bl`: the word without its distance.
pub(crate) const B: u32 = 0x1400_0000;
pub(crate) const BL: u32 = 0x9400_0000;
/// The distance of `b` and `bl`.
pub(crate) const IMM26: u32 = 0x03ff_ffff;
/// The distance of `adr` and `adrp`.
const ADR_IMM: u32 = 0x60ff_ffe0;

/// `bti`, `bti c`, `bti j`, `bti jc`.
pub(crate) fn is_bti(word: u32) -> bool {
    word & !0xc0 == 0xd503_241f
}

/// The distance field of a branch with a relative target, as lowest bit and number of bits.
fn branch_field(word: u32) -> Option<(u32, u8)> {
    if word & 0x7c00_0000 == 0x1400_0000 {
        Some((0, 26)) // b, bl
    } else if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        Some((5, 19)) // b.cond, cbz, cbnz
    } else if word & 0x7e00_0000 == 0x3600_0000 {
        Some((5, 14)) // tbz, tbnz
    } else {
        None
    }
}

/// Whether execution may go on behind an instruction. A call at the end of a function is one that
/// does not return: the compiler leaves out what would follow.
pub(crate) fn runs_on(word: u32) -> bool {
    let branch = word & 0x7c00_0000 == B; // b, bl
    let register = word & 0xfe00_0000 == 0xd600_0000; // br, blr, ret, eret and their signed forms
    let trap = word & 0xffe0_001f == 0xd420_0000 || word >> 16 == 0; // brk, udf
    !branch && !register && !trap
}

/// Distance in bytes of a branch with a relative target.
pub(crate) fn branch_distance(word: u32) -> Option<i64> {
    let (position, bits) = branch_field(word)?;
    let field = u64::from(word >> position) & ((1 << bits) - 1);
    Some(signed(field << 2, bits + 2) as i64)
}

/// For a branch with a relative target, the type of relocation that it has where the target is
/// elsewhere, and its distance in bytes.
pub(crate) fn branch(word: u32) -> Option<(u32, i64)> {
    let r_type = match branch_field(word)? {
        (_, 26) if word & BL == BL => CALL26,
        (_, 26) => JUMP26,
        (_, 19) => CONDBR19,
        _ => TSTBR14,
    };
    Some((r_type, branch_distance(word)?))
}

/// The same branch with another distance; `None` if it does not fit.
pub(crate) fn with_distance(word: u32, distance: i64) -> Option<u32> {
    let (position, bits) = branch_field(word)?;
    let value = distance as u64;
    if value & 3 != 0 || signed(value, bits + 2) != value {
        return None;
    }
    let mask = ((1u32 << bits) - 1) << position;
    Some(word & !mask | (((value >> 2) as u32) << position) & mask)
}

/// The word without its distance, if it is a branch with a relative target.
pub(crate) fn without_distance(word: u32) -> Option<u32> {
    with_distance(word, 0)
}

pub(crate) fn is_adr(word: u32) -> bool {
    word & 0x9f00_0000 == 0x1000_0000
}

pub(crate) fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

/// A load whose address is a distance from itself.
pub(crate) fn is_literal_load(word: u32) -> bool {
    word & 0x3b00_0000 == 0x1800_0000
}

/// A load or store with an unsigned offset.
pub(crate) fn is_offset_access(word: u32) -> bool {
    word & 0x3b00_0000 == 0x3900_0000
}

/// Destination register of most instructions.
pub(crate) fn rd(word: u32) -> u32 {
    word & 31
}

/// First source register of most instructions.
pub(crate) fn rn(word: u32) -> u32 {
    word >> 5 & 31
}

/// The address that an `adr` or `adrp` at `place` computes.
pub(crate) fn adr_target(word: u32, place: u64) -> Option<u64> {
    let imm = u64::from(word >> 29 & 3) | u64::from((word & ADR_IMM) >> 5 & 0x7_ffff) << 2;
    if is_adr(word) {
        Some(place.wrapping_add(signed(imm, 21)))
    } else if is_adrp(word) {
        Some((place & !(PAGE - 1)).wrapping_add(signed(imm << 12, 33)))
    } else {
        None
    }
}

/// Reads an instruction.
pub(crate) fn at(bytes: &[u8], offset: u64) -> Option<u32> {
    let start = usize::try_from(offset).ok()?;
    match bytes.get(start..start.checked_add(4)?)? {
        [a, b, c, d] => Some(u32::from_le_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    fn text(word: u32) -> String {
        decode::disassemble(&word.to_le_bytes(), 0, 1).remove(0)
    }

    #[test]
    fn words_are_the_instructions_that_they_are_named_after() {
        let table: &[(u32, &str)] = &[
            (NOP, "nop"),
            (MOV_X9_X30, "mov x9, x30"),
            (PACIASP, "paciasp"),
            (PACIBSP, "pacibsp"),
            (HVC, "hvc #0x0"),
            (SMC, "smc #0x0"),
            (PROBE, "brk #0x4"),
            (B, "b $+0x0"),
            (BL, "bl $+0x0"),
        ];
        for (word, name) in table {
            assert_eq!(text(*word), *name, "{word:#x}");
        }
        // bti, bti c, bti j, bti jc
        for word in [0xd503_241f, 0xd503_245f, 0xd503_249f, 0xd503_24df] {
            assert!(is_bti(word), "{word:#x}");
        }
        assert!(!is_bti(NOP) && !is_bti(PACIASP));
    }

    #[test]
    fn distances() {
        // (word, distance, the same with a distance of 8)
        let table: &[(u32, i64, u32)] = &[
            (0x1400_0001, 4, 0x1400_0002),
            (0x97ff_ffff, -4, 0x9400_0002),
            (0x54ff_ffe1, -4, 0x5400_0041),
            (0xb400_0040, 8, 0xb400_0040),
            (0x3700_0023, 4, 0x3700_0043),
            (0xb77f_ffe3, -4, 0xb778_0043),
        ];
        for (word, distance, other) in table {
            assert_eq!(branch_distance(*word), Some(*distance), "{word:#x}");
            assert_eq!(with_distance(*word, 8), Some(*other), "{word:#x}");
        }
        for word in [NOP, 0xd65f_03c0, 0xd61f_0200, 0x9000_0000, 0x5800_0040] {
            assert_eq!(branch_distance(word), None, "{}", text(word));
        }
        assert_eq!(with_distance(B, 2), None);
        assert_eq!(with_distance(B, 0x800_0000), None);
        assert!(with_distance(B, -0x800_0000).is_some());
    }

    #[test]
    fn addresses() {
        assert_eq!(adr_target(0x7000_0082, 0x1000), Some(0x1013));
        assert_eq!(adr_target(0xb000_0020, 0x8ffc), Some(0x8000 + 0x5000));
        assert_eq!(adr_target(0xf0ff_ffe0, 0x8ffc), Some(0x7000));
        assert_eq!(adr_target(NOP, 0), None);
    }
}
