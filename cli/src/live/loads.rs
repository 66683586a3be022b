// SPDX-License-Identifier: GPL-2.0-or-later
//! Which of an update's target modules are in the kernel, and by which load of each: between the look
//! at the kernel and the switch, none of them may come, go, or come again at another place.
//!
//! The number of its target's load goes into each update module. The kernel side holds that load of it from
//! before the module is linked to anything, and takes no other; what was seen is compared again after that, for
//! those that were not there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use splice_core::runpre::VMLINUX;
use splice_core::update::Manifest;

use super::LiveError;

/// For each target module the number of its directory in sysfs; no two directories in the life of a
/// kernel have the same (64-bit numbers of fs/kernfs/dir.c, since 5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loads(BTreeMap<String, Option<u64>>);

impl Loads {
    /// Those that there are now, in that directory of sysfs.
    pub(super) fn now(modules: &Path, manifest: &Manifest) -> Result<Self, LiveError> {
        let names = manifest.targets.iter().map(|target| &target.name);
        let loads = names
            .filter(|name| *name != VMLINUX)
            .map(|name| Ok((name.clone(), load(modules, name)?)));
        Ok(Self(loads.collect::<Result<_, LiveError>>()?))
    }

    /// The number of a target's load; zero for the kernel's image.
    pub(super) fn number(&self, target: &str) -> u64 {
        self.0.get(target).copied().flatten().unwrap_or(0)
    }

    /// Just these are not loaded.
    pub(super) fn lack(&self, absent: &[String]) -> Result<(), LiveError> {
        match self.0.iter().find(|(name, load)| load.is_none() != absent.contains(name)) {
            Some((name, _)) => Err(LiveError::Moved(name.clone())),
            None => Ok(()),
        }
    }

    /// They are the same as now.
    pub(super) fn still(&self, modules: &Path, manifest: &Manifest) -> Result<(), LiveError> {
        let now = Self::now(modules, manifest)?;
        match self.0.iter().find(|(name, load)| now.0.get(*name) != Some(load)) {
            Some((name, _)) => Err(LiveError::Moved(name.clone())),
            None => Ok(()),
        }
    }
}

/// A module's load, if it is there as a whole.
fn load(modules: &Path, name: &str) -> Result<Option<u64>, LiveError> {
    let directory = modules.join(name);
    let missing = |path: &Path, source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(LiveError::Io { path: path.display().to_string(), source }),
    };
    let number = match directory.metadata() {
        Ok(metadata) => metadata.ino(),
        Err(error) => return missing(&directory, error),
    };
    // What is built into the kernel may have a directory, without this file.
    let state = directory.join("initstate");
    match std::fs::read_to_string(&state) {
        Ok(text) if text.trim() == "live" => Ok(Some(number)),
        Ok(_) => Err(LiveError::Moved(name.to_owned())),
        Err(error) => missing(&state, error),
    }
}

/// Whether a module is in the kernel, whole or not.
pub(super) fn is_there(modules: &Path, name: &str) -> bool {
    modules.join(name).join("initstate").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kernel(tempfile::TempDir);

    impl Kernel {
        fn load(&self, name: &str, state: &str) {
            std::fs::create_dir_all(self.0.path().join(name)).unwrap();
            std::fs::write(self.0.path().join(name).join("initstate"), state).unwrap();
        }

        fn unload(&self, name: &str) {
            // Kept under another name, so that its number is not given to the next one.
            let gone = self.0.path().join(format!("{name}-gone"));
            std::fs::rename(self.0.path().join(name), gone).unwrap();
        }
    }

    fn manifest() -> Manifest {
        let target = |name: &str| {
            format!(
                r#"{{"name":"{name}","module":"","module_name":"","units":[],"functions":[],
                    "objects":[],"hooks":[],"shadows":[],"symbols":[]}}"#
            )
        };
        let targets = ["vmlinux", "a", "b"].map(target).join(",");
        let text = format!(
            r#"{{"version":2,"id":"x","description":"","arch":"","release":"","compiler":"",
                "core":{{"file":"","abi":2,"symbols":[]}},"targets":[{targets}],"files":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn moved(result: Result<(), LiveError>) -> Option<String> {
        match result {
            Ok(()) => None,
            Err(LiveError::Moved(name)) => Some(name),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_module_that_comes_goes_or_comes_again_is_noticed() {
        let kernel = Kernel(tempfile::tempdir().unwrap());
        let (root, all) = (kernel.0.path(), manifest());
        kernel.load("a", "live\n");
        // Built in.
        std::fs::create_dir(root.join("b")).unwrap();
        let before = Loads::now(root, &all).unwrap();
        assert_eq!(moved(before.still(root, &all)), None);
        assert_eq!(moved(before.lack(&["b".to_owned()])), None);
        assert_eq!(moved(before.lack(&[])).as_deref(), Some("b"));
        assert_eq!(moved(before.lack(&["a".to_owned(), "b".to_owned()])).as_deref(), Some("a"));
        kernel.unload("a");
        assert_eq!(moved(before.still(root, &all)).as_deref(), Some("a"));
        kernel.load("a", "live\n");
        assert_eq!(moved(before.still(root, &all)).as_deref(), Some("a"), "it is another load");
        let before = Loads::now(root, &all).unwrap();
        kernel.load("b", "live\n");
        assert_eq!(moved(before.still(root, &all)).as_deref(), Some("b"));
        assert!(is_there(root, "b") && !is_there(root, "c"));
        for passing in ["coming\n", "going\n"] {
            kernel.load("a", passing);
            assert_eq!(moved(Loads::now(root, &all).map(drop)).as_deref(), Some("a"));
        }
    }
}
