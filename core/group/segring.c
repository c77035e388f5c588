/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/segring.h"

#include <errno.h>
#include <string.h>

#include "core/base/macros.h"

#define BLOCK_ALIGN_BYTES   4096u
#define BLOCK_TYPICAL_BYTES (20u * 1024u)

int segring_init(struct segring *ring, struct io *io, size_t bytes)
{
	*ring = (struct segring){ .io = io };
	if (bytes == 0 || bytes > SIZE_MAX - BLOCK_ALIGN_BYTES)
		return -ENOMEM;
	ring->size_bytes = round_up(bytes, BLOCK_ALIGN_BYTES);
	ring->capacity = (unsigned)min_u64(UINT32_MAX / 2,
					   div_round_up(ring->size_bytes, BLOCK_TYPICAL_BYTES));
	ring->base = io_alloc(io, ring->size_bytes, BLOCK_ALIGN_BYTES);
	ring->segments =
		io_alloc(io, ring->capacity * sizeof(*ring->segments), _Alignof(struct segment));
	if (!ring->base || !ring->segments) {
		segring_deinit(ring);
		return -ENOMEM;
	}
	/* Registration only saves page pins; without it everything works the same. */
	(void)io_buffers(io, ring->base, ring->size_bytes);
	return 0;
}

void segring_deinit(struct segring *ring)
{
	if (ring->base)
		io_free(ring->io, ring->base);
	if (ring->segments)
		io_free(ring->io, ring->segments);
	*ring = (struct segring){ 0 };
}

static struct segment *segment_at(const struct segring *ring, unsigned index)
{
	return &ring->segments[(ring->first + index) % ring->capacity];
}

/* Where a block of that size can start, and what is left unused at the region's end for it. */
static bool find_room(const struct segring *ring, size_t bytes, size_t *ret_off, size_t *ret_skip)
{
	size_t behind;

	*ret_off = ring->head;
	*ret_skip = 0;
	if (ring->used_bytes > 0 && ring->head <= ring->tail)
		return ring->tail - ring->head >= bytes;
	behind = ring->size_bytes - ring->head;
	if (behind >= bytes)
		return true;
	*ret_off = 0;
	*ret_skip = behind;
	return ring->tail >= bytes;
}

struct segment *segring_begin(struct segring *ring, size_t max_bytes)
{
	struct segment *segment;
	size_t off, skip, bytes;

	must(!ring->open && max_bytes > 0);
	if (ring->count == ring->capacity || max_bytes > ring->size_bytes)
		return NULL;
	if (ring->used_bytes == 0)
		ring->head = ring->tail = 0;
	bytes = round_up(max_bytes, BLOCK_ALIGN_BYTES);
	if (!find_room(ring, bytes, &off, &skip))
		return NULL;
	segment = segment_at(ring, ring->count);
	*segment = (struct segment){
		.block = ring->base + off,
		.block_bytes = bytes,
		.holds = 1,
		.live = true,
		.ring = ring,
		.skip_bytes = skip,
	};
	ring->count++;
	ring->open = segment;
	ring->used_bytes += skip + bytes;
	ring->head = off + bytes == ring->size_bytes ? 0 : off + bytes;
	return segment;
}

static void take_back(struct segring *ring, struct segment *segment)
{
	size_t off = (size_t)(segment->block - ring->base);

	ring->used_bytes -= segment->block_bytes + segment->skip_bytes;
	ring->head = segment->skip_bytes ? ring->size_bytes - segment->skip_bytes : off;
	ring->count--;
	*segment = (struct segment){ 0 };
}

void segring_trim(struct segring *ring, struct segment *segment, size_t used_bytes)
{
	size_t off = (size_t)(segment->block - ring->base);
	size_t bytes = round_up(used_bytes, BLOCK_ALIGN_BYTES);

	must(ring->open == segment && bytes <= segment->block_bytes);
	ring->open = NULL;
	if (bytes == 0) {
		must(segment->holds == 1);
		take_back(ring, segment);
		return;
	}
	ring->used_bytes -= segment->block_bytes - bytes;
	segment->block_bytes = bytes;
	ring->head = off + bytes == ring->size_bytes ? 0 : off + bytes;
}

static void free_first(struct segring *ring)
{
	struct segment *segment = segment_at(ring, 0);
	size_t end = (size_t)(segment->block - ring->base) + segment->block_bytes;

	must(!list_linked(&segment->journal_link) && !list_linked(&segment->owner_link));
	ring->tail = end == ring->size_bytes ? 0 : end;
	ring->used_bytes -= segment->block_bytes + segment->skip_bytes;
	ring->first = (ring->first + 1) % ring->capacity;
	ring->count--;
	*segment = (struct segment){ 0 };
}

bool segring_release(struct segring *ring, struct segment *segment)
{
	bool freed = false;

	must(segment->live && segment->holds > 0);
	must(segment != ring->open || segment->holds > 1);
	segment->holds--;
	while (ring->count > 0 && segment_at(ring, 0)->holds == 0) {
		free_first(ring);
		freed = true;
	}
	return freed;
}

struct segment *segring_find(struct segring *ring, uint64_t seq)
{
	unsigned low = 0, high = ring->count;
	struct segment *segment;

	/* The newest may be one that is not sealed yet. */
	while (high > 0 && !segment_at(ring, high - 1)->stored)
		high--;
	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		segment = segment_at(ring, middle);
		if (segment_last_seq(&segment->header) < seq)
			low = middle + 1;
		else if (segment->header.first_seq > seq)
			high = middle;
		else
			return segment;
	}
	return NULL;
}
