// SPDX-License-Identifier: GPL-2.0-or-later
//! Instructions as text, for messages.

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

use crate::insn;

/// Disassembles up to `count` instructions at `address`, one line each. A word that the decoder
/// does not know is shown as such.
pub(crate) fn disassemble(bytes: &[u8], address: u64, count: usize) -> Vec<String> {
    let decoder = InstDecoder::default();
    let mut lines = Vec::new();
    let mut at = 0u64;
    while lines.len() < count {
        let Some(word) = insn::at(bytes, at) else {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            if !rest.is_empty() {
                let hex: Vec<_> = rest.iter().map(|b| format!("{b:02x}")).collect();
                lines.push(format!("(bad) {}", hex.join(" ")));
            }
            break;
        };
        lines.push(one(&decoder, word, address.wrapping_add(at)));
        at += insn::LEN;
    }
    lines
}

fn one(decoder: &InstDecoder, word: u32, address: u64) -> String {
    let bytes = word.to_le_bytes();
    let Ok(decoded) = decoder.decode(&mut U8Reader::new(&bytes)) else {
        return format!("(bad) {word:08x}");
    };
    let text = decoded.to_string();
    // The formatter writes distances as `$+0x10`; with an address they are targets.
    let distance = insn::branch_distance(word).map(|d| address.wrapping_add_signed(d));
    match (text.split_once('$'), distance.or_else(|| insn::adr_target(word, address))) {
        (Some((head, _)), Some(target)) if address != 0 => format!("{head}{target:#x}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let bytes: Vec<u8> = [0xd503_201fu32, 0x9400_0002, 0xd65f_03c0, 0x0000_0000]
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .chain([1, 2])
            .collect();
        let lines = disassemble(&bytes, 0x1000, 9);
        assert_eq!(lines[..3], ["nop", "bl 0x100c", "ret"]);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[4], "(bad) 01 02");
        assert_eq!(disassemble(&bytes, 0, 1), ["nop"]);
        assert_eq!(disassemble(&[], 0, 1), Vec::<String>::new());
    }
}
