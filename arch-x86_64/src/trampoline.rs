// SPDX-License-Identifier: GPL-2.0-or-later
//! The jump at an old function's entry: `e9 rel32`.
//!
//! It stands behind the landing pad (ENDBR64) and behind the ftrace site, so that both keep
//! working. A branch of the old function that leads into the middle of the jump does no harm:
//! when the jump is written no thread is in the old function, and none enters it afterwards.

use splice_core::arch::{ArchError, BitField, Code, NoRoom, Site, Template, TrampolineEncoder};

use crate::{X86_64, nops, special};

/// Length of the jump.
pub(crate) const JUMP_LEN: u64 = 5;
/// Length of a call or a nop at an ftrace site.
const FTRACE_LEN: u64 = 5;
pub(crate) const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What a sealed landing pad is overwritten with: until 6.5, and since.
pub(crate) const SEALED: [[u8; 4]; 2] = [[0x66, 0x0f, 0x1f, 0x00], [0x0f, 0x1f, 0x40, 0xd6]];

/// Offset behind the landing pad and the ftrace site.
fn first_choice(pre: &Code<'_>) -> u64 {
    let mut at = 0u64;
    let pads = [&ENDBR64[..], &SEALED[0][..], &SEALED[1][..]];
    if pads.iter().any(|p| pre.bytes.starts_with(p)) {
        at = 4;
    }
    let listed = pre.entries.iter().any(|e| e.section == special::FTRACE && e.offset == at);
    let called = pre.relocs.iter().any(|r| r.symbol == "__fentry__" && r.offset == at + 1);
    if listed || called {
        at += FTRACE_LEN;
    }
    at
}

impl TrampolineEncoder for X86_64 {
    fn site(
        &self,
        pre: &Code<'_>,
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        let name = pre.name;
        let offset = first_choice(pre);
        let end = offset + JUMP_LEN;
        let size = pre.bytes.len() as u64;
        if end > size.saturating_add(padding) {
            return Ok(Err(NoRoom(format!(
                "{name} is {size} bytes long with {padding} bytes of padding behind it, a jump \
                 at offset {offset:#x} needs {end}"
            ))));
        }
        // An ftrace site elsewhere than at the entry is in `live` too, and refused here.
        let hit =
            live.iter().find(|(start, len)| *start < end && offset < start.saturating_add(*len));
        if let Some((start, len)) = hit {
            return Ok(Err(NoRoom(format!(
                "{name}: the kernel may rewrite {len} bytes at offset {start:#x} while it runs \
                 (a jump label, a static call or a trace site), and a jump at offset \
                 {offset:#x} would cover them"
            ))));
        }
        Ok(Ok(Site { offset, len: JUMP_LEN }))
    }

    fn template(&self) -> Template {
        Template {
            bytes: vec![0xe9, 0, 0, 0, 0],
            fields: vec![BitField { word: 1, size: 4, add: 0, shift: 0, bits: 32, position: 0 }],
            bias: JUMP_LEN as i64,
            granule: 1,
            range_bits: 32,
        }
    }

    fn recognise(&self, bytes: &[u8], address: u64) -> Option<u64> {
        let [0xe9, a, b, c, d, ..] = bytes else { return None };
        let distance = i32::from_le_bytes([*a, *b, *c, *d]);
        Some(address.wrapping_add(JUMP_LEN).wrapping_add_signed(i64::from(distance)))
    }
}

/// Whether `bytes` are a call of the tracer or the nop in its place.
pub(crate) fn is_ftrace_form(bytes: &[u8]) -> bool {
    (bytes.first() == Some(&0xe8) && bytes.len() == 5) || bytes == nops::NOP5
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    const FENTRY: CodeReloc<'static> =
        CodeReloc { offset: 1, r_type: 4, symbol: "__fentry__", key: 1, addend: -4, inside: None };

    fn site(
        bytes: &[u8],
        relocs: &[CodeReloc<'_>],
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Site, NoRoom> {
        let code = Code { name: "f", bytes, relocs, entries: &[] };
        X86_64.site(&code, live, padding).unwrap()
    }

    #[test]
    fn the_jump_stands_behind_landing_pad_and_ftrace_site() {
        let mut plain = vec![0xe8, 0, 0, 0, 0];
        plain.extend([0x90; 8]);
        assert_eq!(site(&plain, &[], &[], 0).unwrap().offset, 0);
        assert_eq!(site(&plain, &[FENTRY], &[(0, 5)], 0).unwrap(), Site { offset: 5, len: 5 });
        let mut padded = ENDBR64.to_vec();
        padded.extend(&plain);
        assert_eq!(site(&padded, &[], &[], 0).unwrap().offset, 4);
        let behind = CodeReloc { offset: 5, ..FENTRY };
        assert_eq!(site(&padded, &[behind], &[(4, 5)], 1).unwrap().offset, 9);
    }

    #[test]
    fn padding_may_be_borrowed_but_no_more() {
        let bytes = [0x31, 0xc0, 0xc3];
        assert!(site(&bytes, &[], &[], 2).is_ok());
        let NoRoom(why) = site(&bytes, &[], &[], 1).unwrap_err();
        assert!(why.contains("3 bytes") && why.contains("1 bytes") && why.contains("needs 5"));
    }

    #[test]
    fn places_that_the_kernel_rewrites_are_kept_off() {
        let bytes = [0x90; 16];
        for (start, len) in [(0, 5), (4, 5), (4, 1), (0, 1)] {
            let NoRoom(why) = site(&bytes, &[], &[(start, len)], 0).unwrap_err();
            assert!(why.contains(&format!("{start:#x}")), "{why}");
        }
        assert!(site(&bytes, &[], &[(5, 5)], 0).is_ok());
    }

    #[test]
    fn the_template_encodes_to_a_jump() {
        // (site, target, bytes)
        let table: &[(u64, u64, &str)] = &[
            (0x1000, 0x1005, "e900000000"),
            (0x1000, 0x2000, "e9fb0f0000"),
            (0x2000, 0x1000, "e9fbefffff"),
        ];
        let template = X86_64.template();
        assert_eq!(template.fields.len(), 1);
        let field = template.fields[0];
        for (site, target, hex) in table {
            let distance = target.wrapping_sub(site.wrapping_add_signed(template.bias));
            let mut bytes = template.bytes.clone();
            let at = usize::from(field.word);
            bytes[at..at + 4].copy_from_slice(&(distance as u32).to_le_bytes());
            let got: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(&got, hex);
            assert_eq!(X86_64.recognise(&bytes, *site), Some(*target));
            let text = crate::decode::disassemble(&bytes, *site, 1);
            assert_eq!(text, [format!("jmp {target:X}h")]);
        }
    }

    #[test]
    fn other_bytes_are_no_trampoline() {
        assert_eq!(X86_64.recognise(&[0xe8, 0, 0, 0, 0], 0), None);
        assert_eq!(X86_64.recognise(&[0xe9, 0, 0, 0], 0), None);
        assert_eq!(X86_64.recognise(&[], 0), None);
    }
}
