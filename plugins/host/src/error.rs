// SPDX-License-Identifier: GPL-2.0-or-later
//! What can be wrong with a plugin: one clear line each.

use std::path::PathBuf;

/// Why a plugin is not used. Every message is one line and begins with the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The file or directory cannot be read.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// Splice runs as root, and somebody else could change the file.
    #[error("{}: not loaded as root: {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Which file or directory, and what about it.
        why: String,
    },
    /// Not an ELF file.
    #[error("{}: not an ELF file", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// An ELF file, but no shared library.
    #[error("{}: an ELF file, but not a shared library", path.display())]
    NotLibrary {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before what its headers announce.
    #[error("{}: damaged or truncated: {why}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A library for another processor than the one that splice runs on.
    #[error("{}: built to run on {found}, but splice runs on {host}", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// What it is built for.
        found: String,
        /// What this process is built for.
        host: String,
    },
    /// A library without splice's note.
    #[error("{}: not a splice plugin (it has no note of splice's)", path.display())]
    NoNote {
        /// The file.
        path: PathBuf,
    },
    /// A note of splice's that makes no sense.
    #[error("{}: its note is malformed: {why}", path.display())]
    BadNote {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another version of the interface.
    #[error(
        "{}: made for version {found} of the plugin interface, this splice has version {ours}",
        path.display()
    )]
    OtherAbi {
        /// The file.
        path: PathBuf,
        /// The plugin's version.
        found: u32,
        /// The host's version.
        ours: u32,
    },
    /// The dynamic loader refused it.
    #[error("{}: cannot be loaded: {why}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The loader's reason.
        why: String,
    },
    /// The types behind the entries are not those of the version that the note claims.
    #[error("{}: does not have the plugin interface that its note claims: {why}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// What differs, briefly.
        why: String,
    },
    /// It panicked while it was loaded.
    #[error("{}: panicked while it was loaded: {why}", path.display())]
    Panicked {
        /// The file.
        path: PathBuf,
        /// What it said, and where.
        why: String,
    },
    /// What it says about its architecture cannot be right.
    #[error("{}: says what cannot be right: {why}", path.display())]
    Nonsense {
        /// The file.
        path: PathBuf,
        /// What.
        why: String,
    },
    /// The architecture is there already.
    #[error("{}: {name} (ELF machine {e_machine}) is already provided by {other}", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The architecture's name.
        name: String,
        /// Its ELF machine number.
        e_machine: u16,
        /// Who has it.
        other: String,
    },
}

impl PluginError {
    /// The file or directory that it is about.
    pub fn path(&self) -> &std::path::Path {
        match self {
            PluginError::Unreadable { path, .. }
            | PluginError::Untrusted { path, .. }
            | PluginError::NotElf { path }
            | PluginError::NotLibrary { path }
            | PluginError::Truncated { path, .. }
            | PluginError::OtherMachine { path, .. }
            | PluginError::NoNote { path }
            | PluginError::BadNote { path, .. }
            | PluginError::OtherAbi { path, .. }
            | PluginError::Open { path, .. }
            | PluginError::Layout { path, .. }
            | PluginError::Panicked { path, .. }
            | PluginError::Nonsense { path, .. }
            | PluginError::Duplicate { path, .. } => path,
        }
    }
}

/// Somebody else's message as a piece of one line.
pub(crate) fn one_line(text: &str) -> String {
    const MOST: usize = 200;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String =
        words.join(" ").chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(one_line("a\n  b\tc\u{1b}"), "a b c?");
        let long = one_line(&"ä".repeat(1000));
        assert_eq!(long.chars().count(), 201);
    }
}
