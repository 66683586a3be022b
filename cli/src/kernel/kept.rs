// SPDX-License-Identifier: GPL-2.0-or-later
//! Units before a patch, as kbuild made them: each is kept with the command that made it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::compile::stripped;
use super::record::recorded;
use super::{Tree, cache, packages};

/// More than a unit's object takes, with its debug sections.
const MAX_OBJECT: u64 = 1 << 30;

/// How a unit before was made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Made {
    /// The [`WAY`] of that time.
    #[serde(default)]
    way: u32,
    /// Of the object.
    sha256: String,
    pub(super) command: String,
    /// The files that it was made from; empty if that is not known.
    #[serde(default)]
    files: Vec<String>,
}

impl Made {
    /// Whether the unit is made from one of these files, or might be from one of these new ones, of
    /// which only the last part of the path is given.
    pub(super) fn reads(&self, changed: &[&str], new: &[&str]) -> bool {
        let last = |path: &str| path.rsplit('/').next().is_some_and(|name| new.contains(&name));
        self.files.is_empty()
            || self.files.iter().any(|file| changed.contains(&file.as_str()) || last(file))
    }
}

/// How kbuild is asked for units. What was made in another way is not taken from the cache: 0 may lack
/// options that kbuild adds late ([`Tree::make_units`]).
const WAY: u32 = 1;

fn sidecar(units: &Path, object: &str) -> PathBuf {
    units.join(format!("{object}.json"))
}

/// Where a unit is with its debug sections, compressed.
pub(super) fn whole(units: &Path, object: &str) -> PathBuf {
    units.join(format!("{object}.debug"))
}

/// The command and the object of a unit that was compiled before and is undamaged.
pub(super) fn kept(units: &Path, object: &str) -> Option<(Made, Vec<u8>)> {
    let made = std::fs::read(sidecar(units, object)).ok()?;
    let made: Made = serde_json::from_slice(&made).ok()?;
    let bytes = std::fs::read(units.join(object)).ok()?;
    if !whole(units, object).is_file() {
        return None;
    }
    (made.way == WAY && packages::sum(&bytes) == made.sha256).then_some((made, bytes))
}

/// Puts a unit that kbuild has just made into the cache.
pub(super) fn keep(tree: &Tree, units: &Path, object: &str) -> Result<()> {
    let made = tree.source().join(object);
    let directory = object.rsplit_once('/').map_or("", |(directory, _)| directory);
    let (command, files) = recorded(&tree.source(), object)?;
    let bytes = stripped(tree, &made)?;
    cache::create(&units.join(directory))?;
    cache::write_whole(
        &whole(units, object),
        &compressed(&made).with_context(|| format!("cannot read {}", made.display()))?,
    )?;
    cache::write_whole(&units.join(object), &bytes)?;
    let made = Made { way: WAY, sha256: packages::sum(&bytes), command, files };
    cache::write_whole(&sidecar(units, object), &serde_json::to_vec_pretty(&made)?)
}

/// A file, compressed, with a sum of its contents.
pub(super) fn compressed(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut out = zstd::Encoder::new(Vec::new(), 1)?;
    out.include_checksum(true)?;
    std::io::copy(&mut std::fs::File::open(path)?, &mut out)?;
    out.finish()
}

/// What [`compressed`] made of a file.
pub(super) fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = zstd::Decoder::new(std::fs::File::open(path)?)?;
        file.take(MAX_OBJECT).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().with_context(|| format!("{} is damaged; delete it, and try again", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::record::files;
    use super::*;

    #[test]
    fn a_unit_is_left_out_only_if_it_is_known_what_it_reads() {
        let text = "cmd_d/a.o := gcc\n\nsource_d/a.o := d/a.c\n\ndeps_d/a.o := \\\n    \
                    $(wildcard include/config/SMP) \\\n  include/linux/x.h \\\n  ./d/../d/y.h \\\n\n\
                    d/a.o: $(deps_d/a.o)\n";
        let files = files(text);
        assert_eq!(files, ["d/a.c", "include/linux/x.h", "d/y.h"]);
        let mut made = Made { way: WAY, sha256: String::new(), command: String::new(), files };
        assert!(made.reads(&["include/linux/x.h"], &[]) && made.reads(&["no.h", "d/a.c"], &[]));
        assert!(!made.reads(&["include/linux/z.h"], &["z.h"]));
        assert!(made.reads(&["include/x.h"], &["x.h"]), "it may be found first");
        made.files.clear();
        assert!(made.reads(&["include/linux/z.h"], &[]));
    }

    #[test]
    fn a_damaged_unit_is_not_taken() {
        let units = tempfile::tempdir().unwrap();
        let mut made = Made {
            way: WAY,
            sha256: packages::sum(b"object"),
            command: "c".into(),
            files: Vec::new(),
        };
        std::fs::write(units.path().join("a.o"), b"object").unwrap();
        std::fs::write(whole(units.path(), "a.o"), b"").unwrap();
        let told = |made: &Made| {
            let text = serde_json::to_vec(made).unwrap();
            std::fs::write(sidecar(units.path(), "a.o"), text).unwrap();
        };
        told(&made);
        assert!(kept(units.path(), "a.o").is_some());
        std::fs::write(units.path().join("a.o"), b"objecT").unwrap();
        assert!(kept(units.path(), "a.o").is_none());
        std::fs::write(units.path().join("a.o"), b"object").unwrap();
        made.way = WAY - 1;
        told(&made);
        assert!(kept(units.path(), "a.o").is_none(), "it was made in another way");
    }
}
