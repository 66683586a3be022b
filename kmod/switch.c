// SPDX-License-Identifier: GPL-2.0-only
/*
 * One attempt to switch: everything that can fail or take time comes before
 * the stop; in the stop bytes are verified, threads are looked at, hooks are
 * asked and, if nothing is in the way, all sites and objects are written; or
 * none is.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/stop_machine.h>
#include <linux/timekeeping.h>

#include "arch.h"
#include "core.h"

/*
 * A probe keeps a copy of the instruction that it stands on, and may be put
 * into the code or taken out at any time: that the bytes look right is not
 * enough. Where a jump goes, the rest of the old instruction that it has cut
 * is looked at, too: what a probe took for an instruction there is none
 * afterwards.
 */
static bool splice_probed(const struct splice_spot *spot)
{
	unsigned int i, n = spot->from == spot->old ? spot->len :
						      SPLICE_SITE_MAX;

	for (i = 0; i < n; i++)
		if (get_kprobe((void *)(spot->addr + i)))
			return true;
	return false;
}

static int splice_work(struct splice_stop *stop)
{
	struct splice_spot *spot;
	size_t i;
	int err;

	for (i = 0; i < stop->nchanges; i++) {
		spot = stop->changes[i];
		stop->bad = spot;
		if (!splice_holds(spot, spot->from))
			return -ESTALE;
		if (spot->code && splice_probed(spot))
			return -ETXTBSY;
	}
	/* Who reads an object is not known, so nothing is looked for there. */
	if (stop->nspans)
		splice_scan(stop);
	if (stop->update->found)
		return -EBUSY;
	err = splice_hooks(stop, SPLICE_CHECK);
	if (err)
		return err;
	for (i = 0; i < stop->nchanges; i++)
		splice_write(stop->changes[i], stop->changes[i]->to);
	/* Read back through the addresses that will be used. */
	for (i = 0; i < stop->nchanges; i++) {
		spot = stop->changes[i];
		if (!splice_holds(spot, spot->to))
			goto restore;
	}
	return splice_hooks(stop, SPLICE_DO);

restore:
	stop->bad = spot;
	for (i = 0; i < stop->nchanges; i++)
		splice_write(stop->changes[i], stop->changes[i]->from);
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

/* What the update was matched with must still be in effect. */
static int splice_check_base(struct splice_stop *stop, const void *base)
{
	struct splice_update *other;

	if (!base)
		return 0;
	list_for_each_entry(other, &splice_updates, node)
		if (other->state == SPLICE_APPLIED &&
		    !splice_leaves(stop, other) && splice_owns(other, base))
			return 0;
	return splice_fail(stop->update, -ENODEV,
			   "an update that it stands on was undone");
}

/* Nobody must stand on what goes; if all go at once, nobody does. */
static int splice_check_above(struct splice_stop *stop)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node)
		if (splice_stands_on(other, stop->update))
			return splice_fail(stop->update, -EEXIST,
					   "update %s stands on it", other->id);
	return 0;
}

static void splice_release(struct splice_update *update)
{
	struct splice_member *member;

	list_for_each_entry(member, &update->members, node)
		module_put(member->owner);
	kvfree(update->spots);
	update->spots = NULL;
	update->nspots = 0;
}

/* Keep what is patched with from being unloaded; the patched modules are. */
static int splice_acquire(struct splice_stop *stop)
{
	struct splice_update *update = stop->update;
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
			err = splice_check_base(stop, member->part->bases[i]);
			if (err)
				return err;
		}
	}
	err = splice_shadow_check(stop);
	if (err)
		return err;
	list_for_each_entry(member, &update->members, node) {
		if (try_module_get(member->owner))
			continue;
		err = splice_fail(update, -ENODEV, "update module %s is going",
				  member->owner->name);
		list_for_each_entry_continue_reverse(member, &update->members,
						     node)
			module_put(member->owner);
		return err;
	}
	err = splice_make_spots(stop);
	if (err)
		splice_release(update);
	return err;
}

/* Says where a spot does not hold what it should. */
static void splice_stale(const struct splice_stop *stop)
{
	const struct splice_spot *spot = stop->bad;
	const u8 *found = (const u8 *)spot->addr;
	size_t i = 0;

	while (i + 1 < spot->len && found[i] == spot->from[i])
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
	err = splice_make_changes(stop);
	if (err)
		goto out;
	err = splice_make_spans(stop);
	if (err) {
		splice_fail(update, err, "out of memory");
		goto out;
	}
	for (i = 0; i < stop->nchanges; i++) {
		err = splice_map(stop->changes[i]);
		if (err) {
			splice_fail(update, err, "cannot map %pS",
				    (void *)stop->changes[i]->addr);
			goto out;
		}
	}
	err = splice_hooks(stop, SPLICE_PRE);
	if (err) {
		splice_hook_error(stop);
		goto out;
	}
	splice_foresee(stop);
	update->threads = 0;
	update->words = 0;
	update->cleared = 0;
	err = stop_machine(splice_stopped, stop, cpu_online_mask) ?:
		stop->result;
	update->pause_ns = stop->ended - stop->began;
	switch (stop->refused ? -ECANCELED : err) {
	case 0:
		break;
	case -ECANCELED:
		splice_hook_error(stop);
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
	for (i = 0; i < stop->nchanges; i++)
		splice_unmap(stop->changes[i]);
	if (err)
		splice_hooks(stop, SPLICE_FAIL);
	kvfree(stop->changes);
	kvfree(stop->spans);
	kvfree(stop->seen);
	kfree(stop->sp);
	return err;
}

/* Takes the updates out of effect that an attempt has undone. */
static void splice_leave(struct splice_stop *stop)
{
	struct splice_update *other;

	list_for_each_entry(other, &splice_updates, node) {
		if (!splice_leaves(stop, other))
			continue;
		other->state = SPLICE_LOADED;
		if (other != stop->update)
			pr_info("%s undone: %s replaces it\n", other->id,
				stop->update->id);
		splice_shadow_drop(other);
		splice_release(other);
	}
}

/**
 * splice_switch() - make one attempt to apply or to undo an update
 * @update: the update
 * @apply: true to apply it, false to undo it
 * @replace: whether to undo all applied updates in the same stop, if @apply
 *
 * The caller holds splice_mutex.
 *
 * Return: 0; -EBUSY if a thread is in the way, or a hook says that it is too
 * early; -ETXTBSY if a probe is in the way; -ESTALE if the code is not what it
 * should be; -ECANCELED if the update refuses; -EALREADY if there is nothing
 * to do; another negative error number. Nothing has changed in those cases,
 * and the update's error says more.
 */
int splice_switch(struct splice_update *update, bool apply, bool replace)
{
	struct splice_stop stop = {
		.update = update,
		.apply = apply,
		.replace = replace,
	};
	int err;

	update->error[0] = '\0';
	update->found = 0;
	if (apply ? update->state == SPLICE_APPLIED : update->state != SPLICE_APPLIED)
		return splice_fail(update, -EALREADY, "it is %s applied",
				   apply ? "already" : "not");
	update->attempts++;
	err = apply ? splice_acquire(&stop) : splice_check_above(&stop);
	if (!err) {
		err = splice_attempt(&stop);
		if (apply && err) {
			splice_shadow_drop(update);
			splice_release(update);
		}
	}
	if (err) {
		pr_info("%s not %s: %s\n", update->id,
			apply ? "applied" : "undone", update->error);
		return err;
	}
	pr_info("%s %s: %zu places, %llu threads, %llu ns\n", update->id,
		apply ? "applied" : "undone", stop.nchanges, update->threads,
		update->pause_ns);
	/* Callbacks that the code which goes has queued run before it may go. */
	if (!apply || replace) {
		synchronize_rcu();
		rcu_barrier();
	}
	splice_hooks(&stop, SPLICE_POST);
	if (apply) {
		update->state = SPLICE_APPLIED;
		list_move_tail(&update->node, &splice_updates);
	}
	splice_leave(&stop);
	return 0;
}
