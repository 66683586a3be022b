// SPDX-License-Identifier: GPL-2.0-or-later
//! Objects in which one function was changed a little, to see whether the differ notices: a byte of
//! its text that no relocation covers, or a relocation's addend or symbol.
//!
//! What says the same in other words is left out: a reference to another place that holds the same
//! string, and one from a table without a name to another.

use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_RELA};
use object::read::elf::{FileHeader, Rela as _, SectionHeader};
use splice_core::arch::{Arch, RelocKind};
use splice_core::diff::diff_units;
use splice_core::unit::{Span, SpanId, SpanKind, Target, Unit};

use crate::arch_for;

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A byte of text.
    Byte,
    /// A relocation's addend.
    Addend,
    /// A relocation's symbol.
    Symbol,
}

/// What the differ made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// The function counts as changed.
    Changed,
    /// The unit is refused, or cannot be compared.
    Refused,
    /// The function counts as the same, which it is not.
    Missed,
}

/// A change and its place, for a message.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// What was changed.
    pub kind: Kind,
    /// The function.
    pub function: String,
    /// Where in the function.
    pub offset: u64,
    /// What the differ made of it.
    pub seen: Seen,
}

/// Numbers that look random and are the same each time (xorshift, Marsaglia 2003).
pub struct Numbers(u64);

impl Numbers {
    /// Begins with `seed`.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One from 0 up to `end`, which is not reached; none if that is 0.
    pub fn below(&mut self, end: usize) -> Option<usize> {
        usize::try_from(self.next() >> 11).ok()?.checked_rem(end)
    }
}

/// A relocation as the file has it: its section, offset, size of its field, and where the entry
/// stands in the file.
struct FileReloc {
    section: usize,
    offset: u64,
    width: u64,
    r_type: u32,
    entry: usize,
}

/// An object whose functions can be changed.
pub struct Subject {
    arch: &'static dyn Arch,
    bytes: Vec<u8>,
    unit: Unit,
    functions: Vec<SpanId>,
    /// Where each section's contents stand in the file.
    starts: Vec<usize>,
    relocs: Vec<FileReloc>,
}

impl Subject {
    /// None for an object that is not a unit with functions.
    pub fn new(bytes: Vec<u8>) -> Option<Subject> {
        let arch = arch_for(&bytes)?;
        let unit = Unit::read(arch, "before.o", &bytes).ok()?;
        let header = FileHeader64::<LE>::parse(bytes.as_slice()).ok()?;
        let endian = header.endian().ok()?;
        let (mut starts, mut relocs) = (Vec::new(), Vec::new());
        for section in header.sections(endian, bytes.as_slice()).ok()?.iter() {
            let start = usize::try_from(section.sh_offset(endian)).ok()?;
            starts.push(if section.sh_type(endian) == SHT_NOBITS { bytes.len() } else { start });
            if section.sh_type(endian) != SHT_RELA {
                continue;
            }
            let Some((entries, _)) = section.rela(endian, bytes.as_slice()).ok()? else { continue };
            for (number, entry) in entries.iter().enumerate() {
                let r_type = entry.r_type(endian, false).0;
                let Some(info) = arch.reloc().describe(r_type) else { continue };
                if info.kind != RelocKind::None {
                    relocs.push(FileReloc {
                        section: section.sh_info(endian) as usize,
                        offset: entry.r_offset(endian),
                        width: info.width.into(),
                        r_type,
                        entry: start + number * 24,
                    });
                }
            }
        }
        let is_text = |span: &Span| {
            let flags = unit.sections.get(span.section).map_or(0, |s| s.flags);
            let text = SHF_ALLOC.0 | SHF_EXECINSTR.0;
            span.size > 0 && flags & text == text && unit.special(span.section).is_none()
        };
        let functions: Vec<SpanId> =
            unit.functions().filter(|id| unit.spans.get(*id).is_some_and(is_text)).collect();
        (!functions.is_empty()).then_some(Subject { arch, bytes, unit, functions, starts, relocs })
    }

    /// Changes one function and compares; none where the numbers hit nothing that can be changed.
    pub fn mutate(&self, numbers: &mut Numbers) -> Option<Mutation> {
        let id = *self.functions.get(numbers.below(self.functions.len())?)?;
        let span = self.unit.spans.get(id)?;
        let mut bytes = self.bytes.clone();
        let (kind, offset) = match numbers.below(3)? {
            0 => (Kind::Byte, self.byte(span, &mut bytes, numbers)?),
            1 => (Kind::Addend, self.reference(span, &mut bytes, numbers, false)?),
            _ => (Kind::Symbol, self.reference(span, &mut bytes, numbers, true)?),
        };
        let seen = self.compare(id, &bytes);
        Some(Mutation { kind, function: span.name.clone(), offset, seen })
    }

    fn compare(&self, id: SpanId, bytes: &[u8]) -> Seen {
        let Ok(post) = Unit::read(self.arch, "after.o", bytes) else { return Seen::Refused };
        let Ok(diff) = diff_units(self.arch, &self.unit, &post) else { return Seen::Refused };
        if diff.changed.iter().any(|c| c.pre == id || c.pre_parts.contains(&id)) {
            Seen::Changed
        } else if diff.refusals.is_empty() {
            Seen::Missed
        } else {
            Seen::Refused
        }
    }

    fn byte(&self, span: &Span, bytes: &mut [u8], numbers: &mut Numbers) -> Option<u64> {
        let offset = numbers.below(usize::try_from(span.size).ok()?)? as u64;
        let place = span.offset + offset;
        let covered = |r: &FileReloc| {
            r.section == span.section && (r.offset..r.offset + r.width).contains(&place)
        };
        if self.relocs.iter().any(covered) {
            return None;
        }
        let byte = bytes.get_mut(self.starts.get(span.section)? + usize::try_from(place).ok()?)?;
        *byte ^= u8::try_from(1 + numbers.below(255)?).ok()?;
        Some(offset)
    }

    fn reference(
        &self,
        span: &Span,
        bytes: &mut [u8],
        numbers: &mut Numbers,
        symbol: bool,
    ) -> Option<u64> {
        let within = |r: &&FileReloc| {
            r.section == span.section && (span.offset..span.offset + span.size).contains(&r.offset)
        };
        let relocs: Vec<&FileReloc> = self.relocs.iter().filter(within).collect();
        let reloc = *relocs.get(numbers.below(relocs.len())?)?;
        let entry = bytes.get_mut(reloc.entry..reloc.entry + 24)?;
        let old_symbol = u32::from_le_bytes(entry.get(12..16)?.try_into().ok()?);
        let old_addend = i64::from_le_bytes(entry.get(16..24)?.try_into().ok()?);
        let (mut new_symbol, mut new_addend) = (old_symbol, old_addend);
        if symbol {
            new_symbol = u32::try_from(numbers.below(self.unit.symbols.len())?).ok()?;
        } else {
            let delta = 1 + i64::try_from(numbers.below(64)?).ok()?;
            new_addend =
                if numbers.next() & 1 == 0 { delta } else { -delta }.wrapping_add(old_addend);
        }
        // The bias of a field within its instruction is the same on both sides, mostly that of its
        // size.
        let pc_relative = self.arch.reloc().describe(reloc.r_type)?.pc_relative;
        let bias = if pc_relative { i64::try_from(reloc.width).ok()? } else { 0 };
        if !self.says_other((old_symbol, old_addend + bias), (new_symbol, new_addend + bias)) {
            return None;
        }
        entry.get_mut(12..16)?.copy_from_slice(&new_symbol.to_le_bytes());
        entry.get_mut(16..24)?.copy_from_slice(&new_addend.to_le_bytes());
        Some(reloc.offset - span.offset)
    }

    /// Whether two references are sure to mean different things.
    fn says_other(&self, old: (u32, i64), new: (u32, i64)) -> bool {
        let symbol = |index: u32| self.unit.symbols.get(index as usize);
        let (Some(a), Some(b)) = (symbol(old.0), symbol(new.0)) else { return false };
        let span = |target: Target| match target {
            Target::Span { id, offset } => self.unit.spans.get(id).map(|span| (span, offset)),
            _ => None,
        };
        let x = span(self.unit.resolve(old.0, old.1));
        let y = span(self.unit.resolve(new.0, new.1));
        match (x, y) {
            (Some((x, from)), Some((y, to))) => {
                let named = |span: &Span| matches!(span.kind, SpanKind::Function | SpanKind::Data);
                if named(x) || named(y) {
                    return (x.section, x.offset.wrapping_add_signed(from))
                        != (y.section, y.offset.wrapping_add_signed(to));
                }
                x.kind == SpanKind::String
                    && y.kind == SpanKind::String
                    && self.rest(x, from) != self.rest(y, to)
            }
            (None, None) => {
                old.1 != new.1 || (a.place, a.value, &a.name) != (b.place, b.value, &b.name)
            }
            _ => true,
        }
    }

    fn rest(&self, span: &Span, from: i64) -> Option<&[u8]> {
        self.unit.bytes_of(span).get(usize::try_from(from).ok()?..)
    }
}
