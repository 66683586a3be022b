// SPDX-License-Identifier: GPL-2.0-or-later
//! A unit's function as an architecture sees it.

use super::{SpanId, Unit, UnitError};
use crate::arch::{Arch, Code};

impl Unit {
    /// All spans that are functions or parts of functions.
    pub fn functions(&self) -> impl Iterator<Item = SpanId> + '_ {
        self.spans
            .iter()
            .enumerate()
            .filter(|(_, s)| s.kind == super::SpanKind::Function)
            .map(|(id, _)| id)
    }

    /// Hands the span's bytes, relocations and special entries to `f` as one [`Code`]; the
    /// relocations' keys are symbol indexes.
    pub fn with_code<R>(
        &self,
        arch: &dyn Arch,
        span: SpanId,
        f: impl FnOnce(&Code<'_>) -> R,
    ) -> Result<R, UnitError> {
        let _ = (arch, span, f);
        Err(UnitError::Malformed { unit: self.name.clone(), why: "not written yet".into() })
    }
}
