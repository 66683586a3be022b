// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules: which forms the kernel gives the place of an entry, one function per kind of entry.
//!
//! The kernel's own code is the source of each: `ftrace_make_nop` and `ftrace_make_call`,
//! `apply_paravirt`, `alternatives_smp_unlock`, `patch_retpoline`, `patch_return`,
//! `apply_ibt_endbr`, `__jump_label_patch`, `__static_call_transform`, `ftrace_update_ftrace_func`. Alternatives, which may
//! contain other places, are in [`crate::alternatives`].

use splice_core::arch::{ArchError, Code, Entry, KernelView};

use crate::forms::{Field, Form, Relocation, What};
use crate::nops::{INT3, NOP2, NOP5};
use crate::{special, trampoline};

/// A place that has more than one form.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// What it is, for messages.
    pub what: &'static str,
    /// Offset in the function.
    pub start: u64,
    /// All forms that a kernel gives it which has been started, the object's own first; all of the same
    /// length.
    pub forms: Vec<Form<'a>>,
    /// Those that the build leaves there: the object's own, and what objtool may have made of it
    /// (`--mnop` and `--hacks=jump_label`), if it ran on the whole image and not on the object.
    pub linked: Vec<Form<'a>>,
    /// Whether the kernel rewrites it while it runs.
    pub live: bool,
}

impl<'a> Place<'a> {
    /// A place with these forms.
    fn new(what: &'static str, entry: &Entry<'_>, forms: Vec<Form<'a>>) -> Place<'a> {
        let linked = forms.iter().take(1).map(Form::unconfirmed).collect();
        Place { what, start: entry.offset, forms, linked, live: false }
    }

    /// The same, which the kernel rewrites while it runs.
    fn live(mut self) -> Place<'a> {
        self.live = true;
        self
    }

    /// The same, where the build may have written `form`.
    fn or_linked(mut self, form: Option<Form<'a>>) -> Place<'a> {
        self.linked.extend(form);
        self
    }

    /// The forms that a kernel's text may have there.
    pub(crate) fn forms_in(&self, kernel: &dyn KernelView) -> &[Form<'a>] {
        if kernel.is_started() { &self.forms } else { &self.linked }
    }

    pub(crate) fn len(&self) -> u64 {
        self.forms.first().map_or(0, |f| f.bytes.len() as u64)
    }
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len()
    }
}

/// Names of the thunks that a return may lead through.
pub(crate) const RETURN_THUNKS: &[&str] = &[
    "__x86_return_thunk",
    "retbleed_return_thunk",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "its_return_thunk",
    "call_depth_return_thunk",
    "zen_return_thunk",
];
/// Where a conditional static call without a function leads.
const STATIC_RETURNS: &[&str] = &["__static_call_return", "__x86_return_thunk"];

const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;
const JMP8: u8 = 0xeb;
const RET: [u8; 5] = [0xc3, INT3, INT3, INT3, INT3];

/// The registers of `__x86_indirect_thunk_…`, by number.
const REGISTERS: &[&str] = &[
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// An error about an entry.
pub(crate) fn malformed(code: &Code<'_>, entry: &Entry<'_>, why: impl Into<String>) -> ArchError {
    ArchError::Entry {
        section: entry.section.into(),
        name: code.name.into(),
        offset: entry.offset,
        why: why.into(),
    }
}

/// The bytes of the code at an entry's place.
fn at<'a>(code: &Code<'a>, entry: &Entry<'_>) -> &'a [u8] {
    usize::try_from(entry.offset).ok().and_then(|o| code.bytes.get(o..)).unwrap_or_default()
}

/// The place that an entry is about; `None` for an alternative, which is not of this kind.
pub(crate) fn place<'a>(
    code: &Code<'a>,
    entry: &Entry<'a>,
) -> Result<Option<Place<'a>>, ArchError> {
    let rule = match entry.section {
        special::ALTERNATIVES => return Ok(None),
        special::FTRACE => ftrace,
        special::PARAVIRT => paravirt,
        special::SMP_LOCKS => smp_lock,
        special::RETPOLINES => retpoline,
        special::RETURNS => return_site,
        special::CALLS => call,
        special::ENDBR_SEAL => endbr_seal,
        special::JUMP_LABELS => jump_label,
        special::STATIC_CALLS => static_call,
        section if special::runtime_constant(section).is_some() => runtime_constant,
        _ => {
            return Err(malformed(
                code,
                entry,
                "what the running kernel does with such a place is not known",
            ));
        }
    };
    rule(code, entry).map(Some)
}

/// The object's own form of `len` bytes at the entry's place.
fn own<'a>(code: &Code<'a>, entry: &Entry<'_>, len: u64) -> Result<Form<'a>, ArchError> {
    Form::of_object(code, entry.offset, len, entry.section)
}

/// Ftrace site: the object's call of the tracer becomes a nop at boot, and a call of some
/// trampoline while somebody traces.
fn ftrace<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let bytes = at(code, entry).get(..5).unwrap_or_default();
    if !trampoline::is_ftrace_form(bytes) {
        return Err(malformed(code, entry, "neither a call nor a 5-byte nop stands there"));
    }
    let forms = vec![
        own(code, entry, 5)?.confirmed(),
        Form::fixed("ftrace site off", &NOP5),
        Form::branch("ftrace site on", &[CALL], What::Text),
    ];
    let off = Form::fixed("ftrace site off", &NOP5);
    Ok(Place::new("ftrace site", entry, forms).live().or_linked(Some(off)))
}

/// Paravirtual call: the indirect call becomes a direct one, or nops.
fn paravirt<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let Some(len) = entry.data.get(9).copied().filter(|l| *l > 0) else {
        return Err(malformed(code, entry, "it has no length"));
    };
    let mut forms = vec![own(code, entry, u64::from(len))?];
    let len = usize::from(len);
    if let Some(rest) = len.checked_sub(5) {
        forms.push(Form::direct_call("paravirt call", code, entry.offset).then_nops(rest));
    }
    forms.push(Form::nops("paravirt nop", len));
    if let Some(rest) = len.checked_sub(2) {
        forms.push(Form::fixed("paravirt missing", &[0x0f, 0x0b]).then_nops(rest));
    }
    Ok(Place::new("paravirt call", entry, forms))
}

/// Lock prefix: a segment prefix in its place while there is one processor only.
fn smp_lock<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let own = own(code, entry, 1)?;
    // The kernel looks whether the prefix is the first, and leaves the place alone otherwise.
    let forms = match at(code, entry) {
        [0xf0 | 0x3e, ..] => {
            let on = Form::fixed("lock prefix on", &[0xf0]);
            vec![own, on, Form::fixed("lock prefix off", &[0x3e])]
        }
        [0x66, 0xf0, ..] => vec![own],
        _ => return Err(malformed(code, entry, "no lock prefix stands there")),
    };
    Ok(Place::new("lock prefix", entry, forms))
}

/// Return: a jump to the return thunk becomes a plain return, or a jump to another thunk.
fn return_site<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let forms = match at(code, entry) {
        [JMP, ..] => vec![
            own(code, entry, 5)?.confirmed(),
            Form::fixed("return", &RET),
            Form::branch("return thunk", &[JMP], What::Named(RETURN_THUNKS)),
        ],
        [0x0f, 0x80..=0x8f, ..] => vec![own(code, entry, 6)?.confirmed()],
        [0xc3, ..] => vec![own(code, entry, 1)?],
        _ => return Err(malformed(code, entry, "no return stands there")),
    };
    Ok(Place::new("return site", entry, forms))
}

/// Call that call-depth tracking may redirect: such a redirection is not followed, so that the
/// kernel must have the symbol where the call leads, if it has a name.
fn call<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    if at(code, entry).first() != Some(&CALL) {
        return Err(malformed(code, entry, "no call stands there"));
    }
    let forms = vec![own(code, entry, 5)?];
    Ok(Place::new("call site", entry, forms))
}

/// Landing pad that nothing jumps to: overwritten by a nop.
fn endbr_seal<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let own = own(code, entry, 4)?;
    if own.bytes != trampoline::ENDBR64 {
        return Err(malformed(code, entry, "no landing pad stands there"));
    }
    Ok(landing_pad(entry.offset, own))
}

fn landing_pad(start: u64, own: Form<'_>) -> Place<'_> {
    let linked = vec![own.unconfirmed()];
    let mut forms = vec![own];
    forms.extend(trampoline::SEALED.iter().map(|s| Form::fixed("landing pad sealed", s)));
    Place { what: "landing pad", start, forms, linked, live: false }
}

/// The landing pad of a function that the unit does not list. objtool lists what nothing refers to in
/// the whole image: a reference by a weak name, say, may have gone to another unit's function.
fn first_landing_pad<'a>(code: &Code<'a>) -> Result<Option<Place<'a>>, ArchError> {
    let listed = code.entries.iter().any(|e| e.section == special::ENDBR_SEAL && e.offset == 0);
    if listed || !code.bytes.starts_with(&trampoline::ENDBR64) {
        return Ok(None);
    }
    let own = Form::of_object(code, 0, trampoline::ENDBR64.len() as u64, "landing pad")?;
    Ok(Some(landing_pad(0, own)))
}

/// Immediate operand that the start of the kernel writes: the value of a variable that does not change
/// any more (`runtime_const_fixup`, since 6.11).
fn runtime_constant<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let Some((width, variable)) = special::runtime_constant(entry.section) else {
        return Err(malformed(code, entry, "the section names no variable"));
    };
    let own = own(code, entry, width as u64)?;
    let mut written = Form::fixed("constant of the start", &own.bytes);
    written.fields.push(Field { at: 0, width, what: What::Variable(variable) });
    Ok(Place::new("constant of the start", entry, vec![own, written]))
}

/// Jump label: a jump to the entry's target, or a nop of that length.
fn jump_label<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    let (len, is_nop) = match at(code, entry) {
        [JMP8, _, ..] => (2, false),
        [JMP, _, _, _, _, ..] => (5, false),
        b if b.starts_with(&NOP2) => (2, true),
        b if b.starts_with(&NOP5) => (5, true),
        _ => return Err(malformed(code, entry, "neither a jump nor a nop stands there")),
    };
    let mut forms = vec![own(code, entry, len)?];
    let mut off = None;
    if !is_nop {
        let nop = if len == 2 { &NOP2[..] } else { &NOP5[..] };
        forms.push(Form::fixed("jump label off", nop));
        off = forms.last().cloned();
    } else {
        let label = entry.relocs.iter().find(|r| r.offset == 4).map(Relocation::new);
        let what = match (entry.target, label) {
            (Some(target), _) => What::Within(target),
            (None, Some(label)) => What::Label(label),
            (None, None) => return Err(malformed(code, entry, "it has no target")),
        };
        forms.push(if len == 2 {
            let field = Field { at: 1, width: 1, what };
            let mut form = Form::fixed("jump label on", &[JMP8, 0]);
            form.fields.push(field);
            form
        } else {
            Form::branch("jump label on", &[JMP], what)
        });
    }
    Ok(Place::new("jump label", entry, forms).live().or_linked(off))
}

/// Static call: the call of the trampoline becomes a call of the function; without a function a
/// nop, a return, or an instruction that returns zero.
fn static_call<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    const ZERO: [[u8; 5]; 2] = [[0x2e, 0x2e, 0x2e, 0x31, 0xc0], [0x66, 0x66, 0x48, 0x31, 0xc0]];
    let mut relocs = code.relocs.iter();
    let name = relocs.find(|r| (entry.offset + 1..entry.offset + 3).contains(&r.offset));
    let function = || What::StaticCall(name.map_or("", |r| r.symbol));
    let forms = match at(code, entry) {
        [CALL, ..] => {
            let mut forms = vec![
                own(code, entry, 5)?.confirmed(),
                Form::branch("static call", &[CALL], function()),
                Form::fixed("static call off", &NOP5),
            ];
            forms.extend(ZERO.iter().map(|z| Form::fixed("static call zero", z)));
            forms
        }
        [JMP, ..] => vec![
            own(code, entry, 5)?.confirmed(),
            Form::branch("static call", &[JMP], function()),
            Form::fixed("static call off", &RET),
            Form::branch("static call off", &[JMP], What::Named(RETURN_THUNKS)),
        ],
        [0x0f, condition @ 0x80..=0x8f, ..] => vec![
            own(code, entry, 6)?.confirmed(),
            Form::branch("static call", &[0x0f, *condition], function()),
            Form::branch("static call off", &[0x0f, *condition], What::Named(STATIC_RETURNS)),
        ],
        _ => return Err(malformed(code, entry, "neither a call nor a jump stands there")),
    };
    Ok(Place::new("static call", entry, forms).live())
}

/// Places that no entry lists: those that the kernel knows by name, and a landing pad.
pub(crate) fn unlisted<'a>(code: &Code<'a>) -> Result<Vec<Place<'a>>, ArchError> {
    let mut places = tracer_calls(code)?;
    places.extend(static_trampoline(code)?);
    places.extend(first_landing_pad(code)?);
    Ok(places)
}

/// The calls of the tracer in ftrace's own trampolines (`ftrace_update_ftrace_func` in
/// `arch/x86/kernel/ftrace.c`): of a stub in the object, and of the only tracer, or of the function
/// that goes through the list of them, while somebody traces.
fn tracer_calls<'a>(code: &Code<'a>) -> Result<Vec<Place<'a>>, ArchError> {
    if !matches!(code.name, "ftrace_caller" | "ftrace_regs_caller") {
        return Ok(Vec::new());
    }
    let what = "tracer called";
    let calls = code.relocs.iter().filter(|r| r.symbol == "ftrace_stub").filter_map(|r| {
        let start = r.offset.checked_sub(1)?;
        (code.bytes.get(usize::try_from(start).ok()?) == Some(&CALL)).then_some(start)
    });
    calls
        .map(|start| {
            let forms = vec![
                Form::of_object(code, start, 5, what)?.confirmed(),
                Form::branch(what, &[CALL], What::Function),
            ];
            let linked = vec![Form::of_object(code, start, 5, what)?];
            Ok(Place { what, start, forms, linked, live: true })
        })
        .collect()
}

/// Trampoline of a static call: code of that name that ends in the mark which the kernel looks for
/// itself. It jumps to the function of the moment, or returns.
fn static_trampoline<'a>(code: &Code<'a>) -> Result<Option<Place<'a>>, ArchError> {
    const MARK: [u8; 3] = [0x0f, 0xb9, 0xcc];
    if !code.name.starts_with("__SCT__") || code.bytes.get(5..) != Some(&MARK[..]) {
        return Ok(None);
    }
    let what = "static call trampoline";
    let forms = vec![
        Form::of_object(code, 0, 5, what)?.confirmed(),
        Form::branch(what, &[JMP], What::Function),
        Form::fixed("static call trampoline off", &RET),
        Form::branch("static call trampoline off", &[JMP], What::Named(RETURN_THUNKS)),
    ];
    let linked = vec![Form::of_object(code, 0, 5, what)?];
    Ok(Some(Place { what, start: 0, forms, linked, live: true }))
}

/// Retpoline: the call or jump of a thunk becomes the indirect branch itself, with or without a
/// fence, or a branch to a thunk elsewhere.
fn retpoline<'a>(code: &Code<'a>, entry: &Entry<'a>) -> Result<Place<'a>, ArchError> {
    // (bytes before the displacement, whether it is a call, the condition)
    let (head, is_call, condition): (&[u8], bool, Option<u8>) = match at(code, entry) {
        [CALL, ..] => (&[CALL], true, None),
        [JMP, ..] => (&[JMP], false, None),
        [0x2e, CALL, ..] => (&[0x2e, CALL], true, None),
        [0x2e, JMP, ..] => (&[0x2e, JMP], false, None),
        [0x0f, c @ 0x80..=0x8f, ..] => {
            (at(code, entry).get(..2).unwrap_or_default(), false, Some(*c))
        }
        _ => return Err(malformed(code, entry, "neither a call nor a jump stands there")),
    };
    let len = head.len() + 4;
    let own = own(code, entry, len as u64)?;
    let symbol = own.fields.first().map(|f| match &f.what {
        What::Reloc(r) => r.symbol,
        _ => "",
    });
    let register = symbol
        .and_then(|s| s.strip_prefix("__x86_indirect_thunk_"))
        .and_then(|r| REGISTERS.iter().position(|known| *known == r));
    let Some(register) = register else {
        return Err(malformed(code, entry, "no retpoline thunk is called there"));
    };
    let number = register as u8;
    let indirect = |call: bool| -> Vec<u8> {
        let modrm = if call { 0xd0 } else { 0xe0 } + (number & 7);
        if number < 8 { vec![0xff, modrm] } else { vec![0x41, 0xff, modrm] }
    };
    let mut forms = vec![own.confirmed()];
    for fence in [false, true] {
        let mut bytes = Vec::new();
        if let Some(c) = condition {
            // The opposite condition jumps over the rest.
            bytes.extend([0x70 | ((c & 0xf) ^ 1), (len - 2) as u8]);
        }
        if fence {
            bytes.extend([0x0f, 0xae, 0xe8]);
        }
        bytes.extend(indirect(is_call));
        let rule = if fence { "retpoline lfence" } else { "retpoline inline" };
        let Some(mut rest) = len.checked_sub(bytes.len()) else { continue };
        if !is_call && rest > 0 {
            // A breakpoint behind the jump, since 6.3 and in stable kernels.
            let plain = Form::fixed(rule, &bytes).then_nops(rest);
            forms.push(plain);
            bytes.push(INT3);
            rest -= 1;
        }
        forms.push(Form::fixed(rule, &bytes).then_nops(rest));
    }
    // A thunk that lies where the processor predicts well; a trampoline of call-depth tracking.
    let mut thunk = indirect(false);
    thunk.push(INT3);
    forms.push(Form::branch("retpoline thunk moved", head, What::Holds(thunk)));
    Ok(Place::new("retpoline", entry, forms))
}
