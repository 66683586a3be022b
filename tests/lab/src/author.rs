// SPDX-License-Identifier: GPL-2.0-or-later
//! Code that a patch's author adds where a fix alone is refused: `tests/corpus/author/ID.c`. The first
//! comment of such a file, behind its licence, says what becomes of the fix, the code behind it goes into one of its files.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::fixes::Selector;

/// An author's file.
#[derive(Debug, Default)]
pub struct Author {
    /// The file that the code goes into.
    file: String,
    /// The line before which it goes; the end of the file if absent.
    before: Option<String>,
    /// Hunks of the fix that are left out.
    without: Vec<Selector>,
    /// Texts of the fixed files that are replaced.
    replace: Vec<(String, String)>,
    /// Objections of splice that the author has an answer to.
    pub accept: Vec<String>,
    code: String,
}

/// The author's file of a fix, if there is one.
pub fn of(fix: &str) -> Result<Option<Author>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/author");
    let path = root.join(format!("{fix}.c"));
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let author = parse(&text).with_context(|| format!("in {}", path.display()))?;
    Ok(Some(author))
}

fn parse(text: &str) -> Result<Author> {
    let behind_licence = text.split_once('\n').map_or("", |(_, rest)| rest);
    let (head, code) = behind_licence.split_once("*/\n").context("a comment must come first")?;
    let mut author = Author { code: code.trim().to_owned(), ..Author::default() };
    for line in head.lines().filter_map(|line| line.strip_prefix(" * ")) {
        let Some((key, value)) = line.split_once(": ") else { continue };
        match key {
            "file" => value.clone_into(&mut author.file),
            "before" => author.before = Some(value.to_owned()),
            "without" => author.without.push(Selector::parse(value)?),
            "accept" => author.accept.push(value.to_owned()),
            "replace" => {
                let (old, new) = value.split_once(" => ").context("replace: OLD => NEW")?;
                author.replace.push((old.to_owned(), new.to_owned()));
            }
            prose if prose.contains(' ') => {}
            _ => bail!("{key:?} says nothing"),
        }
    }
    ensure!(!author.file.is_empty(), "it does not say which file it belongs to");
    Ok(author)
}

impl Author {
    /// Whether a hunk of the fix is left out.
    pub(crate) fn leaves_out(&self, matches: impl Fn(&Selector) -> bool) -> bool {
        self.without.iter().any(matches)
    }

    /// A fixed file with what the author does to it.
    pub(crate) fn amend(&self, file: &str, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for (old, new) in &self.replace {
            text = text.replace(old, new);
        }
        if file != self.file || self.code.is_empty() {
            return Ok(text);
        }
        let at = match &self.before {
            None => text.len(),
            Some(line) => {
                let place = text.find(&format!("\n{line}\n"));
                place.with_context(|| format!("{file} has no line {line:?}"))? + 1
            }
        };
        text.insert_str(at, &format!("\n{}\n\n", self.code));
        Ok(text)
    }

    /// How many lines an author has to write: code, and replaced texts.
    #[must_use]
    pub fn lines(&self) -> usize {
        let code = self.code.lines().map(str::trim);
        let code = code.filter(|line| !line.is_empty() && !line.starts_with(['/', '*']));
        code.count() + self.replace.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_goes_where_it_should() {
        let author = parse(
            "/* SPDX */\n/*\n * file: a.c\n * before: int f(void)\n * replace: one => two\n * accept: struct:s\n */\n\n\
             /* Why. */\nstatic int g;\n",
        )
        .unwrap();
        assert_eq!(author.accept, ["struct:s"]);
        assert_eq!(author.lines(), 2);
        let text = "x\nint f(void)\n{ one }\n";
        let amended = author.amend("a.c", text).unwrap();
        assert_eq!(amended, "x\n\n/* Why. */\nstatic int g;\n\nint f(void)\n{ two }\n");
        assert_eq!(author.amend("b.c", "one\n").unwrap(), "two\n");
        assert!(author.amend("a.c", "no such line\n").is_err());
    }

    #[test]
    fn every_authors_file_belongs_to_a_fix() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/author");
        let mut count = 0;
        for entry in std::fs::read_dir(root).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let id = name.strip_suffix(".c").unwrap();
            crate::fixes::find(id).unwrap();
            assert!(of(id).unwrap().is_some());
            count += 1;
        }
        assert!(count > 0);
    }
}
