// SPDX-License-Identifier: GPL-2.0-or-later
//! Every allocation that the kernel makes for `splice apply` and `splice undo` fails once: each failed
//! request changes nothing, and the next one goes through. On the checked kernel, which can be told to
//! fail them, and which tells what is used after it was freed, or never freed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::checked;
use crate::fixes;
use crate::protocol::Command;
use crate::session::{Contents, Guest, Lab, NOBODY, update};

/// A fix of the kernel, and one of a module.
const FIXES: [(&str, &str); 2] = [("attach-filter", "tcp-attach-filter"), ("tipc", "")];
const LEAKS: &str = "/sys/kernel/debug/kmemleak";
/// What has no owner is told once it is older than that (`MSECS_MIN_AGE`, mm/kmemleak.c).
const AGE: Duration = Duration::from_secs(6);

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
        append: "kmemleak=on",
        ..Contents::default()
    };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
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
    for _ in 0..2 {
        std::thread::sleep(AGE);
        on.machine.write(LEAKS, "scan")?;
    }
    let leaks = on.machine.read(LEAKS)?;
    let ours = leaks.lines().any(|line| line.contains("splice"));
    ensure!(!ours, "memory leaks:\n{leaks}");
    guest.expect_clean()?;
    println!("nothing is left behind, nothing leaks, and the kernel's checkers report nothing");
    guest.machine.power_off().context("after all faults")
}
