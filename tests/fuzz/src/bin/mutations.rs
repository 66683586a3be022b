// SPDX-License-Identifier: GPL-2.0-or-later
//! `mutations DIR COUNT [SEED]`: changes one function at a time in objects below a directory, COUNT
//! times in all over 100 of them, and says how often the differ noticed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use splice_fuzz::mutate::{Numbers, Seen, Subject};
use splice_fuzz::objects;

/// Objects that are taken.
const OBJECTS: usize = 100;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (Some(directory), Some(Ok(count))) =
        (words.first(), words.get(1).map(|w| w.parse::<usize>()))
    else {
        eprintln!("usage: mutations DIR COUNT [SEED]");
        return ExitCode::from(2);
    };
    let seed = words.get(2).and_then(|w| w.parse().ok()).unwrap_or(1);
    let mut paths = Vec::new();
    if let Err(error) = objects(Path::new(directory), &mut paths) {
        eprintln!("cannot list {directory}: {error}");
        return ExitCode::FAILURE;
    }
    paths.sort();
    let mut numbers = Numbers::new(seed);
    let step = (paths.len() / OBJECTS).max(1);
    let mut seen = BTreeMap::new();
    let (mut units, mut missed) = (0, 0);
    for path in paths.iter().step_by(step) {
        let Some(subject) = std::fs::read(path).ok().and_then(Subject::new) else { continue };
        units += 1;
        let (mut done, mut tries) = (0, 0);
        while done < count.div_ceil(OBJECTS) && tries < count {
            tries += 1;
            let Some(mutation) = subject.mutate(&mut numbers) else { continue };
            done += 1;
            *seen.entry((mutation.kind, mutation.seen)).or_insert(0) += 1;
            if mutation.seen == Seen::Missed {
                missed += 1;
                println!("{}: {mutation:?}", path.display());
            }
        }
    }
    println!("{units} units");
    for ((kind, seen), count) in &seen {
        println!("{kind:?} {seen:?}: {count}");
    }
    ExitCode::from(u8::from(missed > 0))
}
