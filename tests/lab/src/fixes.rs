// SPDX-License-Identifier: GPL-2.0-or-later
//! Real fixes, derived from two source packages of the distribution: the manifest says which hunks of
//! their difference make one fix.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::author::Author;
use crate::packages::Cache;

/// The committed list of fixes.
const MANIFEST: &str = include_str!("../../corpus/manifest.tsv");

/// One fix of the manifest.
#[derive(Debug, Clone)]
pub struct Fix {
    /// Short name, also the update's id.
    pub id: String,
    /// Version of the source package that lacks it.
    pub base: String,
    /// Version of the source package that has it.
    pub target: String,
    /// CVE number.
    pub cve: String,
    /// Its subject.
    pub subject: String,
    selectors: Vec<Selector>,
}

/// Which hunks of a file are meant.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    file: String,
    function: String,
    text: Option<String>,
}

/// The fixes of the manifest, in its order.
pub fn manifest() -> Result<Vec<Fix>> {
    parse_manifest(MANIFEST)
}

/// The fix with this id.
pub fn find(id: &str) -> Result<Fix> {
    let all = manifest()?;
    all.into_iter().find(|fix| fix.id == id).with_context(|| format!("no fix is called {id}"))
}

/// Gets the files of all these fixes at once, so that each tarball is read only once.
pub fn prefetch(cache: &Cache, fixes: &[Fix]) -> Result<()> {
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for fix in fixes {
        wanted.entry(&fix.base).or_default().extend(fix.files());
        wanted.entry(&fix.target).or_default().extend(fix.files());
    }
    for (version, mut files) in wanted {
        files.sort();
        files.dedup();
        cache.source_files(version, &files)?;
    }
    Ok(())
}

fn parse_manifest(text: &str) -> Result<Vec<Fix>> {
    let mut rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    if rows.next() != Some("id\tbase\ttarget\tcve\tsubject\tselect") {
        bail!("the corpus manifest has other columns than expected");
    }
    rows.map(|row| {
        let fields: Vec<&str> = row.split('\t').collect();
        let [id, base, target, cve, subject, select] = fields.as_slice() else {
            bail!("a row of the corpus manifest has not six columns: {row}");
        };
        let selectors = select.split(' ').map(Selector::parse).collect::<Result<_>>()?;
        Ok(Fix {
            id: (*id).to_owned(),
            base: (*base).to_owned(),
            target: (*target).to_owned(),
            cve: (*cve).to_owned(),
            subject: (*subject).to_owned(),
            selectors,
        })
    })
    .collect()
}

impl Selector {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (file, rest) = text
            .split_once(':')
            .with_context(|| format!("a selector is FILE:FUNCTION[~TEXT], not {text}"))?;
        let (function, text) = match rest.split_once('~') {
            Some((function, text)) => (function, Some(text.replace("\\s", " "))),
            None => (rest, None),
        };
        Ok(Self { file: file.to_owned(), function: function.to_owned(), text })
    }

    fn matches(&self, file: &str, hunk: &Hunk) -> bool {
        self.file == file
            && (self.function == "*" || self.function == hunk.function)
            && self.text.as_ref().is_none_or(|text| hunk.lines().any(|line| line.contains(text)))
    }
}

impl Fix {
    /// The files that it touches.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut files: Vec<String> = self.selectors.iter().map(|part| part.file.clone()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The fix as a patch, from the two source packages.
    pub fn patch(&self, cache: &Cache) -> Result<String> {
        self.patch_by(cache, None)
    }

    /// The same, with an author's code.
    pub fn patch_by(&self, cache: &Cache, author: Option<&Author>) -> Result<String> {
        let files = self.files();
        let old = cache.source_files(&self.base, &files)?;
        let new = cache.source_files(&self.target, &files)?;
        let mut patch = format!("Subject: {}\n\nFixes {}.\n\n", self.subject, self.cve);
        let mut unused: Vec<&Selector> = self.selectors.iter().collect();
        for file in &files {
            let before = std::fs::read_to_string(old.join(file))?;
            let hunks = difference(&old.join(file), &new.join(file), &before)?;
            let chosen: Vec<&Hunk> = hunks
                .iter()
                .filter(|hunk| self.selectors.iter().any(|part| part.matches(file, hunk)))
                .collect();
            unused.retain(|part| !chosen.iter().any(|hunk| part.matches(file, hunk)));
            let kept = |hunk: &&Hunk| {
                author.is_none_or(|author| !author.leaves_out(|part| part.matches(file, hunk)))
            };
            let after = apply(&before, &chosen.into_iter().filter(kept).collect::<Vec<_>>())?;
            let after = author.map_or(Ok(after.clone()), |author| author.amend(file, &after))?;
            patch.push_str(&unified(&before, &after, file)?);
        }
        if let Some(part) = unused.first() {
            bail!(
                "{} has no hunk in {} of {} between {} and {}",
                self.id,
                part.function,
                part.file,
                self.base,
                self.target
            );
        }
        Ok(patch)
    }
}

/// A change without context.
#[derive(Debug)]
struct Hunk {
    /// First removed line (from 0), or the line before which lines are added.
    start: usize,
    removed: Vec<String>,
    added: Vec<String>,
    /// The function that it lies in, or `-`.
    function: String,
}

impl Hunk {
    fn lines(&self) -> impl Iterator<Item = &String> {
        self.removed.iter().chain(&self.added)
    }
}

/// Every change between two files.
fn difference(old: &Path, new: &Path, before: &str) -> Result<Vec<Hunk>> {
    let text = run_diff(&["-U0".into(), old.into(), new.into()])?;
    parse_hunks(&text, before)
}

fn parse_hunks(text: &str, before: &str) -> Result<Vec<Hunk>> {
    let lines: Vec<&str> = before.lines().collect();
    let mut hunks: Vec<Hunk> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("@@ -") {
            let place = rest.split(' ').next().unwrap_or_default();
            let (first, count) = place.split_once(',').unwrap_or((place, "1"));
            let first: usize = first.parse().context("diff wrote an unknown hunk header")?;
            let start = if count == "0" { first } else { first.saturating_sub(1) };
            let function = enclosing(&lines, start);
            hunks.push(Hunk { start, removed: Vec::new(), added: Vec::new(), function });
        } else if line.starts_with("---") || line.starts_with("+++") {
            // A file header: the first hunk is yet to come. (No removed line begins with two minus
            // signs in C.)
        } else if let (Some(hunk), Some(body)) = (hunks.last_mut(), line.strip_prefix('-')) {
            hunk.removed.push(body.to_owned());
        } else if let (Some(hunk), Some(body)) = (hunks.last_mut(), line.strip_prefix('+')) {
            hunk.added.push(body.to_owned());
        }
    }
    Ok(hunks)
}

/// The function that a line lies in: what the last line says that begins in the first column with a
/// name and has a parenthesis, unless a body has ended since.
fn enclosing(lines: &[&str], at: usize) -> String {
    for line in lines.iter().take(at).rev() {
        if line.starts_with('}') {
            break;
        }
        let begins = line.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if begins
            && !line.ends_with(';')
            && let Some((head, _)) = line.split_once('(')
        {
            let name = head.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            return name.unwrap_or("-").to_owned();
        }
    }
    "-".to_owned()
}

fn apply(before: &str, hunks: &[&Hunk]) -> Result<String> {
    let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
    for hunk in hunks.iter().rev() {
        let end = hunk.start + hunk.removed.len();
        if lines.get(hunk.start..end) != Some(hunk.removed.as_slice()) {
            bail!("diff's hunk at line {} does not fit its own file", hunk.start + 1);
        }
        lines.splice(hunk.start..end, hunk.added.iter().cloned());
    }
    let mut after = lines.join("\n");
    after.push('\n');
    Ok(after)
}

/// A patch that edits one file of a source package: the first occurrence of each text is replaced.
/// For the tests' own small changes.
pub fn edit(cache: &Cache, version: &str, file: &str, edits: &[(&str, &str)]) -> Result<String> {
    edit_on(cache, version, file, &[], edits)
}

/// The same, for a file in which the texts of `base` have been replaced already.
pub fn edit_on(
    cache: &Cache,
    version: &str,
    file: &str,
    base: &[(&str, &str)],
    edits: &[(&str, &str)],
) -> Result<String> {
    let replaced = |mut text: String, edits: &[(&str, &str)]| {
        for (old, new) in edits {
            if !text.contains(old) {
                bail!("{file} of {version} does not contain {old:?}");
            }
            text = text.replacen(old, new, 1);
        }
        Ok(text)
    };
    let place = cache.source_files(version, &[file.to_owned()])?;
    let before = replaced(std::fs::read_to_string(place.join(file))?, base)?;
    unified(&before, &replaced(before.clone(), edits)?, file)
}

/// The difference of two texts as a patch of this file; empty if there is none.
pub fn unified(before: &str, after: &str, file: &str) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    std::fs::write(&old, before)?;
    std::fs::write(&new, after)?;
    let label = |side: &str| PathBuf::from(format!("--label={side}/{file}"));
    run_diff(&["-u".into(), "-p".into(), label("a"), label("b"), old, new])
}

fn run_diff(arguments: &[PathBuf]) -> Result<String> {
    let output = Command::new("diff").args(arguments).output().context("cannot run diff")?;
    if output.status.code().is_none_or(|code| code > 1) {
        bail!("diff failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("diff's output is not text")
}

/// The patches of a directory by name, for a run over patches that somebody else made.
pub fn directory(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut patches = BTreeMap::new();
    let entries = std::fs::read_dir(path)
        .with_context(|| format!("cannot list the patches in {}", path.display()))?;
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "patch" || extension == "diff") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read(&file)?;
            patches.insert(name, String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "int a(int x)\n{\n\treturn x;\n}\n\nstatic int\nb(void)\n{\n\treturn 1;\n}\n";
    const AFTER: &str =
        "int a(int x)\n{\n\treturn x + 1;\n}\n\nstatic int\nb(void)\n{\n\tx();\n\treturn 1;\n}\n";

    fn hunks() -> Vec<Hunk> {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("o"), directory.path().join("n"));
        std::fs::write(&old, BEFORE).unwrap();
        std::fs::write(&new, AFTER).unwrap();
        difference(&old, &new, BEFORE).unwrap()
    }

    #[test]
    fn hunks_know_their_function() {
        let names: Vec<String> = hunks().into_iter().map(|hunk| hunk.function).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn one_function_can_be_selected() {
        let hunks = hunks();
        let selector = Selector::parse("f.c:b").unwrap();
        let chosen: Vec<&Hunk> =
            hunks.iter().filter(|hunk| selector.matches("f.c", hunk)).collect();
        let after = apply(BEFORE, &chosen).unwrap();
        assert!(after.contains("return x;") && after.contains("\tx();\n"), "{after}");
        let patch = unified(BEFORE, &after, "f.c").unwrap();
        assert!(patch.starts_with("--- a/f.c\n+++ b/f.c\n@@ "), "{patch}");
        assert_eq!(patch.lines().filter(|line| line.starts_with('+')).count(), 2);
    }

    #[test]
    fn text_selects_among_hunks() {
        let hunks = hunks();
        let with = |text| Selector::parse(text).unwrap();
        let count =
            |selector: Selector| hunks.iter().filter(|hunk| selector.matches("f.c", hunk)).count();
        assert_eq!(count(with("f.c:*")), 2);
        assert_eq!(count(with("f.c:*~x\\s+")), 1);
        assert_eq!(count(with("g.c:*")), 0);
    }

    #[test]
    fn the_manifest_is_sound() {
        let all = manifest().unwrap();
        assert!(all.len() >= 10);
        let ids: std::collections::BTreeSet<&str> = all.iter().map(|fix| fix.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "an id occurs twice");
    }
}
