// SPDX-License-Identifier: GPL-2.0-or-later
//! What a call of a patched function takes, against the call of the unpatched one and of one that the
//! kernel's own livepatch has replaced, all in one boot; and the memory that an update takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fixes;
use crate::packages::kernel;
use crate::pause::median;
use crate::protocol::Request;
use crate::session::{Contents, Guest, Lab};

/// A kernel that has livepatch.
const RELEASE: &str = "6.1.0-47-amd64";
const ID: &str = "cost";
const FILE: &str = "lib/math/gcd.c";
const OLD: &str = "return a << __ffs(r);";
const NEW: &str = "return (a << __ffs(r)) ?: 1;";
/// A million calls for each.
const TIMES: usize = 11;
const LIVEPATCH: &str = "/sys/kernel/livepatch/lab_livepatch";

/// Prints the tables.
pub fn run(release: Option<&str>) -> Result<()> {
    let lab = Lab::of(kernel(release.unwrap_or(RELEASE))?)?;
    let place = lab.build_modules("cost", &[])?;
    let patch = fixes::edit(&lab.cache, &lab.kernel.version, FILE, &[(OLD, NEW)])?;
    let (file, created) = lab.create(ID, &patch)?;
    created.success()?;
    let module = |name: &str| std::fs::read(place.join(name)).context("make left no module");
    let contents = Contents {
        updates: vec![(ID, &file)],
        files: vec![
            ("lab/cost.ko", module("lab_cost.ko")?),
            ("lab/livepatch.ko", module("lab_livepatch.ko")?),
        ],
        ..Contents::default()
    };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    let insert = |guest: &mut Guest, path: &str| {
        guest.machine.ask(&Request::InsertModules { paths: vec![path.to_owned()] })
    };
    insert(&mut guest, "/lab/cost.ko")?;
    let before = cost(&mut guest)?;
    guest.apply(ID)?.success()?;
    let spliced = cost(&mut guest)?;
    let memory = ["splice", "splice_cost"].map(|name| {
        let size = guest.machine.read(&format!("/sys/module/{name}/coresize"));
        size.map(|size| format!("{name} {} bytes", size.trim()))
    });
    guest.undo(ID)?.success()?;
    let after = cost(&mut guest)?;
    insert(&mut guest, "/lab/livepatch.ko")?;
    settled(&mut guest)?;
    let livepatched = cost(&mut guest)?;
    guest.machine.write(&format!("{LIVEPATCH}/enabled"), "0")?;
    println!(
        "{}, medians of {TIMES} times a million calls, software emulation",
        lab.kernel.release
    );
    println!("gcd                     a call    more than unpatched");
    for (what, cost) in [
        ("unpatched", before),
        ("with the update", spliced),
        ("after its undo", after),
        ("with a livepatch", livepatched),
    ] {
        println!("{what:<22}  {:>5.1} ns  {:>5.1} ns", cost / 1e3, (cost - before) / 1e3);
    }
    let memory: Vec<String> = memory.into_iter().collect::<Result<_>>()?;
    println!("memory of the modules: {}", memory.join(", "));
    guest.machine.power_off()
}

/// Picoseconds for a call.
fn cost(guest: &mut Guest) -> Result<f64> {
    let mut all = Vec::new();
    for _ in 0..TIMES {
        let text = guest.machine.read("/sys/module/lab_cost/parameters/ps")?;
        all.push(text.trim().parse().context("no time")?);
    }
    Ok(median(all))
}

/// Waits until every thread runs the livepatched code.
fn settled(guest: &mut Guest) -> Result<()> {
    let started = Instant::now();
    while guest.machine.read(&format!("{LIVEPATCH}/transition"))?.trim() != "0" {
        ensure!(started.elapsed() < Duration::from_secs(60), "the livepatch is not through");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
