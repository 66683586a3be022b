// SPDX-License-Identifier: GPL-2.0-or-later
//! Work and data of a patch's author: hooks that are called, and refuse, in each position; a field that a
//! struct gets by a shadow variable; an initial value that a hook sets.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{Fixture, Suite};
use crate::fixes;
use crate::protocol::Command;
use crate::session::{Answer, Contents, Guest};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("hooks_are_called_and_refuse", || hooks(fixture));
    suite.test("shadow_adds_a_field", || shadow(fixture));
}

const FILES: &str = "fs/file.c";
const DEVICES: &str = "fs/proc/devices.c";
const EVENTS: &str = "fs/eventfd.c";
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
/// What the kernel starts with, and what the patch makes of it.
const OLD: &str = "1048576\n";
const NEW: &str = "2097152\n";

const INCLUDE: &str = "#include \"internal.h\"\n";
const VALUE: &str = "unsigned int sysctl_nr_open __read_mostly = 1024*1024;\n";

/// Each refuses at a value of its own.
const HOOKS: &str = r#"unsigned int sysctl_nr_open __read_mostly = 2*1024*1024;

static unsigned int lab_before;

static int lab_pre_apply(void)
{
	pr_info("lab: pre_apply\n");
	return sysctl_nr_open == 1000001 ? -EPERM : 0;
}
splice_pre_apply(lab_pre_apply);

static int lab_pre_apply_too(void)
{
	pr_info("lab: pre_apply_too\n");
	return sysctl_nr_open == 1000002 ? splice_refuse("the second does not want to") : 0;
}
splice_pre_apply(lab_pre_apply_too);

static int lab_check_apply(void)
{
	if (sysctl_nr_open == 1000003)
		return -EBUSY;
	if (sysctl_nr_open != 1024*1024)
		return splice_refuse("the administrator has set nr_open");
	return 0;
}
splice_check_apply(lab_check_apply);

static void lab_apply(void)
{
	lab_before = sysctl_nr_open;
	sysctl_nr_open = 2*1024*1024;
}
splice_apply(lab_apply);

static void lab_post_apply(void)
{
	pr_info("lab: post_apply\n");
}
splice_post_apply(lab_post_apply);

static void lab_fail_apply(void)
{
	pr_info("lab: fail_apply\n");
}
splice_fail_apply(lab_fail_apply);

static int lab_pre_undo(void)
{
	pr_info("lab: pre_undo\n");
	return sysctl_nr_open == 1000004 ? -EPERM : 0;
}
splice_pre_undo(lab_pre_undo);

static int lab_check_undo(void)
{
	if (sysctl_nr_open != 2*1024*1024)
		return splice_refuse("nr_open is not what it was set to");
	return 0;
}
splice_check_undo(lab_check_undo);

static void lab_undo(void)
{
	sysctl_nr_open = lab_before;
}
splice_undo(lab_undo);

static void lab_post_undo(void)
{
	pr_info("lab: post_undo\n");
}
splice_post_undo(lab_post_undo);

static void lab_fail_undo(void)
{
	pr_info("lab: fail_undo\n");
}
splice_fail_undo(lab_fail_undo);
"#;

/// The new code, which must come and go with the value.
const SHOWN: (&str, &str) = (
    "\tint i = *(loff_t *) v;\n",
    "\tint i = *(loff_t *) v;\n\n\tif (i == 0)\n\t\tseq_puts(f, \"with hooks\\n\");\n",
);

fn edit(fixture: &Fixture, file: &str, edits: &[(&str, &str)]) -> Result<String> {
    fixes::edit(&fixture.lab.cache, &fixture.fix.base, file, edits)
}

fn create(fixture: &Fixture, id: &str, patch: &str, more: &[&str]) -> Result<(PathBuf, Answer)> {
    fixture.lab.create_with(id, patch, more)
}

/// What the hooks have said since the last time.
fn said(guest: &mut Guest, seen: &mut usize) -> Result<Vec<String>> {
    let log = guest.machine.kernel_log()?;
    let lines = log.lines().filter_map(|line| line.split_once("lab: "));
    let words: Vec<String> = lines.map(|(_, word)| word.trim().to_owned()).collect();
    let new = words.get(*seen..).unwrap_or_default().to_vec();
    *seen = words.len();
    Ok(new)
}

fn hooks(fixture: &Fixture) -> Result<()> {
    let include = format!("{INCLUDE}#include <splice/patch.h>\n");
    let with = [(INCLUDE, include.as_str()), (VALUE, HOOKS)];
    let patch = edit(fixture, FILES, &with)? + &edit(fixture, DEVICES, &[SHOWN])?;
    let words = ["data:sysctl_nr_open", "--accept", "docs/hooks.md"];
    create(fixture, "hooks", &patch, &[])?.1.expect(4)?.says(&words)?;
    let accept = ["--accept", "data:sysctl_nr_open"];
    let (file, answer) = create(fixture, "hooks", &patch, &accept)?;
    answer.success()?.says(&["lab_check_apply", "post_undo"])?;
    // Hooks alone are an update, too.
    let (alone, answer) = create(fixture, "alone", &edit(fixture, FILES, &with)?, &accept)?;
    answer.success()?;
    let (plain, answer) = create(fixture, "plain", &edit(fixture, DEVICES, &[SHOWN])?, &[])?;
    answer.success()?;
    let updates =
        vec![("hooks", file.as_path()), ("alone", alone.as_path()), ("plain", plain.as_path())];
    let mut guest = Guest::boot(
        &fixture.lab,
        &fixture.lab.image,
        &Contents { updates, ..Contents::default() },
    )?;
    guest.machine.start_load()?;
    let on = &mut guest;
    let devices = on.machine.read("/proc/devices")?;
    let changed = format!("with hooks\n{devices}");
    let state = |on: &mut Guest, value: &str, shown: &str| -> Result<()> {
        let now = on.machine.read(NR_OPEN)?;
        ensure!(now == value, "nr_open is {now:?}, not {value:?}");
        ensure!(on.machine.read("/proc/devices")? == shown, "the list of devices is not {shown:?}");
        Ok(())
    };
    let seen = &mut 0;
    let pre = ["pre_apply", "pre_apply_too"];

    for (value, exit, words, calls) in [
        ("1000001\n", 4, ["lab_pre_apply", "error -1"], &["pre_apply", "fail_apply"][..]),
        (
            "1000002\n",
            4,
            ["lab_pre_apply_too", "the second does not want to"],
            &[pre[0], pre[1], "fail_apply"],
        ),
        (
            "1000003\n",
            6,
            ["lab_check_apply", "error -16"],
            &[pre[0], pre[1], "fail_apply", pre[0], pre[1], "fail_apply"],
        ),
        (
            "1000005\n",
            4,
            ["lab_check_apply", "the administrator has set nr_open"],
            &[pre[0], pre[1], "fail_apply"],
        ),
    ] {
        on.machine.write(NR_OPEN, value)?;
        let apply = ["apply", "--retries", "1", "/updates/hooks.splice"];
        on.splice(&apply)?.expect(exit)?.says(&words).with_context(|| format!("at {value}"))?;
        state(on, value, &devices)?;
        on.expect_clean()?;
        let called = said(on, seen)?;
        ensure!(called == calls, "at {value}these were called: {called:?}");
    }
    on.machine.write(NR_OPEN, OLD)?;
    for _ in 0..2 {
        on.apply("hooks")?.success()?;
        state(on, NEW, &changed)?;
        let called = said(on, seen)?;
        ensure!(
            called == [pre[0], pre[1], "post_apply"],
            "to apply, these were called: {called:?}"
        );
        for (value, words) in [
            ("1000004\n", ["lab_pre_undo", "error -1"]),
            ("1000005\n", ["lab_check_undo", "nr_open is not what it was set to"]),
        ] {
            on.machine.write(NR_OPEN, value)?;
            on.undo("hooks")?.expect(4)?.says(&words).with_context(|| format!("at {value}"))?;
            state(on, value, &changed)?;
            let called = said(on, seen)?;
            ensure!(called == ["pre_undo", "fail_undo"], "at {value}these were called: {called:?}");
        }
        on.machine.write(NR_OPEN, NEW)?;
        on.undo("hooks")?.success()?;
        state(on, OLD, &devices)?;
        let called = said(on, seen)?;
        ensure!(called == ["pre_undo", "post_undo"], "to undo, these were called: {called:?}");
    }
    on.apply("alone")?.success()?;
    state(on, NEW, &devices)?;
    let replace = |id: &str| ["apply".into(), "--replace".into(), crate::session::update(id)];
    let run = |on: &mut Guest, words: [String; 3]| on.splice(&words.each_ref().map(String::as_str));
    // What comes is asked before what goes has been undone.
    let refusal = run(on, replace("hooks"))?.expect(4)?;
    refusal.says(&["lab_check_apply", "the administrator has set nr_open"])?;
    state(on, NEW, &devices)?;
    on.splice(&["status", "alone"])?.success()?.says(&["applied"])?;
    said(on, seen)?;
    run(on, replace("plain"))?.success()?.says(&["alone"])?;
    state(on, OLD, &changed)?;
    let called = said(on, seen)?;
    ensure!(called == ["pre_undo", "post_undo"], "to be replaced, these were called: {called:?}");
    on.undo("plain")?.success()?;
    state(on, OLD, &devices)?;
    on.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

const EVENT_INCLUDE: &str = "#include <linux/uio.h>\n";
const CONTEXT: &str = "static void eventfd_free_ctx(struct eventfd_ctx *ctx)\n{\n";
const WRITE: &str = "\tspin_lock_irq(&ctx->wqh.lock);\n\tres = -EAGAIN;\n";
const SHOW: &str = "\tseq_printf(m, \"eventfd-id: %d\\n\", ctx->id);\n";

/// Counts the writes to each descriptor, in a field that its struct does not have.
fn counting(fixture: &Fixture, word: &str, id: u32) -> Result<String> {
    let declared = format!(
        "struct lab_writes {{\n\tatomic_t count;\n}};\n\nSPLICE_SHADOW(lab_writes, .id = {id}, .size = \
         sizeof(struct lab_writes));\n\n{CONTEXT}\tsplice_shadow_remove(&lab_writes, ctx);\n"
    );
    let include = format!("{EVENT_INCLUDE}#include <splice/patch.h>\n");
    let write = format!(
        "\twrites = splice_shadow_add(&lab_writes, ctx, GFP_KERNEL);\n\tif (!writes)\n\t\treturn \
         -ENOMEM;\n\tatomic_inc(&writes->count);\n{WRITE}"
    );
    let show = format!(
        "{SHOW}\twrites = splice_shadow_get(&lab_writes, ctx);\n\tseq_printf(m, \"{word}: %d\\n\", \
         writes ? atomic_read(&writes->count) : 0);\n"
    );
    let variable =
        |before: &str| (before.to_owned(), format!("{before}\tstruct lab_writes *writes;\n"));
    let local = variable("\tssize_t res;\n\t__u64 ucnt;\n");
    let shown = variable(
        "static void eventfd_show_fdinfo(struct seq_file *m, struct file *f)\n{\n\tstruct eventfd_ctx \
         *ctx = f->private_data;\n",
    );
    edit(
        fixture,
        EVENTS,
        &[
            (EVENT_INCLUDE, include.as_str()),
            (CONTEXT, declared.as_str()),
            (local.0.as_str(), local.1.as_str()),
            (WRITE, write.as_str()),
            (shown.0.as_str(), shown.1.as_str()),
            (SHOW, show.as_str()),
        ],
    )
}

/// How often the probe has written, and how many of these the kernel has counted under that word.
fn counted(text: &str, word: &str) -> Result<(u64, Option<u64>)> {
    let number = |word: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(": "))?;
        line.trim().parse().ok()
    };
    Ok((number("total").with_context(|| format!("the probe says {text}"))?, number(word)))
}

fn shadow(fixture: &Fixture) -> Result<()> {
    let lab = &fixture.lab;
    // The same with a field, which is what the patch would do in another kernel.
    let field = edit(
        fixture,
        EVENTS,
        &[
            ("\t__u64 count;\n", "\t__u64 count;\n\tatomic_t writes;\n"),
            (WRITE, &format!("\tatomic_inc(&ctx->writes);\n{WRITE}")),
        ],
    )?;
    let words = ["struct eventfd_ctx", "shadow variable", "docs/hooks.md"];
    create(fixture, "field", &field, &[])?.1.expect(4)?.says(&words)?;
    let mut updates = Vec::new();
    for (id, word, number) in
        [("counts", "writes", 7), ("again", "again", 7), ("other", "other", 8)]
    {
        let (file, answer) = create(fixture, id, &counting(fixture, word, number)?, &[])?;
        answer.success()?.says(&["lab_writes"])?;
        updates.push((id, file));
    }
    let updates = updates.iter().map(|(id, file)| (*id, file.as_path())).collect();
    let mut guest = Guest::boot(lab, &lab.image, &Contents { updates, ..Contents::default() })?;
    guest.machine.start_load()?;
    let on = &mut guest;
    let writer = Command::new(["/init", "probe", "eventfd-writes"]);
    let stop = |on: &mut Guest, word: &str| -> Result<(u64, Option<u64>)> {
        std::thread::sleep(std::time::Duration::from_millis(500));
        counted(&on.machine.stop("writer")?.stdout, word)
    };

    on.machine.start("writer", &writer)?;
    let (_, count) = stop(on, "writes")?;
    ensure!(count.is_none(), "the old code shows the new line");
    // An object that is older than the update.
    on.machine.start("writer", &writer)?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    on.apply("counts")?.success()?;
    let (total, count) = stop(on, "writes")?;
    ensure!(count.is_some_and(|n| n > 0 && n < total), "of {total} writes {count:?} are counted");
    // One that is younger, and many that come and go.
    on.machine.start("writer", &writer)?;
    for _ in 0..50 {
        let (total, count) = counted(&on.probe("eventfd-writes", 0)?.1, "writes")?;
        ensure!(count == Some(total), "of {total} writes {count:?} are counted");
    }
    // An update with the same data takes over: not one is lost.
    on.splice(&["apply", "--replace", "/updates/again.splice"])?.success()?.says(&["counts"])?;
    let (total, count) = stop(on, "again")?;
    ensure!(
        count == Some(total),
        "of {total} writes {count:?} are counted after the update was replaced"
    );
    // One without it would lose it.
    let words = ["0x7", "again", "would be lost"];
    on.splice(&["apply", "--replace", "/updates/other.splice"])?.expect(4)?.says(&words)?;
    on.machine.start("writer", &writer)?;
    let (total, count) = stop(on, "again")?;
    ensure!(count == Some(total), "of {total} writes {count:?} are counted after a refusal");
    // Undo forgets, also what belongs to objects that are still there.
    on.machine.start("writer", &writer)?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    on.undo("again")?.success()?;
    on.apply("counts")?.success()?;
    let (total, count) = stop(on, "writes")?;
    ensure!(
        count.is_some_and(|n| n > 0 && n < total),
        "of {total} writes {count:?} are counted anew"
    );
    on.undo("counts")?.success()?;
    on.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}
