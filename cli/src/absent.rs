// SPDX-License-Identifier: GPL-2.0-or-later
//! Targets that are not in the kernel: modules that are not loaded. An update goes on with the others,
//! and says so.

use std::fmt;

use serde::Serialize;
use splice_core::arch::KernelView;
use splice_core::plan::{self, Values};
use splice_core::runpre::{Refusal, Snapshot};
use splice_core::update::{Manifest, Update};

use crate::exit::{Exit, Failure};

/// What is to be done about a module that is not loaded.
const ADVICE: &str = "it is not loaded, and what is on disk is the old module still: load it before the \
                      update is applied, or have the fixed one loaded (splice create --modules)";

/// A target that is left out.
#[derive(Debug, Serialize)]
pub(crate) struct LeftOut {
    /// The module.
    target: String,
    /// Why, and what to do.
    why: &'static str,
}

impl LeftOut {
    pub(crate) fn all(targets: &[String]) -> Vec<LeftOut> {
        targets.iter().map(|target| LeftOut { target: target.clone(), why: ADVICE }).collect()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.why)
    }
}

/// Refuses new code that needs a symbol which the kernel does not have without the modules that are
/// left out. Where the kernel's list has no data, its loader refuses that in the end.
pub(crate) fn needed(
    update: &Update,
    manifest: &Manifest,
    values: &[Values],
    (left_out, snapshot): (&[String], &Snapshot),
) -> Result<(), Failure> {
    if left_out.is_empty() || snapshot.addresses("init_task").is_empty() {
        return Ok(());
    }
    for (target, values) in manifest.targets.iter().zip(values) {
        let module = update.file(&target.module).map_err(Failure::from_error)?;
        let open = plan::undefined(module).map_err(Failure::from_error)?;
        let missing: Vec<&String> = open
            .iter()
            .filter(|name| !plan::CORE_EXPORTS.contains(&name.as_str()))
            .filter(|name| !values.symbols.contains_key(*name))
            .filter(|name| snapshot.addresses(name).is_empty())
            .collect();
        if let Some(name) = missing.first() {
            return Err(missed(&target.name, name, left_out));
        }
    }
    Ok(())
}

/// A refusal, with the reason that it probably has.
pub(crate) fn refused(refusal: &Refusal, left_out: &[String]) -> Option<Failure> {
    match refusal {
        Refusal::NoSymbol { name, .. } if !left_out.is_empty() => {
            Some(missed("what is there", name, left_out))
        }
        _ => None,
    }
}

fn missed(target: &str, name: &str, left_out: &[String]) -> Failure {
    let text = format!(
        "the new code for {target} needs {name}, which is not in the kernel and may be a part of what is \
         not loaded: {}; load that first",
        left_out.join(", ")
    );
    Failure::new(Exit::Mismatch, text)
}
