// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzz targets run: the reader of objects on any bytes, and the differ with all that
//! follows it on two objects.
//!
//! The targets themselves are in `libfuzzer/`; the tests run the same two functions on every input
//! that is kept in `corpus/` and `crashes/`. An input that makes one of them panic, or run long, or
//! take much memory, is a bug of the engine.

mod edit;
pub mod mutate;

use std::path::{Path, PathBuf};

use splice_arch_aarch64 as _;
use splice_arch_x86_64 as _;
use splice_core::arch::{Arch, by_machine, by_name};
use splice_core::debug::{self, Build};
use splice_core::diff::{DiffReport, diff_units, report};
use splice_core::extract::{ExtractInput, Numbering, extract, new_globals};
use splice_core::plan::undefined;
use splice_core::unit::{Target, Unit};

/// Reads `bytes` as an object, asks the unit everything that it answers, and reads the debug
/// information for itself: it may be readable where the unit is not.
pub fn unit(bytes: &[u8]) {
    let Some(arch) = arch_for(bytes) else { return };
    if let Ok(unit) = Unit::read(arch, "fuzz.o", bytes) {
        ask(arch, &unit);
    }
    let _ = debug::structures(arch, "fuzz.o", bytes);
}

/// Takes two objects from `bytes`, and does with them what an update does, up to the object of the
/// new code: that can be read, and somebody gives each symbol a value that it leaves open.
pub fn differ(bytes: &[u8]) {
    let (before, after) = edit::pair(bytes);
    let Some(arch) = arch_for(&before) else { return };
    let (Ok(pre), Ok(post)) =
        (Unit::read(arch, "pre.o", &before), Unit::read(arch, "post.o", &after))
    else {
        return;
    };
    let Ok(mut diff) = diff_units(arch, &pre, &post) else { return };
    let layouts = debug::examine(
        arch,
        Build { unit: &pre, bytes: &before },
        Build { unit: &post, bytes: &after },
        &|inlined| inlined.name.len().is_multiple_of(2),
        &mut diff,
    );
    let report = DiffReport { layouts: Some(layouts), ..report(arch, &pre, &post, &diff) };
    assert!(serde_json::to_string(&report).is_ok(), "a report cannot be written");
    let _ = new_globals(&post, &diff);
    let exported = |name: &str| name.len().is_multiple_of(2);
    let elsewhere = |name: &str| name.len().is_multiple_of(3);
    let input = ExtractInput {
        pre: &pre,
        post: &post,
        diff: &diff,
        unit_index: 0,
        exported: &exported,
        new_globals: &elsewhere,
    };
    if let Ok(extraction) = extract(arch, &input, &mut Numbering::default()) {
        let again = Unit::read(arch, "new.o", &extraction.object);
        assert!(again.is_ok(), "what was written cannot be read: {again:?}");
        let undefined = undefined(&extraction.object).unwrap_or_default();
        for name in undefined.iter().filter(|name| !exported(name) && !elsewhere(name)) {
            let needed = extraction.symbols.iter().any(|symbol| symbol.link == **name);
            assert!(needed, "nobody gives {name} a value");
        }
    }
}

/// The backend for an object's machine; any one where nobody knows it.
pub fn arch_for(object: &[u8]) -> Option<&'static dyn Arch> {
    // e_machine, two bytes at offset 18.
    let machine = object.get(18..20).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes);
    machine.and_then(by_machine).or_else(|| by_name("x86_64"))
}

fn ask(arch: &dyn Arch, unit: &Unit) {
    for (id, span) in unit.spans.iter().enumerate() {
        let bytes = unit.bytes_of(span);
        let section = unit.sections.get(span.section);
        assert!(section.is_some_and(|s| span.offset <= s.size), "{span:?} is outside its section");
        let _ = (unit.is_code(span), unit.special(span.section), unit.section_symbol(span.section));
        let _ = (unit.owner(id), unit.parallel(id), unit.entries_of(id));
        if let Some(at) = unit.span_at(span.section, span.offset) {
            assert!(at < unit.spans.len());
        }
        for reloc in unit.relocs_of(id) {
            if let Target::Span { id: to, .. } = unit.resolve(reloc.symbol, reloc.addend) {
                assert!(to < unit.spans.len(), "{reloc:?} leads to no span");
            }
        }
        let _ = unit.with_code(arch, id, |code| {
            assert_eq!(code.bytes, bytes);
            let _ = arch.reloc().target_offsets(code);
            let _ = arch.diff().compare(code, code);
        });
    }
}

/// The objects below a directory.
pub fn objects(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            objects(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "o") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use splice_core::diff::Inlined;

    use super::*;

    /// The targets are of no use for the debug information if that is not reached.
    #[test]
    fn the_pairs_have_debug_information_that_is_compared() {
        for (number, function) in [(3, "sum"), (7, "worth"), (8, "worth")] {
            let (before, after) = edit::pair(&[number]);
            let arch = arch_for(&before).unwrap();
            let pre = Unit::read(arch, "pre.o", &before).unwrap();
            let post = Unit::read(arch, "post.o", &after).unwrap();
            let mut diff = diff_units(arch, &pre, &post).unwrap();
            let builds = [(&pre, &before), (&post, &after)];
            let [pre_build, post_build] = builds.map(|(unit, bytes)| Build { unit, bytes });
            let touched = |inlined: &Inlined| inlined.name == function;
            let found = debug::examine(arch, pre_build, post_build, &touched, &mut diff);
            assert_eq!(found, debug::Layouts::Compared);
            let report = serde_json::to_string(&report(arch, &pre, &post, &diff)).unwrap();
            assert!(report.contains(&format!("inlined {function} from ")), "{report}");
            assert!(report.contains("its layout changed"), "{report}");
        }
    }
}
