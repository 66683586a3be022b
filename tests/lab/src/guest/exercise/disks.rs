// SPDX-License-Identifier: GPL-2.0-or-later
//! Disks of memory: arrays of them, and file systems on them, each exercise with disks of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{at, expect, unhindered};
use crate::guest::raid::Array;

/// A file that every image of a file system which cannot be written holds.
pub const FILE: &str = "file";
/// What it begins with, again and again.
pub const CONTENTS: &str = "what the image holds\n";

/// Writes to a device and reads it back, past the cache.
fn written(device: &str, round: u64) -> io::Result<()> {
    let sent: Vec<u8> = (0..128_u64 << 10).map(|n| (n.wrapping_mul(7) ^ round) as u8).collect();
    let open = || at(device, OpenOptions::new().read(true).write(true).open(device));
    let mut file = open()?;
    at("write", file.write_all(&sent))?;
    at("write through", file.sync_all())?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    file.rewind()?;
    let mut got = vec![0; sent.len()];
    at("read", file.read_exact(&mut got))?;
    expect(got == sent, "what the device holds")
}

pub(super) fn raid1(round: u64) -> io::Result<()> {
    let settings = [("level", "raid1"), ("raid_disks", "2")];
    let array = Array::start(&format!("md_one{round}"), &settings, ["ram2", "ram3"])?;
    written(&array.device(), round)
}

pub(super) fn raid10(round: u64) -> io::Result<()> {
    // Two near copies.
    let layout = 0x102.to_string();
    let settings =
        [("level", "raid10"), ("raid_disks", "2"), ("chunk_size", "65536"), ("layout", &layout)];
    let array = Array::start(&format!("md_ten{round}"), &settings, ["ram4", "ram5"])?;
    written(&array.device(), round)
}

/// The disk that scsi_debug makes.
pub(super) fn scsi(round: u64) -> io::Result<()> {
    for _ in 0..250 {
        for entry in std::fs::read_dir("/sys/block")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let model = std::fs::read_to_string(format!("/sys/block/{name}/device/model"));
            if model.is_ok_and(|model| model.trim() == "scsi_debug") {
                return written(&format!("/dev/{name}"), round);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    expect(false, "no disk of scsi_debug appears")
}

/// Puts the image of a file system onto a disk, once.
fn on_disk(kind: &str, disk: &str) -> io::Result<String> {
    let (done, device) = (format!("/run/image-{kind}"), format!("/dev/{disk}"));
    if !Path::new(&done).exists() {
        let mut image = at("image", File::open(format!("/images/{kind}")))?;
        let mut to = at(&device, OpenOptions::new().write(true).open(&device))?;
        io::copy(&mut image, &mut to)?;
        to.sync_all()?;
        std::fs::write(&done, "")?;
        std::fs::create_dir_all(format!("/run/on-{kind}"))?;
    }
    Ok(device)
}

/// A file system is mounted, something is done in it, and it is unmounted.
fn mounted(
    kind: &str,
    disk: &str,
    (flags, options): (MountFlags, Option<&std::ffi::CStr>),
    work: impl FnOnce(&str) -> io::Result<()>,
) -> io::Result<()> {
    let device = on_disk(kind, disk)?;
    let place = format!("/run/on-{kind}");
    at("mount", mount(device, &*place, kind, flags, options).map_err(Into::into))?;
    let done = work(&place);
    at("unmount", unhindered(|| Ok(unmount(&place, UnmountFlags::empty())?)))?;
    done
}

/// Directories and files are made, written, renamed, read, listed and removed; between writing and reading the
/// file system is mounted anew.
fn writable(kind: &str, disk: &str, round: u64, attributes: bool) -> io::Result<()> {
    const FILES: usize = 8;
    let body: Vec<u8> = (0..40_000_u64).map(|n| (n.wrapping_mul(13) ^ round) as u8).collect();
    let attribute = round.to_be_bytes().repeat(25);
    let plain = || (MountFlags::empty(), None);
    mounted(kind, disk, plain(), |place| {
        let directory = format!("{place}/directory");
        at("directory", std::fs::create_dir(&directory))?;
        for number in 0..FILES {
            let name = format!("{directory}/a file with a long name, number {number}");
            std::fs::write(&name, &body)?;
            std::fs::rename(&name, format!("{directory}/{number}"))?;
        }
        if attributes {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(format!("{directory}/0"), "user.lab", &attribute, flags)?;
        }
        Ok(())
    })?;
    mounted(kind, disk, plain(), |place| {
        let directory = format!("{place}/directory");
        let count = std::fs::read_dir(&directory)?.count();
        if attributes {
            let mut value = [0; 256];
            let size = rustix::fs::getxattr(format!("{directory}/0"), "user.lab", &mut value[..])?;
            expect(value.get(..size) == Some(&attribute), "a file's attribute")?;
        }
        for number in 0..FILES {
            let name = format!("{directory}/{number}");
            expect(std::fs::read(&name)? == body, "what a file holds")?;
            let file = OpenOptions::new().write(true).open(&name)?;
            at("shorten", file.set_len(100))?;
            drop(file);
            std::fs::remove_file(&name)?;
        }
        std::fs::remove_dir(&directory)?;
        expect(count == FILES, "how many files are listed")
    })
}

/// The one file can be found and read.
fn readable(kind: &str, disk: &str) -> io::Result<()> {
    mounted(kind, disk, (MountFlags::RDONLY, None), |place| {
        let names: Vec<_> = std::fs::read_dir(place)?.collect::<Result<_, _>>()?;
        expect(names.iter().any(|name| name.file_name() == FILE), "the file is listed")?;
        let text = std::fs::read_to_string(format!("{place}/{FILE}"))?;
        expect(text.starts_with(CONTENTS), "what the file holds")
    })
}

pub(super) fn ext4(round: u64) -> io::Result<()> {
    writable("ext4", "ram6", round, true)
}

pub(super) fn exfat(round: u64) -> io::Result<()> {
    writable("exfat", "ram7", round, false)
}

pub(super) fn udf(round: u64) -> io::Result<()> {
    writable("udf", "ram8", round, false)
}

pub(super) fn btrfs(round: u64) -> io::Result<()> {
    writable("btrfs", "ram9", round, true)
}

pub(super) fn isofs(_: u64) -> io::Result<()> {
    readable("iso9660", "ram10")
}

pub(super) fn erofs(_: u64) -> io::Result<()> {
    readable("erofs", "ram11")
}
