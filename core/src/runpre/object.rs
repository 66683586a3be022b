// SPDX-License-Identifier: GPL-2.0-or-later
//! Proving data: a constant object that is to be replaced must hold what the pre unit says, every
//! byte of it, and its references must lead where those of the code do.

use super::learn::{Fact, Globals, LIST, fact};
use super::report::ObjectReport;
use super::unit::UnitMatch;
use super::{DataMismatch, Refusal, Snapshot};
use crate::arch::{Arch, KernelView};
use crate::unit::{Reloc, Span, SpanId, SpanKind, Target as Leads, Unit};
use crate::update::{DataObject, Target};

/// Proves all objects of a target that the update replaces; those whose place is known come first,
/// since what they refer to may tell the place of others.
pub(super) fn prove(
    arch: &dyn Arch,
    target: &Target,
    pre: &[Unit],
    units: &mut [UnitMatch],
    globals: &mut Globals,
    snapshot: &Snapshot,
) -> Result<Vec<ObjectReport>, Refusal> {
    let mut proven: Vec<Option<ObjectReport>> = vec![None; target.objects.len()];
    loop {
        let mut open = None;
        let mut progress = false;
        for (slot, object) in proven.iter_mut().zip(&target.objects) {
            if slot.is_some() {
                continue;
            }
            let nowhere = || not_found(target, object);
            let unit = pre.get(object.unit as usize).ok_or_else(nowhere)?;
            let matched = units.get_mut(object.unit as usize).ok_or_else(nowhere)?;
            let found =
                Object::new(arch, (&target.name, unit), object, snapshot).ok_or_else(nowhere)?;
            match found.place(matched, globals)? {
                Ok((address, facts)) => {
                    for fact in facts {
                        fact.listed(&object.name, globals, snapshot)?;
                        fact.teach(&object.name, &mut matched.sections, globals);
                    }
                    *slot = Some(found.report(address));
                    progress = true;
                }
                Err(addresses) => open = Some((object, unit, addresses)),
            }
        }
        match open {
            None => return Ok(proven.into_iter().flatten().collect()),
            Some(_) if progress => {}
            Some((object, unit, addresses)) => {
                return Err(Refusal::AmbiguousObject {
                    object: object.name.clone(),
                    unit: unit.name.clone(),
                    addresses,
                });
            }
        }
    }
}

fn not_found(target: &Target, object: &DataObject) -> Refusal {
    let unit = target.units.get(object.unit as usize);
    Refusal::NoObject {
        object: object.name.clone(),
        unit: unit.map_or_else(String::new, |u| u.name.clone()),
    }
}

/// Where an object is and what it says there; or every place where it may be.
type Found<'u> = Result<(u64, Vec<Fact<'u>>), Vec<u64>>;

struct Object<'a> {
    arch: &'a dyn Arch,
    target: &'a str,
    unit: &'a Unit,
    id: SpanId,
    span: &'a Span,
    symbol: u32,
    snapshot: &'a Snapshot,
}

impl<'a> Object<'a> {
    fn new(
        arch: &'a dyn Arch,
        (target, unit): (&'a str, &'a Unit),
        object: &DataObject,
        snapshot: &'a Snapshot,
    ) -> Option<Object<'a>> {
        let symbol = object.pre_symbol;
        let named = |span: &Span| span.symbol == Some(symbol) && span.size == object.size;
        let id = unit.spans.iter().position(named)?;
        let span = unit.spans.get(id).filter(|s| s.kind == SpanKind::Data)?;
        Some(Object { arch, target, unit, id, span, symbol, snapshot })
    }

    fn report(&self, address: u64) -> ObjectReport {
        ObjectReport {
            object: self.span.name.clone(),
            unit: self.unit.name.clone(),
            address,
            size: self.span.size,
        }
    }

    /// The place at which every byte is explained and nothing contradicts what is known.
    fn place(&self, matched: &UnitMatch, globals: &Globals) -> Result<Found<'a>, Refusal> {
        let listed = self.listed(self.span);
        let places = match matched.local(self.symbol) {
            // A list without data symbols cannot contradict.
            Some(known) if listed.is_empty() || listed.contains(&known) => vec![known],
            Some(known) => {
                return Err(Refusal::Disagree {
                    symbol: self.span.name.clone(),
                    first: (format!("the code of {}", self.unit.name), known),
                    second: (LIST.into(), listed.first().copied().unwrap_or(0)),
                });
            }
            None => listed,
        };
        let mut found = Vec::new();
        let mut first = None;
        for address in &places {
            match self.at(*address, matched, globals) {
                Ok(facts) => found.push((*address, facts)),
                Err(refusal) => first = first.or(Some(refusal)),
            }
        }
        match (found.pop(), first) {
            (Some(one), _) if found.is_empty() => Ok(Ok(one)),
            (Some((last, _)), _) => {
                let others = found.into_iter().map(|(address, _)| address);
                Ok(Err(others.chain([last]).collect()))
            }
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(Refusal::NoObject {
                object: self.span.name.clone(),
                unit: self.unit.name.clone(),
            }),
        }
    }

    /// Compares the object with what stands at an address.
    fn at(
        &self,
        address: u64,
        matched: &UnitMatch,
        globals: &Globals,
    ) -> Result<Vec<Fact<'a>>, Refusal> {
        let mut found = vec![0; usize::try_from(self.span.size).unwrap_or(0)];
        if !self.snapshot.read(address, &mut found) {
            let function = self.span.name.clone();
            return Err(Refusal::Unreadable { function, address });
        }
        // What must stand there: the object's bytes, with each reference as it was found.
        let mut expected = self.unit.bytes_of(self.span).to_vec();
        let own = self.unit.symbols.get(self.symbol as usize).map_or(0, |s| s.value);
        let start = address.wrapping_add(own.wrapping_sub(self.span.offset));
        let mut facts = vec![fact(self.unit, self.symbol, start)];
        for reloc in self.unit.relocs_of(self.id) {
            let value = self.value(reloc, address, &found, &mut expected)?;
            let fact = fact(self.unit, reloc.symbol, value);
            if facts.iter().any(|known| fact.denies(known)) {
                let at = usize::try_from(reloc.offset.wrapping_sub(self.span.offset)).unwrap_or(0);
                let why = "the object's other references say that this leads elsewhere";
                return Err(self.mismatch(address, (at, 8), &expected, &found, why));
            }
            facts.push(fact);
            self.leads(reloc, value, address, &found)?;
        }
        if let Some(offset) = found.iter().zip(&expected).position(|(a, b)| a != b) {
            let why = "no reference is there, and the bytes differ";
            return Err(self.mismatch(address, (offset, 8), &expected, &found, why));
        }
        if found.len() != expected.len() {
            return Err(self.mismatch(address, (0, 8), &expected, &found, "it has no bytes"));
        }
        for fact in &facts {
            if let Some((symbol, known, value)) =
                fact.contradicts(self.unit, &matched.sections, globals)
            {
                return Err(Refusal::Disagree {
                    symbol,
                    first: (known.who(), known.value),
                    second: (self.span.name.clone(), value),
                });
            }
        }
        Ok(facts)
    }

    /// The symbol value that a field holds, which is stored into `expected`, too.
    fn value(
        &self,
        reloc: &Reloc,
        address: u64,
        found: &[u8],
        expected: &mut [u8],
    ) -> Result<u64, Refusal> {
        let backend = |source| Refusal::Backend { unit: self.unit.name.clone(), source };
        let fixup = self.arch.reloc();
        let from =
            usize::try_from(reloc.offset.wrapping_sub(self.span.offset)).unwrap_or(usize::MAX);
        let width = fixup.describe(reloc.r_type).map_or(0, |info| usize::from(info.width));
        let to = from.saturating_add(width);
        let place = address.wrapping_add(from as u64);
        let whole = fixup.recovered_bits(reloc.r_type) == u64::MAX;
        match (found.get(from..to), expected.get_mut(from..to)) {
            (Some(held), Some(field)) if width > 0 && whole => {
                let value =
                    fixup.recover(reloc.r_type, reloc.addend, place, held).map_err(backend)?;
                fixup.apply(reloc.r_type, value, reloc.addend, place, field).map_err(backend)?;
                Ok(value)
            }
            _ => Err(self.mismatch(
                address,
                (from, 8),
                expected,
                found,
                "the reference is of a kind that cannot be read back",
            )),
        }
    }

    /// Where the kernel's list has the name of a function or data object of this unit; nowhere, if
    /// it is a list without such names.
    fn listed(&self, span: &'a Span) -> Vec<u64> {
        let code = span.kind == SpanKind::Function;
        let mut listed: Vec<u64> = self
            .snapshot
            .symbols
            .named(&span.name)
            .filter(|s| s.module == self.target && s.is_code() == code)
            .map(|s| s.address)
            .collect();
        listed.sort_unstable();
        listed.dedup();
        listed
    }

    /// A reference must lead to something of the right name, or, where the linker has merged what
    /// has none, to the same contents.
    fn leads(&self, reloc: &Reloc, value: u64, address: u64, found: &[u8]) -> Result<(), Refusal> {
        let Leads::Span { id, offset } = self.unit.resolve(reloc.symbol, reloc.addend) else {
            return Ok(());
        };
        let Some(span) = self.unit.spans.get(id) else { return Ok(()) };
        let at = usize::try_from(reloc.offset.wrapping_sub(self.span.offset)).unwrap_or(0);
        let there = value.wrapping_add_signed(reloc.addend);
        let differs = |why: &str| {
            Err(self.mismatch(address, (at, 8), self.unit.bytes_of(self.span), found, why))
        };
        if !matches!(span.kind, SpanKind::String | SpanKind::Constant) {
            let listed = self.listed(span);
            let start = there.wrapping_sub(offset.cast_unsigned());
            return match span.symbol.is_none() || listed.is_empty() || listed.contains(&start) {
                true => Ok(()),
                false => differs(&format!("it refers to {there:#x}, where {} is not", span.name)),
            };
        }
        let bytes = usize::try_from(offset).ok().and_then(|n| self.unit.bytes_of(span).get(n..));
        let mut running = vec![0; bytes.map_or(0, <[u8]>::len)];
        if bytes.is_some() && self.snapshot.read(there, &mut running) && bytes == Some(&running) {
            return Ok(());
        }
        let expected = text(bytes.unwrap_or_default());
        differs(&format!("it refers to {there:#x}, where {expected} does not stand"))
    }

    fn mismatch(
        &self,
        address: u64,
        (offset, len): (usize, usize),
        expected: &[u8],
        found: &[u8],
        why: &str,
    ) -> Refusal {
        let some = |bytes: &[u8]| {
            let to = offset.saturating_add(len).min(bytes.len());
            bytes.get(offset..to).unwrap_or_default().to_vec()
        };
        Refusal::Data(Box::new(DataMismatch::new(
            (&self.span.name, &self.unit.name),
            (address, offset as u64),
            (&some(expected), &some(found)),
            why,
        )))
    }
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    format!("{:?}", String::from_utf8_lossy(bytes))
}
