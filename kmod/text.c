// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bytes of code and of constants: computing a jump, mapping a spot writably a
 * second time, and writing it. The mapping that the CPUs use stays read-only
 * throughout.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "arch.h"
#include "core.h"

static u64 splice_mask(unsigned int bits)
{
	return bits >= 64 ? ~0ULL : (1ULL << bits) - 1;
}

/**
 * splice_encode() - compute the bytes of a site's jump
 * @site: the site
 * @bytes: where they go, SPLICE_SITE_MAX of them
 *
 * Return: 0, -ERANGE if the target is too far away, -EINVAL for a field that
 * lies outside the jump.
 */
int splice_encode(const struct splice_site *site, u8 *bytes)
{
	unsigned long from = (unsigned long)site->addr + site->bias;
	s64 disp = (s64)((unsigned long)site->target -
			 ALIGN_DOWN(from, (unsigned long)site->granule));
	unsigned int i;

	if (site->range_bits && site->range_bits < 64) {
		s64 limit = 1LL << (site->range_bits - 1);

		if (disp < -limit || disp >= limit)
			return -ERANGE;
	}
	memcpy(bytes, site->template, SPLICE_SITE_MAX);
	for (i = 0; i < site->nfields; i++) {
		const struct splice_field *field = &site->fields[i];
		u64 mask, word;
		unsigned int b;

		if (!field->size || field->size > 8 || field->shift > 63 ||
		    !field->bits ||
		    field->word + field->size > site->len ||
		    field->position + field->bits > field->size * 8)
			return -EINVAL;
		mask = splice_mask(field->bits) << field->position;
		word = (u64)((disp + field->add) >> field->shift);
		word = (word << field->position) & mask;
		for (b = 0; b < field->size; b++) {
			u8 *byte = &bytes[field->word + b];

			*byte &= ~(u8)(mask >> (8 * b));
			*byte |= (u8)(word >> (8 * b));
		}
	}
	return 0;
}

static struct page *splice_page(const struct splice_spot *spot,
				unsigned long addr)
{
	/* arm64 maps the image itself among these (map_kernel_segment()). */
	if (spot->module || is_vmalloc_addr((void *)addr))
		return vmalloc_to_page((void *)addr);
	if (!virt_addr_valid(lm_alias((void *)addr)))
		return NULL;
	return virt_to_page(lm_alias((void *)addr));
}

/**
 * splice_map() - map a spot's pages writably
 * @spot: the spot; its module, if it has one, is referenced
 *
 * Return: 0, -EFAULT if there is no memory behind the address, -ENOMEM.
 */
int splice_map(struct splice_spot *spot)
{
	unsigned long first = spot->addr & PAGE_MASK;
	unsigned int i, n = PFN_UP(offset_in_page(spot->addr) + spot->len);
	struct page **pages = kvmalloc_array(n, sizeof(*pages), GFP_KERNEL);
	int err = 0;

	if (!pages)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		pages[i] = splice_page(spot, first + i * PAGE_SIZE);
		if (!pages[i])
			err = -EFAULT;
	}
	if (!err) {
		spot->map = vmap(pages, n, VM_MAP, PAGE_KERNEL);
		if (spot->map)
			spot->alias = (u8 *)spot->map + offset_in_page(spot->addr);
		else
			err = -ENOMEM;
	}
	kvfree(pages);
	return err;
}

/**
 * splice_unmap() - undo splice_map()
 * @spot: the spot, mapped or not
 */
void splice_unmap(struct splice_spot *spot)
{
	vunmap(spot->map);
	spot->map = NULL;
	spot->alias = NULL;
}

/**
 * splice_holds() - whether a spot's bytes are what they should be
 * @spot: the spot, mapped
 * @bytes: what they should be
 *
 * Both mappings are compared: that the second one shows the same memory is
 * not taken on trust.
 */
bool splice_holds(const struct splice_spot *spot, const u8 *bytes)
{
	return !memcmp((const void *)spot->addr, bytes, spot->len) &&
	       !memcmp(spot->alias, bytes, spot->len);
}

/* What the aligned word at @word will be: @bytes where they lie in it. */
static u64 splice_word(const struct splice_spot *spot, u8 *word,
		       const u8 *bytes)
{
	u8 *begin = max(word, spot->alias);
	u8 *end = min(word + sizeof(u64), spot->alias + spot->len);
	u64 value = *(u64 *)word;

	if (begin < end)
		memcpy((u8 *)&value + (begin - word),
		       bytes + (begin - spot->alias), end - begin);
	return value;
}

/* A site that lies in an aligned pair of words, in one store. */
static bool splice_write_pair(const struct splice_spot *spot, const u8 *bytes)
{
	u64 *pair = PTR_ALIGN_DOWN((u64 *)spot->alias, 2 * sizeof(u64));
	u64 old[2] = { pair[0], pair[1] };
	u64 new[2] = {
		splice_word(spot, (u8 *)pair, bytes),
		splice_word(spot, (u8 *)(pair + 1), bytes),
	};

	return spot->code && spot->alias + spot->len <= (u8 *)(pair + 2) &&
	       splice_store_pair(pair, old, new);
}

/**
 * splice_write() - write a spot's bytes, all CPUs being stopped
 * @spot: the spot, mapped
 * @bytes: what to write
 *
 * Each aligned 8-byte word changes in one store, so that whoever has stopped
 * between two loads of an object finds each pointer old or new, never mixed.
 * A site that lies in such a word, or in an aligned pair of them where the
 * CPU can store a pair, changes at once: a non-maskable interrupt, which the
 * stop does not hold off, finds the old code or the new. Functions are
 * aligned to 16 bytes and a site is within the first of them, unless the
 * compiler took the function for one that is seldom called.
 *
 * Any other site takes a store for each word, the word of its first byte
 * last. An interrupt of that kind would find the old first bytes and, behind
 * a word's boundary, new ones, if it came between two of these stores and its
 * handler called that function. Nothing that is generic for all processors
 * closes this window of a few instructions.
 */
void splice_write(const struct splice_spot *spot, const u8 *bytes)
{
	u8 *first = PTR_ALIGN_DOWN(spot->alias, sizeof(u64));
	u8 *word = PTR_ALIGN_DOWN(spot->alias + spot->len - 1, sizeof(u64));

	if (word == first || !splice_write_pair(spot, bytes))
		for (; word >= first; word -= sizeof(u64))
			WRITE_ONCE(*(u64 *)word, splice_word(spot, word, bytes));
	if (!spot->code)
		return;
	splice_flush((unsigned long)spot->alias,
		     (unsigned long)spot->alias + spot->len);
	splice_flush(spot->addr, spot->addr + spot->len);
}
