// SPDX-License-Identifier: GPL-2.0-or-later
//! See `splice_fuzz::differ`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| splice_fuzz::differ(data));
