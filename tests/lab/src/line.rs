// SPDX-License-Identifier: GPL-2.0-or-later
//! Another line or flavour of kernels, from end to end: an update whose effect is seen from user
//! space, what a newer source package of the line changes in files that are always built in, and a
//! sample of the text in every state. Nothing of the line is pinned, since the suites drop versions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::corpus::Patch;
use crate::packages::{kernel, newest_pair, series};
use crate::session::{Contents, Guest, Lab};
use crate::{corpus, fixes, states};

/// The line that is tested beside 6.1.
const SERIES: &str = "6.12";
/// Directories whose own C files, as far as they are compiled at all, are mostly in the image.
const BUILT_IN: [&str; 5] = ["fs", "ipc", "kernel", "net/core", "net/ipv4"];
/// Directories whose units are verified.
pub const UNITS: [&str; 2] = ["ipc", "kernel/time"];

/// Tests the kernel of this release, or the newest of the line that a newer source is offered for,
/// with at most so many changed files.
pub fn run(
    release: Option<&str>,
    limit: usize,
    units: &[String],
    which: states::Which,
) -> Result<()> {
    let (kernel, target) = match release {
        Some(release) => {
            let kernel = kernel(release)?;
            let target = newer(&kernel.version)?;
            (kernel, target)
        }
        None => newest_pair(SERIES)?,
    };
    println!("{} ({}), fixes from {target}", kernel.release, kernel.version);
    let lab = Lab::of(kernel)?;
    let prepared = lab.prepare()?;
    seen_from_user_space(&lab)?;
    let mut patches = changes(&lab, prepared.tree()?, &target)?;
    ensure!(!patches.is_empty(), "{target} changes nothing in {}", BUILT_IN.join(", "));
    println!("{} changed files", patches.len());
    patches.truncate(limit);
    // A change of several files is no patch that compiles when it is cut into one for each file.
    let tally = corpus::try_all(&lab, patches)?;
    ensure!(tally.failed == 0, "{} of the fixes failed", tally.failed);
    ensure!(tally.passed > 0, "no fix could be applied");
    let directories: Vec<&str> = units.iter().map(String::as_str).collect();
    let units = states::sample(&lab, &directories)?;
    ensure!(states::run(&lab, &units, which)?, "the text is not what it should be: see above");
    Ok(())
}

/// The source that follows this version.
fn newer(version: &str) -> Result<String> {
    let parts: Vec<&str> = version.splitn(3, '.').take(2).collect();
    let versions: Vec<String> =
        series(&parts.join("."))?.into_iter().map(|kernel| kernel.version).collect();
    let next = versions.iter().position(|one| one == version).map_or(0, |place| place + 1);
    match versions.get(next) {
        Some(next) => Ok(next.clone()),
        None => bail!("apt offers no source newer than {version}; choose an older kernel"),
    }
}

/// An error code that differs while the update is applied, under load.
pub fn seen_from_user_space(lab: &Lab) -> Result<()> {
    const ID: &str = "eventfd";
    let edit = ("sizeof(ucnt))\n\t\treturn -EINVAL", "sizeof(ucnt))\n\t\treturn -EPERM");
    let patch = fixes::edit(&lab.cache, &lab.kernel.version, "fs/eventfd.c", &[edit])?;
    let (file, answer) = lab.create(ID, &patch)?;
    answer.success()?;
    let contents = Contents { updates: vec![(ID, &file)], ..Contents::default() };
    let mut guest = Guest::boot(lab, &lab.image, &contents)?;
    let expect = |guest: &mut Guest, word: &str| {
        let (_, said) = guest.probe("short-eventfd", 0)?;
        ensure!(said.contains(word), "expected {word:?} from the event descriptor: {said}");
        Ok(())
    };
    expect(&mut guest, "Invalid argument")?;
    guest.machine.start_load()?;
    guest.check(ID)?.success()?;
    guest.apply(ID)?.success()?;
    expect(&mut guest, "Operation not permitted")?;
    guest.undo(ID)?.success()?;
    expect(&mut guest, "Invalid argument")?;
    guest.machine.stop_load()?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// What the newer source changes, as one patch a file.
fn changes(lab: &Lab, source: &Path, target: &str) -> Result<Vec<Patch>> {
    let mut files = Vec::new();
    for directory in BUILT_IN {
        let entries = std::fs::read_dir(source.join(directory))
            .with_context(|| format!("the prepared source has no {directory}"))?;
        for entry in entries {
            let name = PathBuf::from(entry?.file_name());
            if name.extension().is_some_and(|extension| extension == "c") {
                files.push(Path::new(directory).join(name).to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    let old = lab.cache.source_files(&lab.kernel.version, &files)?;
    let new = lab.cache.source_files(target, &files)?;
    let mut patches = Vec::new();
    for file in files {
        let before = std::fs::read_to_string(source.join(&file))?;
        // A flavour may have patches of its own, which a newer source of all of them would undo.
        if std::fs::read_to_string(old.join(&file))? != before {
            continue;
        }
        let patch = fixes::unified(&before, &std::fs::read_to_string(new.join(&file))?, &file)?;
        if !patch.is_empty() {
            patches.push(Patch::new(file.trim_end_matches(".c"), patch));
        }
    }
    Ok(patches)
}
