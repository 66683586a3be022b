// SPDX-License-Identifier: GPL-2.0-or-later
//! A prepared kernel: a private source tree in the cache, configured and ready to compile units,
//! and the headers to link modules against.
//!
//! `tree.json` is written last; a directory without it is what a killed `prepare` left, and is
//! made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use splice_core::arch::Arch;
use tempfile::NamedTempFile;

use super::{cache, compile, debian, foreign, packages};
use crate::exit::{Exit, Failure};

const FACTS: &str = "tree.json";
/// Version of the layout of a prepared kernel; another one is made anew.
const LAYOUT: u32 = 3;
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
    layout: u32,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// splice's name of the architecture.
    pub(crate) arch: String,
    /// `CONFIG_CC_VERSION_TEXT`.
    pub(crate) compiler: String,
    /// Where source, configuration and headers are from.
    pub(crate) origin: String,
    /// What to build modules against, in the tree's directory.
    headers: PathBuf,
    /// The compiler's name, and what stands before it and the binutils' names.
    cc: String,
    cross: String,
    /// What stands before the name of the compiler for 32-bit processes' code, where there is one.
    compat: String,
    /// Whether the compiler has section anchors.
    pub(crate) anchors: bool,
    /// What the kernel's own build was told of itself, which some units print: words for make.
    told: Vec<String>,
}

/// A prepared kernel.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// What is known of it.
    pub(crate) facts: Facts,
    kernel_arch: &'static str,
    source_arch: &'static str,
}

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

impl Tree {
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

/// Symbols that are exported to modules, each with its namespace, which is empty for most.
#[derive(Debug)]
pub(crate) struct Exports(HashMap<String, String>);

impl Exports {
    /// What a `Module.symvers` lists: checksum, symbol, module, kind, namespace (`write_dump`,
    /// scripts/mod/modpost.c; the last one since 5.4).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let row = |line: &str| {
            let mut words = line.split('\t').skip(1);
            let name = words.next()?.to_owned();
            Some((name, words.nth(2).unwrap_or_default().to_owned()))
        };
        Ok(Self(text.lines().filter_map(row).collect()))
    }

    /// Whether that symbol is exported.
    pub(crate) fn contains(&self, symbol: &str) -> bool {
        self.0.contains_key(symbol)
    }

    /// The namespace that a module must import to use that symbol.
    pub(crate) fn namespace(&self, symbol: &str) -> Option<&str> {
        self.0.get(symbol).map(String::as_str).filter(|namespace| !namespace.is_empty())
    }
}

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

fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

/// First line of what a compiler says of itself.
fn says(cc: &str) -> Option<String> {
    let output = Command::new(cc).arg("--version").env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

/// Whether a compiler, optimising as the kernel does, finds objects by their distance from others of their
/// section (`-fsection-anchors`).
fn has_anchors(cc: &str) -> bool {
    let output =
        Command::new(cc).args(["-O2", "-Q", "--help=optimizers"]).env("LC_ALL", "C").output();
    let text =
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.lines().any(|line| line.contains("-fsection-anchors") && line.contains("[enabled]"))
}

/// Which compiler it is, whatever name it was called by.
fn identity(version: &str) -> &str {
    version.split_once(' ').map_or(version, |(_, rest)| rest)
}

/// The prefix of a compiler for the code that a kernel maps into 32-bit processes
/// (`CROSS_COMPILE_COMPAT`, arch/arm64/kernel/vdso32/Makefile, 6.1). It is needed to configure and
/// prepare the source; no unit is made by it, so that it need not be the kernel's.
fn compat_compiler() -> Result<&'static str> {
    ["arm-linux-gnueabihf-", "arm-linux-gnueabi-"]
        .into_iter()
        .find(|prefix| says(&format!("{prefix}gcc")).is_some())
        .context(
            "this kernel has code for 32-bit processes (CONFIG_COMPAT_VDSO), and there is no compiler \
             for that here; install it (Debian package gcc-arm-linux-gnueabihf)",
        )
}

/// The kernel's own compiler on this machine: its name and the binutils' prefix. Where the cross compiler
/// is another one, the distribution's own is fetched.
fn compiler(
    arch: &dyn Arch,
    wanted: &str,
    any: bool,
    note: &mut dyn FnMut(&str),
) -> Result<(String, String)> {
    let name = wanted.split(' ').next().unwrap_or("gcc");
    let plain = name.rsplit_once("gcc").map_or(name.to_owned(), |(_, rest)| format!("gcc{rest}"));
    let native = arch.name() == std::env::consts::ARCH;
    let prefixes: Vec<&str> = if native { vec![""] } else { arch.cross_prefixes().to_vec() };
    let mut found = None;
    for prefix in &prefixes {
        for name in [plain.as_str(), "gcc"] {
            let cc = format!("{prefix}{name}");
            let Some(version) = says(&cc) else { continue };
            if identity(&version) == identity(wanted) {
                return Ok((cc, (*prefix).to_owned()));
            }
            found.get_or_insert((cc, (*prefix).to_owned(), version));
        }
    }
    match found {
        Some((cc, prefix, _)) if any => Ok((cc, prefix)),
        Some((cc, prefix, version)) if !native => {
            let own = foreign::compiler(arch, wanted, &cc, note).with_context(|| {
                format!(
                    "the kernel was built with \"{wanted}\", but {cc} here is \"{version}\", and the \
                     distribution's own cannot be used; say --any-compiler to take this one, and then \
                     only `splice check` can tell whether the code is the same"
                )
            })?;
            Ok((own, prefix))
        }
        Some((cc, _, version)) => bail!(
            "the kernel was built with \"{wanted}\", but {cc} here is \"{version}\"; install that \
             version of it, or say --any-compiler, and then only `splice check` can tell whether \
             the code is the same"
        ),
        None => {
            let prefix = prefixes.first().copied().unwrap_or_default();
            bail!(
                "the kernel was built with \"{wanted}\", and there is no {prefix}{plain} here; install \
                 it (Debian package {})",
                package(&plain, prefix)
            )
        }
    }
}

/// Debian's package of a compiler that is called by this prefix.
fn package(plain: &str, prefix: &str) -> String {
    match prefix.trim_end_matches('-') {
        "" => plain.to_owned(),
        target => format!("{plain}-{}", target.replace('_', "-")),
    }
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
fn read(arch: &'static dyn Arch, root: &Path) -> Result<Option<Tree>> {
    let Ok(text) = std::fs::read_to_string(root.join(FACTS)) else { return Ok(None) };
    let facts: Facts = match serde_json::from_str(&text) {
        Ok(facts) => facts,
        Err(_) => return Ok(None),
    };
    let tree = Tree {
        root: root.to_owned(),
        facts,
        kernel_arch: arch.kernel_arch(),
        source_arch: arch.source_arch(),
    };
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
        let (cc, cross) = compiler(arch, wanted, wish.any_compiler, note)?;
        let compat = match options.get("CONFIG_COMPAT_VDSO") {
            Some(_) => compat_compiler()?.to_owned(),
            None => String::new(),
        };
        let anchors = has_anchors(&cc);
        let tree = Tree {
            root: root.to_owned(),
            facts: Facts {
                layout: LAYOUT,
                release: parts.release.clone().unwrap_or_default(),
                arch: arch.name().to_owned(),
                compiler: wanted.to_owned(),
                origin: parts.origin.clone(),
                headers: parts.headers.clone(),
                cc,
                cross,
                compat,
                anchors,
                told: parts.told.clone(),
            },
            kernel_arch: arch.kernel_arch(),
            source_arch: arch.source_arch(),
        };
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
    fn a_compiler_is_the_same_under_another_name() {
        let kernel = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0";
        assert_eq!(identity(kernel), identity("gcc (Debian 12.2.0-14+deb12u1) 12.2.0"));
        assert_ne!(identity(kernel), identity("gcc-12 (Debian 12.2.0-14) 12.2.0"));
    }

    #[test]
    fn the_package_of_a_missing_compiler_is_named() {
        assert_eq!(package("gcc-12", ""), "gcc-12");
        assert_eq!(package("gcc-14", "riscv64-linux-gnu-"), "gcc-14-riscv64-linux-gnu");
        assert_eq!(package("gcc-12", "x86_64-linux-gnu-"), "gcc-12-x86-64-linux-gnu");
    }

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

    #[test]
    fn exported_symbols_have_their_namespaces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "0x1\tf\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tg\td/m\tEXPORT_SYMBOL_GPL\tNS\n\
                    0x3\th\tvmlinux\tEXPORT_SYMBOL\n";
        std::fs::write(file.path(), text).unwrap();
        let exports = Exports::read(file.path()).unwrap();
        let of = |symbol| (exports.contains(symbol), exports.namespace(symbol));
        assert_eq!([of("f"), of("g"), of("h")], [(true, None), (true, Some("NS")), (true, None)]);
        assert_eq!(of("vmlinux"), (false, None));
    }

    #[test]
    fn options_that_are_set_are_read() {
        let text = "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_CC_VERSION_TEXT=\"gcc 1\"\n";
        let options = options(text);
        assert_eq!(options.len(), 2);
        assert_eq!(unquoted(options["CONFIG_CC_VERSION_TEXT"]), "gcc 1");
    }
}
