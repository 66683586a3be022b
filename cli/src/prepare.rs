// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice prepare`: a kernel to build updates for.

use serde::Serialize;
use splice_core::arch::Arch;

use crate::args::PrepareArgs;
use crate::exit::Failure;
use crate::kernel::{self, Origin, Wish};
use crate::link;
use crate::output::Output;
use crate::progress::Step;

#[derive(Serialize)]
struct Prepared {
    release: String,
    arch: String,
    compiler: String,
    origin: String,
    /// The private source tree.
    tree: String,
    /// Whether it had to be made.
    made: bool,
    /// Where the image's units are, if they are compiled.
    units: Option<String>,
}

pub(crate) fn run(
    arch: &'static dyn Arch,
    args: &PrepareArgs,
    output: &Output,
) -> Result<(), Failure> {
    let origin = match (&args.source, &args.config) {
        (Some(source), Some(config)) => {
            Origin::Given { source, config, symvers: args.symvers.as_deref() }
        }
        _ => Origin::Packages,
    };
    let wish = Wish {
        release: args.release.as_deref(),
        origin,
        any_compiler: args.any_compiler,
        again: args.again,
        jobs: jobs(args.jobs),
    };
    let step = Step::new("looking");
    let mut note = |text: &str| {
        step.at(text);
        output.detail(text);
    };
    let (tree, made) = kernel::prepare(arch, &wish, &mut note)?;
    // Every update for this kernel holds it.
    link::core(&tree, &mut note)?;
    let units = match args.units.as_slice() {
        [] => kernel::compiled_image(&tree).map(|units| units.root),
        directories => Some(kernel::compile_image(&tree, directories, jobs(args.jobs), &mut note)?),
    };
    drop(step);
    let facts = &tree.facts;
    let prepared = Prepared {
        release: facts.release.clone(),
        arch: facts.arch.clone(),
        compiler: facts.compiler.clone(),
        origin: facts.origin.clone(),
        tree: tree.source().display().to_string(),
        made,
        units: units.map(|path| path.display().to_string()),
    };
    output.result(&prepared, || {
        let units = prepared.units.as_ref().map(|path| format!("\n  units     {path}"));
        format!(
            "{} is {}\n  from      {}\n  compiler  {}\n  tree      {}{}",
            prepared.release,
            if made { "ready" } else { "ready already" },
            prepared.origin,
            prepared.compiler,
            prepared.tree,
            units.unwrap_or_default()
        )
    });
    Ok(())
}

/// How many jobs to run in parallel.
pub(crate) fn jobs(wanted: Option<usize>) -> usize {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or(all).max(1)
}
