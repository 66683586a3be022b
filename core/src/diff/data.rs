// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing data: what changed, what is new, and what cannot be changed in a running kernel.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, STB_LOCAL};

use super::compare::{Context, Seen};
use super::home::Home;
use super::{AcceptKind, DiffError, Objection, ReplacedData, UnitDiff, names};
use crate::unit::{Role, Span, SpanId, SpanKind, Target, Unit};

/// Whether a span is in a section that is read only while the kernel or a module starts or stops.
pub fn is_startup(unit: &Unit, span: &Span) -> bool {
    unit.sections.get(span.section).is_some_and(|s| {
        [".init", ".exit", ".meminit", ".con_initcall"].iter().any(|p| s.name.starts_with(p))
    })
}

/// Sections of objects that say where in the source something stands: dynamic debugging (until
/// 5.8 under the second name) and allocations.
pub(super) const LINES: &[&str] = &["__dyndbg", "__verbose", "alloc_tags"];

/// Compares all data.
pub(super) fn compare(context: &Context<'_>, diff: &mut UnitDiff) -> Result<(), DiffError> {
    let post = context.post;
    let referred = referred(context)?;
    let indexed = indexed(post);
    for (id, span) in post.spans.iter().enumerate() {
        if span.kind != SpanKind::Data || (indexed.contains(&id) && !is(&referred, id)) {
            continue;
        }
        match context.pair(id) {
            Some(pre) => paired(context, pre, id, span, diff),
            None => {
                let listed = post.role_of(span) == Some(Role::Listed);
                let expected = is(&referred, id) || listed || is_for_other_units(post, span);
                if !expected && !is_startup(post, span) {
                    diff.refusals.push(unreferred(post, span));
                }
                diff.data_new.push(id);
            }
        }
    }
    unnamed(context, &referred, diff);
    freed(context, diff)
}

/// What is only there for the start, and what runs later refers to it now: the memory of the running
/// kernel's was freed after the start, and that of what is new is freed as soon as the update is loaded
/// (`module_init_section` of kernel/module/main.c). A module's exit code stays, and what runs later may
/// name it.
fn freed(context: &Context<'_>, diff: &mut UnitDiff) -> Result<(), DiffError> {
    let post = context.post;
    let mut found = Vec::new();
    // What goes into the running kernel; all else was there when the start was over.
    let changed = diff.changed.iter().flat_map(|f| f.post_parts.iter().chain([&f.post]));
    let new = diff.new.iter().flat_map(|f| f.post_parts.iter().chain([&f.post]));
    let comes: BTreeSet<SpanId> = changed.chain(new).chain(&diff.data_new).copied().collect();
    for (from, user) in post.spans.iter().enumerate() {
        if user.kind == SpanKind::Entry || is_startup(post, user) {
            continue;
        }
        // What referred to it before takes care of when it may.
        let mut before = BTreeSet::new();
        if let Some(pre) = context.pair(from).filter(|_| comes.contains(&from)) {
            context.to_pre.each(pre, |target| {
                if let Target::Span { id, .. } = target {
                    before.insert(id);
                }
            })?;
        }
        context.to_post.each(from, |target| {
            let Target::Span { id, .. } = target else { return };
            let Some(span) = post.spans.get(id) else { return };
            let section = section_name(post, span);
            if !is_startup(post, span) || section.starts_with(".exit") {
                return;
            }
            let (why, way_out) = match context.pair(id) {
                Some(pre) if before.contains(&pre) || !comes.contains(&from) => return,
                Some(_) => (
                    format!("it is in section {section}, which was freed after the start"),
                    "let what runs later use something of another name, in ordinary memory",
                ),
                None => (
                    format!(
                        "it is new and in section {section}, which is freed as soon as the update is \
                         loaded"
                    ),
                    "put it into ordinary memory: leave out __init, __initdata or __initconst",
                ),
            };
            let why = format!("{why}, and {} refers to it", user.name);
            found.push(Objection::new(&span.name, why, way_out));
        })?;
    }
    diff.refusals.extend(found);
    Ok(())
}

/// For each span of the post unit, whether code or other data refers to it.
fn referred(context: &Context<'_>) -> Result<Vec<bool>, DiffError> {
    let mut referred = vec![false; context.post.spans.len()];
    for id in 0..context.post.spans.len() {
        context.to_post.each(id, |target| {
            if let Target::Span { id: to, .. } = target
                && to != id
                && let Some(flag) = referred.get_mut(to)
            {
                *flag = true;
            }
        })?;
    }
    Ok(referred)
}

/// Objects that the index of the kernel's messages refers to (include/linux/printk.h): they say
/// what is printed where, and if nothing else refers to them, only who reads the index sees them.
fn indexed(unit: &Unit) -> BTreeSet<SpanId> {
    let index = unit.sections.iter().filter(|s| s.name == ".printk_index");
    let targets = index.flat_map(|s| &s.relocs).map(|r| unit.resolve(r.symbol, r.addend));
    targets
        .filter_map(|target| match target {
            Target::Span { id, .. } => Some(id),
            _ => None,
        })
        .collect()
}

fn is(flags: &[bool], id: SpanId) -> bool {
    flags.get(id).copied().unwrap_or(false)
}

pub(super) fn section_name<'u>(unit: &'u Unit, span: &Span) -> &'u str {
    unit.sections.get(span.section).map_or("", |s| s.name.as_str())
}

/// An object that exists before and after.
fn paired(context: &Context<'_>, pre: SpanId, post: SpanId, span: &Span, diff: &mut UnitDiff) {
    let unit = context.post;
    let Some(before) = context.pre.spans.get(pre) else { return };
    let homes = (Home::of(context.pre, before), Home::of(unit, span));
    let same = if LINES.contains(&section_name(unit, span)) {
        // Its strings are relocations, the rest is the line and state.
        before.size == span.size && context.same_relocs(pre, post, &mut Seen::new())
    } else {
        context.same_contents(pre, post, &mut Seen::new())
    };
    let refusal = match (homes_fit(context, (before, span), homes), same) {
        (Err(objection), _) => Some(objection),
        (Ok(()), true) => return,
        (Ok(()), false)
            if before.size == span.size && homes == (Home::Constant, Home::Constant) =>
        {
            let reasons = vec![context.contents_differ((pre, before), (post, span))];
            diff.data_replaced.push(ReplacedData { pre, post, reasons });
            None
        }
        (Ok(()), false) => Some(objection(unit, (before, span), homes)),
    };
    diff.data_changed.push((pre, post));
    diff.refusals.extend(refusal);
}

/// The new code must find the object where, and as, the old code has it.
fn homes_fit(
    context: &Context<'_>,
    (before, span): (&Span, &Span),
    (old, new): (Home, Home),
) -> Result<(), Objection> {
    let why = match (old, new) {
        (Home::Startup, Home::Startup) | (Home::PerCpu, Home::PerCpu) => return Ok(()),
        // What only start-up code uses from now on stays where it is.
        (_, Home::Startup) => return Ok(()),
        (Home::Startup, _) => "it was start-up data, and its memory has been freed",
        (Home::PerCpu, _) => "each processor has a copy of it, and the new code expects only one",
        (_, Home::PerCpu) => {
            "the new code expects a copy for each processor, and there is only one"
        }
        (old, Home::Writable) if old.is_protected() => {
            "the new code may write to it, and it stands in memory that is read-only"
        }
        _ => return Ok(()),
    };
    let sections = (section_name(context.pre, before), section_name(context.post, span));
    Err(Objection::new(
        &span.name,
        format!("it moved from section {} to {}: {why}", sections.0, sections.1),
        "give it another name in the patch, so that it counts as a new object",
    ))
}

/// Why an object whose contents differ is not replaced.
fn objection(unit: &Unit, (before, span): (&Span, &Span), (old, new): (Home, Home)) -> Objection {
    if old == Home::Startup || new == Home::Startup {
        let objection = Objection::new(
            &span.name,
            "it is read only while the kernel or the module starts",
            "if the fix matters after the start, do its work in a hook (docs/hooks.md)",
        );
        return objection.or_accept(AcceptKind::Init, &span.name);
    }
    if before.size != span.size {
        return Objection::new(
            &span.name,
            format!("its size changed from {} to {} bytes", before.size, span.size),
            "keep the object as it is and put what is new into a shadow variable (docs/hooks.md) or a new object",
        );
    }
    let (why, way_out) = match old {
        Home::PerCpu => (
            "its initial value changed, but each processor has long been using its copy".to_owned(),
            "leave the initial value out of the patch and set every copy in a hook (docs/hooks.md)",
        ),
        Home::AfterInit => (
            "its initial value changed, but the start of the kernel or the module may have set \
             it, and it is read-only since"
                .to_owned(),
            "leave the initial value out of the patch, and have the code read a new object",
        ),
        Home::Table => (
            format!(
                "it is part of section {}, which was read as a whole at the start",
                section_name(unit, span)
            ),
            "do in a hook what the reader of that section would do with the new contents",
        ),
        _ => (
            "its initial value changed, but the running kernel has long been using it".to_owned(),
            "leave the initial value out of the patch and set the object in a hook (docs/hooks.md)",
        ),
    };
    Objection::new(&span.name, why, way_out).or_accept(AcceptKind::Data, &span.name)
}

/// Whether an object is one that other units may refer to by its name, in a section that nobody walks.
fn is_for_other_units(unit: &Unit, span: &Span) -> bool {
    let global = span.symbol.and_then(|s| unit.symbols.get(s as usize));
    let name = section_name(unit, span);
    global.is_some_and(|symbol| symbol.binding != STB_LOCAL.0)
        && [".data.", ".bss.", ".rodata."].iter().any(|place| name.starts_with(place))
}

fn unreferred(unit: &Unit, span: &Span) -> Objection {
    Objection::new(
        &span.name,
        format!(
            "it is new and nothing refers to it, so it must be meant for whoever reads section \
             {}, which a running kernel has done already",
            section_name(unit, span)
        ),
        "register what it describes in a hook (docs/hooks.md)",
    )
}

/// Data without a name that no code refers to must be as it was.
fn unnamed(context: &Context<'_>, referred: &[bool], diff: &mut UnitDiff) {
    let (pre, post) = (context.pre, context.post);
    let of = |unit: &Unit| -> BTreeMap<String, Vec<SpanId>> {
        let mut all: BTreeMap<String, Vec<SpanId>> = BTreeMap::new();
        for (id, span) in unit.spans.iter().enumerate() {
            let Some(section) = unit.sections.get(span.section) else { continue };
            let data = section.flags & SHF_ALLOC.0 != 0
                && section.flags & SHF_EXECINSTR.0 == 0
                && section.sh_type != SHT_NOBITS.0;
            if span.kind == SpanKind::Anonymous && data && unit.special(span.section).is_none() {
                all.entry(names::base(&section.name).to_owned()).or_default().push(id);
            }
        }
        all
    };
    let before = of(pre);
    for (section, spans) in of(post) {
        for id in spans {
            if is(referred, id) {
                continue;
            }
            let known = before.get(&section).is_some_and(|all| {
                all.iter().any(|p| context.same_contents(*p, id, &mut Seen::new()))
            });
            if !known {
                diff.refusals.push(Objection::new(
                    &section,
                    "the section holds data without a name that differs",
                    "this patch cannot be applied to a running kernel as it is; do its work in a \
                     hook",
                ));
            }
        }
    }
}
