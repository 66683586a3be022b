// SPDX-License-Identifier: GPL-2.0-or-later
//! Disassembly for messages: what moves control and what the rules are about by name, everything
//! else as its bits.

use crate::insn::{self, B, CB, CJ, I, J, U};

const REGISTERS: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];

fn register(word: u32, position: u32) -> &'static str {
    REGISTERS.get((word >> position & 31) as usize).copied().unwrap_or_default()
}

/// Up to `count` instructions, one line each; bytes that are no instruction two by two.
pub(crate) fn lines(bytes: &[u8], address: u64, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut at = 0;
    while lines.len() < count {
        let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) else { break };
        let here = address.wrapping_add(at as u64);
        let len = insn::len(rest);
        let part = rest.get(..len.unwrap_or(2)).unwrap_or(rest);
        let word = insn::word(part);
        lines.push(match len {
            Some(4) => four(word as u32, here),
            Some(2) => two(word, here),
            Some(n) => format!(".insn {n}, {word:#x}"),
            None => format!("(bad) {word:#x}"),
        });
        at += part.len();
    }
    lines
}

fn four(word: u32, here: u64) -> String {
    let wide = u64::from(word);
    let to = |pieces| here.wrapping_add_signed(insn::get(pieces, wide));
    let (rd, rs1, rs2) = (register(word, 7), register(word, 15), register(word, 20));
    match (word & 0x7f, word >> 12 & 7) {
        _ if word == insn::NOP => "nop".into(),
        _ if word == insn::EBREAK => "ebreak".into(),
        _ if word == 0x73 => "ecall".into(),
        (0x17, _) => format!("auipc {rd}, {:#x}", (insn::get(U, wide) >> 12) & 0xf_ffff),
        (0x37, _) => format!("lui {rd}, {:#x}", (insn::get(U, wide) >> 12) & 0xf_ffff),
        (0x6f, _) => format!("jal {rd}, {:#x}", to(J)),
        (0x67, 0) => format!("jalr {rd}, {}({rs1})", insn::get(I, wide)),
        (0x63, f @ (0 | 1 | 4..=7)) => {
            let name = ["beq", "bne", "", "", "blt", "bge", "bltu", "bgeu"];
            let name = name.get(f as usize).copied().unwrap_or_default();
            format!("{name} {rs1}, {rs2}, {:#x}", to(B))
        }
        (0x13, 0) => format!("addi {rd}, {rs1}, {}", insn::get(I, wide)),
        (0x1b, 0) => format!("addiw {rd}, {rs1}, {}", insn::get(I, wide)),
        (0x03, f @ 0..=6) => {
            let name = ["lb", "lh", "lw", "ld", "lbu", "lhu", "lwu"];
            let name = name.get(f as usize).copied().unwrap_or_default();
            format!("{name} {rd}, {}({rs1})", insn::get(I, wide))
        }
        (0x23, f @ 0..=3) => {
            let name = ["sb", "sh", "sw", "sd"].get(f as usize).copied().unwrap_or_default();
            format!("{name} {rs2}, {}({rs1})", insn::get(insn::S, wide))
        }
        _ => format!(".insn 4, {word:#010x}"),
    }
}

fn two(word: u64, here: u64) -> String {
    let to = |pieces| here.wrapping_add_signed(insn::get(pieces, word));
    let narrow = word as u32;
    let small = register(8 + (narrow >> 7 & 7), 0);
    let (rd, rs2) = (register(narrow, 7), narrow >> 2 & 31);
    match (word & 3, word >> 13 & 7) {
        _ if word == u64::from(insn::C_NOP) => "c.nop".into(),
        _ if word == u64::from(insn::C_EBREAK) => "c.ebreak".into(),
        _ if word == 0 => "c.unimp".into(),
        (1, 5) => format!("c.j {:#x}", to(CJ)),
        (1, 6) => format!("c.beqz {small}, {:#x}", to(CB)),
        (1, 7) => format!("c.bnez {small}, {:#x}", to(CB)),
        (2, 4) if rs2 == 0 && word & 0x1000 == 0 => format!("c.jr {rd}"),
        (2, 4) if rs2 == 0 => format!("c.jalr {rd}"),
        (2, 4) if word & 0x1000 == 0 => format!("c.mv {rd}, {}", register(rs2, 0)),
        (2, 4) => format!("c.add {rd}, {}", register(rs2, 0)),
        _ => format!(".insn 2, {word:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named() {
        let table: &[(&[u8], &str)] = &[
            (&[0x13, 0, 0, 0], "nop"),
            (&[0x01, 0], "c.nop"),
            (&[0x82, 0x80], "c.jr ra"),
            (&[0x97, 0x10, 0, 0], "auipc ra, 0x1"),
            (&[0xe7, 0x80, 0x40, 0xff], "jalr ra, -12(ra)"),
            (&[0x6f, 0xf0, 0xdf, 0xff], "jal zero, 0xffc"),
            (&[0x63, 0xc2, 0xa7, 0x02], "blt a5, a0, 0x1024"),
            (&[0x23, 0x3c, 0x11, 0xfe], "sd ra, -8(sp)"),
            (&[0x83, 0x30, 0x81, 0xff], "ld ra, -8(sp)"),
            (&[0x02, 0x90], "c.ebreak"),
            (&[0xff, 0xff, 0xff], "(bad) 0xffff"),
            (&[0x13], "(bad) 0x13"),
        ];
        for (bytes, want) in table {
            assert_eq!(lines(bytes, 0x1000, 1), [*want], "{bytes:x?}");
        }
    }
}
