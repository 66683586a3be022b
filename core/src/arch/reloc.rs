// SPDX-License-Identifier: GPL-2.0-or-later
//! `RelocationFixup`: what each relocation type means, as a table.

use super::{ArchError, Code};

/// What a relocation's field is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelocKind {
    /// Target of a call or jump.
    Branch,
    /// An address, absolute or relative to the place.
    Address,
    /// Nothing is stored.
    None,
}

/// One row of a backend's relocation table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelocInfo {
    /// ELF relocation type number.
    pub r_type: u32,
    /// Its name in the psABI.
    pub name: &'static str,
    /// Size of the word that holds the field, in bytes.
    pub width: u8,
    /// Bits of that little-endian word that the relocation owns.
    pub mask: u64,
    /// Whether the place's address is subtracted.
    pub pc_relative: bool,
    /// What it is for.
    pub kind: RelocKind,
}

/// What a relocation does with a number of variable length (ULEB128, DWARF 5 section 7.6): a difference is
/// made of two of them at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uleb128 {
    /// S + A is stored.
    Set,
    /// S + A is subtracted from what was stored.
    Sub,
}

/// A reference that code makes to a place outside it, and for which there is no relocation because
/// the assembler knew the distance. It is given as the relocation that it would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Offset of the field in the code, in bytes.
    pub offset: u64,
    /// ELF relocation type number.
    pub r_type: u32,
    /// Where it leads, in bytes from the code's start.
    pub target: i64,
    /// The addend, if the symbol is the code's start.
    pub addend: i64,
}

/// Relocations: description, application, and the inverse.
pub trait RelocationFixup: Send + Sync {
    /// The table's row for a type; `None` means unknown, which the engine refuses.
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo>;

    /// What a type does whose field is a number of variable length. Only debug information has such, and
    /// only where the assembler may not settle a distance; the table does not list them.
    fn uleb128(&self, _r_type: u32) -> Option<Uleb128> {
        None
    }

    /// What a linker leaves of padding that it fits to where the code comes to lie, whatever else it
    /// is told: `addend` bytes that the assembler has left, and which then begin at `at`, counted from
    /// an address that is aligned as the section is. Nothing if the type does not mark padding.
    fn padding(&self, _at: u64, _r_type: u32, _addend: i64) -> Option<Vec<u8>> {
        None
    }

    /// The type that stores a plain absolute address of 8 bytes in data.
    fn absolute64(&self) -> u32;

    /// For each relocation of `code`, in order: how many bytes from its symbol the thing lies
    /// that it addresses. This is the addend less the bias that the processor adds for the
    /// instruction (for a field that is followed by an immediate, more than the field's size).
    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError>;

    /// The references of `code` to places outside it that have no relocation. None is right where
    /// the assembler leaves a relocation for every reference between functions.
    fn settled(&self, _code: &Code<'_>) -> Result<Vec<Settled>, ArchError> {
        Ok(Vec::new())
    }

    /// Stores symbol value `value` (S) with `addend` (A) for `place` (P) into `field`, which has
    /// the row's width; bits outside the mask are kept.
    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError>;

    /// The inverse: the symbol value (S) that `apply` must have been given for `field` to hold
    /// what it holds. For fields narrower than an address the value is sign-extended as the
    /// processor would. Where the field does not tell all bits ([`Self::recovered_bits`]), the
    /// value returned is the one for which the others are zero.
    fn recover(&self, r_type: u32, addend: i64, place: u64, field: &[u8])
    -> Result<u64, ArchError>;

    /// The bits of the sum that the relocation stores (S + A, less P if it is relative to its
    /// very place) which a field of that type tells: not all of them where an address is spread
    /// over several instructions.
    fn recovered_bits(&self, _r_type: u32) -> u64 {
        u64::MAX
    }
}
