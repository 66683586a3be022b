// SPDX-License-Identifier: GPL-2.0-or-later
//! Tests of the lab itself: what the other tests rely on, and that a failure is told well.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{FIX, Suite};
use crate::fixes;
use crate::protocol::Command;
use crate::session::{Contents, Guest, Lab, NOBODY};

pub(super) fn run(suite: &mut Suite) {
    suite.test("lab_guest_works", guest_works);
    suite.test("lab_tells_a_panic", panic_is_told);
    suite.test("lab_ends_in_time", ends_in_time);
}

fn lab() -> Result<Lab> {
    let fix = fixes::find(FIX)?;
    Lab::open(&fix.base, &fix.target)
}

fn guest_works() -> Result<()> {
    let lab = lab()?;
    let contents = Contents { modules: vec!["tipc".to_owned()], ..Contents::default() };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    let machine = &mut guest.machine;
    ensure!(machine.release == lab.kernel.release, "it runs {}", machine.release);
    machine.start_load()?;
    let modules = machine.read("/proc/modules")?;
    ensure!(modules.contains("tipc ") && modules.contains("udp_tunnel "), "modules: {modules}");

    // The monitor sees the same memory as the guest, wherever the kernel was put.
    let file = lab.work.path().join("banner");
    let address = machine.address("linux_banner")?;
    machine.save_memory(address, 14, &file)?;
    let banner = std::fs::read(&file)?;
    ensure!(banner == b"Linux version ", "at {address:#x} there is {banner:?}");

    let outcome = machine.run(&Command::new(["/init", "exit", "7"]))?;
    ensure!(outcome.exit == Some(7), "exit 7 came back as {outcome:?}");
    let killed = Command::new(["/init", "probe", "sleep-in-eventfd"]).killed_after(200_000);
    machine.start("sleeper", &Command::new(["/init", "probe", "sleep-in-eventfd"]))?;
    let stopped = machine.stop("sleeper")?;
    ensure!(stopped.exit == Some(0), "the sleeper ended with {stopped:?}");
    let mut sleeper = Command { stdin: String::new(), ..killed };
    sleeper.limit_ms = Some(2000);
    machine.run(&sleeper)?;

    let (allowed, said) = guest.probe("tcp-attach-filter", NOBODY)?;
    ensure!(allowed, "the unpatched kernel denies it: {said}");
    let (allowed, said) = guest.probe("raw-short-header", 0)?;
    ensure!(allowed, "the unpatched kernel denies it: {said}");
    let (allowed, _) = guest.probe("raw-short-header", NOBODY)?;
    ensure!(!allowed, "a probe without privileges has them");

    // A breakpoint changes the text, and its end restores it.
    let function = guest.machine.address("sk_setsockopt")?;
    let text = |guest: &mut Guest| -> Result<Vec<u8>> {
        guest.machine.save_memory(function, 64, &file)?;
        Ok(std::fs::read(&file)?)
    };
    let before = text(&mut guest)?;
    guest.set_breakpoint("sk_setsockopt")?;
    ensure!(text(&mut guest)? != before, "the breakpoint is not in the text");
    guest.remove_breakpoint()?;
    ensure!(text(&mut guest)? == before, "the breakpoint is still in the text");

    let load = guest.machine.stop_load()?;
    for (what, count) in [
        ("process", load.processes),
        ("file", load.files),
        ("TCP block", load.tcp_blocks),
        ("connection", load.connections),
    ] {
        ensure!(count > 0, "the load did no {what}");
    }
    guest.expect_clean()?;
    guest.machine.power_off()
}

fn panic_is_told() -> Result<()> {
    let lab = lab()?;
    let mut guest = Guest::boot(&lab, &lab.image, &Contents::default())?;
    let error = guest
        .machine
        .write("/proc/sysrq-trigger", "c")
        .err()
        .context("the guest survived its panic")?;
    let text = format!("{error:#}");
    ensure!(text.contains("sysrq triggered crash"), "the log is not shown: {text}");
    Ok(())
}

fn ends_in_time() -> Result<()> {
    let lab = lab()?;
    let mut guest = Guest::boot(&lab, &lab.image, &Contents::default())?;
    guest.machine.end_after(Duration::ZERO);
    let late = Command::new(["/init", "exit", "0"]);
    let error = guest.machine.run(&late).err().context("the machine outlived its limit")?;
    ensure!(format!("{error:#}").contains("time is over"), "it says: {error:#}");
    Ok(())
}
