// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules: which forms the kernel gives the place of an entry.
//!
//! Source: `ftrace_make_call` and `ftrace_init_nop` (arch/riscv/kernel/ftrace.c; sites of 16 bytes
//! until 6.2, of 8 since), `arch_jump_label_transform` (jump_label.c), `riscv_cpufeature_patch_func`,
//! the errata's patch functions and `riscv_alternative_fix_offsets` (alternative.c).

use splice_plugin_abi::arch::{ArchError, Code, Entry};

use crate::insn::{self, J, NOP, RA, T0};
use crate::special::{ALTERNATIVES, FTRACE, JUMP_LABELS};

/// One form of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// The object's own bytes, with their relocations.
    Own,
    /// These bytes.
    Bytes(&'static str, Vec<u8>),
    /// These bytes, but for a far call by way of that register to kernel text at that offset.
    Call(&'static str, Vec<u8>, usize, u32),
    /// A `jal` to that offset of the function.
    Jump(&'static str, u64),
    /// Other code, with its relocations.
    Code(&'static str, Code<'a>),
}

/// A place that has more than one form.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// What it is, for messages.
    pub what: &'static str,
    /// Offset in the function.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    pub forms: Vec<Form<'a>>,
    /// Whether the kernel rewrites it while it runs.
    pub live: bool,
}

impl Place<'_> {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }
}

fn malformed(code: &Code<'_>, entry: &Entry<'_>, why: impl Into<String>) -> ArchError {
    ArchError::Entry {
        section: entry.section.into(),
        name: code.name.into(),
        offset: entry.offset,
        why: why.into(),
    }
}

/// All places of a stretch of code, sorted; they do not overlap. Entries about the same bytes
/// allow each other's forms.
pub(crate) fn places<'a>(code: &Code<'a>) -> Result<Vec<Place<'a>>, ArchError> {
    let mut places: Vec<Place<'a>> = Vec::new();
    for entry in code.entries {
        let place = match entry.section {
            section if FTRACE.contains(&section) => ftrace(code, entry)?,
            JUMP_LABELS => jump_label(code, entry)?,
            ALTERNATIVES => alternative(code, entry)?,
            _ => {
                let why = "what the running kernel does with such a place is not known";
                return Err(malformed(code, entry, why));
            }
        };
        if place.end() > code.bytes.len() as u64 {
            return Err(malformed(code, entry, "the place reaches beyond the function"));
        }
        let (start, end) = (place.start, place.end());
        let overlap = places.iter_mut().find(|p| p.start < end && start < p.end());
        match overlap {
            Some(twin) if (twin.start, twin.len) == (start, place.len) => {
                twin.live |= place.live;
                for form in place.forms {
                    if !twin.forms.contains(&form) {
                        twin.forms.push(form);
                    }
                }
            }
            Some(other) => {
                let why = format!("it overlaps a {} at {:#x}", other.what, other.start);
                return Err(malformed(code, entry, why));
            }
            None => places.push(place),
        }
    }
    places.sort_by_key(|p| p.start);
    Ok(places)
}

fn nops(len: u64) -> Vec<u8> {
    (0..len / 4).flat_map(|_| NOP.to_le_bytes()).collect()
}

/// Length of the ftrace site at `at`: 8 or 16 bytes of nops, all as long as the first. Others may follow,
/// such as padding or an alternative.
pub(crate) fn ftrace_len(bytes: &[u8], at: u64) -> Option<u64> {
    let mut rest = bytes.get(usize::try_from(at).ok()?..)?;
    let first = insn::nop(rest)?;
    let mut len = 0;
    while len < 16 && insn::nop(rest) == Some(first) {
        rest = rest.get(first..)?;
        len += first;
    }
    match len {
        16.. => Some(16),
        8.. => Some(8),
        _ => None,
    }
}

/// Ftrace site: the compiler's nops become the kernel's at boot, and a call of some trampoline
/// while somebody traces.
fn ftrace<'a>(code: &Code<'a>, entry: &Entry<'_>) -> Result<Place<'a>, ArchError> {
    const SAVE_RA: u32 = 0xfe11_3c23; // sd ra, -8(sp)
    const LOAD_RA: u32 = 0xff81_3083; // ld ra, -8(sp)
    let (off, on) = ("ftrace site off", "ftrace site on");
    let Some(len) = ftrace_len(code.bytes, entry.offset) else {
        return Err(malformed(code, entry, "neither 8 nor 16 bytes of nops stand there"));
    };
    let mut forms = vec![Form::Own, Form::Bytes(off, nops(len))];
    if len == 8 {
        forms.push(Form::Call(on, nops(8), 0, T0));
    } else {
        let words = [SAVE_RA, NOP, NOP, LOAD_RA];
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        forms.push(Form::Call(on, bytes, 4, RA));
    }
    Ok(Place { what: "ftrace site", start: entry.offset, len, forms, live: true })
}

/// Jump label: a jump to the entry's target, or a nop.
fn jump_label<'a>(code: &Code<'a>, entry: &Entry<'_>) -> Result<Place<'a>, ArchError> {
    let form = match insn::at(code.bytes, entry.offset) {
        Some(NOP) => match entry.target {
            Some(target) => Form::Jump("jump label on", target),
            None => return Err(malformed(code, entry, "its target is not in the function")),
        },
        // jal zero
        Some(word) if word & 0xfff == 0x6f => Form::Bytes("jump label off", nops(4)),
        _ => return Err(malformed(code, entry, "neither a jump nor a nop stands there")),
    };
    let forms = vec![Form::Own, form];
    Ok(Place { what: "jump label", start: entry.offset, len: 4, forms, live: true })
}

/// Length of an alternative: both of its codes have it. The entry has 16 bytes (since 6.4) or 36.
fn alternative_len(entry: &Entry<'_>) -> Option<u64> {
    let field = |at: usize, len: usize| entry.data.get(at..at + len).map(insn::word);
    match entry.data.len() {
        16 => field(10, 2),
        36 | 40 => field(24, 8),
        _ => None,
    }
}

/// Alternative: other code of the same length, for processors that have or lack something.
fn alternative<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    const RULE: &str = "alternative";
    let Some(len) = alternative_len(entry).filter(|l| *l > 0 && l % 2 == 0) else {
        return Err(malformed(code, entry, "it has no sensible length"));
    };
    let mut forms = vec![Form::Own];
    // Without its replacement (it is shared with another function, say) only the object's own
    // code is believed.
    if let Some(whole) = entry.replacement {
        let cut = usize::try_from(len).ok().and_then(|len| whole.bytes.get(..len));
        let Some(bytes) = cut else {
            return Err(malformed(code, entry, "its replacement is cut short"));
        };
        let count = whole.relocs.iter().take_while(|r| r.offset < len).count();
        let relocs: &'a [_] = whole.relocs.get(..count).unwrap_or_default();
        let replacement = Code { name: whole.name, bytes, relocs, entries: &[] };
        let moved = entry.target.and_then(|from| moved_jumps(&replacement, from, entry.offset));
        match moved {
            Some(bytes) if relocs.is_empty() => forms.push(Form::Bytes(RULE, bytes)),
            Some(_) => {
                let why = "its replacement jumps out of itself in two ways";
                return Err(malformed(code, entry, why));
            }
            None => forms.push(Form::Code(RULE, replacement)),
        }
    }
    Ok(Place { what: "alternative", start: entry.offset, len, forms, live: false })
}

/// The replacement with the jumps that lead out of it and have no relocation: they keep their
/// targets when the code moves from offset `from` to `to`. `None` if there are none.
fn moved_jumps(replacement: &Code<'_>, from: u64, to: u64) -> Option<Vec<u8>> {
    let mut bytes = replacement.bytes.to_vec();
    let mut moved = false;
    let mut at = 0;
    while let Some(len) = bytes.get(at..).and_then(insn::len) {
        let relocated = replacement.relocs.iter().any(|r| r.offset == at as u64);
        if let Some(word) = insn::at(&bytes, at as u64).filter(|w| w & 0x7f == 0x6f && !relocated) {
            let distance = insn::get(J, u64::from(word));
            let target = (at as u64).wrapping_add_signed(distance);
            if target >= bytes.len() as u64 {
                let distance = (distance as u64).wrapping_add(from).wrapping_sub(to);
                let word = insn::put(J, u64::from(word), distance) as u32;
                bytes.get_mut(at..at + 4)?.copy_from_slice(&word.to_le_bytes());
                moved = true;
            }
        }
        at += len;
    }
    moved.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nops_behind_a_site_are_not_its_own() {
        let (short, long) = ([1, 0], [0x13, 0, 0, 0]);
        for (parts, len) in [
            (vec![short.repeat(4), long.to_vec()], Some(8)),
            (vec![short.repeat(5), long.to_vec()], Some(8)),
            (vec![short.repeat(8)], Some(16)),
            (vec![long.repeat(2), short.to_vec()], Some(8)),
            (vec![long.repeat(4)], Some(16)),
            (vec![long.to_vec(), short.repeat(4)], None),
            (vec![short.repeat(3)], None),
            (vec![vec![0x82, 0x80]], None),
        ] {
            assert_eq!(ftrace_len(&parts.concat(), 0), len, "{parts:x?}");
        }
        assert_eq!(ftrace_len(&[], 4), None);
    }
}
