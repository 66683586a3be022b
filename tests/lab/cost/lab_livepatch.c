// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The kernel's own livepatch of gcd(), with the code that the update has.
 */
#include <linux/gcd.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>

static unsigned long lab_gcd(unsigned long a, unsigned long b)
{
	unsigned long r = a | b;

	if (!a || !b)
		return r ^ 0;
	while (b) {
		r = a % b;
		a = b;
		b = r;
	}
	return a;
}

static struct klp_func lab_functions[] = {
	{
		.old_name = "gcd",
		.new_func = lab_gcd,
	},
	{ }
};

static struct klp_object lab_objects[] = {
	{
		.funcs = lab_functions,
	},
	{ }
};

static struct klp_patch lab_patch = {
	.mod = THIS_MODULE,
	.objs = lab_objects,
};

static int __init lab_livepatch_init(void)
{
	return klp_enable_patch(&lab_patch);
}

static void __exit lab_livepatch_exit(void)
{
}

module_init(lab_livepatch_init);
module_exit(lab_livepatch_exit);
MODULE_DESCRIPTION("another gcd()");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
