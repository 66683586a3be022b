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
/// And in slabs: the kernel counts all objects of a slab that a processor works with as active, so a
/// count is uncertain by such a slab, and one on its way, for each of the two processors.
const SLABS: u64 = 4;

/// Runs so many cycles on so many processors.
pub fn run(cycles: usize, cpus: u32) -> Result<()> {
    let fix = fixes::find(FIX)?;
    let lab = Lab::open(&fix.base, &fix.target)?;
    lab.prepare()?;
    let (file, created) = lab.create(FIX, &fix.patch(&lab.cache)?)?;
    created.success()?;
    let limit = Some(Duration::from_secs(120 + 30 * cycles as u64));
    let cpus = Some(cpus);
    let contents = Contents { updates: vec![(FIX, &file)], limit, cpus, ..Contents::default() };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    // Closed connections would be remembered for a minute.
    guest.machine.write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")?;
    let mut pauses = Vec::new();
    let (mut most_attempts, mut cleared) = (0, 0);
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
        cleared += status.number("cleared").unwrap_or(0);
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
        "pause: median {:.2} ms, 99% {:.2} ms, longest {:.2} ms; at most {most_attempts} \
         attempts; {cleared} stale words that the kernel vouched for",
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
fn grown(counted: &[BTreeMap<String, Slabs>], allowed: f64) -> Vec<String> {
    let last = counted.last().into_iter().flatten();
    last.filter_map(|(name, now)| {
        let allowed = allowed.max((SLABS * now.per_slab) as f64);
        let objects: Vec<u64> =
            counted.iter().map(|slabs| slabs.get(name).map_or(0, |s| s.active)).collect();
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

/// A slab cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slabs {
    active: u64,
    per_slab: u64,
}

fn slabs(guest: &mut Guest) -> Result<BTreeMap<String, Slabs>> {
    Ok(parse_slabs(&guest.machine.read("/proc/slabinfo")?))
}

/// Lines of `name active_objs num_objs objsize objperslab …`.
fn parse_slabs(text: &str) -> BTreeMap<String, Slabs> {
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse().ok();
            let slabs = Slabs { active: number(1)?, per_slab: number(4)? };
            Some(((*fields.first()?).to_owned(), slabs))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_all_the_time_leaks() {
        let slabs = |active| Slabs { active, per_slab: 4 };
        let count = |leak, late| {
            BTreeMap::from([("leak".into(), slabs(leak)), ("late".into(), slabs(late))])
        };
        let counted = [count(10, 10), count(30, 90), count(50, 91)];
        assert_eq!(grown(&counted, 10.0), ["leak (10, 30, 50 objects)"]);
        assert!(grown(&counted, 20.0).is_empty());
        // Four slabs of four objects and no more are what counting may be wrong by.
        let counted = [count(10, 10), count(26, 10), count(42, 10)];
        assert!(grown(&counted, 10.0).is_empty());
    }

    #[test]
    fn slabinfo_is_read() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> ...\nkmalloc-64   123  140 64 64 1 : tunables\n";
        let found = parse_slabs(text);
        assert_eq!(found.get("kmalloc-64"), Some(&Slabs { active: 123, per_slab: 64 }));
    }
}
