// SPDX-License-Identifier: GPL-2.0-or-later
//! Functions that some thread is always in, so that a switch would never come about.

use crate::arch::{Arch, NeverQuiescent};

/// Those of every architecture, by the kernel's source: kernel/sched/core.c, kernel/sched/idle.c,
/// kernel/kthread.c, kernel/workqueue.c, kernel/smpboot.c, kernel/rcu/tree.c, mm/vmscan.c (6.1).
const GENERIC: &[NeverQuiescent] = &[
    NeverQuiescent { name: "__schedule", why: "every sleeping thread is in it" },
    NeverQuiescent { name: "schedule", why: "nearly every sleeping thread came through it" },
    NeverQuiescent { name: "do_idle", why: "the idle thread of every processor is in it" },
    NeverQuiescent { name: "cpu_startup_entry", why: "every idle thread is in it" },
    NeverQuiescent { name: "kthread", why: "every kernel thread is in it" },
    NeverQuiescent { name: "kthreadd", why: "the thread that makes kernel threads is in it" },
    NeverQuiescent { name: "worker_thread", why: "every worker of a work queue is in it" },
    NeverQuiescent { name: "rescuer_thread", why: "every work queue's rescuer is in it" },
    NeverQuiescent { name: "smpboot_thread_fn", why: "a thread of every processor is in it" },
    NeverQuiescent { name: "rcu_gp_kthread", why: "the thread of grace periods is in it" },
    NeverQuiescent { name: "kswapd", why: "a thread of every memory node is in it" },
];

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
}
