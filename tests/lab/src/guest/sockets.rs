// SPDX-License-Identifier: GPL-2.0-or-later
//! Sockets of families that no crate knows. An address is the bytes that the kernel reads; each begins with
//! its family.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three integers.
    owned(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// `struct sockaddr_in`: this port of 127.0.0.1.
#[must_use]
pub fn loopback(port: u16) -> Vec<u8> {
    [&family(libc::AF_INET)[..], &port.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat()
}

/// `struct sockaddr_in6`: this port of ::1.
#[must_use]
pub fn loopback6(port: u16) -> Vec<u8> {
    let one = 1_u128.to_be_bytes();
    [&family(libc::AF_INET6)[..], &port.to_be_bytes(), &[0; 4], &one, &[0; 4]].concat()
}

fn family(family: i32) -> [u8; 2] {
    (family as libc::sa_family_t).to_ne_bytes()
}

/// Gives a socket an address.
pub fn bind(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    let size = address.len() as libc::socklen_t;
    // SAFETY: the address's pointer and length describe live memory.
    check(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), size) })
}

/// Connects a socket to an address.
pub fn connect(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    let size = address.len() as libc::socklen_t;
    // SAFETY: the address's pointer and length describe live memory.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), size) })
}

/// Lets others connect to a socket.
pub fn listen(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: the call takes two integers.
    check(unsafe { libc::listen(socket.as_raw_fd(), 8) })
}

/// The connection of whoever has connected to a socket; of an algorithm's socket, one of its operations.
pub fn accept(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: the address is not wanted, and nothing is written.
    owned(unsafe { libc::accept4(socket.as_raw_fd(), none, none.cast(), libc::SOCK_CLOEXEC) })
}

/// The port that a socket of the internet's families has got, which is where its address has it.
pub fn port(socket: &OwnedFd) -> io::Result<u16> {
    let mut address = [0_u8; 28];
    let mut size = address.len() as libc::socklen_t;
    let to = address.as_mut_ptr().cast();
    // SAFETY: the pointers and the size describe live memory.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), to, &raw mut size) })?;
    Ok(u16::from_be_bytes([address[2], address[3]]))
}

/// Sends a packet to an address.
pub fn send_to(socket: &OwnedFd, packet: &[u8], address: &[u8]) -> io::Result<()> {
    let size = address.len() as libc::socklen_t;
    let (from, to) = (packet.as_ptr().cast(), address.as_ptr().cast());
    // SAFETY: the packet's and the address's pointers and lengths describe live memory.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), from, packet.len(), 0, to, size) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends bytes with one control message: its level, its kind, and what it holds.
pub fn send_with(socket: &OwnedFd, bytes: &[u8], messages: &[(i32, i32, &[u8])]) -> io::Result<()> {
    let mut control = Vec::new();
    for (level, kind, data) in messages {
        control.extend((16 + data.len()).to_ne_bytes());
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
        control.extend(*data);
        control.resize(control.len().next_multiple_of(8), 0);
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is a plain C structure for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_control, message.msg_controllen) =
        (control.as_mut_ptr().cast(), control.len() as _);
    // SAFETY: the message's parts outlive the call, which reads them only.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets an option of a socket; what came back, a negative error number included.
pub fn set_option_raw(socket: &OwnedFd, level: i32, option: i32, bytes: &[u8]) -> i64 {
    let size = bytes.len() as libc::socklen_t;
    let from = bytes.as_ptr().cast();
    // SAFETY: the pointer and the length describe live memory.
    raw(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, from, size) }.into())
}

/// Reads an option of a socket, for which the bytes say what is wanted.
pub fn get_option(socket: &OwnedFd, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut size = bytes.len() as libc::socklen_t;
    let to = bytes.as_mut_ptr().cast();
    // SAFETY: the pointers and the length describe live memory.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, to, &raw mut size) })
}

/// A socket of an algorithm of this type and name, which the kernel makes if it has not got it (if_alg.h).
pub fn algorithm(kind: &str, name: &str) -> io::Result<OwnedFd> {
    let mut address = family(libc::AF_ALG).to_vec();
    address.extend(kind.bytes());
    // Its type has 14 bytes, its name 64, and two numbers are between.
    address.resize(2 + 14 + 8, 0);
    address.extend(name.bytes());
    address.resize(size_of::<libc::sockaddr_alg>(), 0);
    let socket = socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// A netlink socket, connected to the kernel.
pub fn netlink(protocol: i32) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    connect(&socket, &[&family(libc::AF_NETLINK)[..], &[0; 10]].concat())?;
    Ok(socket)
}

/// A packet socket that writes to the loopback interface, each packet with a `virtio_net_hdr` before
/// it.
pub fn loopback_packets() -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let header = set_option_raw(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &[1, 0, 0, 0]);
    if header < 0 {
        return Err(io::Error::other(format!("no headers before packets: {header}")));
    }
    // struct sockaddr_ll: the interface's number is behind the protocol.
    let first = 1_i32.to_ne_bytes();
    bind(&socket, &[&family(libc::AF_PACKET)[..], &[0; 2], &first, &[0; 12]].concat())?;
    Ok(socket)
}

/// Attaches a socket filter that accepts everything (one classic BPF instruction).
pub fn attach_filter(socket: &OwnedFd) -> io::Result<()> {
    let mut accept = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut accept };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let from = (&raw const program).cast();
    // SAFETY: the option reads a sock_fprog of that size, which with its one instruction outlives
    // the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, from, size) })
}

/// A result without a wrapper: a negative error number if it is -1.
pub(super) fn raw(result: i64) -> i64 {
    if result != -1 {
        return result;
    }
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// The error, if a call has failed.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptor that a call has just made.
pub(super) fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    check(descriptor)?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
