// SPDX-License-Identifier: GPL-2.0-or-later
//! The soak: an update goes on and off many times in one boot, under load, and nothing may be left
//! behind: no warning, no module, no memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fixes;
use crate::session::{Contents, Guest, Lab};

/// The fix that goes on and off.
const FIX: &str = "attach-filter";
/// Cycles before memory is first looked at: caches fill in the beginning.
const WARM_UP: usize = 5;
/// Growth of one slab cache that is taken for noise, in objects for each cycle. Whatever leaks in a
/// cycle leaks at least one object.
const OBJECTS_PER_CYCLE: f64 = 0.5;

/// Runs so many cycles.
pub fn run(cycles: usize) -> Result<()> {
    let fix = fixes::find(FIX)?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    lab.prepare()?;
    let (file, created) = lab.create(FIX, &fix.patch(&lab.cache)?)?;
    created.success()?;
    let limit = Some(Duration::from_secs(120 + 30 * cycles as u64));
    let contents = Contents { updates: vec![(FIX, &file)], limit, ..Contents::default() };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    // Closed connections would be remembered for a minute.
    guest.machine.write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")?;
    let mut pauses = Vec::new();
    let mut most_attempts = 0;
    let mut operations = 0;
    let started = Instant::now();
    // Memory at the beginning, in the middle and at the end.
    let mut counted = Vec::new();
    guest.machine.start_load()?;
    for cycle in 0..WARM_UP + cycles {
        if cycle == WARM_UP || cycle == WARM_UP + cycles / 2 {
            operations += quiet(&mut guest)?;
            counted.push(slabs(&mut guest)?);
            guest.machine.start_load()?;
        }
        guest.apply(FIX)?.success().with_context(|| format!("cycle {cycle}"))?;
        let status = guest.splice(&["status", FIX])?.success()?;
        pauses.extend(status.number("pause_ns"));
        most_attempts = most_attempts.max(status.number("attempts").unwrap_or(0));
        guest.undo(FIX)?.success().with_context(|| format!("cycle {cycle}"))?;
        if cycle % 20 == 0 {
            eprintln!("cycle {cycle}, {:.0} s", started.elapsed().as_secs_f64());
            guest.machine.check_kernel()?;
        }
    }
    operations += quiet(&mut guest)?;
    counted.push(slabs(&mut guest)?);
    guest.expect_clean()?;
    let grown = grown(&counted, OBJECTS_PER_CYCLE * (cycles / 2) as f64);
    pauses.sort_unstable();
    let at = |part: f64| {
        let index = (pauses.len().saturating_sub(1)) as f64 * part;
        pauses.get(index as usize).map_or(0.0, |&pause| pause as f64 / 1e6)
    };
    println!(
        "{cycles} cycles in {:.0} s, {operations} operations of the load, none wrong",
        started.elapsed().as_secs_f64()
    );
    println!(
        "pause: median {:.2} ms, 99% {:.2} ms, longest {:.2} ms; at most {most_attempts} attempts",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    ensure!(grown.is_empty(), "memory leaks: {}", grown.join(", "));
    println!("no slab cache grew with the cycles; no warning; every module unloaded");
    guest.machine.power_off()
}

/// Slab caches that grew by more than that many objects from each count to the next. What is freed
/// late, or kept once, makes one count differ; what leaks makes all of them.
fn grown(counted: &[BTreeMap<String, u64>], allowed: f64) -> Vec<String> {
    let last = counted.last().into_iter().flat_map(BTreeMap::keys);
    last.filter_map(|name| {
        let objects: Vec<u64> =
            counted.iter().map(|slabs| slabs.get(name).copied().unwrap_or(0)).collect();
        let leaks = objects.windows(2).all(|pair| match pair {
            [from, to] => to.saturating_sub(*from) as f64 > allowed,
            _ => false,
        });
        let list: Vec<String> = objects.iter().map(u64::to_string).collect();
        leaks.then(|| format!("{name} ({} objects)", list.join(", ")))
    })
    .collect()
}

/// Stops the load and lets the kernel free what is only waiting to be freed.
fn quiet(guest: &mut Guest) -> Result<u64> {
    let load = guest.machine.stop_load()?;
    ensure!(load.wrong == 0, "the load saw wrong results: {}", load.examples.join("; "));
    // What is freed after a grace period is freed by then, and what that frees in turn.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(2));
        let settled = guest.machine.run_words(&["/init", "settle"])?;
        ensure!(settled.exit == Some(0), "the kernel did not settle: {}", settled.stderr);
    }
    Ok(load.operations())
}

/// Active objects of each slab cache.
fn slabs(guest: &mut Guest) -> Result<BTreeMap<String, u64>> {
    Ok(parse_slabs(&guest.machine.read("/proc/slabinfo")?))
}

fn parse_slabs(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_all_the_time_leaks() {
        let count = |leak, late| BTreeMap::from([("leak".into(), leak), ("late".into(), late)]);
        let counted = [count(10, 10), count(30, 90), count(50, 91)];
        assert_eq!(grown(&counted, 10.0), ["leak (10, 30, 50 objects)"]);
        assert!(grown(&counted, 20.0).is_empty());
    }

    #[test]
    fn slabinfo_is_read() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> ...\nkmalloc-64   123  140 64\n";
        assert_eq!(parse_slabs(text).get("kmalloc-64"), Some(&123));
    }
}
