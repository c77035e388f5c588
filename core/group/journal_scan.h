/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a journal: what journal_scan.c, journal_probe.c and journal_index.c share. Owner: the
 * group's loop thread.
 *
 * The scan reads the first block of every slot, then walks. A walk starts at the superblock's
 * applied position or at offset 0 of a slot and goes over what is contiguous, verifying everything.
 * At each seq on its way, a slot whose first header carries that seq and the right chain is
 * reached: it is walked afterwards. The walk that gets furthest is the journal's end; the slots
 * through which it was reached are the path.
 */
#ifndef HOLDFAST_CORE_GROUP_JOURNAL_SCAN_H
#define HOLDFAST_CORE_GROUP_JOURNAL_SCAN_H

#include "core/group/journal_internal.h"

struct scan_place {
	struct journal_position at;
	uint64_t epoch;	       /* of the segment before; 0: none was seen */
	uint64_t last_time_ns; /* the latest so far; 0: none was seen */
	uint64_t last_writer;  /* of the last segment; 0: none was seen */
};

/* One way to walk: slot i from offset 0, or (the last of all) from the applied position. */
struct scan_node {
	bool valid; /* the first block holds a header of this group; first_* are its fields */
	uint64_t first_seq, first_chain, first_epoch, first_time_ns, first_durable_seq;
	uint64_t first_bytes; /* about: what no walk has checked */
	bool reached, walked, on_path;
	uint32_t from; /* the node from which it was reached, and where */
	struct scan_place start;
	struct scan_place end;
	const char *reason; /* why the walk ended there */
	bool torn;	    /* the right header is there, the rest is not */
};

struct journal_scan {
	struct journal *journal;
	struct superblock sb;
	struct io_op op;
	struct io_op *user;
	uint8_t *buf; /* READER_BUF_BYTES */
	uint64_t buf_off;
	uint32_t buf_slot, buf_len;
	struct scan_node *nodes; /* slots + 1 */
	uint32_t index;		 /* first blocks, flushes */
	/* the walk that runs */
	uint32_t node;
	struct scan_place place;
	uint64_t next_first_seq; /* no unreached slot begins below this, from here on */
	uint32_t best;
	/* what is older than the path */
	uint64_t limit_seq;	 /* the path begins here */
	struct scan_place older; /* the oldest known so far begins here */
	unsigned skipped;	 /* slots in a row that do not lead up to it */
	bool in_order, retaining;
	/* the probe */
	uint32_t probe_slot, probe_left;
	uint64_t probe_off;
	uint64_t run_chain;
	unsigned run_count;
};

static inline uint32_t scan_slots(const struct journal_scan *scan)
{
	return scan->journal->options.slots;
}
/* True when a segment of that epoch can be the history's at `seq`. */
bool scan_epoch_rules(const struct journal_scan *scan, uint64_t epoch, uint64_t seq);
/* Reads READER_BUF_BYTES, or up to the slot's end, into buf; then `done`. */
void scan_read(struct journal_scan *scan, uint32_t slot, uint64_t off, io_done_fn done);
/* Names the read that failed and ends the scan. */
void scan_read_failed(struct journal_scan *scan, int64_t res);
/* Ends the scan. */
void scan_finish(struct journal_scan *scan, int64_t res);

/* journal_probe.c: looks behind the end of `best`; continues with scan_probed() or ends the scan.
 */
void scan_probe(struct journal_scan *scan);
/* Walks over a slot to see whether it leads up to `older`; then scan_retained(). */
void scan_walk_retained(struct journal_scan *scan, uint32_t slot);
void scan_retained(struct journal_scan *scan, uint32_t slot, bool leads_up);
/* journal_index.c: the end is right; makes it the journal's. */
void scan_probed(struct journal_scan *scan);

#endif
