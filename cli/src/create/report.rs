// SPDX-License-Identifier: GPL-2.0-or-later
//! What `create` says in the end.

use std::path::{Path, PathBuf};

use serde::Serialize;
use splice_core::update::{Change, DataObject, Function, Hook, Shadow, Update};

use crate::output::Output;
use crate::progress::Phases;

/// What `create` made.
#[derive(Serialize)]
struct Created {
    id: String,
    file: PathBuf,
    /// In bytes.
    size: u64,
    release: String,
    targets: Vec<String>,
    /// Units that were compiled to see whether they differ.
    compiled: usize,
    /// Those that do.
    units: usize,
    functions: Functions,
    /// Data objects that are replaced where they stand.
    objects: Vec<DataObject>,
    /// Work of the patch's author.
    hooks: Vec<Hook>,
    /// Data that it adds to objects.
    shadows: Vec<Shadow>,
    /// Fixed modules that were written, not signed and without debug information and BTF.
    modules: Vec<PathBuf>,
    /// Milliseconds.
    phases: Phases,
}

#[derive(Serialize)]
struct Functions {
    changed: Vec<Function>,
    new: Vec<Function>,
}

/// What `create` has written.
pub(super) struct Files {
    pub(super) update: PathBuf,
    /// Of the update, in bytes.
    pub(super) size: u64,
    pub(super) modules: Vec<PathBuf>,
}

/// Numbers of units.
pub(super) struct Units {
    pub(super) compiled: usize,
    pub(super) differ: usize,
}

pub(super) fn report(output: &Output, update: &Update, units: Units, files: Files, phases: Phases) {
    let manifest = &update.manifest;
    let of = |change: Change| {
        let all = manifest.targets.iter().flat_map(|target| &target.functions);
        all.filter(|function| function.change == change).cloned().collect::<Vec<_>>()
    };
    let created = Created {
        id: manifest.id.clone(),
        file: files.update,
        size: files.size,
        release: manifest.release.clone(),
        targets: manifest.targets.iter().map(|target| target.name.clone()).collect(),
        compiled: units.compiled,
        units: units.differ,
        functions: Functions { changed: of(Change::Changed), new: of(Change::New) },
        objects: manifest.targets.iter().flat_map(|target| target.objects.clone()).collect(),
        hooks: manifest.targets.iter().flat_map(|target| target.hooks.clone()).collect(),
        shadows: manifest.targets.iter().flat_map(|target| target.shadows.clone()).collect(),
        modules: files.modules,
        phases,
    };
    output.detail(&format!("phases: {}", created.phases));
    output.result(&created, || text(&created, &created.file));
}

fn text(created: &Created, file: &Path) -> String {
    let mut out = format!(
        "{} for {}: {} ({} bytes)\n",
        created.id,
        created.release,
        file.display(),
        created.size
    );
    out.push_str(&format!("  targets  {}\n", created.targets.join(", ")));
    let functions = &created.functions;
    for (what, list) in [("changed", &functions.changed), ("new", &functions.new)] {
        for function in list {
            out.push_str(&format!("  {what:<7}  {}\n", function.name));
            for reason in &function.reasons {
                out.push_str(&format!("           {reason}\n"));
            }
        }
    }
    for object in &created.objects {
        out.push_str(&format!("  data     {}\n", object.name));
        for reason in &object.reasons {
            out.push_str(&format!("           {reason}\n"));
        }
    }
    for hook in &created.hooks {
        out.push_str(&format!("  hook     {} ({})\n", hook.name, hook.words()));
    }
    for shadow in &created.shadows {
        out.push_str(&format!("  shadow   {}\n", shadow.name));
    }
    for module in &created.modules {
        out.push_str(&format!("  module   {}\n", module.display()));
    }
    if !created.modules.is_empty() {
        out.push_str(&format!(
            "           not signed; to have it loaded from now on, put it into \
             /lib/modules/{release}/updates\n           and run depmod {release}\n",
            release = created.release
        ));
    }
    out
}
