// SPDX-License-Identifier: GPL-2.0-or-later
//! The update file: one reproducible archive with everything that `apply` needs.

mod archive;
mod manifest;

pub use archive::{ArchiveError, Update, is_id};
pub use manifest::{
    Change, CoreModule, DataObject, FORMAT, FileEntry, Function, Hook, Manifest, NeededSymbol,
    Place, Shadow, Target, UnitEntry, When,
};
