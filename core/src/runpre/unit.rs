// SPDX-License-Identifier: GPL-2.0-or-later
//! Matching one unit: every function is located, names with several places are decided by what
//! the code says.

use object::elf::STB_WEAK;
use rayon::prelude::*;

use super::learn::{Fact, Globals, Hint, Sections, Taught, fact, hint};
use super::locate::{Candidates, Place, candidates, is_kept};
use super::{FunctionReport, MismatchReport, Refusal, RuleTotal, Snapshot, Unproven};
use crate::arch::{Arch, KernelView};
use crate::unit::{SpanId, SymbolPlace, Unit};

/// Bytes behind a function that are looked at for padding.
const PADDING_MAX: u64 = 64;

/// A matched unit.
#[derive(Debug)]
pub(super) struct UnitMatch {
    /// The unit's name.
    pub(super) name: String,
    /// Functions that are proven.
    pub(super) functions: Vec<FunctionReport>,
    /// Functions that are not, and that the update does not touch.
    pub(super) unproven: Vec<Unproven>,
    /// Rules that explained bytes.
    pub(super) rules: Vec<RuleTotal>,
    /// Number of relocations whose value was read.
    pub(super) learned: usize,
    /// Section addresses.
    pub(super) sections: Sections,
    /// Parts of symbol values: held against everything that is known in the end.
    hints: Vec<Hint>,
    /// For each symbol: its section and its offset there.
    places: Vec<Option<(usize, u64)>>,
}

impl UnitMatch {
    /// Run-time value of a symbol that the unit defines, if it was learned.
    pub(super) fn local(&self, symbol: u32) -> Option<u64> {
        let (section, offset) = (*self.places.get(symbol as usize)?)?;
        self.sections.get(section).map(|t| t.value.wrapping_add(offset))
    }
}

/// Compares each function of a unit with each place that it may be at.
pub(super) fn find(
    arch: &dyn Arch,
    unit: &Unit,
    target: &str,
    snapshot: &Snapshot,
) -> Result<Vec<Candidates>, Refusal> {
    let spans: Vec<SpanId> = unit.functions().filter(|id| section_kept(unit, *id)).collect();
    // Which refusal is reported must not depend on which thread was first.
    let found: Vec<Result<Candidates, Refusal>> =
        spans.par_iter().map(|id| candidates(arch, unit, *id, target, snapshot)).collect();
    found.into_iter().collect()
}

/// Matches a unit by what [`find`] found. `needed` are the symbols of functions that the update
/// replaces: all of them must be proven.
pub(super) fn match_unit(
    arch: &dyn Arch,
    unit: &Unit,
    found: Vec<Candidates>,
    needed: &[u32],
    snapshot: &Snapshot,
    globals: &mut Globals,
) -> Result<UnitMatch, Refusal> {
    let mut matched = UnitMatch {
        name: unit.name.clone(),
        functions: Vec::new(),
        unproven: Vec::new(),
        rules: Vec::new(),
        learned: 0,
        sections: Sections::new(unit.sections.len()),
        hints: Vec::new(),
        places: unit
            .symbols
            .iter()
            .map(|s| match s.place {
                SymbolPlace::Section(index) => Some((index, s.value)),
                _ => None,
            })
            .collect(),
    };
    let mut open = Vec::new();
    for candidate in found {
        if candidate.places.is_empty() {
            not_matched(arch, unit, &candidate, needed, &mut matched)?;
        } else {
            open.push(candidate);
        }
    }
    decide(arch, unit, open, needed, snapshot, globals, &mut matched)?;
    matched.functions.sort_by_key(|f| f.symbol);
    matched.unproven.sort_by(|a, b| a.function.cmp(&b.function));
    matched.rules.sort();
    hints_hold(unit, &matched, globals, snapshot)?;
    agree_with_list(&matched, globals, snapshot)?;
    Ok(matched)
}

fn section_kept(unit: &Unit, span: SpanId) -> bool {
    unit.spans
        .get(span)
        .and_then(|s| unit.sections.get(s.section))
        .is_some_and(|section| is_kept(&section.name))
}

/// A function that matches nowhere: refused, unless the update does not need it and the reason is
/// one of the known harmless ones.
fn not_matched(
    arch: &dyn Arch,
    unit: &Unit,
    candidate: &Candidates,
    needed: &[u32],
    matched: &mut UnitMatch,
) -> Result<(), Refusal> {
    let Some(span) = unit.spans.get(candidate.span) else { return Ok(()) };
    let is_needed = span.symbol.is_some_and(|s| needed.contains(&s));
    let weak = span
        .symbol
        .and_then(|s| unit.symbols.get(s as usize))
        .is_some_and(|s| s.binding == STB_WEAK.0);
    let mut unproven = |why: &str| {
        matched.unproven.push(Unproven {
            function: span.name.clone(),
            unit: unit.name.clone(),
            why: why.to_owned(),
        });
        Ok(())
    };
    match &candidate.nearest {
        None if is_needed => {
            Err(Refusal::NotFound { function: span.name.clone(), unit: unit.name.clone() })
        }
        None => unproven("the kernel's symbol list has no function of this name"),
        Some(_) if weak && !is_needed => {
            unproven("a weak definition: another unit's stands in the kernel")
        }
        Some((_, mismatch)) if mismatch.short_branch && !is_needed => unproven(
            "the kernel has it laid out otherwise: shorter branches to neighbours, or other alignment",
        ),
        Some((address, mismatch)) => Err(Refusal::Mismatch(Box::new(MismatchReport::new(
            arch,
            unit,
            candidate.span,
            *address,
            mismatch,
        )))),
    }
}

/// Accepts places one after another, those without alternative first, until nothing changes;
/// what is known by then rules out the others.
fn decide(
    arch: &dyn Arch,
    unit: &Unit,
    mut open: Vec<Candidates>,
    needed: &[u32],
    snapshot: &Snapshot,
    globals: &mut Globals,
    matched: &mut UnitMatch,
) -> Result<(), Refusal> {
    loop {
        let before = open.len();
        let mut still = Vec::new();
        for mut candidate in open {
            let several = candidate.places.len() > 1;
            if several {
                let span = candidate.span;
                candidate.places.retain(|place| {
                    let sections = &matched.sections;
                    facts(unit, span, place)
                        .all(|f| f.contradicts(unit, sections, globals).is_none())
                        && hints(unit, span, place)
                            .iter()
                            .all(|h| h.contradicts(unit, sections, globals).is_none())
                });
            }
            match candidate.places.len() {
                1 => {
                    if let Some(place) = candidate.places.pop() {
                        accept(arch, unit, candidate.span, place, snapshot, globals, matched)?;
                    }
                }
                0 => return Err(no_place_left(unit, candidate.span)),
                _ => still.push(candidate),
            }
        }
        open = still;
        if open.is_empty() || open.len() == before {
            break;
        }
    }
    for candidate in open {
        let Some(span) = unit.spans.get(candidate.span) else { continue };
        let addresses = candidate.places.iter().map(|p| p.address).collect();
        if span.symbol.is_some_and(|s| needed.contains(&s)) {
            return Err(Refusal::AmbiguousFunction {
                function: span.name.clone(),
                unit: unit.name.clone(),
                addresses,
            });
        }
        matched.unproven.push(Unproven {
            function: span.name.clone(),
            unit: unit.name.clone(),
            why: format!("{} places have this very code", candidate.places.len()),
        });
    }
    Ok(())
}

fn no_place_left(unit: &Unit, span: SpanId) -> Refusal {
    let function = unit.spans.get(span).map_or_else(String::new, |s| s.name.clone());
    Refusal::NoConsistentPlace { function, unit: unit.name.clone() }
}

/// Everything that a place says: the function's own position, and the symbols it refers to.
fn facts<'u>(unit: &'u Unit, span: SpanId, place: &Place) -> impl Iterator<Item = Fact<'u>> {
    let own = unit.spans.get(span).and_then(|s| {
        let symbol = s.symbol?;
        let value = unit.symbols.get(symbol as usize)?.value;
        let start = place.address.wrapping_add(value.wrapping_sub(s.offset));
        Some(fact(unit, symbol, start))
    });
    own.into_iter().chain(place.learned.iter().map(|l| fact(unit, l.key, l.value)))
}

/// The parts of symbol values that a place gives.
fn hints(unit: &Unit, span: SpanId, place: &Place) -> Vec<Hint> {
    let by = unit.spans.get(span).map_or("", |s| s.name.as_str());
    place.partial.iter().map(|p| hint(unit, p, by)).collect()
}

/// Parts of symbol values must fit what is known, and what the kernel's own list says.
fn hints_hold(
    unit: &Unit,
    matched: &UnitMatch,
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    for hint in &matched.hints {
        if let Some((symbol, known)) = hint.contradicts(unit, &matched.sections, globals) {
            return Err(hint.refusal(symbol, known));
        }
        if let Some((symbol, value)) = hint.not_listed(snapshot) {
            let by = "the kernel's symbol list".to_owned();
            return Err(hint.refusal(symbol, Taught { value, by }));
        }
    }
    Ok(())
}

fn accept(
    arch: &dyn Arch,
    unit: &Unit,
    span: SpanId,
    place: Place,
    snapshot: &Snapshot,
    globals: &mut Globals,
    matched: &mut UnitMatch,
) -> Result<(), Refusal> {
    let Some(function) = unit.spans.get(span) else { return Ok(()) };
    for fact in facts(unit, span, &place) {
        if let Some((symbol, Taught { value, by }, other)) =
            fact.contradicts(unit, &matched.sections, globals)
        {
            return Err(Refusal::Disagree {
                symbol,
                first: (by, value),
                second: (function.name.clone(), other),
            });
        }
        fact.teach(&function.name, &mut matched.sections, globals);
    }
    matched.hints.extend(hints(unit, span, &place));
    matched.learned += place.learned.len();
    for rule in &place.rules {
        RuleTotal::add(&mut matched.rules, rule);
    }
    matched.functions.push(FunctionReport {
        function: function.name.clone(),
        unit: unit.name.clone(),
        symbol: function.symbol,
        span,
        address: place.address,
        size: function.size,
        padding: padding(arch, place.address.saturating_add(function.size), snapshot),
        live: place.live,
    });
    Ok(())
}

/// How many bytes from `end` on are proven to be padding: up to the next symbol.
fn padding(arch: &dyn Arch, end: u64, snapshot: &Snapshot) -> u64 {
    if snapshot.symbols.at(end).next().is_some() {
        return 0;
    }
    let next = snapshot.symbols.next_address(end).unwrap_or(end);
    let len = next.saturating_sub(end).min(PADDING_MAX);
    let mut buffer = [0; PADDING_MAX as usize];
    let bytes = buffer.get_mut(..len as usize).unwrap_or_default();
    if len > 0 && snapshot.read(end, bytes) && arch.diff().is_padding(bytes) { len } else { 0 }
}

/// What this unit taught about global symbols must be what the kernel's own list says.
pub(super) fn agree_with_list(
    matched: &UnitMatch,
    globals: &mut Globals,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    for (name, taught) in globals.take_fresh() {
        let listed = snapshot.addresses(&name);
        if !listed.is_empty() && !listed.contains(&taught.value) {
            return Err(Refusal::Disagree {
                symbol: name,
                first: (taught.by, taught.value),
                second: (
                    format!("the kernel's symbol list, while matching {}", matched.name),
                    listed.first().copied().unwrap_or(0),
                ),
            });
        }
    }
    Ok(())
}
