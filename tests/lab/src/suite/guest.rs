// SPDX-License-Identifier: GPL-2.0-or-later
//! Tests in one guest: each leaves the kernel as it found it, and that is checked.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};

use super::{FIX, Fixture, MODULE_FIX, SLEEPER, Suite};
use crate::protocol::{Command, Request};
use crate::session::{Contents, Guest, NOBODY, update};

const PROBE: &str = "tcp-attach-filter";

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    let guest = RefCell::new(None);
    let mut on = |name: &str, body: &dyn Fn(&mut Guest) -> Result<()>| {
        suite.test(name, || {
            let mut guest = guest.borrow_mut();
            let outcome = match &mut *guest {
                Some(guest) => body(guest),
                none => body(none.insert(boot(fixture)?)),
            };
            let outcome = outcome.and_then(|()| match &mut *guest {
                Some(guest) => guest.expect_clean(),
                None => Ok(()),
            });
            if outcome.is_err() {
                // The next test gets a machine that this one has not touched.
                *guest = None;
            }
            outcome
        });
    };
    on("apply_twice", &apply_twice);
    on("undo_of_what_is_not_applied", &undo_unknown);
    on("a_damaged_file_is_refused", &damaged);
    on("apply_without_root", &without_root);
    on("a_function_in_use_is_named", &in_use);
    on("a_module_under_an_update_stays", &module_stays);
    on("changed_text_is_refused", &changed_text);
    on("undo_leaves_foreign_bytes", &foreign);
    on("apply_can_be_killed", &killed);
    on("two_updates_at_once", &two_updates);
    // Last: this cannot be taken back.
    on("module_loading_disabled", &modules_disabled);
    suite.test("machine_ends_well", || match guest.borrow_mut().take() {
        Some(guest) => guest.machine.power_off(),
        None => Ok(()),
    });
}

fn boot(fixture: &Fixture) -> Result<Guest> {
    let updates: Vec<_> = fixture.updates.iter().map(|(id, path)| (*id, path.as_path())).collect();
    let body = std::fs::read(&fixture.updates.first().context("no update")?.1)?;
    let half = body.get(..body.len() / 2).unwrap_or_default().to_vec();
    let mut flipped = body;
    let middle = flipped.len() / 2;
    if let Some(byte) = flipped.get_mut(middle) {
        *byte ^= 0x10;
    }
    let contents = Contents {
        updates,
        files: vec![("updates/half.splice", half), ("updates/flipped.splice", flipped)],
        modules: vec!["tipc".to_owned()],
        ..Contents::default()
    };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    guest.machine.start_load()?;
    Ok(guest)
}

fn is_fixed(guest: &mut Guest) -> Result<bool> {
    Ok(!guest.probe(PROBE, NOBODY)?.0)
}

fn apply_twice(guest: &mut Guest) -> Result<()> {
    guest.apply(FIX)?.success()?;
    guest.apply(FIX)?.says(&["already"])?;
    ensure!(is_fixed(guest)?, "the second apply took the first away");
    guest.undo(FIX)?.success()?;
    ensure!(!is_fixed(guest)?, "one undo was not enough");
    Ok(())
}

fn undo_unknown(guest: &mut Guest) -> Result<()> {
    let answer = guest.undo("nothing-of-this-name")?;
    ensure!(answer.exit > 0, "undo of an unknown update succeeded");
    answer.says(&["nothing-of-this-name"]).map(drop)
}

fn damaged(guest: &mut Guest) -> Result<()> {
    for id in ["half", "flipped"] {
        let answer = guest.apply(id)?;
        ensure!(answer.exit > 0, "a damaged update ({id}) was applied");
        answer.says(&[&format!("{id}.splice")])?;
    }
    Ok(())
}

fn without_root(guest: &mut Guest) -> Result<()> {
    guest
        .splice_as(&["apply", &update(FIX)], |command| command.as_user(NOBODY))?
        .expect(7)?
        .says(&["root"])
        .map(drop)
}

fn in_use(guest: &mut Guest) -> Result<()> {
    guest.machine.start("sleeper", &Command::new(["/init", "probe", "sleep-in-eventfd"]))?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let checked = guest.check(SLEEPER)?.success()?.says(&["in_use", "sleeper", "eventfd_read"])?;
    ensure!(checked.explanation().contains("\"can_leave\":true"), "the sleeper cannot leave");
    let words = ["apply", "--no-interrupt", "--retries", "3", "--timeout", "60", &update(SLEEPER)];
    let answer = guest.splice(&words)?;
    answer.expect(6)?.says(&["eventfd_read", "sleeper", "4 attempts"])?;
    guest.expect_clean().context("after giving up")?;
    // It is brought out of the old code for a moment, and sleeps in the new code then; and back.
    guest.apply(SLEEPER)?.success().context("while the sleeper sleeps")?;
    let answer = guest.splice(&["undo", "--no-interrupt", "--retries", "2", SLEEPER])?;
    answer.expect(6)?.says(&["eventfd_read", "sleeper"])?;
    guest.undo(SLEEPER)?.success().context("while the sleeper sleeps in the new code")?;
    let slept = guest.machine.stop("sleeper")?;
    ensure!(slept.exit == Some(0), "the sleeper did not sleep to its end: {slept:?}");
    guest.expect_clean()
}

fn module_stays(guest: &mut Guest) -> Result<()> {
    guest.apply(MODULE_FIX)?.success()?;
    let remove = Request::RemoveModule { name: "tipc".to_owned() };
    ensure!(guest.machine.ask(&remove).is_err(), "a patched module could be unloaded");
    guest.undo(MODULE_FIX)?.success()?;
    Ok(())
}

/// A breakpoint stands in the function's text: that is not what the pre code says.
fn changed_text(guest: &mut Guest) -> Result<()> {
    guest.set_breakpoint("sk_setsockopt")?;
    let checked = guest.check(FIX);
    let applied = guest.apply(FIX);
    guest.remove_breakpoint()?;
    for answer in [checked?, applied?] {
        answer.expect(5)?.says(&["sk_setsockopt"])?;
    }
    guest.expect_clean()?;
    guest.apply(FIX)?.success().context("after the breakpoint was removed")?;
    guest.undo(FIX)?.success().map(drop)
}

/// Somebody else's breakpoint stands where the jump was written: undo says so, and changes nothing.
fn foreign(guest: &mut Guest) -> Result<()> {
    guest.apply(FIX)?.success()?;
    let sites = guest.machine.read(&format!("/sys/kernel/splice/{FIX}/sites"))?;
    let site = sites.split_whitespace().next().and_then(|word| word.strip_prefix("0x"));
    let site = u64::from_str_radix(site.context("no site")?, 16)?;
    let offset = site - guest.machine.address("sk_setsockopt")?;
    guest.set_breakpoint_at("sk_setsockopt", offset)?;
    let answer = guest.splice(&["undo", "--retries", "2", "--timeout", "5", FIX])?;
    ensure!(is_fixed(guest)?, "undo failed, and the update is not in effect");
    guest.splice(&["list"])?.success()?.says(&[FIX, "applied"])?;
    guest.remove_breakpoint()?;
    answer.expect(6)?.says(&["sk_setsockopt"])?;
    guest.undo(FIX)?.success().context("after the breakpoint was removed")?;
    ensure!(!is_fixed(guest)?, "undo did nothing");
    Ok(())
}

/// However far a killed apply got, the kernel works, and apply and undo work afterwards.
fn killed(guest: &mut Guest) -> Result<()> {
    let whole = guest.apply(FIX)?.success()?.duration;
    guest.undo(FIX)?.success()?;
    let whole = u64::try_from(whole.as_micros())?;
    let rounds = 16;
    for round in 0..=rounds {
        let delay = whole * round / rounds;
        let apply = ["apply", &update(FIX)];
        guest.splice_as(&apply, |command| command.killed_after(delay))?;
        let when = || format!("apply was killed after {delay} of {whole} us");
        guest.splice(&["list"])?.success().with_context(when)?;
        let answer = guest.apply(FIX)?;
        ensure!(
            answer.exit == 0 || answer.explanation().contains("already"),
            "{}: {}",
            when(),
            answer.explanation()
        );
        ensure!(is_fixed(guest)?, "{}: the fix is not effective", when());
        guest.undo(FIX)?.success().with_context(when)?;
        ensure!(!is_fixed(guest)?, "{}: undo did nothing", when());
        guest.expect_clean().with_context(when)?;
    }
    Ok(())
}

fn two_updates(guest: &mut Guest) -> Result<()> {
    guest.apply(FIX)?.success()?;
    guest.apply(SLEEPER)?.success()?;
    guest.splice(&["list"])?.success()?.says(&[FIX, SLEEPER])?;
    guest.undo(FIX)?.success()?;
    ensure!(!is_fixed(guest)?, "the wrong update was taken back");
    guest.undo(SLEEPER)?.success().map(drop)
}

fn modules_disabled(guest: &mut Guest) -> Result<()> {
    guest.machine.stop_load()?;
    guest.machine.write("/proc/sys/kernel/modules_disabled", "1")?;
    guest.apply(FIX)?.expect(7)?.says(&["modules_disabled"]).map(drop)
}
