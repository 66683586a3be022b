// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with running text.
//!
//! The text is cut into places, which have several forms ([`crate::rules`]), and the rest, which
//! must be equal outside relocations. Where two forms of a place fit and would teach different
//! symbol values, those of which the kernel's list has all symbols come first; if that does not
//! decide, the match is refused.

use splice_core::arch::{
    ArchError, Code, CodeReloc, FunctionDiff, KernelView, Mismatch, RelocationFixup, RuleCount,
    RunCode, RunMatch, Verdict,
};

use crate::forms::{Context, Fit, Form};
use crate::insn::{self, NOP, PROBE};
use crate::rules::{self, Place};
use crate::values::{self, Contradiction, Fact};
use crate::{Aarch64, decode, diff, layout, reloc, stack, trampoline, veneers};

impl FunctionDiff for Aarch64 {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        diff::compare(pre, post)
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        if let Some(why) = unfit(pre, run) {
            let at = run.bytes.len().min(pre.bytes.len());
            return Ok(RunMatch::Refused(Mismatch {
                offset: at as u64,
                expected: pre.bytes.get(at..).unwrap_or_default().to_vec(),
                found: run.bytes.get(at..).unwrap_or_default().to_vec(),
                why,
                probed: false,
                short_branch: false,
            }));
        }
        let places = rules::places(pre)?;
        let mut matcher = Matcher::new(pre, run, kernel, &places);
        let mut at = 0u64;
        for place in &places {
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
        if trampoline::begins_with_signing(pre) && !lacks_landing_pads(kernel) {
            matcher.live.push((0, insn::LEN));
        }
        Ok(matcher.finish())
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        decode::disassemble(bytes, address, count)
    }

    fn runs_on(&self, code: &Code<'_>) -> bool {
        let mut words = code.bytes.chunks_exact(4).rev().map(|word| reloc::word(word) as u32);
        words.find(|w| *w != NOP).is_none_or(insn::runs_on)
    }

    /// One nop. Longer runs may be the tracer's data before the next function (two nops in the
    /// object, rewritten at run time), and no function needs more: the jump is one instruction.
    fn is_padding(&self, bytes: &[u8]) -> bool {
        bytes == NOP.to_le_bytes() || bytes.is_empty()
    }
}

/// Why the text cannot be compared at all.
fn unfit(pre: &Code<'_>, run: &RunCode<'_>) -> Option<String> {
    if run.bytes.len() != pre.bytes.len() {
        return Some(format!("{} bytes were read for {}", run.bytes.len(), pre.bytes.len()));
    }
    if !run.address.is_multiple_of(insn::LEN) {
        return Some("no instruction stands at such an address".into());
    }
    let signs =
        pre.bytes.chunks_exact(4).any(|w| insn::at(w, 0).is_some_and(|w| w == insn::PACIASP));
    if signs && stack::text_is_too_high(run.address) {
        return Some(
            "return addresses are signed, and the kernel's virtual addresses have fewer bits \
             than splice knows how to read such words with"
                .into(),
        );
    }
    None
}

/// Whether the kernel shows that it does not enforce landing pads: compiled functions that others
/// call from anywhere begin without one. Were they enforced, each would begin with one.
fn lacks_landing_pads(kernel: &dyn KernelView) -> bool {
    const WITNESSES: [&str; 4] = ["vfs_read", "vfs_write", "kfree", "schedule"];
    WITNESSES.iter().flat_map(|name| kernel.addresses(name)).any(|address| {
        let mut bytes = [0; 4];
        kernel.read(address, &mut bytes)
            && matches!(u32::from_le_bytes(bytes), NOP | insn::MOV_X9_X30)
    })
}

struct Matcher<'r> {
    code: &'r Code<'r>,
    run: &'r RunCode<'r>,
    kernel: &'r dyn KernelView,
    places: &'r [Place<'r>],
    facts: Vec<Fact<'r>>,
    rules: Vec<RuleCount>,
    live: Vec<(u64, u64)>,
}

type Compared = Result<(), Box<Mismatch>>;

impl<'r> Matcher<'r> {
    fn new(
        code: &'r Code<'r>,
        run: &'r RunCode<'r>,
        kernel: &'r dyn KernelView,
        places: &'r [Place<'r>],
    ) -> Matcher<'r> {
        let (facts, rules, live) = (Vec::new(), Vec::new(), Vec::new());
        Matcher { code, run, kernel, places, facts, rules, live }
    }

    fn slice(bytes: &'r [u8], start: u64, end: u64) -> &'r [u8] {
        bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Bytes of the running text.
    fn found(&self, start: u64, end: u64) -> &'r [u8] {
        Self::slice(self.run.bytes, start, end)
    }

    fn expected(&self, start: u64, end: u64) -> &'r [u8] {
        Self::slice(self.code.bytes, start, end)
    }

    /// Compares a range without places.
    fn plain(&mut self, start: u64, end: u64) -> Result<Compared, ArchError> {
        let mut at = start;
        let first = self.code.relocs.partition_point(|r| r.offset < start);
        let code = self.code;
        for r in code.relocs.get(first..).unwrap_or_default() {
            if r.offset >= end {
                break;
            }
            let info = reloc::info_of(code, r)?;
            if info.width == 0 {
                continue;
            }
            let field_end = r.offset + u64::from(info.width);
            if r.offset < at || field_end > end {
                return Err(ArchError::Outside { name: code.name.into(), offset: r.offset });
            }
            if let Err(mismatch) = self.equal(at, r.offset) {
                return Ok(Err(mismatch));
            }
            if let Err(mismatch) = self.relocated(r, field_end)? {
                return Ok(Err(mismatch));
            }
            at = field_end;
        }
        Ok(self.equal(at, end))
    }

    /// Reads a relocation's field outside places.
    fn relocated(&mut self, r: &CodeReloc<'r>, end: u64) -> Result<Compared, ArchError> {
        let place = self.run.address.wrapping_add(r.offset);
        let found = self.found(r.offset, end);
        if end - r.offset != insn::LEN || !r.offset.is_multiple_of(insn::LEN) {
            // Data between the code. It is the relocation's as a whole.
            let value = Aarch64.recover(r.r_type, r.addend, place, found)?;
            self.facts.push(Fact::of_field(r, value, place, r.offset));
            return Ok(Ok(()));
        }
        let (Some(own), Some(have)) = (insn::at(self.code.bytes, r.offset), insn::at(found, 0))
        else {
            return Err(ArchError::Outside { name: self.code.name.into(), offset: r.offset });
        };
        let read = |have| veneers::relocated(r, own, have, place, r.offset, self.kernel);
        match read(have) {
            Ok((fact, rule)) => {
                self.facts.push(fact);
                if let Some(rule) = rule {
                    self.count(rule, 4);
                }
                Ok(Ok(()))
            }
            Err(why) => match self.moved(own, have, r.offset).map(read) {
                Some(Ok((fact, _))) => {
                    self.facts.push(fact);
                    self.count(MOVED, 4);
                    Ok(Ok(()))
                }
                _ => Ok(Err(self.mismatch(r.offset, &why))),
            },
        }
    }

    /// For an access that erratum 843419 moved into a stub: the word that stands there.
    fn moved(&self, own: u32, found: u32, offset: u64) -> Option<u32> {
        let before = [1u64, 2, 3].map(|n| {
            let at = offset.checked_sub(n * insn::LEN)?;
            insn::at(self.run.bytes, at)
        });
        let place = self.run.address.wrapping_add(offset);
        veneers::moved_access(own, found, place, before, self.kernel)
    }

    /// Compares a range without places and relocations.
    fn equal(&mut self, start: u64, end: u64) -> Compared {
        let mut at = start;
        loop {
            let pairs = self.expected(at, end).iter().zip(self.found(at, end));
            let Some((n, _)) = pairs.enumerate().find(|(_, (a, b))| a != b) else {
                return Ok(());
            };
            let differs = at + n as u64;
            let word = differs - differs % insn::LEN;
            let own = insn::at(self.code.bytes, word).filter(|_| word >= at);
            let moved = own
                .zip(insn::at(self.run.bytes, word))
                .is_some_and(|(own, have)| self.moved(own, have, word) == Some(own));
            if !moved {
                return Err(
                    self.mismatch(word, "no entry lists the place, and it is no relocation's")
                );
            }
            self.count(MOVED, 4);
            at = word + insn::LEN;
        }
    }

    /// Describes an instruction that differs outside all places.
    fn mismatch(&self, offset: u64, why: &str) -> Box<Mismatch> {
        let end = (offset + insn::LEN).min(self.code.bytes.len() as u64);
        let found = self.found(offset, end);
        let probed = insn::at(found, 0) == Some(PROBE);
        let short_branch =
            !probed && layout::is_realigned(self.code, self.run, self.places, self.kernel);
        let why = if probed {
            "a probe is set there, and no entry lists the place"
        } else if short_branch {
            "the running text is this code with other nops before its loops, because the function \
             is aligned otherwise there"
        } else {
            why
        };
        Box::new(Mismatch {
            offset,
            expected: self.expected(offset, end).to_vec(),
            found: found.to_vec(),
            why: why.to_owned(),
            probed,
            short_branch,
        })
    }

    /// Compares a place with its forms.
    fn place(&mut self, place: &'r Place<'r>) -> Compared {
        let (start, end) = (place.start, place.end());
        let found = self.found(start, end);
        let context = Context { function: self.run.address, start, kernel: self.kernel };
        let mut fits: Vec<Fit<'r>> = Vec::new();
        let mut nearest: Option<(usize, &Form<'_>, String)> = None;
        for form in &place.forms {
            match form.fits(found, context) {
                Ok(fit) => {
                    if !fits.iter().any(|f| f.facts == fit.facts) {
                        fits.push(fit);
                    }
                }
                Err(why) => {
                    let equal = form.bytes().iter().zip(found).filter(|(a, b)| a == b).count();
                    if nearest.as_ref().is_none_or(|(n, _, _)| *n <= equal) {
                        nearest = Some((equal, form, why));
                    }
                }
            }
        }
        if fits.iter().any(|f| f.confirmed) {
            // Whichever it is, what it teaches is true; the object's own form comes first.
            fits.retain(|f| f.confirmed);
            fits.truncate(1);
        }
        if place.live {
            self.live.push((start, place.len()));
        }
        let expected = self.expected(start, end);
        let refused = |expected: &[u8], why: String| {
            let probed = found.chunks_exact(4).any(|w| insn::at(w, 0) == Some(PROBE));
            Err(Box::new(Mismatch {
                offset: start,
                expected: expected.to_vec(),
                found: found.to_vec(),
                why,
                probed,
                short_branch: false,
            }))
        };
        if fits.len() > 1 {
            let why = format!(
                "several forms of the {} fit, and nothing tells which of the symbols is meant",
                place.what
            );
            return refused(expected, why);
        }
        if let Some(fit) = fits.pop() {
            self.take(fit, place.len());
            return Ok(());
        }
        match nearest {
            None => refused(expected, format!("the {} has no form", place.what)),
            Some((_, form, why)) => {
                let name = if form.rule.is_empty() { "the object's own" } else { form.rule };
                let why =
                    format!("no form of the {} fits: the nearest is {name}, but {why}", place.what);
                refused(&form.bytes(), why)
            }
        }
    }

    fn take(&mut self, fit: Fit<'r>, len: u64) {
        self.facts.extend(fit.facts);
        if !fit.rule.is_empty() {
            self.count(fit.rule, u32::try_from(len).unwrap_or(u32::MAX));
        }
        for rule in fit.more {
            self.count(rule, 4);
        }
    }

    fn count(&mut self, rule: &'static str, bytes: u32) {
        match self.rules.iter_mut().find(|r| r.rule == rule) {
            Some(count) => {
                count.places += 1;
                count.bytes += bytes;
            }
            None => self.rules.push(RuleCount { rule, places: 1, bytes }),
        }
    }

    /// Puts symbol values together.
    fn finish(mut self) -> RunMatch {
        match values::combine(&self.facts) {
            Ok((mut learned, mut partial)) => {
                learned.sort_by_key(|l| (l.offset, l.key));
                partial.sort_by_key(|p| (p.offset, p.key));
                self.rules.sort_by_key(|r| r.rule);
                RunMatch::Matched { learned, partial, rules: self.rules, live: self.live }
            }
            Err(Contradiction(offset)) => RunMatch::Refused(*self.mismatch(
                offset,
                "references to one symbol from several instructions do not fit together",
            )),
        }
    }
}

/// Rule for an access that was moved into a stub.
const MOVED: &str = "erratum 843419: access in a stub";
