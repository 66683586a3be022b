// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The key type is registered and in use: what the fix puts into its initial
 * value is put into the object that is there.
 *
 * file: fs/smb/client/cifs_spnego.c
 * accept: data:cifs_spnego_key_type
 */
#include <splice/patch.h>

static void splice_vet_spnego(void)
{
	cifs_spnego_key_type.vet_description = cifs_spnego_key_vet_description;
}
splice_apply(splice_vet_spnego);

static void splice_unvet_spnego(void)
{
	cifs_spnego_key_type.vet_description = NULL;
}
splice_undo(splice_unvet_spnego);
