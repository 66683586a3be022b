// SPDX-License-Identifier: GPL-2.0-or-later
// Functions, a static local, strings, a switch table, a split-off part, data of each kind.
extern int printk(const char *, ...);
extern void stop(void) __attribute__((noreturn, cold));
static int limit = 3;
int shared[4];
static const int table[3] = { 1, 2, 3 };


static __attribute__((noinline)) int helper(int x)
{
	static int calls;
	calls += x;
#ifdef AFTER
	printk("%s: more\n", __func__);
#endif
	return calls * 3 + limit;
}

int select(int x)
{
	switch (x) {
	case 0: return shared[0];
	case 1: return helper(table[x]);
	case 2: return printk("two");
	case 3: return shared[3] + 1;
	case 4: return helper(x) - 7;
	case 5: stop();
	default: return x;
	}
}

static int first(int x)
{
	if (__builtin_expect(x > limit, 0)) {
		printk("%s: %d\n", __func__, x);
		stop();
	}
	return x;
}
#ifdef AFTER
static int second(int x) { return first(x) + helper(x + 1); }
int (*const ops[2])(int) = { first, second };
#else
int (*const ops[2])(int) = { first, helper };
#endif
int __attribute__((section(".init.text"))) setup(void) { return helper(limit); }
