// SPDX-License-Identifier: GPL-2.0-or-later
//! The differ's result in the form of `splice diff --format json`.

use serde::Serialize;

use super::{Objection, UnitDiff};
use crate::arch::Arch;
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
}

/// Functions of a report.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionsReport {
    /// Those that differ.
    pub changed: Vec<ChangedItem>,
    /// Those that are new.
    pub new: Vec<ChangedItem>,
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

/// Data of a report.
#[derive(Debug, Clone, Serialize)]
pub struct DataReport {
    /// Names of objects whose contents differ.
    pub changed: Vec<String>,
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
    let changed: Vec<SpanId> = diff.data_changed.iter().map(|(_, post)| *post).collect();
    DiffReport {
        version: VERSION,
        arch: arch.name(),
        verdict,
        functions: FunctionsReport {
            changed: diff
                .changed
                .iter()
                .map(|f| ChangedItem {
                    name: name(post, f.post),
                    reason: f.reasons.iter().map(ToString::to_string).collect(),
                    parts: names(post, &f.post_parts),
                })
                .collect(),
            new: diff
                .new
                .iter()
                .map(|f| ChangedItem {
                    name: name(post, f.post),
                    reason: f.reasons.iter().map(ToString::to_string).collect(),
                    parts: names(post, &f.post_parts),
                })
                .collect(),
            removed: names(pre, &diff.removed),
        },
        data: DataReport { changed: names(post, &changed), new: names(post, &diff.data_new) },
        refusals: diff.refusals.clone(),
    }
}
