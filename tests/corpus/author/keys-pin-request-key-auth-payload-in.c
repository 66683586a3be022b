// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The count of users, for which a record that exists has no room, is in a
 * shadow variable. A record without one has its one user, the key.
 *
 * file: security/keys/request_key_auth.c
 * before: static void request_key_auth_rcu_disposal(struct rcu_head *);
 * without: include/keys/request_key_auth-type.h:*
 * without: security/keys/request_key_auth.c:request_key_auth_new
 * replace: refcount_inc(&rka->usage); => rka = splice_pin(rka);
 * replace: refcount_dec_and_test(&rka->usage) => splice_unpin(rka)
 */
#include <linux/refcount.h>
#include <splice/patch.h>

static void splice_first(const void *rka, void *users)
{
	refcount_set(users, 1);
}

SPLICE_SHADOW(splice_users, .id = 0x726b61, .size = sizeof(refcount_t),
	      .ctor = splice_first);

static struct request_key_auth *splice_pin(struct request_key_auth *rka)
{
	refcount_t *users = splice_shadow_add(&splice_users, rka, GFP_KERNEL);

	if (!users)
		return NULL;
	refcount_inc(users);
	return rka;
}

static bool splice_unpin(struct request_key_auth *rka)
{
	refcount_t *users = splice_shadow_get(&splice_users, rka);

	if (users && !refcount_dec_and_test(users))
		return false;
	splice_shadow_remove(&splice_users, rka);
	return true;
}
