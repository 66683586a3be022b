// SPDX-License-Identifier: GPL-2.0-or-later
//! Exercises: use of one part of the kernel, while an update of that part goes on and off. Every round does
//! something whole and verifies what came of it.

mod calls;
pub mod disks;
mod files;
mod packets;
mod sockets;

use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::ExerciseReport;

/// Use of one part of the kernel.
pub struct Exercise {
    /// What it is called.
    pub name: &'static str,
    /// What it goes through: how paths in the kernel's source begin.
    pub of: &'static [&'static str],
    /// Modules that it needs.
    pub modules: &'static [&'static str],
    /// The image of a file system that it needs in the machine: `images/KIND`.
    pub image: Option<&'static str>,
    round: fn(u64) -> io::Result<()>,
}

const PLAIN: Exercise =
    Exercise { name: "", of: &[], modules: &[], image: None, round: calls::nothing };

/// All there are. A file of the kernel belongs to the first whose beginning it has.
pub const ALL: &[Exercise] = &[
    Exercise {
        name: "ipv6",
        of: &["net/ipv6/", "include/net/if_inet6.h"],
        round: sockets::ipv6,
        ..PLAIN
    },
    Exercise {
        name: "unix",
        of: &["net/unix/"],
        modules: &["unix_diag"],
        round: sockets::unix,
        ..PLAIN
    },
    Exercise {
        name: "sctp",
        of: &["net/sctp/", "include/net/sctp/"],
        modules: &["sctp", "sctp_diag"],
        round: sockets::sctp,
        ..PLAIN
    },
    Exercise { name: "smc", of: &["net/smc/"], modules: &["smc"], round: sockets::smc, ..PLAIN },
    Exercise { name: "rds", of: &["net/rds/"], modules: &["rds"], round: sockets::rds, ..PLAIN },
    Exercise {
        name: "tipc",
        of: &["net/tipc/"],
        modules: &["tipc"],
        round: sockets::tipc,
        ..PLAIN
    },
    Exercise {
        name: "key management",
        of: &["net/key/"],
        modules: &["af_key"],
        round: sockets::key_management,
        ..PLAIN
    },
    Exercise {
        name: "u32 rule",
        of: &["net/netfilter/xt_u32.c"],
        modules: &["iptable_filter", "xt_u32"],
        round: packets::u32_rule,
        ..PLAIN
    },
    Exercise {
        name: "multiport rule",
        of: &["net/netfilter/xt_multiport.c"],
        modules: &["iptable_filter", "xt_multiport"],
        round: packets::multiport_rule,
        ..PLAIN
    },
    Exercise {
        name: "classifiers",
        of: &["net/sched/", "include/net/act_api.h"],
        modules: &["dummy", "sch_prio", "cls_fw", "cls_route", "act_gact"],
        round: packets::classifiers,
        ..PLAIN
    },
    Exercise {
        name: "bridge",
        of: &["net/bridge/"],
        modules: &["bridge", "dummy"],
        round: packets::bridge,
        ..PLAIN
    },
    Exercise {
        name: "bond",
        of: &["drivers/net/bonding/"],
        modules: &["bonding", "dummy"],
        round: packets::bond,
        ..PLAIN
    },
    Exercise {
        name: "vrf",
        of: &["drivers/net/vrf.c"],
        modules: &["vrf", "dummy"],
        round: packets::vrf,
        ..PLAIN
    },
    Exercise {
        name: "vxlan",
        of: &["drivers/net/vxlan/"],
        modules: &["vxlan"],
        round: packets::vxlan,
        ..PLAIN
    },
    Exercise {
        name: "ifb",
        of: &["drivers/net/ifb.c"],
        modules: &["ifb"],
        round: packets::ifb,
        ..PLAIN
    },
    Exercise {
        name: "ipv4",
        of: &["net/ipv4/", "net/core/", "include/linux/inetdevice.h"],
        round: sockets::ipv4,
        ..PLAIN
    },
    Exercise {
        name: "algorithms",
        of: &["crypto/"],
        modules: &["algif_hash", "algif_skcipher", "ecb"],
        round: calls::algorithms,
        ..PLAIN
    },
    Exercise {
        name: "keys",
        of: &["security/keys/", "include/keys/"],
        round: calls::keys,
        ..PLAIN
    },
    Exercise {
        name: "bpf",
        of: &["kernel/bpf/", "security/bpf/", "include/linux/bpf"],
        round: calls::bpf_program,
        ..PLAIN
    },
    Exercise { name: "memory", of: &["mm/"], round: calls::memory, ..PLAIN },
    Exercise { name: "shared memory", of: &["ipc/"], round: calls::shared_memory, ..PLAIN },
    Exercise {
        name: "timers",
        of: &["kernel/time/", "kernel/signal.c"],
        round: calls::timers,
        ..PLAIN
    },
    Exercise { name: "events", of: &["kernel/trace/"], round: files::events, ..PLAIN },
    Exercise { name: "cpuset", of: &["kernel/cgroup/"], round: files::cpuset, ..PLAIN },
    Exercise { name: "inotify", of: &["fs/notify/"], round: files::watches, ..PLAIN },
    Exercise { name: "proc", of: &["fs/proc/"], round: files::own_memory, ..PLAIN },
    Exercise {
        name: "binfmt",
        of: &["fs/binfmt_misc.c"],
        modules: &["binfmt_misc"],
        round: files::interpreter,
        ..PLAIN
    },
    Exercise {
        name: "raid 1",
        of: &["drivers/md/raid1.c"],
        modules: &["brd", "raid1"],
        round: disks::raid1,
        ..PLAIN
    },
    Exercise {
        name: "raid 10",
        of: &["drivers/md/raid10.c"],
        modules: &["brd", "raid10"],
        round: disks::raid10,
        ..PLAIN
    },
    Exercise {
        name: "scsi",
        of: &["drivers/scsi/scsi_debug.c"],
        modules: &["scsi_debug", "sd_mod"],
        round: disks::scsi,
        ..PLAIN
    },
    Exercise {
        name: "exfat",
        of: &["fs/exfat/"],
        modules: &["brd", "exfat"],
        image: Some("images/exfat"),
        round: disks::exfat,
    },
    Exercise {
        name: "udf",
        of: &["fs/udf/"],
        modules: &["brd", "udf"],
        image: Some("images/udf"),
        round: disks::udf,
    },
    Exercise {
        name: "erofs",
        of: &["fs/erofs/"],
        modules: &["brd", "erofs"],
        image: Some("images/erofs"),
        round: disks::erofs,
    },
    Exercise {
        name: "isofs",
        of: &["fs/isofs/"],
        modules: &["brd", "isofs"],
        image: Some("images/iso9660"),
        round: disks::isofs,
    },
    Exercise {
        name: "btrfs",
        of: &["fs/btrfs/"],
        modules: &["brd", "btrfs"],
        image: Some("images/btrfs"),
        round: disks::btrfs,
    },
    Exercise {
        name: "ext4",
        of: &["fs/ext4/", "fs/quota/", "fs/super.c", "include/linux/quotaops.h"],
        modules: &["brd"],
        image: Some("images/ext4"),
        round: disks::ext4,
    },
];

/// The exercise that goes through a file of the kernel's source.
#[must_use]
pub fn of(file: &str) -> Option<&'static Exercise> {
    ALL.iter().find(|exercise| exercise.of.iter().any(|begin| file.starts_with(begin)))
}

/// The file that holds how many rounds of an exercise are over.
#[must_use]
pub fn progress(name: &str) -> String {
    format!("/run/exercise {name}")
}

/// What a machine must do between two rounds, too: of several exercises at once, each waits that much longer.
const PACE: Duration = Duration::from_millis(20);
/// At most so many wrong results are described.
const EXAMPLES: usize = 4;
/// How much they give way to the load and to splice: all of them at once would have splice wait for minutes.
const NICE: i32 = 10;

/// Goes on with all of these until standard input ends; then prints an [`ExerciseReport`] for each.
#[must_use]
pub fn run(names: &[&str]) -> ExitCode {
    if rustix::process::nice(NICE).is_err() {
        return ExitCode::FAILURE;
    }
    let over = AtomicBool::new(false);
    let reports = Mutex::new(Vec::new());
    let pace = PACE * u32::try_from(names.len()).unwrap_or(u32::MAX);
    std::thread::scope(|scope| {
        for exercise in ALL.iter().filter(|exercise| names.contains(&exercise.name)) {
            let (over, reports) = (&over, &reports);
            scope.spawn(move || {
                let report = repeat(exercise, over, pace);
                reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            });
        }
        // Whatever comes, the end of the input is the signal.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
    });
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    match serde_json::to_string(&reports) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn repeat(exercise: &Exercise, over: &AtomicBool, pace: Duration) -> ExerciseReport {
    let mut report = ExerciseReport { name: exercise.name.to_owned(), ..ExerciseReport::default() };
    while !over.load(Ordering::Relaxed) {
        if let Err(error) = (exercise.round)(report.rounds) {
            report.wrong += 1;
            if report.examples.len() < EXAMPLES {
                report.examples.push(format!("round {}: {error}", report.rounds));
            }
        }
        report.rounds += 1;
        // Who waits for a round sees that none ends.
        let _ = std::fs::write(progress(exercise.name), report.rounds.to_string());
        std::thread::sleep(pace);
    }
    report
}

/// That something is as it should be.
fn expect(good: bool, what: &str) -> io::Result<()> {
    if good { Ok(()) } else { Err(io::Error::other(format!("not as expected: {what}"))) }
}

/// Does what the kernel refuses while somebody holds a file open, once nobody does: another thread's child has
/// copies of all open files from its fork until it runs its program.
pub fn unhindered<T>(mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let started = Instant::now();
    loop {
        match what() {
            Err(error) if is_held(&error) && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

fn is_held(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::ExecutableFileBusy)
}

/// An error with what was tried.
fn at<T>(what: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_exercise_of_its_directory() {
        assert_eq!(of("net/netfilter/xt_u32.c").unwrap().name, "u32 rule");
        assert_eq!(of("net/ipv4/raw.c").unwrap().name, "ipv4");
        assert!(of("drivers/net/gve/gve.c").is_none());
    }
}
