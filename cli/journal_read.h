/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a group directory's journal offline, by docs/formats.md, with nothing of the engine's code
 * but the codecs: what `holdfast journal` shows, and a second opinion on what recovery would find.
 *
 * Blocking file reads; one thread. Everything found is kept until journal_view_free().
 */
#ifndef HOLDFAST_CLI_JOURNAL_READ_H
#define HOLDFAST_CLI_JOURNAL_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/segment.h"
#include "proto/superblock.h"

#define JOURNAL_DAMAGE_MAX 64u

struct journal_segment {
	uint32_t slot;
	uint64_t off;
	uint64_t chain_after;
	struct segment_header header;
};

/* Segments of one slot that lie one behind the other and each follow the one before. */
struct journal_run {
	uint32_t slot;
	uint64_t off;	  /* where it begins */
	uint64_t end_off; /* where it ends, and */
	int why; /* SEGMENT_E_* there, 0: a right segment that does not follow, or the slot's end */
	size_t first, count; /* in the view's segments */
	bool blank;	     /* nothing but zeroes where it begins */
	bool used;	     /* a part of the journal */
	size_t from;	     /* the run before it; SIZE_MAX: none */
	size_t keep;	     /* how many of its segments are before the next run's */
};

struct journal_damage {
	char file[32]; /* journal/00000003 */
	uint64_t off;
	char reason[200];
};

struct journal_view {
	char dir[1024];
	struct superblock *sb;
	struct journal_segment *segments;
	size_t segment_count, segment_room;
	struct journal_run *runs; /* of each slot, and last the one at the applied place */
	size_t run_count;
	size_t *path; /* runs of the journal, oldest first */
	size_t path_count;
	uint64_t first_seq, end_seq; /* what it holds: first_seq .. end_seq - 1 */
	uint64_t void_segments;	     /* written again elsewhere after a failure */
	uint64_t read_bytes;
	struct journal_damage damage[JOURNAL_DAMAGE_MAX];
	unsigned damage_count;
	/* in */
	bool unpack; /* check the data of each record, too */
	void (*progress)(void *owner, uint64_t done_bytes, uint64_t total_bytes);
	void *owner;
	/* while reading */
	uint8_t *stored, *data;
	int fd;
};

/* `dir` is the group directory. 0, also with damage; a negative errno with `error` when the
 * directory or its superblock cannot be read at all. */
int journal_view_read(struct journal_view *view, const char *dir, char *error, size_t error_max);
void journal_view_free(struct journal_view *view);
/* Calls for each segment of the journal, in order of seq. */
void journal_view_each(const struct journal_view *view,
		       void (*visit)(void *arg, const struct journal_segment *segment), void *arg);

#endif
