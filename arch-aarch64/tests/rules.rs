// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules of the run-time matcher that linked text does not show: which words each accepts, under
//! which name, what it learns, and that it refuses everything else.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::collections::BTreeMap;

use splice_arch_aarch64 as _;
use splice_core::arch::{
    Arch, ArchError, Code, CodeReloc, Entry, KernelView, RunCode, RunMatch, by_name, check,
};

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const PACIASP: u32 = 0xd503_233f;
const BR_X16: u32 = 0xd61f_0200;
const CALL26: u32 = 283;
const ADRP: u32 = 275;
const LDST64: u32 = 286;

/// Run-time address of the function under test: its third word is the last but one of a page.
const AT: u64 = 0xffff_8000_0801_0ff0;
/// Where the symbols are.
const ALPHA: u64 = 0xffff_8000_2801_2340;
const DATA: u64 = 0xffff_8000_0945_6788;
/// Where a veneer stands.
const VENEER: u64 = 0xffff_8000_0820_0100;

#[derive(Default)]
struct Kernel {
    words: BTreeMap<u64, u32>,
    symbols: Vec<(&'static str, u64)>,
}

impl Kernel {
    fn new(at: u64, words: &[u32]) -> Kernel {
        let words = words.iter().zip(0u64..).map(|(w, n)| (at + n * 4, *w)).collect();
        Kernel { words, symbols: vec![("alpha", ALPHA), ("data", DATA)] }
    }
}

impl KernelView for Kernel {
    fn addresses(&self, name: &str) -> Vec<u64> {
        self.symbols.iter().filter(|s| s.0 == name).map(|s| s.1).collect()
    }
    fn is_function(&self, address: u64) -> bool {
        address == ALPHA
    }
    fn is_text(&self, address: u64) -> bool {
        (AT..AT + 0x100_0000).contains(&address)
    }
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        match (self.words.get(&address), buf.len()) {
            (Some(word), 4) => {
                buf.copy_from_slice(&word.to_le_bytes());
                true
            }
            _ => false,
        }
    }
}

fn arch() -> &'static dyn Arch {
    by_name("aarch64").unwrap()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn reloc(offset: u64, r_type: u32, symbol: &'static str) -> CodeReloc<'static> {
    CodeReloc { offset, r_type, symbol, key: 7, addend: 0, inside: None }
}

/// What the backend's own table makes of a word; that table is compared with the linker's work.
fn applied(r_type: u32, word: u32, value: u64, place: u64) -> u32 {
    let mut field = word.to_le_bytes();
    arch().reloc().apply(r_type, value, 0, place, &mut field).unwrap();
    u32::from_le_bytes(field)
}

fn branch(from: u64, to: u64) -> u32 {
    applied(282, 0x1400_0000, to, from)
}

struct Case<'a> {
    object: &'a [u32],
    relocs: &'a [CodeReloc<'static>],
    entries: &'a [Entry<'a>],
}

impl Case<'_> {
    fn at(&self, address: u64, run: &[u32], kernel: &Kernel) -> Result<RunMatch, ArchError> {
        let (own, found) = (bytes(self.object), bytes(run));
        let code = Code { name: "f", bytes: &own, relocs: self.relocs, entries: self.entries };
        let run = RunCode { address, bytes: &found, section: None };
        let got = arch().diff().match_running(&code, &run, kernel)?;
        check::run_match(arch(), &code, &got).unwrap();
        Ok(got)
    }

    /// The rules under which the text is accepted and the values learned.
    #[track_caller]
    fn accepts(&self, run: &[u32], kernel: &Kernel) -> (Vec<&'static str>, Vec<u64>) {
        match self.at(AT, run, kernel).unwrap() {
            RunMatch::Matched { learned, rules, .. } => {
                (rules.iter().map(|r| r.rule).collect(), learned.iter().map(|l| l.value).collect())
            }
            RunMatch::Refused(m) => panic!("refused: {m:?}"),
        }
    }

    #[track_caller]
    fn refuses(&self, run: &[u32], kernel: &Kernel) -> String {
        match self.at(AT, run, kernel).unwrap() {
            RunMatch::Refused(m) => m.why,
            other => panic!("accepted: {other:?}"),
        }
    }

    /// Every flipped bit is refused, or teaches another value.
    #[track_caller]
    fn every_bit_counts(&self, run: &[u32], kernel: &Kernel) {
        let good = self.accepts(run, kernel).1;
        for bit in 0..run.len() * 32 {
            let mut flipped = run.to_vec();
            flipped[bit / 32] ^= 1 << (bit % 32);
            if let RunMatch::Matched { learned, .. } = self.at(AT, &flipped, kernel).unwrap() {
                let other: Vec<u64> = learned.iter().map(|l| l.value).collect();
                assert_ne!(other, good, "bit {bit} went unseen");
            }
        }
    }
}

#[test]
fn branches_through_veneers() {
    let relocs = [reloc(0, CALL26, "alpha")];
    let case = Case { object: &[0x9400_0000, RET], relocs: &relocs, entries: &[] };
    let call = applied(CALL26, 0x9400_0000, VENEER, AT);
    let veneer = |to: u64| {
        let adrp = applied(ADRP, 0x9000_0010, to, VENEER);
        [adrp, applied(277, 0x9100_0210, to, 0), BR_X16]
    };
    let kernel = Kernel::new(VENEER, &veneer(ALPHA));
    assert_eq!(case.accepts(&[call, RET], &kernel), (vec!["branch veneer"], vec![ALPHA]));
    case.every_bit_counts(&[call, RET], &kernel);
    // To elsewhere, or no veneer: the engine is told the plain value, which its list contradicts.
    for words in [veneer(ALPHA + 4), [NOP, NOP, NOP]] {
        let got = case.accepts(&[call, RET], &Kernel::new(VENEER, &words));
        assert_eq!(got, (vec![], vec![VENEER]));
    }
}

/// `adrp x3, data` in the last word but one of a page, and a load behind it.
const PAGE: [u32; 5] = [NOP, RET, 0x9000_0003, NOP, 0xf940_0062];

fn page_case() -> [CodeReloc<'static>; 2] {
    [reloc(8, ADRP, "data"), reloc(16, LDST64, "data")]
}

#[test]
fn erratum_843419_of_modules() {
    let relocs = page_case();
    let case = Case { object: &PAGE, relocs: &relocs, entries: &[] };
    let place = AT + 8;
    let load = applied(LDST64, PAGE[4], DATA, 0);
    let with = |word: u32| [NOP, RET, word, NOP, load];
    // Untouched, as on processors without the erratum.
    let plain = with(applied(ADRP, PAGE[2], DATA, place));
    let none = Kernel::new(0, &[]);
    assert_eq!(case.accepts(&plain, &none), (vec![], vec![DATA, DATA]));
    case.every_bit_counts(&plain, &none);
    // A veneer computes the page.
    let page = DATA & !0xfff;
    let adrp = applied(ADRP, 0x9000_0003, page, VENEER);
    let good = [adrp, 0x9100_0063, branch(VENEER + 8, place + 4)];
    let run = with(branch(place, VENEER));
    let kernel = Kernel::new(VENEER, &good);
    let rule = "erratum 843419: page in a veneer";
    assert_eq!(case.accepts(&run, &kernel), (vec![rule], vec![DATA, DATA]));
    for n in 0..good.len() {
        let mut bad = good;
        bad[n] = NOP;
        case.refuses(&run, &Kernel::new(VENEER, &bad));
    }
    let elsewhere = [adrp, 0x9100_0063, branch(VENEER + 8, place + 8)];
    case.refuses(&run, &Kernel::new(VENEER, &elsewhere));
    // Not in the last words of a page nothing of the kind is believed.
    let moved = |run: &[u32]| case.at(AT + 0x100, run, &kernel).unwrap();
    let early = with(branch(place + 0x100, VENEER));
    assert!(matches!(moved(&early), RunMatch::Refused(_)));
}

#[test]
fn erratum_843419_with_adr() {
    // The page is near enough for `adr`.
    let near = (AT & !0xfff) + 0x8_0788;
    let mut kernel = Kernel::new(0, &[]);
    kernel.symbols = vec![("data", near)];
    let relocs = page_case();
    let case = Case { object: &PAGE, relocs: &relocs, entries: &[] };
    let load = applied(LDST64, PAGE[4], near, 0);
    let adr = |register: u32, to| applied(274, 0x1000_0000 | register, to, AT + 8);
    let good = [NOP, RET, adr(3, near & !0xfff), NOP, load];
    assert_eq!(case.accepts(&good, &kernel), (vec!["erratum 843419: adr"], vec![near, near]));
    for word in [adr(4, near & !0xfff), adr(3, near)] {
        case.refuses(&[NOP, RET, word, NOP, load], &kernel);
    }
}

#[test]
fn erratum_843419_of_the_image() {
    let relocs = page_case();
    let case = Case { object: &PAGE, relocs: &relocs, entries: &[] };
    let adrp = applied(ADRP, PAGE[2], DATA, AT + 8);
    let load = applied(LDST64, PAGE[4], DATA, 0);
    let run = [NOP, RET, adrp, NOP, branch(AT + 16, VENEER)];
    let kernel = Kernel::new(VENEER, &[load, branch(VENEER + 4, AT + 20)]);
    let rule = "erratum 843419: access in a stub";
    assert_eq!(case.accepts(&run, &kernel), (vec![rule], vec![DATA, DATA]));
    for stub in
        [[load ^ 1, branch(VENEER + 4, AT + 20)], [load, branch(VENEER + 4, AT + 16)], [load, RET]]
    {
        case.refuses(&run, &Kernel::new(VENEER, &stub));
    }
    // An access without a relocation, through the same register.
    let plain = [NOP, RET, PAGE[2], NOP, 0xf940_0862];
    let relocs = [reloc(8, ADRP, "data"), reloc(12, 0, "")];
    let case = Case { object: &plain, relocs: &relocs, entries: &[] };
    let kernel = Kernel::new(VENEER, &[0xf940_0862, branch(VENEER + 4, AT + 20)]);
    let RunMatch::Matched { learned, partial, rules, .. } = case.at(AT, &run, &kernel).unwrap()
    else {
        panic!("refused")
    };
    assert_eq!((rules[0].rule, learned.len(), partial.len()), (rule, 0, 1));
    assert_eq!((partial[0].known, partial[0].value), (!0xfff, DATA & !0xfff));
}

#[test]
fn references_that_do_not_fit_together() {
    let relocs = [reloc(4, ADRP, "data"), reloc(8, 277, "data"), reloc(12, 277, "data")];
    let object = [NOP, 0x9000_0003, 0x9100_0063, 0x9100_0063, RET];
    let case = Case { object: &object, relocs: &relocs, entries: &[] };
    let kernel = Kernel::default();
    let mut run = object;
    run[1] = applied(ADRP, run[1], DATA, AT + 4);
    run[2] = applied(277, run[2], DATA, 0);
    run[3] = run[2];
    assert_eq!(case.accepts(&run, &kernel).1, [DATA; 3]);
    run[3] = applied(277, run[3], DATA + 8, 0);
    let why = case.refuses(&run, &kernel);
    assert!(why.contains("do not fit together"), "{why}");
}

fn entry<'a>(section: &'a str, data: &'a [u8], relocs: &'a [CodeReloc<'a>]) -> Entry<'a> {
    Entry { section, offset: 0, data, relocs, replacement: None, target: None }
}

#[test]
fn callbacks() {
    let data = [0, 0, 0, 0, 0, 0, 0, 0, 5, 0x80, 4, 0];
    // (callback, object, accepted, refused)
    type Row = (&'static str, u32, &'static [u32], &'static [u32]);
    let table: &[Row] = &[
        ("alt_cb_patch_nops", 0x1400_0001, &[NOP], &[RET, 0x1400_0002]),
        ("smccc_patch_fw_mitigation_conduit", NOP, &[0xd400_0002, 0xd400_0003], &[0xd400_0001]),
        ("spectre_bhb_patch_loop_iter", 0xd280_0400, &[0xd280_0100], &[0xd280_0101]),
        ("spectre_bhb_patch_wa3", 0x2a00_03e0, &[0x3201_3be0], &[0x3201_3be1, NOP]),
    ];
    for (name, own, good, bad) in table {
        let relocs =
            [CodeReloc { offset: 4, r_type: 261, symbol: name, key: 9, addend: 0, inside: None }];
        let entries = [entry(".altinstructions", &data, &relocs)];
        let object = [*own, RET];
        let case = Case { object: &object, relocs: &[], entries: &entries };
        assert!(case.accepts(&object, &Kernel::default()).0.is_empty());
        for word in *good {
            let rules = case.accepts(&[*word, RET], &Kernel::default()).0;
            assert_eq!(rules.len(), 1, "{name} {word:#x}");
        }
        for word in *bad {
            case.refuses(&[*word, RET], &Kernel::default());
        }
    }
}

#[test]
fn runtime_constants() {
    let kernel = Kernel::default();
    let entries = [entry("runtime_ptr_dentry_hashtable", &[0; 4], &[])];
    let object = [0xd299_bde1, 0xf2b1_3561, 0xf2c8_ace1, 0xf2e0_2461, RET];
    let case = Case { object: &object, relocs: &[], entries: &entries };
    let run = [0xd280_0001, 0xf2a2_4681, 0xf2d0_0001, 0xf2ff_ffe1, RET];
    assert_eq!(case.accepts(&run, &kernel).0, ["runtime constant"]);
    for n in 0..4 {
        let mut other = run;
        other[n] ^= 1;
        case.refuses(&other, &kernel);
    }
    let entries = [entry("runtime_shift_d_hash_shift", &[0; 4], &[])];
    let case = Case { object: &[0x530c_7c20, RET], relocs: &[], entries: &entries };
    assert_eq!(case.accepts(&[0x530b_7c20, RET], &kernel).0, ["runtime constant"]);
    case.refuses(&[0x530b_7c21, RET], &kernel);
    let wrong = Case { object: &[NOP, RET], relocs: &[], entries: &entries };
    assert!(matches!(wrong.at(AT, &[NOP, RET], &kernel), Err(ArchError::Entry { .. })));
}

#[test]
fn ftrace_sites_without_an_entry() {
    // The tracer's data stands before the function; the entry is about that.
    let case = Case { object: &[NOP, NOP, PACIASP, RET], relocs: &[], entries: &[] };
    let kernel = Kernel::default();
    let run = |a, b| [a, b, PACIASP, RET];
    assert_eq!(case.accepts(&run(0xaa1e_03e9, NOP), &kernel).0, ["ftrace site off"]);
    let call = applied(CALL26, 0x9400_0000, AT + 0x4000, AT + 4);
    assert_eq!(case.accepts(&run(0xaa1e_03e9, call), &kernel).0, ["ftrace site on"]);
    case.refuses(&run(0xaa1e_03e8, NOP), &kernel);
    case.refuses(&run(NOP, call), &kernel);
    let far = applied(CALL26, 0x9400_0000, AT - 0x4000, AT + 4);
    case.refuses(&run(0xaa1e_03e9, far), &kernel);
}

#[test]
fn probes_are_busy_rather_than_wrong() {
    let case = Case { object: &[NOP, NOP, PACIASP, RET], relocs: &[], entries: &[] };
    for n in 0..4 {
        let mut run = case.object.to_vec();
        run[n] = 0xd420_0080;
        let RunMatch::Refused(m) = case.at(AT, &run, &Kernel::default()).unwrap() else {
            panic!("accepted")
        };
        assert!(m.probed, "{m:?}");
    }
}

#[test]
fn signing_may_be_a_landing_pad() {
    let case = Case { object: &[PACIASP, RET], relocs: &[], entries: &[] };
    let live = |first: Option<u32>| {
        let mut kernel = Kernel::new(ALPHA, &first.map_or(vec![], |w| vec![w]));
        kernel.symbols.push(("vfs_read", ALPHA));
        match case.at(AT, case.object, &kernel).unwrap() {
            RunMatch::Matched { live, .. } => live,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(live(Some(NOP)), []);
    assert_eq!(live(Some(0xaa1e_03e9)), []);
    assert_eq!(live(Some(0xd503_245f)), [(0, 4)], "bti c: landing pads are enforced");
    assert_eq!(live(Some(PACIASP)), [(0, 4)], "nothing tells");
    assert_eq!(live(None), [(0, 4)]);
}

#[test]
fn text_that_cannot_be_compared_is_refused() {
    let case = Case { object: &[PACIASP, RET], relocs: &[], entries: &[] };
    let refused = |address, run: &[u32]| match case.at(address, run, &Kernel::default()) {
        Ok(RunMatch::Refused(m)) => m.why,
        other => panic!("{other:?}"),
    };
    assert!(refused(AT, &[PACIASP]).contains("4 bytes were read for 8"));
    assert!(refused(AT + 2, case.object).contains("no instruction"));
    assert!(refused(0xffff_ffc0_0801_0000, case.object).contains("fewer bits"));
}

#[test]
fn unknown_sections_and_overlaps_are_errors() {
    let kernel = Kernel::default();
    let entries = [entry(".new_in_some_kernel", &[], &[])];
    let case = Case { object: &[NOP, RET], relocs: &[], entries: &entries };
    let Err(ArchError::Entry { why, .. }) = case.at(AT, case.object, &kernel) else { panic!() };
    assert!(why.contains("not known"), "{why}");
    let data = [0, 0, 0, 0, 0, 0, 0, 0, 5, 0x80, 4, 0];
    let relocs = [CodeReloc {
        offset: 4,
        r_type: 261,
        symbol: "alt_cb_patch_nops",
        key: 9,
        addend: 0,
        inside: None,
    }];
    let patchable = entry("__patchable_function_entries", &[0; 8], &[]);
    let second = Entry { offset: 4, ..entry(".altinstructions", &data, &relocs) };
    let entries = [patchable, second];
    let case = Case { object: &[NOP, NOP, RET], relocs: &[], entries: &entries };
    let Err(ArchError::Entry { why, .. }) = case.at(AT, case.object, &kernel) else { panic!() };
    assert!(why.contains("overlaps"), "{why}");
}
