/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several entry points, code behind a function, a table in code, symbols without size. */
	.text
	.globl one, two, three
	.type one, @function
one:
	nop
two:
	call outside
	jmp 1f
	.size one, . - one
	.p2align 4
	.type three, @function
three:
1:	leaq table(%rip), %rax
	movslq (%rax, %rdi, 4), %rdx
#ifdef AFTER
	addq $4, %rdx
#endif
	ret
	.size three, . - three
behind:
	xorl %eax, %eax
	ret
	.section .rodata
table:
	.long 1b - ., two - ., behind - table
	.quad table + 4, behind
empty:
	.section .fixup, "ax"
	jmp behind
	.section .rodata.str1.1, "aMS", @progbits, 1
	.string "abc"
	.string ""
	.section .rodata.cst8, "aM", @progbits, 8
	.quad 1, 2
	.bss
	.lcomm room, 64
	.section .data..read_mostly, "aw"
	.quad room + 8, one
