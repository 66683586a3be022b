// SPDX-License-Identifier: GPL-2.0-or-later
//! The jump at an old function's entry: `adrp x16`, `add x16`, `br x16`.
//!
//! It stands behind the landing pad (`bti c`) and behind the two instructions of the ftrace site,
//! before the return address is signed: the new function signs it itself. A single branch would reach
//! 128 MiB, but a kernel with `CONFIG_RANDOMIZE_MODULE_REGION_FULL`, as distributions build it, has its
//! modules up to 2 GiB away (arch/arm64/kernel/kaslr.c, 6.1); this reaches 4 GiB. A call leaves x16 and
//! x17 to whatever is between it and the function (AAPCS64, 6.1.1), and a branch through one of them
//! arrives at a landing pad for calls (`bti c`).

use splice_core::arch::{ArchError, BitField, Code, NoRoom, Site, Template, TrampolineEncoder};

use crate::{Aarch64, insn, special};

/// Length of the jump.
pub(crate) const JUMP_LEN: u64 = 3 * insn::LEN;
/// Its instructions, with distances of zero.
const ADRP_X16: u32 = 0x9000_0010;
const ADD_X16: u32 = 0x9100_0210;
const BR_X16: u32 = 0xd61f_0200;
/// What the first one counts in, whatever the size of the kernel's pages.
const PAGE: u32 = 4096;
/// Instructions of an ftrace site.
pub(crate) const PATCHABLE_WORDS: u64 = 2;

/// Offset of the first instruction that is no landing pad.
fn behind_pad(code: &Code<'_>) -> u64 {
    match insn::at(code.bytes, 0) {
        Some(word) if insn::is_bti(word) => insn::LEN,
        _ => 0,
    }
}

/// Offset of the two instructions that the compiler left for tracing, if it did: where an entry
/// says so, or two nops behind the landing pad. (With the tracer's data before each function, as in 6.12,
/// the entry is about that data: it is not handed over with the function, but with the one before if
/// both share a section. No other code begins with two nops.)
pub(crate) fn patchable(code: &Code<'_>) -> Option<u64> {
    let start = behind_pad(code);
    let listed = code.entries.iter().any(|e| e.section == special::PATCHABLE && e.offset == start);
    let nops = (0..PATCHABLE_WORDS).all(|n| insn::at(code.bytes, start + n * 4) == Some(insn::NOP));
    (listed || nops).then_some(start)
}

/// Whether the code begins with an instruction that signs the return address: a landing pad
/// without being called so, where landing pads are enforced.
pub(crate) fn begins_with_signing(code: &Code<'_>) -> bool {
    matches!(insn::at(code.bytes, 0), Some(insn::PACIASP | insn::PACIBSP))
}

impl TrampolineEncoder for Aarch64 {
    fn site(
        &self,
        pre: &Code<'_>,
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        let name = pre.name;
        let offset = match patchable(pre) {
            Some(start) => start + PATCHABLE_WORDS * insn::LEN,
            None => behind_pad(pre),
        };
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
            if *start == 0 && begins_with_signing(pre) {
                return Ok(Err(NoRoom(format!(
                    "{name} begins with the signing of its return address, which is its landing \
                     pad too: nothing tells whether this kernel enforces landing pads"
                ))));
            }
            return Ok(Err(NoRoom(format!(
                "{name}: the kernel may rewrite {len} bytes at offset {start:#x} while it runs \
                 (a jump label or a trace site), and a jump at offset {offset:#x} would cover them"
            ))));
        }
        Ok(Ok(Site { offset, len: JUMP_LEN }))
    }

    fn template(&self) -> Template {
        Template {
            bytes: [ADRP_X16, ADD_X16, BR_X16].iter().flat_map(|word| word.to_le_bytes()).collect(),
            fields: vec![
                BitField { word: 0, size: 4, add: 0, shift: 12, bits: 2, position: 29 },
                BitField { word: 0, size: 4, add: 0, shift: 14, bits: 19, position: 5 },
                BitField { word: 4, size: 4, add: 0, shift: 0, bits: 12, position: 10 },
            ],
            bias: 0,
            granule: PAGE,
            range_bits: 33,
        }
    }

    fn recognise(&self, bytes: &[u8], address: u64) -> Option<u64> {
        const PAGES: u32 = 3 << 29 | 0x7_ffff << 5;
        const LOW: u32 = 0xfff << 10;
        let word = |number: u64| insn::at(bytes, number * insn::LEN);
        let (adrp, add, br) = (word(0)?, word(1)?, word(2)?);
        if adrp & !PAGES != ADRP_X16 || add & !LOW != ADD_X16 || br != BR_X16 {
            return None;
        }
        let pages = (adrp >> 29 & 3) | (adrp >> 5 & 0x7_ffff) << 2;
        // A signed number of 21 bits.
        let pages = i64::from((pages << 11).cast_signed() >> 11);
        let page = address & !u64::from(PAGE - 1);
        Some(page.wrapping_add_signed(pages * i64::from(PAGE)) + u64::from(add >> 10 & 0xfff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::{NOP, PACIASP};
    use splice_core::arch::{Entry, check};

    const BTI_C: u32 = 0xd503_245f;
    const RET: u32 = 0xd65f_03c0;

    fn site(words: &[u32], listed: &[u64], live: &[(u64, u64)]) -> Result<Site, NoRoom> {
        padded(words, listed, live, 0)
    }

    fn padded(
        words: &[u32],
        listed: &[u64],
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Site, NoRoom> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let entries: Vec<_> = listed
            .iter()
            .map(|offset| Entry {
                section: special::PATCHABLE,
                offset: *offset,
                data: &[0; 8],
                relocs: &[],
                replacement: None,
                target: None,
            })
            .collect();
        let code = Code { name: "f", bytes: &bytes, relocs: &[], entries: &entries };
        let got = Aarch64.site(&code, live, padding).unwrap();
        if let Ok(site) = &got {
            assert_eq!(check::site(&Aarch64, &code, padding, live, site), Ok(()));
        }
        got
    }

    #[test]
    fn the_jump_stands_behind_landing_pad_and_ftrace_site() {
        // (code, entries, live ranges, offset)
        type Row<'a> = (&'a [u32], &'a [u64], &'a [(u64, u64)], u64);
        let table: &[Row<'_>] = &[
            (&[RET], &[], &[], 0),
            (&[PACIASP, RET], &[], &[], 0),
            (&[BTI_C, RET], &[], &[], 4),
            (&[NOP, NOP, PACIASP, RET], &[0], &[(0, 8)], 8),
            (&[NOP, NOP, PACIASP, RET], &[], &[(0, 8)], 8),
            (&[BTI_C, NOP, NOP, PACIASP, RET], &[4], &[(4, 8)], 12),
            (&[BTI_C, NOP, NOP, RET], &[], &[], 12),
            (&[NOP, PACIASP, RET], &[], &[], 0),
        ];
        for (words, listed, live, offset) in table {
            let words = [*words, &[RET, RET]].concat();
            let got = site(&words, listed, live).unwrap();
            assert_eq!(got, Site { offset: *offset, len: 12 }, "{words:x?}");
        }
    }

    #[test]
    fn padding_may_be_borrowed_but_no_more() {
        assert_eq!(padded(&[NOP, NOP], &[0], &[], 12).unwrap().offset, 8);
        let NoRoom(why) = padded(&[NOP, NOP], &[0], &[], 8).unwrap_err();
        assert!(why.contains("8 bytes") && why.contains("needs 20"), "{why}");
    }

    #[test]
    fn places_that_the_kernel_rewrites_are_kept_off() {
        for live in [(0, 4), (0, 8), (2, 4)] {
            let NoRoom(why) = site(&[RET, RET, RET], &[], &[live]).unwrap_err();
            assert!(why.contains(&format!("{:#x}", live.0)), "{why}");
        }
        assert!(site(&[RET; 4], &[], &[(12, 4)]).is_ok());
        let NoRoom(why) = site(&[PACIASP, RET, RET], &[], &[(0, 4)]).unwrap_err();
        assert!(why.contains("landing pad"), "{why}");
    }

    /// What the kernel side computes (see `splice_core::arch::trampoline`).
    fn encode(template: &Template, site: u64, target: u64) -> Vec<u8> {
        let mut bytes = template.bytes.clone();
        for f in &template.fields {
            let origin = site.wrapping_add_signed(template.bias) & !u64::from(template.granule - 1);
            let distance = target.wrapping_sub(origin);
            let value = (distance.wrapping_add_signed(f.add) as i64) >> f.shift;
            let at = usize::from(f.word);
            let word = insn::at(&bytes, at as u64).unwrap();
            let bits = (value as u32 & ((1 << f.bits) - 1)) << f.position;
            bytes[at..at + 4].copy_from_slice(&(word | bits).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_template_encodes_to_a_jump() {
        const AT: u64 = 0xffff_8000_0801_0008;
        let template = Aarch64.template();
        assert_eq!(check::template(&Aarch64, &template), Ok(()));
        // (target, bytes), of the same three instructions through GNU as and ld 2.40
        let table: &[(u64, &str)] = &[
            (AT, "100000901022009100021fd6"),
            (AT + 0x1000, "100000b01022009100021fd6"),
            (AT - 4, "100000901012009100021fd6"),
            (0xffff_8000_8801_07fc, "1000409010f21f9100021fd6"),
            (0xffff_7fff_8801_0ffc, "1000c09010f23f9100021fd6"),
            (0xffff_8000_0801_0fff, "1000009010fe3f9100021fd6"),
        ];
        for (target, hex) in table {
            let bytes = encode(&template, AT, *target);
            let got: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(&got, hex);
            assert_eq!(Aarch64.recognise(&bytes, AT), Some(*target));
            let text = crate::decode::disassemble(&bytes, AT, 3);
            assert_eq!(text.len(), 3);
            assert_eq!(text[0], format!("adrp x16, {:#x}", target & !0xfff));
            assert_eq!(text[2], "br x16");
        }
        // The range that the template names is the first instruction's.
        assert_eq!(template.range_bits, 21 + 12);
    }

    #[test]
    fn other_bytes_are_no_trampoline() {
        assert_eq!(Aarch64.recognise(&insn::BL.to_le_bytes(), 0), None);
        assert_eq!(Aarch64.recognise(&[0, 0, 0], 0), None);
        assert_eq!(Aarch64.recognise(&NOP.to_le_bytes(), 0), None);
        let jump = Aarch64.template().bytes;
        assert!(Aarch64.recognise(&jump, 0).is_some());
        assert_eq!(Aarch64.recognise(&jump[..8], 0), None);
        for place in [0, 4, 8] {
            let mut other = jump.clone();
            other[place..place + 4].copy_from_slice(&NOP.to_le_bytes());
            assert_eq!(Aarch64.recognise(&other, 0), None);
        }
    }
}
