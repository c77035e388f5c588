/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams inside TLS: moves ciphertext between the socket and the session's buffers.
 *
 * What TLS wants to say by itself on an idle connection (the answer to a key update) waits for the
 * next send, so an idle stream has nothing in the kernel and may be moved. Last words (an alert,
 * the goodbye) are sent at once as far as the socket takes them: nobody waits for their completion.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/io/tls_session.h"

/* Hands the next ciphertext to the kernel. False when there is none and none is under way. */
static bool pump(struct uring_stream *stream)
{
	size_t len;

	if (stream->send_req.busy)
		return true;
	(void)tls_session_output(stream->tls, &len);
	if (len == 0)
		return false;
	loop_queue(stream_loop(stream), &stream->send_req);
	return true;
}

static void receive(struct uring_stream *stream)
{
	if (!stream->recv_req.busy)
		loop_queue(stream_loop(stream), &stream->recv_req);
}

void tls_recv_prep(struct uring_stream *stream, struct io_uring_sqe *sqe)
{
	size_t len;
	uint8_t *place = tls_session_input(stream->tls, &len);

	io_uring_prep_recv(sqe, stream->fd, place, len, 0);
}

void tls_send_prep(struct uring_stream *stream, struct io_uring_sqe *sqe)
{
	size_t len;
	const uint8_t *bytes = tls_session_output(stream->tls, &len);

	io_uring_prep_send(sqe, stream->fd, bytes, len, MSG_NOSIGNAL);
}

/* Sends what is there without waiting. */
static void send_now(struct uring_stream *stream)
{
	const uint8_t *bytes;
	size_t len;
	ssize_t res;

	if (stream->send_req.busy)
		return;
	for (;;) {
		bytes = tls_session_output(stream->tls, &len);
		if (len == 0)
			return;
		res = send(stream->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (res <= 0)
			return;
		tls_session_output_taken(stream->tls, (size_t)res);
	}
}

static void take_reason(struct uring_stream *stream)
{
	const char *reason = tls_session_error(stream->tls);

	if (*reason)
		stream_say(stream, "%s", reason);
}

/* ---- handshake ---- */

static void handshake_end(struct uring_stream *stream, int res, bool now)
{
	io_timer_stop(stream->handle.io, &stream->tls_timer);
	if (res < 0) {
		take_reason(stream);
		stream->broken = res;
		send_now(stream); /* the alert tells the peer why */
	} else {
		(void)snprintf(stream->peer.identity, sizeof(stream->peer.identity), "%s",
			       tls_session_identity(stream->tls));
	}
	stream_tls_end(stream, res, now);
}

static void handshake_step(struct uring_stream *stream, bool now)
{
	int res = stream->tls_shaken ? 0 : tls_session_handshake(stream->tls);

	if (res < 0) {
		handshake_end(stream, res, now);
		return;
	}
	if (res == 0)
		stream->tls_shaken = true;
	if (!pump(stream) && stream->tls_shaken)
		handshake_end(stream, 0, now);
	else if (res == TLS_WANT_INPUT)
		receive(stream);
}

static void deadline_fire(struct io_timer *timer)
{
	struct uring_stream *stream = container_of(timer, struct uring_stream, tls_timer);

	stream_say(stream, "TLS handshake with %s took longer than %llu s", stream->peer.address,
		   NET_DEADLINE_NS / 1000000000);
	handshake_end(stream, -ETIMEDOUT, true);
}

void uring_start_tls(struct io_stream *handle, struct io_tls *tls, bool server,
		     const char *expect_identity, struct io_op *op)
{
	struct uring_stream *stream = (struct uring_stream *)handle;
	int err;

	op_begin(op);
	must(!stream->closing && !stream->recv_op && !stream->send_op && !stream->tls_op);
	must(!stream->tls);
	stream->tls_op = op;
	err = tls_session_new(tls, server, expect_identity, stream->peer.address, &stream->tls);
	if (err < 0) {
		stream->broken = err;
		stream_tls_end(stream, err, false);
		return;
	}
	stream->tls_timer.fire = deadline_fire;
	io_timer_start(stream->handle.io, &stream->tls_timer, NET_DEADLINE_NS);
	handshake_step(stream, false);
}

/* ---- data ---- */

void tls_recv_step(struct uring_stream *stream, bool now)
{
	while (stream->recv_got < stream->recv_max) {
		size_t len;
		int res = tls_session_read(stream->tls, stream->recv_buf + stream->recv_got,
					   stream->recv_max - stream->recv_got, &len);

		if (res == 0) {
			stream->recv_got += len;
			continue;
		}
		/* What is wrong will still be wrong at the next receive. */
		if (stream->recv_got >= stream->recv_min)
			break;
		if (res == TLS_WANT_INPUT) {
			receive(stream);
			return;
		}
		if (res == TLS_CLOSED) {
			res = stream->recv_got > 0 ? -ECONNRESET : 0;
			if (res < 0)
				stream_say(stream,
					   "%s ended the connection in the middle of a "
					   "message",
					   stream->peer.address);
		} else {
			take_reason(stream);
			send_now(stream);
		}
		stream_recv_end(stream, res, now);
		return;
	}
	stream_recv_end(stream, (int64_t)stream->recv_got, now);
}

void tls_recv_done(struct uring_stream *stream, int res)
{
	if (stream->broken) /* the handshake failed while this was under way */
		return;
	if (res < 0) {
		if (stream->tls_op)
			handshake_end(stream, res, true);
		else
			stream_recv_end(stream, res, true);
		return;
	}
	if (res == 0)
		tls_session_input_ended(stream->tls);
	else
		tls_session_input_filled(stream->tls, (size_t)res);
	if (stream->tls_op)
		handshake_step(stream, true);
	else
		tls_recv_step(stream, true);
}

/* Encrypts as much as the output holds: one half goes out while the other is filled. */
void tls_send_step(struct uring_stream *stream, bool now)
{
	bool under_way = pump(stream);

	while (stream->iov_count > 0) {
		size_t len;
		int res = tls_session_write(stream->tls, &stream->iov[stream->iov_first],
					    stream->iov_count, &len);

		if (res == TLS_WANT_OUTPUT)
			break;
		if (res != 0) {
			take_reason(stream);
			stream_send_end(stream, res < 0 ? res : -EPROTO, now);
			return;
		}
		iov_advance(stream->iov, &stream->iov_first, &stream->iov_count, len);
		under_way = pump(stream);
	}
	if (stream->iov_count == 0 && !under_way)
		stream_send_end(stream, (int64_t)stream->send_total, now);
}

/*
 * A peer that refuses our certificate says so in an alert and closes; in TLS 1.3 that comes after
 * our side of the handshake, so a send may be the first to fail. The alert is the better reason.
 */
static int blame(struct uring_stream *stream, int res)
{
	uint8_t *place;
	ssize_t got;
	size_t len;
	int reason;

	if (stream->recv_req.busy)
		return res;
	place = tls_session_input(stream->tls, &len);
	got = recv(stream->fd, place, len, MSG_DONTWAIT);
	if (got > 0)
		tls_session_input_filled(stream->tls, (size_t)got);
	reason = tls_session_blame(stream->tls);
	if (reason >= 0)
		return res;
	take_reason(stream);
	return reason;
}

void tls_send_done(struct uring_stream *stream, int res)
{
	if (stream->broken) {
		if (res > 0) {
			tls_session_output_taken(stream->tls, (size_t)res);
			send_now(stream);
		}
		return;
	}
	if (res < 0) {
		if (stream->tls_op)
			handshake_end(stream, stream->tls_shaken ? blame(stream, res) : res, true);
		else
			stream_send_end(stream, blame(stream, res), true);
		return;
	}
	tls_session_output_taken(stream->tls, (size_t)res);
	if (stream->tls_op)
		handshake_step(stream, true);
	else
		tls_send_step(stream, true);
}

void tls_close(struct uring_stream *stream)
{
	if (!stream->tls_shaken || stream->broken || stream->send_req.busy)
		return;
	tls_session_close(stream->tls);
	send_now(stream);
}
