/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few things that generic kernel headers do not offer under one name.
 *
 * splice_saved_sp():   where a thread that does not run has left its stack
 *                      pointer; 0 where that is not known.
 * splice_flush():      makes written code visible to instruction fetches. It
 *                      runs on one CPU, all others are stopped with
 *                      interrupts off, so it must not send an interrupt to
 *                      them and wait.
 * splice_serialise():  runs on every CPU after the write; drops whatever it
 *                      has fetched before.
 * splice_store_pair(): two words that lie in one aligned block of their size
 *                      change in one store, if the CPU has such a store.
 */
#ifndef SPLICE_ARCH_H
#define SPLICE_ARCH_H

#include <linux/atomic.h>
#include <linux/sched.h>
#include <asm/cacheflush.h>
#include <asm/processor.h>

#if defined(CONFIG_X86)
#include <linux/sync_core.h>
#define splice_saved_sp(t)		((t)->thread.sp)
#define splice_flush(start, end)	do { (void)(start); (void)(end); } while (0)
#define splice_serialise()		sync_core()
#elif defined(CONFIG_ARM64)
/* flush_icache_range() would interrupt the other CPUs and wait for them. */
#define splice_saved_sp(t)		thread_saved_sp(t)
#define splice_flush(start, end)	caches_clean_inval_pou(start, end)
#define splice_serialise()		isb()
#elif defined(CONFIG_RISCV)
#define splice_saved_sp(t)		((t)->thread.sp)
#define splice_flush(start, end)	do { (void)(start); (void)(end); } while (0)
#define splice_serialise()		local_flush_icache_all()
#else
#error "splice does not know how to make written code visible here"
#endif

static inline bool splice_store_pair(u64 *pair, const u64 *old, const u64 *new)
{
#if defined(system_has_cmpxchg128)
	if (system_has_cmpxchg128()) {
		u128 from, to;

		memcpy(&from, old, sizeof(from));
		memcpy(&to, new, sizeof(to));
		return cmpxchg128((u128 *)pair, from, to) == from;
	}
#elif defined(system_has_cmpxchg_double) && defined(CONFIG_64BIT)
	if (system_has_cmpxchg_double())
		return cmpxchg_double((unsigned long *)pair,
				      (unsigned long *)pair + 1,
				      (unsigned long)old[0],
				      (unsigned long)old[1],
				      (unsigned long)new[0],
				      (unsigned long)new[1]);
#endif
	return false;
}

#endif /* SPLICE_ARCH_H */
