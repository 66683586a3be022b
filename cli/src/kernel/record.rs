// SPDX-License-Identifier: GPL-2.0-or-later
//! What kbuild records of each file that it makes: the command, and the files that it was made from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::reach::normal;

/// Where kbuild records how it made a file.
pub(super) fn record(tree: &Path, product: &str) -> PathBuf {
    let (directory, name) = product.rsplit_once('/').unwrap_or(("", product));
    tree.join(directory).join(format!(".{name}.cmd"))
}

/// How kbuild made a file, and from which ones.
pub(super) fn recorded(tree: &Path, product: &str) -> Result<(String, Vec<String>)> {
    let record = record(tree, product);
    let text = std::fs::read_to_string(&record)
        .with_context(|| format!("the build left no {}", record.display()))?;
    let command = command(&text)
        .with_context(|| format!("{} does not say how the unit was made", record.display()))?;
    Ok((command.to_owned(), files(&text)))
}

/// The command in a file that kbuild writes: `cmd_PATH := …` until 6.2, then `savedcmd_PATH := …`
/// (scripts/Kbuild.include).
pub(super) fn command(text: &str) -> Option<&str> {
    let line = text.lines().next()?;
    let (name, command) = line.split_once(" := ")?;
    (name.starts_with("cmd_") || name.starts_with("savedcmd_")).then_some(command)
}

/// The files in a file that kbuild writes (scripts/basic/fixdep.c): `source_PATH := …`, then lines
/// that go on behind `deps_PATH := `.
pub(super) fn files(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut listed = false;
    for line in text.lines() {
        if let Some((_, source)) =
            line.split_once(" := ").filter(|(name, _)| name.starts_with("source_"))
        {
            files.push(normal(source));
        }
        if listed {
            let file = line.trim().trim_end_matches('\\').trim_end();
            // An option that matters stands as a wildcard.
            if !file.is_empty() && !file.starts_with('$') {
                files.push(normal(file));
            }
        }
        listed = (listed || line.starts_with("deps_")) && line.ends_with('\\');
    }
    // Without its list, nothing is known.
    if files.len() < 2 { Vec::new() } else { files }
}

/// A recorded command as a shell takes it: it was written to stand in a makefile.
pub(super) fn plain(command: &str) -> String {
    command.replace("$$", "$").replace("$(pound)", "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_both_forms() {
        let old =
            "cmd_net/core/sock.o := gcc -c -o net/core/sock.o net/core/sock.c\n\nsource_x := y\n";
        assert_eq!(command(old), Some("gcc -c -o net/core/sock.o net/core/sock.c"));
        assert_eq!(
            command("savedcmd_a.o := gcc a.c ; ./objtool a.o\n"),
            Some("gcc a.c ; ./objtool a.o")
        );
        assert_eq!(command("source_a.o := a.c\n"), None);
    }
}
