// SPDX-License-Identifier: GPL-2.0-or-later
//! Where in the running kernel a function of a unit may be, and how it compares at each place.

use super::refer::{Followed, Outcome, References};
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
    /// The update that has put it there, if one has.
    pub(super) update: Option<String>,
    /// Symbol values that it gives.
    pub(super) learned: Vec<Learned>,
    /// Parts of symbol values that it gives.
    pub(super) partial: Vec<Partial>,
    /// Rules that were used.
    pub(super) rules: Vec<RuleCount>,
    /// Offset ranges that the kernel may rewrite.
    pub(super) live: Vec<(u64, u64)>,
    /// Where its references lead.
    pub(super) followed: Followed,
}

/// A place of the function's name at which some byte is not explained.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// Run-time address.
    pub(super) address: u64,
    /// The first such byte.
    pub(super) mismatch: Mismatch,
    /// How many bytes are as in the unit: what was changed there is all but the same, what only has
    /// the name is not.
    alike: usize,
}

/// What was found for one function.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// The function's span.
    pub(super) span: SpanId,
    /// Places where it matches.
    pub(super) places: Vec<Place>,
    /// The places where it does not.
    pub(super) refused: Vec<Refused>,
    /// The update that has replaced a function of this name with other code, if one has.
    pub(super) update: Option<String>,
}

impl Candidates {
    pub(super) fn new(span: SpanId) -> Candidates {
        Candidates { span, places: Vec::new(), refused: Vec::new(), update: None }
    }

    /// The places where it does not match, what is most like the unit's code first.
    pub(super) fn nearest(&self) -> Vec<&Refused> {
        let mut all: Vec<&Refused> = self.refused.iter().collect();
        all.sort_by_key(|r| std::cmp::Reverse((r.alike, r.mismatch.offset)));
        all
    }
}

/// Whether the running kernel keeps that section's code: what belongs to start-up or to unloading
/// is freed or never linked in. (`.meminit` is kept if memory can be plugged in.)
pub(super) fn is_kept(section: &str) -> bool {
    const GONE: [&str; 4] = [".init", ".exit", ".discard", ".altinstr_replacement"];
    !GONE.iter().any(|gone| section.starts_with(gone))
}

/// Compares one function at each place where the kernel has a symbol of its name. What applied updates
/// have brought is looked at only if the unit was built on such: `stacked`.
pub(super) fn candidates(
    arch: &dyn Arch,
    unit: &Unit,
    span: SpanId,
    (target, stacked): (&str, bool),
    snapshot: &Snapshot,
) -> Result<Candidates, Refusal> {
    let mut found = Candidates::new(span);
    let Some(function) = unit.spans.get(span) else { return Ok(found) };
    let entries = |name: &str| -> Vec<u64> {
        snapshot
            .symbols
            .named(name)
            .filter(|s| s.is_code() && s.module == target)
            .map(|s| s.address)
            .filter(|address| snapshot.is_text(*address))
            .collect()
    };
    let stack = &snapshot.stack;
    let trampoline = arch.trampoline();
    let len = trampoline.template().bytes.len();
    let leads = |site: u64| {
        let mut bytes = vec![0; len];
        if snapshot.read(site, &mut bytes) { trampoline.recognise(&bytes, site) } else { None }
    };
    let mut known: Vec<(u64, Option<&str>)> =
        entries(&function.name).into_iter().map(|entry| (entry, None)).collect();
    if stacked {
        let brought = stack.brought(&snapshot.symbols, &function.name, entries).into_iter();
        known.extend(brought.map(|(entry, update)| (entry, Some(update))));
    }
    // What one update has brought another may have replaced.
    let mut places: Vec<(u64, Option<&str>)> = Vec::new();
    for (entry, update) in known {
        match stack.now(leads, entry) {
            None => places.push((entry, update)),
            Some(now) if stacked => places.push((now.address, Some(now.update))),
            Some(now) => found.update = Some(now.update.to_owned()),
        }
    }
    places.sort_unstable();
    places.dedup();
    for (address, update) in places {
        let before = found.places.len();
        at((arch, unit, target, snapshot), &mut found, address)?;
        for place in found.places.iter_mut().skip(before) {
            place.update = update.map(str::to_owned);
        }
        if found.places.len() == before && stack.has_replaced(address) {
            found.update = update.map(str::to_owned);
        }
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
    let (outcome, followed) = unit
        .with_code(arch, span, |code| {
            let outcome = arch.diff().match_running(code, &run, snapshot)?;
            check::run_match(arch, code, &outcome)?;
            let RunMatch::Matched { learned, .. } = &outcome else {
                return Ok((outcome, Followed::default()));
            };
            match references.follow(span, code, &run, learned)? {
                Outcome::Right(followed) => Ok((outcome, followed)),
                Outcome::Wrong(mismatch) => Ok((RunMatch::Refused(mismatch), Followed::default())),
            }
        })
        .map_err(Refusal::Unit)?
        .map_err(|source| Refusal::Backend { unit: unit.name.clone(), source })?;
    match outcome {
        RunMatch::Matched { learned, partial, rules, live } => {
            found.places.push(Place {
                address,
                update: None,
                learned,
                partial,
                rules,
                live,
                followed,
            });
        }
        RunMatch::Refused(mismatch) => {
            let pairs = unit.bytes_of(function).iter().zip(&bytes);
            let alike = pairs.filter(|(ours, run)| ours == run).count();
            found.refused.push(Refused { address, mismatch, alike });
        }
    }
    Ok(())
}
