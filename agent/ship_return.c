/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A standby that comes back from another history: WELCOME says up to which seq it shares ours
 * (common), RANGES what it has written since, under that other history.
 *
 *   WELCOME diverged -> RANGES into the dirty map -> does the chain agree at common? -> our own
 *   records behind common into the map as well -> durable -> START anew at our end, with a copy
 *
 * A split inside one epoch (a primary that went on from an older image of itself) does not show in
 * the histories: the chain shows it when the stream is to be resumed, and the standby is told.
 *
 * Invariant V4: before START is sent, the dirty map durably covers every byte in which the standby
 * may differ from us at our end: what its records behind common wrote, and what ours did. That is
 * all only if both sides hold the same at common, which the chain value proves; where it does not,
 * or either journal no longer reaches back to common, everything is dirty. Too much is harmless.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "agent/ship.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/base/log.h"

/* What comes next is in memory, if anything does. */
struct journal_position ship_durable_end(struct ship *ship)
{
	struct agent_group *group = ship->group;
	struct journal_position at = group->journal.head;
	struct segment *next;

	if (group->journal.durable_seq == group->journal.appended_seq)
		return at;
	next = segring_find(&group->ring, group->journal.durable_seq + 1);
	must(next && next->header.first_seq == group->journal.durable_seq + 1);
	at.seq = next->header.first_seq;
	at.chain = next->header.chain;
	at.bytes = next->header.bytes_end;
	for (uint32_t i = 0; i < next->header.records; i++) {
		struct record record;
		int r = record_decode(next->table + (size_t)i * RECORD_BYTES, &next->header,
				      &record);

		must(r == 0); /* our own */
		at.bytes -= record.length_bytes;
	}
	return at;
}

/* One range into the map. False: it cannot be. */
static bool take_range(struct ship *ship, const uint8_t *entry)
{
	struct volumes *volumes = &ship->group->volumes;
	uint64_t off = le64_load(entry), len = 512ull * le32_load(entry + 8);
	const struct volume *volume = volumes_by_id(volumes, le16_load(entry + 12));

	if (!volume || !range_valid(off, len, volume->id.size_bytes))
		return false;
	dirty_set(ship->dirty, volume->id.id, off, len);
	return true;
}

int ship_return_ranges(struct ship *ship, const struct frame *frame, const uint8_t *body)
{
	if (ship->state != SHIP_PREPARING || !ship->ranges_left ||
	    (frame->seq == 1) != (ship->ranges_left == 1))
		return -EPROTO;
	for (uint32_t at = 0; at < frame->body_bytes; at += FRAME_RANGE_BYTES)
		if (!take_range(ship, body + at))
			return -EPROTO;
	if (--ship->ranges_left == 0)
		ship_decide(ship);
	return 0;
}

/* False: what it says of the history that we share cannot be. */
static bool common_is_possible(const struct ship *ship)
{
	const struct superblock *sb = &ship->group->dir.sb;
	const struct link_welcome *w = &ship->welcome;

	return w->common_seq <= history_common(sb->history, sb->history_count,
					       ship->group->journal.durable_seq, w->history,
					       w->history_count, w->durable.seq);
}

static void common_reached(struct ship *ship, const struct journal_position *at)
{
	const struct link_welcome *w = &ship->welcome;
	bool agrees = at && at->seq == w->common_seq + 1 && at->chain == w->common_chain;

	/* Up to there it was taken for ours; what it keeps as salvage would begin too late. */
	if (timeline_of(ship, w->common_seq) == TIMELINE_OTHER ||
	    (at && w->common_chain && w->common_seq && !agrees)) {
		timeline_parted(ship,
				"diverged: the standby's history differs from ours already where "
				"both should agree; nothing was sent");
		return;
	}
	log_info("standby returns from another history",
		 "group=%s standby=%s common_seq=%llu its_seq=%llu copy=%s",
		 ship->group->conf->name, ship->conf->node, (unsigned long long)w->common_seq,
		 (unsigned long long)w->durable.seq, agrees ? "difference" : "everything");
	ship_prepare_reset(ship, !agrees, w->common_seq);
}

static void common_found(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, prepare_op);

	ship->prepare_pending = false;
	if (ship->prepare_generation != ship->generation || ship->state != SHIP_PREPARING)
		return;
	if (res < 0 && res != -ENOENT && res != -EBADMSG) {
		ship_disconnect(ship, ship->group->journal.error[0] ? ship->group->journal.error
								    : "the journal cannot be read");
		return;
	}
	common_reached(ship, res < 0 ? NULL : &ship->tail.reader.at);
}

void ship_return_decide(struct ship *ship)
{
	const struct link_welcome *w = &ship->welcome;
	const struct journal *journal = &ship->group->journal;

	if (ship->ranges_left)
		return; /* the last one comes back here */
	if (!common_is_possible(ship)) {
		ship_disconnect(ship, "the standby names a common history that we do not share");
		return;
	}
	if (w->syncing || !w->common_chain || w->common_seq + 1 < journal_oldest_seq(journal)) {
		common_reached(ship, NULL);
		return;
	}
	if (w->common_seq == journal->durable_seq) {
		struct journal_position at = ship_durable_end(ship);

		common_reached(ship, &at);
		return;
	}
	ship->prepare_pending = true;
	ship->prepare_generation = ship->generation;
	ship->prepare_op.done = common_found;
	journal_reader_seek(&ship->tail.reader, w->common_seq + 1, &ship->prepare_op);
}

void ship_return_refuse(struct ship *ship)
{
	struct frame frame = { .type = FRAME_REFUSE, .epoch = ship->group->dir.sb.epoch };
	struct link_refuse refuse = { .code = LINK_REFUSE_DIVERGED, .epoch = frame.epoch };
	int len;

	snprintf(refuse.node, sizeof(refuse.node), "%s", ship->group->options.conf->node);
	snprintf(refuse.text, sizeof(refuse.text),
		 "what the standby holds up to %" PRIu64 " is not what this history has there",
		 ship->welcome.durable.seq);
	len = link_refuse_pack(&refuse, ship->control, sizeof(ship->control));
	must(len >= 0);
	frame.body_bytes = (uint32_t)len;
	link_finish(ship->link, &frame, ship->control);
}
