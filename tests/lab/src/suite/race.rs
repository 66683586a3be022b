// SPDX-License-Identifier: GPL-2.0-or-later
//! Several switches at once, and processors and modules that come and go meanwhile: whatever the commands
//! answer, the kernel is as its state says.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Fixture, MODULE_FIX, Suite};
use crate::fixes;
use crate::protocol::{Command, Request};
use crate::session::{Contents, Guest, update};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("switches_at_once", || at_once(fixture));
}

const DEVICES: &str = "fs/proc/devices.c";
const EVENTS: &str = "fs/eventfd.c";
const SHOW: &str = "\tint i = *(loff_t *) v;\n";
const READ: &str = "\tif (iov_iter_count(to) < sizeof(ucnt))\n\t\treturn -EINVAL;\n";
const IDS: [&str; 3] = ["first", "else", "whole"];
const ROUNDS: u32 = 4;

fn at_once(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let edit = |file: &str, old: &str, new: &str| {
        fixes::edit(&lab.cache, &fixture.fix.base, file, &[(old, new)])
    };
    let shown = |lines: &str| format!("{SHOW}\n\tif (i == 0)\n\t\tseq_puts(f, \"{lines}\\n\");\n");
    let mut updates = Vec::new();
    for (id, patch) in [
        ("first", edit(DEVICES, SHOW, &shown("first"))?),
        ("else", edit(EVENTS, READ, &READ.replace("EINVAL", "EACCES"))?),
        ("whole", edit(DEVICES, SHOW, &shown("whole"))?),
    ] {
        let (file, answer) = lab.create(id, &patch)?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        updates.push((id, file));
    }
    let all = fixture.updates.iter().filter(|(id, _)| *id == MODULE_FIX).chain(&updates);
    let contents = Contents {
        updates: all.map(|(id, file)| (*id, file.as_path())).collect(),
        modules: vec!["tipc".to_owned()],
        cpus: Some(3),
        // Much of the kernel's own code changes while processors come and go.
        rewrites_itself: true,
        ..Contents::default()
    };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    guest.machine.start_load()?;
    let on = &mut guest;
    let probe = |name: &str| Command::new(["/init", "probe", name]);

    on.machine.start("processors", &probe("toggle-processors"))?;
    for round in 0..ROUNDS {
        let (whole, first, other) = (update("whole"), update("first"), update("else"));
        let mut commands = vec![
            vec!["apply", &first],
            vec!["apply", &other],
            vec!["apply", "--replace", &whole],
            vec!["undo", "first"],
        ];
        commands.rotate_left(round as usize % 4);
        let names: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
        for (name, words) in names.iter().zip(&commands) {
            on.machine.start(name, &Command::new(["/bin/splice"].iter().chain(words).copied()))?;
        }
        for name in &names {
            let ended = on.machine.stop(name)?;
            // Not applied, applied already, other code than expected, in use: all may be.
            let known = ended.exit.is_some_and(|code| [0, 1, 5, 6].contains(&code));
            ensure!(known, "splice {name} ended with {:?}: {}", ended.exit, ended.stderr);
        }
        as_said(on).with_context(|| format!("in round {round}"))?;
        undo_all(on)?;
        on.expect_clean()?;
    }

    // Past the command and its lock, straight at the kernel side.
    for id in ["first", "else"] {
        on.apply(id)?.success()?;
    }
    for name in ["one", "two"] {
        on.machine.start(name, &probe("toggle-updates"))?;
    }
    std::thread::sleep(Duration::from_secs(3));
    for name in ["one", "two"] {
        let said = on.machine.stop(name)?.stdout;
        let word = said.split_whitespace().next().unwrap_or_default();
        ensure!(word.parse().is_ok_and(|n: u64| n > 10), "so often it was switched: {said}");
    }
    as_said(on).context("after switches by hand")?;
    undo_all(on)?;
    let said = on.machine.stop("processors")?.stdout;
    let word = said.split_whitespace().next().unwrap_or_default();
    ensure!(word.parse().is_ok_and(|n: u64| n > 10), "so often a processor came or went: {said}");

    module(on).context("a module goes")?;
    on.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

fn is_applied(guest: &mut Guest, id: &str) -> bool {
    let state = guest.machine.read(&format!("/sys/kernel/splice/{id}/state"));
    state.is_ok_and(|state| state == "applied\n")
}

/// Fails unless the functions do what the state of the updates says.
fn as_said(guest: &mut Guest) -> Result<()> {
    let [first, other, whole] = IDS.map(|id| is_applied(guest, id));
    ensure!(!(first && whole), "two updates of one function are applied");
    let line = match (first, whole) {
        (true, _) => "first\n",
        (_, true) => "whole\n",
        _ => "Character devices:\n",
    };
    let devices = guest.machine.read("/proc/devices")?;
    ensure!(devices.starts_with(line), "the list does not begin with {line:?}: {devices}");
    let (_, said) = guest.probe("short-eventfd", 0)?;
    let word = if other { "Permission denied" } else { "Invalid argument" };
    ensure!(said.contains(word), "a short read says {said}, and not {word}");
    Ok(())
}

fn undo_all(guest: &mut Guest) -> Result<()> {
    for id in IDS {
        if guest.machine.read(&format!("/sys/kernel/splice/{id}/state")).is_ok() {
            guest.undo(id)?.success()?;
        }
    }
    Ok(())
}

/// A target goes while the update is applied: before it is held, and nothing is applied, or never.
fn module(guest: &mut Guest) -> Result<()> {
    let file = update(MODULE_FIX);
    guest.machine.start("apply", &Command::new(["/bin/splice", "apply", &file]))?;
    let remove = Request::RemoveModule { name: "tipc".to_owned() };
    let gone = guest.machine.ask(&remove).is_ok();
    let outcome = guest.machine.stop("apply")?;
    match (gone, outcome.exit) {
        (true, Some(5)) | (false, Some(0)) => {}
        (gone, code) => {
            bail!("apply ended with {code:?}, the module is gone: {gone}; {}", outcome.stderr)
        }
    }
    if !gone {
        guest.undo(MODULE_FIX)?.success()?;
    }
    Ok(())
}
