// SPDX-License-Identifier: GPL-2.0-or-later
//! What a reference leads to, where its value alone says nothing.
//!
//! A symbol's value is held against all other values of it. But a string or a constant that the linker
//! merges has no place of its own, and of an object that one function refers to once there is no other
//! value. So what stands where a reference leads must be the string, and an object that the kernel's
//! list names must be where the list has it.

use super::locate::is_kept;
use super::{Snapshot, VMLINUX};
use crate::arch::{Arch, ArchError, Code, KernelView, Learned, Mismatch, RunCode, check};
use crate::unit::{SpanId, SpanKind, Target, Unit};

/// Longest piece of a constant that is read at once, in bytes.
const PIECE: usize = 256;

/// What the references of a function come to.
pub(super) enum Outcome {
    /// Each leads to what it should.
    Right(Followed),
    /// This one does not.
    Wrong(Mismatch),
}

/// Where the references of a function lead.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed {
    /// Strings and constants, each with its place, and the offset of the reference: the linker merges each
    /// with its like, and puts it into one.
    pub(super) merged: Vec<(SpanId, u64, u64)>,
    /// So many lead to memory that the snapshot does not hold.
    pub(super) unread: usize,
}

/// The functions of a unit in the text of a target.
pub(super) struct References<'a> {
    pub(super) arch: &'a dyn Arch,
    pub(super) unit: &'a Unit,
    pub(super) target: &'a str,
    pub(super) snapshot: &'a Snapshot,
}

impl References<'_> {
    /// Follows the references of a function that matches, by the values that it gave away.
    pub(super) fn follow(
        &self,
        id: SpanId,
        code: &Code<'_>,
        run: &RunCode<'_>,
        learned: &[Learned],
    ) -> Result<Outcome, ArchError> {
        let offsets = self.arch.reloc().target_offsets(code)?;
        check::target_offsets(self.arch, code, &offsets)?;
        let mut followed = Followed::default();
        let mut values = learned.iter().peekable();
        for ((reloc, distance), whole) in
            code.relocs.iter().zip(offsets).zip(self.unit.relocs_of(id))
        {
            while values.next_if(|l| l.offset < reloc.offset).is_some() {}
            // What a special entry's relocation taught has another key.
            let Some(value) =
                values.peek().filter(|l| l.offset == reloc.offset && l.key == reloc.key)
            else {
                continue;
            };
            let Target::Span { id: to, offset } = self.unit.refers(id, whole, distance) else {
                continue;
            };
            let place = value.value.wrapping_add_signed(distance);
            let leads = self.leads(to, offset, place, run.address);
            if self.is_merged(to) {
                let start = place.wrapping_add_signed(offset.wrapping_neg());
                followed.merged.push((to, start, reloc.offset));
            }
            let why = match leads {
                Leads::There => continue,
                Leads::Nowhere => {
                    followed.unread += 1;
                    continue;
                }
                Leads::Elsewhere(why) => why,
            };
            let width = self.arch.reloc().describe(reloc.r_type).map_or(0, |row| row.width);
            let start = usize::try_from(reloc.offset).unwrap_or(usize::MAX);
            let field = start..start.saturating_add(usize::from(width));
            return Ok(Outcome::Wrong(Mismatch {
                offset: reloc.offset,
                expected: code.bytes.get(field.clone()).unwrap_or_default().to_vec(),
                found: run.bytes.get(field).unwrap_or_default().to_vec(),
                why,
                probed: false,
                short_branch: false,
            }));
        }
        Ok(Outcome::Right(followed))
    }

    fn is_merged(&self, id: SpanId) -> bool {
        let span = self.unit.spans.get(id);
        span.is_some_and(|span| matches!(span.kind, SpanKind::String | SpanKind::Constant))
    }

    /// Whether a reference to a place of a span leads there if it leads to that address; it is in the
    /// function at `from`.
    fn leads(&self, to: SpanId, offset: i64, address: u64, from: u64) -> Leads {
        let Some(span) = self.unit.spans.get(to) else { return Leads::There };
        let section = self.unit.sections.get(span.section).map_or("", |s| s.name.as_str());
        // What belongs to start-up is gone.
        if !is_kept(section) {
            return Leads::There;
        }
        match span.kind {
            SpanKind::String | SpanKind::Constant => {
                let Some(piece) = usize::try_from(offset)
                    .ok()
                    .and_then(|from| self.unit.bytes_of(span).get(from..))
                else {
                    return Leads::There;
                };
                self.holds(piece, address, from, section)
            }
            // A weak definition may have lost to another unit's.
            SpanKind::Function | SpanKind::Data
                if span.symbol.is_some() && !self.unit.is_weak(span) =>
            {
                if !self.unit.is_code(span) && !self.snapshot.symbols.lists_data() {
                    return Leads::There;
                }
                let start = address.wrapping_add_signed(offset.wrapping_neg());
                let mut listed = self
                    .snapshot
                    .symbols
                    .named(&span.name)
                    .filter(|s| s.module == self.target)
                    .peekable();
                let known = self.snapshot.stack.known_as(start);
                if listed.peek().is_none()
                    || listed.any(|s| s.address == known)
                    || self.snapshot.is_brought(start, &span.name)
                {
                    return Leads::There;
                }
                Leads::Elsewhere(format!(
                    "it leads to {address:#x}, and the kernel's symbol list has {} elsewhere",
                    span.name
                ))
            }
            _ => Leads::There,
        }
    }

    /// Whether these bytes of a section stand at an address, which is one for constants.
    fn holds(&self, bytes: &[u8], address: u64, from: u64, section: &str) -> Leads {
        // What an update has brought has its constants where the update's module is.
        let is_images = || self.target == VMLINUX && self.snapshot.update_at(from).is_none();
        if !self.snapshot.is_constant(address, section) && is_images() {
            return Leads::Elsewhere(format!(
                "it leads to {address:#x}, where the image has no constants"
            ));
        }
        let mut buffer = [0; PIECE];
        let mut at = address;
        for piece in bytes.chunks(PIECE) {
            let found = buffer.get_mut(..piece.len()).unwrap_or_default();
            if !self.snapshot.read(at, found) {
                // A dump may hold nothing but text; an image file holds all that the build has made.
                return match self.snapshot.is_started() {
                    true => Leads::Nowhere,
                    false => Leads::Elsewhere(format!(
                        "it leads to {address:#x}, where the image has nothing"
                    )),
                };
            }
            if found != piece {
                return Leads::Elsewhere(format!(
                    "it leads to {address:#x}, where {:?} stands instead of {:?}",
                    text(found),
                    text(piece)
                ));
            }
            at = at.wrapping_add(piece.len() as u64);
        }
        Leads::There
    }
}

/// Where a reference leads.
enum Leads {
    There,
    /// To memory that cannot be read.
    Nowhere,
    Elsewhere(String),
}

/// Bytes for a message: up to the end of the string, and not too many.
fn text(bytes: &[u8]) -> String {
    const MOST: usize = 40;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let shown = bytes.get(..end.min(MOST)).unwrap_or_default();
    String::from_utf8_lossy(shown).into_owned()
}
