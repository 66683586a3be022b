// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions: how long they are, and where the bits of their immediates stand.
//!
//! Source: The RISC-V Instruction Set Manual, volume I, "Expanded Instruction-Length Encoding",
//! "RV32I" (immediate formats) and "C" (compressed formats).

/// `addi zero, zero, 0`, which the kernel writes.
pub(crate) const NOP: u32 = 0x0000_0013;
/// Its compressed form, which compilers write.
pub(crate) const C_NOP: u16 = 0x0001;
/// `ebreak` and its compressed form: a probe.
pub(crate) const EBREAK: u32 = 0x0010_0073;
pub(crate) const C_EBREAK: u16 = 0x9002;

/// Numbers of registers.
pub(crate) const RA: u32 = 1;
pub(crate) const T0: u32 = 5;
pub(crate) const T2: u32 = 7;

/// Length in bytes of the instruction that `bytes` begin with, if it is all there.
pub(crate) fn len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let len = match first {
        f if f & 0b11 != 0b11 => 2,
        f if f & 0b1_1100 != 0b1_1100 => 4,
        f if f & 0b11_1111 == 0b01_1111 => 6,
        f if f & 0b111_1111 == 0b011_1111 => 8,
        _ => return None,
    };
    (bytes.len() >= len).then_some(len)
}

/// Reads a little-endian word of up to eight bytes.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |w, b| (w << 8) | u64::from(*b))
}

/// The four-byte instruction at `at`.
pub(crate) fn at(bytes: &[u8], at: u64) -> Option<u32> {
    let start = usize::try_from(at).ok()?;
    let four = bytes.get(start..start.checked_add(4)?)?;
    Some(word(four) as u32)
}

/// Length of the nop that `bytes` begin with.
pub(crate) fn nop(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(&NOP.to_le_bytes()) {
        Some(4)
    } else {
        bytes.starts_with(&C_NOP.to_le_bytes()).then_some(2)
    }
}

/// Whether a processor goes on behind the last instruction that is no nop: it does not behind a jump, a call
/// (of what never returns), or a trap.
pub(crate) fn runs_on(bytes: &[u8]) -> bool {
    let (mut rest, mut last) = (bytes, &[][..]);
    while let Some((insn, behind)) = len(rest).and_then(|len| rest.split_at_checked(len)) {
        if nop(insn).is_none() {
            last = insn;
        }
        rest = behind;
    }
    let word = word(last);
    match last.len() {
        // c.j; c.jr, c.jalr and c.ebreak; all zeroes, which are no instruction on purpose.
        2 => word & 0xe003 != 0xa001 && word & 0xe07f != 0x8002 && word != 0,
        // jal, jalr, ebreak, sret, mret.
        4 => {
            !matches!(word & 0x7f, 0x6f | 0x67)
                && !matches!(word, 0x0010_0073 | 0x1020_0073 | 0x3020_0073)
        }
        _ => true,
    }
}

/// Where an immediate's bits stand: for each run of bits the lowest bit's number in the value,
/// how many, and the lowest bit's number in the word.
pub(crate) type Pieces = &'static [(u8, u8, u8)];

/// `auipc`, `lui`.
pub(crate) const U: Pieces = &[(12, 20, 12)];
/// `jalr`, loads, `addi`.
pub(crate) const I: Pieces = &[(0, 12, 20)];
/// Stores.
pub(crate) const S: Pieces = &[(5, 7, 25), (0, 5, 7)];
/// Conditional branches.
pub(crate) const B: Pieces = &[(12, 1, 31), (5, 6, 25), (1, 4, 8), (11, 1, 7)];
/// `jal`.
pub(crate) const J: Pieces = &[(20, 1, 31), (1, 10, 21), (11, 1, 20), (12, 8, 12)];
/// `c.beqz`, `c.bnez`.
pub(crate) const CB: Pieces = &[(8, 1, 12), (3, 2, 10), (6, 2, 5), (1, 2, 3), (5, 1, 2)];
/// `c.j`.
pub(crate) const CJ: Pieces =
    &[(11, 1, 12), (4, 1, 11), (8, 2, 9), (10, 1, 8), (6, 1, 7), (7, 1, 6), (1, 3, 3), (5, 1, 2)];

const fn ones(bits: u8) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// The bits of the word that the immediate owns.
pub(crate) const fn mask(pieces: Pieces) -> u64 {
    let mut mask = 0;
    let mut rest = pieces;
    while let [(_, bits, position), tail @ ..] = rest {
        mask |= ones(*bits) << *position;
        rest = tail;
    }
    mask
}

/// Puts `value`'s bits into `word`; the other bits are kept.
pub(crate) fn put(pieces: Pieces, word: u64, value: u64) -> u64 {
    pieces.iter().fold(word & !mask(pieces), |word, (low, bits, position)| {
        word | ((value >> low) & ones(*bits)) << position
    })
}

/// The immediate in `word`, sign-extended from its highest bit.
pub(crate) fn get(pieces: Pieces, word: u64) -> i64 {
    let value = pieces
        .iter()
        .fold(0, |value, (low, bits, position)| value | ((word >> position) & ones(*bits)) << low);
    let width = pieces.iter().map(|(low, bits, _)| low + bits).max().unwrap_or(64);
    let unused = 64 - u32::from(width);
    ((value << unused) as i64) >> unused
}

/// The distance of `auipc` and the instruction that adds its low part, from both words.
pub(crate) fn far(auipc: u32, low: u32, pieces: Pieces) -> i64 {
    get(U, u64::from(auipc)).wrapping_add(get(pieces, u64::from(low)))
}

/// What `auipc` holds of a distance: rounded, because the low part is signed.
pub(crate) fn high(distance: u64) -> u64 {
    distance.wrapping_add(0x800) & !0xfff
}

/// Whether `auipc` and a low part reach that far: [-2^31 - 2^11, 2^31 - 2^11).
pub(crate) fn reaches(distance: u64) -> bool {
    i32::try_from(distance.wrapping_add(0x800).cast_signed()).is_ok()
}

/// Whether the words are `auipc reg` and `jalr reg', …(reg)`: a far call or jump by way of `reg`,
/// leaving the return address in `link`.
pub(crate) fn is_far_jump(auipc: u32, jalr: u32, reg: u32, link: u32) -> bool {
    auipc & 0xfff == 0x17 | reg << 7 && jalr & 0xf_ffff == 0x67 | link << 7 | reg << 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        // (first bytes, length)
        let table: &[(&[u8], Option<usize>)] = &[
            (&[0x01, 0x00], Some(2)),
            (&[0x13, 0, 0, 0], Some(4)),
            (&[0x13, 0, 0], None),
            (&[0x1f, 0, 0, 0, 0, 0], Some(6)),
            (&[0x3f, 0, 0, 0, 0, 0, 0, 0], Some(8)),
            (&[0x7f, 0, 0, 0, 0, 0, 0, 0], None),
            (&[0xff; 8], None),
            (&[], None),
        ];
        for (bytes, want) in table {
            assert_eq!(len(bytes), *want, "{bytes:x?}");
        }
    }

    #[test]
    fn immediates_survive() {
        for (pieces, step, width) in [
            (U, 4096i64, 32),
            (I, 1, 12),
            (S, 1, 12),
            (B, 2, 13),
            (J, 2, 21),
            (CB, 2, 9),
            (CJ, 2, 12),
        ] {
            let most = 1i64 << (width - 1);
            for value in [0, step, -step, most - step, -most, 5 * step, -11 * step] {
                let word = put(pieces, 0, value as u64);
                assert_eq!(get(pieces, word), value);
                assert_eq!(word & !mask(pieces), 0);
                assert_eq!(put(pieces, u64::MAX, value as u64) & !mask(pieces), !mask(pieces));
            }
            let bits: u8 = pieces.iter().map(|p| p.1).sum();
            assert_eq!(mask(pieces).count_ones(), u32::from(bits), "pieces overlap");
        }
    }

    #[test]
    fn far_distances_are_rounded() {
        for distance in [0i64, 0x7ff, 0x800, -0x800, -0x801, 0x1234_5678, -0x1234_5678] {
            let d = distance as u64;
            let auipc = put(U, 0x17, high(d)) as u32;
            assert_eq!(far(auipc, put(I, 0x67, d) as u32, I), distance);
            assert_eq!(far(auipc, put(S, 0x23, d) as u32, S), distance);
        }
        assert!(reaches(0x7fff_f7ff) && !reaches(0x7fff_f800));
        assert!(reaches((-0x8000_0800i64) as u64) && !reaches((-0x8000_0801i64) as u64));
    }
}
