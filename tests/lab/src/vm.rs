// SPDX-License-Identifier: GPL-2.0-or-later
//! A virtual machine: QEMU by software emulation, two CPUs unless said otherwise, address space randomisation on. The
//! console goes to a file, a second serial port carries requests and replies, and the monitor can
//! save memory. A machine never outlives its [`Machine`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guest::setup::LINE;
use crate::initramfs::Initramfs;
use crate::packages::Image;
use crate::processor::Processor;
use crate::protocol::{Command, LoadReport, Outcome, Reply, Request};

/// How a machine is started.
#[derive(Clone)]
pub struct Options {
    /// The processor.
    pub processor: &'static Processor,
    /// The kernel image (`vmlinuz`).
    pub kernel: PathBuf,
    /// Additional words for the kernel's command line.
    pub append: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// How long the machine may live.
    pub limit: Duration,
    /// Whether one thread of the host runs all processors in turn. It takes five times as long, but
    /// QEMU 7.2 with a thread for each can keep a stale translation of an instruction that one
    /// processor rewrites while another comes to it: then both take the breakpoint that stood there
    /// in between for ever, while the memory holds the final instruction.
    pub one_thread: bool,
}

impl Options {
    /// The usual machine for this kernel.
    #[must_use]
    pub fn new(image: &Image) -> Self {
        Self {
            processor: image.processor(),
            kernel: image.kernel.clone(),
            append: String::new(),
            memory_mib: 1024,
            cpus: 2,
            limit: Duration::from_secs(600),
            one_thread: false,
        }
    }
}

/// A running machine.
pub struct Machine {
    qemu: Child,
    directory: TempDir,
    line: BufReader<UnixStream>,
    end: Instant,
    /// Its processor.
    pub processor: &'static Processor,
    /// The kernel release that it runs.
    pub release: String,
    /// What stands in alarms that are expected in it.
    pub expected: &'static [&'static str],
    /// How long it took until init answered.
    pub boot_time: Duration,
}

/// Messages in a kernel log that no test may cause.
const ALARMS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops:",
    "kernel BUG at",
    "general protection fault",
    "Kernel panic",
    "rcu: INFO:",
    "soft lockup",
    "hung_task",
    "blocked for more than",
    "refcount_t:",
    "unable to handle",
    "UBSAN:",
    "stack guard page",
    "list_add corruption",
    "list_del corruption",
];

/// The lines of a kernel log that report something wrong.
#[must_use]
pub fn alarms(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
        .map(str::to_owned)
        .collect()
}

impl Machine {
    /// Boots a kernel with an initramfs and waits until init answers. A kernel that dies before that,
    /// when nothing of splice is there yet, is booted once more, on one thread: mostly it has met a stale
    /// breakpoint of the emulator's (see [`Options::one_thread`]).
    pub fn boot(options: &Options, initramfs: &Initramfs) -> Result<Self> {
        match Self::boot_once(options, initramfs) {
            Err(error) if !options.one_thread => {
                eprintln!("{error:#}\nnothing of splice ran there; booting again, on one thread");
                Self::boot_once(&Options { one_thread: true, ..options.clone() }, initramfs)
            }
            booted => booted,
        }
    }

    fn boot_once(options: &Options, initramfs: &Initramfs) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("splice-vm-")
            .tempdir()
            .context("cannot make a directory for the virtual machine")?;
        let image = directory.path().join("initramfs");
        std::fs::write(&image, initramfs.to_bytes()?).context("cannot write the initramfs")?;
        let started = Instant::now();
        let qemu = start_qemu(options, directory.path())?;
        let stderr_path = directory.path().join("qemu.log");
        let mut guard = Guard { qemu: Some(qemu), directory: Some(directory) };
        let line = guard
            .connect("line", options.limit.min(Duration::from_secs(20)))
            .map_err(|error| guard.explain(error, &stderr_path))?;
        let (qemu, directory) = guard.take()?;
        let mut machine = Self {
            qemu,
            directory,
            line: BufReader::new(line),
            end: started + options.limit,
            processor: options.processor,
            release: String::new(),
            expected: &[],
            boot_time: Duration::ZERO,
        };
        match machine.receive()? {
            Reply::Ready { release } => machine.release = release,
            other => bail!("init began with {other:?}"),
        }
        machine.boot_time = started.elapsed();
        Ok(machine)
    }

    /// Gives the machine no more than this time from now on, whatever it had.
    pub fn end_after(&mut self, limit: Duration) {
        self.end = self.end.min(Instant::now() + limit);
    }

    /// Sends a request and waits for the reply; a failure in the guest is an error here.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        if let Err(error) = self.line.get_mut().write_all(text.as_bytes()) {
            return Err(self.trouble(&format!("the machine does not listen: {error}")));
        }
        match self.receive()? {
            Reply::Failed(why) => Err(anyhow!("{why}")),
            reply => Ok(reply),
        }
    }

    /// Runs a command to its end.
    pub fn run(&mut self, command: &Command) -> Result<Outcome> {
        match self.ask(&Request::Run(command.clone()))? {
            Reply::Ran(outcome) => Ok(outcome),
            other => bail!("unexpected reply to a command: {other:?}"),
        }
    }

    /// Runs a command given as words, as root.
    pub fn run_words(&mut self, words: &[&str]) -> Result<Outcome> {
        self.run(&Command::new(words.iter().copied()))
    }

    /// Starts a command under a name.
    pub fn start(&mut self, name: &str, command: &Command) -> Result<()> {
        self.ask(&Request::Start { name: name.to_owned(), command: command.clone() }).map(drop)
    }

    /// Stops a started command by closing its input, and waits until it has come to its end: at most two
    /// minutes, since a machine by emulation may be slow.
    pub fn stop(&mut self, name: &str) -> Result<Outcome> {
        match self.ask(&Request::Stop { name: name.to_owned(), grace_ms: 120_000 })? {
            Reply::Ran(outcome) => Ok(outcome),
            other => bail!("unexpected reply to a stop: {other:?}"),
        }
    }

    /// Starts the usual load.
    pub fn start_load(&mut self) -> Result<()> {
        self.start_load_at(Duration::from_millis(5))
    }

    /// Starts a load that pauses so long after each of its operations.
    pub fn start_load_at(&mut self, pace: Duration) -> Result<()> {
        let pace_us = u64::try_from(pace.as_micros())?;
        self.ask(&Request::StartLoad { threads: 2, pace_us }).map(drop)
    }

    /// Stops the load; fails if anything of it came out wrong.
    pub fn stop_load(&mut self) -> Result<LoadReport> {
        let report = match self.ask(&Request::StopLoad)? {
            Reply::Load(report) => report,
            other => bail!("unexpected reply to the load's end: {other:?}"),
        };
        ensure!(report.wrong == 0, "the load saw wrong results: {}", report.examples.join("; "));
        Ok(report)
    }

    /// A file of the guest.
    pub fn read(&mut self, path: &str) -> Result<String> {
        match self.ask(&Request::Read { path: path.to_owned() })? {
            Reply::Text(text) => Ok(text),
            other => bail!("unexpected reply to a read: {other:?}"),
        }
    }

    /// The lines of a guest's file that contain a text.
    pub fn search(&mut self, path: &str, text: &str) -> Result<String> {
        match self.ask(&Request::Search { path: path.to_owned(), text: text.to_owned() })? {
            Reply::Text(text) => Ok(text),
            other => bail!("unexpected reply to a search: {other:?}"),
        }
    }

    /// The run-time address of a kernel symbol whose name is unique.
    pub fn address(&mut self, symbol: &str) -> Result<u64> {
        let lines = self.search("/proc/kallsyms", &format!(" {symbol}"))?;
        let mut found = lines.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            (words.nth(1)? == symbol).then_some(address)
        });
        match (found.next(), found.next()) {
            (Some(address), None) => Ok(address),
            (None, _) => bail!("the kernel has no symbol {symbol}"),
            (Some(_), Some(_)) => bail!("the kernel has several symbols {symbol}"),
        }
    }

    /// Writes to a file of the guest.
    pub fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.ask(&Request::Write { path: path.to_owned(), text: text.to_owned() }).map(drop)
    }

    /// The whole kernel log.
    pub fn kernel_log(&mut self) -> Result<String> {
        match self.ask(&Request::KernelLog)? {
            Reply::Text(text) => Ok(text),
            other => bail!("unexpected reply to the kernel log: {other:?}"),
        }
    }

    /// Fails if the kernel complained about anything.
    pub fn check_kernel(&mut self) -> Result<()> {
        let log = self.kernel_log()?;
        let found = self.unexpected(&log);
        if found.is_empty() {
            return Ok(());
        }
        bail!("the kernel complains:\n  {}", found.join("\n  "))
    }

    fn unexpected(&self, log: &str) -> Vec<String> {
        let mut found = alarms(log);
        found.retain(|line| !self.expected.iter().any(|words| line.contains(words)));
        found
    }

    /// Saves a range of the kernel's memory to a file of the host, through the monitor.
    pub fn save_memory(&mut self, address: u64, size: u64, file: &Path) -> Result<()> {
        let file = std::path::absolute(file)?;
        let arguments = json!({"val": address.cast_signed(), "size": size, "filename": file});
        self.monitor()?.command(&json!({"execute": "memsave", "arguments": arguments})).map(drop)
    }

    /// The monitor, which nobody else has meanwhile.
    pub fn monitor(&self) -> Result<Monitor> {
        let path = self.directory.path().join("monitor");
        let stream = UnixStream::connect(path).context("cannot reach QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut monitor = Monitor { line: BufReader::new(stream) };
        monitor.command(&json!({"execute": "qmp_capabilities"}))?;
        Ok(monitor)
    }

    /// Switches the machine off and waits for its end; fails if the console holds an alarm.
    pub fn power_off(mut self) -> Result<()> {
        let mut text = serde_json::to_string(&Request::PowerOff)?;
        text.push('\n');
        // What counts is whether the machine ends.
        let _ = self.line.get_mut().write_all(text.as_bytes());
        let end = Instant::now() + Duration::from_secs(30);
        while self.qemu.try_wait()?.is_none() {
            if Instant::now() > end {
                return Err(self.trouble("the machine did not switch off"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = self.unexpected(&self.console());
        if found.is_empty() { Ok(()) } else { bail!("on the console:\n  {}", found.join("\n  ")) }
    }

    /// What the kernel wrote to its console.
    #[must_use]
    pub fn console(&self) -> String {
        read_lossy(&self.directory.path().join("console.log"))
    }

    fn receive(&mut self) -> Result<Reply> {
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.trouble("the machine's time is over"));
            }
            self.line.get_ref().set_read_timeout(Some(left))?;
            let mut text = String::new();
            match self.line.read_line(&mut text) {
                Ok(0) => return Err(self.trouble("the machine ended")),
                Ok(_) if text.trim().is_empty() => {}
                Ok(_) => {
                    return serde_json::from_str(&text)
                        .with_context(|| format!("cannot understand the guest: {text:?}"));
                }
                Err(error) => {
                    return Err(self.trouble(&format!("the machine does not answer: {error}")));
                }
            }
        }
    }

    /// An error with the end of the console's log: enough for a panic with two traces.
    fn trouble(&self, what: &str) -> anyhow::Error {
        let qemu = read_lossy(&self.directory.path().join("qemu.log"));
        anyhow!("{what}; the end of its console:\n{}{qemu}", tail(&self.console(), 120))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Ends QEMU if the boot does not get as far as a [`Machine`].
struct Guard {
    qemu: Option<Child>,
    directory: Option<TempDir>,
}

impl Guard {
    fn connect(&mut self, name: &str, limit: Duration) -> Result<UnixStream> {
        let directory = self.directory.as_ref().context("no directory")?;
        let path = directory.path().join(name);
        let end = Instant::now() + limit;
        loop {
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > end => {
                    return Err(error).context("QEMU does not open its serial port");
                }
                Err(_) => {}
            }
            if let Some(qemu) = &mut self.qemu
                && let Some(status) = qemu.try_wait()?
            {
                bail!("QEMU ended at once ({status})");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn explain(&self, error: anyhow::Error, log: &Path) -> anyhow::Error {
        error.context(format!("cannot start a virtual machine\n{}", read_lossy(log)))
    }

    fn take(mut self) -> Result<(Child, TempDir)> {
        let qemu = self.qemu.take().context("no process")?;
        let directory = self.directory.take().context("no directory")?;
        Ok((qemu, directory))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            let _ = qemu.kill();
            let _ = qemu.wait();
        }
    }
}

fn start_qemu(options: &Options, directory: &Path) -> Result<Child> {
    let processor = options.processor;
    let program = format!("qemu-system-{}", processor.name);
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let socket = |id: &str| format!("socket,id={id},path={},server=on,wait=off", path(id));
    // A real-time kernel handles interrupts in threads, which often find that the serial line's work is
    // done already; it then takes the line for broken, and init waits forever: hence noirqdebug.
    let append = format!(
        "console={} {LINE}{} quiet loglevel=5 panic=-1 oops=panic noirqdebug rdinit=/init {}",
        processor.console, processor.line, options.append
    );
    let accelerator = if options.one_thread { "tcg,thread=single" } else { "tcg,thread=multi" };
    let log = std::fs::File::create(directory.join("qemu.log"))?;
    Process::new(&program)
        .args(processor.machine)
        .args(["-accel", accelerator, "-smp", &options.cpus.to_string()])
        .args(["-m", &options.memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&options.kernel)
        .args(["-initrd", &path("initramfs"), "-append", &append])
        .args(["-serial", &format!("file:{}", path("console.log"))])
        .args(["-chardev", &socket("line")])
        .args(processor.line_device)
        .args(["-chardev", &socket("monitor"), "-mon", "chardev=monitor,mode=control"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {program} (Debian package {})", processor.package))
}

/// QEMU's monitor: what happens to a machine from outside.
pub struct Monitor {
    line: BufReader<UnixStream>,
}

impl Monitor {
    /// A non-maskable interrupt, as from outside: on the processor that takes those, the first one.
    pub fn interrupt(&mut self) -> Result<()> {
        self.command(&json!({"execute": "inject-nmi"})).map(drop)
    }

    /// Wakes a machine that is suspended.
    pub fn wake(&mut self) -> Result<()> {
        self.command(&json!({"execute": "system_wakeup"})).map(drop)
    }

    /// Whether the machine is suspended.
    pub fn is_suspended(&mut self) -> Result<bool> {
        let answer = self.command(&json!({"execute": "query-status"}))?;
        Ok(answer.get("status").and_then(Value::as_str) == Some("suspended"))
    }

    /// Gives a command, and reads on past greetings and events until it is answered.
    fn command(&mut self, what: &Value) -> Result<Value> {
        self.line.get_mut().write_all(format!("{what}\n").as_bytes())?;
        loop {
            let mut text = String::new();
            if self.line.read_line(&mut text).context("QEMU's monitor does not answer")? == 0 {
                bail!("QEMU's monitor closed the line");
            }
            let answer: Value = serde_json::from_str(&text)?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor refuses {what}: {error}");
            }
            if let Some(answer) = answer.get("return") {
                return Ok(answer.clone());
            }
        }
    }
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let skipped = all.len().saturating_sub(lines);
    all.into_iter().skip(skipped).map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_found_and_chatter_is_not() {
        let log = "Linux version 6.1\n[ 1.0] WARNING: CPU: 1 PID: 3 at x.c:7\nmodule: loading\n";
        assert_eq!(alarms(log), ["[ 1.0] WARNING: CPU: 1 PID: 3 at x.c:7"]);
        assert!(alarms("splice: loading out-of-tree module taints kernel.\n").is_empty());
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "  | b\n  | c\n");
    }
}
