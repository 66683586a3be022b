// SPDX-License-Identifier: GPL-2.0-or-later
//! What a patch does to the symbols that a kernel exports to modules.
//!
//! A changed version is refused: modules that were built before rely on the old declaration, those in
//! the kernel and those on disk. A new export cannot be seen by a module that is loaded later, and an
//! export that is taken away stays; both are told. A new unit that exports something is meant for
//! others, so that is refused.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;
use splice_core::diff::{AcceptKind, Objection};
use splice_core::unit::{SymbolPlace, Unit};

use super::compare::Touched;
use crate::exit::Failure;
use crate::kernel::{Tree, Versions};

/// What stands against the change of each unit that exports something; `overlay` has the patched
/// source.
pub(super) fn objections(
    tree: &Tree,
    overlay: &Path,
    touched: &[Touched],
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<Objection>, Failure> {
    let mut new = Vec::new();
    for unit in touched {
        let (before, after) = (exports(&unit.pre), exports(&unit.post));
        for name in after.difference(&before) {
            if unit.is_new {
                let objection = Objection::new(
                    format!("{name} in {}", unit.pre.name),
                    "a new unit exports it, and no module that is loaded later can see that",
                    "leave the export out; the update's own code for the same target finds the symbol \
                     without it",
                );
                new.push(objection.or_accept(AcceptKind::Export, *name));
                continue;
            }
            warn(&format!(
                "{name} in {} is exported by the patch; modules that are loaded from now on cannot see \
                 that, only the code of this update can use it",
                unit.pre.name
            ));
        }
        for name in before.difference(&after) {
            warn(&format!(
                "{name} in {} is exported no longer by the patch; the running kernel goes on doing so",
                unit.pre.name
            ));
        }
    }
    let found: Result<Vec<Vec<Objection>>, Failure> = touched
        .par_iter()
        .filter(|unit| !exports(&unit.pre).is_disjoint(&exports(&unit.post)))
        .map(|unit| changed(tree, overlay, unit))
        .collect();
    new.extend(found?.into_iter().flatten());
    Ok(new)
}

fn changed(tree: &Tree, overlay: &Path, unit: &Touched) -> Result<Vec<Objection>, Failure> {
    // The preprocessor takes about a second for each.
    let source = tree.source();
    let (before, after) = rayon::join(
        || Versions::of(tree, &source, &unit.command),
        || Versions::of(tree, overlay, &unit.command),
    );
    let (Some(before), Some(after)) = (before?, after?) else {
        return Ok(Vec::new());
    };
    let changes = before.changes(&after).into_iter();
    Ok(changes
        .map(|change| {
            let objection = Objection::new(
                format!("{} in {}", change.symbol, unit.pre.name),
                format!(
                    "it is exported to modules, and its version changes from {} to {}: {}",
                    change.before, change.after, change.cause
                ),
                "keep its declaration and the types behind it as modules see them; what is new can go \
                 into a new function or a shadow variable",
            );
            objection.or_accept(AcceptKind::Export, change.symbol)
        })
        .collect())
}

/// The symbols that a unit exports: `__ksymtab_NAME`, since 6.4 `__export_symbol_NAME`
/// (include/linux/export.h, export-internal.h).
fn exports(unit: &Unit) -> BTreeSet<&str> {
    unit.symbols
        .iter()
        .filter_map(|symbol| {
            let SymbolPlace::Section(section) = symbol.place else { return None };
            let section = unit.sections.get(section)?.name.as_str();
            if section.starts_with("___ksymtab") {
                symbol.name.strip_prefix("__ksymtab_")
            } else if section == ".export_symbol" {
                symbol.name.strip_prefix("__export_symbol_")
            } else {
                None
            }
        })
        .collect()
}
