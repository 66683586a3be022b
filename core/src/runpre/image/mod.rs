// SPDX-License-Identifier: GPL-2.0-or-later
//! A kernel's image file as a snapshot: a kernel that is not booted, as its build left it.
//!
//! The file is a boot image of the architecture, or an ELF file (`vmlinux`), packed or not. Its
//! memory is what its program headers say, or all of it where it has none, at the addresses it was
//! linked for; its symbols are those it carries for itself; its release is that of its banner. Nothing
//! in it is trusted.

mod embedded;
mod flat;
mod lzop;
mod unpack;

use std::collections::BTreeSet;

use object::elf::{ET_DYN, ET_EXEC};

use super::memory::{Loads, Segment};
use super::{Kallsyms, KallsymsError, Memory, Snapshot};
use crate::arch::Arch;
use embedded::Part;
use unpack::Packing;

/// What `linux_banner` begins with (init/version.c); the release follows.
const BANNER: &[u8] = b"Linux version ";
/// `__NEW_UTS_LEN`.
const LONGEST_RELEASE: usize = 64;

/// Why an image file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is something else.
    #[error(
        "it is neither a boot image of {arch} (bzImage, vmlinuz) nor an ELF file (vmlinux), packed or not"
    )]
    Unknown {
        /// The architecture.
        arch: &'static str,
    },
    /// The compressed kernel in it is damaged, or of a kind that is not read.
    #[error("the kernel in it cannot be unpacked: {0}")]
    Packed(String),
    /// What it holds is no kernel of that architecture.
    #[error("it is not a kernel of {arch}: {why}")]
    NotKernel {
        /// The architecture.
        arch: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It has no symbol list.
    #[error(
        "it carries no symbol list (CONFIG_KALLSYMS is off, or it is of a form that is not known); \
         give the System.map of its build with --symbols"
    )]
    NoSymbols,
    /// Its symbol list is damaged.
    #[error("{0}; give the System.map of its build with --symbols")]
    Symbols(String),
    /// The list has nothing of use.
    #[error(transparent)]
    Kallsyms(#[from] KallsymsError),
    /// A list of other addresses.
    #[error(
        "the symbol list is not of this image: its _stext is not where the image has code; the list of a \
         booted kernel has other addresses, so give the System.map of the image's build"
    )]
    OtherSymbols,
    /// Its release cannot be told.
    #[error("it does not say its release: {0} different banners \"Linux version …\" are in it")]
    Release(usize),
}

/// Reads an image file's bytes; `symbols` stand for those in the image.
///
/// # Errors
///
/// It is not a kernel's image of that architecture, or does not say enough of itself.
pub fn read_image(
    arch: &dyn Arch,
    file: Vec<u8>,
    symbols: Option<Kallsyms>,
) -> Result<Snapshot, ImageError> {
    let image = Image::new(arch, kernel(arch, file)?)?;
    let parts = image.parts();
    let release = release(&parts)?;
    let symbols = match symbols {
        Some(symbols) => symbols,
        None => {
            let text = embedded::find(&parts, &|at| image.is_code(at));
            let text = text.map_err(ImageError::Symbols)?.ok_or(ImageError::NoSymbols)?;
            Kallsyms::parse(text)?
        }
    };
    let begin = symbols.named("_stext").next().map(|s| s.address);
    if !begin.is_some_and(|at| image.is_code(at)) {
        return Err(ImageError::OtherSymbols);
    }
    Ok(Snapshot::new(Some(release), symbols, Box::new(image)).not_started())
}

/// The kernel in an image: an ELF file, or its memory as it is.
fn kernel(arch: &dyn Arch, file: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let unknown = || ImageError::Unknown { arch: arch.name() };
    let is_kernel = |bytes: &[u8]| is_elf(bytes) || arch.flat_image(bytes).is_some();
    if is_kernel(&file) {
        return Ok(file);
    }
    let kernel = match arch.boot_payload(&file) {
        Some(payload) => match Packing::of(payload) {
            Some(packing) => packing.unpack_payload(payload),
            None => Err("its compression is not known".into()),
        },
        None => Packing::of(&file).ok_or_else(unknown)?.unpack(&file),
    };
    let kernel = kernel.map_err(ImageError::Packed)?;
    if is_kernel(&kernel) { Ok(kernel) } else { Err(unknown()) }
}

fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The release that the image's banner tells.
fn release(parts: &[Part<'_>]) -> Result<String, ImageError> {
    let mut found = BTreeSet::new();
    for part in parts {
        let banners = part.bytes.windows(BANNER.len()).enumerate().filter(|(_, w)| *w == BANNER);
        for (at, _) in banners {
            let rest = part.bytes.get(at + BANNER.len()..).unwrap_or_default();
            let end = rest.iter().take(LONGEST_RELEASE + 1).position(|b| *b == b' ');
            let release = rest.get(..end.unwrap_or(0)).unwrap_or_default();
            // A format ("Linux version %s") is no banner, and a release names a directory.
            let plain = |b: &u8| b.is_ascii_graphic() && !b"%/".contains(b);
            if !release.is_empty() && release.iter().all(plain) {
                found.insert(String::from_utf8_lossy(release).into_owned());
            }
        }
    }
    match found.len() {
        1 => found.pop_first().ok_or(ImageError::Release(0)),
        n => Err(ImageError::Release(n)),
    }
}

/// The memory of a kernel that is not booted.
#[derive(Debug)]
struct Image {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
}

impl Image {
    fn new(arch: &dyn Arch, mut bytes: Vec<u8>) -> Result<Image, ImageError> {
        let not = |why: String| ImageError::NotKernel { arch: arch.name(), why };
        if let Some(flat) = arch.flat_image(&bytes) {
            let address = flat::place(&mut bytes, flat).map_err(not)?;
            let size = bytes.len() as u64;
            let segments = vec![Segment { address, size, offset: 0, executable: true }];
            return Ok(Image { bytes, segments });
        }
        let loads = Loads::read(&bytes).map_err(not)?;
        if ![ET_EXEC, ET_DYN].contains(&loads.kind) {
            return Err(not("its ELF type is not that of a program".into()));
        }
        if loads.machine != arch.e_machine() {
            return Err(not(format!("it is for ELF machine {}", loads.machine)));
        }
        Ok(Image { bytes, segments: loads.segments })
    }

    fn part(&self, segment: &Segment) -> Option<Part<'_>> {
        let start = usize::try_from(segment.offset).ok()?;
        let end = start.checked_add(usize::try_from(segment.size).ok()?)?;
        Some(Part { address: segment.address, bytes: self.bytes.get(start..end)? })
    }

    /// The segments whose bytes are in the file.
    fn parts(&self) -> Vec<Part<'_>> {
        self.segments.iter().filter_map(|s| self.part(s)).collect()
    }

    fn is_code(&self, address: u64) -> bool {
        let within = |s: &Segment| address.checked_sub(s.address).is_some_and(|into| into < s.size);
        self.segments.iter().any(|s| s.executable && within(s))
    }
}

impl Memory for Image {
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        let found = self.segments.iter().find_map(|segment| {
            let from = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            self.part(segment)?.bytes.get(from..from.checked_add(buf.len())?)
        });
        if let Some(bytes) = found {
            buf.copy_from_slice(bytes);
        }
        found.is_some()
    }
}
