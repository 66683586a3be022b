// SPDX-License-Identifier: GPL-2.0-or-later
//! What a command prints: its result on standard output, as text or as JSON; everything else on
//! standard error.

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::Format;
use crate::exit::Failure;

/// Version of every JSON document; it changes when a field goes or changes its meaning.
const VERSION: u32 = 1;

/// Where results go.
pub(crate) struct Output {
    format: Format,
    verbose: u8,
}

impl Output {
    pub(crate) fn new(format: Format, verbose: u8) -> Self {
        Self { format, verbose }
    }

    /// Prints a command's result.
    pub(crate) fn result(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        match self.format {
            Format::Text => {
                let text = text();
                let text = text.trim_end_matches('\n');
                if !text.is_empty() {
                    self.document(format!("{text}\n").as_bytes());
                }
            }
            Format::Json => self.json(serde_json::to_value(value).unwrap_or_default()),
        }
    }

    fn json(&self, value: Value) {
        let value = match value {
            Value::Object(fields) => {
                let mut all = Map::new();
                all.insert("version".into(), VERSION.into());
                all.extend(fields);
                Value::Object(all)
            }
            other => json!({ "version": VERSION, "result": other }),
        };
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        text.push('\n');
        self.document(text.as_bytes());
    }

    /// Prints something as it is.
    pub(crate) fn document(&self, bytes: &[u8]) {
        // Whoever closes the pipe has seen enough.
        let _ = std::io::stdout().write_all(bytes);
    }

    /// What a person should know now.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// What a person gets to know who asked for more.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose > 0 {
            self.note(text);
        }
    }

    /// Says why a command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.reported {
            return;
        }
        self.note(&format!("splice: {}", failure.text));
        if let Format::Json = self.format {
            let mut error = json!({ "exit": failure.exit as u8, "message": failure.text });
            if let (Some(map), Some(details)) = (error.as_object_mut(), &failure.details) {
                map.insert("details".into(), details.clone());
            }
            self.json(json!({ "error": error }));
        }
    }
}
