// SPDX-License-Identifier: GPL-2.0-or-later
//! Run-pre for a whole text: what share of it is proven to be the given units' code, and what is
//! not, and why.
//!
//! Here nothing is to be replaced, so a function that does not match ends nothing. Of each function
//! is asked whether every byte is explained, and whether what it refers to is what the unit's other
//! functions, the other units and the kernel's own symbol list say.

use std::collections::HashMap;

use serde::Serialize;

use super::learn::{Globals, Taught};
use super::{FunctionReport, Refusal, RuleTotal, Snapshot, Unproven, VMLINUX, unit};
use crate::arch::{Arch, KernelView};
use crate::unit::{SpanId, Unit};

/// What one unit says of the running text; it does not need the unit any more.
#[derive(Debug)]
pub struct Survey {
    functions: Vec<FunctionReport>,
    unproven: Vec<Unproven>,
    foreign: Vec<Foreign>,
    nameless: Vec<(u64, u64)>,
    rules: Vec<RuleTotal>,
    learned: usize,
    unread: usize,
    /// Global symbols that the kernel's list does not place by itself.
    unlisted: Vec<(String, Taught)>,
}

impl Survey {
    /// Functions that are proven as far as the unit itself and the kernel's list can tell.
    pub fn functions(&self) -> &[FunctionReport] {
        &self.functions
    }

    /// Functions whose text is not the unit's code.
    pub fn foreign(&self) -> &[Foreign] {
        &self.foreign
    }
}

/// A function whose text is not the unit's code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Foreign {
    /// The function.
    pub function: String,
    /// Its unit.
    pub unit: String,
    /// Where the kernel has it, if it is one place.
    pub address: Option<u64>,
    /// Where a jump at its entry leads, if one stands there.
    pub jump: Option<u64>,
    /// What is wrong, as for [`super::check`].
    pub why: String,
}

/// A symbol of the running text that no given unit's code was found for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unexplained {
    /// The symbol.
    pub symbol: String,
    /// Its address.
    pub address: u64,
    /// Bytes up to the next symbol.
    pub size: u64,
    /// Why, if a given unit has code of that name.
    pub why: Option<String>,
}

/// Text that is neither proven code nor padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Its address.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The nearest symbol at or before it.
    pub symbol: String,
}

/// What is known of a text.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The image or module.
    pub target: String,
    /// Addresses in the text at which the kernel has a code symbol: its functions, and labels.
    pub symbols: usize,
    /// Those of them that proven code covers.
    pub proven: usize,
    /// Bytes of the text.
    pub text_bytes: u64,
    /// Bytes of it in proven functions.
    pub proven_bytes: u64,
    /// Bytes of it that are padding between functions.
    pub padding_bytes: u64,
    /// Number of relocations whose symbol value was read.
    pub learned: usize,
    /// Number of references whose strings or constants the snapshot does not hold, so that they were
    /// not compared.
    pub unread: usize,
    /// Rules that explained bytes which differ from the objects'.
    pub rules: Vec<RuleTotal>,
    /// Functions whose text is not the unit's code: changed, or built from something else.
    pub foreign: Vec<Foreign>,
    /// Symbols of the text that nothing given explains.
    pub unexplained: Vec<Unexplained>,
    /// Stretches of the text that are neither proven nor padding.
    pub gaps: Vec<Gap>,
}

/// Compares all functions of one unit with the text.
///
/// # Errors
///
/// The backend cannot answer, or the unit is no good.
pub fn survey(
    arch: &dyn Arch,
    unit: &Unit,
    target: &str,
    snapshot: &Snapshot,
) -> Result<Survey, Refusal> {
    let mut refused: Vec<(SpanId, Refusal)> = Vec::new();
    let mut globals = Globals::default();
    let refuse = &mut |span, refusal| match refusal {
        Refusal::Unit(_) | Refusal::Backend { .. } => Err(refusal),
        refusal => {
            refused.push((span, refusal));
            Ok(())
        }
    };
    let found = unit::find(arch, unit, (target, false), snapshot)?;
    let matched =
        unit::match_unit((arch, unit, target, snapshot), found, &[], &mut globals, refuse)?;
    let wrong = |span| refused.iter().any(|(other, _)| *other == span);
    let functions = matched.functions.into_iter().filter(|f| !wrong(f.span)).collect();
    let foreign = refused.iter().map(|(span, refusal)| foreign(unit, *span, refusal)).collect();
    let unlisted = globals
        .into_known()
        .filter(|(name, _)| snapshot.symbols.named(name).count() != 1)
        .collect();
    Ok(Survey {
        functions,
        unproven: matched.unproven,
        foreign,
        nameless: matched.nameless,
        rules: matched.rules,
        learned: matched.learned,
        unread: matched.unread,
        unlisted,
    })
}

fn foreign(unit: &Unit, span: SpanId, refusal: &Refusal) -> Foreign {
    let (address, jump) = match refusal {
        Refusal::Mismatch(report) => (Some(report.address), report.trampoline),
        Refusal::Unreadable { address, .. } => (Some(*address), None),
        _ => (None, None),
    };
    Foreign {
        function: unit.spans.get(span).map_or_else(String::new, |s| s.name.clone()),
        unit: unit.name.clone(),
        address,
        jump,
        why: refusal.to_string(),
    }
}

/// Puts together what all units say.
#[must_use]
pub fn verify(
    arch: &dyn Arch,
    surveys: Vec<Survey>,
    target: &str,
    snapshot: &Snapshot,
) -> Verified {
    let mut verified = Verified {
        target: target.to_owned(),
        symbols: 0,
        proven: 0,
        text_bytes: 0,
        proven_bytes: 0,
        padding_bytes: 0,
        learned: 0,
        unread: 0,
        rules: Vec::new(),
        foreign: Vec::new(),
        unexplained: Vec::new(),
        gaps: Vec::new(),
    };
    let mut known: HashMap<String, Taught> = HashMap::new();
    let mut covered = Vec::new();
    let mut unproven: HashMap<String, String> = HashMap::new();
    for survey in surveys {
        let wrong = disagreeing(&mut known, survey.unlisted);
        for function in survey.functions {
            let stretch = (function.address, function.address.saturating_add(function.size));
            match wrong.iter().find(|w| w.function == function.function) {
                None => covered.push(stretch),
                Some(wrong) => {
                    let address = Some(function.address);
                    let unit = function.unit;
                    verified.foreign.push(Foreign { unit, address, ..wrong.clone() });
                }
            }
        }
        covered.extend(survey.nameless.iter().map(|(at, size)| (*at, at.saturating_add(*size))));
        for one in survey.unproven {
            // Wherever this very code stands, some unit's function is explained.
            covered.extend(one.places.iter().map(|at| (*at, at.saturating_add(one.size))));
            unproven.entry(one.function).or_insert(one.why);
        }
        verified.learned += survey.learned;
        verified.unread += survey.unread;
        for rule in survey.rules {
            rule.add_to(&mut verified.rules);
        }
        verified.foreign.extend(survey.foreign);
    }
    verified.rules.sort();
    let covered = merged(covered);
    // Of several definitions of one name the kernel has one; the others are not foreign.
    verified.foreign.retain(|f| f.address.is_none_or(|at| until(&covered, at).is_none()));
    verified.foreign.sort();
    for foreign in &verified.foreign {
        let first = foreign.why.lines().next().unwrap_or_default().to_owned();
        unproven.insert(foreign.function.clone(), first);
    }
    let text = Text { arch, snapshot, target, covered, unproven };
    text.fill(&mut verified);
    verified
}

/// The functions that give a symbol another value than a unit before; the symbols are those that the
/// kernel's list does not place.
fn disagreeing(
    known: &mut HashMap<String, Taught>,
    unlisted: Vec<(String, Taught)>,
) -> Vec<Foreign> {
    let mut wrong = Vec::new();
    for (symbol, taught) in unlisted {
        match known.get(&symbol) {
            Some(first) if first.value != taught.value => {
                let refusal = Refusal::Disagree {
                    symbol,
                    first: (first.who(), first.value),
                    second: (taught.who(), taught.value),
                };
                wrong.push(Foreign {
                    function: taught.by,
                    unit: String::new(),
                    address: None,
                    jump: None,
                    why: refusal.to_string(),
                });
            }
            Some(_) => {}
            None => {
                known.insert(symbol, taught);
            }
        }
    }
    wrong
}

/// Stretches (begin, end) in order, those that touch put together.
fn merged(mut stretches: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    stretches.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(stretches.len());
    for (begin, end) in stretches {
        match merged.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

/// The end of the stretch that an address is in.
fn until(covered: &[(u64, u64)], address: u64) -> Option<u64> {
    let next = covered.partition_point(|(from, _)| *from <= address);
    let (_, until) = covered.get(next.checked_sub(1)?)?;
    (address < *until).then_some(*until)
}

/// The text of the image or of a module, and what is known of it.
struct Text<'a> {
    arch: &'a dyn Arch,
    snapshot: &'a Snapshot,
    target: &'a str,
    covered: Vec<(u64, u64)>,
    /// Why functions are not proven, by their names.
    unproven: HashMap<String, String>,
}

impl Text<'_> {
    /// Goes through the text from one code symbol to the next.
    fn fill(&self, verified: &mut Verified) {
        let (mut at, end) = self.bounds();
        verified.text_bytes = end.saturating_sub(at);
        verified.proven_bytes =
            self.covered.iter().map(|(from, to)| to.min(&end).saturating_sub(*from.max(&at))).sum();
        while at < end {
            let next = self.next_symbol(at).unwrap_or(end).min(end);
            let symbol = self.code_at(at);
            match (until(&self.covered, at), symbol) {
                (Some(until), symbol) => {
                    verified.symbols += usize::from(symbol.is_some());
                    verified.proven += usize::from(symbol.is_some());
                    self.rest(until.min(next), next, verified);
                }
                // A mark of the linker's, such as the end of a section, with nothing behind it.
                (None, _) if self.is_padding(at, next) => verified.padding_bytes += next - at,
                (None, Some(name)) => {
                    verified.symbols += 1;
                    verified.unexplained.push(Unexplained {
                        symbol: name.to_owned(),
                        address: at,
                        size: next - at,
                        why: self.unproven.get(name).cloned(),
                    });
                }
                (None, None) => self.rest(at, next, verified),
            }
            at = next;
        }
    }

    /// Begin and end of the text; a module's is what lies between its first and last function.
    fn bounds(&self) -> (u64, u64) {
        if self.target == VMLINUX {
            let address = |name| self.snapshot.symbols.named(name).next().map_or(0, |s| s.address);
            return (address("_stext"), address("_etext"));
        }
        let own = self.snapshot.symbols.code_of(self.target);
        let (first, last) = own
            .fold((u64::MAX, 0), |(first, last), address| (first.min(address), last.max(address)));
        let end = until(&self.covered, last).unwrap_or(last);
        if first > end { (0, 0) } else { (first, end) }
    }

    /// The next address above that one with a code symbol of the target.
    fn next_symbol(&self, address: u64) -> Option<u64> {
        let mut at = address;
        loop {
            at = self.snapshot.symbols.next_address(at)?;
            if self.code_at(at).is_some() {
                return Some(at);
            }
        }
    }

    fn code_at(&self, address: u64) -> Option<&str> {
        let symbols = &self.snapshot.symbols;
        symbols.at(address).find(|s| s.is_code() && s.module == self.target).map(|s| s.name)
    }

    /// What lies behind proven code up to the next symbol: padding, more proven code that has no
    /// symbol, or text of nobody.
    fn rest(&self, from: u64, to: u64, verified: &mut Verified) {
        let next = self.covered.partition_point(|(begin, _)| *begin <= from);
        let more = self.covered.get(next).filter(|(begin, _)| *begin < to);
        let end = more.map_or(to, |(begin, _)| *begin);
        if from < end {
            if self.is_padding(from, end) {
                verified.padding_bytes += end - from;
            } else {
                let symbol = self.snapshot.symbols.below(from).map_or("", |s| s.name).to_owned();
                verified.gaps.push(Gap { address: from, size: end - from, symbol });
            }
        }
        if let Some((_, until)) = more {
            self.rest((*until).min(to), to, verified);
        }
    }

    fn is_padding(&self, from: u64, to: u64) -> bool {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
        self.snapshot.read(from, &mut bytes) && self.arch.diff().is_padding(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn stretches_are_put_together() {
        assert_eq!(
            merged(vec![(30, 40), (0, 10), (2, 5), (10, 12), (35, 50)]),
            [(0, 12), (30, 50)]
        );
    }
}
