// SPDX-License-Identifier: GPL-2.0-or-later
//! RISC-V (RV64, with compressed instructions) for splice, as a plugin.
//!
//! [`insn`] knows lengths and where immediates' bits are, [`reloc`] is the relocation table.
//! [`diff`] compares objects with objects, [`running`] objects with running text, by way of
//! [`explain`] (what relocated fields tell) and [`rules`] (which forms the kernel gives a place).
//! [`trampoline`] and [`stack`] serve the switch.
//!
//! Bias: what is not understood is refused, never called equal. Text that the linker relaxed
//! (`--relax`; kernels with the function tracer are linked without) does not match.

mod diff;
mod disassemble;
mod explain;
mod insn;
mod reloc;
mod rules;
mod running;
mod special;
mod stack;
mod trampoline;

use splice_plugin_abi::arch::{
    Arch, FlatImage, FunctionDiff, RelocationFixup, StackSafety, TrampolineEncoder,
};
use splice_plugin_abi::unit::SpecialSection;

/// The RISC-V backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Riscv64;

splice_plugin_abi::export_arch!(&Riscv64, name: "riscv64", machine: 243);

impl Arch for Riscv64 {
    fn name(&self) -> &'static str {
        "riscv64"
    }
    fn e_machine(&self) -> u16 {
        243
    }
    fn kernel_arch(&self) -> &'static str {
        "riscv"
    }
    fn source_arch(&self) -> &'static str {
        "riscv"
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        &["riscv64-linux-gnu-", "riscv64-unknown-linux-gnu-", "riscv64-linux-"]
    }
    /// Documentation/riscv/boot-image-header.rst (6.1): a magic number at 56. Without CONFIG_RELOCATABLE a
    /// kernel is linked for `KERNEL_LINK_ADDR` (arch/riscv/include/asm/pgtable.h), 2 GiB from the end.
    fn flat_image(&self, image: &[u8]) -> Option<FlatImage> {
        const R_RISCV_RELATIVE: u32 = 3;
        const LINKED_AT: u64 = 0xffff_ffff_8000_0000;
        (image.get(56..60) == Some(b"RSC\x05"))
            .then_some(FlatImage { relative: R_RISCV_RELATIVE, address: Some(LINKED_AT) })
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        special::SECTIONS
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
