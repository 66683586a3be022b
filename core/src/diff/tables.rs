// SPDX-License-Identifier: GPL-2.0-or-later
//! What tables and unknown sections stand against: lists that a running kernel has read, entries
//! that new code cannot have, and sections of which nobody knows whether they are about the code
//! that changed.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{Context, symbol_name};
use super::{AcceptKind, Objection, UnitDiff};
use crate::unit::{Reloc, Role, Section, SpanId, SpanKind, SymbolPlace, Target, Unit};

/// Compares what is not compared function by function or object by object.
pub(super) fn compare(context: &Context<'_>, diff: &mut UnitDiff) {
    let code = new_code(diff);
    let mut found = Vec::new();
    frozen(context, &mut found);
    ids(context, &mut found);
    placed(context, diff, &mut found);
    boot(context, &code, &mut found);
    nowhere(context, &code, &mut found);
    owned_by_data(context, &mut found);
    unclear(context, &code, &mut found);
    unknown(context, &code, diff, &mut found);
    diff.refusals.extend(found);
}

/// All code that the update would bring.
fn new_code(diff: &UnitDiff) -> BTreeSet<SpanId> {
    let changed = diff.changed.iter().flat_map(|f| std::iter::once(&f.post).chain(&f.post_parts));
    let new = diff.new.iter().flat_map(|f| std::iter::once(&f.post).chain(&f.post_parts));
    changed.chain(new).copied().collect()
}

/// The sections of a unit for which the rule is that, by name.
fn of_role(unit: &Unit, role: Role) -> BTreeMap<&str, Vec<&Section>> {
    let mut all: BTreeMap<&str, Vec<&Section>> = BTreeMap::new();
    for (index, section) in unit.sections.iter().enumerate() {
        if unit.rule(index).is_some_and(|row| row.role == role) && section.size > 0 {
            all.entry(section.name.as_str()).or_default().push(section);
        }
    }
    all
}

/// Every section name of both sides, with what is under it.
fn both<'a, T: Default + Clone>(
    pre: &BTreeMap<&'a str, T>,
    post: &BTreeMap<&'a str, T>,
) -> Vec<(&'a str, T, T)> {
    let names: BTreeSet<&str> = pre.keys().chain(post.keys()).copied().collect();
    let get = |map: &BTreeMap<&str, T>, name: &str| map.get(name).cloned().unwrap_or_default();
    names.into_iter().map(|name| (name, get(pre, name), get(post, name))).collect()
}

fn all_same(context: &Context<'_>, before: &[&Section], after: &[&Section]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(a, b)| context.same_sections(a, b))
}

/// What a relocation leads to, in words.
fn target(unit: &Unit, reloc: &Reloc) -> String {
    match unit.resolve(reloc.symbol, reloc.addend) {
        Target::Span { id, .. } => {
            unit.spans.get(id).map_or_else(String::new, |span| span.name.clone())
        }
        _ => symbol_name(unit, reloc).to_owned(),
    }
}

/// Lists that are read at the start: what is new or gone there would have no effect.
fn frozen(context: &Context<'_>, found: &mut Vec<Objection>) {
    let (pre, post) = (of_role(context.pre, Role::Frozen), of_role(context.post, Role::Frozen));
    for (name, before, after) in both(&pre, &post) {
        if all_same(context, &before, &after) {
            continue;
        }
        let listed = |unit: &Unit, sections: &[&Section]| -> Vec<String> {
            let relocs = sections.iter().flat_map(|s| &s.relocs);
            let mut all: Vec<_> = relocs.map(|r| target(unit, r)).collect();
            all.sort();
            all
        };
        let (x, y) = (listed(context.pre, &before), listed(context.post, &after));
        let bytes = |sections: &[&Section]| {
            let mut all: Vec<u8> = sections.iter().flat_map(|s| s.data.iter().copied()).collect();
            all.sort_unstable();
            all
        };
        if x == y && bytes(&before) == bytes(&after) {
            // The same in another order.
            continue;
        }
        let (x, y): (BTreeSet<_>, BTreeSet<_>) = (x.into_iter().collect(), y.into_iter().collect());
        let mut odd: Vec<String> =
            x.symmetric_difference(&y).map(|what| format!("{what} in {name}")).collect();
        if odd.is_empty() {
            odd.push(name.to_owned());
        }
        found.extend(odd.into_iter().map(|what| {
            Objection::new(
                &what,
                "this list is read while the kernel or the module starts, and it changed",
                "do in a hook what the start would do with it",
            )
            .or_accept(AcceptKind::Init, &what)
        }));
    }
}

/// Numbers that the link writes: which ones they are shows in the names of symbols.
fn ids(context: &Context<'_>, found: &mut Vec<Objection>) {
    let names = |unit: &Unit| -> BTreeMap<String, Vec<(u64, String)>> {
        let mut all: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for symbol in &unit.symbols {
            let SymbolPlace::Section(index) = symbol.place else { continue };
            let Some(section) = unit.sections.get(index) else { continue };
            if unit.rule(index).is_some_and(|row| row.role == Role::Ids) && !symbol.name.is_empty()
            {
                // A counter stands behind the name.
                let name = symbol.name.trim_end_matches(|c: char| c.is_ascii_digit());
                let list = all.entry(section.name.clone()).or_default();
                list.push((symbol.value, name.to_owned()));
            }
        }
        all.values_mut().for_each(|list| list.sort());
        all
    };
    let (pre, post) = (names(context.pre), names(context.post));
    for (name, after) in &post {
        let before = pre.get(name).map(Vec::as_slice).unwrap_or_default();
        if before != after.as_slice() {
            let odd = after.iter().find(|id| !before.contains(id)).map_or("", |id| id.1.as_str());
            found.push(Objection::new(
                format!("{odd} in {name}"),
                "the kernel's link writes these numbers, and their list changed",
                "write the fix so that it needs no other numbers than the kernel has",
            ));
        }
    }
}

/// New objects whose place in the image would mean something.
fn placed(context: &Context<'_>, diff: &UnitDiff, found: &mut Vec<Objection>) {
    for id in &diff.data_new {
        let Some(span) = context.post.spans.get(*id) else { continue };
        if context.post.role_of(span) == Some(Role::Placed) {
            let section = context.post.sections.get(span.section).map_or("", |s| s.name.as_str());
            found.push(Objection::new(
                &span.name,
                format!(
                    "it is new, and what is in section {section} has its place in the kernel's image"
                ),
                "put the new object into ordinary memory",
            ));
        }
    }
}

/// Places in new code that only the start of the kernel fills in.
fn boot(context: &Context<'_>, code: &BTreeSet<SpanId>, found: &mut Vec<Objection>) {
    let unit = context.post;
    for id in code {
        for (_, entry) in unit.entries_of(*id) {
            let Some(span) = unit.spans.get(*entry) else { continue };
            if unit.role_of(span) == Some(Role::Boot) {
                let section = unit.sections.get(span.section).map_or("", |s| s.name.as_str());
                let function = unit.spans.get(*id).map_or("", |s| s.name.as_str());
                found.push(Objection::new(
                    function,
                    format!(
                        "it has a constant that only the start of the kernel writes into its code \
                         ({section})"
                    ),
                    "let new code read the variable instead of the constant",
                ));
            }
        }
    }
}

/// Entries about new code that refer to nothing that is known to be a place.
fn nowhere(context: &Context<'_>, code: &BTreeSet<SpanId>, found: &mut Vec<Objection>) {
    let unit = context.post;
    for id in code {
        for (_, entry) in unit.entries_of(*id) {
            let travels = unit.spans.get(*entry).and_then(|span| unit.role_of(span));
            let lost = unit
                .relocs_of(*entry)
                .iter()
                .any(|r| unit.refers(*entry, r, r.addend) == Target::Nowhere);
            if lost && matches!(travels, Some(Role::Dynamic | Role::Travels)) {
                found.push(Objection::new(
                    unit.spans.get(*id).map_or("", |s| s.name.as_str()),
                    format!(
                        "its entry in {} refers to something that is not known to be a place",
                        section_of(unit, *entry)
                    ),
                    "make the change in a function that has no such entry",
                ));
            }
        }
    }
}

/// Entries about data: those of a new object travel with it, others must be as they were.
fn owned_by_data(context: &Context<'_>, found: &mut Vec<Objection>) {
    let (pre, post) = (context.pre, context.post);
    let entries = |unit: &Unit| -> Vec<(SpanId, SpanId)> {
        let all = unit.spans.iter().enumerate().filter(|(_, span)| span.kind == SpanKind::Entry);
        all.filter(|(_, span)| unit.role_of(span) == Some(Role::Travels))
            .filter_map(|(id, _)| Some((unit.owner(id)?.0, id)))
            .filter(|(owner, _)| unit.spans.get(*owner).is_some_and(|s| s.kind == SpanKind::Data))
            .collect()
    };
    let before = entries(pre);
    for (owner, entry) in entries(post) {
        let Some(pair) = context.pair(owner) else { continue };
        let section = section_of(post, entry);
        let known = before.iter().any(|(was, other)| {
            *was == pair
                && section_of(pre, *other) == section
                && context.same_entry(section, *other, entry)
        });
        if !known {
            let what = post.spans.get(owner).map_or("", |s| s.name.as_str());
            found.push(Objection::new(
                what,
                format!("the running kernel has no such entry in {section} about it"),
                "leave the existing object as it is, and add a new one",
            ));
        }
    }
}

fn section_of(unit: &Unit, span: SpanId) -> &str {
    let section = unit.spans.get(span).and_then(|s| unit.sections.get(s.section));
    section.map_or("", |s| s.name.as_str())
}

/// Code of these that a section refers to.
fn concerned<'u>(unit: &'u Unit, section: &Section, code: &BTreeSet<SpanId>) -> Option<&'u str> {
    section.relocs.iter().find_map(|r| {
        let symbol = unit.symbols.get(r.symbol as usize)?;
        let SymbolPlace::Section(to) = symbol.place else { return None };
        // A table may name any symbol of the section: the place counts.
        let id = unit.span_at(to, symbol.value.checked_add_signed(r.addend)?)?;
        code.contains(&id).then(|| unit.spans.get(id).map_or("", |s| s.name.as_str()))
    })
}

/// Tables whose entries cannot be told apart: they must be as they were, and be about nothing
/// that changed.
fn unclear(context: &Context<'_>, code: &BTreeSet<SpanId>, found: &mut Vec<Objection>) {
    let names = |unit: &Unit| -> BTreeSet<String> {
        unit.unclear_tables()
            // What the build's tools are told is not part of the kernel.
            .filter(|n| unit.rule(*n).is_some_and(|row| row.role != Role::Annotates))
            .filter_map(|n| unit.sections.get(n).map(|s| s.name.clone()))
            .collect()
    };
    for name in names(context.pre).union(&names(context.post)) {
        let after = named(context.post, name);
        let about = after.iter().find_map(|section| concerned(context.post, section, code));
        let why = match about {
            Some(function) => format!("some of them are about {function}, which changed"),
            None if all_same(context, &named(context.pre, name), &after) => continue,
            None => "they changed".to_owned(),
        };
        let why = format!("the entries of this table cannot be told apart, and {why}");
        found.push(Objection::new(name, why, WAY_OUT));
    }
}

const WAY_OUT: &str = "leave what the section is about out of the patch; a rule for it belongs into \
                       the table of sections (docs/special-sections.md)";

/// Sections that no rule covers: one that refers to new code may be a table about it.
fn unknown(
    context: &Context<'_>,
    code: &BTreeSet<SpanId>,
    diff: &UnitDiff,
    found: &mut Vec<Objection>,
) {
    let (pre, post) = (context.pre, context.post);
    let names = |unit: &Unit| -> BTreeSet<String> {
        unit.unknown_sections().filter_map(|n| Some(unit.sections.get(n)?.name.clone())).collect()
    };
    for name in names(pre).union(&names(post)) {
        let after = named(post, name);
        let about = after.iter().find_map(|section| concerned(post, section, code));
        let new = diff.data_new.iter().find(|id| section_of(post, **id) == name);
        let why = if let Some(function) = about {
            format!("it refers to {function}, which changed")
        } else if let Some(object) = new.and_then(|id| post.spans.get(*id)) {
            format!("{} in it is new", object.name)
        } else if all_same(context, &named(pre, name), &after) {
            continue;
        } else {
            "it changed".to_owned()
        };
        let why = format!("splice does not know this section, and {why}");
        found.push(Objection::new(name, why, WAY_OUT));
    }
}

fn named<'u>(unit: &'u Unit, name: &str) -> Vec<&'u Section> {
    unit.sections.iter().filter(|s| s.name == name).collect()
}
