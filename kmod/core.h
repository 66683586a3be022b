/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the transaction core share. */
#ifndef SPLICE_CORE_H
#define SPLICE_CORE_H

#include <linux/atomic.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sched.h>

#include "splice.h"

#define SPLICE_ID_MAX		40
#define SPLICE_CONFLICTS_MAX	32

/**
 * enum splice_state - what an update's code is doing
 * @SPLICE_LOADED: it is in memory and nothing leads to it
 * @SPLICE_APPLIED: all sites lead to it
 */
enum splice_state {
	SPLICE_LOADED,
	SPLICE_APPLIED,
};

/**
 * struct splice_conflict - a thread that was in the way
 * @addr: the address found
 * @pid: the thread's id in the initial namespace
 * @comm: its name
 */
struct splice_conflict {
	unsigned long addr;
	pid_t pid;
	char comm[TASK_COMM_LEN];
};

/**
 * struct splice_spot - a site or an object of an update that is applied or
 *	about to be
 * @addr: where it is
 * @len: length in bytes
 * @code: whether it is a site, which threads may execute
 * @module: the module that @addr lies in, NULL for the kernel image
 * @map: temporary mapping of the pages, during an attempt
 * @alias: @addr in that mapping
 * @old: bytes while the update is not applied, in the update module
 * @new: bytes while it is: @jump, or in the update module
 * @from: bytes that must be there for the attempt that runs
 * @to: bytes that it writes
 * @jump: a site's jump
 */
struct splice_spot {
	unsigned long addr;
	size_t len;
	bool code;
	struct module *module;
	void *map;
	u8 *alias;
	const u8 *old;
	const u8 *new;
	const u8 *from;
	const u8 *to;
	u8 jump[SPLICE_SITE_MAX];
};

/**
 * struct splice_span - addresses from @start up to and without @end
 * @start: first address
 * @end: first address behind it
 */
struct splice_span {
	unsigned long start;
	unsigned long end;
};

/**
 * struct splice_member - a registered part
 * @node: in splice_update.members
 * @part: the update module's data
 * @owner: the update module
 * @target: the patched module, which is held until the update module has gone;
 *	NULL for the kernel image
 */
struct splice_member {
	struct list_head node;
	const struct splice_part *part;
	struct module *owner;
	struct module *target;
};

/**
 * struct splice_update - an update, of as many parts as are registered
 * @kobj: its directory in sysfs
 * @node: in splice_updates, where the applied ones stand in the order in which
 *	they were applied; empty once the last part has gone
 * @members: its parts
 * @id: its id
 * @description: what it is
 * @state: whether it is applied
 * @nmembers: number of @members
 * @spots: its sites and objects, while it is applied or an attempt runs
 * @nspots: number of @spots
 * @attempts: attempts made, to apply or to undo
 * @pause_ns: how long the last stop lasted
 * @threads: threads examined in it
 * @words: words examined in it, besides those that were before
 * @cleared: threads in it that only seemed to be in the way
 * @found: conflicts found in it, of which the first are in @conflicts
 * @conflicts: who was in the way
 * @error: why the last attempt failed, empty if it did not
 *
 * Everything below @kobj is protected by splice_mutex.
 */
struct splice_update {
	struct kobject kobj;
	struct list_head node;
	struct list_head members;
	char id[SPLICE_ID_MAX + 1];
	char *description;
	enum splice_state state;
	u32 nmembers;
	struct splice_spot *spots;
	size_t nspots;
	u64 attempts;
	u64 pause_ns;
	u64 threads;
	u64 words;
	u64 cleared;
	size_t found;
	struct splice_conflict conflicts[SPLICE_CONFLICTS_MAX];
	char error[192];
};

struct splice_seen;

/**
 * struct splice_stop - what one stop of the machine is to do
 * @update: whose
 * @apply: true to apply it, false to undo it
 * @replace: whether all applied updates are undone in the same stop
 * @changes: the spots that change, of @update and of what is undone
 * @nchanges: number of @changes
 * @spans: what must be free of threads: sorted, none overlapping another
 * @nspans: number of @spans
 * @clear: bits cleared in a stack word before it is compared
 * @set: bits then set in it
 * @seen: threads before the stop
 * @nseen: number of @seen
 * @next: the first of @seen that was not met yet
 * @sp: for each CPU, the stack pointer of the thread that stopped it
 * @arrived: CPUs that have come
 * @left: CPUs that have gone
 * @done: set once the one that works has finished
 * @result: what came of it
 * @bad: the spot that did not hold what it should, if @result is -ESTALE
 * @refused: the hook that has refused, if one has
 * @refusal: what it returned
 * @began: when the first CPU came
 * @ended: when the last one left
 */
struct splice_stop {
	struct splice_update *update;
	bool apply;
	bool replace;
	struct splice_spot **changes;
	size_t nchanges;
	struct splice_span *spans;
	size_t nspans;
	u64 clear;
	u64 set;
	struct splice_seen *seen;
	size_t nseen;
	size_t next;
	unsigned long *sp;
	atomic_t arrived;
	atomic_t left;
	int done;
	int result;
	const struct splice_spot *bad;
	const struct splice_hook *refused;
	int refusal;
	u64 began;
	u64 ended;
};

extern struct mutex splice_mutex;
extern struct list_head splice_updates;

/* core.c */
__printf(3, 4)
int splice_fail(struct splice_update *update, int err, const char *fmt, ...);

/* sysfs.c */
extern const struct kobj_type splice_update_type;
int splice_sysfs_init(void);
void splice_sysfs_exit(void);
int splice_sysfs_add(struct splice_update *update);

/* switch.c */
int splice_switch(struct splice_update *update, bool apply, bool replace);

/* change.c */
int splice_make_spots(struct splice_stop *stop);
int splice_make_changes(struct splice_stop *stop);
int splice_make_spans(struct splice_stop *stop);
bool splice_leaves(const struct splice_stop *stop,
		   const struct splice_update *update);
bool splice_owns(const struct splice_update *update, const void *addr);
bool splice_stands_on(const struct splice_update *upper,
		      const struct splice_update *lower);

/* hooks.c */
int splice_hooks(struct splice_stop *stop, enum splice_step step);
void splice_hook_error(const struct splice_stop *stop);

/* shadow.c */
int splice_shadow_init(void);
void splice_shadow_exit(void);
int splice_shadow_check(struct splice_stop *stop);
void splice_shadow_drop(struct splice_update *update);

/* stack.c */
void splice_foresee(struct splice_stop *stop);
void splice_scan(struct splice_stop *stop);

/* text.c */
int splice_map(struct splice_spot *spot);
void splice_unmap(struct splice_spot *spot);
bool splice_holds(const struct splice_spot *spot, const u8 *bytes);
void splice_write(const struct splice_spot *spot, const u8 *bytes);
int splice_encode(const struct splice_site *site, u8 *bytes);

#endif /* SPLICE_CORE_H */
