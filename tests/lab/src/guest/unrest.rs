// SPDX-License-Identifier: GPL-2.0-or-later
//! The unrest: what an administrator's tools do to a kernel while an update goes on and off. Tracers,
//! probes, samplers and debuggers come and go, processors are taken away, modules are loaded and
//! unloaded, memory gets short. Each of them must work as if nobody switched.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::system::{delete_module, init_module};

const TRACING: &str = "/sys/kernel/tracing";
/// At most so many failures are described.
const EXAMPLES: usize = 8;

/// The longest that a round may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Round = fn(u64, &[&str]) -> io::Result<()>;

/// What is done, and how long each waits before the next round.
const ALL: &[(&str, u64, Round)] = &[
    ("processors", 300, processors),
    ("tracers", 200, tracers),
    ("probes", 150, probes),
    ("samples", 100, samples),
    ("debuggers", 80, debuggers),
    ("signals", 50, signals),
    ("modules", 250, modules),
    ("memory", 400, memory),
];

/// Goes on until standard input ends; prints how often each was done, and what went wrong. The words are
/// the paths of modules that can be loaded, each after those that it needs.
#[must_use]
pub fn run(words: &[&str]) -> ExitCode {
    let over = AtomicBool::new(false);
    let wrong = AtomicU64::new(0);
    let examples: Mutex<Vec<String>> = Mutex::default();
    let done: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let running: Mutex<BTreeMap<&str, i32>> = Mutex::default();
    std::thread::scope(|scope| {
        for (name, wait, round) in ALL {
            let (over, wrong, examples, done) = (&over, &wrong, &examples, &done);
            let running = &running;
            scope.spawn(move || {
                // SAFETY: it takes nothing and cannot fail.
                let thread = unsafe { libc::gettid() };
                running.lock().unwrap_or_else(PoisonError::into_inner).insert(name, thread);
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(error) = round(number, words) {
                        wrong.fetch_add(1, Ordering::Relaxed);
                        let mut all = examples.lock().unwrap_or_else(PoisonError::into_inner);
                        if all.len() < EXAMPLES {
                            all.push(format!("{name}: {error}"));
                        }
                    }
                    *done
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(name)
                        .or_default() += 1;
                    std::thread::sleep(Duration::from_millis(*wait));
                }
                running.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
            });
        }
        let _ = io::stdin().read_to_end(&mut Vec::new());
        over.store(true, Ordering::Relaxed);
        let started = Instant::now();
        while !running.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            if started.elapsed() > PATIENCE {
                for (name, thread) in running.lock().unwrap_or_else(PoisonError::into_inner).iter()
                {
                    let stack = std::fs::read_to_string(format!("/proc/self/task/{thread}/stack"));
                    println!("{name} does not end: {}", stack.unwrap_or_default());
                }
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rounds: Vec<String> = done.iter().map(|(name, times)| format!("{name} {times}")).collect();
    println!("rounds: {}", rounds.join(", "));
    println!("wrong: {}", wrong.into_inner());
    for example in examples.into_inner().unwrap_or_else(PoisonError::into_inner) {
        println!("example: {example}");
    }
    ExitCode::SUCCESS
}

fn write(file: &str, text: &str) -> io::Result<()> {
    std::fs::write(file, text)
        .map_err(|error| io::Error::other(format!("{text} to {file}: {error}")))
}

/// All processors but the first, one after the other.
fn processors(number: u64, _: &[&str]) -> io::Result<()> {
    let count = (1..).take_while(|n| cpu(*n).is_some()).count() as u64;
    let Some(file) = (number % count.max(1)).checked_add(1).and_then(cpu) else { return Ok(()) };
    write(&file, "0")?;
    std::thread::sleep(Duration::from_millis(50));
    write(&file, "1")
}

fn cpu(number: u64) -> Option<String> {
    let file = format!("/sys/devices/system/cpu/cpu{number}/online");
    std::fs::metadata(&file).is_ok().then_some(file)
}

/// The function that is switched among them.
fn tracers(number: u64, _: &[&str]) -> io::Result<()> {
    let (filter, tracer) = match number % 3 {
        0 => ("sk_* sock_*", "function"),
        1 => ("tcp_* __sys_*", "function"),
        _ => ("sock_* vfs_*", "function_graph"),
    };
    write(&format!("{TRACING}/set_ftrace_filter"), filter)?;
    write(&format!("{TRACING}/current_tracer"), tracer)?;
    std::thread::sleep(Duration::from_millis(100));
    write(&format!("{TRACING}/current_tracer"), "nop")
}

/// A probe at a function's entry, and one at its return.
fn probes(_: u64, _: &[&str]) -> io::Result<()> {
    write(
        &format!("{TRACING}/kprobe_events"),
        "p:unrest/entry vfs_write\nr:unrest/return vfs_read",
    )?;
    for value in ["1", "0"] {
        write(&format!("{TRACING}/events/unrest/enable"), value)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    write(&format!("{TRACING}/kprobe_events"), "")
}

/// Samples of this process with its call chains, by a clock that interrupts it.
fn samples(_: u64, _: &[&str]) -> io::Result<()> {
    // struct perf_event_attr, version 0 (include/uapi/linux/perf_event.h): a software clock of the
    // processor, a sample every 10 ms (more often, and an emulated processor does nothing else), of where it
    // was and who had called.
    const SIZE: usize = 64;
    let mut attributes = [0_u32; SIZE / 4];
    let (kind, clock, period, where_and_callers) = (1, 0, 10_000_000, (1 << 0) | (1 << 5));
    attributes[..8].copy_from_slice(&[
        kind,
        SIZE as u32,
        clock,
        0,
        period,
        0,
        where_and_callers,
        0,
    ]);
    // SAFETY: the kernel only reads the attributes, which are as long as they say.
    let event =
        unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0) };
    let event = i32::try_from(event).ok().filter(|event| *event >= 0);
    let event = event.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for us.
    let _event = unsafe { OwnedFd::from_raw_fd(event) };
    for _ in 0..50 {
        std::fs::read("/proc/self/status")?;
    }
    Ok(())
}

/// A child that another process stops and lets go.
fn debuggers(_: u64, _: &[&str]) -> io::Result<()> {
    let mut child = sleeper()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let ask = |what: libc::c_uint| {
        // SAFETY: none of these requests has the kernel write to our memory.
        let result = unsafe { libc::ptrace(what, pid, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let wait = || {
        // SAFETY: a status that nobody wants.
        let ended = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
        if ended == pid { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let mut traced = Ok(());
    for _ in 0..4 {
        traced = traced
            .and_then(|()| ask(libc::PTRACE_ATTACH))
            .and_then(|()| wait())
            .and_then(|()| ask(libc::PTRACE_DETACH));
    }
    child.kill()?;
    child.wait()?;
    traced
}

/// A process that waits until its input is closed.
pub(super) fn sleeper() -> io::Result<std::process::Child> {
    let mut command = Command::new("/init");
    command.args(["threads", "1"]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn()
}

/// A child that is stopped and goes on.
fn signals(_: u64, _: &[&str]) -> io::Result<()> {
    let mut child = sleeper()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let mut result = Ok(());
    for signal in [libc::SIGSTOP, libc::SIGCONT, libc::SIGSTOP, libc::SIGCONT] {
        // SAFETY: sends a signal to a child that was not waited for.
        if unsafe { libc::kill(pid, signal) } != 0 {
            result = Err(io::Error::last_os_error());
        }
    }
    child.kill()?;
    child.wait()?;
    result
}

/// Modules that nothing else uses.
fn modules(_: u64, paths: &[&str]) -> io::Result<()> {
    for path in paths {
        init_module(&std::fs::read(path)?, c"")
            .map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    }
    for path in paths.iter().rev() {
        let name = path.rsplit('/').next().and_then(|name| name.split('.').next());
        let name = name.unwrap_or_default().replace('-', "_");
        let name = CString::new(name)?;
        // An update may hold all modules for a moment, and then it is busy.
        let mut tries = 0;
        while let Err(error) = delete_module(&name, libc::O_NONBLOCK) {
            tries += 1;
            if tries == 50 {
                return Err(io::Error::other(format!("unload {path}: {error}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// A third of what is there, and no caches.
fn memory(_: u64, _: &[&str]) -> io::Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let free =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let kib: usize = free.and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let mut room = vec![0_u8; kib / 3 * 1024];
    for page in room.chunks_mut(4096) {
        page.fill(1);
    }
    drop(room);
    write("/proc/sys/vm/drop_caches", "3")
}
