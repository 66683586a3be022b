// SPDX-License-Identifier: GPL-2.0-or-later
//! Stack safety: stacks hold plain addresses; the list is of functions that never quiesce.
//!
//! Source: arch/riscv/kernel/entry.S, process.c, smpboot.c of 6.1 and 6.12.

use splice_plugin_abi::arch::{NeverQuiescent, StackSafety};

use crate::Riscv64;

const fn never(name: &'static str, why: &'static str) -> NeverQuiescent {
    NeverQuiescent { name, why }
}

const SWITCH: &str = "every sleeping thread is in it";
const NEW_THREAD: &str = "the first return address of every thread lies in it";
const ENTRY: &str = "every thread that came from user space, and every interrupt, is in it";
const IDLE: &str = "an idle processor is always in it";
const PATCHING: &str = "it runs while text is rewritten";

static NEVER: &[NeverQuiescent] = &[
    never("__switch_to", SWITCH),
    never("ret_from_fork", NEW_THREAD),
    never("ret_from_kernel_thread", NEW_THREAD),
    never("handle_exception", ENTRY),
    never("ret_from_exception", ENTRY),
    never("ret_from_syscall", ENTRY),
    never("do_trap_ecall_u", ENTRY),
    never("do_irq", ENTRY),
    never("handle_riscv_irq", ENTRY),
    never("arch_cpu_idle", IDLE),
    never("smp_callin", IDLE),
    never("patch_text_cb", PATCHING),
    never("patch_insn_write", PATCHING),
    never("patch_text_nosync", PATCHING),
];

impl StackSafety for Riscv64 {
    fn minimum_size(&self) -> u64 {
        crate::trampoline::JUMP_LEN
    }

    fn never_quiescent(&self) -> &'static [NeverQuiescent] {
        NEVER
    }
}
