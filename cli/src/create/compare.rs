// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing the units before and after.

use splice_core::arch::Arch;
use splice_core::diff::{Accept, Objection, UnitDiff, diff_units};
use splice_core::unit::Unit;

use super::paths;
use super::refuse::unless_accepted;
use crate::exit::{Exit, Failure};
use crate::kernel::Compiled;

/// A unit that differs.
pub(super) struct Touched {
    pub(super) pre: Unit,
    pub(super) post: Unit,
    pub(super) diff: UnitDiff,
    /// The object before.
    pub(super) bytes: Vec<u8>,
}

/// Compares the units; those that differ are returned.
pub(super) fn compare(
    arch: &dyn Arch,
    compiled: Vec<Compiled>,
    accepted: &[Accept],
) -> Result<Vec<Touched>, Failure> {
    let mut touched = Vec::new();
    let mut objections = Vec::new();
    for Compiled { name, pre: bytes, post } in compiled {
        if let Some(place) = paths::beyond(&name) {
            if bytes != post {
                objections.push(place.objection(&name));
            }
            continue;
        }
        let pre = Unit::read(arch, &name, &bytes).map_err(Failure::from_error)?;
        let post = Unit::read(arch, &name, &post).map_err(Failure::from_error)?;
        let diff = diff_units(arch, &pre, &post).map_err(Failure::from_error)?;
        objections.extend(diff.refusals.iter().map(|objection| Objection {
            what: format!("{} in {name}", objection.what),
            ..objection.clone()
        }));
        if !diff.is_unchanged() {
            touched.push(Touched { pre, post, diff, bytes });
        }
    }
    unless_accepted(objections, accepted)?;
    if touched.is_empty() {
        return Err(Failure::new(
            Exit::Unchanged,
            "the patches change nothing that a running kernel would notice",
        ));
    }
    Ok(touched)
}
