/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An ordered map of extents that do not overlap: [offset, end) -> where its bytes are. It is the
 * write set (what is acknowledged and not yet on the volume) and whatever else needs "newest
 * version of each byte range". Inserting replaces what it overlaps; an extent that is cut keeps the
 * rest, with its data offset moved along.
 *
 * A treap over nodes in memory of the caller's: nothing is allocated after init, every operation is
 * O(log n) plus the extents it touches. One thread. The map never looks behind `owner`.
 */
#ifndef HOLDFAST_CORE_BASE_EXTMAP_H
#define HOLDFAST_CORE_BASE_EXTMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/macros.h"
#include "core/base/prng.h"

enum extmap_condition {
	EXTMAP_E_FULL = 1, /* too few free nodes for the worst case; nothing was changed */
};

struct extmap_value {
	void *owner;		    /* whose bytes, for example a segment; borrowed */
	uint64_t seq;		    /* which version */
	uint64_t data_offset_bytes; /* where in the owner's data the extent's first byte is */
};

struct extmap_node {
	struct extmap_node *parent;
	struct extmap_node *left;
	struct extmap_node *right; /* in the free list: next free */
	uint64_t priority;	   /* heap order; the root has the largest */
	uint64_t offset_bytes;
	uint64_t end_bytes;
	struct extmap_value value;
};

struct extmap {
	struct extmap_node *root;
	struct extmap_node *free_first;
	size_t count;	   /* extents in the map */
	size_t free_count; /* nodes left */
	uint64_t covered_bytes;
	struct prng prng;
};

/* One step of a walk over a range: a run that the map covers, or a gap. */
struct extmap_piece {
	uint64_t offset_bytes;
	uint64_t length_bytes;
	bool covered;
	struct extmap_value value; /* covered: data_offset_bytes is that of offset_bytes */
};

/* `nodes` (borrowed) are `node_count` nodes. Any `seed` does; it shapes the tree, not the content.
 */
void extmap_init(struct extmap *map, struct extmap_node *nodes, size_t node_count, uint64_t seed);

/*
 * Maps [offset, offset + length) to `value`, replacing what was there. Length is not 0, the range
 * does not wrap. 0, or EXTMAP_E_FULL when fewer than two nodes are free (an insert into the middle
 * of an extent adds two).
 */
__must_check int extmap_insert(struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes,
			       const struct extmap_value *value);

/*
 * Unmaps, inside [offset, offset + length), what belongs to `owner` (NULL: anybody) and has a seq
 * of at most `seq_max`. Newer or foreign extents stay. 0, or EXTMAP_E_FULL when it would cut a hole
 * into one extent and no node is free for the second half. Removing with the ranges and owners of
 * earlier inserts never cuts, so it never fails.
 */
__must_check int extmap_remove(struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes,
			       const void *owner, uint64_t seq_max);

/* Unmaps everything. */
void extmap_clear(struct extmap *map);

/*
 * The piece that begins at `offset`, cut off at `end`: the covered run of one extent, or the gap up
 * to the next one. offset < end. The map may change between two calls.
 */
struct extmap_piece extmap_piece_at(const struct extmap *map, uint64_t offset_bytes,
				    uint64_t end_bytes);

/* Whether any byte of the range is covered. */
bool extmap_overlaps(const struct extmap *map, uint64_t offset_bytes, uint64_t length_bytes);

/* Pieces from `begin` to `end` in order, gaps included: together they are exactly the range. */
#define extmap_for_each(piece, map, begin, end)                                                    \
	for (uint64_t extmap_at_ = (begin), extmap_end_ = (end);                                   \
	     extmap_at_ < extmap_end_ &&                                                           \
	     ((piece) = extmap_piece_at(map, extmap_at_, extmap_end_), true);                      \
	     extmap_at_ += (piece).length_bytes)

/* Walks the whole tree and must()s that it is ordered, balanced as promised and fully counted.
 * Tests. */
void extmap_check(const struct extmap *map);

#endif
