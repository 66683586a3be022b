// SPDX-License-Identifier: GPL-2.0-or-later
//! The `splice` command line: one module per command, and what they share.
//!
//! [`kernel`] prepares kernel trees and compiles units in them; `create` drives the engine from
//! patches to an update file; `live` changes the running kernel. Every command ends in one of the
//! exit codes of `exit`, with a whole sentence on standard error if it failed.

mod absent;
mod args;
mod check;
mod create;
mod diff;
mod exit;
mod inspect;
pub mod kernel;
mod link;
mod live;
mod output;
mod plugins;
mod prepare;
mod progress;
mod settle;
mod sign;
mod units;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use exit::Failure;
use output::Output;

// Naming a backend's crate is what registers it.
#[cfg(feature = "aarch64")]
use splice_arch_aarch64 as _;
#[cfg(feature = "x86_64")]
use splice_arch_x86_64 as _;

/// Runs the command line that the process was given.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with exit code 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(cli.format, cli.verbose);
    match run(&cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli, output: &Output) -> Result<(), Failure> {
    let arch = || plugins::arch(cli.arch.as_deref(), &cli.plugin);
    match &cli.command {
        Command::Prepare(args) => prepare::run(arch()?, args, output),
        Command::Create(args) => create::run(arch()?, args, output),
        Command::Diff(args) => diff::run(arch()?, args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Check(args) => check::run(arch()?, args, output),
        Command::Verify(args) => verify::run(arch()?, args, output),
        Command::Apply(args) => live::run_apply(arch()?, args, output),
        Command::Undo(args) => live::run_undo(args, output),
        Command::List => live::run_list(output),
        Command::Install(args) => live::run_install(args, output),
        Command::Uninstall(args) => live::run_uninstall(args, output),
        Command::Boot(args) => live::run_boot(arch()?, args, output),
        Command::Status(args) => live::run_status(args, output),
        Command::Plugins(args) => plugins::run(args, &cli.plugin, output),
        Command::Completions(args) => {
            let mut text = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "splice", &mut text);
            output.document(&text);
            Ok(())
        }
        Command::Man => {
            let mut text = Vec::new();
            args::man(&mut text).map_err(Failure::from_error)?;
            output.document(&text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_registry_holds_what_was_compiled_in() {
        let mut expected: Vec<&str> = Vec::new();
        if cfg!(feature = "aarch64") {
            expected.push("aarch64");
        }
        if cfg!(feature = "x86_64") {
            expected.push("x86_64");
        }
        let found: Vec<&str> = splice_core::arch::all().iter().map(|a| a.name()).collect();
        assert_eq!(found, expected);
    }
}
