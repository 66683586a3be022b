// SPDX-License-Identifier: GPL-2.0-or-later
//! The lab's command: boots stock kernels in throw-away virtual machines and runs the end-to-end
//! suites in them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use splice_cli::kernel::Kernel;
use splice_lab::build::Programs;
use splice_lab::corpus::Choice;
use splice_lab::initramfs::{Initramfs, ModuleDirectory};
use splice_lab::packages::{Cache, kernel, kernels};
use splice_lab::protocol::Request;
use splice_lab::session::Lab;
use splice_lab::vm::{Machine, Options};
use splice_lab::{
    checked, checkpatch, corpus, cost, demo, exploit, faults, fixes, kill, line, pause, snapshot,
    soak, states, suite,
};

#[derive(Parser)]
#[command(name = "splice-lab", about = "Throw-away virtual machines for splice's end-to-end tests")]
struct Arguments {
    /// On a kernel that checks every access and every lock, which is built first: over an hour, once.
    #[arg(long, global = true)]
    checked: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A real fix onto a stock, running, busy kernel, off again and on again.
    Demo,
    /// Real fixes through create, check, apply and undo; prints a table. What was found out is kept: a
    /// run that was stopped goes on from there when it is started again.
    Corpus {
        /// Only so many of the manifest's fixes; without this, all of them, and at the end all at once.
        #[arg(long)]
        limit: Option<usize>,
        /// The patches of this directory instead of the manifest's fixes.
        #[arg(long, conflicts_with = "limit")]
        patches: Option<PathBuf>,
        /// Write the result as a page to this file.
        #[arg(long)]
        page: Option<PathBuf>,
    },
    /// Run the exercises of the kernel's parts, which go on beside the corpus' updates, without any update.
    Exercise {
        /// Names of those that are wanted.
        names: Vec<String>,
    },
    /// Bugs of the corpus triggered before their fix, with it, and after it was taken back.
    Exploit {
        /// Only those whose fix has this word in its name.
        filter: Option<String>,
    },
    /// One update on and off many times, under load.
    Soak {
        /// Kernel release; by default the one that most tests run on.
        #[arg(long)]
        release: Option<String>,
        /// How many times.
        #[arg(long, default_value_t = 200)]
        cycles: usize,
        /// On so many processors.
        #[arg(long, default_value_t = 2)]
        cpus: u32,
        /// With tracers, probes, processors, modules and more coming and going.
        #[arg(long)]
        unrest: bool,
    },
    /// What a call of a patched function takes, against an unpatched and a livepatched one, and the memory
    /// of an update.
    Cost {
        /// Kernel release, one with livepatch.
        #[arg(long)]
        release: Option<String>,
    },
    /// Every allocation that the kernel makes for `apply` and `undo` fails once, on the checked kernel.
    Faults,
    /// `apply` and `undo` killed at random moments.
    Kill {
        /// How many.
        #[arg(long, default_value_t = 200)]
        times: u32,
    },
    /// How long a switch stops the machine, by processors and threads, against an empty stop.
    Pause {
        /// Kernel release; by default the one that most tests run on.
        #[arg(long)]
        release: Option<String>,
    },
    /// Every end-to-end test, or those whose name contains a word.
    Test {
        /// The word.
        filter: Option<String>,
    },
    /// The kernel's own style checker over the C files of a directory.
    Checkpatch {
        /// The directory.
        directory: PathBuf,
    },
    /// Boot a stock kernel, run a command in it, switch it off.
    Boot {
        /// Kernel release; the newest that apt offers if absent.
        #[arg(long)]
        release: Option<String>,
        /// The command; a probe if absent.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Boot a stock kernel and save its text, symbols and module list to a directory.
    Snapshot {
        /// Kernel release; the newest that apt offers if absent.
        #[arg(long)]
        release: Option<String>,
        /// Modules to load first.
        #[arg(long = "module")]
        modules: Vec<String>,
        /// The directory.
        directory: PathBuf,
    },
    /// Hold a stock kernel's text, in each state that it can be in, against all its units, which
    /// `splice prepare --units` has compiled.
    Verify {
        /// Kernel release.
        #[arg(long)]
        release: String,
        /// Objects or directories of them, instead.
        units: Vec<PathBuf>,
    },
    /// Another line or flavour of kernels from end to end: what a newer source package changes, and
    /// a sample of its text in each state.
    Line {
        /// Kernel release; the newest of 6.12 with a newer source if absent.
        #[arg(long)]
        release: Option<String>,
        /// Only so many changed files.
        #[arg(long)]
        limit: Option<usize>,
        /// Directories of the source whose units are verified.
        #[arg(long = "units", default_values_t = line::UNITS.map(str::to_owned))]
        units: Vec<String>,
    },
    /// Print a fix of the manifest as a patch.
    Patch {
        /// Its id, or `all`.
        id: String,
        /// Write each to this directory instead.
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// List the kernels that apt offers with image, headers and source of one version.
    Kernels,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.checked {
        checked::want();
    }
    match run(arguments.what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("splice-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<bool> {
    match what {
        What::Demo => demo::run().map(|()| true),
        What::Corpus { limit, patches, page } => {
            let choice = match (&patches, limit) {
                (Some(directory), _) => Choice::Directory(directory),
                (None, Some(limit)) => Choice::First(limit),
                (None, None) => Choice::All,
            };
            corpus::run(&choice, page.as_deref())
        }
        What::Exercise { names } => corpus::exercise::alone(&names).map(|()| true),
        What::Exploit { filter } => {
            let wanted = |id: &str| filter.as_ref().is_none_or(|word| id.contains(word));
            exploit::run(|fix| wanted(&fix.id)).map(|()| true)
        }
        What::Cost { release } => cost::run(release.as_deref()).map(|()| true),
        What::Faults => faults::run().map(|()| true),
        What::Kill { times } => kill::run(times).map(|()| true),
        What::Soak { release, cycles, cpus, unrest } => {
            soak::run(release.as_deref(), cycles, cpus, unrest).map(|()| true)
        }
        What::Pause { release } => pause::run(release.as_deref()).map(|()| true),
        What::Test { filter } => suite::run(filter),
        What::Checkpatch { directory } => checkpatch::run(&directory),
        What::Kernels => {
            for kernel in kernels()? {
                println!("{} {}", kernel.release, kernel.version);
            }
            Ok(true)
        }
        What::Snapshot { release, modules, directory } => {
            let mut machine = boot(release.as_deref(), &modules)?;
            snapshot::take(&mut machine, &directory)?;
            machine.power_off().map(|()| true)
        }
        What::Verify { release, units } => {
            let lab = Lab::of(find(Some(&release))?)?;
            states::run(&lab, &units, states::Which::All)
        }
        What::Line { release, limit, units } => {
            let limit = limit.unwrap_or(usize::MAX);
            line::run(release.as_deref(), limit, &units, states::Which::All).map(|()| true)
        }
        What::Patch { id, to } => patch(&id, to.as_deref()),
        What::Boot { release, command } => {
            let mut machine = boot(release.as_deref(), &[])?;
            let words: Vec<&str> = match command.as_slice() {
                [] => vec!["/init", "probe", "tcp-attach-filter"],
                words => words.iter().map(String::as_str).collect(),
            };
            let outcome = machine.run_words(&words)?;
            print!("{}{}", outcome.stdout, outcome.stderr);
            machine.check_kernel()?;
            machine.power_off()?;
            Ok(outcome.exit == Some(0))
        }
    }
}

fn patch(id: &str, to: Option<&Path>) -> Result<bool> {
    let cache = Cache::open()?;
    let mut wanted = fixes::manifest()?;
    wanted.retain(|fix| id == "all" || fix.id == id);
    anyhow::ensure!(!wanted.is_empty(), "no fix is called {id}");
    fixes::prefetch(&cache, &wanted)?;
    for fix in &wanted {
        let text = fix.patch(&cache)?;
        match to {
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                std::fs::write(directory.join(format!("{}.patch", fix.id)), text)?;
            }
            None => print!("{text}"),
        }
    }
    Ok(true)
}

/// The kernel of that release, or the newest of the 6.1 line.
fn find(release: Option<&str>) -> Result<Kernel> {
    match release {
        Some(release) => kernel(release),
        None => kernels()?.pop().context("apt offers no kernel"),
    }
}

fn boot(release: Option<&str>, modules: &[String]) -> Result<Machine> {
    let cache = Cache::open()?;
    let kernel = find(release)?;
    let image = cache.image(&kernel.release, &kernel.version)?;
    let programs = Programs::build(image.processor())?;
    let mut initramfs = Initramfs::new(image.processor());
    initramfs.program("init", &programs.init)?;
    let directory = ModuleDirectory::read(&image.modules)?;
    let mut paths = Vec::new();
    for name in modules {
        paths.extend(initramfs.module(&directory, name)?);
    }
    let mut machine = Machine::boot(&Options::new(&image), &initramfs)?;
    machine.ask(&Request::InsertModules { paths })?;
    println!("{} booted in {:.1} s", machine.release, machine.boot_time.as_secs_f64());
    Ok(machine)
}
