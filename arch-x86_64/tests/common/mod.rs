// SPDX-License-Identifier: GPL-2.0-or-later
//! A small kernel of two units, for the tests of run-pre: how it is compiled, its snapshot, and the
//! manifest of an update of its first unit.

use std::path::{Path, PathBuf};
use std::process::Command;

use splice_core::runpre::{Kallsyms, RawDump, Snapshot};
use splice_core::update::{
    CoreModule, DataObject, FORMAT, Function, Manifest, NeededSymbol, Target, UnitEntry,
};

/// Where its text starts.
pub(crate) const BASE: u64 = 0xffff_ffff_8100_0000;

pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("gcc and the binutils are needed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn compile(dir: &Path, name: &str, source: &str) -> PathBuf {
    let (c, o) = (dir.join(format!("{name}.c")), dir.join(format!("{name}.o")));
    std::fs::write(&c, source).unwrap();
    let flags = "-O2 -c -mcmodel=kernel -fno-pic -fno-pie -ffreestanding -fcf-protection=none \
                 -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections";
    run(Command::new("gcc").args(flags.split_whitespace()).arg(&c).arg("-o").arg(&o));
    o
}

/// Of memory that starts at [`BASE`].
pub(crate) fn snapshot(symbols: &str, memory: Vec<u8>) -> Snapshot {
    let symbols = Kallsyms::parse(symbols.to_owned()).unwrap();
    Snapshot::new(None, symbols, Box::new(RawDump::new(BASE, memory)))
}

pub(crate) fn manifest(
    functions: Vec<Function>,
    objects: Vec<DataObject>,
    symbols: Vec<NeededSymbol>,
) -> Manifest {
    Manifest {
        version: FORMAT,
        stacked: false,
        id: "test".into(),
        description: String::new(),
        arch: "x86_64".into(),
        release: "6.1.0-test".into(),
        compiler: String::new(),
        core: CoreModule { file: "splice.ko".into(), abi: 2, symbols: vec![] },
        targets: vec![Target {
            name: "vmlinux".into(),
            module: "splice_test.ko".into(),
            module_name: "splice_test".into(),
            units: vec![UnitEntry { name: "one.o".into(), pre: "pre/one.o".into() }],
            functions,
            objects,
            hooks: vec![],
            shadows: vec![],
            symbols,
        }],
        files: vec![],
    }
}
