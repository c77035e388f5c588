/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the volumes look like while nobody should touch them: the time of the last change, and a
 * hash of blocks at fixed places. Taken at a clean stop and compared at the next start, it tells
 * that somebody has written to a volume behind the agent's back.
 *
 * Invariant: volumes that nobody has written to since give the same stamps. The reverse does not
 * hold for a device, which has no time of change: a change between the places goes unnoticed
 * (verification finds it).
 *
 * Owner: the group's loop thread. Takes about 2.3 MiB while it runs.
 */
#ifndef HOLDFAST_CORE_GROUP_STAMP_H
#define HOLDFAST_CORE_GROUP_STAMP_H

#include "core/group/volume.h"

#define STAMP_PLACES	  64u	     /* of STAMP_PLACE_BYTES, spread over the volume */
#define STAMP_PLACE_BYTES 4096u	     /* and */
#define STAMP_EDGE_BYTES  (1u << 20) /* at its beginning and its end */

struct stamp {
	struct volumes *volumes;
	struct superblock_stamp *out; /* one for each volume, in their order */
	struct io_op *user;
	struct io_op done_op;
	uint8_t *buf;
	unsigned at, left; /* the volume, and its reads in flight */
	int res;
	struct stamp_read {
		struct io_op op;
		struct stamp *stamp;
	} reads[STAMP_PLACES + 2];
};

/* Nothing writes to the volumes meanwhile. `op` completes with 0, -ENOMEM, or what a read failed
 * with. One at a time. */
void stamp_take(struct stamp *stamp, struct volumes *volumes, struct superblock_stamp *ret_stamps,
		struct io_op *op);
static inline bool stamp_is_running(const struct stamp *stamp)
{
	return stamp->user;
}
/* False when the second one shows a change since the first; a first one that is not known shows
 * none. */
bool stamp_same(const struct superblock_stamp *before, const struct superblock_stamp *now);

#endif
