// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes a kernel ready: its source unpacked or copied, configured, and what compiling a unit needs built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use splice_core::arch::Arch;

use super::tree::{FACTS, Facts, LAYOUT, Tree, options, read, unquoted};
use super::{cache, compile, compiler, debian, packages};

/// Where the parts of a kernel come from.
pub(crate) enum Origin<'a> {
    /// The distribution's packages.
    Packages,
    /// The user.
    Given {
        /// A source tree, which is only read.
        source: &'a Path,
        /// A configuration.
        config: &'a Path,
        /// A `Module.symvers`.
        symvers: Option<&'a Path>,
    },
}

/// What is to be prepared.
pub(crate) struct Wish<'a> {
    /// The release, if it was named.
    pub(crate) release: Option<&'a str>,
    /// Where the parts come from.
    pub(crate) origin: Origin<'a>,
    /// Whether another compiler than the kernel's will do.
    pub(crate) any_compiler: bool,
    /// Whether to make anew what is ready.
    pub(crate) again: bool,
    /// Parallel jobs.
    pub(crate) jobs: usize,
}

/// What the source, unpacked, is configured with.
pub(super) struct Parts {
    pub(super) release: Option<String>,
    pub(super) config: PathBuf,
    pub(super) symvers: Option<PathBuf>,
    /// Relative to the tree's directory.
    pub(super) headers: PathBuf,
    pub(super) origin: String,
    /// What the build was told of itself besides the release: words for make.
    pub(super) told: Vec<String>,
}

/// Makes a kernel ready. Returns whether there was anything to do, too.
pub(crate) fn prepare(
    arch: &'static dyn Arch,
    wish: &Wish<'_>,
    note: &mut dyn FnMut(&str),
) -> Result<(Tree, bool)> {
    let kernels = cache::directory("kernels")?;
    let release = match (wish.release, &wish.origin) {
        (Some(release), _) => release.to_owned(),
        (None, Origin::Packages) => debian::newest(arch, &debian::apt(arch, note)?)?,
        (None, Origin::Given { .. }) => String::new(),
    };
    ensure!(
        !release.starts_with('.') && !release.contains('/'),
        "{release:?} is no kernel release"
    );
    // A source whose release nobody named gets its directory once it is known.
    let named = if release.is_empty() { ".unnamed" } else { release.as_str() };
    let _lock = cache::lock(&kernels.join(format!(".{named}.lock")), note)?;
    let root = kernels.join(named);
    if !wish.again
        && let Some(tree) = read(arch, &root)?
    {
        return Ok((tree, false));
    }
    if root.exists() {
        note("removing what an earlier prepare left");
        std::fs::remove_dir_all(&root)
            .with_context(|| format!("cannot remove {}", root.display()))?;
    }
    cache::create(&root.join("source"))?;
    let made =
        make_ready(arch, wish, &release, &root, note).and_then(|tree| publish(tree, &kernels));
    if made.is_err() {
        // It is of no use to anybody, and the next one begins anew.
        let _ = std::fs::remove_dir_all(&root);
    }
    made
}

fn make_ready(
    arch: &'static dyn Arch,
    wish: &Wish<'_>,
    release: &str,
    root: &Path,
    note: &mut dyn FnMut(&str),
) -> Result<Tree> {
    // The compiler is looked at before anything that takes long.
    match &wish.origin {
        Origin::Packages => {
            let headers = debian::headers(debian::apt(arch, note)?, release, root, note)?;
            let ready = Ready::new(arch, wish, root, &headers.parts, note)?;
            debian::source(&headers, root, note)?;
            ready.configure(wish.jobs, note)
        }
        Origin::Given { source: given, config, symvers } => {
            let parts = Parts {
                release: wish.release.map(str::to_owned),
                config: (*config).to_owned(),
                symvers: symvers.map(Path::to_owned),
                headers: PathBuf::from("source"),
                origin: given.display().to_string(),
                told: Vec::new(),
            };
            let ready = Ready::new(arch, wish, root, &parts, note)?;
            note("copying the source");
            packages::run(
                Command::new("cp")
                    .args(["-a", "--reflink=auto", "--no-preserve=ownership"])
                    .arg(given.join("."))
                    .arg(root.join("source")),
            )?;
            ready.configure(wish.jobs, note)
        }
    }
}

/// A tree whose configuration and compiler are known.
struct Ready {
    tree: Tree,
    config: String,
    symvers: Option<PathBuf>,
    /// Whether source and configuration are said to belong together.
    exact: bool,
}

impl Ready {
    fn new(
        arch: &'static dyn Arch,
        wish: &Wish<'_>,
        root: &Path,
        parts: &Parts,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let config = std::fs::read_to_string(&parts.config)
            .with_context(|| format!("cannot read {}", parts.config.display()))?;
        let options = options(&config);
        let wanted = options.get("CONFIG_CC_VERSION_TEXT").map_or("", |text| unquoted(text));
        ensure!(!wanted.is_empty(), "{} does not name the compiler", parts.config.display());
        let (cc, cross) = compiler::matching(arch, wanted, wish.any_compiler, note)?;
        let compat = match options.get("CONFIG_COMPAT_VDSO") {
            Some(_) => compiler::compat()?.to_owned(),
            None => String::new(),
        };
        let facts = Facts {
            layout: LAYOUT,
            release: parts.release.clone().unwrap_or_default(),
            arch: arch.name().to_owned(),
            compiler: wanted.to_owned(),
            origin: parts.origin.clone(),
            headers: parts.headers.clone(),
            anchors: compiler::has_anchors(&cc),
            cc,
            cross,
            compat,
            told: parts.told.clone(),
        };
        let tree = Tree::new(arch, root, facts);
        let exact = matches!(wish.origin, Origin::Packages);
        Ok(Self { tree, config, symvers: parts.symvers.clone(), exact })
    }

    /// Configures the unpacked source and builds what compiling a unit needs.
    fn configure(self, jobs: usize, note: &mut dyn FnMut(&str)) -> Result<Tree> {
        let Self { mut tree, config, symvers, exact } = self;
        let source = tree.source();
        let flags = compile::flags(&config);
        let run = |words: &[&str]| {
            // With the flags for units already, or the first unit would build all of this again.
            let mut make = tree.make(&source);
            packages::run(make.args(words).args(&flags).arg(format!("-j{jobs}")))
        };
        if source.join("include/generated/autoconf.h").exists() {
            note("cleaning the copy of the source");
            run(&["mrproper"])?;
        }
        let before = options(&config);
        pahole(&tree.root, &before)?;
        std::fs::write(source.join(".config"), &config).context("cannot write to the cache")?;
        note("configuring");
        run(&["olddefconfig"])?;
        let now = tree.config()?;
        let now = options(&now);
        let mut changed = differing(&before, &now);
        if !changed.is_empty() {
            changed.truncate(8);
            let changed = changed.join(", ");
            ensure!(
                !exact,
                "{} does not take this kernel's configuration ({changed} …): the kernel was built with \
                 patches that the packages lack; prepare it from its own source with --source and \
                 --config",
                tree.facts.origin
            );
            note(&format!("the configuration is not taken as it is: {changed} …"));
        }
        note("building what compiling a unit needs");
        run(&["modules_prepare"])?;
        if let Some(symvers) = symvers {
            std::fs::copy(&symvers, source.join("Module.symvers"))
                .with_context(|| format!("cannot copy {}", symvers.display()))?;
        }
        if tree.facts.release.is_empty() {
            let output = tree.make(&source).args(["-s", "kernelrelease"]).output()?;
            tree.facts.release = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ensure!(!tree.facts.release.is_empty(), "the source does not say its release");
        }
        Ok(tree)
    }
}

/// The options in which two configurations differ, but for those about tools.
fn differing<'a>(before: &BTreeMap<&'a str, &str>, now: &BTreeMap<&'a str, &str>) -> Vec<&'a str> {
    let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    let differs = |name: &&str| before.get(*name) != now.get(*name) && !is_about_tools(name);
    names.into_iter().filter(differs).collect()
}

/// Whether an option only says what the machine's tools are and can do: the compiler is looked at apart,
/// and no other tool changes an object.
fn is_about_tools(option: &str) -> bool {
    const TOOLS: [&str; 9] =
        ["AS", "BINDGEN", "CC", "CLANG", "GCC", "LD", "PAHOLE", "RUSTC", "TOOLS"];
    option
        .strip_prefix("CONFIG_")
        .and_then(|name| name.split_once('_'))
        .is_some_and(|(tool, _)| TOOLS.contains(&tool))
}

/// The configuration says which pahole there was, and some structures depend on that; objects do
/// not. So there is one that only tells its version.
fn pahole(root: &Path, options: &BTreeMap<&str, &str>) -> Result<()> {
    let Some(version) = options.get("CONFIG_PAHOLE_VERSION").filter(|v| v.len() == 3) else {
        return Ok(());
    };
    let (major, minor) = version.split_at(1);
    let path = root.join("pahole");
    std::fs::write(&path, format!("#!/bin/sh\necho v{major}.{minor}\n"))
        .context("cannot write to the cache")?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context("cannot write to the cache")
}

/// The tree is ready from now on.
fn publish(mut tree: Tree, kernels: &Path) -> Result<(Tree, bool)> {
    let place = kernels.join(&tree.facts.release);
    if place != tree.root {
        if place.exists() {
            std::fs::remove_dir_all(&place)
                .with_context(|| format!("cannot replace {}", place.display()))?;
        }
        std::fs::rename(&tree.root, &place).context("cannot name the tree")?;
        tree.root = place;
    }
    let facts = serde_json::to_vec_pretty(&tree.facts)?;
    cache::write_whole(&tree.root.join(FACTS), &facts)?;
    Ok((tree, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_tool_is_no_other_configuration() {
        for tool in ["CONFIG_CC_VERSION_TEXT", "CONFIG_RUSTC_VERSION", "CONFIG_AS_AVX512"] {
            assert!(is_about_tools(tool), "{tool}");
        }
        for option in ["CONFIG_PREEMPT_RT", "CONFIG_SMP", "CONFIG_ASN1", "CONFIG_CCS_X", "x"] {
            assert!(!is_about_tools(option), "{option}");
        }
    }

    #[test]
    fn options_that_a_source_does_not_know_are_named() {
        let kernel =
            options("CONFIG_SMP=y\nCONFIG_PREEMPT_RT=y\nCONFIG_HZ=250\nCONFIG_CC_IS_GCC=y\n");
        let source = options("CONFIG_SMP=y\nCONFIG_PREEMPT=y\nCONFIG_HZ=100\n");
        let names = ["CONFIG_HZ", "CONFIG_PREEMPT", "CONFIG_PREEMPT_RT"];
        assert_eq!(differing(&kernel, &source), names);
        assert!(differing(&kernel, &kernel).is_empty());
    }
}
