// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Malformed transactions in a kernel: a valid part, in which a few numbers
 * are replaced, is offered to the transaction core. It must take it or refuse
 * it, whatever stands in it. Nothing is switched. Writing "REGISTER UNREGISTER
 * SEED ROUNDS" to the parameter "run", the first two being the addresses of
 * the core's functions, does it; reading it tells what came of it.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

#include "splice.h"

#define MANY	4

static struct {
	struct splice_part part;
	struct splice_site sites[MANY];
	struct splice_object objects[MANY];
	struct splice_range ranges[MANY];
	u8 bytes[64];
	char id[16];
	char description[16];
} lab;

static u64 lab_state;
static unsigned long lab_taken, lab_refused;

static u64 lab_any(void)
{
	lab_state ^= lab_state << 13;
	lab_state ^= lab_state >> 7;
	lab_state ^= lab_state << 17;
	return lab_state;
}

static void lab_target(void)
{
}

static void lab_make(void)
{
	u32 i;

	memset(&lab, 0, sizeof(lab));
	strscpy(lab.id, "malformed", sizeof(lab.id));
	strscpy(lab.description, "a test", sizeof(lab.description));
	for (i = 0; i < MANY; i++) {
		lab.sites[i] = (struct splice_site){
			.addr = (u8 *)&lab_make + 64 * i,
			.target = &lab_target,
			.expected = lab.bytes,
			.bias = 5,
			.template = { 0xe9 },
			.fields = { { .word = 1, .size = 4, .bits = 32 } },
			.len = 5,
			.granule = 1,
			.range_bits = 32,
			.nfields = 1,
		};
		lab.objects[i] = (struct splice_object){
			(u8 *)&lab_make + 64 * i + 32, lab.bytes,
			lab.bytes + 8, 8
		};
		lab.ranges[i] = (struct splice_range){
			(u8 *)&lab_make + 64 * i, (u8 *)&lab_make + 64 * i + 32
		};
	}
	lab.part = (struct splice_part){
		.abi = SPLICE_ABI,
		.nparts = 1,
		.id = lab.id,
		.description = lab.description,
		.sites = lab.sites,
		.objects = lab.objects,
		.ranges = lab.ranges,
		.nsites = MANY,
		.nobjects = MANY,
		.nranges = MANY,
	};
}

/* What is likely to be taken for something else. */
static u64 lab_odd(u64 now)
{
	switch (lab_any() % 10) {
	case 0: return 0;
	case 1: return ~0ULL;
	case 2: return now + 1;
	case 3: return now - 1;
	case 4: return (unsigned long)&lab + lab_any() % sizeof(lab);
	case 5: return (unsigned long)&lab + PAGE_SIZE * (lab_any() % 64);
	case 6: return lab_any() % 256;
	case 7: return now ^ 1ULL << lab_any() % 64;
	case 8: return PAGE_OFFSET + (lab_any() & (PAGE_SIZE - 1));
	default: return lab_any();
	}
}

static void lab_mutate(void)
{
	size_t size = 1 << lab_any() % 4, at;
	u64 value = 0;

	/* The part's own numbers are few among so many. */
	at = lab_any() % 2 ? sizeof(lab) : sizeof(lab.part);
	at = ALIGN_DOWN(lab_any() % (at - sizeof(value)), size);
	memcpy(&value, (u8 *)&lab + at, size);
	value = lab_odd(value);
	memcpy((u8 *)&lab + at, &value, size);
}

static int lab_set_run(const char *text, const struct kernel_param *kp)
{
	int (*enter)(const struct splice_part *part, struct module *owner);
	void (*leave)(const struct splice_part *part);
	unsigned long entry, exit, rounds;
	int n;

	if (sscanf(text, "%lx %lx %llu %lu", &entry, &exit, &lab_state,
		   &rounds) != 4)
		return -EINVAL;
	enter = (void *)entry;
	leave = (void *)exit;
	lab_taken = 0;
	lab_refused = 0;
	while (rounds--) {
		lab_make();
		for (n = lab_any() % 4; n; n--)
			lab_mutate();
		if (enter(&lab.part, THIS_MODULE)) {
			lab_refused++;
			continue;
		}
		lab_taken++;
		leave(&lab.part);
	}
	return 0;
}

static int lab_get_run(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%lu taken, %lu refused\n", lab_taken,
			  lab_refused);
}

static const struct kernel_param_ops lab_run_ops = {
	.set = lab_set_run,
	.get = lab_get_run,
};

module_param_cb(run, &lab_run_ops, NULL, 0600);
MODULE_DESCRIPTION("malformed transactions");
MODULE_LICENSE("GPL");
