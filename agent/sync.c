/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying volumes to a standby beside the live stream, from its dirty map.
 *
 * One walk over the dirty ranges per session; sync_extent.c reads and stamps, and keeps the order
 * on the wire. Where most of it may be equal (peer->needs_compare), an extent goes out as a
 * question first; only what differs is read again and sent. Where nearly everything differs,
 * questions are left out for a while.
 *
 * Invariant Y2: a dirty bit is cleared only when the standby acknowledged the extent as durable, or
 * answered that it holds the same, durably.
 *
 * The standby is consistent when it has passed the highest stamp: SYNC_END says which.
 */
#include <errno.h>
#include <string.h>

#include <lz4.h>

#include "agent/sync.h"

#define ZERO_RUN_MAX	 (1ull << 30)
#define UNACKED_MAX	 1024u
#define SAVE_INTERVAL_NS 1000000000ull
#define VAIN_MAX	 32u  /* that many answers in a row were of no use: */
#define VAIN_PAUSE	 256u /* so many extents go without a question */

struct sync {
	struct ship *ship;
	struct agent_group *group;
	struct extents *extents;
	struct extents_user user;
	bool active, end_sent, walked, saving;
	bool compare; /* in this session */
	unsigned volume_index;
	uint64_t cursor, order;
	struct place cleared; /* everything before it on the walk has been acknowledged */
	uint64_t last_stamp;
	struct place unacked[UNACKED_MAX]; /* where each unacknowledged frame's extent begins */
	unsigned unacked_first, unacked_count;
	uint64_t acked;			      /* frames of this session */
	struct question again[QUESTIONS_MAX]; /* differ: to be read again and sent */
	unsigned again_first, again_count;
	unsigned vain, pause_left;
	uint64_t total_bytes, started_ns;
	uint64_t sent_bytes, compared_bytes; /* content sent; found equal */
	struct pace pace;
	struct share share;
	struct io_timer save_timer;
	struct io_op save_op;
	uint8_t *lz4;
	void *lz4_state;
};

/* Nothing is left to be sent but the end. */
static bool ends(const struct sync *sync)
{
	return sync->active && sync->walked && !sync->extents->busy && !sync->again_count &&
	       !compare_open(sync->extents) && !sync->end_sent;
}

/* The next dirty run at the cursor; false when the walk is over. */
static bool next_run(struct sync *sync, unsigned *ret_volume, uint64_t *ret_off, uint64_t *ret_len)
{
	const struct volumes *volumes = &sync->group->volumes;

	for (; sync->volume_index < volumes->count; sync->volume_index++, sync->cursor = 0) {
		*ret_volume = volumes->list[sync->volume_index].id.id;
		if (dirty_next(sync->ship->dirty, *ret_volume, sync->cursor, ZERO_RUN_MAX, ret_off,
			       ret_len))
			return true;
	}
	return false;
}

/* An answer must find its place; so must what it makes us send. */
static bool may_read(const struct sync *sync)
{
	unsigned questions = sync->extents->question_count + sync->again_count;

	return sync->unacked_count + questions + sync->extents->busy < UNACKED_MAX - 1 &&
	       (!sync->compare || questions + sync->extents->busy < QUESTIONS_MAX);
}

static bool wants_question(struct sync *sync)
{
	if (!sync->compare)
		return false;
	if (!sync->pause_left)
		return true;
	sync->pause_left--;
	return false;
}

/* What was answered to differ. */
static void read_again(struct sync *sync, struct extent *extent)
{
	const struct question *question = &sync->again[sync->again_first];

	sync->again_first = (sync->again_first + 1) % QUESTIONS_MAX;
	sync->again_count--;
	extent->volume_id = question->volume_id;
	extent->volume_index = question->volume_index;
	extent->off = question->off;
	extent->len = question->len;
	extent->order = question->order;
	pace_count(&sync->pace, extent->len);
	extent_read(extent);
}

static void read_next(struct sync *sync, struct extent *extent, unsigned volume_id, uint64_t off,
		      uint64_t len)
{
	extent->volume_id = volume_id;
	extent->volume_index = sync->volume_index;
	extent->off = off;
	extent->len = len;
	extent->order = ++sync->order;
	extent->ask = wants_question(sync);
	extent_map(extent);
}

/* Keeps reads going. One map at a time: its result moves the cursor. */
static void fill(struct sync *sync)
{
	struct extents *extents = sync->extents;
	uint64_t off, len;
	unsigned volume_id;

	while (sync->active && pace_allows(&sync->pace) && share_allows(&sync->share, sync->ship) &&
	       extents->busy < EXTENTS) {
		if (sync->again_count) {
			read_again(sync, extents_take(extents));
			continue;
		}
		if (sync->walked || extents_mapping(extents) || !may_read(sync))
			break;
		if (!next_run(sync, &volume_id, &off, &len)) {
			sync->walked = true;
			break;
		}
		read_next(sync, extents_take(extents), volume_id, off, len);
	}
	if (ends(sync))
		ship_pump(sync->ship);
}

static void measured(void *owner, struct extent *extent)
{
	struct sync *sync = owner;

	sync->cursor = extent->off + extent->len;
	if (extent->hole)
		extent->ask = false; /* told in less than a question */
	else
		pace_count(&sync->pace, extent->len);
}

static void unreadable(void *owner, const struct extent *extent)
{
	struct sync *sync = owner;

	(void)extent;
	ship_disconnect(sync->ship, "a volume cannot be read for the copy");
}

static void go_on(void *owner)
{
	fill(owner);
}

static void remember(struct sync *sync, unsigned volume_index, uint64_t off, uint64_t order)
{
	must(sync->unacked_count < UNACKED_MAX);
	sync->unacked[(sync->unacked_first + sync->unacked_count++) % UNACKED_MAX] =
		(struct place){ volume_index, off, order };
}

/* The first place on the walk whose extent is not acknowledged. */
static struct place low_water(const struct sync *sync)
{
	struct place low = { sync->volume_index, sync->cursor, UINT64_MAX };

	for (unsigned i = 0; i < sync->unacked_count; i++) {
		struct place at = sync->unacked[(sync->unacked_first + i) % UNACKED_MAX];

		if (at.order < low.order)
			low = at;
	}
	for (unsigned i = 0; i < sync->again_count; i++) {
		const struct question *question =
			&sync->again[(sync->again_first + i) % QUESTIONS_MAX];

		if (question->order < low.order)
			low = (struct place){ question->volume_index, question->off,
					      question->order };
	}
	extents_low(sync->extents, &low);
	return low;
}

/* Extents need not cover whole chunks, and come back in any order: bits are cleared up to the low
 * water. */
static void clear_acknowledged(struct sync *sync)
{
	const struct volumes *volumes = &sync->group->volumes;
	struct dirty_map *dirty = sync->ship->dirty;
	struct place low = low_water(sync);

	for (unsigned i = sync->cleared.volume_index; i < volumes->count && i <= low.volume_index;
	     i++) {
		const struct superblock_volume *id = &volumes->list[i].id;
		uint64_t from = i == sync->cleared.volume_index ? sync->cleared.off : 0;
		uint64_t to = i == low.volume_index ? low.off : id->size_bytes;

		if (to > from)
			dirty_clear(dirty, id->id, from, to - from);
	}
	if (low.volume_index < volumes->count)
		low.off = round_down(
			low.off, dirty_chunk_bytes(dirty, volumes->list[low.volume_index].id.id));
	sync->cleared = low;
}

static bool send_question(struct sync *sync, const struct extent *extent)
{
	if (!compare_ask(sync->extents, extent))
		return false;
	pace_refund(&sync->pace, extent->len - FRAME_HASH_BYTES);
	return true;
}

static bool send_extent(void *owner, struct extent *extent)
{
	struct sync *sync = owner;
	struct frame frame = {
		.type = extent->zero ? FRAME_SYNC_ZERO : FRAME_SYNC_DATA,
		.epoch = sync->group->dir.sb.epoch,
		.seq = extent->stamp,
		.arg1 = extent->off,
	};
	const uint8_t *body = NULL;

	sync->last_stamp = max_u64(sync->last_stamp, extent->stamp);
	if (extent->ask)
		return send_question(sync, extent);
	frame.arg2 =
		(uint64_t)extent->volume_id << 32 | (extent->zero ? extent->len >> 9 : extent->len);
	if (!extent->zero) {
		int n;

		if (!ship_has_room(sync->ship, EXTENT_BYTES))
			return false;
		n = LZ4_compress_fast_extState(sync->lz4_state, (const char *)extent->buf,
					       (char *)sync->lz4, (int)extent->len, EXTENT_BYTES,
					       1);
		body = n > 0 && (uint64_t)n < extent->len ? sync->lz4 : extent->buf;
		frame.flags = body == sync->lz4 ? FRAME_LZ4 : 0;
		frame.body_bytes = body == sync->lz4 ? (uint32_t)n : (uint32_t)extent->len;
	}
	if (link_send(sync->ship->link, &frame, body))
		return false;
	if (!extent->hole)
		pace_refund(&sync->pace, extent->len - frame.body_bytes);
	sync->sent_bytes += frame.body_bytes;
	sync->share.copied_bytes += FRAME_BYTES + frame.body_bytes;
	remember(sync, extent->volume_index, extent->off, extent->order);
	return true;
}

static bool send_end(struct sync *sync)
{
	struct frame frame = { .type = FRAME_SYNC_END,
			       .epoch = sync->group->dir.sb.epoch,
			       .seq = sync->last_stamp };

	if (link_send(sync->ship->link, &frame, NULL))
		return false;
	sync->end_sent = true;
	remember(sync, sync->volume_index, 0, ++sync->order);
	return true;
}

bool ship_sync_pump(struct sync *sync, uint64_t sent_seq)
{
	if (!extents_pump(sync->extents, sent_seq))
		return false;
	if (sync->share.waits && share_allows(&sync->share, sync->ship))
		fill(sync);
	return !ends(sync) || send_end(sync);
}

static void answered(void *owner, const struct question *question, bool differs)
{
	struct sync *sync = owner;

	if (differs) {
		must(sync->again_count < QUESTIONS_MAX);
		sync->again[(sync->again_first + sync->again_count++) % QUESTIONS_MAX] = *question;
		if (++sync->vain == VAIN_MAX) {
			sync->pause_left = VAIN_PAUSE;
			sync->vain = VAIN_MAX / 2;
		}
	} else {
		sync->compared_bytes += question->len;
		sync->vain = 0;
		clear_acknowledged(sync);
	}
	fill(sync);
}

static void session_over(struct io_op *op, int64_t res)
{
	struct sync *sync = container_of(op, struct sync, save_op);

	sync->saving = false;
	if (res < 0)
		agent_fail(sync->group, (int)res, "the superblock cannot be written");
	else
		(void)dirty_remove(sync->ship->dirty);
	if (res >= 0)
		ship_verify_synced(sync->ship->verify);
}

static void finish_session(struct sync *sync)
{
	if (sync->saving)
		return; /* saved() comes back here */
	ship_sync_end(sync);
	sync->saving = true;
	sync->save_op.done = session_over;
	ship_synced(sync->ship, &sync->save_op);
}

static void saved(struct io_op *op, int64_t res)
{
	struct sync *sync = container_of(op, struct sync, save_op);

	/* Clearing may be lost, so a failed save costs only repeated copying; setting never comes
	 * this way. */
	(void)res;
	sync->saving = false;
	if (sync->active && sync->end_sent && !sync->unacked_count)
		finish_session(sync);
}

static void save_due(struct io_timer *timer)
{
	struct sync *sync = container_of(timer, struct sync, save_timer);

	if (!sync->active)
		return;
	if (!sync->saving && !sync->ship->release_user) {
		sync->saving = true;
		sync->save_op.done = saved;
		ship_save_map(sync->ship, &sync->save_op);
	}
	io_timer_start(sync->group->io, &sync->save_timer, SAVE_INTERVAL_NS);
}

void ship_sync_acked(struct sync *sync, uint64_t count)
{
	if (count > sync->acked + sync->unacked_count || count < sync->acked) {
		ship_disconnect(sync->ship, "the standby acknowledges what it was never sent");
		return;
	}
	while (sync->acked < count) {
		sync->unacked_first = (sync->unacked_first + 1) % UNACKED_MAX;
		sync->unacked_count--;
		sync->acked++;
	}
	clear_acknowledged(sync);
	if (sync->end_sent && !sync->unacked_count)
		finish_session(sync);
	else
		fill(sync);
}

void ship_sync_begin(struct sync *sync)
{
	must(!sync->active && !sync->extents->busy);
	sync->active = true;
	sync->compare = sync->ship->start.compare;
	sync->walked = sync->end_sent = false;
	sync->volume_index = 0;
	sync->cursor = 0;
	sync->order = 0;
	sync->cleared = (struct place){ 0 };
	sync->acked = 0;
	sync->unacked_first = sync->unacked_count = 0;
	sync->again_first = sync->again_count = sync->vain = sync->pause_left = 0;
	sync->last_stamp = sync->group->head_seq;
	sync->total_bytes = dirty_bytes(sync->ship->dirty);
	sync->started_ns = io_now(sync->group->io);
	sync->sent_bytes = sync->compared_bytes = 0;
	pace_begin(&sync->pace, sync->ship->conf->sync_rate_bytes);
	share_begin(&sync->share, sync->ship);
	extents_begin(sync->extents, &sync->user);
	io_timer_start(sync->group->io, &sync->save_timer, SAVE_INTERVAL_NS);
	fill(sync);
}

void ship_sync_end(struct sync *sync)
{
	sync->active = false;
	io_timer_stop(sync->group->io, &sync->save_timer);
	pace_end(&sync->pace);
	extents_end(sync->extents);
}

bool ship_sync_active(const struct sync *sync)
{
	return sync->active;
}

bool ship_sync_saving(const struct sync *sync)
{
	return sync->saving;
}

bool ship_sync_quiet(const struct sync *sync)
{
	return !sync->saving;
}

uint64_t ship_sync_sent_bytes(const struct sync *sync)
{
	return sync->sent_bytes;
}

uint64_t ship_sync_compared_bytes(const struct sync *sync)
{
	return sync->compared_bytes;
}

void ship_sync_status(const struct sync *sync, struct status_sync *s)
{
	uint64_t left = dirty_bytes(sync->ship->dirty);
	uint64_t took = io_now(sync->group->io) - sync->started_ns;

	if (!sync->active)
		return;
	s->active = true;
	s->total_bytes = sync->total_bytes;
	s->done_bytes = sub_floor_u64(sync->total_bytes, left);
	if (took >= 1000000)
		s->rate_bytes_per_s = s->done_bytes * 1000 / (took / 1000000);
	if (s->rate_bytes_per_s)
		s->left_ns = left * 1000 / s->rate_bytes_per_s * 1000000;
}

int ship_sync_new(struct ship *ship, struct sync **ret_sync)
{
	struct io *io = ship->group->io;
	struct sync *sync = io_alloc(io, sizeof(*sync), 64);

	if (!sync)
		return -ENOMEM;
	sync->ship = ship;
	sync->group = ship->group;
	pace_init(&sync->pace, io, sync, go_on);
	sync->save_timer.fire = save_due;
	sync->extents = ship->extents;
	sync->user = (struct extents_user){ .owner = sync,
					    .measured = measured,
					    .unreadable = unreadable,
					    .send = send_extent,
					    .go_on = go_on,
					    .answered = answered };
	ship->sync = sync;
	sync->lz4 = io_alloc(io, EXTENT_BYTES, 64);
	sync->lz4_state = io_alloc(io, (size_t)LZ4_sizeofState(), 64);
	if (!sync->lz4 || !sync->lz4_state)
		return -ENOMEM;
	*ret_sync = sync;
	return 0;
}

struct sync *ship_sync_free(struct sync *sync)
{
	struct io *io = sync->group->io;

	if (sync->lz4)
		io_free(io, sync->lz4);
	if (sync->lz4_state)
		io_free(io, sync->lz4_state);
	io_free(io, sync);
	return NULL;
}
