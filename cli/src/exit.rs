// SPDX-License-Identifier: GPL-2.0-or-later
//! How a command ends: the exit codes, and a failure with its words.

use serde::Serialize;
use serde_json::Value;

/// Exit codes; part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// The patch changes nothing in the kernel.
    Unchanged = 3,
    /// The change is unsupported or unsafe.
    Refused = 4,
    /// The kernel is not the one that the update was built for.
    Mismatch = 5,
    /// The code stayed in use.
    Busy = 6,
    /// Not permitted: root, lockdown, signatures.
    NotPermitted = 7,
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What happened and what to do, in whole sentences.
    pub(crate) text: String,
    /// The same for machines, if there is more to say.
    pub(crate) details: Option<Value>,
    /// Whether a result was printed already that says it all.
    pub(crate) reported: bool,
}

impl Failure {
    /// A failure with its words.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), details: None, reported: false }
    }

    /// An error, with everything that led to it.
    pub(crate) fn from_error(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Failed, format!("{:#}", error.into()))
    }

    /// A result that is printed already and ends the command with another code than 0.
    pub(crate) fn reported(exit: Exit) -> Self {
        Self { reported: true, ..Self::new(exit, "") }
    }

    /// Adds details for machines.
    pub(crate) fn with(mut self, details: impl Serialize) -> Self {
        self.details = serde_json::to_value(details).ok();
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // What has an exit code of its own keeps it on the way through a chain of contexts.
        match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Self::from_error(error),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
