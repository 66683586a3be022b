// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file system is registered at the start, which is over: it is taken off
 * the list. Whoever has mounted it keeps it.
 *
 * file: block/bdev.c
 * without: block/bdev.c:bdev_cache_init
 */
#include <linux/fs.h>
#include <splice/patch.h>

static void splice_hide_bdev(void)
{
	unregister_filesystem(&bd_type);
}
splice_post_apply(splice_hide_bdev);

static void splice_show_bdev(void)
{
	register_filesystem(&bd_type);
}
splice_post_undo(splice_show_bdev);
