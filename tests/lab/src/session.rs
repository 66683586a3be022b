// SPDX-License-Identifier: GPL-2.0-or-later
//! The `splice` command as the suites use it: on the host to create updates, in a guest to apply
//! them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use splice_cli::kernel::Kernel;

use crate::build::Programs;
use crate::checked;
use crate::fixes::Fix;
use crate::initramfs::{Initramfs, ModuleDirectory};
use crate::packages::{Cache, Image, kernel, pair};
use crate::processor::Processor;
use crate::protocol::{Command, Outcome, Request};
use crate::vm::{Machine, Options};

/// A user without any privilege.
pub const NOBODY: u32 = 65_534;

/// What every suite starts from.
pub struct Lab {
    /// The package cache.
    pub cache: Cache,
    /// This workspace's programs.
    pub programs: Programs,
    /// The kernel that is patched.
    pub kernel: Kernel,
    /// Its image.
    pub image: Image,
    /// Words that tell `splice prepare` where its source is; the distribution's packages if none.
    pub origin: Vec<String>,
    /// Updates and patches of this run.
    pub work: tempfile::TempDir,
}

/// How a `splice` command ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The command, for messages.
    pub what: String,
    /// Exit code; -1 if a signal ended it.
    pub exit: i32,
    /// Its JSON, or null.
    pub json: Value,
    /// What it said to a person.
    pub stderr: String,
    /// How long it took.
    pub duration: Duration,
}

impl Answer {
    fn new(what: String, outcome: &Outcome) -> Self {
        Self {
            what,
            exit: outcome.exit.unwrap_or(-1),
            json: serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null),
            stderr: outcome.stderr.trim().to_owned(),
            duration: Duration::from_micros(outcome.duration_us),
        }
    }

    /// Fails unless the command succeeded.
    pub fn success(self) -> Result<Self> {
        self.expect(0)
    }

    /// Fails unless the command ended with this code.
    pub fn expect(self, code: i32) -> Result<Self> {
        if self.exit == code {
            return Ok(self);
        }
        bail!("{} ended with {}, not {code}: {}", self.what, self.exit, self.explanation())
    }

    /// Fails unless each of these is somewhere in what it said.
    pub fn says(self, words: &[&str]) -> Result<Self> {
        let said = self.explanation();
        for word in words {
            if !said.contains(word) {
                bail!("{} does not mention {word:?}; it says: {said}", self.what);
            }
        }
        Ok(self)
    }

    /// The source tree that `prepare` has told of.
    pub fn tree(&self) -> Result<&Path> {
        let tree = self.json.get("tree").and_then(Value::as_str);
        tree.map(Path::new).with_context(|| format!("{} does not say where the tree is", self.what))
    }

    /// All that it said.
    #[must_use]
    pub fn explanation(&self) -> String {
        if self.json.is_null() {
            self.stderr.clone()
        } else {
            format!("{}\n{}", self.stderr, self.json).trim().to_owned()
        }
    }

    /// The first number with this key, wherever it is in the JSON.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        search(&self.json, key).and_then(Value::as_u64)
    }
}

/// The first value with this key, depth first.
#[must_use]
pub fn search<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    match json {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| search(v, key))),
        Value::Array(list) => list.iter().find_map(|value| search(value, key)),
        _ => None,
    }
}

impl Lab {
    /// Builds the programs and fetches the kernel of this version; `target` is the source version
    /// that must be offered too. If it was asked for, the checked kernel of the same source instead.
    pub fn open(base: &str, target: &str) -> Result<Self> {
        let stock = Self::of(pair(base, target)?.0)?;
        if checked::is_wanted() { checked::lab(stock) } else { Ok(stock) }
    }

    /// The kernel of that release, or else the one that the fix is for.
    pub fn for_fix(release: Option<&str>, fix: &Fix) -> Result<Self> {
        match release {
            Some(release) => Self::of(kernel(release)?),
            None => Self::open(&fix.base, &fix.target),
        }
    }

    /// Builds the programs and fetches this kernel.
    pub fn of(kernel: Kernel) -> Result<Self> {
        let programs = Programs::build(Processor::of(&kernel.release))?;
        let cache = Cache::open()?;
        let image = cache.image(&kernel.release, &kernel.version)?;
        let work = tempfile::Builder::new().prefix("splice-lab-").tempdir()?;
        Ok(Self { cache, programs, kernel, image, origin: Vec::new(), work })
    }

    /// Runs `splice` on the host.
    pub fn splice(&self, words: &[&str]) -> Result<Answer> {
        let started = Instant::now();
        let output = std::process::Command::new(&self.programs.host)
            .args(["--format", "json", "--arch", self.image.processor().name])
            .args(words)
            .output()
            .context("cannot run splice")?;
        let outcome = Outcome {
            exit: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            ..Outcome::default()
        };
        Ok(Answer::new(format!("splice {}", words.join(" ")), &outcome))
    }

    /// Prepares the kernel.
    pub fn prepare(&self) -> Result<Answer> {
        let origin = self.origin.iter().map(String::as_str);
        let words = ["prepare", "--release", &self.kernel.release];
        self.splice(&words.into_iter().chain(origin).collect::<Vec<_>>())?.success()
    }

    /// Creates an update from a patch's text. The file need not exist afterwards: see the answer.
    pub fn create(&self, id: &str, patch: &str) -> Result<(PathBuf, Answer)> {
        self.create_with(id, patch, &[])
    }

    /// The same, with more words for `splice create`.
    pub fn create_with(&self, id: &str, patch: &str, more: &[&str]) -> Result<(PathBuf, Answer)> {
        let update = self.work.path().join(format!("{id}.splice"));
        let answer = self.create_at(&update, id, patch, more)?;
        Ok((update, answer))
    }

    /// The same, to a file that is kept.
    pub fn create_at(&self, update: &Path, id: &str, patch: &str, more: &[&str]) -> Result<Answer> {
        let source = self.work.path().join(format!("{id}.patch"));
        std::fs::write(&source, patch)?;
        let (file, source) = (update.to_string_lossy(), source.to_string_lossy());
        let release = &self.kernel.release;
        let words = ["create", "--release", release, "--id", id, "--output", &file, &source];
        self.splice(&[&words, more].concat())
    }
}

/// How often a switch is asked for that somebody is in the way of, and what is waited in between.
const TRIES: u64 = 200;
const PATIENCE: Duration = Duration::from_millis(20);

const PROBE_EVENTS: &str = "/sys/kernel/tracing/kprobe_events";
const PROBE_SWITCH: &str = "/sys/kernel/tracing/events/kprobes/lab/enable";

/// A guest with `splice` and updates.
pub struct Guest {
    /// The machine.
    pub machine: Machine,
    /// The modules that it has at hand: paths of what is to be loaded for each, in this order, or why
    /// there are none.
    carried: BTreeMap<String, Result<Vec<String>, String>>,
}

/// What goes into a guest.
#[derive(Default)]
pub struct Contents<'a> {
    /// Update files by id; in the guest they are `/updates/ID.splice`.
    pub updates: Vec<(&'a str, &'a Path)>,
    /// Other files by their path in the guest, without the leading slash.
    pub files: Vec<(&'a str, Vec<u8>)>,
    /// Other programs of the host, by their path in the guest.
    pub programs: &'a [(&'a str, &'a str)],
    /// Modules to load before anything else.
    pub modules: Vec<String>,
    /// Modules to have at hand, for [`Guest::load_module`].
    pub carried: Vec<String>,
    /// Additional words for the kernel's command line.
    pub append: &'a str,
    /// How long the guest may live; ten minutes if absent.
    pub limit: Option<Duration>,
    /// Memory in MiB; one gibibyte if absent.
    pub memory_mib: Option<u32>,
    /// Processors; two if absent.
    pub cpus: Option<u32>,
    /// Whether the kernel rewrites much of its own code while it is under load: see
    /// [`Options::one_thread`].
    pub rewrites_itself: bool,
}

impl Guest {
    /// Boots an image with these contents.
    pub fn boot(lab: &Lab, image: &Image, contents: &Contents) -> Result<Self> {
        let mut initramfs = Initramfs::new(image.processor());
        initramfs.program("init", &lab.programs.init)?;
        initramfs.program("bin/splice", &lab.programs.splice)?;
        for (path, source) in contents.programs {
            initramfs.program(path, Path::new(source))?;
        }
        for (id, path) in &contents.updates {
            let body = std::fs::read(path)
                .with_context(|| format!("cannot read the update {}", path.display()))?;
            initramfs.file(&format!("updates/{id}.splice"), body);
        }
        for (path, body) in &contents.files {
            initramfs.file(path, body.clone());
        }
        let mut order = Vec::new();
        let mut carried = BTreeMap::new();
        if !contents.modules.is_empty() || !contents.carried.is_empty() {
            let directory = ModuleDirectory::read(&image.modules)?;
            for name in &contents.modules {
                order.extend(initramfs.module(&directory, name)?);
            }
            for name in &contents.carried {
                let paths = initramfs.module(&directory, name);
                carried.insert(name.clone(), paths.map_err(|error| format!("{error:#}")));
            }
        }
        let mut options = Options::new(image);
        contents.append.clone_into(&mut options.append);
        options.limit = contents.limit.unwrap_or(options.limit) * image.pace;
        if let Some(cpus) = contents.cpus {
            options.cpus = cpus;
        }
        options.memory_mib = contents.memory_mib.unwrap_or(image.memory_mib);
        options.one_thread = contents.rewrites_itself;
        let mut machine = Machine::boot(&options, &initramfs)?;
        if !order.is_empty() {
            machine.ask(&Request::InsertModules { paths: order })?;
        }
        Ok(Self { machine, carried })
    }

    /// Loads a module that is at hand, and those that it depends on.
    pub fn load_module(&mut self, name: &str) -> Result<()> {
        match self.carried.get(name) {
            Some(Ok(paths)) => {
                let paths = paths.clone();
                self.machine.ask(&Request::InsertModules { paths }).map(|_| ())
            }
            Some(Err(why)) => bail!("{why}"),
            None => bail!("the machine does not have the module {name}"),
        }
    }

    /// Runs `splice` in the guest, as root.
    pub fn splice(&mut self, words: &[&str]) -> Result<Answer> {
        self.splice_as(words, |command| command)
    }

    /// Runs `splice` in the guest, with changes to the command.
    pub fn splice_as(
        &mut self,
        words: &[&str],
        change: impl FnOnce(Command) -> Command,
    ) -> Result<Answer> {
        let argv = ["/bin/splice", "--format", "json"].iter().chain(words).copied();
        let outcome = self.machine.run(&change(Command::new(argv)))?;
        Ok(Answer::new(format!("splice {}", words.join(" ")), &outcome))
    }

    /// Whether the update would apply.
    pub fn check(&mut self, id: &str) -> Result<Answer> {
        self.splice(&["check", &update(id)])
    }

    /// Applies an update.
    pub fn apply(&mut self, id: &str) -> Result<Answer> {
        self.splice(&["apply", &update(id)])
    }

    /// Takes an update back.
    pub fn undo(&mut self, id: &str) -> Result<Answer> {
        self.splice(&["undo", id])
    }

    /// Asks the kernel side for a switch, `1` or `0`, until nobody is in the way; how often somebody was.
    pub fn switch(&mut self, id: &str, value: &str) -> Result<u64> {
        let file = |name: &str| format!("/sys/kernel/splice/{id}/{name}");
        for busy in 0..TRIES {
            match self.machine.write(&file("enabled"), value) {
                Ok(()) => return Ok(busy),
                Err(error) if format!("{error:#}").contains("os error 16") => {}
                Err(error) => return Err(error),
            }
            std::thread::sleep(PATIENCE);
        }
        bail!("somebody is always in the way: {}", self.machine.read(&file("conflicts"))?)
    }

    /// Runs a probe without privileges: whether what it tries is allowed, and what it printed.
    pub fn probe(&mut self, name: &str, uid: u32) -> Result<(bool, String)> {
        let outcome = self.machine.run(&Command::new(["/init", "probe", name]).as_user(uid))?;
        let said = outcome.stdout.trim().to_owned();
        match outcome.exit {
            Some(0) => Ok((true, said)),
            Some(1) => Ok((false, said)),
            _ => bail!("the probe {name} broke: {said} {}", outcome.stderr.trim()),
        }
    }

    /// Sets a breakpoint inside a function, so that its text is not what it was. Only the beginning
    /// of an instruction is accepted, so several places are tried.
    pub fn set_breakpoint(&mut self, function: &str) -> Result<()> {
        for offset in 6..64 {
            if self.set_breakpoint_at(function, offset).is_ok() {
                return Ok(());
            }
        }
        bail!("no breakpoint could be set in {function}")
    }

    /// Sets a breakpoint at the instruction that begins there.
    pub fn set_breakpoint_at(&mut self, function: &str, offset: u64) -> Result<()> {
        self.machine.write(PROBE_EVENTS, &format!("p:lab {function}+{offset}\n"))?;
        let set = self.machine.write(PROBE_SWITCH, "1\n");
        if set.is_err() {
            self.machine.write(PROBE_EVENTS, "-:lab\n")?;
        }
        set
    }

    /// Takes the breakpoint away.
    pub fn remove_breakpoint(&mut self) -> Result<()> {
        self.machine.write(PROBE_SWITCH, "0\n")?;
        self.machine.write(PROBE_EVENTS, "-:lab\n")
    }

    /// The ids of the updates that the kernel holds, from sysfs (not from `splice`, which is what
    /// is being tested).
    pub fn loaded(&mut self) -> Result<Vec<String>> {
        let modules = self.machine.read("/proc/modules")?;
        Ok(modules
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|name| *name == "splice" || name.starts_with("splice_"))
            .map(str::to_owned)
            .collect())
    }

    /// Fails unless the kernel is as it was before any update.
    pub fn expect_clean(&mut self) -> Result<()> {
        let loaded = self.loaded()?;
        if !loaded.is_empty() {
            bail!("these modules are left behind: {}", loaded.join(", "));
        }
        self.machine.check_kernel()
    }
}

/// An update's path in the guest.
#[must_use]
pub fn update(id: &str) -> String {
    format!("/updates/{id}.splice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_at_any_depth() {
        let json = serde_json::json!({"a": [{"b": 1}], "c": {"pause_ns": 7}});
        assert_eq!(search(&json, "pause_ns").and_then(Value::as_u64), Some(7));
        assert!(search(&json, "d").is_none());
    }

    #[test]
    fn a_wrong_exit_code_is_explained() {
        let outcome = Outcome { exit: Some(5), stderr: "no match".into(), ..Outcome::default() };
        let error = Answer::new("splice apply".into(), &outcome).success().unwrap_err();
        assert_eq!(error.to_string(), "splice apply ended with 5, not 0: no match");
    }
}
