/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification of a standby: all volumes are walked with questions (compare.c) beside the stream,
 * each answered for the position of its stamp, so writes meanwhile make nothing differ that is the
 * same. On request, and by itself every verify_interval; one per standby, each at its own pace.
 *
 * A walk that is interrupted goes on at the first place without an answer. A copy in between makes
 * it begin anew.
 *
 * Invariant V1: the position that counts as verified is that of the walk's beginning, and only when
 * every byte of every volume was answered to be the same, in a session that was not copied to.
 *
 * What differs is set in the standby's dirty map; with `repair` it is then copied like that of a
 * resync.
 *
 * Invariant V4: a difference that was found stays known, in the superblocks of both sides, until a
 * copy has ended whose map had all that is known, or a verification has found everything equal. The
 * map of an idle standby is not on the disk: after a restart only the latter, or a copy of
 * everything, will do.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/sync.h"
#include "core/base/log.h"
#include "core/base/units.h"

#define RATE_DEFAULT_BYTES (32ull << 20)
#define FIRST_DELAY_NS	   NS_PER_MINUTE /* of one by itself that was never made before */

struct verify {
	struct ship *ship;
	struct agent_group *group;
	struct extents *extents;
	struct extents_user user;
	bool active;  /* one is under way; it may be waiting for the standby */
	bool walking; /* in this session */
	bool walked, repair, repairing;
	bool mapped; /* the dirty map has all that is known to differ */
	unsigned volume_index;
	uint64_t cursor, order;
	uint64_t begun_seq, started_ns;
	uint64_t tried_ns; /* wall clock of the last beginning by itself */
	uint64_t rate_bytes;
	struct status_verify found;
	struct pace pace;
	struct io_timer due_timer;
	struct io_op store_op;
	struct group_dir_store store;
	bool storing;
};

static struct place place_of(const struct verify *verify)
{
	struct place at = { verify->volume_index, verify->cursor, UINT64_MAX };

	if (verify->walking)
		extents_low(verify->extents, &at);
	return at;
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

static bool next_place(struct verify *verify)
{
	const struct volumes *volumes = &verify->group->volumes;

	while (verify->volume_index < volumes->count &&
	       verify->cursor >= volumes->list[verify->volume_index].id.size_bytes) {
		verify->volume_index++;
		verify->cursor = 0;
	}
	return verify->volume_index < volumes->count;
}

/* One map at a time: its result moves the cursor. */
static void fill(void *owner)
{
	struct verify *verify = owner;
	struct extents *extents = verify->extents;

	while (verify->walking && !verify->walked && pace_allows(&verify->pace) &&
	       !extents_mapping(extents) && extents->busy < EXTENTS &&
	       extents->busy + extents->question_count < QUESTIONS_MAX) {
		const struct superblock_volume *id;
		struct extent *extent;

		if (!next_place(verify)) {
			verify->walked = true;
			break;
		}
		id = &verify->group->volumes.list[verify->volume_index].id;
		extent = extents_take(extents);
		extent->volume_id = id->id;
		extent->volume_index = verify->volume_index;
		extent->off = verify->cursor;
		extent->len = min_u64(id->size_bytes - verify->cursor,
				      FRAME_SYNC_MAX_BYTES - verify->cursor % FRAME_SYNC_MAX_BYTES);
		extent->order = ++verify->order;
		extent->ask = true;
		extent_map(extent);
	}
	if (verify->walked)
		ship_pump(verify->ship);
}

/* No larger than what the dirty map tells apart: that is what a repair copies. */
static void measured(void *owner, struct extent *extent)
{
	struct verify *verify = owner;
	uint64_t chunk =
		min_u64(dirty_chunk_bytes(verify->ship->dirty, extent->volume_id), EXTENT_BYTES);

	if (!extent->hole)
		extent->len = min_u64(extent->len, chunk - extent->off % chunk);
	verify->cursor = extent->off + extent->len;
	pace_count(&verify->pace, extent->len);
}

static bool send_question(void *owner, struct extent *extent)
{
	struct verify *verify = owner;

	return compare_ask(verify->extents, extent);
}

static void leave(struct verify *verify)
{
	if (!verify->walking)
		return;
	verify->walking = false;
	pace_end(&verify->pace);
	extents_end(verify->extents);
}

static void unreadable(void *owner, const struct extent *extent)
{
	struct verify *verify = owner;

	log_warning("verification ended: a volume cannot be read here",
		    "group=%s standby=%s offset=%" PRIu64 " length=%" PRIu64,
		    verify->group->conf->name, verify->ship->conf->node, extent->off, extent->len);
	leave(verify);
	verify->active = false;
	verify->found.failed = true;
}

/* ---- what is found ----------------------------------------------------------------------------
 */

static void add_range(struct status_verify *found, const char *volume, uint64_t off, uint64_t len)
{
	struct status_range *range;

	for (unsigned i = 0; i < found->range_count; i++) {
		range = &found->ranges[i];
		if (strcmp(range->volume, volume) != 0)
			continue;
		if (range->off + range->len == off || off + len == range->off) {
			range->off = min_u64(range->off, off);
			range->len += len;
			return;
		}
	}
	found->differing_ranges++;
	if (found->range_count == array_len(found->ranges))
		return;
	range = &found->ranges[found->range_count++];
	snprintf(range->volume, sizeof(range->volume), "%.63s", volume);
	range->off = off;
	range->len = len;
}

static void verified_stored(struct io_op *op, int64_t res)
{
	struct verify *verify = container_of(op, struct verify, store_op);

	verify->storing = false;
	if (res < 0)
		agent_fail(verify->group, (int)res, "the superblock cannot be written");
}

static void store_peer(struct verify *verify)
{
	if (verify->storing) /* the store that is under way, or the next, has it */
		return;
	verify->storing = true;
	verify->store_op.done = verified_stored;
	group_dir_store(&verify->group->dir, &verify->store, &verify->store_op);
}

static void know(struct verify *verify, uint64_t ranges, uint64_t bytes)
{
	struct superblock_peer *peer = verify->ship->peer;

	if (peer->differing_ranges == ranges && peer->differing_bytes == bytes)
		return;
	peer->differing_ranges = ranges;
	peer->differing_bytes = bytes;
	store_peer(verify);
}

static void answered(void *owner, const struct question *question, bool differs)
{
	struct verify *verify = owner;
	struct dirty_map *dirty = verify->ship->dirty;
	const struct volume *volume = volumes_by_id(&verify->group->volumes, question->volume_id);
	uint64_t off, len;

	/* A walk that goes on asks some of it again. */
	if (differs &&
	    (!dirty_next(dirty, question->volume_id, question->off, question->len, &off, &len) ||
	     off != question->off)) {
		dirty_set(dirty, question->volume_id, question->off, question->len);
		verify->found.differing_bytes += question->len;
		add_range(&verify->found, volume->id.name, question->off, question->len);
		if (!verify->ship->peer->differing_ranges) /* the rest at the end */
			know(verify, verify->found.differing_ranges, verify->found.differing_bytes);
	}
	fill(verify);
}

static void keep_verified(struct verify *verify, uint64_t time_ns)
{
	struct superblock_peer *peer = verify->ship->peer;

	peer->verified_seq = verify->begun_seq;
	peer->verified_time_ns = time_ns;
	log_info("standby verified", "group=%s standby=%s seq=%" PRIu64, verify->group->conf->name,
		 verify->ship->conf->node, verify->begun_seq);
	peer->differing_ranges = peer->differing_bytes = 0;
	store_peer(verify);
}

static void arm(struct verify *verify);

/* False: no room for saying so yet. */
static bool finish(struct verify *verify)
{
	uint64_t now_ns = io_wall(verify->group->io);
	struct frame frame = { .type = FRAME_VERIFIED,
			       .epoch = verify->group->dir.sb.epoch,
			       .seq = verify->begun_seq,
			       .arg1 = now_ns,
			       .arg2 = verify->found.differing_ranges };

	if (link_send(verify->ship->link, &frame, NULL))
		return false;
	leave(verify);
	verify->active = false;
	if (!verify->found.differing_ranges) {
		keep_verified(verify, now_ns);
	} else {
		log_warning("verification: the standby differs",
			    "group=%s standby=%s differing_ranges=%" PRIu64
			    " differing_bytes=%" PRIu64 " repair=%s",
			    verify->group->conf->name, verify->ship->conf->node,
			    verify->found.differing_ranges, verify->found.differing_bytes,
			    verify->repair ? "yes" : "no");
		verify->mapped = true;
		know(verify, verify->found.differing_ranges, verify->found.differing_bytes);
		verify->repairing = verify->repair;
		if (verify->repair && ship_resync(verify->ship, false, false) != 0)
			verify->repairing = false;
	}
	arm(verify);
	return true;
}

bool ship_verify_pump(struct verify *verify, uint64_t sent_seq)
{
	if (!verify->walking)
		return true;
	if (!extents_pump(verify->extents, sent_seq))
		return false;
	/* The end does not hold up records. */
	if (verify->walking && verify->walked && !verify->extents->busy &&
	    !compare_open(verify->extents))
		(void)finish(verify);
	return true;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void walk(struct verify *verify)
{
	verify->walking = true;
	verify->walked = false;
	extents_begin(verify->extents, &verify->user);
	pace_begin(&verify->pace, verify->rate_bytes);
	fill(verify);
}

static bool can_walk(const struct verify *verify)
{
	const struct ship *ship = verify->ship;

	return ship->state == SHIP_STREAMING && !ship_sync_active(ship->sync) &&
	       !ship->peer->needs_sync;
}

static void begin(struct verify *verify)
{
	struct ship *ship = verify->ship;

	verify->found = (struct status_verify){ .active = true };
	verify->mapped = !ship->peer->differing_ranges;
	verify->repairing = false;
	verify->begun_seq = verify->group->head_seq;
	verify->started_ns = io_now(verify->group->io);
	for (unsigned i = 0; i < verify->group->volumes.count; i++) {
		const struct superblock_volume *id = &verify->group->volumes.list[i].id;

		verify->found.total_bytes += id->size_bytes;
		dirty_clear(ship->dirty, id->id, 0, id->size_bytes); /* of an earlier one */
	}
	walk(verify);
}

int ship_verify(struct verify *verify, bool repair, uint64_t rate_bytes)
{
	uint64_t configured = verify->group->conf->verify_rate_bytes;

	if (!can_walk(verify))
		return -EAGAIN;
	verify->repair = repair;
	verify->rate_bytes = rate_bytes ? rate_bytes : configured ? configured : RATE_DEFAULT_BYTES;
	verify->active = true;
	leave(verify);
	verify->volume_index = 0;
	verify->cursor = 0;
	if (ship_sync_quiet(verify->ship->sync))
		begin(verify); /* else the end of a copy is being stored, and ship_verify_synced()
				  follows */
	return 0;
}

bool ship_verify_stop(struct verify *verify)
{
	if (!verify->active)
		return false;
	leave(verify);
	verify->active = false;
	verify->found.failed = true;
	arm(verify);
	return true;
}

static void due(struct io_timer *timer)
{
	struct verify *verify = container_of(timer, struct verify, due_timer);

	if (verify->active || !can_walk(verify))
		return; /* the end of this one, or the next session, comes here */
	verify->tried_ns = io_wall(verify->group->io);
	(void)ship_verify(verify, false, 0);
}

/* When the next one by itself is due. */
static void arm(struct verify *verify)
{
	uint64_t interval_ns = verify->group->conf->verify_interval_ns;
	uint64_t last_ns = max_u64(verify->ship->peer->verified_time_ns, verify->tried_ns);
	uint64_t now_ns = io_wall(verify->group->io);

	if (!interval_ns || verify->due_timer.deadline_ns || verify->ship->stopped)
		return;
	if (!last_ns)
		interval_ns = min_u64(interval_ns, FIRST_DELAY_NS);
	else
		interval_ns = min_u64(sub_floor_u64(last_ns + interval_ns, now_ns), interval_ns);
	io_timer_start(verify->group->io, &verify->due_timer, interval_ns);
}

void ship_verify_session(struct verify *verify, bool copies)
{
	if (verify->active && copies) {
		verify->volume_index = 0; /* V1 */
		verify->cursor = 0;
	} else if (verify->active) {
		if (!verify->volume_index && !verify->cursor)
			begin(verify);
		else
			walk(verify);
	}
	arm(verify);
}

void ship_verify_pause(struct verify *verify)
{
	struct place at = place_of(verify);

	io_timer_stop(verify->group->io, &verify->due_timer);
	if (!verify->walking)
		return;
	verify->volume_index = at.volume_index;
	verify->cursor = at.off;
	leave(verify);
}

void ship_verify_everything(struct verify *verify)
{
	verify->mapped = true;
}

void ship_verify_copied(struct verify *verify)
{
	if (verify->mapped)
		verify->ship->peer->differing_ranges = verify->ship->peer->differing_bytes = 0;
}

/* The end of a copy makes the standby forget. */
static void tell_again(struct verify *verify)
{
	struct frame frame = { .type = FRAME_VERIFIED,
			       .epoch = verify->group->dir.sb.epoch,
			       .arg1 = io_wall(verify->group->io),
			       .arg2 = verify->ship->peer->differing_ranges };

	if (frame.arg2)
		(void)link_send(verify->ship->link, &frame, NULL);
}

void ship_verify_synced(struct verify *verify)
{
	if (verify->repairing)
		verify->found.repaired_bytes = verify->found.differing_bytes;
	verify->repairing = false;
	if (verify->ship->state == SHIP_STREAMING) {
		tell_again(verify);
		ship_verify_session(verify, false);
	}
}

bool ship_verify_quiet(const struct verify *verify)
{
	return !verify->storing;
}

void ship_verify_status(const struct verify *verify, struct status_verify *s)
{
	const struct volumes *volumes = &verify->group->volumes;
	struct place at = place_of(verify);
	uint64_t took_ms = (io_now(verify->group->io) - verify->started_ns) / 1000000;

	*s = verify->found;
	s->active = verify->active;
	s->done_bytes = at.off;
	for (unsigned i = 0; i < at.volume_index && i < volumes->count; i++)
		s->done_bytes += volumes->list[i].id.size_bytes;
	if (verify->active && took_ms)
		s->rate_bytes_per_s = s->done_bytes * 1000 / took_ms;
	if (s->rate_bytes_per_s)
		s->left_ns = sub_floor_u64(s->total_bytes, s->done_bytes) * 1000 /
			     s->rate_bytes_per_s * 1000000;
	s->known_ranges = verify->ship->peer->differing_ranges;
	s->known_bytes = verify->ship->peer->differing_bytes;
	s->verified_seq = verify->ship->peer->verified_seq;
	s->verified_time_ns = verify->ship->peer->verified_time_ns;
}

int ship_verify_new(struct ship *ship, struct verify **ret_verify)
{
	struct verify *verify = io_alloc(ship->group->io, sizeof(*verify), 64);

	if (!verify)
		return -ENOMEM;
	verify->ship = ship;
	verify->group = ship->group;
	verify->extents = ship->extents;
	verify->user = (struct extents_user){ .owner = verify,
					      .patient = true,
					      .measured = measured,
					      .unreadable = unreadable,
					      .send = send_question,
					      .go_on = fill,
					      .answered = answered };
	pace_init(&verify->pace, ship->group->io, verify, fill);
	verify->due_timer.fire = due;
	*ret_verify = verify;
	return 0;
}

struct verify *ship_verify_free(struct verify *verify)
{
	io_free(verify->group->io, verify);
	return NULL;
}
