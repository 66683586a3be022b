// SPDX-License-Identifier: GPL-2.0-or-later
//! A plugin's file, read before anything of it runs: is it whole, is it for this machine, is it a
//! plugin, and of what.
//!
//! The dynamic loader maps what the headers announce; touching a page behind the file's end ends
//! the process. So the segments are compared with the file's size first.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use object::Endianness;
use object::elf::{ET_DYN, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use splice_plugin_abi::note::{ABI, DESCRIPTION_BYTES, NAME_BYTES, NOTE_TYPE, OWNER};

use crate::{PluginError, trust};

/// Larger files are not read; a plugin with all its debug information is a tenth of it.
const MOST_BYTES: u64 = 1 << 30;

/// What a plugin's note says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Name of the architecture that the plugin is for.
    pub name: String,
    /// Its ELF machine number.
    pub e_machine: u16,
}

/// Looks at a file without running any of it: is it a plugin that this splice could load? Returns
/// the file's real path (no symbolic links) and its note.
pub fn inspect(path: &Path) -> Result<(PathBuf, Note), PluginError> {
    let unreadable = |e: std::io::Error| PluginError::Unreadable {
        path: path.to_owned(),
        why: crate::error::one_line(&e.to_string()),
    };
    let real = path.canonicalize().map_err(unreadable)?;
    let data = real.metadata().map_err(unreadable)?;
    if !data.is_file() {
        return Err(unreadable(std::io::Error::other("not a regular file")));
    }
    if data.len() > MOST_BYTES {
        return Err(unreadable(std::io::Error::other("larger than any plugin")));
    }
    if trust::is_root() {
        trust::only_roots(&real)
            .map_err(|why| PluginError::Untrusted { path: path.to_owned(), why })?;
    }
    let bytes = std::fs::read(&real).map_err(unreadable)?;
    let note = parse(path, &bytes)?;
    Ok((real, note))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Note, PluginError> {
    const CLASS: usize = 4;
    let path = || path.to_owned();
    let truncated = |why: String| PluginError::Truncated { path: path(), why };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(PluginError::NotElf { path: path() });
    }
    if bytes.get(CLASS) == Some(&1) {
        return Err(PluginError::OtherMachine {
            path: path(),
            found: "a 32-bit machine".into(),
            host: "a 64-bit one".into(),
        });
    }
    let text = |e: object::read::Error| truncated(e.to_string());
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    if let Some(host) = host_machine()
        && host != header.e_machine(endian).0
    {
        return Err(PluginError::OtherMachine {
            path: path(),
            found: format!("ELF machine {}", header.e_machine(endian).0),
            host: format!("machine {host}"),
        });
    }
    if header.e_type(endian) != ET_DYN {
        return Err(PluginError::NotLibrary { path: path() });
    }
    let size = bytes.len() as u64;
    let sections = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    if header.e_shoff(endian).checked_add(sections).is_none_or(|end| end > size) {
        return Err(truncated("its section table lies behind its end".into()));
    }
    let segments = header.program_headers(endian, bytes).map_err(text)?;
    for segment in segments {
        let (start, len) = (segment.p_offset(endian), segment.p_filesz(endian));
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(truncated(format!(
                "a segment ends at byte {:#x} of {size:#x}",
                start.saturating_add(len)
            )));
        }
    }
    for segment in segments {
        let Some(mut notes) = segment.notes(endian, bytes).map_err(text)? else { continue };
        while let Some(note) = notes.next().map_err(text)? {
            if note.name() == OWNER.as_bytes() {
                return description(note.n_type(endian).0, note.desc(), endian == host_endian())
                    .map_err(|wrong| wrong.about(path()));
            }
        }
    }
    Err(PluginError::NoNote { path: path() })
}

/// What is wrong with a note.
enum Wrong {
    Malformed(String),
    OtherAbi(u32),
}

impl Wrong {
    fn about(self, path: PathBuf) -> PluginError {
        match self {
            Wrong::Malformed(why) => PluginError::BadNote { path, why },
            Wrong::OtherAbi(found) => PluginError::OtherAbi { path, found, ours: ABI },
        }
    }
}

fn host_endian() -> Endianness {
    if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big }
}

/// Reads the note's description; the layout is in [`splice_plugin_abi::note`].
fn description(note_type: u32, bytes: &[u8], same_order: bool) -> Result<Note, Wrong> {
    let malformed = |why: &str| Wrong::Malformed(why.into());
    if note_type != NOTE_TYPE {
        return Err(Wrong::Malformed(format!("it is of type {note_type}")));
    }
    if !same_order {
        return Err(malformed("its byte order is not this machine's"));
    }
    // The version comes first, and alone decides what follows.
    let (abi, rest) = bytes.split_first_chunk().ok_or_else(|| malformed("it is too short"))?;
    let abi = u32::from_ne_bytes(*abi);
    if abi != ABI {
        return Err(Wrong::OtherAbi(abi));
    }
    if bytes.len() != DESCRIPTION_BYTES {
        return Err(Wrong::Malformed(format!("it is {} bytes long", bytes.len())));
    }
    let (machine, rest) = rest.split_first_chunk().ok_or_else(|| malformed("it is too short"))?;
    let name = rest.get(2..).unwrap_or_default();
    let end = name.iter().position(|b| *b == 0).unwrap_or(NAME_BYTES);
    let (name, padding) = name.split_at_checked(end).unwrap_or_default();
    let plain = name.iter().all(u8::is_ascii_graphic) && padding.iter().all(|b| *b == 0);
    if name.is_empty() || !plain {
        return Err(malformed("the architecture has no proper name"));
    }
    let e_machine = u16::from_ne_bytes(*machine);
    Ok(Note { name: String::from_utf8_lossy(name).into_owned(), e_machine })
}

/// ELF machine number of this very process; `None` if the system does not say.
fn host_machine() -> Option<u16> {
    static MACHINE: OnceLock<Option<u16>> = OnceLock::new();
    *MACHINE.get_or_init(|| {
        let mut header = [0u8; 20];
        std::fs::File::open("/proc/self/exe").ok()?.read_exact(&mut header).ok()?;
        let (_, machine) = header.split_last_chunk::<2>()?;
        header.starts_with(b"\x7fELF").then(|| u16::from_ne_bytes(*machine))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn described(abi: u32, machine: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = abi.to_ne_bytes().to_vec();
        bytes.extend(machine.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name);
        bytes.resize(DESCRIPTION_BYTES, 0);
        bytes
    }

    #[test]
    fn a_note_that_was_written_is_read() {
        let note = splice_plugin_abi::note::Note::new("some_arch", 4711);
        // SAFETY: a note is plain numbers without padding.
        let bytes: [u8; 60] = unsafe { std::mem::transmute(note) };
        assert_eq!(&bytes[12..20], b"splice\0\0");
        let read = description(1, &bytes[20..], true).ok();
        assert_eq!(read, Some(Note { name: "some_arch".into(), e_machine: 4711 }));
    }

    #[test]
    fn malformed_notes_are_refused() {
        let good = described(1, 62, b"name");
        assert!(description(1, &good, true).is_ok());
        let refused = |note_type, bytes: &[u8], order| {
            let mut line = String::new();
            match description(note_type, bytes, order) {
                Err(wrong) => write!(line, "{}", wrong.about("x".into())).unwrap(),
                Ok(note) => panic!("{note:?}"),
            }
            line
        };
        assert!(refused(2, &good, true).contains("type 2"));
        assert!(refused(1, &good, false).contains("byte order"));
        assert!(refused(1, &good[..3], true).contains("too short"));
        assert!(refused(1, &good[..39], true).contains("39 bytes"));
        assert!(refused(1, &described(2, 62, b"x"), true).contains("version 2"));
        // The layout behind another version's number is not ours to judge.
        assert!(refused(1, &2u32.to_ne_bytes(), true).contains("version 2"));
        assert!(refused(1, &described(1, 62, b""), true).contains("no proper name"));
        assert!(refused(1, &described(1, 62, b"a\nb"), true).contains("no proper name"));
        assert!(refused(1, &described(1, 62, b"a\0b"), true).contains("no proper name"));
    }

    #[test]
    fn this_process_knows_its_machine() {
        assert!(host_machine().is_some_and(|m| m != 0));
    }
}
