// SPDX-License-Identifier: GPL-2.0-or-later
//! All units of a kernel image, compiled as its distribution did: what `splice verify` holds a running
//! text against.

use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Tree, cache, packages};

/// What makes all objects that the image is linked from, and then one object of all of them (Makefile;
/// since 6.1).
const GOAL: &str = "vmlinux_o";
const MADE: &str = "vmlinux.o";
/// Debug information is as large as all else together, takes a third of the time, and does not change
/// the code.
const FLAGS: &str = "KCFLAGS=-g0";
/// Keys that only the distribution has: certificates are data (certs/Makefile).
const NO_KEYS: [&str; 2] = ["CONFIG_MODULE_SIG_KEY=", "CONFIG_SYSTEM_TRUSTED_KEYS="];
/// After so many units progress is told.
const STEP: usize = 20;

/// Where the units are, if all of them have been compiled.
pub(crate) fn compiled(tree: &Tree) -> Option<PathBuf> {
    let place = tree.place("image");
    place.join(MADE).is_file().then_some(place)
}

/// Compiles the units of these directories of the source (`.` for all of the image), in a copy of the tree; what a killed
/// run has compiled is not compiled again.
pub(crate) fn compile(
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
    if let Some(place) = compiled(tree) {
        return Ok(place);
    }
    let place = tree.place("image");
    if !place.is_dir() {
        note("copying the source");
        copy(tree, &place, note)?;
    }
    make(tree, &place, &goals, jobs, note)?;
    if all && compiled(tree).is_none() {
        bail!("make has not made {}", place.join(MADE).display());
    }
    Ok(place)
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
