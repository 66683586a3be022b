// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest side: the initramfs' `/init`, which is also the load, the probes and the idle sleeper
//! that it starts (the same program under another first argument).

pub mod bpf;
#[cfg(target_arch = "x86_64")]
pub mod capture;
pub mod command;
pub mod construct;
pub mod exercise;
#[cfg(target_arch = "x86_64")]
pub mod faulty;
pub mod flip;
pub mod kernel;
pub mod load;
#[cfg(target_arch = "x86_64")]
pub mod mutant;
pub mod netlink;
pub mod probe;
pub mod raid;
pub mod serve;
pub mod setup;
pub mod sockets;
pub mod stall;
pub mod tables;
#[cfg(target_arch = "x86_64")]
pub mod trace;
pub mod trigger;
pub mod unrest;
