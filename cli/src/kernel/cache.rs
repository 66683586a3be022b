// SPDX-License-Identifier: GPL-2.0-or-later
//! The cache directory, and locks on what is in it.
//!
//! Everything in it can be made again, and may be deleted while no command runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The user's cache: `$XDG_CACHE_HOME/splice`, or `~/.cache/splice`.
pub fn root() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME says where the cache is"),
    };
    Ok(base.join("splice"))
}

/// A directory of the cache, made if it is not there.
pub fn directory(name: &str) -> Result<PathBuf> {
    let path = root()?.join(name);
    create(&path)?;
    Ok(path)
}

/// Makes a directory and those above it.
pub(crate) fn create(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

/// A lock that ends with its holder, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits until no other process has the lock of that file; says so if it has to wait.
pub fn lock(path: &Path, note: &mut dyn FnMut(&str)) -> Result<Lock> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(Lock { _file: file });
    }
    note("waiting for another splice that uses the same kernel tree");
    wait(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(Lock { _file: file })
}

/// Waits for a file's lock, whatever signals come.
pub(crate) fn wait(file: &File, operation: FlockOperation) -> std::io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Writes a file so that it is there as a whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = || format!("cannot write {}", path.display());
    let mut file =
        tempfile::Builder::new().prefix(".splice-").tempfile_in(directory).with_context(failed)?;
    std::io::Write::write_all(&mut file, bytes).with_context(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).with_context(failed)?;
    file.persist(path).map_err(|e| e.error).with_context(failed)?;
    Ok(())
}

/// Held while temporary files are made in a directory. Whoever finds nobody else there removes what
/// killed processes have left behind.
pub(crate) fn visit(directory: &Path) -> Result<Lock> {
    create(directory)?;
    let path = directory.join(".visitors");
    let failed = || format!("cannot lock {}", path.display());
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        sweep(directory);
    }
    wait(&file, FlockOperation::LockShared).with_context(failed)?;
    Ok(Lock { _file: file })
}

/// Removes the temporary files and directories of a directory that nobody else uses.
pub(crate) fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".splice-") {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(entry.path());
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn leavings_are_swept_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        for name in [".splice-a", "keep"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::fs::write(directory.path().join(".splice-b"), "").unwrap();
        sweep(directory.path());
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name(), "keep");
    }

    #[test]
    fn only_a_lone_visitor_sweeps() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(".splice-left");
        let first = visit(directory.path()).unwrap();
        std::fs::write(&left, "").unwrap();
        let second = visit(directory.path()).unwrap();
        assert!(left.exists(), "it may be the first visitor's");
        drop((first, second));
        let _third = visit(directory.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = lock(&path, &mut |_| ()).unwrap();
        let other = File::open(&path).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}
