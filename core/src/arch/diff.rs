// SPDX-License-Identifier: GPL-2.0-or-later
//! `FunctionDiff`: is this the same code, and is this running text that code?

use super::{ArchError, Code};

/// Where and how two stretches of code differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Offset in the pre code of the first instruction that differs, in bytes.
    pub pre_offset: u64,
    /// Offset in the post code of the first instruction that differs, in bytes.
    pub post_offset: u64,
    /// That instruction before, disassembled (empty at the end of the code).
    pub pre: String,
    /// That instruction after, disassembled (empty at the end of the code).
    pub post: String,
}

/// Answer of [`FunctionDiff::compare`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// All bits that no relocation owns are equal, and relocations that store the same stand at
    /// equal offsets. What they refer to is for the engine to compare.
    Same,
    /// The code differs, first here.
    Changed(Difference),
    /// The backend cannot tell; the engine refuses.
    CannotJudge(String),
}

/// A constant that a call is given as an argument, before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// Offset in the code of the instruction that loads it, in bytes.
    pub offset: u64,
    /// The constant before.
    pub pre: u64,
    /// The constant after.
    pub post: u64,
    /// If the argument before it in the list of the same call is an address: the offset of the
    /// relocation's field that makes it, in bytes.
    pub previous: Option<u64>,
}

/// A question about the running kernel that a backend may ask while it matches.
pub trait KernelView {
    /// Run-time addresses of every symbol of that name; empty if there is none.
    fn addresses(&self, name: &str) -> Vec<u64>;
    /// Whether a function symbol starts at that address.
    fn is_function(&self, address: u64) -> bool;
    /// Whether the address lies in kernel or module text.
    fn is_text(&self, address: u64) -> bool;
    /// Reads `buf.len()` bytes at `address`; false if any of them cannot be read.
    fn read(&self, address: u64, buf: &mut [u8]) -> bool;
    /// Whether the kernel has been started. If not, its text is as its build left it: nothing has been
    /// replaced, patched or traced yet.
    fn is_started(&self) -> bool {
        true
    }
}

/// Running text that is to be compared with a [`Code`]: as many bytes as the code has.
#[derive(Debug, Clone, Copy)]
pub struct RunCode<'a> {
    /// Run-time address of the first byte.
    pub address: u64,
    /// The bytes found there.
    pub bytes: &'a [u8],
    /// The symbol of the section that the code is in, if it has one: its key in relocations, and the
    /// value that it has if the code is at that address.
    pub section: Option<(u32, u64)>,
}

/// A symbol value that the running text gave away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The relocation's `key`.
    pub key: u32,
    /// The symbol's run-time value (S in psABI terms).
    pub value: u64,
    /// Offset in the code of the field that it was read from, in bytes.
    pub offset: u64,
}

/// Part of a symbol value: what a field gives away that holds only some bits of an address (its
/// page, say, or its place within the page). With S the symbol's run-time value,
/// `(S + bias) & known == value`.
///
/// A backend puts parts together where it can, and then reports a [`Learned`] for each of their
/// fields instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// The relocation's `key`.
    pub key: u32,
    /// Added to the symbol's value: the addend, less the place's address if that is subtracted.
    pub bias: u64,
    /// The bits that are known.
    pub known: u64,
    /// What they are; no other bit is set.
    pub value: u64,
    /// Offset in the code of the field that it was read from, in bytes.
    pub offset: u64,
}

/// How often a rule explained bytes, for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule's name, e.g. `alternative`, `ftrace site off`.
    pub rule: &'static str,
    /// Number of places.
    pub places: u32,
    /// Number of bytes.
    pub bytes: u32,
}

/// A place in running text that no rule explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Offset of the first unexplained byte's instruction or site, in bytes.
    pub offset: u64,
    /// What was expected there.
    pub expected: Vec<u8>,
    /// What was found there.
    pub found: Vec<u8>,
    /// The nearest rule that failed, and why, as a fragment ("no replacement of the alternative
    /// fits").
    pub why: String,
    /// Whether the place looks like a probe that is set just now (busy rather than wrong).
    pub probed: bool,
    /// Whether the only fault is that the toolchain, without function sections, laid the same
    /// code out otherwise: with a shorter branch to a neighbouring function, or with other nops
    /// to align what follows. Not proven, but not foreign code either.
    pub short_branch: bool,
}

/// Answer of [`FunctionDiff::match_running`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMatch {
    /// Every byte is explained.
    Matched {
        /// Symbol values, one per relocation read.
        learned: Vec<Learned>,
        /// Parts of symbol values, for relocations that give away no more.
        partial: Vec<Partial>,
        /// Rules that explained bytes which differ from the object's.
        rules: Vec<RuleCount>,
        /// Ranges of offsets (start, length) that the kernel may rewrite while it runs: jump
        /// labels, static calls, ftrace sites. A trampoline must keep off them.
        live: Vec<(u64, u64)>,
    },
    /// Some byte is not.
    Refused(Mismatch),
}

/// Comparing code with code, and code with running text.
pub trait FunctionDiff: Send + Sync {
    /// Compares two stretches of code, special entries aside.
    ///
    /// Promises never to answer [`Verdict::Same`] for code that a processor could tell apart
    /// once equal symbols have equal values.
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError>;

    /// If constants that calls are given as arguments, and that serve for nothing else, are all that
    /// differs between two stretches of code: those that differ. `None` also if the backend does
    /// not tell.
    ///
    /// Promises that with each of them replaced by the other's [`Self::compare`] would say
    /// [`Verdict::Same`].
    fn arguments(
        &self,
        _pre: &Code<'_>,
        _post: &Code<'_>,
    ) -> Result<Option<Vec<Argument>>, ArchError> {
        Ok(None)
    }

    /// Compares object code with running text of the same length, knowing what the boot and the
    /// running kernel may have done at each special entry.
    ///
    /// Promises that in [`RunMatch::Matched`] every byte is either equal, or belongs to a
    /// relocation whose value is in `learned` or `partial`, or is a legitimate form of a listed entry.
    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError>;

    /// Disassembles up to `count` instructions at `address`, one line each. Bytes that are no
    /// instruction are shown as such.
    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String>;

    /// Whether a processor that has executed the code's last instruction may go on behind it.
    /// A backend that does not tell is taken to say so.
    fn runs_on(&self, _code: &Code<'_>) -> bool {
        true
    }

    /// Whether the bytes are nothing but padding between functions.
    fn is_padding(&self, bytes: &[u8]) -> bool;
}
