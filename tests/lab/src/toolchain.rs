// SPDX-License-Identifier: GPL-2.0-or-later
//! A Rust compiler for programs of another processor. A toolchain need not have that processor's standard
//! library; if it has not, Debian's newest compiler and its library of the other architecture are unpacked
//! into the cache. They run with the C library that they were made for, beside the machine's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use splice_cli::kernel::cache;
use splice_cli::kernel::packages::{Apt, unpack};

use crate::processor::Processor;

/// Packages that a compiler depends on, but that only linking needs, for which the machine's own are there.
const LINKING: [&str; 3] = ["gcc", "libc-dev", "binutils"];
/// The suite with the newest compiler.
const SUITE: &str = "sid";

/// Rust's name of a processor's programs.
#[must_use]
pub fn triple(processor: &Processor) -> String {
    format!("{}-unknown-linux-gnu", processor.name)
}

/// Lets cargo build for another processor.
pub fn equip(cargo: &mut Command, processor: &Processor) -> Result<()> {
    let triple = triple(processor);
    let linker = format!("{}-linux-gnu-gcc", processor.name);
    let variable = triple.to_uppercase().replace('-', "_");
    cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
    cargo.args(["--target", &triple]);
    if !has_library(&triple) {
        cargo.env("RUSTC", debian(processor)?);
    }
    Ok(())
}

/// Whether the toolchain in use has the standard library for it.
fn has_library(triple: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).args(["--print", "target-libdir", "--target", triple]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Debian's newest compiler with the libraries for this machine and for that processor.
fn debian(processor: &Processor) -> Result<PathBuf> {
    let mut note = |text: &str| eprintln!("{text}");
    let place = cache::directory("lab")?.join(format!("rust-{}", processor.name));
    let command = place.join("rustc");
    let _lock = cache::lock(&place.with_extension("lock"), &mut note)?;
    if command.is_file() {
        return Ok(command);
    }
    if place.exists() {
        std::fs::remove_dir_all(&place)?;
    }
    let root = place.join("root");
    std::fs::create_dir_all(&root)?;
    let host = Processor::of("").debian;
    let sources = format!("deb {} {SUITE} main\n", mirror()?);
    let apt = |architecture: &str, note: &mut dyn FnMut(&str)| {
        Apt::private(&format!("{SUITE}-{architecture}"), architecture, Some(&sources), note)
    };
    let own = apt(host, &mut note)?;
    let version =
        own.offered("rustc")?.into_iter().next().with_context(|| format!("no rustc in {SUITE}"))?;
    own.unpack_all("rustc", &version, &LINKING, &root, &mut note)?;
    let other = apt(processor.debian, &mut note)?;
    let store = cache::directory("packages")?;
    unpack(&other.fetch(&store, "libstd-rust-dev", &version, &mut note)?, &root)?;
    let usr = root.join("usr");
    let usr = usr.display();
    let text = format!(
        "#!/bin/sh\nexec {usr}/lib64/ld-linux-x86-64.so.2 --library-path {usr}/lib/x86_64-linux-gnu \
         {usr}/bin/rustc \"$@\"\n"
    );
    std::fs::write(&command, text)?;
    std::fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let said = Command::new(&command).arg("-V").output().context("cannot run Debian's rustc")?;
    if !said.status.success() {
        std::fs::remove_file(&command)?;
        bail!("Debian's rustc does not run: {}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(command)
}

/// Where apt has this distribution's packages from.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)", "Created-By: Packages"])
        .output()
        .context("cannot run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let site = text.lines().find_map(|line| line.strip_prefix("Debian Debian "));
    ensure!(site.is_some(), "apt has no lists of Debian's; run apt-get update as root");
    Ok(site.unwrap_or_default().to_owned())
}
