// SPDX-License-Identifier: GPL-2.0-or-later
//! Installed updates: files that wait for the next start of their kernel.
//!
//! Below [`ROOT`] each kernel release has a directory, and in it `NNNN-ID.splice` for each update, in
//! the order in which they are applied. `trying` names the one that is being applied just now and the
//! start of the machine that this is in, and is on the disk before it begins; so if it is still there
//! after another start, the machine went down meanwhile. That update then has a `NNNN-ID.held`, and is
//! left alone until somebody installs it again.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::kernel::cache;

/// Where they are.
const ROOT: &str = "/var/lib/splice";
/// Says another place, for an image that is being built, or a test.
const ELSEWHERE: &str = "SPLICE_STATE";
const TRYING: &str = "trying";
/// Tells one start of the machine from another (drivers/char/random.c, `proc_do_uuid`).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// An installed update.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Installed {
    /// The kernel's release.
    pub(crate) release: String,
    /// When it is applied among those of its release.
    pub(crate) number: u32,
    /// Its id.
    pub(crate) id: String,
    /// Whether it is left alone: it was being applied when the machine went down.
    pub(crate) held: bool,
    /// The update file.
    pub(crate) file: PathBuf,
}

/// All installed updates.
pub(super) struct Store {
    root: PathBuf,
    /// The start of the machine; empty if the kernel does not say.
    boot: String,
}

impl Default for Store {
    fn default() -> Self {
        let elsewhere = std::env::var_os(ELSEWHERE).filter(|value| !value.is_empty());
        let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
        Self {
            root: elsewhere.map_or_else(|| PathBuf::from(ROOT), PathBuf::from),
            boot: boot.trim().to_owned(),
        }
    }
}

impl Store {
    /// Held while the store is changed, or what is in it applied.
    pub(super) fn lock(&self) -> Result<cache::Lock> {
        cache::create(&self.root)?;
        cache::lock(&self.root.join(".lock"), &mut |_| ())
    }

    fn place(&self, release: &str) -> PathBuf {
        self.root.join(release)
    }

    /// The releases that updates are installed for.
    pub(super) fn releases(&self) -> Result<Vec<String>> {
        let mut releases = names(&self.root)?;
        releases.retain(|name| self.root.join(name).is_dir());
        Ok(releases)
    }

    /// What is installed for a release, in the order of application.
    pub(super) fn of(&self, release: &str) -> Result<Vec<Installed>> {
        let place = self.place(release);
        let mut all: Vec<Installed> = names(&place)?
            .iter()
            .filter_map(|name| {
                let (number, id) = name.strip_suffix(".splice")?.split_once('-')?;
                let file = place.join(name);
                Some(Installed {
                    release: release.to_owned(),
                    number: number.parse().ok()?,
                    id: id.to_owned(),
                    held: held(&file).exists(),
                    file,
                })
            })
            .collect();
        all.sort();
        Ok(all)
    }

    /// Installs an update: in the place of one with its id, or behind all others of its release.
    pub(super) fn put(&self, release: &str, id: &str, bytes: &[u8]) -> Result<Installed> {
        let place = self.place(release);
        cache::create(&place)?;
        let there = self.of(release)?;
        let before = there.iter().find(|one| one.id == id);
        let last = there.last().map_or(0, |one| one.number);
        let number = before.map_or(last.saturating_add(1), |one| one.number);
        let file = place.join(format!("{number:04}-{id}.splice"));
        write(&file, bytes)?;
        remove(&held(&file))?;
        sync(&place)?;
        let release = release.to_owned();
        Ok(Installed { release, number, id: id.to_owned(), held: false, file })
    }

    /// Takes an update away.
    pub(super) fn take(&self, update: &Installed) -> Result<()> {
        remove(&update.file)?;
        remove(&held(&update.file))?;
        sync(&self.place(&update.release))?;
        // Another release's may be in there.
        let _ = std::fs::remove_dir(self.place(&update.release));
        Ok(())
    }

    /// Notes on the disk that an update is being applied.
    pub(super) fn begin(&self, update: &Installed) -> Result<()> {
        let place = self.place(&update.release);
        let name = update.file.file_name().unwrap_or_default().to_string_lossy();
        write(&place.join(TRYING), format!("{name}\n{}", self.boot).as_bytes())
    }

    /// Notes that this is over, however it ended.
    pub(super) fn end(&self, update: &Installed) -> Result<()> {
        let place = self.place(&update.release);
        remove(&place.join(TRYING))?;
        sync(&place)
    }

    /// Holds the update that was being applied when the machine went down, if there is one.
    pub(super) fn settle(&self, release: &str) -> Result<()> {
        let place = self.place(release);
        let trying = place.join(TRYING);
        let text = match std::fs::read_to_string(&trying) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| trying.display().to_string()),
        };
        let (name, boot) = text.split_once('\n').unwrap_or((&text, ""));
        // Only the command that was applying it was killed.
        let went_down = self.boot.is_empty() || boot != self.boot;
        // Uninstalled since, or not written whole: then the machine went down before it began.
        let is =
            |one: &&Installed| went_down && one.file.file_name().is_some_and(|file| *file == *name);
        if let Some(update) = self.of(release)?.iter().find(is) {
            write(&held(&update.file), b"")?;
        }
        remove(&trying)?;
        sync(&place)
    }
}

impl Installed {
    /// Fails if somebody else than root could have put it there, or could put something in its place.
    pub(super) fn is_roots(&self) -> Result<(), Failure> {
        let looked = |path: &Path| format!("cannot look at {}", path.display());
        let place = self.file.parent().unwrap_or(&self.file);
        let place = std::fs::canonicalize(place).with_context(|| looked(place))?;
        for path in std::iter::once(self.file.as_path()).chain(place.ancestors()) {
            let facts = std::fs::symlink_metadata(path).with_context(|| looked(path))?;
            // Where everybody may make files, but each only remove their own, as in /tmp.
            let is_shared = path != place && facts.is_dir() && facts.mode() & 0o1000 != 0;
            let others_may = facts.mode() & 0o022 != 0 && !is_shared;
            if facts.uid() != 0 || others_may || facts.is_symlink() {
                let text = format!(
                    "{} belongs to another user than root, or others may write to it; look who did \
                     that, and install the update again",
                    path.display()
                );
                return Err(Failure::new(Exit::NotPermitted, text));
            }
        }
        Ok(())
    }
}

fn held(file: &Path) -> PathBuf {
    file.with_extension("held")
}

/// The names in a directory; none if it is not there.
fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot list {}", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.with_context(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file to the disk, so that it is there as a whole or what was there before still is.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // Under another name first: a rename may get to the disk before what was written.
    let whole = path.with_extension("new");
    cache::write_whole(&whole, bytes)?;
    sync(&whole)?;
    std::fs::rename(&whole, path).with_context(|| format!("cannot write {}", path.display()))?;
    sync(path.parent().unwrap_or(path))
}

/// Waits until a file, or what a directory lists, is on the disk.
fn sync(path: &Path) -> Result<()> {
    let written = File::open(path).and_then(|file| file.sync_all());
    if let Err(error) = written {
        bail!("cannot write {} to the disk: {error}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("state");
        (directory, Store { root, boot: "one".to_owned() })
    }

    fn ids(store: &Store, release: &str) -> Vec<(u32, String, bool)> {
        let all = store.of(release).unwrap();
        all.into_iter().map(|one| (one.number, one.id, one.held)).collect()
    }

    #[test]
    fn updates_keep_their_order_and_their_kernels() {
        let (_directory, store) = store();
        assert!(store.releases().unwrap().is_empty());
        for (release, id) in [("6.1", "z"), ("6.1", "a-b"), ("6.12", "z"), ("6.1", "m")] {
            store.put(release, id, id.as_bytes()).unwrap();
        }
        let again = store.put("6.1", "a-b", b"other").unwrap();
        assert_eq!(std::fs::read(&again.file).unwrap(), b"other");
        let all = [(1, "z".into(), false), (2, "a-b".into(), false), (3, "m".into(), false)];
        assert_eq!(ids(&store, "6.1"), all);
        assert_eq!(store.releases().unwrap(), ["6.1", "6.12"]);
        store.take(&again).unwrap();
        assert_eq!(ids(&store, "6.1").len(), 2);
        store.take(&store.of("6.12").unwrap()[0]).unwrap();
        assert_eq!(store.releases().unwrap(), ["6.1"]);
    }

    #[test]
    fn what_others_may_write_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, store) = store();
        let update = store.put("6.1", "open", b"1").unwrap();
        std::fs::set_permissions(&update.file, PermissionsExt::from_mode(0o666)).unwrap();
        let failure = update.is_roots().unwrap_err();
        assert_eq!(failure.exit, Exit::NotPermitted);
        assert!(failure.text.contains("0001-open.splice"), "{}", failure.text);

        // Whoever may write to a directory above can put another one in its place.
        std::fs::set_permissions(&update.file, PermissionsExt::from_mode(0o644)).unwrap();
        if rustix::process::geteuid().is_root() {
            update.is_roots().unwrap();
        }
        std::fs::set_permissions(&store.root, PermissionsExt::from_mode(0o777)).unwrap();
        let failure = update.is_roots().unwrap_err();
        assert_eq!(failure.exit, Exit::NotPermitted);
    }

    #[test]
    fn what_a_killed_command_was_applying_is_tried_again() {
        let (_directory, store) = store();
        let update = store.put("6.1", "fix", b"1").unwrap();
        store.begin(&update).unwrap();
        store.settle("6.1").unwrap();
        assert_eq!(ids(&store, "6.1"), [(1, "fix".into(), false)]);
        assert!(!store.place("6.1").join(TRYING).exists());
    }

    #[test]
    fn what_was_being_applied_when_the_machine_went_down_is_held() {
        let (_directory, mut store) = store();
        let first = store.put("6.1", "first", b"1").unwrap();
        let second = store.put("6.1", "second", b"2").unwrap();
        store.begin(&first).unwrap();
        store.end(&first).unwrap();
        store.settle("6.1").unwrap();
        assert_eq!(ids(&store, "6.1").iter().filter(|(_, _, held)| *held).count(), 0);
        store.begin(&second).unwrap();
        store.boot = "two".to_owned();
        for _ in 0..2 {
            store.settle("6.1").unwrap();
            let held = [(1, "first".into(), false), (2, "second".into(), true)];
            assert_eq!(ids(&store, "6.1"), held);
        }
        // Whoever installs it again says that it is to be tried.
        store.put("6.1", "second", b"2").unwrap();
        assert!(ids(&store, "6.1").iter().all(|(_, _, held)| !held));
        // A mark that did not get to the disk holds nothing.
        std::fs::write(store.place("6.1").join(TRYING), "").unwrap();
        store.settle("6.1").unwrap();
        assert!(ids(&store, "6.1").iter().all(|(_, _, held)| !held));
        // One that is gone is no matter.
        store.begin(&second).unwrap();
        store.boot = "three".to_owned();
        store.take(&second).unwrap();
        store.settle("6.1").unwrap();
        assert_eq!(ids(&store, "6.1"), [(1, "first".into(), false)]);
    }
}
