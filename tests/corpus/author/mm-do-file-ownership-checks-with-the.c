// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The header that the fix adds a helper to is in over 4,000 units; the helper
 * has two users, which can do without.
 *
 * file: mm/mincore.c
 * without: include/linux/fs.h:*
 * replace: file_owner_or_capable(vma->vm_file) => inode_owner_or_capable(file_mnt_user_ns(vma->vm_file), file_inode(vma->vm_file))
 */
