// SPDX-License-Identifier: GPL-2.0-or-later
//! Each rule of the run-time matcher: which bytes it accepts, under which name, and that it
//! refuses everything else. A case is a function of one place between two other instructions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

use splice_arch_x86_64 as _;
use splice_core::arch::{
    Arch, ArchError, Code, CodeReloc, Entry, KernelView, Learned, Mismatch, RunCode, RunMatch,
    by_name, check,
};

/// Run-time address of the function under test.
const AT: u64 = 0xffff_ffff_8100_1000;
/// `mov %rsp,%rbp` before the place.
const BEFORE: [u8; 3] = [0x48, 0x89, 0xe5];
/// `xor %eax,%eax` behind it.
const BEHIND: [u8; 2] = [0x31, 0xc0];
/// Offset of the place.
const PLACE: u64 = 3;

/// Where they are, from the kernel's base. No two differ by a power of two, so that one flipped
/// bit of a distance does not lead from one to the other.
const FENTRY: u64 = 0x2003;
const RETURN: u64 = 0x2117;
const SRSO: u64 = 0x2149;
const RAX: u64 = 0x2233;
const R11: u64 = 0x2279;
const TRAMPOLINE: u64 = 0x2311;
const STATIC_RETURN: u64 = 0x2345;
const ALPHA: u64 = 0x3051;
const BETA: u64 = 0x31c7;
const HANDLER: u64 = 0x32f5;
const STUB: u64 = 0x3483;
/// A variable.
const LIMIT: u64 = 0x8801;
/// A table of functions; the one at [`SLOT`] is `alpha`.
const TABLE: u64 = 0x9a01;
const SLOT: u64 = 0x18;
/// Symbols of the kernel under test; each is a function.
const SYMBOLS: &[(&str, u64)] = &[
    ("__fentry__", FENTRY),
    ("__x86_return_thunk", RETURN),
    ("srso_return_thunk", SRSO),
    ("__x86_indirect_thunk_rax", RAX),
    ("__x86_indirect_thunk_r11", R11),
    ("__SCT__call", TRAMPOLINE),
    ("__static_call_return", STATIC_RETURN),
    ("alpha", ALPHA),
    ("beta", BETA),
    ("handler", HANDLER),
    ("ftrace_stub", STUB),
    ("limit", LIMIT),
    ("table", TABLE),
];
/// A thunk that no symbol names: `jmp *%rax; int3`.
const THUNK: (u64, [u8; 3]) = (0x9000, [0xff, 0xe0, 0xcc]);

const KERNEL: u64 = 0xffff_ffff_8100_0000;

struct Kernel;

impl KernelView for Kernel {
    fn addresses(&self, name: &str) -> Vec<u64> {
        SYMBOLS.iter().filter(|s| s.0 == name).map(|s| KERNEL + s.1).collect()
    }
    fn is_function(&self, address: u64) -> bool {
        SYMBOLS.iter().any(|s| KERNEL + s.1 == address)
    }
    fn is_text(&self, address: u64) -> bool {
        (KERNEL..KERNEL + 0x8000).contains(&address)
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        if address == KERNEL + THUNK.0 {
            for (byte, held) in buf.iter_mut().zip(THUNK.1.iter().chain(&[0xcc; 8])) {
                *byte = *held;
            }
            return true;
        }
        if address == KERNEL + LIMIT {
            let held = 0x7fff_ffff_f000_u64.to_le_bytes();
            buf.copy_from_slice(&held[..buf.len()]);
            return true;
        }
        if address == KERNEL + TABLE + SLOT {
            buf.copy_from_slice(&(KERNEL + ALPHA).to_le_bytes());
            return true;
        }
        if address == KERNEL + TRAMPOLINE {
            // __SCT__call: jmp handler
            let distance = (HANDLER - TRAMPOLINE - 5) as u32;
            buf[0] = 0xe9;
            buf[1..5].copy_from_slice(&distance.to_le_bytes());
            return true;
        }
        false
    }
}

/// The same kernel, before its start.
struct Image;

impl KernelView for Image {
    fn addresses(&self, name: &str) -> Vec<u64> {
        Kernel.addresses(name)
    }
    fn is_function(&self, address: u64) -> bool {
        Kernel.is_function(address)
    }
    fn is_text(&self, address: u64) -> bool {
        Kernel.is_text(address)
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        Kernel.read(address, buf)
    }
    fn is_started(&self) -> bool {
        false
    }
}

/// The rules whose form the build may have given a place.
const LINKED: &[&str] = &["ftrace site off", "jump label off"];

fn arch() -> &'static dyn Arch {
    by_name("x86_64").expect("registered")
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

/// A relocation `PLT32 symbol-4` at an offset of the place.
fn plt(offset: u64, symbol: &'static str, key: u32) -> CodeReloc<'static> {
    CodeReloc { offset, r_type: 4, symbol, key, addend: -4, inside: None }
}

/// The distance that a branch to `target` (from the kernel's base) holds in the four bytes at
/// `offset` of the place.
fn to(offset: u64, target: u64) -> String {
    let next = AT - KERNEL + PLACE + offset + 4;
    (target.wrapping_sub(next) as u32).to_le_bytes().iter().map(|b| format!("{b:02x} ")).collect()
}

/// The same for a 1-byte distance.
fn to8(offset: u64, target: u64) -> String {
    format!("{:02x} ", target.wrapping_sub(AT - KERNEL + PLACE + offset + 1) as u8)
}

#[derive(Default)]
struct Case {
    section: &'static str,
    object: Vec<u8>,
    relocs: Vec<CodeReloc<'static>>,
    data: Vec<u8>,
    entry_relocs: Vec<CodeReloc<'static>>,
    target: Option<u64>,
    replacements: Vec<(Vec<u8>, Vec<CodeReloc<'static>>)>,
    more: Vec<(&'static str, u64)>,
    section_symbol: Option<(u32, u64)>,
}

impl Case {
    fn new(section: &'static str, object: &str, relocs: &[CodeReloc<'static>]) -> Case {
        Case { section, object: hex(object), relocs: relocs.to_vec(), ..Case::default() }
    }

    /// Runs `f` with the function as the engine would hand it over.
    fn with<R>(&self, f: impl FnOnce(&Code<'_>) -> R) -> R {
        let mut bytes = BEFORE.to_vec();
        bytes.extend(&self.object);
        bytes.extend(BEHIND);
        let relocs: Vec<_> =
            self.relocs.iter().map(|r| CodeReloc { offset: r.offset + PLACE, ..*r }).collect();
        let replacements: Vec<Code<'_>> = self
            .replacements
            .iter()
            .map(|(bytes, relocs)| Code { name: "repl", bytes, relocs, entries: &[] })
            .collect();
        let alternatives: Vec<Vec<u8>> = self
            .replacements
            .iter()
            .map(|(bytes, _)| {
                let mut data = vec![0; 10];
                data.extend([self.object.len() as u8, bytes.len() as u8]);
                data
            })
            .collect();
        let mut entries: Vec<Entry<'_>> = Vec::new();
        if self.replacements.is_empty() {
            entries.push(Entry {
                section: self.section,
                offset: PLACE,
                data: &self.data,
                relocs: &self.entry_relocs,
                replacement: None,
                target: self.target,
            });
        }
        for (replacement, data) in replacements.iter().zip(&alternatives) {
            entries.push(Entry {
                section: self.section,
                offset: PLACE,
                data,
                relocs: &[],
                replacement: Some(replacement),
                target: None,
            });
        }
        let para = [0, 0, 0, 0, 0, 0, 0, 0, 1, self.object.len() as u8, 0, 0, 0, 0, 0, 0];
        for (section, offset) in &self.more {
            entries.push(Entry {
                section,
                offset: PLACE + offset,
                data: &para,
                relocs: &[],
                replacement: None,
                target: None,
            });
        }
        entries.sort_by_key(|e| e.offset);
        f(&Code { name: "f", bytes: &bytes, relocs: &relocs, entries: &entries })
    }

    fn run_bytes(&self, place: &[u8]) -> Vec<u8> {
        [&BEFORE[..], place, &BEHIND[..]].concat()
    }

    fn outcome(&self, place: &[u8]) -> Result<RunMatch, ArchError> {
        self.outcome_in(place, &Kernel)
    }

    fn outcome_in(&self, place: &[u8], kernel: &dyn KernelView) -> Result<RunMatch, ArchError> {
        let bytes = self.run_bytes(place);
        self.with(|code| {
            let run = RunCode { address: AT, bytes: &bytes, section: self.section_symbol };
            let outcome = arch().diff().match_running(code, &run, kernel)?;
            check::run_match(arch(), code, &outcome).expect("a sound answer");
            Ok(outcome)
        })
    }

    #[track_caller]
    fn refused(&self, place: &str) -> Mismatch {
        match self.outcome(&hex(place)).unwrap() {
            RunMatch::Refused(m) => m,
            other => panic!("{place} was accepted: {other:?}"),
        }
    }

    #[track_caller]
    fn malformed(&self) -> String {
        match self.outcome(&self.object) {
            Err(ArchError::Entry { why, .. }) => why,
            other => panic!("not an entry's error: {other:?}"),
        }
    }

    /// Accepts `place` by `rule` (empty: the object's own bytes), learning exactly `learned`;
    /// the same with any one bit flipped is refused or teaches something else.
    #[track_caller]
    fn accepts(&self, place: &str, rule: &str, learned: &[(u32, u64)]) {
        let place = hex(place);
        let got = match self.outcome(&place).unwrap() {
            RunMatch::Matched { learned, rules, .. } => {
                let names: Vec<_> = rules.iter().map(|r| r.rule).collect();
                let wanted: &[&str] = if rule.is_empty() { &[] } else { &[rule] };
                assert_eq!(names, wanted);
                learned
            }
            RunMatch::Refused(m) => panic!("refused: {m:?}"),
        };
        let values: Vec<_> = got.iter().map(|l| (l.key, l.value - KERNEL)).collect();
        assert_eq!(values, learned);
        self.every_bit_counts(&place, &got);
        let linked = LINKED.contains(&rule) || rule.is_empty() && self.is_own(&place);
        assert_eq!(self.is_in_image(&place, &got), linked, "{place:02x?} before the start");
    }

    /// Whether these are the object's bytes outside relocations.
    fn is_own(&self, place: &[u8]) -> bool {
        let owned = |at: u64| self.relocs.iter().any(|r| (r.offset..r.offset + 4).contains(&at));
        let pairs = self.object.iter().zip(place).zip(0..);
        self.object.len() == place.len()
            && pairs.into_iter().all(|((a, b), at)| a == b || owned(at))
    }

    /// Whether a kernel that was not started may hold `place`, and it teaches this.
    fn is_in_image(&self, place: &[u8], learned: &[Learned]) -> bool {
        match self.outcome_in(place, &Image).unwrap() {
            RunMatch::Matched { learned: other, .. } => other == learned,
            _ => false,
        }
    }

    #[track_caller]
    fn every_bit_counts(&self, place: &[u8], learned: &[Learned]) {
        for bit in 0..place.len() * 8 {
            let mut flipped = place.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(RunMatch::Matched { learned: other, rules, .. }) = self.outcome(&flipped) {
                // A tracer's trampoline may be anywhere in text.
                let text_target = rules.iter().any(|r| r.rule == "ftrace site on");
                assert!(text_target || other != learned, "bit {bit} of {place:02x?} went unseen");
            }
        }
    }

    #[track_caller]
    fn live(&self, place: &str) -> Vec<(u64, u64)> {
        match self.outcome(&hex(place)).unwrap() {
            RunMatch::Matched { live, .. } => live,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn ftrace_site() {
    let case = Case::new("__mcount_loc", "e8 00 00 00 00", &[plt(1, "__fentry__", 7)]);
    case.accepts("0f 1f 44 00 00", "ftrace site off", &[]);
    case.accepts(&format!("e8 {}", to(1, FENTRY)), "", &[(7, FENTRY)]);
    case.accepts(&format!("e8 {}", to(1, 0x5550)), "ftrace site on", &[]);
    assert_eq!(case.live("0f 1f 44 00 00"), [(PLACE, 5)]);
    case.refused(&format!("e9 {}", to(1, 0x5550)));
    case.refused(&format!("e8 {}", to(1, 0x9000)));
    case.refused("90 90 90 90 90");
    case.refused("66 66 66 66 90");
    assert!(case.refused("cc 1f 44 00 00").probed);
    // An object whose call was made a nop already.
    let nop = Case::new("__mcount_loc", "0f 1f 44 00 00", &[]);
    nop.accepts("0f 1f 44 00 00", "", &[]);
    nop.accepts(&format!("e8 {}", to(1, 0x5550)), "ftrace site on", &[]);
    let other = Case::new("__mcount_loc", "48 89 d8 48 89", &[]);
    assert!(other.malformed().contains("neither a call nor"));
}

#[test]
fn return_site() {
    let case = Case::new(".return_sites", "e9 00 00 00 00", &[plt(1, "__x86_return_thunk", 7)]);
    case.accepts("c3 cc cc cc cc", "return", &[]);
    case.accepts(&format!("e9 {}", to(1, RETURN)), "", &[(7, RETURN)]);
    case.accepts(&format!("e9 {}", to(1, SRSO)), "return thunk", &[]);
    case.refused("c3 90 90 90 90");
    case.refused("c3 00 00 00 00");
    case.refused(&format!("e9 {}", to(1, ALPHA)));
    case.refused(&format!("e8 {}", to(1, RETURN)));
    assert!(case.live("c3 cc cc cc cc").is_empty());
}

#[test]
fn retpoline_call() {
    let relocs = [plt(1, "__x86_indirect_thunk_rax", 7)];
    let case = Case::new(".retpoline_sites", "e8 00 00 00 00", &relocs);
    case.accepts(&format!("e8 {}", to(1, RAX)), "", &[(7, RAX)]);
    case.accepts("ff d0 0f 1f 00", "retpoline inline", &[]);
    case.accepts("ff d0 90 90 90", "retpoline inline", &[]);
    case.accepts("0f ae e8 ff d0", "retpoline lfence", &[]);
    case.accepts(&format!("e8 {}", to(1, THUNK.0)), "retpoline thunk moved", &[]);
    case.refused("ff d1 0f 1f 00");
    case.refused("ff e0 0f 1f 00");
    case.refused("ff d0 cc 66 90");
    case.refused(&format!("e8 {}", to(1, ALPHA)));
    case.refused(&format!("e9 {}", to(1, THUNK.0)));
}

#[test]
fn retpoline_with_a_high_register() {
    let relocs = [plt(2, "__x86_indirect_thunk_r11", 7)];
    let case = Case::new(".retpoline_sites", "2e e8 00 00 00 00", &relocs);
    case.accepts("41 ff d3 0f 1f 00", "retpoline inline", &[]);
    case.accepts("0f ae e8 41 ff d3", "retpoline lfence", &[]);
    case.accepts(&format!("2e e8 {}", to(2, R11)), "", &[(7, R11)]);
    case.refused("ff d3 0f 1f 40 00");
    case.refused(&format!("2e e8 {}", to(2, THUNK.0)));
    // Five bytes have no room for the fence: the kernel leaves the thunk.
    let relocs = [plt(1, "__x86_indirect_thunk_r11", 7)];
    let short = Case::new(".retpoline_sites", "e8 00 00 00 00", &relocs);
    short.accepts("41 ff d3 66 90", "retpoline inline", &[]);
    short.refused("0f ae e8 41 ff");
}

#[test]
fn retpoline_jump() {
    let relocs = [plt(1, "__x86_indirect_thunk_rax", 7)];
    let case = Case::new(".retpoline_sites", "e9 00 00 00 00", &relocs);
    case.accepts("ff e0 cc 66 90", "retpoline inline", &[]);
    case.accepts("ff e0 0f 1f 00", "retpoline inline", &[]);
    case.accepts("0f ae e8 ff e0", "retpoline lfence", &[]);
    case.refused("ff d0 cc 66 90");
    case.refused("ff e0 cc cc cc");
    let relocs = [plt(2, "__x86_indirect_thunk_rax", 7)];
    let conditional = Case::new(".retpoline_sites", "0f 85 00 00 00 00", &relocs);
    conditional.accepts("74 04 ff e0 cc 90", "retpoline inline", &[]);
    conditional.refused("75 04 ff e0 cc 90");
    conditional.refused("74 03 ff e0 cc 90");
    conditional.accepts(&format!("0f 85 {}", to(2, RAX)), "", &[(7, RAX)]);
}

#[test]
fn retpoline_entries_must_name_a_thunk() {
    let case = Case::new(".retpoline_sites", "e8 00 00 00 00", &[plt(1, "alpha", 7)]);
    assert!(case.malformed().contains("no retpoline thunk"));
    let case = Case::new(".retpoline_sites", "90 90 90 90 90", &[]);
    assert!(case.malformed().contains("neither a call nor a jump"));
}

#[test]
fn jump_label_with_a_target_in_the_function() {
    // mov, the label's place, xor: the target is the xor behind the place.
    let mut long = Case::new("__jump_table", "0f 1f 44 00 00", &[]);
    long.data = vec![0; 16];
    long.target = Some(PLACE + 5);
    long.accepts("0f 1f 44 00 00", "", &[]);
    long.accepts("e9 00 00 00 00", "jump label on", &[]);
    long.refused("e9 01 00 00 00");
    long.refused("eb 03 0f 1f 00");
    assert_eq!(long.live("e9 00 00 00 00"), [(PLACE, 5)]);
    let mut short = Case::new("__jump_table", "66 90", &[]);
    short.target = Some(PLACE + 4);
    short.accepts("66 90", "", &[]);
    short.accepts("eb 02", "jump label on", &[]);
    short.refused("eb 01");
    short.refused("90 90");
    let jump = Case::new("__jump_table", "eb 02", &[]);
    jump.accepts("66 90", "jump label off", &[]);
    jump.accepts("eb 02", "", &[]);
    jump.refused("eb 03");
}

#[test]
fn jump_label_with_a_target_elsewhere() {
    let mut case = Case::new("__jump_table", "0f 1f 44 00 00", &[]);
    case.data = vec![0; 16];
    case.entry_relocs =
        vec![CodeReloc { offset: 4, r_type: 2, symbol: "", key: 9, addend: 0x20, inside: None }];
    case.accepts("0f 1f 44 00 00", "", &[]);
    case.accepts(&format!("e9 {}", to(1, 0x7020)), "jump label on", &[(9, 0x7000)]);
    let object = Case::new("__jump_table", "e9 00 00 00 00", &[plt(1, "alpha", 7)]);
    object.accepts(&format!("e9 {}", to(1, ALPHA)), "", &[(7, ALPHA)]);
    object.accepts("0f 1f 44 00 00", "jump label off", &[]);
    let case = Case::new("__jump_table", "0f 1f 44 00 00", &[]);
    assert!(case.malformed().contains("no target"));
    let case = Case::new("__jump_table", "48 89 d8", &[]);
    assert!(case.malformed().contains("neither a jump nor a nop"));
}

#[test]
fn static_call() {
    let case = Case::new(".static_call_sites", "e8 00 00 00 00", &[plt(1, "__SCT__call", 7)]);
    case.accepts(&format!("e8 {}", to(1, HANDLER)), "static call", &[]);
    case.accepts(&format!("e8 {}", to(1, TRAMPOLINE)), "", &[(7, TRAMPOLINE)]);
    case.accepts("0f 1f 44 00 00", "static call off", &[]);
    case.accepts("2e 2e 2e 31 c0", "static call zero", &[]);
    case.accepts("66 66 48 31 c0", "static call zero", &[]);
    case.refused("2e 2e 2e 31 c9");
    case.refused(&format!("e9 {}", to(1, HANDLER)));
    case.refused(&format!("e8 {}", to(1, 0x3204)));
    let why = case.refused(&format!("e8 {}", to(1, ALPHA))).why;
    assert!(why.contains("not the static call's function"), "{why}");
    assert_eq!(case.live("0f 1f 44 00 00"), [(PLACE, 5)]);
}

#[test]
fn static_tail_call() {
    let case = Case::new(".static_call_sites", "e9 00 00 00 00", &[plt(1, "__SCT__call", 7)]);
    case.accepts(&format!("e9 {}", to(1, HANDLER)), "static call", &[]);
    case.accepts("c3 cc cc cc cc", "static call off", &[]);
    case.accepts(&format!("e9 {}", to(1, RETURN)), "static call off", &[]);
    case.refused("0f 1f 44 00 00");
    case.refused(&format!("e8 {}", to(1, HANDLER)));
    let relocs = [plt(2, "__SCT__call", 7)];
    let conditional = Case::new(".static_call_sites", "0f 84 00 00 00 00", &relocs);
    conditional.accepts(&format!("0f 84 {}", to(2, HANDLER)), "static call", &[]);
    conditional.accepts(&format!("0f 84 {}", to(2, STATIC_RETURN)), "static call off", &[]);
    conditional.refused(&format!("0f 85 {}", to(2, HANDLER)));
}

#[test]
fn static_call_trampoline() {
    let outcome = |name: &str, run: &str| {
        let relocs = [plt(1, "alpha", 7)];
        let bytes = hex("e9 00 00 00 00 0f b9 cc");
        let code = Code { name, bytes: &bytes, relocs: &relocs, entries: &[] };
        let run = hex(run);
        let run = RunCode { address: AT + PLACE, bytes: &run, section: None };
        arch().diff().match_running(&code, &run, &Kernel).unwrap()
    };
    let moved = format!("e9 {} 0f b9 cc", to(1, BETA));
    for run in ["c3 cc cc cc cc 0f b9 cc", &moved] {
        let got = outcome("__SCT__x", run);
        let RunMatch::Matched { learned, live, .. } = got else { panic!("{run}: {got:?}") };
        assert!(learned.is_empty(), "{run}: {learned:?}");
        assert_eq!(live, [(0, 5)]);
    }
    let own = outcome("__SCT__x", &format!("e9 {} 0f b9 cc", to(1, ALPHA)));
    let RunMatch::Matched { learned, .. } = own else { panic!("{own:?}") };
    assert_eq!(learned.len(), 1);
    let nowhere = format!("e9 {} 0f b9 cc", to(1, 0x3004));
    for run in ["c3 cc cc cc cc 0f b9 cd", "c3 cc cc cc 90 0f b9 cc", &nowhere] {
        assert!(matches!(outcome("__SCT__x", run), RunMatch::Refused(_)), "{run}");
    }
    let other = outcome("ordinary", "c3 cc cc cc cc 0f b9 cc");
    assert!(matches!(other, RunMatch::Refused(_)), "{other:?}");
}

#[test]
fn lock_prefix() {
    let case = Case::new(".smp_locks", "f0 ff 07", &[]);
    case.accepts("f0 ff 07", "", &[]);
    case.accepts("3e ff 07", "lock prefix off", &[]);
    assert_eq!(case.live("3e ff 07"), [(PLACE, 1)], "a second processor may come up");
    assert!(case.live("f0 ff 07").is_empty());
    case.refused("90 ff 07");
    case.refused("2e ff 07");
    assert!(Case::new(".smp_locks", "ff 07", &[]).malformed().contains("no lock prefix"));
}

#[test]
fn landing_pad() {
    let case = Case::new(".ibt_endbr_seal", "f3 0f 1e fa", &[]);
    case.accepts("f3 0f 1e fa", "", &[]);
    case.accepts("66 0f 1f 00", "landing pad sealed", &[]);
    case.accepts("0f 1f 40 d6", "landing pad sealed", &[]);
    case.refused("0f 1f 40 00");
    assert!(Case::new(".ibt_endbr_seal", "0f 1f 40 00", &[]).malformed().contains("landing pad"));
}

#[test]
fn paravirt_call() {
    let relocs =
        [CodeReloc { offset: 2, r_type: 2, symbol: "pv_ops", key: 7, addend: 0x14, inside: None }];
    let mut case = Case::new(".parainstructions", "ff 15 00 00 00 00", &relocs);
    case.data = vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0];
    case.accepts(&format!("ff 15 {}", to(2, 0x7018)), "", &[(7, 0x7000)]);
    case.accepts(&format!("e8 {} 90", to(1, ALPHA)), "paravirt call", &[]);
    case.accepts("66 0f 1f 44 00 00", "paravirt nop", &[]);
    case.accepts("0f 0b 0f 1f 40 00", "paravirt missing", &[]);
    case.refused(&format!("e8 {} 91", to(1, ALPHA)));
    case.refused(&format!("e8 {} 90", to(1, 0x3004)));
    case.refused(&format!("e9 {} 90", to(1, ALPHA)));
    case.data.truncate(9);
    assert!(case.malformed().contains("no length"));
}

#[test]
fn a_call_of_a_kept_function_leads_to_that_and_no_other() {
    let relocs =
        [CodeReloc { offset: 2, r_type: 2, symbol: "table", key: 7, addend: 0x14, inside: None }];
    let mut case = Case::new(".parainstructions", "ff 15 00 00 00 00", &relocs);
    case.data = vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0];
    case.accepts(&format!("e8 {} 90", to(1, ALPHA)), "paravirt call", &[]);
    case.refused(&format!("e8 {} 90", to(1, BETA)));
    // A slot that cannot be read may hold any function.
    let relocs = [CodeReloc { addend: 0x1c, ..relocs[0] }];
    let mut case = Case::new(".parainstructions", "ff 15 00 00 00 00", &relocs);
    case.data = vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0];
    case.accepts(&format!("e8 {} 90", to(1, BETA)), "paravirt call", &[]);
}

#[test]
fn call_site_must_lead_where_the_kernel_says() {
    let case = Case::new(".call_sites", "e8 00 00 00 00", &[plt(1, "alpha", 7)]);
    case.accepts(&format!("e8 {}", to(1, ALPHA)), "", &[(7, ALPHA)]);
    let why = case.refused(&format!("e8 {}", to(1, 0x2ff0))).why;
    assert!(why.contains("alpha"), "{why}");
}

fn alternative(
    object: &str,
    relocs: &[CodeReloc<'static>],
    replacements: &[(&str, &[CodeReloc<'static>])],
) -> Case {
    let mut case = Case::new(".altinstructions", object, relocs);
    case.replacements = replacements.iter().map(|(b, r)| (hex(b), r.to_vec())).collect();
    case
}

#[test]
fn alternative_of_plain_bytes() {
    // rdtsc padded / rdtscp / lfence; rdtsc
    let case = alternative("0f 31 90 90 90", &[], &[("0f ae e8 0f 31", &[]), ("0f 01 f9", &[])]);
    case.accepts("0f 31 90 90 90", "", &[]);
    case.accepts("0f 31 0f 1f 00", "", &[]);
    case.accepts("0f ae e8 0f 31", "alternative", &[]);
    case.accepts("0f 01 f9 66 90", "alternative", &[]);
    case.accepts("0f 01 f9 90 90", "alternative", &[]);
    case.refused("0f 01 f9 0f 31");
    case.refused("0f 01 f8 66 90");
    case.refused("0f 31 0f 1f 01");
    case.refused("90 90 90 90 90");
    assert!(case.live("0f 31 90 90 90").is_empty(), "alternatives are final after boot");
    assert!(case.refused("cc 31 90 90 90").probed);
}

#[test]
fn alternative_calls_are_told_apart_by_their_symbols() {
    let beta = plt(1, "beta", 8);
    let call = "e8 00 00 00 00";
    let case = alternative(call, &[plt(1, "alpha", 7)], &[(call, &[beta])]);
    case.accepts(&format!("e8 {}", to(1, ALPHA)), "", &[(7, ALPHA)]);
    case.accepts(&format!("e8 {}", to(1, BETA)), "alternative", &[(8, BETA)]);
    case.refused(&format!("e8 {}", to(1, HANDLER)));
    // Without names nothing tells which of the two is meant.
    let (one, two) = (plt(1, "", 7), plt(1, "", 8));
    let silent = alternative(call, &[one], &[(call, &[two])]);
    let why = silent.refused(&format!("e8 {}", to(1, ALPHA))).why;
    assert!(why.contains("several forms"), "{why}");
}

#[test]
fn alternative_calls_into_the_own_section_are_told_apart_by_its_place() {
    // As memcpy's: both lead to functions of the section, whose symbol has no name.
    let call = "e8 00 00 00 00";
    let to_section = |addend| CodeReloc { addend, ..plt(1, "", 7) };
    let mut case = alternative(call, &[to_section(0x1c)], &[(call, &[to_section(0x2c)])]);
    let first = format!("e8 {}", to(1, 0x20));
    case.refused(&first);
    case.section_symbol = Some((7, KERNEL));
    case.accepts(&first, "", &[(7, 0)]);
    case.accepts(&format!("e8 {}", to(1, 0x30)), "alternative", &[(7, 0)]);
    let why = case.refused(&format!("e8 {}", to(1, 0x40))).why;
    assert!(why.contains("several forms"), "{why}");
}

#[test]
fn alternative_jumps_may_get_shorter() {
    let case = alternative("90 90 90 90 90", &[], &[("e9 00 00 00 00", &[plt(1, "", 8)])]);
    let near = AT - KERNEL + 0x40;
    case.accepts(&format!("e9 {}", to(1, ALPHA)), "alternative", &[(8, ALPHA)]);
    case.accepts(&format!("eb {} 0f 1f 00", to8(1, near)), "alternative", &[(8, near)]);
    case.accepts("0f 1f 44 00 00", "", &[]);
    case.refused(&format!("eb {} 0f 1f 01", to8(1, near)));
    case.accepts(&format!("eb {} cc cc cc", to8(1, near)), "alternative", &[(8, near)]);
    case.refused(&format!("eb {} cc cc 90", to8(1, near)));
}

#[test]
fn constant_of_the_start() {
    // movabs $0x0123456789abcdef, %rax; the entry is about the operand.
    let object = "ef cd ab 89 67 45 23 01";
    let case = Case::new("runtime_ptr_limit", object, &[]);
    case.accepts("00 f0 ff ff ff 7f 00 00", "constant of the start", &[]);
    case.accepts(object, "", &[]);
    assert!(case.refused("00 e0 ff ff ff 7f 00 00").why.contains("the kernel's limit is"));
    let shift = Case::new("runtime_shift_limit", "0c", &[]);
    shift.accepts("00", "constant of the start", &[]);
    shift.refused("0d");
    let unknown = Case::new("runtime_ptr_unknown", object, &[]);
    assert!(unknown.refused("00 f0 ff ff ff 7f 00 00").why.contains("cannot be read"));
}

#[test]
fn lock_prefix_behind_another_is_left_alone() {
    // lock cmpxchg %bp,0x0(%r13): the entry is about the first prefix.
    let case = Case::new(".smp_locks", "66 f0 41 0f b1 6d 00", &[]);
    case.accepts("66 f0 41 0f b1 6d 00", "", &[]);
    case.refused("3e f0 41 0f b1 6d 00");
}

#[test]
fn alternative_with_nothing_in_its_place() {
    let case = alternative("0f 01 cb", &[], &[("", &[])]);
    case.accepts("0f 01 cb", "", &[]);
    case.accepts("0f 1f 00", "alternative", &[]);
    case.refused("0f 01 ca");
}

#[test]
fn alternative_with_a_paravirt_call_inside() {
    let relocs =
        [CodeReloc { offset: 2, r_type: 2, symbol: "pv_ops", key: 7, addend: 0x14, inside: None }];
    // call *pv_ops+…  /  pushf; pop %rax
    let mut case = alternative("ff 15 00 00 00 00", &relocs, &[("9c 58", &[])]);
    case.more = vec![(".parainstructions", 0)];
    case.accepts("9c 58 0f 1f 40 00", "alternative", &[]);
    case.accepts(&format!("e8 {} 90", to(1, ALPHA)), "paravirt call", &[]);
    case.accepts(&format!("ff 15 {}", to(2, 0x7018)), "", &[(7, 0x7000)]);
    case.refused("9d 58 0f 1f 40 00");
    case.refused(&format!("e8 {} 90", to(1, 0x3004)));
}

#[test]
fn alternative_with_a_lock_prefix_inside() {
    let mut case = alternative("f0 ff 07", &[], &[("0f 1f 00", &[])]);
    case.more = vec![(".smp_locks", 0)];
    case.accepts("f0 ff 07", "", &[]);
    case.accepts("3e ff 07", "lock prefix off", &[]);
    case.accepts("0f 1f 00", "alternative", &[]);
    case.refused("2e ff 07");
}

#[test]
fn alternatives_of_every_processor_are_always_applied() {
    let mut case = Case::new(".altinstructions", "0f 31 90 90 90", &[]);
    case.data = vec![0, 0, 0, 0, 0, 0, 0, 0, 117, 0, 5, 0];
    case.refused("0f 31 0f 1f 00");
    case.refused("0f 31 90 90 90");
    case.accepts("0f 1f 44 00 00", "alternative", &[]);
    // Before the start none is, and no nops have been put together.
    assert!(case.is_in_image(&hex("0f 31 90 90 90"), &[]));
    assert!(!case.is_in_image(&hex("0f 31 0f 1f 00"), &[]));
}

#[test]
fn a_landing_pad_that_the_unit_does_not_list() {
    let outcome = |run: &str, kernel: &dyn KernelView| {
        let bytes = hex("f3 0f 1e fa f3 0f 1e fa c3");
        let code = Code { name: "f", bytes: &bytes, relocs: &[], entries: &[] };
        let run = hex(run);
        let run = RunCode { address: AT, bytes: &run, section: None };
        arch().diff().match_running(&code, &run, kernel).unwrap()
    };
    for pad in ["66 0f 1f 00", "0f 1f 40 d6"] {
        let sealed = format!("{pad} f3 0f 1e fa c3");
        let RunMatch::Matched { rules, live, .. } = outcome(&sealed, &Kernel) else {
            panic!("{sealed}")
        };
        let rules: Vec<_> = rules.iter().map(|r| (r.rule, r.places, r.bytes)).collect();
        assert_eq!((rules, live), (vec![("landing pad sealed", 1, 4)], vec![]));
        assert!(matches!(outcome(&sealed, &Image), RunMatch::Refused(_)));
        // Only the function's own.
        let second = format!("f3 0f 1e fa {pad} c3");
        assert!(matches!(outcome(&second, &Kernel), RunMatch::Refused(_)));
    }
    assert!(matches!(outcome("f3 0f 1e fa f3 0f 1e fa c3", &Image), RunMatch::Matched { .. }));
    assert!(matches!(outcome("0f 1f 40 00 f3 0f 1e fa c3", &Kernel), RunMatch::Refused(_)));
}

#[test]
fn call_of_the_tracer() {
    let outcome = |name: &str, run: &str, kernel: &dyn KernelView| {
        let relocs = [plt(1, "ftrace_stub", 7), plt(6, "alpha", 8)];
        let bytes = hex("e8 00 00 00 00 e8 00 00 00 00");
        let code = Code { name, bytes: &bytes, relocs: &relocs, entries: &[] };
        let run = hex(run);
        let run = RunCode { address: AT + PLACE, bytes: &run, section: None };
        arch().diff().match_running(&code, &run, kernel).unwrap()
    };
    let text = |tracer: u64| format!("e8 {} e8 {}", to(1, tracer), to(6, ALPHA));
    let of = |tracer: u64, kernel: &dyn KernelView| outcome("ftrace_caller", &text(tracer), kernel);

    let RunMatch::Matched { learned, rules, live, .. } = of(HANDLER, &Kernel) else {
        panic!("a tracer is called")
    };
    assert_eq!(rules.iter().map(|r| (r.rule, r.bytes)).collect::<Vec<_>>(), [("tracer called", 5)]);
    assert_eq!(learned.iter().map(|l| l.key).collect::<Vec<_>>(), [8]);
    assert_eq!(live, [(0, 5)]);
    let RunMatch::Matched { learned, rules, .. } = of(STUB, &Kernel) else {
        panic!("nobody traces")
    };
    assert_eq!((learned.len(), rules.len()), (2, 0));

    // Into the middle of something, other than a call, and in another function.
    assert!(matches!(of(HANDLER + 1, &Kernel), RunMatch::Refused(_)));
    let jump = text(HANDLER).replacen("e8", "e9", 1);
    assert!(matches!(outcome("ftrace_caller", &jump, &Kernel), RunMatch::Refused(_)));
    let RunMatch::Matched { learned, rules, live, .. } =
        outcome("ordinary", &text(HANDLER), &Kernel)
    else {
        panic!("what the reference leads to is for the engine to judge")
    };
    assert_eq!((learned.len(), rules.len(), live.len()), (2, 0, 0));
    // Before the start nobody traces.
    assert!(matches!(of(HANDLER, &Image), RunMatch::Refused(_)));
    assert!(matches!(of(STUB, &Image), RunMatch::Matched { .. }));
}

#[test]
fn a_static_call_trampoline_before_the_start_is_the_objects() {
    let outcome = |run: &str| {
        let relocs = [plt(1, "", 7)];
        let bytes = hex("e9 00 00 00 00 0f b9 cc");
        let code = Code { name: "__SCT__x", bytes: &bytes, relocs: &relocs, entries: &[] };
        let run = hex(run);
        let run = RunCode { address: AT + PLACE, bytes: &run, section: None };
        arch().diff().match_running(&code, &run, &Image).unwrap()
    };
    // To a function without a name of its own: what it teaches is for the engine to judge.
    let own = outcome(&format!("e9 {} 0f b9 cc", to(1, ALPHA)));
    let RunMatch::Matched { learned, rules, .. } = own else { panic!("{own:?}") };
    assert_eq!(learned.len(), 1);
    assert!(rules.is_empty(), "{rules:?}");
    let returns = outcome("c3 cc cc cc cc 0f b9 cc");
    assert!(matches!(returns, RunMatch::Refused(_)), "{returns:?}");
}

#[test]
fn malformed_alternatives_are_errors() {
    let mut case = Case::new(".altinstructions", "0f 31 90", &[]);
    for (data, part) in [
        (vec![0; 11], "11 bytes"),
        (vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 4], "longer than the place"),
        (vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, 0], "beyond the function"),
        (vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 2], "not there"),
    ] {
        case.data = data;
        let why = case.malformed();
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn unknown_sections_are_errors() {
    let case = Case::new(".cfi_sites", "90 90", &[]);
    assert!(case.malformed().contains("not known"));
    let case = Case::new(".new_in_some_kernel", "90 90", &[]);
    assert!(case.malformed().contains("not known"));
}

#[test]
fn overlapping_places_are_errors() {
    let mut case = Case::new("__jump_table", "0f 1f 44 00 00", &[]);
    case.target = Some(0);
    case.more = vec![(".parainstructions", 2)];
    assert!(matches!(case.outcome(&case.object), Err(ArchError::Entry { .. })));
}

#[test]
fn probes_are_busy_rather_than_wrong() {
    let case = Case::new(".smp_locks", "f0 ff 07", &[]);
    let outcome = |bytes: &[u8]| {
        case.with(|code| {
            let run = RunCode { address: AT, bytes, section: None };
            arch().diff().match_running(code, &run, &Kernel).unwrap()
        })
    };
    let RunMatch::Refused(m) = outcome(&hex("cc 89 e5 f0 ff 07 31 c0")) else { panic!() };
    assert!(m.probed && m.offset == 0, "{m:?}");
    // Not at an instruction's start, or with other bytes behind it: no probe.
    let RunMatch::Refused(m) = outcome(&hex("48 cc e5 f0 ff 07 31 c0")) else { panic!() };
    assert!(!m.probed, "{m:?}");
    let RunMatch::Refused(m) = outcome(&hex("cc 89 e4 f0 ff 07 31 c0")) else { panic!() };
    assert!(!m.probed, "{m:?}");
    // An optimised probe jumps out of all text that has symbols.
    let RunMatch::Refused(m) = outcome(&hex("e9 00 00 10 00 07 31 c0")) else { panic!() };
    assert!(m.probed, "{m:?}");
}

#[test]
fn every_bit_outside_places_counts() {
    let case = Case::new(".smp_locks", "f0 ff 07", &[]);
    let good = case.run_bytes(&case.object);
    for bit in (0..good.len() * 8).filter(|b| b / 8 != PLACE as usize) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        case.with(|code| {
            let run = RunCode { address: AT, bytes: &bytes, section: None };
            let got = arch().diff().match_running(code, &run, &Kernel).unwrap();
            assert!(matches!(got, RunMatch::Refused(_)), "bit {bit}: {got:?}");
        });
    }
}

#[test]
fn another_length_is_refused() {
    let case = Case::new(".smp_locks", "f0 ff 07", &[]);
    case.with(|code| {
        let run = RunCode { address: AT, bytes: &code.bytes[..4], section: None };
        let got = arch().diff().match_running(code, &run, &Kernel).unwrap();
        assert!(matches!(got, RunMatch::Refused(_)), "{got:?}");
    });
}
