// SPDX-License-Identifier: GPL-2.0-or-later
//! What a distribution adds to a source for some of its kernels only: patches that are in its source
//! package, but not in the binary package that holds the source of the other kernels.
//!
//! apt's own lists rarely name source packages, so they are read once more into a directory of our
//! own, by the same configuration and checked against the same keys. Nothing here needs root.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache;
use super::packages::run;

/// Where apt's configuration says what it reads (apt, sources.list(5)).
const LIST: &str = "/etc/apt/sources.list";
const PARTS: &str = "/etc/apt/sources.list.d";

/// Applies the patches of a feature set, such as `rt`, to a source that has the distribution's other
/// patches already.
pub(super) fn apply_featureset(
    package: &str,
    version: &str,
    featureset: &str,
    source: &Path,
) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix(".splice-")
        .tempdir_in(cache::directory("packages")?)
        .context("cannot write to the cache")?;
    fetch_packaging(package, version, work.path())?;
    let patches = work.path().join(format!("debian/patches-{featureset}"));
    let list = patches.join("series");
    let text = std::fs::read_to_string(&list).with_context(|| {
        format!(
            "the source package {package} {version} has no patches of the feature set {featureset}"
        )
    })?;
    for name in series(&text) {
        let patch = patches.join(name);
        run(Command::new("patch")
            .args(["--strip=1", "--force", "--silent", "--fuzz=0", "--no-backup-if-mismatch"])
            .arg("--directory")
            .arg(source)
            .arg("--input")
            .arg(&patch))
        .with_context(|| format!("{name} of {package} {version} does not apply to its source"))?;
    }
    Ok(())
}

/// The names in a list of patches (quilt(1)).
fn series(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with('#'))
}

/// Unpacks the distribution's own part of a source package, `debian/`, below `to`.
fn fetch_packaging(package: &str, version: &str, to: &Path) -> Result<()> {
    let (parts, lists, cached) = (to.join("parts"), to.join("lists"), to.join("cached"));
    for directory in [&parts, &lists.join("partial"), &cached.join("archives/partial")] {
        cache::create(directory)?;
    }
    let mut files = vec![Path::new(LIST).to_owned()];
    let entries = std::fs::read_dir(PARTS).into_iter().flatten().flatten();
    files.extend(entries.map(|entry| entry.path()));
    for file in files {
        // What is missing or closed to this user, apt cannot read either.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let name = file.file_name().unwrap_or_default();
        std::fs::write(parts.join(name), of_sources(&text)).context("cannot write to the cache")?;
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        for setting in [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            option("Dir::Etc::sourceparts", &parts),
            option("Dir::State::lists", &lists),
            option("Dir::Cache", &cached),
            "Acquire::Languages=none".to_owned(),
            // apt's own unprivileged user cannot write to a private cache.
            "APT::Sandbox::User=".to_owned(),
        ] {
            apt.args(["-o", &setting]);
        }
        apt.arg("-q").current_dir(to);
        apt
    };
    // A repository without sources is no failure as long as the package is in another.
    let update = run(apt().arg("update"));
    run(apt()
        .args(["source", "--download-only", "--diff-only", "--only-source"])
        .arg(format!("{package}={version}")))
    .or_else(|error| update.and(Err(error)))
    .with_context(|| format!("cannot get the source package {package} {version}"))?;
    let archive = std::fs::read_dir(to)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".debian.tar"));
    let archive =
        archive.with_context(|| format!("the source package {package} has no debian.tar"))?;
    run(Command::new("tar").arg("-x").arg("-f").arg(archive).arg("-C").arg(to))?;
    ensure!(to.join("debian").is_dir(), "the source package {package} has no directory debian");
    Ok(())
}

/// apt's configuration with the sources of what it has as binary packages.
fn of_sources(text: &str) -> String {
    let line = |line: &str| {
        if line.split_whitespace().next() == Some("Types:") {
            return "Types: deb-src".to_owned();
        }
        match line.trim_start().strip_prefix("deb") {
            Some(rest) if rest.starts_with([' ', '\t']) => format!("deb-src{rest}"),
            _ => line.to_owned(),
        }
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_in_order_without_remarks() {
        let text = "# first\nb.patch\n\n a/c.patch -p1\n#d.patch\n";
        assert_eq!(series(text).collect::<Vec<_>>(), ["b.patch", "a/c.patch"]);
    }

    #[test]
    fn sources_are_read_with_the_same_options() {
        let old =
            "deb [signed-by=/k] http://x y main\n# deb http://x z main\ndeb-src http://x y main\n";
        let new = "deb-src [signed-by=/k] http://x y main\n# deb http://x z main\n\
                   deb-src http://x y main\n";
        assert_eq!(of_sources(old), new);
        let old = "Types: deb\nURIs: http://x\nSigned-By: /k\n";
        assert_eq!(of_sources(old), "Types: deb-src\nURIs: http://x\nSigned-By: /k\n");
    }
}
