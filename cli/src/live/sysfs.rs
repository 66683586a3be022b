// SPDX-License-Identifier: GPL-2.0-or-later
//! `/sys/kernel/splice`: the kernel side's state, read and written.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use splice_core::plan::LEFT_OUT;
use splice_core::runpre::AppliedUpdate;

use super::{LiveError, loads};

/// Where the kernel side shows itself.
const ROOT: &str = "/sys/kernel/splice";
/// Where the kernel shows its modules.
const MODULES: &str = "/sys/module";

/// Whether an update is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// In memory, without effect.
    Loaded,
    /// In effect.
    Applied,
}

/// What the kernel side is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Put an update into effect.
    Apply,
    /// The same, and take all others out of it in the same moment.
    Replace,
    /// Take an update out of effect.
    Undo,
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Act::Apply => "1",
            Act::Replace => "replace",
            Act::Undo => "0",
        }
    }
}

/// A thread that was in the way of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    /// Its id.
    pub(crate) pid: u32,
    /// Its name.
    pub(crate) command: String,
    /// The address found on its stack.
    pub(crate) address: String,
    /// The function that holds it.
    pub(crate) function: String,
    /// The kernel function that it sleeps in, if it does.
    pub(crate) sleeps_in: Option<String>,
    /// How many attempts of this command it was in the way of; zero if the command makes none.
    pub(crate) times: u64,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) is in {}", self.command, self.pid, self.function)?;
        if let Some(function) = &self.sleeps_in {
            write!(f, ", asleep in {function}")?;
        }
        match self.times {
            0 | 1 => Ok(()),
            times => write!(f, ", in the way of {times} attempts"),
        }
    }
}

/// A patched place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SiteStatus {
    /// Where the jump stands, or would.
    pub(crate) old: String,
    /// Where it leads.
    pub(crate) new: String,
}

/// A data object whose contents are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectStatus {
    /// Its address.
    pub(crate) address: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Its name, or what else the kernel's list has there.
    pub(crate) name: String,
}

fn parse_object(line: &str) -> Option<ObjectStatus> {
    let mut words = line.splitn(3, ' ');
    let address = words.next()?.to_owned();
    let size = words.next()?.parse().ok()?;
    let (_, name) = words.next()?.split_once(' ')?;
    Some(ObjectStatus { address, size, name: name.to_owned() })
}

fn parse_address(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Where a site is, and the bytes of before.
fn parse_site(line: &str) -> Option<(u64, Vec<u8>)> {
    let mut words = line.split(' ');
    let (address, _, hex) = (parse_address(words.next()?)?, words.next()?, words.next()?);
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2)).collect();
    Some((address, bytes.filter(|bytes| !bytes.is_empty())?))
}

/// Where an object is, its size, and where the bytes of before are.
fn parse_kept(line: &str) -> Option<(u64, usize, u64)> {
    let mut words = line.split(' ');
    let (address, size) = (parse_address(words.next()?)?, words.next()?.parse().ok()?);
    Some((address, size, parse_address(words.next()?)?))
}

/// A target that was not loaded when the update was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missed {
    /// The module.
    pub(crate) target: String,
    /// Whether it is loaded now; unless that is the fixed module, it is as it was.
    pub(crate) is_loaded: bool,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, is_loaded } = self;
        if *is_loaded {
            write!(
                f,
                "{target} is loaded now, without this update: unless that is the fixed module, undo the \
                 update, and apply it again"
            )
        } else {
            write!(
                f,
                "{target} was not loaded, and is the old module still when it comes from the disk, \
                 unless the fixed one was put there (splice create --modules)"
            )
        }
    }
}

/// All that the kernel side tells of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Its id.
    pub(crate) id: String,
    /// What it is.
    pub(crate) description: String,
    /// Whether it is in effect.
    pub(crate) state: State,
    /// Attempts to apply or undo it since it was loaded.
    pub(crate) attempts: u64,
    /// How long the last stop of the machine lasted, in nanoseconds.
    pub(crate) pause_ns: u64,
    /// Threads examined in it.
    pub(crate) threads: u64,
    /// Stack words examined in it.
    pub(crate) words: u64,
    /// Threads that only seemed to be in its way: the kernel vouches that a word was stale.
    pub(crate) cleared: u64,
    /// Its update modules.
    pub(crate) modules: Vec<String>,
    /// What they patch, in the same order: the kernel image, or a module.
    pub(crate) targets: Vec<String>,
    /// What it left out.
    pub(crate) left_out: Vec<Missed>,
    /// The updates that it stands on: they can be undone only after it.
    pub(crate) stands_on: Vec<String>,
    /// The places it patches; empty for those who may not see addresses.
    pub(crate) sites: Vec<SiteStatus>,
    /// The data that it replaces; empty for those who may not see addresses.
    pub(crate) objects: Vec<ObjectStatus>,
    /// Who was in the way of the last attempt.
    pub(crate) conflicts: Vec<Conflict>,
    /// Why the last attempt failed; empty if it did not.
    pub(crate) error: String,
}

/// The directory, which tests have elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Sysfs {
    root: PathBuf,
    modules: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self { root: PathBuf::from(ROOT), modules: PathBuf::from(MODULES) }
    }
}

/// Undoes the escapes in a thread's name.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.push_str(before);
        match after.get(..2).map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                out.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push_str("\\x");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn parse_jump(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split(' ');
    Some((parse_address(words.next()?)?, parse_address(words.next()?)?))
}

fn parse_conflict(line: &str) -> Option<Conflict> {
    let mut words = line.splitn(4, ' ');
    let pid = words.next()?.parse().ok()?;
    let command = unescape(words.next()?);
    let address = words.next()?.to_owned();
    let function = words.next()?.to_owned();
    // A thread may have gone since, and its number may be another's; then this is of no harm.
    let sleeps_in = std::fs::read_to_string(format!("/proc/{pid}/wchan"))
        .ok()
        .filter(|name| !name.is_empty() && name != "0");
    Some(Conflict { pid, command, address, function, sleeps_in, times: 0 })
}

impl Sysfs {
    fn file(&self, id: &str, name: &str) -> PathBuf {
        self.root.join(id).join(name)
    }

    fn read(path: &Path) -> Result<String, LiveError> {
        std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches('\n').to_owned())
            .map_err(|source| LiveError::Io { path: path.display().to_string(), source })
    }

    /// What only root may read is left out for others.
    fn read_private(path: &Path) -> Result<String, LiveError> {
        match Self::read(path) {
            Err(LiveError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(String::new())
            }
            other => other,
        }
    }

    fn number(&self, id: &str, name: &str) -> Result<u64, LiveError> {
        let path = self.file(id, name);
        let text = Self::read(&path)?;
        text.parse().map_err(|_| LiveError::Io {
            path: path.display().to_string(),
            source: io::Error::new(io::ErrorKind::InvalidData, "not a number"),
        })
    }

    /// Version of the loaded core's interface; `None` if no core is loaded.
    pub(crate) fn abi(&self) -> Result<Option<String>, LiveError> {
        match Self::read(&self.root.join("abi")) {
            Ok(version) => Ok(Some(version)),
            Err(LiveError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Ids of all updates, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>, LiveError> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(LiveError::Io { path: self.root.display().to_string(), source });
            }
        };
        let mut ids: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Whether an update is in effect; `None` if it is not loaded.
    pub(crate) fn state(&self, id: &str) -> Result<Option<State>, LiveError> {
        if !splice_core::update::is_id(id) {
            return Ok(None);
        }
        match Self::read(&self.file(id, "state")) {
            Ok(state) if state == "applied" => Ok(Some(State::Applied)),
            Ok(_) => Ok(Some(State::Loaded)),
            Err(LiveError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// An update's modules.
    pub(crate) fn modules(&self, id: &str) -> Result<Vec<String>, LiveError> {
        Ok(self.parts(id)?.into_iter().map(|(module, _)| module).collect())
    }

    /// An update's modules, and what each patches, if the core says so.
    fn parts(&self, id: &str) -> Result<Vec<(String, Option<String>)>, LiveError> {
        let text = Self::read(&self.file(id, "modules"))?;
        let lines = text.lines().map(|line| match line.split_once(' ') {
            Some((module, target)) => (module.to_owned(), Some(target.to_owned())),
            None => (line.to_owned(), None),
        });
        Ok(lines.collect())
    }

    /// Where the kernel shows its modules.
    pub(super) fn all_modules(&self) -> &Path {
        &self.modules
    }

    /// What an update left out, which each of its modules was told when it was loaded.
    fn left_out(&self, modules: &[String]) -> Result<Vec<Missed>, LiveError> {
        let Some(module) = modules.first() else { return Ok(Vec::new()) };
        let path = self.modules.join(module).join("parameters").join(LEFT_OUT);
        let names = Self::read_new(&path)?;
        let names = names.split(',').filter(|name| !name.is_empty());
        Ok(names
            .map(|name| Missed {
                target: name.to_owned(),
                is_loaded: loads::is_there(&self.modules, name),
            })
            .collect())
    }

    /// What updates and cores of an earlier splice do not have is empty.
    fn read_new(path: &Path) -> Result<String, LiveError> {
        match Self::read(path) {
            Err(LiveError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(String::new())
            }
            other => other,
        }
    }

    /// The updates that one stands on.
    pub(crate) fn stands_on(&self, id: &str) -> Result<Vec<String>, LiveError> {
        Ok(Self::read_new(&self.file(id, "stands_on"))?.lines().map(str::to_owned).collect())
    }

    /// The applied updates that stand on one.
    pub(crate) fn above(&self, id: &str) -> Result<Vec<String>, LiveError> {
        let mut above = Vec::new();
        for other in self.ids()? {
            if self.stands_on(&other)?.iter().any(|lower| lower == id) {
                above.push(other);
            }
        }
        Ok(above)
    }

    /// What the applied updates have replaced.
    pub(crate) fn applied(&self) -> Result<Vec<AppliedUpdate>, LiveError> {
        let mut all = Vec::new();
        for id in self.ids()? {
            if self.state(&id)? != Some(State::Applied) {
                continue;
            }
            let jumps = self.rows(&id, "sites", parse_jump)?;
            all.push(AppliedUpdate { modules: self.modules(&id)?, id, jumps });
        }
        Ok(all)
    }

    /// The rows of a file of an update, all of which must be understood.
    fn rows<T>(
        &self,
        id: &str,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, LiveError> {
        let path = self.file(id, name);
        let rows: Option<Vec<T>> = Self::read(&path)?.lines().map(parse).collect();
        rows.ok_or_else(|| LiveError::Io {
            path: path.display().to_string(),
            source: io::Error::new(io::ErrorKind::InvalidData, "not the list that was expected"),
        })
    }

    /// The bytes over which the applied updates were written, those of the lower ones last; `read`
    /// reads the kernel's memory.
    pub(crate) fn originals(
        &self,
        read: impl Fn(u64, &mut [u8]) -> bool,
    ) -> Result<Vec<(u64, Vec<u8>)>, LiveError> {
        let mut places = Vec::new();
        for id in self.top_down()? {
            places.extend(self.rows(&id, "sites", parse_site)?);
            for (address, size, kept) in self.rows(&id, "objects", parse_kept)? {
                let mut bytes = vec![0; size];
                if !read(kept, &mut bytes) {
                    return Err(LiveError::Io {
                        path: "/proc/kcore".to_owned(),
                        source: io::Error::other(format!("what update {id} keeps is not in it")),
                    });
                }
                places.push((address, bytes));
            }
        }
        Ok(places)
    }

    /// The applied updates, none after one that it stands on.
    fn top_down(&self) -> Result<Vec<String>, LiveError> {
        let mut left = Vec::new();
        for id in self.ids()? {
            if self.state(&id)? == Some(State::Applied) {
                left.push((self.stands_on(&id)?, id));
            }
        }
        let mut sorted = Vec::new();
        while !left.is_empty() {
            let lower: BTreeSet<String> =
                left.iter().flat_map(|(stands_on, _)| stands_on.iter().cloned()).collect();
            let upper: Vec<_> = left.extract_if(.., |(_, id)| !lower.contains(id)).collect();
            if upper.is_empty() {
                // They cannot stand on one another; but then, nothing is lost by any order.
                sorted.extend(left.drain(..).map(|(_, id)| id));
            }
            sorted.extend(upper.into_iter().map(|(_, id)| id));
        }
        Ok(sorted)
    }

    /// Who was in the way of an update's last attempt.
    pub(crate) fn conflicts(&self, id: &str) -> Result<Vec<Conflict>, LiveError> {
        let text = Self::read_private(&self.file(id, "conflicts"))?;
        Ok(text.lines().filter_map(parse_conflict).collect())
    }

    /// Why an update's last attempt failed.
    pub(crate) fn error(&self, id: &str) -> Result<String, LiveError> {
        Self::read_private(&self.file(id, "error"))
    }

    /// Everything about an update that is loaded.
    pub(crate) fn status(&self, id: &str) -> Result<Option<Status>, LiveError> {
        let Some(state) = self.state(id)? else { return Ok(None) };
        let sites = Self::read_private(&self.file(id, "sites"))?
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                Some(SiteStatus { old: words.next()?, new: words.next()? })
            })
            .collect();
        let objects = Self::read_private(&self.file(id, "objects"))?;
        let (modules, targets): (Vec<_>, Vec<_>) = self.parts(id)?.into_iter().unzip();
        Ok(Some(Status {
            id: id.to_owned(),
            description: Self::read(&self.file(id, "description"))?,
            state,
            attempts: self.number(id, "attempts")?,
            pause_ns: self.number(id, "pause_ns")?,
            threads: self.number(id, "threads")?,
            words: self.number(id, "words")?,
            cleared: Self::read_new(&self.file(id, "cleared"))?.parse().unwrap_or_default(),
            targets: targets.into_iter().flatten().collect(),
            left_out: self.left_out(&modules)?,
            modules,
            stands_on: self.stands_on(id)?,
            sites,
            objects: objects.lines().filter_map(parse_object).collect(),
            conflicts: self.conflicts(id)?,
            error: self.error(id)?,
        }))
    }

    /// Asks for one attempt.
    pub(crate) fn switch(&self, id: &str, act: Act) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).open(self.file(id, "enabled"))?;
        file.write_all(act.word().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(files: &[(&str, &str)]) -> (tempfile::TempDir, Sysfs) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let sysfs = Sysfs { root: dir.path().to_owned(), modules: dir.path().join("all-modules") };
        (dir, sysfs)
    }

    #[test]
    fn status_is_read() {
        let (_dir, sysfs) = kernel(&[
            ("abi", "1\n"),
            ("fix/state", "applied\n"),
            ("fix/description", "a fix\n"),
            ("fix/attempts", "2\n"),
            ("fix/pause_ns", "230290\n"),
            ("fix/threads", "54\n"),
            ("fix/words", "3460\n"),
            ("fix/modules", "splice_fix vmlinux\nsplice_fix_1 tipc\n"),
            ("fix/sites", "0xffffffff810b0d45 0xffffffffc0324000 0f1f440000\n"),
            ("fix/objects", "0xffffffffc0325000 1264 0xffffffffc0326000 some_ops [module]\n"),
            (
                "fix/conflicts",
                "4294967295 a\\x20b\\x5c 0xffffffff8100 do_nanosleep+0x7b/0x130 [m]\n\
                 and 3 more\n",
            ),
            ("fix/error", "busy\n"),
        ]);
        assert_eq!(sysfs.abi().unwrap().as_deref(), Some("1"));
        assert_eq!(sysfs.ids().unwrap(), ["fix"]);
        let status = sysfs.status("fix").unwrap().unwrap();
        assert_eq!(status.state, State::Applied);
        assert_eq!((status.attempts, status.pause_ns, status.threads), (2, 230_290, 54));
        assert_eq!(status.modules, ["splice_fix", "splice_fix_1"]);
        assert_eq!(status.targets, ["vmlinux", "tipc"]);
        assert_eq!(status.sites[0].new, "0xffffffffc0324000");
        let object = &status.objects[0];
        assert_eq!((object.size, object.name.as_str()), (1264, "some_ops [module]"));
        assert_eq!(status.conflicts.len(), 1);
        assert_eq!(status.conflicts[0].command, "a b\\");
        assert_eq!(status.conflicts[0].function, "do_nanosleep+0x7b/0x130 [m]");
        assert_eq!(
            status.conflicts[0].to_string(),
            "a b\\ (pid 4294967295) is in do_nanosleep+0x7b/0x130 [m]"
        );
    }

    #[test]
    fn what_was_left_out_is_told_and_whether_it_has_come() {
        let all = |left_out: &str| {
            let file = |name: &'static str| (name, "0\n");
            let (dir, sysfs) = kernel(&[
                file("fix/state"),
                file("fix/description"),
                file("fix/attempts"),
                file("fix/pause_ns"),
                file("fix/threads"),
                file("fix/words"),
                ("fix/modules", "splice_fix vmlinux\n"),
                file("fix/sites"),
                file("fix/objects"),
                file("fix/conflicts"),
                file("fix/error"),
                ("all-modules/splice_fix/parameters/left_out", left_out),
                ("all-modules/b/initstate", "live\n"),
            ]);
            let status = sysfs.status("fix").unwrap().unwrap();
            drop(dir);
            (status.summary(), status)
        };
        let (summary, status) = all("a,b\n");
        assert_eq!(status.targets, ["vmlinux"]);
        let states: Vec<_> = status.left_out.iter().map(|m| (&*m.target, m.is_loaded)).collect();
        assert_eq!(states, [("a", false), ("b", true)]);
        assert!(summary.ends_with(", without a, without b (loaded now)"), "{summary}");
        assert!(status.to_string().contains("b is loaded now, without this update"));
        let (_, status) = all("\n");
        assert!(status.left_out.is_empty() && !status.to_string().contains("left out"));
    }

    #[test]
    fn the_bytes_of_before_are_those_of_the_lowest_update() {
        let (_dir, sysfs) = kernel(&[
            ("low/state", "applied\n"),
            ("low/stands_on", ""),
            ("low/sites", "0xa000 0xb000 0102030405\n"),
            ("low/objects", "0xd000 2 0xe000 an_object\n"),
            ("high/state", "applied\n"),
            ("high/stands_on", "low\n"),
            ("high/sites", "0xb005 0xc000 1112131415\n"),
            ("high/objects", "0xd000 2 0xf000 an_object\n"),
            ("loaded/state", "loaded\n"),
        ]);
        let read = |at: u64, buf: &mut [u8]| {
            buf.fill((at >> 8) as u8);
            at != 0
        };
        let places = sysfs.originals(read).unwrap();
        let expected: Vec<(u64, Vec<u8>)> = vec![
            (0xb005, vec![0x11, 0x12, 0x13, 0x14, 0x15]),
            (0xd000, vec![0xf0, 0xf0]),
            (0xa000, vec![1, 2, 3, 4, 5]),
            (0xd000, vec![0xe0, 0xe0]),
        ];
        assert_eq!(places, expected);
        assert!(sysfs.originals(|_, _| false).is_err());
        for line in ["0xa000 0xb000", "0xa000 0xb000 ", "0xa000 0xb000 123", "0xa000 0xb000 zz"] {
            assert_eq!(parse_site(line), None, "{line:?}");
        }
    }

    #[test]
    fn nothing_loaded_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("none");
        let sysfs = Sysfs { modules: root.clone(), root };
        assert_eq!(sysfs.abi().unwrap(), None);
        assert!(sysfs.ids().unwrap().is_empty());
        assert_eq!(sysfs.state("fix").unwrap(), None);
    }

    #[test]
    fn an_id_is_never_a_path() {
        let (_dir, sysfs) = kernel(&[("sub/fix/state", "applied\n")]);
        assert_eq!(sysfs.state("sub/fix").unwrap(), None);
        assert_eq!(sysfs.state("../fix").unwrap(), None);
    }

    #[test]
    fn odd_escapes_stay() {
        for (text, meant) in [("a\\x20b", "a b"), ("\\x", "\\x"), ("\\xzz1", "\\xzz1")] {
            assert_eq!(unescape(text), meant);
        }
    }
}
