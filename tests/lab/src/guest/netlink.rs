// SPDX-License-Identifier: GPL-2.0-or-later
//! Netlink: one command of a generic family without attributes, a network device that comes and goes, and
//! what the kernel answers (include/uapi/linux/netlink.h, genetlink.h, rtnetlink.h and if_link.h).

use std::fs::File;
use std::io::{self, Read, Write};

use super::sockets;

const REQUEST_ACK: u16 = 1 | 4;
const REQUEST_DUMP: u16 = 1 | 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The family that knows all families, its command that looks one up, and the attributes with the
/// name and the number.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Makes or changes a network device; its attributes.
const NEW_LINK: u16 = 16;
const LINK_INFO: u16 = 18;
const SENDING_QUEUES: u16 = 31;
const RECEIVING_QUEUES: u16 = 32;

fn open(protocol: i32) -> io::Result<File> {
    sockets::netlink(protocol).map(File::from)
}

/// An attribute.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
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
    /// Makes one of this kind, with so many queues for sending and for receiving, and with attributes
    /// that only this kind knows.
    pub fn new(
        kind: &str,
        name: &str,
        (sending, receiving): (u32, u32),
        data: &[u8],
    ) -> io::Result<Device> {
        const CREATE: u16 = 0x600;
        let own = if data.is_empty() { Vec::new() } else { attribute(2, data) };
        let info = attribute(LINK_INFO, &[attribute(1, kind.as_bytes()), own].concat());
        let queues = [
            attribute(SENDING_QUEUES, &sending.to_ne_bytes()),
            attribute(RECEIVING_QUEUES, &receiving.to_ne_bytes()),
        ];
        let body = [&[0; 16], &*named(name), &*info, &*queues.concat()].concat();
        ask(&mut open(libc::NETLINK_ROUTE)?, (NEW_LINK, REQUEST_ACK | CREATE), &body)?;
        Ok(Device(name.to_owned()))
    }

    /// Puts it below another one.
    pub fn put_below(&self, master: &Device) -> io::Result<()> {
        const MASTER: u16 = 10;
        let above = attribute(MASTER, &master.index()?.to_ne_bytes());
        let body = [&[0; 16], &*named(&self.0), &*above].concat();
        ask(&mut open(libc::NETLINK_ROUTE)?, (NEW_LINK, REQUEST_ACK), &body).map(drop)
    }

    /// Its number.
    pub fn index(&self) -> io::Result<u32> {
        let text = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", self.0))?;
        text.trim().parse().map_err(io::Error::other)
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

/// Makes what a message to the routing tables describes, which is not there yet.
pub fn set(kind: u16, body: &[u8]) -> io::Result<()> {
    const CREATE: u16 = 0x600;
    ask(&mut open(libc::NETLINK_ROUTE)?, (kind, REQUEST_ACK | CREATE), body).map(drop)
}

/// How many objects the kernel lists when asked for all of a kind.
pub fn dump(protocol: i32, kind: u16, body: &[u8]) -> io::Result<usize> {
    let mut line = open(protocol)?;
    send(&mut line, (kind, REQUEST_DUMP), body)?;
    let mut count = 0;
    let mut part = vec![0; 64 << 10];
    loop {
        let size = line.read(&mut part)?;
        let mut rest = part.get(..size).unwrap_or_default();
        while let Some((length, kind)) = header(rest) {
            match kind {
                NLMSG_DONE => return Ok(count),
                NLMSG_ERROR => refused(rest)?,
                _ => count += 1,
            }
            rest = rest.get(length.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Length and kind of the message that bytes begin with.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    Some((length as usize, kind))
}

/// The error that a message of errors tells; none is an acknowledgement.
fn refused(message: &[u8]) -> io::Result<()> {
    let code = message.get(16..20).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// Sends a message of a kind with flags, and reads the first answer.
fn ask(line: &mut File, what: (u16, u16), body: &[u8]) -> io::Result<Vec<u8>> {
    send(line, what, body)?;
    let mut answer = vec![0; 16 << 10];
    let length = line.read(&mut answer)?;
    answer.truncate(length);
    if header(&answer).is_some_and(|(_, kind)| kind == NLMSG_ERROR) {
        refused(&answer)?;
    } else {
        // The acknowledgement behind an answer is taken away, so that the next answer is the first.
        let _ = line.read(&mut [0; 4096])?;
    }
    Ok(answer)
}

fn send(line: &mut File, (kind, flags): (u16, u16), body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    line.write_all(&message)
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
