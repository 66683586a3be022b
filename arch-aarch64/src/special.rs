// SPDX-License-Identifier: GPL-2.0-or-later
//! Special sections that only arm64 kernels have, or have in a form of their own.
//!
//! Sources, 6.1 and 6.12: `struct alt_instr` (asm/alternative.h), asm/asm-extable.h,
//! asm/runtime-const.h, asm/module.lds.h, `struct kvm_exception_table_entry` (asm/kvm_asm.h).

use splice_core::unit::{EntrySize, Role, SpecialSection};

const fn row(name: &'static str, size: EntrySize, role: Role) -> SpecialSection {
    SpecialSection { name, size, owner: 0, role }
}

/// The table.
pub(crate) static SECTIONS: &[SpecialSection] = &[
    // Place and replacement (or callback) as distances, feature, lengths of both. The replacement
    // lies in a subsection: behind the function, in its own section.
    row(ALTERNATIVES, EntrySize::Fixed(12), Role::Dynamic),
    row(".altinstr_replacement", EntrySize::Whole, Role::Payload),
    // Instruction and fixup as distances, type, data.
    row("__ex_table", EntrySize::Fixed(12), Role::Travels),
    row("__kvm_ex_table", EntrySize::Fixed(8), Role::Travels),
    // Constants that the start of the kernel writes into instructions, since 6.11; the module
    // loader does not.
    row(RUNTIME_POINTERS, EntrySize::Fixed(4), Role::Boot),
    row(RUNTIME_SHIFTS, EntrySize::Fixed(4), Role::Boot),
    // The hypervisor's own data (asm/hyp_image.h) has its place in its own image.
    row(".hyp.*", EntrySize::Whole, Role::Placed),
    // Used while the MMU is off (arch/arm64/kernel/vmlinux.lds.S).
    row(".mmuoff.data.*", EntrySize::Whole, Role::Placed),
    // What the module loader fills: made again by the module's build.
    row(".plt", EntrySize::Whole, Role::Dropped),
    row(".init.plt", EntrySize::Whole, Role::Dropped),
    row(".text.ftrace_trampoline", EntrySize::Whole, Role::Dropped),
    row(".init.text.ftrace_trampoline", EntrySize::Whole, Role::Dropped),
];

/// Alternatives.
pub(crate) const ALTERNATIVES: &str = ".altinstructions";
/// Pointers in instructions.
pub(crate) const RUNTIME_POINTERS: &str = "runtime_ptr_*";
/// Shifts in instructions.
pub(crate) const RUNTIME_SHIFTS: &str = "runtime_shift_*";
/// Jump labels (generic, but their code is the architecture's).
pub(crate) const JUMP_LABELS: &str = "__jump_table";
/// Ftrace sites (likewise).
pub(crate) const PATCHABLE: &str = "__patchable_function_entries";

/// Whether a section's name is that of a row.
pub(crate) fn is(row: &str, section: &str) -> bool {
    match row.strip_suffix('*') {
        Some(start) => section.starts_with(start),
        None => section == row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_listed_once() {
        for (i, a) in SECTIONS.iter().enumerate() {
            assert!(SECTIONS.iter().skip(i + 1).all(|b| a.name != b.name), "{} twice", a.name);
        }
    }

    #[test]
    fn names_with_any_rest() {
        assert!(is(RUNTIME_POINTERS, "runtime_ptr_dentry_hashtable"));
        assert!(!is(RUNTIME_POINTERS, "runtime_shift_d_hash_shift"));
        assert!(is(ALTERNATIVES, ".altinstructions"));
        assert!(!is(ALTERNATIVES, ".altinstructions2"));
    }
}
