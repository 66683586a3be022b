// SPDX-License-Identifier: GPL-2.0-or-later
//! Throw-away virtual machines with stock distribution kernels, and the end-to-end suites which use
//! them.
//!
//! The host side fetches packages, derives patches, builds an initramfs and boots it; the guest side
//! is the initramfs' `/init`. They talk JSON lines over a serial port ([`protocol`]).

pub mod author;
pub mod build;
pub mod checked;
pub mod checkpatch;
pub mod corpus;
pub mod cost;
pub mod demo;
pub mod exploit;
pub mod faults;
pub mod fixes;
pub mod guest;
pub mod images;
pub mod initramfs;
pub mod kill;
pub mod line;
pub mod modinfo;
pub mod packages;
pub mod pause;
pub mod processor;
pub mod protocol;
pub mod random;
pub mod session;
pub mod snapshot;
pub mod soak;
pub mod states;
pub mod suite;
pub mod toolchain;
pub mod vm;
