// SPDX-License-Identifier: GPL-2.0-or-later
//! Constants of a real kernel and of a module that are replaced in place, seen from user space.

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::fixes;
use crate::session::{Answer, Contents, Guest, NOBODY, search};

/// The words of the task states: a table of references to strings.
const STATES: &str = "fs/proc/array.c";
/// A table of operations, one of which becomes a new function.
const DEVICES: &str = "fs/proc/devices.c";
/// A table of commands in a module.
const COMMANDS: &str = "net/tipc/netlink.c";

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("constants_are_replaced_in_place", || in_place(fixture));
    suite.test("constants_across_pages_and_a_real_fix", || across_pages(fixture));
    suite.test("an_initial_value_is_refused_unless_accepted", || initial_value(fixture));
}

/// The commands that the fix of CVE-2026-74283 keeps for the administrator, all of them.
const KEPT: [&str; 12] = [
    "tipc_nl_bearer_disable",
    "tipc_nl_bearer_enable",
    "tipc_nl_bearer_add",
    "tipc_nl_bearer_set",
    "tipc_nl_node_set_link",
    "   = tipc_nl_node_reset_link_stats",
    "tipc_nl_media_set",
    "tipc_nl_net_set",
    "tipc_nl_node_set_monitor",
    "tipc_nl_peer_rm",
    "tipc_nl_node_set_key",
    "tipc_nl_node_flush_key",
];

/// Creates an update of one file, and says what of it is replaced.
fn create(
    fixture: &Fixture,
    id: &'static str,
    file: &str,
    edits: &[(String, String)],
) -> Result<(std::path::PathBuf, Answer)> {
    let edits: Vec<(&str, &str)> = edits.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let patch = fixes::edit(&fixture.lab.cache, &fixture.fix.base, file, &edits)?;
    let (path, answer) = fixture.lab.create(id, &patch)?;
    Ok((path, answer.success().with_context(|| format!("cannot create {id}"))?))
}

fn in_place(fixture: &Fixture) -> Result<()> {
    let edit = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    let first = create(fixture, "states", STATES, &[edit("S (sleeping)", "S (dozing)")])?;
    let again = create(
        fixture,
        "states-again",
        STATES,
        &[edit("S (sleeping)", "S (dozing)"), edit("T (stopped)", "T (standing)")],
    )?;
    let show = "static const struct seq_operations devinfo_ops";
    let devices = create(
        fixture,
        "devices",
        DEVICES,
        &[
            edit(
                show,
                &format!(
                    "static int lab_show(struct seq_file *f, void *v)\n{{\n\tif (*(loff_t *)v == \
                     0)\n\t\tseq_puts(f, \"replaced\\n\");\n\treturn devinfo_show(f, \
                     v);\n}}\n\n{show}"
                ),
            ),
            edit("= devinfo_show", "= lab_show"),
        ],
    )?;
    let edits: Vec<_> = KEPT
        .iter()
        .map(|name| {
            let spaced = name.starts_with(' ');
            let doit = format!("\t\t.doit{}{name},", if spaced { "" } else { "\t= " });
            (doit.clone(), format!("\t\t.flags\t= GENL_UNS_ADMIN_PERM,\n{doit}"))
        })
        .collect();
    let commands = create(fixture, "commands", COMMANDS, &edits)?;
    commands.1.clone().says(&["tipc_genl_v2_ops", "differs at offset"])?;
    first.1.clone().says(&["task_state_array", "S (dozing)", "before to", "S (sleeping)"])?;

    let all = [("states", &first), ("states-again", &again), ("devices", &devices)];
    let updates = all.iter().map(|(id, made)| (*id, made.0.as_path()));
    let contents = Contents {
        updates: updates.chain([("commands", commands.0.as_path())]).collect(),
        modules: vec!["tipc".to_owned()],
        ..Contents::default()
    };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    guest.machine.start_load()?;
    states(fixture, &mut guest).context("task states")?;
    operations(&mut guest).context("operations")?;
    module(&mut guest).context("module")?;
    // All at once, and taken back in another order.
    for id in ["commands", "states", "devices"] {
        guest.apply(id)?.success()?;
    }
    guest.splice(&["status", "states"])?.success()?.says(&["task_state_array"])?;
    for id in ["states", "commands", "devices"] {
        guest.undo(id)?.success()?;
    }
    guest.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// A kernel thread sleeps all the time; what is its state called?
fn state(guest: &mut Guest) -> Result<String> {
    let status = guest.machine.read("/proc/2/status")?;
    let line = status.lines().find(|line| line.starts_with("State:"));
    Ok(line.unwrap_or_default().to_owned())
}

/// An object's bytes, read from outside.
fn bytes(fixture: &Fixture, guest: &mut Guest, address: u64, size: u64) -> Result<Vec<u8>> {
    let file = fixture.lab.work.path().join("bytes");
    guest.machine.save_memory(address, size, &file)?;
    Ok(std::fs::read(&file)?)
}

fn states(fixture: &Fixture, guest: &mut Guest) -> Result<()> {
    // The name has a namesake, so only the match can say which it is.
    let checked = guest.check("states")?.success()?;
    let objects = search(&checked.json, "targets").and_then(|targets| search(targets, "objects"));
    let address = objects
        .and_then(|objects| search(objects, "address")?.as_u64())
        .context("check does not say where the object is")?;
    let before = bytes(fixture, guest, address, 72)?;
    ensure!(state(guest)?.ends_with("S (sleeping)"), "it says {}", state(guest)?);
    guest.check("states-again")?.expect(0)?;
    let applied = guest.apply("states")?.success()?;
    let words = search(&applied.json, "objects").map(ToString::to_string).unwrap_or_default();
    ensure!(words.contains("task_state_array"), "apply does not name the object: {words}");
    ensure!(state(guest)?.ends_with("S (dozing)"), "applied, it says {}", state(guest)?);
    let after = bytes(fixture, guest, address, 72)?;
    // The update's copies of all the strings stand in its module.
    ensure!(after.len() == 72 && before.chunks(8).zip(after.chunks(8)).all(|(a, b)| a != b));
    // What was built from the unpatched source finds another string there now.
    guest.check("states-again")?.expect(5)?.says(&["task_state_array", "S (sleeping)"])?;
    guest.undo("states")?.success()?;
    ensure!(bytes(fixture, guest, address, 72)? == before, "the old bytes are not back");
    ensure!(state(guest)?.ends_with("S (sleeping)"), "undone, it says {}", state(guest)?);
    guest.expect_clean()
}

fn operations(guest: &mut Guest) -> Result<()> {
    let before = guest.machine.read("/proc/devices")?;
    guest.apply("devices")?.success()?;
    let after = guest.machine.read("/proc/devices")?;
    ensure!(after == format!("replaced\n{before}"), "applied, it says {after}");
    guest.undo("devices")?.success()?;
    ensure!(guest.machine.read("/proc/devices")? == before, "the old operation is not back");
    guest.expect_clean()
}

fn module(guest: &mut Guest) -> Result<()> {
    let mut allowed = || Ok::<bool, anyhow::Error>(guest.probe("tipc-net-set", NOBODY)?.0);
    ensure!(allowed()?, "the command is refused before the fix");
    guest.apply("commands")?.success()?;
    let mut allowed = || Ok::<bool, anyhow::Error>(guest.probe("tipc-net-set", NOBODY)?.0);
    ensure!(!allowed()?, "the command is allowed after the fix");
    guest.undo("commands")?.success()?;
    ensure!(guest.probe("tipc-net-set", NOBODY)?.0, "the command is refused after undo");
    guest.expect_clean()
}

/// A font, an object of more than one page in a unit without code; its name is in the kernel's list.
const FONT: &str = "lib/fonts/font_8x16.c";
const FONT_SIZE: u64 = 16 + 4096;
/// The object that the fix of CVE-2024-46754 takes an operation out of.
const FILTER: &str = "net/core/filter.c";

fn across_pages(fixture: &Fixture) -> Result<()> {
    let edit = |old: &str, new: &str| (old.to_owned(), new.to_owned());
    let first = "/* 0 0x00 '^@' */\n\t0x0";
    let last = "\t0x00, /* 00000000 */\n} };";
    let font = create(
        fixture,
        "font",
        FONT,
        &[edit(first, "/* 0 0x00 '^@' */\n\t0xf"), edit(last, "\t0xaa, /* 00000000 */\n} };")],
    )?;
    let object = "struct bpf_prog_ops lwt_seg6local_prog_ops = {\n";
    let run = "\t.test_run\t\t= bpf_prog_test_run_skb,\n";
    let fix = create(fixture, "seg6local", FILTER, &[edit(&format!("{object}{run}"), object)])?;
    let contents =
        Contents { updates: vec![("font", &font.0), ("seg6local", &fix.0)], ..Contents::default() };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    let start = guest.machine.address("fontdata_8x16")?;
    ensure!(start >> 12 != (start + FONT_SIZE - 1) >> 12, "the font lies in one page");
    let operation = guest.machine.address("lwt_seg6local_prog_ops")?;
    let state = |guest: &mut Guest| -> Result<(Vec<u8>, Vec<u8>)> {
        Ok((bytes(fixture, guest, start, FONT_SIZE)?, bytes(fixture, guest, operation, 8)?))
    };
    let before = state(&mut guest)?;
    let run = guest.machine.address("bpf_prog_test_run_skb")?;
    ensure!(before.1 == run.to_le_bytes(), "the operation is not there before");
    for id in ["font", "seg6local"] {
        guest.apply(id)?.success()?;
    }
    let after = state(&mut guest)?;
    let changed = before.0.iter().zip(&after.0).enumerate().filter(|(_, (a, b))| a != b);
    let changed: Vec<_> = changed.map(|(at, (_, new))| (at, *new)).collect();
    ensure!(changed == [(16, 0xf0), (4111, 0xaa)], "of the font this changed: {changed:x?}");
    ensure!(after.1 == [0; 8], "applied, the operation is {:x?}", after.1);
    for id in ["font", "seg6local"] {
        guest.undo(id)?.success()?;
    }
    ensure!(state(&mut guest)? == before, "the old bytes are not back");
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// A change of an initial value alone is refused; accepted, there is nothing left of it.
fn initial_value(fixture: &Fixture) -> Result<()> {
    let patch = fixture.edit(
        "kernel/watchdog.c",
        "int __read_mostly watchdog_thresh = 10;",
        "int __read_mostly watchdog_thresh = 20;",
    )?;
    let (file, answer) = fixture.lab.create("initial", &patch)?;
    ensure!(!file.exists(), "an update came out");
    answer.expect(4)?.says(&["watchdog_thresh", "hook", "--accept data:watchdog_thresh"])?;
    let accept = ["--accept", "data:watchdog_thresh"];
    let (_, answer) = fixture.lab.create_with("initial", &patch, &accept)?;
    answer.expect(3).map(drop)
}
