// SPDX-License-Identifier: GPL-2.0-or-later
//! In what the contents of two data objects of equal size differ, for a person.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Reason;
use super::compare::{Context, Seen, describe};
use crate::unit::{Reloc, Span, SpanId, Target};

/// How many bytes of a difference are shown.
const SHOWN: usize = 8;

/// What stands at a place of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// A reference to that.
    Reference(String),
    /// These bytes, in hexadecimal.
    Bytes(String),
}

impl Held {
    /// Both in one phrase: what stands there now, and what stood there before.
    pub(super) fn instead_of(&self, before: &Held, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, before) {
            (Held::Reference(now), Held::Reference(before)) => {
                write!(f, "refers to {now}, before to {before}")
            }
            (Held::Bytes(now), Held::Bytes(before)) => write!(f, "holds {now}, before {before}"),
            (Held::Reference(now), Held::Bytes(before)) => {
                write!(f, "refers to {now}, before it held {before}")
            }
            (Held::Bytes(now), Held::Reference(before)) => {
                write!(f, "holds {now}, before it referred to {before}")
            }
        }
    }
}

fn hex(bytes: &[u8]) -> Held {
    let mut text: Vec<String> = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > SHOWN {
        text.push("…".into());
    }
    Held::Bytes(text.join(" "))
}

/// A reference in an object: its relocation, where it leads, and how many bytes hold it.
type Field<'a> = (&'a Reloc, Target, u64);

impl Context<'_> {
    /// Where the contents of two objects of equal size differ first, and how often they do.
    pub(super) fn contents_differ(
        &self,
        (pre, a): (SpanId, &Span),
        (post, b): (SpanId, &Span),
    ) -> Reason {
        let width = |reloc: &Reloc| {
            let info = self.arch.reloc().describe(reloc.r_type);
            info.map_or(1, |info| u64::from(info.width.max(1)))
        };
        let before: BTreeMap<u64, Field<'_>> = self
            .pre
            .relocs_of(pre)
            .iter()
            .zip(self.to_pre.of_data(pre))
            .map(|(r, to)| (r.offset.wrapping_sub(a.offset), (r, to, width(r))))
            .collect();
        let after: BTreeMap<u64, Field<'_>> = self
            .post
            .relocs_of(post)
            .iter()
            .zip(self.to_post.of_data(post))
            .map(|(r, to)| (r.offset.wrapping_sub(b.offset), (r, to, width(r))))
            .collect();
        let (x, y) = (self.pre.bytes_of(a), self.post.bytes_of(b));
        let mut places = Vec::new();
        let mut at = 0u64;
        while at < a.size {
            let (from, to) = (before.get(&at), after.get(&at));
            let len = match (from, to) {
                (None, None) => {
                    let len = differing(x, y, at, &before, &after);
                    if len > 0 {
                        places.push((at, bytes(x, at, len), bytes(y, at, len)));
                    }
                    len.max(1)
                }
                _ => {
                    let len = from.map_or(0, |f| f.2).max(to.map_or(0, |f| f.2));
                    let same = match (from, to) {
                        (Some((r, p, _)), Some((s, q, _))) => {
                            r.r_type == s.r_type
                                && self.same_target(r, p, s, q, &mut Seen::default())
                                && bytes(x, at, len) == bytes(y, at, len)
                        }
                        _ => false,
                    };
                    if !same {
                        let held = |field: Option<&Field<'_>>, unit, data| match field {
                            Some((r, to, _)) => Held::Reference(describe(unit, r, to)),
                            None => bytes(data, at, len),
                        };
                        places.push((at, held(from, self.pre, x), held(to, self.post, y)));
                    }
                    len
                }
            };
            at = at.saturating_add(len);
        }
        let more = places.len().saturating_sub(1);
        let (offset, pre, post) = places.into_iter().next().unwrap_or((0, hex(x), hex(y)));
        Reason::Contents { name: b.name.clone(), offset, pre, post, more }
    }
}

/// How many bytes from `at` on differ before one is equal or belongs to a reference.
fn differing(
    x: &[u8],
    y: &[u8],
    at: u64,
    before: &BTreeMap<u64, Field<'_>>,
    after: &BTreeMap<u64, Field<'_>>,
) -> u64 {
    let from = usize::try_from(at).unwrap_or(usize::MAX);
    let (x, y) = (x.get(from..).unwrap_or_default(), y.get(from..).unwrap_or_default());
    let run = x.iter().zip(y).take_while(|(a, b)| a != b).count() as u64;
    if run == 0 {
        return 0;
    }
    let next = |fields: &BTreeMap<u64, Field<'_>>| fields.range(at..).next().map(|(k, _)| *k);
    let limit = [next(before), next(after)].into_iter().flatten().min().unwrap_or(u64::MAX);
    run.min(limit.saturating_sub(at))
}

fn bytes(data: &[u8], at: u64, len: u64) -> Held {
    let from = usize::try_from(at).unwrap_or(usize::MAX);
    let to = usize::try_from(at.saturating_add(len)).unwrap_or(usize::MAX).min(data.len());
    hex(data.get(from..to).unwrap_or_default())
}
