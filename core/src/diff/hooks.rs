// SPDX-License-Identifier: GPL-2.0-or-later
//! What the author of a patch declares for splice with `kmod/patch.h`: hooks and shadow variables. Each
//! is an object in a section that says what it is.

use super::compare::Context;
use super::data::section_name;
use super::{Objection, UnitDiff};
use crate::update::{Hook, When};

const SHADOW: &str = ".splice.shadow";

/// When the hooks of a section are called, and whether to undo.
fn when(section: &str) -> Option<(When, bool)> {
    Some(match section.strip_prefix(".splice.")? {
        "pre_apply" => (When::Pre, false),
        "check_apply" => (When::Check, false),
        "apply" => (When::Do, false),
        "post_apply" => (When::Post, false),
        "fail_apply" => (When::Fail, false),
        "pre_undo" => (When::Pre, true),
        "check_undo" => (When::Check, true),
        "undo" => (When::Do, true),
        "post_undo" => (When::Post, true),
        "fail_undo" => (When::Fail, true),
        _ => return None,
    })
}

/// Finds what is new among them. What both sides have is an applied update's, which this one is built
/// on: its hooks were called, or will be, by that one.
pub(super) fn find(context: &Context<'_>, diff: &mut UnitDiff) {
    let unit = context.post;
    for id in &diff.data_new {
        let Some(span) = unit.spans.get(*id) else { continue };
        let section = section_name(unit, span);
        if !section.starts_with(".splice.") {
            continue;
        }
        if section == SHADOW {
            diff.shadows.push(*id);
        } else if let Some((when, undo)) = when(section) {
            let mut hook = Hook { name: String::new(), unit: 0, when, undo, link: String::new() };
            let prefix = format!("__splice_{}_", hook.words());
            let name = span.name.strip_prefix(&prefix).unwrap_or(&span.name);
            name.clone_into(&mut hook.name);
            diff.hooks.push((*id, hook));
        } else {
            diff.refusals.push(Objection::new(
                &span.name,
                format!("splice has no hooks of the kind {section}"),
                "use the macros of <splice/patch.h> (docs/hooks.md)",
            ));
        }
    }
    // Compilers put them in any order.
    diff.hooks.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
}
