// SPDX-License-Identifier: GPL-2.0-or-later
//! The running kernel as a snapshot: `/proc/kallsyms` and `/proc/kcore`.

use std::io::ErrorKind;
use std::path::Path;

use super::{CoreFile, Kallsyms, KallsymsError, MemoryError, Snapshot};

/// Why the running kernel cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// Reading needs privilege, or lockdown forbids it.
    #[error(
        "the running kernel's {path} may not be read: become root; if you are, the kernel is \
         locked down (see /sys/kernel/security/lockdown) and cannot be checked live"
    )]
    NotPermitted {
        /// The file.
        path: String,
    },
    /// The kernel does not offer the file.
    #[error(
        "cannot read {path}: {source}; a kernel with CONFIG_KALLSYMS and CONFIG_PROC_KCORE is needed"
    )]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The symbol list is of no use.
    #[error(transparent)]
    Kallsyms(KallsymsError),
    /// The memory image is of no use.
    #[error(transparent)]
    Memory(MemoryError),
}

fn io(path: &str, source: std::io::Error) -> LiveError {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied => LiveError::NotPermitted { path },
        _ => LiveError::Io { path, source },
    }
}

impl Snapshot {
    /// The running kernel.
    pub fn live() -> Result<Snapshot, LiveError> {
        const RELEASE: &str = "/proc/sys/kernel/osrelease";
        const SYMBOLS: &str = "/proc/kallsyms";
        const MEMORY: &str = "/proc/kcore";
        let release = std::fs::read_to_string(RELEASE).map_err(|e| io(RELEASE, e))?;
        let memory = CoreFile::open(Path::new(MEMORY)).map_err(|e| match e {
            MemoryError::Io { source, .. } => io(MEMORY, source),
            other => LiveError::Memory(other),
        })?;
        let symbols = std::fs::read_to_string(SYMBOLS).map_err(|e| io(SYMBOLS, e))?;
        let symbols = Kallsyms::parse(symbols).map_err(|e| match e {
            KallsymsError::Hidden => LiveError::NotPermitted { path: SYMBOLS.to_owned() },
            other => LiveError::Kallsyms(other),
        })?;
        Ok(Snapshot::new(Some(release.trim().to_owned()), symbols, Box::new(memory)).running())
    }
}
