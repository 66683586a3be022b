// SPDX-License-Identifier: GPL-2.0-or-later
//! Which units notice what changes in a header that they include: of those that do not, nothing has to
//! be compiled. To preprocess a unit takes a tenth of what it takes to compile it.
//!
//! kbuild preprocesses the unit before; the unit after is made by the same command in an overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::compile::{one, pool, turns};
use super::record::{record, recorded};
use super::text::differs;
use super::{Built, Overlay, Tree};
use crate::exit::Failure;

/// Line numbers and what is counted differ after any change of a header, and no code is better or worse
/// for that; so they are nothing here. Nor are there line markers. (To redefine them is warned of, and some
/// directories make warnings errors.)
const FLAGS: &str = "-P -w -D__LINE__=0 -D__COUNTER__=0";
/// So many units are preprocessed before others get their turn at the tree. The text of each has some
/// three million bytes.
const CHUNK: usize = 128;

/// The source before, if that is not the tree itself, and after.
pub(crate) struct Sides<'a> {
    pub(crate) before: Option<&'a Overlay>,
    pub(crate) after: &'a Overlay,
}

/// Of these units, those that notice the difference, and those of which it is not known. Once there are
/// more than `most`, no further ones are looked at.
pub(crate) fn noticing(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    sides: &Sides<'_>,
    (jobs, most): (usize, usize),
    note: &mut dyn FnMut(&str),
) -> Result<BTreeSet<String>, Failure> {
    let pool = pool(jobs)?;
    let all: Vec<(&String, &Built)> = units.iter().collect();
    let mut found = BTreeSet::new();
    let mut done = 0;
    for (chunk, jobs) in turns(tree, &all, CHUNK, jobs) {
        let (all, use_it) = (units.len(), found.len());
        note(&format!("looking which of {all} units use it: {done} done, {use_it} do"));
        let texts = before(tree, &chunk, sides.after, jobs, note)?;
        let noticed: Result<Vec<bool>> = pool.install(|| {
            texts
                .par_iter()
                .map(|text| text.as_ref().map_or(Ok(true), |t| t.notices(sides)))
                .collect()
        });
        let objects = chunk.iter().map(|(object, _)| (*object).clone()).zip(noticed?);
        found.extend(objects.filter_map(|(object, noticed)| noticed.then_some(object)));
        if found.len() > most {
            break;
        }
        done += chunk.len();
    }
    Ok(found)
}

/// Preprocesses units in the tree. Their texts are moved to the overlay, so the tree is as it was. There
/// is none of a unit that cannot be preprocessed by itself, such as one with a header that its directory's
/// makefile makes for the object alone.
fn before(
    tree: &Tree,
    chunk: &[(&String, &Built)],
    overlay: &Overlay,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Option<Text>>, Failure> {
    let _lock = tree.lock(note)?;
    let mut make = tree.make_units(&tree.source());
    make.arg("-k").arg(format!("-j{jobs}"));
    make.args(["KCFLAGS", "KAFLAGS"].map(|name| format!("{name}={FLAGS}")));
    make.args(chunk.iter().filter_map(|(object, built)| text_of(tree, object, &built.goal)));
    make.output().context("cannot run make")?;
    let mut texts = Vec::new();
    for (object, _) in chunk {
        let text = Text::take(tree, object, overlay.path())?;
        if text.is_none() {
            note(&format!("{object} cannot be preprocessed by itself, so it is compiled"));
        }
        texts.push(text);
    }
    Ok(texts)
}

/// What kbuild calls the text of an object (`%.i` and `%.s` in scripts/Makefile.build), by way of
/// `goal`.
fn text_of(tree: &Tree, object: &str, goal: &str) -> Option<String> {
    let is_assembler = tree.source().join(object).with_extension("S").is_file();
    let stem = goal.strip_suffix(".o")?;
    Some(format!("{stem}.{}", if is_assembler { "s" } else { "i" }))
}

/// A preprocessed unit.
struct Text {
    /// Its path in the tree, and in the overlay once the command has run there.
    product: String,
    /// How it is made.
    command: String,
    /// Where that of the tree is now.
    file: PathBuf,
}

impl Text {
    /// Takes it out of the tree, if it was made.
    fn take(tree: &Tree, object: &str, to: &Path) -> Result<Option<Self>> {
        let source = tree.source();
        let Some(product) = text_of(tree, object, object) else { return Ok(None) };
        let there = source.join(&product);
        if !there.is_file() {
            return Ok(None);
        }
        let (command, _) = recorded(&source, &product)?;
        let file = to.join(format!("{product}.before"));
        std::fs::rename(&there, &file)
            .with_context(|| format!("cannot move {}", there.display()))?;
        let record = record(&source, &product);
        std::fs::remove_file(&record)
            .with_context(|| format!("cannot remove {}", record.display()))?;
        Ok(Some(Self { product, command, file }))
    }

    /// Whether the unit notices the difference. What cannot be preprocessed any more will not compile
    /// either, and the compiler says it better.
    fn notices(&self, sides: &Sides<'_>) -> Result<bool> {
        let made = |overlay: &Overlay| {
            one(overlay, &self.command).ok().map(|_| overlay.path().join(&self.product))
        };
        let before = match sides.before {
            Some(overlay) => made(overlay),
            None => Some(self.file.clone()),
        };
        let (Some(before), Some(after)) = (before, made(sides.after)) else { return Ok(true) };
        let read = |file: &PathBuf| {
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let (old, new) = (read(&before)?, read(&after)?);
        let noticed = match (std::str::from_utf8(&old), std::str::from_utf8(&new)) {
            (Ok(old), Ok(new)) if self.product.ends_with(".i") => differs(old, new),
            _ => old != new,
        };
        for file in BTreeSet::from([&self.file, &before, &after]) {
            std::fs::remove_file(file)
                .with_context(|| format!("cannot remove {}", file.display()))?;
        }
        Ok(noticed)
    }
}
