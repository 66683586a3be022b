// SPDX-License-Identifier: GPL-2.0-or-later
//! A unit with a section for each object, and the same without: other code, the same things.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::path::Path;
use std::process::Command;

use splice_arch_aarch64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::diff::diff_units;
use splice_core::unit::{SymbolPlace, Unit};

const SOURCE: &str = "
static int counter, other;
static long lonely = 7;
int get(int step) { counter += step; return counter + other; }
void set(int value) { other = value; }
static __attribute__((noinline)) long helper(long x) { return x * lonely++; }
long call(long x) { static int twice; twice++; return helper(x) + helper(twice); }
long again(long x) { static int twice; twice += 2; return x + twice; }
";

fn arch() -> &'static dyn Arch {
    by_name("aarch64").expect("registered")
}

fn compile(place: &Path, name: &str, source: &str, flags: &[&str]) -> Unit {
    let (c, o) = (place.join("unit.c"), place.join(name));
    std::fs::write(&c, source).unwrap();
    let mut gcc = Command::new("aarch64-linux-gnu-gcc");
    gcc.args(["-O2", "-c", "-ffreestanding", "-fno-pic", "-fno-asynchronous-unwind-tables"]);
    gcc.arg("-ffunction-sections").args(flags).arg(&c).arg("-o").arg(&o);
    let output = gcc.output().unwrap_or_else(|e| panic!("{e}; `make deps` installs the compiler"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Unit::read(arch(), name, &std::fs::read(&o).unwrap()).unwrap()
}

/// The indexes of the defined symbols of a name.
fn indexes(unit: &Unit, name: &str) -> Vec<u32> {
    let defined = |place| matches!(place, SymbolPlace::Section(_));
    let all = unit.symbols.iter().enumerate().filter(|(_, s)| s.name == name && defined(s.place));
    all.map(|(index, _)| index as u32).collect()
}

#[test]
fn what_has_the_name_alone_is_found() {
    let place = tempfile::tempdir().unwrap();
    let split = compile(place.path(), "split.o", SOURCE, &["-fdata-sections"]);
    let built = compile(place.path(), "built.o", SOURCE, &[]);
    // That is why there are two.
    let diff = diff_units(arch(), &split, &built).unwrap();
    let changed: Vec<&str> =
        diff.changed.iter().map(|f| split.spans.get(f.pre).unwrap().name.as_str()).collect();
    assert!(changed.contains(&"get"), "{changed:?}");

    for name in ["counter", "other", "lonely", "get", "helper", "call"] {
        let [own] = indexes(&split, name)[..] else { panic!("{name} is not one symbol") };
        let [theirs] = indexes(&built, name)[..] else { panic!("{name} is not one symbol") };
        assert_eq!(split.counterpart(own, &built), Some(theirs), "{name}");
    }
    // A section's symbol is what fills it.
    for (section, name) in [(".bss.other", "other"), (".text.helper", "helper")] {
        let index = split.sections.iter().position(|s| s.name == section).unwrap();
        let symbol = split
            .symbols
            .iter()
            .position(|s| s.name.is_empty() && s.place == SymbolPlace::Section(index));
        let symbol = symbol.unwrap() as u32;
        assert_eq!(split.counterpart(symbol, &built), indexes(&built, name).first().copied());
    }
    // Where others are in it, too, it is nothing's.
    let bss = built.sections.iter().position(|s| s.name == ".bss").unwrap();
    let bss = built
        .symbols
        .iter()
        .position(|s| s.name.is_empty() && s.place == SymbolPlace::Section(bss));
    assert_eq!(built.counterpart(bss.unwrap() as u32, &split), None);
    assert_eq!(split.counterpart(u32::MAX, &built), None);
}

#[test]
fn what_has_another_size_is_not_found() {
    let place = tempfile::tempdir().unwrap();
    let split = compile(place.path(), "split.o", SOURCE, &["-fdata-sections"]);
    let grown =
        SOURCE.replace("static int counter, other;", "static int counter; static long other;");
    let grown = compile(place.path(), "grown.o", &grown, &[]);
    let [other] = indexes(&split, "other")[..] else { panic!("other is not one symbol") };
    assert_eq!(split.counterpart(other, &grown), None);
    // Local to two functions: told apart by the compiler's numbers, which are the same in both.
    let twice: Vec<&str> = split
        .symbols
        .iter()
        .map(|s| s.name.as_str())
        .filter(|name| name.starts_with("twice."))
        .collect();
    assert_eq!(twice.len(), 2);
    let built = compile(place.path(), "built.o", SOURCE, &[]);
    for name in twice {
        let [own] = indexes(&split, name)[..] else { panic!("{name} is not one symbol") };
        assert_eq!(split.counterpart(own, &built), indexes(&built, name).first().copied());
    }
}
