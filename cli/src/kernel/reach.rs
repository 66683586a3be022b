// SPDX-License-Identifier: GPL-2.0-or-later
//! Which units a header reaches, through the tree's include graph.
//!
//! The graph is made from the text alone: every file that could be meant by an `#include` counts,
//! in any configuration. So it may name a unit too many, whose code then turns out the same; it does
//! not miss one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

/// Directories in which nothing is compiled into a kernel.
const OUTSIDE: &[&str] = &["Documentation", "tools", "scripts", "samples", "usr", "LICENSES"];

/// The source files (`.c`, `.S`) that include one of these headers, directly or not.
pub(crate) fn reached(source: &Path, arch: &str, headers: &[&str]) -> Result<BTreeSet<String>> {
    let mut files = Vec::new();
    list(source, "", arch, &mut files)?;
    let texts: Vec<(&String, Vec<String>)> = files
        .par_iter()
        .map(|path| {
            let bytes = std::fs::read(source.join(path)).unwrap_or_default();
            (path, includes(&String::from_utf8_lossy(&bytes)))
        })
        .collect();
    // Who includes something whose path ends in that last part.
    let mut by_name: HashMap<&str, Vec<(&str, &str)>> = HashMap::new();
    for (path, names) in &texts {
        for name in names {
            let last = name.rsplit('/').next().unwrap_or(name);
            by_name.entry(last).or_default().push((name, path));
        }
    }
    let mut found = BTreeSet::new();
    let mut seen = BTreeMap::new();
    let mut todo: Vec<&str> = headers.to_vec();
    while let Some(header) = todo.pop() {
        if seen.insert(header.to_owned(), ()).is_some() {
            continue;
        }
        let last = header.rsplit('/').next().unwrap_or(header);
        for (name, path) in by_name.get(last).into_iter().flatten() {
            if !may_mean(name, header) {
                continue;
            }
            if path.ends_with(".c") || path.ends_with(".S") {
                found.insert((*path).to_owned());
            }
            // A source file may be included, too.
            todo.push(path);
        }
    }
    Ok(found)
}

fn list(source: &Path, directory: &str, arch: &str, files: &mut Vec<String>) -> Result<()> {
    let place = source.join(directory);
    let entries =
        std::fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", place.display()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
        let kind = entry.file_type().with_context(|| format!("cannot look at {path}"))?;
        if kind.is_dir() {
            let outside = directory.is_empty() && OUTSIDE.contains(&name.as_str());
            let other = directory == "arch" && name != arch;
            if !outside && !other && !name.starts_with('.') {
                list(source, &path, arch, files)?;
            }
        } else if [".c", ".h", ".S"].iter().any(|end| name.ends_with(end)) {
            files.push(path);
        }
    }
    Ok(())
}

/// What a text includes, as it is written there.
fn includes(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix('#') else { continue };
        let Some(rest) = rest.trim_start().strip_prefix("include") else { continue };
        let rest = rest.trim_start();
        let name = match rest.chars().next() {
            Some('<') => rest.get(1..).and_then(|r| r.split_once('>')),
            Some('"') => rest.get(1..).and_then(|r| r.split_once('"')),
            _ => None,
        };
        all.extend(name.map(|(name, _)| name.to_owned()));
    }
    all
}

/// Whether `#include NAME` may mean that file: the last parts are the same. `asm-generic` headers
/// are meant by generated ones that are only named `asm/…`.
fn may_mean(name: &str, path: &str) -> bool {
    let name = name.trim_start_matches("./").rsplit("../").next().unwrap_or(name);
    let ends =
        |name: &str| path == name || path.strip_suffix(name).is_some_and(|p| p.ends_with('/'));
    ends(name) || name.strip_prefix("asm/").is_some_and(|n| ends(&format!("asm-generic/{n}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_reach_through_headers() {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("include/net/a.h", "int a;\n"),
            ("include/net/b.h", "#include <net/a.h>\n"),
            ("net/one.c", "#include <net/b.h>\n"),
            ("net/two.c", "#  include \"../include/net/a.h\"\n"),
            ("net/other.c", "#include <linux/net/c.h>\n/* #include */\n"),
            ("fs/a.h", "\n"),
            ("fs/three.c", "#include \"a.h\"\n"),
            ("arch/x/k.c", "#include <net/a.h>\n"),
            ("arch/y/k.c", "#include <net/a.h>\n"),
            ("tools/t.c", "#include <net/a.h>\n"),
        ] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = reached(tree.path(), "x", &["include/net/a.h"]).unwrap();
        // fs/three.c could mean it, as far as names go.
        let expected = ["arch/x/k.c", "fs/three.c", "net/one.c", "net/two.c"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
