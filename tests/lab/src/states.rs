// SPDX-License-Identifier: GPL-2.0-or-later
//! The states that a running kernel's text can be in, each dumped from outside and held against the
//! kernel's units: tracing, probes, keys and static calls that were switched, one processor,
//! mitigations. In each of them the text is the kernel's own, so nothing may be called foreign but
//! what a probe stands in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::packages::Image;
use crate::session::{Answer, Contents, Guest, Lab};
use crate::snapshot;

const TRACING: &str = "/sys/kernel/tracing";

/// A change of state: files of the guest and what is written to them. What earlier ones of the same
/// boot have done stays.
struct State {
    name: &'static str,
    writes: &'static [(&'static str, &'static str)],
    /// A function in whose middle a probe is set.
    probed: Option<&'static str>,
    /// Whether there are kernels without these files.
    optional: bool,
}

/// A boot with these words on the command line, and states that follow one another.
struct Boot {
    append: &'static str,
    states: &'static [State],
}

const fn state(name: &'static str, writes: &'static [(&'static str, &'static str)]) -> State {
    State { name, writes, probed: None, optional: false }
}

const BOOTS: &[Boot] = &[
    Boot {
        append: "",
        states: &[
            state("as booted", &[]),
            // From here on one processor runs alone: see `vm::Options::one_thread`. Its text stays that of
            // two, and what follows rewrites it by the thousand.
            state("a processor gone", &[("/sys/devices/system/cpu/cpu1/online", "0")]),
            state(
                "keys switched by sysctl",
                &[
                    ("/proc/sys/kernel/sched_schedstats", "1"),
                    ("/proc/sys/kernel/task_delayacct", "1"),
                    ("/proc/sys/kernel/bpf_stats_enabled", "1"),
                ],
            ),
            // A real-time kernel is always preempted.
            State {
                optional: true,
                ..state("preemption switched", &[("/sys/kernel/debug/sched/preempt", "full")])
            },
            // Nothing is recorded, which does not change the text, and would take most of the time.
            state(
                "events on",
                &[
                    ("/sys/kernel/tracing/tracing_on", "0"),
                    ("/sys/kernel/tracing/events/enable", "1"),
                ],
            ),
            state(
                "one function traced",
                &[
                    ("/sys/kernel/tracing/set_ftrace_filter", "vfs_read\n"),
                    ("/sys/kernel/tracing/current_tracer", "function"),
                ],
            ),
            state(
                "all functions traced",
                &[
                    ("/sys/kernel/tracing/set_ftrace_filter", "!vfs_read\n"),
                    ("/sys/kernel/tracing/current_tracer", "function"),
                ],
            ),
            state("call graph traced", &[("/sys/kernel/tracing/current_tracer", "function_graph")]),
        ],
    },
    Boot { append: "", states: &[State { probed: Some("do_shmat"), ..state("a probe set", &[]) }] },
    Boot { append: "nosmp", states: &[state("nosmp", &[])] },
    Boot { append: "mitigations=off", states: &[state("mitigations=off", &[])] },
    Boot { append: "retbleed=off", states: &[state("retbleed=off", &[])] },
    Boot {
        append: "retbleed=auto spectre_v2=on",
        states: &[state("retbleed=auto spectre_v2=on", &[])],
    },
];

/// What `splice verify` said of a state.
struct Said {
    name: &'static str,
    /// Symbols of the text that are proven, and how many there are.
    proven: (u64, u64),
    /// Functions that are not the units' code.
    foreign: BTreeSet<String>,
    /// Symbols that some unit has code for, but that are not proven, with the reasons.
    unproven: Vec<(String, String)>,
    /// Symbols that no unit has code for.
    unknown: u64,
}

/// Which states are entered.
#[derive(Clone, Copy)]
pub enum Which {
    /// Those of the first boot: one command line.
    FirstBoot,
    /// All.
    All,
}

/// Brings a kernel into each state and verifies it by these units, or by all that are compiled. True
/// if nothing was called foreign that is not.
pub fn run(lab: &Lab, units: &[PathBuf], which: Which) -> Result<bool> {
    let image = &lab.image;
    println!("{}:", image.release);
    let mut fine = true;
    let mut first: Option<BTreeSet<String>> = None;
    let count = match which {
        Which::FirstBoot => 1,
        Which::All => BOOTS.len(),
    };
    for boot in BOOTS.iter().take(count) {
        let contents = Contents { append: boot.append, ..Contents::default() };
        let mut guest = Guest::boot(lab, image, &contents)?;
        for state in boot.states {
            let missing = state.writes.iter().find(|(file, _)| guest.machine.read(file).is_err());
            if let (true, Some((file, _))) = (state.optional, missing) {
                println!("  {:<28} not to be had: {} has no {file}", state.name, image.release);
                continue;
            }
            enter(&mut guest, state).with_context(|| state.name)?;
            let answer = verify(lab, image, &mut guest, units).with_context(|| state.name)?;
            let said = Said::read(state.name, &answer)?;
            fine &= said.judge(state.probed, first.as_ref());
            first.get_or_insert_with(|| said.unproven.iter().map(|(s, _)| s.clone()).collect());
        }
        guest.machine.power_off()?;
    }
    Ok(fine)
}

fn enter(guest: &mut Guest, state: &State) -> Result<()> {
    for (file, text) in state.writes {
        guest.machine.write(file, text).with_context(|| format!("{text:?} to {file}"))?;
    }
    // Old events would fill the log of a kernel that prints its trace.
    guest.machine.write(&format!("{TRACING}/trace"), "0")?;
    match state.probed {
        Some(function) => guest.set_breakpoint(function),
        None => Ok(()),
    }
}

fn verify(lab: &Lab, image: &Image, guest: &mut Guest, units: &[PathBuf]) -> Result<Answer> {
    let place = tempfile::tempdir_in(lab.work.path())?;
    snapshot::take(&mut guest.machine, place.path())?;
    let (core, symbols) = (place.path().join("core"), place.path().join("kallsyms"));
    let (core, symbols) = (core.to_string_lossy(), symbols.to_string_lossy());
    let units: Vec<_> = units.iter().map(|path| path.to_string_lossy()).collect();
    let mut words = vec!["verify", "--snapshot", &core, "--symbols", &symbols];
    if units.is_empty() {
        words.extend(["--release", &image.release]);
    }
    words.extend(units.iter().map(AsRef::as_ref));
    lab.splice(&words)
}

impl Said {
    fn read(name: &'static str, answer: &Answer) -> Result<Self> {
        let json = &answer.json;
        let number = |key: &str| json.get(key).and_then(Value::as_u64).context("no number");
        let list = |key: &str| json.get(key).and_then(Value::as_array).context("no list");
        let text = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let Ok(foreign) = list("foreign") else {
            bail!("{} says nothing: {}", answer.what, answer.explanation())
        };
        let (known, unknown): (Vec<&Value>, Vec<&Value>) = list("unexplained")?
            .iter()
            .partition(|one| one.get("why").is_some_and(|w| !w.is_null()));
        Ok(Self {
            name,
            proven: (number("proven")?, number("symbols")?),
            foreign: foreign.iter().map(|one| text(one, "function")).collect(),
            unproven: known.iter().map(|one| (text(one, "symbol"), text(one, "why"))).collect(),
            unknown: unknown.len() as u64,
        })
    }

    /// Prints what was said; whether it is true.
    fn judge(&self, probed: Option<&str>, first: Option<&BTreeSet<String>>) -> bool {
        let (proven, symbols) = self.proven;
        let share = proven as f64 * 100.0 / symbols.saturating_sub(self.unknown).max(1) as f64;
        println!(
            "  {:<28} {proven} of {symbols} symbols proven, {share:.2} % of those with code; {} \
             foreign, {} not proven, {} without code",
            self.name,
            self.foreign.len(),
            self.unproven.len(),
            self.unknown
        );
        let allowed: BTreeSet<String> = probed.map(str::to_owned).into_iter().collect();
        let mut fine = self.foreign == allowed;
        for function in self.foreign.symmetric_difference(&allowed) {
            println!("    wrong: {function}");
        }
        for (symbol, why) in &self.unproven {
            let new = first.is_none_or(|first| !first.contains(symbol));
            if new && Some(symbol.as_str()) != probed {
                println!("    not proven: {symbol}: {why}");
                // What was not proven before anything was switched is no question of the state.
                fine &= first.is_none();
            }
        }
        fine && proven > 0
    }
}

/// The directories of the source whose units stand for all in a test: 157 units.
pub const SAMPLE: [&str; 7] =
    ["arch/x86/lib", "block", "io_uring", "ipc", "kernel/locking", "kernel/sched", "kernel/time"];

/// Compiles the units of these directories of the source; where each directory's objects are.
pub fn sample(lab: &Lab, directories: &[&str]) -> Result<Vec<PathBuf>> {
    let wanted: Vec<String> =
        directories.iter().map(|directory| format!("--units={directory}")).collect();
    let mut words = vec!["prepare", "--release", &lab.kernel.release];
    words.extend(wanted.iter().map(String::as_str));
    let answer = lab.splice(&words)?.success()?;
    let place = answer.json.get("units").and_then(Value::as_str).context("no units")?;
    let place = Path::new(place);
    ensure!(place.is_dir(), "{} is no directory", place.display());
    Ok(directories.iter().map(|directory| place.join(directory)).collect())
}
