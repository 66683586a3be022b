// SPDX-License-Identifier: GPL-2.0-or-later
//! x86-64 for splice.
