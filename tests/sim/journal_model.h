/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A journal, its owner, and a model of what it holds: shared by the journal's scenarios and unit
 * tests.
 *
 * The model knows every segment that was appended and what the journal said about it. It survives
 * crashes (world memory); the journal, the ring and the reader live in the node and die with it.
 * The superblock is the model's: storing it takes no time and never fails.
 *
 * Checked while running: J1, that what is read back is what was appended. Checked at every start:
 * all that was reported durable is there, after a kill all that was reported written, nothing else
 * is, and everything above the floor can be read.
 *
 * Two ways to append: as a primary (each opening seals anew, so what was cut off comes back
 * different), or as a standby (what was cut off comes back with the same bytes).
 */
#ifndef HOLDFAST_TESTS_SIM_JOURNAL_MODEL_H
#define HOLDFAST_TESTS_SIM_JOURNAL_MODEL_H

#include "core/group/journal.h"
#include "core/group/tail.h"
#include "tests/sim/sim.h"

#define JOURNAL_MODEL_DIR	   "/state/g"
#define JOURNAL_MODEL_SEGMENTS_MAX 16384u

struct journal_model_options {
	uint32_t slots;
	uint64_t slot_bytes; /* 0: the smallest that is legal */
	bool dsync, standby;
	unsigned writes_max;
	size_t ring_bytes; /* 0: 8 MiB */
};

struct model_segment {
	uint64_t first_seq, last_seq, bytes_end, chain, chain_next, hash, durable_seq;
	uint32_t total_bytes;
	uint8_t *stored; /* standby: the bytes that will be sent again */
};

enum model_state {
	MODEL_DOWN,
	MODEL_OPENING,
	MODEL_CHECKING, /* reading back what was found */
	MODEL_RUNNING,
	MODEL_FAILED, /* could not be opened (res, error), or the journal has failed */
};

struct journal_model;

/* What dies with the process. */
struct model_run {
	struct journal_model *model;
	struct journal journal;
	struct segring ring;
	struct journal_reader reader;
	struct tail tail;
	struct io_op op, tail_op, reset_op;
	bool ring_made, journal_made, reader_made, tail_made, tail_busy, resetting;
	bool strict; /* reading above the floor: nothing may be missing */
	uint64_t writer;
	struct journal_position reset_to;
};

struct journal_model {
	struct sim_world *world;
	struct sim_node *node;
	struct journal_model_options options;
	struct superblock sb;
	struct model_segment *segments; /* in seq order; [0, appended) are in the journal */
	unsigned count, appended;
	uint64_t written_seq, durable_seq; /* as reported */
	uint64_t floor_seq;
	uint64_t base_seq;   /* the journal was started anew here */
	uint64_t must_seq;   /* the least that the next start has to find */
	bool written_counts; /* no error so far: after a kill, written is enough */
	enum model_state state;
	struct model_run *run;
	int64_t res;
	char error[256];
	uint64_t blocked, rewrites; /* events seen */
	uint64_t starts, checked_segments, tail_segments;
};

/* The model and the files of its journal, on a node that is up. */
struct journal_model *journal_model_new(struct sim_world *world, struct sim_node *node,
					const struct journal_model_options *options);
/* Opens the journal, checks it, and is RUNNING or FAILED some time later. */
void journal_model_start(struct journal_model *model);
/* Steps the world until it is. True when RUNNING. */
bool journal_model_started(struct journal_model *model);
/* To be called after a crash of the node, before the restart. */
void journal_model_crashed(struct journal_model *model, bool power);
/* Stops in order, everything durable: as a clean stop does, or without saying so in the superblock.
 */
void journal_model_stop(struct journal_model *model, bool clean);
/* Appends one segment with that much data. False: no room in the ring. */
bool journal_model_append(struct journal_model *model, uint32_t data_bytes, bool compressible);
void journal_model_flush(struct journal_model *model);
/* Moves the applied position to the last segment that ends at or below `seq` and is durable. */
void journal_model_apply(struct journal_model *model, uint64_t seq);
/* Raises the floor (at most to the applied position). */
void journal_model_floor(struct journal_model *model, uint64_t seq);
/* Standby: starts anew `skip` seqs further on. Completes some time later; nothing may be in flight.
 */
void journal_model_reset(struct journal_model *model, uint64_t skip);
/* Lets a follower read on from where it stands, as far as it gets. */
void journal_model_tail(struct journal_model *model);
/* The model's segment that contains `seq`; NULL when it is not (or no more) in the journal. */
const struct model_segment *journal_model_find(const struct journal_model *model, uint64_t seq);

#endif
