// SPDX-License-Identifier: GPL-2.0-or-later
//! Targets that are not loaded: what is there is patched and the rest is told; the fixed module from
//! `create --modules`; modules that come and go while an update is applied.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection};
use serde_json::Value;

use super::targets::{create, edits, option_of};
use super::{Fixture, Suite};
use crate::initramfs::ModuleDirectory;
use crate::protocol::{Command, Request};
use crate::session::{Answer, Contents, Guest, search, update};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("modules_on_disk_and_in_memory", || whole(fixture));
}

const SOCKET: &str = "net/tipc/socket.c";
const OPTION: &str = "if (lvl != SOL_TIPC)\n\t\treturn -ENOPROTOOPT;\n\n\tswitch (opt) {\n\tcase \
                      TIPC_IMPORTANCE:\n\tcase TIPC_SRC";
/// What an option that no module knows gives before (EINVAL) and after (ERANGE).
const OLD: i64 = -22;
const NEW: i64 = -34;
const DEVICES: &str = "fs/proc/devices.c";

/// The update of the kernel image and the module, and that of the module alone.
const BOTH: &str = "both";
const ALONE: &str = "alone";

fn whole(fixture: &Fixture) -> Result<()> {
    let module = edits(
        fixture,
        SOCKET,
        &[(
            OPTION,
            &OPTION
                .replace("\n\n\tswitch", "\n\tif (opt == 4711)\n\t\treturn -ERANGE;\n\n\tswitch"),
        )],
    )?;
    let image = edits(fixture, DEVICES, &[("Character devices", "Fixed devices")])?;
    let fixed = fixture.lab.work.path().join("fixed");
    let words = ["--modules", &fixed.to_string_lossy()];
    let patch = [image, module.clone()].concat();
    let (both, answer) = fixture.lab.create_with(BOTH, &patch, &words)?;
    answer.success()?.says(&["fixed/tipc.ko"])?;
    let (alone, _) = create(fixture, ALONE, &module)?;
    let file = fixed.join("tipc.ko");
    let body = std::fs::read(&file).context("the fixed module is not there")?;
    let stock = stock(fixture)?;
    like_the_distribution(&body, &std::fs::read(&stock)?)?;
    // What is there is not written over, and nothing else is written.
    std::fs::write(&file, "mine")?;
    let (again, answer) = fixture.lab.create_with("again", &patch, &words)?;
    answer.expect(1)?.says(&["tipc.ko is there already"])?;
    ensure!(!again.exists() && std::fs::read(&file)? == b"mine", "something was written");

    let contents = Contents {
        updates: vec![(BOTH, both.as_path()), (ALONE, alone.as_path())],
        files: vec![("stock/tipc.ko", std::fs::read(&stock)?), ("fixed/tipc.ko", body)],
        modules: vec!["udp_tunnel".to_owned(), "ip6_udp_tunnel".to_owned()],
        ..Contents::default()
    };
    let mut guest = Guest::boot(&fixture.lab, &fixture.lab.image, &contents)?;
    let on = &mut guest;
    absent(on).context("the module is not loaded")?;
    live(on).context("the module is loaded")?;
    fixed_on_disk(on).context("the fixed module is loaded")?;
    comes(on).context("the module comes while the update is applied")?;
    comes_again(on).context("the module is loaded anew while the update is applied")?;
    behind_its_back(on).context("the module is loaded anew right before the update's module")?;
    goes(on).context("the module goes while the update is applied")?;
    guest.machine.power_off()
}

/// The distribution's module.
fn stock(fixture: &Fixture) -> Result<PathBuf> {
    let directory = ModuleDirectory::read(&fixture.lab.image.modules)?;
    directory.with_dependencies("tipc")?.pop().context("no module")
}

/// The fixed module is what the distribution's build would have made.
fn like_the_distribution(fixed: &[u8], stock: &[u8]) -> Result<()> {
    let (fixed, stock) = (object::File::parse(fixed)?, object::File::parse(stock)?);
    let names = |file: &object::File<'_>, but: &[&str]| -> Vec<String> {
        let all = file.sections().filter_map(|section| section.name().ok().map(str::to_owned));
        all.filter(|name| !name.is_empty() && !but.contains(&name.as_str())).collect()
    };
    let (made, meant) = (names(&fixed, &[]), names(&stock, &[".BTF"]));
    ensure!(made == meant, "it has the sections {made:?}, not {meant:?}");
    let data = |file: &object::File<'_>, name: &str| -> Result<Vec<u8>> {
        let section = file.section_by_name(name).with_context(|| format!("no {name}"))?;
        Ok(section.data()?.to_vec())
    };
    for name in [
        "__versions",
        "__ksymtab",
        "__ksymtab_strings",
        ".init.text",
        ".exit.text",
        ".text.unlikely",
        ".rodata",
        ".data",
        ".gnu.linkonce.this_module",
    ] {
        ensure!(data(&fixed, name)? == data(&stock, name)?, "{name} is not the distribution's");
    }
    let information = |file: &object::File<'_>| -> Result<Vec<String>> {
        let text = String::from_utf8_lossy(&data(file, ".modinfo")?).into_owned();
        // A sum of the source.
        let fields = text.split('\0').filter(|field| !field.starts_with("srcversion="));
        Ok(fields.map(str::to_owned).collect())
    };
    let (made, meant) = (information(&fixed)?, information(&stock)?);
    ensure!(made == meant, "it says {made:?}, not {meant:?}");
    ensure!(data(&fixed, ".text")? != data(&stock, ".text")?, "nothing is fixed");
    Ok(())
}

fn insert(guest: &mut Guest, path: &str) -> Result<()> {
    guest.machine.ask(&Request::InsertModules { paths: vec![path.to_owned()] }).map(drop)
}

const STOCK: &str = "/stock/tipc.ko";

fn try_remove(guest: &mut Guest) -> Result<()> {
    guest.machine.ask(&Request::RemoveModule { name: "tipc".to_owned() }).map(drop)
}

/// Unloads the module; a socket that was just closed may hold it for a moment.
fn remove(guest: &mut Guest) -> Result<()> {
    let began = Instant::now();
    loop {
        match try_remove(guest) {
            Err(_) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => return other,
        }
    }
}

/// What the option gives, and whether the kernel image is fixed.
fn expect(guest: &mut Guest, option: Option<i64>, image: bool) -> Result<()> {
    if let Some(option) = option {
        let found = option_of(guest)?;
        ensure!(found == option, "the option gives {found}, not {option}");
    }
    let devices = guest.machine.read("/proc/devices")?;
    ensure!(devices.starts_with("Fixed") == image, "the kernel image says {devices}");
    Ok(())
}

/// What is said of the module: nothing, if it is not left out.
fn left_out(answer: &Answer) -> Option<&Value> {
    search(&answer.json, "left_out")?.as_array()?.first()
}

fn is_loaded(guest: &mut Guest) -> Result<Option<bool>> {
    let status = guest.splice(&["status", BOTH])?.success()?;
    Ok(left_out(&status).and_then(|missed| missed["is_loaded"].as_bool()))
}

fn text(guest: &mut Guest, words: &[&str]) -> Result<String> {
    let words = ["/bin/splice"].iter().chain(words);
    Ok(guest.machine.run(&Command::new(words.copied()))?.stdout)
}

fn absent(guest: &mut Guest) -> Result<()> {
    for answer in [guest.check(ALONE)?, guest.apply(ALONE)?] {
        answer.expect(5)?.says(&["tipc is not loaded", "--modules"])?;
    }
    guest.expect_clean()?;
    let checked = guest.check(BOTH)?.success()?.says(&["what is on disk is the old"])?;
    ensure!(left_out(&checked).is_some_and(|one| one["target"] == "tipc"), "{}", checked.json);
    let checked = text(guest, &["check", &update(BOTH)])?;
    ensure!(checked.contains("left out   tipc: it is not loaded"), "check says {checked}");
    let applied = guest.apply(BOTH)?.success()?;
    ensure!(left_out(&applied).is_some(), "{}", applied.explanation());
    ensure!(search(&applied.json, "targets") == Some(&serde_json::json!(["vmlinux"])));
    expect(guest, None, true)?;
    ensure!(is_loaded(guest)? == Some(false), "the module is not said to be absent");
    // It comes, and is the old one.
    insert(guest, STOCK)?;
    expect(guest, Some(OLD), true)?;
    ensure!(is_loaded(guest)? == Some(true), "the module is not said to be loaded");
    let status = text(guest, &["status", BOTH])?;
    ensure!(status.contains("tipc is loaded now, without this update"), "status says {status}");
    let list = text(guest, &["list"])?;
    ensure!(list.contains("applied, without tipc (loaded now)"), "list says {list}");
    guest.apply(BOTH)?.expect(1)?.says(&["already", "without tipc", "undo"])?;
    guest.undo(BOTH)?.success()?;
    expect(guest, Some(OLD), false)?;
    guest.expect_clean()
}

fn live(guest: &mut Guest) -> Result<()> {
    for id in [BOTH, ALONE] {
        let applied = guest.apply(id)?.success()?;
        ensure!(left_out(&applied).is_none(), "{}", applied.explanation());
        expect(guest, Some(NEW), id == BOTH)?;
        ensure!(try_remove(guest).is_err(), "a patched module could be unloaded");
        guest.undo(id)?.success()?;
        expect(guest, Some(OLD), false)?;
        guest.expect_clean()?;
    }
    remove(guest)
}

fn fixed_on_disk(guest: &mut Guest) -> Result<()> {
    guest.apply(BOTH)?.success()?;
    insert(guest, "/fixed/tipc.ko")?;
    expect(guest, Some(NEW), true)?;
    remove(guest)?;
    guest.undo(BOTH)?.success()?;
    insert(guest, "/fixed/tipc.ko")?;
    expect(guest, Some(NEW), false)?;
    remove(guest)?;
    guest.expect_clean()
}

/// What `apply` says before it loads anything; it cannot go on while nobody reads the next line.
const BEFORE: &str = "reading the running kernel\n\
                      comparing the running text with the code the update was built from\n";

/// Lets an update be applied, but for a while between its look at the kernel and its modules' load.
fn interrupted(
    guest: &mut Guest,
    id: &str,
    meanwhile: impl FnOnce(&mut Guest) -> Result<()>,
) -> Result<String> {
    let room = (BEFORE.len() + 1).to_string();
    let words = ["/init", "stall", &room, "/bin/splice", "apply", &update(id)];
    guest.machine.start("apply", &Command::new(words))?;
    let began = Instant::now();
    // The stalled process is the child of the one that stalls it, which wrote down its number.
    let stalled = |guest: &mut Guest| -> Result<bool> {
        let pid = guest.machine.read("/tmp/stalled")?;
        let place = guest.machine.read(&format!("/proc/{}/wchan", pid.trim()))?;
        Ok(place.contains("pipe_write"))
    };
    while !stalled(guest).unwrap_or(false) {
        if began.elapsed() > Duration::from_secs(60) {
            bail!("apply does not wait");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(guest.loaded()?.is_empty(), "apply has loaded something already");
    meanwhile(guest)?;
    let ended = guest.machine.stop("apply")?;
    ensure!(ended.exit == Some(5), "apply ended with {:?}: {}", ended.exit, ended.stderr);
    guest.expect_clean()?;
    Ok(ended.stderr)
}

const MOVED: &str = "module tipc was loaded or unloaded meanwhile";

fn comes(guest: &mut Guest) -> Result<()> {
    let said = interrupted(guest, BOTH, |guest| insert(guest, STOCK))?;
    ensure!(said.contains(MOVED), "apply says {said}");
    expect(guest, Some(OLD), false)
}

fn comes_again(guest: &mut Guest) -> Result<()> {
    for id in [BOTH, ALONE] {
        let said = interrupted(guest, id, |guest| {
            remove(guest)?;
            insert(guest, STOCK)
        })?;
        ensure!(said.contains(MOVED), "apply says {said}");
        expect(guest, Some(OLD), false)?;
    }
    // Nothing stands in the way afterwards.
    guest.apply(BOTH)?.success()?;
    expect(guest, Some(NEW), true)?;
    guest.undo(BOTH)?.success().map(drop)
}

/// The update's module, as the command hands it to the kernel.
const TAKEN: &str = "/tmp/update.ko";

/// Between the command's last look and the load no command can see anything: the kernel side takes that load of
/// the target that was matched, and no other, and holds it before anything has run.
fn behind_its_back(guest: &mut Guest) -> Result<()> {
    let words = ["/init", "capture", TAKEN, "/bin/splice", "apply", &update(ALONE)];
    let outcome = guest.machine.run_words(&words)?;
    ensure!(outcome.exit == Some(0), "nothing is loaded: {}", outcome.stderr);
    let core = guest.loaded()?;
    insert(guest, TAKEN)?;
    ensure!(try_remove(guest).is_err(), "the target of a loaded update could be unloaded");
    for name in guest.loaded()?.into_iter().filter(|name| !core.contains(name)) {
        guest.machine.ask(&Request::RemoveModule { name })?;
    }
    let refused = |guest: &mut Guest| match insert(guest, TAKEN) {
        Ok(()) => bail!("the update's module was loaded"),
        Err(error) if error.to_string().contains("No such device") => Ok(()),
        Err(error) => Err(error),
    };
    remove(guest).context("the target is still held")?;
    refused(guest).context("without its target")?;
    insert(guest, STOCK)?;
    refused(guest).context("with another load of its target")?;
    for name in core {
        guest.machine.ask(&Request::RemoveModule { name })?;
    }
    guest.expect_clean()
}

fn goes(guest: &mut Guest) -> Result<()> {
    let said = interrupted(guest, ALONE, remove)?;
    ensure!(said.contains(MOVED), "apply says {said}");
    expect(guest, None, false)
}
