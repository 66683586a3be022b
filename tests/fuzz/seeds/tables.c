// SPDX-License-Identifier: GPL-2.0-or-later
// Rows of the tables that a kernel unit has: alternatives, jump labels, static calls, bug table,
// exception table, locks, unwind tables, start-up functions.
extern int printk(const char *, ...);
extern long key;
#define ALTERNATIVE asm volatile("661: .byte 0x90, 0x90, 0x90\n662:\n" \
	".pushsection .altinstructions,\"a\"\n.long 661b - ., 663f - .\n.word 0x1234\n.byte 3, 3\n.popsection\n" \
	".pushsection .altinstr_replacement,\"ax\"\n663: .byte 0x0f, 0x01, 0xcb\n.popsection")
#define UNWIND asm volatile("661:\n.pushsection .orc_unwind_ip,\"a\"\n.long 661b - .\n.popsection\n" \
	".pushsection .orc_unwind,\"a\"\n.word 8, 0, 0x15\n.popsection")
#define LOCKED(to) asm volatile(".pushsection .smp_locks,\"a\"\n.balign 4\n.long 671f - .\n.popsection\n" \
	"671: lock addq $1, %0" : "+m"(to))
#define WARN(line) asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n2: .long 1b - ., %c0 - .\n" \
	".word " #line ", 0x901\n.popsection" : : "i"(__FILE__))
#define RET asm volatile("1:\n.pushsection .return_sites,\"a\"\n.long 1b - .\n.popsection")

static int branch(void)
{
	asm goto("1: jmp %l[yes]\n.pushsection __jump_table,\"aw\"\n.balign 8\n"
		 ".long 1b - ., %l[yes] - .\n.quad key - .\n.popsection" : : : : yes);
	return 0;
yes:
	return 1;
}

long each(long *to)
{
	UNWIND;
	ALTERNATIVE;
	LOCKED(*to);
	if (branch())
		printk("on");
#ifdef AFTER
	WARN(7);
	if (*to > 9)
		printk("more");
#else
	WARN(5);
#endif
	UNWIND;
	RET;
	return *to;
}

int load(int *from)
{
	int x = 0;
	asm volatile("1: movl %1, %0\n2:\n.pushsection __ex_table,\"a\"\n.balign 4\n"
		     ".long 1b - ., 2b - ., 3\n.popsection" : "+r"(x) : "m"(*from));
#ifdef AFTER
	x += 2;
#endif
	return x;
}

int start(void) { return 0; }
asm(".pushsection .initcall6.init,\"a\"\n.long start - .\n.popsection");
asm(".pushsection .static_call_sites,\"aw\"\n.long load - ., key - .\n.popsection");
asm(".pushsection __mcount_loc,\"a\"\n.quad each, load\n.popsection");
long counter __attribute__((section(".data..percpu")));
