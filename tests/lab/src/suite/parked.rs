// SPDX-License-Identifier: GPL-2.0-or-later
//! Threads that are parked in the very functions that an update replaces: those that can be brought out,
//! among them the machine's first process, and one that cannot.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::protocol::Command;
use crate::session::{Contents, Guest};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("parked_threads_are_held_or_named", || parked(fixture));
}

/// Where every reader of a pipe and every waiter for a lock sleeps, and so threads of the command, of
/// the load and of the first process.
const WAITS: &str = "waits";
/// Where the parent of a vfork waits, in a sleep that only a deadly signal ends.
const FORKS: &str = "forks";

fn parked(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let pipe = fixture.edit(
        "fs/pipe.c",
        "if (unlikely(total_len == 0))\n\t\treturn 0;",
        "if (unlikely(total_len == 0 || total_len > MAX_RW_COUNT))\n\t\treturn 0;",
    )?;
    let futex = fixture.edit(
        "kernel/futex/waitwake.c",
        "if (!bitset)\n\t\treturn -EINVAL;\n\tq.bitset = bitset;",
        "if (!bitset || flags > 4096)\n\t\treturn -EINVAL;\n\tq.bitset = bitset;",
    )?;
    let fork = fixture.edit(
        "kernel/fork.c",
        "(args->pidfd == args->parent_tid))\n\t\treturn -EINVAL;",
        "(args->pidfd == args->parent_tid))\n\t\treturn -ENXIO;",
    )?;
    let mut updates = Vec::new();
    for (id, patch) in [(WAITS, format!("{pipe}{futex}")), (FORKS, fork)] {
        let (file, answer) = lab.create(id, &patch)?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        updates.push((id, file));
    }
    let updates = updates.iter().map(|(id, file)| (*id, file.as_path())).collect();
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    let on = &mut guest;

    on.machine.start("waiters", &Command::new(["/init", "threads", "40"]))?;
    on.machine.start_load()?;
    std::thread::sleep(Duration::from_secs(1));
    let apply = ["apply", "--no-interrupt", "--retries", "2", "/updates/waits.splice"];
    on.splice(&apply)?.expect(6)?.says(&["futex_wait", "init"])?;
    for _ in 0..3 {
        on.apply(WAITS)?.success()?;
        on.undo(WAITS)?.success().context("while all sleep in the new code")?;
    }
    on.machine.stop_load()?;
    let waited = on.machine.stop("waiters")?;
    ensure!(waited.exit == Some(0), "the waiters did not wait to their end: {waited:?}");

    on.machine.start("parent", &Command::new(["/init", "probe", "wait-for-vfork"]))?;
    std::thread::sleep(Duration::from_secs(1));
    let said = on.check(FORKS)?.success()?.says(&["in_use", "parent", "kernel_clone"])?;
    ensure!(said.explanation().contains("\"can_leave\":false"), "the parent can leave");
    let answer = on.splice(&["apply", "--retries", "2", "/updates/forks.splice"])?;
    answer.expect(6)?.says(&["kernel_clone", "parent (pid", "3 attempts"])?;
    on.expect_clean().context("after giving up")?;
    let ended = on.machine.stop("parent")?;
    ensure!(ended.exit == Some(0), "the parent did not come back: {ended:?}");
    on.apply(FORKS)?.success().context("when the parent is gone")?;
    on.undo(FORKS)?.success()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}
