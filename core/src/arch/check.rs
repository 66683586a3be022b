// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks of what a backend returns, before the engine uses it: a backend may be a third
//! party's, and a number out of range must not become a wrong address.

use super::{Arch, ArchError, Code, RunMatch, Site};

fn nonsense(arch: &dyn Arch, what: String) -> ArchError {
    ArchError::Nonsense { arch: arch.name().to_owned(), what }
}

/// One target offset per relocation.
pub fn target_offsets(arch: &dyn Arch, code: &Code<'_>, offsets: &[i64]) -> Result<(), ArchError> {
    if offsets.len() == code.relocs.len() {
        return Ok(());
    }
    let (got, want) = (offsets.len(), code.relocs.len());
    Err(nonsense(arch, format!("{got} target offsets for {want} relocations of {}", code.name)))
}

/// Everything that a match names lies within the code.
pub fn run_match(arch: &dyn Arch, code: &Code<'_>, outcome: &RunMatch) -> Result<(), ArchError> {
    let size = code.bytes.len() as u64;
    match outcome {
        RunMatch::Matched { learned, live, .. } => {
            if let Some(l) = learned.iter().find(|l| l.offset >= size) {
                let what = format!("a value learned at {:#x} of {}", l.offset, code.name);
                return Err(nonsense(arch, what));
            }
            let outside =
                |(start, len): &&(u64, u64)| start.checked_add(*len).is_none_or(|e| e > size);
            if let Some((start, len)) = live.iter().find(outside) {
                let what = format!("live range {start:#x}+{len:#x} of {}", code.name);
                return Err(nonsense(arch, what));
            }
        }
        RunMatch::Refused(mismatch) => {
            if mismatch.offset > size {
                let what = format!("a mismatch at {:#x} of {}", mismatch.offset, code.name);
                return Err(nonsense(arch, what));
            }
        }
    }
    Ok(())
}

/// A site lies within the function and its padding, has the template's length, and keeps off what
/// the kernel may rewrite.
pub fn site(
    arch: &dyn Arch,
    code: &Code<'_>,
    padding: u64,
    live: &[(u64, u64)],
    site: &Site,
) -> Result<(), ArchError> {
    let room = (code.bytes.len() as u64).saturating_add(padding);
    let end = site.offset.checked_add(site.len).filter(|end| *end <= room);
    let length = arch.trampoline().template().bytes.len() as u64;
    let Some(end) = end.filter(|_| site.len == length && length > 0 && length <= 16) else {
        let what = format!("site {:#x}+{:#x} of {}", site.offset, site.len, code.name);
        return Err(nonsense(arch, what));
    };
    let touches =
        |(start, len): &&(u64, u64)| *start < end && site.offset < start.saturating_add(*len);
    if let Some((start, _)) = live.iter().find(touches) {
        let what = format!("a site over the live range at {start:#x} of {}", code.name);
        return Err(nonsense(arch, what));
    }
    Ok(())
}
