// SPDX-License-Identifier: GPL-2.0-or-later
//! Alternatives: code that boot replaces according to the processor.
//!
//! `apply_alternatives` goes through the table in order; an entry is applied or not, and in both
//! cases runs of nops in the place become longer nops. Which features the processor has is not
//! asked: every subset of a place's entries gives a form. The places inside (a paravirtual call,
//! a lock prefix, a retpoline) were rewritten before, in the place and in the replacement.

use splice_core::arch::{ArchError, Code, Entry};

use crate::forms::{Field, Form, What};
use crate::nops::INT3;
use crate::rules::{Place, malformed};
use crate::{decode, nops, special};

/// More forms than that of one place are not followed.
const MOST_FORMS: usize = 1024;
/// `X86_FEATURE_ALWAYS`: every processor has it.
const ALWAYS: u32 = 3 * 32 + 21;
/// `ALT_FLAG_DIRECT_CALL` (since 6.8): an indirect call becomes a direct one.
const DIRECT_CALL: u32 = 1 << 17;

/// An entry of the table, read.
struct Alternative<'e, 'a> {
    entry: &'e Entry<'a>,
    start: u64,
    len: u64,
    /// Length of the replacement.
    replaced: u64,
    always: bool,
    direct_call: bool,
}

impl Alternative<'_, '_> {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

fn read<'e, 'a>(code: &Code<'a>, entry: &'e Entry<'a>) -> Result<Alternative<'e, 'a>, ArchError> {
    let byte = |at: usize| entry.data.get(at).copied().map(u32::from).unwrap_or_default();
    let half = |at: usize| byte(at) | byte(at + 1) << 8;
    let (feature, len, replaced) = match entry.data.len() {
        // Until 5.17 there was the length of the padding in a 13th byte.
        12 | 13 => (half(8), byte(10), byte(11)),
        14 => (half(8) | half(10) << 16, byte(12), byte(13)),
        n => {
            return Err(malformed(
                code,
                entry,
                format!("{n} bytes are no length of an alternative"),
            ));
        }
    };
    if replaced > len {
        return Err(malformed(code, entry, "the replacement is longer than the place"));
    }
    if entry.offset.saturating_add(u64::from(len)) > code.bytes.len() as u64 {
        return Err(malformed(code, entry, "the place reaches beyond the function"));
    }
    Ok(Alternative {
        entry,
        start: entry.offset,
        len: u64::from(len),
        replaced: u64::from(replaced),
        always: feature == ALWAYS,
        direct_call: feature & DIRECT_CALL != 0,
    })
}

/// Whether an entry has a replacement of no bytes: the place becomes nops.
pub(crate) fn is_empty(entry: &[u8]) -> bool {
    let length = match entry.len() {
        12 | 13 => entry.get(11),
        14 => entry.get(13),
        _ => None,
    };
    length == Some(&0)
}

/// Puts the places of alternatives together with the other places, which they may contain.
pub(crate) fn places<'a>(
    code: &Code<'a>,
    mut simple: Vec<Place<'a>>,
) -> Result<Vec<Place<'a>>, ArchError> {
    let entries = code.entries.iter().filter(|e| e.section == special::ALTERNATIVES);
    let read: Vec<_> = entries.map(|e| read(code, e)).collect::<Result<_, _>>()?;
    let mut groups: Vec<(u64, u64, Vec<Alternative<'_, 'a>>)> = Vec::new();
    for alternative in read.into_iter().filter(|a| a.len > 0) {
        match groups.last_mut().filter(|(_, end, _)| alternative.start < *end) {
            Some((_, end, group)) => {
                *end = (*end).max(alternative.end());
                group.push(alternative);
            }
            None => groups.push((alternative.start, alternative.end(), vec![alternative])),
        }
    }
    let mut places = Vec::new();
    for (start, end, group) in groups {
        let (inside, outside): (Vec<_>, Vec<_>) =
            simple.into_iter().partition(|p| p.start < end && start < p.end());
        simple = outside;
        places.push(group_place(code, start, end, &group, &inside)?);
    }
    places.extend(simple);
    places.sort_by_key(|p| p.start);
    Ok(places)
}

/// All forms of a range with these places in it, of which each has the forms that `of` gives.
fn product<'a>(
    code: &Code<'a>,
    entry: &Entry<'_>,
    (start, len): (u64, u64),
    inside: &[Place<'a>],
    of: fn(&Place<'a>) -> Vec<Form<'a>>,
) -> Result<Vec<Form<'a>>, ArchError> {
    let mut forms = vec![Form::of_object(code, start, len, entry.section)?];
    for place in inside {
        let mut next = Vec::new();
        for form in &forms {
            for inner in &of(place) {
                let mut form = form.clone();
                let at = place.start.checked_sub(start).map(|at| at as usize);
                if !at.is_some_and(|at| form.overlay(at, inner)) {
                    let why = format!("a {} lies across its border", place.what);
                    return Err(malformed(code, entry, why));
                }
                push(&mut next, form, code, entry)?;
            }
        }
        forms = next;
    }
    Ok(forms)
}

fn push<'a>(
    forms: &mut Vec<Form<'a>>,
    form: Form<'a>,
    code: &Code<'_>,
    entry: &Entry<'_>,
) -> Result<(), ArchError> {
    let known = forms
        .iter()
        .any(|f| f.bytes == form.bytes && f.fields == form.fields && f.fill == form.fill);
    if known {
        return Ok(());
    }
    if forms.len() >= MOST_FORMS {
        return Err(malformed(code, entry, format!("the place has over {MOST_FORMS} forms")));
    }
    forms.push(form);
    Ok(())
}

fn group_place<'a>(
    code: &Code<'a>,
    start: u64,
    end: u64,
    group: &[Alternative<'_, 'a>],
    inside: &[Place<'a>],
) -> Result<Place<'a>, ArchError> {
    let Some(first) = group.first() else {
        let (forms, linked) = (Vec::new(), Vec::new());
        return Ok(Place { what: "alternative", start, forms, linked, live: false });
    };
    let live = inside.iter().any(|p| p.live);
    let range = (start, end - start);
    // Nothing is replaced before the start.
    let linked = product(code, first.entry, range, inside, |p| p.linked.clone())?;
    let mut forms = product(code, first.entry, range, inside, |p| p.forms.clone())?;
    for alternative in group {
        let mut next = Vec::new();
        let replacements = replacements(code, alternative)?;
        let at = (alternative.start - start) as usize;
        let stop = at + alternative.len as usize;
        for form in &forms {
            if !alternative.always {
                let mut kept = form.clone();
                mark_nops(&mut kept, at, stop);
                push(&mut next, kept, code, alternative.entry)?;
            }
            for replacement in &replacements {
                let mut form = form.clone();
                if !form.overlay(at, replacement) {
                    let why = "its border cuts another place's relocation";
                    return Err(malformed(code, alternative.entry, why));
                }
                mark_nops(&mut form, at, stop);
                push(&mut next, form, code, alternative.entry)?;
            }
        }
        forms = next;
    }
    Ok(Place { what: "alternative", start, forms, linked, live })
}

/// The forms of an alternative's replacement, as long as the place.
fn replacements<'a>(
    code: &Code<'a>,
    alternative: &Alternative<'_, 'a>,
) -> Result<Vec<Form<'a>>, ArchError> {
    const RULE: &str = "alternative";
    let entry = alternative.entry;
    let len = alternative.len as usize;
    if alternative.direct_call {
        let mut forms = vec![Form::nops("alternative direct call", len)];
        if let Some(rest) = len.checked_sub(5) {
            let call = Form::direct_call("alternative direct call", code, entry.offset);
            forms.push(call.then_nops(rest));
        }
        return Ok(forms);
    }
    if alternative.replaced == 0 {
        return Ok(vec![Form::nops(RULE, len)]);
    }
    let Some(whole) = entry.replacement else {
        return Err(malformed(code, entry, "its replacement is not there"));
    };
    // The code may go on behind the replacement, with that of the next entry.
    let cut = |offset: u64| offset < alternative.replaced;
    let relocs: &'a [_] = prefix(whole.relocs, |r| cut(r.offset));
    let entries: &'a [_] = prefix(whole.entries, |e| cut(e.offset));
    let Some(bytes) = whole.bytes.get(..alternative.replaced as usize) else {
        return Err(malformed(code, entry, "its replacement is cut short"));
    };
    let own = Code { name: whole.name, bytes, relocs, entries };
    if entries.iter().any(|e| e.section == special::ALTERNATIVES) {
        return Err(malformed(code, entry, "its replacement has alternatives of its own"));
    }
    let inside = crate::running::simple_places(&own)?;
    let mut forms = Vec::new();
    for form in product(&own, entry, (0, alternative.replaced), &inside, |p| p.forms.clone())? {
        let rest = len - form.bytes.len();
        // A 5-byte jump becomes a 2-byte one where that suffices, with nops behind it, or with
        // breakpoints (`__apply_relocation`, since 6.8).
        if let ([0xe9, _, _, _, _], [Field { at: 1, what: What::Reloc(r), .. }]) =
            (form.bytes.as_slice(), form.fields.as_slice())
        {
            let what = What::Short(r.clone());
            let mut short = Form::fixed(RULE, &[0xeb, 0]);
            short.fields.push(Field { at: 1, width: 1, what });
            let mut stopped = short.clone();
            stopped.bytes.extend([INT3; 3]);
            forms.push(stopped.then_nops(rest));
            forms.push(short.then_nops(3 + rest));
        }
        forms.push(form.then_nops(rest).named(RULE));
    }
    Ok(forms)
}

fn prefix<T>(all: &[T], within: impl Fn(&T) -> bool) -> &[T] {
    let n = all.iter().take_while(|x| within(x)).count();
    all.get(..n).unwrap_or_default()
}

/// Marks the runs of nops between `at` and `stop`: they may become other nops.
fn mark_nops(form: &mut Form<'_>, mut at: usize, stop: usize) {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    while let Some(rest) = form.bytes.get(at..stop).filter(|r| !r.is_empty()) {
        let insn = decode::one(rest, 0);
        if insn.invalid {
            break;
        }
        let end = at + insn.len as usize;
        if nops::kernel_nop(rest) == Some(insn.len as usize) {
            match runs.last_mut().filter(|(_, e)| *e == at) {
                Some((_, e)) => *e = end,
                None => runs.push((at, end)),
            }
        }
        at = end;
    }
    for (start, end) in runs {
        // A run that reaches beyond one that is there already contains it.
        form.fill.retain(|(s, e)| *e <= start || *s >= end);
        form.fill.push((start, end));
    }
    form.fill.sort_unstable();
}
