// SPDX-License-Identifier: GPL-2.0-or-later
//! Which span of the post unit is which span of the pre unit.
//!
//! A name that stands once on each side decides. Names that the compiler numbers are told apart
//! by who refers to them and by what they hold. What is left is new, or a refusal where a wrong
//! guess would mix up two objects.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::SHF_WRITE;

use super::{DiffError, Objection, names};
use crate::arch::{Arch, check};
use crate::unit::{Span, SpanId, SpanKind, Target, Unit};

/// The pairing.
pub(super) struct Pairing {
    /// For each post span its pre span.
    pub(super) pairs: Vec<Option<SpanId>>,
    /// Objects that could not be told apart.
    pub(super) objections: Vec<Objection>,
}

type Group = BTreeMap<(bool, String), Vec<SpanId>>;

/// Pairs two units.
pub(super) fn pair(arch: &dyn Arch, pre: &Unit, post: &Unit) -> Result<Pairing, DiffError> {
    let mut pairing = Pairing { pairs: vec![None; post.spans.len()], objections: Vec::new() };
    // Names as they are.
    let (pre_names, post_names) = (groups(pre, |s| &s.name), groups(post, |s| &s.name));
    let mut taken = BTreeSet::new();
    for (key, after) in &post_names {
        let before = pre_names.get(key).map(Vec::as_slice).unwrap_or_default();
        if let ([b], [a]) = (before, after.as_slice())
            && !is_numbered(pre, *b)
        {
            set(&mut pairing.pairs, *a, *b, &mut taken);
        }
    }
    // Numbered names and namesakes: by the name without its number.
    let open = |unit: &Unit, done: &dyn Fn(SpanId) -> bool| -> Group {
        groups(unit, |s| names::base(&s.name))
            .into_iter()
            .map(|(key, ids)| (key, ids.into_iter().filter(|id| !done(*id)).collect::<Vec<_>>()))
            .filter(|(_, ids)| !ids.is_empty())
            .collect()
    };
    let before = open(pre, &|id| taken.contains(&id));
    let after = open(post, &|id| pairing.pairs.get(id).copied().flatten().is_some());
    let ambiguous = after
        .iter()
        .any(|(key, ids)| before.get(key).is_some_and(|other| other.len() > 1 || ids.len() > 1));
    let users = if ambiguous { Some((users(arch, pre)?, users(arch, post)?)) } else { None };
    for (key, after) in after {
        let before = before.get(&key).cloned().unwrap_or_default();
        match (&users, before.as_slice(), after.as_slice()) {
            (_, [], _) => {}
            (_, [b], [a]) => set(&mut pairing.pairs, *a, *b, &mut taken),
            (Some((pre_users, post_users)), _, _) => {
                let sides = Sides { pre, post, pre_users, post_users };
                group(&sides, &key.1, before, after, &mut pairing, &mut taken);
            }
            (None, _, _) => {}
        }
    }
    Ok(pairing)
}

fn set(pairs: &mut [Option<SpanId>], post: SpanId, pre: SpanId, taken: &mut BTreeSet<SpanId>) {
    if let Some(slot) = pairs.get_mut(post)
        && taken.insert(pre)
    {
        *slot = Some(pre);
    }
}

/// Named functions and data objects by name; functions and data never pair.
fn groups<'a>(unit: &'a Unit, name: impl Fn(&'a Span) -> &'a str) -> Group {
    let mut groups = Group::new();
    for (id, span) in unit.spans.iter().enumerate() {
        let function = span.kind == SpanKind::Function;
        if function || span.kind == SpanKind::Data {
            groups.entry((function, name(span).to_owned())).or_default().push(id);
        }
    }
    groups
}

/// Whether a data object's name carries a number, so that equal names mean little.
fn is_numbered(unit: &Unit, id: SpanId) -> bool {
    unit.spans.get(id).is_some_and(|s| s.kind == SpanKind::Data && names::base(&s.name) != s.name)
}

/// For each data object, the places that refer to it: function (without numbers) and how
/// many-eth reference of that function.
type Users = BTreeMap<SpanId, Vec<(String, usize)>>;

fn users(arch: &dyn Arch, unit: &Unit) -> Result<Users, DiffError> {
    let mut users = Users::new();
    for (id, span) in unit.spans.iter().enumerate() {
        let targets = match span.kind {
            SpanKind::Function => targets(arch, unit, id)?,
            SpanKind::Data | SpanKind::Anonymous => {
                unit.relocs_of(id).iter().map(|r| unit.resolve(r.symbol, r.addend)).collect()
            }
            _ => continue,
        };
        for (number, target) in targets.into_iter().enumerate() {
            if let Target::Span { id: to, .. } = target {
                users.entry(to).or_default().push((names::base(&span.name).to_owned(), number));
            }
        }
    }
    Ok(users)
}

/// What a function's relocations lead to, in order.
pub(super) fn targets(arch: &dyn Arch, unit: &Unit, id: SpanId) -> Result<Vec<Target>, DiffError> {
    let offsets = unit
        .with_code(arch, id, |code| {
            let offsets = arch.reloc().target_offsets(code)?;
            check::target_offsets(arch, code, &offsets)?;
            Ok(offsets)
        })?
        .map_err(|source| DiffError::Arch { unit: unit.name.clone(), source })?;
    Ok(unit
        .relocs_of(id)
        .iter()
        .zip(offsets)
        .map(|(reloc, offset)| unit.resolve(reloc.symbol, offset))
        .collect())
}

struct Sides<'a> {
    pre: &'a Unit,
    post: &'a Unit,
    pre_users: &'a Users,
    post_users: &'a Users,
}

impl Sides<'_> {
    /// Which functions refer to it, how often, whatever the order.
    fn who(users: &Users, id: SpanId) -> Vec<&str> {
        let mut who: Vec<&str> = users
            .get(&id)
            .map(|u| u.iter().map(|(name, _)| name.as_str()).collect())
            .unwrap_or_default();
        who.sort_unstable();
        who.dedup();
        who
    }

    /// What it holds: size, bytes (relocated ones as they are in the file), section.
    fn content(unit: &Unit, id: SpanId) -> (u64, Vec<u8>, &str) {
        unit.spans.get(id).map_or((0, Vec::new(), ""), |span| {
            let section = unit.sections.get(span.section).map_or("", |s| s.name.as_str());
            (span.size, unit.bytes_of(span).to_vec(), names::base(section))
        })
    }

    fn writable(unit: &Unit, id: SpanId) -> bool {
        unit.spans
            .get(id)
            .and_then(|s| unit.sections.get(s.section))
            .is_some_and(|s| s.flags & SHF_WRITE.0 != 0)
    }
}

/// Pairs namesakes: first those that only one on each side has both the same users and the same
/// contents, then by users alone, then in the order of use for mere bookkeeping.
fn group(
    sides: &Sides<'_>,
    name: &str,
    mut before: Vec<SpanId>,
    mut after: Vec<SpanId>,
    pairing: &mut Pairing,
    taken: &mut BTreeSet<SpanId>,
) {
    let bookkeeping = names::is_bookkeeping(name);
    let who_pre = |id: SpanId| Sides::who(sides.pre_users, id);
    let who_post = |id: SpanId| Sides::who(sides.post_users, id);
    // Same users and same contents, as many on both sides: in the order of use they are the
    // same, since equal code uses them in equal order.
    let first_use = |users: &Users, id: SpanId| -> Option<(String, usize)> {
        users.get(&id).and_then(|u| u.first().cloned())
    };
    before.sort_by_key(|id| first_use(sides.pre_users, *id));
    after.sort_by_key(|id| first_use(sides.post_users, *id));
    let classes: BTreeSet<Vec<&str>> = after.iter().map(|id| who_post(*id)).collect();
    let mut paired_post = BTreeSet::new();
    for class in classes {
        let b: Vec<SpanId> = before.iter().copied().filter(|id| who_pre(*id) == class).collect();
        let a: Vec<SpanId> = after.iter().copied().filter(|id| who_post(*id) == class).collect();
        let alike = |x: &SpanId, y: &SpanId| {
            Sides::content(sides.pre, *x) == Sides::content(sides.post, *y)
        };
        let all_alike = b.len() == a.len() && b.iter().zip(&a).all(|(x, y)| alike(x, y));
        let single = b.len() == 1 && a.len() == 1;
        if all_alike || single || bookkeeping {
            for (x, y) in b.iter().zip(&a) {
                set(&mut pairing.pairs, *y, *x, taken);
                paired_post.insert(*y);
            }
            continue;
        }
        // Contents that stand once on each side decide.
        for y in &a {
            let mine = Sides::content(sides.post, *y);
            let same: Vec<&SpanId> =
                b.iter().filter(|x| Sides::content(sides.pre, **x) == mine).collect();
            let twins = a.iter().filter(|o| Sides::content(sides.post, **o) == mine).count();
            if let ([x], 1) = (same.as_slice(), twins) {
                set(&mut pairing.pairs, *y, **x, taken);
                paired_post.insert(*y);
            }
        }
    }
    // One left on each side, whoever uses it now: it moved, into another function or a part.
    let left_pre: Vec<SpanId> = before.into_iter().filter(|id| !taken.contains(id)).collect();
    let left_post: Vec<SpanId> = after.into_iter().filter(|id| !paired_post.contains(id)).collect();
    match (left_pre.as_slice(), left_post.as_slice()) {
        ([], _) | (_, []) => {}
        ([x], [y]) => set(&mut pairing.pairs, *y, *x, taken),
        _ if bookkeeping => {}
        _ => {
            let writable = left_pre.iter().any(|id| Sides::writable(sides.pre, *id))
                || left_post.iter().any(|id| Sides::writable(sides.post, *id));
            // What cannot be written has no state that could be mixed up: it counts as new.
            if writable {
                pairing.objections.push(Objection {
                    what: name.to_owned(),
                    why: format!(
                        "{} objects of this name before and {} after the patch cannot be told \
                         apart",
                        left_pre.len(),
                        left_post.len()
                    ),
                    way_out: "give the new one another name in the patch".into(),
                });
            }
        }
    }
}
