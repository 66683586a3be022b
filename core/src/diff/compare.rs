// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing spans under a pairing: functions, their entries, and what they refer to.

use std::borrow::Cow;
use std::collections::BTreeSet;

use object::elf::{SHF_ALLOC, SHF_EXECINSTR};

use crate::arch::{Arch, Argument, Verdict, check};
use crate::unit::{
    Reloc, Role, Section, Span, SpanId, SpanKind, Symbol, SymbolPlace, Target, Unit,
};

use super::lines::{self, Candidate};
use super::{DiffError, Reason, Targets};

/// How many tables without a name may be held against each other to judge one reference.
const MAX_TABLES: usize = 256;

/// Pairs of tables without a name that count as the same while one question is answered: what they
/// refer to was compared, or is being compared further out. One that differs ends the question, so
/// that no answer rests on a wrong pair.
pub(super) type Seen = BTreeSet<(SpanId, SpanId)>;

/// Two units and the pairing of their spans.
pub(super) struct Context<'a> {
    pub(super) arch: &'a dyn Arch,
    pub(super) pre: &'a Unit,
    pub(super) post: &'a Unit,
    pub(super) to_pre: &'a Targets<'a>,
    pub(super) to_post: &'a Targets<'a>,
    pairs: &'a [Option<SpanId>],
}

impl<'a> Context<'a> {
    pub(super) fn new(
        arch: &'a dyn Arch,
        to_pre: &'a Targets<'a>,
        to_post: &'a Targets<'a>,
        pairs: &'a [Option<SpanId>],
    ) -> Context<'a> {
        Context { arch, pre: to_pre.unit, post: to_post.unit, to_pre, to_post, pairs }
    }

    /// The pre span of a post span.
    pub(super) fn pair(&self, post: SpanId) -> Option<SpanId> {
        self.pairs.get(post).copied().flatten()
    }

    /// Why a function (or part) differs; empty if it does not, but for what is added to
    /// `candidates`.
    pub(super) fn function(
        &self,
        pre: SpanId,
        post: SpanId,
        candidates: &mut Vec<Candidate<'a>>,
    ) -> Result<Vec<Reason>, DiffError> {
        let name = self.post.spans.get(post).map_or("", |s| s.name.as_str());
        if let Some(reason) = self.code(name, pre, post)? {
            let found = self.candidates(pre, post, &reason)?;
            if found.is_empty() {
                return Ok(vec![reason]);
            }
            candidates.extend(found);
        }
        if let Some(reason) = self.references(name, pre, post)? {
            return Ok(vec![reason]);
        }
        Ok(self.entries(pre, post).into_iter().collect())
    }

    fn code(&self, name: &str, pre: SpanId, post: SpanId) -> Result<Option<Reason>, DiffError> {
        let (Some(a), Some(b)) = (self.pre.spans.get(pre), self.post.spans.get(post)) else {
            return Ok(None);
        };
        let places = |unit: &'a Unit, id: SpanId, span: &'a Span| {
            unit.relocs_of(id).iter().map(|r| (r.offset - span.offset, r.r_type))
        };
        if self.pre.bytes_of(a) == self.post.bytes_of(b)
            && places(self.pre, pre, a).eq(places(self.post, post, b))
        {
            return Ok(None);
        }
        let verdict = self
            .pre
            .with_code(self.arch, pre, |before| {
                self.post.with_code(self.arch, post, |after| {
                    let verdict = self.arch.diff().compare(before, after)?;
                    check::verdict(self.arch, before, after, &verdict)?;
                    Ok(verdict)
                })
            })??
            .map_err(|source| DiffError::Arch { unit: self.post.name.clone(), source })?;
        Ok(match verdict {
            Verdict::Same => None,
            Verdict::Changed(d) => Some(Reason::Code {
                name: name.to_owned(),
                offset: d.pre_offset,
                post_offset: d.post_offset,
                pre: d.pre,
                post: d.post,
                within: None,
            }),
            Verdict::CannotJudge(why) => Some(Reason::Code {
                name: name.to_owned(),
                offset: 0,
                post_offset: 0,
                pre: String::new(),
                post: why,
                within: None,
            }),
        })
    }

    /// The constants that may be line numbers, if they are all that differs in the code.
    fn candidates(
        &self,
        pre: SpanId,
        post: SpanId,
        otherwise: &Reason,
    ) -> Result<Vec<Candidate<'a>>, DiffError> {
        let found = self
            .pre
            .with_code(self.arch, pre, |before| {
                self.post.with_code(self.arch, post, |after| {
                    let found = self.arch.diff().arguments(before, after)?;
                    if let Some(found) = &found {
                        check::arguments(self.arch, before, after, found)?;
                    }
                    Ok(found)
                })
            })??
            .map_err(|source| DiffError::Arch { unit: self.post.name.clone(), source })?;
        let Some(found) = found else { return Ok(Vec::new()) };
        let start = self.pre.spans.get(pre).map_or(0, |s| s.offset);
        let relocs = self.pre.relocs_of(pre);
        let (to_pre, to_post) = (self.to_pre.of_code(pre)?, self.to_post.of_code(post)?);
        let candidate = |argument: &Argument| {
            let number = argument
                .previous
                .and_then(|field| relocs.iter().position(|r| r.offset - start == field));
            let name = self.pre.spans.get(pre).map_or("", |s| s.name.as_str());
            let target = |targets: &'a [Target]| number.and_then(|number| targets.get(number));
            Candidate {
                pre: argument.pre,
                post: argument.post,
                previous: lines::previous(self, name, target(to_pre), target(to_post)),
                otherwise: otherwise.clone(),
            }
        };
        Ok(found.iter().map(candidate).collect())
    }

    fn references(
        &self,
        name: &str,
        pre: SpanId,
        post: SpanId,
    ) -> Result<Option<Reason>, DiffError> {
        let (before, after) = (self.pre.relocs_of(pre), self.post.relocs_of(post));
        let (to_pre, to_post) = (self.to_pre.of_code(pre)?, self.to_post.of_code(post)?);
        let start = self.pre.spans.get(pre).map_or(0, |s| s.offset);
        for ((a, b), (x, y)) in before.iter().zip(after).zip(to_pre.iter().zip(to_post)) {
            if !self.same_target(a, x, b, y, &mut Seen::new()) {
                return Ok(Some(Reason::Refers {
                    name: name.to_owned(),
                    offset: a.offset.saturating_sub(start),
                    pre: describe(self.pre, a, x),
                    post: describe(self.post, b, y),
                    within: None,
                }));
            }
        }
        Ok(None)
    }

    /// Whether two references lead to the same thing.
    pub(super) fn same_target(
        &self,
        a: &Reloc,
        x: &Target,
        b: &Reloc,
        y: &Target,
        seen: &mut Seen,
    ) -> bool {
        match (x, y) {
            (Target::Undefined, Target::Undefined) => {
                a.addend == b.addend && symbol_name(self.pre, a) == symbol_name(self.post, b)
            }
            (Target::Absolute, Target::Absolute) => {
                let value =
                    |unit: &Unit, r: &Reloc| unit.symbols.get(r.symbol as usize).map(|s| s.value);
                a.addend == b.addend && value(self.pre, a) == value(self.post, b)
            }
            (Target::Span { id: pre, offset: from }, Target::Span { id: post, offset: to }) => {
                self.same_place(*pre, *from, *post, *to, seen)
            }
            (Target::Nowhere, Target::Nowhere) => {
                a.addend == b.addend && self.same_sections_named(a, b)
            }
            _ => false,
        }
    }

    /// Whether the sections that two references name are the same: all that can be said of an addend
    /// that holds more than a place in them. Code must be the same byte for byte, data must have the
    /// same objects at the same places.
    fn same_sections_named(&self, a: &Reloc, b: &Reloc) -> bool {
        fn named(unit: &Unit, reloc: &Reloc) -> Option<(usize, u64)> {
            let symbol = unit.symbols.get(reloc.symbol as usize)?;
            let SymbolPlace::Section(section) = symbol.place else { return None };
            Some((section, symbol.value))
        }
        let (Some((x, from)), Some((y, to))) = (named(self.pre, a), named(self.post, b)) else {
            return false;
        };
        let (Some(before), Some(after)) = (self.pre.sections.get(x), self.post.sections.get(y))
        else {
            return false;
        };
        let flags = before.flags & (SHF_ALLOC.0 | SHF_EXECINSTR.0);
        let known = from == to
            && before.name == after.name
            && flags == after.flags & (SHF_ALLOC.0 | SHF_EXECINSTR.0);
        if !known || flags & SHF_ALLOC.0 == 0 {
            return false;
        }
        if flags & SHF_EXECINSTR.0 != 0 {
            let relocs = |unit: &Unit, section: &Section| -> Vec<_> {
                let all = section.relocs.iter();
                all.map(|r| (r.offset, r.r_type, r.addend, symbol_name(unit, r).to_owned()))
                    .collect()
            };
            return before.data == after.data
                && relocs(self.pre, before) == relocs(self.post, after);
        }
        let (x, y) = (self.pre.spans_of(x), self.post.spans_of(y));
        !x.is_empty()
            && x.len() == y.len()
            && x.zip(y).all(|(pre, post)| {
                let place =
                    |unit: &Unit, id: SpanId| unit.spans.get(id).map(|s| (s.offset, s.size));
                self.pair(post) == Some(pre) && place(self.pre, pre) == place(self.post, post)
            })
    }

    fn same_place(&self, pre: SpanId, from: i64, post: SpanId, to: i64, seen: &mut Seen) -> bool {
        let (Some(a), Some(b)) = (self.pre.spans.get(pre), self.post.spans.get(post)) else {
            return false;
        };
        match (a.kind, b.kind) {
            (SpanKind::String, SpanKind::String) | (SpanKind::Constant, SpanKind::Constant) => {
                let rest = |unit: &'a Unit, span: &Span, offset: i64| {
                    let offset = usize::try_from(offset).ok()?;
                    unit.bytes_of(span).get(offset..)
                };
                let (x, y) = (rest(self.pre, a, from), rest(self.post, b, to));
                // A place outside it, its end when counting backwards, say, is a place of the whole.
                if x.is_none() && y.is_none() {
                    return from == to && self.pre.bytes_of(a) == self.post.bytes_of(b);
                }
                x.is_some() && x == y && (a.kind == SpanKind::String || from == to)
            }
            // Tables without a name are the same if they hold the same.
            (SpanKind::Anonymous, SpanKind::Anonymous) => {
                from == to && self.same_table(pre, post, seen)
            }
            _ => from == to && self.pair(post) == Some(pre),
        }
    }

    fn same_table(&self, pre: SpanId, post: SpanId, seen: &mut Seen) -> bool {
        // Tables may refer to one another in a circle, and each many times to the next.
        seen.contains(&(pre, post))
            || seen.len() < MAX_TABLES && {
                seen.insert((pre, post));
                self.same_contents(pre, post, seen)
            }
    }

    /// Whether two pieces of data hold the same bytes and refer to the same things.
    pub(super) fn same_contents(&self, pre: SpanId, post: SpanId, seen: &mut Seen) -> bool {
        let (Some(a), Some(b)) = (self.pre.spans.get(pre), self.post.spans.get(post)) else {
            return false;
        };
        a.size == b.size
            && self.pre.bytes_of(a) == self.post.bytes_of(b)
            && self.same_relocs(pre, post, seen)
    }

    /// Whether two pieces of data have the same relocations at the same places.
    pub(super) fn same_relocs(&self, pre: SpanId, post: SpanId, seen: &mut Seen) -> bool {
        let (Some(a), Some(b)) = (self.pre.spans.get(pre), self.post.spans.get(post)) else {
            return false;
        };
        let (x, y) = (self.pre.relocs_of(pre), self.post.relocs_of(post));
        if x.len() != y.len() {
            return false;
        }
        if x.is_empty() {
            return true;
        }
        let (Ok(to_x), Ok(to_y)) = (targets(self.to_pre, pre), targets(self.to_post, post)) else {
            return false;
        };
        x.iter().zip(y).zip(to_x.iter().zip(to_y.iter())).all(|((r, s), (to_r, to_s))| {
            r.offset.wrapping_sub(a.offset) == s.offset.wrapping_sub(b.offset)
                && r.r_type == s.r_type
                && match (to_r, to_s) {
                    // An entry's distance from itself to something else names itself.
                    (Target::Span { id: p, offset: from }, Target::Span { id: q, offset: to })
                        if (*p, *q) == (pre, post) =>
                    {
                        from == to
                    }
                    _ => self.same_target(r, to_r, s, to_s, seen),
                }
        })
    }

    /// Whether two sections hold the same bytes and refer to the same things.
    pub(super) fn same_sections(&self, pre: &Section, post: &Section) -> bool {
        let to = |unit: &Unit, r: &Reloc| unit.resolve(r.symbol, r.addend);
        pre.size == post.size
            && pre.data == post.data
            && pre.relocs.len() == post.relocs.len()
            && pre.relocs.iter().zip(&post.relocs).all(|(a, b)| {
                (a.offset, a.r_type) == (b.offset, b.r_type)
                    && self.same_target(a, &to(self.pre, a), b, &to(self.post, b), &mut Seen::new())
            })
    }

    /// Whether the entries about two functions differ.
    fn entries(&self, pre: SpanId, post: SpanId) -> Option<Reason> {
        let before = self.entry_list(self.pre, pre);
        let after = self.entry_list(self.post, post);
        let section = |unit: &'a Unit, id: SpanId| {
            unit.spans
                .get(id)
                .and_then(|s| unit.sections.get(s.section))
                .map_or("", |s| s.name.as_str())
        };
        if before.len() != after.len() {
            let odd = before
                .iter()
                .zip(&after)
                .find(|(x, y)| section(self.pre, x.1) != section(self.post, y.1))
                .map(|(x, _)| section(self.pre, x.1))
                .or_else(|| after.get(before.len()).map(|e| section(self.post, e.1)))
                .or_else(|| before.get(after.len()).map(|e| section(self.pre, e.1)))
                .unwrap_or_default();
            return Some(Reason::Entries { section: odd.to_owned() });
        }
        for ((at, x), (to, y)) in before.iter().zip(&after) {
            let name = section(self.pre, *x);
            if at != to || name != section(self.post, *y) || !self.same_entry(name, *x, *y) {
                return Some(Reason::Entries { section: name.to_owned() });
            }
        }
        None
    }

    /// Entries that say more than the code does: tables that run beside others (unwind tables)
    /// follow from it, and what the build's tools are told is gone from the kernel. In order of
    /// offset and section name: the sections' own order depends on who is first to use them.
    fn entry_list(&self, unit: &Unit, span: SpanId) -> Vec<(u64, SpanId)> {
        let mut entries: Vec<_> = unit
            .entries_of(span)
            .iter()
            .filter_map(|(at, id)| {
                let section = unit.spans.get(*id)?.section;
                let row = unit.special(section)?;
                let follows =
                    matches!(row.role, Role::Parallel { .. } | Role::Annotates | Role::Stays)
                        || self.has_parallel(row.name);
                let name = unit.sections.get(section)?.name.as_str();
                (!follows).then_some((*at, name, *id))
            })
            .collect();
        entries.sort_unstable();
        entries.into_iter().map(|(at, _, id)| (at, id)).collect()
    }

    fn has_parallel(&self, section: &str) -> bool {
        self.arch
            .special_sections()
            .iter()
            .any(|row| matches!(row.role, Role::Parallel { to } if to == section))
    }

    pub(super) fn same_entry(&self, section: &str, pre: SpanId, post: SpanId) -> bool {
        let (Some(a), Some(b)) = (self.pre.spans.get(pre), self.post.spans.get(post)) else {
            return false;
        };
        let (x, y) = (self.pre.bytes_of(a), self.post.bytes_of(b));
        let line = |at: usize| {
            let mut fields = lines::FIELDS.iter().filter(|(name, _, _)| *name == section);
            fields.any(|(_, from, len)| (*from..from + len).contains(&at) && from + len <= x.len())
        };
        let equal = || x.iter().zip(y).enumerate().all(|(at, (a, b))| a == b || line(at));
        x.len() == y.len() && equal() && self.same_relocs(pre, post, &mut Seen::new())
    }
}

/// What a span's relocations lead to; code without a name is code all the same.
fn targets<'t>(targets: &'t Targets<'_>, id: SpanId) -> Result<Cow<'t, [Target]>, DiffError> {
    let unit = targets.unit;
    if unit.spans.get(id).is_some_and(|span| unit.is_code(span)) {
        return targets.of_code(id).map(Cow::Borrowed);
    }
    Ok(Cow::Owned(targets.of_data(id).collect()))
}

pub(super) fn symbol_name<'u>(unit: &'u Unit, reloc: &Reloc) -> &'u str {
    unit.symbols.get(reloc.symbol as usize).map_or("", |s| s.name.as_str())
}

/// What a reference leads to, for a person.
pub(super) fn describe(unit: &Unit, reloc: &Reloc, target: &Target) -> String {
    match target {
        Target::Span { id, offset } => {
            let Some(span) = unit.spans.get(*id) else { return "nothing".into() };
            if span.kind == SpanKind::String {
                let from = usize::try_from(*offset).unwrap_or(0);
                let text = unit.bytes_of(span).get(from..).unwrap_or_default();
                let text = text.strip_suffix(&[0]).unwrap_or(text);
                return format!("{:?}", String::from_utf8_lossy(text));
            }
            match offset {
                0 => span.name.clone(),
                n => format!("{}{n:+#x}", span.name),
            }
        }
        _ => match (symbol_name(unit, reloc), unit.symbols.get(reloc.symbol as usize)) {
            ("", Some(Symbol { place: SymbolPlace::Section(section), .. })) => {
                let name = unit.sections.get(*section).map_or("", |s| s.name.as_str());
                format!("{name}{:+#x}", reloc.addend)
            }
            (name, _) => name.to_owned(),
        },
    }
}
