// SPDX-License-Identifier: GPL-2.0-or-later
//! What `create` does with good and bad patches of a real kernel; no machine is booted.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{FIX, Fixture, Suite};
use crate::session::Answer;

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("create_is_reproducible", || reproducible(fixture));
    suite.test("create_names_the_hunk_that_does_not_apply", || does_not_apply(fixture));
    suite.test("create_says_that_nothing_changed", || nothing_changed(fixture));
    suite.test("create_refuses_a_unit_that_is_not_built", || not_built(fixture));
    suite.test("create_refuses_what_is_never_left", || never_left(fixture));
    suite.test("create_passes_on_the_compilers_words", || does_not_compile(fixture));
    suite.test("create_finds_headers_that_the_build_makes", || made_headers(fixture));
    suite.test("prepare_takes_the_patches_of_real_time", || real_time(fixture));
    suite.test("create_can_be_killed", || killed(fixture));
    suite.test("create_leaves_the_tree_alone", || tree_untouched(fixture));
}

fn patch(fixture: &Fixture) -> Result<String> {
    fixture.fix.patch(&fixture.lab.cache)
}

/// Fails if an update came out although it should not have.
fn no_update(file: PathBuf, answer: Answer) -> Result<Answer> {
    ensure!(!file.exists(), "{} left an update behind", answer.what);
    Ok(answer)
}

fn reproducible(fixture: &Fixture) -> Result<()> {
    let first = fixture.update(FIX)?;
    let first = std::fs::read(first)?;
    let (file, answer) = fixture.lab.create(FIX, &patch(fixture)?)?;
    answer.success()?;
    ensure!(std::fs::read(file)? == first, "the same input made another update");
    Ok(())
}

/// The real-time kernel of the same version is built with patches that only the source package holds.
fn real_time(fixture: &Fixture) -> Result<()> {
    let release = fixture.lab.kernel.release.replace("cloud", "rt");
    let lab = &fixture.lab;
    let answer = lab.splice(&["prepare", "--release", &release])?.success()?;
    let tree = answer.tree()?;
    let config = std::fs::read_to_string(tree.join(".config"))?;
    ensure!(config.contains("CONFIG_PREEMPT_RT=y"), "{release} is not configured as real-time");
    let file = PathBuf::from("kernel/softirq.c");
    let text = std::fs::read_to_string(tree.join(&file))?;
    ensure!(
        text.contains("raise_ktimers_thread"),
        "{} lacks the patches of real-time",
        file.display()
    );
    Ok(())
}

/// A unit includes headers that the build makes on the way to it, in a tree in which it was not built yet.
fn made_headers(fixture: &Fixture) -> Result<()> {
    const DIRECTORY: &str = "fs/smb/server";
    let answer = fixture.lab.prepare()?;
    let tree = answer.tree()?;
    let units = tree.with_file_name("units").join(DIRECTORY);
    if units.is_dir() {
        std::fs::remove_dir_all(units)?;
    }
    for entry in std::fs::read_dir(tree.join(DIRECTORY))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if [".asn1.c", ".asn1.h", ".o", ".cmd"].iter().any(|end| name.ends_with(end)) {
            std::fs::remove_file(&path)?;
        }
    }
    let (old, new) = ("if (len > 0xFFFFFF)\n\t\treturn 4;", "if (len > 0xFFFFFE)\n\t\treturn 4;");
    let patch = fixture.edit(&format!("{DIRECTORY}/asn1.c"), old, new)?;
    fixture.lab.create("asn1", &patch)?.1.success().map(drop)
}

fn does_not_apply(fixture: &Fixture) -> Result<()> {
    let patch = patch(fixture)?;
    let context = patch
        .lines()
        .skip_while(|line| !line.starts_with("@@"))
        .find(|line| line.starts_with(' ') && line.len() > 8)
        .context("the patch has no context")?;
    let broken = patch.replacen(context, &format!("{context} /* not there */"), 1);
    let (file, answer) = fixture.lab.create("bad-context", &broken)?;
    let answer = no_update(file, answer)?;
    ensure!(answer.exit > 0 && answer.exit != 3, "{} ended with {}", answer.what, answer.exit);
    answer.says(&["net/core/sock.c", "hunk"]).map(drop)
}

fn nothing_changed(fixture: &Fixture) -> Result<()> {
    let patch = fixture.edit("net/ipv4/raw.c", "INET is implemented", "INET  is implemented")?;
    let (file, answer) = fixture.lab.create("comment", &patch)?;
    no_update(file, answer)?.expect(3).map(drop)
}

fn not_built(fixture: &Fixture) -> Result<()> {
    // Without an option for it, and of user-mode Linux, which no makefile of this kernel names.
    for (file, include) in [
        ("sound/core/init.c", "#include <linux/init.h>"),
        ("arch/x86/um/ldt.c", "#include <linux/mm.h>"),
    ] {
        let patch = fixture.edit(file, include, &format!("{include}\n#include <linux/bug.h>"))?;
        let (update, answer) = fixture.lab.create("not-built", &patch)?;
        no_update(update, answer)?.expect(4)?.says(&[file, "not part of this kernel"])?;
    }
    Ok(())
}

fn never_left(fixture: &Fixture) -> Result<()> {
    let old = "if (unlikely(worker->flags & WORKER_DIE))";
    let new = "if (unlikely(worker->flags & (WORKER_DIE | 1 << 30)))";
    let patch = fixture.edit("kernel/workqueue.c", old, new)?;
    let (file, answer) = fixture.lab.create("never-left", &patch)?;
    no_update(file, answer)?.expect(4)?.says(&["worker_thread", "--accept"]).map(drop)
}

fn does_not_compile(fixture: &Fixture) -> Result<()> {
    let include = "#include <net/raw.h>";
    let patch = fixture.edit(
        "net/ipv4/raw.c",
        include,
        &format!("{include}\nstatic int splice_test = splice_undeclared;"),
    )?;
    let (file, answer) = fixture.lab.create("broken", &patch)?;
    no_update(file, answer)?.expect(1)?.says(&["splice_undeclared", "post"]).map(drop)
}

fn killed(fixture: &Fixture) -> Result<()> {
    let source = fixture.lab.work.path().join("killed.patch");
    let update = fixture.lab.work.path().join("killed.splice");
    // Another patch than any before, so that nothing is cached.
    let text =
        fixture.edit("net/ipv4/raw.c", "iphlen > length", "iphlen > length || iphlen < 4")?;
    std::fs::write(&source, &text)?;
    for delay in [300, 1500, 4000] {
        let mut child = Command::new(&fixture.lab.programs.host)
            .args(["create", "--release", &fixture.lab.kernel.release, "--id", "killed"])
            .arg("--output")
            .arg(&update)
            .arg(&source)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run splice")?;
        std::thread::sleep(Duration::from_millis(delay));
        if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
            // It may have ended already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        child.wait()?;
    }
    if update.exists() {
        fixture.lab.splice(&["inspect", &update.to_string_lossy()])?.success()?;
        std::fs::remove_file(&update)?;
    }
    let (_, answer) = fixture.lab.create("killed", &text)?;
    answer.success().map(drop)
}

fn tree_untouched(fixture: &Fixture) -> Result<()> {
    let prepared = fixture.lab.prepare()?;
    let tree = prepared.tree()?;
    let original = fixture.lab.cache.source_files(&fixture.fix.base, &fixture.fix.files())?;
    for file in fixture.fix.files() {
        let place = tree.join(&file);
        let now =
            std::fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
        ensure!(now == std::fs::read(original.join(&file))?, "{file} in the tree was changed");
    }
    Ok(())
}
