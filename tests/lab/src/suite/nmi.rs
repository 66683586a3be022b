// SPDX-License-Identifier: GPL-2.0-or-later
//! Non-maskable interrupts, which a stopped processor takes too: the function that reports them goes from
//! old to new and back while they come. (They come on the processor that the machine was started on, which
//! in one attempt is the one that writes, in another one that waits.)

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::session::{Contents, Guest};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("interrupts_that_nothing_holds_off", || interrupts(fixture));
}

const ID: &str = "nmi";
const FILE: &str = "arch/x86/kernel/nmi.c";
/// What the handler says of each, in two messages; the patch changes the second.
const FIRST: &str = "NMI received for unknown reason";
const OLD: &str = "Dazed and confused, but trying to continue";
const NEW: &str = "Dazed and confused, but patched";
/// What stands behind it in the function that is meant.
const BEHIND: &str = "\\n\");\n}\nNOKPROBE_SYMBOL(unknown_nmi_error)";
const SWITCHES: usize = 40;

fn interrupts(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let [old, new] = [OLD, NEW].map(|text| format!("{text}{BEHIND}"));
    let patch = fixture.edit(FILE, &old, &new)?;
    let (file, answer) = lab.create(ID, &patch)?;
    answer.success()?.says(&["unknown_nmi_error"])?;
    let contents = Contents { updates: vec![(ID, file.as_path())], ..Contents::default() };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    let mut monitor = guest.machine.monitor()?;
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| -> Result<usize> {
        let sender = scope.spawn(|| -> Result<usize> {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                monitor.interrupt()?;
                sent += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Ok(sent)
        });
        let switched = switch(&mut guest);
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().ok().context("the sender of interrupts broke")?;
        switched.and(sent)
    })?;
    let log = guest.machine.kernel_log()?;
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    let (reported, old, new) = (count(FIRST), count(OLD), count(NEW));
    println!("{sent} interrupts, {reported} reports, {old} of the old code, {new} of the new");
    ensure!(reported == old + new, "{reported} reports, but {old} and {new} of their ends");
    ensure!(old > 0 && new > 0, "only one of both was met");
    guest.expect_clean()?;
    guest.machine.power_off()
}

fn switch(guest: &mut Guest) -> Result<()> {
    guest.apply(ID)?.success()?;
    for _ in 0..SWITCHES {
        guest.switch(ID, "0")?;
        guest.switch(ID, "1")?;
    }
    guest.undo(ID)?.success()?;
    Ok(())
}
