// SPDX-License-Identifier: GPL-2.0-or-later
//! Special sections that only RISC-V kernels have.

use splice_plugin_abi::unit::{EntrySize, Role, SpecialSection};

/// Alternatives: asm/alternative-macros.h. 16 bytes since 6.4, 36 before.
pub(crate) const ALTERNATIVES: &str = ".alternative";
/// Jump labels (generic, but their code is the architecture's).
pub(crate) const JUMP_LABELS: &str = "__jump_table";
/// Ftrace sites (likewise).
pub(crate) const FTRACE: [&str; 2] = ["__patchable_function_entries", "__mcount_loc"];

/// The table.
pub(crate) static SECTIONS: &[SpecialSection] = &[
    SpecialSection {
        name: ALTERNATIVES,
        size: EntrySize::FromRelocations,
        owner: 0,
        role: Role::Dynamic,
    },
    // What the linker is told about the object.
    SpecialSection {
        name: ".riscv.attributes",
        size: EntrySize::Whole,
        owner: 0,
        role: Role::Dropped,
    },
];
