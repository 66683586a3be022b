// SPDX-License-Identifier: GPL-2.0-or-later
//! The end-to-end tests. Each prints a line, as `cargo test` does; none is ever skipped silently. Two run at
//! the same time: a machine by emulation, and what is compiled for the next one.

mod boot;
mod build;
mod data;
mod guest;
mod hooks;
mod image;
mod machine;
mod malformed;
mod many;
mod modules;
mod newcode;
mod nmi;
mod parked;
mod race;
mod reach;
mod refusals;
mod replace;
mod stacked;
mod suspend;
mod targets;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::corpus::Choice;
use crate::fixes::{self, Fix};
use crate::packages::{kernel, pair};
use crate::session::Lab;
use crate::{demo, exploit, line, soak, states};

/// Counts the tests.
pub struct Suite {
    filter: Option<String>,
    passed: usize,
    failures: Vec<String>,
}

impl Suite {
    fn new(filter: Option<String>) -> Self {
        Self { filter, passed: 0, failures: Vec::new() }
    }

    /// Counts what another one has counted.
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
    }

    /// Whether a test of this name is to be run.
    fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }

    /// Runs one test.
    fn test(&mut self, name: &str, body: impl FnOnce() -> Result<()>) {
        if !self.wants(name) {
            return;
        }
        let started = Instant::now();
        let result = body();
        let time = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({time:.1} s)");
            }
            Err(error) => {
                println!("test {name} ... FAILED ({time:.1} s)\n  {error:#}");
                self.failures.push(name.to_owned());
            }
        }
    }
}

/// The lab, and the updates that several tests use.
pub struct Fixture {
    lab: Lab,
    fix: Fix,
    updates: Vec<(&'static str, PathBuf)>,
}

/// The update whose effect the tests look at, and its probe.
const FIX: &str = "attach-filter";
/// A fix for a module.
const MODULE_FIX: &str = "tipc";
/// An update of a function that a test can sleep in.
const SLEEPER: &str = "eventfd";

impl Fixture {
    /// Prepares the kernel and creates the updates.
    fn new() -> Result<Self> {
        let fix = fixes::find(FIX)?;
        let lab = Lab::open(&fix.base, &fix.target)?;
        lab.prepare()?;
        let mut fixture = Self { lab, fix, updates: Vec::new() };
        let patch = fixture.fix.patch(&fixture.lab.cache)?;
        fixture.create(FIX, &patch)?;
        let patch = fixes::find(MODULE_FIX)?.patch(&fixture.lab.cache)?;
        fixture.create(MODULE_FIX, &patch)?;
        let patch = fixture.eventfd()?;
        fixture.create(SLEEPER, &patch)?;
        Ok(fixture)
    }

    fn create(&mut self, id: &'static str, patch: &str) -> Result<()> {
        let (file, answer) = self.lab.create(id, patch)?;
        answer.success().with_context(|| format!("cannot create the update {id}"))?;
        self.updates.push((id, file));
        Ok(())
    }

    /// The file of one of its updates.
    fn update(&self, id: &str) -> Result<&Path> {
        let found = self.updates.iter().find(|(name, _)| *name == id);
        Ok(found.with_context(|| format!("there is no update {id}"))?.1.as_path())
    }

    /// A patch for the function that a reader of an event descriptor sleeps in: a buffer that is too
    /// small gets another error.
    fn eventfd(&self) -> Result<String> {
        self.edit(
            "fs/eventfd.c",
            "sizeof(ucnt))\n\t\treturn -EINVAL",
            "sizeof(ucnt))\n\t\treturn -ERANGE",
        )
    }

    fn edit(&self, file: &str, old: &str, new: &str) -> Result<String> {
        fixes::edit(&self.lab.cache, &self.fix.base, file, &[(old, new)])
    }
}

/// Tests that belong together.
type Group = fn(&mut Suite, &Fixture);

/// Groups that do not disturb one another, those that take long first.
const GROUPS: [Group; 23] = [
    aarch64,
    corpus,
    verify,
    newcode::run,
    reach::run,
    exploits,
    many::run,
    guest::run,
    soaked,
    boot::run,
    parked::run,
    data::run,
    targets::run,
    modules::run,
    stacked::run,
    hooks::run,
    replace::run,
    race::run,
    nmi::run,
    suspend::run,
    malformed::run,
    refusals::run,
    image::run,
];

fn verify(suite: &mut Suite, fixture: &Fixture) {
    suite.test("verify_sample", || {
        let units = states::sample(&fixture.lab, &states::SAMPLE)?;
        ensure!(states::run(&fixture.lab, &units, states::Which::All)?, "see above");
        Ok(())
    });
}

fn corpus(suite: &mut Suite, _: &Fixture) {
    suite.test("corpus", || {
        let passed = crate::corpus::run(&Choice::First(12), None)?;
        ensure!(passed, "not every fix went through");
        Ok(())
    });
}

fn exploits(suite: &mut Suite, fixture: &Fixture) {
    // Other source packages than this one are not offered for long.
    let target = &fixture.fix.target;
    suite.test("exploit", || exploit::run(|fix| fix.target == *target));
}

/// Another line of kernels, which needs nothing of the fixture.
fn another_line(suite: &mut Suite) {
    let units = line::UNITS.map(str::to_owned);
    suite.test("line_6_12", || line::run(None, 3, &units, states::Which::FirstBoot));
}

/// The same version of the kernel, built for another processor.
fn aarch64(suite: &mut Suite, fixture: &Fixture) {
    suite.test("aarch64", || {
        let (stock, _) = pair(&fixture.fix.base, &fixture.fix.target)?;
        let lab = Lab::of(kernel(&stock.release.replace("amd64", "arm64"))?)?;
        lab.prepare()?;
        image::symbols(&lab)?;
        // A unit whose code finds its objects by their distance from one another, one with nops before
        // loops, as many as its functions' places make of them, and one that guards the stack, with what
        // the compiler is told only once the tree is prepared.
        let length = ("iphlen > length", "iphlen > length || iphlen < 4");
        let raw = fixes::edit(&lab.cache, &fixture.fix.base, "net/ipv4/raw.c", &[length])?;
        let fault = ("? -EFAULT : 0", "? -EIO : 0");
        let regset = fixes::edit(&lab.cache, &fixture.fix.base, "kernel/regset.c", &[fault])?;
        let patch = [fixture.fix.patch(&lab.cache)?, raw, regset].concat();
        let (file, answer) = lab.create(FIX, &patch)?;
        answer.success()?;
        let [file, image] =
            [&file, &lab.image.kernel].map(|path| path.to_string_lossy().into_owned());
        lab.splice(&["check", &file, "--kernel", &image])?.success()?;
        line::seen_from_user_space(&lab)
    });
}

fn soaked(suite: &mut Suite, _: &Fixture) {
    suite.test("soak", || soak::run(None, 100, 2, false));
}

/// Runs the end-to-end tests whose names contain the filter; true if all passed.
pub fn run(filter: Option<String>) -> Result<bool> {
    let new = || Suite::new(filter.clone());
    let mut suite = new();
    std::thread::scope(|scope| -> Result<()> {
        let beside = scope.spawn(|| {
            let mut own = new();
            another_line(&mut own);
            own
        });
        suite.test("demo", demo::run);
        machine::run(&mut suite);
        let fixture = Fixture::new()?;
        // These look at what is in the kernel's tree before and after.
        build::run(&mut suite, &fixture);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = new();
            while let Some(group) = GROUPS.get(next.fetch_add(1, Ordering::Relaxed)) {
                group(&mut own, &fixture);
            }
            own
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(work);
            suite.add(ended(beside)?);
            suite.add(work());
            suite.add(ended(first)?);
            Ok(())
        })
    })?;
    println!("{} passed, {} failed", suite.passed, suite.failures.len());
    for name in &suite.failures {
        println!("  failed: {name}");
    }
    Ok(suite.failures.is_empty() && suite.passed > 0)
}

/// What tests beside others have counted.
fn ended(worker: ScopedJoinHandle<'_, Suite>) -> Result<Suite> {
    worker.join().map_err(|_| anyhow!("a test ended its thread"))
}
