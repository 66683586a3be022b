// SPDX-License-Identifier: GPL-2.0-or-later
//! `flips UNITS CORE KALLSYMS COUNT [SEED]`: changes one place of a kernel's text at a time, a single
//! bit or two neighbouring instructions, and says what run-pre made of the function there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use splice_core::arch::Arch;
use splice_core::runpre::{self, CoreFile, Kallsyms, Memory, Snapshot, Survey, VMLINUX};
use splice_core::unit::Unit;
use splice_fuzz::mutate::Numbers;
use splice_fuzz::{arch_for, objects};

/// A kernel's memory with a place that is not as it was.
struct Changed {
    core: CoreFile,
    place: Mutex<(u64, Vec<u8>)>,
}

impl Changed {
    fn set(&self, address: u64, bytes: Vec<u8>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = (address, bytes);
    }
}

struct Shared(Arc<Changed>);

impl Memory for Shared {
    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        if !self.0.core.read(address, buf) {
            return false;
        }
        let place = self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, byte) in place.1.iter().enumerate() {
            let at = place.0.wrapping_add(n as u64).wrapping_sub(address);
            if let Some(slot) = usize::try_from(at).ok().and_then(|at| buf.get_mut(at)) {
                *slot = *byte;
            }
        }
        true
    }
}

/// What run-pre made of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// The function is refused, and the place named.
    Named,
    /// It is refused because what it refers to is elsewhere, and the function named.
    Disagrees,
    /// It is not counted as proven.
    NotProven,
    /// It counts as proven; the place is one that the running kernel may rewrite.
    Covered,
    /// It counts as proven.
    Missed,
}

/// A proven function: the object it is of, its name, address, size, and the ranges in it that may be
/// rewritten.
struct Proven {
    object: usize,
    function: String,
    address: u64,
    size: u64,
    live: Vec<(u64, u64)>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [units, core, symbols, count, rest @ ..] = words.as_slice() else {
        eprintln!("usage: flips UNITS CORE KALLSYMS COUNT [SEED]");
        return ExitCode::from(2);
    };
    let seed = rest.first().and_then(|word| word.parse().ok()).unwrap_or(1);
    match run(Path::new(units), core, symbols, count.parse().unwrap_or(1000), seed) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn run(
    units: &Path,
    core: &str,
    symbols: &str,
    count: usize,
    seed: u64,
) -> Result<usize, Box<dyn std::error::Error>> {
    let memory =
        Changed { core: CoreFile::open(Path::new(core))?, place: Mutex::new((0, Vec::new())) };
    let memory = Arc::new(memory);
    let symbols = Kallsyms::parse(std::fs::read_to_string(symbols)?)?;
    let snapshot = Snapshot::new(None, symbols, Box::new(Shared(Arc::clone(&memory))));
    let mut paths = Vec::new();
    objects(units, &mut paths)?;
    paths.sort();
    let mut proven = Vec::new();
    for (object, path) in paths.iter().enumerate() {
        let Some((arch, unit)) = read(path) else { continue };
        let survey = runpre::survey(arch, &unit, VMLINUX, &snapshot)?;
        proven.extend(survey.functions().iter().map(|f| Proven {
            object,
            function: f.function.clone(),
            address: f.address,
            size: f.size,
            live: f.live.clone(),
        }));
    }
    let mut numbers = Numbers::new(seed);
    let mut picked = pick(&proven, count, &mut numbers);
    picked.sort_by_key(|(function, _)| proven.get(*function).map(|f| f.object));
    let mut seen = BTreeMap::new();
    let mut open: Option<(usize, &'static dyn Arch, Unit)> = None;
    for (function, offset) in picked {
        let Some(function) = proven.get(function) else { continue };
        if open.as_ref().is_none_or(|(object, _, _)| *object != function.object) {
            let unit = paths.get(function.object).and_then(|path| read(path));
            open = unit.map(|(arch, unit)| (function.object, arch, unit));
        }
        let Some((_, arch, unit)) = &open else { continue };
        let Some((kind, place, bytes)) =
            change(&memory.core, *arch, function, offset, &mut numbers)
        else {
            continue;
        };
        memory.set(place, bytes.clone());
        let survey = runpre::survey(*arch, unit, VMLINUX, &snapshot)?;
        let what = judge(&survey, function, place, bytes.len() as u64);
        memory.set(0, Vec::new());
        if !matches!(what, Seen::Named | Seen::Covered) {
            let path = paths.get(function.object).map(|p| p.display().to_string());
            let at = place - function.address;
            let (path, name) = (path.unwrap_or_default(), &function.function);
            println!("{what:?}: {kind} in {path} {name} at {at:#x}");
            for foreign in survey.foreign() {
                println!("  {}", foreign.why.replace('\n', "\n  "));
            }
        }
        *seen.entry((kind, what)).or_insert(0) += 1;
    }
    println!("{} functions proven", proven.len());
    for ((kind, what), count) in &seen {
        println!("{kind} {what:?}: {count}");
    }
    Ok(seen.iter().filter(|((_, what), _)| *what == Seen::Missed).map(|(_, count)| count).sum())
}

fn read(path: &PathBuf) -> Option<(&'static dyn Arch, Unit)> {
    let bytes = std::fs::read(path).ok()?;
    let arch = arch_for(&bytes)?;
    let unit = Unit::read(arch, &path.to_string_lossy(), &bytes).ok()?;
    Some((arch, unit))
}

/// Places in proven functions, each byte as likely as any other.
fn pick(proven: &[Proven], count: usize, numbers: &mut Numbers) -> Vec<(usize, u64)> {
    let mut ends = Vec::with_capacity(proven.len());
    let mut all = 0u64;
    for function in proven {
        all += function.size;
        ends.push(all);
    }
    (0..count)
        .filter_map(|_| {
            let at = numbers.below(usize::try_from(all).ok()?)? as u64;
            let function = ends.partition_point(|end| *end <= at);
            let before = function.checked_sub(1).and_then(|f| ends.get(f)).copied().unwrap_or(0);
            Some((function, at - before))
        })
        .collect()
}

/// A change at a place: what it is, where it begins, and the bytes that stand there then.
fn change(
    core: &CoreFile,
    arch: &dyn Arch,
    function: &Proven,
    offset: u64,
    numbers: &mut Numbers,
) -> Option<(&'static str, u64, Vec<u8>)> {
    let address = function.address + offset;
    if numbers.below(2)? == 0 {
        let mut byte = [0];
        core.read(address, &mut byte).then_some(())?;
        return Some(("bit", address, vec![byte[0] ^ 1 << numbers.below(8)?]));
    }
    let mut bytes = vec![0; usize::try_from(function.size).ok()?];
    core.read(function.address, &mut bytes).then_some(())?;
    let (start, middle, end) = neighbours(arch, &bytes, usize::try_from(offset).ok()?)?;
    let (first, second) = (bytes.get(start..middle)?, bytes.get(middle..end)?);
    if first == second {
        return None;
    }
    Some(("swap", function.address + start as u64, [second, first].concat()))
}

/// The instruction that covers an offset, and the one behind it: start, middle and end.
fn neighbours(arch: &dyn Arch, bytes: &[u8], offset: usize) -> Option<(usize, usize, usize)> {
    let mut bounds = (0, 0);
    loop {
        let length = length(arch, bytes.get(bounds.1..)?)?;
        bounds = (bounds.1, bounds.1 + length);
        if bounds.1 > offset {
            let next = length_of_next(arch, bytes, bounds.1)?;
            return Some((bounds.0, bounds.1, bounds.1 + next));
        }
    }
}

fn length_of_next(arch: &dyn Arch, bytes: &[u8], at: usize) -> Option<usize> {
    length(arch, bytes.get(at..).filter(|rest| !rest.is_empty())?)
}

/// The length of the first instruction: the fewest bytes that are the same instruction as all are.
fn length(arch: &dyn Arch, bytes: &[u8]) -> Option<usize> {
    let whole = arch.diff().disassemble(bytes, 0, 1);
    (1..=bytes.len().min(15))
        .find(|n| bytes.get(..*n).is_some_and(|b| arch.diff().disassemble(b, 0, 1) == whole))
}

/// The hexadecimal number that a text begins with.
fn first_number(text: &str) -> Option<u64> {
    let digits = text.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

fn judge(survey: &Survey, function: &Proven, place: u64, size: u64) -> Seen {
    // Two functions that disagree are both named with their places, whichever was changed.
    let prefix = format!("{}+0x", function.function);
    let disagrees = survey.foreign().iter().flat_map(|f| f.why.split(prefix.as_str()).skip(1));
    let offset = place - function.address;
    if disagrees.filter_map(first_number).any(|at| at < offset + size && offset < at + 64) {
        return Seen::Named;
    }
    let refused = survey.foreign().iter().find(|f| f.function == function.function);
    if let Some(foreign) = refused {
        let named = foreign
            .why
            .split("address 0x")
            .filter_map(first_number)
            // An instruction is at most 15 bytes long, an alternative's place may be longer.
            .any(|at| at < place + size && place < at + 64);
        return if named { Seen::Named } else { Seen::Disagrees };
    }
    if !survey.foreign().is_empty() {
        return Seen::Disagrees;
    }
    let same = |f: &&runpre::FunctionReport| f.address == function.address;
    if survey.functions().iter().find(same).is_none() {
        return Seen::NotProven;
    }
    let covered = |(start, len): &(u64, u64)| *start < offset + size && offset < start + len;
    if function.live.iter().any(covered) { Seen::Covered } else { Seen::Missed }
}
