// SPDX-License-Identifier: GPL-2.0-or-later
//! Debug information (DWARF 4 and 5): what it adds to the comparison of two objects.
//!
//! Two things: whether the objects that a running kernel already has are laid out as the new code
//! expects ([`changes`]), and which inlined function a difference is in ([`inlined`]). The bytes are
//! not trusted: whatever they hold, the work is bounded by their length ([`Budget`]).

mod changes;
mod inlined;
mod layout;
mod sections;
mod types;

use gimli::{EndianSlice, LittleEndian};
use serde::Serialize;

use crate::arch::Arch;
use crate::diff::{Inlined, UnitDiff};
use crate::unit::Unit;
use layout::Layout;
use sections::Sections;
use types::Types;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Whether the layouts of an object's types before and after were compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layouts {
    /// They were: what changed is among the refusals.
    Compared,
    /// They were not, for that reason.
    Unknown(String),
}

/// One build of a unit. The bytes may be of the same object with debug sections, where the unit
/// was read from one without.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    /// The unit.
    pub unit: &'a Unit,
    /// The object with its debug sections.
    pub bytes: &'a [u8],
}

/// Compares the layouts of two builds of a unit, adds what changed to the refusals, and adds to the
/// reasons of each changed function what was inlined where it differs. Nothing is looked at if
/// nothing differs: then no new code meets an old object.
///
/// `touched` tells whether a function's own source changed; false if that is not known.
pub fn examine(
    arch: &dyn Arch,
    pre: Build<'_>,
    post: Build<'_>,
    touched: &dyn Fn(&Inlined) -> bool,
    diff: &mut UnitDiff,
) -> Layouts {
    if diff.is_unchanged() {
        return Layouts::Compared;
    }
    let read = |build: Build<'_>| Sections::read(arch, &build.unit.name, build.bytes);
    let examined = read(pre).and_then(|before| {
        let after = read(post)?;
        inlined::explain((pre.unit, &before), (post.unit, &after), touched, diff)?;
        changes::compare(&Types::read(&before)?, &Types::read(&after)?)
    });
    match examined {
        Ok(objections) => {
            diff.refusals.extend(objections);
            diff.refusals.sort();
            Layouts::Compared
        }
        Err(error) => Layouts::Unknown(error.0),
    }
}

/// A struct or union as debug information describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// Its tag, with the word before it; or the name of the type that has no tag.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Its members and those of its nameless parts: name, place and size, both in bits.
    pub members: Vec<(String, u64, u64)>,
}

/// The structs and unions that an object's debug information describes.
pub fn structures(arch: &dyn Arch, name: &str, bytes: &[u8]) -> Result<Vec<Structure>, String> {
    let read = || -> Result<Vec<Structure>, DebugError> {
        let sections = Sections::read(arch, name, bytes)?;
        let types = Types::read(&sections)?;
        let layout = Layout::new(&types)?;
        let mut budget = sections.budget();
        let mut all = Vec::new();
        for (key, ids) in layout.aggregates() {
            for id in ids {
                let members = layout
                    .fields(id, &mut budget)?
                    .into_iter()
                    .map(|field| (field.path.into_owned(), field.at, field.bits))
                    .collect();
                all.push(Structure { name: key.to_string(), size: layout.size(id)?, members });
            }
        }
        Ok(all)
    };
    read().map_err(|error| error.0)
}

/// Why debug information does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct DebugError(String);

impl From<gimli::Error> for DebugError {
    fn from(error: gimli::Error) -> Self {
        Self(format!("the debug information is malformed: {error}"))
    }
}

/// What reading may still cost. Sizes that a file claims, and lists that many entries share, could
/// otherwise make little input into endless work.
#[derive(Debug)]
struct Budget(u64);

impl Budget {
    /// Enough for any compiler's output of that length.
    fn for_bytes(length: usize) -> Self {
        Self((length as u64).saturating_mul(32).saturating_add(1 << 16))
    }

    fn spend(&mut self, cost: usize) -> Result<(), DebugError> {
        self.0 = self
            .0
            .checked_sub(cost as u64)
            .ok_or_else(|| DebugError("the debug information is too involved".into()))?;
        Ok(())
    }
}
