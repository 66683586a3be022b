// SPDX-License-Identifier: GPL-2.0-or-later
//! Headers of constants that kbuild makes by compiling a unit to assembly (asm-offsets.h, bounds.h):
//! whether a patch changes what is in them.
//!
//! Source: Kbuild of the kernel's top directory, `sed-offsets` of scripts/Makefile.lib (6.1, 6.12).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::record::{command, files, plain};
use super::{Overlay, Tree};

/// Paths of the assembly that this kernel's constants are taken from.
fn sources(tree: &Tree) -> [String; 3] {
    [
        "kernel/bounds.s".into(),
        "kernel/sched/rq-offsets.s".into(),
        format!("arch/{}/kernel/asm-offsets.s", tree.source_arch()),
    ]
}

/// Where an overlay has to be written to for them.
pub(crate) fn outputs(tree: &Tree) -> [String; 3] {
    sources(tree)
}

/// A constant that is another one afterwards.
pub(crate) struct Changed {
    /// The file that it is computed in.
    pub(crate) source: String,
    /// Its name.
    pub(crate) name: String,
    /// Its value before; empty if it is new.
    pub(crate) before: String,
    /// Its value after; empty if it is gone.
    pub(crate) after: String,
}

/// The constants that change if these files do.
pub(crate) fn changed(tree: &Tree, overlay: &Overlay, paths: &[&str]) -> Result<Vec<Changed>> {
    let mut all = Vec::new();
    for source in sources(tree) {
        let (directory, name) = source.rsplit_once('/').unwrap_or(("", &source));
        let record = tree.source().join(directory).join(format!(".{name}.cmd"));
        // A kernel has what its version has.
        let Ok(record) = std::fs::read_to_string(record) else { continue };
        let read = files(&record);
        if !read.is_empty() && !read.iter().any(|file| paths.contains(&file.as_str())) {
            continue;
        }
        let command =
            command(&record).with_context(|| format!("how {source} is made is unknown"))?;
        let output = Command::new("sh")
            .args(["-c", &plain(command)])
            .env("LC_ALL", "C")
            .current_dir(overlay.path())
            .output()
            .context("cannot run the compiler")?;
        ensure!(
            output.status.success(),
            "post: the patched source does not compile:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        let before = constants(&tree.source().join(&source))?;
        let after = constants(&overlay.path().join(&source))?;
        let names = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
        for name in names {
            let of = |all: &BTreeMap<String, String>| all.get(name).cloned().unwrap_or_default();
            if before.get(name) != after.get(name) {
                let (before, after) = (of(&before), of(&after));
                all.push(Changed { source: source.clone(), name: name.clone(), before, after });
            }
        }
    }
    Ok(all)
}

fn constants(path: &Path) -> Result<BTreeMap<String, String>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(parse(&text))
}

/// `.ascii "->NAME $VALUE text"`, with `$`, `#` or nothing before the value.
fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_once("\"->")?.1.split_whitespace();
            let name = words.next().filter(|name| !name.starts_with(['"', '#']))?;
            let value = words.next()?.trim_start_matches(['$', '#']).trim_end_matches('"');
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read_without_comments() {
        let text = "#APP\n\t.ascii \"->\"\n.ascii \"->TASK_stack $24 offsetof(x)\"\t#\n\
                    .ascii \"->#linux/x\"\n.ascii \"->B $-8 y\"\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!((all["TASK_stack"].as_str(), all["B"].as_str()), ("24", "-8"));
    }
}
