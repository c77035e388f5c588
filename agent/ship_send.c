/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes over a link in streaming, and what comes back: segments within the window, heartbeats,
 * acknowledgements, and from them how far the standby is behind.
 *
 * Invariant S3: segments are sent in sequence order, without gap, only when durable here.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ship.h"

#define BANDWIDTH_LOOK_NS 1000000000ull

static void bandwidth_due(struct io_timer *timer)
{
	ship_pump(container_of(timer, struct ship, bandwidth_timer));
}

static uint64_t look_at_bandwidth(struct ship *ship)
{
	uint64_t limit = bandwidth_limit(ship->conf, io_wall(ship->group->io));

	bandwidth_count(&ship->bandwidth, link_sent_bytes(ship->link) + link_queued(ship->link),
			limit, io_now(ship->group->io));
	return limit;
}

static bool bandwidth_allows(struct ship *ship)
{
	struct io *io = ship->group->io;
	uint64_t limit = look_at_bandwidth(ship),
		 wait_ns = bandwidth_wait_ns(&ship->bandwidth, limit, io_now(io));

	if (!wait_ns)
		return true;
	ship->bandwidth_timer.fire = bandwidth_due;
	/* Another limit may be in force before that. */
	if (!ship->bandwidth_timer.deadline_ns)
		io_timer_start(io, &ship->bandwidth_timer, min_u64(wait_ns, BANDWIDTH_LOOK_NS));
	return false;
}

bool ship_has_room(struct ship *ship, size_t body_bytes)
{
	if (!bandwidth_allows(ship))
		return false;
	if (link_room(ship->link) >= FRAME_BYTES + body_bytes)
		return true;
	link_want(ship->link, FRAME_BYTES + body_bytes); /* comes back as on_writable() */
	return false;
}

static uint64_t held_seq(const struct ship *ship)
{
	return ship->state == SHIP_STREAMING ? ship->durable_seq : ship->peer->durable_seq;
}

static uint64_t find_time_ns(struct ship *ship, uint64_t seq)
{
	struct agent_group *group = ship->group;
	const struct segment *segment;
	uint64_t time_ns;

	if (ship->state == SHIP_STREAMING && ship->sent_count)
		return ship->sent[ship->sent_first].first_time_ns;
	if (group->open && group->open->header.records && group->open->header.first_seq <= seq)
		return group->open->header.first_time_ns;
	segment = segring_find(&group->ring, seq);
	if (segment)
		return segment->header.first_time_ns;
	time_ns = journal_time_floor_ns(&group->journal, seq);
	return time_ns ? time_ns : journal_oldest_time_ns(&group->journal);
}

/* After a restart the sum at its position is not known: that of a place before it is. */
static uint64_t held_bytes(const struct ship *ship)
{
	uint64_t held = held_seq(ship);

	if (ship->durable_bytes || !held)
		return ship->durable_bytes;
	return journal_bytes_floor(&ship->group->journal, held);
}

/*
 * Being copied, due to be, or never filled: whatever it acknowledged, there is no position to which
 * it could be promoted, so it lacks everything since the last one.
 */
static bool holds_no_position(const struct ship *ship)
{
	return ship->peer->needs_sync || ship_sync_active(ship->sync) ||
	       (ship->peer->durable_seq == 0 && ship->state != SHIP_STREAMING);
}

/*
 * Wall-clock time of the oldest record that the standby does not hold durably; 0 when it holds all,
 * UINT64_MAX when that is not known. Found while the record is fresh, and then kept: later it has
 * left memory, and in the end the journal.
 */
static uint64_t oldest_missing_ns(struct ship *ship)
{
	uint64_t seq = held_seq(ship) + 1;

	if (holds_no_position(ship))
		return ship->copy_noted ? ship->copy_ns : UINT64_MAX;
	if (seq > ship->group->head_seq)
		return 0;
	if (ship->missing_seq != seq) {
		ship->missing_seq = seq;
		ship->missing_ns = find_time_ns(ship, seq);
	}
	return ship->missing_ns;
}

static bool send_segment(struct ship *ship)
{
	struct tail *tail = &ship->tail;
	const struct segment_header *header = tail->header;
	struct ship_sent *sent = &ship->sent[(ship->sent_first + ship->sent_count) % SHIP_SENT_MAX];
	struct frame frame = {
		.type = FRAME_SEGMENT,
		.body_bytes = header->total_bytes,
		.epoch = ship->group->dir.sb.epoch,
		.seq = header->first_seq,
		.arg1 = segment_last_seq(header),
	};

	if (link_send(ship->link, &frame, tail->stored))
		return false;
	must(header->first_seq == ship->sent_seq + 1);
	*sent = (struct ship_sent){ segment_last_seq(header), header->bytes_end,
				    header->first_time_ns, header->total_bytes };
	ship->sent_count++;
	ship->sent_seq = sent->last_seq;
	ship->unacked_bytes += sent->stored_bytes;
	ship->sent_segments++;
	ship->sent_record_bytes += header->total_bytes;
	tail_drop(tail);
	return true;
}

static void read_done(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, tail_op);

	ship->tail_pending = false;
	if (ship->tail_generation != ship->generation || ship->state != SHIP_STREAMING) {
		tail_drop(&ship->tail);
		return;
	}
	if (res < 0) {
		ship->unreadable = res == -EBADMSG;
		ship_disconnect(ship,
				ship->group->journal.error[0]
					? ship->group->journal.error
					: "the journal no longer holds what the standby needs");
		return;
	}
	ship_pump(ship);
}

/* Segments that may be sent now: window, table of sent ones, room in the link. */
static bool may_send(struct ship *ship)
{
	if (ship->sent_count == SHIP_SENT_MAX ||
	    (ship->unacked_bytes && ship->unacked_bytes >= ship->window_bytes))
		return false; /* an ACK comes back here */
	return ship_has_room(ship, SEGMENT_TOTAL_MAX_BYTES);
}

static void pump(struct ship *ship)
{
	while (ship->state == SHIP_STREAMING && !ship->tail_pending) {
		int r;

		if (ship_sync_active(ship->sync) && !ship_sync_pump(ship->sync, ship->sent_seq))
			return;
		if (!ship_verify_pump(ship->verify, ship->sent_seq))
			return;
		if (ship->state != SHIP_STREAMING)
			return;
		if (!may_send(ship))
			return;
		if (!ship->tail.header) {
			r = tail_poll(&ship->tail);
			if (r == -EAGAIN) {
				ship->tail_pending = true;
				ship->tail_generation = ship->generation;
				ship->tail_op.done = read_done;
				tail_next(&ship->tail, &ship->tail_op);
				return;
			}
			if (r <= 0)
				return;
		}
		if (!send_segment(ship)) {
			/* The link has just ended. Held beyond this turn, the segment would keep
			 * memory from writes that wait for room, and nobody would tell them. */
			tail_seek(&ship->tail, ship->sent_seq + 1);
			return;
		}
	}
}

void ship_pump(struct ship *ship)
{
	(void)oldest_missing_ns(ship);
	/* Sending an extent makes room for the next read, whose end may come back here. */
	if (ship->pumping)
		return;
	ship->pumping = true;
	pump(ship);
	ship->pumping = false;
}

void ship_acked(struct ship *ship, const struct frame *frame)
{
	if (frame->seq > ship->sent_seq || frame->seq < ship->durable_seq) {
		ship_disconnect(ship, "the standby acknowledges what it was never sent");
		return;
	}
	ship->durable_seq = frame->seq;
	ship->applied_seq = frame->arg1;
	ship->received_seq = frame->arg2;
	while (ship->sent_count && ship->sent[ship->sent_first].last_seq <= frame->seq) {
		ship->unacked_bytes -= ship->sent[ship->sent_first].stored_bytes;
		ship->durable_bytes = ship->sent[ship->sent_first].bytes_end;
		ship->sent_first = (ship->sent_first + 1) % SHIP_SENT_MAX;
		ship->sent_count--;
	}
	ship->peer->durable_seq = max_u64(ship->peer->durable_seq, frame->seq);
	agent_drain_floor(ship->group);
	syncmode_step(ship->group);
	ship_pump(ship);
	handover_step(ship->group);
}

uint64_t ship_floor(const struct ship *ship)
{
	/* A standby that was never filled gets a copy anyway: nothing is kept for it. */
	if (!ship->peer->needs_sync && ship->peer->durable_seq == 0 &&
	    ship->state != SHIP_STREAMING && !ship->release_user)
		return UINT64_MAX;
	return max_u64(ship->peer->durable_seq, ship->released_stored_seq);
}

uint64_t ship_behind_ns(struct ship *ship)
{
	uint64_t since = oldest_missing_ns(ship), now = io_wall(ship->group->io);

	if (since == UINT64_MAX)
		return UINT64_MAX;

	return since && now > since ? now - since : 0;
}

void ship_heartbeat(struct ship *ship)
{
	struct agent_group *group = ship->group;
	struct link_heartbeat beat = {
		.head = { .epoch = group->dir.sb.epoch,
			  .seq = group->head_seq,
			  .bytes = group->head_bytes },
		.durable = { .epoch = group->dir.sb.epoch, .seq = group->journal.durable_seq },
		.wall_time_ns = io_wall(group->io),
		.behind_ns = ship_behind_ns(ship),
		.sync_left_bytes = ship_sync_active(ship->sync) ? dirty_bytes(ship->dirty) : 0,
		.mode = syncmode_report(ship),
	};
	struct frame frame = { .type = FRAME_HEARTBEAT, .epoch = group->dir.sb.epoch };
	int len = link_heartbeat_pack(&beat, ship->control, sizeof(ship->control));

	must(len >= 0);
	frame.body_bytes = (uint32_t)len;
	/* No room: the standby hears segments then. */
	(void)link_send(ship->link, &frame, ship->control);
}

static const char *state_text(const struct ship *ship)
{
	switch (ship->state) {
	case SHIP_OFF:
		return "stopped";
	case SHIP_WAITING:
		return ship->refused ? "refused" : "disconnected";
	case SHIP_CONNECTING:
	case SHIP_HELLO:
	case SHIP_PREPARING:
		return "connecting";
	case SHIP_STREAMING:
		if (ship_sync_active(ship->sync))
			return "syncing";
		return ship->sent_seq < ship->group->journal.durable_seq ? "catching-up"
									 : "streaming";
	}
	must_not_reach();
}

/* It has just said that there is no position there, whatever it acknowledged once. */
static bool said_none(const struct ship *ship)
{
	const struct link_welcome *welcome = &ship->welcome;

	return (ship->state == SHIP_HELLO || ship->state == SHIP_PREPARING) &&
	       (welcome->empty || (welcome->syncing && !welcome->kept));
}

void ship_note_copy(struct ship *ship)
{
	if (ship->copy_noted || ship->peer->needs_sync || said_none(ship))
		return;
	ship->copy_seq = ship->peer->durable_seq;
	ship->copy_ns = oldest_missing_ns(ship);
	if (!ship->copy_ns) /* it had everything until now */
		ship->copy_ns = io_wall(ship->group->io);
	ship->copy_bytes = held_bytes(ship);
	ship->copy_noted = true;
	ship->peer->copy_seq = ship->copy_seq;
	ship->peer->copy_time_ns = ship->copy_ns == UINT64_MAX ? 0 : ship->copy_ns;
}

void ship_note_kept(struct ship *ship)
{
	const struct link_welcome *welcome = &ship->welcome;
	uint64_t seq = welcome->kept_seq, time_ns;

	if (!welcome->syncing)
		return;
	if (!welcome->kept) {
		ship->copy_noted = false;
		ship->peer->copy_seq = ship->peer->copy_time_ns = 0;
		return;
	}
	if (welcome->diverged)
		seq = min_u64(seq, welcome->common_seq);
	if (ship->copy_noted && ship->copy_seq <= seq)
		return;
	/* Not the oldest that the journal has: what it lacks may be older than that. */
	time_ns = journal_time_floor_ns(&ship->group->journal, seq);
	ship->copy_seq = seq;
	ship->copy_ns = time_ns ? time_ns : UINT64_MAX;
	ship->copy_bytes = journal_bytes_floor(&ship->group->journal, seq);
	ship->copy_noted = true;
	ship->peer->copy_seq = seq;
	ship->peer->copy_time_ns = time_ns;
}

uint64_t ship_lag_bytes(const struct ship *ship)
{
	const struct agent_group *group = ship->group;

	return group->head_seq > held_seq(ship) ? group->head_bytes - held_bytes(ship) : 0;
}

static void fill_lag(struct ship *ship, struct status_lag *lag)
{
	uint64_t held = held_seq(ship);

	lag->bytes = ship_lag_bytes(ship);
	if (holds_no_position(ship)) {
		held = ship->copy_noted ? ship->copy_seq : 0;
		/* Where the sum at that place is not known: what is still to be sent. */
		if (ship->copy_noted && ship->copy_bytes)
			lag->bytes = sub_floor_u64(ship->group->head_bytes, ship->copy_bytes);
		else
			lag->bytes += dirty_bytes(ship->dirty);
	}
	lag->writes = sub_floor_u64(ship->group->head_seq, held);
	lag->ns = ship_behind_ns(ship);
}

void ship_status(struct ship *ship, struct status_peer *s)
{
	struct agent_group *group = ship->group;
	bool streaming = ship->state == SHIP_STREAMING;
	uint64_t heard = max_u64(link_heard_ns(ship->link), ship->heard_ns);
	uint64_t durable = held_seq(ship);

	memset(s, 0, sizeof(*s));
	snprintf(s->node, sizeof(s->node), "%s", ship->conf->node);
	snprintf(s->address, sizeof(s->address), "%.*s", (int)sizeof(s->address) - 1,
		 ship->conf->address);
	snprintf(s->state, sizeof(s->state), "%s", state_text(ship));
	s->connected = streaming;
	s->durable_seq = durable;
	s->received_seq = max_u64(durable, ship->received_seq);
	s->applied_seq = ship->applied_seq;
	fill_lag(ship, &s->lag);
	s->sent_bytes = link_sent_bytes(ship->link);
	s->bandwidth_bytes = look_at_bandwidth(ship);
	s->sent_rate_bytes_per_s = bandwidth_sent_rate(&ship->bandwidth, io_now(group->io));
	s->sent_segments = ship->sent_segments;
	s->reconnects = ship->reconnects;
	s->heard_ns_ago = heard ? io_now(group->io) - heard : UINT64_MAX;
	s->needs_sync = ship->peer->needs_sync;
	s->in_sync = syncmode_in_sync(ship);
	ship_sync_status(ship->sync, &s->sync);
	s->dirty_bytes = dirty_bytes(ship->dirty);
	s->resync_sent_bytes = ship_sync_sent_bytes(ship->sync);
	s->resync_compared_bytes = ship_sync_compared_bytes(ship->sync);
	ship_verify_status(ship->verify, &s->verify);
	snprintf(s->error, sizeof(s->error), "%s", ship->error);
	if (ship->parted != PARTED_NOT)
		snprintf(s->parted, sizeof(s->parted), "%s",
			 ship->parted == PARTED_RIVAL ? "rival" : "standby");
}
