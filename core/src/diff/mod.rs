// SPDX-License-Identifier: GPL-2.0-or-later
//! The differ: which functions and data of a unit changed, and why.
//!
//! Spans of the two units are paired ([`pair`]), functions are compared under that pairing
//! ([`compare`]), and so is data ([`data`]). Bias: two spans are the same only if that is shown;
//! what cannot be judged becomes a refusal, never "same".

mod compare;
mod contents;
mod data;
mod home;
mod hooks;
mod lines;
mod names;
mod namesakes;
mod objection;
mod pair;
mod report;
mod tables;
mod targets;
mod uses;
mod whole;

use serde::Serialize;

use crate::arch::Arch;
use crate::unit::{Span, SpanId, SpanKind, Unit, UnitError};
use crate::update::Hook;
use lines::Lines;
use targets::Targets;

pub use contents::Held;
pub use data::is_startup;
pub(crate) use names::parent_name;
pub use objection::{Accept, AcceptKind, Objection};
pub use report::{ChangedItem, DataReport, DiffReport, FunctionsReport, VERSION, Verdict, report};

/// Why two units cannot be compared at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A unit is no good.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The backend could not answer.
    #[error("{unit}: {source}")]
    Arch {
        /// The unit.
        unit: String,
        /// The backend's error.
        #[source]
        source: crate::arch::ArchError,
    },
}

/// A function that the compiler has put into another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Inlined {
    /// Its name.
    pub name: String,
    /// The file that it is in; empty if that is not known.
    pub file: String,
}

impl std::fmt::Display for Inlined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.file.as_str() {
            "" => f.write_str(&self.name),
            file => write!(f, "{} from {file}", self.name),
        }
    }
}

/// Why a function counts as changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Reason {
    /// Its own instructions differ.
    Code {
        /// The function or part.
        name: String,
        /// Offset of the first instruction that differs, in bytes.
        offset: u64,
        /// The same in the code after.
        post_offset: u64,
        /// That instruction before.
        pre: String,
        /// That instruction after.
        post: String,
        /// The inlined function that it is from, before and after, if that is known.
        within: Option<Inlined>,
    },
    /// It refers to something else than before.
    Refers {
        /// The function or part.
        name: String,
        /// Offset of the reference, in bytes.
        offset: u64,
        /// What it referred to.
        pre: String,
        /// What it refers to now.
        post: String,
        /// The inlined function that it is from, before and after, if that is known.
        within: Option<Inlined>,
    },
    /// Its entries in a special section differ.
    Entries {
        /// The section.
        section: String,
    },
    /// What a data object holds differs.
    Contents {
        /// The object.
        name: String,
        /// Offset of the first place that differs, in bytes.
        offset: u64,
        /// What stood there.
        pre: Held,
        /// What stands there now.
        post: Held,
        /// How many other places differ.
        more: usize,
    },
    /// A split-off part came or went.
    Part {
        /// The part.
        name: String,
        /// Whether it is new.
        new: bool,
    },
    /// A line number differs, and nothing else: ignored.
    Line {
        /// The line before.
        pre: u64,
        /// The line after.
        post: u64,
    },
    /// A function that changed is inlined in it.
    Inlined(Inlined),
    /// It did not exist before.
    New,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = |within: &Option<Inlined>| {
            within.as_ref().map_or_else(String::new, |inlined| format!(", in inlined {inlined}"))
        };
        let or_end = |s: &str| if s.is_empty() { "its end".to_owned() } else { format!("`{s}`") };
        match self {
            Reason::Code { name, offset, pre, post, within, .. } => {
                let (pre, post) = (or_end(pre), or_end(post));
                write!(f, "code of {name} differs at {offset:#x}: {pre} → {post}{}", place(within))
            }
            Reason::Refers { name, offset, pre, post, within } => {
                let place = place(within);
                write!(f, "{name} refers at {offset:#x} to {post}, before to {pre}{place}")
            }
            Reason::Entries { section } => write!(f, "its entries in {section} differ"),
            Reason::Contents { name, offset, pre, post, more } => {
                write!(f, "data of {name} differs at offset {offset:#x}: ")?;
                post.instead_of(pre, f)?;
                match more {
                    0 => Ok(()),
                    1 => f.write_str("; and at one other place"),
                    n => write!(f, "; and at {n} other places"),
                }
            }
            Reason::Part { name, new: true } => write!(f, "part {name} is new"),
            Reason::Part { name, new: false } => write!(f, "part {name} is gone"),
            Reason::Line { pre, post } => {
                write!(f, "line number only (ignored): {pre} → {post}")
            }
            Reason::Inlined(inlined) => write!(f, "inlined {inlined}"),
            Reason::New => f.write_str("new"),
        }
    }
}

/// A function that exists before and after, and differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFunction {
    /// Span in the pre unit.
    pub pre: SpanId,
    /// Span in the post unit.
    pub post: SpanId,
    /// Split-off parts in the pre unit.
    pub pre_parts: Vec<SpanId>,
    /// Split-off parts in the post unit.
    pub post_parts: Vec<SpanId>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// A function that exists only after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFunction {
    /// Span in the post unit.
    pub post: SpanId,
    /// Split-off parts in the post unit.
    pub post_parts: Vec<SpanId>,
    /// Why it counts as new.
    pub reasons: Vec<Reason>,
}

/// A constant data object whose contents differ and are replaced where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedData {
    /// Span in the pre unit.
    pub pre: SpanId,
    /// Span in the post unit.
    pub post: SpanId,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// How two units differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitDiff {
    /// For each span of the post unit, its pair in the pre unit.
    pub pairs: Vec<Option<SpanId>>,
    /// Functions that differ.
    pub changed: Vec<ChangedFunction>,
    /// Functions that differ by line numbers only, and stay as they are.
    pub ignored: Vec<ChangedFunction>,
    /// Functions that are new.
    pub new: Vec<NewFunction>,
    /// Functions of the pre unit that are gone.
    pub removed: Vec<SpanId>,
    /// Data objects whose contents differ: pre and post span.
    pub data_changed: Vec<(SpanId, SpanId)>,
    /// Those of them that are replaced in the running kernel.
    pub data_replaced: Vec<ReplacedData>,
    /// Data objects that are new.
    pub data_new: Vec<SpanId>,
    /// Those of them that name a hook; neither unit nor link is known yet.
    pub hooks: Vec<(SpanId, Hook)>,
    /// Those of them that declare a shadow variable.
    pub shadows: Vec<SpanId>,
    /// What stands against it.
    pub refusals: Vec<Objection>,
}

impl UnitDiff {
    /// Whether something would be put into a running kernel: code, or constants in place.
    pub fn has_effect(&self) -> bool {
        self.replaces() || !self.new.is_empty()
    }

    /// Whether something of a running kernel would be replaced, or a hook be called, so that new code
    /// can be reached.
    pub fn replaces(&self) -> bool {
        !(self.changed.is_empty() && self.data_replaced.is_empty() && self.hooks.is_empty())
    }

    /// Whether nothing differs that a running kernel would notice.
    pub fn is_unchanged(&self) -> bool {
        self.changed.is_empty()
            && self.new.is_empty()
            && self.hooks.is_empty()
            && self.data_changed.is_empty()
            && self.refusals.is_empty()
    }
}

/// Compares two builds of one unit.
pub fn diff_units(arch: &dyn Arch, pre: &Unit, post: &Unit) -> Result<UnitDiff, DiffError> {
    let (to_pre, to_post) = (Targets::new(arch, pre), Targets::new(arch, post));
    let pairing = pair::pair(&to_pre, &to_post)?;
    let mut diff = UnitDiff { refusals: pairing.objections, ..UnitDiff::default() };
    let context = compare::Context::new(arch, &to_pre, &to_post, &pairing.pairs);
    functions(&context, &mut diff)?;
    data::compare(&context, &mut diff)?;
    tables::compare(&context, &mut diff);
    hooks::find(&context, &mut diff);
    diff.pairs = pairing.pairs;
    diff.refusals.sort();
    diff.refusals.dedup();
    Ok(diff)
}

/// When a start-up function runs. A module's exit code waits for the module to go, and while an update
/// of it is applied it cannot.
fn when(unit: &Unit, span: &Span) -> &'static str {
    match unit.sections.get(span.section) {
        Some(section) if section.name.starts_with(".exit") => {
            "it runs only when its module is unloaded, which no patched module can be"
        }
        _ => "it runs only while the kernel or the module starts",
    }
}

/// A pair of functions with their parts, compared.
struct Compared<'a> {
    function: ChangedFunction,
    /// Constants that are all that differs, if there are no reasons.
    candidates: Vec<lines::Candidate<'a>>,
    /// Line numbers in entries about it.
    known: Vec<lines::Known<'a>>,
}

/// Compares all functions, each with its split-off parts.
fn functions<'a>(context: &compare::Context<'a>, diff: &mut UnitDiff) -> Result<(), DiffError> {
    let (pre, post) = (context.pre, context.post);
    let pre_parts = names::parts(pre);
    let post_parts = names::parts(post);
    let mut kept = vec![false; pre.spans.len()];
    let mut compared = Vec::new();
    let mut lines = Lines::default();
    for (id, span) in post.spans.iter().enumerate() {
        if span.kind != SpanKind::Function || post_parts.is_part(id) {
            continue;
        }
        let parts = post_parts.of(id);
        let Some(before) = context.pair(id) else {
            if !data::is_startup(post, span) {
                diff.new.push(NewFunction {
                    post: id,
                    post_parts: parts.to_vec(),
                    reasons: vec![Reason::New],
                });
            }
            continue;
        };
        if let Some(kept) = kept.get_mut(before) {
            *kept = true;
        }
        diff.refusals.extend(left_the_start(context, before, span));
        let one = whole_function(context, (before, pre_parts.of(before)), (id, parts))?;
        if one.function.reasons.is_empty() {
            lines.know(&one.known);
            lines.suppose(&one.candidates);
        }
        compared.push(one);
    }
    // Whether a constant is a line number shows when all of them are known.
    for Compared { mut function, candidates, known } in compared {
        if function.reasons.is_empty() && !lines.are(&candidates, &known) {
            function.reasons.extend(candidates.first().map(|c| c.otherwise.clone()));
        }
        if !function.reasons.is_empty() {
            changed(context, function, diff);
            continue;
        }
        let moved = candidates.iter().map(|c| (c.pre, c.post));
        let moved = moved.chain(known.iter().map(|(_, pre, post)| (*pre, *post)));
        function.reasons = moved
            .filter(|(pre, post)| pre != post)
            .map(|(pre, post)| Reason::Line { pre, post })
            .collect();
        if !function.reasons.is_empty() {
            diff.ignored.push(function);
        }
    }
    diff.removed = pre
        .functions()
        .filter(|id| !pre_parts.is_part(*id) && !kept.get(*id).copied().unwrap_or(false))
        .collect();
    Ok(())
}

/// A function that was only there for the start and is to stay from now on: the running kernel has it
/// no more, and whatever calls it would jump into freed memory.
fn left_the_start(
    context: &compare::Context<'_>,
    before: SpanId,
    span: &Span,
) -> Option<Objection> {
    let (pre, post) = (context.pre, context.post);
    let old = pre.spans.get(before).filter(|old| data::is_startup(pre, old))?;
    if data::is_startup(post, span) {
        return None;
    }
    Some(Objection::new(
        &span.name,
        format!(
            "it moved from section {} to {}: {}, so the running kernel does not have it",
            data::section_name(pre, old),
            data::section_name(post, span),
            when(pre, old)
        ),
        "give it another name in the patch, and let what runs later call that",
    ))
}

/// Compares a function and its parts.
fn whole_function<'a>(
    context: &compare::Context<'a>,
    (before, before_parts): (SpanId, &[SpanId]),
    (id, parts): (SpanId, &[SpanId]),
) -> Result<Compared<'a>, DiffError> {
    let name =
        |unit: &Unit, id: SpanId| unit.spans.get(id).map_or_else(String::new, |s| s.name.clone());
    let mut candidates = Vec::new();
    let mut reasons = context.function(before, id, &mut candidates)?;
    let mut known = lines::of_entries(context, before, id);
    for part in parts {
        match context.pair(*part).filter(|p| before_parts.contains(p)) {
            Some(other) => {
                reasons.extend(context.function(other, *part, &mut candidates)?);
                known.extend(lines::of_entries(context, other, *part));
            }
            None => reasons.push(Reason::Part { name: name(context.post, *part), new: true }),
        }
    }
    for part in before_parts {
        if !parts.iter().any(|p| context.pair(*p) == Some(*part)) {
            reasons.push(Reason::Part { name: name(context.pre, *part), new: false });
        }
    }
    let function = ChangedFunction {
        pre: before,
        post: id,
        pre_parts: before_parts.to_vec(),
        post_parts: parts.to_vec(),
        reasons,
    };
    Ok(Compared { function, candidates, known })
}

/// Adds a changed function, and what stands against replacing it.
fn changed(context: &compare::Context<'_>, function: ChangedFunction, diff: &mut UnitDiff) {
    let (pre, post) = (context.pre, context.post);
    let Some(span) = post.spans.get(function.post) else { return };
    if data::is_startup(post, span) {
        let cause = function.reasons.first().map_or_else(String::new, ToString::to_string);
        let objection = Objection::new(
            &span.name,
            format!("{}, so replacing it now would change nothing ({cause})", when(post, span)),
            "if the fix matters after the start, do its work in a hook (docs/hooks.md)",
        );
        diff.refusals.push(objection.or_accept(AcceptKind::Init, &span.name));
        return;
    }
    let sides =
        [(pre, function.pre, &function.pre_parts), (post, function.post, &function.post_parts)];
    for (unit, id, parts) in sides {
        diff.refusals.extend(whole::objections(context.arch, unit, id, parts));
    }
    diff.changed.push(function);
}
