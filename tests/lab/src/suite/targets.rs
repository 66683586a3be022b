// SPDX-License-Identifier: GPL-2.0-or-later
//! Updates that reach far, in a running kernel: units that a patch adds, a header that reaches the
//! kernel image and modules, symbols that are exported in a namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Fixture, Suite};
use crate::fixes;
use crate::protocol::{Command, Request};
use crate::session::{Answer, Contents, Guest, search};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("targets_with_new_units", || new_units(fixture));
    suite.test("targets_of_one_header", || header(fixture));
    suite.test("targets_that_use_a_namespace", || namespace(fixture));
}

pub(super) fn edits(fixture: &Fixture, file: &str, all: &[(&str, &str)]) -> Result<String> {
    fixes::edit(&fixture.lab.cache, &fixture.fix.base, file, all)
}

/// A patch that makes a file.
pub(super) fn new_file(path: &str, text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("+{line}\n")).collect();
    format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{} @@\n{lines}", text.lines().count())
}

pub(super) fn create(fixture: &Fixture, id: &str, patch: &str) -> Result<(PathBuf, Answer)> {
    let (file, answer) = fixture.lab.create(id, patch)?;
    Ok((file, answer.success().with_context(|| format!("cannot create {id}"))?))
}

fn boot(fixture: &Fixture, id: &str, file: &Path, modules: &[&str]) -> Result<Guest> {
    let contents = Contents {
        updates: vec![(id, file)],
        modules: modules.iter().map(|name| (*name).to_owned()).collect(),
        ..Contents::default()
    };
    Guest::boot(&fixture.lab, &fixture.lab.image, &contents)
}

/// What `create` says its targets are.
fn targets(answer: &Answer) -> Result<Vec<&str>> {
    let list = search(&answer.json, "targets").and_then(Value::as_array).context("no targets")?;
    Ok(list.iter().filter_map(Value::as_str).collect())
}

const DEVICES: &str = "fs/proc/devices.c";
const SHOW: &str = "int i = *(loff_t *) v;";

/// A unit for the kernel image: code, data of each kind, a message of its own, and an object that
/// another unit uses.
const OF_KERNEL: &str = "\
// SPDX-License-Identifier: GPL-2.0
#include <linux/seq_file.h>
#include <linux/printk.h>

static int count = 40;
static int zero;
static const char *const words[] = { \"even\", \"odd\" };
int splice_lab_total;

void splice_lab_show(struct seq_file *f);
void splice_lab_show(struct seq_file *f)
{
\tcount++;
\tpr_info_once(\"splice lab has a new unit\\n\");
\tseq_printf(f, \"unit %d is %s, %d\\n\", count, words[count & 1], zero++);
}
";

/// A unit for a module: it calls a function of its own target that is not exported.
const OF_MODULE: &str = "\
// SPDX-License-Identifier: GPL-2.0
#include \"core.h\"
#include \"addr.h\"

int splice_lab_option(unsigned int length);
int splice_lab_option(unsigned int length)
{
\treturn 1000 + length + tipc_in_scope(true, 7, 7);
}
";

fn new_units(fixture: &Fixture) -> Result<()> {
    let call = format!(
        "extern void splice_lab_show(struct seq_file *f);\n\textern int \
         splice_lab_total;\n\t{SHOW}\n\n\tif (i == 0) {{\n\t\tsplice_lab_total += \
         3;\n\t\tsplice_lab_show(f);\n\t\tseq_printf(f, \"total %d\\n\", \
         splice_lab_total);\n\t}}\n"
    );
    let option = "if (lvl != SOL_TIPC)\n\t\treturn -ENOPROTOOPT;\n\n\tswitch (opt) {\n\tcase \
                  TIPC_IMPORTANCE:\n\tcase TIPC_SRC";
    let patch = [
        edits(
            fixture,
            "fs/proc/Makefile",
            &[("proc-y\t+= devices.o\n", "proc-y\t+= devices.o\nproc-y\t+= splice_lab.o\n")],
        )?,
        edits(fixture, DEVICES, &[(SHOW, &call)])?,
        new_file("fs/proc/splice_lab.c", OF_KERNEL),
        edits(
            fixture,
            "net/tipc/Makefile",
            &[("group.o trace.o", "group.o trace.o splice_lab.o")],
        )?,
        edits(
            fixture,
            "net/tipc/socket.c",
            &[(
                option,
                &option.replace(
                    "\n\n\tswitch",
                    "\n\tif (opt == 4711) {\n\t\textern int splice_lab_option(unsigned int \
                 length);\n\n\t\treturn splice_lab_option(ol);\n\t}\n\n\tswitch",
                ),
            )],
        )?,
        new_file("net/tipc/splice_lab.c", OF_MODULE),
    ]
    .concat();
    let (file, answer) = create(fixture, "new-units", &patch)?;
    ensure!(targets(&answer)? == ["vmlinux", "tipc"], "{}", answer.explanation());
    let mut guest = boot(fixture, "new-units", &file, &["tipc"])?;
    let before = guest.machine.read("/proc/devices")?;
    ensure!(option_of(&mut guest)? == -22, "the option is known before");
    for _ in 0..2 {
        guest.apply("new-units")?.success()?;
        for said in ["unit 41 is odd, 0\ntotal 3\n", "unit 42 is even, 1\ntotal 6\n"] {
            let devices = guest.machine.read("/proc/devices")?;
            ensure!(devices == format!("{said}{before}"), "applied, it says {devices}");
        }
        let option = option_of(&mut guest)?;
        ensure!(option == 1049, "applied, the option gives {option}");
        guest.undo("new-units")?.success()?;
        ensure!(guest.machine.read("/proc/devices")? == before, "it is not as before");
        ensure!(option_of(&mut guest)? == -22, "the option is known after undo");
        guest.expect_clean()?;
    }
    let log = guest.machine.kernel_log()?;
    ensure!(log.matches("splice lab has a new unit").count() == 2, "the new unit is silent");
    guest.machine.power_off()
}

/// Sets an option of 48 bytes that no module knows.
pub(super) fn option_of(guest: &mut Guest) -> Result<i64> {
    let words = ["/init", "construct", "module", "x=0"];
    let outcome = guest.machine.run(&Command::new(words))?;
    let word = outcome.stdout.split_whitespace().nth(1).context("no result")?;
    Ok(word.parse()?)
}

const MODULES: [&str; 3] = ["tap", "tun", "virtio_net"];

/// An inline function that the kernel image and three modules have.
fn header(fixture: &Fixture) -> Result<()> {
    let begin = "static inline int virtio_net_hdr_to_skb(struct sk_buff *skb,\n\t\t\t\t\tconst struct \
                 virtio_net_hdr *hdr,\n\t\t\t\t\tbool little_endian)\n{\n";
    let check = format!("{begin}\tif (hdr->flags & 0x80)\n\t\treturn -EINVAL;\n");
    let patch = edits(fixture, "include/linux/virtio_net.h", &[(begin, &check)])?;
    let (file, answer) = create(fixture, "header", &patch)?;
    let mut found = targets(&answer)?;
    found.sort_unstable();
    ensure!(found == ["tap", "tun", "virtio_net", "vmlinux"], "{}", answer.explanation());
    answer.clone().says(&["inlined virtio_net_hdr_to_skb"])?;

    let mut guest = boot(fixture, "header", &file, &MODULES)?;
    let on = &mut guest;
    let before = "74 -5";
    packets(on, before).context("before")?;
    on.apply("header")?.success()?;
    packets(on, "-22 -22").context("applied")?;
    stay(on).context("applied")?;
    on.undo("header")?.success()?;
    packets(on, before).context("undone")?;
    on.expect_clean()?;
    // Only switched back, the update is still loaded.
    on.apply("header")?.success().context("again")?;
    on.machine.write("/sys/kernel/splice/header/enabled", "0")?;
    packets(on, before).context("switched back")?;
    stay(on).context("switched back")?;
    for name in on.loaded()? {
        on.machine.ask(&Request::RemoveModule { name })?;
    }
    on.expect_clean()?;
    // One target that is missing keeps none of the others from being switched.
    on.machine.ask(&Request::RemoveModule { name: "virtio_net".to_owned() })?;
    on.apply("header")?.success()?.says(&["left_out", "virtio_net"])?;
    packets(on, "-22 -22").context("without a target")?;
    on.undo("header")?.success()?;
    packets(on, before).context("without a target, undone")?;
    on.expect_clean()?;
    guest.machine.power_off()
}

/// What comes back from the packet socket and from the device.
fn packets(guest: &mut Guest, expected: &str) -> Result<()> {
    let said = guest.probe("packet-headers", 0)?.1;
    ensure!(said == format!("{expected}\nallowed"), "the probe says {said}");
    Ok(())
}

/// No target can be unloaded.
fn stay(guest: &mut Guest) -> Result<()> {
    for name in MODULES {
        let remove = Request::RemoveModule { name: name.to_owned() };
        ensure!(guest.machine.ask(&remove).is_err(), "the module {name} could be unloaded");
    }
    Ok(())
}

/// `dma_buf_get` is exported in the namespace `DMA_BUF`.
fn namespace(fixture: &Fixture) -> Result<()> {
    let call = format!(
        "{SHOW}\n\n\tif (i == 0)\n\t\tseq_printf(f, \"buffer %ld\\n\", \
         PTR_ERR(dma_buf_get(-1)));\n"
    );
    let include = "#include <linux/fs.h>\n";
    let more = format!("{include}#include <linux/dma-buf.h>\n");
    let patch = edits(fixture, DEVICES, &[(include, &more), (SHOW, &call)])?;
    let (file, _) = create(fixture, "namespace", &patch)?;
    let mut guest = boot(fixture, "namespace", &file, &[])?;
    let before = guest.machine.read("/proc/devices")?;
    guest.apply("namespace")?.success()?;
    let devices = guest.machine.read("/proc/devices")?;
    ensure!(devices == format!("buffer -9\n{before}"), "applied, it says {devices}");
    guest.undo("namespace")?.success()?;
    ensure!(guest.machine.read("/proc/devices")? == before, "it is not as before");
    guest.expect_clean()?;
    guest.machine.power_off()
}
