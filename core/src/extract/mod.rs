// SPDX-License-Identifier: GPL-2.0-or-later
//! The extractor: one relocatable object per unit that holds the new code, everything that only
//! the new code has, and nothing else.
//!
//! [`select`] decides which pieces travel and where each reference leads; [`write`] lays them
//! out as an ELF object. What exists in the running kernel is referred to there, never copied,
//! except what cannot have an identity: strings and mergeable constants.

mod select;
mod write;

use crate::arch::{Arch, ArchError};
use crate::diff::UnitDiff;
use crate::unit::{Unit, UnitError};
use crate::update::{DataObject, Function, Hook, NeededSymbol, Shadow};

/// Why an object cannot be extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The post unit is no good.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The backend could not answer.
    #[error("{unit}: {source}")]
    Arch {
        /// The unit.
        unit: String,
        /// The backend's error.
        #[source]
        source: ArchError,
    },
    /// A reference for which there is no rule.
    #[error("{unit}: {piece} refers to {what}, which cannot travel: {why}")]
    Reference {
        /// The unit.
        unit: String,
        /// What refers.
        piece: String,
        /// What it refers to.
        what: String,
        /// Why.
        why: String,
    },
    /// The object cannot be written.
    #[error("{unit}: the object of the new code cannot be written: {why}")]
    Write {
        /// The unit.
        unit: String,
        /// Why.
        why: String,
    },
}

/// Numbers that are unique in one update, for the names of its symbols.
#[derive(Debug, Default)]
pub struct Numbering {
    next: u32,
}

impl Numbering {
    fn take(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// What is extracted from.
pub struct ExtractInput<'a> {
    /// The unit before the patch.
    pub pre: &'a Unit,
    /// The unit after the patch.
    pub post: &'a Unit,
    /// How they differ.
    pub diff: &'a UnitDiff,
    /// Index of the unit among its target's.
    pub unit_index: u32,
    /// Whether the kernel exports that symbol to modules.
    pub exported: &'a dyn Fn(&str) -> bool,
    /// Whether another unit of the update adds that global symbol.
    pub new_globals: &'a dyn Fn(&str) -> bool,
}

/// What was extracted.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// The relocatable object.
    pub object: Vec<u8>,
    /// The functions in it, changed ones first.
    pub functions: Vec<Function>,
    /// The constant data objects whose new contents are in it.
    pub objects: Vec<DataObject>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// Declarations of shadow variables.
    pub shadows: Vec<Shadow>,
    /// Unexported symbols that it needs.
    pub symbols: Vec<NeededSymbol>,
}

/// Extracts the new code of one unit.
pub fn extract(
    arch: &dyn Arch,
    input: &ExtractInput<'_>,
    numbering: &mut Numbering,
) -> Result<Extraction, ExtractError> {
    let selection = select::select(arch, input, numbering)?;
    let object = write::object(arch, input.post, &selection)
        .map_err(|why| ExtractError::Write { unit: input.post.name.clone(), why })?;
    Ok(Extraction {
        object,
        functions: selection.functions,
        objects: selection.objects,
        hooks: selection.hooks,
        shadows: selection.shadows,
        symbols: selection.needed,
    })
}

/// Global symbols that a unit adds: the others of the same update may refer to them.
pub fn new_globals(post: &Unit, diff: &UnitDiff) -> Vec<String> {
    select::unpaired_globals(post, diff)
}

/// Symbols that were local and are global now, with their index in the pre unit: the running kernel
/// does not know them as global.
pub fn raised_globals(pre: &Unit, post: &Unit, diff: &UnitDiff) -> Vec<(String, u32)> {
    select::raised_globals(pre, post, diff)
}
