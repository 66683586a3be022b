// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing object code with running text: the text is cut into places, which have several forms
//! ([`crate::rules`]), and the rest, which must be equal outside relocations.

use splice_plugin_abi::arch::{
    ArchError, Code, FunctionDiff, KernelView, Mismatch, RuleCount, RunCode, RunMatch, Verdict,
};

use crate::explain::{Fault, Found, Taught, explain};
use crate::insn::{self, J};
use crate::rules::{self, Form, Place};
use crate::{Riscv64, diff, disassemble};

/// Relocation type by which the object allows the linker to shorten code.
const RELAX: u32 = 51;

impl FunctionDiff for Riscv64 {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        diff::compare(pre, post)
    }

    fn runs_on(&self, code: &Code<'_>) -> bool {
        insn::runs_on(code.bytes)
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        if run.bytes.len() != pre.bytes.len() || !run.address.is_multiple_of(2) {
            let at = run.bytes.len().min(pre.bytes.len());
            let why = format!(
                "{} bytes at {:#x} were read for {}",
                run.bytes.len(),
                run.address,
                pre.bytes.len()
            );
            let fault = Fault { offset: at as u64, why };
            return Ok(RunMatch::Refused(mismatch(pre, run, (at, pre.bytes.len()), fault)));
        }
        let places = rules::places(pre)?;
        let mut matcher =
            Matcher { pre, run, kernel, taught: Taught::default(), rules: Vec::new() };
        let mut at = 0;
        for place in &places {
            for step in [matcher.plain(at, place.start)?, matcher.place(place)?] {
                if let Err(refused) = step {
                    return Ok(RunMatch::Refused(*refused));
                }
            }
            at = place.end();
        }
        if let Err(refused) = matcher.plain(at, pre.bytes.len() as u64)? {
            return Ok(RunMatch::Refused(*refused));
        }
        let live = places.iter().filter(|p| p.live).map(|p| (p.start, p.len)).collect();
        let Taught { mut learned, partial } = matcher.taught;
        learned.sort_by_key(|l| (l.offset, l.key));
        matcher.rules.sort_by_key(|r| r.rule);
        Ok(RunMatch::Matched { learned, partial, rules: matcher.rules, live })
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        disassemble::lines(bytes, address, count)
    }

    /// A few nops. Eight bytes and more before a function may be the tracer's.
    fn is_padding(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let Some(n) = insn::nop(rest) {
            rest = rest.get(n..).unwrap_or_default();
        }
        rest.is_empty() && bytes.len() < 8
    }
}

type Compared = Result<(), Box<Mismatch>>;

struct Matcher<'r> {
    pre: &'r Code<'r>,
    run: &'r RunCode<'r>,
    kernel: &'r dyn KernelView,
    taught: Taught,
    rules: Vec<RuleCount>,
}

/// Describes what is not explained, from the instruction at or before the fault.
fn mismatch(pre: &Code<'_>, run: &RunCode<'_>, range: (usize, usize), fault: Fault) -> Mismatch {
    let cut = |bytes: &[u8]| {
        let end = range.1.min(bytes.len());
        bytes.get(range.0..end).unwrap_or_default().to_vec()
    };
    let found = cut(run.bytes);
    let probed = found.starts_with(&insn::EBREAK.to_le_bytes())
        || found.starts_with(&insn::C_EBREAK.to_le_bytes());
    let relaxes = pre.relocs.iter().any(|r| r.r_type == RELAX);
    let mut why = fault.why;
    if probed {
        why = format!("a probe seems to be set there: {why}");
    } else if relaxes {
        why.push_str(" (the object allows the linker to shorten code; is this kernel relaxed?)");
    }
    Mismatch {
        offset: range.0 as u64,
        expected: cut(pre.bytes),
        found,
        why,
        probed,
        short_branch: false,
    }
}

impl Matcher<'_> {
    fn found(&self) -> Found<'_> {
        Found { bytes: self.run.bytes, address: self.run.address }
    }

    /// Bytes of the running text.
    fn text(&self, start: u64, end: u64) -> &[u8] {
        self.run.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Compares a range without places.
    fn plain(&mut self, start: u64, end: u64) -> Result<Compared, ArchError> {
        match explain(self.pre, (start, end), self.found())? {
            Ok(taught) => {
                self.take(taught);
                Ok(Ok(()))
            }
            Err(fault) => {
                let range = self.instruction(fault.offset);
                Ok(Err(Box::new(mismatch(self.pre, self.run, range, fault))))
            }
        }
    }

    /// Start and end of the instruction that covers an offset.
    fn instruction(&self, offset: u64) -> (usize, usize) {
        let offset = offset as usize;
        let mut at = 0;
        while let Some(len) = self.pre.bytes.get(at..).and_then(insn::len) {
            if at + len > offset {
                return (at, at + len);
            }
            at += len;
        }
        (offset, offset + 2)
    }

    fn take(&mut self, taught: Taught) {
        self.taught.learned.extend(taught.learned);
        self.taught.partial.extend(taught.partial);
    }

    fn place(&mut self, place: &Place<'_>) -> Result<Compared, ArchError> {
        let mut fits: Vec<(&'static str, Taught)> = Vec::new();
        let mut last = String::from("there is none");
        for form in &place.forms {
            match self.fits(place, form)? {
                Ok(fit) if fits.iter().any(|f| f.1 == fit.1) => {}
                Ok(fit) => fits.push(fit),
                Err(why) => last = why,
            }
        }
        let why = match (fits.pop(), fits.is_empty()) {
            (Some((rule, taught)), true) => {
                self.take(taught);
                self.count(rule, place.len);
                return Ok(Ok(()));
            }
            (Some(_), false) => format!("several forms of the {} fit", place.what),
            (None, _) => format!("no form of the {} fits: {last}", place.what),
        };
        let range = (place.start as usize, place.end() as usize);
        let fault = Fault { offset: place.start, why };
        Ok(Err(Box::new(mismatch(self.pre, self.run, range, fault))))
    }

    /// Whether the text has that form: the rule's name, and what it tells.
    fn fits(
        &self,
        place: &Place<'_>,
        form: &Form<'_>,
    ) -> Result<Result<(&'static str, Taught), String>, ArchError> {
        let (start, end) = (place.start, place.end());
        let text = self.text(start, end);
        let address = self.run.address.wrapping_add(start);
        let same = |bytes: &[u8], rule: &'static str| match text == bytes {
            true => Ok((rule, Taught::default())),
            false => Err(format!("these are not the bytes of \"{rule}\"")),
        };
        Ok(match form {
            Form::Own => match explain(self.pre, (start, end), self.found())? {
                Ok(taught) => Ok(("", taught)),
                Err(fault) => Err(fault.why),
            },
            Form::Bytes(rule, bytes) => same(bytes, rule),
            Form::Jump(rule, target) => {
                let distance = target.wrapping_sub(start);
                let word = insn::put(J, 0x6f, distance);
                if insn::get(J, word) as u64 == distance {
                    same(&(word as u32).to_le_bytes(), rule)
                } else {
                    Err("its target is out of range".into())
                }
            }
            Form::Call(rule, bytes, at, register) => {
                self.call(text, address, bytes, *at, *register).map(|()| (*rule, Taught::default()))
            }
            Form::Code(rule, code) => {
                let range = (0, code.bytes.len() as u64);
                match explain(code, range, Found { bytes: text, address })? {
                    Ok(mut taught) => {
                        // Offsets count from the function.
                        taught.learned.iter_mut().for_each(|l| l.offset += start);
                        taught.partial.iter_mut().for_each(|p| p.offset += start);
                        Ok((*rule, taught))
                    }
                    Err(fault) => Err(fault.why),
                }
            }
        })
    }

    /// Whether `text` is `bytes` but for a far call at `at` into kernel or module text.
    fn call(
        &self,
        text: &[u8],
        address: u64,
        bytes: &[u8],
        at: usize,
        register: u32,
    ) -> Result<(), String> {
        let rest = |all: &[u8]| {
            let mut rest = all.get(..at).unwrap_or_default().to_vec();
            rest.extend(all.get(at + 8..).unwrap_or_default());
            rest
        };
        let words = insn::at(text, at as u64).zip(insn::at(text, at as u64 + 4));
        let Some((auipc, jalr)) = words else { return Err("it is too short".into()) };
        if rest(text) != rest(bytes) || !insn::is_far_jump(auipc, jalr, register, register) {
            return Err("it is no call of the tracer".into());
        }
        let place = address.wrapping_add(at as u64);
        let target = place.wrapping_add_signed(insn::far(auipc, jalr, insn::I));
        match self.kernel.is_text(target) || self.kernel.is_function(target) {
            true => Ok(()),
            false => Err(format!("{target:#x} is not in kernel or module text")),
        }
    }

    fn count(&mut self, rule: &'static str, bytes: u64) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if rule.is_empty() {
            return;
        }
        match self.rules.iter_mut().find(|r| r.rule == rule) {
            Some(count) => {
                count.places += 1;
                count.bytes += bytes;
            }
            None => self.rules.push(RuleCount { rule, places: 1, bytes }),
        }
    }
}
