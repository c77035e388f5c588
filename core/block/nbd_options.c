/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake. One option is looked at when it is there as a whole, its replies are sent, and
 * only then the next one is looked at; what a client sends ahead stays in conn->in.
 */
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

static size_t received(const struct nbd_conn *conn)
{
	return conn->in_end - conn->in_start;
}

static void options_received(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, recv_op);

	conn->recv_pending = false;
	if (!nbd_conn_leave(conn))
		return;
	if (res == 0) {
		nbd_conn_close(conn, "");
		return;
	}
	if (res < 0) {
		nbd_conn_close(conn, "the connection broke during the handshake");
		return;
	}
	conn->in_end += (size_t)res;
	must(conn->in_end <= conn->in_max);
	nbd_options_run(conn);
}

static void receive_more(struct nbd_conn *conn, size_t min)
{
	if (conn->in_start > 0) {
		memmove(conn->in, conn->in + conn->in_start, received(conn));
		conn->in_end -= conn->in_start;
		conn->in_start = 0;
	}
	must(min > 0 && min <= conn->in_max - conn->in_end);
	conn->recv_pending = true;
	conn->pending++;
	conn->recv_op.done = options_received;
	io_recv(conn->stream, conn->in + conn->in_end, min, conn->in_max - conn->in_end,
		&conn->recv_op);
}

static void tls_started(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, step_op);

	if (!nbd_conn_leave(conn))
		return;
	if (res < 0) {
		const char *error = io_stream_error(conn->stream);

		nbd_conn_close(conn, error[0] ? error : "the TLS handshake failed");
		return;
	}
	conn->tls = true;
	/* Nothing negotiated in the clear counts. */
	conn->structured = false;
	conn->meta_allocation = false;
	conn->phase = NBD_OPTIONS;
	nbd_options_run(conn);
}

static void start_tls(struct nbd_conn *conn)
{
	/* Bytes sent ahead of the handshake in the clear could be an attacker's, to be taken for
	 * the client's once TLS is up. */
	if (received(conn) > 0) {
		nbd_conn_close(conn, "data in the clear behind STARTTLS");
		return;
	}
	conn->in_start = 0;
	conn->in_end = 0;
	conn->phase = NBD_STARTING_TLS;
	conn->pending++;
	conn->step_op.done = tls_started;
	io_start_tls(conn->stream, conn->server->config.tls_identity, true, NULL, &conn->step_op);
}

static void reply_sent(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, send_op);
	enum nbd_then then = conn->then;

	conn->send_pending = false;
	if (!nbd_conn_leave(conn))
		return;
	if (res < 0) {
		/* After ABORT a client need not wait for the answer. */
		nbd_conn_close(conn, then == NBD_THEN_CLOSE
					     ? ""
					     : "the connection broke during the handshake");
		return;
	}
	conn->then = NBD_THEN_OPTIONS;
	switch (then) {
	case NBD_THEN_OPTIONS:
		nbd_options_run(conn);
		break;
	case NBD_THEN_TLS:
		start_tls(conn);
		break;
	case NBD_THEN_SERVE:
		conn->phase = NBD_SERVING;
		conn->timed = false;
		io_timer_stop(conn->io, &conn->deadline);
		nbd_receive_run(conn);
		break;
	case NBD_THEN_CLOSE:
		nbd_conn_close(conn, "");
		break;
	}
}

static void send_reply(struct nbd_conn *conn)
{
	struct iovec iov = {
		.iov_base = conn->out,
		.iov_len = (size_t)(conn->reply.pos - conn->out),
	};

	must(wcursor_ok(&conn->reply) && iov.iov_len > 0);
	conn->send_pending = true;
	conn->pending++;
	conn->send_op.done = reply_sent;
	io_sendv(conn->stream, &iov, 1, &conn->send_op);
}

void nbd_options_start(struct nbd_conn *conn)
{
	conn->phase = NBD_GREETING;
	conn->reply = wcursor_of(conn->out, NBD_OUT_BYTES);
	nbd_greeting_put(&conn->reply, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	send_reply(conn);
}

/* The client's flags. False when more bytes are needed or the connection is closed. */
static bool greeting_run(struct nbd_conn *conn)
{
	struct rcursor in = rcursor_of(conn->in + conn->in_start, received(conn));
	uint32_t flags;

	if (received(conn) < NBD_CLIENT_FLAGS_BYTES) {
		receive_more(conn, NBD_CLIENT_FLAGS_BYTES - received(conn));
		return false;
	}
	flags = rcursor_be32(&in);
	conn->in_start += NBD_CLIENT_FLAGS_BYTES;
	if (flags & ~(NBD_CLIENT_FIXED_NEWSTYLE | NBD_CLIENT_NO_ZEROES)) {
		nbd_conn_close(conn, "sent handshake flags that this server does not know");
		return false;
	}
	conn->fixed_newstyle = (flags & NBD_CLIENT_FIXED_NEWSTYLE) != 0;
	conn->no_zeroes = (flags & NBD_CLIENT_NO_ZEROES) != 0;
	conn->phase = NBD_OPTIONS;
	return true;
}

/* The rest of an option that is not looked into. False when more bytes are needed. */
static bool skip_run(struct nbd_conn *conn)
{
	size_t now = min_size(conn->skip_bytes, received(conn));

	conn->skip_bytes -= now;
	conn->in_start += now;
	if (conn->skip_bytes == 0)
		return true;
	receive_more(conn, 1);
	return false;
}

void nbd_options_run(struct nbd_conn *conn)
{
	struct nbd_option_header header;
	struct rcursor in;
	enum nbd_outcome outcome;
	size_t whole;

	must(!conn->send_pending && !conn->recv_pending);
	if (conn->phase == NBD_GREETING && !greeting_run(conn))
		return;
	if (conn->skip_bytes > 0 && !skip_run(conn))
		return;
	in = rcursor_of(conn->in + conn->in_start, received(conn));
	if (!nbd_option_header_get(&in, &header)) {
		receive_more(conn, NBD_OPTION_HEADER_BYTES - received(conn));
		return;
	}
	if (header.magic != NBD_MAGIC_OPTION) {
		nbd_conn_close(conn, "sent something that is no NBD option");
		return;
	}
	whole = NBD_OPTION_HEADER_BYTES + header.length_bytes;
	conn->reply = wcursor_of(conn->out, NBD_OUT_BYTES);
	if (header.length_bytes > NBD_OPTION_MAX_BYTES) {
		if (nbd_option_skip(conn, &header) != NBD_OPTION_GONE)
			send_reply(conn);
		return;
	}
	if (received(conn) < whole) {
		receive_more(conn, whole - received(conn));
		return;
	}
	outcome = nbd_option_handle(conn, header.option, rcursor_sub(&in, header.length_bytes));
	if (outcome == NBD_OPTION_GONE)
		return;
	if (outcome == NBD_OPTION_DONE)
		conn->in_start += whole;
	send_reply(conn);
}
