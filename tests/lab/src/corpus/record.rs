// SPDX-License-Identifier: GPL-2.0-or-later
//! What a run found out about one fix, and where it is kept, so that a run goes on where the last one
//! was stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Patch;
use crate::session::Lab;

/// How far a fix has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Nothing is known yet.
    #[default]
    Pending,
    /// An update was made of it.
    Created,
    /// Its update was checked, applied and taken back.
    Applied,
    /// Nothing in this kernel's binary code changes.
    Unchanged,
    /// It was refused, with a reason.
    Refused,
    /// Its update is for a module that this machine cannot load.
    NotLoaded,
    /// Anything else.
    Failed,
}

impl Outcome {
    /// For a table.
    #[must_use]
    pub(super) fn word(self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Created => "created",
            Outcome::Applied => "ok",
            Outcome::Unchanged => "unchanged",
            Outcome::Refused => "refused",
            Outcome::NotLoaded => "not loaded",
            Outcome::Failed => "FAILED",
        }
    }
}

/// What is known of one fix. Times are in milliseconds.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The update's id.
    pub(super) id: String,
    /// How far it has come.
    pub(super) outcome: Outcome,
    /// Why it came no further, or why it had to be aided.
    pub(super) why: String,
    /// Lines of an author's code, if it needed that.
    #[serde(default)]
    pub(super) aided: Option<usize>,
    /// Whether it changes nothing but code that the kernel frees once it has started.
    #[serde(default)]
    pub(super) at_start: bool,
    /// Lines that the patch adds.
    pub(super) added: usize,
    /// Lines that it removes.
    pub(super) removed: usize,
    /// Files that it touches.
    pub(super) files: Vec<String>,
    /// What `create` took.
    pub(super) create: u64,
    /// What each of its phases took.
    pub(super) phases: BTreeMap<String, u64>,
    /// Bytes of the update file.
    pub(super) size: u64,
    /// What the update patches.
    pub(super) targets: Vec<String>,
    /// Functions that it replaces.
    pub(super) changed: Vec<String>,
    /// Those of them whose new code comes, at least in part, from a function inlined into them.
    pub(super) inlined: usize,
    /// Functions that it adds.
    pub(super) new: usize,
    /// Data objects that it replaces.
    pub(super) data: usize,
    /// Whether `check` said yes to it against the image file; nothing for modules, which are not in it.
    pub(super) image: Option<bool>,
    /// What `check` took in the machine.
    pub(super) check: u64,
    /// What `apply` took.
    pub(super) apply: u64,
    /// What `undo` took.
    pub(super) undo: u64,
    /// How long the switch stopped the machine, in nanoseconds.
    pub(super) pause: u64,
    /// How often the machine was stopped until no thread was in the way.
    pub(super) attempts: u64,
    /// Threads that were examined.
    pub(super) threads: u64,
    /// Symbols that it replaces or that its new code needs whose names others of the kernel have, too.
    #[serde(default)]
    pub(super) ambiguous: Vec<String>,
    /// The exercises that went on meanwhile, and how many rounds they made.
    #[serde(default)]
    pub(super) exercises: Vec<String>,
    #[serde(default)]
    pub(super) rounds: u64,
}

impl Record {
    /// Of a patch that was not tried yet.
    #[must_use]
    pub(super) fn new(patch: &Patch) -> Record {
        let lines = |sign: char, header: &str| {
            let mut all = patch.text.lines();
            all.by_ref().find(|line| line.starts_with("--- "));
            all.filter(|line| line.starts_with(sign) && !line.starts_with(header)).count()
        };
        let files = patch.text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        Record {
            id: patch.id.clone(),
            added: lines('+', "+++ "),
            removed: lines('-', "--- "),
            files: files.filter_map(|f| f.split('\t').next()).map(str::to_owned).collect(),
            ..Record::default()
        }
    }

    /// It comes no further.
    pub(super) fn end(&mut self, outcome: Outcome, why: &str) {
        self.outcome = outcome;
        why.trim().clone_into(&mut self.why);
    }

    /// The modules that it patches.
    pub(super) fn modules(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().filter(|target| *target != "vmlinux")
    }
}

/// Where records and updates of one kernel are kept.
pub(super) struct Store {
    directory: PathBuf,
    program: Vec<u8>,
}

impl Store {
    /// For this kernel and this build of splice.
    pub(super) fn open(lab: &Lab) -> Result<Store> {
        let directory = lab.cache.lab().join("corpus").join(&lab.kernel.release);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let program = std::fs::read(&lab.programs.host).context("cannot read splice itself")?;
        Ok(Store { directory, program: Sha256::digest(program).to_vec() })
    }

    /// What is known of a patch. Of another patch, or from another build, nothing is.
    pub(super) fn load(&self, patch: &Patch) -> Record {
        let known = std::fs::read(self.file(patch, "json")).ok();
        known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(Record::new(patch))
    }

    /// Keeps it.
    pub(super) fn save(&self, patch: &Patch, record: &Record) -> Result<()> {
        let file = self.file(patch, "json");
        let mut whole = tempfile::NamedTempFile::new_in(&self.directory)?;
        serde_json::to_writer_pretty(&mut whole, record)?;
        whole.persist(&file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(())
    }

    /// The update file of a patch.
    #[must_use]
    pub(super) fn update(&self, patch: &Patch) -> PathBuf {
        self.file(patch, "splice")
    }

    fn file(&self, patch: &Patch, suffix: &str) -> PathBuf {
        let mut key = Sha256::new().chain_update(&self.program).chain_update(&patch.text);
        if let Some(aided) = &patch.aided {
            key.update(&aided.text);
            key.update(aided.accept.join(" "));
        }
        let key: String = key.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{}-{key}.{suffix}", patch.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_counted_without_its_headers() {
        let text = "Subject: x\n\n--- a/f.c\n+++ b/f.c\n@@ -1,2 +1,2 @@\n-old\n+new\n+more\n same\n\
                    --- a/g.h\n+++ b/g.h\n@@ -1 +1 @@\n-a\n+b\n";
        let record = Record::new(&Patch::new("x", text.to_owned()));
        assert_eq!((record.added, record.removed), (3, 2));
        assert_eq!(record.files, ["f.c", "g.h"]);
    }
}
