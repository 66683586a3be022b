/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For authors of patches: work that is done when an update is applied or
 * undone, and data that an update adds to objects which exist already.
 *
 * `splice create` puts this header where patched sources find it:
 *
 *	#include <splice/patch.h>
 *
 * docs/hooks.md explains it with examples. Before 5.10 __section() takes no
 * quotes.
 */
#ifndef SPLICE_PATCH_H
#define SPLICE_PATCH_H

#include <linux/compiler.h>
#include <linux/types.h>

/*
 * Hooks. A hook is a function of the patched source without arguments, named
 * by one of these macros at file scope. Each attempt to apply calls
 *
 *	pre	before the machine is stopped, may sleep, may refuse
 *	check	while it is stopped, once nothing else is in the way, may refuse
 *	apply	while it is stopped, right after the code was switched
 *	post	after that, may sleep
 *	fail	instead of post if the attempt came to nothing, may sleep
 *
 * and each attempt to undo calls the same for undo. To refuse is to return a
 * negative error number, or what splice_refuse() returns: then nothing has
 * been written. -EBUSY says that it may succeed later, and is tried again.
 *
 * What runs while the machine is stopped runs on one CPU with interrupts off
 * and all others halted, wherever they were: it must not sleep, wait for
 * anybody or take a lock that another may hold.
 *
 * Several of one kind are called in the order of their names; those of an
 * update that is replaced before those of the one that comes.
 *
 * fail comes after any attempt that began, also if pre has refused or was not
 * reached; it must cope with that.
 */
#define splice_pre_apply(fn)	__splice_hook(splice_ask, pre_apply, fn)
#define splice_check_apply(fn)	__splice_hook(splice_ask, check_apply, fn)
#define splice_apply(fn)	__splice_hook(splice_tell, apply, fn)
#define splice_post_apply(fn)	__splice_hook(splice_tell, post_apply, fn)
#define splice_fail_apply(fn)	__splice_hook(splice_tell, fail_apply, fn)
#define splice_pre_undo(fn)	__splice_hook(splice_ask, pre_undo, fn)
#define splice_check_undo(fn)	__splice_hook(splice_ask, check_undo, fn)
#define splice_undo(fn)		__splice_hook(splice_tell, undo, fn)
#define splice_post_undo(fn)	__splice_hook(splice_tell, post_undo, fn)
#define splice_fail_undo(fn)	__splice_hook(splice_tell, fail_undo, fn)

/* Where a hook that may refuse is named, and one that may not. */
struct splice_ask {
	int (*fn)(void);
};

struct splice_tell {
	void (*fn)(void);
};

#define __splice_hook(kind, when, fn)					\
	static const struct kind __splice_##when##_##fn			\
		__used __section(".splice." #when) = { fn }

/**
 * splice_refuse() - refuse an attempt, from a pre or a check hook
 * @why: the reason, a string constant that fits behind "refused: "
 *
 * Return: what the hook is to return.
 */
int splice_refuse(const char *why);

/**
 * struct splice_shadow - data that an update adds to objects of some kind
 * @id: tells it from others; an update that takes another one's place keeps
 *	the data if it has the same id and size
 * @size: bytes for each object
 * @ctor: fills in the data, which is zero, before anybody can find it; may be
 *	NULL; must not sleep
 * @dtor: takes care of what the data refers to before it is freed; may be
 *	NULL; must not sleep
 *
 * All of it is freed when no applied update has this id any more: the old
 * code knows nothing of it, and could not free it with its object.
 */
struct splice_shadow {
	u64 id;
	size_t size;
	void (*ctor)(const void *obj, void *data);
	void (*dtor)(const void *obj, void *data);
};

/*
 * Declares one, with the fields of struct splice_shadow:
 *
 *	SPLICE_SHADOW(seen, .id = 0x74283, .size = sizeof(struct seen));
 */
#define SPLICE_SHADOW(name, ...)					\
	static const struct splice_shadow name				\
		__used __section(".splice.shadow") = { __VA_ARGS__ }

/**
 * splice_shadow_get() - find an object's data
 * @shadow: what to find
 * @obj: the object
 *
 * Takes no lock, and may be called anywhere.
 *
 * Return: the data, or NULL if the object has none.
 */
void *splice_shadow_get(const struct splice_shadow *shadow, const void *obj);

/**
 * splice_shadow_add() - find an object's data, or give it some
 * @shadow: what to find or to add
 * @obj: the object
 * @gfp: how memory is allocated
 *
 * Not to be called in hard interrupts, nor while the machine is stopped.
 *
 * Return: the data, or NULL without memory.
 */
void *splice_shadow_add(const struct splice_shadow *shadow, const void *obj,
			gfp_t gfp);

/**
 * splice_shadow_remove() - free an object's data
 * @shadow: what to free
 * @obj: the object; one without data is left alone
 *
 * To be called when the object is freed. Whoever has found the data in an RCU
 * read section may use it until that ends. Not to be called in hard
 * interrupts, nor while the machine is stopped.
 */
void splice_shadow_remove(const struct splice_shadow *shadow, const void *obj);

#endif /* SPLICE_PATCH_H */
