// SPDX-License-Identifier: GPL-2.0-or-later
//! From a match to a module that the kernel can load: the update's values, its C source, the
//! finished file.

mod values;

pub use values::{Values, plan};
