// SPDX-License-Identifier: GPL-2.0-or-later
//! Who may have written a file: for root, only root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether this process has root's rights, so that a plugin would get them too.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that nobody but root can change the file or put another in its place: the file and all
/// directories above it belong to root and can be written by nobody else. A directory with the
/// sticky bit (`/tmp`) may be writable: in it nobody can replace what belongs to root. `path` has
/// no symbolic links left. The error names the offending part.
pub(crate) fn only_roots(path: &Path) -> Result<(), String> {
    for (above, part) in path.ancestors().enumerate() {
        let data = part.metadata().map_err(|e| format!("{}: {e}", part.display()))?;
        let fault = fault(data.uid(), data.mode(), above > 0);
        if let Some(fault) = fault {
            return Err(format!("{} {fault}", part.display()));
        }
    }
    Ok(())
}

fn fault(uid: u32, mode: u32, directory: bool) -> Option<String> {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    if uid != 0 {
        return Some(format!("belongs to user {uid}, not to root"));
    }
    if mode & OTHERS_WRITE != 0 && !(directory && mode & STICKY != 0) {
        return Some(format!("can be written by others than root (mode {:04o})", mode & 0o7777));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_write() {
        // (owner, mode, is a directory, trusted)
        let table = [
            (0, 0o100644, false, true),
            (0, 0o100755, false, true),
            (0, 0o040755, true, true),
            (0, 0o041777, true, true),
            (1000, 0o100644, false, false),
            (1000, 0o040755, true, false),
            (1000, 0o041777, true, false),
            (0, 0o100664, false, false),
            (0, 0o100646, false, false),
            (0, 0o040775, true, false),
            (0, 0o101666, false, false),
        ];
        for (uid, mode, directory, trusted) in table {
            let fault = fault(uid, mode, directory);
            assert_eq!(fault.is_none(), trusted, "{uid} {mode:o}: {fault:?}");
        }
    }
}
