// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an attempt would change: the places with what must be there and what
 * is written, the code that no thread may be in, and which updates have to do
 * with one another. All of it is made before the stop.
 */
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/version.h>

#include "core.h"

/**
 * splice_leaves() - whether an attempt takes an update back
 * @stop: the attempt
 * @update: the update
 */
bool splice_leaves(const struct splice_stop *stop,
		   const struct splice_update *update)
{
	if (update->state != SPLICE_APPLIED)
		return false;
	if (!stop->apply)
		return update == stop->update;
	return stop->replace && update != stop->update;
}

static bool splice_touch(const struct splice_spot *a,
			 const struct splice_spot *b)
{
	return a->addr < b->addr + b->len && b->addr < a->addr + a->len;
}

static const struct splice_spot *
splice_overlap(const struct splice_update *update,
	       const struct splice_spot *spot)
{
	size_t i;

	for (i = 0; i < update->nspots; i++)
		if (splice_touch(&update->spots[i], spot))
			return &update->spots[i];
	return NULL;
}

/**
 * splice_owns() - whether an address is in an update's modules
 * @update: the update
 * @addr: the address
 */
bool splice_owns(const struct splice_update *update, const void *addr)
{
	struct splice_member *member;

	list_for_each_entry(member, &update->members, node)
		if (within_module_core((unsigned long)addr, member->owner))
			return true;
	return false;
}

static bool splice_is_before(const struct splice_update *lower,
			     const struct splice_update *upper)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (other == lower || other == upper)
			return other == lower && lower != upper;
	return false;
}

/**
 * splice_stands_on() - whether an update cannot do without another
 * @upper: the update
 * @lower: the other one
 *
 * The caller holds splice_mutex.
 *
 * Return: true if both are applied, @upper after @lower, and @upper has
 * written into @lower's modules or over an object that @lower has replaced,
 * or was made for what @lower has brought.
 */
bool splice_stands_on(const struct splice_update *upper,
		      const struct splice_update *lower)
{
	struct splice_member *member;
	size_t i;

	if (upper->state != SPLICE_APPLIED || lower->state != SPLICE_APPLIED ||
	    !splice_is_before(lower, upper))
		return false;
	for (i = 0; i < upper->nspots; i++)
		if (splice_overlap(lower, &upper->spots[i]) ||
		    splice_owns(lower, (void *)upper->spots[i].addr))
			return true;
	list_for_each_entry(member, &upper->members, node)
		for (i = 0; i < SPLICE_BASES_MAX; i++)
			if (splice_owns(lower, member->part->bases[i]))
				return true;
	return false;
}

static bool splice_within(const struct splice_spot *spot,
			  const struct module *module)
{
	unsigned long last = spot->addr + spot->len - 1;

	return last >= spot->addr && within_module_core(spot->addr, module) &&
	       within_module_core(last, module);
}

/* The module that holds a spot: the target, or that of an update that stays. */
static int splice_home(const struct splice_stop *stop, struct splice_spot *spot,
		       struct splice_member *member)
{
	struct splice_update *other;
	struct splice_member *lower;

	if (member->target && splice_within(spot, member->target)) {
		spot->module = member->target;
		return 0;
	}
	list_for_each_entry(other, &splice_updates, node) {
		if (other->state != SPLICE_APPLIED || splice_leaves(stop, other))
			continue;
		list_for_each_entry(lower, &other->members, node)
			if (splice_within(spot, lower->owner)) {
				spot->module = lower->owner;
				return 0;
			}
	}
	return member->target ? -EFAULT : 0;
}

/* A site or an object, the fields of which are filled in but for @module. */
static int splice_place(struct splice_stop *stop, struct splice_member *member,
			struct splice_spot *spot)
{
	const struct splice_spot *before = stop->update->spots;
	struct splice_update *other;

	if (splice_home(stop, spot, member))
		return splice_fail(stop->update, -EFAULT,
				   "%pS is not in module %s",
				   (void *)spot->addr, member->part->target);
	for (; before < spot; before++)
		if (splice_touch(before, spot))
			return splice_fail(stop->update, -EINVAL,
					   "two of its places overlap at %pS",
					   (void *)spot->addr);
	/* Whoever wrote an object before has left what is expected, or not. */
	list_for_each_entry(other, &splice_updates, node)
		if (spot->code && other->state == SPLICE_APPLIED &&
		    !splice_leaves(stop, other) && splice_overlap(other, spot))
			return splice_fail(stop->update, -EEXIST,
					   "update %s stands at %pS",
					   other->id, (void *)spot->addr);
	return 0;
}

/**
 * splice_make_spots() - lay out the places of the update that comes
 * @stop: the attempt to apply it
 *
 * Return: 0 or a negative error number, with the update's error set.
 */
int splice_make_spots(struct splice_stop *stop)
{
	struct splice_update *update = stop->update;
	struct splice_member *member;
	struct splice_spot *spot;
	size_t n = 0;
	int err;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		n += (size_t)member->part->nsites + member->part->nobjects;
	if (!n)
		return 0;
	update->spots = kvcalloc(n, sizeof(*spot), GFP_KERNEL);
	if (!update->spots)
		return splice_fail(update, -ENOMEM, "out of memory");
	update->nspots = n;
	spot = update->spots;
	list_for_each_entry(member, &update->members, node) {
		for (i = 0; i < member->part->nsites; i++, spot++) {
			const struct splice_site *site =
				&member->part->sites[i];

			spot->addr = (unsigned long)site->addr;
			spot->len = site->len;
			spot->code = true;
			spot->old = site->expected;
			spot->new = spot->jump;
			err = splice_place(stop, member, spot);
			if (err)
				return err;
			err = splice_encode(site, spot->jump);
			if (err)
				return splice_fail(update, err,
						   "no jump from %pS to %pS",
						   site->addr, site->target);
		}
		for (i = 0; i < member->part->nobjects; i++, spot++) {
			const struct splice_object *object =
				&member->part->objects[i];

			spot->addr = (unsigned long)object->addr;
			spot->len = object->len;
			spot->old = object->expected;
			spot->new = object->data;
			err = splice_place(stop, member, spot);
			if (err)
				return err;
		}
	}
	return 0;
}

/*
 * What updates that leave have made of a place: the first that wrote there
 * knows the original bytes, the last one has written those that are there.
 */
static int splice_pile(struct splice_stop *stop, const struct splice_spot *spot,
		       const struct splice_spot **first,
		       const struct splice_spot **last)
{
	struct splice_update *other;
	const struct splice_spot *found;

	*first = NULL;
	*last = NULL;
	list_for_each_entry(other, &splice_updates, node) {
		if (!splice_leaves(stop, other))
			continue;
		found = splice_overlap(other, spot);
		if (!found)
			continue;
		if (found->addr != spot->addr || found->len != spot->len)
			return splice_fail(stop->update, -EEXIST,
					   "update %s stands beside %pS",
					   other->id, (void *)spot->addr);
		if (!*first)
			*first = found;
		*last = found;
	}
	return 0;
}

/* The place lies in code that will not be used any more. */
static bool splice_goes(const struct splice_stop *stop,
			const struct splice_spot *spot)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (splice_leaves(stop, other) &&
		    splice_owns(other, (void *)spot->addr))
			return true;
	return false;
}

static int splice_come(struct splice_stop *stop, struct splice_spot *spot)
{
	const struct splice_spot *first, *last;
	int err = splice_pile(stop, spot, &first, &last);

	if (err)
		return err;
	/* What an undo will put back must be what it was before all of them. */
	if (first && memcmp(first->old, spot->old, spot->len))
		return splice_fail(stop->update, -EINVAL,
				   "it was not made for the original code at %pS",
				   (void *)spot->addr);
	spot->from = last ? last->new : spot->old;
	spot->to = spot->new;
	stop->changes[stop->nchanges++] = spot;
	return 0;
}

static int splice_go(struct splice_stop *stop, struct splice_spot *spot)
{
	const struct splice_spot *first, *last;
	int err;

	if (splice_goes(stop, spot) ||
	    (stop->apply && splice_overlap(stop->update, spot)))
		return 0;
	err = splice_pile(stop, spot, &first, &last);
	if (err || spot != first)
		return err;
	spot->from = last->new;
	spot->to = spot->old;
	stop->changes[stop->nchanges++] = spot;
	return 0;
}

/**
 * splice_make_changes() - find what must be where, and what is written there
 * @stop: the attempt; its @changes are to be freed by the caller
 *
 * Return: 0 or a negative error number, with the update's error set.
 */
int splice_make_changes(struct splice_stop *stop)
{
	struct splice_update *other;
	size_t i, n = 0;
	int err = 0;

	list_for_each_entry(other, &splice_updates, node)
		if (splice_leaves(stop, other) || other == stop->update)
			n += other->nspots;
	stop->changes = kvcalloc(n + 1, sizeof(*stop->changes), GFP_KERNEL);
	if (!stop->changes)
		return splice_fail(stop->update, -ENOMEM, "out of memory");
	list_for_each_entry(other, &splice_updates, node)
		for (i = 0; i < other->nspots && !err; i++)
			if (splice_leaves(stop, other))
				err = splice_go(stop, &other->spots[i]);
	for (i = 0; stop->apply && i < stop->update->nspots && !err; i++)
		err = splice_come(stop, &stop->update->spots[i]);
	return err;
}

static int splice_span_order(const void *a, const void *b)
{
	const struct splice_span *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

static void splice_sort_spans(struct splice_stop *stop)
{
	struct splice_span *spans = stop->spans;
	size_t i, last = 0;

	if (!stop->nspans)
		return;
	sort(spans, stop->nspans, sizeof(*spans), splice_span_order, NULL);
	for (i = 1; i < stop->nspans; i++) {
		if (spans[i].start <= spans[last].end)
			spans[last].end = max(spans[last].end, spans[i].end);
		else
			spans[++last] = spans[i];
	}
	stop->nspans = last + 1;
}

static void splice_add_span(struct splice_stop *stop, unsigned long start,
			    unsigned long end)
{
	stop->spans[stop->nspans++] = (struct splice_span){ start, end };
}

static void splice_add_text(struct splice_stop *stop,
			    const struct module *module)
{
	unsigned long base, size;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	base = (unsigned long)module->mem[MOD_TEXT].base;
	size = module->mem[MOD_TEXT].size;
#else
	base = (unsigned long)module->core_layout.base;
	size = module->core_layout.text_size;
#endif
	splice_add_span(stop, base, base + size);
}

/**
 * splice_make_spans() - find what must be free of threads
 * @stop: the attempt; its @spans are to be freed by the caller
 *
 * Old code must be free before it is replaced, new code before it goes; and
 * a jump of several instructions must not be cut off in the middle.
 *
 * Return: 0 or -ENOMEM.
 */
int splice_make_spans(struct splice_stop *stop)
{
	struct splice_update *other;
	struct splice_member *member;
	size_t i, n = stop->nchanges;

	list_for_each_entry(other, &splice_updates, node)
		list_for_each_entry(member, &other->members, node)
			n += member->part->nranges + 1;
	stop->spans = kvmalloc_array(n, sizeof(*stop->spans), GFP_KERNEL);
	if (!stop->spans)
		return -ENOMEM;
	list_for_each_entry(other, &splice_updates, node)
		list_for_each_entry(member, &other->members, node)
			if (splice_leaves(stop, other))
				splice_add_text(stop, member->owner);
	list_for_each_entry(member, &stop->update->members, node) {
		const struct splice_part *part = member->part;

		stop->clear = part->stack_clear;
		stop->set = part->stack_set;
		for (i = 0; stop->apply && i < part->nranges; i++)
			splice_add_span(stop,
					(unsigned long)part->ranges[i].start,
					(unsigned long)part->ranges[i].end);
	}
	for (i = 0; i < stop->nchanges; i++) {
		const struct splice_spot *spot = stop->changes[i];

		if (spot->code && spot->from != spot->old && spot->len > 1)
			splice_add_span(stop, spot->addr + 1,
					spot->addr + spot->len);
	}
	splice_sort_spans(stop);
	return 0;
}
