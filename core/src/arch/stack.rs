// SPDX-License-Identifier: GPL-2.0-or-later
//! `StackSafety`: which ranges must be free of threads, and how a stack word is read.

/// How the kernel side reads a word of a stack before it compares it with a range of text:
/// `(word & !clear) | set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackWord {
    /// Bits that may hold something else than the address (an authentication code).
    pub clear: u64,
    /// Bits that a kernel address always has set among them.
    pub set: u64,
}

/// A function in which some thread always sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverQuiescent {
    /// The function's name.
    pub name: &'static str,
    /// Why, as a fragment ("every sleeping thread is in it").
    pub why: &'static str,
}

/// Stack-safety policy.
pub trait StackSafety: Send + Sync {
    /// How a stack word is read.
    fn word(&self) -> StackWord {
        StackWord { clear: 0, set: 0 }
    }

    /// Size in bytes below which a function cannot be patched, padding included.
    fn minimum_size(&self) -> u64;

    /// Functions of this architecture that never quiesce; the engine knows the generic ones.
    fn never_quiescent(&self) -> &'static [NeverQuiescent];

    /// Which part of an old function must be free of threads, as offset and length: by default
    /// all of it. `size` is the part's size in bytes, `borrowed` the padding that the site uses.
    fn busy_range(&self, size: u64, borrowed: u64) -> (u64, u64) {
        (0, size.saturating_add(borrowed))
    }
}
