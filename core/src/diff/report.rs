// SPDX-License-Identifier: GPL-2.0-or-later
//! The differ's result in the form of `splice diff --format json`.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{ChangedFunction, Objection, Reason, UnitDiff};
use crate::arch::Arch;
use crate::debug::Layouts;
use crate::unit::{SpanId, Unit};

/// Version of the form.
pub const VERSION: u32 = 1;

/// The verdict on two units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Something changed, and it can be applied.
    Changed,
    /// Nothing changed that a running kernel would notice.
    Unchanged,
    /// Something changed that cannot be applied.
    Refused,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct DiffReport {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the architecture.
    pub arch: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// Functions.
    pub functions: FunctionsReport,
    /// Data objects.
    pub data: DataReport,
    /// What stands against it.
    pub refusals: Vec<Objection>,
    /// Whether layouts of types were compared; absent if nobody asked.
    pub layouts: Option<Layouts>,
}

impl DiffReport {
    /// The report on two units in which functions and data are not looked at.
    pub fn bare(arch: &dyn Arch, refusals: Vec<Objection>) -> DiffReport {
        DiffReport {
            version: VERSION,
            arch: arch.name(),
            verdict: if refusals.is_empty() { Verdict::Unchanged } else { Verdict::Refused },
            functions: FunctionsReport::default(),
            data: DataReport::default(),
            refusals,
            layouts: None,
        }
    }
}

/// Functions of a report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FunctionsReport {
    /// Those that differ.
    pub changed: Vec<ChangedItem>,
    /// Those that are new.
    pub new: Vec<ChangedItem>,
    /// Those that differ by line numbers only, and stay as they are.
    pub ignored: Vec<ChangedItem>,
    /// Names of those that are gone.
    pub removed: Vec<String>,
}

/// A function of a report.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedItem {
    /// Its name.
    pub name: String,
    /// Why it is listed, in words.
    pub reason: Vec<String>,
    /// Its split-off parts.
    pub parts: Vec<String>,
}

/// A data object of a report that is replaced in the running kernel.
#[derive(Debug, Clone, Serialize)]
pub struct ReplacedItem {
    /// Its name.
    pub name: String,
    /// Why, in words.
    pub reason: Vec<String>,
}

/// Data of a report.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DataReport {
    /// Names of objects whose contents differ.
    pub changed: Vec<String>,
    /// Those of them that are replaced where they stand.
    pub replaced: Vec<ReplacedItem>,
    /// Names of new objects.
    pub new: Vec<String>,
}

/// Makes the report.
pub fn report(arch: &dyn Arch, pre: &Unit, post: &Unit, diff: &UnitDiff) -> DiffReport {
    let name =
        |unit: &Unit, id: SpanId| unit.spans.get(id).map_or_else(String::new, |s| s.name.clone());
    let names = |unit: &Unit, ids: &[SpanId]| -> Vec<String> {
        let mut all: Vec<String> = ids.iter().map(|id| name(unit, *id)).collect();
        all.sort();
        all
    };
    let verdict = if !diff.refusals.is_empty() {
        Verdict::Refused
    } else if diff.is_unchanged() {
        Verdict::Unchanged
    } else {
        Verdict::Changed
    };
    let data_changed: Vec<SpanId> = diff.data_changed.iter().map(|(_, post)| *post).collect();
    let item = |id: SpanId, reasons: &[Reason], parts: &[SpanId]| ChangedItem {
        name: name(post, id),
        reason: reasons.iter().map(ToString::to_string).collect(),
        parts: names(post, parts),
    };
    let of_changed = |list: &[ChangedFunction]| -> Vec<ChangedItem> {
        list.iter().map(|f| item(f.post, &f.reasons, &f.post_parts)).collect()
    };
    let mut changed = of_changed(&diff.changed);
    let mut new: Vec<ChangedItem> =
        diff.new.iter().map(|f| item(f.post, &f.reasons, &f.post_parts)).collect();
    list_by_parent(&mut changed, &mut new);
    DiffReport {
        version: VERSION,
        arch: arch.name(),
        verdict,
        functions: FunctionsReport {
            changed,
            new,
            ignored: of_changed(&diff.ignored),
            removed: names(pre, &diff.removed),
        },
        data: DataReport {
            changed: names(post, &data_changed),
            replaced: diff
                .data_replaced
                .iter()
                .map(|d| ReplacedItem {
                    name: name(post, d.post),
                    reason: d.reasons.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            new: names(post, &diff.data_new),
        },
        refusals: diff.refusals.clone(),
        layouts: None,
    }
}

/// Lists what was split off a function (`f.part.0`) with that function, if it is listed. It can be
/// called by others and is replaced on its own, but a reader looks for `f`.
fn list_by_parent(changed: &mut Vec<ChangedItem>, new: &mut Vec<ChangedItem>) {
    let listed: BTreeSet<String> =
        changed.iter().chain(new.iter()).map(|item| item.name.clone()).collect();
    let parent = |item: &ChangedItem| {
        let (parent, _) = item.name.rsplit_once(".part.")?;
        listed.get(parent).cloned()
    };
    let mut split: Vec<ChangedItem> = Vec::new();
    for list in [&mut *changed, &mut *new] {
        split.extend(list.extract_if(.., |item| parent(item).is_some()));
    }
    // The longest names first: a part of a part goes with the part.
    split.sort_by_key(|item| std::cmp::Reverse(item.name.len()));
    while !split.is_empty() {
        let item = split.remove(0);
        let Some(to) = parent(&item) else { continue };
        let mut all = split.iter_mut().chain(changed.iter_mut()).chain(new.iter_mut());
        if let Some(found) = all.find(|other| other.name == to) {
            found.reason.extend(item.reason.iter().map(|why| format!("{}: {why}", item.name)));
            found.parts.push(item.name);
            found.parts.extend(item.parts);
            found.parts.sort();
        }
    }
}
