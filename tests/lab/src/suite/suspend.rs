// SPDX-License-Identifier: GPL-2.0-or-later
//! The machine is suspended to memory and woken while an update goes on and off, and while it is in
//! effect.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{FIX, Fixture, Suite};
use crate::protocol::Command;
use crate::session::{Contents, Guest, NOBODY};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("suspend_while_switching", || suspend(fixture));
}

/// How often it is suspended.
const TIMES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(300);
const PROBE: &str = "tcp-attach-filter";

fn suspend(fixture: &Fixture) -> Result<()> {
    let file = fixture.update(FIX)?;
    let contents = Contents { updates: vec![(FIX, file)], ..Contents::default() };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    let on = &mut guest;
    on.apply(FIX)?.success()?;
    // Both at once: all threads are frozen, and one processor after the other is switched off.
    let enabled = format!("/sys/kernel/splice/{FIX}/enabled");
    on.machine.start("flip", &Command::new(["/init", "flip", &enabled]))?;
    on.machine.start_load()?;
    for _ in 0..TIMES {
        std::thread::sleep(BETWEEN);
        sleep(on)?;
    }
    let flipped = on.machine.stop("flip")?;
    ensure!(flipped.exit == Some(0), "the switches went wrong: {flipped:?}");
    println!("{}", flipped.stdout.trim());
    on.machine.check_kernel()?;
    // And while it is in effect.
    on.switch(FIX, "1")?;
    sleep(on)?;
    let (allowed, said) = on.probe(PROBE, NOBODY)?;
    ensure!(!allowed, "after the suspension the update is out of effect: {said}");
    on.undo(FIX)?.success()?;
    let (allowed, said) = on.probe(PROBE, NOBODY)?;
    ensure!(allowed, "after the undo it is still in effect: {said}");
    on.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// Suspends the machine and wakes it.
fn sleep(guest: &mut Guest) -> Result<()> {
    let mut monitor = guest.machine.monitor()?;
    let waker = std::thread::spawn(move || -> Result<()> {
        while !monitor.is_suspended()? {
            std::thread::sleep(Duration::from_millis(20));
        }
        monitor.wake()
    });
    guest.machine.write("/sys/power/state", "mem")?;
    waker.join().map_err(|_| anyhow::anyhow!("the waker broke"))?
}
