// SPDX-License-Identifier: GPL-2.0-or-later
//! The `splice` command; see the library of this crate.

fn main() -> std::process::ExitCode {
    splice_cli::main()
}
