// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates of very many functions: more than what the kernel tells of them fits into one page, and those
//! that all of the load goes through.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{FIX, Fixture, Suite};
use crate::fixes;
use crate::session::{Contents, Guest, search};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("many_sites", || many_sites(fixture));
    suite.test("hot_paths", || hot_paths(fixture));
}

const ID: &str = "many";
/// Most of their functions are compiled to other code; all connections go through them.
const FILES: [&str; 2] = ["net/ipv4/tcp_input.c", "net/ipv4/tcp_output.c"];
const HEAD: &str = "#define pr_fmt(fmt) \"TCP: \" fmt\n";
const OTHER_CODE: &str = "#pragma GCC optimize(\"no-schedule-insns2\")\n";

fn many_sites(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let mut patch = String::new();
    for file in FILES {
        patch += &fixture.edit(file, HEAD, &format!("{HEAD}{OTHER_CODE}"))?;
    }
    let accept = ["--accept", "init:tcp_tasklet_init"];
    let (many, answer) = lab.create_with(ID, &patch, &accept)?;
    answer.success()?;
    let fix = fixture.update(FIX)?;
    let updates = vec![(ID, many.as_path()), (FIX, fix)];
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    guest.machine.start_load()?;
    let first = guest.machine.address("tcp_ack")?;
    let text = |on: &mut Guest| -> Result<Vec<u8>> {
        let file = lab.work.path().join("text");
        on.machine.save_memory(first, 1 << 14, &file)?;
        std::fs::read(&file).context("no memory was saved")
    };
    let on = &mut guest;
    let before = text(on)?;
    on.apply(ID)?.success()?;

    let status = on.splice(&["status", ID])?.success()?;
    let sites = search(&status.json, "sites").and_then(Value::as_array).context("no sites")?;
    // A row has two addresses and the bytes of before: not a hundred of them fit into a page.
    ensure!(sites.len() > 100, "only {} sites are told", sites.len());
    for site in sites {
        for end in ["old", "new"] {
            let address = site.get(end).and_then(Value::as_str).unwrap_or_default();
            ensure!(address.len() == 18, "{site} is no whole site");
        }
    }
    // What comes next has to know all of them.
    on.apply(FIX)?.success()?;
    on.undo(FIX)?.success()?;
    on.undo(ID)?.success()?;
    on.machine.stop_load()?;
    ensure!(text(on)? == before, "the old text is not back");
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// What the load does all the time: entries of system calls, files and their names, pipes, sockets, the
/// scheduler, the end of processes. With the text behind which the pragma is put.
const HOT: [(&str, &str); 6] = [
    ("fs/open.c", "#include \"internal.h\"\n"),
    ("fs/namei.c", "#include \"mount.h\"\n"),
    ("fs/stat.c", "#include \"mount.h\"\n"),
    ("fs/pipe.c", "#include \"internal.h\"\n"),
    ("net/socket.c", "#include <linux/ptp_clock_kernel.h>\n"),
    ("kernel/exit.c", "#include <asm/mmu_context.h>\n"),
];
/// In the scheduler, single functions: others begin with a jump label, where no trampoline can stand.
const SCHEDULER: &str = "kernel/sched/fair.c";
const SCHEDULED: [&str; 3] = [
    "static void\nenqueue_task_fair(struct rq *rq",
    "static void dequeue_task_fair(struct rq *rq",
    "static void task_tick_fair(struct rq *rq",
];
const OTHER_FUNCTION: &str = "__attribute__((optimize(\"no-schedule-insns2\"))) ";
/// What only the start runs, and gets other code by the pragma too.
const STARTS: [&str; 3] = ["sock_init", "init_pipe_fs", "kernel_exit_sysfs_init"];
const HOT_ID: &str = "hot";
const TIMES: usize = 3;

/// The update goes on and off while all of the load's operations are verified.
fn hot_paths(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let mut patch = String::new();
    for (file, head) in HOT {
        patch += &fixture.edit(file, head, &format!("{head}{OTHER_CODE}"))?;
    }
    let scheduled = SCHEDULED.map(|head| (head, format!("{OTHER_FUNCTION}{head}")));
    let edits: Vec<_> = scheduled.iter().map(|(head, new)| (*head, new.as_str())).collect();
    patch += &fixes::edit(&lab.cache, &fixture.fix.base, SCHEDULER, &edits)?;
    let starts = STARTS.map(|name| format!("init:{name}"));
    let accept: Vec<&str> = starts.iter().flat_map(|name| ["--accept", name.as_str()]).collect();
    let (file, answer) = lab.create_with(HOT_ID, &patch, &accept)?;
    let names = ["__x64_sys_openat", "do_filp_open", "dequeue_task_fair", "do_exit", "pipe_read"];
    answer.success()?.says(&names)?;
    let updates = vec![(HOT_ID, file.as_path())];
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    guest.machine.start_load()?;
    for _ in 0..TIMES {
        let applied = guest.apply(HOT_ID)?.success()?;
        let sites = guest.machine.read(&format!("/sys/kernel/splice/{HOT_ID}/sites"))?;
        let attempts = applied.number("attempts").unwrap_or(0);
        println!("{} functions, {attempts} attempts", sites.lines().count());
        guest.undo(HOT_ID)?.success()?;
    }
    let load = guest.machine.stop_load()?;
    ensure!(load.operations() > 100, "the load did next to nothing: {load:?}");
    println!("{} operations of the load, none wrong", load.operations());
    guest.expect_clean()?;
    guest.machine.power_off()
}
