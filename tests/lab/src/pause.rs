// SPDX-License-Identifier: GPL-2.0-or-later
//! The pause of a switch, against that of a stop of all processors in which nothing is done, by number
//! of processors and of threads. Both are measured in the kernel, in the same boot. The first switch after
//! the modules are loaded is told apart: the emulator has to translate their code then, which a processor
//! has not.

use anyhow::{Context, Result};

use crate::fixes;
use crate::protocol::{Command, Request};
use crate::session::{Contents, Guest, Lab};

const FIX: &str = "attach-filter";
const CPUS: [u32; 3] = [1, 2, 4];
/// Threads of the whole machine, roughly: so many sleep beside those that are there anyway.
const THREADS: [u32; 3] = [50, 500, 5000];
/// Switches, there and back, and empty stops for each row.
const TIMES: usize = 11;
/// The module that makes an empty stop.
const MODULE: &str = "lab_pause";

/// Prints the table, for the kernel of that release or the usual one.
pub fn run(release: Option<&str>) -> Result<()> {
    let fix = fixes::find(FIX)?;
    let lab = Lab::for_fix(release, &fix)?;
    let place = lab.build_modules("pause", &[])?;
    let module =
        std::fs::read(place.join(format!("{MODULE}.ko"))).context("make left no module")?;
    let (file, created) = lab.create(FIX, &fix.patch(&lab.cache)?)?;
    created.success()?;
    println!("medians of {TIMES}, software emulation; the update has one site");
    println!("CPUs  threads  empty stop  first switch  switch      ratio  per thread");
    for cpus in CPUS {
        let contents = Contents {
            updates: vec![(FIX, &file)],
            files: vec![("lab/pause.ko", module.clone())],
            cpus: Some(cpus),
            ..Contents::default()
        };
        let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
        guest.machine.ask(&Request::InsertModules { paths: vec!["/lab/pause.ko".to_owned()] })?;
        for threads in THREADS {
            row(&mut guest, cpus, threads).with_context(|| format!("{cpus}, {threads}"))?;
        }
        guest.machine.power_off()?;
    }
    Ok(())
}

fn row(guest: &mut Guest, cpus: u32, threads: u32) -> Result<()> {
    const NAME: &str = "threads";
    let running: u32 = guest
        .machine
        .read("/proc/loadavg")?
        .split(['/', ' '])
        .nth(4)
        .and_then(|number| number.parse().ok())
        .context("/proc/loadavg says no number of threads")?;
    let more = threads.saturating_sub(running).to_string();
    guest.machine.start(NAME, &Command::new(["/init", "threads", &more]))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let mut empty = Vec::new();
    let mut pauses = Vec::new();
    let number = |guest: &mut Guest, file: &str| -> Result<u64> {
        let text = guest.machine.read(file)?;
        text.trim().parse().with_context(|| format!("{file} says {text}"))
    };
    let update = |name: &str| format!("/sys/kernel/splice/{FIX}/{name}");
    guest.apply(FIX)?.success()?;
    let first = number(guest, &update("pause_ns"))? as f64;
    let examined = number(guest, &update("threads"))?;
    for _ in 0..TIMES {
        empty.push(number(guest, &format!("/sys/module/{MODULE}/parameters/pause_ns"))?);
        for value in ["0", "1"] {
            guest.switch(FIX, value)?;
            pauses.push(number(guest, &update("pause_ns"))?);
        }
    }
    guest.undo(FIX)?.success()?;
    guest.machine.stop(NAME)?;
    let (empty, pause) = (median(empty), median(pauses));
    println!(
        "{cpus:<4}  {examined:<7}  {:<10}  {:<12}  {:<10}  {:<5.2}  {:.0} ns",
        format!("{:.3} ms", empty / 1e6),
        format!("{:.3} ms", first / 1e6),
        format!("{:.3} ms", pause / 1e6),
        pause / empty,
        (pause - empty) / examined.max(1) as f64
    );
    Ok(())
}

pub(crate) fn median(mut all: Vec<u64>) -> f64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0) as f64
}
