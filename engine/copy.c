/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copied extents (initial copy and resync): content of the primary's volumes that comes beside the
 * stream.
 *
 * The primary sends an extent behind the segment that holds its stamp and before the next one. Here
 * it waits in a FIFO and joins the apply batches exactly there: behind everything received before
 * it, before everything received after it. Extents are not in the journal.
 *
 * Invariant Y1: replay after a crash is right without them. Every record since the checkpoint is in
 * the journal, so replay brings each block that was written since then to its newest content; an
 * extent on a block that was not written since then is either durable already, or was not
 * acknowledged and comes again. Invariant Y2: an extent is acknowledged only after a flush of the
 * volumes that was submitted after it was written. Invariant Y3: the copy counts as consistent only
 * when SYNC_END was reached, everything before it is durable, and the highest stamp has been
 * applied; that is stored durably before it is acknowledged.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/checked.h"
#include "engine/internal.h"
#include "proto/payload.h"

#define FLUSH_DELAY_NS	 100000000ull
#define FLUSH_ITEMS	 8u
#define SYNC_ALIGN_BYTES 512u

static struct sync_item *item_at(struct sync_state *sync, unsigned index)
{
	return &sync->items[(sync->first + index) % ENGINE_SYNC_ITEMS];
}

static void free_buffer(struct sync_state *sync, const struct sync_item *item)
{
	if (item->kind == SYNC_DATA)
		sync->used[item->buffer] = false;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

void copy_session(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	/* What an earlier session left is still applied in its place, but nobody counts it any
	 * more. */
	for (unsigned i = 0; i < sync->count; i++)
		item_at(sync, i)->counted = false;
	sync->end_counted = false;
	sync->applied_frames = sync->durable_frames = sync->acked_frames = 0;
	sync->left_bytes = 0;
}

void copy_begin(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	/* The end of an earlier copy is none of this one. */
	for (unsigned i = 0; i < sync->count; i++) {
		if (item_at(sync, i)->kind == SYNC_END)
			item_at(sync, i)->kind = SYNC_VOID;
	}
	sync->end_reached = false;
	sync->total_bytes = sync->left_bytes = group->session.start.sync_bytes;
	sync->done_bytes = 0;
	sync->started_ns = io_now(group->io);
}

void copy_drop(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	while (sync->count > sync->added)
		free_buffer(sync, item_at(sync, --sync->count));
}

void copy_reset(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	sync->added = 0;
	copy_drop(group);
	sync->end_reached = false;
	sync->unflushed = 0;
	copy_session(group);
}

bool copy_waiting(const struct engine_group *group)
{
	return group->sync.count || group->sync.unflushed || copy_end_due(group);
}

/* ---- arrival ----------------------------------------------------------------------------------
 */

uint8_t *copy_place(struct engine_group *group, const struct frame *frame)
{
	struct sync_state *sync = &group->sync;

	must(sync->placing < 0);
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++) {
		if (sync->used[i])
			continue;
		sync->used[i] = true;
		sync->placing = (int)i;
		return frame->flags & FRAME_LZ4 ? sync->packed : sync->buffers[i];
	}
	return NULL;
}

void copy_place_drop(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	if (sync->placing >= 0)
		sync->used[sync->placing] = false;
	sync->placing = -1;
}

static bool range_fits(struct engine_group *group, const struct sync_item *item)
{
	const struct volume *volume = volumes_by_id(&group->volumes, item->volume);

	return volume && range_valid(item->off, item->len, volume->id.size_bytes) &&
	       is_aligned(item->off | item->len, SYNC_ALIGN_BYTES);
}

/* Takes the body out of its place. False: it is not what the header says. */
static bool take_body(struct engine_group *group, const struct frame *frame, const uint8_t *body,
		      struct sync_item *item)
{
	struct sync_state *sync = &group->sync;

	must(sync->placing >= 0);
	item->buffer = (uint8_t)sync->placing;
	if ((frame->flags & FRAME_LZ4) &&
	    !payload_unpack(body, frame->body_bytes, sync->buffers[sync->placing],
			    (uint32_t)item->len))
		return false;
	sync->placing = -1; /* the item's now */
	return true;
}

static struct sync_item item_of(struct engine_group *group, const struct frame *frame)
{
	struct sync_item item = {
		.after_seq = session_received_seq(group),
		.stamp = frame->seq,
		.counted = true,
	};

	if (frame->type == FRAME_SYNC_END) {
		item.kind = SYNC_END;
		return item;
	}
	item.kind = frame->type == FRAME_SYNC_DATA ? SYNC_DATA : SYNC_ZERO;
	item.volume = frame_range_volume(frame);
	item.off = frame->arg1;
	item.len = frame_range_bytes(frame);
	return item;
}

void copy_frame(struct engine_group *group, const struct frame *frame, const uint8_t *body)
{
	struct sync_state *sync = &group->sync;
	struct sync_item item = item_of(group, frame);

	group->received_bytes += frame->body_bytes;
	if (!group->session.sync_open) {
		session_error(group, "the primary copies without having said so in START");
	} else if (sync->count == ENGINE_SYNC_ITEMS) {
		session_error(group,
			      "the primary sent more than %u copied extents that were not "
			      "acknowledged",
			      ENGINE_SYNC_ITEMS);
	} else if (item.kind != SYNC_END && !range_fits(group, &item)) {
		session_error(group,
			      "a copied extent (volume %u, offset %" PRIu64 ", length %" PRIu64
			      ") lies outside the volumes here",
			      item.volume, item.off, item.len);
	} else if (item.kind == SYNC_DATA && !take_body(group, frame, body, &item)) {
		group->rejected_corrupt++;
		session_error(group, "a copied extent came damaged; send it again");
	} else {
		if (item.kind == SYNC_END)
			group->session.sync_open = false;
		*item_at(sync, sync->count++) = item;
		applier_kick(group);
		return;
	}
	copy_place_drop(group);
}

/* ---- apply ------------------------------------------------------------------------------------
 */

struct sync_item *copy_next(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	return sync->added < sync->count ? item_at(sync, sync->added) : NULL;
}

int copy_add(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;
	const struct sync_item *item = item_at(sync, sync->added);
	int r = 0;

	if (item->kind == SYNC_DATA || item->kind == SYNC_ZERO)
		r = apply_add_range(&group->apply, item->volume, item->off, item->len,
				    item->kind == SYNC_DATA ? sync->buffers[item->buffer] : NULL);
	if (!r)
		sync->added++;
	return r;
}

bool copy_end_due(const struct engine_group *group)
{
	return group->sync.end_reached && group->applied_seq >= group->sync.end_seq;
}

static void pop_applied(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;
	const struct sync_item *item = item_at(sync, 0);

	free_buffer(sync, item);
	if (item->kind == SYNC_END) {
		sync->end_reached = true;
		sync->end_seq = item->stamp;
		sync->end_counted = item->counted;
	} else if (item->kind != SYNC_VOID) {
		sync->applied_frames += item->counted;
		sync->done_bytes += item->counted ? item->len : 0;
		sync->unflushed++;
	}
	sync->first = (sync->first + 1) % ENGINE_SYNC_ITEMS;
	sync->count--;
	sync->added--;
}

void copy_applied(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	while (sync->added)
		pop_applied(group);
	if (sync->unflushed >= FLUSH_ITEMS || copy_end_due(group))
		checkpoint_run(group, false);
	else if (sync->unflushed && !group->sync_timer.deadline_ns)
		io_timer_start(group->io, &group->sync_timer, FLUSH_DELAY_NS);
}

/* ---- life -------------------------------------------------------------------------------------
 */

void copy_status(const struct engine_group *group, struct status_sync *s)
{
	const struct sync_state *sync = &group->sync;
	uint64_t took_ms = (io_now(group->io) - sync->started_ns) / 1000000;

	s->active = session_connected(group) && group->session.start.sync &&
		    (group->dir.sb.flags & SUPERBLOCK_SYNCING);
	if (!s->active)
		return;
	s->total_bytes = sync->total_bytes;
	s->done_bytes = min_u64(sync->done_bytes, sync->total_bytes);
	if (took_ms)
		s->rate_bytes_per_s = sync->done_bytes * 1000 / took_ms;
	if (s->rate_bytes_per_s)
		s->left_ns =
			(s->total_bytes - s->done_bytes) * 1000 / s->rate_bytes_per_s * 1000000;
}

int copy_init(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	sync->placing = -1;
	sync->items = io_alloc(group->io, ENGINE_SYNC_ITEMS * sizeof(*sync->items), 64);
	sync->packed = io_alloc(group->io, FRAME_SYNC_MAX_BYTES, 4096);
	if (!sync->items || !sync->packed)
		return -ENOMEM;
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++) {
		sync->buffers[i] = io_alloc(group->io, FRAME_SYNC_MAX_BYTES, 4096);
		if (!sync->buffers[i])
			return -ENOMEM;
	}
	return 0;
}

void copy_deinit(struct engine_group *group)
{
	struct sync_state *sync = &group->sync;

	if (sync->items)
		io_free(group->io, sync->items);
	if (sync->packed)
		io_free(group->io, sync->packed);
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++)
		if (sync->buffers[i])
			io_free(group->io, sync->buffers[i]);
}
