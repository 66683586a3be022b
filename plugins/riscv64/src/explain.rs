// SPDX-License-Identifier: GPL-2.0-or-later
//! What relocated fields of running text tell of their symbols.
//!
//! An address that is relative to its place is spread over two instructions: `auipc` holds its
//! upper part, another its lower part, and the second names the first by a label. Both are read
//! together, wherever the second stands. A field whose symbol lies in the same code must hold
//! just that.

use splice_plugin_abi::arch::{ArchError, Code, CodeReloc, Learned, Partial, RelocationFixup};

use crate::insn;
use crate::reloc::{self, How, PCREL_HI20};
use crate::{Riscv64, diff};

/// Code as it is found somewhere: as many bytes as the code has, at that address.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub bytes: &'a [u8],
    pub address: u64,
}

/// What fields told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Taught {
    pub learned: Vec<Learned>,
    pub partial: Vec<Partial>,
}

/// A byte that is not explained: its offset, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub offset: u64,
    pub why: String,
}

/// Explains the bytes of `code` from `start` to `end` by what is found there.
pub(crate) fn explain(
    code: &Code<'_>,
    (start, end): (u64, u64),
    found: Found<'_>,
) -> Result<Result<Taught, Fault>, ArchError> {
    let owned = diff::owned(code)?;
    let bytes = code.bytes.iter().zip(found.bytes).zip(&owned).enumerate();
    for (at, ((want, have), owned)) in bytes {
        let at = at as u64;
        if (start..end).contains(&at) && (want ^ have) & !owned != 0 {
            let why = "no entry lists the place, and it is no relocation's".into();
            return Ok(Err(Fault { offset: at, why }));
        }
    }
    let mut taught = Taught::default();
    for r in code.relocs.iter().filter(|r| (start..end).contains(&r.offset)) {
        match field(code, r, found)? {
            Ok(Fact::Whole(value)) => {
                taught.learned.push(Learned { key: r.key, value, offset: r.offset });
            }
            Ok(Fact::Part { bias, known, value }) => taught.partial.push(Partial {
                key: r.key,
                bias,
                known,
                value: value & known,
                offset: r.offset,
            }),
            Ok(Fact::Nothing) => {}
            Err(why) => return Ok(Err(Fault { offset: r.offset, why })),
        }
    }
    Ok(Ok(taught))
}

enum Fact {
    /// The symbol's value.
    Whole(u64),
    /// `(S + bias) & known == value & known`.
    Part { bias: u64, known: u64, value: u64 },
    /// Nothing that is not told elsewhere.
    Nothing,
}

/// The found field of a relocation.
fn word(found: Found<'_>, offset: u64, width: u8) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    found.bytes.get(start..start.checked_add(usize::from(width))?)
}

fn field(
    code: &Code<'_>,
    r: &CodeReloc<'_>,
    found: Found<'_>,
) -> Result<Result<Fact, String>, ArchError> {
    let (info, how) = reloc::described(code.name, r.offset, r.r_type)?;
    let outside = || ArchError::Outside { name: code.name.into(), offset: r.offset };
    let bytes = word(found, r.offset, info.width).ok_or_else(outside)?;
    let place = found.address.wrapping_add(r.offset);
    let addend = r.addend.cast_unsigned();
    let held = insn::word(bytes);
    let value = match how {
        How::Nothing => return Ok(Ok(Fact::Nothing)),
        How::Add | How::Sub | How::Set(_) | How::Word => {
            return Ok(Err(format!("{} in code is not judged", info.name)));
        }
        How::Low(pieces) => {
            let (known, value) = (0xfff, insn::get(pieces, held) as u64);
            return Ok(Ok(Fact::Part { bias: addend, known, value }));
        }
        How::High => {
            let (bias, value) = (addend.wrapping_add(0x800), insn::get(insn::U, held) as u64);
            return Ok(Ok(Fact::Part { bias, known: !0xfff, value }));
        }
        How::PcLow(_) => return Ok(upper(code, r).map(|_| Fact::Nothing)),
        How::PcHigh => match low_part(code, r, found)? {
            Err(why) => return Ok(Err(why)),
            Ok(Some(low)) => place
                .wrapping_add_signed(insn::get(insn::U, held))
                .wrapping_add_signed(low)
                .wrapping_sub(addend),
            Ok(None) => {
                let bias = addend.wrapping_sub(place).wrapping_add(0x800);
                let value = insn::get(insn::U, held) as u64;
                return Ok(Ok(Fact::Part { bias, known: !0xfff, value }));
            }
        },
        How::Whole | How::Relative | How::Branch(_) | How::Call => {
            Riscv64.recover(r.r_type, r.addend, place, bytes)?
        }
    };
    if let Some(inside) = r.inside
        && value != found.address.wrapping_add(inside)
    {
        return Ok(Err(format!("it leads to {value:#x}, not to the label that it should")));
    }
    Ok(Ok(Fact::Whole(value)))
}

/// The upper part that a lower part belongs to.
fn upper<'c>(code: &'c Code<'_>, low: &CodeReloc<'_>) -> Result<&'c CodeReloc<'c>, String> {
    let at = low.inside.map(|inside| inside.wrapping_add_signed(low.addend));
    code.relocs
        .iter()
        .find(|r| Some(r.offset) == at && r.r_type == PCREL_HI20)
        .ok_or_else(|| "the upper part of the address is not in the same code".into())
}

/// What the lower parts of that upper part hold: all the same, or the address makes no sense.
fn low_part(
    code: &Code<'_>,
    high: &CodeReloc<'_>,
    found: Found<'_>,
) -> Result<Result<Option<i64>, String>, ArchError> {
    let mut told = None;
    for r in code.relocs {
        let (info, How::PcLow(pieces)) = reloc::described(code.name, r.offset, r.r_type)? else {
            continue;
        };
        if !upper(code, r).is_ok_and(|u| u.offset == high.offset) {
            continue;
        }
        let bytes = word(found, r.offset, info.width)
            .ok_or_else(|| ArchError::Outside { name: code.name.into(), offset: r.offset })?;
        let low = insn::get(pieces, insn::word(bytes));
        if told.is_some_and(|told| told != low) {
            return Ok(Err("two lower parts of the address differ".into()));
        }
        told = Some(low);
    }
    Ok(Ok(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_ffff_8000_1000;

    fn reloc(offset: u64, r_type: u32, key: u32, inside: Option<u64>) -> CodeReloc<'static> {
        CodeReloc { offset, r_type, symbol: "x", key, addend: 0, inside }
    }

    /// auipc a0; lw a1, low(a0); sw a1, low(a0), applied for that distance.
    fn pair(distance: u64) -> Vec<u8> {
        let words = [
            insn::put(insn::U, 0x517, insn::high(distance)),
            insn::put(insn::I, 0x5_2583, distance),
            insn::put(insn::S, 0xb5_2023, distance),
        ];
        words.iter().flat_map(|w| (*w as u32).to_le_bytes()).collect()
    }

    fn explained(relocs: &[CodeReloc<'_>], found: &[u8]) -> Result<Taught, Fault> {
        let object = pair(0);
        let code = Code { name: "f", bytes: &object, relocs, entries: &[] };
        explain(&code, (0, 12), Found { bytes: found, address: AT }).unwrap()
    }

    #[test]
    fn both_parts_make_an_address() {
        let relocs = [reloc(0, 23, 1, None), reloc(4, 24, 2, Some(0)), reloc(8, 25, 2, Some(0))];
        for distance in [0x10u64, 0x7ff, 0x800, 0x1_2345, (-0x12_3456i64) as u64] {
            let taught = explained(&relocs, &pair(distance)).unwrap();
            let value = AT.wrapping_add(distance);
            assert_eq!(taught.learned, [Learned { key: 1, value, offset: 0 }]);
            assert_eq!(taught.partial, []);
        }
    }

    #[test]
    fn an_upper_part_alone_tells_a_part() {
        let relocs = [reloc(0, 23, 1, None)];
        let mut found = pair(0x1_2900);
        found[4..].copy_from_slice(&pair(0)[4..]);
        let taught = explained(&relocs, &found).unwrap();
        let part = taught.partial[0];
        assert_eq!((AT + 0x1_2900).wrapping_add(part.bias) & part.known, part.value);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let relocs = [reloc(0, 23, 1, None), reloc(4, 24, 2, Some(0)), reloc(8, 25, 2, Some(0))];
        let mut found = pair(0x1_2345);
        found[6] ^= 0x10; // one of the two lower parts
        assert!(explained(&relocs, &found).unwrap_err().why.contains("two lower parts"));
        let strayed = [relocs[0], reloc(4, 24, 2, None), relocs[2]];
        let why = explained(&strayed, &pair(0x10)).unwrap_err().why;
        assert!(why.contains("not in the same code"), "{why}");
        let mut found = pair(0x10);
        found[0] ^= 0x80; // another register
        assert_eq!(explained(&relocs, &found).unwrap_err().offset, 0);
    }

    #[test]
    fn labels_of_the_code_are_where_they_should_be() {
        // beqz a0, +8
        let object = insn::put(insn::B, 0x5_0063, 0) as u32;
        let relocs = [reloc(0, 16, 1, Some(8))];
        let bytes: Vec<u8> = [object, 0x13, 0x13].iter().flat_map(|w| w.to_le_bytes()).collect();
        let code = Code { name: "f", bytes: &bytes, relocs: &relocs, entries: &[] };
        let with = |distance| {
            let mut found = bytes.clone();
            let word = insn::put(insn::B, u64::from(object), distance) as u32;
            found[..4].copy_from_slice(&word.to_le_bytes());
            explain(&code, (0, 12), Found { bytes: &found, address: AT }).unwrap()
        };
        assert!(with(8).is_ok());
        assert!(with(4).unwrap_err().why.contains("not to the label"));
    }
}
