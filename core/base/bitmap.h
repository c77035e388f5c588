/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bits in memory of the caller's: bit i is bit i % 64 of word i / 64. Bits behind `bits` in the
 * last word stay zero. One thread.
 */
#ifndef HOLDFAST_CORE_BASE_BITMAP_H
#define HOLDFAST_CORE_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	uint64_t *words; /* borrowed */
	uint64_t bits;
};

/* Bytes of memory that a bitmap of that many bits needs. */
size_t bitmap_memory_bytes(uint64_t bits);

/* `words` has bitmap_memory_bytes(bits); every bit is cleared. */
void bitmap_init(struct bitmap *bitmap, uint64_t *words, uint64_t bits);

/* Indices and ranges lie within the bitmap; that is the caller's to see to. */
bool bitmap_test(const struct bitmap *bitmap, uint64_t bit);
void bitmap_set(struct bitmap *bitmap, uint64_t bit);
void bitmap_clear(struct bitmap *bitmap, uint64_t bit);
void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t count);
void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t count);

/* The first set (clear) bit at or behind `from`; `bits` when there is none. */
uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from);
uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from);

uint64_t bitmap_count(const struct bitmap *bitmap);
uint64_t bitmap_count_range(const struct bitmap *bitmap, uint64_t first, uint64_t count);

#endif
