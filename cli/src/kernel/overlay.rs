// SPDX-License-Identifier: GPL-2.0-or-later
//! A tree that looks like the kernel's, with some files of its own: directories that hold those are
//! real, everything else is a symbolic link. The kernel's tree is not touched, and the overlay goes
//! with its holder.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::cache;

/// An overlay.
#[derive(Debug)]
pub(crate) struct Overlay {
    directory: tempfile::TempDir,
}

impl Overlay {
    /// Lays it over `source`, below `place`: with these files, and with real directories for what
    /// will be written at these paths, and for every directory on the way there.
    pub(crate) fn new<'a>(
        place: &Path,
        source: &Path,
        files: impl Iterator<Item = (&'a str, String)>,
        outputs: impl Iterator<Item = &'a str>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(".splice-")
            .tempdir_in(place)
            .context("cannot write to the cache")?;
        let files: BTreeMap<PathBuf, String> =
            files.map(|(path, text)| (PathBuf::from(path), text)).collect();
        let mut real = BTreeSet::from([PathBuf::new()]);
        for path in files.keys() {
            pass(path, &mut real);
        }
        let mut written = BTreeSet::new();
        for path in outputs {
            written.insert(PathBuf::from(super::reach::normal(path)));
            pass(Path::new(path), &mut real);
        }
        for relative in &real {
            let to = directory.path().join(relative);
            cache::create(&to)?;
            for entry in std::fs::read_dir(source.join(relative)).into_iter().flatten() {
                let entry = entry.with_context(|| format!("cannot read {}", relative.display()))?;
                let path = relative.join(entry.file_name());
                let own = files.contains_key(&path) || written.contains(&path);
                if !real.contains(&path) && !own && !is_product(&path) {
                    symlink(entry.path(), directory.path().join(&path))
                        .context("cannot write to the cache")?;
                }
            }
        }
        for (path, text) in &files {
            std::fs::write(directory.path().join(path), text)
                .context("cannot write to the cache")?;
        }
        Ok(Self { directory })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Adds the directories that a path passes through: of `a/../b/f`, `a` and `b`.
fn pass(path: &Path, real: &mut BTreeSet<PathBuf>) {
    let mut at = PathBuf::new();
    for component in path.parent().into_iter().flat_map(Path::components) {
        match component {
            Component::ParentDir => {
                at.pop();
            }
            other => at.push(other),
        }
        real.insert(at.clone());
    }
}

/// What a compiler run would write to; a link would lead it into the kernel's tree.
fn is_product(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().and_then(|extension| extension.to_str());
    let made = extension.is_some_and(|extension| ["o", "i", "s"].contains(&extension));
    path.components().count() > 1 && (hidden || made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_cover_the_trees_and_nothing_is_written_through() {
        let source = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("a/b/f.c", "old"),
            ("a/b/f.o", "object"),
            ("a/g.h", "header"),
            ("c/x", "x"),
            ("d/h", ""),
            ("e/z.c", "z"),
            ("e/offsets.s", "assembly"),
        ] {
            let path = source.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let place = tempfile::tempdir().unwrap();
        let files = [("a/b/f.c", "new".to_owned())].into_iter();
        let overlay = Overlay::new(
            place.path(),
            source.path(),
            files,
            ["c/y.o", "d/../e/z.o", "e/offsets.s"].into_iter(),
        )
        .unwrap();
        let read = |path: &str| std::fs::read_to_string(overlay.path().join(path));
        assert_eq!(read("a/b/f.c").unwrap(), "new");
        assert_eq!(read("a/g.h").unwrap(), "header");
        assert_eq!(read("c/x").unwrap(), "x");
        assert!(read("a/b/f.o").is_err());
        assert!(read("e/offsets.s").is_err());
        for path in ["a/b/f.o", "c/y.o", "d/../e/z.o", "e/offsets.s"] {
            std::fs::write(overlay.path().join(path), "product").unwrap();
        }
        assert_eq!(std::fs::read_to_string(source.path().join("a/b/f.o")).unwrap(), "object");
        let kept = std::fs::read_to_string(source.path().join("e/offsets.s"));
        assert_eq!(kept.unwrap(), "assembly");
        assert!(!source.path().join("c/y.o").exists());
        assert!(!source.path().join("e/z.o").exists());
        drop(overlay);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
