// SPDX-License-Identifier: GPL-2.0-or-later
//! The manifest of an update file: what the update is, for which kernel, and what it needs.

use serde::{Deserialize, Serialize};

/// Version of the update format that this engine writes and the only one that it reads.
pub const FORMAT: u32 = 6;

/// The manifest, `manifest.json` in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub version: u32,
    /// The update's id: lower-case letters, digits, `-` and `_`; at most 40 bytes.
    pub id: String,
    /// What it is, in the author's words.
    pub description: String,
    /// Name of the architecture.
    pub arch: String,
    /// Exact kernel release, as `uname -r` prints it.
    pub release: String,
    /// The compiler, as `CONFIG_CC_VERSION_TEXT` has it.
    pub compiler: String,
    /// Whether it was built on the source of updates that are applied before it.
    #[serde(default)]
    pub stacked: bool,
    /// The transaction core.
    pub core: CoreModule,
    /// What is patched: the kernel image and modules.
    pub targets: Vec<Target>,
    /// Every other file of the archive, sorted by path.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The same without these targets.
    pub fn without(&self, targets: &[String]) -> Manifest {
        let mut manifest = self.clone();
        manifest.targets.retain(|target| !targets.contains(&target.name));
        manifest
    }
}

/// The transaction core's module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreModule {
    /// Path in the archive.
    pub file: String,
    /// Version of the interface between the core and an update.
    pub abi: u32,
    /// Unexported symbols that it needs, by name; each must be unique in the kernel.
    pub symbols: Vec<String>,
}

/// One target: `vmlinux` or a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `vmlinux`, or the module's name with underscores, as `/proc/modules` has it.
    pub name: String,
    /// The update module for this target: path in the archive.
    pub module: String,
    /// Name that the update module has once it is loaded.
    pub module_name: String,
    /// Touched units.
    pub units: Vec<UnitEntry>,
    /// Functions, changed and new.
    pub functions: Vec<Function>,
    /// Constant data objects that are replaced where they stand.
    pub objects: Vec<DataObject>,
    /// Work of the patch's author.
    pub hooks: Vec<Hook>,
    /// Data that the patch adds to objects.
    pub shadows: Vec<Shadow>,
    /// Unexported symbols that the update module needs.
    pub symbols: Vec<NeededSymbol>,
}

/// A touched unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitEntry {
    /// Path of the object in the kernel tree, e.g. `net/core/sock.o`.
    pub name: String,
    /// The pre object without debug sections: path in the archive.
    pub pre: String,
}

/// Whether a function is replaced or added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It exists in the running kernel and is replaced.
    Changed,
    /// It does not exist there.
    New,
}

/// A function of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its name in the source's object.
    pub name: String,
    /// Index into [`Target::units`].
    pub unit: u32,
    /// Whether it is replaced or added.
    pub change: Change,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// For a replaced function, its index in the pre object's symbol table.
    pub pre_symbol: Option<u32>,
    /// For a replaced function, its split-off parts: indexes in the pre object's symbol table.
    pub pre_parts: Vec<u32>,
    /// For a replaced function: the global symbol of the new code in the update module.
    pub new_link: Option<String>,
}

/// A constant data object of an update: its new contents are written over the running ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataObject {
    /// Its name in the source's object.
    pub name: String,
    /// Index into [`Target::units`].
    pub unit: u32,
    /// Size in bytes, the same before and after.
    pub size: u64,
    /// Why, in words.
    pub reasons: Vec<String>,
    /// Its index in the pre object's symbol table.
    pub pre_symbol: u32,
    /// The global symbol of the new contents in the update module.
    pub new_link: String,
}

/// When a hook is called: `kmod/patch.h` says what each may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the machine is stopped.
    Pre,
    /// While it is stopped, before anything is written.
    Check,
    /// While it is stopped, after all is written.
    Do,
    /// After that.
    Post,
    /// After an attempt that came to nothing.
    Fail,
}

impl When {
    /// Whether it may refuse.
    pub fn is_asked(self) -> bool {
        matches!(self, When::Pre | When::Check)
    }
}

/// A hook of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Its function's name in the source.
    pub name: String,
    /// Index into [`Target::units`].
    pub unit: u32,
    /// When it is called.
    pub when: When,
    /// Whether that is in an attempt to undo the update, not to apply it.
    pub undo: bool,
    /// The global symbol by which the update module names it.
    pub link: String,
}

impl Hook {
    /// When it is called, in the words of `kmod/patch.h`.
    pub fn words(&self) -> &'static str {
        match (self.when, self.undo) {
            (When::Pre, false) => "pre_apply",
            (When::Check, false) => "check_apply",
            (When::Do, false) => "apply",
            (When::Post, false) => "post_apply",
            (When::Fail, false) => "fail_apply",
            (When::Pre, true) => "pre_undo",
            (When::Check, true) => "check_undo",
            (When::Do, true) => "undo",
            (When::Post, true) => "post_undo",
            (When::Fail, true) => "fail_undo",
        }
    }
}

/// Data that an update adds to objects of some kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Its declaration's name in the source.
    pub name: String,
    /// Index into [`Target::units`].
    pub unit: u32,
    /// The global symbol of the declaration in the update module.
    pub link: String,
}

/// An unexported symbol that new code refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeededSymbol {
    /// Name of the undefined symbol in the update module, a C identifier.
    pub link: String,
    /// Name in the source's object; empty for a section symbol.
    pub name: String,
    /// How its address is found.
    pub place: Place,
}

/// How a needed symbol's address is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// A global symbol: learned from any unit that refers to it, else unique in the kernel.
    Global,
    /// Defined in a pre object.
    Local {
        /// Index into [`Target::units`].
        unit: u32,
        /// Index in that pre object's symbol table (a section symbol's too).
        symbol: u32,
    },
    /// Defined in a pre object of another target, where the patch lets others see it.
    Elsewhere {
        /// That target's name.
        target: String,
        /// Index into its units.
        unit: u32,
        /// Index in that pre object's symbol table.
        symbol: u32,
    },
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}
