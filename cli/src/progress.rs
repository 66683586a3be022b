// SPDX-License-Identifier: GPL-2.0-or-later
//! Progress on a terminal, and the time that each phase took.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value};

/// A phase that runs: a line on a terminal, nothing elsewhere.
pub(crate) struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Begins.
    pub(crate) fn new(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar }
    }

    /// Says what it is at now.
    pub(crate) fn at(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Times of the phases of a command, in order; as JSON, milliseconds by name.
#[derive(Debug)]
pub(crate) struct Phases {
    began: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    /// Begins the first phase.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), done: Vec::new() }
    }

    /// Ends a phase and begins the next.
    pub(crate) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.done.push((name, now - self.began));
        self.began = now;
    }
}

impl std::fmt::Display for Phases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (name, time)) in self.done.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {:.2} s", time.as_secs_f64())?;
        }
        Ok(())
    }
}

impl Serialize for Phases {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let map: Map<String, Value> =
            self.done.iter().map(|(n, t)| ((*n).to_owned(), millis(t).into())).collect();
        map.serialize(serializer)
    }
}
