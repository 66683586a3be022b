// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine's types as V1 types and back, for both sides.
//!
//! A [`Code`] is a tree (its entries have replacements, which are code). Both directions build it
//! level by level, the deepest first, so that each level borrows from the one below.

use abi_stable::std_types::{RSlice, RStr};
use splice_core::arch::{ArchError, Code, CodeReloc, Entry};

use crate::v1::{
    CodeRelocV1, CodeV1, EntryV1, FAILURE_ENTRY, FAILURE_OTHER, FAILURE_OUTSIDE, FAILURE_RANGE,
    FAILURE_UNDECODABLE, FAILURE_UNKNOWN_RELOCATION, FailureV1,
};

/// Items of several owners in one vector, handed out again owner by owner.
struct Shares<'a, T> {
    rest: &'a [T],
}

impl<'a, T> Shares<'a, T> {
    fn next(&mut self, count: usize) -> &'a [T] {
        let (share, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        share
    }
}

/// Hands `codes` to `f` as V1 types.
pub fn lower<R>(codes: &[&Code<'_>], f: impl FnOnce(&[CodeV1<'_>]) -> R) -> Option<R> {
    let mut f = Some(f);
    let mut result = None;
    lower_level(codes, &mut |lowered| result = f.take().map(|f| f(lowered)));
    result
}

fn lower_level(codes: &[&Code<'_>], f: &mut dyn FnMut(&[CodeV1<'_>])) {
    let below: Vec<&Code<'_>> =
        codes.iter().flat_map(|c| c.entries).filter_map(|e| e.replacement).collect();
    if below.is_empty() {
        return lower_with(codes, &[], f);
    }
    lower_level(&below, &mut |replacements| lower_with(codes, replacements, f));
}

fn lower_with(codes: &[&Code<'_>], below: &[CodeV1<'_>], f: &mut dyn FnMut(&[CodeV1<'_>])) {
    let (relocs, entries) = sizes(codes.iter().map(|c| {
        let of_entries = c.entries.iter().map(|e| e.relocs.len()).sum::<usize>();
        (c.relocs.len() + of_entries, c.entries.len())
    }));
    let mut relocs = Vec::with_capacity(relocs);
    for code in codes {
        lower_relocs(&mut relocs, code.relocs);
        for entry in code.entries {
            lower_relocs(&mut relocs, entry.relocs);
        }
    }
    let (mut relocs, mut below) = (Shares { rest: &relocs }, below.iter());
    let mut own = Vec::with_capacity(codes.len());
    let mut entries = Vec::with_capacity(entries);
    for code in codes {
        own.push(relocs.next(code.relocs.len()));
        for e in code.entries {
            entries.push(EntryV1 {
                section: RStr::from_str(e.section),
                offset: e.offset,
                data: RSlice::from_slice(e.data),
                relocs: RSlice::from_slice(relocs.next(e.relocs.len())),
                replacement: e.replacement.and_then(|_| below.next()),
                target: e.target.into(),
            });
        }
    }
    let mut entries = Shares { rest: &entries };
    let mut lowered = Vec::with_capacity(codes.len());
    for (code, relocs) in codes.iter().zip(own) {
        lowered.push(CodeV1 {
            name: RStr::from_str(code.name),
            bytes: RSlice::from_slice(code.bytes),
            relocs: RSlice::from_slice(relocs),
            entries: RSlice::from_slice(entries.next(code.entries.len())),
        });
    }
    f(&lowered);
}

/// Sums of relocations and entries.
fn sizes(counts: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    counts.fold((0, 0), |(relocs, entries), (r, e)| (relocs + r, entries + e))
}

fn lower_relocs<'a>(into: &mut Vec<CodeRelocV1<'a>>, relocs: &[CodeReloc<'a>]) {
    for r in relocs {
        into.push(CodeRelocV1 {
            offset: r.offset,
            addend: r.addend,
            symbol: RStr::from_str(r.symbol),
            inside: r.inside.into(),
            r_type: r.r_type,
            key: r.key,
        });
    }
}

/// Hands `codes` to `f` as the engine's types.
pub fn raise<R>(codes: &[&CodeV1<'_>], f: impl FnOnce(&[Code<'_>]) -> R) -> Option<R> {
    let mut f = Some(f);
    let mut result = None;
    raise_level(codes, &mut |raised| result = f.take().map(|f| f(raised)));
    result
}

fn raise_level(codes: &[&CodeV1<'_>], f: &mut dyn FnMut(&[Code<'_>])) {
    let below: Vec<&CodeV1<'_>> =
        codes.iter().flat_map(|c| c.entries.as_slice()).filter_map(|e| e.replacement).collect();
    if below.is_empty() {
        return raise_with(codes, &[], f);
    }
    raise_level(&below, &mut |replacements| raise_with(codes, replacements, f));
}

fn raise_with(codes: &[&CodeV1<'_>], below: &[Code<'_>], f: &mut dyn FnMut(&[Code<'_>])) {
    let (relocs, entries) = sizes(codes.iter().map(|c| {
        let of_entries = c.entries.as_slice().iter().map(|e| e.relocs.len()).sum::<usize>();
        (c.relocs.len() + of_entries, c.entries.len())
    }));
    let mut relocs = Vec::with_capacity(relocs);
    for code in codes {
        raise_relocs(&mut relocs, code.relocs.as_slice());
        for entry in code.entries.as_slice() {
            raise_relocs(&mut relocs, entry.relocs.as_slice());
        }
    }
    let (mut relocs, mut below) = (Shares { rest: &relocs }, below.iter());
    let mut own = Vec::with_capacity(codes.len());
    let mut entries = Vec::with_capacity(entries);
    for code in codes {
        own.push(relocs.next(code.relocs.len()));
        for e in code.entries.as_slice() {
            entries.push(Entry {
                section: e.section.as_str(),
                offset: e.offset,
                data: e.data.as_slice(),
                relocs: relocs.next(e.relocs.len()),
                replacement: e.replacement.and_then(|_| below.next()),
                target: e.target.into(),
            });
        }
    }
    let mut entries = Shares { rest: &entries };
    let mut raised = Vec::with_capacity(codes.len());
    for (code, relocs) in codes.iter().zip(own) {
        raised.push(Code {
            name: code.name.as_str(),
            bytes: code.bytes.as_slice(),
            relocs,
            entries: entries.next(code.entries.len()),
        });
    }
    f(&raised);
}

fn raise_relocs<'a>(into: &mut Vec<CodeReloc<'a>>, relocs: &[CodeRelocV1<'a>]) {
    for r in relocs {
        into.push(CodeReloc {
            offset: r.offset,
            r_type: r.r_type,
            symbol: r.symbol.as_str(),
            inside: r.inside.into(),
            key: r.key,
            addend: r.addend,
        });
    }
}

/// A failure of that kind, with nothing else said.
pub fn failure(kind: u32, text: impl Into<String>) -> FailureV1 {
    FailureV1 {
        kind,
        r_type: 0,
        offset: 0,
        value: 0,
        name: Default::default(),
        section: Default::default(),
        text: text.into().into(),
    }
}

/// A backend's error as it crosses the border.
pub fn lower_error(error: &ArchError) -> FailureV1 {
    let base = failure(FAILURE_OTHER, "");
    match error {
        ArchError::Undecodable { name, offset } => FailureV1 {
            kind: FAILURE_UNDECODABLE,
            name: name.as_str().into(),
            offset: *offset,
            ..base
        },
        ArchError::UnknownRelocation { name, offset, r_type } => FailureV1 {
            kind: FAILURE_UNKNOWN_RELOCATION,
            name: name.as_str().into(),
            offset: *offset,
            r_type: *r_type,
            ..base
        },
        ArchError::Range { reloc, value } => {
            FailureV1 { kind: FAILURE_RANGE, name: (*reloc).into(), value: *value, ..base }
        }
        ArchError::Outside { name, offset } => {
            FailureV1 { kind: FAILURE_OUTSIDE, name: name.as_str().into(), offset: *offset, ..base }
        }
        ArchError::Entry { section, name, offset, why } => FailureV1 {
            kind: FAILURE_ENTRY,
            section: section.as_str().into(),
            name: name.as_str().into(),
            offset: *offset,
            text: why.as_str().into(),
            ..base
        },
        other => failure(FAILURE_OTHER, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reloc(offset: u64, symbol: &str) -> CodeReloc<'_> {
        CodeReloc {
            offset,
            r_type: 3,
            symbol,
            key: offset as u32 + 1,
            addend: -4,
            inside: Some(offset),
        }
    }

    #[test]
    fn a_tree_of_code_survives_both_ways() {
        let deep_relocs = [reloc(2, "deep")];
        let deep = Code { name: "deep", bytes: &[7, 8], relocs: &deep_relocs, entries: &[] };
        let inner_entry_relocs = [reloc(0, "x"), reloc(4, "y")];
        let entry = |offset, replacement| Entry {
            section: ".table",
            offset,
            data: &[1, 2, 3],
            relocs: &inner_entry_relocs,
            replacement,
            target: None,
        };
        let inner_entries = [entry(1, Some(&deep))];
        let inner = Code { name: "inner", bytes: &[9], relocs: &[], entries: &inner_entries };
        let plain = Code { name: "plain", bytes: &[], relocs: &deep_relocs, entries: &[] };
        let first_entries = [
            entry(0, None),
            entry(3, Some(&inner)),
            Entry { target: Some(5), ..entry(4, Some(&plain)) },
        ];
        let first_relocs = [reloc(1, "a"), reloc(5, "")];
        let first = Code {
            name: "first",
            bytes: &[1, 2, 3, 4],
            relocs: &first_relocs,
            entries: &first_entries,
        };
        let second_entries = [entry(2, Some(&plain))];
        let second =
            Code { name: "second", bytes: &[5], relocs: &deep_relocs, entries: &second_entries };
        let done = lower(&[&first, &second], |lowered| {
            let lowered: Vec<&CodeV1<'_>> = lowered.iter().collect();
            raise(&lowered, |raised| assert_eq!(raised, [first, second]))
        });
        assert_eq!(done, Some(Some(())));
    }
}
