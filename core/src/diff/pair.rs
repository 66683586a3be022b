// SPDX-License-Identifier: GPL-2.0-or-later
//! Which span of the post unit is which span of the pre unit.
//!
//! A name that stands once on each side decides. Names that the compiler numbers are told apart
//! by who refers to them and by what they hold ([`namesakes`]). What is left is new, or a refusal
//! where a wrong guess would mix up two objects.

use std::collections::BTreeMap;

use object::elf::{STB_LOCAL, STT_FILE};

use super::namesakes::{self, Sides};
use super::uses::Uses;
use super::{DiffError, Objection, Targets, names};
use crate::unit::{SpanId, SpanKind, Unit};

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
    pub(super) fn set(&mut self, post: SpanId, pre: SpanId) {
        if let Some(slot) = self.pairs.get_mut(post)
            && let Some(taken) = self.taken.get_mut(pre)
            && !std::mem::replace(taken, true)
        {
            *slot = Some(pre);
        }
    }

    /// Whether a post span has a pair.
    pub(super) fn has(&self, post: SpanId) -> bool {
        self.pairs.get(post).copied().flatten().is_some()
    }

    pub(super) fn is_taken(&self, pre: SpanId) -> bool {
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
    // One compiler numbers all static variables of a name but the first.
    let (pre_bases, post_bases) =
        (groups(pre, names::base, one, |_| true), groups(post, names::base, one, |_| true));
    let many = |groups: &Group<'_>, key: &Key<'_>| {
        groups.get(&(key.0, key.1, names::base(key.2))).is_some_and(|all| all.len() > 1)
    };
    for (key, after) in &post_names {
        let before = pre_names.get(key).map(Vec::as_slice).unwrap_or_default();
        if let ([b], [a]) = (before, after.as_slice())
            && !is_numbered(pre, *b)
            && !(names::is_local_variable(key.2)
                && (many(&pre_bases, key) || many(&post_bases, key)))
            && !names::is_compilers_constant(names::base(key.2))
            && !namesakes::is_site(post, *a)
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
    let after = groups(post, names::base, &file, |id| !pairing.has(id));
    let mut sides = None;
    for (key, after) in after {
        let Some(before) = before.get(&key) else { continue };
        if let ([b], [a]) = (before.as_slice(), after.as_slice())
            && !names::is_compilers_constant(key.2)
            && !namesakes::is_site(post, *a)
        {
            pairing.set(*a, *b);
            continue;
        }
        let sides = match &mut sides {
            Some(sides) => sides,
            none => none.insert(Sides::new(Uses::of(to_pre)?, Uses::of(to_post)?)),
        };
        if names::is_compilers_constant(key.2) {
            sides.by_content(before, &after, pairing)?;
        } else {
            sides.group(key.2, before, &after, more, pairing)?;
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
