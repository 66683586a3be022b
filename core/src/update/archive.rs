// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading and writing `.splice` files: a tar inside a zstd frame, reproducible, and read with
//! suspicion. A second, skippable frame (RFC 8878, section 3.1.2) holds the SHA-256 of the first,
//! so that every flipped bit is noticed; zstd and tar read the file all the same.
//!
//! The first entry is `manifest.json`; the others follow sorted by path. All have mode 0644, owner
//! 0 and time 0, so the same input gives the same bytes.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest, Sha256};

use super::{FORMAT, FileEntry, Manifest};

/// Path of the manifest in the archive.
const MANIFEST: &str = "manifest.json";
/// No update comes near; a file that claims more is refused before it is unpacked.
const MAX_UNPACKED: u64 = 512 << 20;
/// Largest number of entries.
const MAX_FILES: usize = 10_000;
/// Header of the last frame: the magic of a skippable frame and its length.
const SEAL: [u8; 8] = [0x50, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
/// zstd's level: fast, and the size hardly falls beyond it.
const LEVEL: i32 = 9;

/// Why an update file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Not compressed data, or cut off, or damaged.
    #[error("the update file is damaged or cut short: {0}")]
    Damaged(String),
    /// The manifest is missing or cannot be understood.
    #[error("the update file's manifest is no good: {0}")]
    Manifest(String),
    /// Made by another version of splice.
    #[error("the update file has format {found}, this splice reads format {FORMAT}")]
    Version {
        /// The file's format.
        found: u64,
    },
    /// An entry that has no business there.
    #[error("the update file holds {path:?}, which is refused: {why}")]
    Entry {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// A file differs from what the manifest says.
    #[error("{path} in the update file is not what its manifest says: {why}")]
    Mismatch {
        /// Its path.
        path: String,
        /// In what.
        why: String,
    },
    /// Larger than any update.
    #[error("the update file claims more than {MAX_UNPACKED} bytes")]
    TooLarge,
}

/// An update: its manifest and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The manifest; its list of files is made when the update is written.
    pub manifest: Manifest,
    /// The files, by path.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Update {
    /// A file of the update.
    pub fn file(&self, path: &str) -> Result<&[u8], ArchiveError> {
        self.files.get(path).map(Vec::as_slice).ok_or_else(|| ArchiveError::Mismatch {
            path: path.to_owned(),
            why: "it is missing".into(),
        })
    }

    /// The update file's bytes.
    pub fn write(&self) -> Result<Vec<u8>, ArchiveError> {
        let damaged = |e: std::io::Error| ArchiveError::Damaged(e.to_string());
        let mut manifest = self.manifest.clone();
        manifest.files = self
            .files
            .iter()
            .map(|(path, data)| FileEntry {
                path: path.clone(),
                size: data.len() as u64,
                sha256: sha256(data),
            })
            .collect();
        let mut json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| ArchiveError::Manifest(e.to_string()))?;
        json.push(b'\n');
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, MANIFEST, &json).map_err(damaged)?;
        for (path, data) in &self.files {
            append(&mut tar, path, data).map_err(damaged)?;
        }
        let tar = tar.into_inner().map_err(damaged)?;
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).map_err(damaged)?;
        encoder.include_checksum(true).map_err(damaged)?;
        encoder.set_pledged_src_size(Some(tar.len() as u64)).map_err(damaged)?;
        std::io::Write::write_all(&mut encoder, &tar).map_err(damaged)?;
        let mut bytes = encoder.finish().map_err(damaged)?;
        let seal = Sha256::digest(&bytes);
        bytes.extend_from_slice(&SEAL);
        bytes.extend_from_slice(&seal);
        Ok(bytes)
    }

    /// Reads an update file. Nothing of it is used before all of it is checked.
    pub fn read(bytes: &[u8]) -> Result<Update, ArchiveError> {
        let tar = unpack(bytes)?;
        let mut files = BTreeMap::new();
        let mut manifest = None;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut end = 0u64;
        for entry in archive.entries().map_err(|e| ArchiveError::Damaged(e.to_string()))? {
            let mut entry = entry.map_err(|e| ArchiveError::Damaged(e.to_string()))?;
            let path = checked_path(&entry)?;
            let size = entry.header().size().map_err(|e| ArchiveError::Damaged(e.to_string()))?;
            let mut data = Vec::new();
            entry.read_to_end(&mut data).map_err(|e| ArchiveError::Damaged(e.to_string()))?;
            if data.len() as u64 != size {
                return Err(ArchiveError::Damaged(format!("{path} is cut short")));
            }
            end = entry.raw_file_position() + size.next_multiple_of(512);
            if manifest.is_none() {
                if path != MANIFEST {
                    return Err(ArchiveError::Manifest("it is not the first entry".into()));
                }
                manifest = Some(read_manifest(&data)?);
                continue;
            }
            let refuse =
                |why: &str| ArchiveError::Entry { path: path.clone(), why: why.to_owned() };
            if path == MANIFEST || files.contains_key(&path) {
                return Err(refuse("it is there twice"));
            }
            if files.len() >= MAX_FILES {
                return Err(refuse("there are too many files"));
            }
            files.insert(path, data);
        }
        let rest = usize::try_from(end).ok().and_then(|end| tar.get(end..)).unwrap_or_default();
        if rest.iter().any(|b| *b != 0) || rest.len() > 64 << 10 {
            return Err(ArchiveError::Damaged("there is data behind its end".into()));
        }
        let manifest =
            manifest.ok_or_else(|| ArchiveError::Manifest("there is none".to_owned()))?;
        agree(&manifest, &files)?;
        Ok(Update { manifest, files })
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, data: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, path, data)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let damaged = |e: std::io::Error| ArchiveError::Damaged(e.to_string());
    let unsealed = || ArchiveError::Damaged("its checksum is missing or wrong".into());
    let (bytes, seal) = bytes
        .len()
        .checked_sub(40)
        .and_then(|at| bytes.split_at_checked(at))
        .ok_or_else(unsealed)?;
    let sum = Sha256::digest(bytes);
    if seal.strip_prefix(&SEAL) != Some(sum.as_slice()) {
        return Err(unsealed());
    }
    let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(damaged)?.single_frame();
    let mut tar = Vec::new();
    let taken = decoder.by_ref().take(MAX_UNPACKED + 1).read_to_end(&mut tar).map_err(damaged)?;
    if taken as u64 > MAX_UNPACKED {
        return Err(ArchiveError::TooLarge);
    }
    if !decoder.finish().is_empty() {
        return Err(ArchiveError::Damaged("there is data behind its end".into()));
    }
    Ok(tar)
}

fn checked_path<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, ArchiveError> {
    let raw = entry.path_bytes();
    let path = String::from_utf8_lossy(&raw).into_owned();
    let refuse = |why: &str| Err(ArchiveError::Entry { path: path.clone(), why: why.to_owned() });
    if entry.header().entry_type() != tar::EntryType::Regular {
        return refuse("it is not a plain file");
    }
    if path.is_empty() || path.len() > 200 || !path.is_ascii() || path.contains(['\0', '\\']) {
        return refuse("its name is not a plain one");
    }
    if path.starts_with('/') || path.split('/').any(|p| matches!(p, "" | "." | "..")) {
        return refuse("its name leads out of the archive");
    }
    Ok(path)
}

fn read_manifest(json: &[u8]) -> Result<Manifest, ArchiveError> {
    let bad = |e: serde_json::Error| ArchiveError::Manifest(e.to_string());
    let value: serde_json::Value = serde_json::from_slice(json).map_err(bad)?;
    let found = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if found != u64::from(FORMAT) {
        return Err(ArchiveError::Version { found });
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(bad)?;
    if !is_id(&manifest.id) {
        return Err(ArchiveError::Manifest(format!("{:?} is not an id", manifest.id)));
    }
    Ok(manifest)
}

/// Whether that may be an update's id: it becomes part of module and directory names.
pub fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    !id.is_empty() && id.len() <= 40 && id.bytes().all(plain) && !id.starts_with(['-', '_'])
}

/// The manifest lists just the files that are there.
fn agree(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> Result<(), ArchiveError> {
    let mismatch = |path: &str, why: String| ArchiveError::Mismatch { path: path.to_owned(), why };
    let listed: BTreeMap<&str, &FileEntry> =
        manifest.files.iter().map(|f| (f.path.as_str(), f)).collect();
    if listed.len() != manifest.files.len() {
        return Err(ArchiveError::Manifest("it lists a file twice".into()));
    }
    for entry in &manifest.files {
        let data =
            files.get(&entry.path).ok_or_else(|| mismatch(&entry.path, "it is missing".into()))?;
        if data.len() as u64 != entry.size {
            let why = format!("{} bytes instead of {}", data.len(), entry.size);
            return Err(mismatch(&entry.path, why));
        }
        if sha256(data) != entry.sha256 {
            return Err(mismatch(&entry.path, "its checksum differs".into()));
        }
    }
    if let Some(extra) = files.keys().find(|p| !listed.contains_key(p.as_str())) {
        return Err(mismatch(extra, "the manifest does not list it".into()));
    }
    let named = manifest
        .targets
        .iter()
        .flat_map(|t| std::iter::once(&t.module).chain(t.units.iter().map(|u| &u.pre)))
        .chain(std::iter::once(&manifest.core.file));
    for path in named {
        if !files.contains_key(path) {
            return Err(mismatch(path, "it is missing".into()));
        }
    }
    Ok(())
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::{CoreModule, Target, UnitEntry};
    use proptest::prelude::*;

    fn update() -> Update {
        let mut files = BTreeMap::new();
        files.insert("module/splice.ko".into(), vec![1, 2, 3]);
        files.insert("module/splice_x.ko".into(), vec![4; 700]);
        files.insert("pre/a.o".into(), Vec::new());
        Update {
            manifest: Manifest {
                version: FORMAT,
                stacked: false,
                id: "x".into(),
                description: "a fix".into(),
                arch: "test".into(),
                release: "6.1.0".into(),
                compiler: "cc".into(),
                core: CoreModule { file: "module/splice.ko".into(), abi: 1, symbols: vec![] },
                targets: vec![Target {
                    name: "vmlinux".into(),
                    module: "module/splice_x.ko".into(),
                    module_name: "splice_x".into(),
                    units: vec![UnitEntry { name: "a.o".into(), pre: "pre/a.o".into() }],
                    functions: vec![],
                    objects: vec![],
                    hooks: vec![],
                    shadows: vec![],
                    symbols: vec![],
                }],
                files: vec![],
            },
            files,
        }
    }

    /// Packs entries as they are, without any of the writer's care.
    fn pack(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (path, data, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(data.len() as u64);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_cksum();
            tar.extend_from_slice(header.as_bytes());
            tar.extend_from_slice(data);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        sealed(zstd::encode_all(&*tar, 1).unwrap())
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let seal = Sha256::digest(&bytes);
        bytes.extend_from_slice(&SEAL);
        bytes.extend_from_slice(&seal);
        bytes
    }

    fn manifest_with(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut manifest = update().manifest;
        manifest.files = files
            .iter()
            .map(|(path, data)| FileEntry {
                path: (*path).into(),
                size: data.len() as u64,
                sha256: sha256(data),
            })
            .collect();
        manifest.targets.clear();
        manifest.core.file = files[0].0.into();
        serde_json::to_vec(&manifest).unwrap()
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn what_is_written_is_read_and_equal_every_time() {
        let bytes = update().write().unwrap();
        assert_eq!(bytes, update().write().unwrap());
        let read = Update::read(&bytes).unwrap();
        assert_eq!(read.files, update().files);
        assert_eq!(read.manifest.files.len(), 3);
        assert_eq!(read.manifest.targets, update().manifest.targets);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = update().write().unwrap();
        for len in 0..bytes.len() {
            assert!(Update::read(&bytes[..len]).is_err(), "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Update::read(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn more_data_than_it_says_is_refused() {
        let mut bytes = update().write().unwrap();
        bytes.extend_from_slice(b"more");
        assert!(matches!(Update::read(&bytes), Err(ArchiveError::Damaged(_))));
        let good: &[(&str, &[u8])] = &[("a", b"1")];
        let json = manifest_with(good);
        let extra = pack(&[(MANIFEST, &json, FILE), ("a", b"1", FILE), ("b", b"2", FILE)]);
        assert!(
            matches!(Update::read(&extra), Err(ArchiveError::Mismatch { path, .. }) if path == "b")
        );
        assert!(Update::read(&pack(&[(MANIFEST, &json, FILE), ("a", b"1", FILE)])).is_ok());
    }

    #[test]
    fn paths_that_climb_out_and_links_are_refused() {
        for path in ["../a", "/a", "x/../../a", "x//a", "./a", "a/.", "x\\a"] {
            let json = manifest_with(&[(path, b"1")]);
            let bytes = pack(&[(MANIFEST, &json, FILE), (path, b"1", FILE)]);
            assert!(
                matches!(Update::read(&bytes), Err(ArchiveError::Entry { .. })),
                "{path} was taken"
            );
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory] {
            let json = manifest_with(&[("a", b"")]);
            let bytes = pack(&[(MANIFEST, &json, FILE), ("a", b"", kind)]);
            assert!(matches!(Update::read(&bytes), Err(ArchiveError::Entry { .. })), "{kind:?}");
        }
    }

    #[test]
    fn duplicates_and_wrong_sums_are_refused() {
        let json = manifest_with(&[("a", b"1")]);
        let twice = pack(&[(MANIFEST, &json, FILE), ("a", b"1", FILE), ("a", b"1", FILE)]);
        assert!(matches!(Update::read(&twice), Err(ArchiveError::Entry { .. })));
        let wrong = pack(&[(MANIFEST, &json, FILE), ("a", b"2", FILE)]);
        assert!(matches!(Update::read(&wrong), Err(ArchiveError::Mismatch { .. })));
        let missing = pack(&[(MANIFEST, &json, FILE)]);
        assert!(matches!(Update::read(&missing), Err(ArchiveError::Mismatch { .. })));
    }

    #[test]
    fn other_versions_are_named() {
        let json = br#"{"version": 7, "of": "another time"}"#;
        let bytes = pack(&[(MANIFEST, json, FILE)]);
        assert_eq!(Update::read(&bytes), Err(ArchiveError::Version { found: 7 }));
    }

    #[test]
    fn a_bomb_is_refused_without_being_unpacked() {
        let huge = std::io::repeat(0).take(MAX_UNPACKED + 4096);
        let bytes = sealed(zstd::encode_all(huge, 3).unwrap());
        assert!(bytes.len() < 1 << 20);
        assert_eq!(Update::read(&bytes), Err(ArchiveError::TooLarge));
    }

    #[test]
    fn ids_are_plain() {
        for good in ["a", "cve-2026-1", "x_y"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a/b", "a b", "ä", &"x".repeat(41)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Update::read(&bytes);
            let _ = Update::read(&sealed(bytes.clone()));
            let _ = Update::read(&sealed(zstd::encode_all(&*bytes, 1).unwrap()));
        }
    }
}
