// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/splice: state, and one file per update by which an attempt is
 * asked for. Nothing else can be written.
 */
#include <linux/ctype.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "core.h"

static struct kobject *splice_root;

static struct splice_update *to_update(struct kobject *kobj)
{
	return container_of(kobj, struct splice_update, kobj);
}

static ssize_t abi_show(struct kobject *kobj, struct kobj_attribute *attr,
			char *buf)
{
	return sysfs_emit(buf, "%d\n", SPLICE_ABI);
}

static struct kobj_attribute abi_attr = __ATTR_RO(abi);

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%d\n",
			  to_update(kobj)->state == SPLICE_APPLIED);
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t len)
{
	struct splice_update *update = to_update(kobj);
	bool apply = true, replace = sysfs_streq(buf, "replace");
	int err;

	err = replace ? 0 : kstrtobool(buf, &apply);
	if (err)
		return err;
	err = mutex_lock_killable(&splice_mutex);
	if (err)
		return err;
	err = list_empty(&update->node) ? -ENODEV :
					  splice_switch(update, apply, replace);
	mutex_unlock(&splice_mutex);
	return err ?: len;
}

static ssize_t state_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  to_update(kobj)->state == SPLICE_APPLIED ?
			  "applied" : "loaded");
}

static ssize_t description_show(struct kobject *kobj,
				struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%s\n", to_update(kobj)->description);
}

static ssize_t attempts_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(to_update(kobj)->attempts));
}

static struct kobj_attribute attempts_attr = __ATTR_RO(attempts);

static ssize_t pause_ns_show(struct kobject *kobj, struct kobj_attribute *attr,
			     char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(to_update(kobj)->pause_ns));
}

static struct kobj_attribute pause_ns_attr = __ATTR_RO(pause_ns);

static ssize_t threads_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(to_update(kobj)->threads));
}

static struct kobj_attribute threads_attr = __ATTR_RO(threads);

static ssize_t words_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(to_update(kobj)->words));
}

static struct kobj_attribute words_attr = __ATTR_RO(words);

static ssize_t cleared_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%llu\n", READ_ONCE(to_update(kobj)->cleared));
}

static struct kobj_attribute cleared_attr = __ATTR_RO(cleared);

static ssize_t error_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	ssize_t len;

	mutex_lock(&splice_mutex);
	len = sysfs_emit(buf, "%s\n", to_update(kobj)->error);
	mutex_unlock(&splice_mutex);
	return len;
}

/*
 * A file that lists things, one a line. There is no limit to how many, so it
 * is read in pieces.
 */
struct splice_list {
	struct bin_attribute attr;
	/* Prints as snprintf() does, at most @size bytes; how many it takes. */
	size_t (*print)(const struct splice_update *update, char *buf,
			size_t size);
};

static ssize_t splice_list_read(struct file *file, struct kobject *kobj,
				struct bin_attribute *attr, char *buf,
				loff_t off, size_t count)
{
	const struct splice_list *list =
		container_of(attr, struct splice_list, attr);
	const struct splice_update *update = to_update(kobj);
	ssize_t len = -ENOMEM;
	size_t size;
	char *text;

	mutex_lock(&splice_mutex);
	size = list->print(update, NULL, 0);
	text = kvmalloc(size + 1, GFP_KERNEL);
	if (text) {
		list->print(update, text, size + 1);
		len = memory_read_from_buffer(buf, count, &off, text, size);
	}
	mutex_unlock(&splice_mutex);
	kvfree(text);
	return len;
}

#define SPLICE_LIST(_name, _mode)					\
	static struct splice_list _name##_list = {			\
		.attr = {						\
			.attr = { .name = #_name, .mode = _mode },	\
			.read = splice_list_read,			\
		},							\
		.print = _name##_print,					\
	}

/* One more line behind @at bytes of a list; how many it takes. */
static __printf(4, 5) size_t splice_line(char *buf, size_t size, size_t at,
					 const char *fmt, ...)
{
	va_list args;
	size_t len;

	at = min(at, size);
	va_start(args, fmt);
	len = vsnprintf(buf + at, size - at, fmt, args);
	va_end(args);
	return len;
}

/* Where each site is and leads to, and the bytes of before. */
static size_t sites_print(const struct splice_update *update, char *buf,
			  size_t size)
{
	struct splice_member *member;
	size_t at = 0;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		for (i = 0; i < member->part->nsites; i++)
			at += splice_line(buf, size, at, "0x%lx 0x%lx %*phN\n",
				(unsigned long)member->part->sites[i].addr,
				(unsigned long)member->part->sites[i].target,
				member->part->sites[i].len,
				member->part->sites[i].expected);
	return at;
}

/*
 * What is replaced in place: address, length in bytes, where the bytes of
 * before are kept, name.
 */
static size_t objects_print(const struct splice_update *update, char *buf,
			    size_t size)
{
	const struct splice_object *object;
	struct splice_member *member;
	size_t at = 0;
	u32 i;

	list_for_each_entry(member, &update->members, node)
		for (i = 0; i < member->part->nobjects; i++) {
			object = &member->part->objects[i];
			at += splice_line(buf, size, at,
					  "0x%lx %zu 0x%lx %ps\n",
					  (unsigned long)object->addr,
					  object->len,
					  (unsigned long)object->expected,
					  object->addr);
		}
	return at;
}

/* The update modules, by which a tool finds what to unload; what they patch. */
static size_t modules_print(const struct splice_update *update, char *buf,
			    size_t size)
{
	struct splice_member *member;
	size_t at = 0;

	list_for_each_entry(member, &update->members, node)
		at += splice_line(buf, size, at, "%s %s\n",
				  member->owner->name,
				  member->part->target ?: "vmlinux");
	return at;
}

/* The updates that cannot be undone before this one. */
static size_t stands_on_print(const struct splice_update *update, char *buf,
			      size_t size)
{
	struct splice_update *other;
	size_t at = 0;

	list_for_each_entry(other, &splice_updates, node)
		if (splice_stands_on(update, other))
			at += splice_line(buf, size, at, "%s\n", other->id);
	return at;
}

/* A thread's name may hold anything; here it is one word. */
static void splice_word(char *word, const char *comm)
{
	for (; *comm; comm++)
		word += sprintf(word, isgraph(*comm) && *comm != '\\' ?
				"%c" : "\\x%02x", (u8)*comm);
	*word = '\0';
}

/* Who was in the way of the last attempt, and where. */
static size_t conflicts_print(const struct splice_update *update, char *buf,
			      size_t size)
{
	size_t i, n = min_t(size_t, update->found, SPLICE_CONFLICTS_MAX);
	const struct splice_conflict *conflict;
	char word[TASK_COMM_LEN * 4];
	size_t at = 0;

	for (i = 0; i < n; i++) {
		conflict = &update->conflicts[i];
		splice_word(word, conflict->comm);
		at += splice_line(buf, size, at, "%d %s 0x%lx %pS\n",
				  conflict->pid, word, conflict->addr,
				  (void *)conflict->addr);
	}
	if (update->found > n)
		at += splice_line(buf, size, at, "and %zu more\n",
				  update->found - n);
	return at;
}

SPLICE_LIST(conflicts, 0400);
SPLICE_LIST(sites, 0400);
SPLICE_LIST(objects, 0400);
SPLICE_LIST(modules, 0444);
SPLICE_LIST(stands_on, 0444);

static struct bin_attribute *splice_update_lists[] = {
	&conflicts_list.attr,
	&sites_list.attr,
	&objects_list.attr,
	&modules_list.attr,
	&stands_on_list.attr,
	NULL,
};

static struct kobj_attribute enabled_attr = __ATTR_RW_MODE(enabled, 0600);
static struct kobj_attribute state_attr = __ATTR_RO(state);
static struct kobj_attribute description_attr = __ATTR_RO(description);
static struct kobj_attribute error_attr = __ATTR_RO_MODE(error, 0400);

static struct attribute *splice_update_attrs[] = {
	&enabled_attr.attr,
	&state_attr.attr,
	&description_attr.attr,
	&attempts_attr.attr,
	&pause_ns_attr.attr,
	&threads_attr.attr,
	&words_attr.attr,
	&cleared_attr.attr,
	&error_attr.attr,
	NULL,
};

static const struct attribute_group splice_update_group = {
	.attrs = splice_update_attrs,
	.bin_attrs = splice_update_lists,
};

static const struct attribute_group *splice_update_groups[] = {
	&splice_update_group,
	NULL,
};

static void splice_update_release(struct kobject *kobj)
{
	struct splice_update *update = to_update(kobj);

	kfree(update->description);
	kfree(update);
}

const struct kobj_type splice_update_type = {
	.release = splice_update_release,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = splice_update_groups,
};

/**
 * splice_sysfs_add() - give an update its directory
 * @update: the update, its kobject initialised
 *
 * Return: 0 or a negative error number.
 */
int splice_sysfs_add(struct splice_update *update)
{
	return kobject_add(&update->kobj, splice_root, "%s", update->id);
}

/**
 * splice_sysfs_init() - make /sys/kernel/splice
 *
 * Return: 0 or a negative error number.
 */
int splice_sysfs_init(void)
{
	int err;

	splice_root = kobject_create_and_add("splice", kernel_kobj);
	if (!splice_root)
		return -ENOMEM;
	err = sysfs_create_file(splice_root, &abi_attr.attr);
	if (err)
		kobject_put(splice_root);
	return err;
}

/**
 * splice_sysfs_exit() - remove /sys/kernel/splice
 */
void splice_sysfs_exit(void)
{
	kobject_put(splice_root);
}
