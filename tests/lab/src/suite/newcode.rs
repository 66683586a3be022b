// SPDX-License-Identifier: GPL-2.0-or-later
//! What new code may use: one update of the kernel image and of a module brings every construct, and
//! each is called from user space, before, while and after the update is applied.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::process::Command as Process;

use anyhow::{Context, Result, bail, ensure};

use super::{Fixture, Suite};
use crate::protocol::Command;
use crate::session::{Contents, Guest, search};
use crate::vm::alarms;

const ID: &str = "new-code";
/// The update's modules, as the kernel calls them: of the image and of tipc.
const MODULES: [&str; 2] = ["splice_new_code", "splice_new_code_1"];
/// Where the constructs are called, and the file that they are in.
const PLACES: [(&str, &str); 2] = [("kernel", "fs/eventfd.c"), ("module", "net/tipc/socket.c")];
/// The constructs' source.
const CONSTRUCTS: &str = include_str!("../../new-code/constructs.c");
/// What must not be taken silently.
const REFUSED: &str = include_str!("../../new-code/refused.c");

const FAULT: i64 = -14;
const NO_ADDRESS: &str = "8";
/// The last byte but some of all addresses, where nothing is ever mapped.
const NO_KERNEL_ADDRESS: &str = "18446744073709551360";
/// What the buffer of a call holds if the construct leaves it alone, and its lowest byte.
const LEFT: u64 = 0x1122_3344_5566_7788;
const LOWEST: i64 = 0x88;

/// Calls in order, and what each gives; what does not say otherwise leaves the buffer alone.
const CALLS: &[(&str, &str, i64)] = &[
    ("data", "5", 70),
    ("data", "5", 76),
    ("static-local", "1", 10143),
    ("static-local", "2", 10253),
    // Two processors with 7, 11 and 13 each, and twice 4.
    ("per-cpu", "4", 70),
    ("strings", "17", 1),
    ("functions", "6", 12008),
    ("functions", "5", 15005),
    ("switch", "0", 2),
    ("switch", "1", 18),
    ("switch", "2", 12),
    ("switch", "3", 56),
    ("switch", "4", 8),
    ("switch", "5", 205),
    ("switch", "6", 11),
    ("switch", "7", -34),
    ("cold", "3", 3),
    ("cold", "12", -7),
    ("stack", "5", 10),
    ("return-address", "0", 1),
    ("old", "0", 1),
    ("owner", "0", 1),
    ("other-module", "0", 1),
    ("old-key", "0", 0),
    ("new-key", "0", 12),
    ("new-key", "1", 3),
    ("new-key", "0", 3),
    ("new-key", "2", 12),
    ("old-call", "0", 1),
    ("new-call", "0", 11),
    ("new-call", "1", 12),
    ("new-call", "0", 12),
    ("new-call", "2", 11),
    ("old-trace", "1", 0),
    ("new-trace", "5", 2010),
    ("warn-once", "0", 0),
    ("warn-once", "7", 3),
    ("warn-once", "7", 3),
    ("warn-once", "8", 3),
    ("print", "21", 21),
    ("alternatives", "25", 255),
    ("get-user", "buffer", LOWEST),
    ("get-user", NO_ADDRESS, FAULT),
    ("put-user", NO_ADDRESS, FAULT),
    ("copy", NO_ADDRESS, -16),
    ("unsafe-get", "buffer", LOWEST),
    ("unsafe-get", NO_ADDRESS, FAULT),
    ("unsafe-get", NO_KERNEL_ADDRESS, -1),
    ("unsafe-put", NO_ADDRESS, FAULT),
    ("kernel-address", NO_KERNEL_ADDRESS, FAULT),
    ("objects", "1", 31),
    ("slab", "0", 90),
    ("later", "1000", 1111),
    ("no-such-construct", "0", -2),
];

/// Calls that write to the buffer: the result, and what the buffer then holds.
const WRITES: &[(&str, i64, [u64; 2])] = &[
    ("put-user=buffer", 0, [0x77, u64::MAX]),
    ("copy=buffer", LOWEST, [LEFT, 0]),
    ("unsafe-put=buffer", 0, [0x66, u64::MAX]),
];

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    let made = OnceCell::new();
    let update = || match made.get() {
        Some(update) => Ok(update),
        None => NewCode::create(fixture).map(|update| made.get_or_init(|| update)),
    };
    suite.test("new_code_is_found_new", || found(update()?));
    suite.test("new_code_suits_objtool", || suits_objtool(fixture, update()?));
    suite.test("new_code_works", || works(fixture, update()?));
    suite.test("new_code_that_nobody_reads_is_refused", || refused(fixture));
}

/// The update, and what its patch says.
struct NewCode {
    file: PathBuf,
    patch: String,
    changed: Vec<String>,
}

impl NewCode {
    fn create(fixture: &Fixture) -> Result<Self> {
        let base = &fixture.fix.base;
        let edit = |file, edits: &[(&str, &str)]| {
            crate::fixes::edit(&fixture.lab.cache, base, file, edits)
        };
        let patch = [
            edit("fs/eventfd.c", &[
                before("static ssize_t eventfd_write(", CONSTRUCTS),
                before("if (ucnt == ULLONG_MAX)", "if (ucnt == LAB_MAGIC)\n\t\treturn lab_call(buf, count);\n\t"),
            ].each_ref().map(|(old, new)| (*old, new.as_str())))?,
            edit("net/tipc/socket.c", &[
                before("/**\n * tipc_setsockopt - set", CONSTRUCTS),
                before("switch (opt) {\n\tcase TIPC_IMPORTANCE:\n\tcase TIPC_SRC_DROPPABLE:\n\tcase TIPC_DEST_DROPPABLE:\n\tcase TIPC_CONN_TIMEOUT:\n\tcase TIPC_NODELAY:\n\t\tif (ol",
                    "if (opt == 4711)\n\t\treturn lab_call(ov.user, ol);\n\t"),
            ].each_ref().map(|(old, new)| (*old, new.as_str())))?,
            // All numbers are even: what the variables hold goes on.
            edit("fs/inode.c", &[("\tres++;\n", "\tres++;\n\tif (res & 1)\n\t\tres++;\n")])?,
            // It is refused, but what has been said once is not said again.
            edit("net/ipv4/raw.c", &[(
                "err = -EAFNOSUPPORT;\n\t\t\tif (usin->sin_family)\n\t\t\t\tgoto out;",
                "err = -EINVAL;\n\t\t\tgoto out;",
            )])?,
        ]
        .concat();
        let (file, answer) = fixture.lab.create(ID, &patch)?;
        let answer = answer.success()?;
        let changed = names(&answer.json, "changed");
        ensure!(names(&answer.json, "new").len() > 80, "few functions are new: {}", answer.json);
        Ok(Self { file, patch, changed })
    }

    /// The line of the patched file that holds this text.
    fn line(&self, file: &str, text: &str) -> Result<usize> {
        let header = format!("+++ b/{file}\n");
        let (_, part) = self.patch.split_once(&header).context("the file is not in the patch")?;
        let mut number = 0;
        for line in part.lines() {
            if let Some(rest) = line.strip_prefix("@@ ") {
                let start = rest.split(['+', ',', ' ']).filter(|word| !word.is_empty()).nth(2);
                number = start.context("no start in a hunk's header")?.parse()?;
            } else if !line.starts_with('-') {
                if line.contains(text) {
                    return Ok(number);
                }
                number += 1;
            }
        }
        bail!("{text} is not in the patch of {file}")
    }
}

fn before<'t>(old: &'t str, new: &str) -> (&'t str, String) {
    (old, format!("{new}{old}"))
}

fn names(json: &serde_json::Value, kind: &str) -> Vec<String> {
    let list = search(json, "functions").and_then(|functions| functions.get(kind)?.as_array());
    list.into_iter()
        .flatten()
        .filter_map(|function| function.get("name")?.as_str())
        .map(str::to_owned)
        .collect()
}

/// New functions do not change others.
fn found(update: &NewCode) -> Result<()> {
    let mut changed = update.changed.clone();
    changed.sort();
    ensure!(
        changed == ["eventfd_write", "get_next_ino", "raw_sendmsg", "tipc_setsockopt"],
        "changed: {}",
        changed.join(", ")
    );
    Ok(())
}

/// The kernel's own checker finds nothing wrong with the code in the update's modules. It says of
/// each table that it would make that it is there already.
fn suits_objtool(fixture: &Fixture, update: &NewCode) -> Result<()> {
    let prepared = fixture.lab.prepare()?;
    let objtool = prepared.tree()?.join("tools/objtool/objtool");
    let place = tempfile::tempdir()?;
    let unpacked = Process::new("tar")
        .arg("-C")
        .arg(place.path())
        .args(["--zstd", "-xf"])
        .arg(&update.file)
        .status()
        .context("cannot run tar")?;
    ensure!(unpacked.success(), "tar cannot read {}", update.file.display());
    for module in MODULES {
        let output = Process::new(&objtool)
            .args(["--hacks=jump_label", "--hacks=noinstr", "--orc", "--retpoline", "--rethunk"])
            .args(["--sls", "--static-call", "--uaccess", "--link", "--module", "--dry-run"])
            // What says that a warning returns is for the build only; no module keeps it.
            .arg("--no-unreachable")
            .arg(place.path().join(format!("modules/{module}.ko")))
            .output()
            .context("cannot run objtool")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<&str> = said.lines().filter(|l| !l.contains("file already has .")).collect();
        ensure!(output.status.success() && wrong.is_empty(), "{module}:\n{}", wrong.join("\n"));
        ensure!(!said.is_empty(), "objtool did not look at {module}");
    }
    Ok(())
}

fn boot(fixture: &Fixture, update: &NewCode) -> Result<Guest> {
    let contents = Contents {
        updates: vec![(ID, &update.file)],
        modules: vec!["tipc".to_owned()],
        rewrites_itself: true,
        ..Contents::default()
    };
    Guest::boot(&fixture.lab, &fixture.lab.image, &contents)
}

/// Warnings that a round of all calls causes.
const WARNINGS: &[&str] = &["lab_warn+0x", "lab_warn_once+0x", "lab_warn_once+0x"];

fn works(fixture: &Fixture, update: &NewCode) -> Result<()> {
    let mut guest = boot(fixture, update)?;
    let guest = &mut guest;
    guest.machine.start_load()?;
    old_behaviour(guest).context("before")?;
    guest.check(ID)?.success()?;
    let old = OldState::take(guest)?;
    guest.apply(ID)?.success()?;
    old.goes_on(guest)?;
    every_construct(guest, update).context("applied")?;
    expect_warnings(guest, 1)?;
    keys(guest)?;
    static_calls(guest)?;
    tracepoints(guest)?;
    dynamic_debug(guest)?;
    probes(guest)?;
    guest.undo(ID)?.success()?;
    old_behaviour(guest).context("undone")?;
    // Its own state begins anew, and nothing of the first time is left.
    guest.apply(ID)?.success().context("again")?;
    every_construct(guest, update).context("applied again")?;
    guest.undo(ID)?.success().context("again")?;
    old_behaviour(guest).context("undone again")?;
    expect_warnings(guest, 2)?;
    let left = guest.loaded()?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    guest.machine.stop_load()?;
    Ok(())
}

/// Makes calls; for each its result and what the buffer then holds.
fn call(guest: &mut Guest, place: &str, calls: &[String]) -> Result<Vec<(i64, [u64; 2])>> {
    let words = ["/init", "construct", place].into_iter().map(str::to_owned);
    let outcome = guest.machine.run(&Command::new(words.chain(calls.iter().cloned())))?;
    ensure!(outcome.exit == Some(0), "the calls broke: {outcome:?}");
    let hex = |word: Option<&str>| {
        let digits = word.and_then(|word| word.strip_prefix("0x"));
        u64::from_str_radix(digits.unwrap_or_default(), 16)
    };
    let results: Vec<_> = outcome
        .stdout
        .lines()
        .map(|line| {
            let mut words = line.split(' ').skip(1);
            let result = words.next().unwrap_or_default().parse()?;
            Ok((result, [hex(words.next())?, hex(words.next())?]))
        })
        .collect::<Result<_>>()?;
    ensure!(results.len() == calls.len(), "{} calls, but: {}", calls.len(), outcome.stdout);
    Ok(results)
}

fn call_one(guest: &mut Guest, place: &str, what: &str) -> Result<i64> {
    let results = call(guest, place, &[what.to_owned()])?;
    results.first().map(|result| result.0).context("no result")
}

/// A write counts up, and the option is unknown.
fn old_behaviour(guest: &mut Guest) -> Result<()> {
    for (place, expected) in [("kernel", 8), ("module", -22)] {
        let result = call_one(guest, place, "strings=17")?;
        ensure!(result == expected, "in the {place} there is {result}");
    }
    Ok(())
}

fn every_construct(guest: &mut Guest, update: &NewCode) -> Result<()> {
    let mut calls: Vec<String> =
        CALLS.iter().map(|(name, argument, _)| format!("{name}={argument}")).collect();
    let mut expected: Vec<(i64, [u64; 2])> =
        CALLS.iter().map(|(_, _, result)| (*result, [LEFT, u64::MAX])).collect();
    for (name, result, buffer) in WRITES {
        calls.push((*name).to_owned());
        expected.push((*result, *buffer));
    }
    let mut wrong = Vec::new();
    for (place, file) in PLACES {
        let found = call(guest, place, &calls)?;
        for ((call, expected), found) in calls.iter().zip(&expected).zip(&found) {
            if expected != found {
                wrong.push(format!("{place}: {call} gives {found:x?}, not {expected:x?}"));
            }
        }
        let line = i64::try_from(update.line(file, "splice lab says")?)?;
        let said = call_one(guest, place, "warn=77")?;
        if line != said {
            wrong.push(format!("{place}: the warning is in line {line}, the code says {said}"));
        }
        let log = guest.machine.kernel_log()?;
        for text in [
            format!(" at {file}:{line} lab_warn+0x"),
            "splice lab says 77".to_owned(),
            "splice lab once 21".to_owned(),
            "splice lab seldom 21".to_owned(),
            "12 is more than nine".to_owned(),
        ] {
            if !log.contains(&text) {
                wrong.push(format!("{place}: the log does not say {text:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Ok(())
}

/// The kernel warned as often as the calls should have made it, and complained of nothing else.
fn expect_warnings(guest: &mut Guest, rounds: usize) -> Result<()> {
    let found = alarms(&guest.machine.kernel_log()?);
    let ours = |line: &&String| WARNINGS.iter().any(|name| line.contains(name));
    let other: Vec<&String> = found.iter().filter(|line| !ours(line)).collect();
    ensure!(other.is_empty(), "the kernel complains: {other:#?}");
    let expected = WARNINGS.len() * PLACES.len() * rounds;
    ensure!(found.len() == expected, "{expected} warnings expected: {found:#?}");
    Ok(())
}

/// State of the running kernel that changed code uses.
struct OldState {
    greatest: u64,
}

impl OldState {
    fn take(guest: &mut Guest) -> Result<Self> {
        let [_, greatest, odd] = inode_numbers(guest)?;
        ensure!(odd > 0, "all numbers are even before the patch");
        ensure!(guest.probe("raw-without-family", 0)?.0, "the old code refuses the packet");
        ensure!(complaints(guest)? == 1, "the kernel did not say it once");
        Ok(Self { greatest })
    }

    /// A static variable in a function goes on, and what was said once stays said.
    fn goes_on(&self, guest: &mut Guest) -> Result<()> {
        let [_, greatest, odd] = inode_numbers(guest)?;
        ensure!(odd == 0, "{odd} numbers are odd, so the new code is not used");
        // The probe uses up at least five shares of 1024 numbers, which a static variable counts.
        ensure!(
            greatest > self.greatest + 2048,
            "numbers do not go on: {greatest}, after {}",
            self.greatest
        );
        ensure!(!guest.probe("raw-without-family", 0)?.0, "the new code takes the packet");
        ensure!(complaints(guest)? == 1, "the kernel said once more what it had said");
        Ok(())
    }
}

fn inode_numbers(guest: &mut Guest) -> Result<[u64; 3]> {
    let (_, said) = guest.probe("inode-numbers", 0)?;
    let line = said.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("the probe says something else")
}

fn complaints(guest: &mut Guest) -> Result<usize> {
    let log = guest.machine.kernel_log()?;
    Ok(log.lines().filter(|line| line.contains("forgot to set AF_INET")).count())
}

/// A key of the kernel that is not exported switches the update's code too.
fn keys(guest: &mut Guest) -> Result<()> {
    for state in [1, 0] {
        guest.machine.write("/proc/sys/kernel/sched_schedstats", &state.to_string())?;
        for (place, _) in PLACES {
            let result = call_one(guest, place, "old-key")?;
            ensure!(result == state, "{place}: the key is {state}, the code says {result}");
        }
    }
    Ok(())
}

/// Static calls of the scheduler change while the update is applied.
fn static_calls(guest: &mut Guest) -> Result<()> {
    const PREEMPT: &str = "/sys/kernel/debug/sched/preempt";
    let before = guest.machine.read(PREEMPT)?;
    let before = before.split(['(', ')']).nth(1).context("no mode is marked")?.to_owned();
    for mode in ["full", "none", "voluntary", &before] {
        guest.machine.write(PREEMPT, mode)?;
        let now = guest.machine.read(PREEMPT)?;
        ensure!(now.contains(&format!("({mode})")), "it is {now}, not {mode}");
        for (place, _) in PLACES {
            ensure!(call_one(guest, place, "old-call")? == 1, "{place}: it fails in {mode}");
        }
    }
    Ok(())
}

const TRACING: &str = "/sys/kernel/tracing";

/// Events of the kernel are recorded from new code.
fn tracepoints(guest: &mut Guest) -> Result<()> {
    let events = ["sched/sched_wake_idle_without_ipi", "power/cpu_idle"];
    let switch = |guest: &mut Guest, to: &str| -> Result<()> {
        for event in events {
            guest.machine.write(&format!("{TRACING}/events/{event}/enable"), to)?;
        }
        Ok(())
    };
    switch(guest, "1")?;
    for (number, (place, _)) in PLACES.iter().enumerate() {
        let number = 4711 + number;
        let on = call_one(guest, place, &format!("old-trace={number}"))?;
        ensure!(on == 1, "{place}: the new code does not see that the event is on");
        let trace = guest.machine.search(&format!("{TRACING}/trace"), &number.to_string())?;
        for text in [
            format!("sched_wake_idle_without_ipi: cpu={number}"),
            format!("cpu_idle: state={number} cpu_id=99"),
        ] {
            ensure!(trace.contains(&text), "{place}: {text} is not in the trace: {trace}");
        }
    }
    switch(guest, "0")?;
    for (place, _) in PLACES {
        ensure!(call_one(guest, place, "old-trace=1")? == 0, "{place}: the event stays on");
    }
    Ok(())
}

/// A new debug message is listed under the update's module and can be switched.
fn dynamic_debug(guest: &mut Guest) -> Result<()> {
    const CONTROL: &str = "/sys/kernel/debug/dynamic_debug/control";
    let listed = guest.machine.search(CONTROL, "lab_print")?;
    for ((_, file), module) in PLACES.iter().zip(MODULES) {
        let listed = listed.lines().any(|line| {
            line.starts_with(&format!("{file}:")) && line.contains(&format!("[{module}]lab_print"))
        });
        ensure!(listed, "the message of {module} is not listed");
    }
    let said = |guest: &mut Guest, number: u32| -> Result<bool> {
        Ok(guest.machine.kernel_log()?.contains(&format!("splice lab debugs {number}")))
    };
    for (number, (place, _)) in (31..).zip(PLACES) {
        call_one(guest, place, &format!("print={number}"))?;
        ensure!(!said(guest, number)?, "{place}: a message that is off was printed");
    }
    guest.machine.write(CONTROL, "func lab_print +p")?;
    for (number, (place, _)) in (41..).zip(PLACES) {
        call_one(guest, place, &format!("print={number}"))?;
        ensure!(said(guest, number)?, "{place}: a message that is on was not printed");
    }
    Ok(())
}

/// The tracer and probes work on new functions, and on changed ones by their name.
fn probes(guest: &mut Guest) -> Result<()> {
    let trace = format!("{TRACING}/trace");
    guest.machine.write(&format!("{TRACING}/set_ftrace_filter"), "lab_fibonacci\n")?;
    guest.machine.write(&format!("{TRACING}/current_tracer"), "function")?;
    for (place, _) in PLACES {
        call_one(guest, place, "functions=6")?;
    }
    // To change the tracer empties the trace.
    let traced = guest.machine.search(&trace, "lab_fibonacci <-")?;
    guest.machine.write(&format!("{TRACING}/current_tracer"), "nop")?;
    guest.machine.write(&format!("{TRACING}/set_ftrace_filter"), "!lab_fibonacci\n")?;
    // The sixth number takes twenty-five calls, though gcc may turn some into a loop.
    ensure!(traced.lines().count() >= 4, "not every call was traced: {traced}");
    let events = format!("{TRACING}/kprobe_events");
    let targets =
        [("new", format!("{}:lab_data", MODULES[0])), ("old", "eventfd_write".to_owned())];
    for (name, target) in &targets {
        guest
            .machine
            .write(&events, &format!("p:{name} {target}\n"))
            .with_context(|| format!("no probe on {target}"))?;
        guest.machine.write(&format!("{TRACING}/events/kprobes/{name}/enable"), "1")?;
    }
    call_one(guest, "kernel", "data=5")?;
    let hits = guest.machine.search(&trace, ": (")?;
    for (name, target) in &targets {
        ensure!(hits.contains(&format!(" {name}: (")), "the probe on {target} was not hit: {hits}");
        guest.machine.write(&format!("{TRACING}/events/kprobes/{name}/enable"), "0")?;
        guest.machine.write(&events, &format!("-:{name}\n"))?;
    }
    Ok(())
}

/// Parameters, start-up functions and events are found by whoever reads their sections, at a time
/// that is over.
fn refused(fixture: &Fixture) -> Result<()> {
    let anchor = "static ssize_t eventfd_write(";
    let patch = fixture.edit("fs/eventfd.c", anchor, &format!("{REFUSED}{anchor}"))?;
    let (file, answer) = fixture.lab.create("refused", &patch)?;
    ensure!(!file.exists(), "an update came out");
    answer.expect(4)?.says(&["__param", "lab_start"]).map(drop)
}
