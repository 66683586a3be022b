// SPDX-License-Identifier: GPL-2.0-or-later
//! What a directory's makefile lists, and what a patch of a makefile changes in that: make evaluates
//! it, with the kernel's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::kbuild::Built;
use super::reach::normal;
use super::{Owner, Tree};

/// The lists of a directory's makefile, by variable: `obj-y`, `tipc-y`, …
pub(super) type Lists = BTreeMap<String, Vec<String>>;

/// Reads a directory's lists: everything that ends in `-y`, `-m` or `-objs`; and for a comparison
/// all other variables, but for those of options that are not set.
const PROBE: &str = "\
srctree := .
objtree := .
src := $(obj)
include include/config/auto.conf
BITS := $(if $(CONFIG_64BIT),64,32)
include scripts/Kbuild.include
-include scripts/Makefile.compiler
include $(or $(makefile),$(firstword $(wildcard $(obj)/Kbuild) $(obj)/Makefile))
$(foreach v,$(filter %-y %-m %-objs,$(.VARIABLES)),$(info =$(v) $($(v))))
$(foreach v,$(filter-out %-y %-m %-objs %- MAKEFILE_LIST,$(.VARIABLES)),\
$(if $(filter file,$(origin $(v))),$(info +$(v) $(strip $(value $(v))))))
.PHONY: splice-lists
splice-lists: ;
";

/// What the makefile of a directory lists; nothing if it has none, or only a part of one. Another
/// file can be read in its place.
pub(super) fn read(tree: &Tree, directory: &str, instead: Option<&Path>) -> Result<Lists> {
    Ok(parse(&probe(tree, directory, instead)?.unwrap_or_default(), '='))
}

fn probe(tree: &Tree, directory: &str, instead: Option<&Path>) -> Result<Option<String>> {
    let source = tree.source();
    if makefile(&source, directory).is_none() {
        return Ok(None);
    }
    let mut make = tree.make(&source);
    make.arg(format!("obj={directory}")).arg(format!("SRCARCH={}", tree.source_arch()));
    if let Some(path) = instead {
        make.arg(format!("makefile={}", path.display()));
    }
    evaluate(make)
}

/// What make prints of a directory's lists. A makefile on its standard input would leave a copy of
/// that in the temporary directory if reading the directory's own fails.
fn evaluate(mut make: Command) -> Result<Option<String>> {
    make.args(["-r", "-R", "-s", "-f", "/dev/null", "--eval", PROBE, "splice-lists"]);
    let output = make.stdin(Stdio::null()).output().context("cannot run make")?;
    // One that cannot be read alone is a part of another one, which sets what this one needs.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text))
}

/// The makefile of a directory.
pub(super) fn makefile(source: &Path, directory: &str) -> Option<std::path::PathBuf> {
    ["Kbuild", "Makefile"]
        .into_iter()
        .map(|name| source.join(directory).join(name))
        .find(|path| path.is_file())
}

/// What a patch of a makefile changes for this kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// An object that the patch adds to what is built.
    Added(Added),
    /// A module, by the path of its object, that the patch adds.
    Module(String),
    /// One that it takes away.
    Removed(String),
    /// Something else, in words.
    Other(String),
}

/// An object that a patch of a makefile adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    /// Its path.
    pub(crate) object: String,
    /// The directory whose makefile lists it.
    pub(crate) directory: String,
    /// What it is to be.
    pub(crate) built: Built,
}

/// What a patch of the makefile at `path` changes for this kernel.
pub(crate) fn changes(tree: &Tree, path: &str, before: &str, after: &str) -> Result<Vec<Listed>> {
    let lines = |text: &str| -> BTreeSet<String> { logical(text).into_iter().collect() };
    let (old, new) = (lines(before), lines(after));
    let odd: Vec<&String> = old.symmetric_difference(&new).collect();
    if odd.is_empty() {
        return Ok(Vec::new());
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    // The version's numbers stand in what is compiled only by way of generated headers.
    if directory.is_empty() && odd.iter().all(|line| is_version(line)) {
        return Ok(Vec::new());
    }
    let other = |line: &str| vec![Listed::Other(format!("`{}`", line.trim()))];
    let rules = new.iter().chain(&old).any(|line| is_rule(line));
    if let Some(line) = odd.iter().find(|line| is_rule(line) || (rules && is_conditional(line))) {
        return Ok(other(line));
    }
    let first = || odd.first().map_or("", |line| line.as_str());
    let read = makefile(&tree.source(), directory).filter(|_| !directory.is_empty());
    if read != Some(tree.source().join(path)) {
        return Ok(other(first()));
    }
    let place = tree.scratch()?;
    std::fs::write(place.path(), after).context("cannot write a temporary file")?;
    let (Some(old), Some(new)) =
        (probe(tree, directory, None)?, probe(tree, directory, Some(place.path()))?)
    else {
        return Ok(other(first()));
    };
    Ok(compare(directory, &old, &new))
}

fn compare(directory: &str, old: &str, new: &str) -> Vec<Listed> {
    let mut found = Vec::new();
    let (flags, others) = (parse(old, '+'), parse(new, '+'));
    for name in flags.keys().chain(others.keys()).collect::<BTreeSet<_>>() {
        if flags.get(name) != others.get(name) {
            found.push(Listed::Other(format!("the value of {name}")));
        }
    }
    let (before, after) = (parse(old, '='), parse(new, '='));
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let entries = |lists: &Lists| -> BTreeSet<String> {
            lists.get(name).into_iter().flatten().cloned().collect()
        };
        let (was, is) = (entries(&before), entries(&after));
        for entry in was.symmetric_difference(&is) {
            let lists = if was.contains(entry) { &before } else { &after };
            let owner = match entry.ends_with(".o").then(|| member(lists, entry)) {
                Some(Some(Found::Built(owner))) => Some(owner),
                // It is a part of something that is not built.
                Some(_) => continue,
                None => None,
            };
            let path = PathBuf::from(directory).join(entry).display().to_string();
            let listed = |lists: &Lists| lists.values().flatten().any(|o| o == entry);
            found.push(match owner {
                Some(owner) if !listed(&before) => match added(name, entry, &before, &after) {
                    What::Unit => Listed::Added(Added {
                        object: normal(&path),
                        directory: directory.to_owned(),
                        built: Built { owner, goal: path, is_new: true },
                    }),
                    What::Module => Listed::Module(path),
                    What::Whole => continue,
                    What::Odd => Listed::Other(format!("{entry} in the list {name}")),
                },
                Some(_) if !listed(&after) => Listed::Removed(path),
                _ => Listed::Other(format!("{entry} in the list {name}")),
            });
        }
    }
    found.dedup();
    found
}

/// What an entry is that a list has gained.
enum What {
    Unit,
    /// A module of its own, or a part of one.
    Module,
    /// It is made of units that are in a list of its own.
    Whole,
    /// What was made of one unit before is made of several.
    Odd,
}

fn added(list: &str, entry: &str, before: &Lists, after: &Lists) -> What {
    let composite = |lists: &Lists, object: &str| {
        let stem = object.trim_end_matches(".o");
        ENDS.iter().any(|end| lists.contains_key(&format!("{stem}{end}")))
    };
    let is_whole = composite(after, entry);
    let modules = |lists: &Lists, object: &str| {
        lists.get("obj-m").is_some_and(|all| all.iter().any(|o| o == object))
    };
    match list {
        "obj-y" | "lib-y" if is_whole => What::Whole,
        "obj-y" | "lib-y" => What::Unit,
        "obj-m" => What::Module,
        _ => {
            let stem = ENDS.iter().find_map(|end| list.strip_suffix(end)).unwrap_or(list);
            let object = format!("{stem}.o");
            let was = before.values().flatten().any(|o| *o == object);
            match (was, composite(before, &object)) {
                (true, false) => What::Odd,
                (false, _) if modules(after, &object) => What::Module,
                _ => What::Unit,
            }
        }
    }
}

/// What the name of a list of an object's parts ends in.
const ENDS: [&str; 3] = ["-objs", "-y", "-m"];

/// The lines of a makefile without comments, each with what continues it.
fn logical(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let mut whole = open.take().unwrap_or_default();
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        if whole.is_empty() {
            whole.push_str(part.trim_end());
        } else {
            whole.push(' ');
            whole.push_str(part.trim());
        }
        if goes_on {
            open = Some(whole);
        } else {
            lines.push(whole);
        }
    }
    lines.extend(open);
    let code = |line: &String| {
        // A recipe's comment is the shell's; that a `#` is quoted does not matter for comparing.
        let code = line.split(" #").next().unwrap_or_default().trim_end();
        (!code.is_empty() && !code.trim_start().starts_with('#')).then(|| code.to_owned())
    };
    lines.iter().filter_map(code).collect()
}

fn is_rule(line: &str) -> bool {
    let assigned = line.find('=').unwrap_or(line.len());
    let colon = line.find(':').is_some_and(|at| {
        at < assigned && !matches!(line.as_bytes().get(at + 1), Some(b'=' | b':'))
    });
    let words = ["include", "-include", "sinclude", "define", "endef", "$("];
    line.starts_with('\t') || colon || words.iter().any(|word| line.starts_with(word))
}

fn is_conditional(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    ["ifdef", "ifndef", "ifeq", "ifneq", "else", "endif"].contains(&word)
        || word.starts_with("ifeq(")
        || word.starts_with("ifneq(")
}

fn is_version(line: &str) -> bool {
    let name = line.split('=').next().unwrap_or_default().trim();
    ["VERSION", "PATCHLEVEL", "SUBLEVEL", "EXTRAVERSION", "NAME"].contains(&name)
}

fn parse(text: &str, mark: char) -> Lists {
    let mut lists = Lists::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(mark)) {
        let mut words = line.split_whitespace().map(str::to_owned);
        if let Some(name) = words.next() {
            lists.insert(name, words.collect());
        }
    }
    lists
}

/// What an object is.
pub(super) enum Found {
    /// Built, into this.
    Built(Owner),
    /// It is in an object that is not built.
    Nowhere(String),
}

/// What an object is in these lists.
pub(super) fn member(lists: &Lists, object: &str) -> Option<Found> {
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
        let stem = ENDS.iter().find_map(|end| name.strip_suffix(end))?;
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
            '=',
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

    const OLD: &str = "=obj-y a.o sub/\n=obj-m m.o\n=m-y x.o\n=off-y u.o\n+ccflags-z -O2\n";

    fn differs(from: &str, to: &str) -> Vec<Listed> {
        compare("d", OLD, &OLD.replace(from, to))
    }

    #[test]
    fn what_a_makefile_adds_is_found() {
        assert_eq!(compare("d", OLD, OLD), []);
        let unit = |object: &str, owner: Owner| {
            [Listed::Added(Added {
                object: format!("d/{object}"),
                directory: "d".into(),
                built: Built { owner, goal: format!("d/{object}"), is_new: true },
            })]
        };
        assert_eq!(differs("a.o", "a.o b.o"), unit("b.o", Owner::Vmlinux));
        assert_eq!(differs("x.o", "x.o y.o"), unit("y.o", Owner::Module("m".into())));
        let whole = OLD.replace("a.o", "a.o b.o") + "=b-objs c.o\n";
        assert_eq!(compare("d", OLD, &whole), unit("c.o", Owner::Vmlinux));
        assert_eq!(differs("m.o", "m.o n.o"), [Listed::Module("d/n.o".into())]);
        let module = OLD.replace("m.o", "m.o n.o") + "=n-y c.o\n";
        assert_eq!(
            compare("d", OLD, &module),
            [Listed::Module("d/c.o".into()), Listed::Module("d/n.o".into())]
        );
        // `a.o` was made from `a.c`, and is no longer.
        let split = OLD.to_owned() + "=a-y c.o\n";
        assert_eq!(compare("d", OLD, &split), [Listed::Other("c.o in the list a-y".into())]);
        assert_eq!(differs(" x.o", ""), [Listed::Removed("d/x.o".into())]);
        assert_eq!(differs("u.o", "u.o v.o"), [], "nothing builds off.o");
        assert_eq!(differs("sub/", "sub/ more/").len(), 1);
        assert_eq!(differs("-O2", "-O3"), [Listed::Other("the value of ccflags-z".into())]);
    }

    #[test]
    fn a_makefile_leaves_nothing_behind_whether_it_can_be_read_or_not() {
        let tree = tempfile::tempdir().unwrap();
        let temporary = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("include/config/auto.conf", ""),
            ("scripts/Kbuild.include", ""),
            ("good/Makefile", "obj-y += a.o\n"),
            ("bad/Makefile", "obj-y += a.o\n$(error only with another one)\n"),
        ] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let read = |directory: &str| {
            let mut make = Command::new("make");
            make.current_dir(tree.path()).env("TMPDIR", temporary.path());
            make.arg(format!("obj={directory}"));
            evaluate(make).unwrap()
        };
        assert!(read("good").unwrap().lines().any(|line| line == "=obj-y a.o"));
        assert_eq!(read("bad"), None);
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_order_and_comments_of_a_makefile_do_not_matter() {
        let text = "# one\nobj-y += a.o \\\n\tb.o # two\n\nall: x\n\techo y\n";
        let lines = logical(text);
        assert_eq!(lines, ["obj-y += a.o b.o", "all: x", "\techo y"]);
        let rules: Vec<bool> = lines.iter().map(|line| is_rule(line)).collect();
        assert_eq!(rules, [false, true, true]);
        assert!(!is_rule("a := b") && !is_rule("a = b:c") && is_rule("$(obj)/a.o: FLAGS += x"));
        assert!(is_version("SUBLEVEL = 171") && !is_version("HOSTCC = gcc"));
    }
}
