/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The write set: what the history says and the volumes do not hold yet, as an ordered map of
 * extents that point into segments in memory. Reads are answered from it where it covers, else from
 * the volume.
 *
 * Invariant W1: at any time, volume content overlaid by the write set is the history up to its
 * head. Hence an extent leaves only after its segment was applied and every volume read that was
 * submitted before that completed (such a read may have seen the old content; it overlays the write
 * set at completion).
 *
 * Owner: the group's loop thread. The nodes are taken at start.
 */
#ifndef HOLDFAST_CORE_GROUP_WRITESET_H
#define HOLDFAST_CORE_GROUP_WRITESET_H

#include "core/base/extmap.h"
#include "core/group/segring.h"

struct writeset {
	struct io *io;
	struct extmap map;
	struct extmap_node *nodes;
};

enum writeset_cover {
	WRITESET_NONE,
	WRITESET_SOME,
	WRITESET_ALL
};

int writeset_init(struct writeset *ws, struct io *io, size_t extents_max);
void writeset_deinit(struct writeset *ws);
/* Whether `records` more inserts are certain to succeed. */
bool writeset_has_room(const struct writeset *ws, size_t records);
/* Enters one record of a segment (its data is at segment->data + record->data_off). There must be
 * room. */
void writeset_insert(struct writeset *ws, struct segment *segment, const struct record *record);
/* Takes everything out that still points into the segment. */
void writeset_remove(struct writeset *ws, struct segment *segment);
enum writeset_cover writeset_covers(const struct writeset *ws, unsigned volume_id, uint64_t off,
				    uint64_t len);
/* Lays what the write set has of the range over `buf`. */
void writeset_overlay(const struct writeset *ws, unsigned volume_id, uint64_t off, uint64_t len,
		      uint8_t *buf);
/* The run at `off`: its length (at most len) and whether it is data, zeroes, or not in the write
 * set. */
enum writeset_run {
	WRITESET_GAP,
	WRITESET_DATA,
	WRITESET_ZERO
};
enum writeset_run writeset_run_at(const struct writeset *ws, unsigned volume_id, uint64_t off,
				  uint64_t len, uint64_t *ret_len);

#endif
