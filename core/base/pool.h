/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of objects of one size in memory of the caller's, so that the data path never allocates.
 * Free objects are poisoned under AddressSanitizer: a use after put is found where it happens.
 * One thread.
 */
#ifndef HOLDFAST_CORE_BASE_POOL_H
#define HOLDFAST_CORE_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/macros.h"

struct pool_slot;

struct pool {
	uint8_t *memory; /* borrowed until pool_deinit() */
	size_t object_bytes;
	size_t capacity;
	size_t free_count;
	struct pool_slot *free_first;
};

/* Memory for `capacity` objects, 0 when that overflows. It is aligned by the caller. */
size_t pool_memory_bytes(size_t object_bytes, size_t capacity);

/*
 * `memory` has pool_memory_bytes() and is aligned for the object and for a pointer. Objects lie
 * max(object_bytes, pointer), rounded up to a multiple of 8, apart.
 */
void pool_init(struct pool *pool, void *memory, size_t object_bytes, size_t capacity);

/* Gives the memory back, unpoisoned. Objects still out are the caller's to forget. */
void pool_deinit(struct pool *pool);

/* NULL when every object is out. The content is undefined. Last put, first out: it is warm. */
__must_check void *pool_get(struct pool *pool);

/* Zeroed. */
__must_check void *pool_get_zeroed(struct pool *pool);

/* `object` came from pool_get() of this pool. NULL is allowed. */
void pool_put(struct pool *pool, void *object);

#endif
