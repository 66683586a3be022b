// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The flag lies between a 4-byte handle and a pointer, where nothing was, and
 * filters are allocated full of zeroes: those that exist are not dying.
 *
 * file: net/sched/cls_route.c
 * accept: struct:route4_filter
 */
