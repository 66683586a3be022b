// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the fix notes down at the start can be told later, too: the BPF LSM's
 * hooks are in the lists then. The note belongs to the unit that asks.
 *
 * file: kernel/bpf/bpf_inode_storage.c
 * before: static struct bpf_map *inode_storage_map_alloc(union bpf_attr *attr)
 * without: include/linux/bpf_lsm.h:*
 * without: security/bpf/hooks.c:*
 * replace: if (!bpf_lsm_initialized) => if (!splice_bpf_lsm_is_on())
 */
static bool splice_bpf_lsm_is_on(void)
{
	struct security_hook_list *hook;

	hlist_for_each_entry(hook, &security_hook_heads.file_open, list) {
		if (!strcmp(hook->lsm, "bpf"))
			return true;
	}
	return false;
}
