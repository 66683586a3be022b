// SPDX-License-Identifier: GPL-2.0-or-later
//! Tests which need a machine of their own: another kernel, another command line, another text.

use anyhow::{Context, Result, ensure};
use splice_cli::kernel::packages;

use super::{FIX, Fixture, MODULE_FIX, SLEEPER, Suite};
use crate::checked;
use crate::packages::kernels;
use crate::session::{Contents, Guest, update};
use crate::snapshot;

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("another_release_is_refused", || another_release(fixture));
    suite.test("signatures_enforced", || signatures(fixture));
    suite.test("functions_that_are_never_left", || never_left(fixture));
    suite.test("a_flipped_bit_in_a_snapshot_is_refused", || flipped(fixture));
}

fn contents(fixture: &Fixture) -> Contents<'_> {
    let updates = fixture.updates.iter().map(|(id, path)| (*id, path.as_path())).collect();
    Contents { updates, ..Contents::default() }
}

fn another_release(fixture: &Fixture) -> Result<()> {
    let all = kernels()?;
    let other = all
        .iter()
        .rev()
        .find(|kernel| kernel.release != fixture.lab.kernel.release)
        .context("apt offers only one kernel, so there is no other to test with")?;
    let image = fixture.lab.cache.image(&other.release, &other.version)?;
    let mut guest = Guest::boot(&fixture.lab, &image, &contents(fixture))?;
    let releases = [other.release.as_str(), fixture.lab.kernel.release.as_str()];
    guest.check(FIX)?.expect(5)?.says(&releases)?;
    guest.apply(FIX)?.expect(5)?.says(&releases)?;
    guest.expect_clean()?;
    guest.machine.power_off()
}

/// What the guest has a key and its certificate in.
const KEY: [&str; 2] = ["etc/key.pem", "etc/certificate.pem"];
const SIGNED: [&str; 4] = ["--sign-key", "/etc/key.pem", "--sign-cert", "/etc/certificate.pem"];

/// What the kernel notes if it loads a module whose signature it does not trust, or that has none
/// (`TAINT_UNSIGNED_MODULE`, include/linux/panic.h).
const UNSIGNED: u32 = 1 << 13;

/// Each kernel that asks for signatures refuses an update beforehand; with a key, it is the kernel that
/// decides: a stock one trusts nobody's here, and the checked one trusts that of its own build.
fn signatures(fixture: &Fixture) -> Result<()> {
    let key = match checked::key(&fixture.lab)? {
        Some(key) => key,
        None => new_key(fixture)?,
    };
    let files = KEY.into_iter().zip(key).collect::<Vec<_>>();
    let openssl = [("bin/openssl", "/usr/bin/openssl")];
    for (append, unsigned) in [
        ("module.sig_enforce=1", Some("sign")),
        ("lockdown=integrity", Some("sign")),
        ("lockdown=confidentiality", Some("cannot be read")),
        ("", None),
    ] {
        let contents =
            Contents { append, files: files.clone(), programs: &openssl, ..contents(fixture) };
        let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
        match unsigned {
            Some(why) => drop(guest.apply(FIX)?.expect(7)?.says(&[why])?),
            None => {
                guest.apply(FIX)?.success()?;
                guest.undo(FIX)?.success()?;
            }
        }
        let file = update(FIX);
        let answer = guest.splice(&[&["apply", file.as_str()], SIGNED.as_slice()].concat())?;
        match append {
            "lockdown=confidentiality" => drop(answer.expect(7)?.says(&["cannot be read"])?),
            "" => drop(answer.success()?),
            _ if checked::is_wanted() => drop(answer.success()?),
            _ => drop(answer.expect(7)?.says(&["does not trust the key"])?),
        }
        if !guest.loaded()?.is_empty() {
            let taints: u32 = guest.machine.read("/proc/sys/kernel/tainted")?.trim().parse()?;
            ensure!(append.is_empty() || taints & UNSIGNED == 0, "the taints are {taints}");
            guest.undo(FIX)?.success()?;
        }
        guest.expect_clean().with_context(|| format!("with {append:?}"))?;
        guest.machine.power_off()?;
    }
    Ok(())
}

/// A key that no kernel knows, and its certificate.
fn new_key(fixture: &Fixture) -> Result<[Vec<u8>; 2]> {
    let place = fixture.lab.work.path();
    let words =
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=lab -keyout key.pem -out certificate.pem";
    packages::run(std::process::Command::new("openssl").args(words.split(' ')).current_dir(place))?;
    Ok([std::fs::read(place.join("key.pem"))?, std::fs::read(place.join("certificate.pem"))?])
}

/// Functions that some thread is always in, as the list in the engine has them: id, name, file, what
/// is changed in them.
const NEVER_LEFT: &[(&str, &str, &str, (&str, &str))] = &[
    (
        "worker",
        "worker_thread",
        "kernel/workqueue.c",
        (
            "\tset_pf_worker(true);\nwoke_up:",
            "\tset_pf_worker(true);\n\tif (pool->id == 12345)\n\t\treturn 1;\nwoke_up:",
        ),
    ),
    (
        "idle",
        "do_idle",
        "kernel/sched/idle.c",
        (
            "\tbool got_tick = false;\n",
            "\tbool got_tick = false;\n\n\tif (cpu == 12345)\n\t\treturn;\n",
        ),
    ),
    (
        "smpboot",
        "smpboot_thread_fn",
        "kernel/smpboot.c",
        ("\twhile (1) {\n", "\tif (td->cpu == 12345)\n\t\treturn 1;\n\twhile (1) {\n"),
    ),
    (
        "write",
        "vfs_write",
        "fs/read_write.c",
        (
            "if (!(file->f_mode & FMODE_WRITE))\n\t\treturn -EBADF;",
            "if (!(file->f_mode & FMODE_WRITE) || count == 123456789)\n\t\treturn -EBADF;",
        ),
    ),
];

/// They are refused; who insists gets an update that backs off, names the function, and leaves
/// nothing behind.
fn never_left(fixture: &Fixture) -> Result<()> {
    let mut files = Vec::new();
    for (id, function, file, (old, new)) in NEVER_LEFT {
        let patch = fixture.edit(file, old, new)?;
        let (_, answer) = fixture.lab.create(id, &patch)?;
        let accept = format!("--accept {function}");
        answer.expect(4)?.says(&[function, &accept])?;
        let (path, answer) = fixture.lab.create_with(id, &patch, &["--accept", function])?;
        answer.success().with_context(|| format!("cannot create {id}"))?;
        files.push((*id, path));
    }
    let updates = files.iter().map(|(id, path)| (*id, path.as_path())).collect();
    let contents = Contents { updates, ..Contents::default() };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    guest.machine.start_load()?;
    for (id, function, ..) in NEVER_LEFT {
        let words = ["apply", "--retries", "4", "--timeout", "8", &update(id)];
        guest.splice(&words)?.expect(6)?.says(&[function])?;
        guest.expect_clean().with_context(|| format!("after {id}"))?;
    }
    guest.machine.stop_load()?;
    guest.machine.power_off()
}

/// The function in whose text bits are flipped, and how many bytes apart.
const FLIPPED: &str = "sk_setsockopt";
const STEP: u64 = 61;

/// A booted kernel's memory is checked outside of it; then with single bits flipped.
fn flipped(fixture: &Fixture) -> Result<()> {
    let place = fixture.lab.work.path().join("snapshot");
    let contents = Contents { modules: vec!["tipc".to_owned()], ..Contents::default() };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    let start = guest.machine.address(FLIPPED)?;
    let text = guest.machine.address("_stext")? & !0xfff;
    snapshot::take(&mut guest.machine, &place)?;
    guest.machine.power_off()?;
    let core = place.join("core");
    let check = |id: &str| {
        let file = fixture.update(id)?;
        let [file, core, symbols] =
            [file, &core, &place.join("kallsyms")].map(|path| path.to_string_lossy().into_owned());
        fixture.lab.splice(&["check", &file, "--snapshot", &core, "--symbols", &symbols])
    };
    for id in [FIX, MODULE_FIX, SLEEPER] {
        check(id)?.success().with_context(|| format!("{id} on an untouched snapshot"))?;
    }

    let whole = std::fs::read(&core)?;
    // The text's segment is the first, and its bytes stand right behind the headers.
    let headers = snapshot::segments_begin(&whole).context("the snapshot has no segments")?;
    let mut flips = 0;
    for offset in (6..0x600).step_by(STEP as usize) {
        let at = usize::try_from(headers + (start - text) + offset)?;
        let mut bytes = whole.clone();
        *bytes.get_mut(at).context("the function lies outside the snapshot")? ^= 1 << (offset % 8);
        std::fs::write(&core, &bytes)?;
        let answer = check(FIX)?;
        let answer = answer.expect(5).with_context(|| format!("a bit at {offset:#x}"))?;
        // It is said where, or which symbol would be at two places then.
        answer.says(&[FLIPPED])?;
        flips += 1;
    }
    ensure!(flips > 20, "only {flips} bits were flipped");
    Ok(())
}
