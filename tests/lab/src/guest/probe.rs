// SPDX-License-Identifier: GPL-2.0-or-later
//! Probes: what a fix changes, seen from user space. Each prints one word and exits 0 (allowed), or
//! 1 (denied), or 2 (something else went wrong).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::setup::{event_descriptor, name_process, tap_device, vfork_reader, write_raw};
use super::sockets::{attach_filter, loopback, loopback_packets, send_to, socket};
use super::{netlink, trigger};

/// Runs the probe with this name.
#[must_use]
pub fn run(name: &str) -> ExitCode {
    let result = match name {
        "tcp-attach-filter" => tcp_attach_filter(),
        "raw-short-header" => raw_short_header(),
        "tipc-net-set" => tipc_net_set(),
        "raw-without-family" => raw_without_family(),
        "inode-numbers" => inode_numbers(),
        "sleep-in-eventfd" => sleep_in_eventfd(),
        "wait-for-vfork" => wait_for_vfork(),
        "short-eventfd" => short_eventfd(),
        "packet-headers" => packet_headers(),
        "eventfd-writes" => eventfd_writes(),
        "devices-fixed" => devices_fixed(),
        "toggle-processors" => toggle_processors(),
        "toggle-updates" => toggle_updates(),
        _ => trigger::run(name)
            .unwrap_or_else(|| Err(io::Error::other(format!("no probe is called {name}")))),
    };
    match result {
        Ok(()) => {
            println!("allowed");
            ExitCode::SUCCESS
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) =>
        {
            println!("denied: {error}");
            ExitCode::from(1)
        }
        Err(error) => {
            println!("failed: {error}");
            ExitCode::from(2)
        }
    }
}

/// CVE-2026-53236: may an unprivileged user attach a socket filter to a TCP socket?
fn tcp_attach_filter() -> io::Result<()> {
    attach_filter(&socket(libc::AF_INET, libc::SOCK_STREAM, 0)?)
}

/// CVE-2026-64114: may a packet with a header length below five words be sent through a raw socket?
fn raw_short_header() -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    let mut packet = [0_u8; 64];
    let header = [0x44, 0, 0, 64, 0, 1, 0, 0, 64, 253, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    for (to, from) in packet.iter_mut().zip(header) {
        *to = from;
    }
    send_to(&socket, &packet, &loopback(0))
}

/// CVE-2026-74283: may an unprivileged user change the network's settings? The command lacks what
/// it needs, so that even one who may gets an error, but another one.
fn tipc_net_set() -> io::Result<()> {
    /// `TIPC_NL_NET_SET` of include/uapi/linux/tipc_netlink.h.
    const NET_SET: u8 = 15;
    match netlink::command("TIPCv2", NET_SET) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// May a packet be sent to an address of no family?
fn raw_without_family() -> io::Result<()> {
    send_to(&socket(libc::AF_INET, libc::SOCK_RAW, 253)?, &[], &[0; 16])
}

/// Takes three thousand inode numbers of the kernel's own file systems: prints the least and the
/// greatest of them, and how many are odd.
fn inode_numbers() -> io::Result<()> {
    let mut numbers = Vec::new();
    for _ in 0..3000 {
        let (pipe, _) = io::pipe()?;
        numbers.push(File::from(OwnedFd::from(pipe)).metadata()?.ino());
    }
    let odd = numbers.iter().filter(|number| **number % 2 == 1).count();
    let (least, greatest) = (numbers.iter().min(), numbers.iter().max());
    println!("{} {} {odd}", least.unwrap_or(&0), greatest.unwrap_or(&0));
    Ok(())
}

/// Writes a packet, its header with an unknown flag, to a packet socket (of the kernel image) and to
/// a TAP device that is not up (of the module tun): prints what came back from each.
fn packet_headers() -> io::Result<()> {
    let mut packet = [0_u8; 74];
    if let Some(flags) = packet.first_mut() {
        *flags = 0x80;
    }
    println!("{} {}", write_raw(&loopback_packets()?, &packet), write_raw(&tap_device()?, &packet));
    Ok(())
}

/// May four bytes be read from an event descriptor, which gives eight?
fn short_eventfd() -> io::Result<()> {
    File::from(event_descriptor()?).read(&mut [0; 4]).map(|_| ())
}

/// Waits, not to be interrupted, for a child that reads standard input to its end.
fn wait_for_vfork() -> io::Result<()> {
    name_process(c"parent");
    vfork_reader()
}

/// Set when standard input ends, whatever else comes.
fn until_input_ends() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
    over
}

/// Writes to an event descriptor until standard input ends, at least once; prints what the kernel tells
/// of the descriptor then, and the number of writes.
fn eventfd_writes() -> io::Result<()> {
    let over = until_input_ends();
    let mut events = File::from(event_descriptor()?);
    let mut total = 0_u64;
    while total == 0 || !over.load(Ordering::Relaxed) {
        events.write_all(&1_u64.to_ne_bytes())?;
        total += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", events.as_raw_fd()))?;
    println!("{info}total: {total}");
    Ok(())
}

/// Reads the list of devices again and again until standard input ends: does each begin with the line of
/// a fix?
fn devices_fixed() -> io::Result<()> {
    let over = until_input_ends();
    let (mut total, mut wrong) = (0_u64, 0_u64);
    while total == 0 || !over.load(Ordering::Relaxed) {
        let text = std::fs::read_to_string("/proc/devices")?;
        total += 1;
        wrong += u64::from(!text.starts_with("lab fixed\n"));
    }
    println!("total: {total}\nwrong: {wrong}");
    Ok(())
}

/// Takes processors away and brings them back until standard input ends; prints how often.
fn toggle_processors() -> io::Result<()> {
    let over = until_input_ends();
    let mut times = 0_u64;
    while !over.load(Ordering::Relaxed) {
        for value in ["0", "1"] {
            for number in [1, 2] {
                std::fs::write(format!("/sys/devices/system/cpu/cpu{number}/online"), value)?;
                times += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{times}");
    Ok(())
}

/// Switches the updates of a test there and back, past the command, until standard input ends; prints how
/// often that succeeded. Two do it at once, so most is refused.
fn toggle_updates() -> io::Result<()> {
    let over = until_input_ends();
    let mut times = 0_u64;
    while !over.load(Ordering::Relaxed) {
        for (id, value) in [("first", "0"), ("else", "0"), ("first", "1"), ("else", "replace")] {
            let enabled = format!("/sys/kernel/splice/{id}/enabled");
            times += u64::from(std::fs::write(enabled, value).is_ok());
        }
    }
    println!("{times}");
    Ok(())
}

/// Sleeps in reading an event descriptor until standard input ends, for a test that needs a thread
/// in a known function.
fn sleep_in_eventfd() -> io::Result<()> {
    name_process(c"sleeper");
    let mut events = File::from(event_descriptor()?);
    std::thread::spawn(|| {
        // Whatever comes, the end of the input is the signal.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
    events.read_exact(&mut [0; 8])
}
