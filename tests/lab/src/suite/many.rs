// SPDX-License-Identifier: GPL-2.0-or-later
//! An update of more functions than what the kernel tells of them fits into one page.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{FIX, Fixture, Suite};
use crate::session::{Contents, Guest, search};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("many_sites", || many_sites(fixture));
}

const ID: &str = "many";
/// Most of their functions are compiled to other code; all connections go through them.
const FILES: [&str; 2] = ["net/ipv4/tcp_input.c", "net/ipv4/tcp_output.c"];
const HEAD: &str = "#define pr_fmt(fmt) \"TCP: \" fmt\n";
const OTHER_CODE: &str = "#pragma GCC optimize(\"no-schedule-insns2\")\n";

fn many_sites(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let mut patch = String::new();
    for file in FILES {
        patch += &fixture.edit(file, HEAD, &format!("{HEAD}{OTHER_CODE}"))?;
    }
    let accept = ["--accept", "init:tcp_tasklet_init"];
    let (many, answer) = lab.create_with(ID, &patch, &accept)?;
    answer.success()?;
    let fix = fixture.update(FIX)?;
    let updates = vec![(ID, many.as_path()), (FIX, fix)];
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    guest.machine.start_load()?;
    let first = guest.machine.address("tcp_ack")?;
    let text = |on: &mut Guest| -> Result<Vec<u8>> {
        let file = lab.work.path().join("text");
        on.machine.save_memory(first, 1 << 14, &file)?;
        std::fs::read(&file).context("no memory was saved")
    };
    let on = &mut guest;
    let before = text(on)?;
    on.apply(ID)?.success()?;

    let status = on.splice(&["status", ID])?.success()?;
    let sites = search(&status.json, "sites").and_then(Value::as_array).context("no sites")?;
    // A row has two addresses and the bytes of before: not a hundred of them fit into a page.
    ensure!(sites.len() > 100, "only {} sites are told", sites.len());
    for site in sites {
        for end in ["old", "new"] {
            let address = site.get(end).and_then(Value::as_str).unwrap_or_default();
            ensure!(address.len() == 18, "{site} is no whole site");
        }
    }
    // What comes next has to know all of them.
    on.apply(FIX)?.success()?;
    on.undo(FIX)?.success()?;
    on.undo(ID)?.success()?;
    let load = on.machine.stop_load()?;
    ensure!(load.wrong == 0, "the load saw wrong results: {}", load.examples.join("; "));
    ensure!(text(on)? == before, "the old text is not back");
    guest.expect_clean()?;
    guest.machine.power_off()
}
