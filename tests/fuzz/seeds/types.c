// SPDX-License-Identifier: GPL-2.0-or-later
// Debug information with what the other pair has not: types without a tag, rows of rows, an
// enumeration whose values move, a variable, a declared type, inlined functions in one another
// and in a split-off part.
extern int printk(const char *, ...);
struct opaque;
enum state { IDLE,
#ifdef AFTER
	BUSY,
#endif
	DONE, STATES };
typedef struct { volatile long count; unsigned low : 4, high : 12; } counter;
struct item {
	struct opaque *owner;
	union { counter one; struct { char name[4], rest[2][3]; }; };
#ifdef AFTER
	short added;
#endif
	enum state state;
	struct item *(*next)(const struct item *);
	int tail[];
};
static struct item items[2][2];
static inline __attribute__((always_inline)) int worth(const counter *c)
{
#ifdef AFTER
	if (c->high > 9)
		return printk("high");
#endif
	return c->count * 3 + c->low;
}
static inline __attribute__((always_inline)) int all(const struct item *i)
{
	int sum = 0;
	for (; i; i = i->next(i))
		sum += worth(&i->one) + i->state;
	return sum;
}
extern void stop(const struct item *) __attribute__((noreturn, cold));
int g(int n)
{
	struct item *i = &items[n & 1][n >> 1];
	if (__builtin_expect(all(i) > 100, 0)) {
		printk("%d", worth(&i->one));
		stop(i);
	}
	return all(items[1]);
}
