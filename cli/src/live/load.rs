// SPDX-License-Identifier: GPL-2.0-or-later
//! Loading and removing kernel modules, and saying in words why the kernel would not.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::system::{delete_module, init_module};

use super::LiveError;
use crate::kernel::cache;
use crate::sign::Signer;

/// `O_NONBLOCK`, without which removing a module that is in use might wait for ever.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

const NEED_ROOT: &str = "changing the running kernel needs root (CAP_SYS_MODULE)";
const DISABLED: &str = "module loading is disabled until the next boot \
                        (kernel.modules_disabled is 1), and an update is a module";
const SIGNED: &str = "this kernel loads only signed modules; give --sign-key and --sign-cert, of a key \
                      that it trusts, or boot without module.sig_enforce and lockdown";
const UNTRUSTED: &str = "the kernel does not trust the key that the modules were signed with; have the \
                         machine's owner enroll its certificate (mokutil --import), or use a key \
                         that is built into the kernel";
const UNREADABLE: &str = "the kernel is locked down (confidentiality), so that its code cannot be read and \
                          proven; boot with lockdown=integrity at most";

fn says(path: &str, what: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(what))
}

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Says beforehand what would be refused later.
pub(crate) fn may_load(signer: Option<&Signer>) -> Result<(), LiveError> {
    let refuse = |why: String| Err(LiveError::NotPermitted(why));
    may_switch()?;
    if says("/proc/sys/kernel/modules_disabled", "1") {
        return refuse(DISABLED.to_owned());
    }
    // LOCKDOWN_KCORE is among what confidentiality forbids (include/linux/security.h).
    if says(LOCKDOWN, "[confidentiality]") {
        return refuse(UNREADABLE.to_owned());
    }
    if signer.is_some() {
        return Ok(());
    }
    if says("/sys/module/module/parameters/sig_enforce", "Y") {
        return refuse(SIGNED.to_owned());
    }
    if says(LOCKDOWN, "[integrity]") {
        return refuse(format!("the kernel is locked down (integrity): {SIGNED}"));
    }
    Ok(())
}

/// Undoing needs less: what is loaded is switched, not loaded.
pub(crate) fn may_switch() -> Result<(), LiveError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(LiveError::NotPermitted(NEED_ROOT.to_owned()))
    }
}

fn explain(module: &str, error: Errno, signed: bool) -> LiveError {
    let why = match error {
        Errno::PERM if says("/proc/sys/kernel/modules_disabled", "1") => {
            return LiveError::NotPermitted(DISABLED.to_owned());
        }
        Errno::PERM if signed && says(LOCKDOWN, "[integrity]") => {
            return LiveError::NotPermitted(UNTRUSTED.to_owned());
        }
        Errno::PERM => {
            return LiveError::NotPermitted(format!(
                "{NEED_ROOT}; if you are root, a container or a security policy forbids it"
            ));
        }
        Errno::KEYREJECTED | Errno::NOKEY | Errno::ACCESS => {
            let why = if signed { UNTRUSTED } else { SIGNED };
            return LiveError::NotPermitted(why.to_owned());
        }
        Errno::EXIST => "a module of that name is loaded already; if `splice list` does not show \
                         its update, remove it with rmmod"
            .to_owned(),
        Errno::NOEXEC => "it was built for another kernel, or with another compiler or \
                          configuration; the kernel log names the difference"
            .to_owned(),
        Errno::NOENT => "it needs a symbol that the kernel does not have; the kernel log names \
                         it"
        .to_owned(),
        Errno::NOMEM => "out of memory".to_owned(),
        other => format!("{other}; the kernel log may say more"),
    };
    LiveError::Load { module: module.to_owned(), why }
}

/// Loads a module, with these values for its parameters.
pub(crate) fn load(
    module: &str,
    image: &[u8],
    values: &CStr,
    signed: bool,
) -> Result<(), LiveError> {
    init_module(image, values).map_err(|error| explain(module, error, signed))
}

/// Removes a module. One that is just being released is waited for, shortly.
pub(crate) fn unload(module: &str) -> Result<(), LiveError> {
    let failed = |source: io::Error| LiveError::Unload { module: module.to_owned(), source };
    let name = CString::new(module).map_err(|e| failed(e.into()))?;
    let mut tries = 20;
    loop {
        match delete_module(&name, NONBLOCK) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::AGAIN | Errno::BUSY) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Held while the kernel's set of updates is changed; given up when the process ends, however.
pub(crate) struct Lock {
    _file: std::fs::File,
}

impl Lock {
    /// Waits until no other splice changes the kernel.
    pub(crate) fn take() -> Result<Self, LiveError> {
        let dir = ["/run", "/dev"].into_iter().find(|dir| Path::new(dir).is_dir());
        let path = format!("{}/splice.lock", dir.unwrap_or_default());
        let failed = |source: io::Error| LiveError::Io { path: path.clone(), source };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        cache::wait(&file, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do_and_have_their_code() {
        for (error, signed, code, words) in [
            (Errno::PERM, false, 7, "root"),
            (Errno::KEYREJECTED, false, 7, "signed modules; give --sign-key"),
            (Errno::NOKEY, true, 7, "does not trust the key"),
            (Errno::NOEXEC, false, 1, "another kernel"),
            (Errno::EXIST, false, 1, "rmmod"),
            (Errno::NOENT, false, 1, "symbol"),
        ] {
            let error = explain("splice_x", error, signed);
            assert_eq!(error.exit() as u8, code, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
