// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a call of gcd() takes. Reading the parameter "ps" makes many calls of
 * it, and gives picoseconds for each.
 */
#include <linux/gcd.h>
#include <linux/module.h>
#include <linux/timekeeping.h>

#define LAB_CALLS 1000000

static int lab_get_cost(char *buffer, const struct kernel_param *kp)
{
	unsigned long sum = 0;
	u64 began, i;

	began = ktime_get_ns();
	for (i = 0; i < LAB_CALLS; i++)
		sum += gcd(0, i | 1);
	/* LAB_CALLS nanoseconds in all are 1000 picoseconds for each. */
	began = (ktime_get_ns() - began) / (LAB_CALLS / 1000);
	if (sum != (u64)LAB_CALLS / 2 * LAB_CALLS)
		return -EILSEQ;
	return sysfs_emit(buffer, "%llu\n", began);
}

static const struct kernel_param_ops lab_cost_ops = {
	.get = lab_get_cost,
};

module_param_cb(ps, &lab_cost_ops, NULL, 0444);
MODULE_DESCRIPTION("the cost of a call");
MODULE_LICENSE("GPL");
