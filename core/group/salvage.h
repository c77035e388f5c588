/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Salvage: records of this copy that the ruling history does not have, kept aside before anything
 * overwrites them.
 *
 * One file GROUPDIR/salvage/EPOCH-FIRST-LAST (epoch of its first record, first and last seq): the
 * journal's segments as they lie there, back to back from offset 0. Where the journal no longer
 * held the records from ASKED on, the name ends with -lacks-ASKED. `holdfast salvage` reads it
 * (core/conf/salvage_read.h).
 *
 * Invariant V1: when salvage_run() completes with 0, every record of the range that the journal
 * held is in the file, durably. A crash within leaves a file that does not reach the last seq of
 * its name; the next run makes it anew. A file that holds something else under the same name is
 * never touched: this one gets another name.
 *
 * Owner: the group's loop thread. Memory: about 3 MiB while it exists.
 */
#ifndef HOLDFAST_CORE_GROUP_SALVAGE_H
#define HOLDFAST_CORE_GROUP_SALVAGE_H

#include "core/group/journal.h"

#define SALVAGE_NAME_MAX 111u

struct salvage;

struct salvage_result {
	char name[SALVAGE_NAME_MAX + 1]; /* in the folder salvage; "" when there was nothing */
	uint64_t first_seq;		 /* of the first segment kept; 0: nothing */
	uint64_t chain;	  /* chain value at the seq asked for; 0: the journal does not tell */
	uint64_t missing; /* records at the beginning that the journal no longer held */
	uint64_t records, bytes; /* kept; bytes of volume content that they wrote */
};

struct salvage_options {
	struct io *io;
	const char *dir;	 /* the group directory */
	struct journal *journal; /* nothing is appended or expired while it runs */
	/* every segment that is kept; its table. May be called again after a failed run. */
	void (*segment)(void *owner, const struct segment_header *header, const uint8_t *table);
	void *owner;
};

/* -ENOMEM. */
int salvage_new(const struct salvage_options *options, struct salvage **ret_salvage);
/* Nothing in flight. NULL is allowed; returns NULL. */
struct salvage *salvage_free(struct salvage *salvage);
/* Keeps records first_seq..last_seq (the journal's last one), as far as the journal reaches back.
 * Completes with 0, or a negative errno: then nothing may be overwritten yet; salvage_error() says
 * what. One at a time. */
void salvage_run(struct salvage *salvage, uint64_t first_seq, uint64_t last_seq, struct io_op *op);
bool salvage_busy(const struct salvage *salvage);
const struct salvage_result *salvage_result(const struct salvage *salvage);
const char *salvage_error(const struct salvage *salvage);

#endif
