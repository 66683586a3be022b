// SPDX-License-Identifier: GPL-2.0-or-later
//! Which units the patches reach.

use std::collections::{BTreeMap, BTreeSet};

use splice_core::diff::Objection;

use super::refuse::refuse;
use crate::exit::{Exit, Failure};
use crate::kernel::{self, Built, Kbuild, Patched, Tree};

/// A header that reaches more units needs to be asked for.
const WIDE: usize = 200;

/// The objects that the patches reach and that are built.
pub(super) fn units(
    tree: &Tree,
    patched: &Patched,
    wide: bool,
    warn: &mut dyn FnMut(&str),
    note: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, Built>, Failure> {
    let object = |path: &str| {
        let stem = path.strip_suffix(".c").or_else(|| path.strip_suffix(".S"))?;
        Some(format!("{stem}.o"))
    };
    let mut direct = BTreeSet::new();
    let mut headers = Vec::new();
    for path in patched.paths() {
        match (object(path), path.ends_with(".h")) {
            (Some(object), _) => {
                direct.insert(object);
            }
            (None, true) => headers.push(path),
            (None, false) => warn(&format!("{path} is no code, and is left out")),
        }
    }
    let mut kbuild = Kbuild::new(tree);
    let mut units = BTreeMap::new();
    for object in &direct {
        match kbuild.built(object)? {
            Ok(built) => {
                units.insert(object.clone(), built);
            }
            Err(why) => {
                return Err(refuse(&[Objection::new(
                    object,
                    format!("it is not part of this kernel: {why}"),
                    "leave that file out of the patch; this kernel does not have the code",
                )]));
            }
        }
    }
    if !headers.is_empty() {
        note("looking for what includes the changed headers");
        let files = kernel::reached(&tree.source(), tree.source_arch(), &headers)?;
        let mut reached = Vec::new();
        for object in files.iter().filter_map(|path| object(path)) {
            if let Ok(built) = kbuild.built(&object)? {
                reached.push((object, built));
            }
        }
        if reached.len() > WIDE && !wide {
            return Err(refuse(&[Objection::new(
                headers.join(", "),
                format!("{} units of this kernel include it", reached.len()),
                "say --wide to build them all, which takes a few seconds for each; or change the \
                 functions that use it, and leave the header as it is",
            )]));
        }
        note(&format!("{} units include the changed headers", reached.len()));
        units.extend(reached);
    }
    if units.is_empty() {
        return Err(Failure::new(Exit::Unchanged, "the patches change no code of this kernel"));
    }
    Ok(units)
}
