// SPDX-License-Identifier: GPL-2.0-or-later
//! Functions that cannot be switched, or only by who knows better: some thread is always in them, or
//! their text is not like other text.

use crate::arch::{Arch, NeverQuiescent};

const IDLE: &str = "the idle thread of every processor is in it";
const STOP: &str = "every processor is in it while code is switched";
const ASKER: &str = "the thread that asks for the switch is in it";

const fn never(name: &'static str, why: &'static str) -> NeverQuiescent {
    NeverQuiescent { name, why }
}

/// Those of every architecture, by the kernel's source: kernel/sched/core.c, kernel/sched/idle.c,
/// init/main.c, kernel/kthread.c, kernel/workqueue.c, kernel/smpboot.c, kernel/rcu/tree.c,
/// kernel/rcu/tasks.h, mm/vmscan.c, mm/compaction.c, mm/khugepaged.c, kernel/stop_machine.c,
/// fs/read_write.c, fs/kernfs/file.c, fs/sysfs/file.c, lib/kobject.c, kernel/sched/completion.c,
/// kernel/time/timer.c (6.1, 6.12).
///
/// A thread that sleeps is in every function from its first one to the scheduler; listed is what all
/// threads of some kind that every kernel has sleep in, and what carries out the switch itself. What
/// an idle processor does last is not: to stop it, it is made to leave that.
const GENERIC: &[NeverQuiescent] = &[
    never("__schedule", "every sleeping thread is in it"),
    never("schedule", "nearly every sleeping thread came through it"),
    never("schedule_idle", IDLE),
    never("do_idle", IDLE),
    never("cpu_startup_entry", IDLE),
    never("rest_init", "the first processor's idle thread is in it"),
    never(
        "schedule_timeout",
        "threads that wait for a time, and who asks for the switch, are in it",
    ),
    never("kthread", "every kernel thread is in it"),
    never("kthreadd", "the thread that makes kernel threads is in it"),
    never("kthread_worker_fn", "every kernel thread with a queue of its own is in it"),
    never("worker_thread", "every worker of a work queue is in it"),
    never("rescuer_thread", "every work queue's rescuer is in it"),
    never("smpboot_thread_fn", "a thread of every processor is in it"),
    never("rcu_gp_kthread", "the thread of grace periods is in it"),
    never("rcu_gp_fqs_loop", "the thread of grace periods waits in it"),
    never("rcu_tasks_kthread", "the thread of grace periods for tasks is in it"),
    never("rcu_tasks_one_gp", "the thread of grace periods for tasks waits in it"),
    never("kswapd", "a thread of every memory node is in it"),
    never("kcompactd", "a thread of every memory node is in it"),
    never("khugepaged", "the thread of huge pages is in it"),
    never("cpu_stopper_thread", STOP),
    never("multi_cpu_stop", STOP),
    never("stop_machine", ASKER),
    never("stop_machine_cpuslocked", ASKER),
    never("stop_cpus", ASKER),
    never("__stop_cpus", ASKER),
    never("wait_for_completion", ASKER),
    never("__wait_for_common", ASKER),
    never("kobj_attr_store", ASKER),
    never("sysfs_kf_write", ASKER),
    never("kernfs_fop_write_iter", ASKER),
    never("vfs_write", ASKER),
    never("ksys_write", ASKER),
];

/// Text that is not like other text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialText {
    /// The section of an object, and those whose name goes on with a dot.
    section: &'static str,
    /// Why a function there is not replaced.
    pub why: &'static str,
    /// Whether it can work for who insists.
    pub acceptable: bool,
}

/// By include/asm-generic/vmlinux.lds.h and the headers that declare the sections (6.1, 6.12):
/// include/linux/compiler_types.h (`noinstr`), include/linux/cpu.h (`__cpuidle`).
const TEXTS: &[SpecialText] = &[
    SpecialText {
        section: ".entry.text",
        why: "it is the way into the kernel and out of it, where the kernel may not be mapped as a \
              whole, and new code would not be there",
        acceptable: false,
    },
    SpecialText {
        section: ".noinstr.text",
        why: "it may run where nothing may come between (in the midst of an entry, of an NMI, of a \
              change of text), also while every processor is stopped to switch it",
        acceptable: true,
    },
    SpecialText {
        section: ".head.text",
        why: "it runs once, before the kernel proper",
        acceptable: false,
    },
];

/// What is special about the text of a section, if anything is.
pub fn special_text(section: &str) -> Option<SpecialText> {
    TEXTS.iter().copied().find(|text| {
        let rest = section.strip_prefix(text.section);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Why a function never quiesces, if that is known.
pub fn never_quiescent(arch: &dyn Arch, name: &str) -> Option<&'static str> {
    GENERIC
        .iter()
        .chain(arch.stack().never_quiescent())
        .find(|known| known.name == name)
        .map(|known| known.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_is_listed_twice() {
        for (n, known) in GENERIC.iter().enumerate() {
            assert!(GENERIC.iter().skip(n + 1).all(|k| k.name != known.name), "{}", known.name);
            assert!(!known.why.is_empty());
        }
    }

    #[test]
    fn text_of_its_own_kind_is_found_by_its_section() {
        let why = |section| special_text(section).map(|text| text.acceptable);
        assert_eq!(why(".entry.text"), Some(false));
        assert_eq!(why(".noinstr.text"), Some(true));
        assert_eq!(why(".noinstr.text.f"), Some(true));
        assert_eq!(why(".text.f"), None);
        assert_eq!(why(".entry.texture"), None);
    }
}
