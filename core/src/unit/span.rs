// SPDX-License-Identifier: GPL-2.0-or-later
//! Spans: the pieces that a unit's sections are cut into.

use object::elf::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, SHT_NULL, SHT_RELA, SHT_STRTAB, SHT_SYMTAB,
    STB_LOCAL, STB_WEAK, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_SECTION,
};

use super::{Role, Section, Symbol, SymbolPlace, Unit, payload, special, table};
use crate::arch::Arch;

/// Index into [`super::Unit::spans`].
pub type SpanId = usize;

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanKind {
    /// A function, or a split-off part of one.
    Function,
    /// A data object.
    Data,
    /// A string of a mergeable string section.
    String,
    /// A constant of a mergeable constant section.
    Constant,
    /// An entry of a special section.
    Entry,
    /// Bytes that no symbol covers, but that are not padding.
    Anonymous,
}

/// A piece of a section.
#[derive(Debug, Clone)]
pub struct Span {
    /// What it is.
    pub kind: SpanKind,
    /// Index of its section.
    pub section: usize,
    /// Offset in the section, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// Index of the symbol that names it, where one does: the strongest at its start (function or
    /// object before untyped, global before local, and a weak one, which may be another unit's, last).
    pub symbol: Option<u32>,
    /// Name of that symbol, or a made-up one (section name and offset) for messages.
    pub name: String,
}

/// A symbol that starts a span.
struct Start {
    value: u64,
    size: u64,
    index: u32,
    rank: (bool, u8, u64),
    code: bool,
}

/// Cuts all sections of a unit into spans and finds out which entries are about which span.
pub(super) fn cut(arch: &dyn Arch, unit: &mut Unit) {
    unit.special = unit
        .sections
        .iter()
        .map(|s| if is_table(s.sh_type) { special::row_for(arch, &s.name) } else { None })
        .collect();
    table::beside(unit);
    let tables = table::bounds(unit);
    payload::empty_replacements(arch, unit, &tables);
    unit.uncut = tables.iter().map(|bounds| bounds == &table::Bounds::Unclear).collect();
    let mut starts: Vec<Vec<Start>> = unit.sections.iter().map(|_| Vec::new()).collect();
    for (index, symbol) in unit.symbols.iter().enumerate() {
        if let SymbolPlace::Section(section) = symbol.place
            && !symbol.name.is_empty()
            && symbol.kind != STT_SECTION.0
            && !is_mapping_symbol(symbol)
            && !is_label(symbol)
            && let Some(list) = starts.get_mut(section)
        {
            let strength = match symbol.binding {
                binding if binding == STB_WEAK.0 => 0,
                binding if binding == STB_LOCAL.0 => 1,
                _ => 2,
            };
            let typed = symbol.kind == STT_FUNC.0 || symbol.kind == STT_OBJECT.0;
            list.push(Start {
                value: symbol.value,
                size: symbol.size,
                index: index as u32,
                rank: (typed, strength, symbol.size),
                code: symbol.kind == STT_FUNC.0,
            });
        }
    }
    let payload = payload::boundaries(arch, unit, &tables);
    let mut spans = Vec::new();
    let mut by_section = Vec::new();
    for (index, (section, starts)) in unit.sections.iter().zip(starts).enumerate() {
        let first = spans.len();
        let loaded = section.flags & SHF_ALLOC.0 != 0;
        let replaced = payload.get(index).map(Vec::as_slice).unwrap_or_default();
        match unit.special.get(index).copied().flatten().map(|row| row.role) {
            // What the build's tools are told is not loaded.
            Some(Role::Annotates) => {
                cut_table(&mut spans, index, section, tables.get(index));
            }
            _ if !loaded => {}
            Some(Role::Dropped | Role::Frozen) => {}
            Some(Role::Payload) => {
                cut_at(&mut spans, index, section, replaced, SpanKind::Anonymous);
            }
            Some(Role::Ids) => cut_at(&mut spans, index, section, &[], SpanKind::Data),
            None | Some(Role::Data | Role::Listed | Role::Placed) => {
                cut_ordinary(&mut spans, index, section, starts, replaced, unit);
            }
            Some(
                Role::Dynamic | Role::Boot | Role::Stays | Role::Travels | Role::Parallel { .. },
            ) => {
                cut_table(&mut spans, index, section, tables.get(index));
            }
        }
        by_section.push(first..spans.len());
    }
    unit.spans = spans;
    unit.by_section = by_section;
    unit.about = about(unit);
}

/// Whether a symbol only says what kind of bytes follow (`$x`, `$d`, also with something behind
/// it): it names nothing. The kernel's own list leaves them out (`is_mapping_symbol`,
/// include/linux/module_symbol.h).
fn is_mapping_symbol(symbol: &Symbol) -> bool {
    symbol.kind == STT_NOTYPE.0
        && symbol.binding == STB_LOCAL.0
        && symbol.name.strip_prefix('$').is_some_and(|rest| rest.starts_with(['a', 'd', 't', 'x']))
}

/// Whether a symbol is a label of the compiler's or the assembler's own (`.L…`): most assemblers
/// leave them out, others need them for relocations between places. It names nothing.
fn is_label(symbol: &Symbol) -> bool {
    symbol.kind == STT_NOTYPE.0 && symbol.binding == STB_LOCAL.0 && symbol.name.starts_with(".L")
}

pub(super) fn is_table(sh_type: u32) -> bool {
    ![SHT_SYMTAB.0, SHT_STRTAB.0, SHT_RELA.0, SHT_NULL.0].contains(&sh_type)
}

fn cut_table(
    spans: &mut Vec<Span>,
    index: usize,
    section: &Section,
    bounds: Option<&table::Bounds>,
) {
    if let Some(table::Bounds::Entries(at)) = bounds {
        cut_at(spans, index, section, at, SpanKind::Entry);
    }
}

fn cut_at(spans: &mut Vec<Span>, index: usize, section: &Section, bounds: &[u64], kind: SpanKind) {
    if section.size == 0 {
        return;
    }
    let mut at: Vec<u64> = bounds.iter().copied().filter(|b| *b < section.size).collect();
    if at.first() != Some(&0) {
        at.insert(0, 0);
    }
    at.dedup();
    for (n, start) in at.iter().enumerate() {
        let end = at.get(n + 1).copied().unwrap_or(section.size);
        spans.push(unnamed(kind, index, section, *start, end));
    }
}

fn unnamed(kind: SpanKind, index: usize, section: &Section, start: u64, end: u64) -> Span {
    Span {
        kind,
        section: index,
        offset: start,
        size: end - start,
        symbol: None,
        name: format!("{}+{start:#x}", section.name),
    }
}

fn cut_ordinary(
    spans: &mut Vec<Span>,
    index: usize,
    section: &Section,
    mut starts: Vec<Start>,
    replacements: &[u64],
    unit: &Unit,
) {
    let has = |flag: u64| section.flags & flag != 0;
    if has(SHF_MERGE.0) && has(SHF_STRINGS.0) {
        let bounds = string_boundaries(section);
        return cut_at(spans, index, section, &bounds, SpanKind::String);
    }
    if has(SHF_MERGE.0) && section.entsize > 0 {
        let bounds: Vec<u64> =
            (0..section.size.div_ceil(section.entsize)).map(|n| n * section.entsize).collect();
        return cut_at(spans, index, section, &bounds, SpanKind::Constant);
    }
    let executable = has(SHF_EXECINSTR.0);
    // At one place the strongest symbol names the span.
    starts.sort_by(|a, b| {
        a.value.cmp(&b.value).then(b.rank.cmp(&a.rank)).then(a.index.cmp(&b.index))
    });
    starts.dedup_by_key(|s| s.value);
    // An object of size zero (a lock's class key, say) may stand at the very end.
    starts.retain(|s| s.value < section.size || (s.value == section.size && s.rank.0));
    let mut end = 0;
    for (n, start) in starts.iter().enumerate() {
        if start.value < end {
            // A label inside the span before.
            continue;
        }
        gap(spans, index, section, end..start.value, executable, replacements);
        let next = starts.get(n + 1).map_or(section.size, |s| s.value);
        let size = match start.size {
            0 => next - start.value,
            size => size.min(section.size - start.value),
        };
        let Some(symbol) = unit.symbols.get(start.index as usize) else { continue };
        spans.push(Span {
            kind: if executable || start.code { SpanKind::Function } else { SpanKind::Data },
            section: index,
            offset: start.value,
            size,
            symbol: Some(start.index),
            name: symbol.name.clone(),
        });
        end = start.value + size;
    }
    gap(spans, index, section, end..section.size, executable, replacements);
}

/// Bytes that no symbol covers: padding is left out, and what entries refer to is cut into
/// pieces.
fn gap(
    spans: &mut Vec<Span>,
    index: usize,
    section: &Section,
    range: std::ops::Range<u64>,
    executable: bool,
    replacements: &[u64],
) {
    let (start, end) = (range.start, range.end);
    if start >= end {
        return;
    }
    if let Some(first) = replacements.iter().copied().find(|r| range.contains(r)) {
        gap(spans, index, section, start..first, executable, &[]);
        let mut at: Vec<u64> = replacements.iter().copied().filter(|r| range.contains(r)).collect();
        at.push(end);
        for pair in at.windows(2) {
            if let [from, to] = pair {
                spans.push(unnamed(SpanKind::Anonymous, index, section, *from, *to));
            }
        }
        return;
    }
    let from = section.relocs.partition_point(|r| r.offset < start);
    let relocated = section.relocs.get(from).is_some_and(|r| r.offset < end);
    let bytes = section.data.get(start as usize..end as usize).unwrap_or_default();
    let padding = start > 0
        && !relocated
        && end - start < section.align.max(16)
        && (executable || bytes.iter().all(|b| *b == 0));
    if !padding {
        spans.push(unnamed(SpanKind::Anonymous, index, section, start, end));
    }
}

fn string_boundaries(section: &Section) -> Vec<u64> {
    let width = usize::try_from(section.entsize.max(1)).unwrap_or(1);
    let mut bounds = vec![0];
    for (n, character) in section.data.chunks(width).enumerate() {
        if character.iter().all(|b| *b == 0) {
            bounds.push(((n + 1) * width) as u64);
        }
    }
    bounds
}

/// Which entries are about which span.
fn about(unit: &Unit) -> Vec<Vec<(u64, SpanId)>> {
    let mut about: Vec<Vec<(u64, SpanId)>> = vec![Vec::new(); unit.spans.len()];
    for (id, span) in unit.spans.iter().enumerate() {
        if span.kind != SpanKind::Entry {
            continue;
        }
        if let Some((owner, offset)) = unit.owner(id)
            && let Some(list) = about.get_mut(owner)
        {
            list.push((offset, id));
        }
    }
    for list in &mut about {
        list.sort_unstable();
    }
    about
}
