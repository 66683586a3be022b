// SPDX-License-Identifier: GPL-2.0-or-later
//! Makes the bare machine usable: file systems, the loopback interface, the line to the host.
//! The calls that no crate wraps are here, and nowhere else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use super::sockets::{check, owned, raw, socket};

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
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
}

/// Writes to an event descriptor in one call; what came back, a negative error number included.
pub fn write_raw(descriptor: &OwnedFd, bytes: &[u8]) -> i64 {
    // SAFETY: the pointer and the length describe live memory.
    let result = unsafe { libc::write(descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    raw(result as i64)
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

/// Gives this process's first thread a name, for a test that looks for it.
pub fn name_process(name: &std::ffi::CStr) {
    // SAFETY: the name is a C string, and outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
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
