// SPDX-License-Identifier: GPL-2.0-or-later
//! The built-in x86-64 backend as a plugin. Nobody needs it: it is there so that the same tests
//! can run through both and their answers and times be compared (`plugins/host/tests/`).

splice_plugin_abi::export_arch!(&splice_arch_x86_64::X86_64, name: "x86_64", machine: 62);
