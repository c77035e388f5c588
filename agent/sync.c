/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying volumes to a standby beside the live stream, from its dirty map.
 *
 * One walk over the dirty ranges per session. Each extent is read from the volume, overlaid by the
 * write set when the read completes, and so is the history's content at the head of that moment:
 * its stamp.
 *
 * Order on the wire: an extent goes after the segment that contains its stamp and before the next
 * one. Invariant Y1: no record behind an extent's stamp that overlaps it is sent before the extent.
 * For segments behind the stamp's that is the order above; inside the segment that is open at the
 * stamp it is ship_sync_before_write(), which seals before an overlapping record is appended.
 * Invariant Y2: a dirty bit is cleared only when the standby acknowledged the extent as durable.
 *
 * The standby is consistent when it has passed the highest stamp: SYNC_END says which.
 */
#include <errno.h>
#include <string.h>

#include <lz4.h>

#include "agent/ship.h"

#define EXTENT_BYTES	 (256u << 10)
#define EXTENTS		 8u
#define BLOCK_BYTES	 4096u /* what every device takes; volumes and chunks are multiples */
#define ZERO_RUN_MAX	 (1ull << 30)
#define UNACKED_MAX	 1024u
#define SAVE_INTERVAL_NS 1000000000ull

enum extent_state {
	EXTENT_FREE,
	EXTENT_MAPPING,
	EXTENT_READING,
	EXTENT_READY, /* stamped, in sync->ready */
};

struct extent {
	struct list link; /* in sync->ready, by stamp */
	struct io_op op;
	struct read_ticket ticket;
	struct sync *sync;
	enum extent_state state;
	uint64_t generation;
	unsigned volume_id, volume_index;
	uint64_t off, len, stamp;
	uint64_t order; /* of the walk */
	bool zero, hole;
	uint8_t *buf;
};

struct place { /* on the walk */
	unsigned volume_index;
	uint64_t off, order;
};

struct sync {
	struct ship *ship;
	struct agent_group *group;
	bool active, end_sent, walked, saving;
	uint64_t generation;
	struct extent extents[EXTENTS];
	struct list ready;
	unsigned busy; /* extents not free */
	unsigned volume_index;
	uint64_t cursor, order;
	struct place cleared; /* everything before it on the walk has been acknowledged */
	uint64_t last_stamp;
	struct place unacked[UNACKED_MAX]; /* where each unacknowledged frame's extent begins */
	unsigned unacked_first, unacked_count;
	uint64_t acked; /* frames of this session */
	uint64_t total_bytes, started_ns, allowed_ns;
	struct io_timer rate_timer, save_timer;
	struct io_op save_op;
	uint8_t *lz4;
	void *lz4_state;
};

static void fill(struct sync *sync);
static void count_rate(struct sync *sync, uint64_t bytes);

static void extent_free(struct extent *extent)
{
	extent->state = EXTENT_FREE;
	extent->sync->busy--;
}

static bool all_zero(const uint8_t *buf, uint64_t len)
{
	return buf[0] == 0 && !memcmp(buf, buf + 1, len - 1);
}

static bool extent_current(const struct extent *extent)
{
	return extent->sync->active && extent->generation == extent->sync->generation;
}

/*
 * The content is final: it is what the history says at the head of this moment. Giving the ticket
 * back comes behind: it may make room for writes that waited, and those move the head.
 */
static void stamp(struct extent *extent)
{
	struct sync *sync = extent->sync;

	extent->stamp = sync->group->head_seq;
	sync->last_stamp = extent->stamp;
	extent->state = EXTENT_READY;
	list_push_back(&sync->ready, &extent->link);
	/* It is sent once the stamp is durable: that does not wait for its ordinary time. */
	commit_flush(sync->group, extent->stamp);
	read_end(sync->group, &extent->ticket);
	ship_pump(sync->ship);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct extent *extent = container_of(op, struct extent, op);
	struct sync *sync = extent->sync;
	struct agent_group *group = sync->group;

	if (res >= 0)
		writeset_overlay(&group->writeset, extent->volume_id, extent->off, extent->len,
				 extent->buf);
	if (group->volumes
		    .flush_res) /* what was just read may be the content before a lost write */
		res = -EIO;
	if (res < 0 || !extent_current(extent)) {
		bool current = extent_current(extent);

		read_end(group, &extent->ticket);
		extent_free(extent);
		if (current)
			ship_disconnect(sync->ship, "a volume cannot be read for the copy");
		return;
	}
	extent->zero = all_zero(extent->buf, extent->len);
	stamp(extent);
}

static struct volume *extent_volume(const struct extent *extent)
{
	return volumes_by_id(&extent->sync->group->volumes, extent->volume_id);
}

static void map_done(struct io_op *op, int64_t res)
{
	struct extent *extent = container_of(op, struct extent, op);
	struct sync *sync = extent->sync;
	struct agent_group *group = sync->group;
	bool hole;

	if (extent->hole && res > 0) /* a hole counts in whole blocks */
		res = (int64_t)round_down((uint64_t)res, BLOCK_BYTES);
	hole = res > 0 && extent->hole &&
	       writeset_covers(&group->writeset, extent->volume_id, extent->off, (uint64_t)res) ==
		       WRITESET_NONE;

	if (!extent_current(extent)) {
		read_end(group, &extent->ticket);
		extent_free(extent);
		return;
	}
	if (hole) {
		extent->len = (uint64_t)res;
		extent->zero = true;
		sync->cursor = extent->off + extent->len;
		stamp(extent);
		fill(sync);
		return;
	}
	/* The ticket taken before the map covers the read as well. What is not known to be a hole
	 * may be read as far as it is dirty, so whole blocks are. */
	extent->len = min_u64(extent->len, EXTENT_BYTES);
	if (res > 0)
		extent->len = min_u64(extent->len, round_up((uint64_t)res, BLOCK_BYTES));
	sync->cursor = extent->off + extent->len;
	extent->state = EXTENT_READING;
	extent->hole = false;
	count_rate(sync, extent->len);
	extent->op.done = read_done;
	io_read(extent_volume(extent)->file, extent->buf, extent->len, extent->off, &extent->op);
	fill(sync);
}

static struct extent *extent_take(struct sync *sync)
{
	for (unsigned i = 0; i < EXTENTS; i++)
		if (sync->extents[i].state == EXTENT_FREE)
			return &sync->extents[i];
	return NULL;
}

static bool mapping(const struct sync *sync)
{
	for (unsigned i = 0; i < EXTENTS; i++)
		if (sync->extents[i].state == EXTENT_MAPPING)
			return true;
	return false;
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

static void rate_due(struct io_timer *timer)
{
	struct sync *sync = container_of(timer, struct sync, rate_timer);

	if (sync->active)
		fill(sync);
}

static bool rate_allows(struct sync *sync)
{
	uint64_t now = io_now(sync->group->io);

	if (!sync->ship->conf->sync_rate_bytes || sync->allowed_ns <= now)
		return true;
	if (!sync->rate_timer.deadline_ns)
		io_timer_start(sync->group->io, &sync->rate_timer, sync->allowed_ns - now);
	return false;
}

/* When it is read, an extent counts in full; what did not go over the link is given back. Counted
 * only when sent, all extents would be read, and sent, at once. */
static void count_rate(struct sync *sync, uint64_t bytes)
{
	uint64_t rate = sync->ship->conf->sync_rate_bytes, now = io_now(sync->group->io);

	if (rate)
		sync->allowed_ns = max_u64(sync->allowed_ns, now) + bytes * 1000000000ull / rate;
}

static void refund_rate(struct sync *sync, uint64_t bytes)
{
	uint64_t rate = sync->ship->conf->sync_rate_bytes;

	if (rate)
		sync->allowed_ns = sub_floor_u64(sync->allowed_ns, bytes * 1000000000ull / rate);
}

/* Keeps reads going. One map at a time: its result moves the cursor. */
static void fill(struct sync *sync)
{
	struct extent *extent;

	while (sync->active && !sync->walked && !mapping(sync) && rate_allows(sync) &&
	       sync->unacked_count + sync->busy < UNACKED_MAX - 1 && (extent = extent_take(sync))) {
		if (!next_run(sync, &extent->volume_id, &extent->off, &extent->len)) {
			sync->walked = true;
			break;
		}
		sync->busy++;
		extent->volume_index = sync->volume_index;
		extent->order = ++sync->order;
		extent->generation = sync->generation;
		extent->state = EXTENT_MAPPING;
		extent->op.done = map_done;
		read_begin(sync->group, &extent->ticket);
		io_map(extent_volume(extent)->file, extent->off, extent->len, &extent->hole,
		       &extent->op);
	}
	if (sync->active && sync->walked && !sync->busy && !sync->end_sent)
		ship_pump(sync->ship);
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
	for (unsigned i = 0; i < EXTENTS; i++) {
		const struct extent *extent = &sync->extents[i];

		if (extent->state != EXTENT_FREE && extent->order < low.order)
			low = (struct place){ extent->volume_index, extent->off, extent->order };
	}
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

static bool send_extent(struct sync *sync, struct extent *extent)
{
	struct frame frame = {
		.type = extent->zero ? FRAME_SYNC_ZERO : FRAME_SYNC_DATA,
		.epoch = sync->group->dir.sb.epoch,
		.seq = extent->stamp,
		.arg1 = extent->off,
	};
	const uint8_t *body = NULL;

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
		refund_rate(sync, extent->len - frame.body_bytes);
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
	struct extent *extent;
	bool sent = false;

	while ((extent = list_first_as(&sync->ready, struct extent, link)) &&
	       extent->stamp <= sent_seq) {
		if (!send_extent(sync, extent))
			return false;
		list_remove(&extent->link);
		extent_free(extent);
		sent = true;
	}
	if (sent)
		fill(sync);
	if (sync->active && sync->walked && !sync->busy && !sync->end_sent && !send_end(sync))
		return false;
	return true;
}

static void session_over(struct io_op *op, int64_t res)
{
	struct sync *sync = container_of(op, struct sync, save_op);

	sync->saving = false;
	if (res < 0)
		agent_fail(sync->group, (int)res, "the superblock cannot be written");
	else
		(void)dirty_remove(sync->ship->dirty);
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

void ship_sync_before_write(struct sync *sync, unsigned volume_id, uint64_t off, uint64_t len)
{
	const struct segment *open = sync->group->open;
	struct list *pos;

	if (!open || !open->header.records)
		return;
	list_for_each (pos, &sync->ready) {
		struct extent *extent = container_of(pos, struct extent, link);

		if (extent->stamp >= open->header.first_seq && extent->volume_id == volume_id &&
		    off < extent->off + extent->len && extent->off < off + len) {
			commit_seal(sync->group);
			return;
		}
	}
}

void ship_sync_begin(struct sync *sync)
{
	must(!sync->active && !sync->busy);
	sync->active = true;
	sync->generation++;
	sync->walked = sync->end_sent = false;
	sync->volume_index = 0;
	sync->cursor = 0;
	sync->order = 0;
	sync->cleared = (struct place){ 0 };
	sync->acked = 0;
	sync->unacked_first = sync->unacked_count = 0;
	sync->last_stamp = sync->group->head_seq;
	sync->total_bytes = dirty_bytes(sync->ship->dirty);
	sync->started_ns = io_now(sync->group->io);
	sync->allowed_ns = 0;
	io_timer_start(sync->group->io, &sync->save_timer, SAVE_INTERVAL_NS);
	fill(sync);
}

void ship_sync_end(struct sync *sync)
{
	struct extent *extent;

	sync->active = false;
	io_timer_stop(sync->group->io, &sync->save_timer);
	io_timer_stop(sync->group->io, &sync->rate_timer);
	while ((extent = list_pop_front_as(&sync->ready, struct extent, link)))
		extent_free(extent);
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
	return !sync->busy && !sync->saving;
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
	sync->rate_timer.fire = rate_due;
	sync->save_timer.fire = save_due;
	list_init(&sync->ready);
	ship->sync = sync;
	sync->lz4 = io_alloc(io, EXTENT_BYTES, 64);
	sync->lz4_state = io_alloc(io, (size_t)LZ4_sizeofState(), 64);
	if (!sync->lz4 || !sync->lz4_state)
		return -ENOMEM;
	for (unsigned i = 0; i < EXTENTS; i++) {
		sync->extents[i].sync = sync;
		sync->extents[i].buf = io_alloc(io, EXTENT_BYTES, 4096);
		if (!sync->extents[i].buf)
			return -ENOMEM;
	}
	*ret_sync = sync;
	return 0;
}

struct sync *ship_sync_free(struct sync *sync)
{
	struct io *io = sync->group->io;

	for (unsigned i = 0; i < EXTENTS; i++)
		if (sync->extents[i].buf)
			io_free(io, sync->extents[i].buf);
	if (sync->lz4)
		io_free(io, sync->lz4);
	if (sync->lz4_state)
		io_free(io, sync->lz4_state);
	io_free(io, sync);
	return NULL;
}
