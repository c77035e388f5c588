/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dialogue with a primary, one session at a time; the newest connection wins.
 *
 *   HELLO -> CHECKING (what was received before becomes durable) -> WELCOME -> START
 *         -> STARTING (epoch, history, a copy that begins: durable first) -> STREAMING
 *
 * Invariant N1: nothing of a session is accepted before the epoch under which it comes is durable
 * here. Invariant N2: a session never extends the copy unless its history continues what is held
 * here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/units.h"
#include "engine/internal.h"

#define SOFTWARE "holdfast " HOLDFAST_VERSION

static void start_step(struct engine_group *group);

bool session_connected(const struct engine_group *group)
{
	return group->session.state >= SESSION_WELCOMED;
}

static uint64_t heard_ns(const struct engine_group *group)
{
	return max_u64(link_heard_ns(group->link), group->session.readable_ns);
}

bool session_alive(const struct engine_group *group)
{
	return session_connected(group) &&
	       io_now(group->io) - heard_ns(group) <= group->conf->peer_timeout_ns;
}

uint64_t session_received_seq(const struct engine_group *group)
{
	if (group->session.state == SESSION_STARTING)
		return group->session.start.from_seq - 1;
	return group->journal.appended_seq;
}

/* ---- the end of a session ----------------------------------------------------------------------
 */

/* What is left to do on our side; the link has been closed or is finishing. */
static void session_over(struct engine_group *group, const char *why)
{
	struct session *session = &group->session;

	if (session_connected(group))
		log_info("primary disconnected", "group=%s primary=%s reason=\"%s\"",
			 group->conf->name, group->source, why);
	if (session->state == SESSION_STARTING) {
		/* What came behind START belongs to a beginning that may never be stored. Nobody
		 * was told that it is here, so it comes again. */
		copy_drop(group);
		if (!group->op_busy)
			group->hold = false;
	}
	session->state = SESSION_NONE;
	io_stream_close(session->stream);
	session->stream = NULL;
	rejoin_session_over(group);
	group->place_wanted = false;
	group->heard.any_ns = max_u64(group->heard.any_ns, link_heard_ns(group->link));
	io_timer_stop(group->io, &group->watch_timer);
	if (!link_places(group->link))
		receive_drop(group);
	if (group->state == ENGINE_READY) {
		snprintf(group->detail, sizeof(group->detail), "%.250s", why);
		applier_kick(group);
	}
}

void session_drop(struct engine_group *group, const char *why)
{
	session_over(group, why);
}

void session_end(struct engine_group *group, const char *text)
{
	struct frame frame = { .type = FRAME_BYE, .epoch = group->dir.sb.epoch };
	struct link_bye bye = { .text = "" };

	if (group->session.state == SESSION_NONE)
		return;
	snprintf(bye.text, sizeof(bye.text), "%s", text);
	frame.body_bytes = (uint32_t)link_bye_pack(&bye, group->control, sizeof(group->control));
	if (session_connected(group))
		link_finish(group->link, &frame, group->control);
	session_over(group, text);
}

static void send_refusal(struct engine_group *group, struct link *link,
			 const struct refusal *refusal)
{
	struct frame frame = { .type = FRAME_REFUSE, .epoch = refusal->epoch };
	struct link_refuse message = { .code = refusal->code, .epoch = refusal->epoch };

	snprintf(message.node, sizeof(message.node), "%s", refusal->node);
	snprintf(message.text, sizeof(message.text), "%s", refusal->text);
	frame.body_bytes =
		(uint32_t)link_refuse_pack(&message, group->control, sizeof(group->control));
	link_finish(link, &frame, group->control);
}

static void refuse_stream(struct engine_group *group, struct io_stream *stream,
			  const struct refusal *refusal)
{
	log_info("connection refused", "group=%s code=\"%s\" reason=\"%s\"", group->conf->name,
		 link_refuse_text(refusal->code), refusal->text);
	link_start(group->refuse_link, stream);
	send_refusal(group, group->refuse_link, refusal);
}

static void fill_refusal(struct engine_group *group, struct refusal *refusal,
			 enum link_refuse_code code, const char *text)
{
	const struct superblock *sb = &group->dir.sb;
	/* A promote whose store failed: whether its epoch rules is not known before the superblock
	 * has been read again (H6). */
	bool unknown = group->state != ENGINE_FOREIGN && sb->role == GROUP_PRIMARY && sb->epoch;

	refusal->code = code;
	refusal->epoch = sb->epoch - unknown;
	snprintf(refusal->node, sizeof(refusal->node), "%s", group->options.conf->node);
	snprintf(refusal->text, sizeof(refusal->text), "%s", text);
}

void session_refuse(struct engine_group *group, enum link_refuse_code code, const char *text)
{
	struct session *session = &group->session;
	struct io_stream *stream = session->stream;
	struct refusal refusal;

	if (session->state == SESSION_NONE)
		return;
	fill_refusal(group, &refusal, code, text);
	session->stream = NULL;
	if (stream)
		refuse_stream(group, stream, &refusal);
	else
		send_refusal(group, group->link, &refusal);
	session_over(group, text);
}

void session_error(struct engine_group *group, const char *format, ...)
{
	char text[STATUS_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	group->errors++;
	session_end(group, text);
}

static void on_ended(void *owner, int res, const char *text)
{
	struct engine_group *group = owner;

	(void)res;
	link_close(group->link);
	session_over(group, text);
}

static void watch_due(struct io_timer *timer)
{
	struct engine_group *group = container_of(timer, struct engine_group, watch_timer);
	uint64_t timeout_ns = group->conf->peer_timeout_ns;

	/* While we do not read, its silence is ours. */
	if (group->place_wanted || group->session.state == SESSION_STARTING)
		group->session.readable_ns = io_now(group->io);
	if (!session_alive(group)) {
		session_end(group, "nothing was heard of the primary for peer_timeout");
		return;
	}
	io_timer_start(group->io, timer, max_u64(timeout_ns / 8, NS_PER_MS));
}

/* ---- HELLO ------------------------------------------------------------------------------------
 */

static void accept_offer(struct engine_group *group, struct io_stream *stream)
{
	struct session *session = &group->session;

	session_end(group, "replaced by a newer connection");
	session->state = SESSION_CHECKING;
	session->number++;
	session->stream = stream;
	session->hello = group->offer;
	session->sync_open = session->probed = session->diverged = false;
	session_step(group);
	standby_poke(group);
}

static void note_diverged(struct engine_group *group, const struct refusal *refusal)
{
	/* Another primary of the epoch that is followed here: that one has parted, not this copy.
	 */
	if (group->session.state == SESSION_STREAMING && group->offer.epoch <= group->dir.sb.epoch)
		return;
	rejoin_note(group, &group->offer);
	if (group->session.state == SESSION_NONE)
		snprintf(group->detail, sizeof(group->detail), "%.250s", refusal->text);
}

void session_offer(struct engine_group *group)
{
	struct io_stream *stream = group->offer_stream;
	struct refusal refusal;

	group->offer_stream = NULL;
	if (!stream)
		return;
	switch (group->state) {
	case ENGINE_READY:
		resize_look(group);
		if (!admit_hello(group, &group->offer, &refusal)) {
			accept_offer(group, stream);
			return;
		}
		if (refusal.code == LINK_REFUSE_DIVERGED)
			note_diverged(group, &refusal);
		break;
	case ENGINE_FOREIGN:
		admit_foreign(group, &group->offer, &refusal);
		break;
	case ENGINE_FAILED:
		fill_refusal(group, &refusal, LINK_REFUSE_ERROR, group->detail);
		break;
	case ENGINE_PROMOTING:
		fill_refusal(group, &refusal, LINK_REFUSE_BUSY, "this standby is being promoted");
		break;
	case ENGINE_STARTING:
		fill_refusal(group, &refusal, LINK_REFUSE_BUSY, "this standby is starting");
		break;
	case ENGINE_STOPPED:
	case ENGINE_STOPPING:
		fill_refusal(group, &refusal, LINK_REFUSE_BUSY, "this standby stops");
		break;
	}
	refuse_stream(group, stream, &refusal);
}

void session_decline(struct engine_group *group, enum link_refuse_code code, const char *text)
{
	struct io_stream *stream = group->offer_stream;
	struct refusal refusal;

	group->offer_stream = NULL;
	if (!stream)
		return;
	fill_refusal(group, &refusal, code, text);
	refuse_stream(group, stream, &refusal);
}

void engine_group_connect(struct engine_group *group, struct io_stream *stream,
			  const struct link_hello *hello)
{
	io_stream_close(group->offer_stream); /* NULL, or it waits for the superblock: newer wins */
	group->offer = *hello;
	group->offer_stream = stream;
	if (group->state == ENGINE_FOREIGN)
		open_peek(group); /* the agent may have changed it since */
	else
		session_offer(group);
}

/* It never was a whole copy of anything. */
static bool is_empty(const struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;

	return uuid_is_zero(&sb->group) ||
	       (group->journal.durable_seq == 0 && !(sb->flags & SUPERBLOCK_EVER_CONSISTENT));
}

static void send_welcome(struct engine_group *group)
{
	const struct superblock *sb = &group->dir.sb;
	const struct journal *journal = &group->journal;
	struct link_welcome *w = &group->welcome;
	struct frame frame = { .type = FRAME_WELCOME, .epoch = sb->epoch };
	int len;

	memset(w, 0, sizeof(*w));
	w->protocol = PROTOCOL_VERSION;
	snprintf(w->software, sizeof(w->software), "%s", SOFTWARE);
	snprintf(w->node, sizeof(w->node), "%s", group->options.conf->node);
	w->epoch = sb->epoch;
	w->durable = (struct link_position){
		.epoch = history_epoch_at(sb->history, sb->history_count, journal->durable_seq),
		.seq = journal->durable_seq,
		.chain = journal->head.chain,
		.bytes = journal->head.bytes,
	};
	w->applied_seq = group->applied_seq;
	w->syncing = sb->flags & SUPERBLOCK_SYNCING;
	w->copy_id = w->syncing ? sb->copy_id : 0;
	w->empty = is_empty(group);
	w->seeded = !w->empty || group->compare.seeded;
	w->kept = sb->kept.undo_id != 0;
	w->kept_seq = sb->kept.seq;
	w->window_bytes = group->ring.size_bytes / 2;
	w->wall_time_ns = io_wall(group->io);
	w->writer = group->last_writer;
	w->history_count = sb->history_count;
	memcpy(w->history, sb->history, sizeof(w->history));
	rejoin_welcome(group, w);
	len = link_welcome_pack(w, group->control, sizeof(group->control));
	must(len >= 0);
	frame.body_bytes = (uint32_t)len;
	if (link_send(group->link, &frame, group->control))
		session_error(group, "the link has no room for a welcome");
	else
		rejoin_send_ranges(group);
}

static void check_step(struct engine_group *group)
{
	struct session *session = &group->session;
	const struct journal *journal = &group->journal;
	char error[LINK_TEXT_MAX + 1];
	struct refusal refusal;
	struct io_stream *stream;
	int r;

	if (group->op_busy || group->hold || group->receiving || group->copy.placing >= 0 ||
	    journal->durable_seq < journal->appended_seq || !journal_is_quiet(journal))
		return;
	if (is_empty(group) && !session->probed) {
		session->probed = true;
		compare_probe(group);
		return;
	}
	/* Once more: what was on its way to the disk counts now. */
	if (admit_hello(group, &session->hello, &refusal)) {
		session_refuse(group, refusal.code, refusal.text);
		return;
	}
	r = resize_prepare(group, &session->hello, error, sizeof(error));
	if (!r)
		r = rejoin_prepare(group, error, sizeof(error));
	if (r < 0)
		session_refuse(group, LINK_REFUSE_ERROR, error);
	if (r)
		return;
	stream = session->stream;
	session->stream = NULL;
	session->state = SESSION_WELCOMED;
	session->readable_ns = io_now(group->io);
	snprintf(group->source, sizeof(group->source), "%s", session->hello.node);
	group->detail[0] = 0;
	heard_hello(group, &session->hello);
	link_start(group->link, stream);
	io_timer_start(group->io, &group->watch_timer, NS_PER_MS);
	log_info("primary connected", "group=%s primary=%s epoch=%" PRIu64 " durable_seq=%" PRIu64,
		 group->conf->name, group->source, session->hello.epoch, journal->durable_seq);
	send_welcome(group);
}

void session_step(struct engine_group *group)
{
	if (group->session.state == SESSION_CHECKING)
		check_step(group);
	else if (group->session.state == SESSION_STARTING)
		start_step(group);
}

/* ---- START ------------------------------------------------------------------------------------
 */

static void begun(struct engine_group *group)
{
	struct session *session = &group->session;

	group->hold = false;
	if (group->state == ENGINE_READY && session->state == SESSION_STARTING &&
	    session->number == group->begin.session) {
		session->state = SESSION_STREAMING;
		session->readable_ns = io_now(group->io);
		session_ack(group);
		session_room(group);
	}
	applier_kick(group);
	if (group->again)
		checkpoint_run(group, group->again_store);
	standby_poke(group);
}

static void journal_reset_done(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	group->op_busy = false;
	if (res < 0) {
		standby_fail(group, (int)res, "the journal cannot be emptied for a new copy");
		return;
	}
	applier_begin(group, &group->journal.head);
	group->durable_bytes = group->journal.head.bytes;
	group->durable_time_ns = 0;
	begun(group);
}

static void start_durable(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	if (res < 0 || group->state == ENGINE_FAILED) {
		group->op_busy = false;
		if (res < 0)
			standby_fail(group, (int)res, "the superblock cannot be written");
		return;
	}
	rejoin_over(group);
	if (!group->begin.reset) {
		group->op_busy = false;
		begun(group);
		return;
	}
	/*
	 * The superblock names the new beginning already. A crash before the journal is emptied is
	 * harmless: admit_start() saw that everything in it lies before the new beginning, so it
	 * does not continue there.
	 */
	tail_drop(&group->tail);
	receive_forget(group);
	group->journal.options.group = group->dir.sb.group;
	group->state_op.done = journal_reset_done;
	journal_reset(&group->journal, &group->begin.base, &group->state_op);
}

/*
 * Before the journal is emptied: what was acknowledged from it and is not on the volumes yet would
 * be lost with it, and the primary's copy does not bring it again. Invariant S4: a reset forgets
 * only what is on the volumes, durably. And a position that a copy keeps (kept.c) is all of what
 * was acknowledged, on the volumes, durably.
 */
static bool journal_is_spent(struct engine_group *group)
{
	if (group->applied_seq < group->journal.durable_seq) {
		applier_kick(group);
		return false;
	}
	if (!applier_idle(group))
		return false;
	if (group->applied_at.seq != group->checkpoint_at.seq) {
		checkpoint_run(group, true);
		return false;
	}
	group->hold = true;
	return true;
}

static void store_start(struct engine_group *group)
{
	admit_adopt(group);
	group->state_op.done = start_durable;
	group_dir_store(&group->dir, &group->state_store, &group->state_op);
}

static void kept_begun(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, state_op);

	(void)res;
	if (group->state == ENGINE_READY && group->session.state == SESSION_STARTING &&
	    group->session.number == group->begin.session) {
		kept_note(group);
		store_start(group);
		return;
	}
	/* The session has ended before anything of it was taken over. */
	group->op_busy = group->hold = false;
	kept_end(group);
	applier_kick(group);
	standby_poke(group);
}

/* Once nothing is under way that relies on what START changes. */
static void start_step(struct engine_group *group)
{
	struct session *session = &group->session;
	bool keeps = kept_begins(group, &session->start);

	if (group->op_busy || !kept_quiet(group) ||
	    ((session->start.reset || keeps) && !group->hold && !journal_is_spent(group)) ||
	    !applier_idle(group))
		return;
	group->begin = (struct session_begin){
		.session = session->number,
		.reset = session->start.reset,
		.base = { .seq = session->start.from_seq,
			  .chain = session->start.base.chain,
			  .bytes = session->start.base.bytes },
	};
	if (keeps && kept_renew(group)) {
		standby_fail(group, -ENOMEM, "no memory for the undo log of volumes that grew");
		return;
	}
	group->op_busy = true;
	if (!keeps) {
		store_start(group);
		return;
	}
	group->state_op.done = kept_begun;
	kept_begin(group, &group->state_op);
}

static void on_start(struct engine_group *group, const uint8_t *body, uint32_t len)
{
	struct session *session = &group->session;
	struct link_start *start = &session->start;
	const char *why;

	if (session->state != SESSION_WELCOMED || link_start_unpack(body, len, start)) {
		session_error(group, "the primary sent a START that is not valid");
		return;
	}
	why = admit_start(group, start);
	if (why) {
		session_error(group, "%s", why);
		return;
	}
	if (uuid_is_zero(&group->dir.sb.group) && !start->reset) {
		/* From the very beginning: the journal has to learn the group's identity all the
		 * same. */
		start->reset = true;
		start->base = (struct link_position){
			.chain = segment_chain_root(&session->hello.group_uuid),
		};
	}
	session->state = SESSION_STARTING;
	session->sync_open = start->sync;
	/* What is left is applied first, before a reset and before a position that is kept. */
	group->hold = !start->reset && !kept_begins(group, start);
	copy_session(group);
	if (start->reset)
		copy_drop(group);
	if (start->sync)
		copy_begin(group);
	standby_poke(group);
}

/* ---- frames -----------------------------------------------------------------------------------
 */

static void on_heartbeat(struct engine_group *group, const uint8_t *body, uint32_t len)
{
	struct link_heartbeat beat;

	if (link_heartbeat_unpack(body, len, &beat)) {
		session_error(group, "the primary sent a HEARTBEAT that is not valid");
		return;
	}
	heard_beat(group, &beat);
	group->copy.left_bytes = beat.sync_left_bytes;
	session_ack(group);
}

/* False: the session is over. */
static bool epoch_fits(struct engine_group *group, const struct frame *frame)
{
	uint64_t epoch = group->session.hello.epoch;

	if (frame->epoch == epoch)
		return true;
	if (frame->epoch < epoch) {
		group->rejected_epoch++;
		session_refuse(group, LINK_REFUSE_STALE_EPOCH,
			       "a frame of a lower epoch than the one that rules here");
		return false;
	}
	session_error(group, "the primary's epoch changed inside a connection");
	return false;
}

static bool takes_bulk(const struct engine_group *group)
{
	return group->session.state == SESSION_STREAMING ||
	       group->session.state == SESSION_STARTING;
}

static int on_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct engine_group *group = owner;

	if (frame->type == FRAME_BYE) {
		link_close(group->link);
		session_over(group, "the primary ended the connection");
		return 0;
	}
	if (!epoch_fits(group, frame))
		return 0;
	switch (frame->type) {
	case FRAME_START:
		on_start(group, body, frame->body_bytes);
		return 0;
	case FRAME_REFUSE:
		if (group->session.state != SESSION_WELCOMED)
			break;
		rejoin_refused(group, body, frame->body_bytes);
		return 0;
	case FRAME_HEARTBEAT:
		on_heartbeat(group, body, frame->body_bytes);
		return 0;
	case FRAME_HANDOVER:
		take_over(group, frame);
		return 0;
	case FRAME_SEGMENT:
		receive_segment(group, frame);
		return 0;
	case FRAME_SYNC_DATA:
	case FRAME_SYNC_ZERO:
	case FRAME_SYNC_HASH:
	case FRAME_SYNC_END:
		if (takes_bulk(group)) {
			copy_frame(group, frame, body);
			return 0;
		}
		break;
	case FRAME_VERIFIED:
		if (group->session.state == SESSION_STREAMING) {
			compare_verified(group, frame);
			return 0;
		}
		break;
	default:
		break;
	}
	session_error(group, "the primary sent a %s frame where none belongs",
		      frame_type_text(frame->type));
	return 0;
}

static uint8_t *on_place(void *owner, const struct frame *frame)
{
	struct engine_group *group = owner;
	uint8_t *place = NULL;

	if (!takes_bulk(group)) {
		session_error(group, "the primary sent a %s frame before START",
			      frame_type_text(frame->type));
		return NULL;
	}
	if (!epoch_fits(group, frame))
		return NULL;
	if (group->session.state == SESSION_STREAMING)
		place = frame->type == FRAME_SEGMENT ? receive_place(group, frame)
						     : copy_place(group, frame);
	if (!place && session_connected(group))
		group->place_wanted = true;
	return place;
}

static void on_released(void *owner)
{
	receive_drop(owner);
}

void session_room(struct engine_group *group)
{
	if (!group->place_wanted)
		return;
	group->place_wanted = false;
	group->session.readable_ns = io_now(group->io);
	link_resume(group->link);
}

/* ---- acknowledgements -------------------------------------------------------------------------
 */

static void turn_over(struct io_op *op, int64_t res)
{
	struct engine_group *group = container_of(op, struct engine_group, turn_op);
	struct frame ack = { .type = FRAME_ACK,
			     .epoch = group->dir.sb.epoch,
			     .seq = group->journal.durable_seq,
			     .arg1 = group->applied_seq,
			     .arg2 = group->journal.appended_seq };
	struct frame sync = { .type = FRAME_SYNC_ACK,
			      .epoch = group->dir.sb.epoch,
			      .seq = group->copy.durable_frames };

	(void)res;
	group->turn_pending = false;
	if (group->state != ENGINE_READY || group->session.state != SESSION_STREAMING)
		return;
	/* Without room, on_writable() comes back. */
	if (link_send(group->link, &ack, NULL))
		return;
	if (group->copy.durable_frames > group->copy.acked_frames &&
	    !link_send(group->link, &sync, NULL))
		group->copy.acked_frames = group->copy.durable_frames;
	compare_send(group);
}

void session_ack(struct engine_group *group)
{
	if (group->turn_pending || group->session.state != SESSION_STREAMING)
		return;
	group->turn_pending = true;
	group->turn_op.done = turn_over;
	io_defer(group->io, &group->turn_op, 0);
}

static void on_writable(void *owner)
{
	session_ack(owner);
}

/* ---- life -------------------------------------------------------------------------------------
 */

int session_init(struct engine_group *group)
{
	struct link_events events = { .owner = group,
				      .place = on_place,
				      .frame = on_frame,
				      .writable = on_writable,
				      .ended = on_ended,
				      .released = on_released };
	int r = link_new(group->io, ENGINE_LINK_OUT_BYTES, &events, &group->link);

	group->watch_timer.fire = watch_due;
	/* Only refuses: never open outside of a call, so none of its callbacks comes. */
	events.released = NULL;
	return r ? r : link_new(group->io, ENGINE_LINK_OUT_BYTES, &events, &group->refuse_link);
}

void session_deinit(struct engine_group *group)
{
	io_stream_close(group->offer_stream);
	group->offer_stream = NULL;
	group->link = link_free(group->link);
	group->refuse_link = link_free(group->refuse_link);
}
