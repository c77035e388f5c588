/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby that is far behind need not be sent what was overwritten since: where the ranges that
 * the backlog touches are less than half of what it wrote, its records go into the dirty map, as
 * for want of journal space, and the copy that follows takes the place of the backlog.
 *
 * Looked at once a second. The backlog is read from the journal, beside the stream, which goes on;
 * its ranges are counted in a map that is never in force, in the chunks in which a copy would read
 * them. After a no, it is looked at again when half as much again has been written.
 *
 * Invariant K1: nothing is decided here but when: the records are released by ship_release(), which
 * reads them itself (S1).
 */
#include <errno.h>
#include <inttypes.h>

#include "agent/ship.h"
#include "core/base/log.h"

static void read_on(struct ship *ship);

static void over(struct ship *ship)
{
	ship->coalesce.busy = false;
	agent_step_stop(ship->group);
}

static void released(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, coalesce.op);

	over(ship);
	if (res < 0 && res != -EALREADY) {
		agent_fail(ship->group, (int)res, "a standby's dirty map cannot be written");
		return;
	}
	agent_drain_floor(ship->group);
}

static bool wanted(const struct ship *ship)
{
	return ship->state == SHIP_STREAMING && !ship->peer->needs_sync &&
	       !ship_sync_active(ship->sync) && !ship->release_user && !ship->stopped &&
	       ship->group->state == AGENT_SERVING;
}

static void decide(struct ship *ship)
{
	struct coalesce *coalesce = &ship->coalesce;
	uint64_t copy_bytes = dirty_bytes(coalesce->map);

	if (!wanted(ship) || coalesce->stored_bytes <= ship->conf->coalesce_bytes ||
	    copy_bytes * 2 >= coalesce->written_bytes) {
		over(ship);
		return;
	}
	log_info("backlog coalesced",
		 "group=%s standby=%s records_to=%" PRIu64 " written_bytes=%" PRIu64
		 " copy_bytes=%" PRIu64,
		 ship->group->conf->name, ship->conf->node, coalesce->to_seq,
		 coalesce->written_bytes, copy_bytes);
	coalesce->count++;
	ship_disconnect(ship, "it is far behind, and a copy of what has changed since is less than "
			      "the records: they are in its dirty map");
	coalesce->op.done = released;
	ship_release(ship, coalesce->to_seq, &coalesce->op);
}

static bool count_segment(struct ship *ship)
{
	struct coalesce *coalesce = &ship->coalesce;
	const struct journal_reader *reader = &coalesce->reader;

	for (uint32_t i = 0; i < reader->header.records; i++) {
		struct record record;

		if (record_decode(reader->stored + SEGMENT_HEADER_BYTES + (size_t)i * RECORD_BYTES,
				  &reader->header, &record))
			return false;
		if (record_has_range(&record))
			dirty_set(coalesce->map, record.volume, record.offset_bytes,
				  record.length_bytes);
	}
	coalesce->stored_bytes += reader->header.total_bytes;
	coalesce->written_bytes += reader->header.data_raw_bytes;
	return true;
}

/* What cannot be read is not coalesced: the standby may have got it meanwhile, and the journal
 * moved on. */
static void segment_read(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, coalesce.op);

	if (res < 0 || !wanted(ship) || (res > 0 && !count_segment(ship)))
		over(ship);
	else if (res > 0 && segment_last_seq(&ship->coalesce.reader.header) < ship->coalesce.to_seq)
		read_on(ship);
	else
		decide(ship);
}

static void read_on(struct ship *ship)
{
	ship->coalesce.op.done = segment_read;
	journal_reader_next(&ship->coalesce.reader, &ship->coalesce.op);
}

static void sought(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, coalesce.op);

	if (res < 0)
		over(ship);
	else
		read_on(ship);
}

static void clear_map(struct ship *ship)
{
	const struct superblock *sb = &ship->group->dir.sb;

	for (uint32_t i = 0; i < sb->volume_count; i++)
		dirty_clear(ship->coalesce.map, sb->volumes[i].id, 0, sb->volumes[i].size_bytes);
}

void coalesce_look(struct ship *ship)
{
	struct coalesce *coalesce = &ship->coalesce;
	uint64_t most = ship->conf->coalesce_bytes, head_bytes = ship->group->head_bytes;

	if (!most || coalesce->busy || !wanted(ship) || ship_lag_bytes(ship) <= most ||
	    head_bytes < coalesce->again_bytes)
		return;
	coalesce->busy = true;
	coalesce->again_bytes = head_bytes + most / 2;
	coalesce->stored_bytes = coalesce->written_bytes = 0;
	coalesce->to_seq = ship->group->journal.durable_seq;
	clear_map(ship);
	coalesce->op.done = sought;
	journal_reader_seek(&coalesce->reader, ship->durable_seq + 1, &coalesce->op);
}

int coalesce_init(struct ship *ship, const char *path)
{
	struct coalesce *coalesce = &ship->coalesce;
	int r;

	if (!ship->conf->coalesce_bytes)
		return 0;
	r = dirty_new(ship->group->io, path, &ship->group->dir.sb, &coalesce->map);
	if (!r)
		r = journal_reader_init(&coalesce->reader, &ship->group->journal);
	coalesce->reader_open = !r;
	return r;
}

void coalesce_deinit(struct ship *ship)
{
	struct coalesce *coalesce = &ship->coalesce;

	if (coalesce->reader_open)
		journal_reader_deinit(&coalesce->reader);
	coalesce->reader_open = false;
	coalesce->map = dirty_free(coalesce->map);
}
