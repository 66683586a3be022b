// SPDX-License-Identifier: GPL-2.0-or-later
//! The ELF note by which a plugin is known before a byte of it runs.
//!
//! An ordinary note (owner, type, description) in a section and segment of its own. The
//! description is, in the plugin's byte order: the interface's version (4 bytes), the ELF machine
//! number of the architecture that the plugin is for (2), zero (2), and that architecture's name
//! (32, padded with zeros).

/// Version of the interface: the types of [`crate::v1`].
pub const ABI: u32 = 1;
/// Owner of the note.
pub const OWNER: &str = "splice";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;
/// Longest name of an architecture, in bytes.
pub const NAME_BYTES: usize = 32;
/// Size of the description, in bytes.
pub const DESCRIPTION_BYTES: usize = 8 + NAME_BYTES;

/// The note as it stands in the file.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    owner_size: u32,
    description_size: u32,
    note_type: u32,
    owner: [u8; 8],
    abi: u32,
    e_machine: u16,
    zero: u16,
    name: [u8; NAME_BYTES],
}

impl Note {
    /// The note of a plugin for that architecture. Stops the build (it is evaluated there) if the
    /// name is empty or too long.
    #[expect(clippy::indexing_slicing, reason = "evaluated while the plugin is compiled")]
    pub const fn new(name: &str, e_machine: u16) -> Note {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "the architecture has no name");
        assert!(bytes.len() <= NAME_BYTES, "the architecture's name has more than 32 bytes");
        let mut padded = [0; NAME_BYTES];
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] > b' ' && bytes[at] < 0x7f, "the name is not printable ASCII");
            padded[at] = bytes[at];
            at += 1;
        }
        Note {
            owner_size: OWNER.len() as u32 + 1,
            description_size: DESCRIPTION_BYTES as u32,
            note_type: NOTE_TYPE,
            owner: *b"splice\0\0",
            abi: ABI,
            e_machine,
            zero: 0,
            name: padded,
        }
    }
}
