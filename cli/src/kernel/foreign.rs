// SPDX-License-Identifier: GPL-2.0-or-later
//! The distribution's own compiler of another architecture. A distribution's cross compiler need not be
//! made of the same source as the compiler that its kernels are built with, and then its code differs.
//! The compiler proper (cc1), which is all that matters for that, is taken from the other architecture's
//! packages and run by QEMU's emulation of a user's processes; the cross compiler's driver and the
//! binutils do the rest.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use splice_core::arch::Arch;

use super::{cache, debian};

/// A command that is this compiler: `wanted` is what the kernel's configuration says of it, `driver` a
/// cross compiler of the same name. It is made once, in the cache.
pub(super) fn compiler(
    arch: &dyn Arch,
    wanted: &str,
    driver: &str,
    note: &mut dyn FnMut(&str),
) -> Result<String> {
    let (name, version) = package(wanted)
        .with_context(|| format!("\"{wanted}\" does not name a version of a Debian package"))?;
    let architecture = debian::architecture(arch)?;
    let compilers = cache::directory("compilers")?;
    let place = compilers.join(format!("{name}-{version}-{architecture}"));
    let command = place.join(name);
    let _lock = cache::lock(&compilers.join(".lock"), note)?;
    if command.is_file() {
        return Ok(command.display().to_string());
    }
    if place.exists() {
        std::fs::remove_dir_all(&place)
            .with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let root = place.join("root");
    cache::create(&root)?;
    // cc1 of gcc-N is in cpp-N.
    let package = name.replacen("gcc", "cpp", 1);
    debian::apt(arch, note)?.unpack_all(&package, version, &[], &root, note)?;
    let own = cc1(&root, name)?;
    let emulator = format!("qemu-{}-static", arch.name());
    let run = [emulator.as_str(), "-L", &root.to_string_lossy(), &own.to_string_lossy()].join(" ");
    let said = Command::new("sh")
        .args(["-c", &format!("{run} -quiet -version -o /dev/null /dev/null")])
        .output()
        .context("cannot run a shell")?;
    ensure!(
        said.status.success(),
        "cc1 does not run under {emulator} (Debian package qemu-user-static): {}",
        String::from_utf8_lossy(&said.stderr).trim()
    );
    let said = String::from_utf8_lossy(&said.stderr);
    let meant = wanted.split_once(' ').map_or(wanted, |(_, rest)| rest);
    let (vendor, number) = meant.rsplit_once(' ').unwrap_or((meant, meant));
    ensure!(
        said.contains(&format!("{vendor} version {number}")),
        "cc1 of {package} {version} calls itself {}",
        said.lines().next().unwrap_or_default()
    );
    script(&place.join("bin/cc1"), &format!("exec {run} \"$@\""))?;
    // The driver's own version is another one.
    let text = format!(
        "case \"$*\" in --version) echo '{wanted}' ;; *) exec {driver} -B{}/bin/ \"$@\" ;; esac",
        place.display()
    );
    script(&command, &text)?;
    Ok(command.display().to_string())
}

/// `gcc-12` and `12.2.0-14+deb12u1` of `gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0`, or of the same with a
/// triplet before the name, by which kernels of some lines call their own architecture's compiler.
fn package(wanted: &str) -> Option<(&str, &str)> {
    let (name, rest) = wanted.split_once(" (Debian ")?;
    let (version, _) = rest.split_once(')')?;
    // They become names of files, and words of a shell.
    let plain = |text: &str| !text.contains(['/', '\'', '\n']);
    let name = name.get(name.rfind("gcc-")?..)?;
    plain(wanted).then_some((name, version))
}

/// The compiler proper of `gcc-N` below a root: `usr/lib/gcc/TRIPLET/N/cc1`.
fn cc1(root: &Path, name: &str) -> Result<PathBuf> {
    let number = name.trim_start_matches("gcc-");
    let place = root.join("usr/lib/gcc");
    std::fs::read_dir(&place)
        .with_context(|| format!("cannot read {}", place.display()))?
        .flatten()
        .map(|entry| entry.path().join(number).join("cc1"))
        .find(|path| path.is_file())
        .with_context(|| format!("{} holds no cc1", place.display()))
}

fn script(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        cache::create(parent)?;
    }
    cache::write_whole(path, format!("#!/bin/sh\n{text}\n").as_bytes())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .context("cannot write to the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_text_names_its_package() {
        let debian = package("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0");
        assert_eq!(debian, Some(("gcc-12", "12.2.0-14+deb12u1")));
        assert_eq!(package("aarch64-linux-gnu-gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"), debian);
        assert_eq!(package("gcc (GCC) 13.1.0"), None);
        assert_eq!(package("gcc-12 (Debian ../x) 12.2.0"), None);
        assert_eq!(package("gcc-12 (Debian 1) '; reboot"), None);
    }
}
