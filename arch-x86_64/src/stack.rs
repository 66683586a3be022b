// SPDX-License-Identifier: GPL-2.0-or-later
//! Stack safety: x86 stacks hold plain addresses; the list is of functions that never quiesce.

use splice_core::arch::{NeverQuiescent, StackSafety};

use crate::X86_64;

const fn never(name: &'static str, why: &'static str) -> NeverQuiescent {
    NeverQuiescent { name, why }
}

const SWITCH: &str = "every sleeping thread is in it";
const NEW_THREAD: &str = "the first return address of every thread lies in it";
const ENTRY: &str = "every thread that came from user space, and every interrupt, is in it";
const IDLE: &str = "the first frames of every idle thread lie in it";
const DEAD: &str = "a processor that is switched off is in it";
const COPIED: &str = "what runs are copies of it, made earlier";
const TRACED: &str = "every traced function returns by way of it, and its address lies on stacks";
const PATCHING: &str = "it runs while text is rewritten";

static NEVER: &[NeverQuiescent] = &[
    never("__switch_to_asm", SWITCH),
    never("__switch_to", SWITCH),
    never("ret_from_fork", NEW_THREAD),
    never("ret_from_fork_asm", NEW_THREAD),
    never("entry_SYSCALL_64", ENTRY),
    never("entry_SYSCALL_64_after_hwframe", ENTRY),
    never("entry_SYSENTER_compat", ENTRY),
    never("entry_SYSCALL_compat", ENTRY),
    never("entry_INT80_compat", ENTRY),
    never("do_syscall_64", ENTRY),
    never("x64_sys_call", ENTRY),
    never("do_int80_syscall_32", ENTRY),
    never("do_int80_emulation", ENTRY),
    never("do_fast_syscall_32", ENTRY),
    never("do_SYSENTER_32", ENTRY),
    never("error_entry", ENTRY),
    never("error_return", ENTRY),
    never("paranoid_entry", ENTRY),
    never("paranoid_exit", ENTRY),
    never("common_interrupt_return", ENTRY),
    never("swapgs_restore_regs_and_return_to_usermode", ENTRY),
    never("asm_exc_nmi", ENTRY),
    never("end_repeat_nmi", ENTRY),
    never("sync_regs", ENTRY),
    never("secondary_startup_64", IDLE),
    never("start_secondary", IDLE),
    never("x86_64_start_kernel", IDLE),
    never("x86_64_start_reservations", IDLE),
    never("arch_cpu_idle_dead", DEAD),
    never("native_play_dead", DEAD),
    never("hlt_play_dead", DEAD),
    never("mwait_play_dead", DEAD),
    never("ftrace_caller", COPIED),
    never("ftrace_regs_caller", COPIED),
    never("optprobe_template_func", COPIED),
    never("return_to_handler", TRACED),
    never("arch_rethook_trampoline", TRACED),
    never("__x64_sys_write", "the thread that asks for the switch is in it"),
    never("exc_int3", PATCHING),
    never("poke_int3_handler", PATCHING),
];

impl StackSafety for X86_64 {
    fn minimum_size(&self) -> u64 {
        crate::trampoline::JUMP_LEN
    }

    fn never_quiescent(&self) -> &'static [NeverQuiescent] {
        NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_addresses() {
        let word = X86_64.word();
        assert_eq!((word.clear, word.set), (0, 0));
    }

    #[test]
    fn the_whole_old_function_and_what_it_borrows_must_be_free() {
        assert_eq!(X86_64.busy_range(3, 2), (0, 5));
    }

    #[test]
    fn the_context_switch_is_refused_once() {
        let hits = NEVER.iter().filter(|n| n.name == "__switch_to_asm").count();
        assert_eq!(hits, 1);
        for (i, a) in NEVER.iter().enumerate() {
            assert!(NEVER.iter().skip(i + 1).all(|b| b.name != a.name), "{} twice", a.name);
            assert!(!a.why.is_empty());
        }
    }
}
