// SPDX-License-Identifier: GPL-2.0-or-later
//! Where in the running kernel a function of a unit may be, and how it compares at each place.

use super::refer::{Outcome, References};
use super::{Refusal, Snapshot};
use crate::arch::{
    Arch, KernelView, Learned, Mismatch, Partial, RuleCount, RunCode, RunMatch, check,
};
use crate::unit::{SpanId, Unit};

/// A place at which every byte of a function is explained.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Run-time address.
    pub(super) address: u64,
    /// Symbol values that it gives.
    pub(super) learned: Vec<Learned>,
    /// Parts of symbol values that it gives.
    pub(super) partial: Vec<Partial>,
    /// Rules that were used.
    pub(super) rules: Vec<RuleCount>,
    /// Offset ranges that the kernel may rewrite.
    pub(super) live: Vec<(u64, u64)>,
    /// Number of references to memory that the snapshot does not hold.
    pub(super) unread: usize,
}

/// What was found for one function.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// The function's span.
    pub(super) span: SpanId,
    /// Places where it matches.
    pub(super) places: Vec<Place>,
    /// The place that came nearest, where it matches nowhere.
    pub(super) nearest: Option<(u64, Mismatch)>,
}

/// Whether the running kernel keeps that section's code: what belongs to start-up or to unloading
/// is freed or never linked in. (`.meminit` is kept if memory can be plugged in.)
pub(super) fn is_kept(section: &str) -> bool {
    const GONE: [&str; 4] = [".init", ".exit", ".discard", ".altinstr_replacement"];
    !GONE.iter().any(|gone| section.starts_with(gone))
}

/// Compares one function at each place where the kernel has a symbol of its name.
pub(super) fn candidates(
    arch: &dyn Arch,
    unit: &Unit,
    span: SpanId,
    target: &str,
    snapshot: &Snapshot,
) -> Result<Candidates, Refusal> {
    let mut found = Candidates { span, places: Vec::new(), nearest: None };
    let Some(function) = unit.spans.get(span) else { return Ok(found) };
    let mut addresses: Vec<u64> = snapshot
        .symbols
        .named(&function.name)
        .filter(|s| s.is_code() && s.module == target)
        .map(|s| s.address)
        .filter(|address| snapshot.is_text(*address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in addresses {
        at((arch, unit, target, snapshot), &mut found, address)?;
    }
    Ok(found)
}

/// Compares the function with what stands at an address, and adds the outcome to what was found.
pub(super) fn at(
    (arch, unit, target, snapshot): (&dyn Arch, &Unit, &str, &Snapshot),
    found: &mut Candidates,
    address: u64,
) -> Result<(), Refusal> {
    let span = found.span;
    let Some(function) = unit.spans.get(span) else { return Ok(()) };
    let mut bytes = vec![0; usize::try_from(function.size).unwrap_or(0)];
    if !snapshot.read(address, &mut bytes) {
        return Err(Refusal::Unreadable { function: function.name.clone(), address });
    }
    let section = unit
        .section_symbol(function.section)
        .map(|(key, _)| (key, address.wrapping_sub(function.offset)));
    let run = RunCode { address, bytes: &bytes, section };
    let references = References { arch, unit, target, snapshot };
    let (outcome, unread) = unit
        .with_code(arch, span, |code| {
            let outcome = arch.diff().match_running(code, &run, snapshot)?;
            check::run_match(arch, code, &outcome)?;
            let RunMatch::Matched { learned, .. } = &outcome else { return Ok((outcome, 0)) };
            match references.follow(span, code, &run, learned)? {
                Outcome::Right { unread } => Ok((outcome, unread)),
                Outcome::Wrong(mismatch) => Ok((RunMatch::Refused(mismatch), 0)),
            }
        })
        .map_err(Refusal::Unit)?
        .map_err(|source| Refusal::Backend { unit: unit.name.clone(), source })?;
    match outcome {
        RunMatch::Matched { learned, partial, rules, live } => {
            found.places.push(Place { address, learned, partial, rules, live, unread });
        }
        RunMatch::Refused(mismatch) => {
            let nearer = found.nearest.as_ref().is_none_or(|(_, m)| m.offset < mismatch.offset);
            if nearer {
                found.nearest = Some((address, mismatch));
            }
        }
    }
    Ok(())
}
