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

static struct copy_item *item_at(struct copy_state *copy, unsigned index)
{
	return &copy->items[(copy->first + index) % ENGINE_SYNC_ITEMS];
}

static void free_buffer(struct copy_state *copy, const struct copy_item *item)
{
	if (item->kind == COPY_DATA)
		copy->used[item->buffer] = false;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

void copy_session(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	/* What an earlier session left is still applied in its place, but nobody counts it any
	 * more. */
	for (unsigned i = 0; i < copy->count; i++) {
		item_at(copy, i)->counted = false;
		if (item_at(copy, i)->kind == COPY_HASH)
			item_at(copy, i)->kind = COPY_VOID;
	}
	copy->end_counted = false;
	copy->applied_frames = copy->durable_frames = copy->acked_frames = 0;
	copy->left_bytes = 0;
	compare_session(group);
}

void copy_begin(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	/* The end of an earlier copy is none of this one. */
	for (unsigned i = 0; i < copy->count; i++) {
		if (item_at(copy, i)->kind == COPY_END)
			item_at(copy, i)->kind = COPY_VOID;
	}
	copy->end_reached = false;
	copy->total_bytes = copy->left_bytes = group->session.start.sync_bytes;
	copy->done_bytes = 0;
	copy->started_ns = io_now(group->io);
}

void copy_drop(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	while (copy->count > copy->added)
		free_buffer(copy, item_at(copy, --copy->count));
}

void copy_reset(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	copy->added = 0;
	copy_drop(group);
	copy->end_reached = false;
	copy->unflushed = 0;
	copy_session(group);
	compare_reset(group);
}

bool copy_waiting(const struct engine_group *group)
{
	return group->copy.count || group->copy.unflushed || copy_end_due(group);
}

/* ---- arrival ----------------------------------------------------------------------------------
 */

uint8_t *copy_place(struct engine_group *group, const struct frame *frame)
{
	struct copy_state *copy = &group->copy;

	must(copy->placing < 0);
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++) {
		if (copy->used[i])
			continue;
		copy->used[i] = true;
		copy->placing = (int)i;
		return frame->flags & FRAME_LZ4 ? copy->packed : copy->buffers[i];
	}
	return NULL;
}

void copy_place_drop(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	if (copy->placing >= 0)
		copy->used[copy->placing] = false;
	copy->placing = -1;
}

static bool range_fits(struct engine_group *group, const struct copy_item *item)
{
	const struct volume *volume = volumes_by_id(&group->volumes, item->volume);

	return volume && range_valid(item->off, item->len, volume->id.size_bytes) &&
	       is_aligned(item->off | item->len, SYNC_ALIGN_BYTES);
}

/* Takes the body out of its place. False: it is not what the header says. */
static bool take_body(struct engine_group *group, const struct frame *frame, const uint8_t *body,
		      struct copy_item *item)
{
	struct copy_state *copy = &group->copy;

	must(copy->placing >= 0);
	item->buffer = (uint8_t)copy->placing;
	if ((frame->flags & FRAME_LZ4) &&
	    !payload_unpack(body, frame->body_bytes, copy->buffers[copy->placing],
			    (uint32_t)item->len))
		return false;
	copy->placing = -1; /* the item's now */
	return true;
}

static struct copy_item item_of(struct engine_group *group, const struct frame *frame)
{
	struct copy_item item = {
		.after_seq = session_received_seq(group),
		.stamp = frame->seq,
		.counted = true,
	};

	if (frame->type == FRAME_SYNC_END) {
		item.kind = COPY_END;
		return item;
	}
	item.kind = frame->type == FRAME_SYNC_DATA   ? COPY_DATA
		    : frame->type == FRAME_SYNC_ZERO ? COPY_ZERO
						     : COPY_HASH;
	item.volume = frame_range_volume(frame);
	item.off = frame->arg1;
	item.len = frame_range_bytes(frame);
	return item;
}

void copy_frame(struct engine_group *group, const struct frame *frame, const uint8_t *body)
{
	struct copy_state *copy = &group->copy;
	struct copy_item item = item_of(group, frame);

	group->received_bytes += frame->body_bytes;
	if (item.kind == COPY_HASH)
		memcpy(item.hash, body, sizeof(item.hash));
	if (!group->session.sync_open && item.kind != COPY_HASH) {
		session_error(group, "the primary copies without having said so in START");
	} else if (item.kind == COPY_HASH && !compare_asked(group)) {
		session_error(group, "the primary asked for more than %u ranges at a time",
			      ENGINE_HASHES_MAX);
	} else if (copy->count == ENGINE_SYNC_ITEMS) {
		session_error(group,
			      "the primary sent more than %u copied extents that were not "
			      "acknowledged",
			      ENGINE_SYNC_ITEMS);
	} else if (item.kind != COPY_END && !range_fits(group, &item)) {
		session_error(group,
			      "%s (volume %u, offset %" PRIu64 ", length %" PRIu64
			      ") lies outside the volumes here",
			      item.kind == COPY_HASH ? "a range to compare" : "a copied extent",
			      item.volume, item.off, item.len);
	} else if (item.kind == COPY_DATA && !take_body(group, frame, body, &item)) {
		group->rejected_corrupt++;
		session_error(group, "a copied extent came damaged; send it again");
	} else {
		if (item.kind == COPY_END)
			group->session.sync_open = false;
		*item_at(copy, copy->count++) = item;
		applier_kick(group);
		return;
	}
	copy_place_drop(group);
}

/* ---- apply ------------------------------------------------------------------------------------
 */

struct copy_item *copy_next(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	/* What comes behind START is of the new beginning: not before that is stored. */
	if (group->session.state == SESSION_STARTING)
		return NULL;
	return copy->added < copy->count ? item_at(copy, copy->added) : NULL;
}

int copy_add(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;
	const struct copy_item *item = item_at(copy, copy->added);
	int r = 0;

	if (item->kind == COPY_DATA || item->kind == COPY_ZERO)
		r = apply_add_range(&group->apply, item->volume, item->off, item->len,
				    item->kind == COPY_DATA ? copy->buffers[item->buffer] : NULL);
	if (!r)
		copy->added++;
	return r;
}

bool copy_end_due(const struct engine_group *group)
{
	return group->copy.end_reached && group->applied_seq >= group->copy.end_seq;
}

static void pop_applied(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;
	const struct copy_item *item = item_at(copy, 0);

	free_buffer(copy, item);
	if (item->kind == COPY_END) {
		copy->end_reached = true;
		copy->end_seq = item->stamp;
		copy->end_counted = item->counted;
	} else if (item->kind == COPY_DATA || item->kind == COPY_ZERO) {
		copy->applied_frames += item->counted;
		copy->done_bytes += item->counted ? item->len : 0;
		copy->unflushed++;
	}
	copy->first = (copy->first + 1) % ENGINE_SYNC_ITEMS;
	copy->count--;
	copy->added--;
}

void copy_applied(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	while (copy->added)
		pop_applied(group);
	if (copy->unflushed >= FLUSH_ITEMS || copy_end_due(group))
		checkpoint_run(group, false);
	else if (copy->unflushed && !group->sync_timer.deadline_ns)
		io_timer_start(group->io, &group->sync_timer, FLUSH_DELAY_NS);
}

/* ---- life -------------------------------------------------------------------------------------
 */

void copy_status(const struct engine_group *group, struct status_sync *s)
{
	const struct copy_state *copy = &group->copy;
	uint64_t took_ms = (io_now(group->io) - copy->started_ns) / 1000000;

	s->active = session_connected(group) && group->session.start.sync &&
		    (group->dir.sb.flags & SUPERBLOCK_SYNCING);
	if (!s->active)
		return;
	s->total_bytes = copy->total_bytes;
	/* What came, or, where ranges were found equal, what the primary has no longer to do. */
	s->done_bytes = max_u64(min_u64(copy->done_bytes, copy->total_bytes),
				sub_floor_u64(copy->total_bytes, copy->left_bytes));
	if (took_ms)
		s->rate_bytes_per_s = s->done_bytes * 1000 / took_ms;
	if (s->rate_bytes_per_s)
		s->left_ns =
			(s->total_bytes - s->done_bytes) * 1000 / s->rate_bytes_per_s * 1000000;
}

int copy_init(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	copy->placing = -1;
	copy->items = io_alloc(group->io, ENGINE_SYNC_ITEMS * sizeof(*copy->items), 64);
	copy->packed = io_alloc(group->io, FRAME_SYNC_MAX_BYTES, 4096);
	if (!copy->items || !copy->packed)
		return -ENOMEM;
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++) {
		copy->buffers[i] = io_alloc(group->io, FRAME_SYNC_MAX_BYTES, 4096);
		if (!copy->buffers[i])
			return -ENOMEM;
	}
	return 0;
}

void copy_deinit(struct engine_group *group)
{
	struct copy_state *copy = &group->copy;

	if (copy->items)
		io_free(group->io, copy->items);
	if (copy->packed)
		io_free(group->io, copy->packed);
	for (unsigned i = 0; i < ENGINE_SYNC_BUFFERS; i++)
		if (copy->buffers[i])
			io_free(group->io, copy->buffers[i]);
}
