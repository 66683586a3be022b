// SPDX-License-Identifier: GPL-2.0-or-later
//! The workspace's own programs and kernel modules that a virtual machine needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use splice_cli::kernel::packages;

use crate::processor::Processor;
use crate::session::Lab;
use crate::toolchain;

/// Programs of this workspace, built.
#[derive(Clone)]
pub struct Programs {
    /// The guest's `/init`.
    pub init: PathBuf,
    /// The `splice` command for the guest.
    pub splice: PathBuf,
    /// The same for this machine.
    pub host: PathBuf,
}

impl Programs {
    /// Builds them for guests with that processor, in the profile of the running program, beside it; once
    /// in a run.
    pub fn build(processor: &'static Processor) -> Result<Self> {
        static BUILT: Mutex<BTreeMap<&str, Programs>> = Mutex::new(BTreeMap::new());
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = built.get(processor.name) {
            return Ok(programs.clone());
        }
        let programs = Self::build_now(processor)?;
        built.insert(processor.name, programs.clone());
        Ok(programs)
    }

    fn build_now(processor: &Processor) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find the running program")?;
        let directory = own.parent().context("the running program is nowhere")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the workspace is nowhere")?;
        let target = directory.parent().context("the running program is nowhere")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = |processor: Option<&Processor>| -> Result<PathBuf> {
            let mut build = Command::new(&cargo);
            build.args(["build", "--quiet", "-p", "splice-lab", "-p", "splice-cli"]);
            build.args(["--bin", "splice-lab-init", "--bin", "splice"]).current_dir(root);
            if directory.ends_with("release") {
                build.arg("--release");
            }
            let mut place = directory.to_owned();
            match processor {
                Some(processor) => {
                    eprintln!("building the programs for {}", processor.name);
                    // The compiler may be another one, which would build all of ours again.
                    let target = target.join(processor.name);
                    let profile = directory.file_name().context("no profile")?;
                    place = target.join(toolchain::triple(processor)).join(profile);
                    build.arg("--target-dir").arg(target);
                    toolchain::equip(&mut build, processor)?;
                }
                None => {
                    build.arg("--target-dir").arg(target);
                }
            }
            let status = build.status().context("cannot run cargo")?;
            ensure!(status.success(), "cannot build the programs for the virtual machine");
            Ok(place)
        };
        let host = build(None)?;
        let guest = if processor.is_host() { host.clone() } else { build(Some(processor))? };
        Ok(Self {
            init: guest.join("splice-lab-init"),
            splice: guest.join("splice"),
            host: host.join("splice"),
        })
    }
}

impl Lab {
    /// Prepares the kernel, and builds the modules of one of the lab's directories for it, beside copies of
    /// these headers; returns where they are.
    pub fn build_modules(&self, name: &str, headers: &[PathBuf]) -> Result<PathBuf> {
        let prepared = self.prepare()?;
        let tree = prepared.tree()?;
        let place = self.work.path().join(name);
        std::fs::create_dir_all(&place)?;
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let mut files = headers.to_vec();
        for entry in std::fs::read_dir(own)? {
            files.push(entry?.path());
        }
        for file in files {
            let name = file.file_name().context("a file without a name")?;
            std::fs::copy(&file, place.join(name))?;
        }
        let packaged = format!("headers/usr/src/linux-headers-{}", self.kernel.release);
        // A kernel from a source tree has its headers there.
        let headers =
            if self.origin.is_empty() { tree.with_file_name(packaged) } else { tree.to_path_buf() };
        packages::run(
            Command::new("make")
                .arg("-C")
                .arg(headers)
                .arg(format!("M={}", place.display()))
                .args(Processor::of(&self.kernel.release).kbuild)
                .arg("modules"),
        )
        .context("the lab's modules cannot be built")?;
        Ok(place)
    }
}
