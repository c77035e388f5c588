/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two halves. Receiving: one receive at a time fills `in`; link_parse() takes frames out of it, in
 * order, until bytes or a place are missing. Sending: frames are bytes in a ring; one send at a
 * time takes what is there when it starts. Positions in the ring only grow; modulo its size they
 * are places.
 *
 * After a close, operations of the old stream may still be pending, on `in` and on the ring. Until
 * they are done (`draining`) nothing new is submitted: a new stream waits, its frames queue up.
 */
#include "core/group/link.h"

#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "proto/segment.h"

/* Room for a whole control frame behind the rest of another one, so that one move makes space. */
#define IN_BYTES     (256u << 10)
#define IN_LOW_BYTES (FRAME_BYTES + FRAME_CONTROL_MAX_BYTES)
/* In one send; smaller ones make room in the ring earlier. Whatever a pending send holds, a frame
 * of any size fits beside it, so a frame that did not fit always has a send ahead whose end makes
 * room. */
#define SEND_MAX_BYTES (512u << 10)
/* Kept free for the frame of link_finish(). */
#define RESERVE_BYTES (FRAME_BYTES + FRAME_CONTROL_MAX_BYTES)
#define FINISH_NS     NS_PER_S
/* After a failed send: time to receive what the peer said before it closed. */
#define LAST_WORDS_NS (200 * NS_PER_MS)

enum link_state {
	LINK_CLOSED,
	LINK_OPEN,
	LINK_ENDED,	/* `ended` was called; waits for link_close() */
	LINK_FINISHING, /* sends what is left, drops what arrives */
};

struct link {
	struct io *io;
	struct link_events events;
	enum link_state state;
	struct io_stream *stream;
	uint64_t starts;    /* which stream this is, for code that called back */
	bool draining;	    /* the pending operations are of a former stream */
	bool freed;	    /* goes when nothing is pending */
	unsigned callbacks; /* own frames on the stack */
	struct io_op recv_op, send_op, kick_op;
	bool receiving, sending, kicked;
	struct io_timer timer; /* end of FINISHING, or of waiting after a failed send */
	uint64_t heard_ns, sent_bytes, received_bytes;

	uint8_t *in;
	size_t in_start, in_end;
	struct frame frame; /* the one being received */
	bool has_frame;
	bool blocked; /* place() said NULL */
	bool direct;  /* the pending receive goes into a place */
	uint8_t *place;
	uint32_t place_bytes; /* of the body that are there */

	uint8_t *out;
	size_t out_bytes;  /* of the ring, with the reserve */
	uint64_t out_done; /* with the transport */
	uint64_t out_submitted;
	uint64_t out_queued;
	size_t wanted_bytes; /* what did not fit; 0 = nobody waits */
	int send_error;
	char text[256];
};

static void link_recv_done(struct io_op *op, int64_t res);
static void link_send_done(struct io_op *op, int64_t res);
static void link_kicked(struct io_op *op, int64_t res);
static void link_timeout(struct io_timer *timer);

int link_new(struct io *io, size_t out_bytes, const struct link_events *events,
	     struct link **ret_link)
{
	struct link *link;

	must(out_bytes >= 2 * (FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES));
	link = io_alloc(io, sizeof(*link), _Alignof(struct link));
	if (!link)
		return -ENOMEM;
	link->io = io;
	link->events = *events;
	link->out_bytes = out_bytes + RESERVE_BYTES;
	link->in = io_alloc(io, IN_BYTES, 64);
	link->out = io_alloc(io, link->out_bytes, 64);
	if (!link->in || !link->out) {
		io_free(io, link->in);
		io_free(io, link->out);
		io_free(io, link);
		return -ENOMEM;
	}
	link->recv_op.done = link_recv_done;
	link->send_op.done = link_send_done;
	link->kick_op.done = link_kicked;
	link->timer.fire = link_timeout;
	*ret_link = link;
	return 0;
}

static void link_enter(struct link *link)
{
	link->callbacks++;
}

/* The end of every callback: the one place where memory goes. */
static void link_leave(struct link *link)
{
	struct io *io = link->io;

	link->callbacks--;
	if (!link->freed || link->callbacks > 0 || link->receiving || link->sending || link->kicked)
		return;
	io_free(io, link->in);
	io_free(io, link->out);
	io_free(io, link);
}

struct link *link_free(struct link *link)
{
	if (!link)
		return NULL;
	must(!link->freed);
	link_enter(link);
	link_close(link);
	link->freed = true;
	link_leave(link);
	return NULL;
}

bool link_is_open(const struct link *link)
{
	return link->state == LINK_OPEN && link->send_error == 0;
}

bool link_is_finishing(const struct link *link)
{
	return link->state == LINK_FINISHING;
}

bool link_places(const struct link *link)
{
	return link->receiving && link->direct;
}

uint64_t link_heard_ns(const struct link *link)
{
	return link->heard_ns;
}

uint64_t link_sent_bytes(const struct link *link)
{
	return link->sent_bytes;
}

uint64_t link_received_bytes(const struct link *link)
{
	return link->received_bytes;
}

static void link_kick(struct link *link)
{
	if (link->kicked)
		return;
	link->kicked = true;
	io_defer(link->io, &link->kick_op, 0);
}

void link_close(struct link *link)
{
	if (link->state == LINK_CLOSED)
		return;
	io_timer_stop(link->io, &link->timer);
	io_stream_close(link->stream);
	link->stream = NULL;
	link->state = LINK_CLOSED;
	link->draining = link->receiving || link->sending;
	link->in_start = link->in_end = 0;
	link->has_frame = link->blocked = false;
	link->place = NULL;
	link->wanted_bytes = 0;
	/* Bytes of a pending send stay where they are until it is done. */
	link->out_queued = link->out_submitted;
}

/* `ended` comes once; nothing is submitted afterwards. */
static void link_end(struct link *link, int res, const char *text)
{
	io_timer_stop(link->io, &link->timer);
	link->state = LINK_ENDED;
	link->events.ended(link->events.owner, res, text);
}

static void link_end_stream(struct link *link, int res, const char *what)
{
	const char *reason = io_stream_error(link->stream);

	snprintf(link->text, sizeof(link->text), "%s: %s", what,
		 reason[0] != '\0' ? reason : err_text(res));
	link_end(link, res, link->text);
}

/* ---- sending ---------------------------------------------------------------------------- */

size_t link_room(const struct link *link)
{
	return link->out_bytes - RESERVE_BYTES - (size_t)(link->out_queued - link->out_done);
}

void link_want(struct link *link, size_t bytes)
{
	must(bytes > link_room(link) && bytes <= link->out_bytes - RESERVE_BYTES);
	if (link_is_open(link))
		link->wanted_bytes = bytes;
}

size_t link_queued(const struct link *link)
{
	bool stale = link->draining && link->sending;

	return (size_t)(link->out_queued - (stale ? link->out_submitted : link->out_done));
}

static void link_put(struct link *link, const void *bytes, size_t length_bytes)
{
	size_t at = (size_t)(link->out_queued % link->out_bytes);
	size_t first = min_size(length_bytes, link->out_bytes - at);

	memcpy(link->out + at, bytes, first);
	memcpy(link->out, (const uint8_t *)bytes + first, length_bytes - first);
	link->out_queued += length_bytes;
}

static void link_put_frame(struct link *link, struct frame *frame, const void *body)
{
	uint8_t header[FRAME_BYTES];

	/* A segment has checksums of its own. */
	frame->body_crc =
		frame->type == FRAME_SEGMENT ? 0 : frame_body_crc(body, frame->body_bytes);
	frame_encode(frame, header);
	link_put(link, header, FRAME_BYTES);
	if (frame->body_bytes > 0)
		link_put(link, body, frame->body_bytes);
	if (!link->sending)
		link_kick(link);
}

int link_send(struct link *link, struct frame *frame, const void *body)
{
	size_t length_bytes = FRAME_BYTES + (size_t)frame->body_bytes;

	must(length_bytes <= link->out_bytes - RESERVE_BYTES);
	if (!link_is_open(link))
		return -ENOTCONN;
	if (length_bytes > link_room(link)) {
		link->wanted_bytes = length_bytes;
		return -EAGAIN;
	}
	link_put_frame(link, frame, body);
	return 0;
}

void link_finish(struct link *link, struct frame *frame, const void *body)
{
	must(frame->body_bytes <= FRAME_CONTROL_MAX_BYTES);
	if (!link_is_open(link)) {
		if (link->state != LINK_FINISHING)
			link_close(link);
		return;
	}
	link->state = LINK_FINISHING;
	link->wanted_bytes = 0;
	link->in_start = link->in_end = 0;
	link->has_frame = link->blocked = false;
	link->place = NULL;
	link_put_frame(link, frame, body);
	io_timer_start(link->io, &link->timer, FINISH_NS);
	/* Reading may have been stopped for want of a place. */
	link_kick(link);
}

static void link_submit_send(struct link *link)
{
	struct iovec iov[2];
	size_t at, bytes, first;
	unsigned count = 1;

	if (link->sending || link->draining || link->send_error != 0 ||
	    link->out_queued == link->out_submitted)
		return;
	if (link->state != LINK_OPEN && link->state != LINK_FINISHING)
		return;
	at = (size_t)(link->out_submitted % link->out_bytes);
	bytes = min_size(SEND_MAX_BYTES, (size_t)(link->out_queued - link->out_submitted));
	first = min_size(bytes, link->out_bytes - at);
	iov[0] = (struct iovec){ .iov_base = link->out + at, .iov_len = first };
	if (first < bytes)
		iov[count++] = (struct iovec){ .iov_base = link->out, .iov_len = bytes - first };
	link->out_submitted += bytes;
	link->sending = true;
	io_sendv(link->stream, iov, count, &link->send_op);
}

/* ---- receiving -------------------------------------------------------------------------- */

static bool has_place(const struct frame *frame)
{
	return frame->type == FRAME_SEGMENT || frame->type == FRAME_SYNC_DATA;
}

static void link_bad_frame(struct link *link, const char *what, const char *reason)
{
	snprintf(
		link->text, sizeof(link->text),
		"the peer sent a %s that is not valid (%s); is it another program, or is something "
		"between the two damaging data?",
		what, reason);
	link_end(link, -EBADMSG, link->text);
}

/* The header of the next frame. False: not there yet, or the link has ended. */
static bool link_parse_header(struct link *link)
{
	int condition;

	if (link->in_end - link->in_start < FRAME_BYTES)
		return false;
	condition = frame_decode(link->in + link->in_start, FRAME_BYTES, &link->frame);
	if (condition != 0) {
		link_bad_frame(link, "frame header", frame_condition_text(condition));
		return false;
	}
	link->in_start += FRAME_BYTES;
	link->has_frame = true;
	link->place = NULL;
	link->place_bytes = 0;
	return true;
}

/* The body of the frame, when it is whole; else NULL. */
static const uint8_t *link_parse_body(struct link *link)
{
	size_t available = link->in_end - link->in_start;
	const uint8_t *body = link->in + link->in_start;
	size_t bytes;

	if (!has_place(&link->frame)) {
		if (available < link->frame.body_bytes)
			return NULL;
		link->in_start += link->frame.body_bytes;
		return body;
	}
	bytes = min_size(available, link->frame.body_bytes - link->place_bytes);
	memcpy(link->place + link->place_bytes, body, bytes);
	link->in_start += bytes;
	link->place_bytes += (uint32_t)bytes;
	return link->place_bytes == link->frame.body_bytes ? link->place : NULL;
}

/* True when a place is there. The owner may do anything in between. */
static bool link_ask_place(struct link *link)
{
	uint64_t starts = link->starts;
	uint8_t *place = link->events.place(link->events.owner, &link->frame);

	if (link->state != LINK_OPEN || link->starts != starts)
		return false;
	link->place = place;
	link->blocked = !place;
	return place != NULL;
}

/* Delivers every whole frame. */
static void link_parse(struct link *link)
{
	uint64_t starts = link->starts;

	while (link->state == LINK_OPEN && !link->blocked) {
		struct frame frame;
		const uint8_t *body;
		int res;

		if (!link->has_frame && !link_parse_header(link))
			return;
		if (has_place(&link->frame) && !link->place && !link_ask_place(link))
			return;
		body = link_parse_body(link);
		if (!body)
			return;
		frame = link->frame;
		link->has_frame = false;
		link->place = NULL;
		if (frame_body_check(&frame, body) != 0) {
			link_bad_frame(link, frame_type_text(frame.type), "checksum of the body");
			return;
		}
		res = link->events.frame(link->events.owner, &frame, body);
		if (res != 0 && link->state == LINK_OPEN && link->starts == starts)
			link_end(link, res, err_text(res));
	}
}

/* Space behind what is there: at least what a whole control frame needs. */
static void link_make_space(struct link *link)
{
	size_t left = link->in_end - link->in_start;

	if (left == 0) {
		link->in_start = link->in_end = 0;
	} else if (IN_BYTES - link->in_end < IN_LOW_BYTES) {
		memmove(link->in, link->in + link->in_start, left);
		link->in_start = 0;
		link->in_end = left;
	}
}

static void link_submit_recv(struct link *link)
{
	if (link->receiving || link->draining || link->blocked)
		return;
	if (link->state != LINK_OPEN && link->state != LINK_FINISHING)
		return;
	link->receiving = true;
	link->direct = link->place && link->events.released;
	if (link->direct) {
		io_recv(link->stream, link->place + link->place_bytes, 1,
			link->frame.body_bytes - link->place_bytes, &link->recv_op);
		return;
	}
	link_make_space(link);
	io_recv(link->stream, link->in + link->in_end, 1, IN_BYTES - link->in_end, &link->recv_op);
}

/* ---- completions ------------------------------------------------------------------------ */

static void link_begin(struct link *link)
{
	link_submit_recv(link);
	link_submit_send(link);
}

void link_start(struct link *link, struct io_stream *stream)
{
	must(!link->freed);
	link_close(link);
	link->state = LINK_OPEN;
	link->stream = stream;
	link->starts++;
	link->heard_ns = 0;
	link->send_error = 0;
	link_begin(link);
}

void link_resume(struct link *link)
{
	if (!link->blocked)
		return;
	link->blocked = false;
	link_kick(link);
}

static void link_kicked(struct io_op *op, int64_t res)
{
	struct link *link = container_of(op, struct link, kick_op);

	(void)res;
	link->kicked = false;
	link_enter(link);
	if (!link->receiving)
		link_parse(link);
	link_begin(link);
	link_leave(link);
}

/* The last operation of a former stream makes way for the present one. */
static void link_drained(struct link *link)
{
	if (link->receiving || link->sending)
		return;
	link->draining = false;
	if (link->state != LINK_CLOSED)
		link_begin(link);
}

static void link_received(struct link *link, int64_t res, bool direct)
{
	bool between = !link->has_frame && link->in_end == link->in_start;

	if (link->state == LINK_FINISHING) {
		if (res <= 0)
			link_close(link);
	} else if (link->state != LINK_OPEN) {
		return;
	} else if (res > 0) {
		if (direct)
			link->place_bytes += (uint32_t)res;
		else
			link->in_end += (size_t)res;
		link_parse(link);
	} else if (res == 0 && between) {
		link_end(link, 0, "the peer closed the connection");
	} else if (res == 0) {
		link_end(link, -ECONNRESET, "the peer closed the connection inside a frame");
	} else {
		link_end_stream(link, (int)res, "receiving from the peer failed");
	}
}

static void link_recv_done(struct io_op *op, int64_t res)
{
	struct link *link = container_of(op, struct link, recv_op);
	bool direct = link->direct;
	bool stale = link->draining || link->state != LINK_OPEN;

	link->receiving = link->direct = false;
	link_enter(link);
	if (res > 0) {
		link->received_bytes += (uint64_t)res;
		if (!link->draining)
			link->heard_ns = io_now(link->io);
	}
	if (stale && direct)
		link->events.released(link->events.owner);
	if (link->draining) {
		link_drained(link);
	} else {
		link_received(link, res, direct);
		link_submit_recv(link);
	}
	link_leave(link);
}

static void link_sent(struct link *link, int64_t res)
{
	if (res < 0) {
		link->send_error = (int)res;
		if (link->state == LINK_OPEN)
			io_timer_start(link->io, &link->timer, LAST_WORDS_NS);
		return;
	}
	link_submit_send(link);
	if (link->wanted_bytes > 0 && link->wanted_bytes <= link_room(link) && link_is_open(link)) {
		link->wanted_bytes = 0;
		link->events.writable(link->events.owner);
	}
}

static void link_send_done(struct io_op *op, int64_t res)
{
	struct link *link = container_of(op, struct link, send_op);

	link->sending = false;
	link_enter(link);
	if (res >= 0 && !link->draining)
		link->sent_bytes += link->out_submitted - link->out_done;
	link->out_done = link->out_submitted;
	if (link->draining)
		link_drained(link);
	else
		link_sent(link, res);
	link_leave(link);
}

static void link_timeout(struct io_timer *timer)
{
	struct link *link = container_of(timer, struct link, timer);

	link_enter(link);
	if (link->state == LINK_FINISHING)
		link_close(link);
	else if (link->state == LINK_OPEN)
		link_end_stream(link, link->send_error, "sending to the peer failed");
	link_leave(link);
}
