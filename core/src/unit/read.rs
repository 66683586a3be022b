// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading an ELF relocatable object.

use super::{Unit, UnitError};

impl Unit {
    /// Reads the object `bytes`; `name` is for messages.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Unit, UnitError> {
        let _ = bytes;
        Err(UnitError::Malformed { unit: name.into(), why: "not written yet".into() })
    }
}
