// SPDX-License-Identifier: GPL-2.0-or-later
//! Netlink: one command of a generic family without attributes, a network device that comes and goes, and
//! what the kernel answers (include/uapi/linux/netlink.h, genetlink.h, rtnetlink.h and if_link.h).

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
/// Attributes of a network device.
const LINK_INFO: u16 = 18;
const SENDING_QUEUES: u16 = 31;
const RECEIVING_QUEUES: u16 = 32;

fn open(protocol: i32) -> io::Result<File> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    connect_netlink(&socket)?;
    Ok(File::from(socket))
}

/// An attribute.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a command to a family; an error that the kernel answers with is returned.
pub fn command(family: &str, command: u8) -> io::Result<()> {
    let mut line = open(libc::NETLINK_GENERIC)?;
    let name = attribute(FAMILY_NAME, &[family.as_bytes(), &[0]].concat());
    let get = [&[GET_FAMILY, 1, 0, 0], &*name].concat();
    let answer = ask(&mut line, (CONTROL, REQUEST_ACK), &get)?;
    let number = attribute_of(answer.get(20..).unwrap_or_default(), FAMILY_ID)
        .ok_or_else(|| io::Error::other("the kernel does not tell the family's number"))?;
    ask(&mut line, (number, REQUEST_ACK), &[command, 1, 0, 0]).map(drop)
}

/// A network device, until it is dropped.
pub struct Device(String);

impl Device {
    /// Makes one of this kind, with so many queues for sending and for receiving.
    pub fn new(kind: &str, name: &str, (sending, receiving): (u32, u32)) -> io::Result<Device> {
        const NEW: u16 = 16;
        const CREATE: u16 = 0x600;
        let info = attribute(LINK_INFO, &attribute(1, kind.as_bytes()));
        let queues = [
            attribute(SENDING_QUEUES, &sending.to_ne_bytes()),
            attribute(RECEIVING_QUEUES, &receiving.to_ne_bytes()),
        ];
        let body = [&[0; 16], &*named(name), &*info, &*queues.concat()].concat();
        ask(&mut open(libc::NETLINK_ROUTE)?, (NEW, REQUEST_ACK | CREATE), &body)?;
        Ok(Device(name.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        const REMOVE: u16 = 17;
        let body = [&[0; 16], &*named(&self.0)].concat();
        // A device that stays is seen when the next one cannot be made.
        let _ = open(libc::NETLINK_ROUTE)
            .and_then(|mut line| ask(&mut line, (REMOVE, REQUEST_ACK), &body));
    }
}

fn named(name: &str) -> Vec<u8> {
    const NAME: u16 = 3;
    attribute(NAME, &[name.as_bytes(), &[0]].concat())
}

/// Sends a message of a kind with flags, and reads the first answer.
fn ask(line: &mut File, (kind, flags): (u16, u16), body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
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
