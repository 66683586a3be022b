/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An unsigned int becomes an atomic_t at the same place: a number that was
 * counted so far is read as the same number.
 *
 * file: drivers/md/dm-verity-target.c
 * accept: struct:dm_verity
 */
