// SPDX-License-Identifier: GPL-2.0-or-later
//! Patches: which files they touch, and those files with the patches applied. Nothing on disk is
//! changed.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};
use diffy::patch_set::{FileOperation, ParseOptions, PatchKind, PatchSet};
use diffy::{DiffOptions, apply as apply_hunks};

/// Files before and after all patches, by path.
#[derive(Debug, Default, Clone)]
pub(crate) struct Patched {
    /// Contents before; a new file is not in it.
    before: BTreeMap<String, String>,
    /// Contents after.
    after: BTreeMap<String, String>,
    /// Files with which something else is done than changing their text: what.
    odd: BTreeMap<String, &'static str>,
}

impl Patched {
    /// What these patches do to files that have those of `base`, which are a part of them, already.
    pub(crate) fn since(&self, base: &Patched) -> Patched {
        let mut since = self.clone();
        since.before.extend(base.after.iter().map(|(path, text)| (path.clone(), text.clone())));
        since.odd.retain(|path, what| base.odd.get(path) != Some(what));
        since
    }

    /// Paths of the files that end up different, relative to the tree.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.after
            .iter()
            .filter(|(path, text)| self.before.get(*path) != Some(text))
            .map(|(path, _)| path.as_str())
    }

    /// Their contents for the compiler: what stands behind a change keeps its line numbers.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, String)> {
        self.paths().map(|path| {
            let after = self.after.get(path).map_or("", String::as_str);
            let text = match self.before.get(path) {
                Some(before) if is_c(path) => keep_lines(before, after),
                _ => after.to_owned(),
            };
            (path, text)
        })
    }

    /// Files with which something else is done than changing their text, and what.
    pub(crate) fn odd(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.odd.iter().map(|(path, what)| (path.as_str(), *what))
    }

    /// A file's text before, empty if it is new, and after.
    pub(crate) fn texts(&self, path: &str) -> (&str, &str) {
        let [before, after] =
            [&self.before, &self.after].map(|texts| texts.get(path).map_or("", String::as_str));
        (before, after)
    }

    /// Whether the function of that name in that file reads differently than before.
    pub(crate) fn touches(&self, path: &str, name: &str) -> bool {
        match (self.before.get(path), self.after.get(path)) {
            (Some(before), Some(after)) => function(before, name) != function(after, name),
            (None, after) => after.is_some(),
            (_, None) => false,
        }
    }

    /// Applies a patch on top of those before.
    pub(crate) fn add(&mut self, source: &Path, name: &str, text: &str) -> Result<()> {
        let options = if text.lines().any(|line| line.starts_with("diff --git ")) {
            ParseOptions::gitdiff()
        } else {
            ParseOptions::unidiff()
        };
        for file in PatchSet::parse(text, options) {
            let file = file.with_context(|| {
                format!("{name} is no patch that can be read; is it complete, and made by diff -u?")
            })?;
            let (path, new) = match file.operation() {
                FileOperation::Modify { original, modified } => {
                    (self.existing(source, &[modified, original]), false)
                }
                FileOperation::Create(path) => (stripped(path).to_owned(), true),
                FileOperation::Delete(path) => {
                    self.odd.insert(stripped(path).to_owned(), "deletes");
                    continue;
                }
                FileOperation::Rename { from, .. } | FileOperation::Copy { from, .. } => {
                    // git gives these names without a first directory.
                    self.odd.insert(from.to_string(), "moves or copies");
                    continue;
                }
            };
            ensure!(
                Path::new(&path).components().all(|c| matches!(c, Component::Normal(_))),
                "{name} names {path:?}, which is no path inside a kernel tree"
            );
            let PatchKind::Text(hunks) = file.patch() else {
                self.odd.insert(path, "changes the bytes of");
                continue;
            };
            self.one(source, name, &path, new, hunks)?;
        }
        Ok(())
    }

    /// The path that names a file of the tree, with or without its first directory.
    fn existing<S: AsRef<str>>(&self, source: &Path, names: &[S]) -> String {
        let there = |path: &str| self.after.contains_key(path) || source.join(path).is_file();
        let all = names.iter().flat_map(|name| [stripped(name.as_ref()), name.as_ref()]);
        let first = names.first().map_or("", |name| stripped(name.as_ref()));
        all.into_iter().find(|path| there(path)).unwrap_or(first).to_owned()
    }

    fn one(
        &mut self,
        source: &Path,
        name: &str,
        path: &str,
        new: bool,
        hunks: &diffy::Patch<'_, str>,
    ) -> Result<()> {
        let before = match (self.after.get(path), new) {
            (Some(text), _) => text.clone(),
            (None, true) => {
                ensure!(
                    !source.join(path).exists(),
                    "{name} does not apply: it makes {path}, which is there already"
                );
                String::new()
            }
            (None, false) => {
                let bytes = std::fs::read(source.join(path)).with_context(|| {
                    format!("{name} does not apply: {path} cannot be read in the kernel's source")
                })?;
                let text = String::from_utf8(bytes)
                    .with_context(|| format!("{path} is not a text in UTF-8"))?;
                self.before.insert(path.to_owned(), text.clone());
                text
            }
        };
        let after = apply_hunks(&before, hunks)
            .map_err(|_| anyhow::anyhow!("{}", does_not_apply(name, path, &before, hunks)))?;
        self.after.insert(path.to_owned(), after);
        Ok(())
    }
}

/// A function's definition, if it is written as the kernel's style has it: from the line with its
/// name, which is not indented, to the next line that begins with a closing brace.
fn function<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    for (at, _) in text.match_indices(name) {
        let line = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
        let rest = text.get(at..)?;
        let whole = |c: char| !c.is_alphanumeric() && c != '_';
        let begins = text.get(line..at)?.chars().next_back().is_none_or(whole);
        let indented = text.get(line..)?.starts_with([' ', '\t', '#', '/', '*']);
        let called = rest.strip_prefix(name)?.trim_start().starts_with('(');
        let opens =
            rest.find(['{', ';']).is_some_and(|at| rest.get(at..).unwrap_or("").starts_with('{'));
        if begins && !indented && called && opens {
            let end = rest.find("\n}").map_or(text.len(), |end| at + end);
            return text.get(line..end);
        }
    }
    None
}

fn is_c(path: &str) -> bool {
    path.ends_with(".c") || path.ends_with(".h")
}

/// Without the first directory.
fn stripped(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, rest)| rest)
}

/// Says which hunk does not fit, and whether the whole is there already.
fn does_not_apply(name: &str, path: &str, before: &str, hunks: &diffy::Patch<'_, str>) -> String {
    if apply_hunks(before, &hunks.reverse()).is_ok() {
        return format!(
            "{name} does not apply: every hunk of it for {path} is in the source already"
        );
    }
    // The first hunk that does not fit by itself; one that only fits alone is the one meant.
    let whole = hunks.to_string();
    let starts: Vec<usize> = whole
        .match_indices("\n@@ ")
        .map(|(at, _)| at + 1)
        .chain(std::iter::once(whole.len()))
        .collect();
    let head = starts.first().and_then(|at| whole.get(..*at)).unwrap_or("");
    for (number, range) in starts.windows(2).enumerate() {
        let [from, to] = range else { continue };
        let hunk = whole.get(*from..*to).unwrap_or("");
        let alone = format!("{head}{hunk}");
        let fits = diffy::Patch::from_str(&alone).is_ok_and(|p| apply_hunks(before, &p).is_ok());
        if !fits {
            return format!(
                "{name} does not apply: hunk {} of {path} ({}) does not fit the source; is the \
                 patch for this kernel's version?",
                number + 1,
                hunk.lines().next().unwrap_or("").trim()
            );
        }
    }
    format!("{name} does not apply: the hunks of {path} fit only one by one")
}

/// First line of a patch's message, if it has one.
pub(crate) fn subject(text: &str) -> Option<String> {
    let mut lines = text.lines();
    let subject = lines.find_map(|line| line.strip_prefix("Subject: "))?;
    let mut subject = subject.trim().to_owned();
    // A folded header goes on in lines that begin with a space.
    for more in lines.take_while(|line| line.starts_with(' ')) {
        subject.push(' ');
        subject.push_str(more.trim());
    }
    let rest = match subject.strip_prefix('[') {
        Some(tagged) => tagged.split_once(']').map_or("", |(_, rest)| rest).trim(),
        None => subject.as_str(),
    };
    Some(rest.to_owned()).filter(|rest| !rest.is_empty())
}

/// The changed text, with `#line` where lines have moved, so that `__LINE__` behind a change is
/// what it was before.
fn keep_lines(before: &str, after: &str) -> String {
    let mut options = DiffOptions::new();
    options.set_context_len(0);
    let patch = options.create_patch(before, after);
    // Where the new text continues as the old one, each with the old line's number (from 1).
    let mut resume = patch
        .hunks()
        .iter()
        .map(|hunk| {
            let (old, new) = (hunk.old_range(), hunk.new_range());
            // An empty range names the line before it.
            let end = |start: usize, len: usize| if len == 0 { start + 1 } else { start + len };
            (end(new.start(), new.len()), end(old.start(), old.len()))
        })
        .peekable();
    let mut out = String::with_capacity(after.len() + 64);
    let mut place = Place::default();
    let mut shift: Option<(usize, usize)> = None;
    // The number that the compiler gives to the next line.
    let mut counted = 1;
    for (index, line) in after.split_inclusive('\n').enumerate() {
        let number = index + 1;
        while let Some(found) = resume.next_if(|(new, _)| *new <= number) {
            shift = Some(found);
        }
        if let Some((new, old)) = shift
            && place.is_free()
        {
            let meant = old + (number - new);
            if counted != meant {
                out.push_str(&format!("#line {meant}\n"));
                counted = meant;
            }
            shift = None;
        }
        out.push_str(line);
        counted += 1;
        place.pass(line);
    }
    out
}

/// Where in the C text a line begins: a directive must not stand inside a comment, a string, a
/// continued line or the arguments of a macro.
#[derive(Default)]
struct Place {
    comment: bool,
    continued: bool,
    depth: usize,
}

impl Place {
    fn is_free(&self) -> bool {
        !self.comment && !self.continued && self.depth == 0
    }

    fn pass(&mut self, line: &str) {
        let text = line.trim_end_matches(['\n', '\r']);
        // The branches of a conditional may each open what only one of them closes.
        if !self.comment && !self.continued && text.trim_start().starts_with('#') {
            self.depth = 0;
        }
        let mut quote = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied();
            match (self.comment, quote, c, next) {
                (true, _, '*', Some('/')) => {
                    self.comment = false;
                    chars.next();
                }
                (true, ..) => {}
                (_, Some(_), '\\', _) => {
                    chars.next();
                }
                (_, Some(open), close, _) if open == close => quote = None,
                (_, Some(_), ..) => {}
                (_, None, '/', Some('*')) => {
                    self.comment = true;
                    chars.next();
                }
                (_, None, '/', Some('/')) => break,
                (_, None, '"' | '\'', _) => quote = Some(c),
                (_, None, '(', _) => self.depth += 1,
                (_, None, ')', _) => self.depth = self.depth.saturating_sub(1),
                // Nothing is open at the end of a block that begins in the first column.
                (_, None, '}', _) if text.starts_with('}') => self.depth = 0,
                _ => {}
            }
        }
        self.continued = text.ends_with('\\');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that a compiler gives to each line of a text.
    fn numbers(text: &str) -> Vec<(usize, &str)> {
        let mut number = 1;
        let mut all = Vec::new();
        for line in text.lines() {
            if let Some(set) = line.strip_prefix("#line ") {
                number = set.parse().unwrap();
                continue;
            }
            all.push((number, line));
            number += 1;
        }
        all
    }

    #[test]
    fn a_functions_own_text_is_found() {
        let text = "int f(int);\n#define g(x) f(x)\n\tg(1);\nstatic int\nf(int x)\n{\n\treturn x;\n}\n\
                    static void *gf(void)\n{\n\tf(g(2));\n}\nDEFINE(g)\n";
        assert_eq!(function(text, "f"), Some("f(int x)\n{\n\treturn x;"));
        assert_eq!(function(text, "gf"), Some("static void *gf(void)\n{\n\tf(g(2));"));
        assert_eq!(function(text, "g"), None);
        assert_eq!(function(text, "x"), None);
    }

    #[test]
    fn a_patch_touches_what_it_changes_and_nothing_else() {
        let mut patched = Patched::default();
        let before = "int f(void)\n{\n\treturn 1;\n}\nint g(void)\n{\n\treturn 2;\n}\n";
        patched.before.insert("a.h".into(), before.into());
        patched.after.insert("a.h".into(), before.replace('2', "3"));
        assert!(patched.touches("a.h", "g"));
        assert!(!patched.touches("a.h", "f"));
        assert!(!patched.touches("b.h", "g"));
    }

    #[test]
    fn lines_behind_a_change_keep_their_numbers() {
        let before = "a\nb\nc\nd\ne\nf\ng\n";
        for (after, moved) in [
            ("a\nb\nX\nY\nc\nd\ne\nf\ng\n", &["c", "d", "g"][..]),
            ("a\nd\ne\nf\ng\n", &["d", "g"][..]),
            ("a\nb\nX\nd\ne\nY\nZ\nf\ng\n", &["d", "e", "f", "g"][..]),
            ("X\na\nb\nc\nd\ne\nf\ng\n", &["a", "g"][..]),
        ] {
            let text = keep_lines(before, after);
            let without: String =
                text.split_inclusive('\n').filter(|line| !line.starts_with("#line")).collect();
            assert_eq!(without, after);
            for line in moved {
                let old = before.lines().position(|l| l == *line).unwrap() + 1;
                assert!(numbers(&text).contains(&(old, line)), "{line} in {text}");
            }
        }
    }

    #[test]
    fn a_directive_waits_for_a_place_where_it_may_stand() {
        let before = "f(a,\n  b);\n/* c\n d */\n#define M \\\n x\nend\n";
        let after = "f(a, z,\n  y,\n  b);\n/* c\n e\n d */\n#define M \\\n w \\\n x\nend\n";
        let text = keep_lines(before, after);
        assert_eq!(
            text,
            "f(a, z,\n  y,\n  b);\n#line 3\n/* c\n e\n d */\n#line 5\n#define M \\\n w \\\n x\n\
             #line 7\nend\n"
        );
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    const SOURCE: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

    fn patch(from: &str, to: &str) -> String {
        let changed = SOURCE.replace(from, to);
        let patch = diffy::create_patch(SOURCE, &changed).to_string();
        patch.replace("--- original", "--- a/d/f.c").replace("+++ modified", "+++ b/d/f.c")
    }

    #[test]
    fn patches_are_applied_one_after_the_other() {
        let tree = tree(&[("d/f.c", SOURCE)]);
        let mut all = Patched::default();
        all.add(tree.path(), "first", &patch("two", "TWO")).unwrap();
        all.add(tree.path(), "second", &patch("nine", "NINE")).unwrap();
        let files: Vec<_> = all.files().collect();
        assert_eq!(files, [("d/f.c", SOURCE.replace("two", "TWO").replace("nine", "NINE"))]);
        assert_eq!(std::fs::read_to_string(tree.path().join("d/f.c")).unwrap(), SOURCE);
    }

    #[test]
    fn what_does_not_apply_is_named() {
        let tree = tree(&[("d/f.c", SOURCE)]);
        let fails = |text: &str| {
            let error = Patched::default().add(tree.path(), "fix.patch", text).unwrap_err();
            format!("{error:#}")
        };
        let said = fails(&patch("two", "TWO").replace(" three", " 3"));
        assert!(said.contains("fix.patch") && said.contains("hunk 1 of d/f.c"), "{said}");
        let said = fails(&patch("two", "TWO").replace("d/f.c", "d/g.c"));
        assert!(said.contains("d/g.c"), "{said}");
        let said = fails(&patch("two", "TWO").replace("d/f.c", "../../f.c"));
        assert!(said.contains("no path inside"), "{said}");
        let said = fails("no patch at all\n");
        assert!(said.contains("no patch that can be read"), "{said}");
    }

    #[test]
    fn files_that_go_or_move_are_told() {
        let tree = tree(&[("d/f.c", "one\n"), ("Documentation/old.txt", "one\n")]);
        let mut all = Patched::default();
        let text = "diff --git a/Documentation/old.txt b/Documentation/new.txt\n\
                    similarity index 100%\nrename from Documentation/old.txt\n\
                    rename to Documentation/new.txt\n\
                    diff --git a/d/f.c b/d/f.c\ndeleted file mode 100644\n\
                    --- a/d/f.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n";
        all.add(tree.path(), "fix", text).unwrap();
        let odd: Vec<_> = all.odd().collect();
        assert_eq!(odd, [("Documentation/old.txt", "moves or copies"), ("d/f.c", "deletes")]);
        assert_eq!(all.paths().count(), 0);
    }

    #[test]
    fn a_patch_that_is_in_the_source_already_is_recognised() {
        let tree = tree(&[("d/f.c", &SOURCE.replace("two", "TWO"))]);
        let error = Patched::default().add(tree.path(), "fix", &patch("two", "TWO")).unwrap_err();
        assert!(error.to_string().contains("already"), "{error}");
    }

    #[test]
    fn subjects_lose_their_tags() {
        assert_eq!(
            subject("From x\nSubject: [PATCH 6.1 1/2] net: mend\n it\n\nbody").as_deref(),
            Some("net: mend it")
        );
        assert_eq!(subject("--- a\n+++ b\n"), None);
    }
}
