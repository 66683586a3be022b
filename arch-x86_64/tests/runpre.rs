// SPDX-License-Identifier: GPL-2.0-or-later
//! Run-pre against text that the linker placed: `ld` puts small units at kernel addresses, its
//! output is the "running" text and `nm` its symbol list. What the engine learns is compared with
//! what `nm` says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection};
use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::plan::plan;
use splice_core::runpre::{
    Kallsyms, RawDump, Refusal, Report, Snapshot, VMLINUX, Verified, check, survey, verify,
};
use splice_core::unit::Unit;
use splice_core::update::{Change, Function, Manifest, NeededSymbol, Place};

use common::{BASE, compile, manifest, run, snapshot};

/// The unit that is patched. `twin` has a namesake with the same code in the other unit, told
/// apart by who calls it; `lone` is mentioned by nothing that is matched.
const ONE: &str = r#"
extern int shared(int);
extern int imported_data;
static int counter = 3;
int lone_data = 5;
static __attribute__((noinline)) int twin(int x) { return x * 3 + 1; }
__attribute__((noinline)) int first(int x) { counter += x; return twin(x) + imported_data; }
__attribute__((noinline)) int second(int x) { return shared(x) + counter; }
__attribute__((weak, noinline)) int overridden(int x) { return x ^ 0x55; }
int uses_weak(int x) { return overridden(x) + 1; }
"#;

const TWO: &str = r#"
int imported_data = 7;
static __attribute__((noinline)) int twin(int x) { return x * 3 + 1; }
int shared(int x) { return twin(x) - 1; }
int overridden(int x) { return x - 0x777; }
int unmentioned = 9;
"#;

struct Linked {
    arch: &'static dyn Arch,
    pre: Unit,
    /// The unit beside it.
    other: Unit,
    text: Vec<u8>,
    symbols: String,
    addresses: BTreeMap<String, Vec<u64>>,
}

fn read(name: &str, path: &Path) -> Unit {
    let arch = by_name("x86_64").expect("registered");
    Unit::read(arch, name, &std::fs::read(path).unwrap()).unwrap()
}

fn link() -> Linked {
    link_at(BASE, ONE, TWO)
}

fn link_at(base: u64, one: &str, two: &str) -> Linked {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (compile(dir.path(), "one", one), compile(dir.path(), "two", two));
    let image = dir.path().join("image");
    run(Command::new("ld")
        .args(["-static", "-nostdlib", "-e", "first", "-z", "norelro", "-o"])
        .arg(&image)
        .arg(format!("-Ttext={base:#x}"))
        .arg(format!("-Tdata={:#x}", base + 0x10_0000))
        .args([&one, &two]));
    let symbols = String::from_utf8(run(Command::new("nm").arg(&image))).unwrap();
    let mut addresses: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let address = u64::from_str_radix(words[0], 16).unwrap();
        addresses.entry(words[2].to_owned()).or_default().push(address);
    }
    let bytes = std::fs::read(&image).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".text").unwrap();
    assert_eq!(section.address(), base);
    let symbols =
        format!("{base:016x} T _stext\n{:016x} T _etext\n{symbols}", base + section.size());
    Linked {
        arch: by_name("x86_64").expect("registered"),
        pre: read("one.o", &one),
        other: read("two.o", &two),
        text: section.data().unwrap().to_vec(),
        symbols,
        addresses,
    }
}

impl Linked {
    fn symbol(&self, name: &str) -> u32 {
        self.pre.symbols.iter().position(|s| s.name == name).expect(name) as u32
    }

    fn only(&self, name: &str) -> u64 {
        assert_eq!(self.addresses[name].len(), 1, "{name}");
        self.addresses[name][0]
    }

    fn manifest(&self, changed: &[&str], symbols: Vec<NeededSymbol>) -> Manifest {
        let functions = changed
            .iter()
            .map(|name| Function {
                name: (*name).to_owned(),
                unit: 0,
                change: Change::Changed,
                reasons: vec!["test".into()],
                pre_symbol: Some(self.symbol(name)),
                pre_parts: vec![],
                new_link: Some(format!("splice_new_0_{name}")),
            })
            .collect();
        manifest(functions, vec![], symbols)
    }

    fn snapshot(&self, text: Vec<u8>) -> Snapshot {
        snapshot(&self.symbols, text)
    }

    fn check(&self, manifest: &Manifest, text: Vec<u8>) -> Result<Report, Refusal> {
        check(self.arch, manifest, &[vec![self.pre.clone()]], &self.snapshot(text))
    }

    /// The whole text against these units.
    fn verify(&self, units: &[&Unit], text: Vec<u8>) -> Verified {
        let snapshot = snapshot(&self.symbols, text);
        let surveys =
            units.iter().map(|u| survey(self.arch, u, VMLINUX, &snapshot).unwrap()).collect();
        verify(self.arch, surveys, VMLINUX, &snapshot)
    }

    fn local(&self, name: &str) -> NeededSymbol {
        NeededSymbol {
            link: format!("splice_sym_0_{name}"),
            name: name.into(),
            place: Place::Local { unit: 0, symbol: self.symbol(name) },
        }
    }
}

#[test]
fn learns_what_the_linker_chose() {
    let linked = link();
    let mut wanted: Vec<NeededSymbol> =
        ["counter", "first", "second", "lone_data"].iter().map(|n| linked.local(n)).collect();
    for name in ["shared", "imported_data", "overridden"] {
        wanted.push(NeededSymbol {
            link: format!("splice_sym_0_{name}"),
            name: name.into(),
            place: Place::Global,
        });
    }
    let manifest = linked.manifest(&["first", "second"], wanted);
    let report = linked.check(&manifest, linked.text.clone()).unwrap();
    let target = &report.targets[0];
    for name in ["counter", "first", "second", "lone_data", "shared", "imported_data", "overridden"]
    {
        let learned = target.symbols[&format!("splice_sym_0_{name}")];
        assert_eq!(learned, linked.only(name), "{name}");
    }
    // The weak definition lost; its namesake's code differs. Everything else is proven.
    let unproven: Vec<&str> = target.unproven.iter().map(|u| u.function.as_str()).collect();
    assert_eq!(unproven, ["overridden"]);
    assert_eq!(target.proven(), 4);
}

/// Two modules of the same code, of which an update that needs these symbols in each patches `first`.
struct Modules {
    linked: [Linked; 2],
    snapshot: Snapshot,
    manifest: Manifest,
}

impl Modules {
    fn new(needed: [NeededSymbol; 2]) -> Self {
        const APART: u64 = 0x20_0000;
        let (one, two) = (link_at(BASE, ONE, TWO), link_at(BASE + APART, ONE, TWO));
        let listed = |linked: &Linked, module: &str| -> String {
            linked.symbols.lines().map(|line| format!("{line}\t[{module}]\n")).collect()
        };
        let symbols = format!("{}{}", listed(&one, "one"), listed(&two, "two"));
        let mut memory = one.text.clone();
        memory.resize(APART as usize, 0);
        memory.extend(&two.text);
        let symbols = Kallsyms::parse(symbols).unwrap();
        let snapshot = Snapshot::new(None, symbols, Box::new(RawDump::new(BASE, memory)));
        let [first, second] = needed;
        let mut manifest = one.manifest(&["first"], vec![first]);
        manifest.targets.extend(two.manifest(&["first"], vec![second]).targets);
        for (target, name) in manifest.targets.iter_mut().zip(["one", "two"]) {
            target.name = name.to_owned();
        }
        Self { linked: [one, two], snapshot, manifest }
    }

    fn check(&self) -> Result<Report, Refusal> {
        let pre = self.linked.each_ref().map(|linked| vec![linked.pre.clone()]);
        check(self.linked[0].arch, &self.manifest, &pre, &self.snapshot)
    }
}

fn needed(name: &str, place: Place) -> NeededSymbol {
    NeededSymbol { link: format!("splice_sym_0_{name}"), name: name.into(), place }
}

/// Each module has its own `init_module`, `__this_module` and whatever else it shares with nobody.
#[test]
fn a_global_name_may_mean_another_thing_in_each_module() {
    let modules = Modules::new([needed("shared", Place::Global), needed("shared", Place::Global)]);
    let report = modules.check().unwrap();
    for (target, linked) in report.targets.iter().zip(&modules.linked) {
        assert_eq!(target.symbols["splice_sym_0_shared"], linked.only("shared"));
    }
}

#[test]
fn what_another_target_defines_is_found_there() {
    let symbol = link().symbol("counter");
    let elsewhere = |target: &str, unit, symbol| {
        let place = Place::Elsewhere { target: target.into(), unit, symbol };
        Modules::new([needed("shared", Place::Global), needed("counter", place)])
    };
    let modules = elsewhere("one", 0, symbol);
    let report = modules.check().unwrap();
    let [one, two] = &modules.linked;
    assert_ne!(one.only("counter"), two.only("counter"));
    assert_eq!(report.targets[1].symbols["splice_sym_0_counter"], one.only("counter"));
    for (target, unit, symbol) in [("three", 0, symbol), ("one", 1, symbol), ("one", 0, u32::MAX)] {
        let refusal = elsewhere(target, unit, symbol).check();
        assert!(matches!(refusal, Err(Refusal::NoSymbol { name, .. }) if name == "counter"));
    }
}

/// The kernel lists a module's symbols as local unless they are exported.
#[test]
fn an_unmentioned_global_of_a_module_is_found_if_nothing_else_has_its_name() {
    let linked = link();
    let listed: String = linked
        .symbols
        .lines()
        .map(|line| {
            let (address, rest) = line.split_at(17);
            let (kind, name) = rest.split_at(1);
            format!("{address}{}{name}\t[one]\n", kind.to_lowercase())
        })
        .collect();
    let look = |more: &str| {
        let wanted = NeededSymbol {
            link: "splice_sym_0_unmentioned".into(),
            name: "unmentioned".into(),
            place: Place::Global,
        };
        let mut manifest = linked.manifest(&["first"], vec![wanted]);
        manifest.targets[0].name = "one".into();
        let symbols = Kallsyms::parse(format!("{more}{listed}")).unwrap();
        let memory = RawDump::new(BASE, linked.text.clone());
        let snapshot = Snapshot::new(None, symbols, Box::new(memory));
        check(linked.arch, &manifest, &[vec![linked.pre.clone()]], &snapshot)
    };
    let another = "ffffffff90000000 d unmentioned";
    for more in [String::new(), format!("{another}\n"), format!("{another}\t[two]\n")] {
        let report = look(&more).unwrap();
        let value = report.targets[0].symbols["splice_sym_0_unmentioned"];
        assert_eq!(value, linked.only("unmentioned"), "{more}");
    }
    for more in [another.replace(" d ", " D "), format!("{another}\t[one]")] {
        let refusal = look(&format!("{more}\n")).unwrap_err();
        assert!(matches!(refusal, Refusal::AmbiguousSymbol { .. }), "{more}: {refusal}");
    }
}

#[test]
fn namesakes_are_told_apart_by_their_callers() {
    let linked = link();
    assert_eq!(linked.addresses["twin"].len(), 2, "the linker kept both");
    let manifest = linked.manifest(&["twin"], vec![]);
    let report = linked.check(&manifest, linked.text.clone()).unwrap();
    let twin = report.targets[0].function(0, linked.symbol("twin")).unwrap();
    // The first unit's twin is the one that `first` calls: both lie in that unit's text, which
    // the linker put before the second unit's `shared`.
    assert!(twin.address < linked.only("shared"));
    assert!(linked.addresses["twin"].iter().any(|a| *a > linked.only("shared") - 0x40));
}

#[test]
fn namesakes_that_nothing_tells_apart_are_refused() {
    let mut linked = link();
    // Without its caller nothing refers to the twin any more.
    linked.symbols = linked.symbols.replace(" T first\n", " T another_name\n");
    let manifest = linked.manifest(&["twin"], vec![]);
    match linked.check(&manifest, linked.text.clone()) {
        Err(Refusal::AmbiguousFunction { function, addresses, .. }) => {
            assert_eq!(function, "twin");
            assert_eq!(addresses, {
                let mut both = linked.addresses["twin"].clone();
                both.sort_unstable();
                both
            });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_of_a_needed_function_is_refused_or_learned() {
    let linked = link();
    let manifest = linked.manifest(&["second"], vec![linked.local("counter")]);
    let start = (linked.only("second") - BASE) as usize;
    let size = linked
        .pre
        .spans
        .iter()
        .find(|s| s.name == "second")
        .map(|s| s.size as usize)
        .expect("the unit has it");
    for offset in 0..size {
        for bit in 0..8 {
            let mut text = linked.text.clone();
            text[start + offset] ^= 1 << bit;
            match linked.check(&manifest, text) {
                Err(Refusal::Mismatch(report)) => {
                    assert_eq!(report.function, "second");
                    let width = report.expected.split(' ').count() as u64;
                    let place = report.offset..report.offset + width.max(1);
                    assert!(place.contains(&(offset as u64)), "{offset}: {report}");
                }
                // A flipped bit in a relocation's field gives another value, which another
                // function or the symbol list contradicts.
                Err(Refusal::Disagree { .. }) => {}
                other => panic!("bit {bit} of offset {offset:#x}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_refusal_is_readable() {
    let linked = link();
    let manifest = linked.manifest(&["second"], vec![]);
    let at = (linked.only("second") - BASE) as usize;
    let mut text = linked.text.clone();
    text[at..at + 5].copy_from_slice(&[0xe9, 0, 0, 0, 0]);
    let refusal = linked.check(&manifest, text).unwrap_err().to_string();
    for part in ["second (one.o)", "offset 0x0", "expected:", "found:", "jmp"] {
        assert!(refusal.contains(part), "{part} is not in {refusal}");
    }
}

#[test]
fn of_namesakes_the_one_that_was_changed_is_refused_and_the_others_are_told() {
    let sum = |third: u32| {
        format!(
            "static __attribute__((noinline)) int sum(int *p) \
             {{ return p[0] * 3 + p[1] * 5 + p[2] * {third} + p[3]; }}"
        )
    };
    let one = format!("{} int first(int *p) {{ return sum(p) + 1; }}", sum(7));
    let two = format!("{} int other(int *p) {{ return sum(p) + 2; }}", sum(0x1234));
    let linked = link_at(BASE, &one, &two);
    let (mine, theirs) = (linked.addresses["sum"][0], linked.addresses["sum"][1]);
    let (mine, theirs) = (mine.min(theirs), mine.max(theirs));
    // The namesake has the longer part in common from its start on.
    let mut text = linked.text.clone();
    text[(mine - BASE) as usize] ^= 0x10;
    let manifest = linked.manifest(&["sum"], vec![]);
    match linked.check(&manifest, text) {
        Err(Refusal::Mismatch(report)) => {
            assert_eq!((report.address, report.offset), (mine, 0), "{report}");
            let [(address, offset)] = report.namesakes.as_slice() else { panic!("{report}") };
            assert_eq!(*address, theirs);
            assert!(*offset > 0 && report.to_string().contains(&format!("{:#x}", theirs + offset)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_namesake_with_the_same_code_does_not_hide_which_one_was_changed() {
    let linked = link();
    let twins = &linked.addresses["twin"];
    let mine = *twins.iter().find(|at| **at < linked.only("shared")).unwrap();
    let mut text = linked.text.clone();
    text[(mine - BASE) as usize + 1] ^= 0x40;
    let manifest = linked.manifest(&["twin"], vec![]);
    match linked.check(&manifest, text.clone()) {
        Err(Refusal::Mismatch(report)) => {
            assert_eq!((report.address, report.function.as_str()), (mine, "twin"), "{report}");
        }
        other => panic!("{other:?}"),
    }
    let verified = linked.verify(&[&linked.pre, &linked.other], text);
    let [foreign] = verified.foreign.as_slice() else { panic!("{:?}", verified.foreign) };
    assert!(foreign.why.contains(&format!("{mine:#x}")), "{}", foreign.why);
}

#[test]
fn beside_another_of_its_name_every_flipped_bit_is_named_in_its_place() {
    let one = "extern int data; \
               static __attribute__((noinline)) int sum(int *p) { return p[0] * 3 + p[1] + data; } \
               int first(int *p) { return sum(p) + data; }";
    let two = "int data = 5; \
               static __attribute__((noinline)) int sum(int *p) { return p[0] * 0x1234 + p[1]; } \
               int other(int *p) { return sum(p); }";
    let linked = link_at(BASE, one, two);
    let mine = *linked.addresses["sum"].iter().min().unwrap();
    let size = linked.pre.spans.iter().find(|s| s.name == "sum").unwrap().size;
    let manifest = linked.manifest(&["sum"], vec![]);
    let mut disagreed = 0;
    for bit in 0..size * 8 {
        let mut text = linked.text.clone();
        text[(mine - BASE + bit / 8) as usize] ^= 1 << (bit % 8);
        match linked.check(&manifest, text) {
            Err(Refusal::Mismatch(report)) => assert_eq!(report.address, mine, "{report}"),
            Err(Refusal::Disagree { first, second, .. }) => {
                let named = [first.0, second.0].iter().any(|who| who.starts_with("sum+0x"));
                assert!(named, "bit {bit}");
                disagreed += 1;
            }
            other => panic!("bit {bit}: {other:?}"),
        }
    }
    assert!(disagreed > 0);
}

#[test]
fn another_release_is_refused() {
    let linked = link();
    let manifest = linked.manifest(&["second"], vec![]);
    let mut snapshot = linked.snapshot(linked.text.clone());
    snapshot.release = Some("6.1.0-other".into());
    let refusal = check(linked.arch, &manifest, &[vec![linked.pre.clone()]], &snapshot);
    assert!(matches!(refusal, Err(Refusal::Release { running, .. }) if running == "6.1.0-other"));
}

#[test]
fn the_plan_names_sites_ranges_and_expected_bytes() {
    let linked = link();
    let manifest = linked.manifest(&["first", "second"], vec![]);
    let snapshot = linked.snapshot(linked.text.clone());
    let pre = [vec![linked.pre.clone()]];
    let report = check(linked.arch, &manifest, &pre, &snapshot).unwrap();
    let values = plan(linked.arch, &manifest, &pre, &report, &snapshot).unwrap().remove(0);
    for (index, name) in ["first", "second"].into_iter().enumerate() {
        let address = linked.only(name);
        assert_eq!(values.symbols[&format!("splice_site_{index}")], address);
        assert_eq!(values.symbols[&format!("splice_range_{index}")], address);
        assert!(values.symbols[&format!("splice_range_end_{index}")] > address);
        let at = (address - BASE) as usize;
        assert_eq!(values.bytes[&format!("splice_expected_{index}")], linked.text[at..at + 5]);
    }
}

#[test]
fn a_whole_text_is_proven_but_for_what_no_unit_has() {
    let linked = link();
    let both = linked.verify(&[&linked.pre, &linked.other], linked.text.clone());
    assert_eq!(both.foreign, []);
    assert_eq!(both.unexplained, []);
    // Both twins, `first`, `second`, `uses_weak`, `shared`, and the `overridden` that won.
    assert_eq!((both.proven, both.symbols), (7, 7));
    // The `overridden` that lost has no name, and with a section of its own no known place.
    let lost = linked.pre.spans.iter().find(|s| s.name == "overridden").unwrap();
    assert_eq!(both.gaps.len(), 1);
    // With the padding on both sides of it.
    let padded = lost.size..lost.size + 32;
    assert!(padded.contains(&both.gaps[0].size), "{:?}", both.gaps);
    let all = both.proven_bytes + both.padding_bytes + both.gaps[0].size;
    assert_eq!(all, both.text_bytes, "every byte is accounted for");

    let one = linked.verify(&[&linked.pre], linked.text.clone());
    let open: Vec<&str> = one.unexplained.iter().map(|u| u.symbol.as_str()).collect();
    // The twin that is left is the other unit's.
    assert_eq!(open, ["twin", "shared", "overridden"]);
    assert!(one.foreign.is_empty());
}

#[test]
fn a_call_that_was_led_elsewhere_is_foreign_and_so_is_a_jump_at_an_entry() {
    let linked = link();
    let units = [&linked.pre, &linked.other];
    let at = |name| (linked.only(name) - BASE) as usize;

    // `second` calls `shared`; now it calls `first`.
    let mut text = linked.text.clone();
    let span = linked.pre.spans.iter().find(|s| s.name == "second").unwrap();
    let code = &text[at("second")..at("second") + span.size as usize];
    let call = at("second") + code.iter().position(|byte| *byte == 0xe8).unwrap();
    let rel = i32::try_from(at("first") as i64 - (call as i64 + 5)).unwrap();
    text[call + 1..call + 5].copy_from_slice(&rel.to_le_bytes());
    let found = linked.verify(&units, text);
    let foreign: Vec<&str> = found.foreign.iter().map(|f| f.function.as_str()).collect();
    assert_eq!(foreign, ["second"], "{:?}", found.foreign);
    assert!(found.foreign[0].why.contains("shared is at"), "{}", found.foreign[0].why);
    assert_eq!(found.unexplained.len(), 1);

    let mut text = linked.text.clone();
    let entry = at("shared");
    text[entry..entry + 5].copy_from_slice(&[0xe9, 0, 1, 0, 0]);
    let found = linked.verify(&units, text);
    assert_eq!(found.foreign.len(), 1);
    assert_eq!(found.foreign[0].function, "shared");
    assert_eq!(found.foreign[0].jump, Some(BASE + entry as u64 + 5 + 0x100));
}

#[test]
fn every_flipped_bit_of_a_text_is_found() {
    let linked = link();
    let units = [&linked.pre, &linked.other];
    let clean = linked.verify(&units, linked.text.clone());
    let before = (clean.proven, clean.padding_bytes, clean.gaps.len());
    let lost = clean.gaps[0].address - BASE;
    let lost = lost..lost + clean.gaps[0].size;
    for offset in (0..linked.text.len()).filter(|at| !lost.contains(&(*at as u64))) {
        for bit in 0..8 {
            let mut text = linked.text.clone();
            text[offset] ^= 1 << bit;
            let found = linked.verify(&units, text);
            let after = (found.proven, found.padding_bytes, found.gaps.len());
            assert_ne!(after, before, "bit {bit} of {offset:#x} is not noticed");
        }
    }
}

/// The text of a unit whose functions say a string, linked, in a dump of nothing but text.
struct Saying {
    arch: &'static dyn Arch,
    unit: Unit,
    text: Vec<u8>,
    symbols: String,
    /// Where in the text the string's address is.
    fields: Vec<usize>,
}

impl Saying {
    fn new(functions: &str) -> Saying {
        const CONSTANTS: u64 = BASE + 0x20_0000;
        let dir = tempfile::tempdir().unwrap();
        let say = "__attribute__((noipa)) int say(const char *text) { return *text; }\n";
        let object = compile(dir.path(), "one", &format!("{say}{functions}"));
        let image = dir.path().join("image");
        run(Command::new("ld")
            .args(["-static", "-nostdlib", "-e", "first", "-z", "norelro", "-o"])
            .arg(&image)
            .arg(format!("-Ttext={BASE:#x}"))
            .arg(format!("--section-start=.rodata={CONSTANTS:#x}"))
            .arg(&object));
        let bytes = std::fs::read(&image).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap().data().unwrap().to_vec();
        let symbols = String::from_utf8(run(Command::new("nm").arg(&image))).unwrap();
        let symbols = format!(
            "{BASE:016x} T _stext\n{:016x} T _etext\n{CONSTANTS:016x} R __start_rodata\n\
             {:016x} R __end_rodata\n{:016x} B _end\n{symbols}",
            BASE + text.len() as u64,
            CONSTANTS + 0x1000,
            BASE + 0x1000_0000,
        );
        let address = u32::try_from(CONSTANTS & 0xffff_ffff).unwrap().to_le_bytes();
        let fields = (0..text.len()).filter(|at| text[*at..].starts_with(&address)).collect();
        let unit = read("one.o", &object);
        Saying { arch: by_name("x86_64").expect("registered"), unit, text, symbols, fields }
    }

    fn look(&self, text: Vec<u8>) -> Verified {
        let snapshot = snapshot(&self.symbols, text);
        let surveyed = survey(self.arch, &self.unit, VMLINUX, &snapshot).unwrap();
        verify(self.arch, vec![surveyed], VMLINUX, &snapshot)
    }

    /// With that bit of the string's address in the last place another one.
    fn flipped(&self, bit: usize) -> Verified {
        let mut text = self.text.clone();
        text[self.fields.last().expect("a place") + bit / 8] ^= 1 << (bit % 8);
        self.look(text)
    }
}

/// A dump of nothing but text tells no string; but that it cannot be where the kernel has no constants
/// is known.
#[test]
fn a_string_outside_of_the_constants_is_foreign_even_if_nobody_can_read_it() {
    let saying = Saying::new("int first(void) { return say(\"splice\"); }");
    let clean = saying.look(saying.text.clone());
    assert_eq!((clean.foreign.len(), clean.unread, saying.fields.len()), (0, 1, 1));
    for bit in 0..32 {
        let found = saying.flipped(bit);
        if bit < 12 {
            assert_eq!((found.foreign.len(), found.unread), (0, 1), "bit {bit}");
        } else {
            assert_eq!(found.foreign.len(), 1, "bit {bit}");
            assert_eq!(found.foreign[0].function, "first");
        }
    }
}

/// And that the linker has put it into one place.
#[test]
fn a_string_that_is_somewhere_else_for_another_function_is_foreign() {
    let saying = Saying::new(
        "int first(void) { return say(\"splice\"); }\nint second(void) { return say(\"splice\") + 1; }",
    );
    let clean = saying.look(saying.text.clone());
    assert_eq!((clean.foreign.len(), clean.unread, saying.fields.len()), (0, 2, 2));
    for bit in 0..32 {
        let found = saying.flipped(bit);
        assert_eq!(found.foreign.len(), 1, "bit {bit}");
        assert!(bit >= 12 || found.foreign[0].why.contains("splice"), "{}", found.foreign[0].why);
    }
}
