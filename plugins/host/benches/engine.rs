// SPDX-License-Identifier: GPL-2.0-or-later
//! The engine's benchmark, word for word, through the plugin. What that costs over the built-in backend
//! is told by
//!
//! ```sh
//! cargo bench -p splice-arch-x86_64 --bench engine -- --save-baseline built-in
//! cargo bench -p splice-plugin-host --bench engine -- --baseline built-in
//! ```

extern crate self as splice_arch_x86_64;

#[path = "../tests/common/mod.rs"]
mod common;
#[expect(unused_imports, reason = "there it links the backend, here it names this crate")]
#[path = "../../../arch-x86_64/benches/engine.rs"]
mod engine;
#[path = "../tests/common/through.rs"]
mod through;

fn main() {
    engine::main();
}
