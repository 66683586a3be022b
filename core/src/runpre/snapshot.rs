// SPDX-License-Identifier: GPL-2.0-or-later
//! A snapshot: a kernel's symbols and bytes, live or kept.

use super::exports;
use super::memory::Otherwise;
use super::stacked::Stack;
use super::{AppliedUpdate, Kallsyms, Memory};
use crate::arch::KernelView;

/// A kernel to compare with.
pub struct Snapshot {
    /// Release as `uname -r` prints it, where it is known.
    pub release: Option<String>,
    /// Its symbols.
    pub symbols: Kallsyms,
    /// Its bytes.
    pub memory: Box<dyn Memory>,
    text: (u64, u64),
    started: bool,
    live: bool,
    pub(super) stack: Stack,
}

impl Snapshot {
    /// Puts the snapshot of a kernel that runs, or did, together.
    pub fn new(release: Option<String>, symbols: Kallsyms, memory: Box<dyn Memory>) -> Snapshot {
        let address = |name| symbols.named(name).next().map_or(0, |s| s.address);
        let text = (address("_stext"), address("_etext"));
        let stack = Stack::default();
        Snapshot { release, symbols, memory, text, started: true, live: false, stack }
    }

    /// The same, of a kernel that goes on while it is read.
    pub(super) fn running(mut self) -> Snapshot {
        self.live = true;
        self
    }

    /// Whether the kernel goes on while it is read, and may be rewriting what is read just now.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The same kernel, but as it was before it was ever started.
    pub(super) fn not_started(mut self) -> Snapshot {
        self.started = false;
        self
    }

    /// With these updates applied: the code that they have replaced is matched where it is now.
    #[must_use]
    pub fn with_updates(mut self, updates: Vec<AppliedUpdate>) -> Snapshot {
        self.stack = Stack::new(updates, &self.symbols);
        self
    }

    /// With other bytes at these places: those that stood there before something was written over them.
    /// The last one that is about a byte decides.
    #[must_use]
    pub fn with_bytes(mut self, places: Vec<(u64, Vec<u8>)>) -> Snapshot {
        if !places.is_empty() {
            self.memory = Box::new(Otherwise { memory: self.memory, places });
        }
        self
    }

    /// Whether an applied update has brought something of that name there. What belongs to a function
    /// that it has replaced has a longer name, which ends with that.
    pub(super) fn is_brought(&self, address: u64, name: &str) -> bool {
        let mut there = self.symbols.at(address);
        there.any(|s| s.name.ends_with(name) && self.stack.update_of(s.module).is_some())
    }

    /// Whether the kernel image may have constants of that section there: where its symbol list says that
    /// read-only data begin and end (include/asm-generic/vmlinux.lds.h, RO_DATA), else anywhere in the
    /// image. Small ones (`.srodata`) are with the small data, where the ABI has such.
    pub(super) fn is_constant(&self, address: u64, section: &str) -> bool {
        let named = |name| self.symbols.named(name).next().map(|s| s.address);
        let end = if section.starts_with(".srodata") { "_edata" } else { "__end_rodata" };
        let (start, end) = match (named("__start_rodata"), named(end)) {
            (Some(start), Some(end)) => (start, end),
            _ => (self.text.0, named("_end").unwrap_or(u64::MAX)),
        };
        (start..end).contains(&address)
    }

    /// Where the kernel may have the symbol that it exports to modules under that name: wherever its symbol
    /// list has one of that name, or where its image's table says.
    pub(crate) fn exported(&self, name: &str) -> Vec<u64> {
        let listed = self.addresses(name);
        if !listed.is_empty() {
            return listed;
        }
        let end = self.symbols.named("__init_begin").next().map_or(0, |symbol| symbol.address);
        exports::find(self.memory.as_ref(), (self.text.1, end), name).into_iter().collect()
    }

    /// Where the kernel image has what is read-only since its start. A kernel whose symbol list has no data
    /// says only where its text ends and where the code for the start begins: its constants are in
    /// between (`RO_DATA`, include/asm-generic/vmlinux.lds.h), and on some processors more than those.
    pub(crate) fn sealed(&self) -> Option<(u64, u64)> {
        let one = |name: &str| match self.addresses(name).as_slice() {
            [address] => Some(*address),
            _ => None,
        };
        let listed = one("__start_ro_after_init").zip(one("__end_ro_after_init"));
        listed.or_else(|| one("_etext").zip(one("__init_begin"))).filter(|(start, end)| start < end)
    }

    /// The applied update whose module holds that address.
    pub fn update_at(&self, address: u64) -> Option<&str> {
        self.stack.update_of(self.symbols.below(address)?.module)
    }
}

impl KernelView for Snapshot {
    fn addresses(&self, name: &str) -> Vec<u64> {
        self.symbols.named(name).map(|s| s.address).collect()
    }

    fn is_function(&self, address: u64) -> bool {
        self.symbols.at(address).any(|s| s.is_code())
    }

    fn is_text(&self, address: u64) -> bool {
        let (start, end) = self.text;
        (start..end).contains(&address)
            || self
                .symbols
                .below(address)
                .is_some_and(|s| s.is_code() && s.module != super::VMLINUX)
    }

    fn read(&self, address: u64, buf: &mut [u8]) -> bool {
        self.memory.read(address, buf)
    }

    fn is_started(&self) -> bool {
        self.started
    }
}
