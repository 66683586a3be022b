// SPDX-License-Identifier: GPL-2.0-or-later
//! Images of file systems, small enough for a disk of memory, as each one's own tool makes them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::exercise::disks::{CONTENTS, FILE};

/// Bytes of an image that can be written to: as many as a disk of memory has.
const SIZE: u64 = 16 << 20;

/// A new image of the kind of file system that the path in the machine, `images/KIND`, names.
pub fn image(path: &str) -> Result<Vec<u8>> {
    let kind = path.trim_start_matches("images/");
    let work = tempfile::tempdir()?;
    let (image, tree) = (work.path().join("image"), work.path().join("tree"));
    std::fs::create_dir(&tree)?;
    // So long that a file system which compresses does so.
    std::fs::write(tree.join(FILE), CONTENTS.repeat(2000))?;
    let (program, words, package) = match kind {
        "ext4" => ("mke2fs", "-q -t ext4", "e2fsprogs"),
        "exfat" => ("mkfs.exfat", "", "exfatprogs"),
        "udf" => ("mkudffs", "--blocksize=512", "udftools"),
        "btrfs" => ("mkfs.btrfs", "-q --mixed", "btrfs-progs"),
        "erofs" => ("mkfs.erofs", "-zlz4", "erofs-utils"),
        "iso9660" => ("genisoimage", "-quiet -R -o", "genisoimage"),
        _ => bail!("no tool is known for images of {kind}"),
    };
    let is_written_whole = ["erofs", "iso9660"].contains(&kind);
    if !is_written_whole {
        std::fs::File::create(&image)?.set_len(SIZE)?;
    }
    let mut command = Command::new(found(program));
    command.args(words.split_whitespace()).arg(&image);
    if is_written_whole {
        command.arg(&tree);
    }
    let output = command
        .output()
        .with_context(|| format!("cannot run {program} (Debian package {package})"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} has failed: {}", said.trim());
    std::fs::read(&image).with_context(|| format!("{program} has made no image"))
}

/// A program that may be where only root looks for it.
fn found(program: &str) -> String {
    let own = Path::new("/usr/sbin").join(program);
    if own.is_file() { own.to_string_lossy().into_owned() } else { program.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_of_its_kind() {
        let image = image("images/ext4").unwrap();
        // The superblock's magic number, fs/ext4/ext4.h.
        assert_eq!(image.get(1024 + 0x38..1024 + 0x3a), Some(&[0x53, 0xef][..]));
    }
}
