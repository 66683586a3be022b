// SPDX-License-Identifier: GPL-2.0-or-later
//! Tests which need a machine of their own: another kernel, another command line.

use anyhow::{Context, Result};

use super::{FIX, Fixture, Suite};
use crate::packages::kernels;
use crate::session::{Contents, Guest};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("another_release_is_refused", || another_release(fixture));
    suite.test("signatures_enforced", || signatures(fixture));
}

fn contents(fixture: &Fixture) -> Contents<'_> {
    let updates = fixture.updates.iter().map(|(id, path)| (*id, path.as_path())).collect();
    Contents { updates, ..Contents::default() }
}

fn another_release(fixture: &Fixture) -> Result<()> {
    let all = kernels()?;
    let other = all
        .iter()
        .rev()
        .find(|kernel| kernel.release != fixture.lab.kernel.release)
        .context("apt offers only one kernel, so there is no other to test with")?;
    let image = fixture.lab.cache.image(&other.release, &other.version)?;
    let mut guest = Guest::boot(&fixture.lab, &image, &contents(fixture))?;
    let releases = [other.release.as_str(), fixture.lab.kernel.release.as_str()];
    guest.check(FIX)?.expect(5)?.says(&releases)?;
    guest.apply(FIX)?.expect(5)?.says(&releases)?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

fn signatures(fixture: &Fixture) -> Result<()> {
    let contents = Contents { append: "module.sig_enforce=1", ..contents(fixture) };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    guest.apply(FIX)?.expect(7)?.says(&["sign"])?;
    guest.expect_clean()?;
    guest.machine.power_off()
}
