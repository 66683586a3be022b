// SPDX-License-Identifier: GPL-2.0-or-later
//! How types are laid out: sizes, and the members of a struct or union with those of its nameless
//! parts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::types::{BitPlace, Kind, Member, TypeId, Types};
use super::{Budget, DebugError};

/// How many types may be made of one another before it counts as endless.
const MAX_DEPTH: usize = 64;

/// What a type is known by in all units: a tag, or for one without, the typedef that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    pub(super) word: &'static str,
    pub(super) name: &'a [u8],
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.word, String::from_utf8_lossy(self.name))
    }
}

/// A member, also one of a part that has no name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Its name, with those of the members that it is in.
    pub(super) path: Cow<'a, str>,
    /// From the start of the type, in bits.
    pub(super) at: u64,
    /// Its size, in bits.
    pub(super) bits: u64,
    pub(super) of: TypeId,
}

/// A number or pointer in a type, or a row of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf {
    /// From the start of the type, in bits.
    pub(super) at: u64,
    /// The size of each, in bits.
    pub(super) bits: u64,
    /// How many there are.
    pub(super) count: u64,
}

impl Leaf {
    /// Where the last of them ends, in bits.
    pub(super) fn end(&self) -> u64 {
        self.at.saturating_add(self.bits.saturating_mul(self.count))
    }
}

/// Types, and what can be worked out about them.
pub(super) struct Layout<'a> {
    pub(super) types: &'a Types<'a>,
    keys: Vec<Option<Key<'a>>>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(types: &'a Types<'a>) -> Result<Self, DebugError> {
        let mut keys: Vec<Option<Key<'a>>> = types
            .all
            .iter()
            .map(|t| {
                let word = match t.kind {
                    Kind::Aggregate { union: false, .. } => "struct",
                    Kind::Aggregate { union: true, .. } => "union",
                    Kind::Enum(_) => "enum",
                    _ => return None,
                };
                t.name.map(|name| Key { word, name })
            })
            .collect();
        for (id, alias) in types.all.iter().enumerate() {
            let (Kind::Alias, Some(name)) = (&alias.kind, alias.name) else { continue };
            let Some(inner) = types.inner(id)? else { continue };
            let named = types.all.get(inner).is_some_and(|t| {
                matches!(t.kind, Kind::Aggregate { .. } | Kind::Enum(_)) && t.name.is_none()
            });
            if let Some(key) = keys.get_mut(inner).filter(|key| named && key.is_none()) {
                *key = Some(Key { word: "typedef", name });
            }
        }
        Ok(Self { types, keys })
    }

    /// What a struct, union or enumeration is known by.
    pub(super) fn key(&self, id: TypeId) -> Option<Key<'a>> {
        self.keys.get(id).copied().flatten()
    }

    /// All structs and unions that are known by something, by that.
    pub(super) fn aggregates(&self) -> BTreeMap<Key<'a>, Vec<TypeId>> {
        let mut all: BTreeMap<Key<'a>, Vec<TypeId>> = BTreeMap::new();
        for (id, this) in self.types.all.iter().enumerate() {
            if let (Kind::Aggregate { .. }, Some(key)) = (&this.kind, self.key(id)) {
                all.entry(key).or_default().push(id);
            }
        }
        all
    }

    fn kind(&self, id: TypeId) -> &Kind<'a> {
        self.types.all.get(id).map_or(&Kind::Opaque, |t| &t.kind)
    }

    /// A type without typedefs and qualifiers.
    pub(super) fn plain(&self, mut id: TypeId) -> Result<TypeId, DebugError> {
        for _ in 0..MAX_DEPTH {
            if *self.kind(id) != Kind::Alias {
                return Ok(id);
            }
            match self.types.inner(id)? {
                Some(inner) => id = inner,
                // void, which a pointer alone can lead to.
                None => return Ok(id),
            }
        }
        Err(endless())
    }

    /// What an array is of, and how many there are; any other type is one of itself.
    pub(super) fn element(&self, id: TypeId) -> Result<(TypeId, u64), DebugError> {
        let (mut id, mut all) = (self.plain(id)?, 1u64);
        for _ in 0..MAX_DEPTH {
            let Kind::Array(count) = self.kind(id) else { return Ok((id, all)) };
            let inner = self.types.inner(id)?;
            all = all.saturating_mul(*count);
            id = self.plain(inner.ok_or_else(|| DebugError("an array is of nothing".into()))?)?;
        }
        Err(endless())
    }

    /// A type's size in bytes.
    pub(super) fn size(&self, id: TypeId) -> Result<u64, DebugError> {
        let (element, count) = self.element(id)?;
        // An array of nothing has no size, even of a type that is declared only.
        if count == 0 {
            return Ok(0);
        }
        let size = self.types.all.get(element).and_then(|t| t.size);
        let size = size.ok_or_else(|| DebugError("a member is of a type without a size".into()))?;
        Ok(size.saturating_mul(count))
    }

    /// The members of a struct or union, those of nameless parts included.
    pub(super) fn fields(
        &self,
        id: TypeId,
        budget: &mut Budget,
    ) -> Result<Vec<Field<'a>>, DebugError> {
        let mut fields = Vec::new();
        self.add_fields(id, "", 0, 0, &mut fields, budget)?;
        Ok(fields)
    }

    /// Where a member is, how wide, both in bits, and of what type.
    fn place(&self, member: &Member<'_>) -> Result<(u64, u64, TypeId), DebugError> {
        let of = self.types.of_member(member)?;
        let at = member.at.saturating_mul(8);
        Ok(match member.bits {
            None => (at, self.size(of)?.saturating_mul(8), of),
            Some((width, BitPlace::FromStart(from))) => (from, width, of),
            Some((width, BitPlace::InUnit { size, offset })) => {
                let unit = size.map_or_else(|| self.size(of), Ok)?.saturating_mul(8);
                let behind = unit.checked_sub(offset.saturating_add(width));
                let behind = behind.ok_or_else(|| {
                    DebugError("a bit field lies outside its storage unit".into())
                })?;
                (at.saturating_add(behind), width, of)
            }
        })
    }

    fn add_fields(
        &self,
        id: TypeId,
        prefix: &str,
        base: u64,
        depth: usize,
        fields: &mut Vec<Field<'a>>,
        budget: &mut Budget,
    ) -> Result<(), DebugError> {
        if depth > MAX_DEPTH {
            return Err(endless());
        }
        let Kind::Aggregate { members, .. } = self.kind(id) else { return Ok(()) };
        for member in members {
            budget.spend(prefix.len().saturating_add(8))?;
            let (at, bits, of) = self.place(member)?;
            let at = base.saturating_add(at);
            let (element, count) = self.element(of)?;
            let nameless = self.key(element).is_none();
            let Some(name) = member.name else {
                self.add_fields(element, prefix, at, depth + 1, fields, budget)?;
                continue;
            };
            let name = String::from_utf8_lossy(name);
            let path = if prefix.is_empty() { name } else { Cow::Owned(format!("{prefix}{name}")) };
            if nameless && matches!(self.kind(element), Kind::Aggregate { .. }) {
                let inside = format!("{path}{}.", if count == 1 { "" } else { "[]" });
                fields.push(Field { path, at, bits, of });
                self.add_fields(element, &inside, at, depth + 1, fields, budget)?;
            } else {
                fields.push(Field { path, at, bits, of });
            }
        }
        Ok(())
    }

    /// The numbers and pointers that a type is made of, in order of place.
    pub(super) fn leaves(&self, id: TypeId, budget: &mut Budget) -> Result<Vec<Leaf>, DebugError> {
        let mut leaves = Vec::new();
        let bits = self.size(id)?.saturating_mul(8);
        self.add_leaves(id, (0, bits, 1), 0, &mut leaves, budget)?;
        leaves.sort();
        leaves.dedup();
        Ok(leaves)
    }

    /// Those of a member.
    pub(super) fn leaves_of(
        &self,
        field: &Field<'_>,
        budget: &mut Budget,
    ) -> Result<Vec<Leaf>, DebugError> {
        let mut leaves = Vec::new();
        self.add_leaves(field.of, (field.at, field.bits, 1), 0, &mut leaves, budget)?;
        leaves.sort();
        leaves.dedup();
        Ok(leaves)
    }

    fn add_leaves(
        &self,
        id: TypeId,
        (at, bits, times): (u64, u64, u64),
        depth: usize,
        leaves: &mut Vec<Leaf>,
        budget: &mut Budget,
    ) -> Result<(), DebugError> {
        if depth > MAX_DEPTH {
            return Err(endless());
        }
        budget.spend(1)?;
        let (element, count) = self.element(id)?;
        let Kind::Aggregate { members, .. } = self.kind(element) else {
            let each = if count == 1 {
                bits
            } else {
                self.types.all.get(element).and_then(|t| t.size).unwrap_or(0).saturating_mul(8)
            };
            leaves.push(Leaf { at, bits: each, count: count.saturating_mul(times) });
            return Ok(());
        };
        let times = times.saturating_mul(count);
        if count != 1 {
            // A row of structs is not the same as a row of another length, whatever is in them.
            let each = self.types.all.get(element).and_then(|t| t.size).unwrap_or(0);
            leaves.push(Leaf { at, bits: each.saturating_mul(8), count: times });
        }
        for member in members {
            let (from, bits, of) = self.place(member)?;
            let at = at.saturating_add(from);
            self.add_leaves(of, (at, bits, times), depth + 1, leaves, budget)?;
        }
        Ok(())
    }

    /// The structs and unions with a name that an object of this type holds.
    pub(super) fn held(&self, id: TypeId, budget: &mut Budget) -> Result<Vec<TypeId>, DebugError> {
        let (element, _) = self.element(id)?;
        if self.key(element).is_some() {
            return Ok(vec![element]);
        }
        let mut held = Vec::new();
        for field in self.fields(element, budget)? {
            let (inside, _) = self.element(field.of)?;
            if self.key(inside).is_some() {
                held.push(inside);
            }
        }
        Ok(held)
    }
}

fn endless() -> DebugError {
    DebugError("types are made of one another without end".into())
}
