// SPDX-License-Identifier: GPL-2.0-or-later
//! All units of a kernel image, compiled as its distribution did: what `splice verify` holds a running
//! text against.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Tree, cache, compile, packages};

/// What makes all objects that the image is linked from, and then one object of all of them (Makefile;
/// since 6.1).
const GOAL: &str = "vmlinux_o";
/// What kbuild keeps of the command that linked them, with the archives that they are in.
const LINKED: &str = ".vmlinux.o.cmd";
/// The paths of all objects of the image, a line each; there once all are compiled.
const LIST: &str = "image.list";
/// Debug information is as large as all else together, takes a third of the time, and does not change
/// the code.
const FLAGS: &str = "KCFLAGS=-g0";
/// Keys that only the distribution has: certificates are data (certs/Makefile).
const NO_KEYS: [&str; 2] = ["CONFIG_MODULE_SIG_KEY=", "CONFIG_SYSTEM_TRUSTED_KEYS="];
/// After so many units progress is told.
const STEP: usize = 20;

/// All units of an image.
#[derive(Debug)]
pub(crate) struct Units {
    /// The directory that they are below.
    pub(crate) root: PathBuf,
    /// Their paths below it.
    pub(crate) objects: Vec<PathBuf>,
}

/// The units, if all of them have been compiled.
pub(crate) fn compiled(tree: &Tree) -> Option<Units> {
    let list = std::fs::read_to_string(tree.place(LIST)).ok()?;
    Some(Units { root: tree.place("image"), objects: list.lines().map(PathBuf::from).collect() })
}

/// Compiles the units of these directories of the source (`.` for all of the image), in a copy of the
/// tree; what a killed run has compiled is not compiled again.
pub(crate) fn compile_all(
    tree: &Tree,
    directories: &[PathBuf],
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<PathBuf> {
    let all = directories.iter().any(|directory| directory == Path::new("."));
    let mut goals = Vec::new();
    for directory in directories.iter().filter(|_| !all) {
        let inside = directory.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside || !tree.source().join(directory).is_dir() {
            bail!("{} is no directory of the kernel's source", directory.display());
        }
        goals.push(format!("{}/", directory.display()));
    }
    if all {
        goals.push(GOAL.to_owned());
    }
    let _lock = cache::lock(&tree.place("image.lock"), note)?;
    if let Some(units) = compiled(tree) {
        return Ok(units.root);
    }
    let place = tree.place("image");
    if !place.is_dir() {
        note("copying the source");
        copy(tree, &place, note)?;
    }
    make(tree, &place, &goals, jobs, note)?;
    if all {
        cache::write_whole(&tree.place(LIST), members(tree, &place)?.as_bytes())?;
    }
    Ok(place)
}

/// The objects of which the image's object was linked, a line each.
fn members(tree: &Tree, place: &Path) -> Result<String> {
    let command = std::fs::read_to_string(place.join(LINKED))
        .with_context(|| format!("make has not made {}", place.join(LINKED).display()))?;
    let archives: BTreeSet<&str> =
        command.split_whitespace().filter(|word| word.ends_with(".a")).collect();
    let mut all = String::new();
    for archive in archives {
        let output = tree
            .tool("ar")
            .args(["t", archive])
            .current_dir(place)
            .output()
            .context("cannot run ar (Debian package binutils)")?;
        if !output.status.success() {
            bail!("ar cannot read {archive}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        for member in String::from_utf8_lossy(&output.stdout).lines() {
            // An archive that is no thin one names its members without their directory.
            let path = if place.join(member).is_file() {
                PathBuf::from(member)
            } else {
                Path::new(archive).with_file_name(member)
            };
            if !place.join(&path).is_file() {
                bail!("{archive} has a member {member}, which is not there");
            }
            all.push_str(&format!("{}\n", path.display()));
        }
    }
    Ok(all)
}

/// Copies the tree; the copy gets its name when it is whole.
fn copy(tree: &Tree, place: &Path, note: &mut dyn FnMut(&str)) -> Result<()> {
    let partial = tree.place(".image");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)
            .with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    {
        let _lock = tree.lock(note)?;
        packages::run(
            Command::new("cp").args(["-a", "--reflink=auto"]).arg(tree.source()).arg(&partial),
        )?;
    }
    std::fs::rename(&partial, place).context("cannot name the copy")
}

fn make(
    tree: &Tree,
    place: &Path,
    goals: &[String],
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let errors = tree.scratch()?;
    let mut make = tree
        .make(place)
        .arg(FLAGS)
        .args(NO_KEYS)
        .args(compile::tables(&tree.config()?))
        .args(goals)
        .arg(format!("-j{jobs}"))
        .stdout(Stdio::piped())
        .stderr(errors.reopen().context("cannot write to the cache")?)
        .spawn()
        .context("cannot run make")?;
    let lines = BufReader::new(make.stdout.take().context("make has no output")?).lines();
    let mut units = 0_usize;
    // A line that cannot be read is not counted.
    for line in lines.map_while(Result::ok) {
        if matches!(line.split_whitespace().next(), Some("CC" | "AS")) {
            if units.is_multiple_of(STEP) {
                note(&format!("compiling the image's units: {units} done"));
            }
            units += 1;
        }
    }
    let status = make.wait().context("cannot wait for make")?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(errors.path()).unwrap_or_default();
    bail!("the kernel's own source does not compile:\n{}", said.trim_end())
}
