// SPDX-License-Identifier: GPL-2.0-or-later
//! Constants of a real kernel and of a module that are replaced in place, seen from user space.

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::demo::NOBODY;
use crate::fixes;
use crate::session::{Answer, Contents, Guest, search};

/// The words of the task states: a table of references to strings.
const STATES: &str = "fs/proc/array.c";
/// A table of operations, one of which becomes a new function.
const DEVICES: &str = "fs/proc/devices.c";
/// A table of commands in a module.
const COMMANDS: &str = "net/tipc/netlink.c";

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("constants_are_replaced_in_place", || in_place(fixture));
    suite.test("an_initial_value_is_refused_unless_accepted", || initial_value(fixture));
}

/// The commands that the fix of CVE-2026-74283 keeps for the administrator.
const KEPT: [&str; 4] =
    ["tipc_nl_bearer_enable", "tipc_nl_bearer_disable", "tipc_nl_net_set", "tipc_nl_media_set"];

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
            let doit = format!("\t\t.doit\t= {name},");
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
    let load = guest.machine.stop_load()?;
    ensure!(load.wrong == 0, "the load saw wrong results: {}", load.examples.join("; "));
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// A kernel thread sleeps all the time; what is its state called?
fn state(guest: &mut Guest) -> Result<String> {
    let status = guest.machine.read("/proc/2/status")?;
    let line = status.lines().find(|line| line.starts_with("State:"));
    Ok(line.unwrap_or_default().to_owned())
}

/// The object's bytes, read from outside.
fn bytes(fixture: &Fixture, guest: &mut Guest, address: u64) -> Result<Vec<u8>> {
    let file = fixture.lab.work.path().join("bytes");
    guest.machine.save_memory(address, 72, &file)?;
    Ok(std::fs::read(&file)?)
}

fn states(fixture: &Fixture, guest: &mut Guest) -> Result<()> {
    // The name has a namesake, so only the match can say which it is.
    let checked = guest.check("states")?.success()?;
    let objects = search(&checked.json, "targets").and_then(|targets| search(targets, "objects"));
    let address = objects
        .and_then(|objects| search(objects, "address")?.as_u64())
        .context("check does not say where the object is")?;
    let before = bytes(fixture, guest, address)?;
    ensure!(state(guest)?.ends_with("S (sleeping)"), "it says {}", state(guest)?);
    guest.check("states-again")?.expect(0)?;
    let applied = guest.apply("states")?.success()?;
    let words = search(&applied.json, "objects").map(ToString::to_string).unwrap_or_default();
    ensure!(words.contains("task_state_array"), "apply does not name the object: {words}");
    ensure!(state(guest)?.ends_with("S (dozing)"), "applied, it says {}", state(guest)?);
    let after = bytes(fixture, guest, address)?;
    // The update's copies of all the strings stand in its module.
    ensure!(after.len() == 72 && before.chunks(8).zip(after.chunks(8)).all(|(a, b)| a != b));
    // What was built from the unpatched source finds another string there now.
    guest.check("states-again")?.expect(5)?.says(&["task_state_array", "S (sleeping)"])?;
    guest.undo("states")?.success()?;
    ensure!(bytes(fixture, guest, address)? == before, "the old bytes are not back");
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
