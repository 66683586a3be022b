// SPDX-License-Identifier: GPL-2.0-or-later
//! Malformed transactions against the kernel side's own files, in a process with sanitizers
//! (`tests/kmod/transaction.c` says what must hold).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The files of the kernel side that decide; the others are about threads and sysfs.
const FILES: [&str; 5] = ["core", "change", "switch", "hooks", "text"];
const FLAGS: [&str; 10] = [
    "-std=gnu11",
    "-g",
    "-O1",
    "-Wall",
    "-Werror",
    // As the kernel is compiled.
    "-fwrapv",
    "-fno-strict-aliasing",
    "-Wno-unused",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];
const ROUNDS: &str = "50000";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every header of the kernel's that the files include, empty.
fn headers(kmod: &Path, place: &Path) {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(kmod).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let included = text.lines().filter_map(|line| line.strip_prefix("#include <"));
        names.extend(included.filter_map(|rest| Some(rest.split_once('>')?.0.to_owned())));
    }
    assert!(names.contains("linux/module.h"), "{names:?}");
    for name in names {
        let path = place.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
}

#[test]
fn malformed_transactions_are_refused_and_change_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (kmod, own) = (root.join("kmod"), root.join("tests/kmod"));
    let place = tempfile::tempdir().unwrap();
    let empty = place.path().join("include");
    headers(&kmod, &empty);
    let program = place.path().join("transaction");
    let files: Vec<PathBuf> = FILES.map(|name| kmod.join(format!("{name}.c"))).into();
    run(Command::new("gcc")
        .args(FLAGS)
        .arg("-include")
        .arg(own.join("shim.h"))
        .arg("-isystem")
        .arg(&empty)
        .arg("-I")
        .arg(&kmod)
        .args(files)
        .arg(own.join("transaction.c"))
        .arg("-o")
        .arg(&program));
    for seed in ["1", "2"] {
        let said = run(Command::new(&program).args([ROUNDS, seed]));
        println!("seed {seed}: {said}");
        // Each way to end was met, else nothing was tested.
        assert!(said.starts_with(&format!("{ROUNDS} rounds: ")), "{said}");
        for met in [" 0 parts", " 0 refused", " 0 switches", " 0 off", " 0 found", " 0 failed"] {
            assert!(!said.contains(met), "{said}");
        }
    }
}
