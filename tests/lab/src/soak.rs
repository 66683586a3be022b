// SPDX-License-Identifier: GPL-2.0-or-later
//! The soak: an update goes on and off many times in one boot, under load, and nothing may be left
//! behind: no warning, no module, no memory. With unrest, tracers, probes, processors and much else come
//! and go meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fixes;
use crate::protocol::Command;
use crate::session::{Contents, Guest, Lab};

/// The fix that goes on and off.
const FIX: &str = "attach-filter";
/// Of so many cycles, one is the command's, which proves the running code, loads the modules and unloads
/// them; in the others the kernel side alone is asked.
const ROUND: usize = 10;
/// Rounds before memory is first looked at: caches fill in the beginning.
const WARM_UP: usize = 5;
/// A module that comes and goes.
const MODULE: &str = "kernel/drivers/net/dummy.ko";
/// Growth of one slab cache that is taken for noise, in objects for each cycle. Whatever leaks in a
/// cycle leaks at least one object.
const OBJECTS_PER_CYCLE: f64 = 0.5;
/// And in slabs: the kernel counts all objects of a slab that a processor works with as active, so a
/// count is uncertain by such a slab, and one on its way, for each of the two processors.
const SLABS: u64 = 4;

/// What the switches came to.
#[derive(Default)]
struct Switches {
    pauses: Vec<u64>,
    /// How often somebody was in the way.
    busy: u64,
    /// The most tries that one took.
    most: u64,
}

/// Runs so many cycles on so many processors, on the kernel of that release or the usual one.
pub fn run(release: Option<&str>, cycles: usize, cpus: u32, unrest: bool) -> Result<()> {
    let fix = fixes::find(FIX)?;
    let lab = Lab::for_fix(release, &fix)?;
    lab.prepare()?;
    let (file, created) = lab.create(FIX, &fix.patch(&lab.cache)?)?;
    created.success()?;
    let limit = Some(Duration::from_secs(300 + 10 * cycles as u64));
    let module = std::fs::read(lab.image.modules.join(MODULE)).context("no module")?;
    let contents = Contents {
        updates: vec![(FIX, &file)],
        files: vec![(MODULE, module)],
        limit,
        cpus: Some(cpus),
        rewrites_itself: unrest,
        ..Contents::default()
    };
    let mut guest = Guest::boot(&lab, &lab.image, &contents)?;
    // Closed connections would be remembered for a minute.
    guest.machine.write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")?;
    let mut switches = Switches::default();
    let mut cleared = 0;
    let mut operations = 0;
    let started = Instant::now();
    // Memory at the beginning, in the middle and at the end.
    let mut counted = Vec::new();
    let rounds = cycles.div_ceil(ROUND);
    busy(&mut guest, unrest)?;
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP || round == WARM_UP + rounds / 2 {
            operations += quiet(&mut guest, unrest)?;
            counted.push(slabs(&mut guest)?);
            busy(&mut guest, unrest)?;
        }
        cleared += one(&mut guest, &mut switches).with_context(|| format!("round {round}"))?;
        if round % 10 == 0 {
            eprintln!("round {round}, {:.0} s", started.elapsed().as_secs_f64());
            guest.machine.check_kernel()?;
        }
    }
    operations += quiet(&mut guest, unrest)?;
    counted.push(slabs(&mut guest)?);
    guest.expect_clean()?;
    let grown = grown(&counted, OBJECTS_PER_CYCLE * (rounds / 2 * ROUND) as f64);
    let Switches { mut pauses, busy, most } = switches;
    pauses.sort_unstable();
    let at = |part: f64| {
        let index = (pauses.len().saturating_sub(1)) as f64 * part;
        pauses.get(index as usize).map_or(0.0, |&pause| pause as f64 / 1e6)
    };
    println!(
        "{} cycles in {:.0} s, {operations} operations of the load, none wrong",
        (WARM_UP + rounds) * ROUND,
        started.elapsed().as_secs_f64()
    );
    println!(
        "pause: median {:.2} ms, 99% {:.2} ms, longest {:.2} ms; somebody was in the way {busy} times, \
         of one switch at most {most}; {cleared} stale words that the kernel vouched for",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    ensure!(grown.is_empty(), "memory leaks: {}", grown.join(", "));
    println!("no slab cache grew with the cycles; no warning; every module unloaded");
    guest.machine.power_off()
}

/// A round of cycles; the number of stale words that the kernel vouched for.
fn one(guest: &mut Guest, switches: &mut Switches) -> Result<u64> {
    guest.apply(FIX)?.success()?;
    for _ in 1..ROUND {
        for value in ["0", "1"] {
            let busy = guest.switch(FIX, value)?;
            switches.busy += busy;
            switches.most = switches.most.max(busy);
            let pause = guest.machine.read(&format!("/sys/kernel/splice/{FIX}/pause_ns"))?;
            switches.pauses.push(pause.trim().parse().context("no pause")?);
        }
    }
    let status = guest.splice(&["status", FIX])?.success()?;
    guest.undo(FIX)?.success()?;
    Ok(status.number("cleared").unwrap_or(0))
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

/// Starts the load, and the unrest if it is wanted.
fn busy(guest: &mut Guest, unrest: bool) -> Result<()> {
    if unrest {
        guest.machine.start("unrest", &Command::new(["/init", "unrest", &format!("/{MODULE}")]))?;
    }
    guest.machine.start_load()
}

/// Stops both and lets the kernel free what is only waiting to be freed.
fn quiet(guest: &mut Guest, unrest: bool) -> Result<u64> {
    let load = guest.machine.stop_load()?;
    if unrest {
        // Each of its rounds is brought to its end.
        let ended = guest.machine.stop("unrest")?;
        ensure!(ended.stdout.contains("wrong: 0\n"), "the unrest did not go well: {ended:?}");
        println!("{}", ended.stdout.lines().next().unwrap_or_default());
    }
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
