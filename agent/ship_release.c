/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the journal into the dirty map: what a standby has not acknowledged and the journal shall no
 * longer keep.
 *
 *   read the records behind the floor -> set their ranges -> save the map -> superblock says it is
 * in force
 *
 * Only then does ship_floor() move (invariant S1). A crash before the superblock was stored leaves
 * the journal in charge, with a map that is too dirty: harmless.
 */
#include <errno.h>
#include <string.h>

#include "agent/ship.h"
#include "core/base/log.h"

#define SAVE_POLL_NS 1000000ull

static void finish(struct ship *ship, int64_t res)
{
	struct io_op *user = ship->release_user;

	ship->release_user = NULL;
	if (ship->decide_due && res >= 0)
		ship_decide(ship);
	user->done(user, res);
}

static uint64_t new_copy_id(struct ship *ship)
{
	return io_random(ship->group->io) | 1;
}

static void stored(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, release_op);

	if (res >= 0)
		ship->released_stored_seq = ship->peer->released_seq;
	finish(ship, res);
}

static void saved(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, release_op);

	if (res < 0) {
		/* The primary does not stop for want of a map: the next start finds none and copies
		 * everything, and that is what this one does as well. */
		log_warning("dirty map cannot be written, everything will be copied",
			    "group=%s standby=%s reason=\"%s\"", ship->group->conf->name,
			    ship->conf->node, strerror((int)-res));
		if (dirty_remove(ship->dirty)) {
			finish(ship, res);
			return;
		}
		ship_set_everything(ship);
	}
	ship_note_copy(ship);
	if (!ship->peer->needs_sync)
		ship->peer->copy_id = new_copy_id(ship);
	ship->peer->needs_sync = true;
	ship->peer->released_seq = max_u64(ship->peer->released_seq, ship->release_seq);
	ship->release_op.done = stored;
	group_dir_store(&ship->group->dir, &ship->store, &ship->release_op);
}

static void save(struct ship *ship);

static void save_again(struct io_timer *timer)
{
	save(container_of(timer, struct ship, release_timer));
}

static void save(struct ship *ship)
{
	if (ship_sync_saving(ship->sync)) { /* one save at a time */
		ship->release_timer.fire = save_again;
		io_timer_start(ship->group->io, &ship->release_timer, SAVE_POLL_NS);
		return;
	}
	ship->release_op.done = saved;
	ship_save_map(ship, &ship->release_op);
}

void ship_save_map(struct ship *ship, struct io_op *op)
{
	if (dirty_has_file(ship->dirty))
		dirty_save(ship->dirty, op);
	else
		dirty_create(ship->dirty, op);
}

static int set_ranges(struct ship *ship)
{
	const struct journal_reader *reader = &ship->release_reader;

	for (uint32_t i = 0; i < reader->header.records; i++) {
		struct record record;

		if (record_decode(reader->stored + SEGMENT_HEADER_BYTES + (size_t)i * RECORD_BYTES,
				  &reader->header, &record))
			return -EBADMSG;
		if (record_has_range(&record))
			dirty_set(ship->dirty, record.volume, record.offset_bytes,
				  record.length_bytes);
	}
	return 0;
}

static void segment_read(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, release_op);

	if (res > 0 && set_ranges(ship))
		res = -EBADMSG;
	if (res < 0) {
		/* What the journal cannot tell any more, the volumes still hold. */
		ship_set_everything(ship);
		save(ship);
		return;
	}
	if (res > 0 && segment_last_seq(&ship->release_reader.header) < ship->release_seq) {
		journal_reader_next(&ship->release_reader, &ship->release_op);
		return;
	}
	save(ship);
}

static void seek_done(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, release_op);

	if (res < 0) {
		/* The journal does not reach back that far: only a whole copy is right. */
		ship_set_everything(ship);
		save(ship);
		return;
	}
	ship->release_op.done = segment_read;
	journal_reader_next(&ship->release_reader, &ship->release_op);
}

static void release_from(struct ship *ship, uint64_t after_seq, uint64_t seq, struct io_op *op)
{
	must(!ship->release_user);
	ship->release_user = op;
	ship->release_seq = seq;
	if (seq <= after_seq) {
		save(ship);
		return;
	}
	ship->release_op.done = seek_done;
	journal_reader_seek(&ship->release_reader, after_seq + 1, &ship->release_op);
}

void ship_release(struct ship *ship, uint64_t seq, struct io_op *op)
{
	uint64_t floor = ship_floor(ship); /* without a session it may be another one */
	bool loading = ship->prepare_pending && ship->state == SHIP_WAITING;

	if (ship->release_user || loading || floor >= seq) {
		io_defer(ship->group->io, op, -EALREADY);
		return;
	}
	/* What it was sent and has not acknowledged may be lost there: the session starts over with
	 * a copy. */
	if (ship->state == SHIP_PREPARING || ship->state == SHIP_STREAMING)
		ship_disconnect(
			ship,
			"the journal was needed for new writes: what the standby lacks is in its "
			"dirty map and will be copied");
	release_from(ship, floor, seq, op);
}

void ship_needs_sync(struct ship *ship, uint64_t after_seq, uint64_t seq, bool everything,
		     struct io_op *op)
{
	if (everything) {
		ship_set_everything(ship);
		after_seq = seq; /* nothing to look up */
	}
	must(after_seq != UINT64_MAX); /* never filled: then it is everything */
	release_from(ship, after_seq, min_u64(seq, ship->group->journal.durable_seq), op);
}

void ship_set_everything(struct ship *ship)
{
	enum conf_compare compare = ship->conf->compare;

	dirty_set_all(ship->dirty);
	ship->peer->copy_id = new_copy_id(ship);
	ship_verify_everything(ship->verify);
	/* What was said last of its volumes; never anything, for a map that was lost. */
	ship->peer->needs_compare =
		compare == CONF_COMPARE_ALWAYS ||
		(compare == CONF_COMPARE_AUTO && (ship->welcome.seeded || !ship->welcome.protocol));
}

void ship_mark_sync(struct ship *ship, struct io_op *op)
{
	/* Nothing to look up: it is set already. */
	release_from(ship, ship->peer->released_seq, ship->peer->released_seq, op);
}

void ship_synced(struct ship *ship, struct io_op *op)
{
	ship->peer->needs_sync = ship->peer->needs_compare = false;
	ship->peer->copy_seq = ship->peer->copy_time_ns = 0;
	ship->copy_noted = false;
	ship_verify_copied(ship->verify);
	group_dir_store(&ship->group->dir, &ship->store, op);
}
