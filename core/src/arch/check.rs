// SPDX-License-Identifier: GPL-2.0-or-later
//! Checks of what a backend returns, before the engine uses it.
