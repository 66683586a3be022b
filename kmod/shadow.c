// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shadow variables: data that updates add to objects, found by the object's
 * address and the id of what was added. They are here for as long as an
 * applied update has that id.
 */
#include <linux/rhashtable.h>
#include <linux/slab.h>

#include "core.h"

struct splice_shadow_key {
	u64 obj;
	u64 id;
};

struct splice_datum {
	struct rhash_head node;
	struct rcu_head rcu;
	struct splice_shadow_key key;
	u8 data[] __aligned(8);
};

static struct rhashtable splice_data;

static const struct rhashtable_params splice_data_params = {
	.head_offset = offsetof(struct splice_datum, node),
	.key_offset = offsetof(struct splice_datum, key),
	.key_len = sizeof(struct splice_shadow_key),
};

static struct splice_shadow_key splice_key(const struct splice_shadow *shadow,
					   const void *obj)
{
	return (struct splice_shadow_key){ (unsigned long)obj, shadow->id };
}

void *splice_shadow_get(const struct splice_shadow *shadow, const void *obj)
{
	struct splice_shadow_key key = splice_key(shadow, obj);
	struct splice_datum *datum;

	datum = rhashtable_lookup_fast(&splice_data, &key, splice_data_params);
	return datum ? datum->data : NULL;
}
EXPORT_SYMBOL_GPL(splice_shadow_get);

void *splice_shadow_add(const struct splice_shadow *shadow, const void *obj,
			gfp_t gfp)
{
	void *data = splice_shadow_get(shadow, obj);
	struct splice_datum *datum, *other;

	if (data)
		return data;
	datum = kzalloc(struct_size(datum, data, shadow->size), gfp);
	if (!datum)
		return NULL;
	datum->key = splice_key(shadow, obj);
	if (shadow->ctor)
		shadow->ctor(obj, datum->data);
	rcu_read_lock();
	other = rhashtable_lookup_get_insert_fast(&splice_data, &datum->node,
						  splice_data_params);
	rcu_read_unlock();
	if (!other)
		return datum->data;
	if (shadow->dtor)
		shadow->dtor(obj, datum->data);
	kfree(datum);
	return IS_ERR(other) ? NULL : other->data;
}
EXPORT_SYMBOL_GPL(splice_shadow_add);

/* Whether it was still there; under RCU. */
static bool splice_free_datum(const struct splice_shadow *shadow,
			      struct splice_datum *datum)
{
	if (rhashtable_remove_fast(&splice_data, &datum->node,
				   splice_data_params))
		return false;
	if (shadow->dtor)
		shadow->dtor((void *)(unsigned long)datum->key.obj,
			     datum->data);
	kfree_rcu(datum, rcu);
	return true;
}

void splice_shadow_remove(const struct splice_shadow *shadow, const void *obj)
{
	struct splice_shadow_key key = splice_key(shadow, obj);
	struct splice_datum *datum;

	rcu_read_lock();
	datum = rhashtable_lookup(&splice_data, &key, splice_data_params);
	if (datum)
		splice_free_datum(shadow, datum);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(splice_shadow_remove);

/* Nobody adds any now; a table that is being resized is walked again. */
static void splice_free_shadow(const struct splice_shadow *shadow)
{
	struct rhashtable_iter iter;
	struct splice_datum *datum;
	size_t freed;

	do {
		freed = 0;
		rhashtable_walk_enter(&splice_data, &iter);
		rhashtable_walk_start(&iter);
		while ((datum = rhashtable_walk_next(&iter)))
			if (IS_ERR(datum))
				freed++;
			else if (datum->key.id == shadow->id)
				freed += splice_free_datum(shadow, datum);
		rhashtable_walk_stop(&iter);
		rhashtable_walk_exit(&iter);
	} while (freed);
}

/* What an update declares under an id. */
static const struct splice_shadow *
splice_shadow_find(const struct splice_update *update, u64 id)
{
	struct splice_member *member;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		for (i = 0; i < member->part->nshadows; i++)
			if (member->part->shadows[i]->id == id)
				return member->part->shadows[i];
	return NULL;
}

static int splice_shadow_fits(struct splice_stop *stop,
			      const struct splice_update *other,
			      const struct splice_shadow *theirs)
{
	const struct splice_shadow *ours =
		splice_shadow_find(stop->update, theirs->id);

	if (!ours && splice_leaves(stop, other))
		return splice_fail(stop->update, -ECANCELED,
				   "it does not go on with the data 0x%llx of update %s, which would be lost",
				   theirs->id, other->id);
	if (ours && ours->size != theirs->size)
		return splice_fail(stop->update, -ECANCELED,
				   "the data 0x%llx has another size in update %s",
				   theirs->id, other->id);
	return 0;
}

/**
 * splice_shadow_check() - whether data fits that of other updates
 * @stop: the attempt to apply an update
 *
 * The caller holds splice_mutex.
 *
 * Return: 0 or -ECANCELED, with the update's error set.
 */
int splice_shadow_check(struct splice_stop *stop)
{
	struct splice_update *other;
	struct splice_member *member;
	int err = 0;
	u32 i;

	list_for_each_entry(other, &splice_updates, node) {
		if (other->state != SPLICE_APPLIED && other != stop->update)
			continue;
		list_for_each_entry(member, &other->members, node) {
			const struct splice_part *part = member->part;

			for (i = 0; i < part->nshadows && !err; i++)
				err = splice_shadow_fits(stop, other,
							 part->shadows[i]);
		}
	}
	return err;
}

/* Whether another applied update goes on using what one declares. */
static bool splice_shadow_used(const struct splice_update *by, u64 id)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (other != by && other->state == SPLICE_APPLIED &&
		    splice_shadow_find(other, id))
			return true;
	return false;
}

/**
 * splice_shadow_drop() - free the data that only one update has declared
 * @update: the update, which is not applied and of which nothing runs
 *
 * The caller holds splice_mutex.
 */
void splice_shadow_drop(struct splice_update *update)
{
	struct splice_member *member;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		for (i = 0; i < member->part->nshadows; i++)
			if (!splice_shadow_used(update,
						member->part->shadows[i]->id))
				splice_free_shadow(member->part->shadows[i]);
}

/**
 * splice_shadow_init() - make the table
 *
 * Return: 0 or a negative error number.
 */
int splice_shadow_init(void)
{
	return rhashtable_init(&splice_data, &splice_data_params);
}

/**
 * splice_shadow_exit() - free the table, which is empty
 */
void splice_shadow_exit(void)
{
	rhashtable_destroy(&splice_data);
}
