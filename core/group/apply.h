/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings volumes forward along the history: batches of segments, newest version of each byte only,
 * many writes in flight.
 *
 * A batch is collected with apply_add*() and run with apply_run(). Inside a batch what overlaps is
 * decided before anything is written (later wins), so its writes may go in any order; batches run
 * one after the other. Nothing is durable before the volumes are flushed.
 *
 * Invariant A1: after a batch that completed with 0, the volumes hold the history up to its last
 * record. Invariant A2: running a batch again, or a batch that overlaps it and ends at or behind
 * it, changes nothing but brings the volumes to the end of the last one run (replay is idempotent).
 *
 * Owner: the group's loop thread. The segments' memory must stay until the batch completed.
 */
#ifndef HOLDFAST_CORE_GROUP_APPLY_H
#define HOLDFAST_CORE_GROUP_APPLY_H

#include "core/base/extmap.h"
#include "core/group/volume.h"
#include "proto/segment.h"

#define APPLY_WRITES_MAX      64u	 /* in flight */
#define APPLY_WRITE_MAX_BYTES (1u << 20) /* one write gathers at most this */

enum apply_condition {
	APPLY_E_FULL = 1,   /* the batch has no room for this: run it first, nothing was added */
	APPLY_E_RECORD = 2, /* a record names an unknown volume or a range outside it */
};

struct apply_slot {
	struct io_op op;
	struct apply *apply;
	struct volume *volume;
	uint64_t bytes;
	struct iovec iov[IO_IOV_MAX];
};

struct apply {
	struct io *io;
	struct volumes *volumes;
	struct extmap map; /* the batch: (volume, offset) -> bytes */
	struct extmap_node *nodes;
	size_t node_count;
	struct apply_slot *slots;
	unsigned free_slots[APPLY_WRITES_MAX];
	unsigned free_count;
	uint64_t at; /* walk of the running batch */
	bool running, walked;
	int res;
	struct io_op *user;
	struct io_op done_op;
	uint64_t written_bytes, writes, discards; /* counters */
};

/* `records_max`: records a batch can hold at the least. */
int apply_init(struct apply *apply, struct io *io, struct volumes *volumes, size_t records_max);
void apply_deinit(struct apply *apply);
/* Adds every record of a segment. 0 or APPLY_E_*. */
int apply_add(struct apply *apply, const struct segment_header *header, const uint8_t *table,
	      const uint8_t *data);
/* Adds one range: content, or zeroes when `data` is NULL. 0 or APPLY_E_*. */
int apply_add_range(struct apply *apply, unsigned volume_id, uint64_t off, uint64_t len,
		    const uint8_t *data);
bool apply_is_empty(const struct apply *apply);
/* Completes with 0, or the first error: then the state of the batch's ranges is unknown and the
 * caller must not count it as applied. The batch is empty again. */
void apply_run(struct apply *apply, struct io_op *op);

#endif
