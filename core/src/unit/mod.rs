// SPDX-License-Identifier: GPL-2.0-or-later
//! The object model: one compiled unit, read from its ELF relocatable object.
//!
//! A [`Unit`] owns everything; sections are cut into [`Span`]s (a function, a data object, a
//! string, a special entry), and every relocation target is resolved to a place in a span or to
//! an undefined symbol. Nothing here compares or decides.

mod counterpart;
mod linked;
mod payload;
mod read;
mod sections;
mod settled;
mod span;
mod special;
mod table;
mod view;

pub use span::{Span, SpanId, SpanKind};
pub use special::{EntrySize, Role, SpecialSection, generic_special_sections};

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not an ELF relocatable object of a form that the engine reads.
    #[error("{unit} is not a readable object: {why}")]
    Malformed {
        /// The unit's name.
        unit: String,
        /// What is wrong.
        why: String,
    },
    /// The backend could not answer.
    #[error("{unit}: {source}")]
    Arch {
        /// The unit's name.
        unit: String,
        /// The backend's error.
        #[source]
        source: crate::arch::ArchError,
    },
}

/// A section of a unit.
#[derive(Debug, Clone)]
pub struct Section {
    /// Name.
    pub name: String,
    /// ELF `sh_type`.
    pub sh_type: u32,
    /// ELF `sh_flags`.
    pub flags: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// ELF `sh_entsize`.
    pub entsize: u64,
    /// Size in bytes; larger than `data` for `SHT_NOBITS`, whose data is empty.
    pub size: u64,
    /// Contents.
    pub data: Vec<u8>,
    /// Relocations, sorted by offset.
    pub relocs: Vec<Reloc>,
}

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolPlace {
    /// Not in this unit.
    Undefined,
    /// A fixed value.
    Absolute,
    /// In that section (index into [`Unit::sections`]).
    Section(usize),
}

/// A symbol of a unit. Its index in [`Unit::symbols`] is its index in the ELF symbol table.
#[derive(Debug, Clone)]
pub struct Symbol {
    /// Name; empty for a section symbol.
    pub name: String,
    /// Where it is.
    pub place: SymbolPlace,
    /// Offset in its section (or the absolute value).
    pub value: u64,
    /// Size in bytes.
    pub size: u64,
    /// ELF `STT_…`.
    pub kind: u8,
    /// ELF `STB_…`.
    pub binding: u8,
    /// ELF `st_other`.
    pub other: u8,
}

/// A relocation of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloc {
    /// Offset of the field in the section, in bytes.
    pub offset: u64,
    /// ELF relocation type number.
    pub r_type: u32,
    /// Index into [`Unit::symbols`].
    pub symbol: u32,
    /// Addend in bytes.
    pub addend: i64,
}

/// One compiled unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// How the unit is called in messages: its path in the kernel tree.
    pub name: String,
    /// ELF `e_machine`.
    pub e_machine: u16,
    /// ELF `e_flags`: what the processor and the calls have to be like.
    pub e_flags: u32,
    /// All sections; the index is the ELF section index.
    pub sections: Vec<Section>,
    /// All symbols.
    pub symbols: Vec<Symbol>,
    /// All spans, in order of section and offset; a [`SpanId`] is an index.
    pub spans: Vec<Span>,
    /// For each section the rule for it, if there is one.
    special: Vec<Option<SpecialSection>>,
    /// For each section whether it is a table whose entries cannot be told apart.
    uncut: Vec<bool>,
    /// For each section that runs parallel to another: the other.
    beside: Vec<Option<usize>>,
    /// For each section the range of its spans.
    by_section: Vec<std::ops::Range<SpanId>>,
    /// For each span the entries that are about it, with the offset in the span.
    about: Vec<Vec<(u64, SpanId)>>,
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A symbol that the unit does not define.
    Undefined,
    /// A fixed value.
    Absolute,
    /// A place in a span; `offset` may be its size (its end) or, for a pointer that is
    /// computed off its object, outside it.
    Span {
        /// The span.
        id: SpanId,
        /// Offset from its start, in bytes.
        offset: i64,
    },
    /// A section that is not cut into spans (debug information, build-time tables), or a place so far
    /// out of its section that it is not known which object is meant.
    Nowhere,
}
