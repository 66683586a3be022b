// SPDX-License-Identifier: GPL-2.0-or-later
//! One stretch of code as a backend sees it: bytes, relocations, special entries.

/// A relocation inside a [`Code`] or an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeReloc<'a> {
    /// Offset of the field in bytes from the start of the code (or of the entry's data).
    pub offset: u64,
    /// ELF relocation type number.
    pub r_type: u32,
    /// Name of the symbol, empty for a section symbol.
    pub symbol: &'a str,
    /// What names the symbol within the unit: its index in the symbol table. Relocations with
    /// equal `key` have the same symbol value, but for the section symbol of a mergeable section,
    /// whose pieces the linker moves apart.
    pub key: u32,
    /// Explicit addend in bytes.
    pub addend: i64,
    /// If the symbol is a place in the very code: its offset from the code's start. A backend
    /// whose relocations come in pairs finds the other one by it. `None` in an [`Entry`].
    pub inside: Option<u64>,
}

/// An entry of a special section that concerns a stretch of code: an alternative, a jump label,
/// a return site, an ftrace site…
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name of the section that the entry stands in.
    pub section: &'a str,
    /// Offset in the code of the place that the entry is about.
    pub offset: u64,
    /// The entry's bytes.
    pub data: &'a [u8],
    /// The entry's relocations; offsets count from the start of `data`.
    pub relocs: &'a [CodeReloc<'a>],
    /// Code that the entry refers to and that the kernel may copy over the place (an
    /// alternative's replacement), when there is one.
    pub replacement: Option<&'a Code<'a>>,
    /// For a relocation of the entry that points into the same code again (a jump label's
    /// target): that offset. If the replacement lies behind the code in its very section, so
    /// that branches between the two need no relocation: the replacement's offset from the
    /// code's start.
    pub target: Option<u64>,
}

/// A stretch of code: a function, one of its split-off parts, or a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code<'a> {
    /// Symbol name.
    pub name: &'a str,
    /// The bytes as the object file has them.
    pub bytes: &'a [u8],
    /// Relocations, sorted by offset.
    pub relocs: &'a [CodeReloc<'a>],
    /// Special entries, sorted by offset.
    pub entries: &'a [Entry<'a>],
}
