// SPDX-License-Identifier: GPL-2.0-or-later
//! What host and guest say to each other: one request, one reply, each a line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run a command to its end.
    Run(Command),
    /// Start a command and leave it running under a name.
    Start {
        /// Name for [`Request::Stop`].
        name: String,
        /// What to run.
        command: Command,
    },
    /// Close a started command's input, kill it if that does not end it, and collect what it said.
    Stop {
        /// Its name.
        name: String,
        /// How long it may take after its input was closed, in milliseconds.
        grace_ms: u64,
    },
    /// Start the load.
    StartLoad {
        /// Threads of each kind.
        threads: usize,
        /// Pause between two operations of a thread, in microseconds.
        pace_us: u64,
    },
    /// Stop the load and say what it did.
    StopLoad,
    /// A file's text.
    Read {
        /// Path in the guest.
        path: String,
    },
    /// The lines of a file that contain a text; for a file too long for the line to the host.
    Search {
        /// Path in the guest.
        path: String,
        /// The text.
        text: String,
    },
    /// Write text to an existing file (a sysctl, say).
    Write {
        /// Path in the guest.
        path: String,
        /// The text.
        text: String,
    },
    /// Load kernel modules in this order; those that are loaded already are left alone.
    InsertModules {
        /// Paths in the guest.
        paths: Vec<String>,
    },
    /// Unload a kernel module.
    RemoveModule {
        /// Its name, with underscores.
        name: String,
    },
    /// The whole kernel log.
    KernelLog,
    /// Switch the machine off.
    PowerOff,
}

/// A command to run in the guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Additional environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User and group to run as; root if absent.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Text on its standard input.
    #[serde(default)]
    pub stdin: String,
    /// Send SIGKILL after so many microseconds, to test what a killed command leaves.
    #[serde(default)]
    pub kill_after_us: Option<u64>,
    /// Give up (and kill it) after so many milliseconds.
    #[serde(default)]
    pub limit_ms: Option<u64>,
}

impl Command {
    /// A command with these words, as root.
    #[must_use]
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The same, as another user.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The same, killed after a while.
    #[must_use]
    pub fn killed_after(mut self, microseconds: u64) -> Self {
        self.kill_after_us = Some(microseconds);
        self
    }
}

/// The guest's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// First line of all: the guest is up.
    Ready {
        /// Kernel release.
        release: String,
    },
    /// A command ended.
    Ran(Outcome),
    /// What the load did.
    Load(LoadReport),
    /// A text.
    Text(String),
    /// It is done.
    Done,
    /// It could not be done.
    Failed(String),
}

/// How a command ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Exit code, unless a signal ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// It was killed because its time was over.
    #[serde(default)]
    pub timed_out: bool,
}

/// What the load did: operations that were verified, and those that came out wrong.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Processes started, and their exit status checked.
    pub processes: u64,
    /// Files written, renamed, read back, compared and removed.
    pub files: u64,
    /// Blocks sent round a TCP connection and compared.
    pub tcp_blocks: u64,
    /// TCP connections opened.
    pub connections: u64,
    /// How many operations came out wrong.
    pub wrong: u64,
    /// The first few wrong ones.
    pub examples: Vec<String>,
}

/// What an exercise did: rounds, and those that came out wrong.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExerciseReport {
    /// Its name.
    pub name: String,
    /// Rounds that were verified.
    pub rounds: u64,
    /// How many of them came out wrong.
    pub wrong: u64,
    /// The first few wrong ones.
    pub examples: Vec<String>,
}

impl LoadReport {
    /// Sum of all operations.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.processes + self.files + self.tcp_blocks + self.connections
    }
}
