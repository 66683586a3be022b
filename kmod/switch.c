// SPDX-License-Identifier: GPL-2.0-only
/*
 * One attempt to switch: everything that can fail or take time comes before
 * the stop; in the stop bytes are verified, threads are looked at and, if
 * nothing is in the way, all sites and objects are written; or none is.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/stop_machine.h>
#include <linux/timekeeping.h>
#include <linux/version.h>

#include "arch.h"
#include "core.h"

/*
 * A probe keeps a copy of the instruction that it stands on, and may be put
 * into the code or taken out at any time: that the bytes look right is not
 * enough. Before an undo the rest of the old instruction that the jump has
 * cut is looked at, too: what a probe took for an instruction there is none
 * afterwards.
 */
static bool splice_probed(const struct splice_spot *spot, bool apply)
{
	unsigned int i, len = apply ? spot->len : SPLICE_SITE_MAX;

	for (i = 0; i < len; i++)
		if (get_kprobe((void *)(spot->addr + i)))
			return true;
	return false;
}

static int splice_work(struct splice_stop *stop)
{
	struct splice_update *update = stop->update;
	struct splice_spot *spot;
	size_t i;

	for (i = 0; i < update->nspots; i++) {
		spot = &update->spots[i];
		stop->bad = spot;
		if (!splice_holds(spot, stop->apply ? spot->old : spot->new))
			return -ESTALE;
		if (spot->code && splice_probed(spot, stop->apply))
			return -ETXTBSY;
	}
	/* Who reads an object is not known, so nothing is looked for there. */
	if (stop->nspans)
		splice_scan(stop);
	if (update->found)
		return -EBUSY;
	for (i = 0; i < update->nspots; i++) {
		spot = &update->spots[i];
		splice_write(spot, stop->apply ? spot->new : spot->old);
	}
	/* Read back through the addresses that will be used. */
	for (i = 0; i < update->nspots; i++) {
		spot = &update->spots[i];
		if (!splice_holds(spot, stop->apply ? spot->new : spot->old))
			goto restore;
	}
	return 0;

restore:
	stop->bad = spot;
	for (i = 0; i < update->nspots; i++) {
		spot = &update->spots[i];
		splice_write(spot, stop->apply ? spot->old : spot->new);
	}
	return -EIO;
}

/* Runs on every CPU with interrupts off; the last one to come works. */
static int splice_stopped(void *data)
{
	struct splice_stop *stop = data;
	int cpus = num_online_cpus();
	int order;

	stop->sp[smp_processor_id()] =
		(unsigned long)__builtin_frame_address(0);
	order = atomic_inc_return(&stop->arrived);
	if (order == 1)
		stop->began = ktime_get_mono_fast_ns();
	if (order == cpus) {
		stop->result = splice_work(stop);
		/* Pairs with the acquire below: the code is written. */
		smp_store_release(&stop->done, 1);
	} else {
		/* Pairs with the release above. */
		while (!smp_load_acquire(&stop->done))
			cpu_relax();
	}
	splice_serialise();
	if (atomic_inc_return(&stop->left) == cpus)
		stop->ended = ktime_get_mono_fast_ns();
	return 0;
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

static struct splice_span splice_module_text(const struct module *module)
{
	unsigned long base, size;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	base = (unsigned long)module->mem[MOD_TEXT].base;
	size = module->mem[MOD_TEXT].size;
#else
	base = (unsigned long)module->core_layout.base;
	size = module->core_layout.text_size;
#endif
	return (struct splice_span){ base, base + size };
}

/*
 * To apply, the old code must be free. To undo, the new code; and a jump of
 * several instructions must not be cut off in the middle.
 */
static int splice_make_spans(struct splice_stop *stop)
{
	struct splice_update *update = stop->update;
	struct splice_member *member;
	struct splice_span *span;
	size_t n = update->nspots;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		n += member->part->nranges + 1;
	span = kvmalloc_array(n, sizeof(*span), GFP_KERNEL);
	if (!span)
		return -ENOMEM;
	stop->spans = span;
	list_for_each_entry(member, &update->members, node) {
		const struct splice_part *part = member->part;

		stop->clear = part->stack_clear;
		stop->set = part->stack_set;
		if (!stop->apply)
			*span++ = splice_module_text(part->owner);
		for (i = 0; stop->apply && i < part->nranges; i++) {
			span->start = (unsigned long)part->ranges[i].start;
			span->end = (unsigned long)part->ranges[i].end;
			span++;
		}
	}
	for (i = 0; !stop->apply && i < update->nspots; i++) {
		const struct splice_spot *spot = &update->spots[i];

		if (!spot->code || spot->len < 2)
			continue;
		span->start = spot->addr + 1;
		span->end = spot->addr + spot->len;
		span++;
	}
	stop->nspans = span - stop->spans;
	splice_sort_spans(stop);
	return 0;
}

static bool splice_overlap(const struct splice_update *update,
			   const struct splice_spot *spot)
{
	size_t i;

	for (i = 0; i < update->nspots; i++) {
		const struct splice_spot *other = &update->spots[i];

		if (spot->addr < other->addr + other->len &&
		    other->addr < spot->addr + spot->len)
			return true;
	}
	return false;
}

/* The applied update that has written where @spot is. */
static struct splice_update *splice_below(const struct splice_spot *spot)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (other->state == SPLICE_APPLIED &&
		    splice_overlap(other, spot))
			return other;
	return NULL;
}

static bool splice_owns(const struct splice_update *update, const void *addr)
{
	struct splice_member *member;

	list_for_each_entry(member, &update->members, node)
		if (within_module_core((unsigned long)addr,
				       member->part->owner))
			return true;
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
	    upper->order <= lower->order)
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

static struct splice_update *splice_above(const struct splice_update *update)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (splice_stands_on(other, update))
			return other;
	return NULL;
}

/* What the update was matched with must still be in effect. */
static int splice_check_base(struct splice_update *update, const void *base)
{
	struct splice_update *other;

	if (!base)
		return 0;
	list_for_each_entry(other, &splice_updates, node)
		if (other->state == SPLICE_APPLIED && splice_owns(other, base))
			return 0;
	return splice_fail(update, -ENODEV,
			   "an update that it stands on was undone");
}

static bool splice_within(const struct splice_spot *spot,
			  const struct module *module)
{
	unsigned long last = spot->addr + spot->len - 1;

	return last >= spot->addr && within_module_core(spot->addr, module) &&
	       within_module_core(last, module);
}

/* The module that holds a spot: the target, or an applied update's. */
static int splice_home(struct splice_spot *spot, struct splice_member *member)
{
	struct splice_update *other;
	struct splice_member *lower;

	if (member->target && splice_within(spot, member->target)) {
		spot->module = member->target;
		return 0;
	}
	list_for_each_entry(other, &splice_updates, node) {
		if (other->state != SPLICE_APPLIED)
			continue;
		list_for_each_entry(lower, &other->members, node)
			if (splice_within(spot, lower->part->owner)) {
				spot->module = lower->part->owner;
				return 0;
			}
	}
	return member->target ? -EFAULT : 0;
}

/* A site or an object, the fields of which are filled in but for @module. */
static int splice_place(struct splice_update *update,
			struct splice_member *member, struct splice_spot *spot)
{
	struct splice_update *below;
	int err = splice_home(spot, member);

	if (err)
		return splice_fail(update, err, "%pS is not in module %s",
				   (void *)spot->addr, member->part->target);
	/* Whoever wrote an object before has left what is expected, or not. */
	below = spot->code ? splice_below(spot) : NULL;
	if (below)
		return splice_fail(update, -EEXIST, "update %s stands at %pS",
				   below->id, (void *)spot->addr);
	return 0;
}

static int splice_make_spots(struct splice_update *update)
{
	struct splice_member *member;
	struct splice_spot *spot;
	size_t n = 0;
	int err;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		n += (size_t)member->part->nsites + member->part->nobjects;
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
			err = splice_place(update, member, spot);
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
			err = splice_place(update, member, spot);
			if (err)
				return err;
		}
	}
	return 0;
}

static void splice_release(struct splice_update *update)
{
	struct splice_member *member;

	list_for_each_entry(member, &update->members, node)
		module_put(member->part->owner);
	kvfree(update->spots);
	update->spots = NULL;
	update->nspots = 0;
}

/* Keep what is patched with from being unloaded; the patched modules are. */
static int splice_acquire(struct splice_update *update)
{
	struct splice_member *member;
	size_t i;
	int err;

	list_for_each_entry(member, &update->members, node) {
		if (member->part->nparts != update->nmembers)
			return splice_fail(update, -EINVAL,
					   "%u of %u parts are loaded",
					   update->nmembers,
					   member->part->nparts);
		for (i = 0; i < SPLICE_BASES_MAX; i++) {
			err = splice_check_base(update, member->part->bases[i]);
			if (err)
				return err;
		}
	}
	list_for_each_entry(member, &update->members, node) {
		if (try_module_get(member->part->owner))
			continue;
		err = splice_fail(update, -ENODEV, "update module %s is going",
				  member->part->owner->name);
		list_for_each_entry_continue_reverse(member, &update->members,
						     node)
			module_put(member->part->owner);
		return err;
	}
	err = splice_make_spots(update);
	if (err)
		splice_release(update);
	return err;
}

/* Says where a spot does not hold what it should. */
static void splice_stale(const struct splice_stop *stop)
{
	const struct splice_spot *spot = stop->bad;
	const u8 *bytes = stop->apply ? spot->old : spot->new;
	const u8 *found = (const u8 *)spot->addr;
	size_t i = 0;

	while (i + 1 < spot->len && found[i] == bytes[i])
		i++;
	splice_fail(stop->update, -ESTALE,
		    "other bytes than expected at %pS: %*ph", found + i,
		    (int)min_t(size_t, spot->len - i, SPLICE_SITE_MAX),
		    found + i);
}

/* Maps, stops, unmaps. */
static int splice_attempt(struct splice_stop *stop)
{
	struct splice_update *update = stop->update;
	size_t i;
	int err;

	stop->sp = kcalloc(nr_cpu_ids, sizeof(*stop->sp), GFP_KERNEL);
	if (!stop->sp)
		return splice_fail(update, -ENOMEM, "out of memory");
	err = splice_make_spans(stop);
	if (err) {
		splice_fail(update, err, "out of memory");
		goto out;
	}
	for (i = 0; i < update->nspots; i++) {
		err = splice_map(&update->spots[i]);
		if (err) {
			splice_fail(update, err, "cannot map %pS",
				    (void *)update->spots[i].addr);
			goto out;
		}
	}
	update->threads = 0;
	update->words = 0;
	update->cleared = 0;
	err = stop_machine(splice_stopped, stop, cpu_online_mask) ?:
		stop->result;
	update->pause_ns = stop->ended - stop->began;
	switch (err) {
	case 0:
		break;
	case -EBUSY:
		splice_fail(update, err, "%s [%d] is in %pS",
			    update->conflicts[0].comm, update->conflicts[0].pid,
			    (void *)update->conflicts[0].addr);
		break;
	case -ESTALE:
		splice_stale(stop);
		break;
	case -ETXTBSY:
		splice_fail(update, err, "a probe is at or behind %pS",
			    (void *)stop->bad->addr);
		break;
	default:
		splice_fail(update, err, "the stop failed at %pS",
			    stop->bad ? (void *)stop->bad->addr : NULL);
	}
out:
	for (i = 0; i < update->nspots; i++)
		splice_unmap(&update->spots[i]);
	kvfree(stop->spans);
	kfree(stop->sp);
	return err;
}

/**
 * splice_switch() - make one attempt to apply or to undo an update
 * @update: the update
 * @apply: true to apply it, false to undo it
 *
 * The caller holds splice_mutex.
 *
 * Return: 0; -EBUSY if a thread is in the way, -ETXTBSY if a probe is;
 * -ESTALE if the code is not what it should be; -EALREADY if there is nothing
 * to do; another negative error number. Nothing has changed in those cases,
 * and the update's error says more.
 */
int splice_switch(struct splice_update *update, bool apply)
{
	static u64 order;
	struct splice_stop stop = { .update = update, .apply = apply };
	struct splice_update *above;
	int err;

	update->error[0] = '\0';
	update->found = 0;
	if (apply ? update->state == SPLICE_APPLIED : update->state != SPLICE_APPLIED)
		return splice_fail(update, -EALREADY, "it is %s applied",
				   apply ? "already" : "not");
	update->attempts++;
	if (apply) {
		err = splice_acquire(update);
	} else {
		above = splice_above(update);
		err = above ? splice_fail(update, -EEXIST,
					  "update %s stands on it", above->id) :
			      0;
	}
	if (!err) {
		err = splice_attempt(&stop);
		if (apply && err)
			splice_release(update);
	}
	if (err) {
		pr_info("%s not %s: %s\n", update->id,
			apply ? "applied" : "undone", update->error);
		return err;
	}
	pr_info("%s %s: %zu places, %llu threads, %llu ns\n", update->id,
		apply ? "applied" : "undone", update->nspots, update->threads,
		update->pause_ns);
	if (apply) {
		update->state = SPLICE_APPLIED;
		update->order = ++order;
		return 0;
	}
	update->state = SPLICE_LOADED;
	/* Callbacks that the new code has queued run before it may go. */
	synchronize_rcu();
	rcu_barrier();
	splice_release(update);
	return 0;
}
