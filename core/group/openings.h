/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who wrote what a copy holds: the openings of primaries' journals, each with the first seq that it
 * wrote. A seq, an epoch and the histories can be the same in two timelines (a primary that went on
 * from an older image of itself, two standbys promoted apart from each other); the writer of an
 * opening is random, so it never is.
 *
 * Invariant O1: where the list names a writer for a seq, the segment that holds it here was written
 * in that opening. On a primary an opening is durable in the list before it writes its first
 * segment; on a standby a segment is in the list in memory when it is applied, and in every
 * superblock that says that it is. What the list does not reach is not known.
 *
 * Pure: works on a superblock in memory, which its owner stores.
 */
#ifndef HOLDFAST_CORE_GROUP_OPENINGS_H
#define HOLDFAST_CORE_GROUP_OPENINGS_H

#include "proto/superblock.h"

/* From first_seq on, `writer` writes; whatever was noted there goes. */
void openings_note(struct superblock *sb, uint64_t writer, uint64_t first_seq);
/* Of everything before only this is known: `seq` was written by `writer`. */
void openings_begin(struct superblock *sb, uint64_t writer, uint64_t seq);
/* 0 = not known. */
uint64_t openings_at(const struct superblock *sb, uint64_t seq);

#endif
