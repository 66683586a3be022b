// SPDX-License-Identifier: GPL-2.0-or-later
//! How fast the engine reads, compares and matches: a large unit and many small ones, generated
//! and compiled when the benchmark starts, with the tables that a kernel object has.
//!
//! The goals are 100,000 unchanged functions a second in the differ on one core, and all text of
//! a kernel (14.7 MB) matched in a second on two. Matching uses all cores, unless
//! `RAYON_NUM_THREADS` says otherwise.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot set itself up stops there and then"
)]

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use criterion::{Criterion, Throughput};
use object::{Object, ObjectSection};
use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, Code, by_name};
use splice_core::diff::diff_units;
use splice_core::runpre::{Kallsyms, RawDump, Snapshot, check};
use splice_core::unit::Unit;
use splice_core::update::{CoreModule, FORMAT, Manifest, Target, UnitEntry};

/// Functions of the large unit.
const FUNCTIONS: usize = 3000;
/// Small units, and functions of each.
const SMALL: (usize, usize) = (120, 25);
const HELPERS: usize = 64;
const BASE: u64 = 0xffff_ffff_8100_0000;

/// Declarations, and macros that write rows into the tables of special sections.
const PRELUDE: &str = r#"
#define HOT __attribute__((noinline, used))
#define COLD __attribute__((noinline, cold))
extern long log_line(const char *text, ...);
extern COLD long complain(const char *where, long x);
extern long shared_table[64];
extern long shared_key;
/* A row of an unwind table and of the table that runs beside it. */
#define UNWIND asm volatile( \
    "661:\n.pushsection .orc_unwind_ip,\"a\"\n.long 661b - .\n.popsection\n" \
    ".pushsection .orc_unwind,\"a\"\n.word 8, 0, 0x15\n.popsection")
/* Three bytes of nops that become STAC where the processor has it. */
#define ALTERNATIVE asm volatile( \
    "661: .byte 0x90, 0x90, 0x90\n662:\n" \
    ".pushsection .altinstructions,\"a\"\n.long 661b - ., 663f - .\n.word 0x1234\n" \
    ".byte 3, 3\n.popsection\n" \
    ".pushsection .altinstr_replacement,\"ax\"\n663: .byte 0x0f, 0x01, 0xcb\n.popsection")
#define LOCKED_ADD(to) asm volatile( \
    ".pushsection .smp_locks,\"a\"\n.balign 4\n.long 671f - .\n.popsection\n" \
    "671: lock addq $1, %0" : "+m"(to))
static inline __attribute__((always_inline)) int enabled(void)
{
    asm goto("1: .byte 0x0f, 0x1f, 0x44, 0, 0\n.pushsection __jump_table,\"aw\"\n.balign 8\n"
             ".long 1b - ., %l[yes] - .\n.quad shared_key - .\n.popsection" : : : : yes);
    return 0;
yes:
    return 1;
}
struct ops { long (*one)(long, long); long (*two)(long, long); };
"#;

/// A unit of many functions of ten kinds. `CHANGED` changes one constant of one of them.
fn source(numbers: Range<usize>) -> String {
    let mut out = String::from(PRELUDE);
    for n in 0..HELPERS {
        let _ = writeln!(out, "extern long helper{n}(long);");
    }
    for n in numbers.clone() {
        let before = |back: usize| n.saturating_sub(back).max(numbers.start);
        let (p, q) = (before(1), before(2));
        let (h, c) = (n % HELPERS, n * 7 + 13);
        let changed = if n == FUNCTIONS / 2 { "CHANGED" } else { "0" };
        let body = match n % 10 {
            0 => format!(
                "a = a * {c} + b; a ^= a >> 7; return a + shared_table[a & 63] + {changed};"
            ),
            1 => format!("return helper{h}(f{p}(a, b)) + f{q}(b, a + {c});"),
            2 => format!(
                "switch (a) {{ case 0: return b + {c}; case 1: return f{p}(b, a); \
                 case 2: return helper{h}(b); case 3: return b * 3; case 4: return b ^ {c}; \
                 case 5: return f{q}(a, b) - 1; case 6: return log_line(\"six\"); \
                 default: return 0; }}"
            ),
            3 => format!(
                "static long count; count += a; if (!(count & 15)) \
                 log_line(\"f{n}: %ld\", count); return count + b;"
            ),
            4 => format!(
                "static int __already_done; if (a > {c} && !__already_done) {{ \
                 __already_done = 1; log_line(__func__, b); return -1; }} \
                 if (b < 0) return log_line(\"negative: %ld %ld\", a, b); return f{p}(a, b + 1);"
            ),
            5 => format!(
                "for (long i = 0; i < a; i++) state{n} += shared_table[i & 63] ^ b; return state{n};"
            ),
            6 => format!(
                "if (enabled()) return f{p}(a, {c}); \
                 if (__builtin_expect(a < 0, 0)) return complain(\"f{n}\", a) + helper{h}(b); \
                 return f{q}(a, b) + {c};"
            ),
            7 => format!(
                "ALTERNATIVE; LOCKED_ADD(state{n}); if (a & 1) return helper{h}(a + state{n}); \
                 return b - {c};"
            ),
            8 => format!("return (a & 1 ? ops{n}.one : ops{n}.two)(a, b) + ops{n}.two(b, {c});"),
            _ => format!(
                "long x = b; for (long i = 0; i < a; i++) {{ x += helper{h}(x ^ i) * {c}; \
                 if (x & 1) x -= f{p}(x, i); else if (x & 2) x = shared_table[i & 63]; \
                 else if (enabled()) log_line(\"odd: %ld\", x); \
                 switch (x & 7) {{ case 0: x++; break; case 3: x += f{q}(i, x); break; \
                 case 5: x = helper{h}(x >> 3); break; default: x ^= a; }} \
                 if (__builtin_expect(x == {c}, 0)) complain(\"loop\", x); }} return x;"
            ),
        };
        let linkage = if n % 3 == 2 { "" } else { "static " };
        let _ = writeln!(out, "{linkage}long f{n}(long a, long b);");
        match n % 10 {
            5 | 7 => {
                let _ = writeln!(out, "static long state{n} = {c};");
            }
            8 => {
                let _ = writeln!(out, "static const struct ops ops{n} = {{ f{p}, f{q} }};");
            }
            _ => {}
        }
        let _ = writeln!(out, "HOT {linkage}long f{n}(long a, long b) {{ UNWIND; {body} }}");
    }
    out
}

/// What the unit refers to.
fn rest() -> String {
    let mut out = String::from(
        "long shared_table[64]; long shared_key; void __fentry__(void) {}\n\
         long log_line(const char *text, ...) { return text[0]; }\n\
         long complain(const char *where, long x) { return where[0] + x; }\n",
    );
    for n in 0..HELPERS {
        let _ = writeln!(out, "long helper{n}(long x) {{ return x * {n} + 1; }}");
    }
    out
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("the tool starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn compile(dir: &Path, name: &str, source: &str, more: &[&str]) -> PathBuf {
    let (c, o) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    std::fs::write(&c, source).unwrap();
    let flags = "-O2 -c -mcmodel=kernel -mno-red-zone -mno-sse -fno-pic -fno-pie -ffreestanding \
                 -fcf-protection=none -fno-asynchronous-unwind-tables -fno-stack-protector \
                 -fno-ipa-icf -ffunction-sections -fdata-sections";
    run(Command::new("gcc").args(flags.split_whitespace()).args(more).arg(&c).arg("-o").arg(&o));
    o
}

struct Fixture {
    arch: &'static dyn Arch,
    object: Vec<u8>,
    pre: Unit,
    changed: Unit,
    small: Vec<Unit>,
    snapshot: Snapshot,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let unit = |name: &str, numbers, changed: &str| {
        let flags = ["-pg", "-mfentry", "-mrecord-mcount", changed];
        compile(dir, name, &source(numbers), &flags)
    };
    let (units, each) = SMALL;
    let small = || -> Vec<PathBuf> {
        let first = |n: usize| FUNCTIONS + n * each;
        let one = |n| unit(&format!("small{n}"), first(n)..first(n + 1), "-DCHANGED=0");
        (0..units).map(one).collect()
    };
    let (pre, post, small) = std::thread::scope(|s| {
        let small = s.spawn(small);
        let pre = unit("pre", 0..FUNCTIONS, "-DCHANGED=0");
        let post = unit("post", 0..FUNCTIONS, "-DCHANGED=77");
        (pre, post, small.join().expect("the small units compile"))
    });
    let rest = compile(dir, "rest", &rest(), &[]);
    let image = dir.join("image");
    run(Command::new("ld")
        .args(["-static", "-nostdlib", "-e", "f2", "-z", "norelro", "-o"])
        .arg(&image)
        .arg(format!("-Ttext={BASE:#x}"))
        .arg(format!("-Tdata={:#x}", BASE + 0x100_0000))
        .args([&pre, &rest])
        .args(&small));
    let arch = by_name("x86_64").expect("registered");
    let object = std::fs::read(&pre).unwrap();
    let read = |bytes: &[u8]| Unit::read(arch, "bench.o", bytes).unwrap();
    Fixture {
        arch,
        pre: read(&object),
        changed: read(&std::fs::read(post).unwrap()),
        small: small.iter().map(|path| read(&std::fs::read(path).unwrap())).collect(),
        object,
        snapshot: snapshot(&image),
    }
}

/// The linked image as a booted kernel has it: nobody traces.
fn snapshot(image: &Path) -> Snapshot {
    let list = String::from_utf8(run(Command::new("nm").arg(image))).unwrap();
    let bytes = std::fs::read(image).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".text").unwrap();
    assert_eq!(section.address(), BASE);
    let mut text = section.data().unwrap().to_vec();
    let symbols: Vec<(u64, &str, &str)> = list
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (u64::from_str_radix(words[0], 16).unwrap(), words[1], words[2])
        })
        .collect();
    let named: HashMap<&str, u64> = symbols.iter().map(|(at, _, name)| (*name, *at)).collect();
    for (address, _, _) in symbols.iter().filter(|s| matches!(s.1, "t" | "T")) {
        let at = (address - BASE) as usize;
        let Some([0xe8, distance @ ..]) = text.get(at..at + 5) else { continue };
        let distance = i32::from_le_bytes(distance.try_into().unwrap());
        if (address + 5).wrapping_add_signed(distance.into()) == named["__fentry__"] {
            text[at..at + 5].copy_from_slice(&[0x0f, 0x1f, 0x44, 0, 0]);
        }
    }
    let list = format!("{BASE:016x} T _stext\n{:016x} T _etext\n{list}", BASE + section.size());
    let symbols = Kallsyms::parse(list).unwrap();
    Snapshot::new(None, symbols, Box::new(RawDump::new(BASE, text)))
}

fn manifest(units: usize) -> Manifest {
    let unit = UnitEntry { name: "bench.o".into(), pre: "pre/bench.o".into() };
    Manifest {
        version: FORMAT,
        stacked: false,
        id: "bench".into(),
        description: String::new(),
        arch: "x86_64".into(),
        release: String::new(),
        compiler: String::new(),
        core: CoreModule { file: "splice.ko".into(), abi: 1, symbols: vec![] },
        targets: vec![Target {
            name: "vmlinux".into(),
            module: "splice_bench.ko".into(),
            module_name: "splice_bench".into(),
            units: vec![unit; units],
            functions: vec![],
            objects: vec![],
            hooks: vec![],
            shadows: vec![],
            symbols: vec![],
        }],
        files: vec![],
    }
}

/// Number of functions, and their bytes.
fn size(units: &[Unit]) -> (u64, u64) {
    let sizes = units.iter().flat_map(|u| u.functions().map(|id| u.spans[id].size));
    sizes.fold((0, 0), |(functions, bytes), size| (functions + 1, bytes + size))
}

pub(crate) fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let Fixture { arch, object, pre, changed, small, snapshot } = fixture();
    let twin = pre.clone();

    let mut read = criterion.benchmark_group("read");
    read.throughput(Throughput::Bytes(object.len() as u64));
    read.bench_function("unit", |b| {
        b.iter(|| Unit::read(arch, "bench.o", black_box(&object)).unwrap());
    });
    read.finish();

    let same = diff_units(arch, &pre, &twin).unwrap();
    assert!(same.is_unchanged());
    let one = diff_units(arch, &pre, &changed).unwrap();
    assert_eq!((one.changed.len(), one.new.len(), one.refusals.len()), (1, 0, 0));
    let mut diff = criterion.benchmark_group("diff");
    diff.throughput(Throughput::Elements(pre.functions().count() as u64));
    diff.bench_function("identical", |b| {
        b.iter(|| diff_units(arch, black_box(&pre), black_box(&twin)).unwrap());
    });
    diff.bench_function("one changed", |b| {
        b.iter(|| diff_units(arch, black_box(&pre), black_box(&changed)).unwrap());
    });
    // A function as large as the kernel's largest, of which the last instruction changed.
    let before = vec![0x90; 64 << 10];
    let after = [&before[1..], &[0xc3]].concat();
    let [before, after] =
        [&before, &after].map(|bytes| Code { name: "f", bytes, relocs: &[], entries: &[] });
    diff.throughput(Throughput::Bytes(before.bytes.len() as u64));
    diff.bench_function("large function", |b| {
        b.iter(|| arch.diff().compare(black_box(&before), black_box(&after)).unwrap());
    });
    diff.finish();

    let mut running = criterion.benchmark_group("run-pre");
    for (name, units) in [("large unit", [vec![pre]]), ("small units", [small])] {
        let (functions, bytes) = size(&units[0]);
        let manifest = manifest(units[0].len());
        let report = check(arch, &manifest, &units, &snapshot).unwrap();
        let unproven = report.targets[0].unproven.first();
        assert_eq!((report.targets[0].proven() as u64, unproven.is_none()), (functions, true));
        running.throughput(Throughput::ElementsAndBytes { elements: functions, bytes });
        running.bench_function(name, |b| {
            b.iter(|| check(arch, &manifest, black_box(&units), &snapshot).unwrap());
        });
    }
    running.finish();
    criterion.final_summary();
}
