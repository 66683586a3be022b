// SPDX-License-Identifier: GPL-2.0-or-later
//! Compiling units before and after a patch, each with the command line of the kernel's own build.
//!
//! The unit before is built by kbuild in the tree, once; it is kept with the command that made it.
//! The unit after is made by the same command in an overlay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Built, Overlay, Tree, cache, packages};
use crate::exit::{Exit, Failure};

/// What is added to the kernel's flags: a section for each function and object, so that each can be
/// compared and moved by itself.
pub(super) const FLAGS: &str = "KCFLAGS=-ffunction-sections -fdata-sections";

/// A unit, compiled twice, without debug sections.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Path of the object in the kernel tree.
    pub(crate) name: String,
    /// How it is compiled, in the tree or in the overlay.
    pub(crate) command: String,
    /// The object before.
    pub(crate) pre: Vec<u8>,
    /// The object after.
    pub(crate) post: Vec<u8>,
}

/// How a unit before was made.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    /// Of the object.
    sha256: String,
    command: String,
}

/// Compiles the units before the patch that are not in the cache.
pub(crate) fn before(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let _lock = tree.lock(note)?;
    let cache = tree.directory("units")?;
    let missing: Vec<(&String, &Built)> =
        units.iter().filter(|(object, _)| kept(&cache, object).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    note(&format!("compiling {} before the patch", count(missing.len())));
    let source = tree.source();
    let output = tree
        .make(&source)
        .arg(FLAGS)
        .arg(format!("-j{jobs}"))
        .args(missing.iter().map(|(_, built)| &built.goal))
        .output()
        .context("cannot run make")?;
    if !output.status.success() {
        return Err(failed("pre: the kernel's own source does not compile", &output));
    }
    for (object, _) in missing {
        keep(tree, &cache, object)?;
    }
    Ok(())
}

/// Compiles the units after the patch.
pub(crate) fn after(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    overlay: &Overlay,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Compiled>, Failure> {
    note(&format!("compiling {} after the patch", count(units.len())));
    let cache = tree.directory("units")?;
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(jobs).build().map_err(Failure::from_error)?;
    pool.install(|| {
        units
            .par_iter()
            .map(|(object, _)| {
                let (command, pre) = kept(&cache, object)
                    .with_context(|| format!("{object} is not in the cache any more"))?;
                let post = one(tree, overlay, object, &command)?;
                Ok(Compiled { name: object.clone(), command, pre, post })
            })
            .collect()
    })
}

fn count(number: usize) -> String {
    if number == 1 { "one unit".to_owned() } else { format!("{number} units") }
}

fn failed(what: &str, output: &std::process::Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::new(Exit::Failed, format!("{what}:\n{}", said.trim_end()))
}

fn sidecar(units: &Path, object: &str) -> PathBuf {
    units.join(format!("{object}.json"))
}

/// The command and the object of a unit that was compiled before and is undamaged.
fn kept(units: &Path, object: &str) -> Option<(String, Vec<u8>)> {
    let made = std::fs::read(sidecar(units, object)).ok()?;
    let made: Made = serde_json::from_slice(&made).ok()?;
    let bytes = std::fs::read(units.join(object)).ok()?;
    (packages::sum(&bytes) == made.sha256).then_some((made.command, bytes))
}

/// Puts a unit that kbuild has just made into the cache.
fn keep(tree: &Tree, units: &Path, object: &str) -> Result<()> {
    let made = tree.source().join(object);
    let (directory, name) = object.rsplit_once('/').unwrap_or(("", object));
    let record = tree.source().join(directory).join(format!(".{name}.cmd"));
    let text = std::fs::read_to_string(&record)
        .with_context(|| format!("the build left no {}", record.display()))?;
    let command = command(&text)
        .with_context(|| format!("{} does not say how the unit was made", record.display()))?;
    let bytes = stripped(tree, &made)?;
    cache::create(&units.join(directory))?;
    cache::write_whole(&units.join(object), &bytes)?;
    let made = Made { sha256: packages::sum(&bytes), command: command.to_owned() };
    cache::write_whole(&sidecar(units, object), &serde_json::to_vec_pretty(&made)?)
}

/// The command in a file that kbuild writes: `cmd_PATH := …` until 6.2, then `savedcmd_PATH := …`
/// (scripts/Kbuild.include).
fn command(text: &str) -> Option<&str> {
    let line = text.lines().next()?;
    let (name, command) = line.split_once(" := ")?;
    (name.starts_with("cmd_") || name.starts_with("savedcmd_")).then_some(command)
}

/// An object without its debug sections.
fn stripped(tree: &Tree, object: &Path) -> Result<Vec<u8>> {
    let out = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    packages::run(tree.tool("strip").arg("-g").arg("-o").arg(out.path()).arg(object))?;
    std::fs::read(out.path()).context("strip left no file")
}

/// A recorded command as a shell takes it: it was written to stand in a makefile.
pub(super) fn plain(command: &str) -> String {
    command.replace("$$", "$").replace("$(pound)", "#")
}

fn one(tree: &Tree, overlay: &Overlay, object: &str, command: &str) -> Result<Vec<u8>, Failure> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(plain(command))
        .env("LC_ALL", "C")
        .current_dir(overlay.path())
        .output()
        .context("cannot run the compiler")?;
    if !output.status.success() {
        return Err(failed("post: the patched source does not compile", &output));
    }
    Ok(stripped(tree, &overlay.path().join(object))?)
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

    #[test]
    fn a_damaged_unit_is_not_taken() {
        let units = tempfile::tempdir().unwrap();
        let made = Made { sha256: packages::sum(b"object"), command: "c".into() };
        std::fs::write(units.path().join("a.o"), b"object").unwrap();
        std::fs::write(sidecar(units.path(), "a.o"), serde_json::to_vec(&made).unwrap()).unwrap();
        assert!(kept(units.path(), "a.o").is_some());
        std::fs::write(units.path().join("a.o"), b"objecT").unwrap();
        assert!(kept(units.path(), "a.o").is_none());
    }
}
