// SPDX-License-Identifier: GPL-2.0-or-later
//! Spans: the pieces that a unit's sections are cut into.

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
    /// Index of the symbol that names it, where one does: the strongest at its start (global
    /// before local, function or object before untyped).
    pub symbol: Option<u32>,
    /// Name of that symbol, or a made-up one (section name and offset) for messages.
    pub name: String,
}
