// SPDX-License-Identifier: GPL-2.0-or-later
//! What a successful match found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::unit::UnitMatch;
use crate::arch::RuleCount;
use crate::update::Target;

/// Result of a match.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Kernel release.
    pub release: String,
    /// One per target, in the manifest's order.
    pub targets: Vec<TargetReport>,
}

impl Report {
    /// Number of proven functions.
    pub fn proven(&self) -> usize {
        self.targets.iter().map(TargetReport::proven).sum()
    }

    /// Bytes of proven functions.
    pub fn bytes(&self) -> u64 {
        self.targets.iter().map(|target| target.bytes).sum()
    }

    /// Number of relocations whose symbol value was read from running text.
    pub fn learned(&self) -> usize {
        self.targets.iter().map(|target| target.learned).sum()
    }
}

/// Result for one target.
#[derive(Debug, Clone, Serialize)]
pub struct TargetReport {
    /// The target's name.
    pub target: String,
    /// Functions that are proven, by unit in the manifest's order.
    pub functions: Vec<Vec<FunctionReport>>,
    /// Data objects that are to be replaced, all of them proven, in the manifest's order.
    pub objects: Vec<ObjectReport>,
    /// Functions that are not proven, and that the update does not touch.
    pub unproven: Vec<Unproven>,
    /// Bytes of proven functions.
    pub bytes: u64,
    /// Number of relocations whose symbol value was read from running text.
    pub learned: usize,
    /// Number of references whose strings or constants the snapshot does not hold, so that they were
    /// not compared.
    pub unread: usize,
    /// Rules that explained bytes which differ from the object's.
    pub rules: Vec<RuleTotal>,
    /// Addresses of needed symbols, by their name in the update module.
    pub symbols: BTreeMap<String, u64>,
}

/// A function that is proven.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub function: String,
    /// Its unit.
    pub unit: String,
    /// Its index in the pre object's symbol table.
    pub symbol: Option<u32>,
    /// Its span in the pre unit.
    #[serde(skip)]
    pub span: usize,
    /// Run-time address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
    /// The applied update that has put it there, if one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// Bytes behind it that are proven to be padding.
    pub padding: u64,
    /// Offset ranges that the kernel may rewrite while it runs.
    pub live: Vec<(u64, u64)>,
}

/// A data object that is proven.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectReport {
    /// Its name.
    pub object: String,
    /// Its unit.
    pub unit: String,
    /// Run-time address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A function that is not proven.
#[derive(Debug, Clone, Serialize)]
pub struct Unproven {
    /// Its name.
    pub function: String,
    /// Its unit.
    pub unit: String,
    /// Why.
    pub why: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where this very code stands, if that is at several places.
    pub places: Vec<u64>,
}

/// How often a rule was used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RuleTotal {
    /// The rule.
    pub rule: String,
    /// Number of places.
    pub places: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl RuleTotal {
    pub(super) fn new(count: &RuleCount) -> RuleTotal {
        RuleTotal {
            rule: count.rule.to_owned(),
            places: u64::from(count.places),
            bytes: u64::from(count.bytes),
        }
    }

    pub(super) fn add_to(self, totals: &mut Vec<RuleTotal>) {
        match totals.iter_mut().find(|t| t.rule == self.rule) {
            Some(total) => {
                total.places += self.places;
                total.bytes += self.bytes;
            }
            None => totals.push(self),
        }
    }
}

impl TargetReport {
    /// The report of the function that a pre symbol of that unit names.
    pub fn function(&self, unit: u32, symbol: u32) -> Option<&FunctionReport> {
        self.functions.get(unit as usize)?.iter().find(|f| f.symbol == Some(symbol))
    }

    /// Number of proven functions.
    pub fn proven(&self) -> usize {
        self.functions.iter().map(Vec::len).sum()
    }
}

pub(super) fn target(
    target: &Target,
    units: Vec<UnitMatch>,
    objects: Vec<ObjectReport>,
    symbols: BTreeMap<String, u64>,
) -> TargetReport {
    let mut report = TargetReport {
        target: target.name.clone(),
        functions: Vec::new(),
        objects,
        unproven: Vec::new(),
        bytes: 0,
        learned: 0,
        unread: 0,
        rules: Vec::new(),
        symbols,
    };
    for unit in units {
        report.bytes += unit.functions.iter().map(|f| f.size).sum::<u64>();
        report.learned += unit.learned;
        report.unread += unit.unread;
        for rule in unit.rules {
            rule.add_to(&mut report.rules);
        }
        report.functions.push(unit.functions);
        report.unproven.extend(unit.unproven);
    }
    report.rules.sort();
    report
}
