// SPDX-License-Identifier: GPL-2.0-or-later
//! An update's module as `splice apply` hands it to the kernel, damaged in its data again and again and
//! loaded: the core must take or refuse each, and nothing else may happen. What is taken is looked at
//! through its files and unloaded; it is not switched on, since a transaction that is whole but wrong is
//! what a module of one's own could do anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use rustix::system::init_module;

use super::capture::captured;
use super::kernel;
use crate::modinfo;
use crate::random::Random;

/// Size of a relocation's entry (`Elf64_Rela`) and of a symbol's, and where in them the addend and the
/// value are, in bytes.
const ENTRY: u64 = 24;
const ADDEND: u64 = 16;
const VALUE: u64 = 8;
/// At most so many places are damaged at a time.
const MOST: u64 = 3;

/// Does it so many times; prints how many were taken and refused.
#[must_use]
pub fn run(rounds: u32, seed: u64, command: &[&str]) -> ExitCode {
    match captured(command).and_then(|module| damage(&module, rounds, seed)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn damage(module: &[u8], rounds: u32, seed: u64) -> Result<String> {
    let places = Places::of(module)?;
    let name = modinfo::line(module, "name")?.context("a module without a name")?;
    let mut random = Random(seed);
    let mut taken = 0;
    let mut refused: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..rounds {
        let mut image = module.to_vec();
        for _ in 0..=random.below(MOST) {
            places.damage(&mut image, &mut random)?;
        }
        match init_module(&image, c"") {
            Ok(()) => {
                taken += 1;
                look(Path::new("/sys/kernel/splice"), 0);
                kernel::remove_module(&name).with_context(|| format!("round {round}"))?;
            }
            Err(why) => *refused.entry(why.to_string()).or_default() += 1,
        }
    }
    ensure!(taken > 0 && !refused.is_empty(), "{taken} taken, refused: {refused:?}");
    let refused: Vec<String> =
        refused.iter().map(|(why, n)| format!("{n} refused: {why}")).collect();
    Ok(format!("{taken} taken, {}", refused.join(", ")))
}

/// Reads every file that can be read.
fn look(directory: &Path, depth: u32) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && depth < 4 {
            look(&entry.path(), depth + 1);
        } else {
            // Some are only written.
            let _ = std::fs::read(entry.path());
        }
    }
}

/// Where a module can be damaged, as offsets in its file.
struct Places {
    /// Contents of data: beginnings and lengths.
    bytes: Vec<(u64, u64)>,
    /// Numbers of 64 bits: addends of the data's pointers, and addresses that `splice` has put in for them.
    numbers: Vec<u64>,
}

impl Places {
    fn of(module: &[u8]) -> Result<Self> {
        let header = FileHeader64::<LE>::parse(module)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, module)?;
        let symbols = sections.symbols(endian, module, elf::SHT_SYMTAB)?;
        let table = sections.section(symbols.section())?.sh_offset(endian);
        let mut places = Self { bytes: Vec::new(), numbers: Vec::new() };
        let is_data = |name: &[u8]| name.starts_with(b".data") || name.starts_with(b".rodata");
        // What the kernel's own tables of a module refer to is the kernel's to trust.
        let (mut by_data, mut by_others) = (BTreeSet::new(), BTreeSet::new());
        for section in sections.iter() {
            let name = sections.section_name(endian, section)?;
            let (offset, size) = (section.sh_offset(endian), section.sh_size(endian));
            if section.sh_type(endian) == elf::SHT_PROGBITS && is_data(name) && size > 0 {
                places.bytes.push((offset, size));
            }
            let Some((entries, _)) = section.rela(endian, module)? else { continue };
            let data = name.strip_prefix(b".rela").is_some_and(is_data);
            for (number, entry) in (0..).zip(entries) {
                let referred = if data { &mut by_data } else { &mut by_others };
                referred.insert(entry.r_sym(endian, false));
                if data {
                    places.numbers.push(offset + number * ENTRY + ADDEND);
                }
            }
        }
        for index in by_data.difference(&by_others) {
            let symbol = symbols.symbol(object::SymbolIndex(usize::try_from(*index)?))?;
            if symbol.st_shndx(endian) == elf::SHN_ABS {
                places.numbers.push(table + u64::from(*index) * ENTRY + VALUE);
            }
        }
        ensure!(!places.bytes.is_empty() && !places.numbers.is_empty(), "a module without data");
        Ok(places)
    }

    /// Damages one place.
    fn damage(&self, image: &mut [u8], random: &mut Random) -> Result<()> {
        if random.below(2) == 0 {
            let (offset, size) = random.one_of(&self.bytes).context("no data")?;
            let at = usize::try_from(offset + random.below(*size))?;
            let byte = image.get_mut(at).context("data outside of the file")?;
            *byte = match random.below(3) {
                0 => *byte ^ 1 << random.below(8),
                1 => 0xff,
                _ => u8::try_from(random.below(256))?,
            };
            return Ok(());
        }
        let at = usize::try_from(*random.one_of(&self.numbers).context("no numbers")?)?;
        let field = image.get_mut(at..at + 8).context("a number outside of the file")?;
        let old = u64::from_le_bytes(field.try_into()?);
        let new = match random.below(4) {
            0 => old.wrapping_add(random.below(64)),
            1 => old.wrapping_sub(random.below(4096)),
            2 => 0,
            _ => random.bits(),
        };
        field.copy_from_slice(&new.to_le_bytes());
        Ok(())
    }
}
