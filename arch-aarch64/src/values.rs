// SPDX-License-Identifier: GPL-2.0-or-later
//! Symbol values, put together from what single instructions tell: `adrp` tells the page of an
//! address, `add` and loads its place in the page, `movz` and `movk` sixteen bits each.

use splice_core::arch::{CodeReloc, Learned, Partial, RelocationFixup};

use crate::{Aarch64, reloc};

/// What one field tells of a symbol: `(S + bias) & known == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact<'a> {
    pub key: u32,
    /// The symbol's name; empty for a section's.
    pub symbol: &'a str,
    pub addend: i64,
    pub bias: u64,
    pub known: u64,
    pub value: u64,
    /// Offset in the function of the field.
    pub offset: u64,
}

impl<'a> Fact<'a> {
    /// The fact that the symbol has that very value.
    pub(crate) fn whole(r: &CodeReloc<'a>, value: u64, offset: u64) -> Fact<'a> {
        let (key, symbol, addend) = (r.key, r.symbol, r.addend);
        Fact { key, symbol, addend, bias: 0, known: u64::MAX, value, offset }
    }

    /// What a field at `place` tells, from which `recovered` was read.
    pub(crate) fn of_field(r: &CodeReloc<'a>, recovered: u64, place: u64, offset: u64) -> Fact<'a> {
        let known = Aarch64.recovered_bits(r.r_type);
        if known == u64::MAX {
            return Fact::whole(r, recovered, offset);
        }
        let bias = reloc::bias(r.r_type, r.addend, place);
        let value = recovered.wrapping_add(bias) & known;
        Fact { key: r.key, symbol: r.symbol, addend: r.addend, bias, known, value, offset }
    }

    /// Whether the symbol may have that value.
    pub(crate) fn holds(&self, value: u64) -> bool {
        value.wrapping_add(self.bias) & self.known == self.value
    }

    /// Whether both are about the same value. Pieces of a mergeable section move apart, so that
    /// only equal addends make sure that a section's symbol means the same thing.
    fn belongs_to(&self, other: &Fact<'_>) -> bool {
        self.key == other.key && (!self.symbol.is_empty() || self.addend == other.addend)
    }
}

/// The only value that the facts allow, if they tell all bits. Bit by bit from the lowest: with
/// the bits of S below it, a known bit of S + bias tells that bit of S.
fn solve(facts: &[Fact<'_>]) -> Option<u64> {
    let mut value = 0u64;
    for bit in 0..64 {
        let flag = 1u64 << bit;
        let fact = facts.iter().find(|f| f.known & flag != 0)?;
        if value.wrapping_add(fact.bias) & flag != fact.value & flag {
            value |= flag;
        }
    }
    Some(value)
}

/// Facts that exclude each other: the offset of the field that contradicts those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction(pub u64);

/// What the facts teach: whole values, and what is left of parts.
pub(crate) fn combine(facts: &[Fact<'_>]) -> Result<(Vec<Learned>, Vec<Partial>), Contradiction> {
    let mut learned = Vec::new();
    let mut partial = Vec::new();
    for fact in facts {
        let group: Vec<Fact<'_>> = facts.iter().copied().filter(|f| f.belongs_to(fact)).collect();
        let (key, offset) = (fact.key, fact.offset);
        match solve(&group) {
            Some(value) if group.iter().all(|f| f.holds(value)) => {
                learned.push(Learned { key, value, offset });
            }
            Some(_) => return Err(Contradiction(offset)),
            None => {
                let (bias, known, value) = (fact.bias, fact.known, fact.value);
                partial.push(Partial { key, bias, known, value, offset });
            }
        }
    }
    Ok((learned, partial))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 0xffff_8000_0945_6ff8;

    fn fact(symbol: &'static str, addend: i64, known: u64) -> Fact<'static> {
        let bias = addend as u64;
        let value = S.wrapping_add(bias) & known;
        Fact { key: 1, symbol, addend, bias, known, value, offset: 0 }
    }

    #[test]
    fn page_and_place_make_an_address() {
        // (symbol, addends of page and place, whether they make a whole)
        for (symbol, page, low, whole) in [
            ("x", 0, 0, true),
            ("x", 0x20, 0x20, true),
            ("x", 0, 0x20, true),
            ("x", -8, 16, true),
            ("", 0x20, 0x20, true),
            ("", 0x20, 0x28, false),
        ] {
            let facts = [fact(symbol, page, !0xfff), fact(symbol, low, 0xfff)];
            let (learned, partial) = combine(&facts).unwrap();
            if whole {
                assert_eq!(learned.len(), 2);
                assert!(learned.iter().all(|l| l.value == S), "{symbol} {page} {low}: {learned:?}");
                assert!(partial.is_empty());
            } else {
                assert!(learned.is_empty() && partial.len() == 2);
            }
        }
    }

    #[test]
    fn four_groups_make_an_address() {
        let facts: Vec<_> = (0..4).map(|n| fact("x", 4, 0xffff << (n * 16))).collect();
        assert!(combine(&facts).unwrap().0.iter().all(|l| l.value == S));
        assert!(combine(&facts[..3]).unwrap().0.is_empty());
    }

    #[test]
    fn contradictions_are_found() {
        let (page, low) = (fact("x", 0, !0xfff), fact("x", 0, 0xfff));
        let other = Fact { value: low.value ^ 8, ..low };
        assert!(combine(&[page, low, other]).is_err());
        let other = Fact { value: page.value ^ 0x1000, ..page };
        assert!(combine(&[page, low, other]).is_err());
        assert!(combine(&[page, low, fact("x", 0, u64::MAX)]).is_ok());
        let whole = Fact { value: S + 4, ..fact("x", 0, u64::MAX) };
        assert!(combine(&[page, low, whole]).is_err());
        // The page of S + 8 is the next one: the place must agree with it.
        assert!(combine(&[fact("x", 8, !0xfff), low]).is_ok());
    }
}
