// SPDX-License-Identifier: GPL-2.0-or-later
//! All architectures of a run: those compiled in and those that plugins bring.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use splice_core::arch::Arch;

use crate::{Note, Origin, PluginError, Search, file, library};

/// A plugin that was found. Nothing of it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is for.
    pub note: Note,
    /// The file as it was named or found.
    pub path: PathBuf,
    /// How it was come by.
    pub origin: Origin,
    real: PathBuf,
}

/// The architectures that are compiled in and the plugins that were found.
pub struct Plugins {
    builtin: Vec<&'static dyn Arch>,
    found: Vec<Found>,
    errors: Vec<PluginError>,
    loaded: Mutex<Vec<(PathBuf, &'static dyn Arch)>>,
}

impl Plugins {
    /// Looks for plugins without running any. `builtin` is usually
    /// [`splice_core::arch::all`]. Fails if a file that the user named is not a usable plugin;
    /// what is wrong with files in directories is in [`Plugins::errors`].
    pub fn find(search: &Search, builtin: Vec<&'static dyn Arch>) -> Result<Plugins, PluginError> {
        let (candidates, errors) = search.candidates();
        let mut plugins = Plugins { builtin, found: Vec::new(), errors, loaded: Mutex::default() };
        for (origin, path) in candidates {
            match plugins.candidate(origin, path) {
                Ok(()) => {}
                Err(e) if origin == Origin::Explicit => return Err(e),
                Err(e) => plugins.errors.push(e),
            }
        }
        Ok(plugins)
    }

    fn candidate(&mut self, origin: Origin, path: PathBuf) -> Result<(), PluginError> {
        let (real, note) = file::inspect(&path)?;
        // The same file by another way is no second plugin.
        if self.found.iter().any(|f| f.real == real) {
            return Ok(());
        }
        let other = self
            .builtin
            .iter()
            .find(|a| a.name() == note.name || a.e_machine() == note.e_machine)
            .map(|_| "splice itself".to_owned())
            .or_else(|| {
                let same = |n: &Note| n.name == note.name || n.e_machine == note.e_machine;
                self.found.iter().find(|f| same(&f.note)).map(|f| f.path.display().to_string())
            });
        if let Some(other) = other {
            let Note { name, e_machine } = note;
            return Err(PluginError::Duplicate { path, name, e_machine, other });
        }
        self.found.push(Found { note, path, origin, real });
        Ok(())
    }

    /// The plugins that were found, in the order of the search.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// The architectures that are compiled in.
    pub fn builtin(&self) -> &[&'static dyn Arch] {
        &self.builtin
    }

    /// What is wrong with files and directories of the search path, in its order. None of it
    /// stands in the way of the rest.
    pub fn errors(&self) -> &[PluginError] {
        &self.errors
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.builtin.iter().map(|a| a.name()).collect();
        names.extend(self.found.iter().map(|f| f.note.name.as_str()));
        names.sort_unstable();
        names
    }

    /// The architecture of that name, loaded if need be; `None` if nobody provides it.
    pub fn by_name(&self, name: &str) -> Result<Option<&'static dyn Arch>, PluginError> {
        self.get(|a| a.name() == name, |n| n.name == name)
    }

    /// The architecture of that ELF machine number, loaded if need be; `None` if nobody provides
    /// it.
    pub fn by_machine(&self, e_machine: u16) -> Result<Option<&'static dyn Arch>, PluginError> {
        self.get(|a| a.e_machine() == e_machine, |n| n.e_machine == e_machine)
    }

    /// A plugin that was found, loaded if need be.
    pub fn load(&self, found: &Found) -> Result<&'static dyn Arch, PluginError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, arch)) = loaded.iter().find(|(path, _)| *path == found.real) {
            return Ok(*arch);
        }
        let arch = library::load_inspected(&found.path, &found.real, &found.note)?;
        loaded.push((found.real.clone(), arch));
        Ok(arch)
    }

    fn get(
        &self,
        builtin: impl Fn(&dyn Arch) -> bool,
        plugin: impl Fn(&Note) -> bool,
    ) -> Result<Option<&'static dyn Arch>, PluginError> {
        if let Some(arch) = self.builtin.iter().find(|a| builtin(**a)) {
            return Ok(Some(*arch));
        }
        match self.found.iter().find(|f| plugin(&f.note)) {
            Some(found) => self.load(found).map(Some),
            None => Ok(None),
        }
    }
}
