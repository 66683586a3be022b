// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calling the hooks of an update's author, in their order: of what goes, the
 * last applied update's first, then of what comes.
 */
#include "core.h"

/* Set by a hook, under splice_mutex. */
static const char *splice_why;

int splice_refuse(const char *why)
{
	splice_why = why;
	return -ECANCELED;
}
EXPORT_SYMBOL_GPL(splice_refuse);

static int splice_run_hook(struct splice_stop *stop,
			   const struct splice_hook *hook)
{
	int err;

	if (hook->step != SPLICE_PRE && hook->step != SPLICE_CHECK) {
		hook->tell->fn();
		return 0;
	}
	splice_why = NULL;
	err = hook->ask->fn();
	if (!err)
		return 0;
	stop->refused = hook;
	stop->refusal = err;
	/* Only this one is tried again. */
	return err == -EBUSY ? err : -ECANCELED;
}

static int splice_hooks_of(struct splice_stop *stop,
			   struct splice_update *update,
			   enum splice_step step, bool undo)
{
	struct splice_member *member;
	int err;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		for (i = 0; i < member->part->nhooks; i++) {
			const struct splice_hook *hook =
				&member->part->hooks[i];

			if (hook->step != step || hook->undo != undo)
				continue;
			err = splice_run_hook(stop, hook);
			if (err)
				return err;
		}
	return 0;
}

/**
 * splice_hooks() - call the hooks of one step
 * @stop: the attempt
 * @step: which ones
 *
 * Return: 0; -EBUSY or -ECANCELED if a hook has refused, which those of the
 * steps that are not asked do not.
 */
int splice_hooks(struct splice_stop *stop, enum splice_step step)
{
	struct splice_update *other;
	int err;

	list_for_each_entry_reverse(other, &splice_updates, node) {
		if (!splice_leaves(stop, other))
			continue;
		err = splice_hooks_of(stop, other, step, true);
		if (err)
			return err;
	}
	if (!stop->apply)
		return 0;
	return splice_hooks_of(stop, stop->update, step, false);
}

/**
 * splice_hook_error() - say which hook has refused, and why
 * @stop: the attempt
 */
void splice_hook_error(const struct splice_stop *stop)
{
	const struct splice_hook *hook = stop->refused;

	if (splice_why)
		splice_fail(stop->update, 0, "hook %ps refused: %s",
			    (void *)hook->ask->fn, splice_why);
	else
		splice_fail(stop->update, 0, "hook %ps refused with error %d",
			    (void *)hook->ask->fn, stop->refusal);
}
