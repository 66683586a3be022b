// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who is where: is any thread in code that is about to change?
 *
 * Conservative: every word of a stack between the saved stack pointer and the
 * stack's end counts as an address. None is missed; a preempted thread's
 * instruction pointer is such a word too, in the registers that were saved.
 *
 * A word may be a stale one, in a place that no frame has written to yet. So
 * where one is found, the kernel's unwinder is asked. If it vouches for its
 * trace of that thread (CONFIG_HAVE_RELIABLE_STACKTRACE; it is what livepatch
 * relies on), the trace decides; if it does not, the word does.
 *
 * The stop is short because nearly all stacks are read before it. A thread
 * that was off its CPU when its context switches were counted, and has the same
 * count in the stop, has not run in between: whoever runs is switched off by
 * the stop, which is counted. So its stack is what it was, and it is not read
 * again.
 *
 * Interrupt and exception stacks need no look. This runs in a thread of each
 * CPU, the stopper, and a CPU cannot have left an interrupt, softirq or
 * exception handler on its own stack for a thread: those do not schedule. A
 * non-maskable interrupt on top of a stopper returns to it, whatever it
 * executes; see splice_write() for what it might execute.
 *
 * Not covered: a thread that has taken itself off the thread list
 * (release_task() at the end of do_exit()) and was preempted before its last
 * schedule(). It runs nothing but the rest of do_exit().
 */
#include <linux/compiler.h>
#include <linux/cpumask.h>
#include <linux/kprobes.h>
#include <linux/llist.h>
#include <linux/moduleparam.h>
#include <linux/rethook.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/stacktrace.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "arch.h"
#include "core.h"

/* Deeper traces are not vouched for. */
#define SPLICE_TRACE_MAX	100

/**
 * struct splice_seen - a thread before the stop
 * @task: the thread
 * @start: when it began, since another one may be at the same address later
 * @switches: how often it had been switched off its CPU
 * @clear: whether it was off its CPU, with nothing on its stack in the way
 */
struct splice_seen {
	const struct task_struct *task;
	u64 start;
	unsigned long switches;
	bool clear;
};

static bool splice_reliable = true;
module_param_named(reliable, splice_reliable, bool, 0600);
MODULE_PARM_DESC(reliable, "ask the kernel's unwinder whether a word is stale");

/* Under splice_mutex. */
static unsigned long splice_trace[SPLICE_TRACE_MAX];

static bool splice_in_span(const struct splice_stop *stop, unsigned long addr)
{
	size_t low = 0, high = stop->nspans;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr < stop->spans[mid].start)
			high = mid;
		else if (addr >= stop->spans[mid].end)
			low = mid + 1;
		else
			return true;
	}
	return false;
}

static void splice_note(struct splice_stop *stop, struct task_struct *task,
			unsigned long addr)
{
	struct splice_update *update = stop->update;
	struct splice_conflict *conflict;

	if (!splice_in_span(stop, addr))
		return;
	if (update->found < SPLICE_CONFLICTS_MAX) {
		conflict = &update->conflicts[update->found];
		conflict->addr = addr;
		conflict->pid = task->pid;
		memcpy(conflict->comm, task->comm, TASK_COMM_LEN);
		conflict->comm[TASK_COMM_LEN - 1] = '\0';
	}
	update->found++;
}

static void splice_look(struct splice_stop *stop, struct task_struct *task,
			const unsigned long *word, size_t n)
{
	const unsigned long clear = stop->clear, set = stop->set;
	const unsigned long low = stop->spans[0].start;
	const unsigned long size = stop->spans[stop->nspans - 1].end - low;
	const unsigned long *end = word + n;

	stop->update->words += n;
	for (; word < end; word++) {
		unsigned long addr = (READ_ONCE_NOCHECK(*word) & ~clear) | set;

		if (unlikely(addr - low < size))
			splice_note(stop, task, addr);
	}
}

/* Return addresses that function-graph tracing has taken off the stack. */
static void splice_scan_graph(struct splice_stop *stop,
			      struct task_struct *task)
{
#ifdef CONFIG_FUNCTION_GRAPH_TRACER
	const unsigned long *word = (const unsigned long *)task->ret_stack;
	long n = task->curr_ret_stack;

	if (!word)
		return;
	/* An index of the last entry before 6.11, a number of words since. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	n = (n + 1) * (long)(sizeof(*task->ret_stack) / sizeof(*word));
#endif
	if (n > 0)
		splice_look(stop, task, word, n);
#endif
}

/* Return addresses that return probes have taken off the stack. */
static void splice_scan_probes(struct splice_stop *stop,
			       struct task_struct *task)
{
	struct llist_node *node;

#ifdef CONFIG_RETHOOK
	for (node = task->rethooks.first; node; node = node->next)
		splice_look(stop, task,
			    &llist_entry(node, struct rethook_node,
					 llist)->ret_addr, 1);
#endif
#if defined(CONFIG_KRETPROBES) && !defined(CONFIG_KRETPROBE_ON_RETHOOK)
	for (node = task->kretprobe_instances.first; node; node = node->next)
		splice_look(stop, task, (const unsigned long *)
			    &llist_entry(node, struct kretprobe_instance,
					 llist)->ret_addr, 1);
#endif
	(void)node;
}

static bool splice_on_cpu(const struct task_struct *task)
{
#ifdef CONFIG_SMP
	return task->on_cpu;
#else
	return task == current;
#endif
}

/* Whether the kernel vouches that no frame of a thread is in the way. */
static bool splice_vouched(const struct splice_stop *stop,
			   struct task_struct *task)
{
	int i, n;

	if (!splice_reliable || splice_on_cpu(task))
		return false;
	n = stack_trace_save_tsk_reliable(task, splice_trace,
					  ARRAY_SIZE(splice_trace));
	for (i = 0; i < n; i++)
		if (splice_in_span(stop, splice_trace[i]))
			return false;
	return n > 0;
}

static unsigned long splice_switches(const struct task_struct *task)
{
	return READ_ONCE(task->nvcsw) + READ_ONCE(task->nivcsw);
}

/* Whether no word of a stack that may be in use is in the way. */
static bool splice_is_clear(const struct splice_stop *stop,
			    struct task_struct *task, unsigned long *words)
{
	unsigned long begin = (unsigned long)task_stack_page(task);
	unsigned long sp = splice_saved_sp(task);
	size_t i, n;

	if (!begin || sp < begin || sp >= begin + THREAD_SIZE)
		return false;
	sp = ALIGN_DOWN(sp, sizeof(long));
	n = (begin + THREAD_SIZE - sp) / sizeof(long);
	/* The thread may end, and its stack go, while it is read. */
	if (copy_from_kernel_nofault(words, (void *)sp, n * sizeof(long)))
		return false;
	for (i = 0; i < n; i++)
		if (splice_in_span(stop, (words[i] & ~stop->clear) | stop->set))
			return false;
	return true;
}

/**
 * splice_foresee() - look at every thread before the stop
 * @stop: the attempt; its @seen is to be freed by the caller
 *
 * Without memory for it, all is looked at in the stop.
 */
void splice_foresee(struct splice_stop *stop)
{
	struct task_struct *process, *task;
	struct splice_seen *seen;
	unsigned long *words;
	size_t n = 0;

	if (!stop->nspans)
		return;
	rcu_read_lock();
	for_each_process_thread(process, task)
		n++;
	rcu_read_unlock();
	/* Some more may come. */
	n += n / 8 + 64;
	words = kvmalloc(THREAD_SIZE, GFP_KERNEL);
	stop->seen = kvmalloc_array(n, sizeof(*stop->seen), GFP_KERNEL);
	if (!words || !stop->seen)
		goto out;
	rcu_read_lock();
	for_each_process_thread(process, task) {
		if (stop->nseen == n)
			break;
		seen = &stop->seen[stop->nseen++];
		seen->task = task;
		seen->start = task->start_boottime;
		seen->clear = !splice_on_cpu(task);
		/* Off its CPU first: the count is then that of all it ran. */
		smp_rmb();
		seen->switches = splice_switches(task);
		/* And the stack is that after so many switches, or a later one. */
		smp_rmb();
		if (seen->clear)
			seen->clear = splice_is_clear(stop, task, words);
	}
	rcu_read_unlock();
out:
	kvfree(words);
}

/* Threads are met in the order in which they were seen, but for new ones. */
static bool splice_was_clear(struct splice_stop *stop,
			     const struct task_struct *task)
{
	const struct splice_seen *seen;
	size_t i = stop->next;

	while (i < stop->nseen && stop->seen[i].task != task)
		i++;
	if (i == stop->nseen)
		return false;
	stop->next = i + 1;
	seen = &stop->seen[i];
	return seen->clear && seen->start == task->start_boottime &&
	       seen->switches == splice_switches(task) && !splice_on_cpu(task);
}

static void splice_scan_task(struct splice_stop *stop,
			     struct task_struct *task)
{
	struct splice_update *update = stop->update;
	size_t found;
	unsigned long begin = (unsigned long)task_stack_page(task);
	unsigned long end = begin + THREAD_SIZE, sp;

	update->threads++;
	splice_look(stop, task,
		    (const unsigned long *)&task->restart_block.fn, 1);
	splice_scan_graph(stop, task);
	splice_scan_probes(stop, task);
	if (splice_was_clear(stop, task))
		return;
#ifdef CONFIG_THREAD_INFO_IN_TASK
	/* A dead thread's stack is freed before the thread is. */
	if (!refcount_read(&task->stack_refcount))
		return;
#endif
	if (!begin)
		return;
	/* What runs while all CPUs are stopped is what has stopped them. */
	sp = splice_on_cpu(task) ? stop->sp[task_cpu(task)] :
				   splice_saved_sp(task);
	if (sp < begin || sp >= end)
		sp = begin;
	found = update->found;
	sp = ALIGN_DOWN(sp, sizeof(long));
	splice_look(stop, task, (const unsigned long *)sp,
		    (end - sp) / sizeof(long));
	if (update->found > found && splice_vouched(stop, task)) {
		update->found = found;
		update->cleared++;
	}
}

/**
 * splice_scan() - look at every thread, all CPUs being stopped
 * @stop: the attempt; its update's conflicts are counted and recorded
 */
void splice_scan(struct splice_stop *stop)
{
	struct task_struct *process, *task;
	unsigned int cpu;

	for_each_process_thread(process, task)
		splice_scan_task(stop, task);
	/* Idle threads are in no list; an offline CPU's waits in its own. */
	for_each_possible_cpu(cpu) {
		task = idle_task(cpu);
		if (task)
			splice_scan_task(stop, task);
	}
}
