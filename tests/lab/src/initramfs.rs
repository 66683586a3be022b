// SPDX-License-Identifier: GPL-2.0-or-later
//! Builds an initramfs: a cpio archive in the "newc" format, with programs and the shared libraries
//! that they name, kernel modules with those that they depend on, and plain files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

use crate::modinfo;
use crate::processor::Processor;

/// Where every dynamic loader looks without being told; its own processor's places are
/// [`Processor::libraries`].
const LIBRARY_PLACES: [&str; 2] = ["/lib", "/usr/lib"];

enum Entry {
    Directory,
    File { mode: u32, body: Vec<u8> },
    Link(String),
    Device { mode: u32, major: u32, minor: u32 },
}

/// An initramfs under construction. Paths in the guest are given without the leading slash.
pub struct Initramfs {
    processor: &'static Processor,
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// An initramfs with the directories and devices that the kernel and init need.
    #[must_use]
    pub fn new(processor: &'static Processor) -> Self {
        let mut new = Self { processor, entries: BTreeMap::new() };
        for name in ["dev", "proc", "sys", "tmp", "run", "bin", "etc", "updates"] {
            new.entries.insert(name.to_owned(), Entry::Directory);
        }
        let device = |minor| Entry::Device { mode: 0o600, major: 5, minor };
        new.entries.insert("dev/console".to_owned(), device(1));
        new.file("etc/passwd", b"root:x:0:0:root:/tmp:/bin/sh\n".to_vec());
        new
    }

    /// A plain file.
    pub fn file(&mut self, path: &str, body: Vec<u8>) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::File { mode: 0o644, body });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entries.insert(path.to_owned(), Entry::Link(target.to_owned()));
    }

    /// A program of the host, with its dynamic loader and libraries.
    pub fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        let mut wanted = vec![source.to_path_buf()];
        let mut seen = BTreeSet::new();
        let mut places: BTreeMap<PathBuf, String> = BTreeMap::new();
        while let Some(file) = wanted.pop() {
            if !seen.insert(file.clone()) {
                continue;
            }
            let body = std::fs::read(&file)
                .with_context(|| format!("cannot read the program {}", file.display()))?;
            let needs = Needs::of(&body)
                .with_context(|| format!("{} is not a usable program", file.display()))?;
            let place = match places.get(&file) {
                Some(place) => place.trim_start_matches('/').to_owned(),
                None => path.to_owned(),
            };
            for (name, place) in needs.places() {
                let found = self.find_library(&name).with_context(|| {
                    format!("{} needs {name}, which is not installed", file.display())
                })?;
                places.insert(found.clone(), place);
                wanted.push(found);
            }
            self.parents(&place);
            self.entries.insert(place, Entry::File { mode: 0o755, body });
        }
        Ok(())
    }

    fn find_library(&self, name: &str) -> Option<PathBuf> {
        let places = self.processor.libraries.iter().chain(&LIBRARY_PLACES);
        places.map(|place| Path::new(place).join(name)).find(|path| path.exists())
    }

    /// A kernel module and those that it depends on, from a `lib/modules/RELEASE` directory. Returns
    /// the paths in the guest, in the order in which they must be loaded.
    pub fn module(&mut self, directory: &ModuleDirectory, name: &str) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for path in directory.with_dependencies(name)? {
            let file = path.file_name().context("a module without a name")?;
            let place = format!("modules/{}", file.to_string_lossy());
            if !self.entries.contains_key(&place) {
                let body = std::fs::read(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                self.file(&place, body);
            }
            order.push(format!("/{place}"));
        }
        Ok(order)
    }

    /// The archive.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut archive = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let empty: &[u8] = &[];
            let (mode, major, minor, body) = match entry {
                Entry::Directory => (0o040_755, 0, 0, empty),
                Entry::File { mode, body } => (0o100_000 | mode, 0, 0, body.as_slice()),
                Entry::Link(target) => (0o120_777, 0, 0, target.as_bytes()),
                Entry::Device { mode, major, minor } => (0o020_000 | mode, *major, *minor, empty),
            };
            let inode = u32::try_from(number)?.saturating_add(1);
            append(&mut archive, path, inode, mode, (major, minor), body)?;
        }
        append(&mut archive, "TRAILER!!!", 0, 0, (0, 0), &[])?;
        Ok(archive)
    }

    fn parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = path.get(..slash).unwrap_or_default();
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory);
        }
    }
}

fn append(
    archive: &mut Vec<u8>,
    path: &str,
    inode: u32,
    mode: u32,
    (major, minor): (u32, u32),
    body: &[u8],
) -> Result<()> {
    let size = u32::try_from(body.len()).context("a file is too large for an initramfs")?;
    let name_size = u32::try_from(path.len())?.saturating_add(1);
    archive.extend_from_slice(b"070701");
    for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(body);
    pad(archive);
    Ok(())
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// What an ELF file asks of the system.
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
}

impl Needs {
    /// The loader and the libraries: their names, and where they are to be in the guest. A library is
    /// found in the first place where a loader looks.
    fn places(self) -> impl Iterator<Item = (String, String)> {
        let loader = self.interpreter.and_then(|path| {
            let (_, name) = path.rsplit_once('/')?;
            Some((name.to_owned(), path))
        });
        let libraries = self.libraries.into_iter().map(|name| {
            let place = format!("/lib/{name}");
            (name, place)
        });
        // The loader may be named as a library, too.
        libraries.chain(loader)
    }

    fn of(body: &[u8]) -> Result<Self> {
        let file = ElfFile64::<object::Endianness>::parse(body)?;
        let endian = file.endian();
        let mut interpreter = None;
        for segment in file.elf_header().program_headers(endian, body)? {
            if let Some(path) = segment.interpreter(endian, body)? {
                interpreter = Some(String::from_utf8(path.to_vec())?);
            }
        }
        let table = file.elf_section_table().dynamic_table(endian, body)?;
        let mut libraries = Vec::new();
        for entry in table.iter() {
            if entry.tag == elf::DT_NEEDED {
                libraries.push(String::from_utf8(table.string(entry)?.to_vec())?);
            }
        }
        Ok(Self { interpreter, libraries })
    }
}

/// The modules of one kernel release.
pub struct ModuleDirectory {
    by_name: BTreeMap<String, PathBuf>,
}

impl ModuleDirectory {
    /// Looks at every module below a `lib/modules/RELEASE` directory.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        let mut pending = vec![directory.join("kernel")];
        while let Some(next) = pending.pop() {
            let entries = std::fs::read_dir(&next)
                .with_context(|| format!("cannot list the modules in {}", next.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    pending.push(path);
                } else if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(".ko") {
                    by_name.insert(name.replace('-', "_"), path);
                }
            }
        }
        Ok(Self { by_name })
    }

    /// Whether there is a module of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(&name.replace('-', "_"))
    }

    /// A module's file, after those of the modules that it depends on.
    pub fn with_dependencies(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        self.visit(name, &mut order, 0)?;
        Ok(order)
    }

    fn visit(&self, name: &str, order: &mut Vec<PathBuf>, depth: u32) -> Result<()> {
        if depth > 32 {
            bail!("the modules' dependencies form a circle at {name}");
        }
        let path = self
            .by_name
            .get(&name.replace('-', "_"))
            .with_context(|| format!("the image package has no module called {name}"))?;
        if order.contains(path) {
            return Ok(());
        }
        let body =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for dependency in dependencies(&body)? {
            self.visit(&dependency, order, depth + 1)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// The modules that a module depends on.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let list = modinfo::line(module, "depends")?.unwrap_or_default();
    Ok(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Initramfs {
        Initramfs::new(Processor::of(""))
    }

    /// The format's documentation: thirteen eight-digit fields, names and bodies padded to four.
    #[test]
    fn archive_is_newc() {
        let mut initramfs = Initramfs { entries: BTreeMap::new(), ..host() };
        initramfs.file("a/b", b"12345".to_vec());
        let bytes = initramfs.to_bytes().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"));
        let file = text.find("a/b\0").unwrap();
        assert_eq!(file % 4, 110 % 4);
        let body = text.find("12345").unwrap();
        assert_eq!(body % 4, 0);
        assert_eq!(&text[body + 5..body + 14], "\x00\x00\x00070701");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn programs_bring_their_loader_and_libraries() {
        let mut initramfs = host();
        initramfs.program("init", &std::env::current_exe().unwrap()).unwrap();
        assert!(initramfs.entries.contains_key("init"));
        let has = |part: &str| initramfs.entries.keys().any(|path| path.contains(part));
        assert!(has("ld-linux"), "no dynamic loader");
        assert!(has("libc.so"), "no C library");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let error = host().program("init", &path).unwrap_err();
        assert!(format!("{error:#}").contains("not a usable program"), "{error:#}");
    }
}
