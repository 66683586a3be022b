// SPDX-License-Identifier: GPL-2.0-or-later
//! What symbol names say: parts of functions, and numbers that a compiler appends.

use std::collections::BTreeMap;

use crate::unit::{SpanId, SpanKind, Unit};

/// Which functions of a unit are split-off parts of which.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parents: BTreeMap<SpanId, SpanId>,
    children: BTreeMap<SpanId, Vec<SpanId>>,
}

impl Parts {
    /// Whether the span is a part of another function.
    pub(super) fn is_part(&self, span: SpanId) -> bool {
        self.parents.contains_key(&span)
    }

    /// The parts of a function.
    pub(super) fn of(&self, span: SpanId) -> &[SpanId] {
        self.children.get(&span).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Finds the parts of all functions of a unit.
pub(super) fn parts(unit: &Unit) -> Parts {
    let mut by_name: BTreeMap<&str, SpanId> = BTreeMap::new();
    for (id, span) in unit.spans.iter().enumerate() {
        if span.kind == SpanKind::Function {
            by_name.insert(&span.name, id);
        }
    }
    let mut parts = Parts::default();
    for (name, id) in &by_name {
        if let Some(parent) = parent_name(name).and_then(|p| by_name.get(p)) {
            parts.parents.insert(*id, *parent);
            parts.children.entry(*parent).or_default().push(*id);
        }
    }
    parts
}

/// The function that a split-off part belongs to: `f` for `f.cold`, `f.cold.3`, and for the
/// prefixes that stand for the padding or type hash before `f`.
pub(crate) fn parent_name(name: &str) -> Option<&str> {
    for prefix in ["__pfx_", "__cfi_"] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Some(rest);
        }
    }
    let (start, end) = name.rsplit_once(".cold")?;
    let numbered = end.strip_prefix('.').is_some_and(is_number);
    (end.is_empty() || numbered).then_some(start)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A name without the numbers that the compiler appends to tell namesakes apart: `x` for `x.12`,
/// `f.isra` for `f.isra.0`, `__UNIQUE_ID_y` for `__UNIQUE_ID_y123`.
pub(super) fn base(name: &str) -> &str {
    let mut base = name;
    while let Some((start, end)) = base.rsplit_once('.') {
        if !is_number(end) || start.is_empty() {
            break;
        }
        base = start;
    }
    if variable(base).starts_with("__UNIQUE_ID_") {
        base = base.trim_end_matches(|c: char| c.is_ascii_digit());
    }
    base
}

/// What a variable is called in the source: one compiler puts the function's name before that of a
/// static variable (`f.x`), the other a number behind it, which [`base`] takes off.
fn variable(base: &str) -> &str {
    base.rsplit_once('.').map_or(base, |(_, variable)| variable)
}

/// Whether a name is that of a static variable with its function's before it.
pub(super) fn is_local_variable(name: &str) -> bool {
    let base = base(name);
    variable(base) != base
}

/// The function of the source that code of this name was made of: `f` for `f.isra.0.cold`.
pub(super) fn root(name: &str) -> &str {
    const ENDINGS: [&str; 5] = [".cold", ".part", ".isra", ".constprop", ".llvm"];
    let mut root = base(name);
    while let Some(shorter) = ENDINGS.iter().find_map(|ending| root.strip_suffix(ending)) {
        root = base(shorter);
    }
    root
}

/// Objects that the kernel's macros make for bookkeeping: it does not matter which is which, as
/// long as the place that uses it is the same.
pub(super) fn is_bookkeeping(base: &str) -> bool {
    const NAMES: [&str; 10] = [
        "__already_done",
        "__print_once",
        "__warned",
        "__key",
        "descriptor",
        "_rs",
        "___tp_str",
        "__section_unlikely",
        "_entry",
        "_entry_ptr",
    ];
    let variable = variable(base);
    NAMES.contains(&variable) || variable.starts_with("__UNIQUE_ID_")
}

/// Constants that the compiler makes: the strings with a function's name, tables instead of a
/// `switch`, arrays to copy from. One is the other if it says the same, and one that was not there
/// before is new.
pub(super) fn is_compilers_constant(base: &str) -> bool {
    is_function_name(base)
        || ["CSWTCH", "C"].contains(&base)
        || base.starts_with("switch.table.")
        || base.starts_with("__const.")
}

/// The strings with a function's name.
pub(super) fn is_function_name(base: &str) -> bool {
    let (name, _) = base.split_once('.').unwrap_or((base, ""));
    ["__func__", "__FUNCTION__", "__PRETTY_FUNCTION__"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_name_their_parents() {
        assert_eq!(parent_name("f.cold"), Some("f"));
        assert_eq!(parent_name("f.isra.0.cold"), Some("f.isra.0"));
        assert_eq!(parent_name("f.cold.17"), Some("f"));
        assert_eq!(parent_name("__pfx_f"), Some("f"));
        for whole in ["f", "f.part.0", "f.coldest", "f.cold.x", "cold"] {
            assert_eq!(parent_name(whole), None, "{whole}");
        }
    }

    #[test]
    fn roots_are_what_the_source_calls_them() {
        for name in ["f", "f.cold", "f.part.0.isra.1.cold.2", "f.constprop.0"] {
            assert_eq!(root(name), "f", "{name}");
        }
        assert_eq!(root("f.x"), "f.x");
    }

    #[test]
    fn what_macros_and_compilers_make_is_known() {
        for name in ["__already_done", "f.__already_done", "f.__UNIQUE_ID_x", "__UNIQUE_ID_x"] {
            assert!(is_bookkeeping(name), "{name}");
        }
        assert!(!is_bookkeeping("__already_done.f"));
        for name in ["__func__", "__func__.f", "CSWTCH", "switch.table.f"] {
            assert!(is_compilers_constant(name), "{name}");
        }
        for name in ["f.C", "f.__func__", "C1", "count"] {
            assert!(!is_compilers_constant(name), "{name}");
        }
    }

    #[test]
    fn numbers_are_taken_off() {
        assert_eq!(base("x.12"), "x");
        assert_eq!(base("f.isra.0"), "f.isra");
        assert_eq!(base("f.part.0.constprop.1"), "f.part.0.constprop");
        assert_eq!(base("__UNIQUE_ID_quirk123"), "__UNIQUE_ID_quirk");
        assert_eq!(base("f.__UNIQUE_ID_y123"), "f.__UNIQUE_ID_y");
        assert_eq!(base("a86.y"), "a86.y");
        assert_eq!(base("plain"), "plain");
    }
}
