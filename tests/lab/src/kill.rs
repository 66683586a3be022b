// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice apply` and `splice undo` killed at any moment: the kernel is as its state says, and the next
//! command brings it to where the killed one was going.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::fixes;
use crate::random::Random;
use crate::session::{Contents, Guest, Lab, NOBODY, update};

const FIX: &str = "attach-filter";
/// In place of the exit code of a command that a signal ended.
const SIGNALLED: i32 = -1;

/// Kills that many commands.
pub fn run(times: u32) -> Result<()> {
    let fix = fixes::find(FIX)?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    lab.prepare()?;
    let (file, created) = lab.create(FIX, &fix.patch(&lab.cache)?)?;
    created.success()?;
    let limit = Some(Duration::from_secs(300 + 20 * u64::from(times)));
    let contents = Contents { updates: vec![(FIX, &file)], limit, ..Contents::default() };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    let on = &mut guest;
    on.machine.start_load()?;

    // How long they take, so that every moment is met.
    let file = update(FIX);
    let commands = [vec!["apply", file.as_str()], vec!["undo", FIX]];
    let mut lasts = [0, 0];
    for (words, lasts) in commands.iter().zip(&mut lasts) {
        *lasts = u64::try_from(on.splice(words)?.success()?.duration.as_micros())?;
    }
    let (mut killed, mut applied) = (0, 0);
    let mut random = Random(0x5eed);
    for number in 0.. {
        if killed == times {
            break;
        }
        ensure!(number < 10 * times, "most commands end before they are killed");
        let apply = number % 2 == 0;
        let (words, lasts) =
            if apply { (&commands[0], lasts[0]) } else { (&commands[1], lasts[1]) };
        let delay = random.below(lasts + lasts / 10);
        let answer = on.splice_as(words, |command| command.killed_after(delay))?;
        let what = format!("number {number}, splice {}, {delay} µs", words.join(" "));
        match answer.exit {
            SIGNALLED => killed += 1,
            0 => {}
            _ => bail!("{what} ended by itself: {}", answer.explanation()),
        }
        let is_applied = as_said(on).with_context(|| what.clone())?;
        applied += u32::from(is_applied);
        if apply != is_applied {
            on.splice(words)?.success().with_context(|| format!("after {what}"))?;
        }
        ensure!(as_said(on)? == apply, "after {what}, the next one did not do it");
        on.machine.check_kernel()?;
    }
    if as_said(on)? {
        on.undo(FIX)?.success()?;
    } else if !on.loaded()?.is_empty() {
        // What a killed `undo` left in memory, the next command takes.
        on.apply(FIX)?.success()?;
        on.undo(FIX)?.success()?;
    }
    ensure!(on.loaded()?.is_empty(), "{:?} are left", on.loaded()?);
    on.machine.stop_load()?;
    guest.expect_clean()?;
    println!(
        "{killed} commands were killed before they ended, and after {applied} of them the \
         update was applied; the kernel was always as its state said, and the next command went through"
    );
    guest.machine.power_off()
}

/// Whether the update is applied; fails unless the code does what its state says.
fn as_said(guest: &mut Guest) -> Result<bool> {
    let state = guest.machine.read(&format!("/sys/kernel/splice/{FIX}/state"));
    let is_applied = state.is_ok_and(|state| state == "applied\n");
    let (allowed, said) = guest.probe("tcp-attach-filter", NOBODY)?;
    ensure!(allowed != is_applied, "applied: {is_applied}, but the probe says {said}");
    Ok(is_applied)
}
