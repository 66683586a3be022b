// SPDX-License-Identifier: GPL-2.0-or-later
//! `create --modules`: the fixed modules, for the next time that they are loaded.
//!
//! All are written, or none is, and nothing that is there already is written over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use splice_core::runpre::VMLINUX;
use splice_core::update::Target;
use tempfile::NamedTempFile;

use super::refuse::unless_accepted;
use crate::args::CreateArgs;
use crate::exit::{Exit, Failure};
use crate::kernel::{self, Built, Compiled, Kbuild, Owner, Patched, Tree, cache};
use crate::sign::Signer;

/// The modules that differ: where each is to be written, and its path in the kernel tree.
pub(super) type Wanted = BTreeMap<PathBuf, String>;

/// Which modules differ, and that each may be written.
pub(super) fn wanted(
    tree: &Tree,
    directory: &Path,
    units: &BTreeMap<String, Built>,
    compiled: &[Compiled],
) -> Result<Wanted, Failure> {
    let mut kbuild = Kbuild::new(tree);
    let mut wanted = Wanted::new();
    let mut seen = BTreeSet::new();
    for unit in compiled.iter().filter(|unit| unit.pre != unit.post) {
        let Some(built) = units.get(&unit.name) else { continue };
        let Owner::Module(name) = &built.owner else { continue };
        if !seen.insert(name) {
            continue;
        }
        let path = kbuild.module(&built.goal, name)?.ok_or_else(|| {
            let text = format!(
                "no makefile tells where the module {name} of {} is built, so the fixed one cannot be \
                 made; leave --modules out",
                unit.name
            );
            Failure::new(Exit::Refused, text)
        })?;
        let file = path.rsplit('/').next().unwrap_or(&path);
        wanted.insert(directory.join(format!("{file}.ko")), path);
    }
    wanted.keys().try_for_each(|file| free(file))?;
    Ok(wanted)
}

/// A module that is loaded from the disk must not need splice.
pub(super) fn without_splice(target: &Target) -> Result<(), Failure> {
    if target.name == VMLINUX || (target.hooks.is_empty() && target.shadows.is_empty()) {
        return Ok(());
    }
    let text = format!(
        "the fixed module {} would need splice for its hooks and shadow variables; leave --modules out",
        target.name
    );
    Err(Failure::new(Exit::Refused, text))
}

fn free(file: &Path) -> Result<(), Failure> {
    match file.symlink_metadata() {
        Ok(_) => Err(taken(file)),
        Err(_) => Ok(()),
    }
}

fn taken(file: &Path) -> Failure {
    let text = format!(
        "{} is there already and is not written over; remove it, or name another directory",
        file.display()
    );
    Failure::new(Exit::Failed, text)
}

/// The modules, built.
pub(super) struct Fixed(Vec<(PathBuf, Vec<u8>)>);

/// Builds the modules; refuses what modules on disk that use them could not be loaded with.
pub(super) fn build(
    tree: &Tree,
    patched: &Patched,
    wanted: &Wanted,
    (args, jobs): (&CreateArgs, usize),
    note: &mut dyn FnMut(&str),
) -> Result<Fixed, Failure> {
    let mut all = Vec::new();
    let mut objections = Vec::new();
    let signer = Signer::named(&args.signing);
    for (file, path) in wanted {
        note(&format!("building the fixed module {path}"));
        let fixed = kernel::fixed_module(tree, patched, path, jobs, note)?;
        objections.extend(fixed.objections);
        all.push((file.clone(), Signer::perhaps(signer.as_ref(), fixed.module)?));
    }
    unless_accepted(objections, &args.accept)?;
    Ok(Fixed(all))
}

/// Files that are removed again unless they are kept.
pub(super) struct Written(Vec<PathBuf>);

impl Written {
    /// They stay.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for file in &self.0 {
            // What cannot be removed is whole.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Fixed {
    /// Writes all of them.
    pub(super) fn write(&self) -> Result<Written, Failure> {
        let mut whole: Vec<(NamedTempFile, &Path)> = Vec::new();
        for (file, bytes) in &self.0 {
            let directory = file.parent().unwrap_or(Path::new("."));
            let failed = || format!("cannot write {}", file.display());
            cache::create(directory)?;
            let mut temporary = tempfile::Builder::new()
                .prefix(".splice-")
                .tempfile_in(directory)
                .with_context(failed)?;
            temporary.write_all(bytes).with_context(failed)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            temporary.as_file().set_permissions(mode).with_context(failed)?;
            whole.push((temporary, file));
        }
        let mut written = Written(Vec::new());
        for (temporary, file) in whole {
            match temporary.persist_noclobber(file) {
                Ok(_) => written.0.push(file.to_owned()),
                Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(taken(file));
                }
                Err(error) => {
                    let why = format!("cannot write {}: {}", file.display(), error.error);
                    return Err(Failure::new(Exit::Failed, why));
                }
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_modules_are_written_or_none_and_nothing_is_written_over() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("new");
        let file = |name: &str| directory.join(name);
        let fixed = Fixed(vec![(file("a.ko"), b"one".to_vec()), (file("b.ko"), b"two".to_vec())]);
        drop(fixed.write().unwrap());
        let left = || std::fs::read_dir(&directory).unwrap().count();
        assert_eq!(left(), 0, "what is not kept goes");
        std::fs::write(file("b.ko"), "mine").unwrap();
        let error = fixed.write().err().unwrap();
        assert!(error.text.contains("b.ko is there already"), "{}", error.text);
        assert_eq!(left(), 1);
        assert_eq!(std::fs::read(file("b.ko")).unwrap(), b"mine");
        std::fs::remove_file(file("b.ko")).unwrap();
        let kept = fixed.write().unwrap().keep();
        assert_eq!(kept, [file("a.ko"), file("b.ko")]);
        assert_eq!(std::fs::read(file("b.ko")).unwrap(), b"two");
        assert!(free(&file("b.ko")).is_err() && free(&file("c.ko")).is_ok());
    }
}
