// SPDX-License-Identifier: GPL-2.0-or-later
//! The running kernel: applying an update to it, undoing it, and what is there.
//!
//! The kernel side only ever makes one attempt; when to try again, and when to give up, is decided
//! here. Whatever happens to this process, the kernel is left with an update that is applied, or
//! with one that is loaded and does nothing, which the next `apply` or `undo` of it clears away.

mod apply;
mod error;
mod list;
mod load;
mod switch;
mod sysfs;
mod undo;

pub(crate) use apply::{Applied, apply};
pub(crate) use error::LiveError;
pub(crate) use list::{list, status};
pub(crate) use switch::Patience;
pub(crate) use sysfs::Status;
pub(crate) use undo::{Undone, undo};
