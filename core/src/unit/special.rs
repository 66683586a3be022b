// SPDX-License-Identifier: GPL-2.0-or-later
//! Special sections: tables in which each entry is about a place in some function.

/// How long an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntrySize {
    /// Always that many bytes.
    Fixed(u64),
    /// It depends on the kernel's version: the distance from one owner relocation to the next.
    FromRelocations,
    /// The section header's `sh_entsize`.
    FromHeader,
    /// The section is not cut: it belongs as a whole to what it is linked to.
    Whole,
}

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Travels with the function that its owner relocation points into, and describes a place
    /// that the kernel may rewrite there: handed to the architecture as an entry of the code.
    Dynamic,
    /// Travels with the function that its owner relocation points into.
    Travels,
    /// Holds code or data that entries refer to; travels when referred to.
    Payload,
    /// Is made again for the module by its build, or means nothing at run time.
    Dropped,
}

/// A row of the table of special sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialSection {
    /// Name; a trailing `*` stands for any rest.
    pub name: &'static str,
    /// How it is cut.
    pub size: EntrySize,
    /// Offset in the entry of the relocation that points at the place which the entry is about.
    pub owner: u64,
    /// What happens to its entries.
    pub role: Role,
}

/// The special sections that every kernel may have.
pub fn generic_special_sections() -> &'static [SpecialSection] {
    &[]
}
