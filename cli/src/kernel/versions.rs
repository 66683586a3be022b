// SPDX-License-Identifier: GPL-2.0-or-later
//! Versions of exported symbols (`CONFIG_MODVERSIONS`): checksums over a symbol's declaration and all
//! types that it names, which a module and the kernel must agree in. The kernel's own genksyms makes
//! them, as kbuild runs it (`cmd_gensymtypes_c` of scripts/Makefile.build, 6.1).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Tree;
use super::record::plain;

const GENKSYMS: &str = "scripts/genksyms/genksyms";

/// What genksyms says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The checksum of each exported symbol, as it is printed.
    sums: BTreeMap<String, String>,
    /// What each symbol and type (`s#sock`) is made of.
    types: BTreeMap<String, String>,
}

/// A symbol whose version changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Its name.
    pub(crate) symbol: String,
    /// Its checksum before.
    pub(crate) before: String,
    /// Its checksum after.
    pub(crate) after: String,
    /// What differs, in words.
    pub(crate) cause: String,
}

impl Versions {
    /// Of the unit that `command` compiles in `directory`; none if this kernel has no versions.
    pub(crate) fn of(tree: &Tree, directory: &Path, command: &str) -> Result<Option<Self>> {
        if !tree.source().join(GENKSYMS).is_file() {
            return Ok(None);
        }
        let Some(command) = preprocess(command) else { return Ok(None) };
        let types = tree.scratch()?;
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{} | ./{GENKSYMS} -T \"$0\" -r /dev/null", plain(&command)))
            .arg(types.path())
            .env("LC_ALL", "C")
            .current_dir(directory)
            .output()
            .context("cannot run the compiler")?;
        ensure!(
            output.status.success(),
            "genksyms failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let types = std::fs::read(types.path()).context("genksyms left no types")?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(Some(Self::parse(&said, &String::from_utf8_lossy(&types))))
    }

    /// `#SYMVER name 0x…` since 5.19, `__crc_name = 0x…;` before; a type's line is its name and what
    /// it is made of.
    fn parse(sums: &str, types: &str) -> Self {
        let sum = |line: &str| {
            let rest = line.strip_prefix("#SYMVER ").or_else(|| line.strip_prefix("__crc_"))?;
            let (name, sum) = rest.split_once([' ', '='])?;
            let sum = sum.trim_matches([' ', '=', ';']);
            Some((name.to_owned(), sum.to_owned()))
        };
        let pair = |line: &str| line.split_once(' ').map(|(n, t)| (n.to_owned(), t.to_owned()));
        Self {
            sums: sums.lines().filter_map(sum).collect(),
            types: types.lines().filter_map(pair).collect(),
        }
    }

    /// The symbols whose version is another one afterwards, and not only since the unit sees more or
    /// less of some type: the checksum counts what is included, too, and an `#include` changes it
    /// without any change that a module could notice.
    pub(crate) fn changes(&self, after: &Self) -> Vec<Changed> {
        let both =
            self.sums.iter().filter_map(|(name, sum)| Some((name, sum, after.sums.get(name)?)));
        both.filter(|(_, sum, new)| sum != new)
            .filter_map(|(symbol, sum, new)| {
                Some(Changed {
                    symbol: symbol.clone(),
                    before: sum.clone(),
                    after: new.clone(),
                    cause: self.cause(after, symbol)?,
                })
            })
            .collect()
    }

    /// What differs in a symbol's declaration or in the types behind it; none if nothing does that
    /// both sides see.
    fn cause(&self, after: &Self, symbol: &str) -> Option<String> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![symbol];
        let mut differ = BTreeSet::new();
        let mut hidden = false;
        while let Some(name) = todo.pop() {
            if !seen.insert(name) {
                continue;
            }
            let (Some(was), Some(is)) = (self.types.get(name), after.types.get(name)) else {
                // What names it on one side only differs itself.
                continue;
            };
            if was != is {
                if is_hidden(was) != is_hidden(is) {
                    hidden = true;
                    continue;
                }
                differ.insert(name);
            }
            for text in [was, is] {
                todo.extend(text.split(' ').filter(|word| word.contains('#')));
            }
        }
        if differ.contains(symbol) {
            return Some("its own declaration differs".into());
        }
        let names: Vec<String> = differ.iter().take(NAMED).map(|name| in_words(name)).collect();
        let more = differ.len() - names.len();
        match names.as_slice() {
            [] if hidden => None,
            [] => Some("a type that it names differs".into()),
            [one] => Some(format!("{one} differs")),
            names if more == 0 => Some(format!("{} differ", names.join(", "))),
            names => Some(format!("{} and {more} more differ", names.join(", "))),
        }
    }
}

/// How many types a message names.
const NAMED: usize = 4;

/// Whether a type is only declared where the unit sees it (`expand_and_crc_sym`,
/// scripts/genksyms/genksyms.c).
fn is_hidden(definition: &str) -> bool {
    definition.ends_with("{ UNKNOWN }") || definition.ends_with("{ UNKNOWN } ")
}

/// `struct sock` for `s#sock`.
fn in_words(name: &str) -> String {
    match name.split_once('#') {
        Some(("s", name)) => format!("struct {name}"),
        Some(("u", name)) => format!("union {name}"),
        Some(("e", name)) => format!("enum {name}"),
        Some(("t", name)) => format!("type {name}"),
        Some(("E", name)) => format!("the constant {name}"),
        _ => name.to_owned(),
    }
}

/// The command that preprocesses for genksyms what `command` compiles; none if that is not C.
fn preprocess(command: &str) -> Option<String> {
    let (compiler, rest) = command.split_once(" -c -o ")?;
    let source = rest.split_whitespace().nth(1)?;
    if !source.ends_with(".c") {
        return None;
    }
    // The list of what it includes is not wanted.
    let words = compiler.split(' ').filter(|word| !word.starts_with("-Wp,-M"));
    Some(format!("{} -E -D__GENKSYMS__ {source}", words.collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_only_preprocesses() {
        let command =
            "gcc-12 -Wp,-MMD,net/.a.o.d -O2 -DX='\"a b\"' -c -o net/a.o net/a.c   ; objtool";
        let expected = "gcc-12 -O2 -DX='\"a b\"' -E -D__GENKSYMS__ net/a.c";
        assert_eq!(preprocess(command).as_deref(), Some(expected));
        assert_eq!(preprocess("gcc -D__ASSEMBLY__ -c -o l/a.o l/a.S"), None);
    }

    const TYPES: &str = "s#in struct in { int a ; }\ns#out struct out { s#in b ; }\n\
                         f int f ( s#out * )\ng int g ( int )\n";

    #[test]
    fn the_type_that_differs_is_named() {
        let before = Versions::parse("#SYMVER f 0x1\n#SYMVER g 0x2\n#SYMVER h 0x3\n", TYPES);
        let types = TYPES.replace("int a", "long a");
        let after = Versions::parse("#SYMVER f 0x9\n__crc_g = 0x2;\n", &types);
        let changes = before.changes(&after);
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].before.as_str(), changes[0].after.as_str()), ("0x1", "0x9"));
        assert_eq!(changes[0].cause, "struct in differs");
        let seen = TYPES.replace("{ int a ; }", "{ UNKNOWN }");
        let seen = Versions::parse("#SYMVER f 0x8\n", &seen);
        assert!(before.changes(&seen).is_empty(), "an opaque type is no change");
        assert!(seen.changes(&before).is_empty(), "nor is one that the unit now sees");
        let wider =
            TYPES.replace("{ int a ; }", "{ UNKNOWN }").replace("s#in b ;", "s#in b ; int c ;");
        let wider = Versions::parse("#SYMVER f 0x5\n", &wider);
        assert_eq!(before.changes(&wider)[0].cause, "struct out differs");
        let own = Versions::parse("#SYMVER g 0x7\n", &TYPES.replace("( int )", "( long )"));
        assert_eq!(before.changes(&own)[0].cause, "its own declaration differs");
    }
}
