// SPDX-License-Identifier: GPL-2.0-or-later
//! Constants that calls are given as arguments, where they are all that differs.
//!
//! Source for the order of arguments: System V ABI, AMD64 supplement, section "Parameter Passing".

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register,
};
use splice_core::arch::{ArchError, Argument, Code};

use crate::diff::masked;

/// The registers of integer arguments, in order.
const ORDER: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// See [`splice_core::arch::FunctionDiff::arguments`].
pub(crate) fn arguments(
    pre: &Code<'_>,
    post: &Code<'_>,
) -> Result<Option<Vec<Argument>>, ArchError> {
    let places = |code: &Code<'_>| -> Vec<(u64, u32)> {
        code.relocs.iter().map(|r| (r.offset, r.r_type)).collect()
    };
    if pre.bytes.len() != post.bytes.len() || places(pre) != places(post) {
        return Ok(None);
    }
    let (a, b) = (masked(pre)?, masked(post)?);
    let (before, after) = (decode(&a), decode(&b));
    if before.len() != after.len() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for (index, (x, y)) in before.iter().zip(&after).enumerate() {
        let range = x.ip() as usize..x.next_ip() as usize;
        if (x.ip(), x.len()) != (y.ip(), y.len()) {
            return Ok(None);
        }
        if a.get(range.clone()) == b.get(range) {
            continue;
        }
        let argument = constant(pre, &before, index, x, y);
        let Some(argument) = argument else { return Ok(None) };
        found.push(argument);
    }
    Ok((!found.is_empty()).then_some(found))
}

fn decode(bytes: &[u8]) -> Vec<Instruction> {
    Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).into_iter().collect()
}

/// Two instructions that load different constants into the register of an argument, and that
/// serve for nothing else.
fn constant(
    code: &Code<'_>,
    all: &[Instruction],
    index: usize,
    x: &Instruction,
    y: &Instruction,
) -> Option<Argument> {
    let register = x.op0_register();
    let loads = x.code() == iced_x86::Code::Mov_r32_imm32
        && y.code() == x.code()
        && x.op_count() == 2
        && x.op1_kind() == OpKind::Immediate32
        && y.op0_register() == register
        && relocation(code, x).is_none();
    if !loads {
        return None;
    }
    let number = ORDER.iter().position(|r| *r == register.full_register())?;
    let call = call_behind(all, index, register.full_register())?;
    let previous = number.checked_sub(1).and_then(|n| ORDER.get(n));
    Some(Argument {
        offset: x.ip(),
        pre: u64::from(x.immediate32()),
        post: u64::from(y.immediate32()),
        previous: previous.and_then(|register| address(code, all, call, *register)),
    })
}

/// The next call, if up to there nothing uses or changes `register` and execution goes straight
/// on.
fn call_behind(all: &[Instruction], index: usize, register: Register) -> Option<usize> {
    let mut info = InstructionInfoFactory::new();
    for (at, insn) in all.iter().enumerate().skip(index + 1) {
        match insn.flow_control() {
            // A call through the register would use it.
            FlowControl::Call => return Some(at),
            FlowControl::Next => {}
            _ => return None,
        }
        let used = info.info(insn);
        if used.used_registers().iter().any(|r| r.register().full_register() == register)
            || used
                .used_memory()
                .iter()
                .any(|m| [m.base(), m.index()].iter().any(|r| r.full_register() == register))
        {
            return None;
        }
    }
    None
}

/// The relocation by which `register` gets an address that it still has at the call.
fn address(code: &Code<'_>, all: &[Instruction], call: usize, register: Register) -> Option<u64> {
    let mut info = InstructionInfoFactory::new();
    for insn in all.get(..call)?.iter().rev() {
        if insn.flow_control() != FlowControl::Next {
            return None;
        }
        let used = info.info(insn);
        let writes = used.used_registers().iter().any(|r| {
            let only_read = matches!(r.access(), OpAccess::Read | OpAccess::CondRead);
            r.register().full_register() == register && !only_read
        });
        if writes {
            use iced_x86::Mnemonic::{Lea, Mov};
            let plain = insn.mnemonic() == Lea
                || (insn.mnemonic() == Mov && insn.op1_kind() != OpKind::Memory);
            return relocation(code, insn).filter(|_| plain);
        }
    }
    None
}

/// The field's offset of a relocation in an instruction.
fn relocation(code: &Code<'_>, insn: &Instruction) -> Option<u64> {
    let from = code.relocs.partition_point(|r| r.offset < insn.ip());
    code.relocs.get(from).map(|r| r.offset).filter(|offset| *offset < insn.next_ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    /// `mov $x, %rdi; mov $line, %esi` and what follows.
    fn ask(line: u8, rest: &[u8], other: &[u8]) -> Option<Vec<Argument>> {
        let relocs =
            [CodeReloc { offset: 3, r_type: 11, symbol: "x", key: 1, addend: 0, inside: None }];
        let code = |line: u8, rest: &[u8]| {
            [&[0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0xbe, line, 0, 0, 0][..], rest].concat()
        };
        let (a, b) = (code(100, rest), code(line, other));
        let a = Code { name: "f", bytes: &a, relocs: &relocs, entries: &[] };
        let b = Code { name: "f", bytes: &b, relocs: &relocs, entries: &[] };
        let found = arguments(&a, &b).unwrap();
        if let Some(found) = &found {
            splice_core::arch::check::arguments(&crate::X86_64, &a, &b, found).unwrap();
        }
        found
    }

    const CALL: &[u8] = &[0xe8, 0, 0, 0, 0, 0xc3];

    #[test]
    fn an_argument_is_found_with_the_one_before_it() {
        let argument = Argument { offset: 7, pre: 100, post: 102, previous: Some(3) };
        assert_eq!(ask(102, CALL, CALL), Some(vec![argument]));
        // xor %edx, %edx; call
        let far = [&[0x31, 0xd2][..], CALL].concat();
        assert_eq!(ask(102, &far, &far), Some(vec![argument]));
        // xor %edi, %edi; call: what was in the other register is gone.
        let gone = [&[0x31, 0xff][..], CALL].concat();
        let alone = Argument { previous: None, ..argument };
        assert_eq!(ask(102, &gone, &gone), Some(vec![alone]));
    }

    #[test]
    fn what_serves_for_anything_else_is_none() {
        for used in [
            &[0x89, 0xf0][..],   // mov %esi, %eax
            &[0x83, 0xc6, 0x01], // add $1, %esi
            &[0x31, 0xf6],       // xor %esi, %esi
            &[0x48, 0x8b, 0x06], // mov (%rsi), %rax
            &[0x74, 0x00],       // je
            &[0xc3],             // ret
            &[0xff, 0xe0],       // jmp *%rax
        ] {
            let rest = [used, CALL].concat();
            assert_eq!(ask(102, &rest, &rest), None, "{used:x?}");
        }
        assert_eq!(ask(102, &[0xc3], &[0xc3]), None);
        // Another register, another instruction, another length.
        assert_eq!(ask(102, CALL, &[0xe8, 0, 0, 0, 0, 0xcb]), None);
        assert_eq!(ask(102, CALL, &CALL[..5]), None);
        assert_eq!(ask(100, CALL, CALL), None);
    }
}
