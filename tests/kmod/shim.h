/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the transaction core uses of the kernel, for a process: one processor,
 * an image and some modules that are memory of the process, each mapped twice.
 * The core's own files are compiled as they are, with this in front and empty
 * files in place of the kernel's headers.
 */
#ifndef SHIM_H
#define SHIM_H

#define _GNU_SOURCE

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef unsigned int gfp_t;

#define KERNEL_VERSION(a, b, c)		(((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE		KERNEL_VERSION(6, 1, 170)
#define CONFIG_X86			1
#define CONFIG_64BIT			1

#define __printf(a, b)			__attribute__((format(printf, a, b)))
#define __init
#define __exit
#define __aligned(n)			__attribute__((aligned(n)))
#define unlikely(x)			(x)
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define BUILD_BUG_ON(x)			_Static_assert(!(x), #x)
#define container_of(p, type, member)	\
	((type *)((char *)(p) - offsetof(type, member)))
#define max(a, b)			((a) > (b) ? (a) : (b))
#define min(a, b)			((a) < (b) ? (a) : (b))
#define min_t(type, a, b)		((type)(a) < (type)(b) ? (type)(a) : (type)(b))
#define WRITE_ONCE(x, v)		(*(volatile __typeof__(x) *)&(x) = (v))
#define IS_ALIGNED(x, a)		(((x) & ((a) - 1)) == 0)
#define is_power_of_2(n)		((n) && !((n) & ((n) - 1)))
#define ALIGN_DOWN(x, a)		((x) & ~((__typeof__(x))(a) - 1))
#define PTR_ALIGN_DOWN(p, a)		((__typeof__(p))ALIGN_DOWN((unsigned long)(p), a))
#define U32_MAX				UINT32_MAX

#define EXPORT_SYMBOL_GPL(name)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)
#define module_init(fn)			int shim_init(void) { return fn(); }
#define module_exit(fn)			void shim_exit(void) { fn(); }
#define KBUILD_MODNAME			"splice"
#define pr_info(...)			((void)0)
#define pr_err(...)			((void)0)

/* Errors in pointers. */
#define IS_ERR(p)			((unsigned long)(p) >= -4095UL)
#define PTR_ERR(p)			((long)(p))
#define ERR_PTR(e)			((void *)(long)(e))

/* Memory: each allocation fails when the test says so. */
#define GFP_KERNEL			0
bool shim_fails(void);
static inline void *shim_alloc(size_t n, size_t size)
{
	return shim_fails() ? NULL : calloc(n ? n : 1, size ? size : 1);
}
#define kzalloc(size, gfp)		shim_alloc(1, size)
#define kcalloc(n, size, gfp)		shim_alloc(n, size)
#define kvcalloc(n, size, gfp)		shim_alloc(n, size)
#define kvmalloc_array(n, size, gfp)	shim_alloc(n, size)
#define kfree(p)			free((void *)(p))
#define kvfree(p)			free((void *)(p))
static inline char *kstrdup(const char *text, gfp_t gfp)
{
	return shim_fails() ? NULL : strdup(text);
}
#define strscpy(to, from, size)		snprintf(to, size, "%s", from)

static inline void sort(void *base, size_t n, size_t size,
			int (*order)(const void *, const void *), void *swap)
{
	qsort(base, n, size, order);
}

/* Lists, as linux/list.h has them. */
struct list_head {
	struct list_head *next, *prev;
};

#define LIST_HEAD_INIT(name)		{ &(name), &(name) }
#define LIST_HEAD(name)			struct list_head name = LIST_HEAD_INIT(name)
static inline void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list;
	list->prev = list;
}
static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}
static inline void list_add_tail(struct list_head *new, struct list_head *head)
{
	new->prev = head->prev;
	new->next = head;
	head->prev->next = new;
	head->prev = new;
}
static inline void list_add(struct list_head *new, struct list_head *head)
{
	list_add_tail(new, head->next);
}
static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
}
static inline void list_del_init(struct list_head *entry)
{
	list_del(entry);
	INIT_LIST_HEAD(entry);
}
static inline void list_move(struct list_head *entry, struct list_head *head)
{
	list_del(entry);
	list_add(entry, head);
}
static inline void list_move_tail(struct list_head *entry,
				  struct list_head *head)
{
	list_del(entry);
	list_add_tail(entry, head);
}
#define list_entry(p, type, member)	container_of(p, type, member)
#define list_for_each_entry(pos, head, member)				\
	for (pos = list_entry((head)->next, __typeof__(*pos), member);	\
	     &pos->member != (head);					\
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))
#define list_for_each_entry_reverse(pos, head, member)			\
	for (pos = list_entry((head)->prev, __typeof__(*pos), member);	\
	     &pos->member != (head);					\
	     pos = list_entry(pos->member.prev, __typeof__(*pos), member))
#define list_for_each_entry_continue_reverse(pos, head, member)		\
	for (pos = list_entry(pos->member.prev, __typeof__(*pos), member); \
	     &pos->member != (head);					\
	     pos = list_entry(pos->member.prev, __typeof__(*pos), member))
#define list_for_each_entry_safe(pos, n, head, member)			\
	for (pos = list_entry((head)->next, __typeof__(*pos), member),	\
	     n = list_entry(pos->member.next, __typeof__(*pos), member);	\
	     &pos->member != (head);					\
	     pos = n, n = list_entry(n->member.next, __typeof__(*n), member))

/* One processor, so that nobody is waited for. */
struct mutex {
	int held;
};

#define DEFINE_MUTEX(name)		struct mutex name
static inline void mutex_lock(struct mutex *mutex)
{
	if (mutex->held++)
		abort();
}
static inline void mutex_unlock(struct mutex *mutex)
{
	if (--mutex->held)
		abort();
}
typedef struct {
	int value;
} atomic_t;
#define atomic_inc_return(a)		(++(a)->value)
#define smp_store_release(p, v)		(*(p) = (v))
#define smp_load_acquire(p)		(*(p))
#define cpu_relax()			abort()
#define num_online_cpus()		1
#define smp_processor_id()		0
#define nr_cpu_ids			1
#define cpu_online_mask			NULL
#define rcu_read_lock_sched()		((void)0)
#define rcu_read_unlock_sched()		((void)0)
#define synchronize_rcu()		((void)0)
#define rcu_barrier()			((void)0)
#define ktime_get_mono_fast_ns()	1
#define stop_machine(fn, data, mask)	(fn(data))
#define sync_core()			((void)0)
#define get_kprobe(addr)		(NULL)

/* Objects whose memory goes with the last reference. */
struct kobject;
struct kobj_type {
	void (*release)(struct kobject *kobj);
};
struct kernfs_node {
	unsigned long id;
};
#define kernfs_ino(node)		((node)->id)
struct kobject {
	const struct kobj_type *type;
	struct kernfs_node *sd;
	int refs;
};
static inline void kobject_init(struct kobject *kobj,
				const struct kobj_type *type)
{
	kobj->type = type;
	kobj->refs = 1;
}
static inline void kobject_put(struct kobject *kobj)
{
	if (!--kobj->refs)
		kobj->type->release(kobj);
}
#define kobject_del(kobj)		((void)0)

/* Parameters, of which an update module has one. */
struct kernel_param;
struct kernel_param_ops {
	int (*set)(const char *text, const struct kernel_param *kp);
	int (*get)(char *buffer, const struct kernel_param *kp);
};
struct kernel_param {
	const struct kernel_param_ops *ops;
	void *arg;
};
#define kstrtouint(text, base, to)	\
	(*(to) = strtoul(text, NULL, base), 0)
#define sysfs_emit(buffer, ...)		sprintf(buffer, __VA_ARGS__)

/* Modules: their memory is an area. */
enum module_state {
	MODULE_STATE_LIVE,
	MODULE_STATE_COMING,
	MODULE_STATE_GOING,
};
struct shim_layout {
	void *base;
	unsigned int size, text_size;
};
struct module {
	enum module_state state;
	char name[56];
	struct shim_layout core_layout;
	struct {
		struct kobject kobj;
	} mkobj;
	struct kernel_param *kp;
	unsigned int num_kp;
	int refs;
};
#define MODULE_NAME_LEN			56
struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long event,
			     void *data);
	int priority;
};
#define NOTIFY_DONE			0
#define notifier_from_errno(err)	(-(err))
static inline bool within_module_core(unsigned long addr,
				      const struct module *module)
{
	return addr - (unsigned long)module->core_layout.base <
	       module->core_layout.size;
}
static inline bool try_module_get(struct module *module)
{
	if (module->state != MODULE_STATE_LIVE)
		return false;
	module->refs++;
	return true;
}
static inline void module_put(struct module *module)
{
	if (module->refs-- <= 0)
		abort();
}
struct module *find_module(const char *name);
/* The first and the last who are told of modules. */
extern struct notifier_block *shim_notifiers[2];
#define register_module_notifier(nb)	\
	(shim_notifiers[(nb)->priority < 0] = (nb), 0)
#define unregister_module_notifier(nb)	\
	(shim_notifiers[(nb)->priority < 0] = NULL)

/* Pages: an area is mapped twice, and the second mapping can be written. */
#define PAGE_SIZE			4096UL
#define PAGE_MASK			(~(PAGE_SIZE - 1))
#define PFN_UP(x)			(((x) + PAGE_SIZE - 1) / PAGE_SIZE)
#define offset_in_page(p)		((unsigned long)(p) & ~PAGE_MASK)
#define VM_MAP				0
#define PAGE_KERNEL			0
struct page;
#define lm_alias(p)			(p)
bool shim_is_image(const void *addr);
bool shim_is_module(const void *addr);
#define virt_addr_valid(p)		shim_is_image(p)
#define virt_to_page(p)			((struct page *)(p))
#define is_vmalloc_addr(p)		shim_is_module(p)
#define vmalloc_to_page(p)		\
	(shim_is_module(p) ? (struct page *)(p) : NULL)
void *vmap(struct page **pages, unsigned int n, int flags, int prot);
#define vunmap(p)			((void)(p))

#define TASK_COMM_LEN			16

#endif /* SHIM_H */
