/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the journal share. Owner: the group's loop thread.
 *
 *   journal.c         life, append, flush, floor: calls that only note what is wanted
 *   journal_write.c   the pump: places, writes, flushes, rewrites after a failure (J1, J4, J5)
 *   journal_slots.c   the slot index, zeroing of first blocks (reset, expiry)
 *   journal_scan.c    open: finds where the journal ends
 *   journal_probe.c   open: looks behind the end for what shows that more was durable (J3)
 *   journal_index.c   open: what was found becomes the slot index, durable, and alone
 *   journal_reader.c  reading back
 */
#ifndef HOLDFAST_CORE_GROUP_JOURNAL_INTERNAL_H
#define HOLDFAST_CORE_GROUP_JOURNAL_INTERNAL_H

#include "core/group/journal.h"

#define JOURNAL_FLUSH_FILES_MAX 2u /* files flushed at the same time */
#define JOURNAL_BLOCK_BYTES	4096u
#define JOURNAL_PATH_MAX	1100u

struct journal_scan;

struct journal_flush_op {
	struct io_op op;
	struct journal *journal;
	uint32_t slot;
};

struct journal_internal {
	struct journal *journal;
	/* the pump */
	struct io_op pump_op;
	bool pump_pending;
	unsigned queue_count, flight_count;
	struct list *written_to; /* last entry of flight that is written with all before it; or
				    &flight */
	uint64_t placed_bytes,
		durable_bytes; /* bytes_end of the last segment placed, of the last durable one */
	bool new_slot;	       /* the next segment begins a slot */
	/* flush */
	struct journal_flush_op flushes[JOURNAL_FLUSH_FILES_MAX];
	unsigned flushes_in_flight;
	uint64_t flush_next_seq; /* a flush starts when this is written; later wishes wait for the
				    next one */
	/* J4 */
	bool failing; /* a failure was seen, what is in flight is still coming back */
	int failure_res;
	/* events not yet told */
	uint64_t told_written_seq, told_durable_seq;
	bool tell_space, tell_blocked, tell_failed;
	/* zeroing of first blocks */
	struct io_op zero_op;
	uint8_t *zeroes; /* JOURNAL_BLOCK_BYTES */
	bool zero_busy;
	uint32_t zero_slot;
	struct io_op *reset_user;
	struct journal_position reset_base;
	struct journal_scan *scan; /* while opening */
};

/* "DIR/journal/00000003". Returns `path`. */
const char *journal_slot_path(const struct journal *journal, uint32_t slot,
			      char path[JOURNAL_PATH_MAX]);
/* Fills journal->error with "journal/00000003: TEXT". */
__attribute__((format(printf, 3, 4))) void journal_slot_error(struct journal *journal,
							      uint32_t slot, const char *format,
							      ...);

/* journal_write.c */
void journal_pump_soon(struct journal *journal);

/* journal_slots.c */
/* Forgets what a slot holds. */
void journal_slot_clear(struct journal_slot *slot);
/* Whether the writer may begin this slot anew (J2). */
bool journal_slot_is_free(const struct journal *journal, uint32_t slot);
/* The slot that holds `seq`; UINT32_MAX when none does. */
uint32_t journal_slot_of(const struct journal *journal, uint64_t seq);
static inline uint32_t journal_slot_after(const struct journal *journal, uint32_t slot)
{
	return slot + 1 == journal->options.slots ? 0 : slot + 1;
}
/* Puts the journal at an end: everything up to there is durable, nothing is queued. */
void journal_start_at(struct journal *journal, const struct journal_position *at);

#endif
