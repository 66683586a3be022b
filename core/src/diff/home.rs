// SPDX-License-Identifier: GPL-2.0-or-later
//! Where a data object stands in a running kernel, by the section that its unit has it in.

use object::elf::SHF_WRITE;

use super::data::is_startup;
use crate::unit::{Span, Unit};

/// What may have become of an object since the kernel or the module was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// It was used at the start, and its memory is freed.
    Startup,
    /// Each processor has a copy.
    PerCpu,
    /// It could be written while the kernel started, and not since (`RO_AFTER_INIT_DATA` of
    /// include/asm-generic/vmlinux.lds.h, `module_enable_ro` for modules).
    AfterInit,
    /// It has never been written since it was loaded (`RO_DATA` there).
    Constant,
    /// It may be written at any time.
    Writable,
    /// In a section of its own, for whoever walks that section.
    Table,
}

impl Home {
    /// The home of a data object.
    pub(super) fn of(unit: &Unit, span: &Span) -> Home {
        let Some(section) = unit.sections.get(span.section) else { return Home::Table };
        let name = section.name.as_str();
        let within = |parent: &str| {
            name.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let writable = section.flags & SHF_WRITE.0 != 0;
        if is_startup(unit, span) {
            Home::Startup
        } else if name.starts_with(".data..percpu") {
            Home::PerCpu
        } else if name.starts_with(".data..ro_after_init") {
            Home::AfterInit
        // The second is writable in the file, for the sake of its relocations alone.
        } else if (within(".rodata") && !writable) || within(".data.rel.ro") {
            Home::Constant
        } else if writable {
            Home::Writable
        } else {
            Home::Table
        }
    }

    /// Whether writing to it faults once the kernel or the module has started.
    pub(super) fn is_protected(self) -> bool {
        matches!(self, Home::AfterInit | Home::Constant)
    }
}
