// SPDX-License-Identifier: GPL-2.0-or-later
//! Exercises of the parts of the kernel that fixes are in, going on in a machine while it switches.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::record::Record;
use crate::guest::exercise::{ALL, Exercise, of, progress};
use crate::protocol::{Command, ExerciseReport};
use crate::session::{Contents, Guest, Lab};
use crate::{fixes, images};

/// The longest that a round of one may take, in a machine under load; of several at once, each that much
/// longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many times each of several at once goes on.
const ROUNDS: usize = 20;
/// Name of the exercises among the started commands.
const NAME: &str = "exercises";

/// The exercises that go through what these fixes change, by name.
pub(super) fn of_all<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<&'static Exercise> {
    let mut seen = BTreeSet::new();
    let files = records.flat_map(|record| &record.files);
    files.filter_map(|file| of(file)).filter(|exercise| seen.insert(exercise.name)).collect()
}

/// Runs exercises in a machine without any update, all of them or those that are named: each alone, and
/// then all at once, since they must not disturb one another.
pub fn alone(names: &[String]) -> Result<()> {
    let fixes = fixes::manifest()?;
    let fix = fixes.first().context("the manifest is empty")?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    let is_wanted = |one: &&Exercise| names.is_empty() || names.iter().any(|name| name == one.name);
    let wanted: Vec<&'static Exercise> = ALL.iter().filter(is_wanted).collect();
    ensure!(!wanted.is_empty(), "no exercise is called {}", names.join(" or "));
    let contents = Contents {
        carried: modules(&wanted),
        files: files(&wanted)?,
        rewrites_itself: true,
        ..Contents::default()
    };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    let mut failed = Vec::new();
    // What disturbs another one need not do so in its first round.
    let all = (wanted.len() > 1).then(|| ("all at once", wanted.clone(), ROUNDS));
    let each = wanted.iter().map(|one| (one.name, vec![*one], 1));
    for (name, exercises, times) in each.chain(all) {
        let running = Running::begin(&mut guest, exercises)?;
        let went_on = (0..times).try_for_each(|_| running.round(&mut guest));
        match (running.end(&mut guest), went_on) {
            (Ok(rounds), Ok(())) => println!("{name}: {rounds} rounds"),
            (Err(error), _) | (_, Err(error)) => failed.push(format!("{name}: {error:#}")),
        }
        guest.machine.check_kernel()?;
    }
    guest.machine.power_off()?;
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// The modules that exercises need.
pub(super) fn modules(exercises: &[&Exercise]) -> Vec<String> {
    exercises.iter().flat_map(|one| one.modules).map(|name| (*name).to_owned()).collect()
}

/// The images that exercises need, by their paths in the machine.
pub(super) fn files(exercises: &[&Exercise]) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let paths = exercises.iter().filter_map(|exercise| exercise.image);
    paths.map(|path| Ok((path, images::image(path)?))).collect()
}

/// Exercises that go on.
pub(super) struct Running(Vec<&'static Exercise>);

impl Running {
    /// Begins with these, once their modules are loaded.
    pub(super) fn begin(guest: &mut Guest, exercises: Vec<&'static Exercise>) -> Result<Running> {
        for exercise in &exercises {
            for module in exercise.modules {
                guest.load_module(module)?;
            }
        }
        if !exercises.is_empty() {
            let names = exercises.iter().map(|exercise| exercise.name);
            let words = ["/init", "exercise"].into_iter().chain(names);
            guest.machine.start(NAME, &Command::new(words))?;
        }
        Ok(Running(exercises))
    }

    /// What they are called.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|exercise| exercise.name.to_owned()).collect()
    }

    /// Waits until each has begun a round from now on, and ended it.
    pub(super) fn round(&self, guest: &mut Guest) -> Result<()> {
        let over = |guest: &mut Guest, name: &str| {
            let text = guest.machine.read(&progress(name)).unwrap_or_default();
            text.trim().parse::<u64>().unwrap_or(0)
        };
        let (patience, started) = (PATIENCE * u32::try_from(self.0.len())?, Instant::now());
        // The round that is on when this begins is not one.
        let wanted: Vec<_> =
            self.0.iter().map(|one| (one.name, over(guest, one.name) + 2)).collect();
        for (name, wanted) in wanted {
            while over(guest, name) < wanted {
                if started.elapsed() > patience {
                    bail!("the exercise {name} does not go on");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Ends them; how many rounds there were. None may have gone wrong.
    pub(super) fn end(self, guest: &mut Guest) -> Result<u64> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let outcome = guest.machine.stop(NAME)?;
        let reports: Vec<ExerciseReport> = serde_json::from_str(&outcome.stdout)
            .with_context(|| format!("the exercises broke down: {outcome:?}"))?;
        let wrong = reports.iter().filter(|report| report.wrong > 0).map(|report| {
            let ExerciseReport { name, rounds, wrong, examples } = report;
            format!("{wrong} of {rounds} rounds of {name} went wrong: {}", examples.join("; "))
        });
        let wrong: Vec<String> = wrong.collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(reports.iter().map(|report| report.rounds).sum())
    }
}
