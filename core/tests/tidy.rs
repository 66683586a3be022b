// SPDX-License-Identifier: GPL-2.0-or-later
//! Rules about the tree itself: the engine names no architecture, and each source file says its
//! licence.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the tree stops there and then")]

use std::fs;
use std::path::{Path, PathBuf};

fn files(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|e| name.ends_with(e)) {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn the_engine_names_no_architecture() {
    const WORDS: [&str; 17] = [
        "x86",
        "amd64",
        "i386",
        "aarch64",
        "arm64",
        "riscv",
        "s390",
        "powerpc",
        "r_x86",
        "r_aarch64",
        "r_riscv",
        "iced",
        "yaxpeax",
        "endbr",
        "rip-relative",
        "em_x86",
        "fentry",
    ];
    let mut sources = Vec::new();
    files(&root().join("core/src"), &[".rs"], &mut sources);
    assert!(sources.len() > 20, "the engine's sources were not found");
    let mut wrong = Vec::new();
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            if let Some(word) = WORDS.iter().find(|w| begins_a_word(&lower, w)) {
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `word` stands in `line` other than inside a longer word ("noticed").
fn begins_a_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line.get(..at).is_some_and(|b| b.ends_with(char::is_alphabetic)))
}

#[test]
fn words_are_found_at_their_beginning_only() {
    assert!(begins_a_word("see iced_x86", "iced"));
    assert!(begins_a_word("r_x86_64", "x86"));
    assert!(begins_a_word("unnoticed by iced", "iced"));
    assert!(!begins_a_word("it went unnoticed", "iced"));
}

#[test]
fn every_source_names_its_licence() {
    let root = root();
    let mut sources = Vec::new();
    files(&root, &[".rs", ".c", ".h"], &mut sources);
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let in_kernel = path.starts_with(root.join("kmod"));
        let licence = if in_kernel { "GPL-2.0-only" } else { "GPL-2.0-or-later" };
        assert!(
            first.contains(&format!("SPDX-License-Identifier: {licence}")),
            "{} does not begin with its licence ({licence})",
            path.display()
        );
    }
}
