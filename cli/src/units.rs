// SPDX-License-Identifier: GPL-2.0-or-later
//! The units of a kernel's build tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use object::LittleEndian as LE;
use object::elf::{FileHeader64, SHT_SYMTAB, STT_FILE};
use object::read::elf::FileHeader;

use crate::exit::Failure;

/// Directories of a kernel tree that hold the build's own programs.
const PROGRAMS: [&str; 2] = ["scripts", "tools"];

/// Whether an object was linked from several: then its symbols name several source files. What
/// cannot be read is not known to be.
pub(crate) fn is_linked(object: &[u8]) -> bool {
    let files = || -> object::read::Result<usize> {
        let header = FileHeader64::<LE>::parse(object)?;
        let endian = header.endian()?;
        let symbols = header.sections(endian, object)?.symbols(endian, object, SHT_SYMTAB)?;
        Ok(symbols.iter().filter(|s| s.st_type() == STT_FILE).take(2).count())
    };
    files().is_ok_and(|count| count > 1)
}

/// The objects below a directory that may be kernel units, by their paths below it.
pub(crate) fn objects(root: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let directory = root.join(&below);
        let cannot = || format!("cannot list {}", directory.display());
        for entry in std::fs::read_dir(&directory).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            // A build tree has links to its source tree, which are not followed.
            let kind = entry.file_type().with_context(cannot)?;
            let path = below.join(entry.file_name());
            let file_name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                let programs = PROGRAMS.contains(&file_name.as_str());
                if !(programs && below.as_os_str().is_empty()) {
                    open.push(path);
                }
            } else if file_name.ends_with(".o")
                && !file_name.ends_with(".mod.o")
                && !file_name.starts_with('.')
            {
                found.insert(path);
            }
        }
    }
    Ok(found)
}
