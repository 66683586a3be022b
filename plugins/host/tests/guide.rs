// SPDX-License-Identifier: GPL-2.0-or-later
//! The guide for authors of plugins, followed to the letter: each box of commands is run, and what the guide
//! shows behind it must be what is printed.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up stops there and then")]

use std::fmt::Write;
use std::process::Command;

mod common;

/// The boxes of a document, as (kind, text).
fn boxes(document: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        match line.strip_prefix("```") {
            Some("") => open = false,
            Some(kind) => {
                found.push((kind, String::new()));
                open = true;
            }
            None if open => {
                let (_, text) = found.last_mut().unwrap();
                writeln!(text, "{line}").unwrap();
            }
            None => {}
        }
    }
    found
}

#[test]
fn the_guide_is_true() {
    let guide = std::fs::read_to_string(common::root().join("docs/plugins.md")).unwrap();
    let boxes = boxes(&guide);
    // One shell runs all commands; a line that no command prints tells one box's output from the next one's.
    const END: &str = "== end of a box ==";
    let mut script = String::from("set -eu\n");
    let mut expected = Vec::new();
    for (kind, text) in &boxes {
        match *kind {
            "sh" => {
                writeln!(script, "{text}echo '{END}'").unwrap();
                expected.push(String::new());
            }
            "text" => expected.last_mut().unwrap().clone_from(text),
            other => panic!("a box of kind {other:?}"),
        }
    }
    assert!(expected.iter().filter(|text| !text.is_empty()).count() >= 3, "the guide shows little");
    let place = tempfile::tempdir().unwrap();
    let splice = common::build_file("splice-cli", "splice");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = common::run(
        Command::new("bash")
            .args(["-c", &script])
            .current_dir(place.path())
            .env("SPLICE", common::root())
            .env("PATH", format!("{}:{path}", splice.parent().unwrap().display()))
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("SPLICE_PLUGIN_PATH"),
    );
    let said = String::from_utf8(output).unwrap();
    let said: Vec<&str> = said.split(&format!("{END}\n")).collect();
    // What follows the last box's end is nothing.
    assert_eq!(said.len(), expected.len() + 1, "{said:?}");
    for (said, expected) in said.iter().zip(&expected) {
        assert_eq!(said, expected);
    }
}
