/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Undo log: what ranges of the volumes held before they were first overwritten since the log began.
 * Writing all of it back returns the volumes to where they were then.
 *
 * The log is a run of segments (proto/segment.h), records numbered from 1, chained from a root that
 * the log's id salts, in files undo.NUMBER of the group directory: WRITE records carry old content,
 * WRITE_ZEROES ranges that held zeroes. A range is saved once, in whole chunks, by the first that
 * is about to overwrite any part of it. A group has one log at a time.
 *
 *   undo_add() for every range of a batch -> undo_run() -> (durable) the batch may be written
 *
 * Invariants
 *
 *  U1  A chunk of a volume is overwritten only when its content at the log's beginning is durable
 *      in the log.
 *
 *  U2  A chunk is saved at most once in a log's life, also across crashes: what is saved second
 *      would not be the content at the beginning.
 *
 *  U3  A log that cannot be read as far as it is known to be durable is damaged as a whole: it is
 *      never half of it that is rolled back. What is known: the superblock's word, and the
 *      durable_seq of every segment that can still be found behind a gap.
 *
 *  U4  Rolling back any number of times, from any point of any crash, gives the same volumes.
 *
 *  U5  When there is no room, nothing is lost: the caller waits and runs again.
 *
 * Space is set aside file by file (io_file_reserve), so a lack of it shows before anything is
 * written. Files are made larger as the log grows, 4 MiB to 1 GiB, and smaller where room is short.
 *
 * Owner: the group's loop thread. Memory: two bits per chunk (4 MiB per TiB of volume, at most
 * 8 MiB each up to 32 TiB, and 256 KiB per TiB beyond) and about 4 MiB of buffers, taken by
 * undo_new().
 */
#ifndef HOLDFAST_CORE_GROUP_UNDO_H
#define HOLDFAST_CORE_GROUP_UNDO_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/uuid.h"
#include "core/group/volume.h"
#include "core/io/io.h"

#define UNDO_CHUNK_BYTES (64u << 10) /* at the finest; it grows with the volume, to 1 MiB */

struct undo;

enum undo_condition {
	UNDO_E_FULL = 1, /* no room in the file system, or the limit is reached: run again later */
	UNDO_E_DAMAGED,	 /* U3 */
};

struct undo_options {
	struct io *io;
	const char *dir; /* the group directory */
	/* Open from undo_new() to undo_free(), in the same order; ids may change while no log is.
	 */
	struct volumes *volumes;
	const struct uuid *group; /* read when a log begins or is opened */
	uint64_t limit_bytes;	  /* of the log; 0: as far as the file system goes */
};

/* Takes all memory for the superblock's volumes. -ENOMEM. */
int undo_new(const struct undo_options *options, struct undo **ret_undo);
/* False: what lies under a volume has grown since undo_new(), and a log would not save that. */
bool undo_covers(const struct undo *undo);
/* Nothing in flight. NULL is allowed; returns NULL. */
struct undo *undo_free(struct undo *undo);

/* A new, empty log with this id (not 0, random). The superblock that names it is stored by the
 * caller, before anything is overwritten. Completes when the files of the log before are gone, with
 * 0. */
void undo_begin(struct undo *undo, uint64_t id, struct io_op *op);
/* After a restart: reads the log with this id. `known_bytes` of it are known to be durable (the
 * superblock's word). 0; UNDO_E_DAMAGED (undo_error() says file and offset); negative errno. */
void undo_open(struct undo *undo, uint64_t id, uint64_t known_bytes, struct io_op *op);
bool undo_is_open(const struct undo *undo);
const char *undo_error(const struct undo *undo);

/* The batch that is gathered will overwrite this range of that volume. Not while one runs. */
void undo_add(struct undo *undo, unsigned volume_id, uint64_t off, uint64_t len);
/* Saves what was added and is not saved yet. Completes with 0 when all of it is durable in the log;
 * UNDO_E_FULL (everything added stays added: run again); or a negative errno: the log, or the
 * volume that was read, has failed; undo_error() says which. Cheap when nothing is to be saved. */
void undo_run(struct undo *undo, struct io_op *op);

/* Reads the whole log and changes nothing. 0; UNDO_E_DAMAGED; a negative errno. */
void undo_check(struct undo *undo, struct io_op *op);
/* Writes everything back, behind a check unless that is done. Completes with 0; the caller flushes
 * the volumes (and sets nothing on them meanwhile). UNDO_E_DAMAGED, or a negative errno: then any
 * part of it may have been written. */
void undo_roll_back(struct undo *undo, struct io_op *op);
/* What is under way ends soon, with -ECANCELED or as it would have. */
void undo_cancel(struct undo *undo);
/* Of the present or last check and roll back: bytes of the log, which each of the two reads. */
void undo_progress(const struct undo *undo, uint64_t *ret_done_bytes, uint64_t *ret_total_bytes);

/* Forgets the log in memory and removes its files, in the background. The superblock names it no
 * more. No operation is under way. */
void undo_end(struct undo *undo);
/* After a start: removes the files of whatever log there is, unless one with id `keep` is in force
 * (0: none is). Blocking: start only. */
void undo_clean(struct io *io, const char *dir, uint64_t keep);

uint64_t undo_durable_bytes(const struct undo *undo); /* for the superblock's undo_bytes */
uint64_t undo_log_bytes(const struct undo *undo);     /* of its files */
uint64_t undo_saved_bytes(const struct undo *undo);   /* of volume content */
bool undo_is_full(const struct undo *undo);	      /* the last run found no room */
/* Nothing in flight. */
bool undo_is_quiet(const struct undo *undo);

#endif
