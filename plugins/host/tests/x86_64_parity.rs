// SPDX-License-Identifier: GPL-2.0-or-later
//! The same backend, built in and as a plugin: equal facts, equal differ reports and equal new
//! objects.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::path::Path;
use std::process::Command;

use splice_arch_x86_64::X86_64;
use splice_core::arch::{Arch, KernelView, RunCode};
use splice_core::diff::{diff_units, report};
use splice_core::extract::{ExtractInput, extract};
use splice_core::unit::Unit;

mod common;

use common::x86_64 as plugin;

/// Names and what stands before and after; `@` is replaced by one of them.
const PAIRS: &[(&str, &str, &str, &str)] = &[
    ("unchanged", "int f(int x) { return x @ 3; }", "*", "*"),
    ("constant", "int f(int x) { return x + @; }", "3", "4000000"),
    (
        "callee",
        "int a(int), b(int); int f(int x) { return @(x) * 2; } int g(int x) { return x; }",
        "a",
        "b",
    ),
    (
        "static data",
        "static int count = 1; static int limit = 7; extern void out(int);\n\
         void f(void) { count += limit; out(@); } void g(void) { limit++; }",
        "count",
        "limit",
    ),
    (
        "strings",
        "extern int print(const char *, ...);\n\
         int f(int x) { return print(\"value %d\", x); } int g(void) { return print(@); }",
        "\"old\"",
        "\"new\"",
    ),
    (
        "switch table",
        "extern int a(void), b(void), c(void), d(void), e(void), h(void);\n\
         int f(int x) { switch (x) { case 0: return a(); case 1: return b(); case 2: return c();\n\
         case 3: return d(); case 4: return @(); default: return h() + 1; } }",
        "e",
        "a",
    ),
    (
        "cold part",
        "extern __attribute__((cold)) int report(int); extern int work(int);\n\
         int f(int x) { if (x < 0) { report(x); report(@); return -1; } return work(x); }",
        "1",
        "2",
    ),
    (
        "new function and jump label",
        "extern int key; extern int slow(int);\n\
         int f(int x) { asm goto(\"1: .byte 0x0f,0x1f,0x44,0,0\\n\"\n\
         \".pushsection __jump_table,\\\"aw\\\"\\n .balign 8\\n .long 1b - ., %l[on] - .\\n\"\n\
         \".quad %c0 - .\\n .popsection\" :: \"i\"(&key) :: on); return x; on: return slow(x); }\n@",
        "",
        "__attribute__((noinline)) int fresh(int x) { return x * 77; }\n\
         int f2(int x) { return fresh(x) + f(x); }",
    ),
];

fn compile(dir: &Path, name: &str, source: &str) -> Unit {
    let (c, o) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    std::fs::write(&c, source).unwrap();
    let flags = "-O2 -c -mcmodel=kernel -fno-pic -fno-pie -ffreestanding -fcf-protection=none \
                 -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections";
    common::run(Command::new("gcc").args(flags.split_whitespace()).arg(&c).arg("-o").arg(&o));
    Unit::read(&X86_64, "unit.o", &std::fs::read(&o).unwrap()).unwrap()
}

fn pairs() -> Vec<(&'static str, Unit, Unit)> {
    let dir = tempfile::tempdir().unwrap();
    PAIRS
        .iter()
        .enumerate()
        .map(|(n, (name, source, before, after))| {
            let unit = |side: &str, text| {
                compile(dir.path(), &format!("{n}{side}"), &source.replace('@', text))
            };
            (*name, unit("pre", before), unit("post", after))
        })
        .collect()
}

#[test]
fn the_facts_are_equal() {
    let (a, b): (&dyn Arch, _) = (&X86_64, plugin());
    assert_eq!(a.name(), b.name());
    assert_eq!(a.e_machine(), b.e_machine());
    assert_eq!(a.kernel_arch(), b.kernel_arch());
    assert_eq!(a.source_arch(), b.source_arch());
    assert_eq!(a.cross_prefixes(), b.cross_prefixes());
    assert_eq!(a.special_sections(), b.special_sections());
    assert_eq!(a.trampoline().template(), b.trampoline().template());
    assert_eq!(a.stack().word(), b.stack().word());
    assert_eq!(a.stack().minimum_size(), b.stack().minimum_size());
    assert_eq!(a.stack().never_quiescent(), b.stack().never_quiescent());
    assert_eq!(a.reloc().absolute64(), b.reloc().absolute64());
    for r_type in 0..5000 {
        assert_eq!(a.reloc().describe(r_type), b.reloc().describe(r_type));
        assert_eq!(a.reloc().recovered_bits(r_type), b.reloc().recovered_bits(r_type));
    }
}

#[test]
fn single_answers_are_equal() {
    let (a, b): (&dyn Arch, _) = (&X86_64, plugin());
    for r_type in 0..60 {
        let width = a.reloc().describe(r_type).map_or(4, |r| usize::from(r.width));
        for (value, addend, place) in
            [(0x1000, -4, 0x2000), (u64::MAX, 1, 0), (0xffff_ffff_8100_0000, 0, 0x1000)]
        {
            let (mut x, mut y) = (vec![0xaa; width], vec![0xaa; width]);
            let got = (
                a.reloc().apply(r_type, value, addend, place, &mut x),
                b.reloc().apply(r_type, value, addend, place, &mut y),
            );
            assert_eq!(got.0, got.1);
            assert_eq!(x, y);
            assert_eq!(
                a.reloc().recover(r_type, addend, place, &x),
                b.reloc().recover(r_type, addend, place, &x)
            );
        }
    }
    for bytes in [&[0xe9, 1, 2, 3, 4][..], &[0x90, 0xcc], &[0x0f, 0x0b], &[]] {
        assert_eq!(a.trampoline().recognise(bytes, 77), b.trampoline().recognise(bytes, 77));
        assert_eq!(a.diff().is_padding(bytes), b.diff().is_padding(bytes));
        assert_eq!(a.diff().disassemble(bytes, 77, 3), b.diff().disassemble(bytes, 77, 3));
    }
    assert_eq!(a.stack().busy_range(30, 2), b.stack().busy_range(30, 2));
}

#[test]
fn the_differ_says_the_same() {
    for (name, pre, post) in pairs() {
        let via = |arch: &dyn Arch| {
            let diff = diff_units(arch, &pre, &post).unwrap();
            let text = format!("{:#?}", report(arch, &pre, &post, &diff));
            let object = extract(
                arch,
                &ExtractInput {
                    pre: &pre,
                    post: &post,
                    diff: &diff,
                    unit_index: 0,
                    exported: &|_| false,
                    new_globals: &|_| false,
                },
                &mut Default::default(),
            );
            (diff, text, object.map(|o| o.object).map_err(|e| e.to_string()))
        };
        let (direct, plugged) = (via(&X86_64), via(plugin()));
        assert_eq!(direct, plugged, "{name}");
        assert_eq!(direct.0.is_unchanged(), name == "unchanged", "{name}: {}", direct.1);
    }
}

/// A kernel of which nothing is known.
struct Nothing;

impl KernelView for Nothing {
    fn addresses(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }
    fn is_function(&self, _: u64) -> bool {
        true
    }
    fn is_text(&self, _: u64) -> bool {
        true
    }
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

/// The answers to everything that is asked about code.
fn round(arch: &dyn Arch, units: &[(&str, Unit, Unit)]) -> String {
    let mut answers = Vec::new();
    let mut answers_of_two = Vec::new();
    let mut diffs = Vec::new();
    for (_, pre, post) in units {
        for id in pre.functions() {
            answers.push(pre.with_code(arch, id, |code| {
                let run = RunCode { address: 0x1000, bytes: code.bytes, section: None };
                (
                    arch.diff().match_running(code, &run, &Nothing),
                    arch.diff().compare(code, code),
                    arch.reloc().target_offsets(code),
                    arch.trampoline().site(code, &[], 0),
                    (arch.diff().runs_on(code), arch.reloc().settled(code)),
                )
            }));
        }
        for (pre_id, post_id) in pre.functions().zip(post.functions()) {
            answers_of_two.push(pre.with_code(arch, pre_id, |pre| {
                post.with_code(arch, post_id, |post| arch.diff().arguments(pre, post))
            }));
        }
        diffs.push(diff_units(arch, pre, post));
    }
    format!("{answers:?}{answers_of_two:?}{diffs:?}")
}

/// A unit of functions as a kernel has them: some 330 bytes each, as in the average of a stock
/// 6.1 kernel, with a relocation every 20 bytes or so.
fn typical() -> Vec<(&'static str, Unit, Unit)> {
    let mut source = String::from("extern int ext(int, long); extern long state[64];\n");
    for n in 0..40 {
        source.push_str(&format!("int f{n}(int x, long y)\n{{\n"));
        for step in 0..7 {
            source.push_str(&format!(
                "\tif (state[{step}] > x + {n})\n\t\ty += ext(x ^ {step}, state[{}] + y);\n",
                (step * 7 + n) % 64
            ));
        }
        source.push_str("\treturn (int)y @ 1;\n}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = |side, operator| compile(dir.path(), side, &source.replace('@', operator));
    let (pre, post) = (unit("pre", "+"), unit("post", "-"));
    let sizes: u64 = pre.functions().map(|id| pre.spans[id].size).sum();
    assert!((250..450).contains(&(sizes / 40)), "{} bytes a function", sizes / 40);
    vec![("typical", pre, post)]
}

#[test]
fn typical_functions_get_equal_answers() {
    let units = typical();
    assert_eq!(round(&X86_64, &units), round(plugin(), &units));
}

/// A boot image of which little is there: sector and header marks, protocol 2.15, 8 bytes of payload.
fn boot_image() -> Vec<u8> {
    let mut image = vec![0; 2048];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, b"\x55\xaa");
    put(0x202, b"HdrS\x0f\x02");
    put(0x248, &[16, 0, 0, 0, 8, 0, 0, 0]);
    put(1024 + 16, b"payload!");
    image
}

#[test]
fn what_the_interface_got_later_is_equal() {
    let (a, b): (&dyn Arch, _) = (&X86_64, plugin());
    let image = boot_image();
    assert_eq!(a.boot_payload(&image), Some(&b"payload!"[..]));
    for image in [&image, &image[..1040], &[]] {
        assert_eq!(a.boot_payload(image), b.boot_payload(image));
        assert_eq!(a.flat_image(image), b.flat_image(image));
    }
    for (entry, empty) in [(&[0; 12][..], true), (&[1; 12], false), (&[0; 3], false)] {
        assert_eq!(a.replaces_by_nothing(".altinstructions", entry), empty);
        assert_eq!(b.replaces_by_nothing(".altinstructions", entry), empty);
        assert!(!b.replaces_by_nothing(".other", entry));
    }
    let pairs = pairs();
    let built_in = round(a, &pairs);
    assert_eq!(built_in, round(b, &pairs));
    assert!(built_in.contains("Argument {"), "no pair differs in a constant of a call");
}
