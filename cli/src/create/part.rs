// SPDX-License-Identifier: GPL-2.0-or-later
//! Each target's share of the update: the new code of its units.

use std::collections::{BTreeMap, BTreeSet};

use splice_core::arch::Arch;
use splice_core::diff::Objection;
use splice_core::extract::{
    ExtractError, ExtractInput, Extraction, Numbering, extract, new_globals,
};
use splice_core::plan;
use splice_core::update::{Place, Target, UnitEntry};

use super::compare::Touched;
use super::refuse::refuse;
use crate::exit::Failure;
use crate::kernel::{Exports, Owner};

/// What is known of global symbols when one unit is extracted.
pub(super) struct Globals<'a> {
    pub(super) exported: &'a Exports,
    /// The target's touched units.
    pub(super) here: &'a [&'a Touched],
    /// Those of other targets.
    pub(super) elsewhere: &'a [Elsewhere<'a>],
}

/// A unit of another target.
pub(super) struct Elsewhere<'a> {
    /// That target's name, if it has a part in the update.
    pub(super) target: Option<&'a str>,
    /// Where the unit is among that target's.
    pub(super) index: usize,
    pub(super) unit: &'a Touched,
}

/// What a target is called.
pub(super) fn name(owner: &Owner) -> &str {
    match owner {
        Owner::Vmlinux => splice_core::runpre::VMLINUX,
        Owner::Module(name) => name,
    }
}

/// A target's share of the update.
pub(super) struct Part {
    pub(super) target: Target,
    /// The new code.
    pub(super) objects: Vec<Vec<u8>>,
    /// The objects before, by path in the update.
    pub(super) pre: Vec<(String, Vec<u8>)>,
    /// Namespaces of exported symbols that the new code uses.
    pub(super) namespaces: BTreeSet<String>,
}

/// Where the running kernel has what was local in one of these units and is global now.
fn raised(units: &[&Touched]) -> Result<BTreeMap<String, Place>, Failure> {
    let mut all = BTreeMap::new();
    for (index, unit) in units.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        for (name, symbol) in unit.raised() {
            all.insert(name, Place::Local { unit: index, symbol: unit.in_kernel(symbol)? });
        }
    }
    Ok(all)
}

/// The same for units of other targets; no place where it cannot be told.
fn raised_elsewhere(units: &[Elsewhere<'_>]) -> Result<BTreeMap<String, Option<Place>>, Failure> {
    let mut all = BTreeMap::new();
    for Elsewhere { target, index, unit } in units {
        let index = u32::try_from(*index).unwrap_or(u32::MAX);
        for (name, symbol) in unit.raised() {
            let place = match target {
                Some(target) => Some(Place::Elsewhere {
                    target: (*target).to_owned(),
                    unit: index,
                    symbol: unit.in_kernel(symbol)?,
                }),
                None => None,
            };
            all.entry(name).and_modify(|other| *other = None).or_insert(place);
        }
    }
    Ok(all)
}

/// Names what was extracted by the object that is in the kernel.
fn by_kernel(unit: &Touched, extraction: &mut Extraction) -> Result<(), Failure> {
    let own = |symbol: &mut u32| unit.in_kernel(*symbol).map(|index| *symbol = index);
    for function in &mut extraction.functions {
        function.pre_symbol.iter_mut().chain(&mut function.pre_parts).try_for_each(own)?;
    }
    extraction.objects.iter_mut().map(|object| &mut object.pre_symbol).try_for_each(own)?;
    for symbol in &mut extraction.symbols {
        if let Place::Local { symbol, .. } = &mut symbol.place {
            own(symbol)?;
        }
    }
    Ok(())
}

/// Extracts a target's new code.
pub(super) fn part(
    arch: &dyn Arch,
    owner: &Owner,
    number: usize,
    id: &str,
    globals: &Globals<'_>,
    numbering: &mut Numbering,
) -> Result<Part, Failure> {
    let name = name(owner);
    let plain = id.replace('-', "_");
    let module_name =
        if number == 0 { format!("splice_{plain}") } else { format!("splice_{plain}_{number}") };
    let added = |unit: &Touched| new_globals(&unit.post, &unit.diff);
    let here: BTreeSet<String> = globals.here.iter().flat_map(|unit| added(unit)).collect();
    let elsewhere: BTreeSet<String> =
        globals.elsewhere.iter().flat_map(|other| added(other.unit)).collect();
    let raised = raised(globals.here)?;
    let raised_elsewhere = raised_elsewhere(globals.elsewhere)?;
    let mut part = Part {
        target: Target {
            name: name.to_owned(),
            module: format!("modules/{module_name}.ko"),
            module_name,
            units: Vec::new(),
            functions: Vec::new(),
            objects: Vec::new(),
            hooks: Vec::new(),
            shadows: Vec::new(),
            symbols: Vec::new(),
        },
        objects: Vec::new(),
        pre: Vec::new(),
        namespaces: BTreeSet::new(),
    };
    for (index, unit) in globals.here.iter().enumerate() {
        let input = ExtractInput {
            pre: &unit.pre,
            post: &unit.post,
            diff: &unit.diff,
            unit_index: u32::try_from(index).unwrap_or(u32::MAX),
            exported: &|symbol| {
                globals.exported.contains(symbol) || plan::CORE_EXPORTS.contains(&symbol)
            },
            new_globals: &|symbol| here.contains(symbol),
        };
        let mut extraction = extract(arch, &input, numbering).map_err(|error| match error {
            ExtractError::Reference { unit, piece, what, why } => refuse(&[Objection::new(
                format!("{piece} in {unit}"),
                format!("it refers to {what}, which cannot travel: {why}"),
                "write the fix so that the new code does not need it",
            )]),
            error => Failure::from_error(error),
        })?;
        by_kernel(unit, &mut extraction)?;
        let Extraction { object, functions, objects, hooks, shadows, mut symbols } = extraction;
        if let Some(symbol) = symbols.iter().find(|symbol| elsewhere.contains(&symbol.name)) {
            return Err(refuse(&[Objection::new(
                &unit.pre.name,
                format!(
                    "its new code refers to {}, which the patch adds to another target, and the new \
                     code of one cannot reach what is new in another",
                    symbol.name
                ),
                "define it in each unit that uses it, as static",
            )]));
        }
        for symbol in symbols.iter_mut().filter(|symbol| symbol.place == Place::Global) {
            match (raised.get(&symbol.name), raised_elsewhere.get(&symbol.name)) {
                (Some(place), _) | (None, Some(Some(place))) => symbol.place = place.clone(),
                (None, Some(None)) => {
                    return Err(refuse(&[Objection::new(
                        &unit.pre.name,
                        format!(
                            "its new code refers to {}, which is static in the running kernel, in a unit \
                             of another target that has no part in the update, or in several",
                            symbol.name
                        ),
                        "write the fix so that the new code does not need it",
                    )]));
                }
                (None, None) => {}
            }
        }
        let pre = format!("pre/{name}/{}", unit.pre.name);
        part.target.units.push(UnitEntry { name: unit.pre.name.clone(), pre: pre.clone() });
        part.target.functions.extend(functions);
        part.target.objects.extend(objects);
        part.target.hooks.extend(hooks);
        part.target.shadows.extend(shadows);
        part.target.symbols.extend(symbols);
        let undefined = plan::undefined(&object).map_err(Failure::from_error)?;
        let namespaces = undefined.iter().filter_map(|name| globals.exported.namespace(name));
        part.namespaces.extend(namespaces.map(str::to_owned));
        part.objects.push(object);
        part.pre.push((pre, unit.bytes.clone()));
    }
    Ok(part)
}
