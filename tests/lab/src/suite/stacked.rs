// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates on top of updates: built on the source of one that is applied, or beside it.

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::fixes;
use crate::session::{Contents, Guest, update};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("stacked_updates", || stacked(fixture));
    suite.test("stacked_in_a_module", || three_in_a_module(fixture));
}

const DEVICES: &str = "fs/proc/devices.c";
const HEAD: &str =
    "static int devinfo_show(struct seq_file *f, void *v)\n{\n\tint i = *(loff_t *) v;\n";
const START: &str = "static void *devinfo_start(struct seq_file *f, loff_t *pos)\n{\n";

/// Brings a function and a counter, which the updates above use.
const BELOW: &str = "\
static int splice_lab_count;

static noinline int splice_lab_step(int by)
{
\tsplice_lab_count += by;
\treturn splice_lab_count;
}

";

/// The first line of the list, which counts how often it was read.
fn show(what: &str, by: u32) -> String {
    format!("\n\tif (i == 0)\n\t\tseq_printf(f, \"{what} %d\\n\", splice_lab_step({by}));\n")
}

/// A patch of one file of which `before` is the text before: `base` has been applied to it.
fn on(base: &[(&str, &str)], all: &[(&str, &str)], fixture: &Fixture) -> Result<String> {
    fixes::edit_on(&fixture.lab.cache, &fixture.fix.base, DEVICES, base, all)
}

fn stacked(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let first = format!("{BELOW}{HEAD}{}", show("below", 1));
    let below = [(HEAD, first.as_str())];
    let second =
        format!("{BELOW}{HEAD}{}\tif (i == 0)\n\t\tsplice_lab_count += 100;\n", show("above", 10));
    let head = format!("{START}\tif (*pos == 0)\n\t\tseq_puts(f, \"start\\n\");\n");
    let beside = [(START, head.as_str())];
    let other = format!("{HEAD}\n\tif (i == 0)\n\t\tseq_puts(f, \"original\\n\");\n");

    let patch = on(&[], &below, fixture)?;
    let (file, answer) = lab.create("below", &patch)?;
    answer.success().context("cannot create below")?;
    let base = file.with_extension("patch");
    let base = base.to_string_lossy();
    let base = ["--base", &base];
    let mut updates = vec![("below", file)];
    for (id, patch, more) in [
        ("above", on(&below, &[(first.as_str(), second.as_str())], fixture)?, &base[..]),
        ("third", on(&below, &beside, fixture)?, &base),
        ("beside", on(&[], &beside, fixture)?, &[]),
        ("original", on(&[], &[(HEAD, other.as_str())], fixture)?, &[]),
    ] {
        let (file, answer) = lab.create_with(id, &patch, more)?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        updates.push((id, file));
    }
    let updates = updates.iter().map(|(id, file)| (*id, file.as_path())).collect();
    let contents = Contents { updates, ..Contents::default() };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    guest.machine.start_load()?;
    let text = text(&mut guest)?;
    let devices = guest.machine.read("/proc/devices")?;
    let reads = |guest: &mut Guest, first: &str| -> Result<()> {
        let now = guest.machine.read("/proc/devices")?;
        ensure!(now == format!("{first}{devices}"), "not {first:?} comes first, but: {now}");
        Ok(())
    };
    let on = &mut guest;

    // What is built on an update needs it.
    on.check("above")?.expect(5)?;
    on.apply("below")?.success()?;
    reads(on, "below 1\n")?;
    on.apply("original")?.expect(5)?.says(&["below", "devinfo_show", "--base", "undo"])?;
    reads(on, "below 2\n")?;
    foreign(on)?;
    for _ in 0..2 {
        on.apply("above")?.success()?;
        on.splice(&["status", "above"])?.success()?.says(&["stands_on", "below"])?;
        ensure!(on.machine.read("/proc/devices")?.starts_with("above "), "above has no effect");
        refused(on, "above")?;
        ensure!(on.machine.read("/proc/devices")?.starts_with("above "), "above has gone");
        on.undo("above")?.success()?;
        ensure!(on.machine.read("/proc/devices")?.starts_with("below "), "below is not back");
    }
    // The same counter has been used all the time: 2, and 2 * 2 times 110, and twice 1.
    reads(on, "below 445\n")?;

    // It replaces nothing of the one below, but was built for it.
    on.apply("third")?.success()?;
    reads(on, "start\nbelow 446\n")?;
    refused(on, "third")?;
    on.undo("third")?.success()?;

    // What has nothing to do with it does not mind.
    on.apply("beside")?.success()?;
    reads(on, "start\nbelow 447\n")?;
    on.undo("below")?.success()?;
    reads(on, "start\n")?;
    on.undo("beside")?.success()?;
    reads(on, "")?;
    ensure!(self::text(on)? == text, "the old text is not back");
    on.expect_clean()?;
    on.machine.stop_load()?;
    guest.machine.power_off()
}

/// What another one stands on stays: by the command, by the kernel side, and as a module.
fn refused(guest: &mut Guest, above: &str) -> Result<()> {
    guest.undo("below")?.expect(4)?.says(&[above, "undo that first"])?;
    let enabled = guest.machine.write("/sys/kernel/splice/below/enabled", "0");
    ensure!(enabled.is_err(), "the kernel side undoes what {above} stands on");
    let name = "splice_below".to_owned();
    let remove = crate::protocol::Request::RemoveModule { name };
    ensure!(guest.machine.ask(&remove).is_err(), "the module under {above} could be unloaded");
    Ok(())
}

/// Code of an applied update that somebody has changed is not taken for the update's.
fn foreign(guest: &mut Guest) -> Result<()> {
    let listed = guest.machine.search("/proc/kallsyms", "_devinfo_show")?;
    let name = listed.split_whitespace().find(|word| word.ends_with("_devinfo_show"));
    guest.set_breakpoint(name.context("the new code has no name")?)?;
    let answer = guest.splice(&["apply", &update("above")]);
    guest.remove_breakpoint()?;
    answer?.expect(5)?.says(&["devinfo_show"]).map(drop)
}

const NET: &str = "net/tipc/net.c";
/// The function that answers the probe, up to its first statement: without an attribute the command
/// is invalid.
const SET: &str = "int __tipc_nl_net_set(struct sk_buff *skb, struct genl_info *info)\n{\n";

/// Three updates of a module, each built on the one below: the first brings a function, the second
/// changes that one alone, the third the first's own change, too.
fn three_in_a_module(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    let brought = |error: &str, with: &str| {
        format!(
            "static noinline int splice_lab_error(void)\n{{\n\treturn -{error};\n}}\n\n{SET}\tif \
             ({with}splice_lab_error())\n\t\treturn splice_lab_error();\n"
        )
    };
    let texts = [
        SET.to_owned(),
        brought("EACCES", ""),
        brought("EPERM", ""),
        // What the function itself says without attributes.
        brought("EINVAL", "info && "),
    ];
    let mut updates = Vec::new();
    let mut bases: Vec<String> = Vec::new();
    for (id, pair) in ["one", "two", "three"].into_iter().zip(texts.windows(2)) {
        let [before, after] = pair else { continue };
        let base = [(SET, before.as_str())];
        let edits = [(before.as_str(), after.as_str())];
        let patch = fixes::edit_on(&lab.cache, &fixture.fix.base, NET, &base, &edits)?;
        let words: Vec<&str> = bases.iter().flat_map(|base| ["--base", base.as_str()]).collect();
        let (file, answer) = lab.create_with(id, &patch, &words)?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        bases.push(file.with_extension("patch").to_string_lossy().into_owned());
        updates.push((id, file));
    }
    let updates = updates.iter().map(|(id, file)| (*id, file.as_path())).collect();
    let modules = vec!["tipc".to_owned()];
    let contents = Contents { updates, modules, ..Contents::default() };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    let says = |guest: &mut Guest, word: &str| -> Result<()> {
        let (_, said) = guest.probe("tipc-net-set", 0)?;
        ensure!(said.contains(word), "the command's answer is not {word:?}: {said}");
        Ok(())
    };
    let on = &mut guest;
    says(on, "allowed")?;
    on.check("two")?.expect(5)?;
    for (id, word) in [("one", "Permission denied"), ("two", "not permitted"), ("three", "allowed")]
    {
        on.apply(id)?.success()?;
        says(on, word)?;
    }
    for below in ["one", "two"] {
        on.undo(below)?.expect(4)?.says(&["undo that first"])?;
    }
    for (id, word) in [("three", "not permitted"), ("two", "Permission denied"), ("one", "allowed")]
    {
        on.undo(id)?.success()?;
        says(on, word)?;
    }
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// The old function's bytes.
fn text(guest: &mut Guest) -> Result<Vec<u8>> {
    let address = guest.machine.address("devinfo_show")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("text");
    guest.machine.save_memory(address, 96, &file)?;
    std::fs::read(&file).context("no memory was saved")
}
