// SPDX-License-Identifier: GPL-2.0-or-later
//! Kernels to build against: where they come from, and compiling units in them as their own build
//! does.

pub mod cache;
mod compile;
mod constants;
mod debian;
mod foreign;
mod image;
mod kbuild;
mod lists;
mod module;
mod overlay;
pub mod packages;
mod patch;
mod preprocess;
mod reach;
mod sources;
mod text;
mod tree;
mod versions;

pub(crate) use compile::{Compiled, after, as_built, before, object_of, put_on};
pub(crate) use constants::{changed as changed_constants, outputs as constant_outputs};
pub use debian::{Kernel, apt, kernels};
pub(crate) use image::{Units, compile_all as compile_image, compiled as compiled_image};
pub(crate) use kbuild::{Built, Kbuild, Owner};
pub(crate) use lists::{Added, Listed, changes};
pub(crate) use module::fixed_module;
pub(crate) use overlay::Overlay;
pub(crate) use patch::{Patched, subject};
pub(crate) use preprocess::{Sides, noticing};
pub(crate) use reach::reached;
pub(crate) use tree::{Exports, Origin, Tree, Wish, find, prepare};
pub(crate) use versions::Versions;
