// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel offers as files, and what it tells of files.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::inotify;
use rustix::mount::{MountFlags, mount};

use super::{at, expect, unhindered};
use crate::guest::unrest::sleeper;

fn write(path: &str, text: &str) -> io::Result<()> {
    at(path, std::fs::write(path, text))
}

/// An instance of tracing sees a new process, by a filter.
pub(super) fn events(_: u64) -> io::Result<()> {
    const INSTANCE: &str = "/sys/kernel/tracing/instances/exercise";
    std::fs::create_dir(INSTANCE)?;
    let seen = (|| {
        let event = format!("{INSTANCE}/events/sched/sched_process_fork");
        write(&format!("{event}/filter"), "parent_pid != 0 && child_comm ~ \"*\"")?;
        write(&format!("{event}/enable"), "1")?;
        Command::new("/init").args(["exit", "0"]).status()?;
        write(&format!("{event}/enable"), "0")?;
        write(&format!("{event}/filter"), "0")?;
        std::fs::read_to_string(format!("{INSTANCE}/trace"))
    })();
    unhindered(|| std::fs::remove_dir(INSTANCE))?;
    expect(seen?.contains("sched_process_fork"), "a new process is seen")
}

/// A process in a group of one processor runs on no other.
pub(super) fn cpuset(_: u64) -> io::Result<()> {
    const ROOT: &str = "/run/cgroup";
    const GROUP: &str = "/run/cgroup/exercise";
    if !Path::new(ROOT).is_dir() {
        std::fs::create_dir(ROOT)?;
        mount("cgroup2", ROOT, "cgroup2", MountFlags::empty(), None)?;
        write(&format!("{ROOT}/cgroup.subtree_control"), "+cpuset")?;
    }
    std::fs::create_dir(GROUP)?;
    let mut child = sleeper()?;
    let allowed = (|| {
        write(&format!("{GROUP}/cpuset.cpus"), "0")?;
        write(&format!("{GROUP}/cgroup.procs"), &child.id().to_string())?;
        std::fs::read_to_string(format!("/proc/{}/status", child.id()))
    })();
    drop(child.stdin.take());
    child.wait()?;
    at("remove the group", std::fs::remove_dir(GROUP))?;
    let allowed = allowed?;
    let line = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    expect(line.map(str::trim) == Some("0"), "the processors that are allowed")
}

/// A watched directory tells of a file that comes and goes.
pub(super) fn watches(_: u64) -> io::Result<()> {
    const DIRECTORY: &str = "/tmp/exercise-watched";
    std::fs::create_dir(DIRECTORY)?;
    let mut names = Vec::new();
    {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
        let number = inotify::add_watch(&watch, DIRECTORY, flags)?;
        let file = format!("{DIRECTORY}/file");
        std::fs::write(&file, "x")?;
        std::fs::remove_file(&file)?;
        let mut room = [std::mem::MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&watch, &mut room);
        for _ in 0..2 {
            let event = reader.next()?;
            names.push((event.events(), event.file_name().map(|name| name.to_owned())));
        }
        inotify::remove_watch(&watch, number)?;
    }
    std::fs::remove_dir(DIRECTORY)?;
    let of_file = |(_, name): &(_, Option<std::ffi::CString>)| name.as_deref() == Some(c"file");
    expect(names.iter().all(of_file), "the name of the file")?;
    let kinds: Vec<_> = names.iter().map(|(kind, _)| *kind).collect();
    expect(kinds == [inotify::ReadFlags::CREATE, inotify::ReadFlags::DELETE], "what became of it")
}

/// What the kernel tells of this process's memory.
pub(super) fn own_memory(_: u64) -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let stack = stack.and_then(|line| line.split('-').next());
    let stack = stack.ok_or_else(|| io::Error::other("no stack is listed"))?;
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    expect(smaps.contains(stack), "the stack has a size")?;
    let sizes = smaps.lines().filter_map(|line| line.strip_prefix("Pss:"));
    expect(sizes.count() >= maps.lines().count() / 2, "each area has its share")?;
    let sum = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    expect(sum.lines().any(|line| line.starts_with("Rss:")), "there is a sum")?;
    let start = u64::from_str_radix(stack, 16).map_err(io::Error::other)?;
    let mut pages = std::fs::File::open("/proc/self/pagemap")?;
    io::Seek::seek(&mut pages, io::SeekFrom::Start(start / 4096 * 8))?;
    pages.read_exact(&mut [0; 8])
}

/// A file of a kind that was just made known is run by its interpreter.
pub(super) fn interpreter(_: u64) -> io::Result<()> {
    const PLACE: &str = "/proc/sys/fs/binfmt_misc";
    const FILE: &str = "/tmp/exercise.labx";
    if !Path::new(&format!("{PLACE}/register")).exists() {
        mount("binfmt_misc", PLACE, "binfmt_misc", MountFlags::empty(), None)?;
    }
    write(&format!("{PLACE}/register"), ":exercise:E::labx::/init:")?;
    write(FILE, "nothing")?;
    std::fs::set_permissions(FILE, std::fs::Permissions::from_mode(0o755))?;
    let ended = unhindered(|| Command::new(FILE).stderr(Stdio::null()).status());
    write(&format!("{PLACE}/exercise"), "-1")?;
    // The interpreter is told a word that it does not know.
    expect(ended?.code() == Some(2), "how the interpreter ends")?;
    let ended = unhindered(|| Command::new(FILE).stderr(Stdio::null()).status());
    expect(ended.is_err(), "without an interpreter the file does not run")
}
