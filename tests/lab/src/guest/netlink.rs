// SPDX-License-Identifier: GPL-2.0-or-later
//! One command of a generic netlink family without attributes, and what the kernel answers
//! (include/uapi/linux/netlink.h and genetlink.h).

use std::fs::File;
use std::io::{self, Read, Write};

use super::setup::{connect_netlink, socket};

const REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
/// The family that knows all families, its command that looks one up, and the attributes with the
/// name and the number.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Sends a command to a family; an error that the kernel answers with is returned.
pub fn command(family: &str, command: u8) -> io::Result<()> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC)?;
    connect_netlink(&socket)?;
    let mut line = File::from(socket);
    let mut name = family.as_bytes().to_vec();
    name.push(0);
    let length = u16::try_from(name.len() + 4).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(FAMILY_NAME.to_ne_bytes());
    attribute.extend(&name);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let answer = ask(&mut line, CONTROL, GET_FAMILY, &attribute)?;
    let number = attribute_of(answer.get(20..).unwrap_or_default(), FAMILY_ID)
        .ok_or_else(|| io::Error::other("the kernel does not tell the family's number"))?;
    ask(&mut line, number, command, &[]).map(drop)
}

/// Sends a message and reads the first answer.
fn ask(line: &mut File, kind: u16, command: u8, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(body);
    line.write_all(&message)?;
    let mut answer = vec![0; 16 << 10];
    let length = line.read(&mut answer)?;
    answer.truncate(length);
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if half(4) == Some(NLMSG_ERROR) {
        let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    // The acknowledgement behind an answer is taken away, so that the next answer is the first.
    if half(4) != Some(NLMSG_ERROR) {
        let _ = line.read(&mut [0; 4096])?;
    }
    Ok(answer)
}

/// The 16-bit value of an attribute.
fn attribute_of(mut rest: &[u8], wanted: u16) -> Option<u16> {
    loop {
        let half = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(half(0)?), half(2)?);
        if kind == wanted {
            return half(4);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}
