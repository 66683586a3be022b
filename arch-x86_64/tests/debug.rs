// SPDX-License-Identifier: GPL-2.0-or-later
//! Debug information of real compilers' objects: the layouts read are those that pahole reads, what
//! changed is told, what did not is not, and damaged input does no harm.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::debug::{Build, Layouts, Structure, examine, structures};
use splice_core::diff::{Inlined, UnitDiff, diff_units};
use splice_core::unit::Unit;

const COMPILERS: &[(&str, &str)] = &[
    ("gcc-12", "-gdwarf-5"),
    ("gcc-12", "-gdwarf-4"),
    ("clang", "-gdwarf-5"),
    ("clang", "-gdwarf-4"),
];

fn arch() -> &'static dyn Arch {
    by_name("x86_64").unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; see `make deps`"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn compile(
    dir: &Path,
    (cc, debug): (&str, &str),
    name: &str,
    source: &str,
    more: &[&str],
) -> PathBuf {
    let (file, object) = (dir.join("unit.c"), dir.join(format!("{name}.o")));
    std::fs::write(&file, source).unwrap();
    run(Command::new(cc)
        .current_dir(dir)
        .args(["-O2", "-fno-PIE", "-mcmodel=kernel", "-ffunction-sections", "-fdata-sections"])
        .args(["-fno-asynchronous-unwind-tables", "-c", "unit.c", debug, "-o"])
        .arg(&object)
        .args(more));
    object
}

/// What is said of the change from one text to another.
fn said(how: (&str, &str), pre: &str, post: &str) -> (Layouts, UnitDiff) {
    said_of(how, pre, post, &|_| false)
}

fn said_of(
    how: (&str, &str),
    pre: &str,
    post: &str,
    touched: &dyn Fn(&Inlined) -> bool,
) -> (Layouts, UnitDiff) {
    let dir = tempfile::tempdir().unwrap();
    let build = |name: &str, text: &str| {
        let bytes = std::fs::read(compile(dir.path(), how, name, text, &[])).unwrap();
        (Unit::read(arch(), name, &bytes).unwrap(), bytes)
    };
    let ((pre, x), (post, y)) = (build("pre", pre), build("post", post));
    let mut diff = diff_units(arch(), &pre, &post).unwrap();
    let layouts = examine(
        arch(),
        Build { unit: &pre, bytes: &x },
        Build { unit: &post, bytes: &y },
        touched,
        &mut diff,
    );
    (layouts, diff)
}

/// Refusals of `types` when they replace one another and a function changes as well.
fn refusals(how: (&str, &str), pre: &str, post: &str) -> Vec<(String, String)> {
    let unit = |types: &str, n: u32| {
        format!(
            "{types}\nvoid use(void *);\nint f(struct s *s) {{ use(&s->a); return s->a + {n}; }}\n"
        )
    };
    let (layouts, diff) = said(how, &unit(pre, 1), &unit(post, 2));
    assert_eq!(layouts, Layouts::Compared, "{how:?}");
    assert!(!diff.changed.is_empty());
    diff.refusals.into_iter().map(|r| (r.what, r.why)).collect()
}

#[test]
fn what_is_the_same_memory_is_no_matter() {
    let same: &[(&str, &str)] = &[
        // A new name; another type of the same width; what a pointer points to.
        ("struct s { int a; int old; };", "struct s { int a; int now; };"),
        ("struct s { int a; unsigned b; };", "struct s { int a; struct { int counter; } b; };"),
        ("struct s { int a; void *p; };", "struct s { int a; struct s *p; };"),
        // A new struct, one that is only pointed to, and one that nothing holds any more.
        (
            "struct o { int x; }; struct s { int a; struct q *p; };",
            "struct n { int x; }; struct s { int a; struct n *p; };",
        ),
        // Members that were put into a group, as `struct_group` of include/linux/stddef.h does.
        (
            "struct s { int a; short b, c; };",
            "struct s { int a; union { struct { short b, c; }; struct { short b, c; } g; }; };",
        ),
        // A name at the end, and the count behind it.
        (
            "enum e { A, B, E_MAX }; struct s { int a; enum e e; };",
            "enum e { A, B, C, E_MAX }; struct s { int a; enum e e; };",
        ),
    ];
    for how in COMPILERS {
        for (pre, post) in same {
            assert_eq!(refusals(*how, pre, post), [], "{how:?}: {post}");
        }
    }
}

#[test]
fn what_moved_grew_came_or_went_is_told() {
    // (before, after, who is named, words of the reason)
    let table: &[(&str, &str, &str, &[&str])] = &[
        (
            "struct s { int a; long b; };",
            "struct s { int a; long b; int c; };",
            "struct s",
            &["its size was 16 bytes, now 24 bytes", "c (4 bytes) is new at offset 16, beyond"],
        ),
        (
            "struct s { int a; long b; };",
            "struct s { int a; int c; long b; };",
            "struct s",
            &["c (4 bytes) is new at offset 4, which was padding"],
        ),
        (
            "struct s { int a; char b; };",
            "struct s { int a; char b; char c; };",
            "struct s",
            &["c (1 byte) is new at offset 5, which was padding"],
        ),
        (
            "struct s { int a, b; };",
            "struct s { int b, a; };",
            "struct s",
            &["a moved from offset 0 to offset 4", "b moved from offset 4 to offset 0"],
        ),
        (
            "struct s { int a; short b; };",
            "struct s { int a; int b; };",
            "struct s",
            &["b at offset 4 had 2 bytes, now 4 bytes"],
        ),
        (
            "struct s { int a; int b; };",
            "struct s { int a; short b[2]; };",
            "struct s",
            &["b at offset 4 is made of other members"],
        ),
        (
            "struct s { int a; unsigned b : 3, c : 5; };",
            "struct s { int a; unsigned b : 4, c : 5; };",
            "struct s",
            &[
                "b at offset 4 had 3 bits, now 4 bits",
                "c moved from offset 4 bit 3 to offset 4 bit 4",
            ],
        ),
        (
            "struct s { int a; int b; long c; };",
            "struct s { int a; long c; };",
            "struct s",
            &["b (4 bytes at offset 4) is gone"],
        ),
        (
            "struct s { int a; union { int b; }; };",
            "struct s { int a; union { int b; long c; }; };",
            "struct s",
            &["c (8 bytes) is new at offset 8, beyond its old end"],
        ),
        (
            "struct s { int a; struct { int b; } in[2]; };",
            "struct s { int a; struct { int b; int c; } in[2]; };",
            "struct s",
            &["in[].c (4 bytes) is new at offset 8", "in at offset 4 had 8 bytes, now 16 bytes"],
        ),
        // The one that changed is named, and those that hold it with it.
        (
            "typedef struct { int x; } t; struct s { int a; t t; }; struct o { struct s s[2]; }; \
             static struct o var; void *p = &var;",
            "typedef struct { int x, y; } t; struct s { int a; t t; }; struct o { struct s s[2]; }; \
             static struct o var; void *p = &var;",
            "typedef t",
            &["it is part of struct o, struct s", "this unit has variable var of it"],
        ),
        (
            "enum e { A, B, C }; struct s { int a; enum e e; };",
            "enum e { A, X, B, C }; struct s { int a; enum e e; };",
            "enum e",
            &["B was 1, now 2", "C was 2, now 3"],
        ),
        (
            "enum e { A = -1, B = 255 }; struct s { int a; enum e e; char c[255]; };",
            "enum e { A = 255, B = -1 }; struct s { int a; enum e e; char c[255]; };",
            "enum e",
            &["A was -1, now 255", "B was 255, now -1"],
        ),
        (
            "struct s { int a; char c[256]; };",
            "struct s { int a; char c[257]; };",
            "struct s",
            &["c at offset 4 had 256 bytes, now 257 bytes"],
        ),
        // A flag is no count.
        (
            "enum e { F1 = 1, F2 = 2, F3 = 4 }; struct s { int a; enum e e; };",
            "enum e { F1 = 1, F2 = 2, F3 = 8 }; struct s { int a; enum e e; };",
            "enum e",
            &["F3 was 4, now 8"],
        ),
    ];
    for how in COMPILERS {
        for (pre, post, name, words) in table {
            let mut refusals = refusals(*how, pre, post);
            // That a variable grew is told by itself.
            refusals.retain(|(what, _)| what != "var");
            let [(what, why)] = refusals.as_slice() else { panic!("{how:?} {post}: {refusals:?}") };
            assert_eq!(what, name, "{how:?}");
            for words in *words {
                assert!(why.contains(words), "{how:?} {post}: {why}");
            }
        }
    }
}

#[test]
fn one_of_two_types_of_a_name_is_told_from_the_other() {
    let unit = |types: &str, n: u32| {
        format!(
            "int use(void *);\nstruct a {{ int x; }};\n\
             int f(void) {{ struct t {{ int x; long y; }} t = {{ {n} }}; return use(&t); }}\n\
             int g(void) {{ {types} return use(&t); }}\n"
        )
    };
    for how in COMPILERS {
        let pre = unit("struct t { char c; } t = { 1 };", 1);
        let (_, same) = said(*how, &pre, &unit("struct t { char c; } t = { 1 };", 2));
        assert_eq!(same.refusals, [], "{how:?}");
        let (_, other) = said(*how, &pre, &unit("struct t { char c, d; } t = { 1 };", 1));
        let [refusal] = other.refusals.as_slice() else { panic!("{how:?}: {other:?}") };
        assert!(refusal.why.contains("its size was 1 byte, now 2 bytes"), "{}", refusal.why);
    }
}

#[test]
fn reasons_name_what_was_inlined() {
    let unit = |n: u32| {
        format!(
            "# 1 \"inner.h\"\nstatic inline int inner(int x) {{ int r; \
             __asm__ volatile (\"imull ${n}, %1, %0\" : \"=r\"(r) : \"r\"(x)); return r; }}\n\
             # 1 \"unit.c\"\nint other(int);\n\
             int f(int x) {{ return other(x) + inner(other(x + 1)); }}\n"
        )
    };
    for how in COMPILERS {
        for known in [false, true] {
            let (_, diff) = said_of(*how, &unit(7), &unit(11), &|f| known && f.name == "inner");
            let reasons: Vec<String> =
                diff.changed[0].reasons.iter().map(ToString::to_string).collect();
            let whole = "inlined inner from inner.h";
            assert!(reasons[0].contains(&format!(", in {whole}")), "{how:?}: {reasons:?}");
            assert_eq!(reasons.iter().any(|r| r == whole), known, "{how:?}: {reasons:?}");
        }
        // Its own code is nothing inlined.
        let own = unit(7).replace("x + 1", "x + 12");
        let (_, diff) = said(*how, &unit(7), &own);
        let text = format!("{:?}", diff.changed[0].reasons);
        assert!(!text.contains("inner.h"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let source = "struct s { int a; };\nint f(struct s *s) { return s->a; }\n";
    for (more, words) in [
        (&["-g0"][..], "has no debug information"),
        (&["-gz=zlib"][..], "compressed"),
        (&["-gz=zlib-gnu"][..], "compressed"),
        (&["-gsplit-dwarf"][..], "in another file"),
        (&["-fdebug-types-section"][..], "types"),
    ] {
        let object = compile(dir.path(), ("gcc-12", "-g"), "unit", source, more);
        let error = structures(arch(), "unit.o", &std::fs::read(object).unwrap()).err();
        if more == ["-fdebug-types-section"] || more == ["-gz=zlib-gnu"] {
            // Both are ways that a compiler may not take.
            assert!(error.is_none_or(|e| e.contains(words) || e.contains("several sections")));
            continue;
        }
        assert!(error.is_some_and(|e| e.contains(words)), "{more:?}");
    }
}

/// A declaration without attributes.
fn plain(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(from) = out.find("__attribute__") {
        let mut depth = 0;
        let end = out[from..].find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ')' && depth == 0
        });
        out.replace_range(from..=from + end.unwrap(), "");
    }
    out.trim().to_owned()
}

type Members = BTreeSet<(String, u64, u64)>;

/// Members by their last name, place and size in bits, as pahole prints them for each struct that
/// has a name.
fn pahole(object: &Path) -> BTreeMap<String, (u64, Members)> {
    let text = run(Command::new("pahole").args(["-F", "dwarf", "--sort"]).arg(object));
    let mut all = BTreeMap::new();
    let mut this = None;
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(" {").filter(|l| !l.starts_with(char::is_whitespace))
        {
            this = Some((name.to_owned(), BTreeSet::new()));
            continue;
        }
        let Some((name, members)) = &mut this else { continue };
        if let Some(size) = line.strip_prefix("\t/* size: ") {
            let size = size.split([',', ' ']).next().unwrap().parse().unwrap();
            all.insert(std::mem::take(name), (size, std::mem::take(members)));
            this = None;
            continue;
        }
        let Some((what, place)) = line.split_once("/*") else { continue };
        let (what, place) = (what.trim(), place.trim_end_matches("*/"));
        let numbers: Vec<u64> =
            place.split([' ', ':']).filter_map(|number| number.parse().ok()).collect();
        let Some(what) = what.split(';').next().filter(|_| what.contains(';')) else { continue };
        let what = plain(what);
        let (what, width) = match what.rsplit_once(':') {
            Some((what, width)) => (what, width.trim().parse::<u64>().ok()),
            None => (what.as_str(), None),
        };
        // `void (*name)(int)`, or `int name[2]`, or `} name`.
        let what = what.split_once("(*").map_or(what, |(_, rest)| rest);
        let what = what.split([')', '[']).next().unwrap();
        let last = what.trim().rsplit([' ', '*', '}']).next().unwrap();
        if last.is_empty() {
            continue;
        }
        let (at, bits) = match (numbers.as_slice(), width) {
            ([byte, bit, _], Some(width)) => (byte * 8 + bit, width),
            ([byte, size], None) => (byte * 8, size * 8),
            _ => panic!("{line}"),
        };
        members.insert((last.to_owned(), at, bits));
    }
    all
}

#[test]
fn layouts_are_those_that_pahole_reads() {
    // What the machine's own headers declare, and the forms that they may lack.
    let source = "#include <linux/if_tun.h>\n#include <linux/perf_event.h>\n#include <linux/tcp.h>\n\
        #include <linux/bpf.h>\n#include <linux/nl80211.h>\n#include <linux/videodev2.h>\n\
        #include <linux/kvm.h>\n#include <linux/io_uring.h>\n#include <linux/ethtool.h>\n\
        struct forms { char c; int (*call)(int); unsigned a : 3, : 2, b : 7; long long w : 40;\n\
         struct { short x; union { int u; char v[3]; }; } named, row[3]; struct forms *next;\n\
         int flex[]; } __attribute__((packed));\nstruct forms forms;\n";
    for how in COMPILERS {
        let dir = tempfile::tempdir().unwrap();
        let all = ["-fno-eliminate-unused-debug-types"];
        let object = compile(dir.path(), *how, "unit", source, &all);
        let ours = structures(arch(), "unit.o", &std::fs::read(&object).unwrap()).unwrap();
        let theirs = pahole(&object);
        let mut compared = 0;
        for Structure { name, size, members } in ours {
            if name.starts_with("typedef") {
                continue;
            }
            let Some((their_size, their_members)) = theirs.get(&name) else { continue };
            let members: Members = members
                .into_iter()
                .map(|(path, at, bits)| (path.rsplit('.').next().unwrap().to_owned(), at, bits))
                .collect();
            assert_eq!(size, *their_size, "{how:?}: {name}");
            // Of clang's objects pahole 1.24 prints a nested type once more, as if at the start.
            let mut odd: Vec<_> = members.difference(their_members).collect();
            if how.0 != "clang" {
                odd.extend(their_members.difference(&members));
            }
            assert!(odd.is_empty(), "{how:?}: {name}: {odd:?}");
            compared += 1;
        }
        assert!(compared > 200, "{how:?}: only {compared} were compared");
        assert!(theirs.contains_key("struct forms"));
    }
}

#[test]
fn damaged_debug_information_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let source = "enum e { A, B }; struct in { int a : 3; char c; };\n\
        struct s { int x; struct in in[2]; union { long l; enum e e; }; } var;\n\
        static inline int h(struct s *s) { return s->x * 3; }\n\
        int f(struct s *s) { return h(s) + s->in[1].a; }\n";
    for how in COMPILERS {
        let good = std::fs::read(compile(dir.path(), *how, "unit", source, &[])).unwrap();
        let pre = Unit::read(arch(), "unit.o", &good).unwrap();
        let other = source.replace("* 3", "* 5");
        let changed = std::fs::read(compile(dir.path(), *how, "post", &other, &[])).unwrap();
        let post = Unit::read(arch(), "unit.o", &changed).unwrap();
        let diff = diff_units(arch(), &pre, &post).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let sections = debug_sections(&good);
        for _ in 0..1000 {
            let mut bytes = good.clone();
            for _ in 0..=next(4) {
                let (from, len) = sections[next(sections.len())];
                let at = from + next(len);
                bytes[at] = match next(3) {
                    0 => 0xff,
                    1 => bytes[at] ^ (1 << next(8)),
                    _ => u8::try_from(next(256)).unwrap(),
                };
            }
            let _ = structures(arch(), "unit.o", &bytes);
            let (before, after) =
                (Build { unit: &pre, bytes: &bytes }, Build { unit: &post, bytes: &changed });
            let _ = examine(arch(), before, after, &|_| false, &mut diff.clone());
        }
        for length in (0..good.len()).step_by(97) {
            let _ = structures(arch(), "unit.o", &good[..length]);
        }
    }
}

/// Where the sections of an object that have to do with debug information are.
fn debug_sections(bytes: &[u8]) -> Vec<(usize, usize)> {
    use object::{Object, ObjectSection};
    let file = object::File::parse(bytes).unwrap();
    file.sections()
        .filter(|s| s.name().is_ok_and(|name| name.contains(".debug")))
        .filter_map(|s| s.file_range())
        .filter(|(_, len)| *len > 0)
        .map(|(from, len)| (usize::try_from(from).unwrap(), usize::try_from(len).unwrap()))
        .collect()
}
