// SPDX-License-Identifier: GPL-2.0-or-later
//! Engine of splice: puts a security fix into a running Linux kernel.
//!
//! The phases, in order: [`unit`] reads compiled objects, [`diff`] finds what changed (and
//! [`debug`] whether types did), [`extract`] makes one object of the new code, [`update`] packs it;
//! [`runpre`] proves that the running text is the code that the update was built from and learns
//! addresses, [`plan`] turns that into a finished kernel module. [`arch`] is what all of them know
//! of a processor.

pub mod arch;
pub mod debug;
pub mod diff;
pub mod extract;
pub mod plan;
pub mod runpre;
pub mod unit;
pub mod update;

#[doc(hidden)]
pub use inventory;
