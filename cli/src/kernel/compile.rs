// SPDX-License-Identifier: GPL-2.0-or-later
//! Compiling units before and after a patch, each with the command line of the kernel's own build.
//!
//! The unit before is built by kbuild in the tree, once; it is kept with the command that made it.
//! The unit after is made by the same command in an overlay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use rayon::prelude::*;

use super::kept::{compressed, keep, kept, uncompressed, whole};
use super::record::{plain, recorded};
use super::{Built, Overlay, Tree, cache, packages, warnings};
use crate::exit::{Exit, Failure};

/// Gives each function and object a section.
const SPLIT: &str = "-ffunction-sections -fdata-sections";

/// What is added to the flags of a kernel with that configuration: a section for each function and
/// object, so that each can be compared and moved by itself; and debug information, all of it in the
/// object and as it is, which does not change the code.
pub(super) fn flags(config: &str) -> Vec<String> {
    let set = |name: &str| config.lines().any(|line| line.strip_prefix(name) == Some("=y"));
    let mut flags = format!("KCFLAGS={SPLIT}");
    for (needed, flag) in [
        (!set("CONFIG_DEBUG_INFO"), " -g"),
        (set("CONFIG_DEBUG_INFO_SPLIT"), " -gno-split-dwarf"),
        (set("CONFIG_DEBUG_INFO_COMPRESSED"), " -gz=none"),
        (set("CONFIG_DEBUG_INFO_COMPRESSED_ZLIB"), " -gz=none"),
        (set("CONFIG_DEBUG_INFO_COMPRESSED_ZSTD"), " -gz=none"),
        (set("CONFIG_DEBUG_INFO_REDUCED"), " -femit-struct-debug-detailed=any"),
    ] {
        if needed {
            flags.push_str(flag);
        }
    }
    [flags].into_iter().chain(tables(config)).collect()
}

/// What makes objtool write its tables for each unit. A kernel with IBT leaves that to the link of the
/// image (`delay-objtool`, scripts/Makefile.lib), but for modules of a single unit, so each unit is
/// built as one of those.
pub(super) fn tables(config: &str) -> Option<String> {
    let delayed = config.lines().any(|line| line == "CONFIG_X86_KERNEL_IBT=y");
    delayed.then(|| "is-single-obj-m=y".to_owned())
}

/// A unit, compiled twice, without debug sections.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Path of the object in the kernel tree.
    pub(crate) name: String,
    /// Whether the patch adds it: before, its source was empty.
    pub(crate) is_new: bool,
    /// How it is compiled, in the tree or in the overlay.
    pub(crate) command: String,
    /// The object before.
    pub(crate) pre: Vec<u8>,
    /// The object after.
    pub(crate) post: Vec<u8>,
    /// What the kernel's checker of objects says of it, and did not before.
    pub(crate) warnings: Vec<String>,
    /// Where they are with debug sections.
    whole: (PathBuf, PathBuf),
}

impl Compiled {
    /// Whether the source is in assembler, which has no types.
    pub(crate) fn is_assembler(&self) -> bool {
        self.command.split_whitespace().any(|word| word.ends_with(".S"))
    }

    /// The objects before and after with their debug sections; the overlay must still be there.
    pub(crate) fn whole(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let (before, after) = &self.whole;
        let pre = uncompressed(before)?;
        let post =
            std::fs::read(after).with_context(|| format!("cannot read {}", after.display()))?;
        Ok((pre, post))
    }
}

/// So many units are compiled before the cache is filled and others get their turn at the tree.
const CHUNK: usize = 24;

/// Whether the build would get to a unit by two ways at once, both of which write the same files: a
/// directory that the architecture's makefile names itself (`libs-y`, `drivers-y`) is not below its Kbuild,
/// which then takes single goals in there for its own (`curdir-single`, scripts/Makefile.build).
fn is_reached_twice(arch: &str, object: &str) -> bool {
    const NAMED: [&str; 5] = ["lib", "math-emu", "pci", "power", "video"];
    object
        .strip_prefix("arch/")
        .and_then(|rest| rest.strip_prefix(arch)?.strip_prefix('/')?.split('/').next())
        .is_some_and(|directory| NAMED.contains(&directory))
}

/// Threads for so many jobs.
pub(super) fn pool(jobs: usize) -> Result<rayon::ThreadPool, Failure> {
    rayon::ThreadPoolBuilder::new().num_threads(jobs).build().map_err(Failure::from_error)
}

/// Units in chunks of that size, with the number of jobs for each.
pub(super) fn turns<'a>(
    tree: &Tree,
    units: &[(&'a String, &'a Built)],
    size: usize,
    jobs: usize,
) -> Vec<(Vec<(&'a String, &'a Built)>, usize)> {
    let arch = tree.source_arch();
    let (alone, others): (Vec<_>, Vec<_>) =
        units.iter().copied().partition(|(object, _)| is_reached_twice(arch, object));
    let with = |units: Vec<(&'a String, &'a Built)>, jobs| {
        let chunks = units.chunks(size).map(|chunk| (chunk.to_vec(), jobs));
        chunks.collect::<Vec<_>>()
    };
    [with(others, jobs), with(alone, 1)].concat()
}

/// Compiles the units before the patch that are not in the cache. What a killed run has compiled
/// stays, chunk by chunk.
pub(crate) fn before(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let cache = tree.directory("units")?;
    let missing: Vec<(&String, &Built)> = units
        .iter()
        .filter(|(object, built)| !built.is_new && kept(&cache, object).is_none())
        .collect();
    let pace = Pace::new(missing.len());
    let mut done = 0;
    for (chunk, jobs) in turns(tree, &missing, CHUNK, jobs) {
        note(&pace.says("before the patch", done));
        let _lock = tree.lock(note)?;
        // Another splice may have been here meanwhile.
        let open: Vec<_> =
            chunk.iter().filter(|(object, _)| kept(&cache, object).is_none()).collect();
        if !open.is_empty() {
            let output = tree
                .make_units(&tree.source())
                .args(flags(&tree.config()?))
                .arg(format!("-j{jobs}"))
                .args(open.iter().map(|(_, built)| &built.goal))
                .output()
                .context("cannot run make")?;
            if !output.status.success() {
                return Err(failed("pre: the kernel's own source does not compile", &output));
            }
        }
        for (object, _) in open {
            keep(tree, &cache, object)?;
        }
        done += chunk.len();
    }
    Ok(())
}

/// Compiles the units after the patch; those that read none of the changed files are left out.
pub(crate) fn after(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    changed: &[&str],
    overlay: &Overlay,
    jobs: usize,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Compiled>, Failure> {
    let cache = tree.directory("units")?;
    let added = fresh(tree, units, changed, overlay, jobs, &mut |text| note(text))?;
    let pool = pool(jobs)?;
    let pace = Pace::new(units.len());
    let source = tree.source();
    let new = changed.iter().filter(|path| !source.join(path).exists());
    let new: Vec<&str> = new.filter_map(|path| path.rsplit('/').next()).collect();
    let done = AtomicUsize::new(0);
    note(&pace.says("after the patch", 0));
    let all: Result<Vec<Option<Compiled>>, Failure> = pool.install(|| {
        units
            .par_iter()
            .map(|(object, built)| {
                let place = if built.is_new { overlay.path() } else { &cache };
                let (command, pre) = match added.get(object) {
                    Some((command, pre)) => (Some(command.clone()), pre.clone()),
                    None => {
                        let (made, pre) = kept(&cache, object)
                            .with_context(|| format!("{object} is not in the cache any more"))?;
                        (made.reads(changed, &new).then_some(made.command), pre)
                    }
                };
                let compiled = match command {
                    Some(command) => {
                        let said = one(overlay, &command)?;
                        Some(Compiled {
                            name: object.clone(),
                            is_new: built.is_new,
                            post: stripped(tree, &overlay.path().join(object))?,
                            warnings: warnings::fresh(tree, built, &command, &said)?,
                            command,
                            pre,
                            whole: (whole(place, object), overlay.path().join(object)),
                        })
                    }
                    None => None,
                };
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if done.is_multiple_of(8) {
                    note(&pace.says("after the patch", done));
                }
                Ok(compiled)
            })
            .collect()
    });
    Ok(all?.into_iter().flatten().collect())
}

/// Units, given with how they are compiled, as they are in the kernel: none where that is no other one.
/// With section anchors a compiler finds objects by their distance from others of their section, so that a
/// section for each changes the code; and a function that begins elsewhere has other nops before its loops.
/// The overlay has the source before the patch.
pub(crate) fn as_built(
    tree: &Tree,
    overlay: &Overlay,
    units: &[(String, String)],
    jobs: usize,
    note: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Option<Vec<u8>>>, Failure> {
    let pool = pool(jobs)?;
    let pace = Pace::new(units.len());
    let done = AtomicUsize::new(0);
    note(&pace.says("as in the kernel", 0));
    let one = |(object, command): &(String, String)| {
        let own = command.replace(SPLIT, "");
        if own == *command {
            return Ok(None);
        }
        one(overlay, &own)?;
        note(&pace.says("as in the kernel", done.fetch_add(1, Ordering::Relaxed) + 1));
        Ok(Some(stripped(tree, &overlay.path().join(object))?))
    };
    pool.install(|| units.par_iter().map(one).collect())
}

/// Takes for the units before what they are after other patches only, which were compiled in `overlay`.
pub(crate) fn put_on(
    units: &mut [Compiled],
    older: Vec<Compiled>,
    overlay: &Overlay,
) -> Result<(), Failure> {
    for older in older {
        let Some(unit) = units.iter_mut().find(|unit| unit.name == older.name) else { continue };
        let (_, made) = older.whole;
        let debug = compressed(&made).with_context(|| format!("cannot read {}", made.display()))?;
        let kept = whole(overlay.path(), &unit.name);
        cache::write_whole(&kept, &debug)?;
        unit.pre = older.post;
        unit.whole.0 = kept;
    }
    Ok(())
}

/// Compiles the units that the patch adds, for now from empty sources: the command and the object
/// of each. The patched makefile in the overlay says how.
fn fresh(
    tree: &Tree,
    units: &BTreeMap<String, Built>,
    changed: &[&str],
    overlay: &Overlay,
    jobs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, (String, Vec<u8>)>, Failure> {
    let added: Vec<(&String, &Built)> = units.iter().filter(|(_, built)| built.is_new).collect();
    if added.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sources = added.iter().flat_map(|(object, _)| {
        changed.iter().filter(move |path| object_of(path).as_ref() == Some(object))
    });
    let mut texts = Vec::new();
    for path in sources {
        let place = overlay.path().join(path);
        texts.push((std::fs::read(&place).with_context(|| format!("cannot read {path}"))?, place));
    }
    let empty = |(_, place): &(Vec<u8>, PathBuf)| std::fs::write(place, "");
    texts.iter().try_for_each(empty).context("cannot write to the cache")?;
    // What the overlay leads to must not be made anew meanwhile, nor is it from here.
    let _lock = tree.lock(note)?;
    let output = tree
        .make_units(overlay.path())
        .args(flags(&tree.config()?))
        .arg(format!("-j{jobs}"))
        .args(added.iter().map(|(_, built)| &built.goal))
        .output()
        .context("cannot run make")?;
    if !output.status.success() {
        return Err(failed("a unit that the patch adds cannot be built", &output));
    }
    let mut made = BTreeMap::new();
    for (object, _) in added {
        let file = overlay.path().join(object);
        let debug = compressed(&file).with_context(|| format!("cannot read {}", file.display()))?;
        cache::write_whole(&whole(overlay.path(), object), &debug)?;
        let (command, _) = recorded(overlay.path(), object)?;
        made.insert(object.clone(), (command, stripped(tree, &file)?));
    }
    let full = |(text, place): &(Vec<u8>, PathBuf)| std::fs::write(place, text);
    texts.iter().try_for_each(full).context("cannot write to the cache")?;
    Ok(made)
}

/// How far many units are.
struct Pace {
    all: usize,
    began: Instant,
}

impl Pace {
    fn new(all: usize) -> Self {
        Self { all, began: Instant::now() }
    }

    fn says(&self, when: &str, done: usize) -> String {
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let what = count(self.all);
        if done == 0 {
            return format!("compiling {what} {when}");
        }
        format!("compiling {what} {when}: {done} done, {rate:.1} a second")
    }
}

fn count(number: usize) -> String {
    if number == 1 { "one unit".to_owned() } else { format!("{number} units") }
}

fn failed(what: &str, output: &std::process::Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::new(Exit::Failed, format!("{what}:\n{}", said.trim_end()))
}

/// The object that is made of a source file.
pub(crate) fn object_of(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".c").or_else(|| path.strip_suffix(".S"))?;
    Some(format!("{stem}.o"))
}

/// An object without its debug sections.
pub(super) fn stripped(tree: &Tree, object: &Path) -> Result<Vec<u8>> {
    let out = tree.scratch()?;
    packages::run(tree.tool("strip").arg("-g").arg("-o").arg(out.path()).arg(object))?;
    std::fs::read(out.path()).context("strip left no file")
}

/// Runs a unit's command; what it said.
pub(super) fn one(overlay: &Overlay, command: &str) -> Result<String, Failure> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(plain(command))
        .env("LC_ALL", "C")
        .current_dir(overlay.path())
        .output()
        .context("cannot run the compiler")?;
    if !output.status.success() {
        return Err(failed("post: the patched source does not compile", &output));
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_build_reaches_by_two_ways_is_built_alone() {
        for object in ["arch/x86/power/cpu.o", "arch/x86/lib/memcpy_64.o", "arch/x86/pci/irq.o"] {
            assert!(is_reached_twice("x86", object), "{object}");
        }
        for object in ["arch/x86/kernel/cpu/amd.o", "kernel/power/main.o", "lib/string.o"] {
            assert!(!is_reached_twice("x86", object), "{object}");
        }
        assert!(!is_reached_twice("arm64", "arch/x86/lib/memcpy_64.o"));
    }

    #[test]
    fn every_kernel_is_built_with_whole_debug_information() {
        let plain = "KCFLAGS=-ffunction-sections -fdata-sections";
        assert_eq!(flags("CONFIG_DEBUG_INFO=y\n# CONFIG_DEBUG_INFO_SPLIT is not set\n"), [plain]);
        assert_eq!(flags("CONFIG_DEBUG_INFO_NONE=y\n"), [format!("{plain} -g")]);
        assert_eq!(
            flags("CONFIG_DEBUG_INFO=y\nCONFIG_DEBUG_INFO_SPLIT=y\n"),
            [format!("{plain} -gno-split-dwarf")]
        );
        assert_eq!(flags("CONFIG_DEBUG_INFO=y\nCONFIG_X86_KERNEL_IBT=y\n").len(), 2);
    }

    #[test]
    fn an_object_comes_back_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let object: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(file("post.o"), &object).unwrap();
        let mut packed = compressed(&file("post.o")).unwrap();
        std::fs::write(file("pre.o.debug"), &packed).unwrap();
        let compiled = Compiled {
            name: "pre.o".into(),
            is_new: false,
            pre: Vec::new(),
            post: Vec::new(),
            warnings: Vec::new(),
            command: "gcc -c a.c".into(),
            whole: (file("pre.o.debug"), file("post.o")),
        };
        assert!(compiled.whole().unwrap() == (object.clone(), object));
        let middle = packed.len() / 2;
        packed[middle] ^= 1;
        std::fs::write(file("pre.o.debug"), &packed).unwrap();
        assert!(compiled.whole().unwrap_err().to_string().contains("delete it"));
    }
}
