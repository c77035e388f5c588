/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic on numbers from outside. Each function is false, and leaves *ret alone, when the true
 * result does not fit. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_CHECKED_H
#define HOLDFAST_CORE_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/macros.h"

__must_check static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*ret = sum;
	return true;
}

__must_check static inline bool sub_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	if (b > a)
		return false;
	*ret = a - b;
	return true;
}

__must_check static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t product;

	if (__builtin_mul_overflow(a, b, &product))
		return false;
	*ret = product;
	return true;
}

__must_check static inline bool add_u32(uint32_t a, uint32_t b, uint32_t *ret)
{
	uint32_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*ret = sum;
	return true;
}

__must_check static inline bool add_size(size_t a, size_t b, size_t *ret)
{
	size_t sum;

	if (__builtin_add_overflow(a, b, &sum))
		return false;
	*ret = sum;
	return true;
}

__must_check static inline bool mul_size(size_t a, size_t b, size_t *ret)
{
	size_t product;

	if (__builtin_mul_overflow(a, b, &product))
		return false;
	*ret = product;
	return true;
}

/* `align` is a power of two. */
__must_check static inline bool round_up_checked(uint64_t x, uint64_t align, uint64_t *ret)
{
	uint64_t sum;

	if (!add_u64(x, align - 1, &sum))
		return false;
	*ret = round_down(sum, align);
	return true;
}

/* Whether [offset, offset + length) lies inside [0, size). An empty range at `size` does. */
static inline bool range_valid(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

/* Whether two ranges share a byte. Neither may wrap; an empty range shares nothing. */
static inline bool ranges_overlap(uint64_t a_offset, uint64_t a_length, uint64_t b_offset,
				  uint64_t b_length)
{
	if (a_length == 0 || b_length == 0)
		return false;
	return a_offset <= b_offset ? b_offset - a_offset < a_length
				    : a_offset - b_offset < b_length;
}

#endif
