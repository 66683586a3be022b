// SPDX-License-Identifier: GPL-2.0-or-later
//! Stack safety: return addresses on stacks are signed, and some functions never quiesce.

use splice_core::arch::{NeverQuiescent, StackSafety, StackWord};

use crate::Aarch64;

/// The bits of an address of kernel text that may hold an authentication code, and that are all
/// set in the address itself.
///
/// The code takes the bits above the virtual address size, except bit 55 (Arm Architecture
/// Reference Manual, "Pointer authentication"). Kernel text lies in the upper half of the
/// smallest size that the kernel may find itself on (`KIMAGE_VADDR`, asm/memory.h), so that with
/// 47 or 48 bits, or 52 that may turn out to be 48, bits 63 to 47 are set. Kernels with less
/// ([`text_is_too_high`]) keep codes in lower bits, too.
pub(crate) const CODE_BITS: u64 = !0 << 47;

/// Whether text at that address belongs to a kernel of less than 47 bits of virtual address: no
/// larger one puts text there, wherever its layout is randomised to (`kaslr_early_init`: at most
/// three quarters into the upper half of 47 bits).
pub(crate) fn text_is_too_high(address: u64) -> bool {
    address >= 0xffff_f000_0000_0000
}

const fn never(name: &'static str, why: &'static str) -> NeverQuiescent {
    NeverQuiescent { name, why }
}

const SWITCH: &str = "every sleeping thread is in it";
const NEW_THREAD: &str = "the first return address of every thread lies in it";
const ENTRY: &str = "every thread that came from user space, and every interrupt, is in it";
const IDLE: &str = "an idle processor is always in it";
const PATCHING: &str = "it runs while text is rewritten";

/// Sources: arch/arm64/kernel/entry.S, entry-common.c, syscall.c, process.c, idle.c, head.S,
/// smp.c, 6.1 and 6.12.
static NEVER: &[NeverQuiescent] = &[
    never("cpu_switch_to", SWITCH),
    never("__switch_to", SWITCH),
    never("ret_from_fork", NEW_THREAD),
    never("ret_to_user", ENTRY),
    never("ret_to_kernel", ENTRY),
    never("el0t_64_sync", ENTRY),
    never("el0t_64_sync_handler", ENTRY),
    never("el0t_64_irq", ENTRY),
    never("el0t_64_irq_handler", ENTRY),
    never("el0t_32_sync", ENTRY),
    never("el0t_32_sync_handler", ENTRY),
    never("el0t_32_irq", ENTRY),
    never("el0t_32_irq_handler", ENTRY),
    never("el1h_64_sync", ENTRY),
    never("el1h_64_sync_handler", ENTRY),
    never("el1h_64_irq", ENTRY),
    never("el1h_64_irq_handler", ENTRY),
    never("el0_svc", ENTRY),
    never("el0_svc_compat", ENTRY),
    never("do_el0_svc", ENTRY),
    never("do_el0_svc_compat", ENTRY),
    never("el0_svc_common", ENTRY),
    never("invoke_syscall", ENTRY),
    never("el0_interrupt", ENTRY),
    never("el1_interrupt", ENTRY),
    never("call_on_irq_stack", ENTRY),
    never("vectors", ENTRY),
    never("arch_cpu_idle", IDLE),
    never("cpu_do_idle", IDLE),
    never("__cpu_suspend_enter", IDLE),
    never("psci_cpu_suspend", IDLE),
    never("__primary_switched", IDLE),
    never("__secondary_switched", IDLE),
    never("secondary_start_kernel", IDLE),
    never("caches_clean_inval_pou", PATCHING),
    never("do_brk64", PATCHING),
    never("brk_handler", PATCHING),
    never("el1_dbg", PATCHING),
];

impl StackSafety for Aarch64 {
    fn word(&self) -> StackWord {
        StackWord { clear: CODE_BITS, set: CODE_BITS }
    }

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
    use splice_core::arch::check;

    fn read(word: u64) -> u64 {
        let StackWord { clear, set } = Aarch64.word();
        (word & !clear) | set
    }

    #[test]
    fn authentication_codes_are_stripped() {
        assert_eq!(check::stack_word(&Aarch64, Aarch64.word()), Ok(()));
        // (address, the word as `paciasp` may have left it)
        let table: &[(u64, u64)] = &[
            // 48 bits: code in bits 63 to 56 and 54 to 48.
            (0xffff_8000_0801_2344, 0x5eb3_8000_0801_2344),
            (0xffff_8000_0801_2344, 0x0080_8000_0801_2344),
            (0xffff_df12_3401_2344, 0xa5cd_df12_3401_2344),
            // 47 bits: bit 47, too.
            (0xffff_c000_0801_2344, 0x5eb3_4000_0801_2344),
            // 52 bits: 63 to 56 and 54 to 52.
            (0xffff_8000_8001_2344, 0x5e9f_8000_8001_2344),
            (0xffff_8000_8001_2344, 0xffff_8000_8001_2344),
        ];
        for (address, word) in table {
            assert_eq!(read(*word), *address, "{word:#x}");
        }
        // A small number does not look like text.
        assert_ne!(read(0x1_2344), 0xffff_8000_0801_2344);
    }

    #[test]
    fn text_of_small_address_spaces_is_told_apart() {
        // KIMAGE_VADDR of 39 and 42 bits; 48 bits with the largest offset.
        assert!(text_is_too_high(0xffff_ffc0_0800_0000));
        assert!(text_is_too_high(0xffff_fe00_0800_0000));
        assert!(!text_is_too_high(0xffff_8000_0800_0000));
        assert!(!text_is_too_high(0xffff_e000_0800_0000));
    }

    #[test]
    fn the_context_switch_is_refused_once() {
        assert_eq!(check::never_quiescent(&Aarch64, NEVER), Ok(()));
        assert_eq!(NEVER.iter().filter(|n| n.name == "cpu_switch_to").count(), 1);
        for (i, a) in NEVER.iter().enumerate() {
            assert!(NEVER.iter().skip(i + 1).all(|b| b.name != a.name), "{} twice", a.name);
        }
    }

    #[test]
    fn the_whole_old_function_and_what_it_borrows_must_be_free() {
        assert_eq!(Aarch64.busy_range(8, 4), (0, 12));
    }
}
