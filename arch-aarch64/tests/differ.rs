// SPDX-License-Identifier: GPL-2.0-or-later
//! The differ and the extractor on small units from the cross compiler. Each fixture says beside
//! its code what is expected.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection};
use splice_arch_aarch64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::diff::{DiffReport, Verdict, diff_units, report};
use splice_core::extract::{ExtractInput, Numbering, extract};
use splice_core::unit::Unit;

fn arch() -> &'static dyn Arch {
    by_name("aarch64").expect("registered")
}

fn compile(dir: &Path, name: &str, source: &str, define: &str) -> Vec<u8> {
    let (c, o) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    std::fs::write(&c, source).unwrap();
    let flags = "-O2 -c -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only \
                 -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections -fdata-sections \
                 -fno-section-anchors -fpatchable-function-entry=2 \
                 -mbranch-protection=pac-ret+leaf";
    let mut gcc = Command::new("aarch64-linux-gnu-gcc");
    gcc.args(flags.split_whitespace()).arg(define).arg(&c).arg("-o").arg(&o);
    let output = gcc.output().unwrap_or_else(|e| {
        panic!(
            "{:?} cannot be started ({e}): install gcc-aarch64-linux-gnu, or run `make deps`",
            gcc.get_program()
        )
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(&o).unwrap()
}

fn units(source: &str) -> (Unit, Unit) {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, define: &str| {
        Unit::read(arch(), name, &compile(dir.path(), name, source, define)).unwrap()
    };
    (read("pre", "-DPRE"), read("post", "-DPOST"))
}

fn diff(source: &str) -> DiffReport {
    let (pre, post) = units(source);
    let diff = diff_units(arch(), &pre, &post).unwrap();
    report(arch(), &pre, &post, &diff)
}

fn names(items: &[splice_core::diff::ChangedItem]) -> Vec<&str> {
    items.iter().map(|i| i.name.as_str()).collect()
}

#[test]
fn the_same_source_is_unchanged() {
    let got = diff(
        r#"
        static int counter; extern int other(const char *, int);
        int f(int x) { counter += x; return other("text", counter); }
        int g(int x) {
            switch (x) {
            case 0: return other("a", 1); case 1: return other("b", 7);
            case 2: return other("c", 2); case 3: return other("d", 9);
            case 4: return other("e", 4); case 5: return other("f", 5);
            } return 0; }
    "#,
    );
    assert_eq!(got.verdict, Verdict::Unchanged, "{got:?}");
}

#[test]
fn a_changed_function_and_a_new_one() {
    let got = diff(
        r#"
        extern int other(int);
        int same(int x) { return other(x) + 1; }
        #ifdef POST
        static __attribute__((noinline)) int added(int x) { return other(x) * 3; }
        #else
        #define added other
        #endif
        int changed(int x) { return added(x) ^ 5; }     // changed: calls another function
        int immediate(int x) {                          // changed: one bit of an immediate
        #ifdef POST
            return other(x + 1);
        #else
            return other(x + 2);
        #endif
        }
    "#,
    );
    assert_eq!(got.verdict, Verdict::Changed, "{:?}", got.refusals);
    assert_eq!(names(&got.functions.changed), ["changed", "immediate"]);
    assert_eq!(names(&got.functions.new), ["added"]);
    let reason = &got.functions.changed[1].reason[0];
    assert!(reason.contains("add w0, w0, #0x2") && reason.contains("#0x1"), "{reason}");
}

#[test]
fn renumbered_static_variables_are_the_same() {
    // Expected: first and second are new or changed as they say, last is unchanged although its
    // variable has another number.
    let got = diff(
        r#"
        extern int other(int *);
        #ifdef POST
        int first(void) { static int state; return other(&state); }
        #endif
        int second(void) { static int state = 3; return other(&state); }
        int last(void) { static int state = 7; return other(&state) + 1; }
    "#,
    );
    assert!(got.functions.changed.is_empty(), "{got:?}");
    assert_eq!(names(&got.functions.new), ["first"]);
}

#[test]
fn another_text_is_a_change() {
    let got = diff(
        r#"
        extern int other(const char *);
        #ifdef POST
        #define TEXT "after"
        #else
        #define TEXT "prior"
        #endif
        int f(void) { return other(TEXT); }
    "#,
    );
    assert_eq!(names(&got.functions.changed), ["f"]);
    let reason = &got.functions.changed[0].reason[0];
    assert!(reason.contains("\"prior\"") && reason.contains("\"after\""), "{reason}");
}

/// An alternative whose replacement branches into the function: both must keep their distance.
const ALTERNATIVE: &str = r#"
    extern int other(int);
    #ifdef POST
    #define RESULT 4
    #else
    #define RESULT 3
    #endif
    #define HAS(new) asm goto("661: nop\n662: .pushsection .altinstructions, \"a\"\n" \
        ".word 661b - .\n .word 663f - .\n .hword 5\n .byte 4, 4\n .popsection\n" \
        ".subsection 1\n663: " new "\n664: .previous\n" :::: yes)
    int changed(int x) { HAS("b %l[yes]"); return other(x); yes: return x * RESULT; }
    int same(int x) { HAS("b %l[yes]"); return other(x); yes: return x * 5; }
    int entry_only(int x) {
    #ifdef POST
        HAS("yield");
    #else
        HAS("isb");
    #endif
        return other(x); yes: return x; }
"#;

#[test]
fn alternatives_are_compared_and_travel_with_their_replacements() {
    let (pre, post) = units(ALTERNATIVE);
    let diff = diff_units(arch(), &pre, &post).unwrap();
    let got = report(arch(), &pre, &post, &diff);
    assert_eq!(names(&got.functions.changed), ["changed", "entry_only"]);
    assert!(got.functions.changed[1].reason[0].contains(".altinstructions"));
    let input = ExtractInput {
        pre: &pre,
        post: &post,
        diff: &diff,
        unit_index: 0,
        exported: &|_| false,
        new_globals: &|_| false,
    };
    let extracted = extract(arch(), &input, &mut Numbering::default()).unwrap();
    let bytes = extracted.object;
    let file = object::File::parse(&*bytes).unwrap();
    let section = |name: &str| file.section_by_name(name).expect(name);
    assert!(file.section_by_name(".text.same").is_none());
    assert_eq!(section(".altinstructions").size(), 24);
    assert_eq!(section(".altinstructions").relocations().count(), 4);
    // Function and replacement are one section, byte for byte as the compiler laid them out.
    for name in [".text.changed", ".text.entry_only"] {
        let own = post.sections.iter().find(|s| s.name == name).unwrap();
        assert_eq!(section(name).data().unwrap(), own.data, "{name}");
    }
}
