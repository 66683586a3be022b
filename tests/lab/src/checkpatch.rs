// SPDX-License-Identifier: GPL-2.0-or-later
//! The kernel's own style checker over the kernel side.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{Cache, kernels};

/// The checker and what it reads.
const FILES: [&str; 3] =
    ["scripts/checkpatch.pl", "scripts/spelling.txt", "scripts/const_structs.checkpatch"];

/// What does not hold for a module outside the tree, which is built for several kernels: it asks which
/// one (and the checker takes the version's macro for a constant on the wrong side).
const IGNORED: &str = "LINUX_VERSION_CODE,CONSTANT_COMPARISON";

/// Checks every C file of a directory; true if the checker has nothing to say.
pub fn run(directory: &Path) -> Result<bool> {
    let cache = Cache::open()?;
    let all = kernels()?;
    let kernel = all.first().context("apt offers no kernel")?;
    let place = cache.source_files(&kernel.version, &FILES.map(str::to_owned))?;
    let mut sources: Vec<PathBuf> = Vec::new();
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            sources.push(path);
        }
    }
    sources.sort();
    ensure!(!sources.is_empty(), "{} holds no C file", directory.display());
    let [checker, _, _] = FILES;
    let status = Command::new("perl")
        .arg(place.join(checker))
        .args(["--no-tree", "--strict", "--terse", "--ignore", IGNORED, "--file"])
        .args(sources)
        .status()
        .context("cannot run perl")?;
    Ok(status.success())
}
