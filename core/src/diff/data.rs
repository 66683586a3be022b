// SPDX-License-Identifier: GPL-2.0-or-later
//! Comparing data: what changed, what is new, and what cannot be changed in a running kernel.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, SHT_NOBITS};

use super::compare::{Context, Seen};
use super::{AcceptKind, DiffError, Objection, UnitDiff, names};
use crate::unit::{Role, Span, SpanId, SpanKind, Target, Unit};

/// Sections that are read only while the kernel or a module starts or stops.
pub(super) fn is_startup(unit: &Unit, span: &Span) -> bool {
    unit.sections.get(span.section).is_some_and(|s| {
        [".init", ".exit", ".meminit", ".con_initcall"].iter().any(|p| s.name.starts_with(p))
    })
}

/// Sections of objects that say where in the source something stands: dynamic debugging (until
/// 5.8 under the second name) and allocations.
const LINES: &[&str] = &["__dyndbg", "__verbose", "alloc_tags"];

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
                if !is(&referred, id) && !is_startup(post, span) && !listed {
                    diff.refusals.push(unreferred(post, span));
                }
                diff.data_new.push(id);
            }
        }
    }
    unnamed(context, &referred, diff);
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

fn section_name<'u>(unit: &'u Unit, span: &Span) -> &'u str {
    unit.sections.get(span.section).map_or("", |s| s.name.as_str())
}

/// An object that exists before and after.
fn paired(context: &Context<'_>, pre: SpanId, post: SpanId, span: &Span, diff: &mut UnitDiff) {
    let unit = context.post;
    let Some(before) = context.pre.spans.get(pre) else { return };
    let same = if LINES.contains(&section_name(unit, span)) {
        // Its strings are relocations, the rest is the line and state.
        before.size == span.size && context.same_relocs(pre, post, &mut Seen::new())
    } else {
        context.same_contents(pre, post, &mut Seen::new())
    };
    if same {
        return;
    }
    diff.data_changed.push((pre, post));
    if is_startup(unit, span) {
        let objection = Objection::new(
            &span.name,
            "it is read only while the kernel or the module starts",
            "if the fix matters after the start, do its work in a hook",
        );
        diff.refusals.push(objection.or_accept(AcceptKind::Init, &span.name));
        return;
    }
    let writable = unit.sections.get(span.section).is_some_and(|s| s.flags & SHF_WRITE.0 != 0);
    let (why, way_out) = if before.size != span.size {
        (
            format!("its size changed from {} to {} bytes", before.size, span.size),
            "keep the object as it is and put what is new into a shadow variable or a new object",
        )
    } else if writable {
        (
            "its initial value changed, but the running kernel has long been using it".into(),
            "leave the initial value out of the patch and set the object in a hook",
        )
    } else {
        (
            "it is constant data that exists in the running kernel, and its contents changed"
                .into(),
            "change the code that reads it instead of the data",
        )
    };
    diff.refusals.push(Objection::new(&span.name, why, way_out));
}

fn unreferred(unit: &Unit, span: &Span) -> Objection {
    Objection::new(
        &span.name,
        format!(
            "it is new and nothing refers to it, so it must be meant for whoever reads section \
             {}, which a running kernel has done already",
            section_name(unit, span)
        ),
        "register what it describes in a hook",
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
