// SPDX-License-Identifier: GPL-2.0-or-later
//! Alternatives: code that boot replaces according to the processor.
//!
//! `__apply_alternatives` (arch/arm64/kernel/alternative.c, 6.1 and 6.12) applies an entry or not;
//! which features the processor has is not asked. The replacement is as long as the place and is
//! copied, branches out of it and page addresses adjusted ([`replacement`] follows
//! `get_alt_insn`); or a callback writes the place ([`crate::callbacks`]).

use splice_core::arch::{ArchError, Code, Entry};

use crate::forms::{Form, What, Word};
use crate::rules::{Place, malformed, own};
use crate::{callbacks, insn};

/// Bit of the feature number that says that a callback does the work (`ARM64_CB_BIT`).
const CALLBACK: u16 = 1 << 15;
/// Offset in the entry of the relocation that names replacement or callback.
const REPLACEMENT: u64 = 4;

/// The place of an alternative; `None` for an empty one.
pub(crate) fn place<'a>(
    code: &Code<'a>,
    entry: &Entry<'a>,
) -> Result<Option<Place<'a>>, ArchError> {
    let &[_, _, _, _, _, _, _, _, low, high, len, replaced] = entry.data else {
        let why = format!("{} bytes are no length of an alternative", entry.data.len());
        return Err(malformed(code, entry, why));
    };
    let callback = u16::from_le_bytes([low, high]) & CALLBACK != 0;
    if callback && replaced != 0 || !callback && replaced != len {
        let why = format!("{replaced} bytes replace {len}");
        return Err(malformed(code, entry, why));
    }
    if len == 0 {
        return Ok(None);
    }
    let mut forms = vec![own(code, entry, u64::from(len))?];
    if callback {
        let name = entry.relocs.iter().find(|r| r.offset == REPLACEMENT).map_or("", |r| r.symbol);
        let words: Vec<u32> = forms.iter().flat_map(|f| &f.words).map(|w| w.value).collect();
        match callbacks::forms(name, &words) {
            Some(more) => forms.extend(more),
            None => {
                let why = format!("what the callback {name:?} writes there is not known");
                return Err(malformed(code, entry, why));
            }
        }
    } else {
        forms.push(replacement(code, entry, u64::from(len))?);
    }
    Ok(Some(Place { what: "alternative", start: entry.offset, forms, live: false }))
}

/// The replacement as it stands in the place.
fn replacement<'a>(code: &Code<'a>, entry: &Entry<'a>, len: u64) -> Result<Form<'a>, ArchError> {
    let Some(from) = entry.replacement else {
        return Err(malformed(code, entry, "its replacement is not there"));
    };
    let wrong = |why: &str| malformed(code, entry, format!("of its replacement, {why}"));
    let mut form = Form::of_code(from, 0, len, &wrong)?;
    form.rule = "alternative";
    for (n, word) in form.words.iter_mut().enumerate() {
        // A relocated address stays the same address, wherever the instruction is copied to.
        if word.what.is_some() {
            continue;
        }
        let at = n as u64 * insn::LEN;
        if let Some(distance) = insn::branch_distance(word.value) {
            let to = at.wrapping_add_signed(distance);
            if to <= len {
                // Within the replacement, its end included: copied as it is.
                continue;
            }
            let Some(start) = entry.target else {
                return Err(wrong("a branch leads out, and nothing tells where to"));
            };
            *word = Word::with(word.value, What::Within(start.wrapping_add(to)));
        } else if insn::is_adrp(word.value)
            || insn::is_adr(word.value)
            || insn::is_literal_load(word.value)
        {
            return Err(wrong("an address depends on its own, and has no relocation"));
        }
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use splice_core::arch::CodeReloc;

    const NOP: u32 = insn::NOP;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn with<R>(
        data: &[u8],
        replacement: Option<&[u32]>,
        symbol: &'static str,
        target: Option<u64>,
        f: impl FnOnce(Result<Option<Place<'_>>, ArchError>) -> R,
    ) -> R {
        let own = bytes(&[NOP, NOP, 0xd65f_03c0]);
        let other = bytes(replacement.unwrap_or_default());
        let other = Code { name: "other", bytes: &other, relocs: &[], entries: &[] };
        let relocs =
            [CodeReloc { offset: 4, r_type: 261, symbol, key: 9, addend: 0, inside: None }];
        let entry = Entry {
            section: ".altinstructions",
            offset: 0,
            data,
            relocs: &relocs,
            replacement: replacement.map(|_| &other),
            target,
        };
        let code = Code { name: "f", bytes: &own, relocs: &[], entries: &[] };
        f(place(&code, &entry))
    }

    fn data(feature: u16, len: u8, replaced: u8) -> Vec<u8> {
        let [low, high] = feature.to_le_bytes();
        vec![0, 0, 0, 0, 0, 0, 0, 0, low, high, len, replaced]
    }

    #[test]
    fn replacements_are_copied_and_branches_out_of_them_adjusted() {
        // b out (from 0x100 + 4 to 8); b to its own end.
        let words = [0x17ff_ffc2, 0x1400_0001];
        with(&data(1, 8, 8), Some(&words), "", Some(0x100), |got| {
            let place = got.unwrap().unwrap();
            assert_eq!(place.forms.len(), 2);
            let form = &place.forms[1];
            assert_eq!(form.words[0], Word::with(words[0], What::Within(8)));
            assert_eq!(form.words[1], Word::fixed(words[1]));
        });
    }

    #[test]
    fn callbacks_are_known_by_name() {
        with(&data(CALLBACK | 1, 8, 0), None, "alt_cb_patch_nops", None, |got| {
            assert_eq!(got.unwrap().unwrap().forms.len(), 2);
        });
        with(&data(CALLBACK | 1, 8, 0), None, "new_in_some_kernel", None, |got| {
            let Err(ArchError::Entry { why, .. }) = got else { panic!("{got:?}") };
            assert!(why.contains("new_in_some_kernel"), "{why}");
        });
    }

    #[test]
    fn empty_ones_are_no_places() {
        with(&data(1, 0, 0), None, "", None, |got| assert!(got.unwrap().is_none()));
    }

    #[test]
    fn malformed_ones_are_errors() {
        type Row<'a> = (Vec<u8>, Option<&'a [u32]>, Option<u64>, &'a str);
        let table: &[Row<'_>] = &[
            (vec![0; 11], None, None, "11 bytes"),
            (data(1, 8, 4), Some(&[NOP]), None, "4 bytes replace 8"),
            (data(CALLBACK, 8, 8), Some(&[NOP, NOP]), None, "8 bytes replace 8"),
            (data(1, 6, 6), Some(&[NOP, NOP]), None, "whole instructions"),
            (data(1, 16, 16), Some(&[NOP; 4]), None, "beyond the code"),
            (data(1, 8, 8), None, None, "not there"),
            (data(1, 8, 8), Some(&[NOP]), None, "beyond the code"),
            (data(1, 4, 4), Some(&[0x1400_0010]), None, "nothing tells where"),
            (data(1, 4, 4), Some(&[0x9000_0000]), None, "no relocation"),
            (data(1, 4, 4), Some(&[0x1000_0000]), None, "no relocation"),
            (data(1, 4, 4), Some(&[0x5800_0040]), None, "no relocation"),
        ];
        for (data, replacement, target, part) in table {
            with(data, *replacement, "", *target, |got| {
                let Err(ArchError::Entry { why, .. }) = got else { panic!("{part}: {got:?}") };
                assert!(why.contains(part), "{why}");
            });
        }
    }
}
