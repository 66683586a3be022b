// SPDX-License-Identifier: GPL-2.0-or-later
//! The processors that the lab has machines for, and what differs between them.

use anyhow::{Context, Result};
use splice_cli::kernel::packages::Apt;

/// One of them.
#[derive(Debug)]
pub struct Processor {
    /// splice's name of it, which is Rust's and QEMU's too.
    pub name: &'static str,
    /// Debian's, at the end of a kernel's release.
    pub debian: &'static str,
    /// ELF `e_machine`.
    pub e_machine: u16,
    /// Words for QEMU: which machine it is.
    pub machine: &'static [&'static str],
    /// The package with that QEMU.
    pub package: &'static str,
    /// The kernel's name of the first serial port, which is the console.
    pub console: &'static str,
    /// The file in the guest of the second one, the line to the host, and words for QEMU that make it of
    /// the character device `line`.
    pub line: &'static str,
    /// See `line`.
    pub line_device: [&'static str; 2],
    /// Words for kbuild, to build modules of the lab's own for it.
    pub kbuild: &'static [&'static str],
    /// Where a program's libraries are on the host, beside the usual places.
    pub libraries: &'static [&'static str],
}

static PROCESSORS: [Processor; 2] = [
    Processor {
        name: "x86_64",
        debian: "amd64",
        e_machine: 62,
        machine: &["-cpu", "max"],
        package: "qemu-system-x86",
        console: "ttyS0",
        line: "/dev/ttyS1",
        line_device: ["-serial", "chardev:line"],
        kbuild: &["CC=gcc-12"],
        libraries: &["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64"],
    },
    Processor {
        name: "aarch64",
        debian: "arm64",
        e_machine: 183,
        // Return addresses are signed by something that an emulator is quick at.
        machine: &["-M", "virt", "-cpu", "max,pauth-impdef=on"],
        package: "qemu-system-arm",
        console: "ttyAMA0",
        // The machine has a single port of its own; Debian's kernels have the driver for this one built in.
        line: "/dev/ttyS0",
        line_device: ["-device", "pci-serial,chardev=line"],
        kbuild: &["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc-12"],
        libraries: &["/usr/aarch64-linux-gnu/lib"],
    },
];

impl Processor {
    /// The one that a kernel of this release runs on: its last word says so. A kernel with another last
    /// word is one that the lab has built, for this machine.
    #[must_use]
    pub fn of(release: &str) -> &'static Self {
        let [host, ..] = &PROCESSORS;
        let last = release.rsplit('-').next();
        PROCESSORS.iter().find(|one| Some(one.debian) == last).unwrap_or(host)
    }

    /// Whether its programs run here.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// Apt for its kernels.
    pub fn apt(&self) -> Result<Apt> {
        let arch = splice_core::arch::by_name(self.name)
            .with_context(|| format!("{} is not compiled in", self.name))?;
        splice_cli::kernel::apt(arch, &mut |text| eprintln!("{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_tells_its_processor() {
        assert_eq!(Processor::of("6.1.0-47-cloud-arm64").name, "aarch64");
        assert_eq!(Processor::of("6.1.0-47-rt-amd64").name, "x86_64");
        assert_eq!(Processor::of("6.1.170-checked").name, "x86_64");
    }
}
