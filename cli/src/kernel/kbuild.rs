// SPDX-License-Identifier: GPL-2.0-or-later
//! Whose code a unit is: the kernel image's, a module's, or nobody's in this configuration. The
//! kernel's own makefiles say so; make evaluates them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Tree;

/// Who holds a unit's code at run time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// The kernel image.
    Vmlinux,
    /// A module, by the name that it has once it is loaded.
    Module(String),
}

/// A unit that is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// Who holds its code.
    pub(crate) owner: Owner,
    /// What kbuild calls the object: its path, by way of the directory whose makefile lists it.
    pub(crate) goal: String,
}

/// The lists of a directory's makefile, by variable: `obj-y`, `tipc-y`, …
type Lists = BTreeMap<String, Vec<String>>;

/// Reads a directory's lists: everything that ends in `-y`, `-m` or `-objs`.
const PROBE: &str = "\
srctree := .
objtree := .
src := $(obj)
include include/config/auto.conf
BITS := $(if $(CONFIG_64BIT),64,32)
include scripts/Kbuild.include
-include scripts/Makefile.compiler
include $(firstword $(wildcard $(obj)/Kbuild) $(obj)/Makefile)
$(foreach v,$(filter %-y %-m %-objs,$(.VARIABLES)),$(info =$(v) $($(v))))
.PHONY: splice-lists
splice-lists: ;
";

/// Answers for one tree.
pub(crate) struct Kbuild<'a> {
    tree: &'a Tree,
    lists: BTreeMap<String, Lists>,
}

impl<'a> Kbuild<'a> {
    /// For that tree.
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree, lists: BTreeMap::new() }
    }

    /// Whose code an object is, such as `net/core/sock.o`; else why it is nobody's.
    pub(crate) fn built(&mut self, object: &str) -> Result<Result<Built, String>> {
        for (directory, rest) in splits(object) {
            if let Some(found) = member(self.lists(directory)?, rest) {
                return self.verdict(directory, found, object.to_owned());
            }
        }
        // A makefile may list what lies beside its directory.
        for (above, rest) in splits(object) {
            let own = rest.split('/').next().unwrap_or_default();
            for directory in self.beside(above, own) {
                let relative = format!("../{rest}");
                if let Some(found) = member(self.lists(&directory)?, &relative) {
                    let goal = format!("{directory}/{relative}");
                    return self.verdict(&directory, found, goal);
                }
            }
        }
        let (directory, name) = object.rsplit_once('/').unwrap_or(("", object));
        Ok(Err(self.option(directory, name)))
    }

    fn verdict(
        &mut self,
        directory: &str,
        found: Found,
        goal: String,
    ) -> Result<Result<Built, String>> {
        if let Err(why) = self.entered(directory)? {
            return Ok(Err(why));
        }
        Ok(match found {
            Found::Built(owner) => Ok(Built { owner, goal }),
            Found::Nowhere(composite) => Err(self.option(directory, &composite)),
        })
    }

    /// Directories in `above`, but for `own`, whose makefiles look beyond them.
    fn beside(&self, above: &str, own: &str) -> Vec<String> {
        let source = self.tree.source();
        let mut all: Vec<String> = std::fs::read_dir(source.join(above))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != own)
            .map(|name| format!("{above}/{name}"))
            .filter(|directory| {
                makefile(&source, directory)
                    .and_then(|path| std::fs::read_to_string(path).ok())
                    .is_some_and(|text| text.contains("../"))
            })
            .collect();
        all.sort();
        all
    }

    fn lists(&mut self, directory: &str) -> Result<&Lists> {
        if !self.lists.contains_key(directory) {
            let lists = self.read(directory)?;
            self.lists.insert(directory.to_owned(), lists);
        }
        self.lists.get(directory).context("a list is missing")
    }

    fn read(&self, directory: &str) -> Result<Lists> {
        let source = self.tree.source();
        if makefile(&source, directory).is_none() {
            return Ok(Lists::new());
        }
        let mut make = self.tree.make(&source);
        make.args(["-r", "-R", "-s", "-f", "-"])
            .arg(format!("obj={directory}"))
            .arg(format!("SRCARCH={}", self.tree.source_arch()))
            .arg("splice-lists")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = make.spawn().context("cannot run make")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(PROBE.as_bytes()).context("make does not listen")?;
        }
        let output = child.wait_with_output().context("make is lost")?;
        if !output.status.success() {
            // It is a part of another one, which sets what this one needs.
            return Ok(Lists::new());
        }
        Ok(parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Whether the build gets into a directory; else why not.
    fn entered(&mut self, directory: &str) -> Result<Result<(), String>> {
        // The top-level makefiles, the architecture's too, enter by rules of their own.
        let depth = directory.split('/').count();
        if depth <= 1 || (directory.starts_with("arch/") && depth <= 3) {
            return Ok(Ok(()));
        }
        for (above, rest) in splits(directory) {
            let entry = format!("{rest}/");
            let lists = self.lists(above)?;
            let entered = ["obj-y", "obj-m", "subdir-y", "subdir-m"]
                .iter()
                .any(|name| lists.get(*name).is_some_and(|list| list.contains(&entry)));
            if entered {
                return self.entered(above);
            }
        }
        let (above, last) = directory.rsplit_once('/').unwrap_or(("", directory));
        Ok(Err(self.option(above, &format!("{last}/"))))
    }

    /// Why something is not built, from the makefile's own line.
    fn option(&self, directory: &str, name: &str) -> String {
        let line = makefile(&self.tree.source(), directory).and_then(|path| {
            let text = std::fs::read_to_string(&path).ok()?.replace("\\\n", " ");
            let line = text
                .lines()
                .find(|line| line.contains('=') && line.split_whitespace().any(|w| w == name))?;
            Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
        });
        match line {
            Some(line) => {
                let list: String = line.chars().take(120).collect();
                format!("this configuration leaves it out ({directory} has `{list}`)")
            }
            None => format!("the makefile of {directory} does not name it"),
        }
    }
}

fn makefile(source: &Path, directory: &str) -> Option<std::path::PathBuf> {
    ["Kbuild", "Makefile"]
        .into_iter()
        .map(|name| source.join(directory).join(name))
        .find(|path| path.is_file())
}

/// Every way to split a path into a directory and the rest, the longest directory first.
fn splits(path: &str) -> Vec<(&str, &str)> {
    let mut all: Vec<_> = path
        .match_indices('/')
        .filter_map(|(at, _)| Some((path.get(..at)?, path.get(at + 1..)?)))
        .collect();
    all.reverse();
    all
}

fn parse(text: &str) -> Lists {
    let mut lists = Lists::new();
    for line in text.lines().filter_map(|line| line.strip_prefix('=')) {
        let mut words = line.split_whitespace().map(str::to_owned);
        if let Some(name) = words.next() {
            lists.insert(name, words.collect());
        }
    }
    lists
}

enum Found {
    Built(Owner),
    /// It is in an object that is not built.
    Nowhere(String),
}

/// What an object is in these lists.
fn member(lists: &Lists, object: &str) -> Option<Found> {
    let has = |list: &str, name: &str| lists.get(list).is_some_and(|l| l.iter().any(|o| o == name));
    let module = |object: &str| {
        let name = object.rsplit('/').next().unwrap_or(object);
        Found::Built(Owner::Module(name.trim_end_matches(".o").replace('-', "_")))
    };
    if has("obj-y", object) || has("lib-y", object) {
        return Some(Found::Built(Owner::Vmlinux));
    }
    if has("obj-m", object) {
        return Some(module(object));
    }
    let mut nowhere = None;
    for (name, list) in lists {
        if !list.iter().any(|o| o == object) {
            continue;
        }
        let stem = ["-objs", "-y", "-m"].iter().find_map(|end| name.strip_suffix(end))?;
        let composite = format!("{stem}.o");
        if has("obj-y", &composite) || has("lib-y", &composite) {
            return Some(Found::Built(Owner::Vmlinux));
        }
        if has("obj-m", &composite) {
            return Some(module(&composite));
        }
        nowhere = Some(Found::Nowhere(composite));
    }
    nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(object: &str) -> Option<Result<Owner, String>> {
        let lists = parse(
            "=obj-y sock.o dev/ core.o\n=obj-m tipc.o snd-hda.o\n=lib-y string.o\n\
             =tipc-y node.o sub/link.o\n=core-objs a.o\n=snd-hda-m x.o\n=off-y left.o\nnoise\n",
        );
        member(&lists, object).map(|found| match found {
            Found::Built(owner) => Ok(owner),
            Found::Nowhere(composite) => Err(composite),
        })
    }

    #[test]
    fn lists_tell_whose_an_object_is() {
        let module = |name: &str| Some(Ok(Owner::Module(name.into())));
        assert_eq!(of("sock.o"), Some(Ok(Owner::Vmlinux)));
        assert_eq!(of("string.o"), Some(Ok(Owner::Vmlinux)));
        assert_eq!(of("a.o"), Some(Ok(Owner::Vmlinux)));
        assert_eq!(of("node.o"), module("tipc"));
        assert_eq!(of("sub/link.o"), module("tipc"));
        assert_eq!(of("snd-hda.o"), module("snd_hda"));
        assert_eq!(of("x.o"), module("snd_hda"));
        assert_eq!(of("left.o"), Some(Err("off.o".into())));
        assert_eq!(of("none.o"), None);
    }

    #[test]
    fn paths_are_split_at_each_directory() {
        assert_eq!(splits("a/b/c.o"), [("a/b", "c.o"), ("a", "b/c.o")]);
    }
}
