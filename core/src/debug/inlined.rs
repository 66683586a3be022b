// SPDX-License-Identifier: GPL-2.0-or-later
//! Which inlined functions a function is made of, and which of them a difference is in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gimli::{AttributeValue, UnitOffset, UnitRef, constants as dw};

use super::sections::Sections;
use super::types::{files, reference};
use super::{Budget, DebugError, Reader};
use crate::diff::{ChangedFunction, Inlined, Reason, UnitDiff};
use crate::unit::{SpanId, Unit};

/// How many entries may lead to the one with the name.
const MAX_ORIGINS: usize = 8;

/// What is at an address.
#[derive(Debug, Clone, Default)]
struct Found {
    /// The function that it is in.
    function: Option<Inlined>,
    /// What was inlined at the very address, outermost first.
    here: Vec<Inlined>,
    /// What was inlined anywhere in the function.
    anywhere: BTreeSet<Inlined>,
}

/// An address that is looked for in a compiled unit; functions are named by where their entries are.
struct Wanted {
    address: u64,
    /// Depth of the function that covers it, while its parts are read.
    function: Option<isize>,
    named: Option<u64>,
    /// Depths of the inlined functions that cover it, while their parts are read.
    open: Vec<isize>,
    here: Vec<u64>,
    anywhere: BTreeSet<u64>,
}

/// For each of the addresses what is there.
fn look_up(sections: &Sections, addresses: &[u64]) -> Result<Vec<Found>, DebugError> {
    let dwarf = sections.dwarf();
    let mut budget = sections.budget();
    let mut all = vec![Found::default(); addresses.len()];
    for unit in sections.units(&mut budget)? {
        let unit = unit.unit_ref(&dwarf);
        let mut wanted: Vec<Wanted> = addresses
            .iter()
            .map(|address| Wanted {
                address: *address,
                function: None,
                named: None,
                open: Vec::new(),
                here: Vec::new(),
                anywhere: BTreeSet::new(),
            })
            .collect();
        cover(unit, &mut wanted, &mut budget)?;
        if wanted.iter().all(|w| w.named.is_none()) {
            continue;
        }
        let files = files(unit)?;
        let mut known: BTreeMap<u64, Option<Inlined>> = BTreeMap::new();
        let mut name = |origin: u64| -> Result<Option<Inlined>, DebugError> {
            if let Some(name) = known.get(&origin) {
                return Ok(name.clone());
            }
            let name = named(unit, origin, &files, &mut budget)?;
            known.insert(origin, name.clone());
            Ok(name)
        };
        for (wanted, found) in wanted.iter().zip(&mut all) {
            if let Some(origin) = wanted.named {
                found.function = name(origin)?;
            }
            for origin in &wanted.here {
                found.here.extend(name(*origin)?);
            }
            for origin in &wanted.anywhere {
                found.anywhere.extend(name(*origin)?);
            }
        }
    }
    Ok(all)
}

/// Looks for what covers each address.
fn cover(
    unit: UnitRef<'_, Reader<'_>>,
    wanted: &mut [Wanted],
    budget: &mut Budget,
) -> Result<(), DebugError> {
    let mut entries = unit.entries_raw(None)?;
    let mut attributes = Vec::new();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let at = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        let specs = abbreviation.attributes();
        budget.spend(specs.len().saturating_add(1))?;
        for wanted in wanted.iter_mut() {
            wanted.function = wanted.function.filter(|function| *function < depth);
            while wanted.open.last().is_some_and(|open| *open >= depth) {
                wanted.open.pop();
            }
        }
        let function = abbreviation.tag() == dw::DW_TAG_subprogram;
        let inline = abbreviation.tag() == dw::DW_TAG_inlined_subroutine
            && wanted.iter().any(|wanted| wanted.function.is_some());
        if !function && !inline {
            entries.skip_attributes(specs)?;
            continue;
        }
        budget.spend(wanted.len())?;
        entries.read_attributes(specs, &mut attributes)?;
        let mut place = Ranges::default();
        let mut origin = None;
        for attribute in &attributes {
            match attribute.name() {
                dw::DW_AT_low_pc => place.low = unit.attr_address(attribute.value())?,
                dw::DW_AT_high_pc => {
                    place.high = match attribute.value() {
                        AttributeValue::Udata(size) => {
                            place.relative = true;
                            Some(size)
                        }
                        value => unit.attr_address(value)?,
                    };
                }
                dw::DW_AT_ranges => place.list = Some(attribute.value()),
                dw::DW_AT_abstract_origin => {
                    origin = Some(reference(unit, &attribute.value())?);
                }
                _ => {}
            }
        }
        let ranges = place.all(unit, budget)?;
        budget.spend(ranges.len().saturating_mul(wanted.len()))?;
        for wanted in wanted.iter_mut() {
            let covered = ranges.iter().any(|range| range.contains(&wanted.address));
            if function && covered && wanted.named.is_none() {
                wanted.function = Some(depth);
                wanted.named = Some(at.to_unit_section_offset(&unit.header).0 as u64);
            } else if inline
                && wanted.function.is_some()
                && let Some(origin) = origin
            {
                wanted.anywhere.insert(origin);
                if covered {
                    wanted.open.push(depth);
                    wanted.here.push(origin);
                }
            }
        }
    }
    Ok(())
}

/// The attributes that say which addresses an entry covers.
#[derive(Default)]
struct Ranges<'a> {
    low: Option<u64>,
    high: Option<u64>,
    /// Whether `high` counts from `low`.
    relative: bool,
    list: Option<AttributeValue<Reader<'a>>>,
}

impl<'a> Ranges<'a> {
    fn all(
        &self,
        unit: UnitRef<'_, Reader<'a>>,
        budget: &mut Budget,
    ) -> Result<Vec<Range<u64>>, DebugError> {
        let mut all = Vec::new();
        if let Some(list) = &self.list {
            if let Some(mut ranges) = unit.attr_ranges(*list)? {
                while let Some(range) = ranges.next()? {
                    budget.spend(1)?;
                    all.push(range.begin..range.end);
                }
            }
        } else if let (Some(low), Some(high)) = (self.low, self.high) {
            let end = if self.relative { low.saturating_add(high) } else { high };
            all.push(low..end);
        }
        Ok(all)
    }
}

/// The function that an entry, or the one that it refers to, describes.
fn named(
    unit: UnitRef<'_, Reader<'_>>,
    origin: u64,
    files: &[String],
    budget: &mut Budget,
) -> Result<Option<Inlined>, DebugError> {
    let mut at = origin;
    for _ in 0..MAX_ORIGINS {
        let start = unit.header.offset().0 as u64;
        let Some(offset) = at.checked_sub(start).and_then(|at| usize::try_from(at).ok()) else {
            return Ok(None);
        };
        // An entry of another unit is not looked for.
        let offset = UnitOffset(offset);
        if !offset.is_in_bounds(&unit.header) {
            return Ok(None);
        }
        let entry = unit.entry(offset)?;
        budget.spend(entry.attrs().len())?;
        if let Some(name) = entry.attr_value(dw::DW_AT_name) {
            let file = match entry.attr_value(dw::DW_AT_decl_file) {
                Some(AttributeValue::FileIndex(index)) => usize::try_from(index).ok(),
                _ => None,
            };
            let file = file.and_then(|index| files.get(index)).cloned().unwrap_or_default();
            let name = unit.attr_string(name)?.to_string_lossy().into_owned();
            return Ok(Some(Inlined { name, file }));
        }
        let next = entry
            .attr_value(dw::DW_AT_abstract_origin)
            .or_else(|| entry.attr_value(dw::DW_AT_specification));
        let Some(next) = next else { return Ok(None) };
        at = reference(unit, &next)?;
    }
    Ok(None)
}

/// A build of a unit and its debug information.
pub(super) type Side<'a> = (&'a Unit, &'a Sections);

/// Adds to the reasons of each changed function what was inlined.
///
/// Where the source tells which functions the change touched, those among the inlined ones are the
/// cause. Without it, an inlined function that is reported as changed itself is one; and the first
/// instruction that differs may be from an inlined function, which is told as a place only.
pub(super) fn explain(
    pre: Side<'_>,
    post: Side<'_>,
    touched: &dyn Fn(&Inlined) -> bool,
    diff: &mut UnitDiff,
) -> Result<(), DebugError> {
    // Per function its start, then the places where it differs; on both sides.
    let mut before = Vec::new();
    let mut after = Vec::new();
    let mut asked: Vec<(usize, Option<usize>)> = Vec::new();
    for (number, function) in diff.changed.iter().enumerate() {
        let places =
            function.reasons.iter().enumerate().filter_map(|(index, reason)| match reason {
                Reason::Code { name, offset, post_offset, .. } => {
                    Some((Some(index), name.as_str(), *offset, *post_offset))
                }
                Reason::Refers { name, offset, .. } => {
                    Some((Some(index), name.as_str(), *offset, *offset))
                }
                _ => None,
            });
        let name = post.0.spans.get(function.post).map_or("", |span| span.name.as_str());
        for (index, name, from, to) in std::iter::once((None, name, 0, 0)).chain(places) {
            let (pre_ids, post_ids) = spans_of(function);
            if let (Some(x), Some(y)) =
                (address(pre, &pre_ids, name, from), address(post, &post_ids, name, to))
            {
                before.push(x);
                after.push(y);
                asked.push((number, index));
            }
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let (before, after) = (look_up(pre.1, &before)?, look_up(post.1, &after)?);
    let changed: BTreeSet<Inlined> =
        after.iter().filter_map(|found| found.function.clone()).collect();
    for ((number, index), (x, y)) in asked.into_iter().zip(before.iter().zip(&after)) {
        let Some(function) = diff.changed.get_mut(number) else { continue };
        let own = y.function.as_ref();
        let Some(index) = index else {
            let mut causes: BTreeSet<&Inlined> =
                x.anywhere.union(&y.anywhere).filter(|inlined| touched(inlined)).collect();
            if causes.is_empty() && !own.is_some_and(touched) {
                let all = x.anywhere.intersection(&y.anywhere);
                causes = all.filter(|inlined| changed.contains(*inlined)).collect();
            }
            let causes = causes.into_iter().filter(|inlined| Some(*inlined) != own);
            function.reasons.extend(causes.cloned().map(Reason::Inlined));
            continue;
        };
        let common = x.here.iter().zip(&y.here).take_while(|(x, y)| x == y).last();
        if let (
            Some((_, inlined)),
            Some(Reason::Code { within, .. } | Reason::Refers { within, .. }),
        ) = (common, function.reasons.get_mut(index))
        {
            *within = Some(inlined.clone());
        }
    }
    Ok(())
}

fn spans_of(function: &ChangedFunction) -> (Vec<SpanId>, Vec<SpanId>) {
    let with = |first: SpanId, parts: &[SpanId]| {
        std::iter::once(first).chain(parts.iter().copied()).collect()
    };
    (with(function.pre, &function.pre_parts), with(function.post, &function.post_parts))
}

/// The address of a place in the one of these spans that has that name, or in the first.
fn address((unit, sections): Side<'_>, spans: &[SpanId], name: &str, offset: u64) -> Option<u64> {
    let mut all = spans.iter().filter_map(|id| unit.spans.get(*id));
    let first = all.clone().next();
    let span = all.find(|span| span.name == name).or(first)?;
    sections.address(unit, span.section, span.offset.checked_add(offset)?)
}
