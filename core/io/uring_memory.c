/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory, and the regions of it that are registered with the kernel (fewer page look-ups per I/O).
 *
 * A registered region pins its pages. If the memory were freed and its address used again, I/O by
 * region would go to the old pages; so freeing a block drops every region that touches it.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/*
 * Large blocks come straight from the kernel, as zero pages that take memory only where they are
 * touched: rings and buffer regions are sized for the worst case. A block may be freed on another
 * loop than it was taken on, so what is mapped is known per process.
 */
#define MAP_FROM_BYTES (1u << 20)
#define MAPS_MAX       4096u

static struct {
	pthread_mutex_t lock;
	struct iovec blocks[MAPS_MAX];
} maps = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The entry of a block, or a free one for NULL. The lock is held. */
static struct iovec *map_entry(const void *memory)
{
	for (unsigned i = 0; i < MAPS_MAX; i++) {
		if (maps.blocks[i].iov_base == memory)
			return &maps.blocks[i];
	}
	return NULL;
}

static void *map_block(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec *entry;

	if (memory == MAP_FAILED)
		return NULL;
	must(pthread_mutex_lock(&maps.lock) == 0);
	entry = map_entry(NULL);
	if (entry)
		*entry = (struct iovec){ .iov_base = memory, .iov_len = size };
	must(pthread_mutex_unlock(&maps.lock) == 0);
	if (!entry)
		munmap(memory, size);
	return entry ? memory : NULL;
}

/* The length of a mapped block, 0 when it is none; `forget` takes it out. */
static size_t map_len(const void *memory, bool forget)
{
	struct iovec *entry;
	size_t len = 0;

	must(pthread_mutex_lock(&maps.lock) == 0);
	entry = map_entry(memory);
	if (entry) {
		len = entry->iov_len;
		if (forget)
			*entry = (struct iovec){ 0 };
	}
	must(pthread_mutex_unlock(&maps.lock) == 0);
	return len;
}

void *uring_alloc(struct io *io, size_t size, size_t align)
{
	void *memory = NULL;

	(void)io;
	must(is_power_of_two(align) && align >= sizeof(void *));
	if (size >= MAP_FROM_BYTES && align <= 4096)
		return map_block(size);
	if (posix_memalign(&memory, align, max_size(size, 1)) != 0)
		return NULL;
	memset(memory, 0, size);
	return memory;
}

static void region_update(struct uring *loop, unsigned index)
{
	struct region *region = &loop->regions[index];
	struct iovec iov = { .iov_base = region->base, .iov_len = region->len };
	__u64 tag = 0;

	if (!loop->ring_ready || !loop->regions_enabled)
		return;
	region->registered =
		io_uring_register_buffers_update_tag(&loop->ring, index, &iov, &tag, 1) == 1 &&
		region->base;
}

void uring_release(struct io *io, void *memory)
{
	struct uring *loop = uring_of(io);
	uint8_t *begin = memory;
	size_t len;

	if (!memory)
		return;
	len = map_len(memory, false);
	if (len == 0)
		len = malloc_usable_size(memory);
	for (unsigned i = 0; i < loop->region_count; i++) {
		struct region *region = &loop->regions[i];

		if (!region->base || region->base >= begin + len ||
		    region->base + region->len <= begin)
			continue;
		*region = (struct region){ 0 };
		region_update(loop, i);
	}
	len = map_len(memory, true);
	if (len > 0)
		munmap(memory, len);
	else
		free(memory);
}

int uring_buffers(struct io *io, void *base, size_t len)
{
	struct uring *loop = uring_of(io);
	uint8_t *next = base;
	bool all = true;

	for (unsigned i = 0; i < REGIONS_MAX && len > 0; i++) {
		struct region *region = &loop->regions[i];

		if (region->base)
			continue;
		region->base = next;
		region->len = min_size(len, REGION_BYTES_MAX);
		loop->region_count = max_u32(loop->region_count, i + 1);
		region_update(loop, i);
		if (loop->ring_ready && !region->registered)
			all = false;
		next += region->len;
		len -= region->len;
	}
	if (len > 0)
		return -ENOSPC;
	return all ? 0 : -ENOMEM;
}

void regions_start(struct uring *loop)
{
	loop->regions_enabled = io_uring_register_buffers_sparse(&loop->ring, REGIONS_MAX) == 0;
	for (unsigned i = 0; i < REGIONS_MAX; i++) {
		if (loop->regions[i].base)
			region_update(loop, i);
	}
}

int region_find(const struct uring *loop, const void *base, size_t len)
{
	const uint8_t *begin = base;

	for (unsigned i = 0; i < loop->region_count; i++) {
		const struct region *region = &loop->regions[i];

		if (region->registered && begin >= region->base &&
		    begin < region->base + region->len &&
		    len <= (size_t)(region->base + region->len - begin))
			return (int)i;
	}
	return -1;
}

uint64_t uring_random(struct io *io)
{
	struct uring *loop = uring_of(io);

	if (loop->random_left == 0) {
		must(getrandom(loop->random, sizeof(loop->random), 0) ==
		     (ssize_t)sizeof(loop->random));
		loop->random_left = RANDOM_WORDS;
	}
	return loop->random[--loop->random_left];
}
