// SPDX-License-Identifier: GPL-2.0-or-later
//! Forms: what running text may hold at a place, and whether it does.
//!
//! A form is a sequence of instructions of which some have a part that is not fixed: the field of
//! a relocation gives part of its symbol's value away, the target of a branch has to satisfy a
//! condition, an immediate operand is the kernel's own business. All other bits must be equal.

use splice_core::arch::{ArchError, Code, CodeReloc, KernelView};

use crate::values::Fact;
use crate::{insn, reloc, veneers};

/// What the part of an instruction that is not fixed may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What<'a> {
    /// A relocated value.
    Reloc(CodeReloc<'a>),
    /// For a branch: a distance to the place that this relocation of a table names.
    Label(CodeReloc<'a>),
    /// For a branch: a distance to that offset from the function's start.
    Within(u64),
    /// For a branch: a distance to kernel or module text.
    Text,
    /// Anything in these bits.
    Any(u32),
}

/// One instruction of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub value: u32,
    pub what: Option<What<'a>>,
}

impl<'a> Word<'a> {
    /// Exactly that instruction.
    pub(crate) fn fixed(value: u32) -> Word<'a> {
        Word { value, what: None }
    }

    /// That instruction with a part that is not fixed.
    pub(crate) fn with(value: u32, what: What<'a>) -> Word<'a> {
        Word { value, what: Some(what) }
    }
}

/// One form of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form<'a> {
    /// Name of the rule that allows it; empty for the object's own instructions.
    pub rule: &'static str,
    pub words: Vec<Word<'a>>,
}

/// What a form that fits teaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit<'a> {
    pub rule: &'static str,
    /// Further rules that explained words of it.
    pub more: Vec<&'static str>,
    pub facts: Vec<Fact<'a>>,
    /// Whether the kernel's list has every symbol where the form says.
    pub confirmed: bool,
}

/// Where a form is compared, and whom to ask.
#[derive(Clone, Copy)]
pub(crate) struct Context<'k> {
    /// Run-time address of the function.
    pub function: u64,
    /// Offset of the place in the function.
    pub start: u64,
    pub kernel: &'k dyn KernelView,
}

impl<'a> Form<'a> {
    /// A form of instructions without any part that is not fixed.
    pub(crate) fn fixed(rule: &'static str, words: &[u32]) -> Form<'a> {
        Form { rule, words: words.iter().map(|w| Word::fixed(*w)).collect() }
    }

    /// A form of nops.
    pub(crate) fn nops(rule: &'static str, count: usize) -> Form<'a> {
        Form::fixed(rule, &vec![insn::NOP; count])
    }

    /// The code's own instructions: `len` bytes from `start`, with the relocations there.
    pub(crate) fn of_code(
        code: &Code<'a>,
        start: u64,
        len: u64,
        malformed: &dyn Fn(&str) -> ArchError,
    ) -> Result<Form<'a>, ArchError> {
        if !start.is_multiple_of(insn::LEN) || !len.is_multiple_of(insn::LEN) {
            return Err(malformed("it is not made of whole instructions"));
        }
        let mut words = Vec::new();
        for offset in (0..len).step_by(4) {
            let at = start.saturating_add(offset);
            let Some(value) = insn::at(code.bytes, at) else {
                return Err(malformed("it reaches beyond the code"));
            };
            words.push(Word::fixed(value));
        }
        let end = start.saturating_add(len);
        for r in code.relocs {
            let info = reloc::info_of(code, r)?;
            let field_end = r.offset.saturating_add(u64::from(info.width));
            if info.width == 0 || field_end <= start || r.offset >= end {
                continue;
            }
            let word = r
                .offset
                .checked_sub(start)
                .filter(|at| at % insn::LEN == 0 && info.width == 4)
                .and_then(|at| words.get_mut(usize::try_from(at / insn::LEN).ok()?));
            let Some(word) = word else {
                return Err(malformed("a relocation lies across an instruction's border"));
            };
            word.what = Some(What::Reloc(*r));
        }
        Ok(Form { rule: "", words })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.words.len() as u64 * insn::LEN
    }

    /// The instructions as bytes, parts that are not fixed as they are in the form.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|w| w.value.to_le_bytes()).collect()
    }

    /// Compares `found`, which is as long as the form, with the form.
    pub(crate) fn fits(&self, found: &[u8], context: Context<'_>) -> Result<Fit<'a>, String> {
        let mut fit = Fit { rule: self.rule, more: Vec::new(), facts: Vec::new(), confirmed: true };
        if found.len() as u64 != self.len() {
            return Err(format!("it is {} bytes long", self.len()));
        }
        for (n, word) in self.words.iter().enumerate() {
            let at = n as u64 * insn::LEN;
            let have = insn::at(found, at).unwrap_or_default();
            word.fits(have, context.start + at, context, &mut fit)?;
        }
        Ok(fit)
    }
}

impl<'a> Word<'a> {
    fn fits(
        &self,
        found: u32,
        offset: u64,
        context: Context<'_>,
        fit: &mut Fit<'a>,
    ) -> Result<(), String> {
        let kernel = context.kernel;
        let place = context.function.wrapping_add(offset);
        let other = || format!("{found:08x} stands there instead of {:08x}", self.value);
        // For a branch: where it leads, if it is that branch.
        let target = || {
            let same = insn::without_distance(found) == insn::without_distance(self.value);
            match insn::branch_distance(found) {
                Some(distance) if same => Ok(place.wrapping_add_signed(distance)),
                _ => Err(other()),
            }
        };
        match &self.what {
            None if found == self.value => Ok(()),
            None => Err(other()),
            Some(What::Any(mask)) if found & !mask == self.value & !mask => Ok(()),
            Some(What::Any(_)) => Err(other()),
            Some(What::Reloc(r)) => {
                let (fact, rule) = veneers::relocated(r, self.value, found, place, offset, kernel)?;
                fit.more.extend(rule);
                fit.add(fact, kernel)
            }
            Some(What::Label(r)) => {
                let value = target()?.wrapping_sub(r.addend as u64);
                fit.add(Fact::whole(r, value, offset), kernel)
            }
            Some(What::Within(to)) => {
                let target = target()?;
                if target == context.function.wrapping_add(*to) {
                    Ok(())
                } else {
                    Err(format!("{target:#x} is not where the branch leads"))
                }
            }
            Some(What::Text) => {
                let target = target()?;
                if kernel.is_text(target) || kernel.is_function(target) {
                    Ok(())
                } else {
                    Err(format!("{target:#x} is not in kernel or module text"))
                }
            }
        }
    }
}

impl<'a> Fit<'a> {
    fn add(&mut self, fact: Fact<'a>, kernel: &dyn KernelView) -> Result<(), String> {
        let known = if fact.symbol.is_empty() { Vec::new() } else { kernel.addresses(fact.symbol) };
        if known.is_empty() {
            self.confirmed = false;
        } else if !known.iter().any(|v| fact.holds(*v)) {
            return Err(format!("it does not lead to where the kernel has {}", fact.symbol));
        }
        self.facts.push(fact);
        Ok(())
    }
}
