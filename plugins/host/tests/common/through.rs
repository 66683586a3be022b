// SPDX-License-Identifier: GPL-2.0-or-later
//! An architecture that asks the x86-64 plugin, under the built-in one's name.

use splice_core::arch::{Arch, FunctionDiff, RelocationFixup, StackSafety, TrampolineEncoder};
use splice_core::unit::SpecialSection;

use crate::common::x86_64 as plugin;

/// Asks the plugin.
struct Through;

splice_core::register_arch!(&Through);

impl Arch for Through {
    fn name(&self) -> &'static str {
        plugin().name()
    }
    fn e_machine(&self) -> u16 {
        plugin().e_machine()
    }
    fn kernel_arch(&self) -> &'static str {
        plugin().kernel_arch()
    }
    fn source_arch(&self) -> &'static str {
        plugin().source_arch()
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        plugin().cross_prefixes()
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        plugin().special_sections()
    }
    fn diff(&self) -> &dyn FunctionDiff {
        plugin().diff()
    }
    fn reloc(&self) -> &dyn RelocationFixup {
        plugin().reloc()
    }
    fn trampoline(&self) -> &dyn TrampolineEncoder {
        plugin().trampoline()
    }
    fn stack(&self) -> &dyn StackSafety {
        plugin().stack()
    }
}
