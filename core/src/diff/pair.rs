// SPDX-License-Identifier: GPL-2.0-or-later
//! Which span of the post unit is which span of the pre unit.
//!
//! A name that stands once on each side decides. Names that the compiler numbers are told apart
//! by who refers to them and by what they hold. What is left is new, or a refusal where a wrong
//! guess would mix up two objects.

use std::collections::BTreeMap;

use object::elf::{SHF_WRITE, STB_LOCAL, STT_FILE};

use super::{DiffError, Objection, Targets, names};
use crate::unit::{SpanId, SpanKind, Target, Unit};

/// The pairing.
pub(super) struct Pairing {
    /// For each post span its pre span.
    pub(super) pairs: Vec<Option<SpanId>>,
    /// Objects that could not be told apart.
    pub(super) objections: Vec<Objection>,
    /// Pre spans that have a pair.
    taken: Vec<bool>,
}

impl Pairing {
    fn set(&mut self, post: SpanId, pre: SpanId) {
        if let Some(slot) = self.pairs.get_mut(post)
            && let Some(taken) = self.taken.get_mut(pre)
            && !std::mem::replace(taken, true)
        {
            *slot = Some(pre);
        }
    }

    fn is_taken(&self, pre: SpanId) -> bool {
        self.taken.get(pre).copied().unwrap_or(false)
    }
}

/// Functions or data, source file (if that counts), name.
type Key<'u> = (bool, u32, &'u str);
type Group<'u> = BTreeMap<Key<'u>, Vec<SpanId>>;

/// Pairs two units.
pub(super) fn pair(to_pre: &Targets<'_>, to_post: &Targets<'_>) -> Result<Pairing, DiffError> {
    let (pre, post) = (to_pre.unit, to_post.unit);
    let mut pairing = Pairing {
        pairs: vec![None; post.spans.len()],
        objections: Vec::new(),
        taken: vec![false; pre.spans.len()],
    };
    // Names as they are.
    let one = |_: &Unit, _: SpanId| 0;
    let (pre_names, post_names) =
        (groups(pre, |n| n, one, |_| true), groups(post, |n| n, one, |_| true));
    for (key, after) in &post_names {
        let before = pre_names.get(key).map(Vec::as_slice).unwrap_or_default();
        if let ([b], [a]) = (before, after.as_slice())
            && !is_numbered(pre, *b)
            && !names::is_compilers_constant(names::base(key.2))
        {
            pairing.set(*a, *b);
        }
    }
    // Numbered names and namesakes: by the name without its number. If the unit was joined from
    // several objects, namesakes of the same one of them come first.
    let (pre_files, post_files) = (files(pre), files(post));
    if pre_files.names.len() > 1 && pre_files.names == post_files.names {
        // Equal lists of names, though not equal indexes.
        let file = |unit: &Unit, id: SpanId| {
            if std::ptr::eq(unit, pre) { pre_files.of(unit, id) } else { post_files.of(unit, id) }
        };
        namesakes(to_pre, to_post, file, true, &mut pairing)?;
    }
    namesakes(to_pre, to_post, one, false, &mut pairing)?;
    Ok(pairing)
}

/// Pairs what is still alone; objects that cannot be told apart are an objection, unless there is
/// `more` to tell them apart by.
fn namesakes(
    to_pre: &Targets<'_>,
    to_post: &Targets<'_>,
    file: impl Fn(&Unit, SpanId) -> u32,
    more: bool,
    pairing: &mut Pairing,
) -> Result<(), DiffError> {
    let (pre, post) = (to_pre.unit, to_post.unit);
    let before = groups(pre, names::base, &file, |id| !pairing.is_taken(id));
    let after =
        groups(post, names::base, &file, |id| pairing.pairs.get(id).copied().flatten().is_none());
    let ambiguous = after
        .iter()
        .any(|(key, ids)| before.get(key).is_some_and(|other| other.len() > 1 || ids.len() > 1));
    let users = if ambiguous { Some((users(to_pre)?, users(to_post)?)) } else { None };
    for (key, after) in after {
        let before = before.get(&key).cloned().unwrap_or_default();
        match (&users, before.as_slice(), after.as_slice()) {
            (_, [], _) => {}
            _ if names::is_compilers_constant(key.2) => {
                by_content(pre, post, &before, &after, pairing)
            }
            (_, [b], [a]) => pairing.set(*a, *b),
            (Some((pre_users, post_users)), _, _) => {
                let sides = Sides { pre, post, pre_users, post_users };
                group(&sides, key.2, before, after, more, pairing);
            }
            (None, _, _) => {}
        }
    }
    Ok(())
}

/// The source files of a unit: their symbols' indexes and names, in order. What is local follows
/// its file's symbol.
struct Files<'u> {
    starts: Vec<u32>,
    names: Vec<&'u str>,
}

fn files(unit: &Unit) -> Files<'_> {
    let all = unit.symbols.iter().enumerate().filter(|(_, s)| s.kind == STT_FILE.0);
    let (starts, names) = all.map(|(index, s)| (index as u32, s.name.as_str())).unzip();
    Files { starts, names }
}

impl Files<'_> {
    /// The number of a local span's file, from 1; 0 for a global one.
    fn of(&self, unit: &Unit, id: SpanId) -> u32 {
        let symbol = unit.spans.get(id).and_then(|s| s.symbol);
        let local = symbol.filter(|index| {
            unit.symbols.get(*index as usize).is_some_and(|s| s.binding == STB_LOCAL.0)
        });
        local.map_or(0, |index| self.starts.partition_point(|start| *start < index) as u32)
    }
}

/// The `open` ones of the named functions and data objects, by what `key` makes of their names;
/// functions and data never pair.
fn groups<'u>(
    unit: &'u Unit,
    key: fn(&str) -> &str,
    file: impl Fn(&Unit, SpanId) -> u32,
    open: impl Fn(SpanId) -> bool,
) -> Group<'u> {
    let mut groups = Group::new();
    for (id, span) in unit.spans.iter().enumerate() {
        let function = span.kind == SpanKind::Function;
        if (function || span.kind == SpanKind::Data) && open(id) {
            let key = (function, file(unit, id), key(&span.name));
            groups.entry(key).or_default().push(id);
        }
    }
    groups
}

/// Whether a data object's name carries a number, so that equal names mean little.
fn is_numbered(unit: &Unit, id: SpanId) -> bool {
    unit.spans.get(id).is_some_and(|s| s.kind == SpanKind::Data && names::base(&s.name) != s.name)
}

/// For each span, the places that refer to it: function of the source and how many-eth reference
/// of that function.
type Users<'u> = Vec<Vec<(&'u str, usize)>>;

fn users<'u>(targets: &Targets<'u>) -> Result<Users<'u>, DiffError> {
    let unit = targets.unit;
    let mut users: Users<'u> = vec![Vec::new(); unit.spans.len()];
    for (id, span) in unit.spans.iter().enumerate() {
        if !matches!(span.kind, SpanKind::Function | SpanKind::Data | SpanKind::Anonymous) {
            continue;
        }
        let mut number = 0;
        targets.each(id, |target| {
            if let Target::Span { id: to, .. } = target
                && let Some(list) = users.get_mut(to)
            {
                list.push((names::root(&span.name), number));
            }
            number += 1;
        })?;
    }
    Ok(users)
}

struct Sides<'a> {
    pre: &'a Unit,
    post: &'a Unit,
    pre_users: &'a Users<'a>,
    post_users: &'a Users<'a>,
}

impl<'a> Sides<'a> {
    /// Which functions refer to it, how often, whatever the order.
    fn who(users: &Users<'a>, id: SpanId) -> Vec<&'a str> {
        let mut who: Vec<&str> =
            users.get(id).map(|u| u.iter().map(|(name, _)| *name).collect()).unwrap_or_default();
        who.sort_unstable();
        who.dedup();
        who
    }

    fn first_use(users: &Users<'a>, id: SpanId) -> Option<(&'a str, usize)> {
        users.get(id)?.first().copied()
    }

    /// What it holds: size, bytes (relocated ones as they are in the file), section.
    fn content(unit: &Unit, id: SpanId) -> (u64, &[u8], &str) {
        unit.spans.get(id).map_or((0, &[], ""), |span| {
            let section = unit.sections.get(span.section).map_or("", |s| s.name.as_str());
            (span.size, unit.bytes_of(span), names::base(section))
        })
    }

    /// Whether it matters which it is: it holds state, or pointers to it may be kept anywhere.
    fn has_identity(unit: &Unit, id: SpanId) -> bool {
        unit.spans.get(id).is_some_and(|span| {
            let section = unit.sections.get(span.section);
            span.kind == SpanKind::Function || section.is_some_and(|s| s.flags & SHF_WRITE.0 != 0)
        })
    }
}

/// Pairs objects that hold the same; the others stay alone.
fn by_content(pre: &Unit, post: &Unit, before: &[SpanId], after: &[SpanId], pairing: &mut Pairing) {
    let mut contents: BTreeMap<_, Vec<SpanId>> = BTreeMap::new();
    for x in before.iter().rev() {
        contents.entry(Sides::content(pre, *x)).or_default().push(*x);
    }
    for y in after {
        if let Some(x) = contents.get_mut(&Sides::content(post, *y)).and_then(Vec::pop) {
            pairing.set(*y, x);
        }
    }
}

/// Spans of both sides that have something in common.
#[derive(Default)]
struct Class {
    before: Vec<SpanId>,
    after: Vec<SpanId>,
}

/// Pairs namesakes: first those that only one on each side has both the same users and the same
/// contents, then by users alone, then in the order of use for mere bookkeeping.
fn group(
    sides: &Sides<'_>,
    name: &str,
    mut before: Vec<SpanId>,
    mut after: Vec<SpanId>,
    more: bool,
    pairing: &mut Pairing,
) {
    let bookkeeping = names::is_bookkeeping(name);
    // Same users and same contents, as many on both sides: in the order of use they are the
    // same, since equal code uses them in equal order.
    before.sort_by_key(|id| Sides::first_use(sides.pre_users, *id));
    after.sort_by_key(|id| Sides::first_use(sides.post_users, *id));
    let mut classes: BTreeMap<Vec<&str>, Class> = BTreeMap::new();
    for id in &before {
        classes.entry(Sides::who(sides.pre_users, *id)).or_default().before.push(*id);
    }
    for id in &after {
        classes.entry(Sides::who(sides.post_users, *id)).or_default().after.push(*id);
    }
    let mut left_post = Vec::new();
    for Class { before: b, after: a } in classes.into_values() {
        let alike = |x: &SpanId, y: &SpanId| {
            Sides::content(sides.pre, *x) == Sides::content(sides.post, *y)
        };
        let all_alike = b.len() == a.len() && b.iter().zip(&a).all(|(x, y)| alike(x, y));
        let single = b.len() == 1 && a.len() == 1;
        if all_alike || single || bookkeeping {
            for (x, y) in b.iter().zip(&a) {
                pairing.set(*y, *x);
            }
            left_post.extend(a.iter().skip(b.len()));
            continue;
        }
        // Contents that stand once on each side decide.
        let mut contents: BTreeMap<(u64, &[u8], &str), Class> = BTreeMap::new();
        for x in b {
            contents.entry(Sides::content(sides.pre, x)).or_default().before.push(x);
        }
        for y in a {
            contents.entry(Sides::content(sides.post, y)).or_default().after.push(y);
        }
        for class in contents.into_values() {
            match (class.before.as_slice(), class.after.as_slice()) {
                ([x], [y]) => pairing.set(*y, *x),
                _ => left_post.extend(class.after),
            }
        }
    }
    // One left on each side, whoever uses it now: it moved, into another function or a part.
    let left_pre: Vec<SpanId> = before.into_iter().filter(|id| !pairing.is_taken(*id)).collect();
    match (left_pre.as_slice(), left_post.as_slice()) {
        ([], _) | (_, []) => {}
        ([x], [y]) => pairing.set(*y, *x),
        _ if bookkeeping || more => {}
        _ => {
            let clones = left_pre.iter().all(|id| is_clone(sides.pre, *id));
            if clones && left_post.iter().all(|id| is_clone(sides.post, *id)) {
                same_numbers(sides, &left_pre, &left_post, pairing);
                return;
            }
            let matters = left_pre.iter().any(|id| Sides::has_identity(sides.pre, *id))
                || left_post.iter().any(|id| Sides::has_identity(sides.post, *id));
            // What can neither be written nor called has no identity that could be mixed up: it
            // counts as new.
            if matters {
                pairing.objections.push(Objection::new(
                    name,
                    format!(
                        "{} objects of this name before and {} after the patch cannot be told \
                         apart",
                        left_pre.len(),
                        left_post.len()
                    ),
                    "give the new one another name in the patch",
                ));
            }
        }
    }
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
fn same_numbers(sides: &Sides<'_>, before: &[SpanId], after: &[SpanId], pairing: &mut Pairing) {
    let name = |unit: &Unit, id: SpanId| unit.spans.get(id).map(|s| s.name.clone());
    for y in after {
        let wanted = name(sides.post, *y);
        let mut same = before.iter().filter(|x| name(sides.pre, **x) == wanted);
        if let (Some(x), None) = (same.next(), same.next()) {
            pairing.set(*y, *x);
        }
    }
}
