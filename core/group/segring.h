/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments in memory: a ring of bytes handed out and freed in sequence order.
 *
 * One region, taken at start, holds every segment that is being built, written, shipped from
 * memory, received or waiting to be applied. A segment's block is contiguous:
 *
 *   | head space 16 KiB | data area | LZ4 form, if it has one |        (a sealed local segment)
 *   | stored form as received | unpacked data, if it was LZ4 |         (a received or replayed one)
 *
 * Blocks are taken at the head and freed from the tail once every holder let go ("memory by
 * sequence"): nothing is freed one by one, nothing is allocated after start. Segments are in seq
 * order: before the sequence starts anew (journal_reset) every one is released. Owner: the group's
 * loop thread.
 */
#ifndef HOLDFAST_CORE_GROUP_SEGRING_H
#define HOLDFAST_CORE_GROUP_SEGRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/list.h"
#include "core/io/io.h"
#include "proto/segment.h"

struct journal;
struct segring;

struct segment {		      /* descriptor; lives as long as its block */
	struct segment_header header; /* complete once sealed or received */
	uint8_t *block;		      /* 4096-aligned */
	size_t block_bytes;
	uint8_t *table;	     /* header.records encoded records */
	uint8_t *data;	     /* unpacked data area; NULL until unpacked (received LZ4 segments) */
	uint8_t *stored;     /* header.total_bytes, 4096-aligned; NULL until sealed */
	uint64_t chain_next; /* chain value of the segment after it */
	unsigned holds;	     /* freed in turn when 0 */
	bool live;	     /* between begin and the moment the ring frees it */
	/* the ring's */
	struct segring *ring;
	size_t skip_bytes; /* at the region's end, too small for this block: freed with it */
	/* the journal's */
	struct journal *journal;
	struct io_op journal_op;
	struct list journal_link;
	uint32_t slot;
	uint64_t slot_off;
	uint8_t journal_state; /* slot and slot_off are final once JOURNAL_SEGMENT_DURABLE */
	/* the owner's (agent or engine) */
	struct list owner_link;
	uint64_t owner_tick;
	uint32_t owner_flags;
};

struct segring {
	struct io *io;
	uint8_t *base;
	size_t size_bytes, head, tail; /* offsets; head == tail and used == 0: empty */
	size_t used_bytes;
	struct segment *segments; /* circular array in sequence order */
	unsigned capacity, first, count;
	struct segment *open; /* begun and not yet trimmed: only the newest can be */
};

/* Takes `bytes` (rounded up to 4096) and descriptors for segments of at least 20 KiB each. 0 or
 * -ENOMEM. */
int segring_init(struct segring *ring, struct io *io, size_t bytes);
void segring_deinit(struct segring *ring);
/* Starts a block with room for `max_bytes` (contiguous, 4096-aligned); its descriptor is zeroed and
 * has one hold (the caller's). NULL: no room now. The previous block must have been trimmed. */
struct segment *segring_begin(struct segring *ring, size_t max_bytes);
/* Ends the newest block at `used_bytes` (rounded up to 4096); 0 takes it back entirely (holds must
 * be 1). */
void segring_trim(struct segring *ring, struct segment *segment, size_t used_bytes);
static inline void segring_hold(struct segment *segment)
{
	segment->holds++;
}
/* Drops one hold; blocks at the tail without holds are freed. Returns true when anything was freed.
 */
bool segring_release(struct segring *ring, struct segment *segment);
/* The live segment that contains `seq`, or NULL. Sealed or received ones only. O(log n). */
struct segment *segring_find(struct segring *ring, uint64_t seq);
static inline size_t segring_free_bytes(const struct segring *ring)
{
	return ring->size_bytes - ring->used_bytes;
}

#endif
