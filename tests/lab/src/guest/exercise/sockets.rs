// SPDX-License-Identifier: GPL-2.0-or-later
//! Traffic of one family over the loopback interface, or without any.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use super::{at, expect};
use crate::guest::netlink;
use crate::guest::sockets::{
    accept, bind, connect, listen, loopback, loopback6, port, send_to, send_with, set_option_raw,
    socket,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// Number of the loopback interface.
const LOOPBACK: u32 = 1;

/// Bytes that depend on the round.
fn block(round: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|n| (n.wrapping_mul(31) ^ round) as u8).collect()
}

/// No call on it waits for ever.
fn patient(socket: OwnedFd) -> io::Result<OwnedFd> {
    let time = [PATIENCE.as_secs().to_ne_bytes(), 0_u64.to_ne_bytes()].concat();
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        expect(set_option_raw(&socket, libc::SOL_SOCKET, option, &time) == 0, "a limit of time")?;
    }
    Ok(socket)
}

/// A block there and back through a stream.
fn there_and_back(
    mut client: impl Read + Write,
    mut server: impl Read + Write,
    round: u64,
) -> io::Result<()> {
    let sent = block(round, 4096);
    let mut back = vec![0; sent.len()];
    at("write", client.write_all(&sent))?;
    at("read", server.read_exact(&mut back))?;
    at("write back", server.write_all(&back))?;
    back.fill(0);
    at("read back", client.read_exact(&mut back))?;
    expect(back == sent, "what came back through the stream")
}

/// A connection of this family.
fn stream(
    (domain, protocol): (i32, i32),
    address: fn(u16) -> Vec<u8>,
    round: u64,
) -> io::Result<()> {
    let make = || patient(socket(domain, libc::SOCK_STREAM, protocol)?);
    let listener = make()?;
    at("bind", bind(&listener, &address(0)))?;
    at("listen", listen(&listener))?;
    let to = address(port(&listener)?);
    connection(&listener, make()?, &to, round)
}

/// A client connects to a listener's address, and sends to it.
fn connection(listener: &OwnedFd, client: OwnedFd, to: &[u8], round: u64) -> io::Result<()> {
    let server = std::thread::scope(|scope| {
        let server = scope.spawn(|| at("accept", accept(listener)));
        at("connect", connect(&client, to))?;
        server.join().map_err(|_| io::Error::other("the server broke"))?
    })?;
    there_and_back(File::from(client), File::from(patient(server)?), round)
}

/// A packet from one to another; what the receiver gets must be what was sent.
fn packet(from: &OwnedFd, receiver: OwnedFd, to: &[u8], round: u64) -> io::Result<()> {
    let sent = block(round, 1024);
    at("send", send_to(from, &sent, to))?;
    let mut got = vec![0; 2 * sent.len()];
    let size = at("receive", File::from(receiver).read(&mut got))?;
    expect(got.get(..size) == Some(&*sent), "the packet that was received")
}

/// An echo that the kernel answers: a packet's type, and the one of its answer.
fn echo(
    (domain, protocol): (i32, i32),
    to: &[u8],
    kinds: (u8, u8),
    head: usize,
    round: u64,
) -> io::Result<()> {
    let socket = patient(socket(domain, libc::SOCK_RAW, protocol)?)?;
    let mut request = vec![kinds.0, 0, 0, 0];
    request.extend([0x4c, 0x41]);
    request.extend((round as u16).to_be_bytes());
    request.extend(block(round, 24));
    if domain == libc::AF_INET {
        let words = request.chunks_exact(2).filter_map(|pair| pair.try_into().ok());
        let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        request.splice(2..4, sum.to_be_bytes());
    }
    at("echo", send_to(&socket, &request, to))?;
    let mut socket = File::from(socket);
    let mut answer = [0; 256];
    // The request itself is seen, too, and what other threads ask.
    for _ in 0..64 {
        let size = at("echoed", socket.read(&mut answer))?;
        let got = answer.get(head..size).unwrap_or_default();
        if got.first() == Some(&kinds.1) && got.get(4..) == request.get(4..) {
            return Ok(());
        }
    }
    expect(false, "no answer to an echo")
}

pub(super) fn ipv4(round: u64) -> io::Result<()> {
    tcp(Ipv4Addr::LOCALHOST.into(), round)?;
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    at("join", socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST))?;
    udp(&UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, &socket, round)?;
    at("leave", socket.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST))?;
    // ICMP's echo, and its answer behind an IP header without options.
    echo((libc::AF_INET, libc::IPPROTO_ICMP), &loopback(0), (8, 0), 20, round)?;
    tables()
}

pub(super) fn ipv6(round: u64) -> io::Result<()> {
    tcp(Ipv6Addr::LOCALHOST.into(), round)?;
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x1234);
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?;
    at("join", socket.join_multicast_v6(&group, LOOPBACK))?;
    udp(&UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))?, &socket, round)?;
    at("leave", socket.leave_multicast_v6(&group, LOOPBACK))?;
    echo((libc::AF_INET6, libc::IPPROTO_ICMPV6), &loopback6(0), (128, 129), 0, round)?;
    tables()
}

fn tcp(host: IpAddr, round: u64) -> io::Result<()> {
    let listener = TcpListener::bind((host, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    there_and_back(client, server, round)
}

fn udp(from: &UdpSocket, to: &UdpSocket, round: u64) -> io::Result<()> {
    to.set_read_timeout(Some(PATIENCE))?;
    let sent = block(round, 1024);
    from.send_to(&sent, to.local_addr()?)?;
    let mut got = vec![0; 2 * sent.len()];
    let (size, sender) = to.recv_from(&mut got)?;
    expect(got.get(..size) == Some(&*sent), "the datagram that was received")?;
    expect(sender == from.local_addr()?, "who has sent it")
}

/// Devices, addresses, routes and neighbours can be listed, and the loopback interface is among them.
fn tables() -> io::Result<()> {
    const ADDRESS: u16 = 22;
    for (kind, size) in [(18, 16), (ADDRESS, 8), (26, 12), (30, 12), (106, 8)] {
        let all = at("list", netlink::dump(libc::NETLINK_ROUTE, kind, &vec![0; size]))?;
        expect(kind != ADDRESS || all > 0, "no address is listed")?;
    }
    Ok(())
}

pub(super) fn unix(round: u64) -> io::Result<()> {
    let path = format!("/tmp/exercise-{round}");
    let listener = UnixListener::bind(&path)?;
    let client = UnixStream::connect(&path)?;
    let (server, _) = listener.accept()?;
    std::fs::remove_file(&path)?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    there_and_back(&client, &server, round)?;
    // Both ends in flight, in each other.
    let (one, other) = UnixDatagram::pair()?;
    let (one, other) = (OwnedFd::from(one), OwnedFd::from(other));
    for (to, what) in [(&one, &other), (&other, &one)] {
        let descriptor = what.as_raw_fd().to_ne_bytes();
        send_with(to, b"x", &[(libc::SOL_SOCKET, libc::SCM_RIGHTS, &descriptor)])?;
    }
    let mut byte = [0];
    let size = File::from(one).read(&mut byte)?;
    expect((size, byte) == (1, *b"x"), "the datagram that was received")?;
    // struct unix_diag_req: all states, all that can be shown.
    let request =
        [&[libc::AF_UNIX as u8, 0, 0, 0], &[0xff; 4][..], &[0; 4], &[0x3f, 0, 0, 0], &[0xff; 8]];
    expect(sockets(&request.concat())? > 0, "no unix socket is listed")
}

/// How many sockets the kernel lists (include/uapi/linux/sock_diag.h).
fn sockets(request: &[u8]) -> io::Result<usize> {
    const BY_FAMILY: u16 = 20;
    at("list of sockets", netlink::dump(libc::NETLINK_SOCK_DIAG, BY_FAMILY, request))
}

pub(super) fn sctp(round: u64) -> io::Result<()> {
    stream((libc::AF_INET, libc::IPPROTO_SCTP), loopback, round)?;
    stream((libc::AF_INET6, libc::IPPROTO_SCTP), loopback6, round)?;
    let listener = socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)?;
    bind(&listener, &loopback(0))?;
    listen(&listener)?;
    // struct inet_diag_req_v2: all states, no extension, no identity.
    let head = [libc::AF_INET as u8, libc::IPPROTO_SCTP as u8, 0, 0];
    let request = [&head[..], &[0xff; 4], &[0; 40], &[0xff; 8]].concat();
    expect(sockets(&request)? > 0, "no listening socket is listed")
}

/// SMC has no device here, and goes on as TCP.
pub(super) fn smc(round: u64) -> io::Result<()> {
    const AF_SMC: i32 = 43;
    stream((AF_SMC, 0), loopback, round)
}

pub(super) fn rds(round: u64) -> io::Result<()> {
    const AF_RDS: i32 = 21;
    let make = || patient(socket(AF_RDS, libc::SOCK_SEQPACKET, 0)?);
    let (from, to) = (make()?, make()?);
    at("bind", bind(&from, &loopback(0)))?;
    at("bind", bind(&to, &loopback(0)))?;
    let address = loopback(port(&to)?);
    packet(&from, to, &address, round)
}

pub(super) fn tipc(round: u64) -> io::Result<()> {
    /// A service of our own, in this node; include/uapi/linux/tipc.h.
    const SERVICE: u32 = 18_888;
    const RANGE: u8 = 1;
    const NAME: u8 = 2;
    const NODE: u8 = 3;
    let address = |kind: u8, numbers: [u32; 3]| {
        let mut bytes = (libc::AF_TIPC as u16).to_ne_bytes().to_vec();
        bytes.extend([kind, NODE]);
        bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        bytes
    };
    let make = |kind| patient(socket(libc::AF_TIPC, kind, 0)?);
    let instance = round as u32;
    let range = address(RANGE, [SERVICE, instance, instance]);
    let name = address(NAME, [SERVICE, instance, 0]);
    let to = make(libc::SOCK_RDM)?;
    at("bind", bind(&to, &range))?;
    packet(&make(libc::SOCK_RDM)?, to, &name, round)?;
    let listener = make(libc::SOCK_STREAM)?;
    at("bind", bind(&listener, &range))?;
    at("listen", listen(&listener))?;
    connection(&listener, make(libc::SOCK_STREAM)?, &name, round)
}

/// What this kernel can do for ESP, as PF_KEY tells (RFC 2367).
pub(super) fn key_management(_: u64) -> io::Result<()> {
    const PF_KEY: i32 = 15;
    const VERSION: u8 = 2;
    const REGISTER: u8 = 7;
    const ESP: u8 = 3;
    let socket = patient(socket(PF_KEY, libc::SOCK_RAW, VERSION.into())?)?;
    let mut socket = File::from(socket);
    let mut message = vec![VERSION, REGISTER, 0, ESP];
    // Its length in words of eight bytes.
    message.extend(2_u16.to_ne_bytes());
    message.resize(16, 0);
    at("register", socket.write_all(&message))?;
    let mut answer = [0; 8192];
    let size = at("registered", socket.read(&mut answer))?;
    expect(size > 16 && answer[..3] == [VERSION, REGISTER, 0], "no list of algorithms")
}
