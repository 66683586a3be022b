// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel that watches what is done to it: the point release's source with the distribution's
//! configuration, and with the kernel's own checkers of memory accesses, locks and sleeping on. It is
//! built once, in an hour and more on two processors, and kept in the cache; a build that was stopped
//! goes on. With `--checked`, the suites run on it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use splice_cli::kernel::{Kernel, cache};

use crate::packages::Image;
use crate::session::Lab;

/// How many times longer all takes on it.
const PACE: u32 = 4;
const MEMORY_MIB: u32 = 2048;
/// In its place in the cache.
const SOURCE: &str = "source";
const OPTIONS: &str = include_str!("../checked.config");
/// The checker of accesses describes each global object by a record with the line that it is on, which
/// a patch moves; without the records, globals have no guard behind them, and all else is as usual.
const GLOBALS: [&str; 2] = ["asan-globals=1", "asan-globals=0"];
const RECORDS: &str = "scripts/Makefile.kasan";

static WANTED: AtomicBool = AtomicBool::new(false);

/// From here on the suites run on the checked kernel.
pub fn want() {
    WANTED.store(true, Ordering::Relaxed);
}

/// Whether they do.
#[must_use]
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// Where it is built: beside the stock one, by the version that both have.
fn place(lab: &Lab) -> PathBuf {
    lab.cache.lab().join(format!("checked-{}", lab.kernel.version))
}

/// The lab with the checked kernel made from this stock one, which is built if it is not there.
pub fn lab(stock: Lab) -> Result<Lab> {
    let place = place(&stock);
    std::fs::create_dir_all(&place)?;
    let _lock = cache::lock(&place.join("lock"), &mut |text| eprintln!("{text}"))?;
    let source = place.join(SOURCE);
    if !source.is_dir() {
        eprintln!("unpacking the source");
        stock.cache.source(&stock.kernel.version, &source)?;
    }
    let release = format!("{}-checked", upstream(&stock.kernel.version)?);
    let modules = place.join("modules/lib/modules").join(&release);
    let kernel = source.join("arch/x86/boot/bzImage");
    if !(modules.is_dir() && kernel.is_file()) {
        configure(&stock, &source)?;
        build(&source, &place.join("modules"))?;
        ensure!(modules.is_dir(), "the build made no {}", modules.display());
    }
    let version = stock.kernel.version.clone();
    let image = Image {
        release: release.clone(),
        version: version.clone(),
        kernel,
        modules,
        memory_mib: MEMORY_MIB,
        pace: PACE,
    };
    let path = |name: &str| source.join(name).to_string_lossy().into_owned();
    let origin = vec![
        "--source".to_owned(),
        source.to_string_lossy().into_owned(),
        "--config".to_owned(),
        path(".config"),
        "--symvers".to_owned(),
        path("Module.symvers"),
    ];
    Ok(Lab { kernel: Kernel { release, version }, image, origin, ..stock })
}

/// The key that its modules are signed with, and the certificate, which is in the same file; none for
/// another kernel, whose key nobody has.
pub fn key(lab: &Lab) -> Result<Option<[Vec<u8>; 2]>> {
    if !is_wanted() {
        return Ok(None);
    }
    let key = std::fs::read(place(lab).join(SOURCE).join("certs/signing_key.pem"))?;
    Ok(Some([key.clone(), key]))
}

/// `6.1.170` of `6.1.170-3`.
fn upstream(version: &str) -> Result<&str> {
    version.split('-').next().filter(|name| !name.is_empty()).context("a kernel without version")
}

fn configure(stock: &Lab, source: &Path) -> Result<()> {
    let ready = stock.prepare()?;
    let config = std::fs::read_to_string(ready.tree()?.join(".config"))?;
    std::fs::write(source.join(".config"), options(&config))?;
    let rules = std::fs::read_to_string(source.join(RECORDS))?;
    let [with, without] = GLOBALS;
    ensure!(
        rules.contains(with) || rules.contains(without),
        "{RECORDS} does not say {with}, so that this source needs other rules"
    );
    if rules.contains(with) {
        std::fs::write(source.join(RECORDS), rules.replace(with, without))?;
    }
    make(source, &["olddefconfig"])?;
    let config = std::fs::read_to_string(source.join(".config"))?;
    for option in OPTIONS.lines().filter(|line| line.starts_with("CONFIG_")) {
        ensure!(config.lines().any(|line| line == option), "the kernel does not take {option}");
    }
    Ok(())
}

/// The distribution's options without its modules, and ours.
fn options(config: &str) -> String {
    let without = |line: &str| match line.strip_suffix("=m") {
        Some(name) => format!("# {name} is not set\n"),
        None => format!("{line}\n"),
    };
    config.lines().map(without).chain([OPTIONS.to_owned()]).collect()
}

fn build(source: &Path, modules: &Path) -> Result<()> {
    let jobs = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
    make(source, &[&jobs, "bzImage", "modules"])?;
    let path = format!("INSTALL_MOD_PATH={}", modules.display());
    make(source, &[&path, "INSTALL_MOD_STRIP=1", "modules_install"])
}

/// Runs make, and tells now and then how far it is.
fn make(source: &Path, words: &[&str]) -> Result<()> {
    let mut make = Command::new("make")
        .arg("-C")
        .arg(source)
        .args(["--no-print-directory", "CC=gcc-12"])
        .args(words)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run make")?;
    let output = make.stdout.take().context("no output")?;
    let mut compiled = 0;
    for line in BufReader::new(output).lines() {
        if !line?.starts_with("  CC ") {
            continue;
        }
        compiled += 1;
        if compiled % 100 == 0 {
            eprintln!("compiled {compiled} units of the checked kernel, of about 2,000");
        }
    }
    let status = make.wait()?;
    if !status.success() {
        bail!("make {} failed in {}", words.join(" "), source.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_distribution_are_left_out() {
        let made = options("CONFIG_NET=y\nCONFIG_TIPC=m\nCONFIG_XFS_FS=m\n");
        assert!(made.starts_with("CONFIG_NET=y\n"), "{made}");
        let last = |name: &str| made.lines().rfind(|line| line.contains(name)).unwrap();
        assert_eq!(last("CONFIG_TIPC"), "CONFIG_TIPC=m", "the last word counts");
        assert_eq!(last("CONFIG_XFS_FS"), "# CONFIG_XFS_FS is not set");
    }

    #[test]
    fn the_release_is_named_after_the_upstream_version() {
        assert_eq!(upstream("6.1.170-3").unwrap(), "6.1.170");
    }
}
