// SPDX-License-Identifier: GPL-2.0-or-later
//! Where plugins are looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::PluginError;

/// Where the system's plugins are, the administrator's before the distribution's.
const SYSTEM: [&str; 2] = ["/usr/local/lib/splice/plugins", "/usr/lib/splice/plugins"];

/// How a file was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Named by the user: it must be usable.
    Explicit,
    /// In a directory of `SPLICE_PLUGIN_PATH`.
    Environment,
    /// In the user's data directory.
    User,
    /// In the system's directories.
    System,
}

/// What is searched, in that order: files that the user named, then directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Files that the user named.
    pub files: Vec<PathBuf>,
    /// Directories, each of whose `*.so` files is a candidate.
    pub directories: Vec<(Origin, PathBuf)>,
}

impl Search {
    /// The usual places: `files`; the directories of `SPLICE_PLUGIN_PATH`, separated by colons;
    /// `splice/plugins` in the user's data directory (`XDG_DATA_HOME` or `~/.local/share`); and
    /// the system's.
    pub fn from_environment(files: Vec<PathBuf>) -> Search {
        Search::from_variables(files, |name| std::env::var_os(name))
    }

    fn from_variables(files: Vec<PathBuf>, get: impl Fn(&str) -> Option<OsString>) -> Search {
        let mut directories = Vec::new();
        if let Some(path) = get("SPLICE_PLUGIN_PATH") {
            let parts = std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty());
            directories.extend(parts.map(|p| (Origin::Environment, p)));
        }
        // As the XDG rules have it, a relative path is as good as none.
        let absolute = |name: &str| get(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let data =
            absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        directories.extend(data.map(|d| (Origin::User, d.join("splice/plugins"))));
        directories.extend(SYSTEM.map(|d| (Origin::System, PathBuf::from(d))));
        Search { files, directories }
    }

    /// All candidates in order, those of a directory sorted by name, and the directories that
    /// cannot be read. A directory that does not exist is none of these.
    pub(crate) fn candidates(&self) -> (Vec<(Origin, PathBuf)>, Vec<PluginError>) {
        let mut found: Vec<_> = self.files.iter().map(|f| (Origin::Explicit, f.clone())).collect();
        let mut errors = Vec::new();
        for (origin, directory) in &self.directories {
            match libraries(directory) {
                Ok(files) => found.extend(files.into_iter().map(|f| (*origin, f))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => errors.push(PluginError::Unreadable {
                    path: directory.clone(),
                    why: crate::error::one_line(&e.to_string()),
                }),
            }
        }
        (found, errors)
    }
}

fn libraries(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "so") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(variables: &[(&str, &str)]) -> Vec<(Origin, String)> {
        let get = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        };
        let search = Search::from_variables(Vec::new(), get);
        search.directories.into_iter().map(|(o, p)| (o, p.display().to_string())).collect()
    }

    #[test]
    fn the_order_is_environment_user_system() {
        let got = search(&[("SPLICE_PLUGIN_PATH", "/a::b"), ("HOME", "/home/u")]);
        let want = [
            (Origin::Environment, "/a"),
            (Origin::Environment, "b"),
            (Origin::User, "/home/u/.local/share/splice/plugins"),
            (Origin::System, "/usr/local/lib/splice/plugins"),
            (Origin::System, "/usr/lib/splice/plugins"),
        ];
        assert_eq!(got, want.map(|(o, p)| (o, p.to_owned())));
    }

    #[test]
    fn the_data_directory_is_as_xdg_has_it() {
        let user = |variables: &[(&str, &str)]| {
            search(variables).into_iter().find(|(o, _)| *o == Origin::User).map(|(_, p)| p)
        };
        assert_eq!(user(&[]), None);
        let got = user(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]);
        assert_eq!(got.as_deref(), Some("/d/splice/plugins"));
        let got = user(&[("XDG_DATA_HOME", "d"), ("HOME", "/h")]);
        assert_eq!(got.as_deref(), Some("/h/.local/share/splice/plugins"));
    }
}
