// SPDX-License-Identifier: GPL-2.0-or-later
//! Why the running kernel is not taken for the code that an update was built from.

use serde::Serialize;

use super::Snapshot;
use super::locate::Refused;
use crate::arch::{Arch, ArchError};
use crate::unit::{SpanId, Unit, UnitError};

/// A refusal. Each names the thing and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Built for another release.
    #[error(
        "the update is for kernel {update}, but {running} is running; create it again with \
         --release {running}"
    )]
    Release {
        /// The update's release.
        update: String,
        /// The snapshot's release.
        running: String,
    },
    /// Nothing of what the update patches is loaded.
    #[error(
        "module {} is not loaded, and the update patches nothing else, so there is nothing to do now; \
         load it first, or have the fixed module loaded from now on (splice create --modules)",
        targets.join(", ")
    )]
    NotLoaded {
        /// The modules.
        targets: Vec<String>,
    },
    /// A byte that no rule explains.
    #[error("{0}")]
    Mismatch(Box<MismatchReport>),
    /// A byte of a data object that is not what the pre unit says.
    #[error("{0}")]
    Data(Box<DataMismatch>),
    /// A data object that is to be replaced is nowhere.
    #[error(
        "{object} of {unit}, which the update replaces, is not to be found in the kernel: no code of \
         its unit refers to it, and the kernel's symbol list does not have it (a list with data \
         needs CONFIG_KALLSYMS_ALL)"
    )]
    NoObject {
        /// The object.
        object: String,
        /// Its unit.
        unit: String,
    },
    /// Several places hold what a data object should.
    #[error(
        "{object} of {unit} may be at any of {}: they hold the same, and no code of its unit tells \
         them apart",
        list(addresses)
    )]
    AmbiguousObject {
        /// The object.
        object: String,
        /// Its unit.
        unit: String,
        /// The places.
        addresses: Vec<u64>,
    },
    /// An applied update has replaced the function with other code.
    #[error(
        "update {update}, which is applied, has replaced {function} of {unit}, and its code is not \
         what this update was built from; build this one on that one's source (splice create --base \
         its patch), undo {update} first, or have all that is applied replaced (splice apply --replace)"
    )]
    Replaced {
        /// The function.
        function: String,
        /// Its unit.
        unit: String,
        /// The update's id.
        update: String,
    },
    /// The update stands on more others than the kernel side can note.
    #[error(
        "this update stands on {count} others ({}), and it may be {max}; undo them and apply one \
         update that holds all", updates.join(", ")
    )]
    TooManyBases {
        /// How many.
        count: usize,
        /// How many it may be.
        max: usize,
        /// Their ids.
        updates: Vec<String>,
    },
    /// No function of that name in the kernel.
    #[error(
        "{function} of {unit} is not in the kernel's symbol list; the kernel was built from \
         other source or by another compiler"
    )]
    NotFound {
        /// The function.
        function: String,
        /// Its unit.
        unit: String,
    },
    /// Several places match and nothing tells them apart.
    #[error(
        "{function} of {unit} may be at any of {}: they have the same code and nothing refers to \
         them that would tell them apart",
        list(addresses)
    )]
    AmbiguousFunction {
        /// The function.
        function: String,
        /// Its unit.
        unit: String,
        /// The places.
        addresses: Vec<u64>,
    },
    /// Every place contradicts what other functions say.
    #[error(
        "where the kernel has the code of {function} of {unit}, the unit's other functions say that it \
         cannot be; the kernel was built from other source, or its code was changed"
    )]
    NoConsistentPlace {
        /// The function.
        function: String,
        /// Its unit.
        unit: String,
    },
    /// Two functions give a symbol different values.
    #[error(
        "{symbol} is at {:#x} after {}, but at {:#x} after {}; the kernel was built from other \
         source, or its code was changed",
        first.1, first.0, second.1, second.0
    )]
    Disagree {
        /// The symbol or section.
        symbol: String,
        /// Who said what first.
        first: (String, u64),
        /// Who said what then.
        second: (String, u64),
    },
    /// A needed symbol is nowhere.
    #[error("{name} (for {link}), which the new code needs, is not to be found in the kernel")]
    NoSymbol {
        /// Its name.
        name: String,
        /// Its name in the update module.
        link: String,
    },
    /// A needed symbol is at several places.
    #[error(
        "{name}, which the new code needs, may be at any of {}, and no matched code refers to it",
        list(addresses)
    )]
    AmbiguousSymbol {
        /// Its name.
        name: String,
        /// The places.
        addresses: Vec<u64>,
    },
    /// Text that cannot be read.
    #[error("{function} at {address:#x} cannot be read in the running kernel")]
    Unreadable {
        /// The function or data object.
        function: String,
        /// Its address.
        address: u64,
    },
    /// A pre object of the update is no good.
    #[error(transparent)]
    Unit(UnitError),
    /// The backend could not answer.
    #[error("{unit}: {source}")]
    Backend {
        /// The unit.
        unit: String,
        /// The backend's error.
        #[source]
        source: ArchError,
    },
    /// A function has no room for a trampoline.
    #[error("{function} of {unit} cannot take a trampoline: {why}")]
    NoRoom {
        /// The function.
        function: String,
        /// Its unit.
        unit: String,
        /// Why.
        why: String,
    },
}

fn list(addresses: &[u64]) -> String {
    addresses.iter().map(|a| format!("{a:#x}")).collect::<Vec<_>>().join(", ")
}

/// Where running text is not the pre code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MismatchReport {
    /// The function.
    pub function: String,
    /// Its unit.
    pub unit: String,
    /// Where the kernel has it.
    pub address: u64,
    /// Offset of the place in the function, in bytes.
    pub offset: u64,
    /// Bytes expected there, in hexadecimal.
    pub expected: String,
    /// Bytes found there, in hexadecimal.
    pub found: String,
    /// The expected bytes, disassembled.
    pub expected_code: Vec<String>,
    /// The bytes found, disassembled.
    pub found_code: Vec<String>,
    /// The nearest rule that failed, and why.
    pub why: String,
    /// Whether a probe is set there just now.
    pub probed: bool,
    /// Where a trampoline that stands at the function's entry leads, if one does.
    pub trampoline: Option<u64>,
    /// Other functions of the name, none of which is the unit's either: the address of each, and the
    /// offset in it of the first byte that is not explained, in bytes.
    pub namesakes: Vec<(u64, u64)>,
}

impl MismatchReport {
    pub(super) fn new(
        (arch, snapshot): (&dyn Arch, &Snapshot),
        unit: &Unit,
        span: SpanId,
        Refused { address, mismatch, .. }: &Refused,
        others: &[&Refused],
    ) -> MismatchReport {
        let address = *address;
        let place = address.wrapping_add(mismatch.offset);
        let diff = arch.diff();
        let span = unit.spans.get(span);
        // What differs may be its first instruction only.
        let mut jump = vec![0; arch.trampoline().template().bytes.len()];
        let jumps = snapshot.memory.read(place, &mut jump);
        MismatchReport {
            function: span.map_or_else(String::new, |s| s.name.clone()),
            unit: unit.name.clone(),
            address,
            offset: mismatch.offset,
            expected: hex(&mismatch.expected),
            found: hex(&mismatch.found),
            expected_code: diff.disassemble(&mismatch.expected, place, 4),
            found_code: diff.disassemble(&mismatch.found, place, 4),
            why: mismatch.why.clone(),
            probed: mismatch.probed,
            trampoline: if jumps { arch.trampoline().recognise(&jump, place) } else { None },
            namesakes: others.iter().map(|o| (o.address, o.mismatch.offset)).collect(),
        }
    }
}

/// Where a running data object is not the pre object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataMismatch {
    /// The object.
    pub object: String,
    /// Its unit.
    pub unit: String,
    /// Where the kernel has it.
    pub address: u64,
    /// Offset of the place in the object, in bytes.
    pub offset: u64,
    /// Bytes expected there, in hexadecimal.
    pub expected: String,
    /// Bytes found there, in hexadecimal.
    pub found: String,
    /// What is wrong.
    pub why: String,
}

impl DataMismatch {
    pub(super) fn new(
        (object, unit): (&str, &str),
        (address, offset): (u64, u64),
        (expected, found): (&[u8], &[u8]),
        why: &str,
    ) -> DataMismatch {
        DataMismatch {
            object: object.to_owned(),
            unit: unit.to_owned(),
            address,
            offset,
            expected: hex(expected),
            found: hex(found),
            why: why.to_owned(),
        }
    }
}

impl std::fmt::Display for DataMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "the running {} ({}) does not hold what the update was built from, at offset {:#x} \
             (address {:#x}): {}",
            self.object,
            self.unit,
            self.offset,
            self.address.wrapping_add(self.offset),
            self.why
        )?;
        writeln!(f, "  expected: {}", self.expected)?;
        writeln!(f, "  found:    {}", self.found)?;
        write!(
            f,
            "  is another update of it applied? (splice list) If not, create the update again from \
             the running kernel's own source and compiler"
        )
    }
}

/// How many functions of a refused one's name its report tells of in words.
const NAMESAKES: usize = 4;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

impl std::fmt::Display for MismatchReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "the running {} ({}) is not the code that the update was built from, at offset \
             {:#x} (address {:#x}): {}",
            self.function,
            self.unit,
            self.offset,
            self.address.wrapping_add(self.offset),
            self.why
        )?;
        writeln!(f, "  expected: {:<32} {}", self.expected, self.expected_code.join("; "))?;
        writeln!(f, "  found:    {:<32} {}", self.found, self.found_code.join("; "))?;
        for (address, offset) in self.namesakes.iter().take(NAMESAKES) {
            let place = address.wrapping_add(*offset);
            writeln!(f, "  less alike: the one at {address:#x}, from its address {place:#x} on")?;
        }
        if let Some(more @ 1..) = self.namesakes.len().checked_sub(NAMESAKES) {
            writeln!(f, "  less alike: {more} more of that name")?;
        }
        if self.probed {
            write!(f, "  a probe seems to be set there: remove it and try again")
        } else if let Some(to) = self.trampoline {
            write!(f, "  a jump to {to:#x} stands there: is another update applied? (splice list)")
        } else {
            write!(f, "  create the update again from the running kernel's own source and compiler")
        }
    }
}
