// SPDX-License-Identifier: GPL-2.0-or-later
//! A snapshot of a booted kernel, taken from outside: its memory as an ELF core with virtual
//! addresses (as `/proc/kcore` is one), its symbols, its modules. For run-pre without a machine.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::vm::Machine;

/// Size of an ELF file header and of a program header.
const HEADER: u64 = 64;
const SEGMENT: u64 = 56;

/// Writes `core`, `kallsyms` and `modules` to a directory.
pub fn take(machine: &mut Machine, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let modules = machine.read("/proc/modules")?;
    // With the trampolines that tracers and probes have made.
    let kallsyms = machine.read("/proc/kallsyms")?;
    std::fs::write(directory.join("modules"), &modules)?;
    std::fs::write(directory.join("kallsyms"), &kallsyms)?;
    let mut ranges = vec![range(&kallsyms, "_stext", "_etext")?];
    if kallsyms.contains(" _sdata\n") {
        ranges.push(range(&kallsyms, "__start_rodata", "__end_rodata")?);
        ranges.push(range(&kallsyms, "_sdata", "_edata")?);
        ranges.push(range(&kallsyms, "__bss_start", "__bss_stop")?);
    } else {
        // A list without data: the constants are between text and the code for the start.
        ranges.push(range(&kallsyms, "_etext", "__init_begin")?);
    }
    for line in modules.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(size), Some(address)) = (words.get(1), words.get(5)) else { continue };
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
        ranges.push((address, size.parse::<u64>()?.next_multiple_of(4096)));
    }
    let parts = tempfile::tempdir()?;
    let mut bodies = Vec::new();
    for (number, (address, size)) in ranges.into_iter().enumerate() {
        let part = parts.path().join(number.to_string());
        machine.save_memory(address, size, &part)?;
        bodies.push((address, std::fs::read(&part)?));
    }
    write_core(&directory.join("core"), machine.processor.e_machine, &bodies)
}

/// The pages of the image's memory from one symbol to another.
fn range(kallsyms: &str, from: &str, to: &str) -> Result<(u64, u64)> {
    let address = |symbol: &str| {
        let line = kallsyms.lines().find(|line| line.split(' ').nth(2) == Some(symbol));
        let hex = line.and_then(|line| line.split(' ').next());
        hex.and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .with_context(|| format!("the kernel has no symbol {symbol}"))
    };
    let (start, end) = (address(from)? & !0xfff, address(to)?.next_multiple_of(4096));
    if start == 0 || end <= start {
        bail!("the kernel hides its addresses");
    }
    Ok((start, end - start))
}

/// Offset of the first segment's bytes in a core that [`take`] wrote.
#[must_use]
pub fn segments_begin(core: &[u8]) -> Option<u64> {
    let count: [u8; 2] = core.get(56..58)?.try_into().ok()?;
    Some(HEADER + SEGMENT * u64::from(u16::from_le_bytes(count)))
}

fn write_core(path: &Path, e_machine: u16, parts: &[(u64, Vec<u8>)]) -> Result<()> {
    let count = u16::try_from(parts.len())?;
    let mut out = Vec::new();
    // ELF64, little endian, a core, program headers right behind this header.
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend_from_slice(&4_u16.to_le_bytes());
    out.extend_from_slice(&e_machine.to_le_bytes());
    out.extend_from_slice(&1_u32.to_le_bytes());
    for word in [0, HEADER, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
    for half in [HEADER as u16, SEGMENT as u16, count, 64, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let mut offset = HEADER + SEGMENT * u64::from(count);
    for (address, body) in parts {
        let size = body.len() as u64;
        // A segment to load, readable and executable.
        out.extend_from_slice(&1_u32.to_le_bytes());
        out.extend_from_slice(&5_u32.to_le_bytes());
        for word in [offset, *address, 0, size, size, 4096] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        offset += size;
    }
    let mut file =
        std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(&out)?;
    for (_, body) in parts {
        file.write_all(body)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

    #[test]
    fn the_core_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("core");
        let parts = [(0xffff_ffff_8100_0000, vec![1, 2, 3]), (0xffff_ffff_c000_0000, vec![4])];
        write_core(&path, 62, &parts).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = ElfFile64::<object::Endianness>::parse(bytes.as_slice()).unwrap();
        let endian = file.endian();
        let found: Vec<(u64, Vec<u8>)> = file
            .elf_header()
            .program_headers(endian, bytes.as_slice())
            .unwrap()
            .iter()
            .map(|part| {
                let body = part.data(endian, bytes.as_slice()).unwrap();
                (part.p_vaddr(endian), body.to_vec())
            })
            .collect();
        assert_eq!(found, parts);
    }
}
