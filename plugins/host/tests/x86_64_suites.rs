// SPDX-License-Identifier: GPL-2.0-or-later
//! The built-in x86-64 backend's own suites, word for word, through the plugin: this crate takes
//! the backend's name and registers an architecture that asks the plugin.

extern crate self as splice_arch_x86_64;

mod common;
#[expect(unused_imports, reason = "there it links the backend, here it names this crate")]
#[path = "../../../arch-x86_64/tests/rules.rs"]
mod rules;
#[expect(unused_imports, reason = "there it links the backend, here it names this crate")]
#[path = "../../../arch-x86_64/tests/runpre.rs"]
mod runpre;
#[path = "common/through.rs"]
mod through;
