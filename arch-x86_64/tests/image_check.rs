// SPDX-License-Identifier: GPL-2.0-or-later
//! Run-pre against an image file: a small kernel that `ld` has linked, with the symbols that `nm` gives.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set itself up stops there and then"
)]

mod common;

use std::process::Command;

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, by_name};
use splice_core::runpre::{
    Kallsyms, Refusal, Snapshot, Survey, VMLINUX, check, read_image, survey,
};
use splice_core::unit::Unit;

use common::{compile, manifest, run, snapshot};

const UNIT: &str = r#"
extern int note(const char *, int);
int counter = 3;
int report(int x) { counter += x; return note("the number of things", x) + counter; }
int other(int x) { return x * 5 + counter; }
extern int early(int);
__attribute__((weak)) int chosen(int x) { return early(x) + 1; }
"#;
const REST: &str = r#"
const char linux_banner[] = "Linux version 6.1.0-test (me@here)";
int note(const char *s, int x) { return s[x]; }
__attribute__((noipa)) int early(int x) { return x * 3; }
__attribute__((noipa)) int late(int x) { return x * 7; }
int chosen(int x) { return late(x) + 1; }
"#;
const SCRIPT: &str = "SECTIONS {
    . = 0xffffffff81000000;
    _stext = .;
    .text : { *(.text*) }
    _etext = .;
    . = ALIGN(4096);
    .rodata : { *(.rodata*) }
    . = ALIGN(4096);
    .data : { *(.data*) }
}";

struct Linked {
    arch: &'static dyn Arch,
    unit: Unit,
    image: Vec<u8>,
    symbols: String,
}

fn link() -> Linked {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (compile(dir.path(), "one", UNIT), compile(dir.path(), "two", REST));
    let (script, image) = (dir.path().join("script"), dir.path().join("vmlinux"));
    std::fs::write(&script, SCRIPT).unwrap();
    let mut ld = Command::new("ld");
    ld.args(["-static", "-nostdlib", "-e", "report", "-T"]).arg(&script).arg("-o").arg(&image);
    run(ld.args([&one, &two]));
    let arch = by_name("x86_64").expect("registered");
    Linked {
        arch,
        unit: Unit::read(arch, "one.o", &std::fs::read(&one).unwrap()).unwrap(),
        symbols: String::from_utf8(run(Command::new("nm").arg(&image))).unwrap(),
        image: std::fs::read(&image).unwrap(),
    }
}

impl Linked {
    fn read(&self, image: Vec<u8>) -> Snapshot {
        let symbols = Kallsyms::parse(self.symbols.clone()).unwrap();
        read_image(self.arch, image, Some(symbols)).expect("a kernel")
    }

    fn survey(&self, image: Vec<u8>) -> Survey {
        survey(self.arch, &self.unit, VMLINUX, &self.read(image)).unwrap()
    }

    /// Address and size of the text, and its place in the file.
    fn text(&self) -> (u64, usize, usize) {
        let file = ElfFile64::<object::Endianness>::parse(&*self.image).unwrap();
        let endian = file.endian();
        let parts = file.elf_header().program_headers(endian, &*self.image).unwrap();
        let all = Kallsyms::parse(self.symbols.clone()).unwrap();
        let address = |name| all.named(name).next().unwrap().address;
        let (start, end) = (address("_stext"), address("_etext"));
        let part = parts.iter().find(|p| p.p_vaddr(endian) <= start).unwrap();
        let offset = part.p_offset(endian) + start - part.p_vaddr(endian);
        (start, (end - start) as usize, offset as usize)
    }
}

#[test]
fn an_images_functions_are_proven() {
    let linked = link();
    let survey = linked.survey(linked.image.clone());
    let names: Vec<&str> = survey.functions().iter().map(|f| f.function.as_str()).collect();
    assert_eq!(names, ["report", "other"]);
    // The weak one has the bytes of the one that stands there, but leads elsewhere.
    assert!(survey.foreign().is_empty(), "{:?}", survey.foreign());
}

#[test]
fn every_flipped_bit_of_a_function_is_found() {
    let linked = link();
    let good = linked.survey(linked.image.clone());
    let (start, _, offset) = linked.text();
    let mut bits = 0;
    for function in good.functions() {
        let from = offset + (function.address - start) as usize;
        for bit in from * 8..(from + function.size as usize) * 8 {
            let mut image = linked.image.clone();
            image[bit / 8] ^= 1 << (bit % 8);
            let survey = linked.survey(image);
            let proven = survey.functions().iter().any(|f| f.function == function.function);
            let at = bit / 8 - from;
            assert!(!proven, "bit {} of byte {at:#x} of {}", bit % 8, function.function);
            bits += 1;
        }
    }
    assert!(bits > 200, "only {bits} bits were flipped");
}

#[test]
fn a_dump_without_the_strings_leaves_them_uncompared_and_an_image_does_not() {
    let linked = link();
    let (start, len, offset) = linked.text();
    let report = linked.survey(linked.image.clone()).functions()[0].address;
    // mov $string,%edi sign-extended: beyond everything if its highest bit but one is another.
    let text = &linked.image[offset..offset + len];
    let string = linked.image.windows(10).position(|w| w == b"the number").unwrap();
    let field = {
        let file = ElfFile64::<object::Endianness>::parse(&*linked.image).unwrap();
        let endian = file.endian();
        let parts = file.elf_header().program_headers(endian, &*linked.image).unwrap();
        let holds = |p: &&object::elf::ProgramHeader64<object::Endianness>| {
            let begin = p.p_offset(endian) as usize;
            (begin..begin + p.p_filesz(endian) as usize).contains(&string)
        };
        let part = parts.iter().find(holds).unwrap();
        let address = part.p_vaddr(endian) + string as u64 - part.p_offset(endian);
        text.windows(4).position(|w| w == (address as u32).to_le_bytes()).unwrap()
    };
    let mut image = linked.image.clone();
    image[offset + field + 3] ^= 0x40;
    let dump = snapshot(&linked.symbols, image[offset..offset + len].to_vec());
    let found = survey(linked.arch, &linked.unit, VMLINUX, &dump).unwrap();
    assert!(found.functions().iter().any(|f| f.address == report), "{:?}", found.foreign());
    assert_eq!(start, common::BASE);
    let found = linked.survey(image);
    assert_eq!(found.foreign().len(), 1);
    assert!(found.foreign()[0].why.contains("the image has nothing"), "{:?}", found.foreign());
}

#[test]
fn an_image_of_another_release_is_refused() {
    let linked = link();
    let check = |image: Vec<u8>| {
        let unit = Unit::read(linked.arch, "one.o", &compiled()).unwrap();
        check(linked.arch, &manifest(vec![], vec![], vec![]), &[vec![unit]], &linked.read(image))
    };
    let report = check(linked.image.clone()).expect("it fits");
    assert_eq!(report.proven(), 2);
    let mut other = linked.image.clone();
    let at = other.windows(10).position(|w| w == b"6.1.0-test").unwrap();
    other[at + 4] = b'1';
    let refusal = check(other).unwrap_err();
    assert!(matches!(&refusal, Refusal::Release { running, .. } if running == "6.1.1-test"));
}

fn compiled() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::read(compile(dir.path(), "one", UNIT)).unwrap()
}
