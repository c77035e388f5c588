/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/pool.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/base/must.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_POISONS 1
#endif
#endif

#ifdef POOL_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes)   ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

/* What a free object holds. */
struct pool_slot {
	struct pool_slot *next;
};

static size_t stride_of(size_t object_bytes)
{
	return (size_t)round_up(max_size(object_bytes, sizeof(struct pool_slot)), 8);
}

size_t pool_memory_bytes(size_t object_bytes, size_t capacity)
{
	size_t total = 0;

	if (object_bytes > SIZE_MAX / 2 || !mul_size(stride_of(object_bytes), capacity, &total))
		return 0;
	return total;
}

void pool_init(struct pool *pool, void *memory, size_t object_bytes, size_t capacity)
{
	size_t i;

	must(is_aligned((uintptr_t)memory, _Alignof(struct pool_slot)));
	*pool = (struct pool){
		.memory = memory,
		.object_bytes = stride_of(object_bytes),
		.capacity = capacity,
	};
	/* Backwards, so that the first object is the first to go out. */
	for (i = capacity; i > 0; i--)
		pool_put(pool, pool->memory + (i - 1) * pool->object_bytes);
}

void pool_deinit(struct pool *pool)
{
	ASAN_UNPOISON_MEMORY_REGION(pool->memory, pool->object_bytes * pool->capacity);
	*pool = (struct pool){ 0 };
}

void *pool_get(struct pool *pool)
{
	struct pool_slot *slot = pool->free_first;

	if (!slot)
		return NULL;
	ASAN_UNPOISON_MEMORY_REGION(slot, pool->object_bytes);
	pool->free_first = slot->next;
	pool->free_count--;
	return slot;
}

void *pool_get_zeroed(struct pool *pool)
{
	void *object = pool_get(pool);

	if (object)
		memset(object, 0, pool->object_bytes);
	return object;
}

void pool_put(struct pool *pool, void *object)
{
	struct pool_slot *slot = object;
	uintptr_t distance;

	if (!object)
		return;
	distance = (uintptr_t)object - (uintptr_t)pool->memory;
	must(distance < pool->object_bytes * pool->capacity);
	must(distance % pool->object_bytes == 0);
	must(pool->free_count < pool->capacity);
	slot->next = pool->free_first;
	pool->free_first = slot;
	pool->free_count++;
	ASAN_POISON_MEMORY_REGION(slot, pool->object_bytes);
}
