// SPDX-License-Identifier: GPL-2.0-or-later
//! The backend against an independent witness: GNU as makes a relocation of each type, GNU ld puts
//! the value in, and what `apply` makes of the object's word must be what ld made of it; objdump
//! says where instructions begin and what a trampoline means.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget};
use splice_plugin_abi::arch::{
    Arch, Code, CodeReloc, FunctionDiff, KernelView, RelocationFixup, RunCode, RunMatch,
    TrampolineEncoder,
};
use splice_plugin_riscv64::Riscv64;

const BASE: u64 = 0xffff_ffff_8020_0000;

/// A relocation of each type that the table lists and that stands alone, but for those that store
/// nothing. `far` is any kernel address within 2 GiB, `k4`, `m1`, `b256` and `c2` are within the
/// branches' ranges, `u32` and `s32` numbers of that size. Nothing is added to what is subtracted:
/// the psABI and the kernel subtract S + A, GNU ld 2.40 subtracts S and adds A; as makes no such.
const ASSEMBLY: &str = "
    .option norelax
    .text
    .reloc ., R_RISCV_32, u32 + 1
    .word 0
    .reloc ., R_RISCV_64, far + 8
    .dword 0
    .reloc ., R_RISCV_32_PCREL, far + 4
    .word 0
    .reloc ., R_RISCV_ADD8, u32 + 3
    .byte 0x11
    .reloc ., R_RISCV_SUB8, u32
    .byte 0x11
    .reloc ., R_RISCV_ADD16, u32 + 3
    .half 0x1111
    .reloc ., R_RISCV_SUB16, u32
    .half 0x1111
    .reloc ., R_RISCV_SET8, u32 + 1
    .byte 0
    .reloc ., R_RISCV_SET6, u32 + 1
    .byte 0xc0
    .reloc ., R_RISCV_SET16, u32 + 1
    .half 0
    .reloc ., R_RISCV_ADD32, far
    .reloc ., R_RISCV_SUB32, m1
    .word 7
    .reloc ., R_RISCV_SET32, u32
    .word 0
    .reloc ., R_RISCV_ADD64, far
    .reloc ., R_RISCV_SUB64, m1
    .dword 9
    .option norvc
    .reloc ., R_RISCV_BRANCH, k4
    .word 0x00b50063
    jal ra, m1
    .reloc ., R_RISCV_RVC_BRANCH, b256
    .half 0xc101
    .reloc ., R_RISCV_RVC_JUMP, c2
    .half 0xa001
    call far
    call far@plt
    .reloc ., R_RISCV_CALL, far + 2
    auipc t1, 0
    jalr zero, 0(t1)
    .reloc ., R_RISCV_PCREL_HI20, far + 6
    auipc a2, 0
    lui a3, %hi(s32 + 0x800)
    addi a3, a3, %lo(s32 + 0x800)
    sd a3, %lo(s32 + 4)(a3)
    nop
";

fn tool(name: &str) -> Command {
    Command::new(format!("riscv64-linux-gnu-{name}"))
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => panic!("{}: {e}; `make deps` installs it", command.get_program().display()),
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn assemble(dir: &Path, source: &str) -> Vec<u8> {
    let (s, o) = (dir.join("t.s"), dir.join("t.o"));
    std::fs::write(&s, source).unwrap();
    run(tool("as").args(["-march=rv64imac", "-mabi=lp64"]).arg(&s).arg("-o").arg(&o));
    std::fs::read(&o).unwrap()
}

/// Text of the object of that source, linked at [`BASE`] with those symbols.
fn link(dir: &Path, symbols: &[(&str, u64)]) -> Vec<u8> {
    let image = dir.join("image");
    let defined = symbols.iter().map(|(name, value)| format!("--defsym={name}={value:#x}"));
    run(tool("ld")
        .args(["--no-relax", "-static", "-nostdlib", "-e", "0"])
        .arg(format!("-Ttext={BASE:#x}"))
        .args(defined)
        .arg(dir.join("t.o"))
        .arg("-o")
        .arg(&image));
    let bytes = std::fs::read(&image).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    assert_eq!(text.address(), BASE);
    text.data().unwrap().to_vec()
}

struct Reloc {
    offset: u64,
    r_type: u32,
    symbol: String,
    key: u32,
    addend: i64,
    inside: Option<u64>,
}

/// The text of an object and its relocations.
fn text(object: &[u8]) -> (Vec<u8>, Vec<Reloc>) {
    let file = object::File::parse(object).unwrap();
    let section = file.section_by_name(".text").unwrap();
    let relocs = section.relocations().map(|(offset, r)| {
        let RelocationFlags::Elf { r_type } = r.flags() else { panic!("no ELF") };
        let r_type = r_type.0;
        let (mut symbol, mut key, mut inside) = (String::new(), 0, None);
        if let RelocationTarget::Symbol(index) = r.target() {
            let found = file.symbol_by_index(index).unwrap();
            symbol = found.name().unwrap().to_owned();
            key = index.0 as u32;
            inside = (found.section_index() == Some(section.index())).then(|| found.address());
        }
        Reloc { offset, r_type, symbol, key, addend: r.addend(), inside }
    });
    (section.data().unwrap().to_vec(), relocs.collect())
}

#[test]
fn apply_and_recover_agree_with_the_linker() {
    let dir = tempfile::tempdir().unwrap();
    let (words, relocs) = text(&assemble(dir.path(), ASSEMBLY));
    // (far, k4, m1, b256, c2, u32, s32), relative to BASE where they are places
    let rounds: [[u64; 7]; 4] = [
        [0x1234_5678, 0x800, 0x4_0000, 0x80, 0x400, 0x8765_4321, 0x7fff_e7fe],
        [0x7fff_f000, 0xffe, 0xf_fffe, 0xf0, 0x7fe, 0xffff_fffe, 0x800],
        [0x7ff, 0, 0, 0x60, 0, 0, 0x7ff],
        [(-0x7fff_f000i64) as u64, 0x20, (-0xf_0000i64) as u64, 0x40, 0x10, 1, 0x1234_5ffa],
    ];
    let mut seen = BTreeSet::new();
    for [far, k4, m1, b256, c2, u32, s32] in rounds {
        let place = |offset: u64| BASE.wrapping_add(offset) & !1;
        let symbols = [
            ("far", place(far)),
            ("k4", place(k4)),
            ("m1", place(m1)),
            ("b256", place(b256)),
            ("c2", place(c2)),
            ("u32", u32),
            ("s32", s32),
        ];
        let linked = link(dir.path(), &symbols);
        let mut mine = words.clone();
        for r in &relocs {
            seen.insert(r.r_type);
            let info = Riscv64.describe(r.r_type).unwrap();
            let value = symbols.iter().find(|s| s.0 == r.symbol).unwrap().1;
            let at = r.offset as usize;
            let field = &mut mine[at..at + usize::from(info.width)];
            let result = Riscv64.apply(r.r_type, value, r.addend, BASE + r.offset, field);
            assert_eq!(result, Ok(()), "{} of {}", info.name, r.symbol);
            let bits = Riscv64.recovered_bits(r.r_type);
            if bits != 0 {
                let got = Riscv64.recover(r.r_type, r.addend, BASE + r.offset, field).unwrap();
                let sum = |s: u64| s.wrapping_add_signed(r.addend) & bits;
                assert_eq!(sum(got), sum(value), "{}", info.name);
            }
        }
        for (at, (mine, theirs)) in mine.iter().zip(&linked).enumerate() {
            assert_eq!(mine, theirs, "byte {at:#x} with far = {far:#x}");
        }
    }
    // What is left out stores nothing, or is tested below.
    let listed = (0..300).filter(|t| Riscv64.describe(*t).is_some_and(|r| r.width > 0));
    let missed: Vec<u32> = listed.filter(|t| !seen.contains(t)).collect();
    assert_eq!(missed, [24, 25], "types of the table that were not tried");
}

/// A kernel of which nothing is known.
struct Nothing;

impl KernelView for Nothing {
    fn addresses(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }
    fn is_function(&self, _: u64) -> bool {
        false
    }
    fn is_text(&self, _: u64) -> bool {
        false
    }
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

const PAIRS: &str = "
    .text
f:  la a0, data
    lw a1, data + 0x804
    sw a1, other, t0
1:  auipc a2, %pcrel_hi(other + 8)
    beqz a1, 2f
    ld a3, %pcrel_lo(1b)(a2)
2:  sd a3, %pcrel_lo(1b)(a2)
    tail there
    .option norelax
    bnez a1, 1b
    j 2b
";

#[test]
fn pairs_are_read_as_the_linker_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let (words, relocs) = text(&assemble(dir.path(), PAIRS));
    let relocs: Vec<CodeReloc<'_>> = relocs
        .iter()
        .map(|r| CodeReloc {
            offset: r.offset,
            r_type: r.r_type,
            symbol: &r.symbol,
            key: r.key,
            addend: r.addend,
            inside: r.inside,
        })
        .collect();
    assert!([23, 24, 25].iter().all(|t| relocs.iter().any(|r| r.r_type == *t)));
    let code = Code { name: "f", bytes: &words, relocs: &relocs, entries: &[] };
    for far in [0x1000u64, 0x1234_57fe, 0x7fff_0800, (-0x7000_0808i64) as u64] {
        let at = |n: u64| BASE.wrapping_add(far).wrapping_add(n);
        let symbols = [("data", at(0)), ("other", at(0x7fc)), ("there", at(0x40))];
        let linked = link(dir.path(), &symbols);
        let run = RunCode { address: BASE, bytes: &linked, section: None };
        let answer = Riscv64.match_running(&code, &run, &Nothing).unwrap();
        let RunMatch::Matched { learned, partial, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(partial, []);
        let mut named = BTreeSet::new();
        for l in &learned {
            let r = relocs.iter().find(|r| r.key == l.key && r.offset == l.offset).unwrap();
            let want = symbols.iter().find(|s| s.0 == r.symbol).map(|s| s.1);
            let want = want.or(r.inside.map(|inside| BASE + inside)).unwrap();
            assert_eq!(l.value, want, "{} with {far:#x}", r.symbol);
            named.insert(r.symbol);
        }
        assert!(symbols.iter().all(|s| named.contains(s.0)), "{named:?}");
        // Every flipped bit is noticed: refused, or taught as another value.
        let taught: Vec<_> = learned.iter().map(|l| (l.key, l.value)).collect();
        for bit in 0..linked.len() * 8 {
            let mut flipped = linked.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let run = RunCode { address: BASE, bytes: &flipped, section: None };
            if let RunMatch::Matched { learned, .. } =
                Riscv64.match_running(&code, &run, &Nothing).unwrap()
            {
                let now: Vec<_> = learned.iter().map(|l| (l.key, l.value)).collect();
                assert_ne!(now, taught, "bit {bit} went unnoticed");
            }
        }
    }
}

/// objdump's lines for some bytes: offset, length, text.
fn objdump(dir: &Path, bytes: &[u8]) -> Vec<(u64, usize, String)> {
    let file = dir.join("raw");
    std::fs::write(&file, bytes).unwrap();
    let out = run(tool("objdump")
        .args(["-D", "-b", "binary", "-m", "riscv:rv64", "-M", "no-aliases"])
        .arg(&file));
    let lines = String::from_utf8(out).unwrap();
    let parse = |line: &str| {
        let (at, rest) = line.trim().split_once(":\t")?;
        let (bytes, text) = rest.split_once('\t')?;
        let at = u64::from_str_radix(at, 16).ok()?;
        Some((at, bytes.trim().len() / 2, text.replace('\t', " ")))
    };
    lines.lines().filter_map(parse).collect()
}

#[test]
fn instructions_begin_where_objdump_says() {
    let dir = tempfile::tempdir().unwrap();
    let (c, o) = (dir.path().join("t.c"), dir.path().join("t.o"));
    let source = "extern long g(long, long);\n\
        long f(long *a, int n) { long s = 0; for (int i = 0; i < n; i++) s += g(a[i], s) * 3;\n\
        switch (s & 7) { case 0: return g(1, 2); case 3: return 77; case 5: return s / 3; }\n\
        __atomic_fetch_add(a, s, __ATOMIC_SEQ_CST); return s; }";
    std::fs::write(&c, source).unwrap();
    run(tool("gcc").args(["-O2", "-c", "-march=rv64imac", "-mabi=lp64"]).arg(&c).arg("-o").arg(&o));
    let (bytes, _) = text(&std::fs::read(&o).unwrap());
    let theirs = objdump(dir.path(), &bytes);
    let lines = Riscv64.disassemble(&bytes, 0, usize::MAX);
    assert_eq!(lines.len(), theirs.len());
    let mut at = 0;
    for ((offset, len, text), mine) in theirs.iter().zip(&lines) {
        assert_eq!(*offset, at, "{mine} / {text}");
        at += *len as u64;
        // Where both name the instruction, they name the same one.
        let word = |s: &str| s.split(' ').next().unwrap_or_default().to_owned();
        if !mine.starts_with('.') && !mine.starts_with("nop") {
            assert_eq!(word(mine), word(text), "at {offset:#x}");
        }
    }
}

#[test]
fn the_trampoline_is_what_objdump_reads() {
    let dir = tempfile::tempdir().unwrap();
    let template = Riscv64.trampoline().template();
    let lines = objdump(dir.path(), &template.bytes);
    assert_eq!(lines[0].2, "auipc t2,0x0");
    assert!(lines[1].2.starts_with("jalr zero,0(t2)"), "{}", lines[1].2);
    // A far jump that the assembler and the linker made is recognised as leading there.
    assemble(dir.path(), "    .option norelax\n    .text\n    jump there, t2\n");
    for distance in [0x7feu64, 0x800, 0x7fff_f000, (-0x7fff_f802i64) as u64] {
        let there = BASE.wrapping_add(distance);
        let linked = link(dir.path(), &[("there", there)]);
        assert_eq!(Riscv64.recognise(&linked, BASE), Some(there));
        let mut mine = template.bytes.clone();
        Riscv64.apply(19, there, 0, BASE, &mut mine).unwrap();
        assert_eq!(mine, linked);
    }
}

#[test]
fn code_ends_where_a_processor_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let ends = |source: &str| {
        let (bytes, _) = text(&assemble(dir.path(), &format!(".option norelax\n{source}\n")));
        let code = Code { name: "f", bytes: &bytes, relocs: &[], entries: &[] };
        !Riscv64.diff().runs_on(&code)
    };
    for last in [
        "j 1f; 1:",
        ".option norvc; j 1f; 1:",
        "jal ra, 1f; 1:",
        "ret",
        ".option norvc; ret",
        "jr a5",
        "jalr a5",
        ".option norvc; jalr a5",
        "ebreak",
        ".option norvc; ebreak",
        "sret",
        "unimp",
        "ret; nop; .option norvc; nop",
    ] {
        assert!(ends(last), "{last}");
    }
    for last in [
        "",
        "nop",
        "li a0, 1",
        "beqz a0, 1f; 1:",
        ".option norvc; beqz a0, 1f; 1:",
        "ret; li a0, 1",
        "mv a0, a1",
        "add a0, a0, a1",
        "ecall",
        "wfi",
        "ld a0, 0(sp)",
    ] {
        assert!(!ends(last), "{last}");
    }
}
