// SPDX-License-Identifier: GPL-2.0-or-later
//! What the relocations of a unit's spans lead to. The backend has to decode a function to tell,
//! and several steps of the differ ask, so each answer is kept.

use std::cell::OnceCell;

use super::DiffError;
use crate::arch::{Arch, check};
use crate::unit::{SpanId, SpanKind, Target, Unit};

/// The targets of one unit's references, found when they are first asked for.
pub(super) struct Targets<'a> {
    arch: &'a dyn Arch,
    pub(super) unit: &'a Unit,
    code: Vec<OnceCell<Vec<Target>>>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(arch: &'a dyn Arch, unit: &'a Unit) -> Targets<'a> {
        Targets { arch, unit, code: vec![OnceCell::new(); unit.spans.len()] }
    }

    /// What the relocations of a span of code lead to, in order.
    pub(super) fn of_code(&self, id: SpanId) -> Result<&[Target], DiffError> {
        if self.unit.relocs_of(id).is_empty() {
            return Ok(&[]);
        }
        let Some(slot) = self.code.get(id) else { return Ok(&[]) };
        if let Some(known) = slot.get() {
            return Ok(known);
        }
        let found = self.find(id)?;
        Ok(slot.get_or_init(|| found))
    }

    fn find(&self, id: SpanId) -> Result<Vec<Target>, DiffError> {
        let (arch, unit) = (self.arch, self.unit);
        let offsets = unit
            .with_code(arch, id, |code| {
                let offsets = arch.reloc().target_offsets(code)?;
                check::target_offsets(arch, code, &offsets)?;
                Ok(offsets)
            })?
            .map_err(|source| DiffError::Arch { unit: unit.name.clone(), source })?;
        let relocs = unit.relocs_of(id).iter().zip(offsets);
        Ok(relocs.map(|(reloc, offset)| unit.resolve(reloc.symbol, offset)).collect())
    }

    /// What the relocations of a span of data lead to, in order.
    pub(super) fn of_data(&self, id: SpanId) -> impl Iterator<Item = Target> {
        self.unit.relocs_of(id).iter().map(move |r| self.unit.refers(id, r, r.addend))
    }

    /// Calls `f` with each target of a span: a function's are those of code, others of data.
    pub(super) fn each(&self, id: SpanId, mut f: impl FnMut(Target)) -> Result<(), DiffError> {
        match self.unit.spans.get(id).map(|s| s.kind) {
            Some(SpanKind::Function) => self.of_code(id)?.iter().copied().for_each(f),
            Some(_) => self.of_data(id).for_each(&mut f),
            None => {}
        }
        Ok(())
    }
}
