// SPDX-License-Identifier: GPL-2.0-or-later
//! The result of a corpus run for people: a table, and a page with totals.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Row;
use super::machine::Together;
use super::record::{Outcome, Record};
use crate::session::Lab;

/// Phases of `create` in which a compiler, an assembler or a linker runs.
const BUILDS: [&str; 7] = ["preprocess", "pre", "post", "as built", "core", "link", "modules"];

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1e3)
}

fn pause(nanoseconds: u64) -> String {
    format!("{:.2} ms", nanoseconds as f64 / 1e6)
}

/// The columns of the table that are filled for this fix.
fn cells(record: &Record) -> [String; 6] {
    let time = |took: u64| if took == 0 { String::new() } else { seconds(took) };
    let pause = if record.pause == 0 { String::new() } else { pause(record.pause) };
    let targets = record.targets.join(" ");
    [targets, time(record.create), time(record.check), time(record.apply), pause, time(record.undo)]
}

/// A line for each fix.
pub(super) fn table(rows: &[Row]) -> String {
    let heads = ["target", "create", "check", "apply", "pause", "undo"].map(str::to_owned);
    let names = rows.iter().map(|row| row.patch.id.len()).max().unwrap_or(0).max(3);
    let lines: Vec<(&str, &str, [String; 6])> = rows
        .iter()
        .map(|row| (&*row.patch.id, row.record.outcome.word(), cells(&row.record)))
        .collect();
    let mut widths = heads.each_ref().map(String::len);
    for (_, _, cells) in &lines {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    for (name, result, cells) in [("fix", "result", heads)].into_iter().chain(lines) {
        let mut line = format!("{name:<names$}  {result:<10}");
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Smallest, middle, nine tenths and largest.
fn spread(mut all: Vec<u64>, show: impl Fn(u64) -> String) -> String {
    all.sort_unstable();
    let at = |share: usize| all.get((all.len().saturating_sub(1)) * share / 100).copied();
    let [least, half, most, last] = [0, 50, 90, 100].map(|s| at(s).map_or(String::new(), &show));
    format!("{least} | {half} | {most} | {last}")
}

/// The page.
pub(super) fn text(lab: &Lab, rows: &[Row], together: Option<&Together>) -> String {
    let mut out = String::from(
        "# Evaluation\n\nWritten by `cargo run --release -p splice-lab -- corpus --page docs/evaluation.md`; \
         nothing of it by hand. Each fix was made\ninto an update, held against the kernel's image file, and then, in a \
         machine under load, checked, applied, found in place by run-pre,\ntaken back, and checked once more: every \
         byte is again what it was. The kernel is stock, and so are its source and compiler.\n\n",
    );
    let _ = writeln!(
        out,
        "- kernel: {} ({}), two processors by software emulation\n- splice: {}\n",
        lab.kernel.release,
        lab.kernel.version,
        env!("CARGO_PKG_VERSION")
    );
    totals(&mut out, rows, together);
    kinds(&mut out, rows);
    figures(&mut out, rows);
    reasons(&mut out, rows, "Failed", |record| record.outcome == Outcome::Failed);
    reasons(&mut out, rows, "Refused", |record| record.outcome == Outcome::Refused);
    reasons(&mut out, rows, "Refused alone, applied with an author's code", |record| {
        record.outcome == Outcome::Applied && record.aided.is_some()
    });
    reasons(&mut out, rows, "Not loaded", |record| record.outcome == Outcome::NotLoaded);
    reasons(&mut out, rows, "Without effect on this kernel", |record| {
        record.outcome == Outcome::Unchanged
    });
    let _ = writeln!(
        out,
        "## All\n\n| Fix | CVE | Lines | Result | Target | Functions | Update | create | pause |\n|{}",
        "---|".repeat(9)
    );
    for Row { patch, record, .. } in rows {
        let mut functions = record.changed.len().to_string();
        if record.new > 0 {
            let _ = write!(functions, " + {} new", record.new);
        }
        let _ = writeln!(
            out,
            "| {} | {} | +{} -{} | {} | {} | {functions} | {} | {} | {} |",
            patch.id,
            patch.cve.replace(',', ", "),
            record.added,
            record.removed,
            match record.aided {
                Some(lines) => format!("{}, {lines} lines", record.outcome.word()),
                None => record.outcome.word().to_owned(),
            },
            record.targets.join(", "),
            record.size,
            seconds(record.create),
            if record.pause == 0 { String::new() } else { pause(record.pause) },
        );
    }
    out
}

fn totals(out: &mut String, rows: &[Row], together: Option<&Together>) {
    let count = |outcome| rows.iter().filter(|row| row.record.outcome == outcome).count();
    let [applied, refused, failed] =
        [Outcome::Applied, Outcome::Refused, Outcome::Failed].map(count);
    let is_aided =
        |row: &&Row| row.record.outcome == Outcome::Applied && row.record.aided.is_some();
    let at_start: Vec<&Row> = rows.iter().filter(|row| row.record.at_start).collect();
    let aided: Vec<&Row> = rows.iter().filter(is_aided).collect();
    let present = applied + refused + failed - at_start.len();
    let unaided = applied - aided.len();
    let lines: usize = aided.iter().filter_map(|row| row.record.aided).sum();
    let _ = writeln!(out, "| Result | Fixes |\n|---|---|");
    for (what, number) in [
        ("applied and taken back, unaided", unaided),
        ("applied and taken back, with an author's code", aided.len()),
        ("refused, with a reason", refused),
        ("failed", failed),
        (
            "for a module that this machine cannot load; the update was made",
            count(Outcome::NotLoaded),
        ),
        ("nothing in this kernel's code changes", count(Outcome::Unchanged)),
        ("the update was made, but not tried in a machine", count(Outcome::Created)),
    ] {
        let _ = writeln!(out, "| {what} | {number} |");
    }
    let share = unaided as f64 * 100.0 / present.max(1) as f64;
    let _ = writeln!(
        out,
        "\nOf the {present} fixes of code that the running kernel has and the machine can load, {unaided} were applied \
         unaided: {share:.1} %.\n{} more change nothing but code that the kernel or a module frees once it has \
         started, so that there is nothing to replace.\n{} of all, {} of those among them, were applied with \
         {lines} lines of an author's code.",
        at_start.len(),
        aided.len(),
        at_start.iter().copied().filter(is_aided).count(),
    );
    exercises(out, rows);
    if let Some(together) = together {
        let _ = writeln!(
            out,
            "\nAt the end {} updates were in effect in one machine at the same time, and were taken back one after \
             the other; {} were refused there\nsince another one had replaced the same function.",
            together.applied,
            together.excluded.len()
        );
    }
    out.push('\n');
}

/// What was in use while updates of it were put on and taken off.
fn exercises(out: &mut String, rows: &[Row]) {
    let exercised: Vec<&Record> = rows
        .iter()
        .map(|row| &row.record)
        .filter(|record| record.outcome == Outcome::Applied && record.rounds > 0)
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in exercised.iter().flat_map(|record| &record.exercises) {
        *counts.entry(name).or_default() += 1;
    }
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let _ = writeln!(
        out,
        "\n{} of those applied are of a part of the kernel that has an exercise of its own, which went on before, while \
         and after the update was\nin effect: {} rounds, each with a result that was verified, none wrong. Fixes by \
         exercise: {}.",
        exercised.len(),
        exercised.iter().map(|record| record.rounds).sum::<u64>(),
        each.join(", "),
    );
}

/// The kinds that a fix is of.
fn kinds_of(record: &Record) -> Vec<String> {
    let mut kinds = Vec::new();
    let first = record.files.first().map_or("", String::as_str);
    let place = first.split('/').next().unwrap_or_default();
    kinds.push(format!("in `{place}/`"));
    if record.files.iter().any(|file| file.ends_with(".h")) {
        kinds.push("with a header".to_owned());
    }
    if record.files.len() > 1 {
        kinds.push("several files".to_owned());
    }
    if record.inlined > 0 {
        kinds.push("through inlining".to_owned());
    }
    if record.data > 0 {
        kinds.push("constant data".to_owned());
    }
    if record.new > 0 {
        kinds.push("new functions".to_owned());
    }
    match record.modules().count() {
        0 if record.targets.is_empty() => {}
        0 => kinds.push("of the image".to_owned()),
        1 => kinds.push("of a module".to_owned()),
        _ => kinds.push("of several modules".to_owned()),
    }
    kinds.push(match record.added + record.removed {
        0..=5 => "up to 5 lines".to_owned(),
        6..=15 => "6 to 15 lines".to_owned(),
        16..=50 => "16 to 50 lines".to_owned(),
        _ => "over 50 lines".to_owned(),
    });
    kinds
}

fn kinds(out: &mut String, rows: &[Row]) {
    let mut all: BTreeMap<String, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for Row { record, .. } in rows {
        for kind in kinds_of(record) {
            *all.entry(kind).or_default().entry(record.outcome).or_default() += 1;
        }
    }
    let columns = [
        Outcome::Applied,
        Outcome::Created,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::NotLoaded,
        Outcome::Unchanged,
    ];
    let heads = columns.map(Outcome::word).join(" | ");
    let _ =
        writeln!(out, "## By kind\n\n| Kind | {heads} |\n|{}", "---|".repeat(columns.len() + 1));
    for (kind, counts) in all {
        let cells = columns.map(|c| counts.get(&c).copied().unwrap_or(0).to_string()).join(" | ");
        let _ = writeln!(out, "| {kind} | {cells} |");
    }
    out.push('\n');
}

fn figures(out: &mut String, rows: &[Row]) {
    let made: Vec<&Record> =
        rows.iter().map(|row| &row.record).filter(|record| record.size > 0).collect();
    let applied: Vec<&Record> =
        made.iter().copied().filter(|r| r.outcome == Outcome::Applied).collect();
    let of = |all: &[&Record], field: fn(&Record) -> u64| all.iter().map(|r| field(r)).collect();
    let _ = writeln!(
        out,
        "## Figures\n\n| | least | half | nine tenths | most |\n|---|---|---|---|---|\n\
         | create | {} |\n| size of an update, bytes | {} |\n| check in the machine | {} |\n| apply | {} |\n\
         | the machine stood still | {} |\n| undo | {} |\n| attempts | {} |",
        spread(of(&made, |r| r.create), seconds),
        spread(of(&made, |r| r.size), |n| n.to_string()),
        spread(of(&applied, |r| r.check), seconds),
        spread(of(&applied, |r| r.apply), seconds),
        spread(of(&applied, |r| r.pause), pause),
        spread(of(&applied, |r| r.undo), seconds),
        spread(of(&applied, |r| r.attempts), |n| n.to_string()),
    );
    let mut phases: BTreeMap<&str, u64> = BTreeMap::new();
    for (phase, took) in made.iter().flat_map(|record| &record.phases) {
        *phases.entry(phase).or_default() += took;
    }
    let all: u64 = phases.values().sum();
    let share = |took: u64| format!("{:.1} %", took as f64 * 100.0 / all.max(1) as f64);
    let shares: Vec<String> =
        phases.iter().map(|(phase, took)| format!("{phase} {}", share(*took))).collect();
    let builds = phases.iter().filter(|(phase, _)| BUILDS.contains(phase)).map(|(_, took)| took);
    let total = |field: fn(&Record) -> usize| made.iter().map(|r| field(r)).sum::<usize>();
    let _ = writeln!(
        out,
        "\nPhases of `create`, of all time spent: {}. The compiler, the assembler and the linker have {}.\n\n\
         The {} updates replace {} functions ({} of them with code of a function inlined into them), add {}, and \
         replace {} data objects in place.\nOf the names of what they replace or their new code needs, {} (in {} \
         updates) belong to more than one symbol of the image.\n",
        shares.join(", "),
        share(builds.sum()),
        made.len(),
        total(|r| r.changed.len()),
        total(|r| r.inlined),
        total(|r| r.new),
        total(|r| r.data),
        total(|r| r.ambiguous.len()),
        made.iter().filter(|record| !record.ambiguous.is_empty()).count(),
    );
}

fn reasons(out: &mut String, rows: &[Row], title: &str, wanted: impl Fn(&Record) -> bool) {
    let those: Vec<&Row> = rows.iter().filter(|row| wanted(&row.record)).collect();
    if those.is_empty() {
        return;
    }
    let _ = writeln!(out, "## {title}\n");
    for row in those {
        let why = row.record.why.replace('\n', " ").replace("splice: ", "");
        let _ = writeln!(out, "- **{}**: {why}", row.patch.id);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_least_and_the_most() {
        let all = (1..=101).rev().collect();
        assert_eq!(spread(all, |n| n.to_string()), "1 | 51 | 91 | 101");
        assert_eq!(spread(Vec::new(), |n| n.to_string()), " |  |  | ");
    }
}
