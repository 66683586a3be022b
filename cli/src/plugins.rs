// SPDX-License-Identifier: GPL-2.0-or-later
//! Which architecture a command works for: one that is compiled in, or a plugin's; and
//! `splice plugins`.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;
use splice_core::arch::Arch;
use splice_plugin_host::{Plugins, Search};

use crate::args::{PluginsArgs, PluginsCommand};
use crate::exit::{Exit, Failure};
use crate::output::Output;

fn find(files: &[PathBuf]) -> Result<Plugins, Failure> {
    let search = Search::from_environment(files.to_vec());
    Plugins::find(&search, splice_core::arch::all()).map_err(Failure::from_error)
}

/// The backend that was asked for, or the one for the machine that this runs on.
pub(crate) fn arch(name: Option<&str>, files: &[PathBuf]) -> Result<&'static dyn Arch, Failure> {
    let wanted = name.unwrap_or(std::env::consts::ARCH);
    let plugins = find(files)?;
    plugins.by_name(wanted).map_err(Failure::from_error)?.ok_or_else(|| {
        let text = format!(
            "there is no architecture {wanted}; this splice knows {} (others come as plugins: see \
             splice plugins --help)",
            plugins.names().join(", ")
        );
        Failure::new(Exit::Usage, text)
    })
}

#[derive(Serialize)]
struct Architecture {
    name: String,
    e_machine: u16,
    /// The plugin's file; none if it is compiled in.
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct List {
    architectures: Vec<Architecture>,
    /// Files that look like plugins and cannot be used, each with the reason.
    unusable: Vec<String>,
}

pub(crate) fn run(args: &PluginsArgs, files: &[PathBuf], output: &Output) -> Result<(), Failure> {
    match &args.command {
        PluginsCommand::List => list(files, output),
        PluginsCommand::Check { file } => {
            let arch = splice_plugin_host::load(file).map_err(Failure::from_error)?;
            let one = Architecture {
                name: arch.name().to_owned(),
                e_machine: arch.e_machine(),
                file: Some(file.clone()),
            };
            output.result(&one, || {
                format!(
                    "{} can be used: {} (ELF machine {})",
                    file.display(),
                    one.name,
                    one.e_machine
                )
            });
            Ok(())
        }
    }
}

fn list(files: &[PathBuf], output: &Output) -> Result<(), Failure> {
    let plugins = find(files)?;
    let builtin = plugins.builtin().iter().map(|arch| Architecture {
        name: arch.name().to_owned(),
        e_machine: arch.e_machine(),
        file: None,
    });
    let found = plugins.found().iter().map(|found| Architecture {
        name: found.note.name.clone(),
        e_machine: found.note.e_machine,
        file: Some(found.path.clone()),
    });
    let list = List {
        architectures: builtin.chain(found).collect(),
        unusable: plugins.errors().iter().map(ToString::to_string).collect(),
    };
    output.result(&list, || {
        let mut text = String::new();
        for one in &list.architectures {
            let from = match &one.file {
                Some(file) => file.display().to_string(),
                None => "compiled in".to_owned(),
            };
            let _ = writeln!(text, "{:<12} {from}", one.name);
        }
        for why in &list.unusable {
            let _ = writeln!(text, "unusable     {why}");
        }
        text
    });
    Ok(())
}
