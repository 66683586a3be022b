// SPDX-License-Identifier: GPL-2.0-or-later
//! Why the running kernel could not be changed or read, and the exit code that says so.

use std::fmt::Write;
use std::io;

use serde::Serialize;
use splice_core::plan::PlanError;
use splice_core::update::ArchiveError;

use super::sysfs::Conflict;
use crate::exit::{Exit, Failure};

/// Why a command on the running kernel failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    /// The privilege is missing, or the kernel forbids it to everybody.
    #[error("{0}")]
    NotPermitted(String),
    /// There is nothing to do.
    #[error("update {id} is applied already{}", come(left_out))]
    AlreadyApplied {
        /// The update.
        id: String,
        /// Targets that it left out and that are loaded now.
        left_out: Vec<String>,
    },
    /// A target module came or went at the wrong moment.
    #[error(
        "module {0} was loaded or unloaded meanwhile, so what was found out about the kernel does not \
         hold any more; nothing has changed, try again"
    )]
    Moved(String),
    /// No such update.
    #[error("update {id} is not applied; {}", known(others))]
    NotApplied {
        /// The id asked for.
        id: String,
        /// The ids that there are.
        others: Vec<String>,
    },
    /// Threads, or something else, stayed in the way.
    #[error("{}", busy(id, *attempts, why, conflicts))]
    Busy {
        /// The update.
        id: String,
        /// Attempts made by this command.
        attempts: u64,
        /// What the kernel side said last.
        why: String,
        /// Who was in the way last.
        conflicts: Vec<Conflict>,
    },
    /// Other updates stand on the one that is to be undone.
    #[error("{} on update {id}, so it cannot be undone before; undo that first", standing(above))]
    StoodOn {
        /// The update.
        id: String,
        /// Those above.
        above: Vec<String>,
    },
    /// The kernel side refused to switch.
    #[error("the kernel refused to switch update {id}: {why}")]
    Switch {
        /// The update.
        id: String,
        /// What it said.
        why: String,
    },
    /// The update refuses, by a hook or for the sake of its data.
    #[error("update {id} refuses, nothing has changed: {why}")]
    Refused {
        /// The update.
        id: String,
        /// What it said.
        why: String,
    },
    /// An update that was built on others cannot replace them.
    #[error(
        "update {0} was built with --base on what it would replace; create one without --base, from the \
         patches of all"
    )]
    Based(String),
    /// The loader refused a module.
    #[error("the kernel did not load module {module}: {why}")]
    Load {
        /// The module.
        module: String,
        /// Why, and the way out.
        why: String,
    },
    /// A module could not be removed.
    #[error("module {module} could not be removed: {source}")]
    Unload {
        /// The module.
        module: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A core of another version is loaded.
    #[error(
        "the loaded transaction core has interface {loaded}, the update needs {needed}; undo the \
         updates that `splice list` shows, which removes it"
    )]
    Core {
        /// Its version.
        loaded: String,
        /// The one needed.
        needed: u32,
    },
    /// A symbol of the kernel that the core needs is missing or has namesakes.
    #[error("the kernel has {count} functions {name}; the transaction core needs exactly one")]
    CoreSymbol {
        /// Its name.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// The update file lacks something.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The update's module could not be finished.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl LiveError {
    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NotPermitted(_) => Exit::NotPermitted,
            Self::Busy { .. } => Exit::Busy,
            Self::CoreSymbol { .. } | Self::Moved(_) => Exit::Mismatch,
            Self::StoodOn { .. } | Self::Refused { .. } | Self::Based(_) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

impl From<LiveError> for Failure {
    fn from(error: LiveError) -> Self {
        let failure = Self::new(error.exit(), error.to_string());
        match error {
            LiveError::Busy { attempts, conflicts, .. } => {
                failure.with(Details { attempts, conflicts })
            }
            _ => failure,
        }
    }
}

/// What machines are told about code in use.
#[derive(Debug, Serialize)]
struct Details {
    attempts: u64,
    conflicts: Vec<Conflict>,
}

fn come(left_out: &[String]) -> String {
    match left_out {
        [] => String::new(),
        names => format!(
            ", but without {}, which is loaded now; undo the update, and apply it again",
            names.join(", ")
        ),
    }
}

fn standing(above: &[String]) -> String {
    match above {
        [one] => format!("update {one} stands"),
        several => format!("updates {} stand", several.join(", ")),
    }
}

fn known(others: &[String]) -> String {
    if others.is_empty() {
        "no update is".to_owned()
    } else {
        format!("there are {}", others.join(", "))
    }
}

fn busy(id: &str, attempts: u64, why: &str, conflicts: &[Conflict]) -> String {
    let mut text = format!("gave up on update {id} after {attempts} attempts, nothing has changed");
    if conflicts.is_empty() {
        let _ = write!(text, ": {why}");
    }
    for conflict in conflicts {
        let _ = write!(text, "\n  {conflict}");
    }
    if !conflicts.is_empty() {
        text.push_str(
            "\nlet them end their work or end them, or give more time (--timeout, --retries)",
        );
    }
    text
}
