/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/bitmap.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/base/macros.h"

#define WORD_BITS 64u

size_t bitmap_memory_bytes(uint64_t bits)
{
	return (size_t)div_round_up(bits, WORD_BITS) * sizeof(uint64_t);
}

void bitmap_init(struct bitmap *bitmap, uint64_t *words, uint64_t bits)
{
	bitmap->words = words;
	bitmap->bits = bits;
	if (bits > 0)
		memset(words, 0, bitmap_memory_bytes(bits));
}

static uint64_t mask_of(uint64_t bit)
{
	return UINT64_C(1) << (bit % WORD_BITS);
}

bool bitmap_test(const struct bitmap *bitmap, uint64_t bit)
{
	must(bit < bitmap->bits);
	return (bitmap->words[bit / WORD_BITS] & mask_of(bit)) != 0;
}

void bitmap_set(struct bitmap *bitmap, uint64_t bit)
{
	must(bit < bitmap->bits);
	bitmap->words[bit / WORD_BITS] |= mask_of(bit);
}

void bitmap_clear(struct bitmap *bitmap, uint64_t bit)
{
	must(bit < bitmap->bits);
	bitmap->words[bit / WORD_BITS] &= ~mask_of(bit);
}

/*
 * The part of [*first, end) that lies in *first's word, as a mask; moves *first to the next word.
 * Every range function is a loop over it.
 */
static uint64_t take_word(uint64_t *first, uint64_t end, uint64_t *ret_word)
{
	uint64_t low = *first % WORD_BITS;
	uint64_t count = min_u64(WORD_BITS - low, end - *first);
	uint64_t ones = count == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << count) - 1;

	*ret_word = *first / WORD_BITS;
	*first += count;
	return ones << low;
}

void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t word;

	must(range_valid(first, count, bitmap->bits));
	while (first < end) {
		uint64_t mask = take_word(&first, end, &word);

		bitmap->words[word] |= mask;
	}
}

void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t word;

	must(range_valid(first, count, bitmap->bits));
	while (first < end) {
		uint64_t mask = take_word(&first, end, &word);

		bitmap->words[word] &= ~mask;
	}
}

/* `flip` turns a search for clear bits into one for set bits. */
static uint64_t next(const struct bitmap *bitmap, uint64_t from, uint64_t flip)
{
	uint64_t word;

	while (from < bitmap->bits) {
		uint64_t mask = take_word(&from, bitmap->bits, &word);
		uint64_t found = (bitmap->words[word] ^ flip) & mask;

		if (found != 0)
			return word * WORD_BITS + (uint64_t)__builtin_ctzll(found);
	}
	return bitmap->bits;
}

uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from)
{
	return next(bitmap, from, 0);
}

uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from)
{
	return next(bitmap, from, UINT64_MAX);
}

uint64_t bitmap_count(const struct bitmap *bitmap)
{
	return bitmap_count_range(bitmap, 0, bitmap->bits);
}

uint64_t bitmap_count_range(const struct bitmap *bitmap, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t total = 0;
	uint64_t word;

	must(range_valid(first, count, bitmap->bits));
	while (first < end) {
		uint64_t mask = take_word(&first, end, &word);

		total += (uint64_t)__builtin_popcountll(bitmap->words[word] & mask);
	}
	return total;
}
