// SPDX-License-Identifier: GPL-2.0-or-later
//! x86-64 for splice.
//!
//! [`reloc`] and [`special`] are tables; [`diff`] compares objects with objects, [`running`]
//! objects with running text (which forms the kernel may give a place is in [`forms`] and the
//! rules below it); [`trampoline`] and [`stack`] serve the switch, [`boot`] finds the kernel in a
//! boot image.
//!
//! Bias: what is not understood is refused, never called equal.

mod alternatives;
mod arguments;
mod boot;
mod decode;
mod diff;
mod forms;
mod nops;
mod reloc;
mod rules;
mod running;
mod shorter;
mod special;
mod stack;
mod trampoline;

use splice_core::arch::{Arch, FunctionDiff, RelocationFixup, StackSafety, TrampolineEncoder};
use splice_core::unit::SpecialSection;

/// The x86-64 backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct X86_64;

splice_core::register_arch!(&X86_64);

impl Arch for X86_64 {
    fn name(&self) -> &'static str {
        "x86_64"
    }
    fn e_machine(&self) -> u16 {
        62
    }
    fn kernel_arch(&self) -> &'static str {
        "x86_64"
    }
    fn source_arch(&self) -> &'static str {
        "x86"
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        &["x86_64-linux-gnu-", "x86_64-linux-", "x86_64-pc-linux-gnu-"]
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        special::SECTIONS
    }
    fn replaces_by_nothing(&self, section: &str, entry: &[u8]) -> bool {
        section == special::ALTERNATIVES && alternatives::is_empty(entry)
    }
    fn boot_payload<'i>(&self, image: &'i [u8]) -> Option<&'i [u8]> {
        boot::payload(image)
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
