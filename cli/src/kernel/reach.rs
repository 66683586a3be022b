// SPDX-License-Identifier: GPL-2.0-or-later
//! Which units a header reaches, through the tree's include graph.
//!
//! The graph is made from the text alone: every file that could be meant by an `#include` counts,
//! in any configuration. So it may name a unit too many, whose code then turns out the same; it does
//! not miss one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use rayon::prelude::*;

/// Directories in which nothing is compiled into a kernel.
const OUTSIDE: &[&str] = &["Documentation", "tools", "scripts", "samples", "usr", "LICENSES"];

/// What the kernel's own makefiles make every unit include (`LINUXINCLUDE`, `c_flags`).
const EVERYWHERE: &[&str] = &[
    "include/linux/compiler-version.h",
    "include/linux/kconfig.h",
    "include/linux/compiler_types.h",
];

/// The source files (`.c`, `.S`) that include one of these headers, directly or not.
pub(crate) fn reached(source: &Path, arch: &str, headers: &[&str]) -> Result<BTreeSet<String>> {
    let mut files = Vec::new();
    list(source, "", arch, &mut files)?;
    let there: HashSet<&str> = files.iter().map(String::as_str).collect();
    let texts: Vec<(&String, Vec<Include>)> = files
        .par_iter()
        .map(|path| {
            let bytes = std::fs::read(source.join(path)).unwrap_or_default();
            (path, includes(&String::from_utf8_lossy(&bytes)))
        })
        .collect();
    // Who includes something whose path ends in that last part.
    let mut by_name: HashMap<&str, Vec<(&Include, &str)>> = HashMap::new();
    for (path, includes) in &texts {
        for include in includes {
            let last = include.name.rsplit('/').next().unwrap_or(&include.name);
            by_name.entry(last).or_default().push((include, path));
        }
    }
    let mut found = BTreeSet::new();
    let mut seen = HashSet::new();
    let mut todo: Vec<&str> = headers.to_vec();
    while let Some(header) = todo.pop() {
        if !seen.insert(header.to_owned()) {
            continue;
        }
        if EVERYWHERE.contains(&header) {
            let code = |path: &&String| path.ends_with(".c") || path.ends_with(".S");
            found.extend(files.iter().filter(code).cloned());
            break;
        }
        let last = header.rsplit('/').next().unwrap_or(header);
        for (include, path) in by_name.get(last).into_iter().flatten() {
            if !include.may_mean(path, header, &there) {
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

/// An `#include`.
#[derive(Debug, PartialEq, Eq)]
struct Include {
    /// What stands between the quotes or brackets.
    name: String,
    /// Whether it is in quotes: then the directory of the file itself is searched first.
    quoted: bool,
}

/// What a text includes.
fn includes(text: &str) -> Vec<Include> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix('#') else { continue };
        let Some(rest) = rest.trim_start().strip_prefix("include") else { continue };
        let rest = rest.trim_start();
        let (end, quoted) = match rest.chars().next() {
            Some('<') => ('>', false),
            Some('"') => ('"', true),
            _ => continue,
        };
        let name = rest.get(1..).and_then(|r| r.split_once(end));
        all.extend(name.map(|(name, _)| Include { name: name.to_owned(), quoted }));
    }
    all
}

impl Include {
    /// Whether it may mean that file. A file beside the including one is the one that is meant; else
    /// one in a directory of headers, if there is any; else whatever has these last parts.
    /// `asm-generic` headers are meant by generated ones that are only named `asm/…`.
    fn may_mean(&self, from: &str, path: &str, there: &HashSet<&str>) -> bool {
        if self.quoted {
            let directory = from.rsplit_once('/').map_or("", |(directory, _)| directory);
            let beside = normal(&format!("{directory}/{}", self.name));
            if there.contains(beside.as_str()) {
                return beside == path;
            }
        }
        let name = self.name.trim_start_matches("./");
        let name = name.rsplit("../").next().unwrap_or(name);
        let ends = |name: &str| {
            path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'))
        };
        let generic =
            name.strip_prefix("asm/").is_some_and(|rest| ends(&format!("asm-generic/{rest}")));
        let common = ["include", "include/uapi"]
            .iter()
            .any(|place| there.contains(format!("{place}/{name}").as_str()));
        if common {
            // A driver may have a directory of headers that comes first.
            let header = ends(&format!("include/{name}")) || ends(&format!("include/uapi/{name}"));
            return header || generic;
        }
        ends(name) || generic
    }
}

/// A path without `.` and `..`.
pub(super) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
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
            // Beside it there is one.
            ("fs/three.c", "#include \"a.h\"\n"),
            // Its makefile may say where to look.
            ("mm/four.c", "#include \"a.h\"\n"),
            ("mm/five.c", "#include \"net/a.h\"\n#include \"../fs/a.h\"\n"),
            ("arch/x/k.c", "#include <net/a.h>\n"),
            ("arch/y/k.c", "#include <net/a.h>\n"),
            ("tools/t.c", "#include <net/a.h>\n"),
        ] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = reached(tree.path(), "x", &["include/net/a.h"]).unwrap();
        let expected = ["arch/x/k.c", "mm/five.c", "mm/four.c", "net/one.c", "net/two.c"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        let found = reached(tree.path(), "x", &["fs/a.h"]).unwrap();
        let expected = ["fs/three.c", "mm/five.c", "mm/four.c"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_every_unit_includes_reaches_every_unit() {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("include/linux/attributes.h", "\n"),
            ("include/linux/compiler_types.h", "#include <linux/attributes.h>\n"),
            ("fs/one.c", "\n"),
            ("lib/two.S", "\n"),
        ] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = reached(tree.path(), "x", &["include/linux/attributes.h"]).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["fs/one.c", "lib/two.S"]);
    }
}
