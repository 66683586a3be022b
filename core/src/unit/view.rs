// SPDX-License-Identifier: GPL-2.0-or-later
//! Questions about a unit: what lies where, what a reference leads to, and a function as an
//! architecture sees it.

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, STB_LOCAL, STB_WEAK, STT_SECTION};

use super::{
    Reloc, Role, Span, SpanId, SpanKind, SpecialSection, Symbol, SymbolPlace, Target, Unit,
    UnitError,
};
use crate::arch::{Arch, Code, CodeReloc, Entry};

/// A section's symbol with an addend that leads further out of the section than this does not just
/// mean a place: the addend holds something else besides, a mark (`_ASM_EXTABLE_EX`, up to 4.5) or
/// the distance between two mappings (`__pa_symbol`).
const FAR: i64 = 1 << 30;

impl Unit {
    /// All spans that are functions or parts of functions.
    pub fn functions(&self) -> impl Iterator<Item = SpanId> + '_ {
        self.spans
            .iter()
            .enumerate()
            .filter(|(_, s)| s.kind == SpanKind::Function)
            .map(|(id, _)| id)
    }

    /// The rule for a section.
    pub fn rule(&self, section: usize) -> Option<&SpecialSection> {
        self.special.get(section)?.as_ref()
    }

    /// The rule for a special section: one that does not just hold data.
    pub fn special(&self, section: usize) -> Option<&SpecialSection> {
        self.rule(section).filter(|row| !row.role.is_data())
    }

    /// What happens to what is in the span's section; `None` for code, and where no rule says.
    pub fn role_of(&self, span: &Span) -> Option<Role> {
        self.rule(span.section).map(|row| row.role)
    }

    /// Sections of the running kernel's data that no rule covers.
    pub fn unknown_sections(&self) -> impl Iterator<Item = usize> + '_ {
        self.sections.iter().zip(&self.special).enumerate().filter_map(|(n, (section, row))| {
            let data = section.flags & (SHF_ALLOC.0 | SHF_EXECINSTR.0) == SHF_ALLOC.0;
            (data && row.is_none() && section.size > 0).then_some(n)
        })
    }

    /// Tables whose entries cannot be told apart.
    pub fn unclear_tables(&self) -> impl Iterator<Item = usize> + '_ {
        self.uncut.iter().enumerate().filter_map(|(n, uncut)| uncut.then_some(n))
    }

    /// The span that holds that place of a section; its end and the padding behind it count as
    /// part of it.
    pub fn span_at(&self, section: usize, offset: u64) -> Option<SpanId> {
        let range = self.by_section.get(section)?.clone();
        let spans = self.spans.get(range.clone())?;
        let below = spans.partition_point(|s| s.offset <= offset);
        Some(range.start + below.checked_sub(1)?)
    }

    /// What a reference leads to: `target_offset` bytes from that symbol.
    pub fn resolve(&self, symbol: u32, target_offset: i64) -> Target {
        let Some(symbol) = self.symbols.get(symbol as usize) else { return Target::Nowhere };
        let section = match symbol.place {
            SymbolPlace::Undefined => return Target::Undefined,
            SymbolPlace::Absolute => return Target::Absolute,
            SymbolPlace::Section(section) => section,
        };
        let place = symbol.value.wrapping_add_signed(target_offset);
        // A named symbol names its object, wherever the reference points; a section symbol
        // names nothing, so the place itself decides.
        let by = if symbol.kind == STT_SECTION.0 { place } else { symbol.value };
        let end = self.sections.get(section).map_or(0, |s| s.size);
        let behind = by.cast_signed().saturating_sub_unsigned(end);
        let by = if behind > FAR || by.cast_signed() < -FAR {
            // Which part of it is the place, only a section of a single object tells.
            match self.only_object(section) {
                Some(offset) => offset,
                None => return Target::Nowhere,
            }
        } else {
            u64::try_from(by.cast_signed()).unwrap_or(0)
        };
        match self.span_at(section, by).map(|id| (id, self.spans.get(id))) {
            Some((id, Some(span))) => {
                Target::Span { id, offset: place.wrapping_sub(span.offset).cast_signed() }
            }
            _ => Target::Nowhere,
        }
    }

    /// Where the object of a data section is that holds no other.
    fn only_object(&self, section: usize) -> Option<u64> {
        let spans = self.spans.get(self.by_section.get(section)?.clone())?;
        match spans {
            [only] if only.kind == SpanKind::Data && !self.is_code(only) => Some(only.offset),
            _ => None,
        }
    }

    /// What a relocation of a span refers to: of an entry's owner the place counts, whichever symbol
    /// of the section stands there (recordmcount.c takes the first).
    pub fn refers(&self, span: SpanId, reloc: &Reloc, target_offset: i64) -> Target {
        if self.is_owner(span, reloc)
            && let Some((id, offset)) = self.owner(span)
        {
            return Target::Span { id, offset: offset.cast_signed() };
        }
        self.resolve(reloc.symbol, target_offset)
    }

    fn is_owner(&self, span: SpanId, reloc: &Reloc) -> bool {
        self.spans.get(span).is_some_and(|s| {
            s.kind == SpanKind::Entry
                && self.special(s.section).is_some_and(|row| {
                    row.role.has_owner() && s.offset.checked_add(row.owner) == Some(reloc.offset)
                })
        })
    }

    /// A span's relocations; offsets count from the start of its section.
    pub fn relocs_of(&self, span: SpanId) -> &[Reloc] {
        let Some(span) = self.spans.get(span) else { return &[] };
        let Some(section) = self.sections.get(span.section) else { return &[] };
        let from = section.relocs.partition_point(|r| r.offset < span.offset);
        let end = span.offset.saturating_add(span.size);
        let to = section.relocs.partition_point(|r| r.offset < end);
        section.relocs.get(from..to).unwrap_or_default()
    }

    /// A span's bytes; empty for data that the file does not hold.
    pub fn bytes_of(&self, span: &Span) -> &[u8] {
        let from = usize::try_from(span.offset).unwrap_or(usize::MAX);
        let len = usize::try_from(span.size).unwrap_or(usize::MAX);
        self.sections
            .get(span.section)
            .and_then(|s| s.data.get(from..from.checked_add(len)?))
            .unwrap_or_default()
    }

    /// The spans of a section.
    pub(crate) fn spans_of(&self, section: usize) -> std::ops::Range<SpanId> {
        self.by_section.get(section).cloned().unwrap_or_default()
    }

    /// Whether a span's bytes are instructions.
    pub fn is_code(&self, span: &Span) -> bool {
        self.sections.get(span.section).is_some_and(|s| s.flags & SHF_EXECINSTR.0 != 0)
    }

    /// Whether the symbol that names a span is weak, so that another unit's may stand in its stead.
    pub fn is_weak(&self, span: &Span) -> bool {
        let symbol = span.symbol.and_then(|symbol| self.symbols.get(symbol as usize));
        symbol.is_some_and(|symbol| symbol.binding == STB_WEAK.0)
    }

    /// A section's symbol, with its index.
    pub fn section_symbol(&self, section: usize) -> Option<(u32, &Symbol)> {
        self.symbols
            .iter()
            .enumerate()
            .find(|(_, s)| s.kind == STT_SECTION.0 && s.place == SymbolPlace::Section(section))
            .map(|(index, s)| (index as u32, s))
    }

    /// The last named symbol of a section that is not behind a place of it, with its index; a global
    /// one before all others.
    pub fn symbol_below(&self, section: usize, place: u64) -> Option<(u32, &Symbol)> {
        let named = |s: &Symbol| s.place == SymbolPlace::Section(section) && !s.name.is_empty();
        self.symbols
            .iter()
            .enumerate()
            .filter(|(_, s)| named(s) && s.value <= place)
            .max_by_key(|(_, s)| (s.binding != STB_LOCAL.0, s.value))
            .map(|(index, s)| (index as u32, s))
    }

    /// What an entry is about: the span and the offset in it.
    pub fn owner(&self, entry: SpanId) -> Option<(SpanId, u64)> {
        let span = self.spans.get(entry)?;
        let row = self.special(span.section)?;
        if let Role::Parallel { .. } = row.role {
            return self.owner(self.parallel(entry)?);
        }
        let at = span.offset.checked_add(row.owner)?;
        let reloc = self.relocs_of(entry).iter().find(|r| r.offset == at)?;
        let symbol = self.symbols.get(reloc.symbol as usize)?;
        let SymbolPlace::Section(section) = symbol.place else { return None };
        let place = symbol.value.checked_add_signed(reloc.addend)?;
        let id = self.span_at(section, place)?;
        Some((id, place.checked_sub(self.spans.get(id)?.offset)?))
    }

    /// For an entry of a table that runs parallel to another: the other's entry.
    pub fn parallel(&self, entry: SpanId) -> Option<SpanId> {
        let span = self.spans.get(entry)?;
        let other = (*self.beside.get(span.section)?)?;
        let number = entry.checked_sub(self.by_section.get(span.section)?.start)?;
        let range = self.by_section.get(other)?;
        Some(range.start + number).filter(|id| range.contains(id))
    }

    /// The entries that are about a span, in order of the offset that they are about.
    pub fn entries_of(&self, span: SpanId) -> &[(u64, SpanId)] {
        self.about.get(span).map(Vec::as_slice).unwrap_or_default()
    }

    /// Hands the span's bytes, relocations and dynamic entries to `f` as one [`Code`]; the
    /// relocations' keys are symbol indexes.
    pub fn with_code<R>(
        &self,
        arch: &dyn Arch,
        span: SpanId,
        f: impl FnOnce(&Code<'_>) -> R,
    ) -> Result<R, UnitError> {
        let _ = arch;
        let this = self.spans.get(span).ok_or_else(|| UnitError::Malformed {
            unit: self.name.clone(),
            why: format!("it has no span {span}"),
        })?;
        let entries: Vec<RawEntry<'_>> = self
            .entries_of(span)
            .iter()
            .filter_map(|(offset, id)| self.raw_entry(span, *offset, *id))
            .collect();
        let inner: Vec<Vec<Entry<'_>>> = entries.iter().map(RawEntry::inner).collect();
        let replacements: Vec<Option<Code<'_>>> =
            entries.iter().zip(&inner).map(|(raw, inner)| raw.replacement_code(inner)).collect();
        let entries: Vec<Entry<'_>> = entries
            .iter()
            .zip(&replacements)
            .map(|(raw, replacement)| raw.entry(replacement.as_ref()))
            .collect();
        let relocs = self.code_relocs(span);
        Ok(f(&Code {
            name: &this.name,
            bytes: self.bytes_of(this),
            relocs: &relocs,
            entries: &entries,
        }))
    }

    fn code_relocs(&self, span: SpanId) -> Vec<CodeReloc<'_>> {
        let start = self.spans.get(span).map_or(0, |s| s.offset);
        self.relocs_of(span)
            .iter()
            .map(|r| CodeReloc {
                offset: r.offset.wrapping_sub(start),
                r_type: r.r_type,
                symbol: self.symbols.get(r.symbol as usize).map_or("", |s| s.name.as_str()),
                key: r.symbol,
                addend: r.addend,
                inside: self.spans.get(span).and_then(|span| self.inside(span, r)),
            })
            .collect()
    }

    /// The offset in a span of code of a relocation's symbol, if that is a place in it.
    pub(crate) fn inside(&self, span: &Span, reloc: &Reloc) -> Option<u64> {
        let symbol = self.symbols.get(reloc.symbol as usize)?;
        let within = symbol.place == SymbolPlace::Section(span.section) && self.is_code(span);
        symbol.value.checked_sub(span.offset).filter(|offset| within && *offset <= span.size)
    }

    /// The entries that are about a replacement, but for those that have one themselves.
    fn plain_entries(&self, replacement: SpanId) -> Vec<RawEntry<'_>> {
        let plain = |id: &SpanId| {
            !self.relocs_of(*id).iter().any(|reloc| {
                match self.resolve(reloc.symbol, reloc.addend) {
                    Target::Span { id: to, .. } => self.replaces(to, replacement).is_some(),
                    _ => false,
                }
            })
        };
        self.entries_of(replacement)
            .iter()
            .filter(|(_, id)| plain(id))
            .filter_map(|(offset, id)| self.raw_entry(replacement, *offset, *id))
            .collect()
    }

    fn is_payload(&self, span: SpanId) -> bool {
        self.spans
            .get(span)
            .and_then(|span| self.special(span.section))
            .is_some_and(|row| row.role == Role::Payload)
    }

    /// Whether what an entry about `code` names is a replacement for it, and where.
    fn replaces(&self, to: SpanId, code: SpanId) -> Option<Where> {
        if to == code {
            return None;
        }
        let (target, code) = (self.spans.get(to)?, self.spans.get(code)?);
        // In the function's own section, behind it.
        let behind = target.kind == SpanKind::Anonymous
            && target.section == code.section
            && self.is_code(target);
        match behind {
            true => Some(Where::Behind),
            false => self.is_payload(to).then_some(Where::Apart),
        }
    }

    fn raw_entry(&self, code: SpanId, offset: u64, id: SpanId) -> Option<RawEntry<'_>> {
        let span = self.spans.get(id)?;
        let row = self.special(span.section)?;
        if !row.role.is_rewritten() {
            return None;
        }
        let mut entry = RawEntry {
            section: self.sections.get(span.section)?.name.as_str(),
            offset,
            data: self.bytes_of(span),
            relocs: self.code_relocs(id),
            replacement: None,
            target: None,
        };
        for reloc in self.relocs_of(id) {
            if reloc.offset == span.offset + row.owner {
                continue;
            }
            let Target::Span { id: to, offset } = self.resolve(reloc.symbol, reloc.addend) else {
                continue;
            };
            if let Some(place) = self.replaces(to, code) {
                let target = self.spans.get(to)?;
                entry.replacement = Some(RawCode {
                    name: target.name.as_str(),
                    bytes: self.bytes_of(target),
                    relocs: self.code_relocs(to),
                    entries: self.plain_entries(to),
                });
                if place == Where::Behind {
                    let function = self.spans.get(code)?;
                    entry.target = target.offset.checked_sub(function.offset);
                }
            } else if to == code {
                entry.target = u64::try_from(offset).ok();
            }
        }
        Some(entry)
    }
}

/// Where a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Behind,
    Apart,
}

/// An entry before its parts are put together.
struct RawEntry<'a> {
    section: &'a str,
    offset: u64,
    data: &'a [u8],
    relocs: Vec<CodeReloc<'a>>,
    replacement: Option<RawCode<'a>>,
    target: Option<u64>,
}

/// A replacement before its parts are put together.
struct RawCode<'a> {
    name: &'a str,
    bytes: &'a [u8],
    relocs: Vec<CodeReloc<'a>>,
    entries: Vec<RawEntry<'a>>,
}

impl RawEntry<'_> {
    /// The entries about the replacement.
    fn inner(&self) -> Vec<Entry<'_>> {
        let entries = self.replacement.as_ref().map_or(&[][..], |code| &code.entries);
        entries.iter().map(|raw| raw.entry(None)).collect()
    }

    fn replacement_code<'r>(&'r self, entries: &'r [Entry<'r>]) -> Option<Code<'r>> {
        let RawCode { name, bytes, relocs, .. } = self.replacement.as_ref()?;
        Some(Code { name, bytes, relocs, entries })
    }

    fn entry<'r>(&'r self, replacement: Option<&'r Code<'r>>) -> Entry<'r> {
        Entry {
            section: self.section,
            offset: self.offset,
            data: self.data,
            relocs: &self.relocs,
            replacement,
            target: self.target,
        }
    }
}
