// SPDX-License-Identifier: GPL-2.0-or-later
//! The jump at an old function's entry: `auipc t2, high; jalr zero, low(t2)`.
//!
//! It stands behind the ftrace site. t2 is nobody's there: arguments are in a0 to a7, ftrace's own
//! return address in t0; and a jump by way of t2 needs no landing pad at its target (Zicfilp calls
//! it software guarded).

use splice_plugin_abi::arch::{
    ArchError, BitField, Code, NoRoom, Site, Template, TrampolineEncoder,
};

use crate::insn::{self, T2};
use crate::{Riscv64, rules, special};

/// Length of the jump.
pub(crate) const JUMP_LEN: u64 = 8;
const AUIPC: u32 = 0x17 | T2 << 7;
const JALR: u32 = 0x67 | T2 << 15;
/// The range of `auipc` and a signed low part is [-2^31 - 2^11, 2^31 - 2^11): seen from 2^11
/// bytes further back it is that of a signed number of 32 bits.
const ROUND: i64 = 0x800;

impl TrampolineEncoder for Riscv64 {
    fn site(
        &self,
        pre: &Code<'_>,
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        let name = pre.name;
        let mut offset = 0;
        let at_entry = |e: &&splice_plugin_abi::arch::Entry<'_>| {
            special::FTRACE.contains(&e.section) && e.offset == 0
        };
        if pre.entries.iter().any(|e| at_entry(&e)) {
            let Some(len) = rules::ftrace_len(pre.bytes, 0) else {
                return Ok(Err(NoRoom(format!("{name}: its ftrace site is of no known form"))));
            };
            offset = len;
        }
        let end = offset + JUMP_LEN;
        let size = pre.bytes.len() as u64;
        if end > size.saturating_add(padding) {
            return Ok(Err(NoRoom(format!(
                "{name} is {size} bytes long with {padding} bytes of padding behind it, a jump \
                 at offset {offset:#x} needs {end}"
            ))));
        }
        let hit =
            live.iter().find(|(start, len)| *start < end && offset < start.saturating_add(*len));
        if let Some((start, len)) = hit {
            return Ok(Err(NoRoom(format!(
                "{name}: the kernel may rewrite {len} bytes at offset {start:#x} while it runs \
                 (a jump label or a trace site), and a jump at offset {offset:#x} would cover them"
            ))));
        }
        Ok(Ok(Site { offset, len: JUMP_LEN }))
    }

    fn template(&self) -> Template {
        let words = u64::from(AUIPC) | u64::from(JALR) << 32;
        Template {
            bytes: words.to_le_bytes().to_vec(),
            // With D the distance + 2^11: D >> 12 is the upper part rounded as it must be, and
            // the low 12 bits of D - 2^11 are the lower part.
            fields: vec![
                BitField { word: 0, size: 4, add: 0, shift: 12, bits: 20, position: 12 },
                BitField { word: 4, size: 4, add: -ROUND, shift: 0, bits: 12, position: 20 },
            ],
            bias: -ROUND,
            granule: 1,
            range_bits: 32,
        }
    }

    fn recognise(&self, bytes: &[u8], address: u64) -> Option<u64> {
        let (auipc, jalr) = (insn::at(bytes, 0)?, insn::at(bytes, 4)?);
        insn::is_far_jump(auipc, jalr, T2, 0)
            .then(|| address.wrapping_add_signed(insn::far(auipc, jalr, insn::I)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel side does with a template.
    fn encoded(site: u64, target: u64) -> Option<Vec<u8>> {
        let template = Riscv64.template();
        let distance = target.wrapping_sub(site.wrapping_add_signed(template.bias)).cast_signed();
        let limit = 1i64 << (template.range_bits - 1);
        if !(-limit..limit).contains(&distance) {
            return None;
        }
        let mut bytes = template.bytes;
        for field in template.fields {
            let at = usize::from(field.word);
            let value = (distance.wrapping_add(field.add) >> field.shift) as u64;
            let mut word = insn::word(&bytes[at..at + 4]);
            word |= (value & ((1 << field.bits) - 1)) << field.position;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes()[..4]);
        }
        Some(bytes)
    }

    #[test]
    fn the_template_encodes_to_a_jump() {
        const SITE: u64 = 0xffff_ffff_8000_1000;
        // (distance, bytes: nothing if too far)
        let table: &[(i64, &str)] = &[
            (0, "9703000067800300"),
            (0x7ff, "970300006780f37f"),
            (0x800, "9713000067800380"),
            (-0x800, "9703000067800380"),
            (-0x801, "97f3ffff6780f37f"),
            (0x1234_5678, "9753341267808367"),
            (0x7fff_f7ff, "97f3ff7f6780f37f"),
            (0x7fff_f800, ""),
            (-0x8000_0800, "9703008067800380"),
            (-0x8000_0801, ""),
        ];
        for (distance, hex) in table {
            let target = SITE.wrapping_add_signed(*distance);
            let Some(bytes) = encoded(SITE, target) else {
                assert_eq!(*hex, "", "{distance:#x}");
                continue;
            };
            let got: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(&got, hex, "{distance:#x}");
            assert_eq!(Riscv64.recognise(&bytes, SITE), Some(target));
        }
    }

    #[test]
    fn other_bytes_are_no_trampoline() {
        assert_eq!(Riscv64.recognise(&[0x13; 8], 0), None);
        assert_eq!(Riscv64.recognise(&[0x97, 3, 0, 0, 0x67, 0x80, 3], 0), None);
        // A call by way of ra.
        assert_eq!(Riscv64.recognise(&[0x97, 0, 0, 0, 0xe7, 0x80, 0, 0], 0), None);
    }
}
