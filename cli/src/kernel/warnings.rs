// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel's checker of objects says of a unit.

use std::collections::BTreeSet;

use super::compile::one;
use super::{Built, Overlay, Tree};
use crate::exit::Failure;

/// What objtool warns of; what it says of the unit before is no matter of the patch. That unit is
/// only compiled again, in an overlay without changes, if there is a warning.
pub(super) fn fresh(
    tree: &Tree,
    built: &Built,
    command: &str,
    said: &str,
) -> Result<Vec<String>, Failure> {
    if warnings(said).next().is_none() {
        return Ok(Vec::new());
    }
    let before = if built.is_new {
        String::new()
    } else {
        let goal = std::iter::once(built.goal.as_str());
        let place = tree.directory("build")?;
        one(&Overlay::new(&place, &tree.source(), std::iter::empty(), goal)?, command)?
    };
    Ok(added(&before, said))
}

/// The warnings that only the second text has, wherever in a function they are.
fn added(before: &str, after: &str) -> Vec<String> {
    let known: BTreeSet<String> = warnings(before).map(anywhere).collect();
    warnings(after).filter(|line| !known.contains(&anywhere(line))).map(str::to_owned).collect()
}

/// `UNIT.o: warning: objtool: FUNCTION()+0xOFFSET: TEXT` (`WARN_FUNC`,
/// tools/objtool/include/objtool/warn.h).
fn warnings(said: &str) -> impl Iterator<Item = &str> {
    said.lines().map(str::trim).filter(|line| line.contains("warning: objtool: "))
}

/// Without offsets.
fn anywhere(line: &str) -> String {
    let mut parts = line.split("+0x");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("+?");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_warnings_of_the_checker_count() {
        let before = "d/a.o: warning: objtool: f()+0x12: unreachable instruction\n";
        let after = "d/a.c:3: warning: unused variable\n\
                     d/a.o: warning: objtool: f()+0x1f: unreachable instruction\n\
                     d/a.o: warning: objtool: f+0x1f: return with modified stack frame\n\
                     d/a.o: warning: objtool: missing symbol for section .text\n";
        let said = ["return with modified stack frame", "missing symbol for section .text"];
        let found = added(before, after);
        assert_eq!(found.len(), 2);
        assert!(found.iter().zip(said).all(|(line, end)| line.ends_with(end)), "{found:?}");
        assert_eq!(added(after, before), [""; 0]);
    }
}
