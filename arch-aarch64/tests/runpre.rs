// SPDX-License-Identifier: GPL-2.0-or-later
//! Run-pre against text that the linker placed: `ld` puts small units at kernel addresses, its
//! output is the "running" text and `nm` its symbol list. What the engine learns is compared with
//! what `nm` says.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSection};
use splice_arch_aarch64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::plan::plan;
use splice_core::runpre::{Kallsyms, RawDump, Refusal, Report, Snapshot, check};
use splice_core::unit::Unit;
use splice_core::update::{
    Change, CoreModule, FORMAT, Function, Manifest, NeededSymbol, Place, Target, UnitEntry,
};

const BASE: u64 = 0xffff_8000_0801_0000;

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

/// What the kernel rewrites: alternatives with a replacement and with a callback, jump labels both
/// ways, in one function; and a function whose cold part uses an address that the hot one made.
const DYNAMIC: &str = r#"
#define ENTRY(repl, feature) \
    "662: .pushsection .altinstructions, \"a\"\n .word 661b - .\n .word " repl " - .\n" \
    ".hword " feature "\n .byte 662b-661b\n .byte 664f-663f\n .popsection\n"
#define ALTERNATIVE(old, new) \
    "661: " old "\n" ENTRY("663f", "5") ".subsection 1\n663: " new "\n664: .previous\n"
#define CALLBACK(old, cb) "661: " old "\n" ENTRY(cb, "0x8005") "663: 664:\n"
#define LABEL(insn) \
    "1: " insn "\n .pushsection __jump_table, \"aw\"\n .align 3\n .long 1b - ., %l[yes] - .\n" \
    ".quad key - .\n .popsection\n"
extern int key, shared(int);
int key = 1;
void alt_cb_patch_nops(void) {}
int branches(int x)
{
    asm volatile(ALTERNATIVE("nop\nnop", "dmb ish\nisb"));
    asm goto(ALTERNATIVE("nop", "b %l[yes]") :::: yes);
    asm goto(CALLBACK("b %l[yes]", "alt_cb_patch_nops") :::: yes);
    asm goto(LABEL("nop") :::: yes);
    asm goto(LABEL("b %l[yes]") :::: yes);
    asm volatile(ALTERNATIVE("nop", "bl alt_cb_patch_nops") ::: "x30");
    return shared(x) + 1;
yes:
    return x * 3;
}
extern void fail(long *) __attribute__((cold, noreturn));
static long table[64];
long hot(long n)
{
    if (__builtin_expect(n > 63, 0)) { table[3] += n; fail(&table[5]); }
    table[n] += n;
    return table[2];
}
/* Only a page: nothing here tells where in it the table is. */
long page(void)
{
    long x;
    asm volatile("adrp %0, %1" : "=r"(x) : "S"(table));
    return x;
}
"#;

const OTHER: &str = r#"
int shared(int x) { return x - 1; }
void fail(long *x) { for (;;) *x = 1; }
"#;

const TWO: &str = r#"
int imported_data = 7;
static __attribute__((noinline)) int twin(int x) { return x * 3 + 1; }
int shared(int x) { return twin(x) - 1; }
int overridden(int x) { return x - 0x777; }
"#;

struct Linked {
    arch: &'static dyn Arch,
    pre: Unit,
    text: Vec<u8>,
    symbols: String,
    addresses: BTreeMap<String, Vec<u64>>,
    /// Alternatives and jump labels as linked: address and contents.
    tables: [(u64, Vec<u8>); 2],
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| {
        panic!(
            "{:?} cannot be started ({e}): install gcc-aarch64-linux-gnu, or run `make deps`",
            command.get_program()
        )
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn compile(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (c, o) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    std::fs::write(&c, source).unwrap();
    let flags = "-O2 -c -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only \
                 -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fno-section-anchors \
                 -fpatchable-function-entry=2 -mbranch-protection=pac-ret+leaf";
    let gcc = "aarch64-linux-gnu-gcc";
    run(Command::new(gcc).args(flags.split_whitespace()).arg(&c).arg("-o").arg(&o));
    o
}

fn link() -> Linked {
    link_units("first", ONE, TWO)
}

fn link_units(entry: &str, one: &str, two: &str) -> Linked {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (compile(dir.path(), "one", one), compile(dir.path(), "two", two));
    let image = dir.path().join("image");
    run(Command::new("aarch64-linux-gnu-ld")
        .args(["-static", "-nostdlib", "-e", entry, "-z", "norelro", "-o"])
        .arg(&image)
        .arg(format!("-Ttext={BASE:#x}"))
        .arg(format!("-Tdata={:#x}", BASE + 0x10_0000))
        .args([&one, &two]));
    let symbols = String::from_utf8(run(Command::new("aarch64-linux-gnu-nm").arg(&image))).unwrap();
    let mut addresses: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in symbols.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let address = u64::from_str_radix(words[0], 16).unwrap();
        addresses.entry(words[2].to_owned()).or_default().push(address);
    }
    let bytes = std::fs::read(&image).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".text").unwrap();
    assert_eq!(section.address(), BASE);
    let table = |name: &str| {
        let section = file.section_by_name(name);
        section.map_or((0, Vec::new()), |s| (s.address(), s.data().unwrap().to_vec()))
    };
    let tables = [".altinstructions", "__jump_table"].map(table);
    let symbols =
        format!("{BASE:016x} T _stext\n{:016x} T _etext\n{symbols}", BASE + section.size());
    Linked {
        arch: by_name("aarch64").expect("registered"),
        pre: Unit::read(
            by_name("aarch64").expect("registered"),
            "one.o",
            &std::fs::read(&one).unwrap(),
        )
        .unwrap(),
        // A kernel's text goes on behind its last function.
        text: [section.data().unwrap(), &[0x1f, 0x20, 0x03, 0xd5].repeat(64)].concat(),
        symbols,
        addresses,
        tables,
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
        Manifest {
            version: FORMAT,
            stacked: false,
            id: "test".into(),
            description: String::new(),
            arch: "aarch64".into(),
            release: "6.1.0-test".into(),
            compiler: String::new(),
            core: CoreModule { file: "splice.ko".into(), abi: 1, symbols: vec![] },
            targets: vec![Target {
                name: "vmlinux".into(),
                module: "splice_test.ko".into(),
                module_name: "splice_test".into(),
                units: vec![UnitEntry { name: "one.o".into(), pre: "pre/one.o".into() }],
                functions,
                objects: vec![],
                hooks: vec![],
                shadows: vec![],
                symbols,
            }],
            files: vec![],
        }
    }

    fn snapshot(&self, text: Vec<u8>) -> Snapshot {
        let symbols = Kallsyms::parse(self.symbols.clone()).unwrap();
        Snapshot::new(None, symbols, Box::new(RawDump::new(BASE, text)))
    }

    fn check(&self, manifest: &Manifest, text: Vec<u8>) -> Result<Report, Refusal> {
        check(self.arch, manifest, &[vec![self.pre.clone()]], &self.snapshot(text))
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
                // Of the two instructions that make an address, the first is named.
                Err(Refusal::Mismatch(report)) if report.why.starts_with("it leads to") => {
                    assert_eq!(report.function, "second");
                }
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
    // Behind the ftrace site: a jump.
    let jump = [0x10, 0, 0, 0x90, 0x10, 0x22, 0, 0x91, 0, 2, 0x1f, 0xd6];
    text[at + 8..at + 20].copy_from_slice(&jump);
    let refusal = linked.check(&manifest, text).unwrap_err().to_string();
    for part in ["second (one.o)", "offset 0x8", "expected:", "found:", "paciasp", "a jump to"] {
        assert!(refusal.contains(part), "{part} is not in {refusal}");
    }
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
        assert_eq!(values.symbols[&format!("splice_site_{index}")], address + 8);
        assert_eq!(values.symbols[&format!("splice_range_{index}")], address);
        assert!(values.symbols[&format!("splice_range_end_{index}")] > address);
        let at = (address - BASE) as usize + 8;
        assert_eq!(values.bytes[&format!("splice_expected_{index}")], linked.text[at..at + 12]);
    }
}

const NOP: u32 = 0xd503_201f;

/// The running text, changed as the kernel would, from what stands in the linked tables: what the
/// backend itself knows of them has no part in it.
struct Kernel {
    text: Vec<u8>,
}

impl Kernel {
    fn get(&self, address: u64) -> u32 {
        let at = (address - BASE) as usize;
        u32::from_le_bytes(self.text[at..at + 4].try_into().unwrap())
    }

    fn put(&mut self, address: u64, word: u32) {
        let at = (address - BASE) as usize;
        self.text[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn branch(&mut self, opcode: u32, from: u64, to: u64) {
        let distance = to.wrapping_sub(from) as u32 >> 2;
        self.put(from, opcode | distance & 0x03ff_ffff);
    }

    /// Applies those alternatives for whose number `yes` says so.
    fn alternatives(&mut self, (address, table): &(u64, Vec<u8>), yes: impl Fn(usize) -> bool) {
        for (n, entry) in table.chunks(12).enumerate().filter(|(n, _)| yes(*n)) {
            let distance = |at: usize| {
                let field = i32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
                (address + (n * 12 + at) as u64).wrapping_add_signed(field.into())
            };
            let (place, other) = (distance(0), distance(4));
            let callback = entry[9] & 0x80 != 0;
            for i in (0..u64::from(entry[10])).step_by(4) {
                let word = self.get(other + i);
                let leads = |bits: u32| (((word << (32 - bits)) as i32) >> (32 - bits)) as i64 * 4;
                match word >> 26 {
                    _ if callback => self.put(place + i, NOP),
                    // b and bl
                    5 | 37 => {
                        let to = (other + i).wrapping_add_signed(leads(26));
                        self.branch(word & 0xfc00_0000, place + i, to);
                    }
                    _ => self.put(place + i, word),
                }
            }
        }
    }

    /// Turns each jump label round.
    fn jump_labels(&mut self, (address, table): &(u64, Vec<u8>)) {
        for (n, entry) in table.chunks(16).enumerate() {
            let distance = |at: usize| {
                let field = i32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
                (address + (n * 16 + at) as u64).wrapping_add_signed(field.into())
            };
            let (code, target) = (distance(0), distance(4));
            match self.get(code) {
                NOP => self.branch(0x1400_0000, code, target),
                _ => self.put(code, NOP),
            }
        }
    }
}

fn booted(linked: &Linked) -> Kernel {
    let mut kernel = Kernel { text: linked.text.clone() };
    for (_, addresses) in linked.addresses.iter().filter(|(n, _)| linked.pre_has(n)) {
        for address in addresses {
            kernel.put(*address, 0xaa1e_03e9);
        }
    }
    kernel
}

impl Linked {
    /// Whether the pre unit defines a function of that name that can be traced.
    fn pre_has(&self, name: &str) -> bool {
        self.pre.functions().any(|id| {
            let span = &self.pre.spans[id];
            span.name == name && self.pre.entries_of(id).iter().any(|(offset, _)| *offset == 0)
        })
    }
}

#[test]
fn what_boot_and_a_running_kernel_rewrite_is_explained() {
    let linked = link_units("branches", DYNAMIC, OTHER);
    let wanted = ["branches", "hot"].iter().map(|n| linked.local(n)).chain([linked.local("table")]);
    let manifest = linked.manifest(&["branches", "hot"], wanted.collect());
    let [alternatives, labels] = &linked.tables;
    assert_eq!((alternatives.1.len() / 12, labels.1.len() / 16), (4, 2));
    for case in 0..16 {
        let mut kernel = booted(&linked);
        kernel.alternatives(alternatives, |n| case >> n & 1 == 1);
        if case & 1 == 1 {
            kernel.jump_labels(labels);
        }
        if case & 2 == 2 {
            // Somebody traces.
            let at = linked.only("branches") + 4;
            kernel.branch(0x9400_0000, at, linked.only("shared"));
        }
        let report = linked.check(&manifest, kernel.text).unwrap_or_else(|e| panic!("{case}: {e}"));
        let target = &report.targets[0];
        assert_eq!(target.symbols["splice_sym_0_table"], linked.only("table"));
        let cold = linked.addresses.keys().filter(|n| n.contains(".cold")).count();
        assert_eq!((target.unproven.len(), target.proven()), (0, 4 + cold), "{target:?}");
        let rules: Vec<_> = target.rules.iter().map(|r| (r.rule.as_str(), r.places)).collect();
        let has = |rule: &str| rules.iter().any(|(r, _)| *r == rule);
        assert!(has("ftrace site off"));
        assert_eq!(has("ftrace site on"), case & 2 == 2, "{rules:?}");
        assert_eq!(has("jump label on") && has("jump label off"), case & 1 == 1, "{rules:?}");
        assert_eq!(has("alternative nops"), case & 4 == 4, "{rules:?}");
        assert_eq!(has("alternative"), case & 11 != 0, "{rules:?}");
        let function = target.function(0, linked.symbol("branches")).unwrap();
        assert_eq!(function.live.len(), 3, "ftrace site, two jump labels");
    }
}

#[test]
fn every_flipped_bit_of_a_running_function_is_refused_or_contradicted() {
    let linked = link_units("branches", DYNAMIC, OTHER);
    let manifest = linked.manifest(&["branches"], vec![linked.local("branches")]);
    let mut kernel = booted(&linked);
    kernel.alternatives(&linked.tables[0], |_| true);
    kernel.jump_labels(&linked.tables[1]);
    assert!(linked.check(&manifest, kernel.text.clone()).is_ok());
    for name in ["branches", "page"] {
        let start = (linked.only(name) - BASE) as usize;
        let size = linked.pre.spans.iter().find(|s| s.name == name).unwrap().size as usize;
        for bit in 0..size * 8 {
            let mut text = kernel.text.clone();
            text[start + bit / 8] ^= 1 << (bit % 8);
            match linked.check(&manifest, text) {
                Err(Refusal::Mismatch(report)) => assert_eq!(report.function, name),
                Err(Refusal::Disagree { .. }) => {}
                other => panic!("bit {bit} of {name}: {other:?}"),
            }
        }
    }
}

/// Objects with the names of functions of the other unit: one that code of the unit uses, and one that
/// only new code does.
const NAMED: &str = r#"
static int used = 3;
static __attribute__((section(".data.apart"))) int unused = 4;
int *pointer = &unused;
extern int shared(int);
__attribute__((noinline)) int first(int x) { used += x; return shared(x) + used; }
"#;
const NAMES: &str = r#"
static __attribute__((noinline)) int used(int x) { return x * 3 + 1; }
static __attribute__((noinline)) int unused(int x) { return x * 5 + 1; }
int shared(int x) { return used(x) - unused(x + 1); }
"#;

impl Linked {
    /// As a kernel without CONFIG_KALLSYMS_ALL lists its symbols.
    fn list_code_alone(&mut self) {
        let is_code =
            |line: &&str| line.split(' ').nth(1).is_some_and(|kind| "tTwW".contains(kind));
        self.symbols = self.symbols.lines().filter(is_code).map(|l| format!("{l}\n")).collect();
        self.symbols += &format!("{:016x} D _etext\n", BASE + self.text.len() as u64);
    }
}

#[test]
fn an_object_that_nothing_names_is_found_by_its_section() {
    let mut linked = link();
    linked.list_code_alone();
    let needed = |name: &str| NeededSymbol {
        link: format!("splice_sym_0_{name}"),
        name: name.into(),
        place: Place::Global,
    };
    // `counter` lies in the same section, and `first` tells where.
    let manifest = linked.manifest(&["first"], vec![needed("lone_data")]);
    let report = linked.check(&manifest, linked.text.clone()).unwrap();
    assert_eq!(report.targets[0].symbols["splice_sym_0_lone_data"], linked.only("lone_data"));
    // A weak definition says nothing of the one that stands in the kernel; this one lost.
    let manifest = linked.manifest(&["first"], vec![needed("overridden")]);
    let report = linked.check(&manifest, linked.text.clone()).unwrap();
    assert_eq!(report.targets[0].symbols["splice_sym_0_overridden"], linked.only("overridden"));
}

#[test]
fn a_function_is_not_taken_for_an_object_of_its_name() {
    let mut linked = link_units("first", NAMED, NAMES);
    linked.list_code_alone();
    let object = |name: &str| {
        let data = |address: &u64| *address >= BASE + 0x10_0000;
        linked.addresses[name].iter().copied().find(data).unwrap()
    };
    let report =
        linked.check(&linked.manifest(&["first"], vec![linked.local("used")]), linked.text.clone());
    assert_eq!(report.unwrap().targets[0].symbols["splice_sym_0_used"], object("used"));
    let refusal = linked
        .check(&linked.manifest(&["first"], vec![linked.local("unused")]), linked.text.clone());
    assert!(matches!(refusal, Err(Refusal::NoSymbol { name, .. }) if name == "unused"));
}

/// As a kernel is built whose tracer has its data before each function (`CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS`,
/// arch/arm64/Makefile, 6.12), several to a section.
const TRACED: &str = r#"
#define AS_BUILT __attribute__((noinline, section(".text.built"), aligned(8), patchable_function_entry(4, 2)))
extern int shared(int);
AS_BUILT int first(int x) { return shared(x) + 1; }
AS_BUILT int second(int x) { return shared(x) * 3; }
AS_BUILT int third(int x) { return first(x) + second(x); }
"#;

#[test]
fn the_tracers_data_before_a_function_is_not_part_of_the_one_before() {
    let linked = link_units("first", TRACED, TWO);
    let names = ["first", "second", "third"];
    let mut text = linked.text.clone();
    for name in names {
        let data = (linked.only(name) - BASE - 8) as usize;
        assert_eq!(text[data..data + 8], [0x1f, 0x20, 0x03, 0xd5].repeat(2), "{name}");
        text[data..data + 8].copy_from_slice(&(BASE + 0x20_0000).to_le_bytes());
    }
    let report = linked.check(&linked.manifest(&names, vec![]), text).unwrap();
    assert_eq!(report.targets[0].proven(), 3);
}
