// SPDX-License-Identifier: GPL-2.0-or-later
//! bpf(2): its attributes are numbers at offsets in bytes (`union bpf_attr`, include/uapi/linux/bpf.h).

use std::io;

const MAP_CREATE: u32 = 0;
const PROG_LOAD: u32 = 5;
/// The command that reads a value of a map.
pub const MAP_LOOKUP: u32 = 1;
/// The command that writes one.
pub const MAP_UPDATE: u32 = 2;
/// The command that runs a program over a packet.
pub const PROG_TEST_RUN: u32 = 10;
/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u64 = 2;
/// `BPF_PROG_TYPE_SOCKET_FILTER`.
pub const FILTER: u64 = 1;
/// `r0 = 0; exit`.
pub const NOTHING: [u64; 2] = [0xb7, 0x95];

/// One command: the attributes hold pointers to memory of the caller, which it keeps.
pub fn bpf(command: u32, attributes: &mut [u8; 128]) -> io::Result<i32> {
    // SAFETY: the attributes' pointer and length describe live memory.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Attributes: offset, value, and size in bytes of each.
#[must_use]
pub fn attributes(fields: &[(usize, u64, usize)]) -> [u8; 128] {
    let mut bytes = [0; 128];
    for (at, value, size) in fields {
        for (to, from) in bytes.iter_mut().skip(*at).zip(value.to_ne_bytes()).take(*size) {
            *to = from;
        }
    }
    bytes
}

/// Makes an array of that many values of four bytes.
pub fn array(entries: u64) -> io::Result<i32> {
    bpf(MAP_CREATE, &mut attributes(&[(0, ARRAY, 4), (4, 4, 4), (8, 4, 4), (12, entries, 4)]))
}

/// Loads a program; where its log goes, and the descriptors of its maps.
pub fn load(kind: u64, code: &[u64], log: &mut [u8], maps: &[i32]) -> io::Result<i32> {
    // At level 1 the log of a program that is accepted is taken back.
    let level = if log.is_empty() { 0 } else { 2 };
    let mut attr = attributes(&[
        (0, kind, 4),
        (4, code.len() as u64, 4),
        (8, code.as_ptr() as u64, 8),
        (16, c"GPL".as_ptr() as u64, 8),
        (24, level, 4),
        (28, log.len() as u64, 4),
        (32, if level == 0 { 0 } else { log.as_mut_ptr() as u64 }, 8),
        (120, if maps.is_empty() { 0 } else { maps.as_ptr() as u64 }, 8),
    ]);
    bpf(PROG_LOAD, &mut attr)
}
