// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the new code of a patch may use, one function for each construct. The
 * suite inserts this into a unit of the kernel image and into one of a module;
 * user space then calls a construct by its name, with a number, and gets a
 * number back. What each should give is in the suite.
 */
#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/idr.h>
#include <linux/jump_label.h>
#include <linux/kallsyms.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/static_call.h>
#include <linux/timer.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>
#include <net/udp_tunnel.h>
#include <trace/events/power.h>
#include <trace/events/sched.h>

/* Data: initialised, zero, constant, in a function, with addresses in it. */

static int lab_initialised = 40;
static long lab_zeroed[300];
static const short lab_constant[] = { 2, 3, 5, 7, 11 };
static int lab_once_written __ro_after_init = 6;
static int lab_mostly_read __read_mostly = 8;

static noinline long lab_data(unsigned long argument)
{
	const short *constant = lab_constant;
	int before = READ_ONCE(lab_initialised);

	OPTIMIZER_HIDE_VAR(constant);
	WRITE_ONCE(lab_initialised, before + 1);
	lab_zeroed[299] += argument;
	return before + lab_zeroed[299] + constant[4] +
	       READ_ONCE(lab_once_written) + READ_ONCE(lab_mostly_read);
}

static noinline long lab_static_local(unsigned long argument)
{
	static unsigned long calls = 100;
	static char names[][8] = { "zero", "one", "two" };
	static const char *const words[] = { "alpha", "beta", "gamma" };

	return ++calls * 100 + strlen(words[argument % 3]) * 10 +
	       strlen(names[argument % 3]);
}

/* Variables of each processor. */

static DEFINE_PER_CPU(int, lab_each) = 7;
static DEFINE_PER_CPU_SHARED_ALIGNED(long, lab_each_apart) = 11;
static DEFINE_PER_CPU_READ_MOSTLY(long, lab_each_read) = 13;

static noinline long lab_per_cpu(unsigned long argument)
{
	long sum = 0;
	int cpu;

	get_cpu();
	this_cpu_add(lab_each, argument);
	__this_cpu_add(lab_each_apart, argument);
	put_cpu();
	for_each_possible_cpu(cpu)
		sum += per_cpu(lab_each, cpu) + per_cpu(lab_each_apart, cpu) +
		       per_cpu(lab_each_read, cpu);
	return sum;
}

/* Strings and functions. */

static noinline long lab_strings(unsigned long argument)
{
	char text[64];

	snprintf(text, sizeof(text), "%s:%lu", __func__, argument);
	return !strcmp(text, "lab_strings:17");
}

static noinline unsigned long lab_fibonacci(unsigned long n)
{
	return n < 2 ? n : lab_fibonacci(n - 1) + lab_fibonacci(n - 2);
}

long splice_lab_global(long number);
noinline long splice_lab_global(long number)
{
	return 3 * number;
}

static noinline long lab_twice(long number)
{
	return 2 * number;
}

static long (*lab_chosen)(long number);
static long (*const lab_choices[])(long number) = {
	lab_twice, splice_lab_global,
};

static noinline long lab_functions(unsigned long argument)
{
	WRITE_ONCE(lab_chosen, lab_choices[argument % 2]);
	return lab_fibonacci(argument) + READ_ONCE(lab_chosen)(argument) * 1000;
}

static noinline long lab_switch(unsigned long argument)
{
	switch (argument) {
	case 0:
		return lab_fibonacci(3);
	case 1:
		return lab_twice(9);
	case 2:
		return splice_lab_global(4);
	case 3:
		return lab_fibonacci(10) + 1;
	case 4:
		return lab_twice(argument);
	case 5:
		return lab_twice(100) + lab_fibonacci(argument);
	case 6:
		return lab_fibonacci(argument) + 3;
	default:
		return -ERANGE;
	}
}

static noinline long lab_cold(unsigned long argument)
{
	if (unlikely(argument > 9)) {
		pr_err("splice lab: %lu is more than nine\n", argument);
		return -E2BIG;
	}
	return argument;
}

static noinline long lab_stack(unsigned long argument)
{
	volatile char room[128];
	unsigned int i;

	for (i = 0; i < sizeof(room); i++)
		room[i] = argument + i;
	return room[argument % sizeof(room)];
}

/* An address that the kernel can name: it is in the update's module. */
static noinline long lab_return_address(unsigned long argument)
{
	char text[KSYM_SYMBOL_LEN];

	sprint_symbol(text, (unsigned long)__builtin_return_address(0));
	return !strncmp(text, "lab_call+", 9) && strstr(text, " [splice_");
}

/* What the unit has already: its address is the running kernel's. */
#ifdef MODULE
static int tipc_setsockopt(struct socket *sock, int lvl, int opt, sockptr_t ov,
			   unsigned int ol);
#define LAB_OLD_FUNCTION tipc_setsockopt
#define LAB_OLD_DATA packet_ops
#define LAB_OLD(name) kallsyms_lookup_name("tipc:" name)
#define LAB_OLD_FUNCTION_NAME "tipc_setsockopt"
#define LAB_OLD_DATA_NAME "packet_ops"
#else
static ssize_t eventfd_write(struct file *file, const char __user *buf,
			     size_t count, loff_t *ppos);
#define LAB_OLD_FUNCTION eventfd_write
#define LAB_OLD_DATA eventfd_ida
#define LAB_OLD(name) kallsyms_lookup_name(name)
#define LAB_OLD_FUNCTION_NAME "eventfd_write"
#define LAB_OLD_DATA_NAME "eventfd_ida"
#endif

static void *lab_old_function = LAB_OLD_FUNCTION;

static noinline long lab_old(unsigned long argument)
{
	unsigned long function = LAB_OLD(LAB_OLD_FUNCTION_NAME);
	unsigned long data = LAB_OLD(LAB_OLD_DATA_NAME);
	void *taken = LAB_OLD_FUNCTION;

	OPTIMIZER_HIDE_VAR(taken);
	return function && data && function == (unsigned long)taken &&
	       function == (unsigned long)READ_ONCE(lab_old_function) &&
	       data == (unsigned long)&LAB_OLD_DATA;
}

/* The module that the code belongs to, not the one that it came in. */
static noinline long lab_owner(unsigned long argument)
{
#ifdef MODULE
	return !strcmp(THIS_MODULE->name, KBUILD_MODNAME);
#else
	return !THIS_MODULE;
#endif
}

/* An exported symbol of a module other than the one that is patched. */
static noinline long lab_other_module(unsigned long argument)
{
	struct udp_port_cfg config = { .family = AF_INET };
	struct socket *sock;
	int error = udp_sock_create(&init_net, &config, &sock);

	if (error)
		return error;
	udp_tunnel_sock_release(sock);
	return kallsyms_lookup_name("udp_tunnel:udp_sock_create4") ==
	       (unsigned long)udp_sock_create4;
}

/* Jump labels: a key of the kernel that is not exported, and keys of our own. */

extern struct static_key_false sched_schedstats;

static noinline long lab_old_key(unsigned long argument)
{
	if (static_branch_unlikely(&sched_schedstats))
		return 1;
	return 0;
}

static DEFINE_STATIC_KEY_FALSE(lab_false);
static DEFINE_STATIC_KEY_TRUE(lab_true);

static noinline long lab_new_key(unsigned long argument)
{
	long result = 0;

	if (argument == 1) {
		static_branch_enable(&lab_false);
		static_branch_disable(&lab_true);
	} else if (argument == 2) {
		static_branch_disable(&lab_false);
		static_branch_enable(&lab_true);
	}
	if (static_branch_unlikely(&lab_false))
		result += 1;
	if (static_branch_likely(&lab_false))
		result += 2;
	if (static_branch_unlikely(&lab_true))
		result += 4;
	if (static_branch_likely(&lab_true))
		result += 8;
	return result;
}

/* Static calls: those of the scheduler, and one of our own. */

static noinline long lab_old_call(unsigned long argument)
{
	might_sleep();
	return cond_resched() >= 0;
}

static noinline long lab_call_one(long number)
{
	return number + 1;
}

static noinline long lab_call_two(long number)
{
	return number + 2;
}

DEFINE_STATIC_CALL(splice_lab_call, lab_call_one);

static noinline long lab_new_call(unsigned long argument)
{
	if (argument == 1)
		static_call_update(splice_lab_call, lab_call_two);
	else if (argument == 2)
		static_call_update(splice_lab_call, lab_call_one);
	return static_call(splice_lab_call)(10);
}

/* Tracepoints: one that is not exported, one that is, and a new one. */

static noinline long lab_old_trace(unsigned long argument)
{
	trace_sched_wake_idle_without_ipi(argument);
	trace_cpu_idle(argument, 99);
	return trace_sched_wake_idle_without_ipi_enabled();
}

DECLARE_TRACE(splice_lab, TP_PROTO(long number), TP_ARGS(number));
DEFINE_TRACE(splice_lab, TP_PROTO(long number), TP_ARGS(number));

static long lab_traced;

static void lab_probe(void *data, long number)
{
	lab_traced += number + (long)data;
}

static noinline long lab_new_trace(unsigned long argument)
{
	int error = register_trace_splice_lab(lab_probe, (void *)1000);

	if (error)
		return error;
	WRITE_ONCE(lab_traced, 0);
	trace_splice_lab(argument);
	trace_splice_lab(argument);
	unregister_trace_splice_lab(lab_probe, (void *)1000);
	tracepoint_synchronize_unregister();
	trace_splice_lab(argument);
	return READ_ONCE(lab_traced);
}

/* Complaints. A line number is what the construct returns. */

static noinline long lab_warn(unsigned long argument)
{
	BUG_ON(argument == 0xb06);
	WARN(argument, "splice lab says %lu\n", argument); return __LINE__;
}

static noinline long lab_warn_once(unsigned long argument)
{
	long warned = 0;
	int i;

	for (i = 0; i < 3; i++)
		warned += WARN_ON_ONCE(argument == 7) + WARN_ONCE(argument == 8, "splice lab\n");
	return warned;
}

static noinline long lab_print(unsigned long argument)
{
	pr_debug("splice lab debugs %lu\n", argument);
	printk_once(KERN_INFO "splice lab once %lu\n", argument);
	printk_ratelimited(KERN_INFO "splice lab seldom %lu\n", argument);
	return argument;
}

/* Code that the kernel fits to the processor. */

static noinline long lab_alternatives(unsigned long argument)
{
	struct page *page = alloc_page(GFP_KERNEL);
	static atomic64_t counter = ATOMIC64_INIT(5);
	static unsigned long bits;
	unsigned char *bytes;
	long result = 0;

	if (!page)
		return -ENOMEM;
	bytes = page_address(page);
	memset(bytes, 0xff, PAGE_SIZE);
	clear_page(bytes);
	result += memchr_inv(bytes, 0, PAGE_SIZE) ? 0 : 1;
	memset(bytes, 3, argument);
	memcpy(bytes + argument, bytes, argument);
	result += bytes[2 * argument - 1] == 3 && !bytes[2 * argument] ? 2 : 0;
	__free_page(page);
	result += hweight64(argument) == 3 ? 4 : 0;
	result += atomic64_add_return(argument, &counter) >= 5 + argument ? 8 : 0;
	set_bit(5, &bits);
	result += test_and_clear_bit(5, &bits) ? 16 : 0;
#ifdef CONFIG_X86
	result += static_cpu_has(X86_FEATURE_XMM2) ? 32 : 0;
	result += static_cpu_has(X86_FEATURE_CENTAUR_MCR) ? 0 : 64;
	asm("bswapl %k0" : "+r" (argument));
	result += argument == 0x19000000 ? 128 : 0;
#endif
	return result;
}

/* User space, by good and by bad addresses. */

static noinline long lab_get_user(unsigned long argument)
{
	u64 value;

	if (get_user(value, (u64 __user *)argument))
		return -EFAULT;
	return value & 0xff;
}

static noinline long lab_put_user(unsigned long argument)
{
	return put_user(0x77, (u64 __user *)argument);
}

static noinline long lab_copy(unsigned long argument)
{
	u64 value[2] = { 1, 2 };
	unsigned long left;

	left = copy_from_user(value, (void __user *)argument, sizeof(value));
	if (left)
		return -left;
	left = __copy_from_user_inatomic(value, (void __user *)argument, 9);
	if (left)
		return -left;
	left = copy_to_user((void __user *)argument, value, sizeof(value));
	if (left || clear_user((void __user *)argument + 8, 8))
		return -left;
	return value[0] & 0xff;
}

static noinline long lab_unsafe_get(unsigned long argument)
{
	const u64 __user *from = (void __user *)argument;
	u64 value;

	if (!user_read_access_begin(from, sizeof(*from)))
		return -EPERM;
	unsafe_get_user(value, from, fault);
	user_read_access_end();
	return value & 0xff;
fault:
	user_read_access_end();
	return -EFAULT;
}

static noinline long lab_unsafe_put(unsigned long argument)
{
	u64 __user *to = (void __user *)argument;

	if (!user_write_access_begin(to, sizeof(*to)))
		return -EPERM;
	unsafe_put_user(0x66, to, fault);
	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

static noinline long lab_kernel_address(unsigned long argument)
{
	u64 value = 1;

	pagefault_disable();
	__get_kernel_nofault(&value, (u64 *)argument, u64, fault);
	pagefault_enable();
	return value & 0xff;
fault:
	pagefault_enable();
	return -EFAULT;
}

/* Objects that are made by their definition. */

static DEFINE_MUTEX(lab_mutex);
static DEFINE_SPINLOCK(lab_lock);
static LIST_HEAD(lab_list);
static DECLARE_WAIT_QUEUE_HEAD(lab_queue);
static DECLARE_COMPLETION(lab_done);
static DEFINE_IDA(lab_ida);

static noinline long lab_objects(unsigned long argument)
{
	struct list_head entry;
	struct mutex mutex;
	spinlock_t lock;
	int result;

	mutex_init(&mutex);
	spin_lock_init(&lock);
	mutex_lock(&lab_mutex);
	mutex_lock(&mutex);
	spin_lock(&lab_lock);
	spin_lock(&lock);
	result = list_empty(&lab_list);
	list_add(&entry, &lab_list);
	result += list_empty(&lab_list) ? 0 : 2;
	list_del(&entry);
	spin_unlock(&lock);
	spin_unlock(&lab_lock);
	mutex_unlock(&mutex);
	mutex_unlock(&lab_mutex);
	wake_up(&lab_queue);
	result += wait_event_timeout(lab_queue, argument, HZ) ? 4 : 0;
	result += ida_alloc(&lab_ida, GFP_KERNEL) == 0 ? 8 : 0;
	result += ida_alloc(&lab_ida, GFP_KERNEL) == 1 ? 16 : 0;
	ida_destroy(&lab_ida);
	return result;
}

static void lab_made(void *object)
{
	*(unsigned long *)object = 0x5a;
}

static noinline long lab_slab(unsigned long argument)
{
	struct kmem_cache *cache;
	unsigned long *object;
	long result = -ENOMEM;

	cache = kmem_cache_create("splice_lab", 64, 0, 0, lab_made);
	if (!cache)
		return result;
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	if (object) {
		result = *object;
		kmem_cache_free(cache, object);
	}
	kmem_cache_destroy(cache);
	return result;
}

/* Functions that the kernel calls later. */

static unsigned long lab_calls;

static void lab_on_work(struct work_struct *work)
{
	lab_calls += 1;
}

static DECLARE_WORK(lab_work, lab_on_work);

static void lab_on_timer(struct timer_list *timer)
{
	lab_calls += 10;
	complete(&lab_done);
}

static DEFINE_TIMER(lab_timer, lab_on_timer);

static void lab_on_rcu(struct rcu_head *head)
{
	lab_calls += 100;
	complete(&lab_done);
}

static struct rcu_head lab_head;

static int lab_thread(void *data)
{
	complete(&lab_done);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return (long)data;
}

static noinline long lab_later(unsigned long argument)
{
	struct task_struct *thread;

	lab_calls = 0;
	schedule_work(&lab_work);
	flush_work(&lab_work);
	reinit_completion(&lab_done);
	mod_timer(&lab_timer, jiffies + 1);
	wait_for_completion(&lab_done);
	del_timer_sync(&lab_timer);
	call_rcu(&lab_head, lab_on_rcu);
	wait_for_completion(&lab_done);
	/* The callback may still be on its way out. */
	rcu_barrier();
	thread = kthread_run(lab_thread, (void *)argument, "splice-lab");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	/* A thread that never ran would not call its function. */
	wait_for_completion(&lab_done);
	return lab_calls + kthread_stop(thread);
}

/* The constructs by name. */

static const struct lab_construct {
	const char *name;
	long (*run)(unsigned long argument);
} lab_constructs[] = {
	{ "data", lab_data },
	{ "static-local", lab_static_local },
	{ "per-cpu", lab_per_cpu },
	{ "strings", lab_strings },
	{ "functions", lab_functions },
	{ "switch", lab_switch },
	{ "cold", lab_cold },
	{ "stack", lab_stack },
	{ "return-address", lab_return_address },
	{ "old", lab_old },
	{ "owner", lab_owner },
	{ "other-module", lab_other_module },
	{ "old-key", lab_old_key },
	{ "new-key", lab_new_key },
	{ "old-call", lab_old_call },
	{ "new-call", lab_new_call },
	{ "old-trace", lab_old_trace },
	{ "new-trace", lab_new_trace },
	{ "warn", lab_warn },
	{ "warn-once", lab_warn_once },
	{ "print", lab_print },
	{ "alternatives", lab_alternatives },
	{ "get-user", lab_get_user },
	{ "put-user", lab_put_user },
	{ "copy", lab_copy },
	{ "unsafe-get", lab_unsafe_get },
	{ "unsafe-put", lab_unsafe_put },
	{ "kernel-address", lab_kernel_address },
	{ "objects", lab_objects },
	{ "slab", lab_slab },
	{ "later", lab_later },
};

/* The first eight bytes say that this is meant. */
#define LAB_MAGIC 0x53504c4943450001ULL

static noinline long lab_call(const char __user *from, size_t size)
{
	struct {
		u64 magic;
		u64 argument;
		char name[32];
	} call;
	size_t i;

	if (size != sizeof(call))
		return -EINVAL;
	if (copy_from_user(&call, from, sizeof(call)))
		return -EFAULT;
	call.name[sizeof(call.name) - 1] = '\0';
	for (i = 0; i < ARRAY_SIZE(lab_constructs); i++) {
		long result;

		if (strcmp(call.name, lab_constructs[i].name))
			continue;
		result = lab_constructs[i].run(call.argument);
		/* This is no tail call. */
		barrier();
		return result;
	}
	return -ENOENT;
}

