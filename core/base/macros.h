/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things that every file needs: container_of, array_len, smallest and largest, rounding.
 * Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_MACROS_H
#define HOLDFAST_CORE_BASE_MACROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/must.h"

/* The result says whether the call worked; dropping it is a mistake. */
#ifndef __must_check
#define __must_check __attribute__((warn_unused_result))
#endif

/* The structure of `type` whose `member` is at `pointer`. A pointer of another type warns. */
#define container_of(pointer, type, member)                                                        \
	({                                                                                         \
		__typeof__(((type){ 0 }).member) *container_member = (pointer);                    \
		(type *)(void *)((char *)container_member - offsetof(type, member));               \
	})

/* Elements of an array; a pointer in its place does not compile. */
#define array_len(array)                                                                           \
	(sizeof(array) / sizeof((array)[0]) +                                                      \
	 0 * sizeof(struct {                                                                       \
		 _Static_assert(!__builtin_types_compatible_p(__typeof__(array),                   \
							      __typeof__(&(array)[0])),            \
				"array_len() of a pointer");                                       \
		 int unused;                                                                       \
	 }))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* a - b, or 0 where that would be negative. */
static inline uint64_t sub_floor_u64(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static inline bool is_power_of_two(uint64_t x)
{
	return x != 0 && (x & (x - 1)) == 0;
}

/* `align` is a power of two. round_up() of an outside value: round_up_checked() in checked.h. */
static inline uint64_t round_down(uint64_t x, uint64_t align)
{
	return x & ~(align - 1);
}

static inline uint64_t round_up(uint64_t x, uint64_t align)
{
	must(x <= UINT64_MAX - (align - 1));
	return (x + (align - 1)) & ~(align - 1);
}

static inline bool is_aligned(uint64_t x, uint64_t align)
{
	return (x & (align - 1)) == 0;
}

/* How many pieces of `divisor` cover `x`. */
static inline uint64_t div_round_up(uint64_t x, uint64_t divisor)
{
	return x / divisor + (x % divisor != 0);
}

#endif
