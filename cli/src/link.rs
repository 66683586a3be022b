// SPDX-License-Identifier: GPL-2.0-or-later
//! Linking kernel modules with kbuild: the transaction core, once for a kernel, and an update's
//! modules. What is built depends on the input alone, not on where or when.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use splice_core::plan;

use crate::exit::{Exit, Failure};
use crate::kernel::{Exports, Tree, cache, packages};

/// The kernel side's source, which every splice carries.
const KMOD: &[(&str, &str)] = &[
    ("Kbuild", include_str!("../../kmod/Kbuild")),
    ("arch.h", include_str!("../../kmod/arch.h")),
    ("change.c", include_str!("../../kmod/change.c")),
    ("core.c", include_str!("../../kmod/core.c")),
    ("core.h", include_str!("../../kmod/core.h")),
    ("hooks.c", include_str!("../../kmod/hooks.c")),
    ("patch.h", PATCH_H),
    ("shadow.c", include_str!("../../kmod/shadow.c")),
    ("splice.h", include_str!("../../kmod/splice.h")),
    ("stack.c", include_str!("../../kmod/stack.c")),
    ("switch.c", include_str!("../../kmod/switch.c")),
    ("sysfs.c", include_str!("../../kmod/sysfs.c")),
    ("text.c", include_str!("../../kmod/text.c")),
];
/// The header for authors of patches.
const PATCH_H: &str = include_str!("../../kmod/patch.h");
/// Where in a kernel's tree patched sources find that.
pub(crate) const PATCH_HEADER: (&str, &str) = ("include/splice/patch.h", PATCH_H);
const MODULE: &str = "splice.ko";
const SYMVERS: &str = "Module.symvers";
const SUMS: &str = "sums.json";

/// The transaction core for one kernel.
pub(crate) struct Core {
    /// The module.
    pub(crate) module: Vec<u8>,
    /// What it leaves undefined.
    pub(crate) undefined: Vec<String>,
    /// What it exports.
    symvers: PathBuf,
}

/// The transaction core, from the cache or built into it.
pub(crate) fn core(tree: &Tree, note: &mut dyn FnMut(&str)) -> Result<Core> {
    let mut name = String::new();
    for (file, text) in KMOD {
        name.push_str(&format!("{file} {}\n{text}", text.len()));
    }
    let name: String = packages::sum(name.as_bytes()).chars().take(16).collect();
    let all = tree.directory("core")?;
    let place = all.join(name);
    // Once it is whole, nobody writes there; else, another may just be making it.
    let _lock = if is_whole(&place) { None } else { Some(tree.lock(note)?) };
    if !is_whole(&place) {
        note("building the transaction core");
        cache::sweep(&all);
        // It may be there, damaged.
        let _ = std::fs::remove_dir_all(&place);
        let work = tempfile::Builder::new().prefix(".splice-").tempdir_in(&all)?;
        for (file, text) in KMOD {
            std::fs::write(work.path().join(file), text)?;
        }
        build(tree, work.path(), None).context("the transaction core does not build")?;
        let keep = tempfile::Builder::new().prefix(".splice-").tempdir_in(&all)?;
        for file in [MODULE, SYMVERS] {
            std::fs::copy(work.path().join(file), keep.path().join(file))
                .with_context(|| format!("the build left no {file}"))?;
        }
        std::fs::write(keep.path().join(SUMS), serde_json::to_vec(&sums(keep.path())?)?)?;
        std::fs::rename(keep.keep(), &place).context("cannot name the transaction core")?;
    }
    let module = std::fs::read(place.join(MODULE)).context("cannot read the transaction core")?;
    let undefined = plan::undefined(&module)?;
    Ok(Core { module, undefined, symvers: place.join(SYMVERS) })
}

fn sums(place: &Path) -> Result<[String; 2]> {
    Ok([packages::sha256(&place.join(MODULE))?, packages::sha256(&place.join(SYMVERS))?])
}

fn is_whole(place: &Path) -> bool {
    let said: Option<[String; 2]> =
        std::fs::read(place.join(SUMS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    said.is_some() && sums(place).ok() == said
}

/// An update module: its name, the source of its glue and the objects of the new code.
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) source: &'a str,
    pub(crate) objects: &'a [Vec<u8>],
    /// What may stay undefined: exported symbols, and those that the finaliser knows.
    pub(crate) known: &'a dyn Fn(&str) -> bool,
}

/// Links an update module.
pub(crate) fn module(tree: &Tree, core: &Core, input: &Input<'_>) -> Result<Vec<u8>, Failure> {
    let all = tree.directory("build")?;
    let work = tempfile::Builder::new()
        .prefix(".splice-")
        .tempdir_in(&all)
        .context("cannot write to the cache")?;
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(work.path().join(name), bytes).context("cannot write to the cache")
    };
    let mut parts = vec!["glue.o".to_owned()];
    for (n, object) in input.objects.iter().enumerate() {
        write(&format!("unit{n}.o_shipped"), object)?;
        // modpost looks for the command of every part (extract_crcs_for_object, 6.1).
        write(&format!(".unit{n}.o.cmd"), b"cmd_unit := true\n")?;
        parts.push(format!("unit{n}.o"));
    }
    let name = input.name;
    write("Kbuild", format!("obj-m := {name}.o\n{name}-y := {}\n", parts.join(" ")).as_bytes())?;
    write("glue.c", input.source.as_bytes())?;
    for (file, text) in KMOD.iter().filter(|(file, _)| ["splice.h", "patch.h"].contains(file)) {
        write(file, text.as_bytes())?;
    }
    build(tree, work.path(), Some(&core.symvers))
        .with_context(|| format!("update module {name} does not link"))?;
    let module =
        std::fs::read(work.path().join(format!("{name}.ko"))).context("kbuild left no module")?;
    let exports = Exports::read(&core.symvers)?;
    let stray: Vec<String> = plan::undefined(&module)
        .map_err(Failure::from_error)?
        .into_iter()
        .filter(|symbol| !exports.contains(symbol) && !(input.known)(symbol))
        .collect();
    if stray.is_empty() {
        return Ok(module);
    }
    Err(Failure::new(
        Exit::Failed,
        format!("update module {name} needs {}, and nothing gives it that", stray.join(", ")),
    ))
}

/// Runs kbuild on a directory with sources of a module.
fn build(tree: &Tree, directory: &Path, symvers: Option<&Path>) -> Result<()> {
    let Some(place) = directory.to_str() else { bail!("the cache's path is not in UTF-8") };
    let mut make = tree.make(&tree.headers());
    make.arg("-s")
        .arg(format!("M={place}"))
        .arg(format!("KCFLAGS=-g0 -ffile-prefix-map={place}/="))
        // What is undefined gets its address when the update is applied.
        .arg("KBUILD_MODPOST_WARN=1")
        // That would need the kernel image.
        .arg("CONFIG_DEBUG_INFO_BTF_MODULES=");
    if let Some(symvers) = symvers {
        make.arg(format!("KBUILD_EXTRA_SYMBOLS={}", symvers.display()));
    }
    packages::run(make.arg("modules"))
}
