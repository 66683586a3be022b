// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the bytes of the kernel come from: an ELF core (`/proc/kcore` is one) or a raw dump.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use object::LittleEndian as LE;
use object::elf::{ET_CORE, FileHeader64, FileType, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// Why a memory source cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not an ELF core of a 64-bit little-endian machine.
    #[error("{path} is not an ELF core file: {why}")]
    NotCore {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// A source of the kernel's bytes by virtual address.
pub trait Memory: Send + Sync {
    /// Fills `buf` from `address` on; false if any byte of it is not there.
    fn read(&self, address: u64, buf: &mut [u8]) -> bool;
}

/// A part of memory that an ELF file holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) address: u64,
    /// Bytes that are in the file.
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) executable: bool,
}

/// An ELF core file; reads go to the file as they are asked for, so it may be live.
#[derive(Debug)]
pub struct CoreFile {
    /// One reader at a time: older kernels pass what they read of `/proc/kcore` through a buffer
    /// that belongs to the open file, so that two readers of it get each other's bytes.
    file: Mutex<File>,
    segments: Vec<Segment>,
}

impl CoreFile {
    /// Opens an ELF core.
    pub fn open(path: &Path) -> Result<CoreFile, MemoryError> {
        let shown = path.display().to_string();
        let io = |source| MemoryError::Io { path: shown.clone(), source };
        let file = File::open(path).map_err(io)?;
        // The program headers of a core file stand right behind its header.
        let mut head = vec![0u8; 256 * 1024];
        let mut have = 0;
        while have < head.len() {
            let rest = head.get_mut(have..).unwrap_or_default();
            match file.read_at(rest, have as u64).map_err(io)? {
                0 => break,
                n => have += n,
            }
        }
        head.truncate(have);
        let segments =
            segments(&head).map_err(|why| MemoryError::NotCore { path: shown.clone(), why })?;
        Ok(CoreFile { file: Mutex::new(file), segments })
    }
}

/// What the beginning of a 64-bit little-endian ELF file says of memory.
pub(super) struct Loads {
    pub(super) kind: FileType,
    pub(super) machine: u16,
    /// At least one.
    pub(super) segments: Vec<Segment>,
}

impl Loads {
    pub(super) fn read(head: &[u8]) -> Result<Loads, String> {
        let header = FileHeader64::<LE>::parse(head).map_err(|e| e.to_string())?;
        let endian = header.endian().map_err(|e| e.to_string())?;
        let segments: Vec<Segment> = header
            .program_headers(endian, head)
            .map_err(|e| e.to_string())?
            .iter()
            .filter(|p| p.p_type(endian) == PT_LOAD)
            .map(|p| Segment {
                address: p.p_vaddr(endian),
                size: p.p_filesz(endian),
                offset: p.p_offset(endian),
                executable: p.p_flags(endian).contains(PF_X),
            })
            .collect();
        if segments.is_empty() {
            return Err("it has no memory segments".into());
        }
        let machine = header.e_machine(endian).0;
        Ok(Loads { kind: header.e_type(endian), machine, segments })
    }
}

fn segments(head: &[u8]) -> Result<Vec<Segment>, String> {
    let loads = Loads::read(head)?;
    if loads.kind != ET_CORE {
        return Err("its type is not ET_CORE".into());
    }
    Ok(loads.segments)
}

impl Memory for CoreFile {
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        let len = buf.len() as u64;
        self.segments.iter().any(|s| {
            let Some(into) = address.checked_sub(s.address) else { return false };
            if into.checked_add(len).is_none_or(|end| end > s.size) {
                return false;
            }
            let Some(at) = s.offset.checked_add(into) else { return false };
            // A poisoned lock's reader has not written to the file.
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.read_exact_at(buf, at).is_ok()
        })
    }
}

/// Bytes that stood at one address, in a plain file.
#[derive(Debug)]
pub struct RawDump {
    base: u64,
    bytes: Vec<u8>,
}

impl RawDump {
    /// Takes bytes that stood at `base`.
    pub fn new(base: u64, bytes: Vec<u8>) -> RawDump {
        RawDump { base, bytes }
    }

    /// Reads a file whose first byte stood at `base`.
    pub fn open(path: &Path, base: u64) -> Result<RawDump, MemoryError> {
        let bytes = std::fs::read(path)
            .map_err(|source| MemoryError::Io { path: path.display().to_string(), source })?;
        Ok(RawDump { base, bytes })
    }
}

impl Memory for RawDump {
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        let found = address
            .checked_sub(self.base)
            .and_then(|from| usize::try_from(from).ok())
            .and_then(|from| self.bytes.get(from..from.checked_add(buf.len())?));
        match found {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

/// A memory with other bytes at some places.
pub(super) struct Otherwise {
    pub(super) memory: Box<dyn Memory>,
    /// Where, and which; the last one that is about a byte decides.
    pub(super) places: Vec<(u64, Vec<u8>)>,
}

impl Memory for Otherwise {
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        if !self.memory.read(address, buf) {
            return false;
        }
        for (place, bytes) in &self.places {
            for (at, byte) in (*place..).zip(bytes) {
                let into = at.checked_sub(address).and_then(|n| usize::try_from(n).ok());
                if let Some(slot) = into.and_then(|n| buf.get_mut(n)) {
                    *slot = *byte;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A core file with one segment, built by hand after the gABI.
    fn core(address: u64, bytes: &[u8], kind: u16) -> tempfile::NamedTempFile {
        let mut out = Vec::new();
        out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        out.extend(kind.to_le_bytes());
        out.extend(62u16.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.extend(64u64.to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 1, 64, 0, 0] {
            out.extend(half.to_le_bytes());
        }
        out.extend(1u32.to_le_bytes());
        out.extend(5u32.to_le_bytes());
        let len = bytes.len() as u64;
        for word in [120, address, address, len, len, 1] {
            out.extend(u64::to_le_bytes(word));
        }
        out.extend(bytes);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&out).unwrap();
        file
    }

    #[test]
    fn reads_a_core_by_address() {
        let file = core(0xffff_ffff_8100_0000, b"0123456789", 4);
        let memory = CoreFile::open(file.path()).unwrap();
        let mut buf = [0; 4];
        assert!(memory.read(0xffff_ffff_8100_0003, &mut buf));
        assert_eq!(&buf, b"3456");
        assert!(!memory.read(0xffff_ffff_8100_0007, &mut buf));
        assert!(!memory.read(0xffff_ffff_80ff_ffff, &mut buf));
        assert!(!memory.read(u64::MAX, &mut buf));
    }

    #[test]
    fn refuses_what_is_no_core() {
        let executable = core(0x1000, b"x", 2);
        assert!(matches!(
            CoreFile::open(executable.path()),
            Err(MemoryError::NotCore { why, .. }) if why.contains("ET_CORE")
        ));
        let mut text = tempfile::NamedTempFile::new().unwrap();
        text.write_all(b"not an elf file").unwrap();
        assert!(matches!(CoreFile::open(text.path()), Err(MemoryError::NotCore { .. })));
    }

    #[test]
    fn other_bytes_are_read_where_they_are_and_the_last_word_counts() {
        let memory = Box::new(RawDump::new(0x1000, b"abcdefgh".to_vec()));
        let places =
            vec![(0x0fff, b"012".to_vec()), (0x1001, b"X".to_vec()), (0x1007, b"YZ".to_vec())];
        let memory = Otherwise { memory, places };
        for (address, bytes) in
            [(0x1000, &b"1XcdefgY"[..]), (0x1002, b"cd"), (0x1000, b"1"), (0x1007, b"Y")]
        {
            let mut buf = vec![0; bytes.len()];
            assert!(memory.read(address, &mut buf));
            assert_eq!(buf, bytes, "{address:#x}");
        }
        // What is not there is not there.
        assert!(!memory.read(0x0fff, &mut [0]) && !memory.read(0x1007, &mut [0; 2]));
    }

    #[test]
    fn reads_a_raw_dump_by_address() {
        let dump = RawDump::new(0x1000, b"abcdef".to_vec());
        let mut buf = [0; 2];
        assert!(dump.read(0x1004, &mut buf));
        assert_eq!(&buf, b"ef");
        assert!(!dump.read(0x1005, &mut buf));
        assert!(!dump.read(0xfff, &mut buf));
    }
}
