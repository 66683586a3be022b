// SPDX-License-Identifier: GPL-2.0-or-later
//! Plugins for the tests, built by the tests: cargo does not build a library for a test to load.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set itself up stops there and then"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use splice_core::arch::Arch;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

/// The directory of this build's profile, with its target directory: `(target, "debug")`.
pub(crate) fn target() -> (PathBuf, String) {
    // target/debug/deps/test
    let exe = std::env::current_exe().expect("this test has a file");
    let profile = exe.ancestors().nth(2).expect("a profile");
    let target = profile.parent().expect("a target directory");
    (target.to_owned(), profile.file_name().expect("a name").to_string_lossy().into_owned())
}

/// Builds a plugin of the workspace, in this build's profile; returns its file.
pub(crate) fn build(package: &str) -> PathBuf {
    build_file(package, &format!("lib{}.so", package.replace('-', "_")))
}

/// Builds a package of the workspace, in this build's profile; returns the file of that name. The command is
/// built with it: by itself, a package asks less of what both depend on, and all of that would be built again.
pub(crate) fn build_file(package: &str, name: &str) -> PathBuf {
    let (target, profile) = target();
    let cargo_profile = if profile == "debug" { "dev" } else { &profile };
    run(Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--locked", "--package", package, "--package", "splice-cli"])
        .args(["--profile", cargo_profile])
        .arg("--target-dir")
        .arg(&target));
    let file = target.join(&profile).join(name);
    assert!(file.is_file(), "cargo did not make {}", file.display());
    file
}

/// Runs a command that must succeed; a tool that is not installed is named.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = match command.output() {
        Ok(output) => output,
        Err(e) => panic!("{}: {e}; `make deps` installs it", command.get_program().display()),
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The x86-64 plugin, loaded when it is first asked.
pub(crate) fn x86_64() -> &'static dyn Arch {
    static PLUGIN: OnceLock<&'static dyn Arch> = OnceLock::new();
    *PLUGIN
        .get_or_init(|| splice_plugin_host::load(&build("splice-plugin-x86_64")).expect("it loads"))
}
