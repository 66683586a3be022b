// SPDX-License-Identifier: GPL-2.0-or-later
//! The demo: a real fix goes onto a stock, running, busy kernel, off again and on again; what it
//! changes is seen from user space.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::fixes;
use crate::session::{Answer, Contents, Guest, Lab, NOBODY, search};

/// The fix that is shown, by its id in the manifest, and the probe that sees it.
const FIX: &str = "attach-filter";
const PROBE: &str = "tcp-attach-filter";
/// What the probe tries, in words.
const TRIES: &str = "an unprivileged user attaches a filter to a TCP socket";

fn say(key: &str, what: impl Display) {
    println!("{key:<10} {what}");
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Runs the demo; an error is the step that failed.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let fix = fixes::find(FIX)?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    say("release", format!("{} ({})", lab.kernel.release, lab.kernel.version));
    let phase = Instant::now();
    let patch = fix.patch(&lab.cache)?;
    let count = |sign: char, header: &str| {
        patch.lines().filter(|line| line.starts_with(sign) && !line.starts_with(header)).count()
    };
    say("fix", format!("{} ({})", fix.subject, fix.cve));
    say(
        "patch",
        format!(
            "{}, +{} -{} lines, from linux-source-6.1 {} ({})",
            fix.files().join(" "),
            count('+', "+++"),
            count('-', "---"),
            fix.target,
            seconds(phase.elapsed())
        ),
    );
    let prepared = lab.prepare()?;
    say("prepare", seconds(prepared.duration));
    let (file, created) = lab.create(FIX, &patch)?;
    let created = created.success()?;
    say("create", format!("{}{}", seconds(created.duration), phases(&created)));
    let size = std::fs::metadata(&file)?.len();
    say("update", format!("{FIX}.splice, {} kB", size.div_ceil(1000)));
    let inspected = lab.splice(&["inspect", &file.to_string_lossy()])?.success()?;
    for line in changes(&inspected) {
        say("changed", line);
    }

    let contents = Contents { updates: vec![(FIX, &file)], ..Contents::default() };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    say("boot", format!("{}, two CPUs", seconds(guest.machine.boot_time)));
    guest.machine.start_load()?;
    expect(&mut guest, "before", true)?;
    let checked = guest.check(FIX)?.success()?;
    say("check", format!("{}{}{}", seconds(checked.duration), phases(&checked), matched(&checked)));
    apply(&mut guest)?;
    expect(&mut guest, "applied", false)?;
    let status = guest.splice(&["status", FIX])?.success()?;
    say("status", search(&status.json, "state").and_then(Value::as_str).unwrap_or("unknown"));
    let undone = guest.undo(FIX)?.success()?;
    say("undo", format!("{}{}", seconds(undone.duration), switched(&undone)));
    expect(&mut guest, "undone", true)?;
    apply(&mut guest)?;
    expect(&mut guest, "again", false)?;
    guest.undo(FIX)?.success()?;
    let load = guest.machine.stop_load()?;
    say(
        "load",
        format!(
            "{} processes, {} files, {} TCP blocks meanwhile, {} wrong",
            load.processes, load.files, load.tcp_blocks, load.wrong
        ),
    );
    ensure!(load.operations() > 0, "the load did nothing");
    guest.expect_clean()?;
    guest.machine.power_off()?;
    say("kernel", "no warning, nothing left behind");
    say("result", format!("fixed without a reboot; {} in all", seconds(started.elapsed())));
    Ok(())
}

fn apply(guest: &mut Guest) -> Result<()> {
    let applied = guest.apply(FIX)?.success()?;
    let mut status = guest.splice(&["status", FIX])?.success()?;
    status.duration = applied.duration;
    say("apply", format!("{}{}", seconds(applied.duration), switched(&status)));
    Ok(())
}

fn expect(guest: &mut Guest, when: &str, allowed: bool) -> Result<()> {
    let (is_allowed, said) = guest.probe(PROBE, NOBODY)?;
    say(when, format!("{TRIES}: {said}"));
    ensure!(is_allowed == allowed, "{when}: expected the opposite");
    Ok(())
}

/// The switch, as the kernel measured it.
#[must_use]
pub fn switched(answer: &Answer) -> String {
    let mut text = String::new();
    if let Some(attempts) = answer.number("attempts") {
        text.push_str(&format!(", {attempts} attempt{}", if attempts == 1 { "" } else { "s" }));
    }
    if let Some(threads) = answer.number("threads") {
        text.push_str(&format!(", {threads} threads examined"));
    }
    if let Some(pause) = answer.number("pause_ns") {
        text.push_str(&format!(", pause {:.2} ms", pause as f64 / 1e6));
    }
    text
}

/// What the match covered.
fn matched(answer: &Answer) -> String {
    let number = |key| answer.number(key).unwrap_or(0);
    format!(
        ", {} functions proven byte for byte ({} bytes), {} values learned",
        number("matched"),
        number("matched_bytes"),
        number("learned")
    )
}

/// The phases of a command, if it says them.
fn phases(answer: &Answer) -> String {
    let Some(Value::Object(phases)) = search(&answer.json, "phases") else {
        return String::new();
    };
    let parts: Vec<String> = phases.iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!(" (milliseconds: {})", parts.join(", "))
}

/// Changed functions with their reasons, one a line.
fn changes(answer: &Answer) -> Vec<String> {
    let Some(functions) = search(&answer.json, "functions") else { return Vec::new() };
    let list = match functions {
        Value::Array(list) => list.clone(),
        other => search(other, "changed").and_then(Value::as_array).cloned().unwrap_or_default(),
    };
    list.iter()
        .map(|function| {
            let name = search(function, "name").and_then(Value::as_str).unwrap_or("?");
            let reasons = search(function, "reasons").or_else(|| search(function, "reason"));
            let reasons: Vec<&str> = match reasons {
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
                Some(Value::String(text)) => vec![text],
                _ => Vec::new(),
            };
            format!("{name}: {}", reasons.join("; "))
        })
        .collect()
}
