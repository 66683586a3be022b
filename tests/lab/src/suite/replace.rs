// SPDX-License-Identifier: GPL-2.0-or-later
//! An update that takes the place of others: in one stop, so that nobody ever sees the kernel without a
//! fix that both have.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::fixes;
use crate::protocol::Command;
use crate::session::{Contents, Guest};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("cumulative_update", || replaced(fixture));
}

const DEVICES: &str = "fs/proc/devices.c";
const STATES: &str = "fs/proc/array.c";
const EVENTS: &str = "fs/eventfd.c";
const SHOW: &str = "\tint i = *(loff_t *) v;\n";
const START: &str = "static void *devinfo_start(struct seq_file *f, loff_t *pos)\n{\n";
const READ: &str = "\tif (iov_iter_count(to) < sizeof(ucnt))\n\t\treturn -EINVAL;\n";

/// The list of devices begins with these lines.
fn shown(lines: &str) -> String {
    format!("{SHOW}\n\tif (i == 0)\n\t\tseq_puts(f, \"{lines}\");\n")
}

fn replaced(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let edit = |file: &str, base: &[(&str, &str)], edits: &[(&str, &str)]| {
        fixes::edit_on(&lab.cache, &fixture.fix.base, file, base, edits)
    };
    // The first fix, with a table of words; one on top of it; one of something else; and one of all that
    // leaves that out, and has something more.
    let first = shown("lab fixed\\n");
    let on_top = shown("lab fixed\\nand on top\\n");
    let whole = shown("lab fixed\\nand whole\\n");
    let started = format!("{START}\tif (*pos == 1)\n\t\tseq_puts(f, \"started\\n\");\n");
    let words = [("S (sleeping)", "S (dozing)")];
    let other_words = [("S (sleeping)", "S (napping)")];
    let short = READ.replace("EINVAL", "EACCES");
    let a = edit(DEVICES, &[], &[(SHOW, &first)])? + &edit(STATES, &[], &words)?;
    let b = edit(DEVICES, &[(SHOW, &first)], &[(&first, &on_top)])?;
    let d = edit(EVENTS, &[], &[(READ, &short)])?;
    let c = edit(DEVICES, &[], &[(SHOW, &whole), (START, &started)])?
        + &edit(STATES, &[], &other_words)?;
    let mut updates = Vec::new();
    let mut base = String::new();
    for (id, patch) in [("first", a), ("on-top", b), ("else", d), ("whole", c)] {
        let more = if id == "on-top" { vec!["--base", &base] } else { Vec::new() };
        let (file, answer) = lab.create_with(id, &patch, &more)?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        if id == "first" {
            base = file.with_extension("patch").to_string_lossy().into_owned();
        }
        updates.push((id, file));
    }
    let updates = updates.iter().map(|(id, file)| (*id, file.as_path())).collect();
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    guest.machine.start_load()?;
    let on = &mut guest;
    let devices = on.machine.read("/proc/devices")?;
    let replace = ["apply", "--replace", "/updates/whole.splice"];
    let state = |on: &mut Guest, lines: &str, word: &str, read: &str| -> Result<()> {
        let now = on.machine.read("/proc/devices")?;
        let rest =
            now.strip_prefix(lines).with_context(|| format!("not {lines:?} is first: {now}"))?;
        let rest = rest.replace("started\n", "");
        ensure!(rest == devices, "the rest of the list is not as it was: {now}");
        let status = on.machine.read("/proc/2/status")?;
        ensure!(status.contains(word), "it does not say {word:?}: {status}");
        let (_, said) = on.probe("short-eventfd", 0)?;
        ensure!(said.contains(read), "the read says {said}");
        Ok(())
    };
    let old = |on: &mut Guest| state(on, "", "S (sleeping)", "Invalid argument");
    let checker = Command::new(["/init", "probe", "devices-fixed"]);
    let saw = |on: &mut Guest| -> Result<(u64, u64)> {
        let text = on.machine.stop("checker")?.stdout;
        let number = |word: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(word));
            line.and_then(|n| n.trim().parse().ok()).with_context(|| format!("it says {text}"))
        };
        Ok((number("total:")?, number("wrong:")?))
    };
    let text = texts(fixture, on)?;

    // One that was made for what it would replace does not.
    on.apply("first")?.success()?;
    let based = ["apply", "--replace", "/updates/on-top.splice"];
    on.splice(&based)?.expect(4)?.says(&["--base"])?;
    // Without the word, the second is refused, and so it is said what would help.
    on.apply("whole")?.expect(5)?.says(&["first", "--replace"])?;
    on.machine.start("checker", &checker)?;
    on.apply("on-top")?.success()?;
    on.apply("else")?.success()?;
    state(on, "lab fixed\nand on top\n", "S (dozing)", "Permission denied")?;

    // In the way, by a thread that sleeps in code which goes: all is as it was.
    on.machine.start("sleeper", &Command::new(["/init", "probe", "sleep-in-eventfd"]))?;
    std::thread::sleep(Duration::from_secs(1));
    let busy = ["apply", "--replace", "--no-interrupt", "--retries", "1", "/updates/whole.splice"];
    on.splice(&busy)?.expect(6)?.says(&["eventfd_read", "sleeper"])?;
    state(on, "lab fixed\nand on top\n", "S (dozing)", "Permission denied")?;
    on.splice(&["status", "on-top"])?.success()?.says(&["applied", "stands_on", "first"])?;
    on.machine.stop("sleeper")?;

    // Three at once.
    on.splice(&replace)?.success()?.says(&["first", "on-top", "else", "replaced"])?;
    state(on, "lab fixed\nand whole\n", "S (napping)", "Invalid argument")?;
    let loaded = on.loaded()?;
    ensure!(
        loaded.iter().all(|name| name == "splice" || name == "splice_whole"),
        "{loaded:?} are loaded"
    );
    let (total, wrong) = saw(on)?;
    ensure!(wrong == 0 && total > 50, "{wrong} of {total} lists were without the fix");
    on.splice(&replace)?.expect(1)?.says(&["applied already"])?;
    on.undo("whole")?.success()?;
    old(on)?;
    ensure!(texts(fixture, on)? == text, "the old text is not back");

    // Where nothing is applied, it is a plain apply. The other way round, the small one replaces.
    on.splice(&replace)?.success()?;
    on.splice(&["apply", "--replace", "/updates/else.splice"])?.success()?.says(&["whole"])?;
    state(on, "", "S (sleeping)", "Permission denied")?;
    on.undo("else")?.success()?;
    old(on)?;

    // The checker does see it if the fix is away for a moment.
    on.apply("first")?.success()?;
    on.machine.start("checker", &checker)?;
    std::thread::sleep(Duration::from_millis(500));
    on.undo("first")?.success()?;
    on.apply("whole")?.success()?;
    let (total, wrong) = saw(on)?;
    ensure!(wrong > 0, "of {total} lists none was without the fix, while it was away");
    on.undo("whole")?.success()?;
    on.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// The functions that are replaced, read from outside.
fn texts(fixture: &Fixture, guest: &mut Guest) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for name in ["devinfo_show", "devinfo_start", "eventfd_read"] {
        let address = guest.machine.address(name)?;
        let file = fixture.lab.work.path().join("text");
        guest.machine.save_memory(address, 64, &file)?;
        all.extend(std::fs::read(&file).context("no memory was saved")?);
    }
    Ok(all)
}
