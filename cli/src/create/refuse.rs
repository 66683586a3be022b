// SPDX-License-Identifier: GPL-2.0-or-later
//! Refusals: what stands against the change, but for what the user accepts.

use splice_core::diff::{Accept, Objection};

use crate::exit::{Exit, Failure};

pub(super) fn refuse(objections: &[Objection]) -> Failure {
    let mut text = String::from("this change cannot be put into a running kernel:");
    for objection in objections {
        text.push_str(&format!("\n  {}: {}", objection.what, objection.why));
        text.push_str(&format!("\n    way out: {}", objection.ways()));
    }
    Failure::new(Exit::Refused, text).with(objections)
}

/// Refuses if an objection is left that the user has not accepted.
pub(super) fn unless_accepted(
    mut objections: Vec<Objection>,
    accepted: &[Accept],
) -> Result<(), Failure> {
    objections.retain(|o| !o.accept.as_ref().is_some_and(|accept| accepted.contains(accept)));
    if objections.is_empty() { Ok(()) } else { Err(refuse(&objections)) }
}
