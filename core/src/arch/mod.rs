// SPDX-License-Identifier: GPL-2.0-or-later
//! What the engine has to know about a processor: four traits and a facade that hands them out.
//!
//! An architecture crate implements the traits and registers its facade with [`register_arch!`];
//! the engine looks it up by name or by ELF machine number. Nothing in this crate names an
//! architecture, a register or a relocation type.
//!
//! Everything a backend returns is checked before it is used ([`check`]): a backend may be a
//! third party's.

pub mod check;
mod code;
mod diff;
mod registry;
mod reloc;
mod stack;
mod trampoline;

pub use code::{Code, CodeReloc, Entry};
pub use diff::{
    Argument, Difference, FunctionDiff, KernelView, Learned, Mismatch, Partial, RuleCount, RunCode,
    RunMatch, Verdict,
};
pub use registry::{ArchEntry, all, by_machine, by_name};
pub use reloc::{RelocInfo, RelocKind, RelocationFixup, Settled, Uleb128};
pub use stack::{NeverQuiescent, StackSafety, StackWord};
pub use trampoline::{BitField, NoRoom, Site, Template, TrampolineEncoder};

use crate::unit::SpecialSection;

/// Why a backend could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchError {
    /// The bytes at `offset` (from the start of the code given) are not an instruction.
    #[error("no instruction can be decoded at offset {offset:#x} of {name}")]
    Undecodable {
        /// Symbol name of the code.
        name: String,
        /// Offset in bytes.
        offset: u64,
    },
    /// A relocation type that the backend's table does not list.
    #[error("relocation type {r_type} at offset {offset:#x} of {name} is not known")]
    UnknownRelocation {
        /// Symbol name of the code.
        name: String,
        /// Offset in bytes.
        offset: u64,
        /// ELF relocation type number.
        r_type: u32,
    },
    /// A value does not fit into a relocation's field.
    #[error("value {value:#x} does not fit relocation {reloc}")]
    Range {
        /// The relocation's name.
        reloc: &'static str,
        /// The value that should have been stored.
        value: u64,
    },
    /// A relocation's field lies outside the bytes given.
    #[error("relocation field at offset {offset:#x} of {name} lies outside it")]
    Outside {
        /// Symbol name of the code.
        name: String,
        /// Offset in bytes.
        offset: u64,
    },
    /// A special-section entry does not have the form that the backend knows.
    #[error("entry of {section} for offset {offset:#x} of {name} is malformed: {why}")]
    Entry {
        /// Section name.
        section: String,
        /// Symbol name of the code.
        name: String,
        /// Offset in bytes.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// What a backend returned cannot be right.
    #[error("backend {arch} returned nonsense: {what}")]
    Nonsense {
        /// Name of the architecture.
        arch: String,
        /// What it returned.
        what: String,
    },
    /// A backend, which is a plugin, panicked instead of answering.
    #[error("backend {arch} panicked: {why}")]
    Panicked {
        /// Name of the architecture.
        arch: String,
        /// What it said, and where.
        why: String,
    },
}

/// What cannot be seen in a boot image that is the kernel's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlatImage {
    /// The number of the relocation by which a kernel that moves itself is told where its pointers lead
    /// (`R_*_RELATIVE`).
    pub relative: u32,
    /// Where a kernel is linked that does not move itself, if all of them are linked for one address.
    pub address: Option<u64>,
}

/// The facade: names, and the four traits.
pub trait Arch: Send + Sync {
    /// Name as given to `--arch` and as `uname -m` prints it.
    fn name(&self) -> &'static str;
    /// ELF `e_machine`.
    fn e_machine(&self) -> u16;
    /// Whether objects are 64-bit; the engine reads no other today.
    fn is_64(&self) -> bool {
        true
    }
    /// Whether objects are little-endian; the engine reads no other today.
    fn is_little_endian(&self) -> bool {
        true
    }
    /// The kernel's own name for it, as in `make ARCH=…`.
    fn kernel_arch(&self) -> &'static str;
    /// Name of the folder below `arch/` in a kernel tree.
    fn source_arch(&self) -> &'static str;
    /// Prefixes of cross compilers, most likely first, e.g. `foo-linux-gnu-`.
    fn cross_prefixes(&self) -> &'static [&'static str];
    /// Special sections that only this architecture's kernels have; the engine knows the generic
    /// ones. An entry here replaces the generic one of the same name.
    fn special_sections(&self) -> &'static [SpecialSection];
    /// Whether an entry of a special section replaces its place by no bytes at all. Where those would
    /// lie then means nothing: it is where the next entry's lie. The default suits where each entry
    /// has bytes of its own, or what an entry without any refers to is not a replacement.
    fn replaces_by_nothing(&self, section: &str, entry: &[u8]) -> bool {
        let _ = (section, entry);
        false
    }
    /// The kernel in a boot image of this architecture, as it is compressed there, followed by its
    /// uncompressed size in 32 bits (part of the trailer with gzip). The default suits where no boot
    /// image has a header that tells.
    fn boot_payload<'i>(&self, image: &'i [u8]) -> Option<&'i [u8]> {
        let _ = image;
        None
    }
    /// Whether that is a boot image which is the kernel's memory as it is loaded, from the first byte on.
    /// The default suits where boot images hold an ELF file.
    fn flat_image(&self, image: &[u8]) -> Option<FlatImage> {
        let _ = image;
        None
    }
    /// Comparing functions.
    fn diff(&self) -> &dyn FunctionDiff;
    /// Relocations.
    fn reloc(&self) -> &dyn RelocationFixup;
    /// Trampolines.
    fn trampoline(&self) -> &dyn TrampolineEncoder;
    /// Stacks.
    fn stack(&self) -> &dyn StackSafety;
}
