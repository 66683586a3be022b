// SPDX-License-Identifier: GPL-2.0-or-later
//! The compiler that a kernel was built with, on this machine.

use std::process::Command;

use anyhow::{Context, Result, bail};
use splice_core::arch::Arch;

use super::foreign;

/// First line of what a compiler says of itself.
fn says(cc: &str) -> Option<String> {
    let output = Command::new(cc).arg("--version").env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().filter(|_| output.status.success()).map(str::to_owned)
}

/// Whether a compiler, optimising as the kernel does, finds objects by their distance from others of their
/// section (`-fsection-anchors`).
pub(super) fn has_anchors(cc: &str) -> bool {
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
pub(super) fn compat() -> Result<&'static str> {
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
pub(super) fn matching(
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
}
