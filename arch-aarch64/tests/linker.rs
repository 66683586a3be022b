// SPDX-License-Identifier: GPL-2.0-or-later
//! The relocation table against an independent witness: GNU as makes a relocation of each type,
//! GNU ld puts the value in, and what `apply` makes of the object's word must be what ld made of
//! it; `recover` must find the symbol's value again, as far as the field tells it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up stops there and then")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use splice_arch_aarch64 as _;
use splice_core::arch::by_name;

const BASE: u64 = 0xffff_8000_0801_0000;

/// A relocation of each type that the table lists, but for R_AARCH64_NONE. The symbols: `far` is
/// any kernel address, `near` within 4 GiB, `m128`, `m1`, `k32` within the branches' ranges, `u…`
/// and `s…` are numbers of that size.
const ASSEMBLY: &str = "
    .text
    .xword far + 8
    .xword near - . + 4
    .word u32 + 1
    .word near31 - . + 4
    .hword u16
    .hword k32 - .
    movz x0, #:abs_g0:u16
    movk x0, #:abs_g0_nc:far
    movz x1, #:abs_g1:u32
    movk x1, #:abs_g1_nc:far
    movz x2, #:abs_g2:u48
    movk x2, #:abs_g2_nc:far
    movz x3, #:abs_g3:far
    movz x4, #:abs_g0_s:s17
    movz x5, #:abs_g1_s:s33
    movz x6, #:abs_g2_s:s49
    movz x7, #:prel_g0:k32
    movk x7, #:prel_g0_nc:near
    movz x8, #:prel_g1:near31
    movk x8, #:prel_g1_nc:near
    movz x9, #:prel_g2:near
    movk x9, #:prel_g2_nc:far
    movz x9, #:prel_g3:far
    ldr x10, m1
    adr x11, m1 + 3
    adrp x12, near + 0x123
    adrp x13, :pg_hi21_nc:near
    add x12, x12, :lo12:near + 0x123
    ldrb w14, [x12, :lo12:near + 5]
    ldrh w14, [x12, :lo12:near + 6]
    ldr w14, [x12, :lo12:near + 8]
    ldr x14, [x12, :lo12:near + 16]
    ldr q0, [x12, :lo12:near + 32]
    str x14, [x12, :lo12:near]
    tbnz x15, #33, k32
    b.ne m1
    cbz w16, m1
    b m128
    bl m128 + 4
    nop
";

/// Symbol values for one link.
struct Values {
    far: u64,
    near: u64,
    near31: u64,
    m128: u64,
    m1: u64,
    k32: u64,
    u16: u64,
    u32: u64,
    u48: u64,
    s17: u64,
    s33: u64,
    s49: u64,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| {
        panic_with(&format!(
            "{:?} cannot be started ({e}): install gcc-aarch64-linux-gnu, or run `make deps`",
            command.get_program()
        ))
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::panic, reason = "one clear line, and the test fails")]
fn panic_with(why: &str) -> ! {
    panic!("{why}")
}

fn link(dir: &Path, object: &Path, v: &Values) -> Vec<u8> {
    let image = dir.join("image");
    let mut ld = Command::new("aarch64-linux-gnu-ld");
    ld.args(["-static", "-nostdlib", "-e", "0", "-o"]).arg(&image);
    ld.arg(format!("-Ttext={BASE:#x}"));
    for (name, value) in [
        ("far", v.far),
        ("near", v.near),
        ("near31", v.near31),
        ("m128", v.m128),
        ("m1", v.m1),
        ("k32", v.k32),
        ("u16", v.u16),
        ("u32", v.u32),
        ("u48", v.u48),
        ("s17", v.s17),
        ("s33", v.s33),
        ("s49", v.s49),
    ] {
        ld.arg(format!("--defsym={name}={value:#x}"));
    }
    run(ld.arg(object));
    let bytes = std::fs::read(&image).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".text").unwrap();
    assert_eq!(section.address(), BASE);
    section.data().unwrap().to_vec()
}

fn values() -> Vec<Values> {
    let at = |distance: i64| BASE.wrapping_add_signed(distance);
    // far; near, near31, m128, m1, k32; unsigned, signed
    type Row = (u64, [i64; 5], u64, i64);
    let table: &[Row] = &[
        (0xffff_8000_0923_4568, [0x1234_5670, 0x123_4560, 0x12_3450, 0x1_2340, 0x400], 0x12, 0x7ff),
        (
            0xffff_fdff_dcba_9870,
            [-0x8000_0000, -0x7fff_0000, -0x7ff_0000, -0xf_0000, -0x7000],
            1,
            -1,
        ),
        (
            0x0000_0000_1234_5678,
            [0xf000_0ff0, 0x7ff0_0000, 0x7ff_0000, 0xf_0000, 0x7e00],
            0xfff0,
            -8,
        ),
        (0xffff_ffff_ffff_fff0, [-0xf000_0000, -0x10, -0x10, -0x10, -0x10], 0, 0),
        (0x8000_8000_8000_8000, [0x1000, 0x1000, 0x1000, 0x1000, 0x1000], 0x8000, -0x8000),
        (0x0001_0002_0003_0004, [0xff0, 0xffc, 0xffc, 0xffc, 0xffc], 0x7fff, 0xffff),
    ];
    table
        .iter()
        .map(|(far, [near, near31, m128, m1, k32], unsigned, signed)| Values {
            far: *far,
            near: at(*near),
            near31: at(*near31),
            m128: at(*m128),
            m1: at(*m1),
            k32: at(*k32),
            u16: *unsigned,
            u32: unsigned << 16 | 0xbeef,
            u48: unsigned << 32 | 0xdead_beef,
            s17: *signed as u64,
            s33: (*signed << 16) as u64,
            s49: (*signed << 32 | 0x1234) as u64,
        })
        .collect()
}

#[test]
fn apply_and_recover_agree_with_the_linker() {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("all.s"), dir.path().join("all.o"));
    std::fs::write(&source, ASSEMBLY).unwrap();
    run(Command::new("aarch64-linux-gnu-as").arg(&source).arg("-o").arg(&object));
    let bytes = std::fs::read(&object).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let section = file.section_by_name(".text").unwrap();
    let own = section.data().unwrap();
    let arch = by_name("aarch64").unwrap();
    let fixup = arch.reloc();
    let mut types = BTreeSet::new();
    let mut compared = 0;
    for v in values() {
        let linked = link(dir.path(), &object, &v);
        assert_eq!(linked.len(), own.len());
        for (offset, reloc) in section.relocations() {
            let RelocationFlags::Elf { r_type } = reloc.flags() else { continue };
            let RelocationTarget::Symbol(index) = reloc.target() else { continue };
            let name = file.symbol_by_index(index).unwrap().name().unwrap().to_owned();
            let s = match name.as_str() {
                "far" => v.far,
                "near" => v.near,
                "near31" => v.near31,
                "m128" => v.m128,
                "m1" => v.m1,
                "k32" => v.k32,
                "u16" => v.u16,
                "u32" => v.u32,
                "u48" => v.u48,
                "s17" => v.s17,
                "s33" => v.s33,
                "s49" => v.s49,
                other => panic_with(other),
            };
            let r_type = r_type.0;
            let row = fixup.describe(r_type).unwrap_or_else(|| panic_with(&format!("{r_type}")));
            types.insert(r_type);
            let (place, a) = (BASE + offset, reloc.addend());
            let range = offset as usize..offset as usize + usize::from(row.width);
            let mut field = own[range.clone()].to_vec();
            fixup
                .apply(r_type, s, a, place, &mut field)
                .unwrap_or_else(|e| panic_with(&format!("{} {name}={s:#x}: {e}", row.name)));
            let witness = &linked[range];
            assert_eq!(field, witness, "{} {name}={s:#x}+{a} at {place:#x}", row.name);
            // The inverse, from the linker's word.
            let back = fixup.recover(r_type, a, place, witness).unwrap();
            let told = fixup.recovered_bits(r_type);
            let relative = row.pc_relative && !matches!(r_type, 275 | 276);
            let bias = (a as u64).wrapping_sub(if relative { place } else { 0 });
            assert_eq!(
                back.wrapping_add(bias) & told,
                s.wrapping_add(bias) & told,
                "{} {name}={s:#x}: {back:#x}",
                row.name
            );
            assert_eq!(back.wrapping_add(bias) & !told, 0, "{}", row.name);
            compared += 1;
        }
    }
    // Every row of the table was met, but for those that store nothing.
    let listed: BTreeSet<u32> =
        (0..1024).filter(|t| fixup.describe(*t).is_some_and(|row| row.width > 0)).collect();
    assert_eq!(types, listed);
    assert!(compared >= types.len() * 6, "{compared}");
}
