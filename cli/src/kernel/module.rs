// SPDX-License-Identifier: GPL-2.0-or-later
//! Whole modules from patched source, built as the kernel's own build does: by its makefiles, with
//! its flags, against the symbol versions of the distribution.
//!
//! What is missing: BTF, which needs the kernel image, and a signature, which needs the
//! distribution's key.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, bail, ensure};
use splice_core::diff::{AcceptKind, Objection};
use splice_core::plan;

use super::compile::stripped;
use super::{Overlay, Patched, Tree, packages};

const SYMVERS: &str = "Module.symvers";
/// What modpost writes if there is no kernel image (scripts/Makefile.modpost, since 5.19).
const VERSIONS: &str = "modules-only.symvers";
/// Stands for modpost, and has it read the versions that the distribution's kernel exports.
const MODPOST: &str = "modpost";

/// A module as it is to be from the next load on.
pub(crate) struct Fixed {
    /// The module.
    pub(crate) module: Vec<u8>,
    /// What stands against it.
    pub(crate) objections: Vec<Objection>,
}

/// Builds a module, of that path in the kernel tree without suffix, from the patched source.
pub(crate) fn fixed_module(
    tree: &Tree,
    patched: &Patched,
    path: &str,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<Fixed> {
    let builds = tree.directory("build")?;
    let files = || patched.paths().map(|path| (path, patched.texts(path).1.to_owned()));
    let (list, goal) = (format!("{path}.mod"), format!("{path}.ko"));
    // What the overlays lead to must not be made anew meanwhile.
    let _lock = tree.lock(note)?;
    let parts = {
        let overlay = Overlay::new(&builds, &tree.source(), files(), [list.as_str()].into_iter())?;
        make(tree, &overlay, 1, &list)?;
        let text = std::fs::read_to_string(overlay.path().join(&list));
        text.with_context(|| format!("the build left no {list}"))?
    };
    let outputs = parts.split_whitespace().chain([goal.as_str(), list.as_str()]);
    let overlay = Overlay::new(&builds, &tree.source(), files(), outputs.chain([VERSIONS]))?;
    let symvers = std::fs::read_to_string(tree.headers().join(SYMVERS))
        .with_context(|| format!("the kernel's headers have no {SYMVERS}"))?;
    let (own, others) = of_module(&symvers, path);
    let write = |name: &str, text: &str| {
        std::fs::write(overlay.path().join(name), text).context("cannot write to the cache")
    };
    write("others.symvers", &others)?;
    write(MODPOST, "#!/bin/sh\nexec scripts/mod/modpost -i others.symvers \"$@\"\n")?;
    std::fs::set_permissions(overlay.path().join(MODPOST), std::fs::Permissions::from_mode(0o755))
        .context("cannot write to the cache")?;
    make(tree, &overlay, jobs, &goal)
        .with_context(|| format!("the fixed module {path} cannot be built"))?;
    let module = stripped(tree, &overlay.path().join(&goal))?;
    check(tree, path, &module)?;
    let now = std::fs::read_to_string(overlay.path().join(VERSIONS))
        .with_context(|| format!("the build left no {VERSIONS}"))?;
    Ok(Fixed { module, objections: exports(path, &rows(&own), &rows(&now)) })
}

fn make(tree: &Tree, overlay: &Overlay, jobs: usize, goal: &str) -> Result<()> {
    let place = overlay.path();
    packages::run(
        tree.make_units(place)
            .args(["-s", "-o", "modules_prepare"])
            .arg(format!("-j{jobs}"))
            .arg(format!("MODPOST=./{MODPOST}"))
            // Debug information is taken away later; without it nothing depends on where this is.
            .arg(format!("KCFLAGS=-g0 -ffile-prefix-map={}/=", place.display()))
            // That would need the kernel image.
            .arg("CONFIG_DEBUG_INFO_BTF_MODULES=")
            .arg(goal),
    )
}

/// The lines of a `Module.symvers` that are about a module, and the others.
fn of_module(symvers: &str, path: &str) -> (String, String) {
    let (own, others): (Vec<&str>, Vec<&str>) =
        symvers.split_inclusive('\n').partition(|line| line.split('\t').nth(2) == Some(path));
    (own.concat(), others.concat())
}

/// What a `Module.symvers` says of each symbol: its version, and how it is exported.
fn rows(symvers: &str) -> BTreeMap<&str, (&str, String)> {
    symvers
        .lines()
        .filter_map(|line| {
            let mut words = line.split('\t');
            let (version, name) = (words.next()?, words.next()?);
            let how: Vec<&str> = words.skip(1).filter(|word| !word.is_empty()).collect();
            Some((name, (version, how.join(" "))))
        })
        .collect()
}

/// What other modules would miss in the fixed one.
fn exports(
    path: &str,
    before: &BTreeMap<&str, (&str, String)>,
    after: &BTreeMap<&str, (&str, String)>,
) -> Vec<Objection> {
    let changes = before.iter().filter(|(name, row)| after.get(*name) != Some(row));
    changes
        .map(|(name, (version, how))| {
            let why = match after.get(name) {
                None => "it would no longer be exported".to_owned(),
                Some((new, now)) => {
                    format!("it would be exported as {now} {new}, not as {how} {version}")
                }
            };
            let objection = Objection::new(
                format!("{name} in the fixed module {path}"),
                format!("{why}; modules on disk that use it could not be loaded any more"),
                "keep its declaration and the types behind it as modules see them, or leave --modules \
                 out",
            );
            objection.or_accept(AcceptKind::Export, *name)
        })
        .collect()
}

/// The module is what the kernel's loader takes.
fn check(tree: &Tree, path: &str, module: &[u8]) -> Result<()> {
    let magic = format!("vermagic={} ", tree.facts.release);
    ensure!(
        module.windows(magic.len()).any(|bytes| bytes == magic.as_bytes()),
        "the fixed module {path} is not for {}",
        tree.facts.release
    );
    let exported = tree.exported()?;
    let undefined = plan::undefined(module)?;
    let stray: Vec<String> =
        undefined.into_iter().filter(|symbol| !exported.contains(symbol)).collect();
    if !stray.is_empty() {
        bail!("the fixed module {path} needs {}, and nothing gives it that", stray.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMVERS: &str = "0x1\tf\tnet/a/a\tEXPORT_SYMBOL\t\n\
                           0x2\tg\tnet/a/ab\tEXPORT_SYMBOL\t\n\
                           0x3\th\tnet/a/a\tEXPORT_SYMBOL_GPL\tNS\n";

    #[test]
    fn a_module_does_not_export_what_it_needs_from_others() {
        let (own, others) = of_module(SYMVERS, "net/a/a");
        assert_eq!(rows(&own).into_keys().collect::<Vec<_>>(), ["f", "h"]);
        assert_eq!(rows(&others).into_keys().collect::<Vec<_>>(), ["g"]);
    }

    #[test]
    fn exports_that_others_would_miss_are_refused() {
        let of = |after: &str| -> Vec<String> {
            let (own, _) = of_module(SYMVERS, "net/a/a");
            exports("net/a/a", &rows(&own), &rows(after)).into_iter().map(|o| o.why).collect()
        };
        assert_eq!(of(SYMVERS), [""; 0]);
        // Where a symbol has no namespace, the column may be missing.
        assert_eq!(of(&SYMVERS.replace("EXPORT_SYMBOL\t", "EXPORT_SYMBOL")), [""; 0]);
        let gone: String = SYMVERS.split_inclusive('\n').skip(1).collect();
        assert!(of(&gone).concat().contains("no longer"));
        assert!(of(&SYMVERS.replace("0x1", "0x4")).concat().contains("EXPORT_SYMBOL 0x4, not"));
        assert!(of(&SYMVERS.replace("_GPL", "")).concat().contains("not as EXPORT_SYMBOL_GPL NS"));
        assert!(of(&SYMVERS.replace("NS", "")).concat().contains("not as EXPORT_SYMBOL_GPL NS"));
    }
}
