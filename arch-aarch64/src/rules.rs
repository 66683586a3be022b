// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules: which forms the kernel gives the place of an entry, one function per kind of entry.
//!
//! The kernel's own code is the source of each: `ftrace_init_nop`, `ftrace_make_call` and
//! `ftrace_make_nop` (arch/arm64/kernel/ftrace.c), `arch_jump_label_transform`
//! (arch/arm64/kernel/jump_label.c), `__runtime_fixup_ptr` and `__runtime_fixup_shift`
//! (asm/runtime-const.h). Alternatives are in [`crate::alternatives`].

use splice_core::arch::{ArchError, Code, Entry};

use crate::forms::{Form, What, Word};
use crate::insn::{self, MOV_X9_X30, NOP};
use crate::trampoline::{PATCHABLE_WORDS, patchable};
use crate::{alternatives, special};

/// A place that has more than one form.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// What it is, for messages.
    pub what: &'static str,
    /// Offset in the function.
    pub start: u64,
    /// All forms, the object's own first; all of the same length.
    pub forms: Vec<Form<'a>>,
    /// Whether the kernel rewrites it while it runs.
    pub live: bool,
}

impl Place<'_> {
    pub(crate) fn len(&self) -> u64 {
        self.forms.first().map_or(0, Form::len)
    }
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len()
    }
}

/// An error about an entry.
pub(crate) fn malformed(code: &Code<'_>, entry: &Entry<'_>, why: impl Into<String>) -> ArchError {
    ArchError::Entry {
        section: entry.section.into(),
        name: code.name.into(),
        offset: entry.offset,
        why: why.into(),
    }
}

/// The object's own form of `len` bytes at the entry's place.
pub(crate) fn own<'a>(code: &Code<'a>, entry: &Entry<'_>, len: u64) -> Result<Form<'a>, ArchError> {
    Form::of_code(code, entry.offset, len, &|why| malformed(code, entry, why))
}

/// All places of a stretch of code, sorted. Entries about the very same place allow each other's
/// forms; other overlaps are refused.
pub(crate) fn places<'a>(code: &Code<'a>) -> Result<Vec<Place<'a>>, ArchError> {
    let mut places: Vec<Place<'a>> = Vec::new();
    for entry in code.entries {
        let Some(place) = place(code, entry)? else { continue };
        match places.iter_mut().find(|p| p.start == place.start && p.len() == place.len()) {
            Some(twin) => {
                twin.live |= place.live;
                twin.forms.extend(place.forms);
            }
            None => places.push(place),
        }
    }
    if let Some(start) = patchable(code)
        && !places.iter().any(|p| p.start == start)
    {
        places.push(ftrace_place(start));
    }
    places.sort_by_key(|p| p.start);
    for pair in places.windows(2) {
        if let [a, b] = pair
            && b.start < a.end()
        {
            return Err(ArchError::Entry {
                section: b.what.into(),
                name: code.name.into(),
                offset: b.start,
                why: format!("it overlaps a {} at {:#x}", a.what, a.start),
            });
        }
    }
    Ok(places)
}

/// The place that an entry is about; `None` for one without length.
fn place<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Option<Place<'a>>, ArchError> {
    match entry.section {
        special::ALTERNATIVES => alternatives::place(code, entry),
        special::PATCHABLE => ftrace(code, entry),
        special::JUMP_LABELS => jump_label(code, entry).map(Some),
        s if special::is(special::RUNTIME_POINTERS, s) => runtime_pointer(code, entry).map(Some),
        s if special::is(special::RUNTIME_SHIFTS, s) => runtime_shift(code, entry).map(Some),
        _ => Err(malformed(
            code,
            entry,
            "what the running kernel does with such a place is not known",
        )),
    }
}

/// Ftrace site: of the two nops the first becomes `mov x9, x30` when the kernel starts or the
/// module is loaded, the second a call while somebody traces. An entry behind the code is about what the
/// tracer keeps before the next function (`CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS`, as in 6.12).
fn ftrace<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Option<Place<'a>>, ArchError> {
    if entry.offset >= code.bytes.len() as u64 {
        return Ok(None);
    }
    let own = own(code, entry, PATCHABLE_WORDS * insn::LEN)?;
    if own != Form::fixed("", &[NOP, NOP]) {
        return Err(malformed(code, entry, "no two nops stand there"));
    }
    Ok(Some(ftrace_place(entry.offset)))
}

fn ftrace_place<'a>(start: u64) -> Place<'a> {
    let call = Word::with(insn::BL, What::Text);
    let forms = vec![
        Form::fixed("", &[NOP, NOP]),
        Form::fixed("ftrace site off", &[MOV_X9_X30, NOP]),
        Form { rule: "ftrace site on", words: vec![Word::fixed(MOV_X9_X30), call] },
    ];
    Place { what: "ftrace site", start, forms, live: true }
}

/// Jump label: a branch to the entry's target, or a nop.
fn jump_label<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let own = own(code, entry, insn::LEN)?;
    let word = own.words.first().copied().unwrap_or(Word::fixed(0));
    let mut forms = vec![own];
    if word.value & !insn::IMM26 == insn::B {
        forms.push(Form::nops("jump label off", 1));
    } else if word == Word::fixed(NOP) {
        let label = entry.relocs.iter().find(|r| r.offset == 4);
        let what = match (entry.target, label) {
            (Some(target), _) => What::Within(target),
            (None, Some(label)) => What::Label(*label),
            (None, None) => return Err(malformed(code, entry, "it has no target")),
        };
        forms.push(Form { rule: "jump label on", words: vec![Word::with(insn::B, what)] });
    } else {
        return Err(malformed(code, entry, "neither a branch nor a nop stands there"));
    }
    Ok(Place { what: "jump label", start: entry.offset, forms, live: true })
}

/// Runtime constant: a pointer in `movz` and three `movk`.
fn runtime_pointer<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    const IMM16: u32 = 0x001f_ffe0;
    let own = own(code, entry, 4 * insn::LEN)?;
    let register = own.words.first().map_or(0, |w| insn::rd(w.value));
    let heads = [0xd280_0000, 0xf2a0_0000, 0xf2c0_0000, 0xf2e0_0000].map(|h: u32| h | register);
    let fits = own.words.iter().zip(heads).all(|(w, h)| w.value & !IMM16 == h && w.what.is_none());
    if !fits {
        return Err(malformed(code, entry, "no constant is put together there"));
    }
    let words = heads.map(|h| Word::with(h, What::Any(IMM16))).to_vec();
    let forms = vec![own, Form { rule: "runtime constant", words }];
    Ok(Place { what: "runtime constant", start: entry.offset, forms, live: false })
}

/// Runtime constant: the distance of a right shift (`ubfm` with 31 as the other limit).
fn runtime_shift<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    const IMMR: u32 = 0x003f_0000;
    let own = own(code, entry, insn::LEN)?;
    let word = own.words.first().copied().unwrap_or(Word::fixed(0));
    if word.value & 0xffc0_fc00 != 0x5300_7c00 || word.what.is_some() {
        return Err(malformed(code, entry, "no right shift stands there"));
    }
    let words = vec![Word::with(word.value & !IMMR, What::Any(IMMR))];
    let forms = vec![own, Form { rule: "runtime constant", words }];
    Ok(Place { what: "runtime constant", start: entry.offset, forms, live: false })
}
