/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interface between the transaction core and an update module.
 *
 * An update module describes, as constant data, what has to be switched. Its
 * addresses are symbols that are made absolute before the module is loaded;
 * nothing of it can be given or changed at run time.
 */
#ifndef SPLICE_H
#define SPLICE_H

#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/types.h>

#include "patch.h"

/* Raised with every change of the structures below. */
#define SPLICE_ABI		6
/* Bytes of the longest site. */
#define SPLICE_SITE_MAX		16
/* Bit fields of the most complicated trampoline. */
#define SPLICE_FIELDS_MAX	4
/* Updates that one may stand on. */
#define SPLICE_BASES_MAX	4

/**
 * struct splice_field - where a part of the displacement goes
 * @add: added to the displacement before it is shifted
 * @word: offset of the word in the template, in bytes
 * @size: size of that little-endian word: 1, 2, 4 or 8 bytes
 * @shift: arithmetic right shift of the displacement
 * @bits: number of bits kept
 * @position: lowest bit of the field in the word
 */
struct splice_field {
	s64 add;
	u8 word;
	u8 size;
	u8 shift;
	u8 bits;
	u8 position;
};

/**
 * struct splice_site - bytes of running code that are replaced by a jump
 * @addr: where the jump is written
 * @target: where it leads
 * @expected: the bytes that must be at @addr
 * @bias: added to @addr to get what the displacement is relative to
 * @granule: what the sum is rounded down to a multiple of, a power of two
 * @template: the jump, its displacement fields zero
 * @fields: how the displacement is put in
 * @len: length of the jump in bytes
 * @range_bits: the displacement must be a signed number of that many bits
 * @nfields: number of @fields used
 */
struct splice_site {
	const void *addr;
	const void *target;
	const u8 *expected;
	s64 bias;
	u32 granule;
	u8 template[SPLICE_SITE_MAX];
	struct splice_field fields[SPLICE_FIELDS_MAX];
	u8 len;
	u8 range_bits;
	u8 nfields;
};

/**
 * struct splice_object - constant data whose contents are replaced in place
 * @addr: where it is
 * @expected: the bytes that must be at @addr
 * @data: the bytes that are written there
 * @len: its length in bytes
 */
struct splice_object {
	const void *addr;
	const u8 *expected;
	const void *data;
	size_t len;
};

/**
 * struct splice_range - code that no thread may be in
 * @start: first address
 * @end: first address behind it
 */
struct splice_range {
	const void *start;
	const void *end;
};

/**
 * enum splice_step - when a hook is called; see patch.h
 * @SPLICE_PRE: before the stop, and may refuse
 * @SPLICE_CHECK: in the stop, before anything is written, and may refuse
 * @SPLICE_DO: in the stop, after all is written
 * @SPLICE_POST: after the stop
 * @SPLICE_FAIL: after an attempt that came to nothing
 * @SPLICE_STEPS: how many there are
 */
enum splice_step {
	SPLICE_PRE,
	SPLICE_CHECK,
	SPLICE_DO,
	SPLICE_POST,
	SPLICE_FAIL,
	SPLICE_STEPS,
};

/**
 * struct splice_hook - work of the patch's author
 * @ask: where the function is named, if it may refuse
 * @tell: where it is named, if it may not
 * @step: when it is called
 * @undo: whether in an attempt to undo the update, not to apply it
 */
struct splice_hook {
	union {
		const struct splice_ask *ask;
		const struct splice_tell *tell;
	};
	u8 step;
	bool undo;
};

/**
 * struct splice_part - one update module's share of an update
 * @abi: SPLICE_ABI
 * @nparts: how many parts the update has; none switches without the others
 * @id: the update's id, the same in all its parts
 * @description: what the update is
 * @target: the module whose code is patched, NULL for the kernel image
 * @load: which load of @target that is: the number of its directory in sysfs,
 *	kernfs_ino(), which no other load ever has
 * @sites: what is written to apply the update
 * @objects: data that is replaced to apply it
 * @ranges: what must be free of threads to apply it
 * @hooks: work of the patch's author
 * @shadows: data that it adds to objects
 * @nsites: number of @sites
 * @nobjects: number of @objects
 * @nranges: number of @ranges
 * @nhooks: number of @hooks
 * @nshadows: number of @shadows
 * @bases: an address in each update that this one was matched with or uses
 *	something of, the others NULL
 * @stack_clear: bits cleared in a stack word before it is compared
 * @stack_set: bits then set in it
 */
struct splice_part {
	u32 abi;
	u32 nparts;
	const char *id;
	const char *description;
	const char *target;
	unsigned long load;
	const struct splice_site *sites;
	const struct splice_object *objects;
	const struct splice_range *ranges;
	const struct splice_hook *hooks;
	const struct splice_shadow *const *shadows;
	u32 nsites;
	u32 nobjects;
	u32 nranges;
	u32 nhooks;
	u32 nshadows;
	const void *bases[SPLICE_BASES_MAX];
	u64 stack_clear;
	u64 stack_set;
};

/*
 * Of the parameter by which an update module is told how many parts are there;
 * its argument is the part. It is also how the core knows an update module
 * before anything of it has run.
 */
extern const struct kernel_param_ops splice_part_ops;

int splice_register_part(const struct splice_part *part, struct module *owner);
void splice_unregister_part(const struct splice_part *part);

#endif /* SPLICE_H */
