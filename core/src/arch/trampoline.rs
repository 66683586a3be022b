// SPDX-License-Identifier: GPL-2.0-or-later
//! `TrampolineEncoder`: the jump at an old function's entry.
//!
//! The kernel side knows no processor: it gets the template's bytes and fixups, and computes for
//! each fixup `((target - origin + add) >> shift) & mask(bits)`, stored at bit `position` of a
//! little-endian word; `origin` is `site + bias`, rounded down to a multiple of `granule`.

use super::{ArchError, Code};

/// Where in a function a trampoline may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Offset from the function's start, in bytes.
    pub offset: u64,
    /// Length in bytes: the template's.
    pub len: u64,
}

/// Why a function cannot take a trampoline, as a sentence's fragment ("… is 3 bytes long, a jump
/// needs 5").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom(pub String);

/// One generic bit-field fixup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitField {
    /// Offset of the word in the template, in bytes.
    pub word: u8,
    /// Size of the little-endian word: 1, 2, 4 or 8 bytes.
    pub size: u8,
    /// Added to the displacement before shifting (rounding of paired fields).
    pub add: i64,
    /// Arithmetic right shift.
    pub shift: u8,
    /// Number of bits kept.
    pub bits: u8,
    /// Lowest bit of the field in the word.
    pub position: u8,
}

/// A trampoline before its displacement is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The bytes, displacement fields zero; at most 16.
    pub bytes: Vec<u8>,
    /// How the displacement goes in; at most 4.
    pub fields: Vec<BitField>,
    /// Added to the site's address before it is subtracted from the target's.
    pub bias: i64,
    /// What the sum is rounded down to a multiple of, in bytes: a power of two; 1 where displacements
    /// count from the address itself, a page's size where they count from its page.
    pub granule: u32,
    /// The displacement must fit a signed number of that many bits.
    pub range_bits: u8,
}

/// Encoding and recognising trampolines.
pub trait TrampolineEncoder: Send + Sync {
    /// Where in `pre` a trampoline may stand: after the landing pad and the ftrace site, off
    /// every place of `live` (ranges of offset and length that the kernel may rewrite while it
    /// runs), and within the function and the `padding` bytes that are proven to follow it.
    fn site(
        &self,
        pre: &Code<'_>,
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError>;

    /// The template for a jump.
    fn template(&self) -> Template;

    /// If `bytes`, standing at `address`, are a trampoline: where it leads.
    fn recognise(&self, bytes: &[u8], address: u64) -> Option<u64>;
}
