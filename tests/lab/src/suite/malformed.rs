// SPDX-License-Identifier: GPL-2.0-or-later
//! Malformed transactions offered to the core in a running kernel: each is taken or refused, and nothing
//! else happens.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{FIX, Fixture, Suite};
use crate::protocol::Request;
use crate::session::{Contents, Guest, update};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("malformed_transactions", || malformed(fixture));
    suite.test("damaged_modules", || damaged(fixture));
}

/// The update's own module, damaged in its data, through the kernel's loader.
fn damaged(fixture: &Fixture) -> Result<()> {
    let updates = vec![(FIX, fixture.update(FIX)?)];
    let contents = Contents { updates, ..Contents::default() };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    let file = update(FIX);
    let command = ["/init", "mutant", DAMAGED, "7", "/bin/splice", "apply", &file];
    let outcome = guest.machine.run_words(&command)?;
    ensure!(outcome.exit == Some(0), "{}", outcome.stderr.trim());
    println!("{}", outcome.stdout.trim());
    guest.machine.check_kernel()?;
    guest.apply(FIX)?.success()?;
    guest.undo(FIX)?.success()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

const MODULE: &str = "lab_malformed";
const ROUNDS: u32 = 5000;
/// How many damaged modules are offered.
const DAMAGED: &str = "1000";

fn malformed(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let kmod = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kmod");
    let headers = ["splice.h", "patch.h"].map(|name| kmod.join(name));
    let place = lab.build_modules("malformed", &headers)?;
    let module = std::fs::read(place.join(format!("{MODULE}.ko"))).context("no module")?;
    let contents = Contents {
        updates: vec![(FIX, fixture.update(FIX)?)],
        files: vec![("lab/malformed.ko", module)],
        ..Contents::default()
    };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    // It brings the core, and has to go on working.
    guest.apply(FIX)?.success()?;
    let on = &mut guest.machine;
    on.ask(&Request::InsertModules { paths: vec!["/lab/malformed.ko".to_owned()] })?;
    let [enter, leave] = ["splice_register_part", "splice_unregister_part"].map(|n| on.address(n));
    let run = format!("/sys/module/{MODULE}/parameters/run");
    on.write(&run, &format!("{:x} {:x} 7 {ROUNDS}", enter?, leave?))?;
    let said = on.read(&run)?;
    println!("{}", said.trim());
    ensure!(!said.starts_with("0 taken") && !said.contains(" 0 refused"), "{said}");
    on.check_kernel()?;
    on.ask(&Request::RemoveModule { name: MODULE.to_owned() })?;
    guest.undo(FIX)?.success()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}
