// SPDX-License-Identifier: GPL-2.0-or-later
//! Other layout: GCC aligns functions to 16 bytes only where that skips no more than 11
//! (`-falign-functions=16:12`), so that in a kernel image a function may begin 4 bytes behind a
//! multiple of 16. Loops are aligned to 8 (`-falign-loops=8`): a nop stands before a loop in one
//! of the cases, and not in the other. In an object with a section for each function, every one
//! begins at a multiple of 16. (Seen: of 61 functions of fs/open.c, 6.1, one differs from the
//! image with such sections, and none without.)
//!
//! This only tells a likely cause apart from foreign code, for the message and for the engine's
//! policy: what is found here is never called a match.

use splice_core::arch::{Code, KernelView, RunCode};

use crate::rules::Place;
use crate::{insn, reloc};

/// To what loops are aligned, in bytes.
const LOOP: u64 = 8;
/// How much longer the running text may be, in bytes.
const MOST: u64 = 64;

/// Whether the running text is the code, except that nops which align what follows them came or
/// went. The contents of places and of relocated fields are not compared.
pub(crate) fn is_realigned(
    code: &Code<'_>,
    run: &RunCode<'_>,
    places: &[Place<'_>],
    kernel: &dyn KernelView,
) -> bool {
    let size = code.bytes.len() as u64;
    let running = |at: u64| -> Option<u32> {
        let mut bytes = [0; 4];
        let read = kernel.read(run.address.wrapping_add(at), &mut bytes);
        insn::at(run.bytes, at).or(read.then(|| u32::from_le_bytes(bytes)))
    };
    // For each instruction of the object where it is in the running text.
    let mut moved: Vec<(u64, u64)> = Vec::new();
    let mut branches: Vec<(u64, u64)> = Vec::new();
    let (mut at, mut there) = (0u64, 0u64);
    let mut nops = 0u32;
    while at < size && there < size + MOST {
        moved.push((at, there));
        if let Some(place) = places.iter().find(|p| p.start == at && p.len() > 0) {
            at += place.len();
            there += place.len();
            continue;
        }
        let (Some(own), Some(have)) = (insn::at(code.bytes, at), running(there)) else {
            return false;
        };
        let aligns = |place: u64| (place + insn::LEN).is_multiple_of(LOOP);
        let same = same_kind(code, at, own, have);
        if !same && have == insn::NOP && aligns(run.address.wrapping_add(there)) {
            // What is here in the object stands behind the nop.
            moved.pop();
            there += insn::LEN;
            nops += 1;
        } else if !same && own == insn::NOP && aligns(at) {
            at += insn::LEN;
            nops += 1;
        } else if same {
            if insn::branch_distance(own).is_some() && !is_relocated(code, at) {
                branches.push((at, there));
            }
            at += insn::LEN;
            there += insn::LEN;
        } else {
            return false;
        }
    }
    let target = |word: Option<u32>, at: u64| {
        insn::branch_distance(word?).map(|distance| at.wrapping_add_signed(distance))
    };
    let leads = |(at, there): &(u64, u64)| {
        let want = target(insn::at(code.bytes, *at), *at)?;
        let index = moved.binary_search_by_key(&want, |m| m.0).ok()?;
        let have = target(running(*there), *there)?;
        // A branch to a nop that is no longer there leads to what it aligned.
        Some(moved.get(index)?.1 == have)
    };
    nops > 0 && branches.iter().all(|b| leads(b) == Some(true))
}

fn is_relocated(code: &Code<'_>, at: u64) -> bool {
    code.relocs.iter().any(|r| r.offset == at)
}

/// Whether two instructions are the same, outside relocations and distances within the function.
fn same_kind(code: &Code<'_>, at: u64, own: u32, have: u32) -> bool {
    if own == have {
        return true;
    }
    if let Some(r) = code.relocs.iter().find(|r| r.offset == at) {
        let mask = reloc::describe(r.r_type).map_or(0, |info| info.mask) as u32;
        return own & !mask == have & !mask;
    }
    let bare = insn::without_distance(own);
    bare.is_some() && bare == insn::without_distance(have)
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    struct Nothing;
    impl KernelView for Nothing {
        fn addresses(&self, _: &str) -> Vec<u64> {
            Vec::new()
        }
        fn is_function(&self, _: u64) -> bool {
            false
        }
        fn is_text(&self, _: u64) -> bool {
            false
        }
        fn read(&self, _: u64, _: &mut [u8]) -> bool {
            false
        }
    }

    const NOP: u32 = insn::NOP;
    const AT: u64 = 0xffff_8000_0801_0004;
    // mov x1, x0; bl x; b 1f; nop; 1: sub x1, x1, #1; cbnz x1, 1b; ret
    const OBJECT: [u32; 7] =
        [0xaa00_03e1, 0x9400_0000, 0x1400_0002, NOP, 0xd100_0421, 0xb5ff_ffe1, 0xd65f_03c0];
    // The same from 4 behind a multiple of 8: no nop is needed.
    const RUN: [u32; 6] =
        [0xaa00_03e1, 0x9400_1234, 0x1400_0001, 0xd100_0421, 0xb5ff_ffe1, 0xd65f_03c0];

    fn realigned(object: &[u32], run: &[u32]) -> bool {
        let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
        let (object, run) = (bytes(object), bytes(run));
        let reloc =
            CodeReloc { offset: 4, r_type: 283, symbol: "x", key: 1, addend: 0, inside: None };
        let code = Code { name: "f", bytes: &object, relocs: &[reloc], entries: &[] };
        is_realigned(&code, &RunCode { address: AT, bytes: &run, section: None }, &[], &Nothing)
    }

    #[test]
    fn a_nop_that_went_and_one_that_came() {
        assert!(realigned(&OBJECT, &RUN));
        // An object without the nop, running text with it, where it aligns.
        let with = [RUN[0], RUN[1], RUN[0], 0x1400_0002, NOP, RUN[3], RUN[4], RUN[5]];
        let without = [RUN[0], 0x9400_0000, RUN[0], 0x1400_0001, RUN[3], RUN[4], RUN[5]];
        assert!(realigned(&without, &with));
        assert!(!realigned(&without, &without), "nothing differs");
    }

    #[test]
    fn anything_else_is_foreign() {
        for n in 0..RUN.len() * 32 {
            let mut run = RUN;
            run[n / 32] ^= 1 << (n % 32);
            let relocated = n / 32 == 1 && n % 32 < 26;
            assert_eq!(realigned(&OBJECT, &run), relocated, "bit {n}");
        }
        // A nop that aligns nothing.
        assert!(!realigned(&RUN, &[RUN[0], NOP, RUN[1], RUN[2], RUN[3], RUN[4], RUN[5]]));
    }
}
