// SPDX-License-Identifier: GPL-2.0-or-later
//! Matching one unit: every function is located, names with several places are decided by what
//! the code says.

use std::collections::HashMap;

use rayon::prelude::*;

use super::learn::{Fact, Globals, Hint, LIST, Sections, Taught, fact, hint, who};
use super::locate::{self, Candidates, Place, candidates, is_kept};
use super::stacked::Stack;
use super::{FunctionReport, MismatchReport, Refusal, RuleTotal, Snapshot, Unproven};
use crate::arch::{Arch, KernelView};
use crate::unit::{Span, SpanId, SpanKind, SymbolPlace, Unit};

/// Bytes behind a function that are looked at for padding.
const PADDING_MAX: u64 = 64;
const WEAK: &str = "a weak definition: another unit's stands in the kernel";

/// What is done about a function that is not what it should be: the match ends with the refusal, or
/// goes on without the function.
pub(super) type Refuse<'a> = dyn FnMut(SpanId, Refusal) -> Result<(), Refusal> + 'a;

/// A matched unit.
#[derive(Debug)]
pub(super) struct UnitMatch {
    /// Functions that are proven.
    pub(super) functions: Vec<FunctionReport>,
    /// Functions that are not, and that the update does not touch.
    pub(super) unproven: Vec<Unproven>,
    /// Rules that explained bytes.
    pub(super) rules: Vec<RuleTotal>,
    /// Number of relocations whose value was read.
    pub(super) learned: usize,
    /// Number of references to memory that the snapshot does not hold.
    pub(super) unread: usize,
    /// Code without a symbol, where it was found: addresses and sizes.
    pub(super) nameless: Vec<(u64, u64)>,
    /// Section addresses.
    pub(super) sections: Sections,
    /// Parts of symbol values: held against everything that is known in the end.
    hints: Vec<(SpanId, Hint)>,
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

/// Compares each function of a unit with each place that it may be at: in a target, and, if so said, in
/// what applied updates have brought.
pub(super) fn find(
    arch: &dyn Arch,
    unit: &Unit,
    target: (&str, bool),
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
    (arch, unit, target, snapshot): (&dyn Arch, &Unit, &str, &Snapshot),
    found: Vec<Candidates>,
    needed: &[u32],
    globals: &mut Globals,
    refuse: &mut Refuse<'_>,
) -> Result<UnitMatch, Refusal> {
    let matched = UnitMatch {
        functions: Vec::new(),
        unproven: Vec::new(),
        rules: Vec::new(),
        learned: 0,
        unread: 0,
        nameless: Vec::new(),
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
    let merged = HashMap::new();
    let mut matching =
        Matching { arch, unit, target, snapshot, needed, globals, refuse, matched, merged };
    let mut open = Vec::new();
    for candidate in found {
        if candidate.places.is_empty() {
            matching.not_matched(&candidate)?;
        } else {
            open.push(candidate);
        }
    }
    matching.decide(open)?;
    matching.unlisted()?;
    matching.hints_hold()?;
    let mut matched = matching.matched;
    matched.functions.sort_by_key(|f| f.symbol);
    matched.unproven.sort_by(|a, b| a.function.cmp(&b.function));
    matched.rules.sort();
    Ok(matched)
}

fn section_kept(unit: &Unit, span: SpanId) -> bool {
    unit.spans
        .get(span)
        .and_then(|s| unit.sections.get(s.section))
        .is_some_and(|section| is_kept(&section.name))
}

/// A unit that is being matched.
struct Matching<'a, 'r> {
    arch: &'a dyn Arch,
    unit: &'a Unit,
    target: &'a str,
    snapshot: &'a Snapshot,
    needed: &'a [u32],
    globals: &'a mut Globals,
    refuse: &'a mut Refuse<'r>,
    matched: UnitMatch,
    /// Where strings and constants are.
    merged: HashMap<SpanId, Taught>,
}

impl Matching<'_, '_> {
    fn is_needed(&self, span: SpanId) -> bool {
        let symbol = self.unit.spans.get(span).and_then(|s| s.symbol);
        symbol.is_some_and(|s| self.needed.contains(&s))
    }

    /// Whether another function's code has told where this one is.
    fn is_known(&self, span: SpanId) -> bool {
        let section = self.unit.spans.get(span).map(|s| s.section);
        section.is_some_and(|s| self.matched.sections.get(s).is_some())
    }

    fn unproven(&mut self, span: SpanId, why: String, places: Vec<u64>) {
        let Some(function) = self.unit.spans.get(span) else { return };
        self.matched.unproven.push(Unproven {
            function: function.name.clone(),
            unit: self.unit.name.clone(),
            why,
            size: function.size,
            places,
        });
    }

    /// A function that matches nowhere: refused, unless the update does not need it and the reason
    /// is one of the known harmless ones.
    fn not_matched(&mut self, candidate: &Candidates) -> Result<(), Refusal> {
        let id = candidate.span;
        let Some(span) = self.unit.spans.get(id) else { return Ok(()) };
        let is_needed = self.is_needed(id);
        let weak = self.is_weak(span);
        if let Some(update) = candidate.update.clone().filter(|_| is_needed) {
            let (function, unit) = (span.name.clone(), self.unit.name.clone());
            return (self.refuse)(id, Refusal::Replaced { function, unit, update });
        }
        let nearest = candidate.nearest();
        let why = match nearest.as_slice() {
            _ if candidate.update.is_some() => "an update that is applied has replaced it",
            [] if is_needed => {
                let (function, unit) = (span.name.clone(), self.unit.name.clone());
                return (self.refuse)(id, Refusal::NotFound { function, unit });
            }
            [] => "the kernel's symbol list has no function of this name",
            _ if weak && !is_needed => WEAK,
            [refused, ..] if refused.mismatch.short_branch && !is_needed => {
                "the kernel has it laid out otherwise: shorter branches to neighbours, or other \
                 alignment"
            }
            [refused, others @ ..] => {
                let report =
                    MismatchReport::new((self.arch, self.snapshot), self.unit, id, refused, others);
                return (self.refuse)(id, Refusal::Mismatch(Box::new(report)));
            }
        };
        self.unproven(id, why.to_owned(), Vec::new());
        Ok(())
    }

    /// Where the others want a function that only matches elsewhere: a namesake has the same code there,
    /// and its own was changed.
    fn changed(&self, candidate: &Candidates) -> Option<MismatchReport> {
        let span = self.unit.spans.get(candidate.span)?;
        let section = self.matched.sections.get(span.section)?;
        let address = section.value.wrapping_add(span.offset);
        let mut others = candidate.nearest();
        let own = others.iter().position(|refused| refused.address == address)?;
        let own = others.remove(own);
        Some(MismatchReport::new(
            (self.arch, self.snapshot),
            self.unit,
            candidate.span,
            own,
            &others,
        ))
    }

    /// Accepts places one after another, those without alternative first, until nothing changes;
    /// what is known by then rules out the others. A function that does not match at each place of its
    /// name comes later: its own may be the one that was changed.
    fn decide(&mut self, mut open: Vec<Candidates>) -> Result<(), Refusal> {
        let mut only_certain = true;
        loop {
            let before = open.len();
            let mut still = Vec::new();
            for mut candidate in open {
                let id = candidate.span;
                let weak = self.unit.spans.get(id).is_some_and(|span| self.is_weak(span));
                let may_lose = weak && !self.is_needed(id);
                let is_certain = candidate.refused.is_empty();
                if only_certain && !is_certain {
                    still.push(candidate);
                    continue;
                }
                let mut contradicted = Vec::new();
                if candidate.places.len() > 1 || may_lose || !is_certain {
                    let (unit, sections) = (self.unit, &self.matched.sections);
                    let (globals, snapshot) = (&*self.globals, self.snapshot);
                    let places = std::mem::take(&mut candidate.places);
                    (candidate.places, contradicted) = places.into_iter().partition(|place| {
                        facts(unit, id, place, &snapshot.stack).all(|f| {
                            f.contradicts(unit, sections, globals).is_none()
                                && f.listed("", globals, snapshot).is_ok()
                        }) && hints(unit, id, place)
                            .iter()
                            .all(|h| h.contradicts(unit, sections, globals).is_none())
                    });
                }
                match candidate.places.len() {
                    // The other unit's has the same bytes, but refers to something else.
                    0 if may_lose => self.unproven(id, WEAK.to_owned(), Vec::new()),
                    0 => {
                        let only = if contradicted.len() == 1 { contradicted.pop() } else { None };
                        let outcome = match (self.changed(&candidate), only) {
                            (Some(report), _) => Err(Refusal::Mismatch(Box::new(report))),
                            // That tells who contradicts whom, and where.
                            (None, Some(place)) => self.accept(id, place),
                            (None, None) => Err(no_place_left(self.unit, id)),
                        };
                        if let Err(refusal) = outcome {
                            (self.refuse)(id, refusal)?;
                        }
                    }
                    // What was replaced may have been this one, and the place that is left another.
                    1 if candidate.update.is_some() && !self.is_known(id) => still.push(candidate),
                    1 => {
                        if let Some(place) = candidate.places.pop()
                            && let Err(refusal) = self.accept(id, place)
                        {
                            (self.refuse)(id, refusal)?;
                        }
                    }
                    _ => still.push(candidate),
                }
            }
            open = still;
            if open.is_empty() || open.len() == before && !only_certain {
                break;
            }
            only_certain = only_certain && open.len() < before;
        }
        for candidate in open {
            let id = candidate.span;
            let addresses: Vec<u64> = candidate.places.iter().map(|p| p.address).collect();
            if candidate.update.is_some() {
                self.not_matched(&candidate)?;
            } else if self.is_needed(id) {
                let Some(span) = self.unit.spans.get(id) else { continue };
                let (function, unit) = (span.name.clone(), self.unit.name.clone());
                (self.refuse)(id, Refusal::AmbiguousFunction { function, unit, addresses })?;
            } else {
                let why = format!("{} places have this very code", addresses.len());
                self.unproven(id, why, addresses);
            }
        }
        Ok(())
    }

    /// Code that the kernel's list does not have: a weak definition that lost to another unit's, and
    /// code without a symbol. It is where its section is.
    fn unlisted(&mut self) -> Result<(), Refusal> {
        for (id, span) in self.unit.spans.iter().enumerate() {
            let nameless = span.kind == SpanKind::Anonymous && self.is_plain_code(span);
            if !nameless && !self.is_weak(span) {
                continue;
            }
            let Some(section) = self.matched.sections.get(span.section) else { continue };
            let address = section.value.wrapping_add(span.offset);
            if self.matched.functions.iter().any(|f| f.span == id && f.address == address) {
                continue;
            }
            let mut found = Candidates::new(id);
            if self.snapshot.is_text(address) {
                let here = (self.arch, self.unit, self.target, self.snapshot);
                locate::at(here, &mut found, address)?;
            }
            let places: Vec<u64> = found.places.iter().map(|place| place.address).collect();
            let known = self.matched.unproven.iter_mut().find(|u| u.function == span.name);
            match known {
                Some(unproven) => unproven.places = places,
                None if nameless => {
                    self.matched.nameless.extend(places.iter().map(|at| (*at, span.size)));
                }
                None => self.unproven(id, WEAK.to_owned(), places),
            }
        }
        Ok(())
    }

    /// Whether a span is code, and no table's.
    fn is_plain_code(&self, span: &Span) -> bool {
        self.unit.is_code(span)
            && self.unit.special(span.section).is_none()
            && self.unit.sections.get(span.section).is_some_and(|s| is_kept(&s.name))
    }

    /// Whether another unit's definition may stand in a function's stead.
    fn is_weak(&self, span: &Span) -> bool {
        span.kind == SpanKind::Function && self.unit.is_weak(span)
    }

    /// Takes a place for a function's if nothing that it says contradicts what is known; then what
    /// it says is known, too.
    fn accept(&mut self, id: SpanId, place: Place) -> Result<(), Refusal> {
        let Some(function) = self.unit.spans.get(id) else { return Ok(()) };
        for fact in facts(self.unit, id, &place, &self.snapshot.stack) {
            let sections = &self.matched.sections;
            if let Some((symbol, known, value)) =
                fact.contradicts(self.unit, sections, self.globals)
            {
                return Err(Refusal::Disagree {
                    symbol,
                    first: (known.who(), known.value),
                    second: (who(&function.name, fact.at), value),
                });
            }
            fact.listed(&function.name, self.globals, self.snapshot)?;
            fact.teach(&function.name, &mut self.matched.sections, self.globals);
        }
        // What an update has brought has copies of its own.
        for (to, start, at) in place.followed.merged.iter().filter(|_| place.update.is_none()) {
            match self.merged.get(to) {
                Some(known) if known.value != *start => {
                    let text = self.unit.spans.get(*to).map(|to| self.unit.bytes_of(to));
                    return Err(Refusal::Disagree {
                        symbol: format!("\"{}\"", text.unwrap_or_default().escape_ascii()),
                        first: (known.who(), known.value),
                        second: (who(&function.name, Some(*at)), *start),
                    });
                }
                Some(_) => {}
                None => {
                    let by = function.name.clone();
                    let taught = Taught { value: *start, by, at: Some(*at) };
                    self.merged.insert(*to, taught);
                }
            }
        }
        let matched = &mut self.matched;
        matched.hints.extend(hints(self.unit, id, &place).into_iter().map(|hint| (id, hint)));
        matched.learned += place.learned.len();
        matched.unread += place.followed.unread;
        for rule in &place.rules {
            RuleTotal::new(rule).add_to(&mut matched.rules);
        }
        matched.functions.push(FunctionReport {
            function: function.name.clone(),
            unit: self.unit.name.clone(),
            symbol: function.symbol,
            span: id,
            address: place.address,
            size: function.size,
            update: place.update,
            padding: padding(self.arch, place.address.saturating_add(function.size), self.snapshot),
            live: place.live,
        });
        Ok(())
    }

    /// Parts of symbol values must fit what is known in the end, and what the kernel's own list
    /// says.
    fn hints_hold(&mut self) -> Result<(), Refusal> {
        for (id, hint) in std::mem::take(&mut self.matched.hints) {
            let contradicted = hint.contradicts(self.unit, &self.matched.sections, self.globals);
            let refusal = if let Some((symbol, known)) = contradicted {
                hint.refusal(symbol, known)
            } else if let Some((symbol, value)) = hint.not_listed(self.snapshot) {
                hint.refusal(symbol, Taught { value, by: LIST.to_owned(), at: None })
            } else {
                continue;
            };
            (self.refuse)(id, refusal)?;
        }
        Ok(())
    }
}

fn no_place_left(unit: &Unit, span: SpanId) -> Refusal {
    let function = unit.spans.get(span).map_or_else(String::new, |s| s.name.clone());
    Refusal::NoConsistentPlace { function, unit: unit.name.clone() }
}

/// Everything that a place says: the function's own position, and the symbols it refers to. A
/// function that an update has replaced is known by its old entry.
fn facts<'u>(
    unit: &'u Unit,
    span: SpanId,
    place: &Place,
    stack: &Stack,
) -> impl Iterator<Item = Fact<'u>> {
    let own = unit.spans.get(span).and_then(|s| {
        let symbol = s.symbol?;
        let value = unit.symbols.get(symbol as usize)?.value;
        let entry = stack.known_as(place.address);
        let start = entry.wrapping_add(value.wrapping_sub(s.offset));
        Some(fact(unit, symbol, start))
    });
    own.into_iter().chain(
        place.learned.iter().map(|l| fact(unit, l.key, stack.known_as(l.value)).read_at(l.offset)),
    )
}

/// The parts of symbol values that a place gives.
fn hints(unit: &Unit, span: SpanId, place: &Place) -> Vec<Hint> {
    let by = unit.spans.get(span).map_or("", |s| s.name.as_str());
    place.partial.iter().map(|p| hint(unit, p, by)).collect()
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
