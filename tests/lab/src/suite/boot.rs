// SPDX-License-Identifier: GPL-2.0-or-later
//! Installed updates across starts of the machine. What the disk would keep is carried from one machine
//! to the next in the initramfs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{FIX, Fixture, SLEEPER, Suite};
use crate::protocol::Command;
use crate::session::{Contents, Guest, NOBODY, update};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("installed_updates_are_applied_at_each_start", || starts(fixture));
}

fn is_fixed(guest: &mut Guest) -> Result<bool> {
    guest.probe("tcp-attach-filter", NOBODY).map(|(allowed, _)| !allowed)
}

fn starts(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let place = format!("var/lib/splice/{}", lab.kernel.release);
    let updates: Vec<_> = fixture.updates.iter().map(|(id, path)| (*id, path.as_path())).collect();

    let contents = Contents { updates: updates.clone(), ..Contents::default() };
    let mut first = Guest::boot(lab, &lab.image, &contents)?;
    first.splice(&["boot"])?.success().context("with nothing installed")?;
    for id in [FIX, SLEEPER] {
        first.splice(&["install", &update(id)])?.success()?;
    }
    ensure!(!is_fixed(&mut first)?, "install has applied the update");
    first.splice(&["list"])?.success()?.says(&["installed", FIX, SLEEPER])?;
    // The machine goes down while the second is being applied, which takes long.
    first.machine.start("sleeper", &Command::new(["/init", "probe", "sleep-in-eventfd"]))?;
    let boot = ["/bin/splice", "boot", "--no-interrupt", "--timeout", "60"];
    first.machine.start("boot", &Command::new(boot))?;
    let trying = format!("{place}/trying");
    let end = Instant::now() + Duration::from_secs(60);
    let name = loop {
        match first.machine.read(&format!("/{trying}")) {
            Ok(name) if name.contains(SLEEPER) => break name,
            _ => ensure!(Instant::now() < end, "the second update's turn does not come"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    ensure!(is_fixed(&mut first)?, "the first update was not applied before the second");
    drop(first);

    let mut files = vec![(trying, name.into_bytes())];
    for (number, id) in [(1, FIX), (2, SLEEPER)] {
        let path = updates.iter().find(|(one, _)| *one == id).context("no update")?.1;
        files.push((format!("{place}/{number:04}-{id}.splice"), std::fs::read(path)?));
    }
    let files: Vec<_> = files.iter().map(|(path, body)| (path.as_str(), body.clone())).collect();
    let contents = Contents { updates: updates.clone(), files, ..Contents::default() };
    let mut second = Guest::boot(lab, &lab.image, &contents)?;
    let why = [FIX, SLEEPER, "held", "machine went down"];
    second.splice(&["boot"])?.expect(1)?.says(&why)?;
    ensure!(is_fixed(&mut second)?, "the update that is not held was not applied");
    ensure!(second.loaded()?.len() == 2, "more than one update is loaded: {:?}", second.loaded()?);
    let log = second.machine.kernel_log()?;
    ensure!(
        log.contains("splice: eventfd is not applied: it was being"),
        "the log is silent: {log}"
    );
    second.splice(&["list"])?.success()?.says(&["held"])?;
    // Nobody has said yet that it is to be tried again.
    second.splice(&["boot"])?.expect(1)?.says(&["already_applied", "held"])?;
    second.splice(&["install", &update(SLEEPER)])?.success()?;
    second.splice(&["boot"])?.success()?.says(&["already_applied", SLEEPER])?;
    ensure!(second.loaded()?.len() == 3, "the second update was not applied");
    for id in [FIX, SLEEPER] {
        second.splice(&["undo", id])?.success()?;
        second.splice(&["uninstall", id])?.success()?;
    }
    second.splice(&["uninstall", FIX])?.expect(1)?.says(&["not installed"])?;
    second.splice(&["boot"])?.success()?;
    second.expect_clean()?;
    second.machine.power_off()?;

    let mut off = Guest::boot(lab, &lab.image, &Contents { append: "splice=off", ..contents })?;
    off.splice(&["boot"])?.success()?.says(&["splice=off"])?;
    off.expect_clean()?;
    off.machine.power_off()
}
