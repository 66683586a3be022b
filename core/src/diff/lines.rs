// SPDX-License-Identifier: GPL-2.0-or-later
//! Line numbers: a patch that only moves code within its source file changes nothing but these.
//!
//! They stand in tables (a bug entry), and as arguments of calls. That an argument is a line number
//! is concluded from what the call is given, never from what is called:
//!
//! - The argument before it is the name of a source file, equal before and after (`__FILE__,
//!   __LINE__`).
//! - Or a line that is known moved by just as much: one of the same function, and not far from it;
//!   or, if the argument before it is the function's name (`__func__, __LINE__`), the nearest ones on
//!   both sides of it.
//!
//! And all line numbers of a file must go together: a later line stays later. If any do not, none
//! of that file's is taken for one. What is ignored is listed with its reason.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Context;
use super::{Reason, names};
use crate::unit::{SpanId, SpanKind, Target, Unit};

/// A field that holds a line number: section, offset in the entry, length. `struct bug_entry`
/// of include/asm-generic/bug.h: address, file, line, flags.
pub(super) const FIELDS: &[(&str, usize, usize)] = &[("__bug_table", 8, 2)];

/// Nothing that is executed stands in the first lines of a source file; small constants are more
/// likely something else.
const FIRST: u64 = 8;
/// No source file of the kernel comes near that many lines.
const LAST: u64 = 1 << 20;
/// How far from each other two lines of one function may be to vouch for each other.
const NEAR: u64 = 256;

/// A constant that may be a line number.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'u> {
    pub(super) pre: u64,
    pub(super) post: u64,
    pub(super) previous: Previous<'u>,
    /// The reason that counts if it is none.
    pub(super) otherwise: Reason,
}

/// What the argument before a constant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Previous<'u> {
    /// The name of a source file, the same before and after.
    File(&'u [u8]),
    /// The name of the function, likewise.
    Function,
    /// Anything else.
    Other,
}

/// A line number of a table entry: the file's name, before, after.
pub(super) type Known<'u> = (&'u [u8], u64, u64);

/// What the argument before a constant is, from what it refers to on both sides in `function`.
pub(super) fn previous<'u>(
    context: &Context<'u>,
    function: &str,
    pre: Option<&Target>,
    post: Option<&Target>,
) -> Previous<'u> {
    let (Some(pre), Some(post)) = (pre, post) else { return Previous::Other };
    if let (Some(file), Some(other)) = (file(context.pre, pre), file(context.post, post)) {
        return if file == other { Previous::File(file) } else { Previous::Other };
    }
    // One compiler makes an object of the name, the other a string like any.
    let name = |unit: &'u Unit, target: &Target| {
        let Target::Span { id, offset: 0 } = target else { return None };
        let span = unit.spans.get(*id)?;
        let bytes = unit.bytes_of(span);
        let says = || bytes.strip_suffix(&[0]) == Some(names::root(function).as_bytes());
        let named = names::is_function_name(names::base(&span.name));
        (named || (span.kind == SpanKind::String && says())).then_some(bytes)
    };
    match (name(context.pre, pre), name(context.post, post)) {
        (Some(a), Some(b)) if a == b => Previous::Function,
        _ => Previous::Other,
    }
}

/// The name of a source file that a reference leads to, without the byte at its end.
fn file<'u>(unit: &'u Unit, target: &Target) -> Option<&'u [u8]> {
    let Target::Span { id, offset } = target else { return None };
    let span = unit.spans.get(*id).filter(|s| s.kind == SpanKind::String)?;
    let name = unit.bytes_of(span).get(usize::try_from(*offset).ok()?..)?.strip_suffix(&[0])?;
    let ending = name.rsplit(|b| *b == b'.').next()?;
    let plain = name.iter().all(|b| b.is_ascii_graphic() && *b != b'%');
    let source = [&b"c"[..], b"h", b"S", b"rs"].contains(&ending) && ending.len() + 1 < name.len();
    (plain && source).then_some(name)
}

/// The line numbers in the tables' entries about a function that is otherwise the same.
pub(super) fn of_entries<'u>(context: &Context<'u>, pre: SpanId, post: SpanId) -> Vec<Known<'u>> {
    let line = |unit: &'u Unit, id: SpanId| -> Option<(&'u [u8], u64)> {
        let span = unit.spans.get(id)?;
        let name = unit.sections.get(span.section)?.name.as_str();
        let (_, from, len) = FIELDS.iter().find(|(section, _, _)| *section == name)?;
        let field = unit.bytes_of(span).get(*from..from + len)?;
        let line = field.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        let mut targets = unit.relocs_of(id).iter().map(|r| unit.resolve(r.symbol, r.addend));
        Some((targets.find_map(|t| file(unit, &t))?, line))
    };
    let lines = |unit: &'u Unit, id| -> Vec<(&'u [u8], u64)> {
        unit.entries_of(id).iter().filter_map(|(_, entry)| line(unit, *entry)).collect()
    };
    let (before, after) = (lines(context.pre, pre), lines(context.post, post));
    before
        .iter()
        .zip(&after)
        .filter(|((file, _), (other, _))| before.len() == after.len() && file == other)
        .map(|((file, x), (_, y))| (*file, *x, *y))
        .collect()
}

/// Where the lines of each source file went.
#[derive(Debug, Default)]
pub(super) struct Lines<'u> {
    files: BTreeMap<&'u [u8], BTreeMap<u64, BTreeSet<u64>>>,
}

impl<'u> Lines<'u> {
    /// Adds what the entries about a function say.
    pub(super) fn know(&mut self, known: &[Known<'u>]) {
        for (file, pre, post) in known {
            self.files.entry(file).or_default().entry(*pre).or_default().insert(*post);
        }
    }

    /// Adds what stands behind a file's name.
    pub(super) fn suppose(&mut self, candidates: &[Candidate<'u>]) {
        for candidate in candidates {
            if let Previous::File(file) = candidate.previous {
                self.know(&[(file, candidate.pre, candidate.post)]);
            }
        }
    }

    /// Whether the constants of a function are line numbers, all of them, as far as this and the
    /// entries about the function tell.
    pub(super) fn are(&self, candidates: &[Candidate<'u>], known: &[Known<'u>]) -> bool {
        let mut vouching: Vec<Known<'u>> = known.to_vec();
        vouching.extend(candidates.iter().filter_map(|c| match c.previous {
            Previous::File(file) => Some((file, c.pre, c.post)),
            _ => None,
        }));
        let alike = vouching.iter().all(|(file, _, _)| self.agree(file));
        alike && candidates.iter().all(|c| self.is(c, &vouching))
    }

    fn is(&self, candidate: &Candidate<'u>, vouching: &[Known<'u>]) -> bool {
        let (pre, post) = (candidate.pre, candidate.post);
        let plausible = |line: u64| (FIRST..LAST).contains(&line);
        if !plausible(pre) || !plausible(post) {
            return false;
        }
        let moved_alike = |x: u64, y: u64| y.wrapping_sub(x) == post.wrapping_sub(pre);
        match candidate.previous {
            Previous::File(_) => return true,
            Previous::Function if self.lies_between(pre, moved_alike) => return true,
            _ => {}
        }
        let all_alike = vouching.iter().all(|(_, x, y)| moved_alike(*x, *y));
        all_alike && vouching.iter().any(|(_, x, _)| x.abs_diff(pre) <= NEAR)
    }

    /// Whether the nearest known lines before and behind a line moved alike, where all that is
    /// known is of one file.
    fn lies_between(&self, line: u64, moved_alike: impl Fn(u64, u64) -> bool) -> bool {
        let [(file, lines)] = self.files.iter().collect::<Vec<_>>()[..] else { return false };
        let alike = |found: Option<(&u64, &BTreeSet<u64>)>| {
            found.is_some_and(|(x, to)| to.iter().all(|y| moved_alike(*x, *y)))
        };
        self.agree(file)
            && alike(lines.range(..line).next_back())
            && alike(lines.range(line + 1..).next())
    }

    /// Whether all known lines of a file went to one place each, in their order.
    fn agree(&self, file: &[u8]) -> bool {
        let Some(lines) = self.files.get(file) else { return true };
        let mut last = None;
        lines.values().all(|to| {
            let next = to.iter().next().copied();
            let later = to.len() == 1 && last.is_none_or(|last| next > last);
            last = Some(next);
            later
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pre: u64, post: u64, previous: Previous<'static>) -> Candidate<'static> {
        Candidate { pre, post, previous, otherwise: Reason::New }
    }

    fn are(known: &[Known<'static>], own: &[Known<'static>], c: Candidate<'static>) -> bool {
        let mut lines = Lines::default();
        lines.know(known);
        lines.know(own);
        let all = [c];
        lines.suppose(&all);
        lines.are(&all, own)
    }

    const FILE: &[u8] = b"a.c";

    #[test]
    fn behind_a_file_a_constant_is_a_line_unless_others_contradict() {
        let c = || candidate(100, 102, Previous::File(FILE));
        assert!(are(&[], &[], c()));
        assert!(are(&[(FILE, 90, 90), (FILE, 110, 112)], &[], c()));
        assert!(are(&[(b"b.h", 100, 300)], &[], c()));
        for known in [(FILE, 100, 103), (FILE, 90, 105), (FILE, 110, 101), (FILE, 110, 102)] {
            assert!(!are(&[known], &[], c()), "{known:?}");
        }
        assert!(!are(&[], &[], candidate(3, 4, Previous::File(FILE))));
        assert!(!are(&[], &[], candidate(100, 1 << 30, Previous::File(FILE))));
    }

    #[test]
    fn any_other_constant_needs_a_line_of_its_function() {
        let c = || candidate(100, 102, Previous::Other);
        assert!(!are(&[], &[], c()));
        assert!(!are(&[(FILE, 90, 92), (FILE, 110, 112)], &[], c()));
        assert!(are(&[], &[(FILE, 90, 92)], c()));
        assert!(!are(&[], &[(FILE, 90, 91)], c()));
        assert!(!are(&[], &[(FILE, 90, 90)], c()));
        assert!(!are(&[], &[(FILE, 900, 902)], c()));
    }

    #[test]
    fn behind_the_functions_name_known_lines_on_both_sides_do() {
        let c = || candidate(100, 102, Previous::Function);
        assert!(!are(&[], &[], c()));
        assert!(are(&[(FILE, 10, 12), (FILE, 900, 902)], &[], c()));
        assert!(!are(&[(FILE, 10, 12)], &[], c()));
        assert!(!are(&[(FILE, 10, 10), (FILE, 900, 902)], &[], c()));
    }
}
