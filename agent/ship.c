/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shipping to one standby: connect, agree where the stream begins, stream, and again after every
 * break.
 *
 *   WAITING -> CONNECTING -> HELLO -> PREPARING -> STREAMING -+
 *      ^------------- any failure, with back-off -------------+
 *
 * Where the stream begins (S = the standby's durable seq):
 *   resume   our journal still holds S + 1 and the chain values agree there;
 *   sync     the dirty map is in force, or the standby is empty or behind the journal: its volumes
 * are copied beside the stream, which begins at S + 1, or (reset) at our present end. never    what
 * the standby holds is not proven to be ours (timeline.h): diverged, the operator decides.
 *
 * Invariant S1: what the journal lets go of (ship_floor) is durable on the standby or durably in
 * its dirty map. Invariant S2: a higher epoch, from whomever and in whatever answer, fences the
 * group before anything else. Invariant S3: a standby counts as settled only once it has answered
 * (WELCOME, or a REFUSE that says which epoch rules): a connection that is refused, breaks or times
 * out, a standby that is busy or broken, says nothing about who rules.
 */
#include "agent/ship.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/group/openings.h"

#define BACKOFF_MIN_NS	  100000000ull
#define BACKOFF_MAX_NS	  5000000000ull
#define SETTLE_RETRY_NS	  200000000ull /* at most, while the group waits for an answer */
#define BUSY_ATTEMPTS_MAX 2u	       /* doublings of the shortest */
#define SOFTWARE	  "holdfast 0.1.0"

static void connect_now(struct ship *ship);

static void settle(struct ship *ship)
{
	if (ship->settled)
		return;
	ship->settled = true;
	if (ship->group->state == AGENT_SETTLING)
		agent_settled(ship->group);
}

static void retry_due(struct io_timer *timer)
{
	connect_now(container_of(timer, struct ship, retry_timer));
}

static void wait_to_retry(struct ship *ship)
{
	struct io *io = ship->group->io;
	uint64_t delay = BACKOFF_MIN_NS << min_u64(ship->attempts, 6);

	delay = min_u64(delay, ship->refused ? BACKOFF_MAX_NS : BACKOFF_MAX_NS / 2);
	if (ship->group->state == AGENT_SETTLING && !ship->settled)
		delay = min_u64(delay, SETTLE_RETRY_NS);
	delay = delay / 2 + io_random(io) % (delay / 2 + 1);
	ship->attempts++;
	ship->state = SHIP_WAITING;
	io_timer_start(io, &ship->retry_timer, delay);
}

void ship_retry(struct ship *ship)
{
	if (ship->state != SHIP_WAITING || !ship->retry_timer.deadline_ns)
		return;
	ship->attempts = 0;
	io_timer_start(ship->group->io, &ship->retry_timer, 0);
}

static void drop_connection(struct ship *ship)
{
	ship->generation++;
	ship->start_ready = ship->decide_due = false;
	io_timer_stop(ship->group->io, &ship->heartbeat_timer);
	io_timer_stop(ship->group->io, &ship->retry_timer);
	ship_verify_pause(ship->verify);
	io_timer_stop(ship->group->io, &ship->bandwidth_timer);
	if (ship_sync_active(ship->sync))
		ship_sync_end(ship->sync);
	ship->heard_ns = max_u64(ship->heard_ns, link_heard_ns(ship->link));
	if (!link_is_finishing(ship->link)) /* the BYE of ship_stop() */
		link_close(ship->link);
	io_stream_close(ship->stream);
	ship->stream = NULL;
	if (!ship->tail_pending)
		tail_drop(&ship->tail);
}

/* Once for a reason, however often it is tried again. */
static void tell(struct ship *ship, const char *text)
{
	if (strcmp(ship->told, text) == 0)
		return;
	snprintf(ship->told, sizeof(ship->told), "%.*s", (int)sizeof(ship->told) - 1, text);
	log_warning("standby not connected", "group=%s standby=%s reason=\"%s\"",
		    ship->group->conf->name, ship->conf->node, ship->told);
}

void ship_disconnect(struct ship *ship, const char *text)
{
	if (ship->state == SHIP_OFF || ship->state == SHIP_WAITING)
		return;
	if (text && text[0]) {
		snprintf(ship->error, sizeof(ship->error), "%.*s", (int)sizeof(ship->error) - 1,
			 text);
		tell(ship, ship->error);
	}
	drop_connection(ship);
	wait_to_retry(ship);
	handover_lost(ship->group, ship);
}

static void send_control(struct ship *ship, enum frame_type type, int len)
{
	struct frame frame = { .type = (uint16_t)type, .epoch = ship->group->dir.sb.epoch };

	must(len >= 0);
	frame.body_bytes = (uint32_t)len;
	if (link_send(ship->link, &frame, ship->control))
		ship_disconnect(ship, "the link has no room for a control message");
}

static void send_hello(struct ship *ship)
{
	struct agent_group *group = ship->group;
	const struct superblock *sb = &group->dir.sb;
	struct link_hello *hello = &ship->hello;

	memset(hello, 0, sizeof(*hello));
	hello->protocol_min = hello->protocol_max = PROTOCOL_VERSION;
	snprintf(hello->software, sizeof(hello->software), "%s", SOFTWARE);
	snprintf(hello->node, sizeof(hello->node), "%s", group->options.conf->node);
	snprintf(hello->group, sizeof(hello->group), "%s", sb->name);
	hello->group_uuid = sb->group;
	hello->epoch = sb->epoch;
	hello->head = (struct link_position){ .epoch = sb->epoch,
					      .seq = group->journal.durable_seq,
					      .bytes = journal_durable_bytes(&group->journal) };
	hello->oldest_seq = journal_oldest_seq(&group->journal);
	hello->wall_time_ns = io_wall(group->io);
	hello->session = io_random(group->io);
	hello->mode = (uint32_t)group->conf->mode;
	hello->history_count = sb->history_count;
	memcpy(hello->history, sb->history, sizeof(hello->history));
	hello->volume_count = sb->volume_count;
	memcpy(hello->volumes, sb->volumes, sizeof(hello->volumes));
	ship->state = SHIP_HELLO;
	send_control(ship, FRAME_HELLO,
		     link_hello_pack(hello, ship->control, sizeof(ship->control)));
}

static void tls_done(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, connect_op);
	struct io_stream *stream = ship->stream;

	ship->connect_pending = false;
	if (ship->connect_generation != ship->generation)
		return;
	if (res < 0) {
		char text[STATUS_TEXT_MAX];

		snprintf(text, sizeof(text), "TLS with %.64s: %.150s", ship->conf->address,
			 io_stream_error(stream)[0] ? io_stream_error(stream)
						    : strerror((int)-res));
		ship_disconnect(ship, text);
		return;
	}
	ship->stream = NULL;
	link_start(ship->link, stream);
	ship->connected_ns = io_now(ship->group->io);
	io_timer_start(ship->group->io, &ship->heartbeat_timer,
		       ship->group->conf->heartbeat_interval_ns);
	send_hello(ship);
}

static void connected(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, connect_op);

	ship->connect_pending = false;
	if (res < 0)
		ship->stream = NULL;
	if (ship->connect_generation != ship->generation) { /* given up meanwhile */
		io_stream_close(ship->stream);
		ship->stream = NULL;
		return;
	}
	if (res < 0) {
		char text[STATUS_TEXT_MAX];

		snprintf(text, sizeof(text), "cannot connect to %.128s: %s", ship->conf->address,
			 strerror((int)-res));
		ship_disconnect(ship, text);
		return;
	}
	ship->connect_pending = true;
	ship->connect_op.done = tls_done;
	io_start_tls(ship->stream, ship->group->options.tls, false, ship->conf->node,
		     &ship->connect_op);
}

static void connect_now(struct ship *ship)
{
	struct io_address address;

	/* What an earlier connection left in flight must come back first: it uses the same ops. And
	 * an epoch is named to nobody before it is durable. */
	if (ship->connect_pending || ship->tail_pending || ship->prepare_pending ||
	    !ship_sync_quiet(ship->sync) || !ship_extents_quiet(ship->extents) ||
	    ship->group->held.task) {
		io_timer_start(ship->group->io, &ship->retry_timer, BACKOFF_MIN_NS / 10);
		return;
	}
	snprintf(address.text, sizeof(address.text), "%s", ship->conf->address);
	ship->state = SHIP_CONNECTING;
	ship->connect_generation = ++ship->generation;
	ship->refused = false;
	ship->stream = NULL;
	ship->connect_pending = true;
	ship->connect_op.done = connected;
	io_connect(ship->group->io, &address, &ship->stream, &ship->connect_op);
}

/* The answer to HELLO. */

static void start_stream(struct ship *ship)
{
	struct agent_group *group = ship->group;
	struct link_start *start = &ship->start;

	if (start->sync) {
		start->copy_id = ship->peer->copy_id;
		start->sync_bytes = dirty_bytes(ship->dirty);
		start->compare =
			ship->peer->needs_compare &&
			(ship->welcome.seeded || ship->conf->compare == CONF_COMPARE_ALWAYS);
	}
	send_control(ship, FRAME_START,
		     link_start_pack(start, ship->control, sizeof(ship->control)));
	if (ship->state != SHIP_PREPARING)
		return;
	ship->state = SHIP_STREAMING;
	if (ship->streams++)
		ship->reconnects++;
	ship->attempts = 0;
	ship->error[0] = 0;
	ship->window_bytes = min_u64(ship->conf->window_bytes, ship->welcome.window_bytes);
	ship->sent_seq = start->from_seq - 1;
	ship->sent_first = ship->sent_count = 0;
	ship->unacked_bytes = 0;
	/* What it said it holds of our history; a reset counts only once it is acknowledged. */
	ship->durable_seq = min_u64(ship->welcome.diverged ? ship->welcome.common_seq
							   : ship->welcome.durable.seq,
				    ship->sent_seq);
	ship->received_seq = ship->durable_seq;
	ship->applied_seq = min_u64(ship->welcome.applied_seq, ship->durable_seq);
	tail_seek(&ship->tail, start->from_seq);
	compare_begin(ship->extents);
	if (start->sync)
		ship_sync_begin(ship->sync);
	ship_verify_session(ship->verify, start->sync);
	log_info("standby connected", "group=%s standby=%s from_seq=%" PRIu64 " copy=%s",
		 group->conf->name, ship->conf->node, start->from_seq, start->sync ? "yes" : "no");
	ship->told[0] = 0;
	timeline_joined(ship);
	agent_drain_floor(group);
	ship_pump(ship);
}

/* The dirty map is in force and durable: the stream may begin at our present end. */
static void sync_prepared(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, prepare_op);

	ship->prepare_pending = false;
	if (res < 0) {
		agent_fail(ship->group, (int)res, "a standby's dirty map cannot be written");
		return;
	}
	agent_drain_floor(ship->group); /* what went into the map, the journal may let go of */
	if (ship->prepare_generation != ship->generation || ship->state != SHIP_PREPARING)
		return;
	ship->start_ready = true;
	ship_kick(ship);
}

void ship_kick(struct ship *ship)
{
	if (ship->start_ready && ship->group->journal.durable_seq + 1 >= ship->start.from_seq) {
		ship->start_ready = false;
		start_stream(ship);
		return;
	}
	ship_pump(ship);
}

/* What is on its way to the journal is before the new beginning as well. */
static void set_unapplied(struct ship *ship)
{
	struct list *pos;

	list_for_each (pos, &ship->group->unapplied) {
		const struct segment *segment = container_of(pos, struct segment, owner_link);

		for (uint32_t i = 0; i < segment->header.records; i++) {
			struct record record;
			int r = record_decode(segment->table + (size_t)i * RECORD_BYTES,
					      &segment->header, &record);

			must(r == 0); /* our own */
			if (record_has_range(&record))
				dirty_set(ship->dirty, record.volume, record.offset_bytes,
					  record.length_bytes);
		}
	}
}

void ship_prepare_reset(struct ship *ship, bool everything, uint64_t after_seq)
{
	struct agent_group *group = ship->group;
	struct journal_position at;

	commit_seal(group);
	at = group->journal.head;
	if (!everything)
		set_unapplied(ship);
	commit_flush(group, at.seq - 1);
	ship->start = (struct link_start){
		.from_seq = at.seq,
		.sync = true,
		.reset = true,
		.writer = openings_at(&group->dir.sb, at.seq - 1),
		.base = { .epoch = group->dir.sb.epoch,
			  .seq = at.seq - 1,
			  .chain = at.chain,
			  .bytes = at.bytes },
	};
	ship->prepare_pending = true;
	ship->prepare_generation = ship->generation;
	ship->prepare_op.done = sync_prepared;
	ship_needs_sync(ship, after_seq, at.seq - 1, everything, &ship->prepare_op);
}

static void prepare_reset(struct ship *ship, bool everything)
{
	ship_prepare_reset(ship, everything, ship_floor(ship));
}

/* The records behind its end up to released_seq are in the dirty map; so will be the rest. */
static bool released_to_it(const struct ship *ship)
{
	return ship->peer->needs_sync && ship->welcome.durable.seq < ship->peer->released_seq;
}

static void resume_at(struct ship *ship, const struct journal_position *at)
{
	const struct link_position *theirs = &ship->welcome.durable;

	if (at->seq != theirs->seq + 1 || at->chain != theirs->chain) {
		timeline_parted(ship,
				"diverged: the standby's history differs from ours at its last "
				"position, or is not known to be ours; nothing was sent");
		return;
	}
	if (released_to_it(ship)) {
		prepare_reset(ship, false);
		return;
	}
	ship->durable_bytes = at->bytes;
	ship->start =
		(struct link_start){ .from_seq = theirs->seq + 1, .sync = ship->peer->needs_sync };
	start_stream(ship);
}

/* Without the journal's word; what is not proven otherwise is not given up. */
static void begin_anew(struct ship *ship, bool everything)
{
	if (timeline_of(ship, ship->welcome.durable.seq) == TIMELINE_OURS)
		prepare_reset(ship, everything);
	else
		timeline_parted(ship,
				"diverged: the standby's history differs from ours at its last "
				"position, or is not known to be ours; nothing was sent");
}

/* The journal is damaged behind what is applied: its records are lost to the standby, their content
 * is not. */
static void unreadable(struct ship *ship)
{
	log_warning("the journal is damaged, everything will be copied",
		    "group=%s standby=%s reason=\"%s\"", ship->group->conf->name, ship->conf->node,
		    ship->group->journal.error);
	ship->unreadable = false;
	begin_anew(ship, true);
}

/* The reader stands where the standby's next segment should be. */
static void position_found(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, prepare_op);

	ship->prepare_pending = false;
	if (ship->prepare_generation != ship->generation || ship->state != SHIP_PREPARING)
		return;
	if (res == -ENOENT)
		begin_anew(ship, !ship->peer->needs_sync || ship->welcome.syncing);
	else if (res == -EBADMSG)
		unreadable(ship);
	else if (res < 0)
		ship_disconnect(ship, ship->group->journal.error[0] ? ship->group->journal.error
								    : "the journal cannot be read");
	else
		resume_at(ship, &ship->tail.reader.at);
	settle(ship);
}

/* The last seq before our epoch: what everybody who followed the same history may hold. */
static uint64_t epoch_begin(const struct ship *ship)
{
	const struct superblock *sb = &ship->group->dir.sb;

	return sb->history_count ? sb->history[sb->history_count - 1].first_seq - 1 : 0;
}

void ship_decide(struct ship *ship)
{
	struct agent_group *group = ship->group;
	const struct superblock *sb = &group->dir.sb;
	const struct link_welcome *w = &ship->welcome;
	uint64_t s = w->durable.seq;
	enum timeline timeline = timeline_of(ship, s);

	ship->state = SHIP_PREPARING;
	/* What a release moves decides. It does not end a connection that is being made: a journal
	 * that fills again and again would keep the standby out, and a higher epoch with it. */
	ship->decide_due = ship->release_user != NULL;
	if (ship->decide_due)
		return;
	if (w->diverged) {
		ship_return_decide(ship);
		return;
	}
	if (w->empty) {
		prepare_reset(ship, true);
		return;
	}
	/* A map is of one copy: one of us may be back from an older image. */
	if (timeline == TIMELINE_OTHER ||
	    (w->syncing && (!ship->peer->needs_sync || w->copy_id != ship->peer->copy_id))) {
		begin_anew(ship, true);
		return;
	}
	if (s > group->journal.durable_seq ||
	    !history_is_prefix(sb->history, sb->history_count, group->journal.durable_seq,
			       w->history, w->history_count, s)) {
		timeline_parted(ship, "diverged: the standby holds writes that this primary does "
				      "not; nothing was sent");
		return;
	}
	if (s < ship->peer->durable_seq &&
	    (ship->peer->needs_sync || ship->peer->durable_seq > epoch_begin(ship))) {
		/* It has lost what it had acknowledged (a disk or directory put back to an older
		 * state): of that, the dirty map knows nothing, and its volumes may hold anything.
		 * Where our epoch began nobody has acknowledged it: it may be behind that. */
		prepare_reset(ship, true);
		return;
	}
	if (timeline == TIMELINE_OURS && released_to_it(ship)) {
		prepare_reset(ship, false);
		return;
	}
	if (ship->unreadable) {
		unreadable(ship);
		return;
	}
	if (s + 1 < journal_oldest_seq(&group->journal)) {
		begin_anew(ship, true);
		return;
	}
	if (s == group->journal.durable_seq) {
		struct journal_position at = ship_durable_end(ship);

		resume_at(ship, &at);
		return;
	}
	ship->prepare_pending = true;
	ship->prepare_generation = ship->generation;
	ship->prepare_op.done = position_found;
	journal_reader_seek(&ship->tail.reader, s + 1, &ship->prepare_op);
}

static int on_refuse(struct ship *ship, const struct frame *frame, const uint8_t *body)
{
	struct link_refuse refuse;
	bool valid = !link_refuse_unpack(body, frame->body_bytes, &refuse);
	uint64_t epoch = valid ? max_u64(frame->epoch, refuse.epoch) : frame->epoch;
	char text[STATUS_TEXT_MAX];

	if (epoch > ship->group->dir.sb.epoch) { /* also when the words make no sense: S2 */
		agent_fenced(ship->group, epoch, ship->conf->node);
		return 0;
	}
	if (!valid)
		return -EPROTO;
	ship->refused = refuse.code != LINK_REFUSE_BUSY;
	if (!ship->refused) /* it is there, and ready in a moment */
		ship->attempts = min_u32(ship->attempts, BUSY_ATTEMPTS_MAX);
	if (epoch == ship->group->dir.sb.epoch)
		timeline_refused(ship, &refuse);
	if (epoch && refuse.code != LINK_REFUSE_BUSY && refuse.code != LINK_REFUSE_ERROR &&
	    refuse.code != LINK_REFUSE_UNSPECIFIED)
		settle(ship);
	snprintf(text, sizeof(text), "refused: %.200s", refuse.text);
	ship_disconnect(ship, text);
	return 0;
}

static int on_welcome(struct ship *ship, const struct frame *frame, const uint8_t *body)
{
	if (ship->state != SHIP_HELLO ||
	    link_welcome_unpack(body, frame->body_bytes, &ship->welcome))
		return -EPROTO;
	if (ship->welcome.epoch > ship->group->dir.sb.epoch) {
		agent_fenced(ship->group, ship->welcome.epoch, ship->conf->node);
		return 0;
	}
	ship->ranges_left = ship->welcome.diverged ? ship->welcome.ranges : 0;
	handover_welcomed(ship->group, ship);
	if (held_by_welcome(ship) || ship->group->state == AGENT_HELD) {
		ship->refused = true;
		ship_disconnect(ship, "the group is held: nothing was sent");
		return 0;
	}
	ship_note_kept(ship);
	ship_decide(ship);
	/* Where the chain has to be looked up, position_found() may hold the group. */
	if (!ship->prepare_pending || ship->prepare_op.done != position_found)
		settle(ship);
	return 0;
}

static void on_bye(struct ship *ship, const struct frame *frame, const uint8_t *body)
{
	struct link_bye bye;
	char text[STATUS_TEXT_MAX];

	if (link_bye_unpack(body, frame->body_bytes, &bye))
		bye.text[0] = 0;
	snprintf(text, sizeof(text), "the standby ended the connection%s%.200s",
		 bye.text[0] ? ": " : "", bye.text);
	ship_disconnect(ship, text);
}

static int on_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct ship *ship = owner;

	if (frame->type != FRAME_REFUSE && frame->epoch > ship->group->dir.sb.epoch) {
		agent_fenced(ship->group, frame->epoch, ship->conf->node);
		return 0;
	}
	switch (frame->type) {
	case FRAME_REFUSE:
		return on_refuse(ship, frame, body);
	case FRAME_WELCOME:
		return on_welcome(ship, frame, body);
	case FRAME_ACK:
		if (ship->state != SHIP_STREAMING)
			return -EPROTO;
		ship_acked(ship, frame);
		return 0;
	case FRAME_SYNC_ACK:
		if (ship->state != SHIP_STREAMING || !ship_sync_active(ship->sync))
			return -EPROTO;
		ship_sync_acked(ship->sync, frame->seq);
		return 0;
	case FRAME_RANGES:
		return ship_return_ranges(ship, frame, body);
	case FRAME_HANDED:
		return handover_refused(ship->group, ship, frame, body);
	case FRAME_HASH_RESULT:
		if (ship->state != SHIP_STREAMING)
			return -EPROTO;
		compare_answer(ship->extents, frame);
		return 0;
	case FRAME_BYE:
		on_bye(ship, frame, body);
		return 0;
	default:
		return -EPROTO;
	}
}

static uint8_t *no_place(void *owner, const struct frame *frame)
{
	/* A standby never sends bulk: on_frame() will end the link; the control buffer takes what
	 * fits. */
	struct ship *ship = owner;

	return frame->body_bytes <= sizeof(ship->control) ? ship->control : NULL;
}

static void on_writable(void *owner)
{
	ship_pump(owner);
}

static void on_ended(void *owner, int res, const char *text)
{
	struct ship *ship = owner;

	ship_disconnect(ship, res == 0 ? "the standby closed the connection" : text);
}

static void heartbeat_due(struct io_timer *timer)
{
	struct ship *ship = container_of(timer, struct ship, heartbeat_timer);
	struct agent_group *group = ship->group;
	uint64_t heard = max_u64(link_heard_ns(ship->link), ship->connected_ns);

	if (io_now(group->io) - heard > group->conf->peer_timeout_ns) {
		ship_disconnect(ship, "the standby has gone silent");
		return;
	}
	if (ship->state == SHIP_STREAMING)
		ship_heartbeat(ship);
	io_timer_start(group->io, &ship->heartbeat_timer, group->conf->heartbeat_interval_ns);
}

/* Life. */

static void dirty_loaded(struct io_op *op, int64_t res)
{
	struct ship *ship = container_of(op, struct ship, prepare_op);

	ship->prepare_pending = false;
	if (res) {
		/* In force, but lost or damaged. The next save makes a new file; until then the one
		 * that is there is found like this again. */
		ship_set_everything(ship);
		log_warning("dirty map cannot be read, everything will be copied",
			    "group=%s standby=%s reason=\"%s\"", ship->group->conf->name,
			    ship->conf->node, res > 0 ? "it is damaged" : strerror((int)-res));
	}
	if (!ship->stopped)
		connect_now(ship);
}

void ship_start(struct ship *ship)
{
	ship->stopped = false;
	ship->state = SHIP_WAITING;
	if (!ship->peer->needs_sync) {
		connect_now(ship);
		return;
	}
	ship->prepare_pending = true;
	ship->prepare_op.done = dirty_loaded;
	dirty_load(ship->dirty, &ship->prepare_op);
}

void ship_stop(struct ship *ship)
{
	if (ship->stopped)
		return;
	ship->stopped = true;
	ship->settled = true;
	if (link_is_open(ship->link)) {
		struct frame frame = { .type = FRAME_BYE, .epoch = ship->group->dir.sb.epoch };
		struct link_bye bye = { .text = "" };
		int len;

		snprintf(bye.text, sizeof(bye.text), "the primary stops");
		len = link_bye_pack(&bye, ship->control, sizeof(ship->control));
		frame.body_bytes = (uint32_t)len;
		link_finish(ship->link, &frame, ship->control);
	}
	drop_connection(ship);
	ship->state = SHIP_OFF;
}

bool ship_quiet(const struct ship *ship)
{
	return ship->stopped && !ship->connect_pending && !ship->tail_pending &&
	       !ship->prepare_pending && !ship->release_user && ship_sync_quiet(ship->sync) &&
	       ship_extents_quiet(ship->extents) && ship_verify_quiet(ship->verify) &&
	       !link_is_finishing(ship->link) && !ship->coalesce.busy;
}

int ship_new(struct agent_group *group, const struct conf_peer *peer, struct ship **ret_ship)
{
	struct ship *ship = io_alloc(group->io, sizeof(*ship), 64);
	struct link_events events = { .owner = ship,
				      .place = no_place,
				      .frame = on_frame,
				      .writable = on_writable,
				      .ended = on_ended };
	char path[GROUP_PATH_MAX];
	int r;

	if (!ship)
		return -ENOMEM;
	ship->group = group;
	ship->conf = peer;
	ship->state = SHIP_OFF;
	ship->stopped = true;
	ship->retry_timer.fire = retry_due;
	ship->heartbeat_timer.fire = heartbeat_due;
	ship->peer = group_dir_peer(&group->dir, peer->node);
	r = ship->peer ? 0 : -E2BIG;
	/* Not met since the promote: what came since is kept for it, like for one that was met. */
	if (ship->peer && !ship->peer->durable_seq && !ship->peer->needs_sync)
		ship->peer->durable_seq = epoch_begin(ship);
	if (ship->peer && ship->peer->durable_seq == group->dir.sb.applied_seq)
		ship->durable_bytes = group->dir.sb.applied_bytes;
	ship->released_stored_seq = ship->peer ? ship->peer->released_seq : 0;
	if (ship->peer && ship->peer->needs_sync && ship->peer->copy_time_ns) {
		ship->copy_noted = true;
		ship->copy_seq = ship->peer->copy_seq;
		ship->copy_ns = ship->peer->copy_time_ns;
	}
	if (ship_dirty_path(group, peer->node, path))
		r = -ENAMETOOLONG;
	if (!r)
		r = link_new(group->io, SHIP_OUT_BYTES, &events, &ship->link);
	if (!r)
		r = tail_init(&ship->tail, &group->journal, &group->ring);
	if (!r)
		r = dirty_new(group->io, path, &group->dir.sb, &ship->dirty);
	if (!r)
		r = ship_extents_new(ship, &ship->extents);
	if (!r)
		r = ship_sync_new(ship, &ship->sync);
	if (!r)
		r = ship_verify_new(ship, &ship->verify);
	if (!r)
		r = journal_reader_init(&ship->release_reader, &group->journal);
	ship->release_reader_open = !r;
	if (!r)
		r = coalesce_init(ship, path);
	if (r) {
		ship_free(ship);
		return r;
	}
	*ret_ship = ship;
	return 0;
}

struct ship *ship_free(struct ship *ship)
{
	struct io *io = ship->group->io;

	coalesce_deinit(ship);
	if (ship->release_reader_open)
		journal_reader_deinit(&ship->release_reader);
	if (ship->verify)
		ship_verify_free(ship->verify);
	if (ship->sync)
		ship_sync_free(ship->sync);
	if (ship->extents)
		ship_extents_free(ship->extents);
	if (ship->dirty)
		dirty_free(ship->dirty);
	if (ship->tail.journal)
		tail_deinit(&ship->tail);
	link_free(ship->link);
	io_free(io, ship);
	return NULL;
}

void ship_before_write(struct ship *ship, unsigned volume_id, uint64_t off, uint64_t len)
{
	ship_extents_before_write(ship->extents, volume_id, off, len);
}
