// SPDX-License-Identifier: GPL-2.0-or-later
//! Every allocation that the kernel makes for `splice apply` and `splice undo` fails once: each failed
//! request changes nothing, and the next one goes through. On the checked kernel, which can be told to
//! fail them, and which tells what is used after it was freed. (What is never freed is looked for by the
//! soak, and in the process with sanitizers: the kernel's own search for it needs memory, too.)

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::checked;
use crate::fixes;
use crate::protocol::Command;
use crate::session::{Contents, Guest, Lab, NOBODY, update};

/// A fix of the kernel, and one of a module.
const FIXES: [(&str, &str); 2] = [("attach-filter", "tcp-attach-filter"), ("tipc", "")];
/// What the kernel itself complains of when there is no memory for the jump labels of a module that it
/// loads (`jump_label_module_notify`, kernel/jump_label.c).
const LOADER: &[&str] = &["jump_label_module_notify", "jump_label_del_module"];

/// Fails all of them.
pub fn run() -> Result<()> {
    checked::want();
    let fix = fixes::find(FIXES[0].0)?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    lab.prepare()?;
    let mut updates = Vec::new();
    for (id, _) in FIXES {
        let (file, answer) = lab.create(id, &fixes::find(id)?.patch(&lab.cache)?)?;
        answer.success()?;
        updates.push((id, file));
    }
    let contents = Contents {
        updates: updates.iter().map(|(id, file)| (*id, file.as_path())).collect(),
        modules: vec!["tipc".to_owned()],
        limit: Some(Duration::from_secs(1800)),
        ..Contents::default()
    };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    guest.machine.expected = LOADER;
    let on = &mut guest;
    for (id, probe) in FIXES {
        // Once without a fault, so that what is made once and kept is there.
        on.apply(id)?.success()?;
        on.undo(id)?.success()?;
        let file = update(id);
        for (words, applied) in [(["apply", file.as_str()], true), (["undo", id], false)] {
            let argv = ["/init", "faulty", "/bin/splice"].into_iter().chain(words);
            let ended = on.machine.run(&Command::new(argv))?;
            ensure!(ended.exit == Some(0), "splice {} ended with {ended:?}", words.join(" "));
            for line in ended.stdout.lines().filter(|line| line.contains(" allocations, ")) {
                println!("splice {} {id}: {line}", words[0]);
            }
            let met = ended.stdout.contains(" allocations, failed ");
            ensure!(met, "splice {} met no failure: {}", words.join(" "), ended.stdout);
            if !probe.is_empty() {
                let (allowed, said) = on.probe(probe, NOBODY)?;
                ensure!(allowed != applied, "applied: {applied}, but the probe says {said}");
            }
            on.machine.check_kernel()?;
        }
        ensure!(on.loaded()?.is_empty(), "{:?} are left", on.loaded()?);
    }
    guest.expect_clean()?;
    println!("nothing is left behind, and the kernel's checkers report nothing");
    guest.machine.power_off().context("after all faults")
}
