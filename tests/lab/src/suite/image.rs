// SPDX-License-Identifier: GPL-2.0-or-later
//! Kernel image files instead of a machine: what splice reads from the file is held against what the
//! same kernel says of itself when it is booted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use splice_core::arch::{Arch, by_name};
use splice_core::runpre::{KernelSymbol, Snapshot, VMLINUX, read_image};

use super::{FIX, Fixture, MODULE_FIX, SLEEPER, Suite};
use crate::packages::{Image, kernels};
use crate::session::{Answer, Contents, Guest, Lab};

pub(super) fn run(suite: &mut Suite, fixture: &Fixture) {
    suite.test("image_has_the_guests_symbols", || symbols(&fixture.lab));
    suite.test("image_is_checked", || checked(fixture));
}

fn arch(name: &str) -> Result<&'static dyn Arch> {
    by_name(name).context("the architecture is not compiled in")
}

fn snapshot(image: &Image) -> Result<Snapshot> {
    let arch = arch(image.processor().name)?;
    Ok(read_image(arch, std::fs::read(&image.kernel)?, None)?)
}

/// Name for name, type for type, in order; the booted kernel is elsewhere as a whole, and its modules
/// come behind.
pub(super) fn symbols(lab: &Lab) -> Result<()> {
    let image = &lab.image;
    let snapshot = snapshot(image)?;
    ensure!(snapshot.release.as_deref() == Some(&image.release), "{:?}", snapshot.release);
    let mut guest = Guest::boot(lab, image, &Contents::default())?;
    let booted = guest.machine.read("/proc/kallsyms")?;
    guest.machine.power_off()?;
    let booted = splice_core::runpre::Kallsyms::parse(booted)?;
    let own: Vec<KernelSymbol<'_>> = booted.iter().filter(|s| s.module == VMLINUX).collect();
    let read: Vec<KernelSymbol<'_>> = snapshot.symbols.iter().collect();
    ensure!(read.len() > 40_000, "the image has only {} symbols", read.len());
    ensure!(own.len() == read.len(), "{} symbols, and {} booted", read.len(), own.len());
    let begin =
        |all: &[KernelSymbol<'_>]| all.iter().find(|s| s.name == "_stext").map(|s| s.address);
    let (from, to) = begin(&read).zip(begin(&own)).context("there is no _stext")?;
    for (read, own) in read.iter().zip(&own) {
        // Per-CPU variables are named by their places in each processor's part.
        let shift = if own.kind == 'A' { 0 } else { to.wrapping_sub(from) };
        let moved = KernelSymbol { address: read.address.wrapping_add(shift), ..*read };
        ensure!(moved == *own, "{read:x?} of the image is {own:x?} when booted");
    }
    Ok(())
}

/// The function in whose text bits are flipped.
const FLIPPED: &str = "sk_setsockopt";

/// Updates against the file that the machine boots; then against an unpacked one that was changed.
fn checked(fixture: &Fixture) -> Result<()> {
    let image = &fixture.lab.image;
    let check = |id: &str, kernel: &Path| -> Result<Answer> {
        let [file, kernel] =
            [fixture.update(id)?, kernel].map(|path| path.to_string_lossy().into_owned());
        fixture.lab.splice(&["check", &file, "--kernel", &kernel])
    };
    for id in [FIX, SLEEPER] {
        check(id, &image.kernel)?.success().with_context(|| format!("{id} on the image"))?;
    }
    // There are no modules in an image.
    check(MODULE_FIX, &image.kernel)?.expect(5)?.says(&[MODULE_FIX])?;

    let all = kernels()?;
    let other = all.iter().rev().find(|kernel| kernel.release != image.release);
    let other = other.context("apt offers only one kernel, so there is no other to test with")?;
    let other = fixture.lab.cache.image(&other.release, &other.version)?;
    check(FIX, &other.kernel)?.expect(5)?.says(&[&other.release, &image.release])?;

    let place = fixture.lab.work.path().join("vmlinux");
    let whole = unpacked(&image.kernel)?;
    std::fs::write(&place, &whole)?;
    check(FIX, &place)?.success().context("on the unpacked image")?;
    let symbols = snapshot(image)?.symbols;
    let function = symbols.named(FLIPPED).next().context("the image has not the function")?;
    let start = file_offset(&whole, function.address)?;
    for offset in (6..0x600).step_by(211) {
        let mut bytes = whole.clone();
        *bytes.get_mut(start + offset).context("the function lies outside the file")? ^=
            1 << (offset % 8);
        std::fs::write(&place, &bytes)?;
        let answer = check(FIX, &place)?.expect(5);
        answer.with_context(|| format!("a bit at {offset:#x}"))?.says(&[FLIPPED])?;
    }

    // What is no kernel, or a part of one, is no success either.
    let text = std::fs::read(&image.kernel)?;
    for len in [0, 1000, text.len() / 2] {
        std::fs::write(&place, text.get(..len).unwrap_or_default())?;
        check(FIX, &place)?.expect(1)?.says(&["vmlinux"])?;
    }
    Ok(())
}

/// The kernel in a boot image, unpacked by another program.
fn unpacked(image: &Path) -> Result<Vec<u8>> {
    let image = std::fs::read(image)?;
    let payload = arch("x86_64")?.boot_payload(&image).context("it has no payload")?;
    let packed = tempfile::NamedTempFile::new()?;
    // The size stands behind it.
    let end = payload.len().saturating_sub(4);
    std::fs::write(packed.path(), payload.get(..end).unwrap_or_default())?;
    let output = Command::new("lz4").arg("-dc").arg(packed.path()).output();
    let output = output.context("cannot run lz4")?;
    ensure!(output.status.success(), "lz4: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn file_offset(kernel: &[u8], address: u64) -> Result<usize> {
    let file = ElfFile64::<object::Endianness>::parse(kernel)?;
    let endian = file.endian();
    let parts = file.elf_header().program_headers(endian, kernel)?.iter();
    let offset = parts.filter(|part| part.p_filesz(endian) > 0).find_map(|part| {
        let into = address.checked_sub(part.p_vaddr(endian))?;
        (into < part.p_filesz(endian)).then(|| part.p_offset(endian) + into)
    });
    Ok(usize::try_from(offset.context("no segment has the address")?)?)
}
