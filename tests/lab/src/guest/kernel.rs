// SPDX-License-Identifier: GPL-2.0-or-later
//! Kernel modules, the kernel log, names in the kernel, and switching off.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::system::{RebootCommand, delete_module, init_module, reboot};

/// Loads modules in order; one that is there already is fine.
pub fn insert_modules(paths: &[String]) -> Result<()> {
    for path in paths {
        let image = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        match init_module(&image, c"") {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => bail!("cannot load {path}: {error}"),
        }
    }
    Ok(())
}

/// Unloads a module.
pub fn remove_module(name: &str) -> Result<()> {
    let c_name = CString::new(name)?;
    delete_module(&c_name, libc::O_NONBLOCK).with_context(|| format!("cannot unload {name}"))
}

/// The kernel log, one message a line, as `dmesg` has it.
pub fn log() -> Result<String> {
    let mut source = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("cannot open /dev/kmsg")?;
    let mut text = String::new();
    let mut record = [0_u8; 8192];
    loop {
        match source.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let raw = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                let message = raw.split_once(';').map_or(&*raw, |(_, message)| message);
                text.push_str(message.lines().next().unwrap_or_default());
                text.push('\n');
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Older messages were overwritten while they were being read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("cannot read /dev/kmsg"),
        }
    }
    Ok(text)
}

/// Has the kernel free what it only keeps in case it is needed, so that what is left can be counted:
/// clean caches, and the free objects that each processor holds of each slab cache (which count as
/// in use otherwise).
pub fn settle() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
    for entry in std::fs::read_dir("/sys/kernel/slab").context("no /sys/kernel/slab")? {
        let path = entry?.path().join("shrink");
        std::fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Switches the machine off. (The machine is started so that a reboot ends it.)
pub fn power_off() -> Result<()> {
    rustix::fs::sync();
    reboot(RebootCommand::Restart).context("cannot switch off")
}

/// Prints the names that more than one symbol of the kernel image has, each once.
pub fn shared_names() -> Result<()> {
    let text = std::fs::read_to_string("/proc/kallsyms").context("cannot read the symbols")?;
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines() {
        // ADDRESS KIND NAME, and [MODULE] behind it if it is not of the image.
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, name] = words.as_slice() {
            *counts.entry(name).or_default() += 1;
        }
    }
    for (name, _) in counts.iter().filter(|(_, count)| **count > 1) {
        println!("{name}");
    }
    Ok(())
}
