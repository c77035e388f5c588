/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to a standby: does it hold, at the position of an extent's stamp, what we hold? The
 * answers come in the order of the questions. Whoever walks decides what an answer means: the copy
 * sends only what differs, a verification counts it.
 */
#include <string.h>

#include "agent/sync.h"
#include "core/base/hash64.h"

unsigned compare_open(const struct extents *extents)
{
	unsigned open = 0;

	for (unsigned i = 0; i < extents->question_count; i++)
		open += extents->questions[(extents->question_first + i) % QUESTIONS_MAX]
				.generation == extents->generation;
	return open;
}

bool compare_ask(struct extents *extents, const struct extent *extent)
{
	uint8_t hash[FRAME_HASH_BYTES];
	struct frame frame = {
		.type = FRAME_SYNC_HASH,
		.epoch = extents->group->dir.sb.epoch,
		.seq = extent->stamp,
		.arg1 = extent->off,
		.arg2 = frame_range_arg((uint16_t)extent->volume_id, (uint32_t)(extent->len >> 9)),
		.body_bytes = FRAME_HASH_BYTES,
	};

	if (extents->question_count == QUESTIONS_MAX) /* an answer comes back here */
		return false;
	if (extent->hole)
		hash128_zeroes(extent->len, hash);
	else
		hash128(extent->buf, extent->len, hash);
	if (link_send(extents->ship->link, &frame, hash))
		return false;
	extents->questions[(extents->question_first + extents->question_count++) % QUESTIONS_MAX] =
		(struct question){ .volume_id = extent->volume_id,
				   .volume_index = extent->volume_index,
				   .off = extent->off,
				   .len = extent->len,
				   .order = extent->order,
				   .generation = extent->generation };
	return true;
}

void compare_begin(struct extents *extents)
{
	extents->question_count = 0;
	extents->answered = 0;
}

void compare_answer(struct extents *extents, const struct frame *frame)
{
	struct question question = extents->questions[extents->question_first];

	if (!extents->question_count || frame->seq != extents->answered + 1) {
		ship_disconnect(extents->ship, "the standby answers what it was never asked");
		return;
	}
	extents->answered++;
	extents->question_count--;
	extents->question_first = (extents->question_first + 1) % QUESTIONS_MAX;
	if (extents->user && question.generation == extents->generation)
		extents->user->answered(extents->user->owner, &question, frame->arg1);
	/* Questions may have waited for this place. */
	ship_pump(extents->ship);
}
