// SPDX-License-Identifier: GPL-2.0-or-later
//! What stands against a change: the thing, the reason, the way out, and, where the user may know
//! better, the name by which `--accept` takes it.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Something that cannot be put into a running kernel as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Objection {
    /// The very thing.
    pub what: String,
    /// Why not.
    pub why: String,
    /// What to do; [`Objection::ways`] adds what may be accepted.
    pub way_out: String,
    /// What the user would have to accept so that this stands no longer; nothing helps if it is
    /// absent.
    pub accept: Option<Accept>,
}

impl Objection {
    /// An objection that nothing but another patch removes.
    pub fn new(
        what: impl Into<String>,
        why: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Objection {
        Objection { what: what.into(), why: why.into(), way_out: way_out.into(), accept: None }
    }

    /// The same, but the user may accept it.
    #[must_use]
    pub fn or_accept(self, kind: AcceptKind, name: impl Into<String>) -> Objection {
        Objection { accept: Some(Accept { kind, name: name.into() }), ..self }
    }

    /// Every way out, in words.
    pub fn ways(&self) -> String {
        match &self.accept {
            None => self.way_out.clone(),
            Some(accept) => {
                format!("{}; or say --accept {accept} {}", self.way_out, accept.kind.condition())
            }
        }
    }
}

/// What a user may accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AcceptKind {
    /// Replace a function that some thread is always in.
    Busy,
    /// Leave out a change of what runs, or is read, only at the start or the end.
    Init,
    /// Keep to an exported symbol whose version changed.
    Export,
    /// Use a structure whose layout changed.
    Struct,
    /// Use an enumeration whose values changed.
    Enum,
    /// Leave out a change of an object's contents.
    Data,
}

impl AcceptKind {
    const ALL: [AcceptKind; 6] = [
        AcceptKind::Busy,
        AcceptKind::Init,
        AcceptKind::Export,
        AcceptKind::Struct,
        AcceptKind::Enum,
        AcceptKind::Data,
    ];

    /// What stands before the name, with a colon; nothing for [`AcceptKind::Busy`].
    fn prefix(self) -> &'static str {
        match self {
            AcceptKind::Busy => "",
            AcceptKind::Init => "init",
            AcceptKind::Export => "export",
            AcceptKind::Struct => "struct",
            AcceptKind::Enum => "enum",
            AcceptKind::Data => "data",
        }
    }

    /// When it is right to accept it.
    fn condition(self) -> &'static str {
        match self {
            AcceptKind::Busy => "if you know better",
            AcceptKind::Init => "to leave it out, if the rest of the fix is right without it",
            AcceptKind::Export => "if you know that no module notices the difference",
            AcceptKind::Struct => {
                "if you know that no object of the old layout meets code that expects the new one"
            }
            AcceptKind::Enum => "if you know that no object holds a value that now means another",
            AcceptKind::Data => "to leave it as it is, if the rest of the fix is right without it",
        }
    }
}

/// One thing that the user accepts: `NAME`, or `KIND:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accept {
    /// In which respect.
    pub kind: AcceptKind,
    /// The very thing: a function, an object, a symbol, a structure.
    pub name: String,
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.prefix() {
            "" => f.write_str(&self.name),
            prefix => write!(f, "{prefix}:{}", self.name),
        }
    }
}

impl Serialize for Accept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Accept {
    type Err = String;

    fn from_str(text: &str) -> Result<Accept, String> {
        let (kind, name) = match text.split_once(':') {
            None => (AcceptKind::Busy, text),
            Some((prefix, name)) => {
                let mut kinds = AcceptKind::ALL.into_iter().filter(|kind| kind.prefix() != "");
                let known: Vec<&str> = kinds.clone().map(AcceptKind::prefix).collect();
                let kind = kinds.find(|kind| kind.prefix() == prefix).ok_or_else(|| {
                    format!("what can be accepted is a NAME, or {}:NAME", known.join(":NAME, "))
                })?;
                (kind, name)
            }
        };
        if name.is_empty() {
            return Err("it names nothing".into());
        }
        Ok(Accept { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_may_be_accepted() {
        for kind in AcceptKind::ALL {
            let objection = Objection::new("f", "it is so", "do otherwise").or_accept(kind, "f");
            let accept = objection.accept.clone().unwrap();
            assert_eq!(accept.to_string().parse(), Ok(accept.clone()));
            assert!(objection.ways().contains(&format!("--accept {accept} ")), "{kind:?}");
        }
    }

    #[test]
    fn nothing_else_is_accepted() {
        for text in ["", "init:", "everything:f", ":f"] {
            assert!(text.parse::<Accept>().is_err(), "{text}");
        }
        let bare: Accept = "worker_thread".parse().unwrap();
        assert_eq!(bare, Accept { kind: AcceptKind::Busy, name: "worker_thread".into() });
    }
}
