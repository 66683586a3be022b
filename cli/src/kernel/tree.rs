// SPDX-License-Identifier: GPL-2.0-or-later
//! A prepared kernel: a private source tree in the cache, configured and ready to compile units,
//! and the headers to link modules against.
//!
//! `tree.json` is written last; a directory without it is what a killed `prepare` left, and is
//! made anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use splice_core::arch::Arch;
use tempfile::NamedTempFile;

use super::cache;
use super::symvers::Exports;
use crate::exit::{Exit, Failure};

/// The file that says what is known.
pub(super) const FACTS: &str = "tree.json";
/// Version of the layout of a prepared kernel; another one is made anew.
pub(super) const LAYOUT: u32 = 3;
/// Variables that would change what make does, or which compiler runs how.
const UNWANTED: &[&str] = &[
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "ARCH",
    "SUBARCH",
    "CROSS_COMPILE",
    "CROSS_COMPILE_COMPAT",
    "CC",
    "LD",
    "CFLAGS",
    "LDFLAGS",
    "KCFLAGS",
    "KAFLAGS",
    "KCPPFLAGS",
    "KBUILD_OUTPUT",
    "KBUILD_EXTMOD",
    "O",
    "V",
    "W",
    "C",
    "M",
    "LLVM",
    "C_INCLUDE_PATH",
    "CPATH",
    "KCONFIG_CONFIG",
    "LOCALVERSION",
];

/// What is known of a prepared kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(super) layout: u32,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// splice's name of the architecture.
    pub(crate) arch: String,
    /// `CONFIG_CC_VERSION_TEXT`.
    pub(crate) compiler: String,
    /// Where source, configuration and headers are from.
    pub(crate) origin: String,
    /// What to build modules against, in the tree's directory.
    pub(super) headers: PathBuf,
    /// The compiler's name, and what stands before it and the binutils' names.
    pub(super) cc: String,
    pub(super) cross: String,
    /// What stands before the name of the compiler for 32-bit processes' code, where there is one.
    pub(super) compat: String,
    /// Whether the compiler has section anchors.
    pub(crate) anchors: bool,
    /// What the kernel's own build was told of itself, which some units print: words for make.
    pub(super) told: Vec<String>,
}

/// A prepared kernel.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) root: PathBuf,
    /// What is known of it.
    pub(crate) facts: Facts,
    kernel_arch: &'static str,
    source_arch: &'static str,
}

impl Tree {
    pub(super) fn new(arch: &'static dyn Arch, root: &Path, facts: Facts) -> Self {
        let (kernel_arch, source_arch) = (arch.kernel_arch(), arch.source_arch());
        Self { root: root.to_owned(), facts, kernel_arch, source_arch }
    }

    /// The kernel's source, which belongs to this cache alone.
    pub(crate) fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    /// The configuration.
    pub(crate) fn config(&self) -> Result<String> {
        std::fs::read_to_string(self.source().join(".config")).context("no configuration")
    }

    /// What modules are built against.
    pub(crate) fn headers(&self) -> PathBuf {
        self.root.join(&self.facts.headers)
    }

    /// The architecture's directory in the source, below `arch/`.
    pub(crate) fn source_arch(&self) -> &'static str {
        self.source_arch
    }

    /// A path in the tree's directory, which may not be there.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory of the tree's, made if it is not there.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        cache::create(&path)?;
        Ok(path)
    }

    /// A temporary file, in a directory where the next command removes it if this one is killed.
    pub(crate) fn scratch(&self) -> Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".splice-")
            .tempfile_in(self.directory("build")?)
            .context("cannot write to the cache")
    }

    /// Waits until no other process builds in this tree.
    pub(crate) fn lock(&self, note: &mut dyn FnMut(&str)) -> Result<cache::Lock> {
        cache::lock(&self.root.join("lock"), note)
    }

    /// `make` for this kernel, free of what the environment might add.
    pub(crate) fn make(&self, directory: &Path) -> Command {
        let mut make = make(directory, self.kernel_arch, &self.facts.cc, &self.facts.cross);
        if !self.facts.compat.is_empty() {
            make.arg(format!("CROSS_COMPILE_COMPAT={}", self.facts.compat));
        }
        let pahole = self.root.join("pahole");
        if pahole.is_file() {
            make.arg(format!("PAHOLE={}", pahole.display()));
        }
        if !self.facts.release.is_empty() {
            make.arg(format!("KERNELRELEASE={}", self.facts.release));
        }
        make.args(&self.facts.told);
        make
    }

    /// `make` for units of this kernel, in the tree or in an overlay of it. What kbuild would see to first
    /// is there since the tree was prepared; to look takes it longer than to compile a unit.
    pub(crate) fn make_units(&self, directory: &Path) -> Command {
        let mut make = self.make(directory);
        for target in PREPARED {
            make.args(["-o", target]);
        }
        make
    }

    /// One of the binutils.
    pub(crate) fn tool(&self, name: &str) -> Command {
        Command::new(format!("{}{name}", self.facts.cross))
    }

    /// The symbols that the kernel exports to modules.
    pub(crate) fn exported(&self) -> Result<Exports> {
        Exports::read(&self.headers().join("Module.symvers"))
    }
}

/// Targets of kbuild that make tools and generated headers (Makefile and arch/*/Makefile, 6.1 and 6.12). Not
/// `prepare`, which needs them: what else it needs may add to the compiler's options, as the guard of the
/// stack protector on arm64 does (`stack_protector_prepare`).
const PREPARED: [&str; 5] =
    ["prepare0", "vdso_prepare", "headers", "tools/objtool", "tools/bpf/resolve_btfids"];

fn make(directory: &Path, arch: &str, cc: &str, cross: &str) -> Command {
    let mut make = Command::new("make");
    for name in UNWANTED {
        make.env_remove(name);
    }
    make.env("LC_ALL", "C").current_dir(directory);
    make.arg("--no-print-directory").arg(format!("ARCH={arch}")).arg(format!("CC={cc}"));
    if !cross.is_empty() {
        make.arg(format!("CROSS_COMPILE={cross}"));
    }
    make
}

/// The options of a configuration that are set.
pub(super) fn options(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .collect()
}

/// A string option's text.
pub(super) fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

/// Finds a prepared kernel: the one named, else the running one, else the only one.
pub(crate) fn find(arch: &'static dyn Arch, release: Option<&str>) -> Result<Tree, Failure> {
    let kernels = cache::root()?.join("kernels");
    let open = |release: &str| read(arch, &kernels.join(release));
    if let Some(release) = release {
        return open(release)?.ok_or_else(|| {
            let other = match arch.name() {
                std::env::consts::ARCH => String::new(),
                name => format!("--arch {name} "),
            };
            let text = format!(
                "kernel {release} is not prepared; run: splice {other}prepare --release {release}"
            );
            Failure::new(Exit::Failed, text)
        });
    }
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if let Ok(Some(tree)) = open(running.trim()) {
        return Ok(tree);
    }
    let mut ready = Vec::new();
    for entry in std::fs::read_dir(&kernels).into_iter().flatten().flatten() {
        ready.extend(read(arch, &entry.path()).ok().flatten());
    }
    let names: Vec<&str> = ready.iter().map(|tree| tree.facts.release.as_str()).collect();
    let text = match names.as_slice() {
        [] => "no kernel is prepared; run: splice prepare --release RELEASE".to_owned(),
        [_] => String::new(),
        names => {
            format!("several kernels are prepared; say --release with one of {}", names.join(", "))
        }
    };
    match ready.pop() {
        Some(tree) if text.is_empty() => Ok(tree),
        _ => Err(Failure::new(Exit::Failed, text)),
    }
}

/// A prepared kernel, if there is one in that directory.
pub(super) fn read(arch: &'static dyn Arch, root: &Path) -> Result<Option<Tree>> {
    let Ok(text) = std::fs::read_to_string(root.join(FACTS)) else { return Ok(None) };
    let facts: Facts = match serde_json::from_str(&text) {
        Ok(facts) => facts,
        Err(_) => return Ok(None),
    };
    let tree = Tree::new(arch, root, facts);
    // A compiler with a path is one that stands beside it in the cache.
    let cc = &tree.facts.cc;
    let has_compiler = !cc.starts_with('/') || Path::new(cc).is_file();
    if tree.facts.layout != LAYOUT || !tree.source().join(".config").is_file() || !has_compiler {
        return Ok(None);
    }
    ensure!(
        tree.facts.arch == arch.name(),
        "kernel {} is for {}; say --arch {}",
        tree.facts.release,
        tree.facts.arch,
        tree.facts.arch
    );
    Ok(Some(tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_set_are_read() {
        let text = "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_CC_VERSION_TEXT=\"gcc 1\"\n";
        let options = options(text);
        assert_eq!(options.len(), 2);
        assert_eq!(unquoted(options["CONFIG_CC_VERSION_TEXT"]), "gcc 1");
    }
}
