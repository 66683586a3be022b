// SPDX-License-Identifier: GPL-2.0-or-later
//! The built-in x86-64 backend's own suites, word for word, through the plugin: this crate takes
//! the backend's name and registers an architecture that asks the plugin.

#![expect(clippy::expect_used, reason = "a test that cannot set itself up stops there and then")]

use std::sync::OnceLock;

use splice_core::arch::{Arch, FunctionDiff, RelocationFixup, StackSafety, TrampolineEncoder};
use splice_core::unit::SpecialSection;

extern crate self as splice_arch_x86_64;

mod common;
#[expect(unused_imports, reason = "there it links the backend, here it names this crate")]
#[path = "../../../arch-x86_64/tests/rules.rs"]
mod rules;
#[expect(unused_imports, reason = "there it links the backend, here it names this crate")]
#[path = "../../../arch-x86_64/tests/runpre.rs"]
mod runpre;

/// The plugin, loaded when it is first asked.
struct Through;

splice_core::register_arch!(&Through);

fn plugin() -> &'static dyn Arch {
    static PLUGIN: OnceLock<&'static dyn Arch> = OnceLock::new();
    *PLUGIN.get_or_init(|| {
        splice_plugin_host::load(&common::build("splice-plugin-x86_64")).expect("it loads")
    })
}

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
