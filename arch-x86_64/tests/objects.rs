// SPDX-License-Identifier: GPL-2.0-or-later
//! Constants that an update replaces, held against what the linker placed: `ld` puts small units
//! at kernel addresses, `nm` says where, and single bytes of the result are changed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up stops there and then"
)]

mod common;

use std::process::Command;

use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::plan::plan;
use splice_core::runpre::{Refusal, Report, Snapshot, check};
use splice_core::unit::Unit;
use splice_core::update::{DataObject, Manifest, NeededSymbol, Place};

use common::{BASE, compile, manifest, run, snapshot};

/// `ops` is known from the code; `table` is not, and has a namesake that holds something else;
/// `same` has one that holds the same; only `ops` tells where `inner` is.
const ONE: &str = r#"
struct ops { int (*open)(int); const char *name; const int *inner; int flags; };
static __attribute__((noinline)) int open(int x) { return x * 3 + 1; }
static const int inner[2] = { 7, 9 };
static const struct ops ops = { open, "a name", inner, 5 };
static const int table[3] __attribute__((used)) = { 1, 2, 3 };
static const int same[3] __attribute__((used)) = { 4, 4, 4 };
const struct ops *first(void) { return &ops; }
int second(int x) { return open(x); }
"#;

const TWO: &str = r#"
static const int inner[2] __attribute__((used)) = { 7, 9 };
static const int table[3] __attribute__((used)) = { 1, 2, 4 };
static const int same[3] __attribute__((used)) = { 4, 4, 4 };
"#;

struct Linked {
    arch: &'static dyn Arch,
    pre: Unit,
    /// Everything from [`BASE`] on.
    image: Vec<u8>,
    symbols: String,
}

fn link() -> Linked {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (compile(dir.path(), "one", ONE), compile(dir.path(), "two", TWO));
    let (linked, flat) = (dir.path().join("linked"), dir.path().join("flat"));
    run(Command::new("ld")
        .args(["-static", "-nostdlib", "-e", "first", "-N", "-o"])
        .arg(&linked)
        .arg(format!("-Ttext={BASE:#x}"))
        .args([&one, &two]));
    run(Command::new("objcopy")
        .args(["-O", "binary", "-j", ".text", "-j", ".rodata"])
        .args([&linked, &flat]));
    let symbols = String::from_utf8(run(Command::new("nm").arg(&linked))).unwrap();
    let arch = by_name("x86_64").expect("registered");
    Linked {
        arch,
        pre: Unit::read(arch, "one.o", &std::fs::read(&one).unwrap()).unwrap(),
        image: std::fs::read(&flat).unwrap(),
        symbols: format!("{BASE:016x} T _stext\n{symbols}"),
    }
}

impl Linked {
    fn symbol(&self, name: &str) -> u32 {
        self.pre.symbols.iter().position(|s| s.name == name).expect(name) as u32
    }

    /// Where `nm` has a symbol: of several, those in the order of the units.
    fn at(&self, name: &str) -> Vec<u64> {
        let mut all: Vec<u64> = self
            .symbols
            .lines()
            .filter(|line| line.ends_with(&format!(" {name}")))
            .map(|line| u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap())
            .collect();
        all.sort_unstable();
        all
    }

    fn manifest(&self, objects: &[&str]) -> Manifest {
        let size = |name: &str| {
            self.pre.spans.iter().find(|s| s.name == name).expect("a span of that name").size
        };
        let objects = objects.iter().map(|name| DataObject {
            name: (*name).to_owned(),
            unit: 0,
            size: size(name),
            reasons: vec![],
            pre_symbol: self.symbol(name),
            new_link: format!("splice_data_0_{name}"),
        });
        manifest(vec![], objects.collect(), vec![])
    }

    fn snapshot(&self, image: Vec<u8>) -> Snapshot {
        snapshot(&self.symbols, image)
    }

    fn check(&self, manifest: &Manifest, image: Vec<u8>) -> Result<Report, Refusal> {
        check(self.arch, manifest, &[vec![self.pre.clone()]], &self.snapshot(image))
    }

    /// The image with one byte changed, `offset` bytes into what stands at `address`.
    fn flipped(&self, address: u64, offset: u64) -> Vec<u8> {
        let mut image = self.image.clone();
        image[(address + offset - BASE) as usize] ^= 0x10;
        image
    }
}

#[test]
fn an_object_is_found_and_its_bytes_are_expected() {
    let linked = link();
    let manifest = linked.manifest(&["table", "ops"]);
    let report = linked.check(&manifest, linked.image.clone()).unwrap();
    let objects = &report.targets[0].objects;
    // Only one of the namesakes holds what it should.
    assert_eq!(objects[0].address, linked.at("table")[0]);
    assert_eq!(objects[1].address, linked.at("ops")[0]);
    let pre = vec![vec![linked.pre.clone()]];
    let snapshot = linked.snapshot(linked.image.clone());
    let values = plan(linked.arch, &manifest, &pre, &report, &snapshot).unwrap();
    assert_eq!(values[0].symbols["splice_object_1"], linked.at("ops")[0]);
    let expected = &values[0].bytes["splice_contents_1"];
    // The linker has filled in the function's address.
    assert_eq!(expected[..8], linked.at("open")[0].to_le_bytes());
    assert_eq!(values[0].bytes["splice_contents_0"], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn what_an_object_refers_to_is_learned() {
    let linked = link();
    let mut manifest = linked.manifest(&["ops", "inner"]);
    manifest.targets[0].symbols.push(NeededSymbol {
        link: "splice_sym_0_inner".into(),
        name: "inner".into(),
        place: Place::Local { unit: 0, symbol: linked.symbol("inner") },
    });
    // Both objects of that name hold the same; the table says which it is.
    assert_eq!(linked.at("inner").len(), 2);
    let report = linked.check(&manifest, linked.image.clone()).unwrap();
    let inner = report.targets[0].symbols["splice_sym_0_inner"];
    assert_eq!(inner, report.targets[0].objects[1].address);
    let ops = linked.at("ops")[0];
    let from = (ops + 16 - BASE) as usize;
    assert_eq!(inner.to_le_bytes(), linked.image[from..from + 8]);
    // The order does not matter.
    linked.check(&linked.manifest(&["inner", "ops"]), linked.image.clone()).unwrap();
}

#[test]
fn what_nothing_tells_apart_is_refused() {
    let linked = link();
    let refusal = linked.check(&linked.manifest(&["same"]), linked.image.clone()).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::AmbiguousObject { addresses, .. } if addresses.len() == 2),
        "{refusal}"
    );
}

#[test]
fn every_byte_counts() {
    let linked = link();
    for name in ["ops", "table"] {
        let manifest = linked.manifest(&[name]);
        let address = linked.at(name)[0];
        for offset in 0..manifest.targets[0].objects[0].size {
            let refusal = linked.check(&manifest, linked.flipped(address, offset)).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Data(_) | Refusal::Disagree { .. }),
                "{name}+{offset:#x}: {refusal}"
            );
            assert!(refusal.to_string().contains(name), "{name}+{offset:#x}: {refusal}");
        }
    }
}

/// A reference to a string must lead to the string, wherever the linker has put it.
#[test]
fn another_string_is_noticed() {
    let linked = link();
    let at = linked.image.windows(7).position(|w| w == b"a name\0").unwrap();
    let image = linked.flipped(BASE, at as u64 + 2);
    let refusal = linked.check(&linked.manifest(&["ops"]), image).unwrap_err();
    assert!(refusal.to_string().contains("\"a name\""), "{refusal}");
}

#[test]
fn an_object_that_is_not_there_is_refused() {
    let mut linked = link();
    linked.symbols =
        linked.symbols.lines().filter(|l| !l.ends_with(" table")).collect::<Vec<_>>().join("\n");
    let refusal = linked.check(&linked.manifest(&["table"]), linked.image.clone()).unwrap_err();
    assert!(matches!(refusal, Refusal::NoObject { .. }), "{refusal}");
}
