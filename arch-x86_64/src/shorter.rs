// SPDX-License-Identifier: GPL-2.0-or-later
//! Shorter branches: with a section of its own for each function the assembler writes 5-byte
//! jumps to neighbouring functions, without it 2-byte ones, and everything behind moves.
//!
//! This only tells a likely cause apart from foreign code, for the message and for the engine's
//! policy: what is found here is never called a match.

use splice_core::arch::{Code, RunCode};

use crate::rules::Place;
use crate::{decode, reloc};

/// Where an instruction is in the object and in the running text.
struct Pair {
    object: u64,
    run: u64,
}

/// Whether the running text is the code, except that jumps to other functions are shorter and
/// distances within the function shrank accordingly. The places' contents are not compared.
pub(crate) fn is_relaxed(code: &Code<'_>, run: &RunCode<'_>, places: &[Place<'_>]) -> bool {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut branches: Vec<(u64, u64)> = Vec::new();
    let (mut at, mut there) = (0u64, 0u64);
    let size = code.bytes.len() as u64;
    let mut shorter = 0u32;
    while at < size {
        pairs.push(Pair { object: at, run: there });
        if let Some(place) = places.iter().find(|p| p.start == at && !p.forms.is_empty()) {
            at += place.len();
            there += place.len();
            continue;
        }
        let rest = code.bytes.get(at as usize..).unwrap_or_default();
        let found = run.bytes.get(there as usize..).unwrap_or_default();
        if rest.is_empty() || found.is_empty() {
            return false;
        }
        let (want, have) = (decode::one(rest, at), decode::one(found, there));
        let relocs = code.relocs.iter().filter(|r| (at..want.end()).contains(&r.offset));
        let relocs: Vec<_> = relocs.collect();
        match (rest, found) {
            ([0xe9, ..], [0xeb, ..]) if !relocs.is_empty() => shorter += 1,
            ([0x0f, c @ 0x80..=0x8f, ..], [d, ..]) if !relocs.is_empty() && *d == c - 0x10 => {
                shorter += 1;
            }
            _ if want.len != have.len || want.invalid != have.invalid => return false,
            _ => {
                let mut owned = vec![false; want.len as usize];
                let fields = relocs.iter().filter_map(|r| {
                    let width = reloc::describe(r.r_type)?.width;
                    Some((r.offset - at, u64::from(width)))
                });
                let distance = want.distance().filter(|_| relocs.is_empty());
                for (start, len) in fields.chain(distance.map(|(o, l)| (o - at, l))) {
                    let slot = owned.get_mut(start as usize..(start + len) as usize);
                    slot.unwrap_or_default().fill(true);
                }
                let mut bytes = rest.iter().zip(found).zip(&owned);
                if bytes.any(|((a, b), owned)| a != b && !owned) {
                    return false;
                }
                if distance.is_some() {
                    branches.push((at, there));
                }
            }
        }
        at = want.end();
        there = have.end();
    }
    pairs.push(Pair { object: at, run: there });
    let moved = |object: u64| -> Option<u64> {
        let n = pairs.binary_search_by_key(&object, |p| p.object).ok()?;
        pairs.get(n).map(|p| p.run)
    };
    let target = |bytes: &[u8], start: u64| -> Option<u64> {
        let insn = decode::one(bytes.get(start as usize..).filter(|b| !b.is_empty())?, start);
        let (offset, len) = insn.distance()?;
        let field = reloc::word(bytes.get(offset as usize..(offset + len) as usize)?);
        let unused = 64 - len as u32 * 8;
        Some(insn.end().wrapping_add((((field << unused) as i64) >> unused) as u64))
    };
    shorter > 0
        && branches.iter().all(|(object, there)| {
            let want = target(code.bytes, *object).and_then(moved);
            want.is_some() && want == target(run.bytes, *there)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    const OBJECT: [u8; 13] = [0x75, 0x05, 0xe9, 0, 0, 0, 0, 0x31, 0xc0, 0xeb, 0xf5, 0xc3, 0xcc];
    const RUN: [u8; 13] =
        [0x75, 0x02, 0xeb, 0x40, 0x31, 0xc0, 0xeb, 0xf8, 0xc3, 0xcc, 0x90, 0x90, 0x90];

    fn relaxed(run: &[u8], relocated: bool) -> bool {
        let reloc =
            CodeReloc { offset: 3, r_type: 4, symbol: "x", key: 1, addend: -4, inside: None };
        let relocs: &[CodeReloc<'_>] = if relocated { &[reloc] } else { &[] };
        let code = Code { name: "f", bytes: &OBJECT, relocs, entries: &[] };
        is_relaxed(&code, &RunCode { address: 0, bytes: run, section: None }, &[])
    }

    #[test]
    fn a_shorter_jump_and_what_follows_from_it() {
        assert!(relaxed(&RUN, true));
        assert!(!relaxed(&RUN, false), "a jump within the function does not get shorter");
        assert!(!relaxed(&OBJECT, true), "nothing is shorter");
    }

    #[test]
    fn anything_else_is_foreign() {
        for at in (0..10).filter(|at| *at != 3) {
            let mut run = RUN;
            run[at] ^= 1;
            assert!(!relaxed(&run, true), "byte {at}");
        }
        assert!(!relaxed(&RUN[..6], true));
    }
}
