// SPDX-License-Identifier: GPL-2.0-or-later
//! System calls of one part each: algorithms, keys, programs, memory, timers.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::{at, expect};
use crate::guest::bpf;
use crate::guest::sockets::{accept, algorithm, check, owned, send_with, set_option_raw};

pub(super) fn nothing(_: u64) -> io::Result<()> {
    Ok(())
}

/// The result of a call without a wrapper.
fn called(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The first examples of FIPS 180-4 (one block message) and FIPS 197 (appendix C.1).
pub(super) fn algorithms(_: u64) -> io::Result<()> {
    const DIGEST: [u8; 8] = [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea];
    const CIPHER: [u8; 16] = [
        0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5,
        0x5a,
    ];
    /// `ALG_SET_KEY`, `ALG_SET_OP`, `ALG_OP_ENCRYPT` (include/uapi/linux/if_alg.h).
    const KEY: i32 = 1;
    const OPERATION: i32 = 3;
    const ENCRYPT: u32 = 1;
    let mut hash = File::from(accept(&at("sha256", algorithm("hash", "sha256"))?)?);
    hash.write_all(b"abc")?;
    let mut digest = [0; 32];
    hash.read_exact(&mut digest)?;
    expect(digest.starts_with(&DIGEST), "the digest of abc")?;

    let cipher = at("ecb(aes)", algorithm("skcipher", "ecb(aes)"))?;
    let key: Vec<u8> = (0..16).collect();
    expect(set_option_raw(&cipher, libc::SOL_ALG, KEY, &key) == 0, "a key can be set")?;
    let operation = accept(&cipher)?;
    let plain: Vec<u8> = (0..16).map(|n| n * 0x11).collect();
    send_with(&operation, &plain, &[(libc::SOL_ALG, OPERATION, &ENCRYPT.to_ne_bytes())])?;
    let mut made = [0; 16];
    File::from(operation).read_exact(&mut made)?;
    expect(made == CIPHER, "the block that was encrypted")
}

/// A key with contents is made, found, read, changed and revoked; one that is linked to a ring goes with it.
pub(super) fn keys(round: u64) -> io::Result<()> {
    /// `KEY_SPEC_PROCESS_KEYRING`, and commands of keyctl(2).
    const PROCESS: i64 = -2;
    const UPDATE: i64 = 2;
    const REVOKE: i64 = 3;
    const UNLINK: i64 = 9;
    const SEARCH: i64 = 10;
    const READ: i64 = 11;
    let add = |kind: &CStr, name: &CStr, body: &[u8], ring: i64| {
        let (kind, name) = (kind.as_ptr(), name.as_ptr());
        // SAFETY: the strings end with a zero and outlive the call, as does the body of so many bytes.
        called(unsafe {
            libc::syscall(libc::SYS_add_key, kind, name, body.as_ptr(), body.len(), ring)
        })
    };
    let control = |what: i64, key: i64, pointer: *mut u8, other: i64, last: i64| {
        // SAFETY: callers give pointers to as much memory as they say.
        called(unsafe { libc::syscall(libc::SYS_keyctl, what, key, pointer, other, last) })
    };
    let nothing = std::ptr::null_mut();
    let ring = at("ring", add(c"keyring", c"exercise", &[], PROCESS))?;
    let body = round.to_ne_bytes();
    let key = at("key", add(c"user", c"exercise", &body, ring))?;
    let mut kind = *b"user\0";
    let name = c"exercise".as_ptr() as i64;
    expect(control(SEARCH, ring, kind.as_mut_ptr(), name, 0)? == key, "the key that is found")?;
    let mut contents = [0; 8];
    control(READ, key, contents.as_mut_ptr(), 8, 0)?;
    expect(contents == body, "what the key holds")?;
    let mut other = (!round).to_ne_bytes();
    control(UPDATE, key, other.as_mut_ptr(), 8, 0)?;
    control(READ, key, contents.as_mut_ptr(), 8, 0)?;
    expect(contents == other, "what the key holds after a change")?;
    control(REVOKE, key, nothing, 0, 0)?;
    let read = control(READ, key, contents.as_mut_ptr(), 8, 0);
    expect(read.is_err(), "a key that was revoked cannot be read")?;
    control(UNLINK, ring, PROCESS as *mut u8, 0, 0).map(drop)
}

/// A map keeps a value, and a program gives back a number.
pub(super) fn bpf_program(round: u64) -> io::Result<()> {
    let value = round as u32;
    let map = owned(at("map", bpf::array(4))?)?;
    let (key, mut got) = (3_u32, 0_u32);
    let mut put = value;
    let number = map.as_raw_fd().cast_unsigned().into();
    let pointer = (&raw const key) as u64;
    for (command, to) in
        [(bpf::MAP_UPDATE, (&raw mut put) as u64), (bpf::MAP_LOOKUP, (&raw mut got) as u64)]
    {
        let fields = [(0, number, 4), (8, pointer, 8), (16, to, 8)];
        at("map", bpf::bpf(command, &mut bpf::attributes(&fields)))?;
    }
    expect(std::hint::black_box(got) == value, "the value in the map")?;
    // `r0 = value`.
    let code = [0xb7 | (u64::from(value) << 32), 0x95];
    let program = owned(at("program", bpf::load(bpf::FILTER, &code, &mut [], &[]))?)?;
    let packet = [0_u8; 64];
    let mut run = bpf::attributes(&[
        (0, program.as_raw_fd().cast_unsigned().into(), 4),
        (8, packet.len() as u64, 4),
        (16, packet.as_ptr() as u64, 8),
    ]);
    at("run", bpf::bpf(bpf::PROG_TEST_RUN, &mut run))?;
    expect(run[4..8] == value.to_ne_bytes(), "what the program gives back")
}

/// Pages of this process's own.
struct Pages {
    start: *mut libc::c_void,
    size: usize,
}

impl Pages {
    fn new(size: usize) -> io::Result<Pages> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, which nobody else has.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Pages { start, size })
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is ours, and as long as it says.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.size) }
    }

    fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the memory is ours; what it holds may be lost, which is no harm to bytes.
        check(unsafe { libc::madvise(self.start, self.size, advice) })
    }

    /// How many of its pages are in memory.
    fn resident(&self) -> io::Result<usize> {
        let mut pages = vec![0_u8; self.size / 4096];
        // SAFETY: there is a byte for each page.
        check(unsafe { libc::mincore(self.start, self.size, pages.as_mut_ptr()) })?;
        Ok(pages.iter().filter(|page| **page & 1 != 0).count())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: nobody refers to the memory any more.
        unsafe { libc::munmap(self.start, self.size) };
    }
}

pub(super) fn memory(round: u64) -> io::Result<()> {
    const SIZE: usize = 4 << 20;
    let mut pages = Pages::new(SIZE)?;
    pages.advise(libc::MADV_HUGEPAGE)?;
    for (number, page) in pages.bytes().chunks_mut(4096).enumerate() {
        page.fill((number as u64 ^ round) as u8);
    }
    expect(pages.resident()? == SIZE / 4096, "all pages are there")?;
    pages.advise(libc::MADV_NOHUGEPAGE)?;
    pages.advise(libc::MADV_COLD)?;
    pages.advise(libc::MADV_PAGEOUT)?;
    for (number, page) in pages.bytes().chunks(4096).enumerate() {
        let wanted = (number as u64 ^ round) as u8;
        expect(page.iter().all(|byte| *byte == wanted), "what a page holds")?;
    }
    pages.advise(libc::MADV_DONTNEED)?;
    expect(pages.bytes().iter().all(|byte| *byte == 0), "pages that were given back are empty")
}

pub(super) fn shared_memory(round: u64) -> io::Result<()> {
    const SIZE: usize = 64 << 10;
    // SAFETY: it takes three numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE, libc::IPC_CREAT | 0o600) };
    check(id)?;
    let attach = || {
        // SAFETY: the kernel chooses where.
        let start = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        if start as isize == -1 { Err(io::Error::last_os_error()) } else { Ok(start) }
    };
    let (one, other) = (attach()?, attach()?);
    let value = round as u8;
    // SAFETY: both are as long as the segment; it is gone for the kernel once they are detached.
    let same = unsafe {
        std::slice::from_raw_parts_mut(one.cast::<u8>(), SIZE).fill(value);
        std::slice::from_raw_parts(other.cast::<u8>(), SIZE).iter().all(|byte| *byte == value)
    };
    // SAFETY: shmid_ds is a plain C structure for which all zeroes is a valid value.
    let mut about: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call; nobody refers to the memory after it was detached.
    unsafe {
        check(libc::shmctl(id, libc::IPC_STAT, &raw mut about))?;
        check(libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()))?;
        check(libc::shmdt(one))?;
        check(libc::shmdt(other))?;
    }
    expect(same, "what is written through one address is read through another")?;
    expect((about.shm_segsz, about.shm_nattch) == (SIZE, 2), "what the kernel tells of a segment")
}

/// A clock of the processor's time runs out, and a signal with a value arrives.
pub(super) fn timers(round: u64) -> io::Result<()> {
    // SAFETY: plain C structures for which all zeroes is a valid value.
    let (mut event, mut time): (libc::sigevent, libc::itimerspec) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    event.sigev_notify = libc::SIGEV_NONE;
    let mut timer = std::ptr::null_mut();
    // SAFETY: all three outlive the call.
    check(unsafe {
        libc::timer_create(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut event, &raw mut timer)
    })?;
    time.it_value.tv_nsec = 5_000_000;
    // SAFETY: the timer was made, and the time outlives the call.
    check(unsafe { libc::timer_settime(timer, 0, &raw const time, std::ptr::null_mut()) })?;
    let started = Instant::now();
    let mut left = time;
    while (left.it_value.tv_sec, left.it_value.tv_nsec) != (0, 0) {
        // SAFETY: the timer was made, and the time outlives the call.
        check(unsafe { libc::timer_gettime(timer, &raw mut left) })?;
        expect(started.elapsed() < Duration::from_secs(20), "the timer runs out")?;
    }
    // SAFETY: the timer was made.
    check(unsafe { libc::timer_delete(timer) })?;

    let value = libc::sigval { sival_ptr: round as *mut libc::c_void };
    // SAFETY: plain C structures for which all zeroes is a valid value, used by the calls only while they run.
    unsafe {
        let (mut set, mut got): (libc::sigset_t, libc::siginfo_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        check(libc::sigaddset(&raw mut set, libc::SIGUSR1))?;
        check(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        // To this thread only: the others have not blocked the signal.
        check(libc::pthread_sigqueue(libc::pthread_self(), libc::SIGUSR1, value))?;
        let limit = libc::timespec { tv_sec: 20, tv_nsec: 0 };
        check(libc::sigtimedwait(&raw const set, &raw mut got, &raw const limit))?;
        expect(got.si_value().sival_ptr == value.sival_ptr, "the value that came with a signal")
    }
}
