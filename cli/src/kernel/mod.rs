// SPDX-License-Identifier: GPL-2.0-or-later
//! Kernels to build against: where they come from, and compiling units in them as their own build
//! does.

pub mod cache;
mod compile;
mod compiler;
mod constants;
mod debian;
mod foreign;
mod image;
mod kbuild;
mod kept;
mod lists;
mod module;
mod overlay;
pub mod packages;
mod patch;
mod prepare;
mod preprocess;
mod reach;
mod record;
mod sources;
mod symvers;
mod text;
mod tree;
mod versions;
mod warnings;

pub(crate) use compile::{Compiled, after, as_built, before, object_of, put_on};
pub(crate) use constants::{changed as changed_constants, outputs as constant_outputs};
pub use debian::{Kernel, apt, kernels};
pub(crate) use image::{Units, compile_all as compile_image, compiled as compiled_image};
pub(crate) use kbuild::{Built, Kbuild, Owner};
pub(crate) use lists::{Added, Listed, changes};
pub(crate) use module::fixed_module;
pub(crate) use overlay::Overlay;
pub(crate) use patch::{Patched, subject};
pub(crate) use prepare::{Origin, Wish, prepare};
pub(crate) use preprocess::{Sides, noticing};
pub(crate) use reach::reached;
pub(crate) use symvers::Exports;
pub(crate) use tree::{Tree, find};
pub(crate) use versions::Versions;
