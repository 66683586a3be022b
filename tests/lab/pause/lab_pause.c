// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a stop of all CPUs takes by itself, measured as the kernel side of
 * splice measures its own: from the first CPU that comes to the last that
 * leaves. Reading the parameter "pause_ns" makes one stop.
 */
#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/module.h>
#include <linux/stop_machine.h>
#include <linux/timekeeping.h>

struct lab_stop {
	atomic_t arrived;
	atomic_t left;
	int done;
	u64 began;
	u64 ended;
};

static int lab_stopped(void *data)
{
	struct lab_stop *stop = data;
	int cpus = num_online_cpus();
	int order = atomic_inc_return(&stop->arrived);

	if (order == 1)
		stop->began = ktime_get_mono_fast_ns();
	if (order == cpus) {
		/* Pairs with the acquire below. */
		smp_store_release(&stop->done, 1);
	} else {
		/* Pairs with the release above. */
		while (!smp_load_acquire(&stop->done))
			cpu_relax();
	}
	if (atomic_inc_return(&stop->left) == cpus)
		stop->ended = ktime_get_mono_fast_ns();
	return 0;
}

static int lab_get_pause(char *buffer, const struct kernel_param *kp)
{
	struct lab_stop stop = {};
	int err = stop_machine(lab_stopped, &stop, cpu_online_mask);

	if (err)
		return err;
	return sysfs_emit(buffer, "%llu\n", stop.ended - stop.began);
}

static const struct kernel_param_ops lab_pause_ops = {
	.get = lab_get_pause,
};

module_param_cb(pause_ns, &lab_pause_ops, NULL, 0444);
MODULE_DESCRIPTION("the pause of an empty stop of all CPUs");
MODULE_LICENSE("GPL");
