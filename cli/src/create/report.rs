// SPDX-License-Identifier: GPL-2.0-or-later
//! What `create` says in the end.

use std::path::{Path, PathBuf};

use serde::Serialize;
use splice_core::update::{Change, DataObject, Function, Update};

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
    units: usize,
    functions: Functions,
    /// Data objects that are replaced where they stand.
    objects: Vec<DataObject>,
    /// Milliseconds.
    phases: Phases,
}

#[derive(Serialize)]
struct Functions {
    changed: Vec<Function>,
    new: Vec<Function>,
}

pub(super) fn report(
    output: &Output,
    update: &Update,
    units: usize,
    file: PathBuf,
    size: u64,
    phases: Phases,
) {
    let manifest = &update.manifest;
    let of = |change: Change| {
        let all = manifest.targets.iter().flat_map(|target| &target.functions);
        all.filter(|function| function.change == change).cloned().collect::<Vec<_>>()
    };
    let created = Created {
        id: manifest.id.clone(),
        file,
        size,
        release: manifest.release.clone(),
        targets: manifest.targets.iter().map(|target| target.name.clone()).collect(),
        units,
        functions: Functions { changed: of(Change::Changed), new: of(Change::New) },
        objects: manifest.targets.iter().flat_map(|target| target.objects.clone()).collect(),
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
    out
}
