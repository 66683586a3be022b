// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The struct grows from 112 to 128 bytes. Timers that exist have that room:
 * they come out of the cache of 128 bytes. What they lack is an initialised
 * work item, so that every timer gets that when it is needed.
 *
 * file: kernel/bpf/helpers.c
 * accept: struct:bpf_hrtimer
 * replace: if (this_cpu_read(hrtimer_running)) => INIT_WORK(&t->delete_work, bpf_timer_delete_work);	if (this_cpu_read(hrtimer_running))
 */
