// SPDX-License-Identifier: GPL-2.0-or-later
//! Every input that is kept goes through the function that its fuzz target runs: those that reach
//! much, and those that once found something.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is wrong")]

use std::fs;
use std::path::{Path, PathBuf};

/// Files of a folder beside this crate's manifest.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn all(folders: &[&str], run: fn(&[u8])) -> usize {
    let files: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder)).collect();
    for file in &files {
        // The name of the one that fails is in the test's output.
        println!("{}", file.display());
        run(&fs::read(file).unwrap());
    }
    files.len()
}

#[test]
fn the_reader_lives_through_all_that_is_kept() {
    let objects = all(&["seeds"], splice_fuzz::unit);
    assert!(objects > 14, "the seeds are missing");
    all(&["corpus/unit", "crashes/unit"], splice_fuzz::unit);
}

#[test]
fn the_differ_lives_through_all_that_is_kept() {
    let inputs = all(&["corpus/differ", "crashes/differ"], splice_fuzz::differ);
    assert!(inputs > 0, "the corpus is missing");
}

/// Their size is a claim that costs nothing, so to go through them may cost anything.
#[test]
fn what_can_only_be_understood_by_bytes_that_the_file_has_not_is_refused() {
    let arch = splice_core::arch::by_name("x86_64").unwrap();
    let named = |path: &PathBuf| path.display().to_string().contains("-without-bytes");
    let inputs: Vec<PathBuf> = files("crashes/unit").into_iter().filter(named).collect();
    assert_eq!(inputs.len(), 3);
    for path in inputs {
        let error = splice_core::unit::Unit::read(arch, "fuzz.o", &fs::read(&path).unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("has no bytes in the file"), "{}: {error}", path.display());
    }
}
