// SPDX-License-Identifier: GPL-2.0-or-later
//! Which threads are in functions that are to be replaced, by what the kernel tells of their stacks
//! (`/proc/PID/task/TID/stack`). It is a forecast: a stack is as it was a moment ago, a thread that runs
//! has none to show, and what is shown are names. The kernel side looks for itself.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// A thread in a function that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct User {
    /// Its id.
    pub(crate) pid: u32,
    /// Its name.
    pub(crate) command: String,
    /// The function.
    pub(crate) function: String,
    /// Whether it can be brought out: it is no thread of the kernel, and its sleep can be interrupted.
    pub(crate) can_leave: bool,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, function, can_leave } = self;
        let what = match can_leave {
            true => "apply would bring it out for a moment",
            false => "apply could only wait for it",
        };
        write!(f, "{command} (pid {pid}) is in {function}; {what}")
    }
}

/// All threads in one of these functions, given by name and size in bytes. Others' stacks are for root;
/// without, none is seen.
pub(crate) fn users(functions: &[(&str, u64)]) -> Vec<User> {
    let mut found = Vec::new();
    for process in numbered(Path::new("/proc")) {
        for thread in numbered(&Path::new("/proc").join(process.to_string()).join("task")) {
            let place = format!("/proc/{process}/task/{thread}");
            // A thread may end at any moment.
            let read = |name: &str| fs::read_to_string(format!("{place}/{name}")).ok();
            let Some(function) = read("stack").and_then(|text| first(&text, functions)) else {
                continue;
            };
            let (Some(command), Some(stat)) = (read("comm"), read("stat")) else { continue };
            found.push(User {
                pid: thread,
                command: command.trim_end().to_owned(),
                function,
                can_leave: can_leave(&stat),
            });
        }
    }
    found
}

/// The numbers that a directory lists.
fn numbered(directory: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The first function of a stack that is one of these. A line is `[<0>] NAME+0xOFFSET/0xSIZE`, perhaps
/// with a module behind it.
fn first(stack: &str, functions: &[(&str, u64)]) -> Option<String> {
    stack.lines().find_map(|line| {
        let (name, rest) = line.split_whitespace().nth(1)?.split_once('+')?;
        let size = u64::from_str_radix(rest.split_once("/0x")?.1, 16).ok()?;
        // The kernel takes the padding behind a function for a part of it.
        let is = |known: &&(&str, u64)| known.0 == name && known.1 <= size;
        functions.iter().find(is).map(|_| name.to_owned())
    })
}

/// `PID (NAME) STATE PPID … FLAGS …` (proc(5)): no kernel thread, and not asleep without interruption.
fn can_leave(stat: &str) -> bool {
    /// `PF_KTHREAD` of include/linux/sched.h.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    let state = fields.next();
    let flags: Option<u64> = fields.nth(5).and_then(|flags| flags.parse().ok());
    state != Some("D") && flags.is_some_and(|flags| flags & KERNEL_THREAD == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_names_its_functions() {
        let stack =
            "[<0>] do_wait+0x17e/0x2c0\n[<0>] tipc_recv+0x34/0x40 [tipc]\n[<0>] f+0x1/0x9\n";
        assert_eq!(first(stack, &[("tipc_recv", 0x3c)]).as_deref(), Some("tipc_recv"));
        assert_eq!(first(stack, &[("f", 9), ("do_wait", 0x2bd)]).as_deref(), Some("do_wait"));
        // A namesake that is shorter than the function is another.
        assert_eq!(first(stack, &[("f", 0x90), ("g", 1)]), None);
        assert_eq!(first("[<0>] 0xffffffff81000000\n", &[("f", 1)]), None);
    }

    #[test]
    fn who_can_leave_is_known_by_state_and_flags() {
        assert!(can_leave("7 (a) b) c) S 1 7 7 0 -1 4194304 0"));
        assert!(!can_leave("7 (cat) D 1 7 7 0 -1 4194304 0"), "cannot be interrupted");
        assert!(!can_leave("7 (kworker/0:1) S 2 0 0 0 -1 2129984 0"), "of the kernel");
        assert!(!can_leave("7"));
    }
}
