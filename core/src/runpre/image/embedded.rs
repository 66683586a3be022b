// SPDX-License-Identifier: GPL-2.0-or-later
//! The symbol list that a kernel carries (`CONFIG_KALLSYMS`), found without symbols.
//!
//! scripts/kallsyms.c writes the tables behind each other, each at a multiple of 8, in one of two
//! orders: up to 6.3 offsets, base, number, names, markers, places of names (since 6.2), tokens, index
//! of tokens; since 6.4 number, names, markers, tokens, index, offsets, base (until 6.19), places of
//! names. The tokens are found by the ten digits, which stand for themselves. Everything else follows,
//! and each table must say what the others say: that two lists could be read ends in a refusal.

use std::fmt::Write;

/// The tokens of the ten digits.
const DIGITS: &[u8; 20] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// So many tokens stand before that of the first digit.
const BEFORE_DIGITS: usize = b'0' as usize;
const TOKENS: usize = 256;
/// One marker for so many names.
const MARKED: usize = 256;
/// The index holds 16-bit places.
const LONGEST_TOKENS: usize = 1 << 16;
/// `KSYM_NAME_LEN` is 512 since 6.1; with the type before it.
const LONGEST_NAME: usize = 513;
/// More are no kernel's.
const MOST_SYMBOLS: usize = 1 << 22;
const MOST_TEXT: usize = 1 << 28;
/// So many names are gone through in search of the table, and so many places with ten digits.
const STEPS: usize = 1 << 25;
const MOST_DIGITS: usize = 256;

/// Code of which the list must have the beginning.
const BEGIN: &[u8] = b"_stext";

/// A part of the kernel's memory.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) address: u64,
    pub(super) bytes: &'a [u8],
}

/// The symbol list in the form of `/proc/kallsyms`, if there is one. `is_code` tells which addresses
/// are executable.
pub(super) fn find(
    parts: &[Part<'_>],
    is_code: &dyn Fn(u64) -> bool,
) -> Result<Option<String>, String> {
    let mut found = None;
    let mut steps = STEPS;
    for part in parts {
        let digits = part.bytes.windows(DIGITS.len()).enumerate();
        let places = digits.filter(|(_, w)| *w == DIGITS).map(|(at, _)| at);
        for at in places.take(MOST_DIGITS) {
            let Some(tokens) = Tokens::around(part.bytes, at) else { continue };
            let Some(names) = Names::before(part.bytes, &tokens, &mut steps) else { continue };
            // Code lies before the tables in every kernel; where there are none, offsets of zero from
            // their own places would look like a list of what lies behind them.
            let end = part.address.saturating_add(names.start as u64);
            let is_begin = |at: u64| at < end && is_code(at);
            for addresses in addresses(*part, &tokens, &names) {
                let Some(text) = names.text(&tokens, &addresses, &is_begin)? else { continue };
                if found.replace(text).is_some() {
                    return Err("its symbol list can be read in two ways".into());
                }
            }
        }
    }
    Ok(found)
}

fn aligned(at: usize) -> usize {
    at.next_multiple_of(8)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

/// What the bytes of a name stand for.
struct Tokens<'a> {
    /// Where the table begins.
    start: usize,
    /// Where the index ends.
    end: usize,
    all: Vec<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    /// The table that has the digits at `digits`, if there is one.
    fn around(bytes: &'a [u8], digits: usize) -> Option<Tokens<'a>> {
        let mut ends = 0;
        // Where tokens are not used, their strings may be empty; so several places are possible.
        for at in (digits.saturating_sub(LONGEST_TOKENS)..=digits).rev() {
            if at.is_multiple_of(8)
                && ends == BEFORE_DIGITS
                && let Some(tokens) = Tokens::at(bytes, at)
            {
                return Some(tokens);
            }
            ends += usize::from(bytes.get(at.checked_sub(1)?) == Some(&0));
            if ends > BEFORE_DIGITS {
                return None;
            }
        }
        None
    }

    fn at(bytes: &'a [u8], start: usize) -> Option<Tokens<'a>> {
        let mut all = Vec::with_capacity(TOKENS);
        let mut places = Vec::with_capacity(TOKENS);
        let mut at = start;
        for _ in 0..TOKENS {
            places.push(u16::try_from(at - start).ok()?);
            let rest = bytes.get(at..)?;
            let token = rest.get(..rest.iter().take(LONGEST_TOKENS).position(|b| *b == 0)?)?;
            all.push(token);
            at += token.len() + 1;
        }
        let index = aligned(at);
        let end = index + 2 * TOKENS;
        let listed = bytes.get(index..end)?.chunks_exact(2);
        let same = listed.zip(&places).all(|(l, p)| l == p.to_le_bytes());
        same.then_some(Tokens { start, end, all })
    }

    /// The token that a byte stands for.
    fn of(&self, byte: u8) -> &'a [u8] {
        self.all.get(usize::from(byte)).copied().unwrap_or_default()
    }
}

/// The names, as they are packed.
struct Names<'a> {
    /// Where their number stands.
    start: usize,
    all: Vec<&'a [u8]>,
}

impl<'a> Names<'a> {
    /// The names whose tables end where the tokens begin.
    fn before(bytes: &'a [u8], tokens: &Tokens<'_>, steps: &mut usize) -> Option<Names<'a>> {
        // The number is a 32-bit word with nothing behind it up to the next multiple of 8.
        (0..tokens.start).rev().filter(|at| at.is_multiple_of(8)).find_map(|at| {
            let count = word(bytes, at)? as usize;
            // A name has two bytes at least.
            let fits = (1..=MOST_SYMBOLS).contains(&count) && count * 2 < tokens.start - at;
            if !fits || word(bytes, at + 4)? != 0 {
                return None;
            }
            Names::at(bytes, at, count, tokens, steps)
        })
    }

    fn at(
        bytes: &'a [u8],
        start: usize,
        count: usize,
        tokens: &Tokens<'_>,
        steps: &mut usize,
    ) -> Option<Names<'a>> {
        let first = start + 8;
        let mut all = Vec::new();
        let mut markers = Vec::new();
        let mut at = first;
        for n in 0..count {
            *steps = steps.checked_sub(1)?;
            if n.is_multiple_of(MARKED) {
                markers.push(u32::try_from(at - first).ok()?);
            }
            let (name, next) = packed_name(bytes, at)?;
            let kind = tokens.of(*name.first()?).first()?;
            if !kind.is_ascii_alphabetic() || next > tokens.start {
                return None;
            }
            all.push(name);
            at = next;
        }
        let listed = aligned(at);
        // A name less would end here too.
        let padded = bytes.get(at..listed)?.iter().all(|b| *b == 0);
        let end = listed + 4 * markers.len();
        let mut words = bytes.get(listed..end)?.chunks_exact(4);
        let same = markers.iter().all(|m| words.next() == Some(&m.to_le_bytes()[..]));
        // Places of names: none, three bytes each, or four (6.2).
        let ends = [0, 3 * count, 4 * count].map(|len| aligned(aligned(end) + len));
        (same && padded && ends.contains(&tokens.start)).then_some(Names { start, all })
    }

    /// The whole list; nothing if these addresses cannot be those of the names.
    fn text(
        &self,
        tokens: &Tokens<'_>,
        addresses: &[u64],
        is_begin: &dyn Fn(u64) -> bool,
    ) -> Result<Option<String>, String> {
        if !addresses.is_sorted() {
            return Ok(None);
        }
        let mut text = String::new();
        let mut begin = None;
        let mut symbol = Vec::new();
        for (packed, address) in self.all.iter().zip(addresses) {
            symbol.clear();
            for byte in *packed {
                symbol.extend_from_slice(tokens.of(*byte));
                if symbol.len() > LONGEST_NAME {
                    return Err("a name of its symbol list is too long".into());
                }
            }
            let Some((kind, name)) = symbol.split_first() else { continue };
            if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                return Err("a name of its symbol list is not one".into());
            }
            if name == BEGIN {
                begin = Some(*address);
            }
            let name = String::from_utf8_lossy(name);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address:016x} {} {name}", char::from(*kind));
            if text.len() > MOST_TEXT {
                return Err("its symbol list is too long".into());
            }
        }
        Ok(begin.is_some_and(is_begin).then_some(text))
    }
}

/// A packed name and the place behind it; its length is one byte, or since 6.1 two (ULEB128).
fn packed_name(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let low = *bytes.get(at)?;
    let (len, start) = match low & 0x80 {
        0 => (usize::from(low), at + 1),
        _ => (usize::from(low & 0x7f) | usize::from(*bytes.get(at + 1)?) << 7, at + 2),
    };
    let end = start + len;
    Some((bytes.get(start..end)?, end))
}

/// All addresses that the tables may mean.
fn addresses(part: Part<'_>, tokens: &Tokens<'_>, names: &Names<'_>) -> Vec<Vec<u64>> {
    let count = names.all.len();
    let table = |at: usize| -> Option<Vec<i32>> {
        let words = part.bytes.get(at..at.checked_add(4 * count)?)?.chunks_exact(4);
        Some(words.map(|w| i32::from_le_bytes(w.try_into().unwrap_or_default())).collect())
    };
    let base = |at: usize| {
        let base = part.bytes.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*base))
    };
    // Up to 6.3.
    let before = || {
        let at = names.start.checked_sub(8)?;
        Some(relative(&table(at.checked_sub(aligned(4 * count))?)?, base(at)?))
    };
    // From 6.4 on.
    let at = aligned(tokens.end);
    let behind = || Some(relative(&table(at)?, base(aligned(at + 4 * count))?));
    // Without a base each offset is from its own place.
    let own = || {
        let places = (part.address.wrapping_add(at as u64)..).step_by(4);
        let one = |(offset, place): (&i32, u64)| place.wrapping_add_signed(i64::from(*offset));
        Some(table(at)?.iter().zip(places).map(one).collect())
    };
    [before(), behind(), own()].into_iter().flatten().collect()
}

/// Offsets from a base. If there are negative ones, only they are: the others are absolute, which is
/// how the places of per-CPU variables were kept (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`, until 6.14).
fn relative(offsets: &[i32], base: u64) -> Vec<u64> {
    let absolute = offsets.iter().any(|o| *o < 0);
    let one = |offset: &i32| match (absolute, *offset) {
        (false, offset) => base.wrapping_add(u64::from(offset.cast_unsigned())),
        (true, offset @ 0..) => u64::from(offset.cast_unsigned()),
        (true, offset) => base.wrapping_sub(1).wrapping_sub(i64::from(offset).cast_unsigned()),
    };
    offsets.iter().map(one).collect()
}
