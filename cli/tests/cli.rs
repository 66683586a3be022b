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
    let half = splice(cache.path(), &["apply", "a.splice", "--sign-key", "key"]);
    assert_eq!(half.status.code(), Some(2), "a key without its certificate");
    let words = ["create", "a.patch", "--sign-key", "key", "--sign-cert", "cert"];
    let early = splice(cache.path(), &words);
    assert_eq!(early.status.code(), Some(2));
    assert!(stderr(&early).contains("splice apply --sign-key"), "{}", stderr(&early));
    let help = splice(cache.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for word in ["prepare", "create", "check", "verify", "apply", "undo", "Exit codes"] {
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
fn diff_of_two_trees_pairs_their_units_by_path() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for folder in ["fs", "net", "tools"] {
        std::fs::create_dir_all(a.join(folder)).unwrap();
        std::fs::create_dir_all(b.join(folder)).unwrap();
    }
    let unit = |tree: &Path, name: &str, source: &str| compile(tree, name, source);
    let source = |n: u32| format!("int limit = 1; int f(int x) {{ return x + {n}; }}");
    let both = |name: &str, before: &str, after: &str| {
        unit(&a, name, before);
        unit(&b, name, after);
    };
    let diff = |more: &[&str]| {
        let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
        let words = [&["--arch", "x86_64", "--format", "json", "diff", a, b][..], more].concat();
        let output = splice(dir.path(), &words);
        (output.status.code(), json(&output))
    };

    both("fs/same.o", &source(1), &source(1));
    // Other bytes, the same code.
    both("fs/lines.o", &source(2), &format!("{}\nstatic int unused;", source(2)));
    std::fs::write(a.join("fs/README"), "no object").unwrap();
    let (code, report) = diff(&[]);
    assert_eq!((code, &report["verdict"]), (Some(3), &"unchanged".into()), "{report}");
    assert_eq!(report["totals"]["unchanged"], 2);
    assert!(report["units"].as_array().unwrap().is_empty());

    both("net/changed.o", &source(3), &source(4));
    unit(&a, "gone.o", &source(5));
    unit(&b, "net/new.o", &source(6));
    both("tools/program.o", &source(7), &source(8));
    both("fs/x.mod.o", &source(7), &source(8));
    for tree in [&a, &b] {
        let parts = ["net/changed.o", "fs/same.o"].map(|part| tree.join(part));
        let linked = Command::new("ld")
            .args(["-r", "-z", "muldefs", "-o"])
            .arg(tree.join("net/built-in.o"))
            .args(parts)
            .status();
        assert!(linked.unwrap().success());
    }
    let (code, report) = diff(&[]);
    assert_eq!((code, &report["verdict"]), (Some(0), &"changed".into()), "{report}");
    let units = report["units"].as_array().unwrap();
    assert_eq!(units.len(), 1, "{report}");
    assert_eq!(units[0]["unit"], "net/changed.o");
    assert_eq!(units[0]["report"]["functions"]["changed"][0]["name"], "f");
    assert_eq!(report["removed"], serde_json::json!(["gone.o"]));
    assert_eq!(report["added"], serde_json::json!(["net/new.o"]));
    assert_eq!(report["totals"]["linked"], 1);
    assert_eq!(report["totals"]["pairs"], 3);

    both("refused.o", &source(9), &source(9).replace("limit = 1", "limit = 2"));
    assert_eq!(diff(&[]).0, Some(4));
    std::fs::write(a.join("fs/broken.o"), b"\x7fELF").unwrap();
    std::fs::write(b.join("fs/broken.o"), b"nothing").unwrap();
    let (code, report) = diff(&[]);
    assert_eq!((code, &report["verdict"]), (Some(1), &"refused".into()));
    assert_eq!(report["failed"][0]["unit"], "fs/broken.o");
    assert_eq!(diff(&["-j", "1"]).1, diff(&["-j", "5"]).1);

    let (file, tree) = (b.join("net/new.o"), a.to_str().unwrap().to_owned());
    let words = ["--arch", "x86_64", "diff", &tree, file.to_str().unwrap()];
    assert_eq!(splice(dir.path(), &words).status.code(), Some(2));
}

#[test]
fn objects_of_32_bit_code_are_the_same_byte_for_byte_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let compile = |name: &str, source: &str| {
        std::fs::write(dir.path().join("n.c"), source).unwrap();
        let object = dir.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-m32", "-c", "-o"]).arg(&object).arg(dir.path().join("n.c"));
        assert!(gcc.status().unwrap().success());
        object.to_str().unwrap().to_owned()
    };
    let a = compile("a.o", "int f(void) { return 1; }");
    let b = compile("b.o", "int f(void) { return 2; }");
    let diff = |x: &str, y: &str| {
        let words = ["--arch", "x86_64", "--format", "json", "diff", x, y];
        let output = splice(dir.path(), &words);
        (output.status.code(), json(&output))
    };
    assert_eq!(diff(&a, &a).0, Some(3));
    let (code, report) = diff(&a, &b);
    assert_eq!((code, &report["refusals"][0]["what"]), (Some(4), &"32-bit code".into()));
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
