// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/splice: state, and one file per update by which an attempt is
 * asked for. Nothing else can be written.
 */
#include <linux/ctype.h>
#include <linux/kstrtox.h>
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

/* A thread's name may hold anything; here it is one word. */
static int splice_emit_comm(char *buf, int at, const char *comm)
{
	int begin = at;

	for (; *comm; comm++)
		at += isgraph(*comm) && *comm != '\\' ?
			sysfs_emit_at(buf, at, "%c", *comm) :
			sysfs_emit_at(buf, at, "\\x%02x", (u8)*comm);
	return at - begin;
}

static ssize_t conflicts_show(struct kobject *kobj,
			      struct kobj_attribute *attr, char *buf)
{
	struct splice_update *update = to_update(kobj);
	size_t i, n;
	int at = 0;

	mutex_lock(&splice_mutex);
	n = min_t(size_t, update->found, SPLICE_CONFLICTS_MAX);
	for (i = 0; i < n; i++) {
		const struct splice_conflict *conflict = &update->conflicts[i];

		at += sysfs_emit_at(buf, at, "%d ", conflict->pid);
		at += splice_emit_comm(buf, at, conflict->comm);
		at += sysfs_emit_at(buf, at, " 0x%lx %pS\n", conflict->addr,
				    (void *)conflict->addr);
	}
	if (update->found > n)
		at += sysfs_emit_at(buf, at, "and %zu more\n",
				    update->found - n);
	mutex_unlock(&splice_mutex);
	return at;
}

static ssize_t error_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	ssize_t len;

	mutex_lock(&splice_mutex);
	len = sysfs_emit(buf, "%s\n", to_update(kobj)->error);
	mutex_unlock(&splice_mutex);
	return len;
}

/* Where each site is and leads to, and the bytes of before. */
static ssize_t sites_show(struct kobject *kobj, struct kobj_attribute *attr,
			  char *buf)
{
	struct splice_member *member;
	int at = 0;
	u32 i;

	mutex_lock(&splice_mutex);
	list_for_each_entry(member, &to_update(kobj)->members, node)
		for (i = 0; i < member->part->nsites; i++)
			at += sysfs_emit_at(buf, at, "0x%lx 0x%lx %*phN\n",
				(unsigned long)member->part->sites[i].addr,
				(unsigned long)member->part->sites[i].target,
				member->part->sites[i].len,
				member->part->sites[i].expected);
	mutex_unlock(&splice_mutex);
	return at;
}

/*
 * What is replaced in place: address, length in bytes, where the bytes of
 * before are kept, name.
 */
static ssize_t objects_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	struct splice_member *member;
	int at = 0;
	u32 i;

	mutex_lock(&splice_mutex);
	list_for_each_entry(member, &to_update(kobj)->members, node)
		for (i = 0; i < member->part->nobjects; i++)
			at += sysfs_emit_at(buf, at, "0x%lx %zu 0x%lx %ps\n",
				(unsigned long)member->part->objects[i].addr,
				member->part->objects[i].len,
				(unsigned long)member->part->objects[i].expected,
				member->part->objects[i].addr);
	mutex_unlock(&splice_mutex);
	return at;
}

/* The update modules, by which a tool finds what to unload; what they patch. */
static ssize_t modules_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	struct splice_member *member;
	int at = 0;

	mutex_lock(&splice_mutex);
	list_for_each_entry(member, &to_update(kobj)->members, node)
		at += sysfs_emit_at(buf, at, "%s %s\n",
				    member->part->owner->name,
				    member->part->target ?: "vmlinux");
	mutex_unlock(&splice_mutex);
	return at;
}

/* The updates that cannot be undone before this one. */
static ssize_t stands_on_show(struct kobject *kobj,
			      struct kobj_attribute *attr, char *buf)
{
	struct splice_update *other;
	int at = 0;

	mutex_lock(&splice_mutex);
	list_for_each_entry(other, &splice_updates, node)
		if (splice_stands_on(to_update(kobj), other))
			at += sysfs_emit_at(buf, at, "%s\n", other->id);
	mutex_unlock(&splice_mutex);
	return at;
}

static struct kobj_attribute stands_on_attr = __ATTR_RO(stands_on);
static struct kobj_attribute modules_attr = __ATTR_RO(modules);
static struct kobj_attribute enabled_attr = __ATTR_RW_MODE(enabled, 0600);
static struct kobj_attribute state_attr = __ATTR_RO(state);
static struct kobj_attribute description_attr = __ATTR_RO(description);
static struct kobj_attribute conflicts_attr = __ATTR_RO_MODE(conflicts, 0400);
static struct kobj_attribute error_attr = __ATTR_RO_MODE(error, 0400);
static struct kobj_attribute sites_attr = __ATTR_RO_MODE(sites, 0400);
static struct kobj_attribute objects_attr = __ATTR_RO_MODE(objects, 0400);

static struct attribute *splice_update_attrs[] = {
	&enabled_attr.attr,
	&state_attr.attr,
	&description_attr.attr,
	&attempts_attr.attr,
	&pause_ns_attr.attr,
	&threads_attr.attr,
	&words_attr.attr,
	&cleared_attr.attr,
	&conflicts_attr.attr,
	&error_attr.attr,
	&sites_attr.attr,
	&objects_attr.attr,
	&modules_attr.attr,
	&stands_on_attr.attr,
	NULL,
};
ATTRIBUTE_GROUPS(splice_update);

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
