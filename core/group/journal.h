/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of a group: a fixed ring of preallocated, pre-written files ("slots") of segments.
 *
 * Layout: slot files DIR/journal/00000000 .. ; in each, segments lie contiguously from offset 0,
 * each a multiple of 4096 bytes. The writer fills slots in cyclic order. A segment never spans
 * slots. What follows a segment is, if anything: the segment with the next seq and the right chain
 * value right behind it, or at offset 0 of a later slot: of the next one, or, after a failure, of
 * one further on.
 *
 * Invariants
 *
 *  J1  written_seq and durable_seq move in sequence order only, and durable_seq <= written_seq.
 *  J2  A slot is overwritten only when all it holds is at or below the floor that the owner set.
 *
 *  J3  Recovery ends at the first byte that does not continue the chain, and refuses (names file
 *      and offset) when anything shows that more had been durable. A torn tail is cut; a damaged
 *      middle is never cut.
 *
 *  J4  After a failed write or flush the slot is abandoned where the last durable segment ends:
 *      everything not durable is written again, from memory and with IO_DSYNC, from offset 0 of
 *      the slot behind the last one touched. A second failure in a row fails the journal; nothing
 *      is reported durable afterwards. (Recovery: at every seq, a slot whose first segment carries
 *      that seq and the chain at that seq is a way on, beside the bytes right behind. Of several
 *      ways the one that reaches furthest rules; as far as two go, they hold the same bytes.)
 *
 *  J5  With dsync, at most JOURNAL_WINDOW_MAX segments lie on disk from the first one that is not
 *      durable.
 *
 * What shows that a gap had been durable (J3): superblock.durable_seq; the durable_seq in a later
 * header that this node itself sealed (its role is not standby, the header's epoch is the
 * superblock's); or, for segments that were received, JOURNAL_WINDOW_MAX linked ones behind the gap
 * (J5). A segment of an epoch that the superblock's history had ended before is no part of the
 * journal: it neither continues nor shows anything.
 *
 * Owner: the group's loop thread; callbacks come there, never from inside a call.
 */
#ifndef HOLDFAST_CORE_GROUP_JOURNAL_H
#define HOLDFAST_CORE_GROUP_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/group/segring.h"
#include "proto/superblock.h"

/* A place between two segments: where the segment that starts with `seq` lies or will lie. */
struct journal_position {
	uint64_t seq;	/* first seq behind this place */
	uint64_t chain; /* chain value that segment carries */
	uint64_t bytes; /* bytes_end up to here */
	uint32_t slot;	/* the segment is at slot:off, or at offset 0 of a later slot */
	uint64_t off;
};

struct journal_slot {
	struct io_file *file;
	uint64_t first_seq, last_seq; /* 0: holds nothing valid; last_seq grows as it is written */
	uint64_t first_time_ns, last_time_ns;
	uint64_t end_off;
	uint64_t first_off, first_chain; /* where first_seq lies, and its chain value */
	uint64_t first_bytes;		 /* bytes_end before first_seq; 0: not known */
	uint64_t durable_off;		 /* what lies before this is durable and stays as it is */
	uint32_t lap;			 /* changes when the slot begins anew or is emptied */
	bool zeroing;			 /* its first block is being zeroed: not to be entered */
};

enum journal_segment_state {	  /* struct segment.journal_state */
	JOURNAL_SEGMENT_NONE = 0, /* never appended */
	JOURNAL_SEGMENT_QUEUED,
	JOURNAL_SEGMENT_QUEUED_AGAIN, /* after a failure */
	JOURNAL_SEGMENT_WRITING,
	JOURNAL_SEGMENT_WRITING_DSYNC,
	JOURNAL_SEGMENT_WRITTEN,
	JOURNAL_SEGMENT_FLUSHING,
	JOURNAL_SEGMENT_DURABLE,
};

struct journal_events {
	void *owner;
	void (*written)(void *owner, uint64_t seq); /* J1; called when it moved */
	void (*durable)(void *owner, uint64_t seq);
	/* fewer than two free slots are ahead, or (blocked) the next append waits for one: the
	 * owner raises the floor */
	void (*space)(void *owner, bool blocked);
	void (*failed)(void *owner, int res, const char *text);
};

struct journal_options {
	struct io *io;
	const char *dir; /* the group directory */
	struct uuid group;
	uint64_t slot_bytes;
	uint32_t slots;
	bool dsync;	     /* every segment is durable when written (writethrough, standby) */
	unsigned writes_max; /* in flight, 1..16 */
	struct journal_events events;
};

struct journal {
	struct journal_options options;
	struct journal_slot *slots;
	struct journal_position head; /* behind the last appended; slot, off: the last submitted */
	uint64_t appended_seq, written_seq, durable_seq; /* last seqs; J1 */
	uint64_t floor_seq; /* slots with last_seq <= floor may be overwritten */
	/* Slots that begin before it were found by their first blocks when the journal was opened.
	 * One that was being overwritten at a power loss may look whole, and is left out of the
	 * index when it is read. */
	uint64_t unread_seq;
	uint64_t flush_wanted_seq;
	struct list queue;  /* appended, not yet submitted */
	struct list flight; /* submitted or written, not yet durable, in seq order */
	unsigned writes_in_flight;
	unsigned failures; /* in a row */
	bool failed, blocked, opened;
	uint64_t segments, stored_bytes, flushes, dsync_writes; /* counters */
	uint64_t end_time_ns; /* of the last segment that recovery read, 0 = it read none */
	uint64_t end_writer;  /* its writer, likewise */
	uint64_t rewrites;    /* failures that were survived by writing again (J4) */
	char error[256];
	struct journal_internal *internal; /* journal_*.c only */
};
#define JOURNAL_WINDOW_MAX 16u

/*
 * Opens the slots and finds where the journal ends, starting at the superblock's applied position.
 * `op` completes with 0; JOURNAL_E_DAMAGED (positive; journal->error names file and offset); or a
 * negative errno (journal->error has the words). Afterwards head/appended/written/durable are at
 * the end that was found; everything found has been made durable (flushed). After DAMAGED only
 * journal_reset() and deinit are legal.
 */
enum journal_condition {
	JOURNAL_E_DAMAGED = 1
};
/* Memory only. -ENOMEM; -EINVAL: fewer than 2 slots, or slots that no segment fits into. */
int journal_init(struct journal *journal, const struct journal_options *options);
void journal_open(struct journal *journal, const struct superblock *sb, struct io_op *op);
/* journal_is_quiet() holds and no reader is active. Appended segments that are not durable are let
 * go of. */
void journal_close(struct journal *journal);
/* Also without journal_close() before. */
void journal_deinit(struct journal *journal);

/* Appends a sealed segment (header.first_seq == appended_seq + 1, header.chain == head.chain). The
 * journal keeps a hold on it until it is durable. Order of calls is order on disk. */
void journal_append(struct journal *journal, struct segment *segment);
/* Everything up to `seq` (<= appended_seq) shall become durable soon; `durable` tells. */
void journal_flush(struct journal *journal, uint64_t seq);
/* Writes in flight plus queued: for group commit (seal when below what the owner wants in flight).
 */
unsigned journal_busy(const struct journal *journal);
/* No operation of the journal is in flight and none will be started by itself: it may be closed. */
bool journal_is_quiet(const struct journal *journal);
/* What followers still need: everything above `seq` (counts up to durable_seq). Never lowered.
 * Wakes a blocked append. Everything at or below it is applied, and the superblock that says so is
 * durable. */
void journal_set_floor(struct journal *journal, uint64_t seq);
/* First seq that can still be read (floor or not: kept until overwritten); appended_seq + 1 when
 * none. */
uint64_t journal_oldest_seq(const struct journal *journal);
uint64_t journal_oldest_time_ns(const struct journal *journal);
uint64_t journal_used_bytes(const struct journal *journal); /* of slots above the floor */
/* Free slots ahead of the one being written. */
unsigned journal_free_slots(const struct journal *journal);
/* The last seq of the oldest slot that is above the floor (what must be released to gain one slot),
 * 0 if none: the slot being written does not count. */
uint64_t journal_next_release_seq(const struct journal *journal);
/* A time (wall, ns) not later than that of the first record behind seq; 0 if unknown. From the slot
 * index. */
uint64_t journal_time_floor_ns(const struct journal *journal, uint64_t seq);
/* bytes_end at a place at or before `seq`, from the slot index; 0 if unknown. */
uint64_t journal_bytes_floor(const struct journal *journal, uint64_t seq);
/* bytes_end at durable_seq. */
uint64_t journal_durable_bytes(const struct journal *journal);
/* Standby: forget everything, continue at `base` (seq = next seq to come; its slot and off do not
 * count, the journal starts at offset 0 of slot 0, as head then says). Completes when the old
 * content can never be taken for new (first blocks of all slots zeroed, durably). Everything
 * appended is durable. The superblock that makes `base` the applied position, with durable_seq
 * below base, is stored before this call: a crash in between finds an empty journal. */
void journal_reset(struct journal *journal, const struct journal_position *base, struct io_op *op);
/* Retention by age: invalidates slots at or below the floor whose newest record is older than
 * `before_ns`. Returns how many. */
unsigned journal_expire(struct journal *journal, uint64_t before_ns);

/*
 * Reading, in order, anything between journal_oldest_seq and durable_seq. A reader is invalidated
 * (its next call completes with -ESTALE) when the slot under it is overwritten: the owner keeps the
 * floor below what readers need.
 */
struct journal_reader {
	struct journal *journal;
	struct journal_position at; /* of the next segment */
	uint8_t *buf;		    /* READER_BUF_BYTES, 4096-aligned */
	uint64_t buf_off;
	uint32_t buf_slot, buf_len, buf_lap;
	struct segment_header header; /* of the segment last returned */
	const uint8_t *stored;	      /* inside buf, until the next call */
	struct io_op op;
	struct io_op *user;
	uint64_t seek_seq;
	uint32_t state; /* enum reader_state, journal_reader.c */
	bool unplaced;	/* at.seq is what was asked for, its segment is not yet looked for */
	bool next;	/* a seek that is part of journal_reader_next() */
};
#define READER_BUF_BYTES (2u * SEGMENT_TOTAL_MAX_BYTES)
int journal_reader_init(struct journal_reader *reader, struct journal *journal);
void journal_reader_deinit(struct journal_reader *reader);
/* To the segment that contains `seq` (appended_seq + 1 is allowed: the end). 0; -ENOENT when it is
 * no longer there. at.bytes is 0 when it is not known: at the first segment of a slot that was
 * there before the journal was opened. */
void journal_reader_seek(struct journal_reader *reader, uint64_t seq, struct io_op *op);
/* To a known place. */
void journal_reader_set(struct journal_reader *reader, const struct journal_position *at);
/* 1: header and stored are the next segment (verified: header, payload, chain); 0: at durable_seq;
 * -EBADMSG: damaged, journal->error names file and offset; -ESTALE; other negative errno. */
void journal_reader_next(struct journal_reader *reader, struct io_op *op);

#endif
