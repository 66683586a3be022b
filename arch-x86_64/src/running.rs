// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with running text.
//!
//! The text is cut into places, which have several forms ([`crate::rules`],
//! [`crate::alternatives`]), and the rest, which must be equal outside relocations. Where two
//! forms of a place fit and would teach different symbol values, the kernel's symbols decide,
//! then what the rest of the function taught; if both are silent, the match is refused.

use splice_core::arch::{
    ArchError, Argument, Code, FunctionDiff, KernelView, Learned, Mismatch, RuleCount, RunCode,
    RunMatch, Verdict,
};

use crate::decode::{self, Decoded};
use crate::forms::{self, Context, Form, Relocation, Trust};
use crate::nops::INT3;
use crate::rules::{self, Place};
use crate::{X86_64, alternatives, arguments, diff, nops, reloc, shorter};

impl FunctionDiff for X86_64 {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        diff::compare(pre, post)
    }

    fn arguments(
        &self,
        pre: &Code<'_>,
        post: &Code<'_>,
    ) -> Result<Option<Vec<Argument>>, ArchError> {
        arguments::arguments(pre, post)
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        if run.bytes.len() != pre.bytes.len() {
            let at = run.bytes.len().min(pre.bytes.len());
            return Ok(RunMatch::Refused(Mismatch {
                offset: at as u64,
                expected: pre.bytes.get(at..).unwrap_or_default().to_vec(),
                found: run.bytes.get(at..).unwrap_or_default().to_vec(),
                why: format!("{} bytes were read for {}", run.bytes.len(), pre.bytes.len()),
                probed: false,
                short_branch: false,
            }));
        }
        let places = alternatives::places(pre, simple_places(pre)?)?;
        let mut matcher = Matcher::new(pre, run, kernel, &places);
        let mut at = 0u64;
        for place in &places {
            if place.start < at {
                return Err(ArchError::Entry {
                    section: place.what.into(),
                    name: pre.name.into(),
                    offset: place.start,
                    why: "it overlaps another place".into(),
                });
            }
            if let Err(mismatch) = matcher.plain(at, place.start)? {
                return Ok(RunMatch::Refused(*mismatch));
            }
            if let Err(mismatch) = matcher.place(place) {
                return Ok(RunMatch::Refused(*mismatch));
            }
            at = place.end();
        }
        if let Err(mismatch) = matcher.plain(at, pre.bytes.len() as u64)? {
            return Ok(RunMatch::Refused(*mismatch));
        }
        Ok(matcher.finish())
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        decode::disassemble(bytes, address, count)
    }

    fn runs_on(&self, code: &Code<'_>) -> bool {
        decode::runs_on(code.bytes)
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        nops::is_padding(bytes)
    }
}

/// The places of a stretch of code that are no alternatives, sorted. Two entries about the same
/// bytes allow each other's forms; other overlaps are refused.
pub(crate) fn simple_places<'a>(code: &Code<'a>) -> Result<Vec<Place<'a>>, ArchError> {
    let mut places = rules::unlisted(code)?;
    for entry in code.entries {
        let Some(place) = rules::place(code, entry)? else { continue };
        let twin = places.iter_mut().find(|p| p.start == place.start && p.len() == place.len());
        match twin {
            Some(twin) => {
                twin.live |= place.live;
                twin.forms.extend(place.forms);
                twin.linked.extend(place.linked);
            }
            None => places.push(place),
        }
    }
    places.sort_by_key(|p| p.start);
    for pair in places.windows(2) {
        if let [a, b] = pair
            && b.start < a.end()
        {
            return Err(ArchError::Entry {
                section: b.what.into(),
                name: code.name.into(),
                offset: b.start,
                why: format!("it overlaps a {} at {:#x}", a.what, a.start),
            });
        }
    }
    Ok(places)
}

/// A form that fits, and what it teaches.
struct Fit {
    rule: &'static str,
    bytes: u32,
    learned: Vec<Learned>,
    trust: Trust,
}

/// Several forms that fit and teach different things.
struct Undecided {
    start: u64,
    expected: Vec<u8>,
    found: Vec<u8>,
    what: &'static str,
    fits: Vec<Fit>,
}

struct Matcher<'r> {
    code: &'r Code<'r>,
    run: &'r RunCode<'r>,
    kernel: &'r dyn KernelView,
    places: &'r [Place<'r>],
    learned: Vec<Learned>,
    rules: Vec<RuleCount>,
    live: Vec<(u64, u64)>,
    undecided: Vec<Undecided>,
}

impl<'r> Matcher<'r> {
    fn new(
        code: &'r Code<'r>,
        run: &'r RunCode<'r>,
        kernel: &'r dyn KernelView,
        places: &'r [Place<'r>],
    ) -> Matcher<'r> {
        Matcher {
            code,
            run,
            kernel,
            places,
            learned: Vec::new(),
            rules: Vec::new(),
            live: Vec::new(),
            undecided: Vec::new(),
        }
    }

    /// Bytes of the running text.
    fn found(&self, start: u64, end: u64) -> &'r [u8] {
        self.run.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    fn expected(&self, start: u64, end: u64) -> &'r [u8] {
        self.code.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Compares a range without places.
    fn plain(&mut self, start: u64, end: u64) -> Result<Result<(), Box<Mismatch>>, ArchError> {
        let mut at = start;
        let first = self.code.relocs.partition_point(|r| r.offset < start);
        for r in self.code.relocs.get(first..).unwrap_or_default() {
            if r.offset >= end {
                break;
            }
            let outside = || ArchError::Outside { name: self.code.name.into(), offset: r.offset };
            let info = reloc::describe(r.r_type).ok_or_else(|| ArchError::UnknownRelocation {
                name: self.code.name.into(),
                offset: r.offset,
                r_type: r.r_type,
            })?;
            if info.width == 0 {
                continue;
            }
            let field_end = r.offset + u64::from(info.width);
            if r.offset < at || field_end > end {
                return Err(outside());
            }
            if let Err(mismatch) = self.equal(at, r.offset) {
                return Ok(Err(mismatch));
            }
            let place = self.run.address.wrapping_add(r.offset);
            let field = self.found(r.offset, field_end);
            let value = forms::recover(&Relocation::new(r), place, field)?;
            self.learned.push(Learned { key: r.key, value, offset: r.offset });
            at = field_end;
        }
        Ok(self.equal(at, end))
    }

    /// Compares a range without places and relocations.
    fn equal(&self, start: u64, end: u64) -> Result<(), Box<Mismatch>> {
        let pairs = self.expected(start, end).iter().zip(self.found(start, end));
        match pairs.enumerate().find(|(_, (a, b))| a != b) {
            None => Ok(()),
            Some((n, _)) => Err(self.plain_mismatch(start + n as u64)),
        }
    }

    /// Describes a byte that differs outside all places.
    fn plain_mismatch(&self, offset: u64) -> Box<Mismatch> {
        let insn = Decoded::new(self.code.bytes).covering(offset);
        let (start, end) = insn.map_or((offset, offset + 1), |i| (i.start, i.end()));
        let expected = self.expected(start, end);
        let found = self.found(start, end);
        // A probe sits on an instruction's first byte; an optimised one is a jump to a buffer
        // that no symbol names.
        let probe = offset == start
            && match found {
                [INT3, rest @ ..] => Some(rest) == expected.get(1..),
                [0xe9, ..] => self.jump_to_buffer(start),
                _ => false,
            };
        let short_branch = !probe && shorter::is_relaxed(self.code, self.run, self.places);
        let why = if probe {
            "a probe is set there, and no entry lists the place"
        } else if short_branch {
            "the running text is this code with shorter jumps to neighbouring functions"
        } else {
            "no entry lists the place, and it is no relocation's"
        };
        // The whole of what was found, if it is longer than what was expected.
        let rest = self.run.bytes.get(start as usize..).unwrap_or_default();
        let there = if rest.is_empty() { 0 } else { decode::one(rest, start).len as usize };
        let found = rest.get(..there.max(expected.len())).unwrap_or(found);
        Box::new(Mismatch {
            offset: start,
            expected: expected.to_vec(),
            found: found.to_vec(),
            why: why.to_owned(),
            probed: probe,
            short_branch,
        })
    }

    /// Whether a jump stands at `start` that leads out of all text that has symbols.
    fn jump_to_buffer(&self, start: u64) -> bool {
        let [0xe9, a, b, c, d] = self.found(start, start + 5) else { return false };
        let distance = i32::from_le_bytes([*a, *b, *c, *d]);
        let next = self.run.address.wrapping_add(start + 5);
        let target = next.wrapping_add_signed(i64::from(distance));
        let within = target.wrapping_sub(self.run.address) < self.code.bytes.len() as u64;
        !within && !self.kernel.is_function(target)
    }

    /// Compares a place with its forms.
    fn place(&mut self, place: &Place<'_>) -> Result<(), Box<Mismatch>> {
        let (start, end) = (place.start, place.end());
        let found = self.found(start, end);
        let context = Context { function: self.run.address, start, kernel: self.kernel };
        let mut fits: Vec<Fit> = Vec::new();
        let mut nearest: Option<(usize, &Form<'_>, String)> = None;
        for form in place.forms_in(self.kernel) {
            match form.fits(found, context) {
                Ok((learned, trust)) => {
                    let same = |f: &Fit| f.learned == learned;
                    if !fits.iter().any(same) {
                        let bytes = form.bytes.len() as u32;
                        fits.push(Fit { rule: form.rule, bytes, learned, trust });
                    }
                }
                Err(why) => {
                    let equal = form.bytes.iter().zip(found).filter(|(a, b)| a == b).count();
                    if nearest.as_ref().is_none_or(|(n, _, _)| *n <= equal) {
                        nearest = Some((equal, form, why));
                    }
                }
            }
        }
        // Forms that the kernel's symbols confirm come before those of which it knows nothing.
        let best = fits.iter().map(|f| f.trust).max();
        fits.retain(|f| Some(f.trust) == best);
        if best == Some(Trust::Confirmed) {
            // Whichever it is, what it teaches is true; the object's own form comes first.
            fits.truncate(1);
        }
        let lock_off = place.what == "lock prefix" && found == [0x3e];
        if place.live || lock_off {
            self.live.push((start, place.len()));
        }
        if fits.len() > 1 {
            self.undecided.push(Undecided {
                start,
                expected: self.expected(start, end).to_vec(),
                found: found.to_vec(),
                what: place.what,
                fits,
            });
            return Ok(());
        }
        if let Some(fit) = fits.pop() {
            self.take(fit);
            return Ok(());
        }
        let (expected, reason) = match nearest {
            None => (self.expected(start, end).to_vec(), "there is none".to_owned()),
            Some((_, form, why)) => {
                let name = if form.rule.is_empty() { "the object's own" } else { form.rule };
                (form.bytes.clone(), format!("the nearest is {name}, but {why}"))
            }
        };
        let probed = found.first() == Some(&INT3)
            || found.first() == Some(&0xe9) && self.jump_to_buffer(start);
        Err(Box::new(Mismatch {
            offset: start,
            expected,
            found: found.to_vec(),
            why: format!("no form of the {} fits: {reason}", place.what),
            probed,
            short_branch: false,
        }))
    }

    fn take(&mut self, fit: Fit) {
        self.learned.extend(fit.learned);
        if fit.rule.is_empty() {
            return;
        }
        match self.rules.iter_mut().find(|r| r.rule == fit.rule) {
            Some(count) => {
                count.places += 1;
                count.bytes += fit.bytes;
            }
            None => self.rules.push(RuleCount { rule: fit.rule, places: 1, bytes: fit.bytes }),
        }
    }

    /// Decides what is undecided by what the rest of the function and its own place taught.
    fn finish(mut self) -> RunMatch {
        for mut case in std::mem::take(&mut self.undecided) {
            let own = self.run.section.map(|(key, value)| Learned { key, value, offset: 0 });
            let known: Vec<Learned> = self.learned.iter().copied().chain(own).collect();
            let agrees = |l: &Learned, all: &[Learned]| {
                all.iter().filter(|k| k.key == l.key).all(|k| k.value == l.value)
            };
            let backed = |l: &Learned, all: &[Learned]| {
                all.iter().any(|k| (k.key, k.value) == (l.key, l.value))
            };
            case.fits.retain(|f| f.learned.iter().all(|l| agrees(l, &known)));
            if case.fits.len() > 1 {
                case.fits.retain(|f| f.learned.iter().all(|l| backed(l, &known)));
            }
            let only = if case.fits.len() == 1 { case.fits.pop() } else { None };
            let Some(fit) = only else {
                return RunMatch::Refused(Mismatch {
                    offset: case.start,
                    expected: case.expected,
                    found: case.found,
                    why: format!(
                        "several forms of the {} fit, and nothing tells which of the symbols is meant",
                        case.what
                    ),
                    probed: false,
                    short_branch: false,
                });
            };
            self.take(fit);
        }
        self.learned.sort_by_key(|l| (l.offset, l.key));
        self.rules.sort_by_key(|r| r.rule);
        RunMatch::Matched {
            learned: self.learned,
            // Every field of this processor holds a whole value.
            partial: Vec::new(),
            rules: self.rules,
            live: self.live,
        }
    }
}
