// SPDX-License-Identifier: GPL-2.0-or-later
//! Who refers to what in a unit, and what stands beside each reference: what tells namesakes apart.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::symbol_name;
use super::{DiffError, Targets, names};
use crate::unit::{Reloc, Span, SpanId, SpanKind, Target, Unit};

/// A reference: the `number`-th of a span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) by: SpanId,
    pub(super) number: usize,
}

/// The references of one unit.
pub(super) struct Uses<'u> {
    targets: &'u Targets<'u>,
    pub(super) unit: &'u Unit,
    /// For each span those that lead to it.
    to: Vec<Vec<Use>>,
    /// The only function or object of a name.
    only: BTreeMap<&'u str, Option<SpanId>>,
}

/// What an object holds: size, bytes, and what it refers to, each by what it is called or says.
pub(super) type Contents = (u64, Vec<u8>, String, Vec<(u64, u32, String)>);

impl<'u> Uses<'u> {
    pub(super) fn of(targets: &'u Targets<'u>) -> Result<Uses<'u>, DiffError> {
        let unit = targets.unit;
        let mut uses =
            Uses { targets, unit, to: vec![Vec::new(); unit.spans.len()], only: BTreeMap::new() };
        for (id, span) in unit.spans.iter().enumerate() {
            if !matches!(span.kind, SpanKind::Function | SpanKind::Data | SpanKind::Anonymous) {
                continue;
            }
            let mut number = 0;
            targets.each(id, |target| {
                if let Target::Span { id: to, .. } = target
                    && let Some(list) = uses.to.get_mut(to)
                {
                    list.push(Use { by: id, number });
                }
                number += 1;
            })?;
            let again = uses.only.contains_key(span.name.as_str());
            uses.only.insert(&span.name, (!again).then_some(id));
        }
        Ok(uses)
    }

    /// The references that lead to a span.
    pub(super) fn to(&self, id: SpanId) -> &[Use] {
        self.to.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The only span of that name that refers to anything.
    pub(super) fn only(&self, name: &str) -> Option<SpanId> {
        self.only.get(name).copied().flatten()
    }

    pub(super) fn span(&self, id: SpanId) -> Option<&'u Span> {
        self.unit.spans.get(id)
    }

    /// The function of the source that a span is of.
    pub(super) fn root(&self, id: SpanId) -> &'u str {
        self.span(id).map_or("", |span| names::root(&span.name))
    }

    /// Whether the compiler put a number behind a span's name.
    pub(super) fn is_numbered(&self, id: SpanId) -> bool {
        self.span(id).is_some_and(|span| names::base(&span.name) != span.name)
    }

    /// Which functions of the source refer to a span.
    pub(super) fn who(&self, id: SpanId) -> Vec<&'u str> {
        let mut who: Vec<&str> = self.to(id).iter().map(|one| self.root(one.by)).collect();
        who.sort_unstable();
        who.dedup();
        who
    }

    /// Where a span is used first, by the name of the function.
    pub(super) fn first(&self, id: SpanId) -> Option<(&'u str, usize)> {
        self.to(id).first().map(|one| (self.root(one.by), one.number))
    }

    /// What the references of a span lead to.
    pub(super) fn targets(&self, id: SpanId) -> Result<Vec<Target>, DiffError> {
        let mut all = Vec::new();
        self.targets.each(id, |target| all.push(target))?;
        Ok(all)
    }

    /// What the `number`-th reference of a span leads to.
    pub(super) fn target(&self, id: SpanId, number: usize) -> Result<Option<Target>, DiffError> {
        if self.span(id).is_some_and(|span| span.kind == SpanKind::Function) {
            return Ok(self.targets.of_code(id)?.get(number).copied());
        }
        Ok(self.targets.of_data(id).nth(number))
    }

    /// What an object holds; with `bytes` or without.
    pub(super) fn contents(&self, id: SpanId, bytes: bool) -> Result<Contents, DiffError> {
        let Some(span) = self.span(id) else { return Ok(Contents::default()) };
        let section = self.unit.sections.get(span.section).map_or("", |s| s.name.as_str());
        let held = if bytes { self.unit.bytes_of(span).to_vec() } else { Vec::new() };
        let relocs = self.unit.relocs_of(id).iter().zip(self.targets(id)?);
        let relocs = relocs.map(|(reloc, target)| {
            let at = reloc.offset.wrapping_sub(span.offset);
            (at, reloc.r_type, self.says(reloc, &target))
        });
        Ok((span.size, held, names::base(section).to_owned(), relocs.collect()))
    }

    /// What a reference leads to, without the numbers that compilers make up.
    fn says(&self, reloc: &Reloc, target: &Target) -> String {
        let (span, offset) = match target {
            Target::Span { id, offset } => (self.span(*id), *offset),
            _ => (None, reloc.addend),
        };
        let Some(span) = span else {
            return format!("{}{offset:+}", symbol_name(self.unit, reloc));
        };
        let from = usize::try_from(offset).ok();
        let rest = from.and_then(|from| self.unit.bytes_of(span).get(from..));
        match (span.kind, rest) {
            (SpanKind::String | SpanKind::Constant, Some(rest)) => format!("{rest:?}"),
            // Their names say where they are.
            (SpanKind::Anonymous | SpanKind::String | SpanKind::Constant, _) => {
                let section = self.unit.sections.get(span.section).map_or("", |s| s.name.as_str());
                names::base(section).to_owned()
            }
            _ => format!("{}{offset:+}", names::base(&span.name)),
        }
    }

    /// Beside what each of the `members` stands: the function of the source, and what the next
    /// reference in it to something else leads to; if `both`, also the one before.
    pub(super) fn neighbours<V>(
        &self,
        members: &BTreeMap<SpanId, V>,
        both: bool,
    ) -> Result<BTreeMap<Place<'u>, BTreeSet<SpanId>>, DiffError> {
        let users: BTreeSet<SpanId> =
            members.keys().flat_map(|id| self.to(*id)).map(|one| one.by).collect();
        let mut places = BTreeMap::new();
        for user in users {
            let targets = self.targets(user)?;
            let references = self.unit.relocs_of(user).iter().zip(&targets);
            self.beside(user, true, references.clone().rev(), members, &mut places);
            if both {
                self.beside(user, false, references, members, &mut places);
            }
        }
        Ok(places)
    }

    /// The references of a span in order: what each leads to, and if that is one of the `members`, it
    /// and the code right before the reference.
    pub(super) fn sequence<V>(
        &self,
        user: SpanId,
        members: &BTreeMap<SpanId, V>,
    ) -> Result<Vec<Reference<'u>>, DiffError> {
        let Some(span) = self.span(user) else { return Ok(Vec::new()) };
        let (bytes, targets) = (self.unit.bytes_of(span), self.targets(user)?);
        let references = self.unit.relocs_of(user).iter().zip(&targets);
        let reference = |(reloc, target): (&Reloc, &Target)| {
            let member = match target {
                Target::Span { id, .. } if members.contains_key(id) => {
                    let field = reloc.offset.wrapping_sub(span.offset);
                    let end = usize::try_from(field).unwrap_or(usize::MAX).min(bytes.len());
                    let before = bytes.get(end.saturating_sub(WINDOW)..end);
                    Some((*id, before.unwrap_or_default()))
                }
                _ => None,
            };
            (self.says(reloc, target), member)
        };
        Ok(references.map(reference).collect())
    }

    fn beside<'r, V>(
        &self,
        user: SpanId,
        behind: bool,
        references: impl Iterator<Item = (&'r Reloc, &'r Target)>,
        members: &BTreeMap<SpanId, V>,
        places: &mut BTreeMap<Place<'u>, BTreeSet<SpanId>>,
    ) {
        let mut other = None;
        for (reloc, target) in references {
            match target {
                Target::Span { id, .. } if members.contains_key(id) => {
                    let says = other.map(|(reloc, target)| self.says(reloc, target));
                    let place = (self.root(user), behind, says.unwrap_or_default());
                    places.entry(place).or_default().insert(*id);
                }
                _ => other = Some((reloc, target)),
            }
        }
    }
}

/// How much code before a reference tells it from others: what decides about it, mostly.
const WINDOW: usize = 24;

/// What a reference leads to, and the member with the code right before.
pub(super) type Reference<'u> = (String, Option<(SpanId, &'u [u8])>);

/// A function of the source, whether it is behind that something else is referred to, and what.
type Place<'u> = (&'u str, bool, String);
