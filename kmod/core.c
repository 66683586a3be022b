// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registry: which updates are loaded, and the modules that they consist
 * of. Registering switches nothing.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/kernel.h>
#include <linux/kernfs.h>
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/version.h>

#include "core.h"

/* Held through every change of the registry and through every attempt. */
DEFINE_MUTEX(splice_mutex);
LIST_HEAD(splice_updates);

/**
 * struct splice_pin - a target that an update module keeps from being unloaded
 * @node: in splice_pins
 * @owner: the update module
 * @target: the target, referenced
 */
struct splice_pin {
	struct list_head node;
	const struct module *owner;
	struct module *target;
};

/* Protected by splice_mutex. */
static LIST_HEAD(splice_pins);

/**
 * splice_fail() - note why an attempt failed
 * @update: the update
 * @err: the error, which is returned
 * @fmt: the reason, a fragment without a newline
 *
 * Return: @err.
 */
int splice_fail(struct splice_update *update, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(update->error, sizeof(update->error), fmt, args);
	va_end(args);
	return err;
}

/*
 * Whether some memory is the update module's own. What describes an update is
 * believed no further than that: an update that was damaged, or made by
 * another program, is refused.
 */
static bool splice_has(const struct module *owner, const void *ptr,
		       size_t size)
{
	unsigned long first = (unsigned long)ptr, last = first + size - 1;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	enum mod_mem_type type;

	for_class_mod_mem_type(type, core)
		if (last >= first &&
		    within_module_mem_type(first, owner, type) &&
		    within_module_mem_type(last, owner, type))
			return true;
	return false;
#else
	return last >= first && within_module_core(first, owner) &&
	       within_module_core(last, owner);
#endif
}

static bool splice_has_array(const struct module *owner, const void *ptr,
			     u32 n, size_t size)
{
	return !n || (IS_ALIGNED((unsigned long)ptr, sizeof(long)) &&
		      splice_has(owner, ptr, n * size));
}

/* A string of less than @max bytes. */
static bool splice_has_text(const struct module *owner, const char *text,
			    size_t max)
{
	for (; max && splice_has(owner, text, 1); text++, max--)
		if (!*text)
			return true;
	return false;
}

static bool splice_id_ok(const struct module *owner, const char *id)
{
	if (!splice_has_text(owner, id, SPLICE_ID_MAX + 1) || !*id)
		return false;
	for (; *id; id++)
		if (!islower(*id) && !isdigit(*id) && *id != '-' && *id != '_')
			return false;
	return true;
}

static bool splice_site_ok(const struct module *owner,
			   const struct splice_site *site)
{
	return site->addr && site->len && site->len <= SPLICE_SITE_MAX &&
	       site->nfields <= SPLICE_FIELDS_MAX &&
	       is_power_of_2(site->granule) &&
	       splice_has(owner, site->target, 1) &&
	       splice_has(owner, site->expected, site->len);
}

static bool splice_object_ok(const struct module *owner,
			     const struct splice_object *object)
{
	return object->addr && object->len &&
	       splice_has(owner, object->data, object->len) &&
	       splice_has(owner, object->expected, object->len);
}

static bool splice_hook_ok(const struct module *owner,
			   const struct splice_hook *hook)
{
	return hook->step < SPLICE_STEPS &&
	       splice_has(owner, hook->ask, sizeof(*hook->ask)) &&
	       splice_has(owner, hook->ask->fn, 1);
}

static bool splice_shadow_ok(const struct module *owner,
			     const struct splice_shadow *shadow)
{
	return splice_has(owner, shadow, sizeof(*shadow)) && shadow->size &&
	       (!shadow->ctor || splice_has(owner, shadow->ctor, 1)) &&
	       (!shadow->dtor || splice_has(owner, shadow->dtor, 1));
}

static bool splice_part_ok(const struct module *owner,
			   const struct splice_part *part)
{
	bool ok = true;
	u32 i;

	if (part->abi != SPLICE_ABI) {
		pr_err("an update for interface %u, this is %u\n",
		       part->abi, SPLICE_ABI);
		return false;
	}
	if (!owner || !splice_has(owner, part, sizeof(*part)) ||
	    !splice_id_ok(owner, part->id) || !part->nparts ||
	    !splice_has_text(owner, part->description, PAGE_SIZE) ||
	    (part->target &&
	     !splice_has_text(owner, part->target, MODULE_NAME_LEN)) ||
	    (!part->nsites && !part->nobjects && !part->nhooks) ||
	    (part->nsites && !part->nranges) ||
	    !splice_has_array(owner, part->sites, part->nsites,
			      sizeof(*part->sites)) ||
	    !splice_has_array(owner, part->objects, part->nobjects,
			      sizeof(*part->objects)) ||
	    !splice_has_array(owner, part->ranges, part->nranges,
			      sizeof(*part->ranges)) ||
	    !splice_has_array(owner, part->hooks, part->nhooks,
			      sizeof(*part->hooks)) ||
	    !splice_has_array(owner, part->shadows, part->nshadows,
			      sizeof(*part->shadows)))
		return false;
	for (i = 0; ok && i < part->nsites; i++)
		ok = splice_site_ok(owner, &part->sites[i]);
	for (i = 0; ok && i < part->nobjects; i++)
		ok = splice_object_ok(owner, &part->objects[i]);
	for (i = 0; ok && i < part->nranges; i++)
		ok = part->ranges[i].start < part->ranges[i].end;
	for (i = 0; ok && i < part->nhooks; i++)
		ok = splice_hook_ok(owner, &part->hooks[i]);
	for (i = 0; ok && i < part->nshadows; i++)
		ok = splice_shadow_ok(owner, part->shadows[i]);
	return ok;
}

static struct splice_update *splice_find(const char *id)
{
	struct splice_update *update;

	list_for_each_entry(update, &splice_updates, node)
		if (!strcmp(update->id, id))
			return update;
	return NULL;
}

static struct splice_update *splice_create(const struct splice_part *part)
{
	struct splice_update *update = kzalloc(sizeof(*update), GFP_KERNEL);
	int err;

	if (!update)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&update->members);
	INIT_LIST_HEAD(&update->node);
	strscpy(update->id, part->id, sizeof(update->id));
	/* From here on the kobject owns the memory. */
	kobject_init(&update->kobj, &splice_update_type);
	update->description = kstrdup(part->description, GFP_KERNEL);
	err = update->description ? splice_sysfs_add(update) : -ENOMEM;
	if (err) {
		kobject_put(&update->kobj);
		return ERR_PTR(err);
	}
	list_add_tail(&update->node, &splice_updates);
	return update;
}

static int splice_set_parts(const char *text, const struct kernel_param *kp)
{
	struct splice_part *part = kp->arg;

	return kstrtouint(text, 0, &part->nparts);
}

static int splice_get_parts(char *buffer, const struct kernel_param *kp)
{
	const struct splice_part *part = kp->arg;

	return sysfs_emit(buffer, "%u\n", part->nparts);
}

const struct kernel_param_ops splice_part_ops = {
	.set = splice_set_parts,
	.get = splice_get_parts,
};
EXPORT_SYMBOL_GPL(splice_part_ops);

/* The part of an update module; NULL for any other module. */
static const struct splice_part *splice_part_of(const struct module *module)
{
	unsigned int i;

	for (i = 0; i < module->num_kp; i++)
		if (module->kp[i].ops == &splice_part_ops)
			return module->kp[i].arg;
	return NULL;
}

/* A reference on a module, if it is that load of it. */
static struct module *splice_get_module(const char *name, unsigned long load)
{
	struct module *module;

	rcu_read_lock_sched();
	module = find_module(name);
	if (module && (module->state != MODULE_STATE_LIVE ||
		       !try_module_get(module)))
		module = NULL;
	rcu_read_unlock_sched();
	if (module && kernfs_ino(module->mkobj.kobj.sd) != load) {
		module_put(module);
		module = NULL;
	}
	return module;
}

static struct splice_pin *splice_pin_of(const struct module *owner)
{
	struct splice_pin *pin;

	list_for_each_entry(pin, &splice_pins, node)
		if (pin->owner == owner)
			return pin;
	return NULL;
}

/* Lets go of what an update module holds, if it holds anything. */
static void splice_unpin(const struct module *owner)
{
	struct splice_pin *pin = splice_pin_of(owner);

	if (!pin)
		return;
	list_del(&pin->node);
	module_put(pin->target);
	kfree(pin);
}

/* Holds the target of an update module. */
static int splice_pin(const struct splice_part *part,
		      const struct module *owner)
{
	struct splice_pin *pin;

	if (!splice_has(owner, part, sizeof(*part)))
		return -EINVAL;
	if (!part->target)
		return 0;
	if (!splice_has_text(owner, part->target, MODULE_NAME_LEN))
		return -EINVAL;
	pin = kzalloc(sizeof(*pin), GFP_KERNEL);
	if (!pin)
		return -ENOMEM;
	pin->owner = owner;
	pin->target = splice_get_module(part->target, part->load);
	if (!pin->target) {
		pr_err("module %s is not loaded, or was loaded anew\n",
		       part->target);
		kfree(pin);
		return -ENODEV;
	}
	list_add_tail(&pin->node, &splice_pins);
	return 0;
}

/*
 * New code may have jump labels, static calls and the like whose keys are the
 * target's. The loader links them while a module is coming, and follows the
 * links again as it goes; so the target is held before the first of those who
 * do that hears of an update module, and until the last one has heard that it
 * goes.
 *
 * If one of those fails, only who heard of the module before it hears of its
 * end, which the last one did not. The target then stays until another update
 * module lies in the same place or the core goes.
 */
static int splice_module_comes(struct notifier_block *nb, unsigned long event,
			       void *data)
{
	const struct splice_part *part = splice_part_of(data);
	int err;

	if (event != MODULE_STATE_COMING || !part)
		return NOTIFY_DONE;
	mutex_lock(&splice_mutex);
	splice_unpin(data);
	err = splice_pin(part, data);
	mutex_unlock(&splice_mutex);
	return notifier_from_errno(err);
}

static int splice_module_goes(struct notifier_block *nb, unsigned long event,
			      void *data)
{
	if (event != MODULE_STATE_GOING || !splice_part_of(data))
		return NOTIFY_DONE;
	mutex_lock(&splice_mutex);
	splice_unpin(data);
	mutex_unlock(&splice_mutex);
	return NOTIFY_DONE;
}

static struct notifier_block splice_comes_nb = {
	.notifier_call = splice_module_comes,
	.priority = INT_MAX,
};

static struct notifier_block splice_goes_nb = {
	.notifier_call = splice_module_goes,
	.priority = INT_MIN,
};

/**
 * splice_register_part() - make an update module's part known
 * @part: the part, constant until it is unregistered
 * @owner: the update module, which all that describes the part lies in
 *
 * Return: 0, or a negative error number, for a part that is malformed, that
 * is registered already, that comes after its update was applied or whose
 * target is not held.
 */
int splice_register_part(const struct splice_part *part, struct module *owner)
{
	struct splice_update *update;
	struct splice_member *member;
	struct splice_pin *pin;
	int err = 0;

	if (!splice_part_ok(owner, part))
		return -EINVAL;
	member = kzalloc(sizeof(*member), GFP_KERNEL);
	if (!member)
		return -ENOMEM;
	member->part = part;
	member->owner = owner;

	mutex_lock(&splice_mutex);
	pin = splice_pin_of(owner);
	if (pin)
		member->target = pin->target;
	update = splice_find(part->id);
	if (part->target && !pin) {
		err = -ENODEV;
	} else if (!update) {
		update = splice_create(part);
		if (IS_ERR(update))
			err = PTR_ERR(update);
	} else if (update->nmembers >= part->nparts ||
		   update->state != SPLICE_LOADED) {
		err = -EEXIST;
	}
	if (!err) {
		list_add_tail(&member->node, &update->members);
		update->nmembers++;
	}
	mutex_unlock(&splice_mutex);
	if (err)
		kfree(member);
	return err;
}
EXPORT_SYMBOL_GPL(splice_register_part);

/**
 * splice_unregister_part() - forget an update module's part
 * @part: the part
 *
 * Called as its module goes, which an applied update's cannot.
 */
void splice_unregister_part(const struct splice_part *part)
{
	struct splice_update *update, *last = NULL;
	struct splice_member *member;

	mutex_lock(&splice_mutex);
	update = splice_find(part->id);
	if (update) {
		list_for_each_entry(member, &update->members, node) {
			if (member->part != part)
				continue;
			list_del(&member->node);
			kfree(member);
			update->nmembers--;
			break;
		}
		if (!update->nmembers) {
			list_del_init(&update->node);
			last = update;
		}
	}
	mutex_unlock(&splice_mutex);
	/*
	 * Not under the mutex: this waits for readers and writers of the
	 * update's files, who take it.
	 */
	if (last) {
		kobject_del(&last->kobj);
		kobject_put(&last->kobj);
	}
}
EXPORT_SYMBOL_GPL(splice_unregister_part);

static int __init splice_init(void)
{
	int err = splice_shadow_init();

	if (err)
		return err;
	err = register_module_notifier(&splice_comes_nb);
	if (err)
		goto shadow;
	err = register_module_notifier(&splice_goes_nb);
	if (err)
		goto comes;
	err = splice_sysfs_init();
	if (err)
		goto goes;
	return 0;

goes:
	unregister_module_notifier(&splice_goes_nb);
comes:
	unregister_module_notifier(&splice_comes_nb);
shadow:
	splice_shadow_exit();
	return err;
}

static void __exit splice_exit(void)
{
	struct splice_pin *pin, *next;

	/* Update modules use this one's symbols, so none is loaded now. */
	splice_sysfs_exit();
	unregister_module_notifier(&splice_goes_nb);
	unregister_module_notifier(&splice_comes_nb);
	list_for_each_entry_safe(pin, next, &splice_pins, node)
		splice_unpin(pin->owner);
	splice_shadow_exit();
}

module_init(splice_init);
module_exit(splice_exit);
MODULE_DESCRIPTION("splice: switches running code to an update's");
MODULE_LICENSE("GPL");
