// SPDX-License-Identifier: GPL-2.0-or-later
//! Forms: what running text may hold at a place, and whether it does.
//!
//! A form is a sequence of bytes in which some fields are not fixed: a relocation's field gives
//! its symbol's value away, the target of a branch has to satisfy a condition, a run of nops may
//! be any nops. Everything else must be equal.

use splice_core::arch::{ArchError, Code, CodeReloc, KernelView, Learned};

use crate::{nops, reloc};

/// A relocation as a form needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relocation<'a> {
    pub key: u32,
    pub r_type: u32,
    pub addend: i64,
    pub symbol: &'a str,
    /// Whether the value counts only if the kernel has a symbol of that name there: for places
    /// where another form looks the same.
    pub confirm: bool,
}

impl<'a> Relocation<'a> {
    pub(crate) fn new(r: &CodeReloc<'a>) -> Relocation<'a> {
        Relocation {
            key: r.key,
            r_type: r.r_type,
            addend: r.addend,
            symbol: r.symbol,
            confirm: false,
        }
    }
}

/// What a field may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What<'a> {
    /// A relocated value.
    Reloc(Relocation<'a>),
    /// The distance of a 2-byte jump that stands for a 5-byte jump with this relocation.
    Short(Relocation<'a>),
    /// A distance to the place that this relocation of a table names.
    Label(Relocation<'a>),
    /// A distance to that offset of the function.
    Within(u64),
    /// A distance to the start of a function.
    Function,
    /// A distance to the function whose address is kept so far behind the symbol of that name; to any
    /// function if that cannot be read.
    Kept { symbol: &'a str, offset: i64 },
    /// A distance to the function that the static call's trampoline of that name jumps to; to
    /// any function if the trampoline has no name or cannot be read.
    StaticCall(&'a str),
    /// A distance to kernel or module text.
    Text,
    /// What the kernel's variable of that name begins with.
    Variable(&'a str),
    /// A distance to a symbol of one of these names.
    Named(&'static [&'static str]),
    /// A distance to a thunk that holds these bytes.
    Holds(Vec<u8>),
}

/// A field that is not fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Offset in the form.
    pub at: usize,
    /// Size in bytes.
    pub width: usize,
    pub what: What<'a>,
}

impl Field<'_> {
    fn end(&self) -> usize {
        self.at + self.width
    }
}

/// One form of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form<'a> {
    /// Name of the rule that allows it; empty for the object's own bytes.
    pub rule: &'static str,
    pub bytes: Vec<u8>,
    pub fields: Vec<Field<'a>>,
    /// Runs (start, end) that any nops may fill.
    pub fill: Vec<(usize, usize)>,
}

/// What a matching form says of the symbols that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// The kernel knows nothing of a symbol, or it has no name.
    Open,
    /// Every symbol is where the kernel has one of that name.
    Confirmed,
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
    /// A form of fixed bytes.
    pub(crate) fn fixed(rule: &'static str, bytes: &[u8]) -> Form<'a> {
        Form { rule, bytes: bytes.to_vec(), fields: Vec::new(), fill: Vec::new() }
    }

    /// `len` bytes of any nops.
    pub(crate) fn nops(rule: &'static str, len: usize) -> Form<'a> {
        Form { rule, bytes: vec![0x90; len], fields: Vec::new(), fill: vec![(0, len)] }
    }

    /// A branch `opcode rel32`.
    pub(crate) fn branch(rule: &'static str, opcode: &[u8], what: What<'a>) -> Form<'a> {
        let mut form = Form::fixed(rule, opcode);
        form.fields.push(Field { at: opcode.len(), width: 4, what });
        form.bytes.extend([0; 4]);
        form
    }

    /// A call of the function that the indirect call `call *pointer(%rip)` at that offset of the object
    /// leads to.
    pub(crate) fn direct_call(rule: &'static str, code: &Code<'a>, start: u64) -> Form<'a> {
        let opcode =
            usize::try_from(start).ok().and_then(|at| code.bytes.get(at..at.checked_add(2)?));
        let field = start.saturating_add(2);
        let first = code.relocs.partition_point(|r| r.offset < field);
        let reloc = code.relocs.get(first).filter(|r| r.offset == field);
        let what = match (opcode, reloc) {
            // The field holds S + A - P, and the pointer is at S + A + 4.
            (Some([0xff, 0x15]), Some(r)) if !r.symbol.is_empty() => {
                What::Kept { symbol: r.symbol, offset: r.addend.saturating_add(4) }
            }
            _ => What::Function,
        };
        Form::branch(rule, &[0xe8], what)
    }

    /// The same, with any nops behind it.
    pub(crate) fn then_nops(mut self, len: usize) -> Form<'a> {
        if len > 0 {
            let at = self.bytes.len();
            self.bytes.extend(std::iter::repeat_n(0x90, len));
            self.fill.push((at, at + len));
        }
        self
    }

    /// The object's own bytes from `start`, with the relocations that lie there.
    pub(crate) fn of_object(
        code: &Code<'a>,
        start: u64,
        len: u64,
        section: &str,
    ) -> Result<Form<'a>, ArchError> {
        let malformed = |why: &str| ArchError::Entry {
            section: section.into(),
            name: code.name.into(),
            offset: start,
            why: why.into(),
        };
        let end = start.checked_add(len).ok_or_else(|| malformed("its length overflows"))?;
        let bytes = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(s, e)| code.bytes.get(s..e))
            .ok_or_else(|| malformed("the place reaches beyond the function"))?;
        let mut form = Form::fixed("", bytes);
        for r in code.relocs {
            let info = reloc::describe(r.r_type).ok_or_else(|| ArchError::UnknownRelocation {
                name: code.name.into(),
                offset: r.offset,
                r_type: r.r_type,
            })?;
            let field_end = r.offset.saturating_add(u64::from(info.width));
            if info.width == 0 || field_end <= start || r.offset >= end {
                continue;
            }
            if r.offset < start || field_end > end {
                return Err(malformed("a relocation lies across the place's border"));
            }
            form.fields.push(Field {
                at: (r.offset - start) as usize,
                width: usize::from(info.width),
                what: What::Reloc(Relocation::new(r)),
            });
        }
        Ok(form)
    }

    /// The same form, believed only if the kernel confirms its symbols.
    pub(crate) fn confirmed(mut self) -> Form<'a> {
        for field in &mut self.fields {
            if let What::Reloc(r) = &mut field.what {
                r.confirm = true;
            }
        }
        self
    }

    /// The same form, believed as far as any other code.
    pub(crate) fn unconfirmed(&self) -> Form<'a> {
        let mut form = self.clone();
        for field in &mut form.fields {
            if let What::Reloc(r) = &mut field.what {
                r.confirm = false;
            }
        }
        form
    }

    /// Names the rule, unless an inner one is named already.
    pub(crate) fn named(mut self, rule: &'static str) -> Form<'a> {
        self.rule = rule;
        self
    }

    /// Puts `inner` in at `at`; what was there is gone. False if that would cut a field.
    pub(crate) fn overlay(&mut self, at: usize, inner: &Form<'a>) -> bool {
        let end = at + inner.bytes.len();
        let cut = |s: usize, e: usize| s < end && at < e && (s < at || e > end);
        if self.fields.iter().any(|f| cut(f.at, f.end())) {
            return false;
        }
        let Some(slot) = self.bytes.get_mut(at..end) else { return false };
        slot.copy_from_slice(&inner.bytes);
        self.fields.retain(|f| f.at < at || f.at >= end);
        // What is left of a cut run is still nothing but nops.
        let mut fill = Vec::new();
        for (s, e) in self.fill.drain(..) {
            fill.extend([(s, e.min(at)), (s.max(end), e)].into_iter().filter(|(s, e)| s < e));
        }
        fill.extend(inner.fill.iter().map(|(s, e)| (s + at, e + at)));
        fill.sort_unstable();
        self.fill = fill;
        self.fields.extend(inner.fields.iter().cloned().map(|mut f| {
            f.at += at;
            f
        }));
        self.fields.sort_by_key(|f| f.at);
        if !inner.rule.is_empty() {
            self.rule = inner.rule;
        }
        true
    }

    /// Whether byte `at` is fixed.
    fn is_fixed(&self, at: usize) -> bool {
        !self.fields.iter().any(|f| (f.at..f.end()).contains(&at))
            && !self.fill.iter().any(|(s, e)| (*s..*e).contains(&at))
    }

    /// Compares `found`, which is as long as the form, with the form.
    pub(crate) fn fits(
        &self,
        found: &[u8],
        context: Context<'_>,
    ) -> Result<(Vec<Learned>, Trust), String> {
        if found.len() != self.bytes.len() {
            return Err(format!("it is {} bytes long", self.bytes.len()));
        }
        for (at, (want, have)) in self.bytes.iter().zip(found).enumerate() {
            if want != have && self.is_fixed(at) {
                return Err(format!("byte {at} is {have:02x} instead of {want:02x}"));
            }
        }
        for (start, end) in &self.fill {
            if !found.get(*start..*end).is_some_and(nops::is_fill) {
                return Err(format!("bytes {start} to {end} are not nops"));
            }
        }
        let mut learned = Vec::new();
        let mut trust = Trust::Confirmed;
        for field in &self.fields {
            let bytes = found.get(field.at..field.end()).unwrap_or_default();
            let (value, one) = field.check(bytes, context)?;
            trust = trust.min(one);
            learned.extend(value);
        }
        Ok((learned, trust))
    }
}

impl Field<'_> {
    /// Checks what the field holds; says which symbol value it gives away.
    fn check(
        &self,
        bytes: &[u8],
        context: Context<'_>,
    ) -> Result<(Option<Learned>, Trust), String> {
        let kernel = context.kernel;
        let offset = context.start + self.at as u64;
        let place = context.function.wrapping_add(offset);
        let distance = match bytes {
            [b] => i64::from(*b as i8),
            [a, b, c, d] => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
            _ => 0,
        };
        let target = place.wrapping_add(self.width as u64).wrapping_add_signed(distance);
        let branch = |ok: bool, why: &str| {
            if ok { Ok((None, Trust::Confirmed)) } else { Err(format!("{target:#x} {why}")) }
        };
        let learn = |r: &Relocation<'_>, value: u64| {
            let known = if r.symbol.is_empty() { Vec::new() } else { kernel.addresses(r.symbol) };
            let trust = if known.contains(&value) { Trust::Confirmed } else { Trust::Open };
            if trust == Trust::Open && (r.confirm || !known.is_empty()) {
                return Err(format!("{value:#x} is not where the kernel has {}", r.symbol));
            }
            Ok((Some(Learned { key: r.key, value, offset }), trust))
        };
        match &self.what {
            What::Reloc(r) => {
                let value = recover(r, place, bytes).map_err(|e| e.to_string())?;
                learn(r, value)
            }
            // The 5-byte jump's field would hold S + A - P and P + 4 would be the next
            // instruction: S is the target less A + 4.
            What::Short(r) => learn(r, target.wrapping_sub(r.addend as u64).wrapping_sub(4)),
            What::Label(r) => learn(r, target.wrapping_sub(r.addend as u64)),
            What::Within(to) => {
                branch(target == context.function.wrapping_add(*to), "is not the label's target")
            }
            What::Function => branch(kernel.is_function(target), "is no function"),
            What::Kept { symbol, offset } => {
                let kept = |start: u64| {
                    let mut bytes = [0; 8];
                    let read = kernel.read(start.wrapping_add_signed(*offset), &mut bytes);
                    read.then(|| u64::from_le_bytes(bytes))
                };
                let all: Vec<u64> = kernel.addresses(symbol).into_iter().filter_map(kept).collect();
                let ok = all.is_empty() || all.contains(&target);
                branch(ok && kernel.is_function(target), "is not the function that is to be called")
            }
            What::StaticCall(name) => {
                let targets = trampoline_targets(kernel, name);
                let ok = targets.is_empty() || targets.contains(&target);
                branch(ok && kernel.is_function(target), "is not the static call's function")
            }
            What::Text => {
                let ok = kernel.is_text(target) || kernel.is_function(target);
                branch(ok, "is not in kernel or module text")
            }
            What::Variable(name) => {
                let mut have = vec![0; bytes.len()];
                let read = kernel.addresses(name).iter().any(|at| kernel.read(*at, &mut have));
                match read {
                    true if have == bytes => Ok((None, Trust::Confirmed)),
                    true => Err(format!("the kernel's {name} is {have:02x?}")),
                    false => Err(format!("the kernel's {name} cannot be read")),
                }
            }
            What::Named(names) => {
                let ok = names.iter().any(|n| kernel.addresses(n).contains(&target));
                branch(ok, "is not one of the symbols that the rule allows")
            }
            What::Holds(wanted) => {
                let mut have = vec![0; wanted.len()];
                let ok = kernel.read(target, &mut have) && have == *wanted;
                branch(ok, "does not hold the thunk")
            }
        }
    }
}

/// The symbol value that a relocation's field gives away.
pub(crate) fn recover(r: &Relocation<'_>, place: u64, bytes: &[u8]) -> Result<u64, ArchError> {
    use splice_core::arch::RelocationFixup;
    crate::X86_64.recover(r.r_type, r.addend, place, bytes)
}

/// Where the static call's trampolines of that name jump to. All calls of one lead there too.
fn trampoline_targets(kernel: &dyn KernelView, name: &str) -> Vec<u64> {
    use splice_core::arch::TrampolineEncoder;
    if name.is_empty() {
        return Vec::new();
    }
    let read = |address: u64| {
        let mut bytes = [0; 5];
        let read = kernel.read(address, &mut bytes);
        crate::X86_64.recognise(&bytes, address).filter(|_| read)
    };
    kernel.addresses(name).into_iter().filter_map(read).collect()
}
