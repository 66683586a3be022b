// SPDX-License-Identifier: GPL-2.0-or-later
//! Special sections that only x86 kernels have.
//!
//! Sources: `struct alt_instr` (asm/alternative.h), `struct paravirt_patch_site`
//! (asm/paravirt_types.h), `struct orc_entry` (asm/orc_types.h), and the tables that objtool
//! writes (`.retpoline_sites`, `.return_sites`, `.call_sites`, `.ibt_endbr_seal`, `.cfi_sites`:
//! one 32-bit distance to the place each).
//!
//! ORC tables travel: the kernel unwinds the update module by them. `.orc_unwind` has no
//! relocations; its entries belong to those of `.orc_unwind_ip` one by one.

use splice_core::unit::{EntrySize, Role, SpecialSection};

const fn row(name: &'static str, size: EntrySize, role: Role) -> SpecialSection {
    SpecialSection { name, size, owner: 0, role }
}

/// The table.
pub(crate) static SECTIONS: &[SpecialSection] = &[
    // Place, replacement, feature, lengths: 12 bytes; 13 from 4.1 to 5.17, 14 since 6.3.
    row(ALTERNATIVES, EntrySize::OneOf(&[12, 13, 14, 16]), Role::Dynamic),
    row(".altinstr_replacement", EntrySize::Whole, Role::Payload),
    // Slow path of a CPU-feature test, jumped to by the function itself.
    row(".altinstr_aux", EntrySize::Whole, Role::Payload),
    // Where a reference count that ran over traps, 4.13 to 5.4.
    row(".text..refcount", EntrySize::Whole, Role::Payload),
    // Address (8 bytes), type, length, clobber mask up to 6.0, padding; gone since 6.8.
    row(PARAVIRT, EntrySize::Fixed(16), Role::Dynamic),
    row(SMP_LOCKS, EntrySize::Fixed(4), Role::Dynamic),
    row(RETPOLINES, EntrySize::Fixed(4), Role::Dynamic),
    row(RETURNS, EntrySize::Fixed(4), Role::Dynamic),
    row(CALLS, EntrySize::Fixed(4), Role::Dynamic),
    row(ENDBR_SEAL, EntrySize::Fixed(4), Role::Stays),
    row(CFI, EntrySize::Fixed(4), Role::Dynamic),
    // Constants that the start of the kernel writes into instructions, since 6.11
    // (asm/runtime-const.h); the module loader does not.
    row("runtime_ptr_*", EntrySize::Fixed(4), Role::Boot),
    row("runtime_shift_*", EntrySize::Fixed(4), Role::Boot),
    // The padding before functions; ftrace has its own table, and the link throws this one away
    // (HAVE_DYNAMIC_FTRACE_NO_PATCHABLE).
    row("__patchable_function_entries", EntrySize::Whole, Role::Dropped),
    row(".orc_unwind_ip", EntrySize::Fixed(4), Role::Travels),
    row(".orc_unwind", EntrySize::Fixed(6), Role::Parallel { to: ".orc_unwind_ip" }),
    row(".orc_lookup", EntrySize::Whole, Role::Dropped),
    row(".orc_header", EntrySize::Whole, Role::Dropped),
    // Variables that user space sees through the vDSO: asm/vvar.h gives each its place.
    row(".vvar*", EntrySize::Whole, Role::Placed),
    // Named objects that the start of the kernel reads.
    row(".x86_cpu_dev.init", EntrySize::Whole, Role::Data),
    row(".x86_intel_mid_dev.init", EntrySize::Whole, Role::Data),
    row(".apicdrivers", EntrySize::Whole, Role::Data),
    row(".iommu_table", EntrySize::Whole, Role::Data),
    // Another kernel's code, as bytes.
    row(".kexec-purgatory", EntrySize::Whole, Role::Data),
];

/// Width in bytes of the constant, and the variable that holds it, of a section of constants that the
/// start of the kernel writes.
pub(crate) fn runtime_constant(section: &str) -> Option<(usize, &str)> {
    let pointer = section.strip_prefix("runtime_ptr_").map(|name| (8, name));
    pointer.or_else(|| section.strip_prefix("runtime_shift_").map(|name| (1, name)))
}

/// Alternatives.
pub(crate) const ALTERNATIVES: &str = ".altinstructions";
/// Paravirtual calls.
pub(crate) const PARAVIRT: &str = ".parainstructions";
/// Lock prefixes.
pub(crate) const SMP_LOCKS: &str = ".smp_locks";
/// Calls and jumps through retpolines.
pub(crate) const RETPOLINES: &str = ".retpoline_sites";
/// Jumps to the return thunk.
pub(crate) const RETURNS: &str = ".return_sites";
/// Calls that call-depth tracking may redirect.
pub(crate) const CALLS: &str = ".call_sites";
/// Landing pads that nothing jumps to.
pub(crate) const ENDBR_SEAL: &str = ".ibt_endbr_seal";
/// Functions with a type hash before them.
pub(crate) const CFI: &str = ".cfi_sites";
/// Jump labels (generic, but their code is the architecture's).
pub(crate) const JUMP_LABELS: &str = "__jump_table";
/// Static calls (likewise).
pub(crate) const STATIC_CALLS: &str = ".static_call_sites";
/// Ftrace sites (likewise).
pub(crate) const FTRACE: &str = "__mcount_loc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_listed_once() {
        for (i, a) in SECTIONS.iter().enumerate() {
            for b in SECTIONS.iter().skip(i + 1) {
                assert_ne!(a.name, b.name);
            }
        }
    }

    #[test]
    fn tables_of_places_are_dynamic() {
        for name in [ALTERNATIVES, PARAVIRT, SMP_LOCKS, RETPOLINES, RETURNS] {
            let row = SECTIONS.iter().find(|s| s.name == name).unwrap();
            assert_eq!(row.role, Role::Dynamic, "{name}");
        }
    }
}
