// SPDX-License-Identifier: GPL-2.0-or-later
//! The table of sections that any kernel may have; docs/special-sections.md explains each row.
//!
//! Sources: include/asm-generic/vmlinux.lds.h and scripts/module.lds.S for the names,
//! `find_module_sections` (kernel/module/main.c) for what the loader reads of a module, and the
//! headers named below for the entries; 6.1 and 6.12, and older ones where they differ.

use super::special::{EntrySize, Role, SpecialSection};

const fn entries(name: &'static str, size: EntrySize, role: Role) -> SpecialSection {
    SpecialSection { name, size, owner: 0, role }
}

const fn whole(name: &'static str, role: Role) -> SpecialSection {
    entries(name, EntrySize::Whole, role)
}

const fn data(name: &'static str) -> SpecialSection {
    whole(name, Role::Data)
}

/// The table: the first row that fits decides.
pub(super) const GENERIC: &[SpecialSection] = &[
    // include/linux/jump_label.h, struct jump_entry: code, target, key; 4, 4 and 8 bytes, or 8
    // each where the architecture has no relative form (all up to 4.18).
    entries("__jump_table", EntrySize::OneOf(&[16, 24]), Role::Dynamic),
    // include/linux/static_call_types.h, struct static_call_site: addr, key.
    entries(".static_call_sites", EntrySize::Fixed(8), Role::Dynamic),
    // Addresses of calls to the tracing function, one word each.
    entries("__mcount_loc", EntrySize::Fixed(8), Role::Dynamic),
    entries("__patchable_function_entries", EntrySize::Fixed(8), Role::Dynamic),
    // include/asm-generic/bug.h, struct bug_entry: address, file and line unless they are left
    // out, flags; relative or not.
    entries("__bug_table", EntrySize::OneOf(&[8, 12, 16, 24]), Role::Travels),
    // asm/extable.h: instruction, fixup, and since 4.6 a handler or its number.
    entries("__ex_table", EntrySize::OneOf(&[8, 12]), Role::Travels),
    whole(".fixup", Role::Payload),
    // include/linux/cfi.h: distances to the traps of the compiler's type checks.
    entries(".kcfi_traps", EntrySize::Fixed(4), Role::Travels),
    // include/asm-generic/kprobes.h and error-injection.h: functions that must not be probed, and
    // functions that may be made to fail.
    entries("_kprobe_blacklist", EntrySize::Fixed(8), Role::Travels),
    entries("_error_injection_whitelist", EntrySize::Fixed(16), Role::Travels),
    // include/linux/tracepoint.h: distances to tracepoints, or (before 4.19) pointers.
    entries("__tracepoints_ptrs", EntrySize::OneOf(&[4, 8]), Role::Travels),
    // include/linux/objtool.h, compiler.h, annotate.h: what objtool is told; gone after the link.
    whole(".discard", Role::Dropped),
    whole(".discard.addressable*", Role::Dropped),
    entries(".discard.*", EntrySize::OneOf(&[4, 8, 12, 16]), Role::Annotates),
    // Read once, at the start: include/linux/init.h, pci.h. The keys of static calls that modules
    // may make, but not change, are looked up in the image's own list (static_call.h).
    whole(".initcall*", Role::Frozen),
    whole(".con_initcall*", Role::Frozen),
    whole(".security_initcall*", Role::Frozen),
    whole(".exitcall*", Role::Frozen),
    whole(".init.setup", Role::Frozen),
    whole(".pci_fixup*", Role::Frozen),
    whole(".static_call_tramp_key", Role::Frozen),
    whole(".ctors*", Role::Frozen),
    whole(".dtors*", Role::Frozen),
    whole(".init_array*", Role::Frozen),
    whole(".fini_array*", Role::Frozen),
    // include/linux/btf_ids.h: `resolve_btfids` writes them into the linked kernel.
    whole(".BTF_ids", Role::Ids),
    // Read of each module: include/trace/trace_events.h, bpf_probe.h, linux/trace_events.h,
    // srcutree.h, kunit/test.h, dynamic_debug.h (`__verbose` up to 5.8), alloc_tag.h.
    whole("_ftrace_events", Role::Listed),
    whole("_ftrace_eval_map", Role::Listed),
    whole("__bpf_raw_tp_map", Role::Listed),
    whole("__trace_printk_fmt", Role::Listed),
    whole("__tracepoint_str", Role::Listed),
    whole("___srcu_struct_ptrs", Role::Listed),
    whole(".kunit_*test_suites", Role::Listed),
    whole("__dyndbg", Role::Listed),
    whole("__dyndbg_classes", Role::Listed),
    whole("__verbose", Role::Listed),
    whole("alloc_tags", Role::Listed),
    // Read by the update module's own glue: kmod/patch.h.
    whole(".splice.*", Role::Listed),
    // The place says something: which memory the hypervisor may see, what a hibernated system
    // leaves out, which class of tasks comes before which, the first word of per-CPU memory.
    whole(".data..percpu..first", Role::Placed),
    whole(".data..percpu..decrypted", Role::Placed),
    whole(".data..decrypted", Role::Placed),
    whole(".bss..decrypted", Role::Placed),
    whole(".data..nosave", Role::Placed),
    whole(".data..init_task", Role::Placed),
    whole(".data..init_thread_info", Role::Placed),
    whole(".bss..brk", Role::Placed),
    whole(".init.scratch", Role::Placed),
    whole("__*_sched_class", Role::Placed),
    // Made again by the module's build, or without meaning at run time.
    whole(".printk_index", Role::Dropped),
    whole(".modinfo", Role::Dropped),
    whole(".note*", Role::Dropped),
    whole(".comment*", Role::Dropped),
    whole(".BTF", Role::Dropped),
    whole(".BTF.*", Role::Dropped),
    whole(".export_symbol", Role::Dropped),
    whole("___ksymtab*", Role::Dropped),
    whole("__ksymtab*", Role::Dropped),
    whole("___kcrctab*", Role::Dropped),
    whole("__kcrctab*", Role::Dropped),
    whole(".group", Role::Dropped),
    whole(".llvm*", Role::Dropped),
    whole(".eh_frame*", Role::Dropped),
    // Data like any other. Tables among it hold named objects that the start of the kernel reads:
    // a new one is refused because nothing refers to it.
    data(".data"),
    data(".data.*"),
    data(".bss"),
    data(".bss.*"),
    data(".rodata"),
    data(".rodata.*"),
    data(".rodata1"),
    data(".init.data*"),
    data(".init.rodata*"),
    data(".exit.data*"),
    data(".meminit.*data"),
    data(".memexit.*data"),
    data(".cpuinit.*data"),
    data(".cpuexit.*data"),
    data(".devinit.*data"),
    data(".devexit.*data"),
    data(".ref.data"),
    data(".ref.rodata"),
    data("__param"),
    data("__modver"),
    data("__tracepoints"),
    data("__tracepoints_strings"),
    data("__syscalls_metadata"),
    data("_ftrace_annotated_branch"),
    data("_ftrace_branch"),
    data("__*_of_table"),
    data("__*_of_table_end"),
    data("__*_acpi_probe_table"),
    data("__*_acpi_probe_table_end"),
    data("__*_thermal_table"),
    data("__*_thermal_table_end"),
    data("__earlycon_table"),
    data(".lsm_info.init"),
    data(".early_lsm_info.init"),
    data(".dtb.init.rodata"),
    data(".builtin_fw"),
    data(".tracedata"),
    data(".init.ramfs*"),
    data("___kentry+*"),
];
