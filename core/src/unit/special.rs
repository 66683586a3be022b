// SPDX-License-Identifier: GPL-2.0-or-later
//! Special sections: tables in which each entry is about a place in some function.

use crate::arch::Arch;

/// How long an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntrySize {
    /// Always that many bytes.
    Fixed(u64),
    /// It depends on the kernel's version: the distance from one owner relocation to the next.
    FromRelocations,
    /// The section header's `sh_entsize`.
    FromHeader,
    /// The section is not cut: it belongs as a whole to what it is linked to.
    Whole,
}

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Travels with the function that its owner relocation points into, and describes a place
    /// that the kernel may rewrite there: handed to the architecture as an entry of the code.
    Dynamic,
    /// Travels with the function that its owner relocation points into.
    Travels,
    /// Has no relocations of its own: its n-th entry belongs to the n-th entry of that section.
    Parallel {
        /// The other section's name.
        to: &'static str,
    },
    /// Holds code or data that entries refer to; travels when referred to.
    Payload,
    /// Is made again for the module by its build, or means nothing at run time.
    Dropped,
}

/// A row of the table of special sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialSection {
    /// Name; a trailing `*` stands for any rest.
    pub name: &'static str,
    /// How it is cut.
    pub size: EntrySize,
    /// Offset in the entry of the relocation that points at the place which the entry is about.
    pub owner: u64,
    /// What happens to its entries.
    pub role: Role,
}

const fn row(name: &'static str, size: EntrySize, owner: u64, role: Role) -> SpecialSection {
    SpecialSection { name, size, owner, role }
}

/// The special sections that every kernel may have. Source: include/asm-generic/vmlinux.lds.h
/// and the headers that each entry's section is declared in, 6.1 and 6.12.
const GENERIC: &[SpecialSection] = &[
    // include/linux/jump_label.h, struct jump_entry (relative form): code, target, key.
    row("__jump_table", EntrySize::Fixed(16), 0, Role::Dynamic),
    // include/linux/static_call_types.h, struct static_call_site: addr, key.
    row(".static_call_sites", EntrySize::Fixed(8), 0, Role::Dynamic),
    // Addresses of calls to the tracing function, one word each.
    row("__mcount_loc", EntrySize::Fixed(8), 0, Role::Dynamic),
    row("__patchable_function_entries", EntrySize::Fixed(8), 0, Role::Dynamic),
    // include/asm-generic/bug.h, struct bug_entry: address, file, line, flags.
    row("__bug_table", EntrySize::FromRelocations, 0, Role::Travels),
    // asm/extable.h: instruction, fixup, and what the architecture adds.
    row("__ex_table", EntrySize::FromRelocations, 0, Role::Travels),
    row(".fixup", EntrySize::Whole, 0, Role::Payload),
    // Made again by the module's build, or without meaning at run time.
    row(".printk_index", EntrySize::Whole, 0, Role::Dropped),
    row(".discard*", EntrySize::Whole, 0, Role::Dropped),
    row(".modinfo", EntrySize::Whole, 0, Role::Dropped),
    row(".note*", EntrySize::Whole, 0, Role::Dropped),
    row(".comment*", EntrySize::Whole, 0, Role::Dropped),
    row(".BTF*", EntrySize::Whole, 0, Role::Dropped),
    row(".export_symbol", EntrySize::Whole, 0, Role::Dropped),
    row("___ksymtab*", EntrySize::Whole, 0, Role::Dropped),
    row("__ksymtab*", EntrySize::Whole, 0, Role::Dropped),
    row("___kcrctab*", EntrySize::Whole, 0, Role::Dropped),
    row("__kcrctab*", EntrySize::Whole, 0, Role::Dropped),
    row(".initcall*", EntrySize::Whole, 0, Role::Dropped),
    row(".con_initcall*", EntrySize::Whole, 0, Role::Dropped),
    row(".exitcall*", EntrySize::Whole, 0, Role::Dropped),
    row("__tracepoints_ptrs", EntrySize::Whole, 0, Role::Dropped),
    row(".group", EntrySize::Whole, 0, Role::Dropped),
    row(".llvm*", EntrySize::Whole, 0, Role::Dropped),
];

/// The special sections that every kernel may have.
pub fn generic_special_sections() -> &'static [SpecialSection] {
    GENERIC
}

/// The row for a section: the architecture's before the generic one.
pub(super) fn row_for(arch: &dyn Arch, section: &str) -> Option<SpecialSection> {
    arch.special_sections().iter().chain(GENERIC).copied().find(|row| {
        match row.name.strip_suffix('*') {
            Some(start) => section.starts_with(start),
            None => section == row.name,
        }
    })
}
