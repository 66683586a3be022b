// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Malformed transactions against the transaction core, in a process that is
 * built with sanitizers: valid updates are made, some bytes of what describes
 * them are replaced, and they are registered, applied, replaced, undone and
 * unregistered in any order, while allocations fail and threads are in the
 * way. Whatever happens, memory is what the applied updates say, no reference
 * and no allocation is left, and nothing outside of an update's own modules
 * and of what it may patch is touched.
 *
 * Usage: transaction ROUNDS SEED
 */
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"

#define AREAS		8
#define AREA_PAGES	4
#define STEP		((AREA_PAGES + 1) * PAGE_SIZE)
#define AREA_SIZE	(AREA_PAGES * PAGE_SIZE)
/* Of a module that is code. */
#define TEXT_SIZE	(PAGE_SIZE)
#define UPDATES		3
#define PARTS		2
#define SITES		4
#define OBJECTS		3

/* Area 0 is the image, area 1 the target module, the others update modules. */
static u8 *area[AREAS], *alias[AREAS];
static u8 pristine[2][AREA_SIZE], model[2][AREA_SIZE];
static struct module modules[AREAS];
static struct kernfs_node directories[AREAS];
struct notifier_block *shim_notifiers[2];
static u64 state;
static unsigned int failures;
/* How often what was met. */
static unsigned long refused, registered, applied, undone, busy, failed;

int shim_init(void);
void shim_exit(void);

static u64 any(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static u64 below(u64 end)
{
	return any() % end;
}

static void die(const char *why)
{
	fprintf(stderr, "%s\n", why);
	abort();
}

bool shim_fails(void)
{
	return failures && !below(failures);
}

static int area_of(const void *addr)
{
	int i;

	for (i = 0; i < AREAS; i++)
		if ((u8 *)addr >= area[i] && (u8 *)addr < area[i] + AREA_SIZE)
			return i;
	return -1;
}

bool shim_is_image(const void *addr)
{
	return area_of(addr) == 0;
}

bool shim_is_module(const void *addr)
{
	return area_of(addr) > 0;
}

struct module *find_module(const char *name)
{
	return strcmp(name, modules[1].name) ? NULL : &modules[1];
}

void *vmap(struct page **pages, unsigned int n, int flags, int prot)
{
	int i = area_of(pages[0]);

	if (shim_fails())
		return NULL;
	if (i < 0 || i > 1 + UPDATES * PARTS || area_of(pages[n - 1]) != i)
		die("pages that do not belong together are mapped");
	return alias[i] + ((u8 *)pages[0] - area[i]);
}

/* Sysfs, stacks and shadow variables are not what is tested here. */
static void release(struct kobject *kobj)
{
	struct splice_update *update =
		container_of(kobj, struct splice_update, kobj);

	kfree(update->description);
	kfree(update);
}

const struct kobj_type splice_update_type = { .release = release };

int splice_sysfs_init(void)
{
	return 0;
}

void splice_sysfs_exit(void)
{
}

int splice_sysfs_add(struct splice_update *update)
{
	return shim_fails() ? -ENOMEM : 0;
}

void splice_foresee(struct splice_stop *stop)
{
}

void splice_scan(struct splice_stop *stop)
{
	size_t i;

	for (i = 0; i < stop->nspans; i++)
		if (stop->spans[i].start >= stop->spans[i].end ||
		    (i && stop->spans[i - 1].end >= stop->spans[i].start))
			die("the spans are not in order");
	if (!below(8)) {
		stop->update->conflicts[0].pid = 1;
		stop->update->found = 1;
	}
}

int splice_shadow_init(void)
{
	return 0;
}

void splice_shadow_exit(void)
{
}

int splice_shadow_check(struct splice_stop *stop)
{
	return 0;
}

void splice_shadow_drop(struct splice_update *update)
{
}

/* An update module's memory, filled from the front. */
struct room {
	u8 *next;
	int index;
};

static void *take(struct room *room, const void *from, size_t size)
{
	void *place = room->next;

	room->next += ALIGN_DOWN(size + 15, 16);
	if (room->next > area[room->index] + AREA_SIZE)
		die("a module is too small");
	memcpy(alias[room->index] + ((u8 *)place - area[room->index]), from,
	       size);
	return place;
}

static struct splice_site site_at(struct room *room, u8 *addr)
{
	return (struct splice_site){
		.addr = addr,
		.target = area[room->index] + 16 * below(TEXT_SIZE / 16),
		.expected = take(room, addr, 5),
		.bias = 5,
		.granule = 1,
		.template = { 0xe9 },
		.fields = { { .word = 1, .size = 4, .bits = 32 } },
		.len = 5,
		.range_bits = 32,
		.nfields = 1,
	};
}

/* A part of which each site and object has room of its own. */
static struct splice_part *part_of(int number, int index, u32 nparts,
				   const char *target)
{
	struct room room = { area[index] + TEXT_SIZE, index };
	u8 *home = area[target ? 1 : 0];
	struct splice_site sites[SITES];
	struct splice_object objects[OBJECTS];
	struct splice_range ranges[SITES];
	char id[] = "update-0", data[64];
	struct splice_part part = {
		.abi = SPLICE_ABI,
		.nparts = nparts,
		.nsites = 1 + below(SITES),
		.nobjects = below(OBJECTS + 1),
	};
	u32 i;

	id[sizeof(id) - 2] += number;
	for (i = 0; i < part.nsites; i++) {
		u8 *function = home + 64 * (number * SITES + i);

		sites[i] = site_at(&room, function + below(32));
		ranges[i] = (struct splice_range){ function, function + 64 };
	}
	for (i = 0; i < part.nobjects; i++) {
		size_t len = 1 + below(sizeof(data)), j;
		/* Objects of several updates may be the same. */
		u8 *object = home + PAGE_SIZE + 64 * below(UPDATES * OBJECTS);

		for (j = 0; j < len; j++)
			data[j] = any();
		objects[i] = (struct splice_object){
			object, take(&room, object, len),
			take(&room, data, len), len
		};
	}
	part.nranges = part.nsites;
	part.id = take(&room, id, sizeof(id));
	part.description = take(&room, "a test", sizeof("a test"));
	part.target = target ? take(&room, target, strlen(target) + 1) : NULL;
	part.load = target ? modules[1].mkobj.kobj.sd->id : 0;
	part.sites = take(&room, sites, sizeof(*sites) * part.nsites);
	part.objects = take(&room, objects, sizeof(*objects) * part.nobjects);
	part.ranges = take(&room, ranges, sizeof(*ranges) * part.nranges);
	return take(&room, &part, sizeof(part));
}

/* What is likely to be taken for something else. */
static u64 odd(u64 now)
{
	int i = below(AREAS);

	switch (below(12)) {
	case 0: return 0;
	case 1: return ~0ULL;
	case 2: return now + 1;
	case 3: return now - 1;
	case 4: return (u64)area[i];
	case 5: return (u64)area[i] + AREA_SIZE - 1;
	case 6: return (u64)area[i] + AREA_SIZE;
	case 7: return (u64)area[i] + below(AREA_SIZE);
	case 8: return below(256);
	case 9: return now ^ 1ULL << below(64);
	case 10: return now << 1;
	default: return any();
	}
}

/* Replaces a number in the memory of an update module, behind its code. */
static void replace(int index, u8 *at, size_t size)
{
	size_t offset = at - area[index];
	u64 value = 0;

	if (offset < TEXT_SIZE || offset + size > AREA_SIZE)
		return;
	memcpy(&value, alias[index] + offset, size);
	value = odd(value);
	memcpy(alias[index] + offset, &value, size);
}

static void mutate(int index, const struct splice_part *part)
{
	size_t size = 1UL << below(4);
	const u8 *base;
	size_t len;

	switch (below(5)) {
	case 0:
		base = (const u8 *)part->sites;
		len = sizeof(*part->sites) * SITES;
		break;
	case 1:
		base = (const u8 *)part->objects;
		len = sizeof(*part->objects) * OBJECTS;
		break;
	case 2:
		base = (const u8 *)part->ranges;
		len = sizeof(*part->ranges) * SITES;
		break;
	case 3:
		base = area[index] + TEXT_SIZE;
		len = 512;
		break;
	default:
		base = (const u8 *)part;
		len = sizeof(*part);
	}
	if (area_of(base) != index)
		return;
	replace(index, (u8 *)base + ALIGN_DOWN(below(len), size), size);
}

/*
 * Hooks and what comes with shadow variables are code, which is called.
 */
static void keep(int index, const struct splice_part *part)
{
	struct splice_part *copy = (struct splice_part *)
		(alias[index] + ((u8 *)part - area[index]));

	copy->nhooks = 0;
	copy->nshadows = 0;
}

/* Memory must be what the applied updates have made of it. */
static void check(void)
{
	struct splice_update *update;
	size_t i;

	memcpy(model, pristine, sizeof(model));
	list_for_each_entry(update, &splice_updates, node) {
		if (update->state != SPLICE_APPLIED)
			continue;
		for (i = 0; i < update->nspots; i++) {
			struct splice_spot *spot = &update->spots[i];
			int index = area_of((void *)spot->addr);

			if (index == 0 || index == 1)
				memcpy(model[index] + (spot->addr -
					(unsigned long)area[index]),
				       spot->new, spot->len);
		}
	}
	for (i = 0; i < 2; i++)
		if (memcmp(area[i], model[i], AREA_SIZE))
			die("memory is not what the applied updates say");
}

/*
 * What the loader tells. Another one who is told that a module comes may fail;
 * then nobody hears of it any more.
 */
static bool comes(int index, const struct splice_part *part)
{
	static struct kernel_param kp[AREAS];
	struct notifier_block *first = shim_notifiers[0];

	kp[index] = (struct kernel_param){ &splice_part_ops, (void *)part };
	modules[index].kp = &kp[index];
	modules[index].num_kp = 1;
	return !first->notifier_call(first, MODULE_STATE_COMING,
				     &modules[index]) && !shim_fails();
}

static void goes(int index)
{
	struct notifier_block *last = shim_notifiers[1];

	last->notifier_call(last, MODULE_STATE_GOING, &modules[index]);
}

static void act(struct splice_update *update)
{
	bool apply = below(2), instead = !below(4);
	int err = splice_switch(update, apply, instead);

	if (err && !update->error[0])
		die("an attempt failed without a reason");
	if (err && memchr(update->error, 0, sizeof(update->error)) == NULL)
		die("a reason without end");
	if (!err && (update->state == SPLICE_APPLIED) != apply)
		die("an attempt went through and changed nothing");
	*(err == -EBUSY ? &busy : err ? &failed : apply ? &applied : &undone) += 1;
	check();
}

static void round_of(bool mutated)
{
	const struct splice_part *parts[UPDATES * PARTS] = {};
	bool known[UPDATES * PARTS] = {};
	struct splice_update *update;
	int i, n, tries;

	for (i = 0; i < UPDATES * PARTS; i++) {
		bool two = i / PARTS == UPDATES - 1;

		memset(alias[i + 2], 0, AREA_SIZE);
		if (i % PARTS && !two)
			continue;
		parts[i] = part_of(i / PARTS, i + 2, two ? 2 : 1,
				   i % PARTS ? modules[1].name : NULL);
		for (n = mutated ? below(4) : 0; n; n--)
			mutate(i + 2, parts[i]);
		keep(i + 2, parts[i]);
	}
	for (i = 0; i < UPDATES * PARTS; i++) {
		if (!parts[i])
			continue;
		if (comes(i + 2, parts[i])) {
			known[i] = !splice_register_part(parts[i],
							 &modules[i + 2]);
			if (!known[i])
				goes(i + 2);
		}
		registered += known[i];
		refused += !known[i];
	}
	check();
	for (tries = below(24); tries; tries--) {
		n = 0;
		list_for_each_entry(update, &splice_updates, node)
			n++;
		n = n ? below(n) : -1;
		list_for_each_entry(update, &splice_updates, node)
			if (n-- == 0) {
				act(update);
				break;
			}
	}
	/* All goes, the last first; only who is in the way may delay it. */
	failures = 0;
	for (tries = 0; tries < 1000; tries++) {
		bool done = true;

		list_for_each_entry_reverse(update, &splice_updates, node)
			if (update->state == SPLICE_APPLIED) {
				done = false;
				splice_switch(update, false, false);
				check();
				break;
			}
		if (done)
			break;
	}
	list_for_each_entry(update, &splice_updates, node)
		if (update->state == SPLICE_APPLIED)
			die(update->error);
	for (i = 0; i < UPDATES * PARTS; i++)
		if (known[i]) {
			splice_unregister_part(parts[i]);
			goes(i + 2);
		}
	if (!list_empty(&splice_updates))
		die("an update is left");
	shim_exit();
	for (i = 0; i < AREAS; i++)
		if (modules[i].refs)
			die("a module is still held");
	if (shim_init())
		die("the core cannot be started again");
}

/* Nobody's part, and one that lies in another module than it is said to. */
static void of_another_owner(void)
{
	const struct splice_part *part = part_of(0, 2, 1, NULL);

	if (!splice_register_part(part, NULL))
		die("a part without an owner is taken");
	if (!splice_register_part(part, &modules[3]))
		die("a part that is another module's is taken");
}

/* A target that is not the load that was matched, and nobody's at all. */
static void of_another_load(void)
{
	struct module *target = &modules[1];
	const struct splice_part *part = part_of(0, 2, 1, target->name);

	if (!splice_register_part(part, &modules[2]))
		die("a part is taken whose target is not held");
	target->mkobj.kobj.sd->id++;
	if (comes(2, part) || target->refs)
		die("an update holds another load of its target");
	target->mkobj.kobj.sd->id--;
	target->state = MODULE_STATE_GOING;
	if (comes(2, part) || target->refs)
		die("an update holds a target that goes");
	target->state = MODULE_STATE_LIVE;
	if (!comes(2, part) || target->refs != 1)
		die("an update that comes does not hold its target");
	/* The load fails; the next module comes to lie in its place. */
	if (!comes(2, part) || target->refs != 1)
		die("a target is held by a module that is not there");
	if (splice_register_part(part, &modules[2]))
		die("a part is not taken");
	splice_unregister_part(part);
	if (target->refs != 1)
		die("the target may go before the update module has");
	goes(2);
	if (target->refs)
		die("the target is held for nobody");
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 1000, i;
	int memory = memfd_create("areas", 0);
	u8 *base;

	state = 0x9e3779b97f4a7c15ULL ^ (argc > 2 ? atol(argv[2]) : 1);
	if (memory < 0 || ftruncate(memory, AREAS * STEP))
		die("no memory");
	/* What lies between two areas cannot be read. */
	base = mmap(NULL, AREAS * STEP, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	for (i = 0; i < AREAS; i++) {
		area[i] = mmap(base + i * STEP, AREA_SIZE, PROT_READ,
			       MAP_SHARED | MAP_FIXED, memory, i * STEP);
		alias[i] = mmap(NULL, AREA_SIZE, PROT_READ | PROT_WRITE,
				MAP_SHARED, memory, i * STEP);
		if (area[i] == MAP_FAILED || alias[i] == MAP_FAILED)
			die("no mapping");
		snprintf(modules[i].name, sizeof(modules[i].name), "module_%ld",
			 i);
		modules[i].core_layout = (struct shim_layout){
			area[i], AREA_SIZE, TEXT_SIZE
		};
		directories[i].id = 1000 + i;
		modules[i].mkobj.kobj.sd = &directories[i];
	}
	for (i = 0; i < AREA_SIZE; i++) {
		alias[0][i] = pristine[0][i] = any();
		alias[1][i] = pristine[1][i] = any();
	}
	if (shim_init())
		die("the core cannot be started");
	of_another_owner();
	of_another_load();
	for (i = 0; i < rounds; i++) {
		failures = below(2) ? 0 : 1 + below(40);
		round_of(below(8));
	}
	shim_exit();
	printf("%ld rounds: %lu parts registered, %lu refused; %lu switches on, %lu off, %lu found somebody in the way, %lu failed\n",
	       rounds, registered, refused, applied, undone, busy, failed);
	return 0;
}
