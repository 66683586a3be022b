// SPDX-License-Identifier: GPL-2.0-or-later
//! Instruction boundaries and fields of a stretch of code.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Formatter, Instruction, NasmFormatter};

use crate::nops;

/// One decoded instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    /// Offset in the code.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whether the bytes are no instruction (then `len` is 1).
    pub invalid: bool,
    /// Offset in the code and size of the field that is added to the next instruction's address.
    relative: Option<(u64, u64)>,
    /// Whether that field is a branch's.
    branch: bool,
}

impl Insn {
    /// Offset of the byte after it.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// For a branch with a relative target: offset and size of its distance.
    pub(crate) fn distance(&self) -> Option<(u64, u64)> {
        self.relative.filter(|_| self.branch)
    }

    /// Offset and size of the field that is added to the next instruction's address.
    pub(crate) fn relative(&self) -> Option<(u64, u64)> {
        self.relative
    }

    /// Whether the field at `offset` is added to the address of the next instruction.
    pub(crate) fn relative_field(&self, offset: u64) -> bool {
        self.relative.is_some_and(|(at, _)| at == offset)
    }
}

/// All instructions of a stretch of code, decoded one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    insns: Vec<Insn>,
}

impl Decoded {
    /// Decodes all of `bytes`. A byte that begins no instruction stands alone, and decoding goes
    /// on behind it.
    pub(crate) fn new(bytes: &[u8]) -> Decoded {
        let mut insns = Vec::with_capacity(bytes.len() / 4);
        let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
        let mut at = 0;
        while at < bytes.len() {
            // After a byte that begins no instruction the decoder stands too far.
            if decoder.position() != at && decoder.set_position(at).is_err() {
                break;
            }
            decoder.set_ip(at as u64);
            let insn = next(&mut decoder, at as u64);
            at += insn.len as usize;
            insns.push(insn);
        }
        Decoded { insns }
    }

    /// The instructions, in order.
    pub(crate) fn all(&self) -> &[Insn] {
        &self.insns
    }

    /// The instruction that covers `offset`, if those bytes are one.
    pub(crate) fn covering(&self, offset: u64) -> Option<Insn> {
        let after = self.insns.partition_point(|i| i.start <= offset);
        let insn = *self.insns.get(after.checked_sub(1)?)?;
        (!insn.invalid && offset < insn.end()).then_some(insn)
    }
}

/// What a relative branch does, whatever its size and distance: its opcode in the short form.
pub(crate) fn branch_kind(bytes: &[u8]) -> Option<u8> {
    // SDM volume 2, appendix A: 70+cc and 0F 80+cc, EB and E9, E8.
    match bytes {
        [short @ (0x70..=0x7f | 0xeb | 0xe8 | 0xe0..=0xe3), ..] => Some(*short),
        [0xe9, ..] => Some(0xeb),
        [0x0f, near @ 0x80..=0x8f, ..] => Some(near - 0x10),
        _ => None,
    }
}

/// Decodes the first instruction of `bytes`, which is not empty.
pub(crate) fn one(bytes: &[u8], start: u64) -> Insn {
    next(&mut Decoder::with_ip(64, bytes, start, DecoderOptions::NONE), start)
}

fn next(decoder: &mut Decoder<'_>, start: u64) -> Insn {
    let mut insn = Instruction::default();
    decoder.decode_out(&mut insn);
    if insn.is_invalid() {
        return Insn { start, len: 1, invalid: true, relative: None, branch: false };
    }
    let branch = is_relative_branch(&insn);
    let relative = if insn.is_ip_rel_memory_operand() {
        let fields = decoder.get_constant_offsets(&insn);
        Some((start + fields.displacement_offset() as u64, fields.displacement_size() as u64))
    } else if branch {
        let fields = decoder.get_constant_offsets(&insn);
        fields
            .has_immediate()
            .then(|| (start + fields.immediate_offset() as u64, fields.immediate_size() as u64))
    } else {
        None
    };
    Insn { start, len: insn.len() as u64, invalid: false, relative, branch }
}

fn is_relative_branch(insn: &Instruction) -> bool {
    use iced_x86::OpKind::{NearBranch16, NearBranch32, NearBranch64};
    matches!(insn.try_op_kind(0), Ok(NearBranch16 | NearBranch32 | NearBranch64))
}

/// Whether execution may go on behind `bytes`. A call at the end is one that does not return: the
/// compiler leaves out what would follow.
pub(crate) fn runs_on(bytes: &[u8]) -> bool {
    let decoded = Decoded::new(bytes);
    let piece = |i: &Insn| bytes.get(i.start as usize..i.end() as usize).unwrap_or_default();
    let Some(last) = decoded.all().iter().rfind(|i| !nops::is_padding(piece(i))) else {
        return true;
    };
    let insn = Decoder::with_ip(64, piece(last), 0, DecoderOptions::NONE).decode();
    matches!(
        insn.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Interrupt
    )
}

/// Disassembles up to `count` instructions, one line each.
pub(crate) fn disassemble(bytes: &[u8], address: u64, count: usize) -> Vec<String> {
    let mut formatter = NasmFormatter::new();
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut lines = Vec::new();
    let mut at = 0usize;
    while lines.len() < count {
        let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) else { break };
        let ip = address.wrapping_add(at as u64);
        let mut decoder = Decoder::with_ip(64, rest, ip, DecoderOptions::NONE);
        let insn = decoder.decode();
        if insn.is_invalid() {
            let byte = rest.first().copied().unwrap_or_default();
            lines.push(format!("(bad) {byte:02x}"));
            at += 1;
            continue;
        }
        let mut text = String::new();
        formatter.format(&insn, &mut text);
        lines.push(text);
        at += insn.len();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ends_or_runs_on() {
        for ends in [&[0xc3][..], &[0xeb, 0x10], &[0x0f, 0x0b], &[0xc3, 0x90], &[0xc3, 0xcc]] {
            assert!(!runs_on(ends), "{ends:x?}");
        }
        for on in [&[0x31, 0xc0][..], &[0x74, 0x10], &[0x90], &[]] {
            assert!(runs_on(on), "{on:x?}");
        }
    }

    #[test]
    fn all_at_once_is_one_after_the_other() {
        // Every byte before a few others, so that all opcodes and many faults occur; and bytes
        // of a generator, which end within an instruction.
        let mut code: Vec<u8> = (0..=255).flat_map(|b| [b, 0x05, b, 1, 2, 3]).collect();
        let mut state = 1u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            code.push((state >> 24) as u8);
        }
        for end in (code.len() - 40)..code.len() {
            let bytes = &code[..end];
            let mut at = 0;
            for insn in Decoded::new(bytes).insns {
                assert_eq!(insn, one(&bytes[at..], at as u64));
                at += insn.len as usize;
            }
            assert_eq!(at, end);
        }
    }
}
