/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A follower's cursor over the durable history: from memory where the segment is still in the ring,
 * else from the journal on disk. Shipping and the standby's apply are the same walk.
 *
 * Owner: the group's loop thread.
 */
#ifndef HOLDFAST_CORE_GROUP_TAIL_H
#define HOLDFAST_CORE_GROUP_TAIL_H

#include "core/group/journal.h"

struct tail {
	struct journal *journal;
	struct segring *ring;
	struct journal_reader reader;
	uint64_t next_seq; /* first seq not yet returned */
	bool reader_valid; /* reader stands exactly at next_seq */
	bool busy;
	/* the segment last returned; valid until the next tail_next() */
	const struct segment_header *header;
	const uint8_t *stored;
	struct segment *segment; /* held by the tail when it came from memory, else NULL */
	uint64_t memory_hits, disk_reads;
	struct io_op op;
	struct io_op *user;
};

int tail_init(struct tail *tail, struct journal *journal, struct segring *ring);
void tail_deinit(struct tail *tail);
/* Starts over at the segment that contains `seq`. Drops what was returned. Not while busy. */
void tail_seek(struct tail *tail, uint64_t seq);
/* Synchronously from memory: 1 returned, 0 nothing durable beyond, -EAGAIN: on disk only, use
 * tail_next. */
int tail_poll(struct tail *tail);
/* Completes with 1 (returned), 0 (nothing durable beyond next_seq), or a negative errno (-ENOENT:
 * recycled, -EBADMSG: damaged). */
void tail_next(struct tail *tail, struct io_op *op);
/* Lets go of the segment last returned (also done by the next call). */
void tail_drop(struct tail *tail);

#endif
