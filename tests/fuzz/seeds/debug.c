// SPDX-License-Identifier: GPL-2.0-or-later
// Debug information: structures in structures, bit fields, an array, an inlined function.
struct inner {
	unsigned a : 3, b : 5;
#ifdef AFTER
	long more;
#endif
	int c[4];
};
union both { struct inner i; long l; };
struct outer { struct outer *next; union both u; enum { NO, YES } flag; };
static inline __attribute__((always_inline)) int sum(const struct inner *i)
{
	return i->c[0] + i->c[1] + i->a;
}
int f(struct outer *o) { return sum(&o->u.i) + o->flag; }
