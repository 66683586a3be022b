// SPDX-License-Identifier: GPL-2.0-or-later
//! What the linker and the module loader make of relocated instructions: branches that lead too
//! far go through a veneer, and page addresses that Cortex-A53 erratum 843419 would get wrong are
//! computed otherwise.
//!
//! Sources: `get_plt_entry` and `module_emit_veneer_for_adrp` (arch/arm64/kernel/module-plts.c),
//! `reloc_insn_adrp` (arch/arm64/kernel/module.c), 6.1 and 6.12; for the image the linker's
//! `--fix-cortex-a53-843419` and its stubs of long branches, whose output was looked at.

use splice_core::arch::{CodeReloc, KernelView, RelocationFixup};

use crate::reloc::{self, ADR_PAGE, ADR_PAGE_NC, CALL26, JUMP26, PAGE};
use crate::values::Fact;
use crate::{Aarch64, insn};

/// A symbol value read from a field, and the rule under which if it is not plainly there.
pub(crate) type Read<'a> = (Fact<'a>, Option<&'static str>);

/// Reads `N` instructions of the kernel.
fn read<const N: usize>(kernel: &dyn KernelView, address: u64) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (n, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 4];
        if !kernel.read(address.wrapping_add(n as u64 * insn::LEN), &mut bytes) {
            return None;
        }
        *word = u32::from_le_bytes(bytes);
    }
    Some(words)
}

/// `add rd, rd, #imm`: the immediate.
fn added(word: u32, register: u32) -> Option<u64> {
    let head = 0x9100_0000 | register << 5 | register;
    (word & !0x003f_fc00 == head).then_some(u64::from(word >> 10 & 0xfff))
}

/// Where an unconditional branch at `place` leads.
fn jump(word: u32, place: u64) -> Option<u64> {
    if word & !insn::IMM26 != insn::B {
        return None;
    }
    Some(place.wrapping_add_signed(insn::branch_distance(word)?))
}

/// Where the veneer at that address leads: `adrp x16; add x16, x16, #…; br x16`, behind a landing
/// pad or not.
fn veneer(kernel: &dyn KernelView, address: u64) -> Option<u64> {
    let at = match read::<1>(kernel, address)? {
        [word] if insn::is_bti(word) => address.wrapping_add(insn::LEN),
        _ => address,
    };
    let [adrp, add, br] = read::<3>(kernel, at)?;
    if !insn::is_adrp(adrp) || insn::rd(adrp) != 16 || br != 0xd61f_0200 {
        return None;
    }
    Some(insn::adr_target(adrp, at)?.wrapping_add(added(add, 16)?))
}

/// Reads a relocated word that stands at `place` for the object's `own`, at `offset` of the
/// function.
pub(crate) fn relocated<'a>(
    r: &CodeReloc<'a>,
    own: u32,
    found: u32,
    place: u64,
    offset: u64,
    kernel: &dyn KernelView,
) -> Result<Read<'a>, String> {
    let mask = reloc::describe(r.r_type).map_or(0, |info| info.mask) as u32;
    if own & !mask != found & !mask {
        let other = page_elsewhere(r, own, found, place, offset, kernel);
        return other.ok_or_else(|| format!("{found:08x} is not {own:08x} with another address"));
    }
    let value = Aarch64
        .recover(r.r_type, r.addend, place, &found.to_le_bytes())
        .map_err(|e| e.to_string())?;
    let plain = Fact::of_field(r, value, place, offset);
    let listed = if r.symbol.is_empty() { Vec::new() } else { kernel.addresses(r.symbol) };
    if listed.is_empty() || listed.iter().any(|v| plain.holds(*v)) {
        return Ok((plain, None));
    }
    if matches!(r.r_type, CALL26 | JUMP26)
        && let Some(to) = veneer(kernel, value.wrapping_add(r.addend as u64))
    {
        let value = to.wrapping_sub(r.addend as u64);
        if listed.contains(&value) {
            return Ok((Fact::whole(r, value, offset), Some("branch veneer")));
        }
    }
    // A value that the kernel's list contradicts is the engine's to refuse, with both values.
    Ok((plain, None))
}

/// Erratum 843419: an `adrp` in the last two words of a page becomes an `adr` of the page, or
/// goes to a veneer that computes the page and comes back.
fn page_elsewhere<'a>(
    r: &CodeReloc<'a>,
    own: u32,
    found: u32,
    place: u64,
    offset: u64,
    kernel: &dyn KernelView,
) -> Option<Read<'a>> {
    let last_words = place & (PAGE - 1) >= PAGE - 8;
    if !matches!(r.r_type, ADR_PAGE | ADR_PAGE_NC) || !last_words || !insn::is_adrp(own) {
        return None;
    }
    let register = insn::rd(own);
    let (page, rule) = if insn::is_adr(found) && insn::rd(found) == register {
        (insn::adr_target(found, place)?, "erratum 843419: adr")
    } else {
        let at = jump(found, place)?;
        let [adrp, add, back] = read::<3>(kernel, at)?;
        let returns = jump(back, at.wrapping_add(8)) == Some(place.wrapping_add(insn::LEN));
        if !insn::is_adrp(adrp) || insn::rd(adrp) != register || !returns {
            return None;
        }
        let page = insn::adr_target(adrp, at)?.wrapping_add(added(add, register)?);
        (page, "erratum 843419: page in a veneer")
    };
    if page % PAGE != 0 {
        return None;
    }
    let value = page.wrapping_sub(r.addend as u64);
    Some((Fact::of_field(r, value, place, offset), Some(rule)))
}

/// Erratum 843419: the access behind an `adrp` in the last two words of a page is moved into a
/// stub, and a branch to the stub stands in its place. `before` are the running words before
/// `place`, nearest first. The word in the stub.
pub(crate) fn moved_access(
    own: u32,
    found: u32,
    place: u64,
    before: [Option<u32>; 3],
    kernel: &dyn KernelView,
) -> Option<u32> {
    if !insn::is_offset_access(own) {
        return None;
    }
    let base = insn::rn(own);
    let after_page = before.iter().zip(1u64..).skip(1).any(|(word, n)| {
        let at = place.wrapping_sub(n * insn::LEN);
        word.is_some_and(|w| insn::is_adrp(w) && insn::rd(w) == base) && at & (PAGE - 1) >= PAGE - 8
    });
    if !after_page {
        return None;
    }
    let at = jump(found, place)?;
    let [access, back] = read::<2>(kernel, at)?;
    let returns = jump(back, at.wrapping_add(insn::LEN)) == Some(place.wrapping_add(insn::LEN));
    returns.then_some(access)
}
