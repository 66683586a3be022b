// SPDX-License-Identifier: GPL-2.0-or-later
//! Which types changed in a way that objects of the running kernel did not.
//!
//! A type that is there only before or only after is no matter: nothing leads from one to the
//! other. Of a type that both builds have, what matters is where its members are. A member that
//! has a new name, or a number that has another type of the same width, is the same memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::layout::{Field, Key, Layout, Leaf};
use super::types::{Kind, TypeId, Types};
use super::{Budget, DebugError};
use crate::diff::{AcceptKind, Objection};

/// How many names are listed before the rest is only counted.
const LISTED: usize = 6;
/// Parts of names of enumerators that say how many there are and are no value of anything.
const COUNTS: &[&str] =
    &["MAX", "NUM", "NR", "LAST", "COUNT", "CNT", "END", "SIZE", "LEN", "LIMIT", "N"];

/// How a member differs. Offsets and sizes are in bits.
enum Change {
    Size { from: u64, to: u64 },
    New { path: String, at: u64, bits: u64, over: Over },
    Gone { path: String, at: u64, bits: u64 },
    Moved { path: String, from: u64, to: u64 },
    Resized { path: String, at: u64, from: u64, to: u64 },
    Retyped { path: String, at: u64 },
}

/// What running objects have where a new member is.
enum Over {
    Padding,
    Members,
    Nothing,
}

/// A type that differs.
struct Differing<'a> {
    key: Key<'a>,
    changes: Vec<Change>,
    /// Whether it is more than that something which it holds differs.
    own: bool,
}

/// Compares all types that both have.
pub(super) fn compare(pre: &Types<'_>, post: &Types<'_>) -> Result<Vec<Objection>, DebugError> {
    let (pre, post) = (Layout::new(pre)?, Layout::new(post)?);
    let count = pre.types.all.len().saturating_add(post.types.all.len());
    let mut budget = Budget::for_bytes(count.saturating_mul(16));
    let pairing = Pairing { pre: &pre, post: &post };
    let mut differing = Vec::new();
    let after = post.aggregates();
    for (key, before) in pre.aggregates() {
        let Some(after) = after.get(&key) else { continue };
        pairing.add(key, before, after.clone(), &mut differing, &mut budget)?;
    }
    let mut changes = Vec::new();
    if !differing.is_empty() {
        let changed: BTreeSet<Key<'_>> = differing.iter().map(|d| d.key).collect();
        let holders = Holders::new(&pre, &mut budget)?;
        for this in &differing {
            // What only follows from another's change is told there.
            if this.own || !holders.holds_any(this.key, &changed) {
                changes.push(objection(this, &holders));
            }
        }
    }
    enumerations(&pre, &post, &mut changes);
    changes.sort();
    changes.dedup();
    Ok(changes)
}

struct Pairing<'p, 'a> {
    pre: &'p Layout<'a>,
    post: &'p Layout<'a>,
}

impl<'a> Pairing<'_, 'a> {
    /// Compares the types of one name. There may be several of it: those that are alike on both
    /// sides need no partner; of the rest those of the same file belong together.
    fn add(
        &self,
        key: Key<'a>,
        before: Vec<TypeId>,
        mut after: Vec<TypeId>,
        differing: &mut Vec<Differing<'a>>,
        budget: &mut Budget,
    ) -> Result<(), DebugError> {
        let several = before.len() > 1 || after.len() > 1;
        let mut rest = Vec::new();
        let mut alike = BTreeSet::new();
        for pre in before {
            let mut found = false;
            for post in &after {
                let (changes, _) = self.changes(pre, *post, budget)?;
                if changes.is_empty() {
                    alike.insert(*post);
                    found = true;
                }
            }
            if !found {
                rest.push(pre);
            }
        }
        if several {
            after.retain(|post| !alike.contains(post));
        }
        for pre in rest {
            let file = self.pre.types.file(pre);
            let here = after.iter().position(|post| self.post.types.file(*post) == file);
            let Some(index) = here.or(if after.is_empty() { None } else { Some(0) }) else {
                continue;
            };
            let post = after.remove(index);
            let (changes, own) = self.changes(pre, post, budget)?;
            differing.push(Differing { key, changes, own });
        }
        Ok(())
    }

    /// How a struct or union differs, and whether that cannot be for what it holds.
    fn changes(
        &self,
        pre: TypeId,
        post: TypeId,
        budget: &mut Budget,
    ) -> Result<(Vec<Change>, bool), DebugError> {
        let (before, after) = (self.pre.fields(pre, budget)?, self.post.fields(post, budget)?);
        let mut changes = Vec::new();
        let mut own = false;
        let sizes =
            (self.pre.size(pre)?.saturating_mul(8), self.post.size(post)?.saturating_mul(8));
        if sizes.0 != sizes.1 {
            changes.push(Change::Size { from: sizes.0, to: sizes.1 });
        }
        // Most are as they were, and in the same order.
        let same_names =
            before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| a.path == b.path);
        if same_names {
            for (a, b) in before.iter().zip(&after) {
                own |= self.field(a, b, &mut changes, budget)?;
            }
            return Ok((changes, own));
        }
        let named: BTreeMap<&str, &Field<'_>> =
            after.iter().map(|field| (&*field.path, field)).collect();
        let mut kept = BTreeSet::new();
        let mut gone = Vec::new();
        let mut displaced = Vec::new();
        for a in &before {
            match named.get(&*a.path) {
                Some(b) => {
                    kept.insert(&*b.path);
                    if a.at != b.at {
                        displaced.push(a);
                    }
                    own |= self.field(a, b, &mut changes, budget)?;
                }
                None => gone.push(a),
            }
        }
        let new: Vec<&Field<'_>> = after.iter().filter(|b| !kept.contains(&*b.path)).collect();
        let (old, now) = (self.pre.leaves(pre, budget)?, self.post.leaves(post, budget)?);
        for a in gone {
            let leaves = self.pre.leaves_of(a, budget)?;
            if !leaves.iter().all(|leaf| now.binary_search(leaf).is_ok()) {
                own = true;
                changes.push(Change::Gone { path: a.path.to_string(), at: a.at, bits: a.bits });
            }
        }
        for b in new {
            let leaves = self.post.leaves_of(b, budget)?;
            let end = b.at.saturating_add(b.bits);
            // What was there may have a new name, unless it is known where it went.
            let taken = |a: &&Field<'_>| a.at < end && b.at < a.at.saturating_add(a.bits);
            if !displaced.iter().any(taken)
                && leaves.iter().all(|leaf| old.binary_search(leaf).is_ok())
            {
                continue;
            }
            own = true;
            let over = if end > sizes.0 || b.bits == 0 {
                Over::Nothing
            } else if old.iter().any(|leaf: &Leaf| leaf.at < end && b.at < leaf.end()) {
                Over::Members
            } else {
                Over::Padding
            };
            changes.push(Change::New { path: b.path.to_string(), at: b.at, bits: b.bits, over });
        }
        Ok((changes, own))
    }

    /// Compares a member that both have, and says whether it differs by itself.
    fn field(
        &self,
        a: &Field<'_>,
        b: &Field<'_>,
        changes: &mut Vec<Change>,
        budget: &mut Budget,
    ) -> Result<bool, DebugError> {
        let path = || a.path.to_string();
        if a.at != b.at {
            changes.push(Change::Moved { path: path(), from: a.at, to: b.at });
        }
        let (x, y) = (self.pre.element(a.of)?, self.post.element(b.of)?);
        let same_type =
            self.pre.key(x.0).is_some() && self.pre.key(x.0) == self.post.key(y.0) && x.1 == y.1;
        if a.bits != b.bits {
            changes.push(Change::Resized { path: path(), at: a.at, from: a.bits, to: b.bits });
            return Ok(!same_type);
        }
        if same_type {
            return Ok(false);
        }
        let at = |field: &Field<'_>| Field { at: 0, path: "".into(), ..field.clone() };
        if self.pre.leaves_of(&at(a), budget)? != self.post.leaves_of(&at(b), budget)? {
            changes.push(Change::Retyped { path: path(), at: a.at });
            return Ok(true);
        }
        Ok(false)
    }
}

/// Which types hold which, and which objects are of them, in the running kernel.
struct Holders<'a> {
    /// For each type those that it is a member of.
    of: BTreeMap<Key<'a>, BTreeSet<Key<'a>>>,
    variables: BTreeMap<Key<'a>, BTreeSet<&'a [u8]>>,
}

impl<'a> Holders<'a> {
    fn new(layout: &Layout<'a>, budget: &mut Budget) -> Result<Self, DebugError> {
        let mut of: BTreeMap<Key<'a>, BTreeSet<Key<'a>>> = BTreeMap::new();
        for (key, ids) in layout.aggregates() {
            for id in ids {
                for field in layout.fields(id, budget)? {
                    let (element, _) = layout.element(field.of)?;
                    if let Some(held) = layout.key(element) {
                        of.entry(held).or_default().insert(key);
                    }
                }
            }
        }
        let mut variables: BTreeMap<Key<'a>, BTreeSet<&'a [u8]>> = BTreeMap::new();
        for variable in &layout.types.variables {
            for held in layout.held(variable.of, budget)? {
                if let Some(key) = layout.key(held) {
                    variables.entry(key).or_default().insert(variable.name);
                }
            }
        }
        Ok(Self { of, variables })
    }

    /// All that hold a type, whether themselves or through others.
    fn all(&self, key: Key<'a>) -> BTreeSet<Key<'a>> {
        let mut found = BTreeSet::new();
        let mut next = vec![key];
        while let Some(key) = next.pop() {
            for holder in self.of.get(&key).into_iter().flatten() {
                if found.insert(*holder) {
                    next.push(*holder);
                }
            }
        }
        found
    }

    fn holds_any(&self, key: Key<'a>, others: &BTreeSet<Key<'a>>) -> bool {
        others.iter().any(|other| self.of.get(other).is_some_and(|holders| holders.contains(&key)))
    }

    /// In words, who else is affected.
    fn tell(&self, key: Key<'a>) -> String {
        let holders = self.all(key);
        let mut objects: BTreeSet<&[u8]> = BTreeSet::new();
        for key in holders.iter().chain([&key]) {
            objects.extend(self.variables.get(key).into_iter().flatten());
        }
        let mut text = String::new();
        if !holders.is_empty() {
            let names = holders.iter().map(ToString::to_string);
            let _ = write!(text, "; it is part of {}", listed(names));
        }
        if !objects.is_empty() {
            let names = objects.iter().map(|name| String::from_utf8_lossy(name).into_owned());
            let word = if objects.len() == 1 { "variable" } else { "variables" };
            let _ = write!(text, "; this unit has {word} {} of it", listed(names));
        }
        text
    }
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = names.collect();
    let shown = all.get(..LISTED).unwrap_or(&all).join(", ");
    match all.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn objection(this: &Differing<'_>, holders: &Holders<'_>) -> Objection {
    // Moves often follow from one cause, which is then told before them.
    let moved = |change: &&Change| matches!(change, Change::Moved { .. });
    let mut told: Vec<String> =
        this.changes.iter().filter(|c| !moved(c)).map(ToString::to_string).collect();
    told.extend(this.changes.iter().filter(moved).map(ToString::to_string));
    Objection::new(
        this.key.to_string(),
        format!(
            "its layout changed: {}; the objects that the running kernel has are laid out as \
             before{}",
            listed(told.into_iter()),
            holders.tell(this.key)
        ),
        "leave it as it is and keep what is new in a shadow variable (docs/hooks.md)",
    )
    .or_accept(AcceptKind::Struct, String::from_utf8_lossy(this.key.name))
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Size { from, to } => {
                write!(f, "its size was {}, now {}", Bytes(*from), Bytes(*to))
            }
            Change::New { path, at, bits, over } => {
                let over = match over {
                    Over::Padding => "which was padding and may hold anything",
                    Over::Members => "where other members were",
                    Over::Nothing => "beyond its old end",
                };
                write!(f, "{path} ({}) is new at {}, {over}", Bytes(*bits), Offset(*at))
            }
            Change::Gone { path, at, bits } => {
                write!(f, "{path} ({} at {}) is gone", Bytes(*bits), Offset(*at))
            }
            Change::Moved { path, from, to } => {
                write!(f, "{path} moved from {} to {}", Offset(*from), Offset(*to))
            }
            Change::Resized { path, at, from, to } => {
                write!(f, "{path} at {} had {}, now {}", Offset(*at), Bytes(*from), Bytes(*to))
            }
            Change::Retyped { path, at } => {
                write!(f, "{path} at {} is made of other members", Offset(*at))
            }
        }
    }
}

struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, word) =
            if self.0.is_multiple_of(8) { (self.0 / 8, "byte") } else { (self.0, "bit") };
        write!(f, "{count} {word}{}", if count == 1 { "" } else { "s" })
    }
}

struct Offset(u64);

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "offset {}", self.0 / 8)?;
        if self.0.is_multiple_of(8) { Ok(()) } else { write!(f, " bit {}", self.0 % 8) }
    }
}

/// Enumerators whose value changed: running objects hold the old one.
fn enumerations(pre: &Layout<'_>, post: &Layout<'_>, changes: &mut Vec<Objection>) {
    let mut now: BTreeMap<&[u8], BTreeSet<(TypeId, i128)>> = BTreeMap::new();
    for (id, this) in post.types.all.iter().enumerate() {
        let Kind::Enum(all) = &this.kind else { continue };
        for (name, value) in all {
            now.entry(*name).or_default().insert((id, *value));
        }
    }
    for (id, this) in pre.types.all.iter().enumerate() {
        let Kind::Enum(all) = &this.kind else { continue };
        let key = pre.key(id);
        // The values that a name has now: functions may have enumerations with the same names.
        let has = |name: &[u8], old: i128| -> Option<i128> {
            let all = now.get(name)?;
            if all.iter().any(|(_, value)| *value == old) {
                return Some(old);
            }
            let same = all.iter().find(|(id, _)| post.key(*id) == key);
            same.or_else(|| all.first()).map(|(_, value)| *value)
        };
        let mut kept = BTreeSet::new();
        let mut moved = Vec::new();
        for (name, old) in all {
            match has(name, *old) {
                Some(new) if new == *old => {
                    kept.insert(*old);
                }
                Some(new) => moved.push((*name, *old, new)),
                None => {}
            }
        }
        // A value that another name keeps has kept its meaning; a count at the end has none.
        let above = |value: i128| kept.last().is_none_or(|last| value > *last);
        moved.retain(|(name, old, _)| !(kept.contains(old) || above(*old) && is_count(name)));
        let Some((first, _, _)) = moved.first() else { continue };
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let told =
            moved.iter().map(|(name, old, new)| format!("{} was {old}, now {new}", text(name)));
        changes.push(
            Objection::new(
                key.map_or_else(|| format!("enum with {}", text(first)), |key| key.to_string()),
                format!(
                    "the values of its names changed: {}; the objects that the running kernel has \
                     hold the old ones",
                    listed(told)
                ),
                "put new names at its end",
            )
            .or_accept(AcceptKind::Enum, key.map_or_else(|| text(first), |key| text(key.name))),
        );
    }
}

/// Whether an enumerator's name says that it only counts the others.
fn is_count(name: &[u8]) -> bool {
    String::from_utf8_lossy(name).to_ascii_uppercase().split('_').any(|word| COUNTS.contains(&word))
}
