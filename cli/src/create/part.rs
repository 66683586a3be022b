// SPDX-License-Identifier: GPL-2.0-or-later
//! Each target's share of the update: the new code of its units.

use std::collections::{BTreeSet, HashSet};

use splice_core::arch::Arch;
use splice_core::diff::{Accept, AcceptKind, Objection};
use splice_core::extract::{
    ExtractError, ExtractInput, Extraction, Numbering, extract, new_globals,
};
use splice_core::plan;
use splice_core::update::{Change, Target, UnitEntry};

use super::compare::Touched;
use super::refuse::{refuse, unless_accepted};
use crate::exit::Failure;
use crate::kernel::Owner;

/// What is known of global symbols when one unit is extracted.
pub(super) struct Globals<'a> {
    pub(super) exported: &'a HashSet<String>,
    pub(super) touched: &'a [Touched],
}

/// A target's share of the update.
pub(super) struct Part {
    pub(super) target: Target,
    /// The new code.
    pub(super) objects: Vec<Vec<u8>>,
    /// The objects before, by path in the update.
    pub(super) pre: Vec<(String, Vec<u8>)>,
}

/// Extracts a target's new code.
pub(super) fn part(
    arch: &dyn Arch,
    owner: &Owner,
    number: usize,
    id: &str,
    units: &[&Touched],
    globals: &Globals<'_>,
    numbering: &mut Numbering,
) -> Result<Part, Failure> {
    let name = match owner {
        Owner::Vmlinux => splice_core::runpre::VMLINUX,
        Owner::Module(name) => name,
    };
    let plain = id.replace('-', "_");
    let module_name =
        if number == 0 { format!("splice_{plain}") } else { format!("splice_{plain}_{number}") };
    let added: BTreeSet<String> =
        globals.touched.iter().flat_map(|unit| new_globals(&unit.post, &unit.diff)).collect();
    let mut part = Part {
        target: Target {
            name: name.to_owned(),
            module: format!("modules/{module_name}.ko"),
            module_name,
            units: Vec::new(),
            functions: Vec::new(),
            symbols: Vec::new(),
        },
        objects: Vec::new(),
        pre: Vec::new(),
    };
    for (index, unit) in units.iter().enumerate() {
        let input = ExtractInput {
            pre: &unit.pre,
            post: &unit.post,
            diff: &unit.diff,
            unit_index: u32::try_from(index).unwrap_or(u32::MAX),
            exported: &|symbol| globals.exported.contains(symbol),
            new_globals: &|symbol| added.contains(symbol),
        };
        let Extraction { object, functions, symbols } =
            extract(arch, &input, numbering).map_err(|error| match error {
                ExtractError::Reference { unit, piece, what, why } => refuse(&[Objection::new(
                    format!("{piece} in {unit}"),
                    format!("it refers to {what}, which cannot travel: {why}"),
                    "write the fix so that the new code does not need it",
                )]),
                error => Failure::from_error(error),
            })?;
        let pre = format!("pre/{name}/{}", unit.pre.name);
        part.target.units.push(UnitEntry { name: unit.pre.name.clone(), pre: pre.clone() });
        part.target.functions.extend(functions);
        part.target.symbols.extend(symbols);
        part.objects.push(object);
        part.pre.push((pre, unit.bytes.clone()));
    }
    Ok(part)
}

/// Refuses functions that are never left, but for those that the user insists on.
pub(super) fn quiescence(
    arch: &dyn Arch,
    parts: &[Part],
    accepted: &[Accept],
) -> Result<(), Failure> {
    let objections: Vec<Objection> = parts
        .iter()
        .flat_map(|part| &part.target.functions)
        .filter(|function| function.change == Change::Changed)
        .filter_map(|function| {
            let why = plan::never_quiescent(arch, &function.name)?;
            let objection = Objection::new(
                &function.name,
                format!("{why}, so it could hardly ever be replaced"),
                "make the change in what it calls",
            );
            Some(objection.or_accept(AcceptKind::Busy, &function.name))
        })
        .collect();
    unless_accepted(objections, accepted)
}
