// SPDX-License-Identifier: GPL-2.0-or-later
//! The architectures that are compiled in.

use super::Arch;

/// What an architecture crate submits; use [`crate::register_arch!`].
pub struct ArchEntry(pub &'static dyn Arch);

inventory::collect!(ArchEntry);

/// Registers an architecture: `register_arch!(&MyArch);` at module level, `MyArch` being a unit
/// struct. The crate must be named by the final binary (`use my_arch as _;`) to be linked.
#[macro_export]
macro_rules! register_arch {
    ($arch:expr) => {
        $crate::inventory::submit! { $crate::arch::ArchEntry($arch) }
    };
}

/// All architectures that are compiled in, sorted by name.
pub fn all() -> Vec<&'static dyn Arch> {
    let mut found: Vec<_> = inventory::iter::<ArchEntry>.into_iter().map(|e| e.0).collect();
    found.sort_by_key(|a| a.name());
    found
}

/// The architecture of that name.
pub fn by_name(name: &str) -> Option<&'static dyn Arch> {
    all().into_iter().find(|a| a.name() == name)
}

/// The architecture of that ELF machine number.
pub fn by_machine(e_machine: u16) -> Option<&'static dyn Arch> {
    all().into_iter().find(|a| a.e_machine() == e_machine)
}
