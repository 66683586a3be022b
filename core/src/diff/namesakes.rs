// SPDX-License-Identifier: GPL-2.0-or-later
//! Pairing objects and functions of one name (but for the number that the compiler gave them).
//!
//! In this order: the same reference of a function that is the same byte for byte; the same users,
//! and contents that stand once on each side; the same other reference behind it; the same place
//! in a function outside of what changed in it; what is left over on each side. Bias: what holds
//! state is refused if all of these leave a doubt, since two blocks of a function may have changed
//! places; bookkeeping of the kernel's macros is taken in the order of use.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::SHF_WRITE;

use super::data::LINES;
use super::pair::Pairing;
use super::uses::{Contents, Reference, Use, Uses};
use super::{DiffError, Objection, names};
use crate::unit::{SpanId, SpanKind, Target, Unit};

/// Whether an object says where in the source something stands: one that says something else is
/// another one.
pub(super) fn is_site(unit: &Unit, id: SpanId) -> bool {
    let section = unit.spans.get(id).and_then(|span| unit.sections.get(span.section));
    section.is_some_and(|section| LINES.contains(&section.name.as_str()))
}

/// Both units.
pub(super) struct Sides<'u> {
    pre: Uses<'u>,
    post: Uses<'u>,
    /// Spans of code that were compared byte for byte.
    alike: BTreeMap<(SpanId, SpanId), bool>,
}

/// Namesakes that are not paired yet, with what they hold.
#[derive(Default)]
struct Left {
    before: BTreeMap<SpanId, Contents>,
    after: BTreeMap<SpanId, Contents>,
}

/// Namesakes that have something in common.
#[derive(Default)]
struct Class {
    before: Vec<SpanId>,
    after: Vec<SpanId>,
}

impl<'u> Sides<'u> {
    pub(super) fn new(pre: Uses<'u>, post: Uses<'u>) -> Sides<'u> {
        Sides { pre, post, alike: BTreeMap::new() }
    }

    /// Pairs namesakes.
    pub(super) fn group(
        &mut self,
        name: &str,
        before: &[SpanId],
        after: &[SpanId],
        more: bool,
        pairing: &mut Pairing,
    ) -> Result<(), DiffError> {
        self.by_same_code(before, after, pairing)?;
        let mut left = self.left(before, after, pairing)?;
        self.by_users(&mut left, pairing);
        let bookkeeping = names::is_bookkeeping(name);
        self.by_neighbours(bookkeeping, &mut left, pairing)?;
        self.by_sequence(&mut left, pairing)?;
        if bookkeeping {
            self.in_order(&mut left, pairing);
        }
        self.leftover(name, &left, more, pairing);
        Ok(())
    }

    /// Pairs objects that hold the same; the others stay alone.
    pub(super) fn by_content(
        &self,
        before: &[SpanId],
        after: &[SpanId],
        pairing: &mut Pairing,
    ) -> Result<(), DiffError> {
        let mut contents: BTreeMap<_, Vec<SpanId>> = BTreeMap::new();
        for x in before.iter().rev() {
            contents.entry(self.pre.contents(*x, true)?).or_default().push(*x);
        }
        for y in after {
            let found = contents.get_mut(&self.post.contents(*y, true)?).and_then(Vec::pop);
            if let Some(x) = found {
                pairing.set(*y, x);
            }
        }
        Ok(())
    }

    fn left(
        &self,
        before: &[SpanId],
        after: &[SpanId],
        pairing: &Pairing,
    ) -> Result<Left, DiffError> {
        let mut left = Left::default();
        for x in before.iter().filter(|x| !pairing.is_taken(**x)) {
            left.before.insert(*x, self.pre.contents(*x, !is_site(self.pre.unit, *x))?);
        }
        for y in after.iter().filter(|y| !pairing.has(**y)) {
            left.after.insert(*y, self.post.contents(*y, !is_site(self.post.unit, *y))?);
        }
        Ok(left)
    }

    /// What a function that is the same byte for byte refers to at the same place is the same.
    fn by_same_code(
        &mut self,
        before: &[SpanId],
        after: &[SpanId],
        pairing: &mut Pairing,
    ) -> Result<(), DiffError> {
        let mut found: BTreeMap<SpanId, BTreeSet<SpanId>> = BTreeMap::new();
        for y in after {
            let uses: Vec<Use> = self.post.to(*y).to_vec();
            let mut partners = BTreeSet::new();
            for one in uses {
                partners.extend(self.partner(one)?.filter(|x| before.contains(x)));
            }
            if let (Some(x), 1) = (partners.first(), partners.len()) {
                found.entry(*x).or_default().insert(*y);
            }
        }
        for (x, all) in found {
            if let (Some(y), 1) = (all.first(), all.len())
                && self.say_the_same(x, *y)?
            {
                pairing.set(*y, x);
            }
        }
        Ok(())
    }

    /// Whether two objects are no sites, or sites that say the same.
    fn say_the_same(&self, x: SpanId, y: SpanId) -> Result<bool, DiffError> {
        let sites = is_site(self.pre.unit, x) || is_site(self.post.unit, y);
        Ok(!sites || self.pre.contents(x, false)? == self.post.contents(y, false)?)
    }

    /// What the reference leads to in the pre unit, if the code around it is the same.
    fn partner(&mut self, one: Use) -> Result<Option<SpanId>, DiffError> {
        let Some(span) = self.post.span(one.by) else { return Ok(None) };
        let (Some(other), Some(_)) = (self.pre.only(&span.name), self.post.only(&span.name)) else {
            return Ok(None);
        };
        let alike = *self.alike.entry((other, one.by)).or_insert_with(|| {
            let (pre, post) = (self.pre.unit, self.post.unit);
            pre.spans.get(other).is_some_and(|before| {
                before.kind == span.kind
                    && pre.bytes_of(before) == post.bytes_of(span)
                    && pre.relocs_of(other).len() == post.relocs_of(one.by).len()
            })
        });
        let target = if alike { self.pre.target(other, one.number)? } else { None };
        Ok(match target {
            Some(Target::Span { id, .. }) => Some(id),
            _ => None,
        })
    }

    /// Pairs those that are alone with the same users, or alone with the same users and contents.
    fn by_users(&self, left: &mut Left, pairing: &mut Pairing) {
        let mut classes: BTreeMap<Vec<&str>, Class> = BTreeMap::new();
        for x in left.before.keys() {
            classes.entry(self.pre.who(*x)).or_default().before.push(*x);
        }
        for y in left.after.keys() {
            classes.entry(self.post.who(*y)).or_default().after.push(*y);
        }
        for Class { before, after } in classes.into_values() {
            if let ([x], [y]) = (before.as_slice(), after.as_slice()) {
                left.pair(*x, *y, self, pairing);
                continue;
            }
            let mut contents: BTreeMap<Contents, Class> = BTreeMap::new();
            for x in before {
                let held = left.before.get(&x).cloned().unwrap_or_default();
                contents.entry(held).or_default().before.push(x);
            }
            for y in after {
                let held = left.after.get(&y).cloned().unwrap_or_default();
                contents.entry(held).or_default().after.push(y);
            }
            for class in contents.into_values() {
                if let ([x], [y]) = (class.before.as_slice(), class.after.as_slice()) {
                    left.pair(*x, *y, self, pairing);
                }
            }
        }
    }

    /// Pairs those that stand beside the same other reference, if no namesake on either side does.
    /// What holds state must nowhere stand beside one that a namesake does; for bookkeeping one sign
    /// is enough.
    fn by_neighbours(
        &self,
        bookkeeping: bool,
        left: &mut Left,
        pairing: &mut Pairing,
    ) -> Result<(), DiffError> {
        if left.before.is_empty() || left.after.is_empty() {
            return Ok(());
        }
        let before = self.pre.neighbours(&left.before, bookkeeping)?;
        let after = self.post.neighbours(&left.after, bookkeeping)?;
        let mut found: BTreeMap<SpanId, BTreeSet<SpanId>> = BTreeMap::new();
        let mut doubtful: BTreeSet<SpanId> = BTreeSet::new();
        for (place, x) in before {
            let y = after.get(&place);
            match (x.len(), x.first(), y.map_or(0, BTreeSet::len), y.and_then(BTreeSet::first)) {
                (_, _, 0, _) => {}
                (1, Some(x), 1, Some(y)) if left.before.get(x) == left.after.get(y) => {
                    found.entry(*y).or_default().insert(*x);
                }
                _ => doubtful.extend(x),
            }
        }
        let mut partners: BTreeMap<SpanId, Vec<SpanId>> = BTreeMap::new();
        for (y, all) in found {
            if let (Some(x), 1) = (all.first(), all.len())
                && (bookkeeping || !doubtful.contains(x))
            {
                partners.entry(*x).or_default().push(y);
            }
        }
        for (x, all) in partners {
            if let [y] = all.as_slice() {
                left.pair(x, *y, self, pairing);
            }
        }
        Ok(())
    }

    /// Pairs those that a function refers to outside of what changed in it: all its references to
    /// namesakes stand among equal ones at its start or its end, with equal code before them.
    fn by_sequence(&self, left: &mut Left, pairing: &mut Pairing) -> Result<(), DiffError> {
        if left.before.is_empty() {
            return Ok(());
        }
        let users: BTreeSet<SpanId> =
            left.after.keys().flat_map(|y| self.post.to(*y)).map(|one| one.by).collect();
        let mut found: BTreeMap<SpanId, BTreeSet<SpanId>> = BTreeMap::new();
        let mut back: BTreeMap<SpanId, BTreeSet<SpanId>> = BTreeMap::new();
        for user in users {
            let name = self.post.span(user).map_or("", |span| span.name.as_str());
            let (Some(other), Some(_)) = (self.pre.only(name), self.post.only(name)) else {
                continue;
            };
            let before = self.pre.sequence(other, &left.before)?;
            let after = self.post.sequence(user, &left.after)?;
            for (x, y) in outside_of_change(&before, &after).unwrap_or_default() {
                found.entry(x).or_default().insert(y);
                back.entry(y).or_default().insert(x);
            }
        }
        for (x, all) in found {
            if let (Some(y), 1) = (all.first(), all.len())
                && back.get(y).is_some_and(|all| all.len() == 1)
            {
                left.pair(x, *y, self, pairing);
            }
        }
        Ok(())
    }

    /// Pairs bookkeeping with the same users and contents: what has no number, then in the order of
    /// use.
    fn in_order(&self, left: &mut Left, pairing: &mut Pairing) {
        let mut classes: BTreeMap<(Vec<&str>, Contents), Class> = BTreeMap::new();
        for (x, held) in &left.before {
            classes.entry((self.pre.who(*x), held.clone())).or_default().before.push(*x);
        }
        for (y, held) in &left.after {
            classes.entry((self.post.who(*y), held.clone())).or_default().after.push(*y);
        }
        for Class { mut before, mut after } in classes.into_values() {
            before.sort_by_key(|id| (self.pre.is_numbered(*id), self.pre.first(*id)));
            after.sort_by_key(|id| (self.post.is_numbered(*id), self.post.first(*id)));
            for (x, y) in before.into_iter().zip(after) {
                left.pair(x, y, self, pairing);
            }
        }
    }

    /// One left on each side, whoever uses it now: it moved, into another function or a part.
    fn leftover(&self, name: &str, left: &Left, more: bool, pairing: &mut Pairing) {
        let (pre, post) = (self.pre.unit, self.post.unit);
        let before: Vec<SpanId> = left.before.keys().copied().collect();
        let after: Vec<SpanId> = left.after.keys().copied().collect();
        let sites = after.iter().any(|y| is_site(post, *y));
        match (before.as_slice(), after.as_slice()) {
            ([], _) | (_, []) => return,
            ([x], [y]) if !sites => return pairing.set(*y, *x),
            _ if sites || more || names::is_bookkeeping(name) => return,
            _ => {}
        }
        let clones = before.iter().all(|id| is_clone(pre, *id));
        if clones && after.iter().all(|id| is_clone(post, *id)) {
            return same_numbers((pre, post), &before, &after, pairing);
        }
        let matters = before.iter().any(|id| has_identity(pre, *id))
            || after.iter().any(|id| has_identity(post, *id));
        // What can neither be written nor called has no identity that could be mixed up: it
        // counts as new.
        if matters {
            pairing.objections.push(Objection::new(
                name,
                format!(
                    "{} objects of this name before and {} after the patch cannot be told apart",
                    before.len(),
                    after.len()
                ),
                "give the new one another name in the patch",
            ));
        }
    }
}

impl Left {
    /// Pairs two, unless they are sites that say different things.
    fn pair(&mut self, x: SpanId, y: SpanId, sides: &Sides<'_>, pairing: &mut Pairing) {
        let sites = is_site(sides.pre.unit, x) || is_site(sides.post.unit, y);
        if sites && self.before.get(&x) != self.after.get(&y) {
            return;
        }
        pairing.set(y, x);
        self.before.remove(&x);
        self.after.remove(&y);
    }
}

/// The members of two sequences that stand at the same place, unless one stands where the sequences
/// differ or behind other code.
fn outside_of_change(
    before: &[Reference<'_>],
    after: &[Reference<'_>],
) -> Option<Vec<(SpanId, SpanId)>> {
    let equal = |pair: &(&Reference<'_>, &Reference<'_>)| pair.0.0 == pair.1.0;
    let start = before.iter().zip(after).take_while(equal).count();
    let (x, y) = (before.get(start..)?, after.get(start..)?);
    let end = x.iter().rev().zip(y.iter().rev()).take_while(equal).count();
    let middle = |all: &[Reference<'_>]| {
        all.iter().take(all.len().saturating_sub(end)).any(|one| one.1.is_some())
    };
    if middle(x) || middle(y) {
        return None;
    }
    let mut pairs = Vec::new();
    let ends = x.iter().rev().zip(y.iter().rev()).take(end);
    for (x, y) in before.iter().zip(after).take(start).chain(ends) {
        match (x.1, y.1) {
            (None, None) => {}
            (Some((x, code)), Some((y, other))) if code == other => pairs.push((x, y)),
            _ => return None,
        }
    }
    Some(pairs)
}

/// Whether it matters which it is: it holds state, or pointers to it may be kept anywhere.
fn has_identity(unit: &Unit, id: SpanId) -> bool {
    unit.spans.get(id).is_some_and(|span| {
        let section = unit.sections.get(span.section);
        span.kind == SpanKind::Function || section.is_some_and(|s| s.flags & SHF_WRITE.0 != 0)
    })
}

/// Whether a function is one that the compiler made of another: only calls lead to it, and all of
/// them are in the unit.
fn is_clone(unit: &Unit, id: SpanId) -> bool {
    unit.spans
        .get(id)
        .is_some_and(|s| s.kind == SpanKind::Function && names::root(&s.name) != s.name)
}

/// Pairs clones by their whole names. Whichever is taken for which, the callers are compared
/// under it and those that call another one now are changed.
fn same_numbers(
    (pre, post): (&Unit, &Unit),
    before: &[SpanId],
    after: &[SpanId],
    pairing: &mut Pairing,
) {
    let name = |unit: &Unit, id: SpanId| unit.spans.get(id).map(|s| s.name.clone());
    for y in after {
        let wanted = name(post, *y);
        let mut same = before.iter().filter(|x| name(pre, **x) == wanted);
        if let (Some(x), None) = (same.next(), same.next()) {
            pairing.set(*y, *x);
        }
    }
}
