// SPDX-License-Identifier: GPL-2.0-or-later
//! Whose code a unit is: the kernel image's, a module's, or nobody's in this configuration. The
//! kernel's own makefiles say so; make evaluates them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::Tree;
use super::lists::{self, Found, Lists, makefile, member};
use super::reach::normal;
use super::tree::options;

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
    /// Whether the patch adds it.
    pub(crate) is_new: bool,
}

/// Answers for one tree.
pub(crate) struct Kbuild<'a> {
    tree: &'a Tree,
    lists: BTreeMap<String, Lists>,
    /// Of each directory those in it whose makefiles look beyond them.
    beside: BTreeMap<String, Vec<String>>,
}

impl<'a> Kbuild<'a> {
    /// For that tree.
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree, lists: BTreeMap::new(), beside: BTreeMap::new() }
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

    /// The module that a unit of it is linked into: its path without suffix, if a makefile on the
    /// way to the unit's goal lists it. A module's file may have `-` where its name has `_`.
    pub(crate) fn module(&mut self, goal: &str, name: &str) -> Result<Option<String>> {
        for (directory, _) in splits(goal) {
            let listed = self.lists(directory)?.get("obj-m").into_iter().flatten();
            let mut stems = listed.filter_map(|entry| entry.strip_suffix(".o"));
            let own =
                |stem: &&str| stem.rsplit('/').next().unwrap_or(stem).replace('-', "_") == name;
            if let Some(stem) = stems.find(own) {
                return Ok(Some(normal(&format!("{directory}/{stem}"))));
            }
        }
        Ok(None)
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
            Found::Built(owner) => Ok(Built { owner, goal, is_new: false }),
            Found::Nowhere(composite) => Err(self.option(directory, &composite)),
        })
    }

    /// Directories in `above`, but for `own`, whose makefiles look beyond them.
    fn beside(&mut self, above: &str, own: &str) -> Vec<String> {
        let source = self.tree.source();
        let own = format!("{above}/{own}");
        let all = self.beside.entry(above.to_owned()).or_insert_with(|| outward(&source, above));
        all.iter().filter(|directory| **directory != own).cloned().collect()
    }

    fn lists(&mut self, directory: &str) -> Result<&Lists> {
        if !self.lists.contains_key(directory) {
            let lists = lists::read(self.tree, directory, None)?;
            self.lists.insert(directory.to_owned(), lists);
        }
        self.lists.get(directory).context("a list is missing")
    }

    /// Whether the build gets into a directory; else why not.
    pub(crate) fn entered(&mut self, directory: &str) -> Result<Result<(), String>> {
        // The top-level makefile enters by rules of its own, and so does the architecture's.
        let parts: Vec<&str> = directory.split('/').collect();
        let is_entered = match parts.as_slice() {
            [] | [_] | ["arch", _] => true,
            ["arch", arch, _] => {
                let makefile = self.tree.source().join("arch").join(arch).join("Makefile");
                let text = std::fs::read_to_string(&makefile)
                    .with_context(|| format!("cannot read {}", makefile.display()))?;
                names(&text, &self.tree.config()?, &format!("{directory}/"))
            }
            _ => false,
        };
        if is_entered {
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

/// Directories in `above` whose makefiles look beyond them.
fn outward(source: &Path, above: &str) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(source.join(above))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| format!("{above}/{name}"))
        .filter(|directory| {
            makefile(source, directory)
                .and_then(|path| std::fs::read_to_string(path).ok())
                .is_some_and(|text| text.contains("../"))
        })
        .collect();
    all.sort();
    all
}

/// Whether an architecture's makefile names a directory for this configuration: `libs-y += DIRECTORY`,
/// `drivers-$(CONFIG_PCI) += DIRECTORY`.
fn names(makefile: &str, config: &str, directory: &str) -> bool {
    let options = options(config);
    let is_set = |option: &str| options.get(option) == Some(&"y");
    makefile.replace("\\\n", " ").lines().any(|line| {
        let Some((list, entries)) = line.split_once('=') else { return false };
        let condition = list.trim_end_matches(['+', ':', ' ', '\t']).rsplit('-').next();
        let option = condition.and_then(|c| c.strip_prefix("$(")?.strip_suffix(')'));
        let holds = condition == Some("y") || option.is_some_and(is_set);
        holds && entries.split_whitespace().any(|entry| entry == directory)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architectures_makefile_names_directories() {
        let makefile = "# drivers-y\nlibs-y  += arch/z/lib/\ncore-y := \\\n\tarch/z/core/ $(core-y)\n\
                        drivers-$(CONFIG_PCI)\t+= arch/z/pci/\ndrivers-$(CONFIG_FB) += arch/z/video/\n";
        let names = |name: &str| names(makefile, "CONFIG_PCI=y\nCONFIG_FBX=y\n", name);
        assert!(["arch/z/lib/", "arch/z/core/", "arch/z/pci/"].into_iter().all(names));
        assert!(!["arch/z/video/", "arch/z/um/", "arch/z/", "$(core-y)x"].into_iter().any(names));
    }

    #[test]
    fn paths_are_split_at_each_directory() {
        assert_eq!(splits("a/b/c.o"), [("a/b", "c.o"), ("a", "b/c.o")]);
    }
}
