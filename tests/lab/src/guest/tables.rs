// SPDX-License-Identifier: GPL-2.0-or-later
//! A rule in the packet filter's first chain, as the old interface takes it: the whole table at once
//! (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter/x_tables.h).

use std::io;
use std::sync::{Mutex, PoisonError};

use super::sockets::{get_option, set_option_raw, socket};
use super::trigger::result;

/// `IPT_SO_SET_REPLACE` and `IPT_SO_GET_INFO`.
const REPLACE: i32 = 64;
const INFO: i32 = 64;
const NAME: usize = 32;
/// Sizes in bytes of `struct ipt_entry`, of an `xt_entry_match` without data, of a standard target.
const ENTRY: usize = 112;
const HEAD: usize = 32;
const TARGET: usize = 40;
/// `-NF_ACCEPT - 1`.
const ACCEPT: i32 = -2;
/// `NF_INET_LOCAL_IN`, `FORWARD` and `LOCAL_OUT` as bits.
const HOOKS: u32 = 0b1110;

/// A match of a rule: its name, revision, data, and the protocol that it needs.
pub struct Match {
    name: &'static str,
    revision: u8,
    data: Vec<u8>,
    protocol: u16,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// `struct xt_u32` with one test: is the word at 0, shifted to the left by so many bits, zero?
#[must_use]
pub fn shift_by(bits: u32) -> Match {
    /// Of `struct xt_u32_test` the size, and where its counts are; of `struct xt_u32` the size.
    const TEST: usize = 180;
    const COUNTS: usize = 176;
    const ALL: usize = 11 * TEST + 4;
    let mut data = vec![0; ALL];
    put(&mut data, 8, &bits.to_ne_bytes());
    /// `XT_U32_LEFTSH`.
    const LEFT: u8 = 1;
    put(&mut data, 12, &[LEFT]);
    put(&mut data, COUNTS, &[2, 1]);
    put(&mut data, 11 * TEST, &[1, 0]);
    Match { name: "u32", revision: 0, data, protocol: 0 }
}

/// `struct xt_multiport_v1` with a range of ports, which may lack its end.
#[must_use]
pub fn ports(first: u16, last: Option<u16>) -> Match {
    let mut data = vec![0; 48];
    put(&mut data, 0, &[1, 1 + u8::from(last.is_some())]);
    put(&mut data, 2, &first.to_ne_bytes());
    put(&mut data, 4, &last.unwrap_or(0).to_ne_bytes());
    put(&mut data, 32, &[1]);
    Match { name: "multiport", revision: 1, data, protocol: libc::IPPROTO_TCP as u16 }
}

/// May a table with such a rule be set? Something is done with it, and it is taken away again. Threads wait
/// for one another: there is one table, and the kernel takes a new one only from who knows how many
/// entries the old one has.
pub fn with_match(rule: &Match, meanwhile: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    static TABLE: Mutex<()> = Mutex::new(());
    let _alone = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    replace(Some(rule))?;
    let done = meanwhile();
    replace(None)?;
    done
}

/// An entry: a match, if there is one, and a target.
fn entry(rule: Option<&Match>, target: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ENTRY];
    if let Some(rule) = rule {
        put(&mut bytes, 80, &rule.protocol.to_ne_bytes());
        let size = HEAD + rule.data.len().next_multiple_of(8);
        let mut part = vec![0; size];
        put(&mut part, 0, &(size as u16).to_ne_bytes());
        put(&mut part, 2, rule.name.as_bytes());
        put(&mut part, 31, &[rule.revision]);
        put(&mut part, HEAD, &rule.data);
        bytes.extend(part);
    }
    let at = bytes.len() as u16;
    put(&mut bytes, 88, &at.to_ne_bytes());
    bytes.extend(target);
    let all = bytes.len() as u16;
    put(&mut bytes, 90, &all.to_ne_bytes());
    bytes
}

fn accept() -> Vec<u8> {
    let mut target = vec![0; TARGET];
    put(&mut target, 0, &(TARGET as u16).to_ne_bytes());
    put(&mut target, HEAD, &ACCEPT.to_ne_bytes());
    target
}

fn error() -> Vec<u8> {
    const SIZE: usize = 64;
    let mut target = vec![0; SIZE];
    put(&mut target, 0, &(SIZE as u16).to_ne_bytes());
    put(&mut target, 2, b"ERROR");
    put(&mut target, HEAD, b"ERROR");
    target
}

/// Sets the table: three chains that accept everything, in the first one perhaps a rule before that.
fn replace(rule: Option<&Match>) -> io::Result<()> {
    /// `struct ipt_getinfo`, where it has the number of entries, and `struct ipt_replace`.
    const INFO_SIZE: usize = 84;
    const INFO_ENTRIES: usize = 76;
    let mut info = [0; INFO_SIZE];
    put(&mut info, 0, b"filter");
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    get_option(&socket, libc::IPPROTO_IP, INFO, &mut info)?;
    let old = info.get(INFO_ENTRIES..INFO_ENTRIES + 4).and_then(|b| b.try_into().ok());
    let old = old.map_or(0, u32::from_ne_bytes);

    let mut entries = Vec::new();
    let mut count = 4_u32;
    if let Some(rule) = rule {
        entries.extend(entry(Some(rule), &accept()));
        count += 1;
    }
    let mut starts = Vec::new();
    for _ in 0..3 {
        starts.push(entries.len() as u32);
        entries.extend(entry(None, &accept()));
    }
    entries.extend(entry(None, &error()));

    let counters = vec![0_u8; 16 * old as usize];
    let mut table = vec![0; 96];
    put(&mut table, 0, b"filter");
    for (number, value) in [HOOKS, count, entries.len() as u32].iter().enumerate() {
        put(&mut table, NAME + 4 * number, &value.to_ne_bytes());
    }
    // The chains' entries and their last rules, for the hooks 1 to 3 of 5.
    for (hook, start) in (1..).zip(&starts) {
        let first = if hook == 1 { 0 } else { *start };
        put(&mut table, NAME + 12 + 4 * hook, &first.to_ne_bytes());
        put(&mut table, NAME + 32 + 4 * hook, &start.to_ne_bytes());
    }
    put(&mut table, NAME + 52, &old.to_ne_bytes());
    put(&mut table, NAME + 56, &(counters.as_ptr() as u64).to_ne_bytes());
    table.extend(entries);
    result(set_option_raw(&socket, libc::IPPROTO_IP, REPLACE, &table))
}
