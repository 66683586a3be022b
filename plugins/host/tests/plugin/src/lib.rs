// SPDX-License-Identifier: GPL-2.0-or-later
//! A plugin of no architecture, for the host's tests. What it does wrong stands in [`MODE`], which
//! the tests write into a copy of the file: one build makes all bad plugins.

#![expect(clippy::panic, reason = "panicking is what it is for")]

use splice_plugin_abi::arch::{
    Arch, ArchError, BitField, Code, Difference, FlatImage, FunctionDiff, KernelView, Learned,
    Mismatch, NeverQuiescent, NoRoom, Partial, RelocInfo, RelocKind, RelocationFixup, RuleCount,
    RunCode, RunMatch, Site, StackSafety, StackWord, Template, TrampolineEncoder, Verdict,
};
use splice_plugin_abi::unit::{EntrySize, Role, SpecialSection};

/// What the plugin does wrong: what follows the colon, padded with spaces.
#[used]
static MODE: [u8; 48] = *b"splice-test-mode:good                           ";

fn is(mode: &str) -> bool {
    // SAFETY: a reference is valid for reading; what the file holds is not to be assumed.
    let bytes = unsafe { std::ptr::read_volatile(&raw const MODE) };
    let text = bytes.iter().skip_while(|b| **b != b':').skip(1);
    text.take_while(|b| **b != b' ').copied().eq(mode.bytes())
}

/// Panics if that is the mode.
fn may_panic(mode: &str) {
    if is(mode) {
        panic!("asked to:\n{mode}");
    }
}

struct TestArch;

splice_plugin_abi::export_arch!(&TestArch, name: "test", machine: 0x7e57);

impl Arch for TestArch {
    fn name(&self) -> &'static str {
        may_panic("panic-name");
        if is("payload-name") {
            std::panic::panic_any(PanicsAgain);
        }
        "test"
    }
    fn e_machine(&self) -> u16 {
        0x7e57
    }
    fn is_64(&self) -> bool {
        !is("32-bit")
    }
    fn kernel_arch(&self) -> &'static str {
        if is("empty-name") { "" } else { "test" }
    }
    fn source_arch(&self) -> &'static str {
        "test"
    }
    fn cross_prefixes(&self) -> &'static [&'static str] {
        &["test-linux-gnu-"]
    }
    fn special_sections(&self) -> &'static [SpecialSection] {
        if is("owner-outside") {
            &[SpecialSection {
                name: ".table",
                size: EntrySize::Fixed(8),
                owner: 8,
                role: Role::Dynamic,
            }]
        } else {
            &[]
        }
    }
    fn flat_image(&self, image: &[u8]) -> Option<FlatImage> {
        may_panic("panic-image");
        let relative = image.first().copied().map(u32::from)?;
        Some(FlatImage { relative, address: Some(9) })
    }
    fn diff(&self) -> &dyn FunctionDiff {
        self
    }
    fn reloc(&self) -> &dyn RelocationFixup {
        self
    }
    fn trampoline(&self) -> &dyn TrampolineEncoder {
        self
    }
    fn stack(&self) -> &dyn StackSafety {
        self
    }
}

/// Something thrown that is no text, and throws again when it is dropped.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("again");
    }
}

impl FunctionDiff for TestArch {
    fn compare(&self, pre: &Code<'_>, post: &Code<'_>) -> Result<Verdict, ArchError> {
        may_panic("panic-compare");
        if pre.bytes == post.bytes || is("same-always") {
            return Ok(Verdict::Same);
        }
        let far = if is("difference-outside") { u64::MAX } else { 0 };
        let pre_text = if is("lines") { "one\ntwo" } else { "pre" };
        Ok(Verdict::Changed(Difference {
            pre_offset: far,
            post_offset: 0,
            pre: pre_text.into(),
            post: "post".into(),
        }))
    }

    fn match_running(
        &self,
        pre: &Code<'_>,
        run: &RunCode<'_>,
        kernel: &dyn KernelView,
    ) -> Result<RunMatch, ArchError> {
        may_panic("panic-match");
        if is("ask") {
            // The answers go back as what was learned.
            let mut byte = [0];
            let read = kernel.read(run.address, &mut byte);
            let values = [
                kernel.addresses("asked").first().copied().unwrap_or(0),
                u64::from(kernel.is_function(1)),
                u64::from(kernel.is_text(2)),
                if read { u64::from(byte[0]) } else { u64::MAX },
            ];
            let learned = values.map(|value| Learned { key: 5, value, offset: 0 }).to_vec();
            return Ok(RunMatch::Matched {
                learned,
                partial: Vec::new(),
                rules: Vec::new(),
                live: Vec::new(),
            });
        }
        if is("mismatch-outside") {
            return Ok(RunMatch::Refused(Mismatch {
                offset: pre.bytes.len() as u64 + 1,
                expected: Vec::new(),
                found: Vec::new(),
                why: "no reason".into(),
                probed: false,
                short_branch: false,
            }));
        }
        let size = pre.bytes.len() as u64;
        let learned = if is("learned-outside") {
            vec![Learned { key: 5, value: 0, offset: size }]
        } else if is("learned-unknown") {
            vec![Learned { key: 77, value: 0, offset: 0 }]
        } else {
            Vec::new()
        };
        let live = if is("live-outside") {
            vec![(0, size + 1)]
        } else if is("live-negative") {
            vec![(4, u64::MAX)]
        } else {
            Vec::new()
        };
        let rules = vec![RuleCount { rule: "test rule", places: 1, bytes: 2 }];
        let page = Partial { key: 5, bias: 8, known: !0xfff, value: 0x1000, offset: 0 };
        let partial = match () {
            () if is("partial") => vec![page],
            () if is("partial-unknown-bits") => vec![Partial { value: 0x1001, ..page }],
            () => Vec::new(),
        };
        Ok(RunMatch::Matched { learned, partial, rules, live })
    }

    fn disassemble(&self, bytes: &[u8], address: u64, count: usize) -> Vec<String> {
        may_panic("panic-disassemble");
        let more = if is("lines") { 10 } else { 0 };
        bytes.iter().take(count + more).map(|b| format!("{address:x}:\n{b:02x}")).collect()
    }

    fn is_padding(&self, bytes: &[u8]) -> bool {
        may_panic("panic-padding");
        bytes.iter().all(|b| *b == 0)
    }
}

const fn row(r_type: u32, name: &'static str, width: u8, mask: u64) -> RelocInfo {
    RelocInfo { r_type, name, width, mask, pc_relative: false, kind: RelocKind::Address }
}

static ABSOLUTE: RelocInfo = row(1, "R_TEST_64", 8, u64::MAX);
static NARROW: RelocInfo = row(2, "R_TEST_32", 4, 0xffff_ffff);
static TOO_WIDE: RelocInfo = row(2, "R_TEST_32", 4, 0x1_ffff_ffff);
static ODD: RelocInfo = row(2, "R_TEST_24", 3, 0xff);
static OTHER: RelocInfo = row(3, "R_TEST_3", 4, 0xff);

impl RelocationFixup for TestArch {
    fn describe(&self, r_type: u32) -> Option<&'static RelocInfo> {
        match r_type {
            1 => Some(&ABSOLUTE),
            2 if is("field-outside") => Some(&TOO_WIDE),
            2 if is("odd-width") => Some(&ODD),
            2 if is("other-row") => Some(&OTHER),
            2 => Some(&NARROW),
            _ => None,
        }
    }
    fn absolute64(&self) -> u32 {
        if is("no-absolute") { 2 } else { 1 }
    }
    fn target_offsets(&self, code: &Code<'_>) -> Result<Vec<i64>, ArchError> {
        may_panic("panic-offsets");
        if is("too-many-offsets") {
            return Ok(vec![0; code.relocs.len() + 1]);
        }
        Ok(code.relocs.iter().map(|r| r.addend).collect())
    }
    fn apply(
        &self,
        r_type: u32,
        value: u64,
        addend: i64,
        place: u64,
        field: &mut [u8],
    ) -> Result<(), ArchError> {
        // Each kind of error, to see it come back.
        let name = || String::from("here");
        match r_type {
            10 => Err(ArchError::Undecodable { name: name(), offset: place }),
            11 => Err(ArchError::UnknownRelocation { name: name(), offset: place, r_type }),
            12 => Err(ArchError::Range { reloc: "R_TEST_64", value }),
            13 => Err(ArchError::Outside { name: name(), offset: place }),
            14 => Err(ArchError::Entry {
                section: ".table".into(),
                name: name(),
                offset: place,
                why: "odd".into(),
            }),
            15 => Err(ArchError::Nonsense { arch: "test".into(), what: "own".into() }),
            _ => {
                let sum = value.wrapping_add(addend.cast_unsigned());
                for (byte, new) in field.iter_mut().zip(sum.to_le_bytes()) {
                    *byte = new;
                }
                Ok(())
            }
        }
    }
    fn recovered_bits(&self, r_type: u32) -> u64 {
        if r_type == 2 { 0xffff } else { u64::MAX }
    }
    fn recover(&self, _: u32, addend: i64, _: u64, field: &[u8]) -> Result<u64, ArchError> {
        may_panic("panic-recover");
        let value = field.iter().rev().fold(0, |w, b| (w << 8) | u64::from(*b));
        Ok(value.wrapping_sub(addend.cast_unsigned()))
    }
}

impl TrampolineEncoder for TestArch {
    fn site(
        &self,
        pre: &Code<'_>,
        _: &[(u64, u64)],
        padding: u64,
    ) -> Result<Result<Site, NoRoom>, ArchError> {
        may_panic("panic-site");
        let room = pre.bytes.len() as u64 + padding;
        let offset = match () {
            () if is("site-outside") => room,
            () if is("site-negative") => u64::MAX,
            () => 0,
        };
        if is("no-room") {
            return Ok(Err(NoRoom("there is none".into())));
        }
        Ok(Ok(Site { offset, len: 4 }))
    }
    fn template(&self) -> Template {
        let position = if is("template-outside") { 9 } else { 8 };
        let bytes = if is("template-long") { 17 } else { 4 };
        Template {
            bytes: vec![0; bytes],
            fields: vec![BitField { word: 0, size: 4, add: 0, shift: 2, bits: 24, position }],
            bias: 0,
            granule: 1,
            range_bits: 26,
        }
    }
    fn recognise(&self, _: &[u8], _: u64) -> Option<u64> {
        may_panic("panic-recognise");
        Some(7)
    }
}

impl StackSafety for TestArch {
    fn word(&self) -> StackWord {
        StackWord { clear: 0, set: if is("stack-bits") { 1 } else { 0 } }
    }
    fn minimum_size(&self) -> u64 {
        if is("negative-size") { u64::MAX } else { 4 }
    }
    fn never_quiescent(&self) -> &'static [NeverQuiescent] {
        if is("no-reason") { &[NeverQuiescent { name: "f", why: "" }] } else { &[] }
    }
    fn busy_range(&self, size: u64, borrowed: u64) -> (u64, u64) {
        may_panic("panic-busy");
        match () {
            () if is("busy-outside") => (0, size + borrowed + 1),
            () if is("busy-negative") => (u64::MAX, 1),
            () if is("busy-short") => (4, size.saturating_sub(4)),
            () => (0, size + borrowed),
        }
    }
}
