// SPDX-License-Identifier: GPL-2.0-or-later
//! The plugin's side: entries that call a backend and let no panic out.
//!
//! [`export_arch!`](crate::export_arch) fills in the one thing that is missing, which backend.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec};
use splice_core::arch::{
    Arch, ArchError, Argument, Code, KernelView, NoRoom, RelocKind, RunCode, RunMatch, Uleb128,
    Verdict,
};
use splice_core::unit::{EntrySize, Role, SpecialSection};

use crate::convert;
use crate::v1::{
    AddedV1, AddedV1Ref, Answer, ArgumentV1, BitFieldV1, CodeV1, DifferenceV1, FAILURE_OTHER,
    FAILURE_PANIC, FactsV1, FailureV1, FlatImageV1, HandleV1, KernelV1, LearnedV1, LinkingV1,
    LinkingV1Ref, MatchedV1, MismatchV1, NeverQuiescentV1, PartialV1, PluginV1, PluginV1Ref,
    RELOC_ADDRESS, RELOC_BRANCH, RELOC_NONE, ROLE_ANNOTATES, ROLE_BOOT, ROLE_DATA, ROLE_DROPPED,
    ROLE_DYNAMIC, ROLE_FROZEN, ROLE_IDS, ROLE_LISTED, ROLE_PARALLEL, ROLE_PAYLOAD, ROLE_PLACED,
    ROLE_STAYS, ROLE_TRAVELS, RangeV1, RelocInfoV1, RuleCountV1, RunCodeV1, RunMatchV1, SIZE_FIXED,
    SIZE_FROM_HEADER, SIZE_FROM_RELOCATIONS, SIZE_ONE_OF, SIZE_WHOLE, SettledV1, SpecialSectionV1,
    TemplateV1, ULEB128_SET, ULEB128_SUB, VerdictV1,
};

/// Relocation types that [`splice_core::arch::RelocationFixup::describe`] is asked for when the
/// table is handed over: all below this number. No psABI goes beyond a third of it.
pub const RELOC_TYPES: u32 = 4096;

/// What the macro knows.
pub trait Export {
    /// The backend.
    fn arch() -> &'static dyn Arch;
}

/// The entries of a plugin for that backend.
pub fn module<E: Export>() -> PluginV1Ref {
    quiet_panics();
    PluginV1 {
        facts: facts::<E>,
        compare: compare::<E>,
        match_running: match_running::<E>,
        disassemble: disassemble::<E>,
        is_padding: is_padding::<E>,
        target_offsets: target_offsets::<E>,
        apply: apply::<E>,
        recover: recover::<E>,
        site: site::<E>,
        recognise: recognise::<E>,
        busy_range: busy_range::<E>,
    }
    .leak_into_prefix()
}

/// The entries of it that came later.
pub fn added<E: Export>() -> AddedV1Ref {
    AddedV1 {
        boot_payload: boot_payload::<E>,
        flat_image: flat_image::<E>,
        replaces_by_nothing: replaces_by_nothing::<E>,
        arguments: arguments::<E>,
        runs_on: runs_on::<E>,
        settled: settled::<E>,
    }
    .leak_into_prefix()
}

/// Those about what is left to the linker.
pub fn linking<E: Export>() -> LinkingV1Ref {
    LinkingV1 { uleb128: uleb128::<E>, padding: padding::<E> }.leak_into_prefix()
}

thread_local! {
    /// Where this thread's last panic came from.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A plugin has a standard library of its own, whose panic hook would write to the terminal; the
/// host reports the panic as an error instead.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
            // A panic while the thread ends has nowhere to be noted.
            let _ = PLACE.try_with(|p| p.replace(place.unwrap_or_default()));
        }));
    });
}

/// Runs an entry; a panic becomes a failure.
fn guard<T>(entry: impl FnOnce() -> Result<T, FailureV1>) -> Answer<T> {
    match catch_unwind(AssertUnwindSafe(entry)) {
        Ok(answer) => answer.into(),
        Err(payload) => {
            let said = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "it did not say why".into());
            // Dropping what was thrown could panic again.
            std::mem::forget(payload);
            let place = PLACE.try_with(RefCell::take).unwrap_or_default();
            let text = if place.is_empty() { said } else { format!("{said} ({place})") };
            RResult::RErr(convert::failure(FAILURE_PANIC, text))
        }
    }
}

fn failed(error: ArchError) -> FailureV1 {
    convert::lower_error(&error)
}

/// Hands one piece of code to `f`.
fn with_code<R>(
    code: &CodeV1<'_>,
    f: impl FnOnce(&Code<'_>) -> Result<R, FailureV1>,
) -> Result<R, FailureV1> {
    convert::raise(&[code], |codes| codes.first().map(f)).flatten().unwrap_or_else(no_code)
}

/// The same for two pieces.
fn with_codes<R>(
    pre: &CodeV1<'_>,
    post: &CodeV1<'_>,
    f: impl FnOnce(&Code<'_>, &Code<'_>) -> Result<R, FailureV1>,
) -> Result<R, FailureV1> {
    let answer = convert::raise(&[pre, post], |codes| match codes {
        [pre, post] => Some(f(pre, post)),
        _ => None,
    });
    answer.flatten().unwrap_or_else(no_code)
}

fn no_code<R>() -> Result<R, FailureV1> {
    Err(convert::failure(FAILURE_OTHER, "no code was handed over"))
}

fn bytes(all: &[u8]) -> RVec<u8> {
    all.to_vec().into()
}

extern "C" fn facts<E: Export>() -> Answer<FactsV1> {
    guard(|| {
        let arch = E::arch();
        let template = arch.trampoline().template();
        if template.granule != 1 {
            return Err(failed(ArchError::Nonsense {
                arch: arch.name().to_owned(),
                what: "a trampoline whose displacement counts from a page, which version 1 of the \
                       interface cannot carry"
                    .to_owned(),
            }));
        }
        let word = arch.stack().word();
        let texts = |all: &[&str]| all.iter().map(|s| RString::from(*s)).collect();
        Ok(FactsV1 {
            name: arch.name().into(),
            kernel_arch: arch.kernel_arch().into(),
            source_arch: arch.source_arch().into(),
            cross_prefixes: texts(arch.cross_prefixes()),
            special_sections: arch.special_sections().iter().map(special_section).collect(),
            relocations: (0..RELOC_TYPES)
                .filter_map(|t| Some((t, arch.reloc().describe(t)?)))
                .map(|(t, row)| RelocInfoV1 {
                    name: row.name.into(),
                    mask: row.mask,
                    recovered_bits: arch.reloc().recovered_bits(t),
                    // A row that is not of the type asked for is for the host to refuse.
                    r_type: if row.r_type == t { t } else { u32::MAX },
                    width: row.width,
                    pc_relative: row.pc_relative,
                    kind: match row.kind {
                        RelocKind::None => RELOC_NONE,
                        RelocKind::Branch => RELOC_BRANCH,
                        RelocKind::Address => RELOC_ADDRESS,
                        _ => u8::MAX,
                    },
                })
                .collect(),
            template: TemplateV1 {
                bytes: bytes(&template.bytes),
                fields: template
                    .fields
                    .iter()
                    .map(|f| BitFieldV1 {
                        add: f.add,
                        word: f.word,
                        size: f.size,
                        shift: f.shift,
                        bits: f.bits,
                        position: f.position,
                    })
                    .collect(),
                bias: template.bias,
                range_bits: template.range_bits,
            },
            never_quiescent: arch
                .stack()
                .never_quiescent()
                .iter()
                .map(|n| NeverQuiescentV1 { name: n.name.into(), why: n.why.into() })
                .collect(),
            stack_clear: word.clear,
            stack_set: word.set,
            minimum_size: arch.stack().minimum_size(),
            absolute64: arch.reloc().absolute64(),
            e_machine: arch.e_machine(),
            is_64: arch.is_64(),
            is_little_endian: arch.is_little_endian(),
        })
    })
}

fn special_section(row: &SpecialSection) -> SpecialSectionV1 {
    let (size_kind, size) = match row.size {
        EntrySize::Fixed(size) => (SIZE_FIXED, size),
        EntrySize::FromRelocations => (SIZE_FROM_RELOCATIONS, 0),
        EntrySize::FromHeader => (SIZE_FROM_HEADER, 0),
        EntrySize::OneOf(sizes) => (SIZE_ONE_OF, packed(sizes)),
        EntrySize::Whole => (SIZE_WHOLE, 0),
    };
    let (role, to) = match row.role {
        Role::Dynamic => (ROLE_DYNAMIC, ""),
        Role::Travels => (ROLE_TRAVELS, ""),
        Role::Parallel { to } => (ROLE_PARALLEL, to),
        Role::Payload => (ROLE_PAYLOAD, ""),
        Role::Dropped => (ROLE_DROPPED, ""),
        Role::Data => (ROLE_DATA, ""),
        Role::Listed => (ROLE_LISTED, ""),
        Role::Placed => (ROLE_PLACED, ""),
        Role::Ids => (ROLE_IDS, ""),
        Role::Boot => (ROLE_BOOT, ""),
        Role::Annotates => (ROLE_ANNOTATES, ""),
        Role::Stays => (ROLE_STAYS, ""),
        Role::Frozen => (ROLE_FROZEN, ""),
    };
    let name = row.name.into();
    SpecialSectionV1 { name, size_kind, role, size, owner: row.owner, to: to.into() }
}

/// Sizes as [`SpecialSectionV1::size`] has them; what does not fit is left out, and the host says
/// that there is none.
fn packed(sizes: &[u64]) -> u64 {
    let mut bytes = [0; 8];
    if sizes.len() <= bytes.len() {
        for (byte, size) in bytes.iter_mut().zip(sizes) {
            *byte = u8::try_from(*size).unwrap_or(0);
        }
    }
    u64::from_le_bytes(bytes)
}

extern "C" fn compare<E: Export>(pre: &CodeV1<'_>, post: &CodeV1<'_>) -> Answer<VerdictV1> {
    guard(|| {
        let verdict =
            with_codes(pre, post, |pre, post| E::arch().diff().compare(pre, post).map_err(failed))?;
        Ok(match verdict {
            Verdict::Same => VerdictV1::Same,
            Verdict::Changed(d) => VerdictV1::Changed(DifferenceV1 {
                pre_offset: d.pre_offset,
                post_offset: d.post_offset,
                pre: d.pre.into(),
                post: d.post.into(),
            }),
            Verdict::CannotJudge(why) => VerdictV1::CannotJudge(why.into()),
            other => VerdictV1::CannotJudge(format!("{other:?}").into()),
        })
    })
}

/// The host's view of the kernel, as a backend sees it.
struct Kernel<'k>(&'k KernelV1<'k>);

impl KernelView for Kernel<'_> {
    fn addresses(&self, name: &str) -> Vec<u64> {
        (self.0.addresses)(self.handle(), RStr::from_str(name)).into()
    }
    fn is_function(&self, address: u64) -> bool {
        (self.0.is_function)(self.handle(), address)
    }
    fn is_text(&self, address: u64) -> bool {
        (self.0.is_text)(self.handle(), address)
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        (self.0.read)(self.handle(), address, RSliceMut::from_mut_slice(buf))
    }
}

impl Kernel<'_> {
    fn handle(&self) -> HandleV1<'_> {
        self.0.this
    }
}

extern "C" fn match_running<E: Export>(
    pre: &CodeV1<'_>,
    run: &RunCodeV1<'_>,
    kernel: &KernelV1<'_>,
) -> Answer<RunMatchV1> {
    guard(|| {
        let run = RunCode { address: run.address, bytes: run.bytes.as_slice(), section: None };
        let answer = with_code(pre, |pre| {
            E::arch().diff().match_running(pre, &run, &Kernel(kernel)).map_err(failed)
        })?;
        Ok(match answer {
            RunMatch::Matched { learned, partial, rules, live } => RunMatchV1::Matched(MatchedV1 {
                learned: learned
                    .iter()
                    .map(|l| LearnedV1 { value: l.value, offset: l.offset, key: l.key })
                    .collect(),
                partial: partial
                    .iter()
                    .map(|p| PartialV1 {
                        bias: p.bias,
                        known: p.known,
                        value: p.value,
                        offset: p.offset,
                        key: p.key,
                    })
                    .collect(),
                rules: rules
                    .iter()
                    .map(|r| RuleCountV1 { rule: r.rule.into(), places: r.places, bytes: r.bytes })
                    .collect(),
                live: live
                    .iter()
                    .map(|(start, len)| RangeV1 { start: *start, len: *len })
                    .collect(),
            }),
            RunMatch::Refused(m) => RunMatchV1::Refused(MismatchV1 {
                offset: m.offset,
                expected: m.expected.into(),
                found: m.found.into(),
                why: m.why.into(),
                probed: m.probed,
                short_branch: m.short_branch,
            }),
        })
    })
}

extern "C" fn disassemble<E: Export>(
    bytes: RSlice<'_, u8>,
    address: u64,
    count: u64,
) -> Answer<RVec<RString>> {
    guard(|| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let lines = E::arch().diff().disassemble(bytes.as_slice(), address, count);
        Ok(lines.into_iter().map(RString::from).collect())
    })
}

extern "C" fn is_padding<E: Export>(bytes: RSlice<'_, u8>) -> Answer<bool> {
    guard(|| Ok(E::arch().diff().is_padding(bytes.as_slice())))
}

extern "C" fn target_offsets<E: Export>(code: &CodeV1<'_>) -> Answer<RVec<i64>> {
    guard(|| {
        with_code(code, |code| {
            E::arch().reloc().target_offsets(code).map(RVec::from).map_err(failed)
        })
    })
}

extern "C" fn apply<E: Export>(
    r_type: u32,
    value: u64,
    addend: i64,
    place: u64,
    mut field: RSliceMut<'_, u8>,
) -> Answer<()> {
    guard(|| {
        let field = field.as_mut_slice();
        E::arch().reloc().apply(r_type, value, addend, place, field).map_err(failed)
    })
}

extern "C" fn recover<E: Export>(
    r_type: u32,
    addend: i64,
    place: u64,
    field: RSlice<'_, u8>,
) -> Answer<u64> {
    guard(|| E::arch().reloc().recover(r_type, addend, place, field.as_slice()).map_err(failed))
}

extern "C" fn site<E: Export>(
    code: &CodeV1<'_>,
    live: RSlice<'_, RangeV1>,
    padding: u64,
) -> Answer<RResult<RangeV1, RString>> {
    guard(|| {
        let live: Vec<(u64, u64)> = live.as_slice().iter().map(|r| (r.start, r.len)).collect();
        with_code(code, |code| {
            Ok(match E::arch().trampoline().site(code, &live, padding).map_err(failed)? {
                Ok(site) => RResult::ROk(RangeV1 { start: site.offset, len: site.len }),
                Err(NoRoom(why)) => RResult::RErr(why.into()),
            })
        })
    })
}

extern "C" fn recognise<E: Export>(bytes: RSlice<'_, u8>, address: u64) -> Answer<ROption<u64>> {
    guard(|| Ok(E::arch().trampoline().recognise(bytes.as_slice(), address).into()))
}

extern "C" fn busy_range<E: Export>(size: u64, borrowed: u64) -> Answer<RangeV1> {
    guard(|| {
        let (start, len) = E::arch().stack().busy_range(size, borrowed);
        Ok(RangeV1 { start, len })
    })
}

extern "C" fn boot_payload<E: Export>(image: RSlice<'_, u8>) -> Answer<ROption<RangeV1>> {
    guard(|| {
        let image = image.as_slice();
        let range = |payload: &[u8]| {
            let start = payload.as_ptr().addr().wrapping_sub(image.as_ptr().addr());
            RangeV1 { start: start as u64, len: payload.len() as u64 }
        };
        Ok(E::arch().boot_payload(image).map(range).into())
    })
}

extern "C" fn flat_image<E: Export>(image: RSlice<'_, u8>) -> Answer<ROption<FlatImageV1>> {
    guard(|| {
        let flat = E::arch().flat_image(image.as_slice());
        Ok(flat.map(|f| FlatImageV1 { address: f.address.into(), relative: f.relative }).into())
    })
}

extern "C" fn replaces_by_nothing<E: Export>(
    section: RStr<'_>,
    entry: RSlice<'_, u8>,
) -> Answer<bool> {
    guard(|| Ok(E::arch().replaces_by_nothing(section.as_str(), entry.as_slice())))
}

extern "C" fn arguments<E: Export>(
    pre: &CodeV1<'_>,
    post: &CodeV1<'_>,
) -> Answer<ROption<RVec<ArgumentV1>>> {
    guard(|| {
        let found = with_codes(pre, post, |pre, post| {
            E::arch().diff().arguments(pre, post).map_err(failed)
        })?;
        let lower = |all: Vec<Argument>| {
            all.iter()
                .map(|a| ArgumentV1 {
                    offset: a.offset,
                    pre: a.pre,
                    post: a.post,
                    previous: a.previous.into(),
                })
                .collect()
        };
        Ok(found.map(lower).into())
    })
}

extern "C" fn runs_on<E: Export>(code: &CodeV1<'_>) -> Answer<bool> {
    guard(|| with_code(code, |code| Ok(E::arch().diff().runs_on(code))))
}

extern "C" fn padding<E: Export>(at: u64, r_type: u32, addend: i64) -> Answer<ROption<RVec<u8>>> {
    guard(|| Ok(E::arch().reloc().padding(at, r_type, addend).map(RVec::from).into()))
}

extern "C" fn uleb128<E: Export>(r_type: u32) -> Answer<u8> {
    guard(|| {
        Ok(match E::arch().reloc().uleb128(r_type) {
            Some(Uleb128::Set) => ULEB128_SET,
            Some(Uleb128::Sub) => ULEB128_SUB,
            None => 0,
        })
    })
}

extern "C" fn settled<E: Export>(code: &CodeV1<'_>) -> Answer<RVec<SettledV1>> {
    guard(|| {
        let found = with_code(code, |code| E::arch().reloc().settled(code).map_err(failed))?;
        Ok(found
            .iter()
            .map(|s| SettledV1 {
                offset: s.offset,
                target: s.target,
                addend: s.addend,
                r_type: s.r_type,
            })
            .collect())
    })
}
