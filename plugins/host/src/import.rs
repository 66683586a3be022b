// SPDX-License-Identifier: GPL-2.0-or-later
//! A loaded plugin as the engine's traits.
//!
//! Constant answers were taken once ([`Facts`]); every other call goes to the plugin with whole
//! functions. Where a trait's method cannot fail and the plugin panics, the answer is the careful
//! one (no padding, no trampoline, all of a function busy), and from then on every method that
//! can fail does: a plugin that has panicked is not believed again.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use abi_stable::std_types::{RResult, RSlice, RSliceMut, RStr};
use splice_core::arch::{
    Arch, ArchError, Argument, Code, Difference, FlatImage, FunctionDiff, KernelView, Learned,
    Mismatch, NeverQuiescent, NoRoom, Partial, RelocInfo, RelocationFixup, RuleCount, RunCode,
    RunMatch, Settled, Site, StackSafety, StackWord, Template, TrampolineEncoder, Uleb128, Verdict,
};
use splice_core::unit::SpecialSection;
use splice_plugin_abi::convert;
use splice_plugin_abi::v1::{
    AddedV1Ref, Answer, ArgumentV1, CodeV1, FAILURE_ENTRY, FAILURE_OUTSIDE, FAILURE_PANIC,
    FAILURE_RANGE, FAILURE_UNDECODABLE, FAILURE_UNKNOWN_RELOCATION, FailureV1, LinkingV1Ref,
    PluginV1Ref, RangeV1, RunCodeV1, RunMatchV1, SettledV1, ULEB128_SET, ULEB128_SUB, VerdictV1,
};

use crate::error::one_line;
use crate::facts::{Facts, keep};
use crate::kernel;

/// More names of rules than any backend has; they are kept for ever.
const MOST_RULES: usize = 1024;

/// What a plugin exports: its entries, and those that came later if it has them.
pub(crate) struct Tables {
    pub(crate) entries: PluginV1Ref,
    pub(crate) added: Option<AddedV1Ref>,
    pub(crate) linking: Option<LinkingV1Ref>,
}

/// A loaded plugin.
pub(crate) struct Imported {
    facts: Facts,
    entries: PluginV1Ref,
    /// Those that came later, if it has them.
    added: Option<AddedV1Ref>,
    linking: Option<LinkingV1Ref>,
    /// What the first panic said.
    panic: OnceLock<String>,
    rules: Mutex<BTreeSet<&'static str>>,
}

impl Imported {
    pub(crate) fn new(facts: Facts, tables: Tables) -> Imported {
        let Tables { entries, added, linking } = tables;
        let (panic, rules) = (OnceLock::new(), Mutex::default());
        Imported { facts, entries, added, linking, panic, rules }
    }

    pub(crate) fn relocations(&self) -> &'static [RelocInfo] {
        self.facts.relocations
    }

    fn nonsense(&self, what: impl Into<String>) -> ArchError {
        ArchError::Nonsense { arch: self.facts.name.into(), what: what.into() }
    }

    /// The plugin's answer, unless it has panicked, now or before.
    fn believe<T>(&self, answer: Answer<T>) -> Result<T, ArchError> {
        let failure = match answer {
            RResult::ROk(value) => match self.panic.get() {
                None => return Ok(value),
                Some(why) => return Err(self.panicked(why)),
            },
            RResult::RErr(failure) => failure,
        };
        Err(self.error(&failure))
    }

    /// The answer of an entry that older plugins have not, where it cannot fail.
    fn careful<T>(&self, answer: Option<Answer<T>>) -> Option<T> {
        self.believe(answer?).ok()
    }

    fn panicked(&self, why: &str) -> ArchError {
        ArchError::Panicked { arch: self.facts.name.into(), why: why.to_owned() }
    }

    fn error(&self, failure: &FailureV1) -> ArchError {
        let name = || one_line(&failure.name);
        let offset = failure.offset;
        match failure.kind {
            FAILURE_UNDECODABLE => ArchError::Undecodable { name: name(), offset },
            FAILURE_UNKNOWN_RELOCATION => {
                ArchError::UnknownRelocation { name: name(), offset, r_type: failure.r_type }
            }
            FAILURE_RANGE => {
                let known = self.facts.relocations.iter().find(|r| r.name == failure.name.as_str());
                let reloc = known.map_or("of the plugin", |r| r.name);
                ArchError::Range { reloc, value: failure.value }
            }
            FAILURE_OUTSIDE => ArchError::Outside { name: name(), offset },
            FAILURE_ENTRY => ArchError::Entry {
                section: one_line(&failure.section),
                name: name(),
                offset,
                why: one_line(&failure.text),
            },
            FAILURE_PANIC => {
                let why = self.panic.get_or_init(|| one_line(&failure.text));
                self.panicked(why)
            }
            kind => self.nonsense(format!("failure {kind}: {}", one_line(&failure.text))),
        }
    }

    fn with_code<R>(
        &self,
        code: &Code<'_>,
        f: impl FnOnce(&CodeV1<'_>) -> Result<R, ArchError>,
    ) -> Result<R, ArchError> {
        convert::lower(&[code], |codes| codes.first().map(f))
            .flatten()
            .unwrap_or_else(|| Err(self.nonsense("no code to hand over")))
    }

    fn with_codes<R>(
        &self,
        pre: &Code<'_>,
        post: &Code<'_>,
        f: impl FnOnce(&CodeV1<'_>, &CodeV1<'_>) -> Result<R, ArchError>,
    ) -> Result<R, ArchError> {
        let answer = convert::lower(&[pre, post], |codes| match codes {
            [pre, post] => Some(f(pre, post)),
            _ => None,
        });
        answer.flatten().unwrap_or_else(|| Err(self.nonsense("no code to hand over")))
    }

    fn rule(&self, name: &str) -> Result<&'static str, ArchError> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rules.get(name) {
            return Ok(known);
        }
        if rules.len() >= MOST_RULES {
            return Err(self.nonsense(format!("more than {MOST_RULES} names of rules")));
        }
        let kept = keep(&one_line(name));
        rules.insert(kept);
        Ok(kept)
    }

    fn run_match(&self, answer: RunMatchV1) -> Result<RunMatch, ArchError> {
        Ok(match answer {
            RunMatchV1::Matched(m) => {
                let rule = |r: &splice_plugin_abi::v1::RuleCountV1| {
                    Ok(RuleCount { rule: self.rule(&r.rule)?, places: r.places, bytes: r.bytes })
                };
                RunMatch::Matched {
                    learned: m
                        .learned
                        .iter()
                        .map(|l| Learned { key: l.key, value: l.value, offset: l.offset })
                        .collect(),
                    partial: m
                        .partial
                        .iter()
                        .map(|p| Partial {
                            key: p.key,
                            bias: p.bias,
                            known: p.known,
                            value: p.value,
                            offset: p.offset,
                        })
                        .collect(),
                    rules: m.rules.iter().map(rule).collect::<Result<_, ArchError>>()?,
                    live: m.live.iter().map(|r| (r.start, r.len)).collect(),
                }
            }
            RunMatchV1::Refused(m) => RunMatch::Refused(Mismatch {
                offset: m.offset,
                expected: m.expected.into(),
                found: m.found.into(),
                why: one_line(&m.why),
                probed: m.probed,
                short_branch: m.short_branch,
            }),
        })
    }
}

impl Arch for Imported {
    fn name(&self) -> &'static str {
        self.facts.name
    }
    fn e_machine(&self) -> u16 {
        self.facts.e_machine
    }
    fn kernel_arch(&self) -> &'static str {
        self.facts.kernel_arch
    }
    fn source_arch(&self) -> &'static str {
        self.facts.source_arch
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        self.facts.cross_prefixes
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        self.facts.special_sections
    }
    fn replaces_by_nothing(&self, section: &str, entry: &[u8]) -> bool {
        let ask = self.added.map(|added| added.replaces_by_nothing());
        let (section, entry) = (RStr::from_str(section), RSlice::from_slice(entry));
        self.careful(ask.map(|ask| ask(section, entry))).unwrap_or(false)
    }
    fn boot_payload<'i>(&self, image: &'i [u8]) -> Option<&'i [u8]> {
        let ask = self.added.map(|added| added.boot_payload());
        let range = self.careful(ask.map(|ask| ask(RSlice::from_slice(image))))?.into_option()?;
        let start = usize::try_from(range.start).ok()?;
        image.get(start..start.checked_add(usize::try_from(range.len).ok()?)?)
    }
    fn flat_image(&self, image: &[u8]) -> Option<FlatImage> {
        let ask = self.added.map(|added| added.flat_image());
        let flat = self.careful(ask.map(|ask| ask(RSlice::from_slice(image))))?.into_option()?;
        Some(FlatImage { relative: flat.relative, address: flat.address.into() })
    }
    fn diff(&self) -> &dyn FunctionDiff {
        self
    }
    fn reloc(&self) -> &dyn RelocationFixup {
        self
    }
    fn trampoline(&self) -> &dyn TrampolineEncoder {
        self
    }
    fn stack(&self) -> &dyn StackSafety {
        self
    }
}

impl FunctionDiff for Imported {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        let compare = self.entries.compare();
        Ok(match self.with_codes(pre, post, |pre, post| self.believe(compare(pre, post)))? {
            VerdictV1::Same => Verdict::Same,
            VerdictV1::Changed(d) => Verdict::Changed(Difference {
                pre_offset: d.pre_offset,
                post_offset: d.post_offset,
                pre: one_line(&d.pre),
                post: one_line(&d.post),
            }),
            VerdictV1::CannotJudge(why) => Verdict::CannotJudge(one_line(&why)),
        })
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        view: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        let run = RunCodeV1 { address: run.address, bytes: RSlice::from_slice(run.bytes) };
        let answer = self.with_code(pre, |pre| {
            kernel::lend(view, |kernel| {
                self.believe(self.entries.match_running()(pre, &run, kernel))
            })
        })?;
        self.run_match(answer)
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        let lines = self.entries.disassemble()(RSlice::from_slice(bytes), address, count as u64);
        match self.believe(lines) {
            Ok(lines) => lines.iter().take(count).map(|l| one_line(l)).collect(),
            Err(e) => vec![format!("({e})")],
        }
    }

    fn arguments(
        &self,
        pre: &Code<'_>,
        post: &Code<'_>,
    ) -> Result<Option<Vec<Argument>>, ArchError> {
        let Some(ask) = self.added.map(|added| added.arguments()) else { return Ok(None) };
        let found = self.with_codes(pre, post, |pre, post| self.believe(ask(pre, post)))?;
        let raise = |a: &ArgumentV1| Argument {
            offset: a.offset,
            pre: a.pre,
            post: a.post,
            previous: a.previous.into(),
        };
        Ok(found.into_option().map(|all| all.iter().map(raise).collect()))
    }

    fn runs_on(&self, code: &Code<'_>) -> bool {
        let Some(ask) = self.added.map(|added| added.runs_on()) else { return true };
        self.with_code(code, |code| self.believe(ask(code))).unwrap_or(true)
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        self.believe(self.entries.is_padding()(RSlice::from_slice(bytes))).unwrap_or(false)
    }
}

impl RelocationFixup for Imported {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        let table = self.facts.relocations;
        table.get(table.binary_search_by_key(&r_type, |r| r.r_type).ok()?)
    }

    fn absolute64(&self) -> u32 {
        self.facts.absolute64
    }

    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        let offsets =
            self.with_code(code, |code| self.believe(self.entries.target_offsets()(code)))?;
        Ok(offsets.into())
    }

    fn uleb128(&self, r_type: u32) -> Option<Uleb128> {
        let ask = self.linking.map(|linking| linking.uleb128());
        // What is not known is refused by whoever has asked.
        match self.careful(ask.map(|ask| ask(r_type)))? {
            ULEB128_SET => Some(Uleb128::Set),
            ULEB128_SUB => Some(Uleb128::Sub),
            _ => None,
        }
    }

    fn padding(&self, at: u64, r_type: u32, addend: i64) -> Option<Vec<u8>> {
        let ask = self.linking.map(|linking| linking.padding());
        let bytes = self.careful(ask.map(|ask| ask(at, r_type, addend)))?.into_option()?;
        Some(bytes.into())
    }

    fn settled(&self, code: &Code<'_>) -> Result<Vec<Settled>, ArchError> {
        let Some(ask) = self.added.map(|added| added.settled()) else { return Ok(Vec::new()) };
        let found = self.with_code(code, |code| self.believe(ask(code)))?;
        let raise = |s: &SettledV1| Settled {
            offset: s.offset,
            r_type: s.r_type,
            target: s.target,
            addend: s.addend,
        };
        Ok(found.iter().map(raise).collect())
    }

    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError> {
        let field = RSliceMut::from_mut_slice(field);
        self.believe(self.entries.apply()(r_type, value, addend, place, field))
    }

    fn recover(
        &self,
        r_type: u32,
        addend: i64,
        place: u64,
        field: &[u8],
    ) -> Result<u64, ArchError> {
        let field = RSlice::from_slice(field);
        self.believe(self.entries.recover()(r_type, addend, place, field))
    }

    fn recovered_bits(&self, r_type: u32) -> u64 {
        let bits = &self.facts.recovered_bits;
        let found = bits.binary_search_by_key(&r_type, |(t, _)| *t).ok().and_then(|n| bits.get(n));
        found.map_or(u64::MAX, |(_, bits)| *bits)
    }
}

impl TrampolineEncoder for Imported {
    fn site(
        &self,
        pre: &Code<'_>,
        live: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        let live: Vec<RangeV1> =
            live.iter().map(|(start, len)| RangeV1 { start: *start, len: *len }).collect();
        let answer = self.with_code(pre, |pre| {
            self.believe(self.entries.site()(pre, RSlice::from_slice(&live), padding))
        })?;
        Ok(match answer {
            RResult::ROk(site) => Ok(Site { offset: site.start, len: site.len }),
            RResult::RErr(why) => Err(NoRoom(one_line(&why))),
        })
    }

    fn template(&self) -> Template {
        self.facts.template.clone()
    }

    fn recognise(&self, bytes: &[u8], address: u64) -> Option<u64> {
        let answer = self.entries.recognise()(RSlice::from_slice(bytes), address);
        self.believe(answer).ok().and_then(Into::into)
    }
}

impl StackSafety for Imported {
    fn word(&self) -> StackWord {
        self.facts.word
    }

    fn minimum_size(&self) -> u64 {
        self.facts.minimum_size
    }

    fn never_quiescent(&self) -> &'static [NeverQuiescent] {
        self.facts.never_quiescent
    }

    fn busy_range(&self, size: u64, borrowed: u64) -> (u64, u64) {
        match self.believe(self.entries.busy_range()(size, borrowed)) {
            Ok(range) => (range.start, range.len),
            Err(_) => (0, size.saturating_add(borrowed)),
        }
    }
}
