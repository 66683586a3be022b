// SPDX-License-Identifier: GPL-2.0-or-later
//! A function that was changed in the object never counts as the same. The same on a kernel's own
//! objects is `cargo run --release -p splice-fuzz --bin mutations DIR COUNT`.

use std::collections::BTreeMap;
use std::path::Path;

use splice_fuzz::mutate::{Kind, Numbers, Seen, Subject};

#[test]
fn no_change_of_one_function_goes_unnoticed() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut numbers = Numbers::new(7);
    let mut kinds: BTreeMap<(Kind, Seen), usize> = BTreeMap::new();
    for entry in std::fs::read_dir(seeds).unwrap() {
        let path = entry.unwrap().path();
        let Some(subject) = Subject::new(std::fs::read(&path).unwrap()) else { continue };
        for _ in 0..60 {
            let Some(mutation) = subject.mutate(&mut numbers) else { continue };
            assert_ne!(mutation.seen, Seen::Missed, "{}: {mutation:?}", path.display());
            *kinds.entry((mutation.kind, mutation.seen)).or_default() += 1;
        }
    }
    for kind in [Kind::Byte, Kind::Addend, Kind::Symbol] {
        let changed = kinds.get(&(kind, Seen::Changed)).copied().unwrap_or(0);
        assert!(changed > 30, "only {changed} of {kind:?}: {kinds:?}");
    }
}
