// SPDX-License-Identifier: GPL-2.0-or-later
//! Which units the patches reach, and what else of a kernel's source they change.

use std::collections::{BTreeMap, BTreeSet};

use splice_core::diff::{Accept, AcceptKind, Objection};

use super::paths::{self, Meaning};
use super::refuse::{refuse, unless_accepted};
use crate::exit::{Exit, Failure};
use crate::kernel::{self, Added, Built, Kbuild, Listed, Owner, Patched, Sides, Tree};

/// A header that so many units use needs to be asked for.
const WIDE: usize = 200;

/// What the user said about it.
pub(super) struct Wish<'a> {
    /// Whether a header may reach many units.
    pub(super) wide: bool,
    /// What is accepted.
    pub(super) accepted: &'a [Accept],
}

/// The objects that the patches reach and that are built.
pub(super) struct Reached {
    /// Whose own source they change.
    own: BTreeMap<String, Built>,
    /// Those that include a changed header, and may use nothing of what changes.
    including: BTreeMap<String, Built>,
    /// Those headers.
    headers: String,
}

impl Reached {
    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Built> {
        self.own.values().chain(self.including.values())
    }

    /// Those that have to be compiled; refuses a header that very many units use.
    pub(super) fn narrowed(
        self,
        tree: &Tree,
        sides: &Sides<'_>,
        jobs: usize,
        wish: &Wish<'_>,
        note: &mut dyn FnMut(&str),
    ) -> Result<BTreeMap<String, Built>, Failure> {
        let Self { mut own, mut including, headers } = self;
        let most = if wish.wide { usize::MAX } else { WIDE };
        let users = kernel::noticing(tree, &including, sides, (jobs, most), note)?;
        if users.len() > most {
            return Err(refuse(&[Objection::new(
                headers,
                format!(
                    "more than {most} of the {} units of this kernel that include it use what changes",
                    including.len()
                ),
                "say --wide to build them all, which takes a few seconds for each, once; or change \
                 the functions that use it, and leave the header as it is",
            )]));
        }
        including.retain(|object, _| users.contains(object));
        own.extend(including);
        Ok(own)
    }
}

/// Finds them.
pub(super) fn units(
    tree: &Tree,
    patched: &Patched,
    wish: &Wish<'_>,
    warn: &mut dyn FnMut(&str),
    note: &mut dyn FnMut(&str),
) -> Result<Reached, Failure> {
    let mut kbuild = Kbuild::new(tree);
    let Touched { code, mut headers, added } = sort(tree, &mut kbuild, patched, wish, warn)?;
    let mut units = added;
    let mut absent = Vec::new();
    for path in code {
        let Some(object) = kernel::object_of(path) else { continue };
        if units.contains_key(&object) {
            continue;
        }
        match kbuild.built(&object)? {
            Ok(built) => {
                units.insert(object, built);
            }
            // It may be a part of another unit's text.
            Err(why) if included(tree, path)? => {
                note(&format!("{path} is included by others ({why})"));
                headers.push(path);
            }
            Err(why) => absent.push((path, why)),
        }
    }
    let mut including = BTreeMap::new();
    if !headers.is_empty() {
        note("looking for what includes the changed headers");
        including = self::including(tree, &mut kbuild, &headers)?;
        including.retain(|object, _| !units.contains_key(object));
        note(&format!("{} units include the changed headers", including.len()));
    }
    let is_empty = units.is_empty() && including.is_empty();
    if is_empty && !absent.is_empty() {
        let objections: Vec<Objection> = absent
            .iter()
            .map(|(path, why)| {
                Objection::new(
                    *path,
                    format!("it is not part of this kernel: {why}"),
                    "this kernel does not have the code, so it needs no fix",
                )
            })
            .collect();
        return Err(refuse(&objections));
    }
    for (path, why) in absent {
        warn(&format!("{path} is left out: it is not part of this kernel: {why}"));
    }
    if is_empty {
        return Err(Failure::new(Exit::Unchanged, "the patches change no code of this kernel"));
    }
    Ok(Reached { own: units, including, headers: headers.join(", ") })
}

/// The files that have to do with code.
#[derive(Default)]
struct Touched<'a> {
    code: Vec<&'a str>,
    headers: Vec<&'a str>,
    /// Units that a makefile adds.
    added: BTreeMap<String, Built>,
}

/// Sorts the changed files by what they mean; refuses those that an update cannot hold.
fn sort<'a>(
    tree: &Tree,
    kbuild: &mut Kbuild<'_>,
    patched: &'a Patched,
    wish: &Wish<'_>,
    warn: &mut dyn FnMut(&str),
) -> Result<Touched<'a>, Failure> {
    let mut touched = Touched::default();
    let mut objections = Vec::new();
    let meaning = |path: &str| match path.strip_prefix("arch/").and_then(|p| p.split_once('/')) {
        Some((arch, _)) if arch != tree.source_arch() => {
            Meaning::Neutral("it is another architecture's")
        }
        _ => paths::meaning(path),
    };
    for (path, what) in patched.odd() {
        match meaning(path) {
            Meaning::Neutral(why) => warn(&format!("{path} is left out: {why}")),
            _ => objections.push(Objection::new(
                path,
                format!("a patch {what} it, and only changes of a file's text can be followed"),
                "leave that part out if no code changes by it, or write the change as one to the \
                 text of a file in its old place",
            )),
        }
    }
    for path in patched.paths() {
        match meaning(path) {
            Meaning::Code => touched.code.push(path),
            Meaning::Header => touched.headers.push(path),
            Meaning::Neutral(why) => warn(&format!("{path} is left out: {why}")),
            Meaning::Beyond(place) => objections.push(place.objection(path)),
            Meaning::Makefile => {
                let added = makefile(tree, kbuild, patched, path, &mut objections, warn)?;
                touched.added.extend(added);
            }
            Meaning::Generates(why) => {
                let objection = Objection::new(
                    path,
                    format!("{why}, and what is generated is not made anew for an update"),
                    "leave that part out of the patch, and write what the fix needs of it into the \
                     code that uses it",
                );
                if path.ends_with(".h") {
                    touched.headers.push(path);
                    objections.push(objection.or_accept(AcceptKind::Data, path));
                } else {
                    objections.push(objection);
                }
            }
            Meaning::Unknown => objections.push(Objection::new(
                path,
                "nothing is known about files of this kind, so code may be made from it",
                "leave that file out of the patch, if no code depends on it",
            )),
        }
    }
    unless_accepted(objections, wish.accepted)?;
    Ok(touched)
}

/// A makefile may change what the kernel is made of: the units that it adds.
fn makefile(
    tree: &Tree,
    kbuild: &mut Kbuild<'_>,
    patched: &Patched,
    path: &str,
    objections: &mut Vec<Objection>,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<(String, Built)>, Failure> {
    let (before, after) = patched.texts(path);
    let changes = kernel::changes(tree, path, before, after)?;
    if changes.is_empty() {
        warn(&format!("{path} is left out: it changes nothing in this kernel's configuration"));
    }
    let mut added = Vec::new();
    for change in changes {
        objections.push(match change {
            Listed::Added(unit) => match new_unit(kbuild, patched, path, &unit)? {
                Ok(()) => {
                    added.push((unit.object, unit.built));
                    continue;
                }
                Err(objection) => objection,
            },
            Listed::Module(object) => Objection::new(
                &object,
                format!("{path} adds it as a module, and an update only changes what is running"),
                "build and load that module by itself, and leave it out of the patch",
            ),
            Listed::Removed(object) => Objection::new(
                &object,
                format!("{path} takes it out, and a running kernel cannot lose a unit"),
                "leave that part out of the patch; code that nobody calls any more does no harm",
            ),
            Listed::Other(what) => Objection::new(
                path,
                format!("it changes how units are built or which there are: {what}"),
                "leave that part out of the patch, if the fix is right without it",
            ),
        });
    }
    Ok(added)
}

/// Whether a unit that a makefile adds can be one of the update's.
fn new_unit(
    kbuild: &mut Kbuild<'_>,
    patched: &Patched,
    path: &str,
    unit: &Added,
) -> Result<Result<(), Objection>, Failure> {
    let why = if let Err(why) = kbuild.entered(&unit.directory)? {
        format!("this kernel has nothing of that directory: {why}")
    } else if patched.paths().any(|path| {
        kernel::object_of(path).as_ref() == Some(&unit.object) && patched.texts(path).0.is_empty()
    }) {
        return Ok(Ok(()));
    } else {
        "its source is not a new .c or .S file of the patch".to_owned()
    };
    Ok(Err(Objection::new(
        &unit.object,
        format!("{path} adds it to what this kernel is made of, but {why}"),
        "put the new code into a unit that is there already",
    )))
}

/// Whether other source files include this one.
fn included(tree: &Tree, path: &str) -> Result<bool, Failure> {
    Ok(!kernel::reached(&tree.source(), tree.source_arch(), &[path])?.is_empty())
}

/// The units that include one of these files.
fn including(
    tree: &Tree,
    kbuild: &mut Kbuild<'_>,
    headers: &[&str],
) -> Result<BTreeMap<String, Built>, Failure> {
    let files: BTreeSet<String> = kernel::reached(&tree.source(), tree.source_arch(), headers)?;
    let mut reached = BTreeMap::new();
    for path in &files {
        let Some(object) = kernel::object_of(path) else { continue };
        match kbuild.built(&object)? {
            Ok(built) => {
                reached.insert(object, built);
            }
            // What processes have mapped must not differ unnoticed; it is compiled to see.
            Err(_) if paths::is_mapped(path) => {
                let goal = object.clone();
                reached.insert(object, Built { owner: Owner::Vmlinux, goal, is_new: false });
            }
            Err(_) => {}
        }
    }
    Ok(reached)
}
