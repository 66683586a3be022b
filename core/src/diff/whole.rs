// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether a function can be replaced as a whole: it is entered at its start only, and does not run
//! on into what follows it. Compiled code is like that; assembly need not be.

use object::elf::{STB_LOCAL, STT_FUNC};

use super::Objection;
use crate::arch::Arch;
use crate::unit::{SpanId, SymbolPlace, Unit};

/// What stands against replacing a function with its parts.
pub(super) fn objections(
    arch: &dyn Arch,
    unit: &Unit,
    function: SpanId,
    parts: &[SpanId],
) -> Vec<Objection> {
    let mut all = Vec::new();
    for id in std::iter::once(&function).chain(parts) {
        all.extend(inner_entry(unit, *id));
        all.extend(runs_on(arch, unit, *id, function));
    }
    all
}

/// A symbol within the function that others can enter it by.
fn inner_entry(unit: &Unit, id: SpanId) -> Option<Objection> {
    let span = unit.spans.get(id)?;
    let inside = span.offset + 1..span.offset.saturating_add(span.size);
    let entry = unit.symbols.iter().find(|s| {
        s.place == SymbolPlace::Section(span.section)
            && inside.contains(&s.value)
            && (s.kind == STT_FUNC.0 || s.binding != STB_LOCAL.0)
    })?;
    let at = entry.value.saturating_sub(span.offset);
    Some(Objection::new(
        &span.name,
        format!(
            "{} is another entry into it, at {at:#x}, that would lead to the old code",
            entry.name
        ),
        "make the change in code that has one entry",
    ))
}

/// What follows a function in its section and is reached by running on. Padding with a name of its
/// own runs on into its function, which is replaced with it.
fn runs_on(arch: &dyn Arch, unit: &Unit, id: SpanId, function: SpanId) -> Option<Objection> {
    let span = unit.spans.get(id)?;
    let next = unit.spans.get(id + 1).filter(|next| next.section == span.section)?;
    if id != function && id + 1 == function {
        return None;
    }
    let on = unit.with_code(arch, id, |code| arch.diff().runs_on(code));
    (on != Ok(false)).then(|| {
        Objection::new(
            &span.name,
            format!("its code runs on into {}, which follows it", next.name),
            "make the change in code that ends where it is left",
        )
    })
}
