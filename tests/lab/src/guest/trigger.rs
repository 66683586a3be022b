// SPDX-License-Identifier: GPL-2.0-or-later
//! Triggers: bugs of the corpus, seen from user space. Each is named like its fix and prints what it saw;
//! as for a probe, the exit code is 0 if the bug is there and 1 if the kernel refuses.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::bpf::{FILTER, NOTHING, PROG_TEST_RUN, array, attributes, bpf, load};
use super::raid::Array;
use super::setup::{add_key, driver_info};
use super::sockets::{algorithm, set_option_raw, socket};
use super::{netlink, tables};

/// Runs the trigger with this name, if there is one.
pub fn run(name: &str) -> Option<io::Result<()>> {
    Some(match name {
        "ipv4-restrict-ipopt-ssrr-and-ipopt-lsrr" => source_route(),
        "bpf-remove-tst-run-from-lwt-seg6local" => segment_test_run(),
        "bpf-mask-pseudo-pointer-values-in" => verifier_log(),
        "crypto-authencesn-reject-short-ahash" => short_digest(),
        "net-ifb-report-ethtool-stats-over-num-tx" => device_statistics(),
        "netfilter-xt-u32-reject-invalid-shift" => {
            tables::with_match(&tables::shift_by(32), || Ok(()))
        }
        "netfilter-xt-multiport-validate-range" => {
            tables::with_match(&tables::ports(80, None), || Ok(()))
        }
        "smb-client-reject-userspace-cifs-spnego" => add_key(c"cifs.spnego"),
        "block-avoid-mounting-the-bdev-pseudo" => listed_file_system("bdev"),
        "md-raid10-fix-divide-by-zero-in-setup" => no_far_copies(),
        _ => return None,
    })
}

/// What a call without a wrapper came to.
pub(super) fn result(code: i64) -> io::Result<()> {
    if code < 0 {
        Err(io::Error::from_raw_os_error(i32::try_from(-code).unwrap_or(0)))
    } else {
        Ok(())
    }
}

fn denied(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, what.to_owned())
}

/// May whoever has no privilege say by which way packets are to go?
fn source_route() -> io::Result<()> {
    /// `IPOPT_SSRR`, its length, the offset of the next address, and one address (RFC 791).
    const OPTIONS: [u8; 8] = [0x89, 7, 4, 127, 0, 0, 1, 0];
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    result(set_option_raw(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &OPTIONS))
}

/// Can a program for segment routing be run without a packet that is being routed?
fn segment_test_run() -> io::Result<()> {
    /// `BPF_PROG_TYPE_LWT_SEG6LOCAL`.
    const KIND: u64 = 19;
    let program = load(KIND, &NOTHING, &mut [], &[])?;
    let packet = [0_u8; 64];
    let mut attr = attributes(&[
        (0, program.cast_unsigned().into(), 4),
        (8, packet.len() as u64, 4),
        (16, packet.as_ptr() as u64, 8),
    ]);
    match bpf(PROG_TEST_RUN, &mut attr) {
        // ENOTSUPP, which user space has no name for.
        Err(error) if error.raw_os_error() == Some(524) => Err(denied("no test run")),
        other => other.map(drop),
    }
}

/// Does the verifier tell the address of a map to whoever may load programs but not see addresses?
fn verifier_log() -> io::Result<()> {
    /// `r1 = map number 0 of fd_array`: `BPF_PSEUDO_MAP_IDX` is source register 5.
    const LOAD_MAP: [u64; 2] = [0x5118, 0];
    let only = CapabilitySet::BPF;
    set_capabilities(
        None,
        CapabilitySets { effective: only, permitted: only, inheritable: CapabilitySet::empty() },
    )?;
    let map = array(1)?;
    let code = [LOAD_MAP, NOTHING].concat();
    let mut log = vec![0; 1 << 16];
    load(FILTER, &code, &mut log, &[map])?;
    let log = String::from_utf8_lossy(&log);
    let shown = log.split("r1 = 0x").nth(1).and_then(|rest| rest.split('\n').next());
    let shown = shown.ok_or_else(|| {
        let log = log.trim_end_matches('\0');
        io::Error::other(format!("the log does not show the instruction: {log}"))
    })?;
    println!("r1 = 0x{shown}");
    if shown.starts_with("ff") { Ok(()) } else { Err(denied("the address is masked")) }
}

/// Is a digest of two bytes taken where four of its bytes are used? A cipher mode is chosen that was not
/// combined with it yet, since an algorithm stays once it was made.
fn short_digest() -> io::Result<()> {
    let known = std::fs::read_to_string("/proc/crypto")?;
    let name = |mode: &&str| format!("authencesn(crct10dif,{mode}(aes))");
    let free = ["cbc", "ctr", "ecb", "xts"].iter().map(name).find(|name| !known.contains(name));
    let name = free.ok_or_else(|| io::Error::other("every mode was tried already"))?;
    println!("{name}");
    match algorithm("aead", &name) {
        // What the template refuses is not found.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(denied("no such algorithm")),
        other => other.map(drop),
    }
}

/// Does a device with one queue for sending count the statistics of eight, which it does not have?
fn device_statistics() -> io::Result<()> {
    /// What IFB has of each queue and direction (`ifb_q_stats_desc`, drivers/net/ifb.c).
    const EACH: u32 = 2;
    let device = netlink::Device::new("ifb", "trigger0", (1, 8), &[])?;
    let count = driver_info(device.name())?;
    println!("{count} statistics");
    if count > EACH * 2 { Ok(()) } else { Err(denied("as many as there are queues")) }
}

/// Is a file system that nobody should mount in the list of those that can be?
fn listed_file_system(name: &str) -> io::Result<()> {
    let all = std::fs::read_to_string("/proc/filesystems")?;
    match all.split_whitespace().any(|word| word == name) {
        true => Ok(()),
        false => Err(denied("it is not listed")),
    }
}

/// Two disks of memory as a RAID 10 with as many far copies as none: the kernel divides by that number.
fn no_far_copies() -> io::Result<()> {
    let layout = 0x2_0002.to_string();
    let settings =
        [("level", "raid10"), ("raid_disks", "2"), ("chunk_size", "65536"), ("layout", &layout)];
    Array::start("md_trigger", &settings, ["ram0", "ram1"]).map(drop)
}
