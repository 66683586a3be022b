// SPDX-License-Identifier: GPL-2.0-or-later
//! `splice list` and `splice status`: what the kernel side tells.

use std::fmt;

use super::sysfs::{State, Sysfs};
use super::{LiveError, Status};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Loaded => "loaded, without effect",
            State::Applied => "applied",
        })
    }
}

impl Status {
    /// Whether it is in effect, and where not.
    pub(super) fn summary(&self) -> String {
        let mut text = self.state.to_string();
        for missed in &self.left_out {
            let now = if missed.is_loaded { " (loaded now)" } else { "" };
            text.push_str(&format!(", without {}{now}", missed.target));
        }
        text
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.id, self.state)?;
        writeln!(f, "  description  {}", self.description)?;
        writeln!(f, "  modules      {}", self.modules.join(", "))?;
        if !self.targets.is_empty() {
            writeln!(f, "  targets      {}", self.targets.join(", "))?;
        }
        for missed in &self.left_out {
            writeln!(f, "  left out     {missed}")?;
        }
        if !self.stands_on.is_empty() {
            writeln!(f, "  stands on    {}", self.stands_on.join(", "))?;
        }
        writeln!(
            f,
            "  last switch  {} attempts so far, {} threads, machine stopped for {:.3} ms",
            self.attempts,
            self.threads,
            self.pause_ns as f64 / 1e6
        )?;
        write!(f, "  sites        {}", self.sites.len())?;
        for site in &self.sites {
            write!(f, "\n    {} -> {}", site.old, site.new)?;
        }
        if !self.objects.is_empty() {
            write!(f, "\n  data         {}", self.objects.len())?;
        }
        for object in &self.objects {
            write!(f, "\n    {} {} ({} bytes)", object.address, object.name, object.size)?;
        }
        if !self.error.is_empty() {
            write!(f, "\n  last error   {}", self.error)?;
        }
        for conflict in &self.conflicts {
            write!(f, "\n    {conflict}")?;
        }
        Ok(())
    }
}

/// All updates in the kernel, by id.
pub(crate) fn list() -> Result<Vec<Status>, LiveError> {
    let sysfs = Sysfs::default();
    let mut all = Vec::new();
    for id in sysfs.ids()? {
        // One may go while this looks.
        all.extend(sysfs.status(&id)?);
    }
    Ok(all)
}

/// One update.
pub(crate) fn status(id: &str) -> Result<Status, LiveError> {
    let sysfs = Sysfs::default();
    match sysfs.status(id)? {
        Some(status) => Ok(status),
        None => Err(LiveError::NotApplied { id: id.to_owned(), others: sysfs.ids()? }),
    }
}
