// SPDX-License-Identifier: GPL-2.0-or-later
//! The command as its users see it: exit codes, words, JSON. No kernel and no package is needed; what
//! needs them is in the lab.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is wrong"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `splice` with a cache of its own.
fn splice(cache: &Path, words: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("splice"))
        .args(words)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Compiles C as the kernel is compiled.
fn compile(directory: &Path, name: &str, source: &str) -> String {
    let from = directory.join("unit.c");
    let to = directory.join(name);
    std::fs::write(&from, source).unwrap();
    let done = Command::new("gcc")
        .args(["-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pie", "-mno-red-zone"])
        .args(["-mcmodel=kernel", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-o"])
        .arg(&to)
        .arg(&from)
        .status()
        .unwrap();
    assert!(done.success());
    to.to_str().unwrap().to_owned()
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let cache = tempfile::tempdir().unwrap();
    for words in [&["frobnicate"][..], &["create"], &["--arch", "vax", "diff", "a", "b"]] {
        assert_eq!(splice(cache.path(), words).status.code(), Some(2), "{words:?}");
    }
    let help = splice(cache.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for word in ["prepare", "create", "check", "apply", "undo", "Exit codes"] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn diff_tells_changed_unchanged_and_refused_apart() {
    let dir = tempfile::tempdir().unwrap();
    let before = "int limit = 1; int f(int x) { return x + 3; } int g(int x) { return f(x) * 7; }";
    let pre = compile(dir.path(), "pre.o", before);
    let same = compile(dir.path(), "same.o", &format!("/* a comment */\n\n{before}"));
    let changed = compile(dir.path(), "changed.o", &before.replace("* 7", "* 9"));
    let refused = compile(dir.path(), "refused.o", &before.replace("limit = 1", "limit = 2"));
    let diff = |post: &str| {
        let words = ["--arch", "x86_64", "--format", "json", "diff", &pre, post];
        let output = splice(dir.path(), &words);
        (output.status.code(), json(&output))
    };

    let (code, report) = diff(&changed);
    assert_eq!((code, &report["verdict"]), (Some(0), &"changed".into()));
    assert_eq!(report["version"], 1);
    assert_eq!(report["functions"]["changed"][0]["name"], "g");
    assert_eq!(report["functions"]["changed"].as_array().unwrap().len(), 1);
    let (code, report) = diff(&same);
    assert_eq!((code, &report["verdict"]), (Some(3), &"unchanged".into()));
    let (code, report) = diff(&refused);
    assert_eq!((code, &report["verdict"]), (Some(4), &"refused".into()));
    assert!(report["refusals"][0]["what"].as_str().unwrap().contains("limit"), "{report}");
}

#[test]
fn another_compiler_is_refused_and_both_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("Makefile"), "all:\n").unwrap();
    let config = dir.path().join("config");
    let wanted = "gcc (Nobody 1.2.3-4) 1.2.3";
    std::fs::write(&config, format!("CONFIG_CC_VERSION_TEXT=\"{wanted}\"\n")).unwrap();
    let words = [
        "prepare",
        "--release",
        "9.9.9-test",
        "--source",
        source.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ];
    let output = splice(dir.path(), &words);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let here = Command::new("gcc").arg("--version").env("LC_ALL", "C").output().unwrap();
    let here = String::from_utf8_lossy(&here.stdout).lines().next().unwrap().to_owned();
    assert!(said.contains(wanted) && said.contains(&here), "{said}");
    assert!(said.contains("--any-compiler"), "{said}");
    assert!(!dir.path().join("splice/kernels/9.9.9-test").exists(), "something was left behind");
    assert_eq!(std::fs::read_dir(&source).unwrap().count(), 1);
}

#[test]
fn a_kernel_that_is_not_prepared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let patch = dir.path().join("fix.patch");
    std::fs::write(&patch, "--- a/f.c\n+++ b/f.c\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
    let patch = patch.to_str().unwrap();
    let output =
        splice(dir.path(), &["--format", "json", "create", "--release", "9.9.9-test", patch]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("splice prepare --release 9.9.9-test"));
    let error = json(&output);
    assert_eq!((&error["version"], &error["error"]["exit"]), (&1.into(), &1.into()));
}

#[test]
fn what_is_no_update_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.splice");
    std::fs::write(&file, b"no update at all").unwrap();
    for command in ["inspect", "check"] {
        let output = splice(dir.path(), &[command, file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(stderr(&output).contains("x.splice"), "{}", stderr(&output));
    }
}

#[test]
fn plugins_are_listed_and_what_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let list = splice(dir.path(), &["--format", "json", "plugins", "list"]);
    assert_eq!(list.status.code(), Some(0), "{}", stderr(&list));
    let list = json(&list);
    let names: Vec<_> =
        list["architectures"].as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
    assert!(names.contains(&"x86_64".into()), "{names:?}");

    let file = dir.path().join("no-plugin.so");
    std::fs::write(&file, b"no library").unwrap();
    let file = file.to_str().unwrap();
    for words in [&["plugins", "check", file][..], &["--plugin", file, "plugins", "list"]] {
        let output = splice(dir.path(), words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = stderr(&output);
        assert!(said.contains("no-plugin.so") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn completions_and_manual_know_the_commands() {
    let cache = tempfile::tempdir().unwrap();
    for words in [&["completions", "bash"][..], &["man"]] {
        let output = splice(cache.path(), words);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("undo") && text.contains("snapshot"), "{words:?}");
    }
}
