// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing the units before and after.

use std::collections::BTreeSet;

use splice_core::arch::Arch;
use splice_core::debug::{self, Layouts};
use splice_core::diff::{AcceptKind, Objection, UnitDiff, diff_units, is_startup};
use splice_core::extract::{new_globals, raised_globals};
use splice_core::plan;
use splice_core::unit::{SymbolPlace, Unit};

use super::paths;
use super::refuse::refuse;
use crate::exit::Failure;
use crate::kernel::{Compiled, Patched};

/// A unit that differs.
pub(super) struct Touched {
    pub(super) pre: Unit,
    pub(super) post: Unit,
    pub(super) diff: UnitDiff,
    /// Whether the patch adds it.
    pub(super) is_new: bool,
    /// How it is compiled.
    pub(super) command: String,
    /// The object before, as it is in the kernel.
    pub(super) bytes: Vec<u8>,
    /// What it holds, if it is another one than what was compared.
    pub(super) built: Option<Unit>,
}

/// Compares the units: those that differ, and what stands against it.
pub(super) fn compare(
    arch: &dyn Arch,
    compiled: Vec<Compiled>,
    patched: &Patched,
) -> Result<(Vec<Touched>, Vec<Objection>), Failure> {
    let (mut touched, mut others) = (Vec::new(), Vec::new());
    let mut objections = Vec::new();
    let mut same: Vec<(Objection, Vec<String>)> = Vec::new();
    // A header reaches many units and changes few.
    for unit in compiled.into_iter().filter(|unit| unit.pre != unit.post) {
        let name = &unit.name;
        if let Some(place) = paths::beyond(name) {
            objections.push(place.objection(name));
            continue;
        }
        let pre = Unit::read(arch, name, &unit.pre).map_err(Failure::from_error)?;
        let post = Unit::read(arch, name, &unit.post).map_err(Failure::from_error)?;
        let mut diff = diff_units(arch, &pre, &post).map_err(Failure::from_error)?;
        if !diff.is_unchanged() && !unit.is_assembler() {
            layouts(arch, &unit, patched, (&pre, &post), &mut diff)?;
        }
        for objection in diff.refusals.drain(..) {
            let units = match same.iter_mut().find(|(known, _)| *known == objection) {
                Some((_, units)) => units,
                None => {
                    same.push((objection, vec![name.clone()]));
                    continue;
                }
            };
            units.push(name.clone());
        }
        if unit.is_new {
            objections.extend(starts(&post));
        }
        // What was accepted is left as it runs; a unit may have nothing else.
        let has_effect = diff.has_effect();
        if has_effect {
            objections.extend(never_left(arch, &pre, &diff));
        }
        let Compiled { command, pre: bytes, is_new, .. } = unit;
        let unit = Touched { pre, post, diff, is_new, command, bytes, built: None };
        if has_effect { &mut touched } else { &mut others }.push(unit);
    }
    objections.extend(same.into_iter().map(|(objection, units)| in_units(objection, &units)));
    needed(&mut touched, others);
    Ok((touched, objections))
}

/// Of units in which no code changes, those join the others that define what these use and could not
/// use before: a new variable, say, or a function that was static.
fn needed(touched: &mut Vec<Touched>, mut others: Vec<Touched>) {
    let offers = |unit: &Touched| {
        let mut names = new_globals(&unit.post, &unit.diff);
        names.extend(unit.raised().into_iter().map(|(name, _)| name));
        names
    };
    let mut from = 0;
    while let Some(units) = touched.get(from..).filter(|units| !units.is_empty()) {
        let symbols = units.iter().flat_map(|unit| &unit.post.symbols);
        let wanted: BTreeSet<String> = symbols
            .filter(|symbol| symbol.place == SymbolPlace::Undefined)
            .map(|symbol| symbol.name.clone())
            .collect();
        let (found, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|unit| offers(unit).iter().any(|n| wanted.contains(n)));
        from = touched.len();
        touched.extend(found);
        others = rest;
    }
}

impl Touched {
    /// Takes what is in the kernel for the object before; what was compared is told by it. Both must be
    /// of the same functions: one that was inlined in the kernel alone would stay there.
    pub(super) fn take_built(&mut self, arch: &dyn Arch, bytes: Vec<u8>) -> Result<(), Failure> {
        let built = Unit::read(arch, &self.pre.name, &bytes).map_err(Failure::from_error)?;
        let (own, there) = (functions(&self.pre), functions(&built));
        if let Some(name) = own.symmetric_difference(&there).next() {
            return Err(refuse(&[Objection::new(
                format!("{name} in {}", self.pre.name),
                "with a section for each object the compiler makes other functions of the unit than in \
                 the kernel",
                "report it: the compiler's options have to be chosen otherwise",
            )]));
        }
        (self.built, self.bytes) = (Some(built), bytes);
        Ok(())
    }

    /// The index that a symbol of the object that was compared has in the one that is in the kernel.
    pub(super) fn in_kernel(&self, symbol: u32) -> Result<u32, Failure> {
        let Some(built) = &self.built else { return Ok(symbol) };
        self.pre.counterpart(symbol, built).ok_or_else(|| {
            let name = self.pre.symbols.get(symbol as usize).map_or("", |s| s.name.as_str());
            refuse(&[Objection::new(
                format!("{name} in {}", self.pre.name),
                "the unit is compiled otherwise in the kernel, and it is not clear there what this is",
                "write the fix so that the new code does not need it",
            )])
        })
    }

    /// What was local in it and is global now.
    pub(super) fn raised(&self) -> Vec<(String, u32)> {
        raised_globals(&self.pre, &self.post, &self.diff)
    }
}

/// The names of a unit's functions, and of their parts.
fn functions(unit: &Unit) -> BTreeSet<&str> {
    unit.functions().filter_map(|id| Some(unit.spans.get(id)?.name.as_str())).collect()
}

/// Functions of a new unit that only the start of the kernel or of a module would run, or the end of
/// a module.
fn starts(unit: &Unit) -> Vec<Objection> {
    let functions = unit.functions().filter_map(|id| unit.spans.get(id));
    functions
        .filter(|span| is_startup(unit, span))
        .map(|span| {
            let objection = Objection::new(
                format!("{} in {}", span.name, unit.name),
                "it is new, and it would run only while the kernel or a module starts or ends, which \
                 what is running does not do for an update",
                "do what it does in a hook, or where the new code is first used",
            );
            objection.or_accept(AcceptKind::Init, &span.name)
        })
        .collect()
}

/// How many units are named in which the same is to be said.
const NAMED: usize = 3;

/// An objection to one thing, a structure of a header say, in all units that have it.
fn in_units(objection: Objection, units: &[String]) -> Objection {
    let named = units.get(..NAMED).unwrap_or(units).join(", ");
    let more = match units.len().saturating_sub(NAMED) {
        0 => String::new(),
        1 => " and 1 other unit".to_owned(),
        n => format!(" and {n} other units"),
    };
    Objection { what: format!("{} in {named}{more}", objection.what), ..objection }
}

/// Functions that are never left, or whose text is not like other text.
fn never_left(arch: &dyn Arch, pre: &Unit, diff: &UnitDiff) -> Vec<Objection> {
    let changed = diff.changed.iter().filter_map(|function| pre.spans.get(function.pre));
    changed
        .filter_map(|span| {
            let section = pre.sections.get(span.section).map_or("", |s| s.name.as_str());
            let what = format!("{} in {}", span.name, pre.name);
            let special = plan::special_text(section);
            let busy = plan::never_quiescent(arch, &span.name)
                .map(|why| format!("{why}, so it could hardly ever be replaced"));
            let (why, acceptable) = match (special, busy) {
                (Some(text), None) => (text.why.to_owned(), text.acceptable),
                (Some(text), Some(_)) if !text.acceptable => (text.why.to_owned(), false),
                (_, Some(why)) => (why, true),
                (None, None) => return None,
            };
            let objection = Objection::new(what, why, "make the change in what it calls");
            Some(if acceptable {
                objection.or_accept(AcceptKind::Busy, &span.name)
            } else {
                objection
            })
        })
        .collect()
}

/// Compares the layouts of types, and adds to the reasons what was inlined.
fn layouts(
    arch: &dyn Arch,
    unit: &Compiled,
    patched: &Patched,
    (pre, post): (&Unit, &Unit),
    diff: &mut UnitDiff,
) -> Result<(), Failure> {
    let (before, after) = unit.whole()?;
    let found = debug::examine(
        arch,
        debug::Build { unit: pre, bytes: &before },
        debug::Build { unit: post, bytes: &after },
        &|function| patched.touches(&function.file, &function.name),
        diff,
    );
    if let Layouts::Unknown(why) = found {
        let objection = Objection::new(
            "layouts of types",
            format!("whether they changed is not known: {why}"),
            "build the kernel's units with plain debug information",
        );
        diff.refusals.push(objection.or_accept(AcceptKind::Struct, &unit.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objection_in_many_units_names_some() {
        let what = |count: usize| {
            let units: Vec<String> = (0..count).map(|n| format!("{n}.o")).collect();
            in_units(Objection::new("struct s", "it grew", "keep it"), &units).what
        };
        assert_eq!(what(1), "struct s in 0.o");
        assert_eq!(what(3), "struct s in 0.o, 1.o, 2.o");
        assert_eq!(what(4), "struct s in 0.o, 1.o, 2.o and 1 other unit");
        assert_eq!(what(5), "struct s in 0.o, 1.o, 2.o and 2 other units");
    }
}
