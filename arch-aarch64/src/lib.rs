// SPDX-License-Identifier: GPL-2.0-or-later
//! AArch64 for splice.
//!
//! [`reloc`] and [`special`] are tables; [`diff`] compares objects with objects, [`running`]
//! objects with running text. Which forms the kernel may give a place is in [`forms`] and in the
//! rules: [`rules`], [`alternatives`], [`callbacks`]; what the linker and the module loader make
//! of branches and page addresses is in [`veneers`]. [`values`] puts symbol values together from
//! pages and places in pages; [`layout`] tells other alignment from foreign code. [`trampoline`]
//! and [`stack`] serve the switch.
//!
//! Every instruction is a little-endian word of 4 bytes at a multiple of 4, so that text is
//! compared word by word and the decoder is needed for messages only.
//!
//! Bias: what is not understood is refused, never called equal. Known and refused on purpose:
//! code that Clang builds rewrite while they start (shadow call stacks patched in for pointer
//! authentication) or while they are linked (`adrp` and `add` relaxed to `adr`), and the vectors
//! of the hypervisor.

mod alternatives;
mod callbacks;
mod decode;
mod diff;
mod forms;
mod insn;
mod layout;
mod reloc;
mod rules;
mod running;
mod special;
mod stack;
mod trampoline;
mod values;
mod veneers;

use splice_core::arch::{
    Arch, FlatImage, FunctionDiff, RelocationFixup, StackSafety, TrampolineEncoder,
};
use splice_core::unit::SpecialSection;

/// The AArch64 backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aarch64;

splice_core::register_arch!(&Aarch64);

impl Arch for Aarch64 {
    fn name(&self) -> &'static str {
        "aarch64"
    }
    fn e_machine(&self) -> u16 {
        183
    }
    fn kernel_arch(&self) -> &'static str {
        "arm64"
    }
    fn source_arch(&self) -> &'static str {
        "arm64"
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        &["aarch64-linux-gnu-", "aarch64-linux-", "aarch64-none-linux-gnu-"]
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        special::SECTIONS
    }
    /// Documentation/arm64/booting.rst (6.1): a magic number at 56.
    fn flat_image(&self, image: &[u8]) -> Option<FlatImage> {
        const R_AARCH64_RELATIVE: u32 = 1027;
        (image.get(56..60) == Some(b"ARM\x64"))
            .then_some(FlatImage { relative: R_AARCH64_RELATIVE, address: None })
    }
    fn diff(&self) -> &dyn FunctionDiff {
        self
    }
    fn reloc(&self) -> &dyn RelocationFixup {
        self
    }
    fn trampoline(&self) -> &dyn TrampolineEncoder {
        self
    }
    fn stack(&self) -> &dyn StackSafety {
        self
    }
}
