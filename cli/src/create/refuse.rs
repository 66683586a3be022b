// SPDX-License-Identifier: GPL-2.0-or-later
//! Refusals: what stands against the change, but for what the user accepts.

use splice_core::diff::{Accept, Objection};

use crate::exit::{Exit, Failure};

/// So many objections are told to a person in full, and so many by what they are about; a struct that
/// grew can have hundreds. Programs are told all.
const TOLD: usize = 8;
const NAMED: usize = 12;

pub(super) fn refuse(objections: &[Objection]) -> Failure {
    let mut text = String::from("this change cannot be put into a running kernel:");
    for objection in objections.iter().take(TOLD) {
        text.push_str(&format!("\n  {}: {}", objection.what, objection.why));
        text.push_str(&format!("\n    way out: {}", objection.ways()));
    }
    let more = objections.get(TOLD..).unwrap_or_default();
    if !more.is_empty() {
        let mut names: Vec<&str> = more.iter().take(NAMED).map(|o| o.what.as_str()).collect();
        if more.len() > NAMED {
            names.push("…");
        }
        text.push_str(&format!(
            "\n  and {} more, which --format json tells in full: {}",
            more.len(),
            names.join(", ")
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_the_first_objections_and_a_program_all() {
        let objections: Vec<Objection> = (0..30)
            .map(|number| Objection {
                what: format!("f{number} in a.o"),
                why: "its version changes".to_owned(),
                way_out: "keep it".to_owned(),
                accept: None,
            })
            .collect();
        let failure = refuse(&objections);
        let text = &failure.text;
        assert!(text.contains("f7 in a.o: its version changes\n    way out: keep it"), "{text}");
        assert!(text.contains("and 22 more") && text.ends_with("f19 in a.o, …"), "{text}");
        let details = failure.details.unwrap();
        assert_eq!(details.as_array().unwrap().len(), 30);
        assert!(!refuse(&objections[..TOLD]).text.contains(" more"));
    }
}
