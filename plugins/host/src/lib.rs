// SPDX-License-Identifier: GPL-2.0-or-later
//! Plugins from splice's side: where they are looked for, which are trusted, how they are loaded,
//! and how the engine's traits are answered by them.
//!
//! What the command line needs is four calls: [`Search::from_environment`], [`Plugins::find`]
//! (reads notes, runs nothing), [`Plugins::by_name`] or [`Plugins::by_machine`] (loads what is
//! asked for), and [`load`] for one file alone.
//!
//! A plugin is native code in splice's own process: it is checked against mistakes, not against
//! malice. Against malice stands only who may write the file ([`PluginError::Untrusted`]).
//!
//! A loaded plugin is never unloaded, on purpose: the engine's traits hand out things that live
//! for ever (`&'static`), and no library that has run code can be taken away safely. What is
//! leaked is a few kilobytes of tables per plugin and the mapping of its file.

mod error;
mod facts;
mod file;
mod import;
mod kernel;
mod library;
mod plugins;
mod search;
mod trust;

pub use error::PluginError;
pub use file::{Note, inspect};
pub use library::load;
pub use plugins::{Found, Plugins};
pub use search::{Origin, Search};
