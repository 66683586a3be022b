// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes the bare machine usable: file systems, the loopback interface, the line to the host.
//! The calls that no crate wraps are here, and nowhere else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

/// The word of the kernel's command line that names the serial port which leads to the host.
pub const LINE: &str = "lab.line=";

/// Mounts what a Linux program expects.
pub fn mount_all() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("securityfs", "/sys/kernel/security"),
    ] {
        if !Path::new(place).is_dir() {
            std::fs::create_dir_all(place).with_context(|| format!("cannot create {place}"))?;
        }
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    Ok(())
}

/// Opens the line to the host as a raw terminal: no echo, no translation.
pub fn open_line() -> Result<File> {
    let words = std::fs::read_to_string("/proc/cmdline").context("no command line")?;
    let port = words.split_whitespace().find_map(|word| word.strip_prefix(LINE));
    let port = port.context("the command line names no line to the host")?;
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .open(port)
        .with_context(|| format!("cannot open {port}"))?;
    // SAFETY: termios is a plain C structure for which all zeroes is a valid value.
    let mut modes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the structure outlives the call.
    check(unsafe { libc::tcgetattr(line.as_raw_fd(), &raw mut modes) })
        .context("cannot read the line's modes")?;
    // SAFETY: the structure is initialised.
    unsafe { libc::cfmakeraw(&raw mut modes) };
    // SAFETY: the structure is initialised; the constant is a valid speed.
    check(unsafe { libc::cfsetspeed(&raw mut modes, libc::B115200) })
        .context("cannot set the line's speed")?;
    // SAFETY: the descriptor is open, and the structure is initialised.
    check(unsafe { libc::tcsetattr(line.as_raw_fd(), libc::TCSANOW, &raw const modes) })
        .context("cannot set the line's modes")?;
    Ok(line)
}

/// Brings the loopback interface up.
pub fn loopback_up() -> Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).context("cannot open a socket")?;
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .context("cannot bring the loopback interface up")
}

/// A socket.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes three integers.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a child that reads standard input to its end, and waits for it as the parent of a vfork does;
/// the child has memory of its own.
pub fn vfork_reader() -> io::Result<()> {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is fork(2), and this process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let mut byte = 0_u8;
            // SAFETY: the byte outlives the call; the child then ends without running anything else.
            while unsafe { libc::read(0, (&raw mut byte).cast(), 1) } > 0 {}
            // SAFETY: this ends the process.
            unsafe { libc::_exit(0) }
        }
        _ => Ok(()),
    }
}

/// An event descriptor whose count is zero.
pub fn event_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes to an event descriptor in one call; what came back, a negative error number included.
pub fn write_raw(descriptor: &OwnedFd, bytes: &[u8]) -> i64 {
    // SAFETY: the pointer and the length describe live memory.
    let result = unsafe { libc::write(descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    raw(result as i64)
}

/// Sets an option of a socket; what came back, a negative error number included.
pub fn set_option_raw(socket: &OwnedFd, level: i32, option: i32, bytes: &[u8]) -> i64 {
    // SAFETY: the pointer and the length describe live memory.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_ptr().cast(),
            bytes.len() as libc::socklen_t,
        )
    };
    raw(result.into())
}

/// Reads an option of a socket, for which the bytes say what is wanted.
pub fn get_option(socket: &OwnedFd, level: i32, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the pointers and the length describe live memory.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    })
}

/// bpf(2): the attributes hold pointers to memory of the caller, which it keeps.
pub fn bpf(command: u32, attributes: &mut [u8; 128]) -> io::Result<i32> {
    // SAFETY: the attributes' pointer and length describe live memory.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Adds a key of this type to the process's keyring: add_key(2).
pub fn add_key(kind: &std::ffi::CStr) -> io::Result<()> {
    /// `KEY_SPEC_PROCESS_KEYRING`.
    const PROCESS: libc::c_long = -2;
    let (name, body) = (c"lab", c"lab");
    // SAFETY: the strings end with a zero and outlive the call, as does the body of so many bytes.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            body.as_ptr(),
            body.count_bytes(),
            PROCESS,
        )
    };
    if key < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel make an algorithm of this type and name (if_alg.h).
pub fn bind_algorithm(kind: &str, name: &str) -> io::Result<()> {
    let socket = socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)?;
    // SAFETY: sockaddr_alg is a plain C structure for which all zeroes is a valid value.
    let mut to: libc::sockaddr_alg = unsafe { std::mem::zeroed() };
    to.salg_family = libc::AF_ALG as libc::sa_family_t;
    for (to, from) in to.salg_type.iter_mut().zip(kind.bytes()) {
        *to = from;
    }
    for (to, from) in to.salg_name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the address's pointer and length describe live memory.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_alg>() as libc::socklen_t,
        )
    })
}

/// How many statistics a network device says that it has (`ETHTOOL_GDRVINFO`).
pub fn driver_info(device: &str) -> io::Result<u32> {
    const GET: u32 = 3;
    /// `struct ethtool_drvinfo`, and where its `n_stats` is.
    const SIZE: usize = 196;
    const STATISTICS: usize = 180;
    let mut info = [0_u8; SIZE];
    for (to, from) in info.iter_mut().zip(GET.to_ne_bytes()) {
        *to = from;
    }
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    // SAFETY: the command writes an ethtool_drvinfo, and both structures outlive the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    let count = info.get(STATISTICS..STATISTICS + 4).and_then(|bytes| bytes.try_into().ok());
    Ok(count.map_or(0, u32::from_ne_bytes))
}

fn raw(result: i64) -> i64 {
    if result != -1 {
        return result;
    }
    -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Sends an empty packet through a raw socket to an address of no family.
pub fn send_without_family(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: sockaddr_in is a plain C structure for which all zeroes is a valid value.
    let to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is sent, and the address outlives the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            std::ptr::null(),
            0,
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives this process's first thread a name, for a test that looks for it.
pub fn name_process(name: &std::ffi::CStr) {
    // SAFETY: the name is a C string, and outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Attaches a socket filter that accepts everything (one classic BPF instruction).
pub fn attach_filter(socket: &OwnedFd) -> io::Result<()> {
    let mut accept = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut accept };
    // SAFETY: the option reads a sock_fprog of that size, which with its one instruction outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}

/// Connects a netlink socket to the kernel, so that it can be written to.
pub fn connect_netlink(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: sockaddr_nl is a plain C structure for which all zeroes is a valid value.
    let mut to: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    to.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    // SAFETY: the address's pointer and length describe live memory.
    check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        )
    })
}

/// Sends bytes to 127.0.0.1 through a raw socket with the header included.
pub fn send_raw(socket: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    // SAFETY: sockaddr_in is a plain C structure for which all zeroes is a valid value.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as libc::sa_family_t;
    to.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    // SAFETY: the packet's and the address's pointers and lengths describe live memory.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A network device whose packets come from this descriptor, each with a `virtio_net_hdr` before it.
pub fn tap_device() -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is a plain C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    Ok(file.into())
}

/// A packet socket that writes to the loopback interface, each packet with a `virtio_net_hdr` before
/// it.
pub fn loopback_packets() -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let header = set_option_raw(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &[1, 0, 0, 0]);
    if header < 0 {
        return Err(io::Error::other(format!("no headers before packets: {header}")));
    }
    // SAFETY: sockaddr_ll is a plain C structure for which all zeroes is a valid value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::c_ushort;
    to.sll_ifindex = 1;
    // SAFETY: the address's pointer and length describe live memory.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

fn check(result: libc::c_int) -> Result<(), io::Error> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
