/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: bytes through pipes, their ends and their breaks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "tests/sim/net.h"
#include "tests/sim/ops.h"

#define RETRANSMIT_NS_MIN (10 * SIM_MS)
#define RETRANSMIT_NS_MAX SIM_SECOND
#define SYSCALL_NS_MAX	  (10 * SIM_US)
#define SPLIT_SEGMENT_PPM 250000u
#define LOSE_UNREAD_PPM	  500000u

static void fire_arrival(struct sim_event *event);

/* ---- pipes ------------------------------------------------------------------------------------
 */

static void plan_arrival(struct net_conn *conn, unsigned side, uint64_t delay_ns, uint64_t end,
			 bool fin)
{
	struct net_pipe *pipe = &conn->pipe[side];
	uint64_t now_ns = conn->net->world->now_ns;
	struct sim_event *event;

	/* In order: a segment never overtakes the one before it. */
	pipe->last_arrival_ns = max_u64(pipe->last_arrival_ns, now_ns + delay_ns);
	event = net_event(conn, pipe->last_arrival_ns - now_ns, fire_arrival);
	event->a = side;
	event->b = end;
	event->res = fin;
}

static void ring_copy_in(struct net_pipe *pipe, const uint8_t *bytes, uint64_t len)
{
	uint64_t ring_bytes = pipe->size_bytes + PIPE_SLACK_BYTES;

	must(pipe->written - pipe->acked + len <= ring_bytes);
	while (len) {
		uint64_t at = pipe->written % ring_bytes;
		uint64_t piece = min_u64(len, ring_bytes - at);

		memcpy(pipe->ring + at, bytes, piece);
		pipe->written += piece;
		bytes += piece;
		len -= piece;
	}
}

void pipe_write(struct net_conn *conn, unsigned side, const void *bytes, uint64_t len)
{
	struct net_pipe *pipe = &conn->pipe[side];
	struct sim_world *world = conn->net->world;
	uint64_t begin = pipe->written;

	if (!pipe->ring) {
		pipe->ring = malloc(pipe->size_bytes + PIPE_SLACK_BYTES);
		must(pipe->ring);
	}
	ring_copy_in(pipe, bytes, len);
	if (len > 1 && sim_chance(world, SPLIT_SEGMENT_PPM))
		plan_arrival(conn, side, link_delay(conn->net, conn->host[side], conn->host[!side]),
			     begin + sim_between(world, 1, len - 1), false);
	plan_arrival(conn, side, link_delay(conn->net, conn->host[side], conn->host[!side]),
		     pipe->written, false);
}

uint64_t pipe_ready(const struct net_conn *conn, unsigned side)
{
	return conn->pipe[!side].arrived - conn->pipe[!side].read;
}

/* Room for the sender, once the acknowledgement gets back to it. */
static void pipe_ack(struct net_conn *conn, unsigned sender)
{
	struct net_pipe *pipe = &conn->pipe[sender];

	if (link_cut(conn->net, conn->host[!sender], conn->host[sender]) != SIM_CUT_NONE) {
		pipe->ack_stalled = true;
		return;
	}
	pipe->ack_stalled = false;
	pipe->acked = pipe->read;
	if (conn->stream[sender])
		stream_kick(conn->stream[sender]);
}

void pipe_read(struct net_conn *conn, unsigned side, void *bytes, uint64_t len)
{
	struct net_pipe *pipe = &conn->pipe[!side];
	uint64_t ring_bytes = pipe->size_bytes + PIPE_SLACK_BYTES;
	uint8_t *out = bytes;

	must(len <= pipe->arrived - pipe->read);
	while (len) {
		uint64_t at = pipe->read % ring_bytes;
		uint64_t piece = min_u64(len, ring_bytes - at);

		memcpy(out, pipe->ring + at, piece);
		pipe->read += piece;
		out += piece;
		len -= piece;
	}
	pipe_ack(conn, !side);
}

/* The sender's kernel gives up on data that nobody acknowledges. */
static void fire_user_timeout(struct sim_event *event)
{
	struct net_conn *conn = event->object;
	unsigned side = (unsigned)event->a;
	const struct net_pipe *pipe = &conn->pipe[side];

	if (pipe->stalled && pipe->stalls == event->b)
		side_breaks(conn, side, -ETIMEDOUT);
	conn_unref(conn);
}

static void pipe_stalls(struct net_conn *conn, unsigned side, uint64_t end, bool fin)
{
	struct net_pipe *pipe = &conn->pipe[side];
	struct sim_event *event;

	if (!pipe->stalled) {
		pipe->stalled = true;
		pipe->stalls++;
		event = net_event(conn, USER_TIMEOUT_NS, fire_user_timeout);
		event->a = side;
		event->b = pipe->stalls;
	}
	pipe->stalled_end = max_u64(pipe->stalled_end, end);
	pipe->stalled_fin |= fin;
}

static void fire_arrival(struct sim_event *event)
{
	struct net_conn *conn = event->object;
	unsigned side = (unsigned)event->a, to = !side;
	struct net_pipe *pipe = &conn->pipe[side];
	bool fin = event->res != 0;

	if (conn->broken[side] && conn->state[side] == END_OPEN) {
		/* The sender has given up or was reset: its kernel sends nothing any more. */
	} else if (pipe->stalled || !conn->host[to]->powered ||
		   link_cut(conn->net, conn->host[side], conn->host[to]) != SIM_CUT_NONE) {
		pipe_stalls(conn, side, event->b, fin);
	} else if (conn->state[to] != END_OPEN) {
		if (event->b > pipe->arrived)
			send_reset(conn, side);
	} else if (!conn->broken[to]) {
		pipe->arrived = max_u64(pipe->arrived, event->b);
		pipe->fin_arrived |= fin;
		trace_add(conn->net->world, NULL, WHAT_ARRIVAL, conn->name, side, pipe->arrived,
			  fin);
		if (conn->stream[to])
			stream_kick(conn->stream[to]);
	}
	conn_unref(conn);
}

void pipe_retry(struct net_conn *conn, unsigned side)
{
	struct net_pipe *pipe = &conn->pipe[side];
	struct sim_net *net = conn->net;
	bool works = link_cut(net, conn->host[side], conn->host[!side]) == SIM_CUT_NONE &&
		     conn->host[!side]->powered;

	if (pipe->stalled && works && conn->state[side] != END_LOST) {
		pipe->stalled = false;
		plan_arrival(conn, side,
			     sim_between(net->world, RETRANSMIT_NS_MIN, RETRANSMIT_NS_MAX),
			     pipe->stalled_end, pipe->stalled_fin);
	}
	if (pipe->ack_stalled)
		pipe_ack(conn, side);
}

/* ---- ends and breaks --------------------------------------------------------------------------
 */

void side_breaks(struct net_conn *conn, unsigned side, int error)
{
	struct net_pipe *incoming = &conn->pipe[!side];

	if (conn->broken[side] || conn->state[side] != END_OPEN)
		return;
	conn->broken[side] = error;
	trace_add(conn->net->world, conn->stream[side] ? conn->stream[side]->node : NULL,
		  WHAT_RESET, conn->name, side, 0, error);
	/* What has arrived and was not read may or may not still be read. */
	if (sim_chance(conn->net->world, LOSE_UNREAD_PPM))
		incoming->read = incoming->arrived;
	if (conn->stream[side])
		stream_kick(conn->stream[side]);
}

static void fire_reset(struct sim_event *event)
{
	struct net_conn *conn = event->object;
	unsigned side = (unsigned)event->a;

	/* A reset that the link drops is not repeated by itself; data without an answer asks again.
	 */
	if (link_cut(conn->net, conn->host[!side], conn->host[side]) == SIM_CUT_NONE)
		side_breaks(conn, side, -ECONNRESET);
	else if (conn->pipe[side].written > conn->pipe[side].arrived)
		pipe_stalls(conn, side, conn->pipe[side].written, false);
	conn_unref(conn);
}

void send_reset(struct net_conn *conn, unsigned side)
{
	struct sim_event *event;

	event = net_event(conn, link_delay(conn->net, conn->host[!side], conn->host[side]),
			  fire_reset);
	event->a = side;
}

void end_goes(struct net_conn *conn, unsigned side, enum end_state state, bool reset)
{
	struct net_pipe *outgoing = &conn->pipe[side];
	bool unread = pipe_ready(conn, side) != 0;

	conn->state[side] = state;
	conn->stream[side] = NULL;
	if (state == END_LOST || conn->broken[side])
		return;
	if (reset || unread)
		send_reset(conn, !side);
	else
		plan_arrival(conn, side, link_delay(conn->net, conn->host[side], conn->host[!side]),
			     outgoing->written, true);
}

/* ---- receive ----------------------------------------------------------------------------------
 */

static bool recv_is_ready(const struct io_stream *stream)
{
	const struct net_conn *conn = stream->conn;

	return pipe_ready(conn, stream->side) + stream->recv_got >= stream->recv_min ||
	       conn->broken[stream->side] || conn->pipe[!stream->side].fin_arrived;
}

static int64_t recv_take(struct io_stream *stream)
{
	struct net_conn *conn = stream->conn;
	struct sim_world *world = stream->node->world;
	uint64_t got = stream->recv_got;
	uint64_t ready = pipe_ready(conn, stream->side);
	uint64_t count = min_u64(ready, stream->recv_max - got);

	if (got + ready >= stream->recv_min) {
		if (sim_chance(world, world->options.split_recv_ppm))
			count = sim_between(world, sub_floor_u64(stream->recv_min, got), count);
		pipe_read(conn, stream->side, stream->recv_buf + got, count);
		return (int64_t)(got + count);
	}
	if (conn->broken[stream->side]) {
		snprintf(stream->error, sizeof(stream->error), "%s",
			 conn->broken[stream->side] == -ETIMEDOUT ? "connection timed out"
								  : "connection reset by peer");
		return conn->broken[stream->side];
	}
	return got + ready ? -ECONNRESET : 0;
}

/* A receive that wants more than a socket holds takes what is there meanwhile. */
static void recv_gather(struct io_stream *stream)
{
	uint64_t ready = pipe_ready(stream->conn, stream->side);

	if (!ready || stream->recv_got + ready >= stream->recv_min)
		return;
	pipe_read(stream->conn, stream->side, stream->recv_buf + stream->recv_got, ready);
	stream->recv_got += ready;
}

static void fire_recv(struct sim_event *event)
{
	struct io_stream *stream = event->object;
	struct io_op *op = stream->recv_op;
	int64_t res = recv_take(stream);

	stream->recv_event = NULL;
	stream->recv_op = NULL;
	trace_add(event->world, event->node, WHAT_RECV_DONE, stream->conn->name, 0, 0, res);
	op_end(event->node, op, res);
}

static void check_stream(const struct io_stream *stream, const char *what)
{
	const struct sim_node *node = stream->node;

	if (stream->closed)
		sim_fail(node->world, "%s: %s on a stream that is closed (%s)", node->name, what,
			 stream->conn ? stream->conn->name : "gone");
}

static void check_no_tls(const struct io_stream *stream, const char *what)
{
	if (stream->tls_op)
		sim_fail(stream->node->world, "%s: %s during a TLS handshake", stream->node->name,
			 what);
}

void net_recv(struct io_stream *stream, void *buf, size_t min, size_t max, struct io_op *op)
{
	struct sim_node *node = stream->node;

	check_stream(stream, "io_recv");
	check_no_tls(stream, "io_recv");
	if (min < 1 || min > max)
		sim_fail(node->world, "%s: io_recv with min %zu, max %zu", node->name, min, max);
	if (stream->recv_op)
		sim_fail(node->world, "%s: two receives outstanding on one stream", node->name);
	op_begin(node, op, "io_recv");
	stream->recv_op = op;
	stream->recv_buf = buf;
	stream->recv_min = min;
	stream->recv_max = max;
	stream->recv_got = 0;
	stream_kick(stream);
}

/* ---- send -------------------------------------------------------------------------------------
 */

static void send_progress(struct io_stream *stream)
{
	struct net_conn *conn = stream->conn;
	struct net_pipe *pipe = &conn->pipe[stream->side];
	uint64_t room = pipe->size_bytes - (pipe->written - pipe->acked);
	uint64_t count = min_u64(room, stream->send_bytes - stream->send_done_bytes);

	if (count && !conn->broken[stream->side]) {
		pipe_write(conn, stream->side, stream->send_copy + stream->send_done_bytes, count);
		stream->send_done_bytes += count;
	}
}

static void check_send_buffers(const struct io_stream *stream)
{
	const uint8_t *copy = stream->send_copy;

	for (unsigned i = 0; i < stream->iov_count; i++) {
		const struct iovec *iov = &stream->iov[i];

		if (memcmp(copy, iov->iov_base, iov->iov_len) != 0)
			sim_fail(stream->node->world,
				 "%s: a buffer changed while its send on %s was in flight",
				 stream->node->name, stream->conn->name);
		copy += iov->iov_len;
	}
}

static void fire_send(struct sim_event *event)
{
	struct io_stream *stream = event->object;
	struct io_op *op = stream->send_op;
	int64_t res = (int64_t)stream->send_bytes;

	check_send_buffers(stream);
	if (stream->send_done_bytes < stream->send_bytes)
		res = stream->conn->broken[stream->side] == -ETIMEDOUT ? -ETIMEDOUT : -EPIPE;
	if (res == -EPIPE && (sim_random(event->world) & 1))
		res = -ECONNRESET;
	if (res < 0)
		snprintf(stream->error, sizeof(stream->error), "connection broken while sending");
	stream->send_event = NULL;
	stream->send_op = NULL;
	free(stream->send_copy);
	stream->send_copy = NULL;
	trace_add(event->world, event->node, WHAT_SEND_DONE, stream->conn->name, 0, 0, res);
	op_end(event->node, op, res);
}

void net_sendv(struct io_stream *stream, const struct iovec *iov, unsigned iov_count,
	       struct io_op *op)
{
	struct sim_node *node = stream->node;
	uint64_t len = 0, at = 0;

	check_stream(stream, "io_sendv");
	check_no_tls(stream, "io_sendv");
	if (stream->send_op)
		sim_fail(node->world, "%s: two sends outstanding on one stream", node->name);
	if (iov_count == 0 || iov_count > IO_IOV_MAX)
		sim_fail(node->world, "%s: io_sendv with %u buffers", node->name, iov_count);
	op_begin(node, op, "io_sendv");
	for (unsigned i = 0; i < iov_count; i++)
		len += iov[i].iov_len;
	stream->send_copy = malloc(len + 1);
	must(stream->send_copy);
	for (unsigned i = 0; i < iov_count; i++) {
		memcpy(stream->send_copy + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	memcpy(stream->iov, iov, iov_count * sizeof(*iov));
	stream->iov_count = iov_count;
	stream->send_op = op;
	stream->send_bytes = len;
	stream->send_done_bytes = 0;
	node->world->hash += hash64(0, stream->send_copy, len);
	trace_add(node->world, node, WHAT_SEND, stream->conn->name, 0, len, 0);
	stream_kick(stream);
}

/* ---- both, and the rest -----------------------------------------------------------------------
 */

static struct sim_event *plan_soon(struct io_stream *stream, void (*fire)(struct sim_event *event))
{
	struct sim_world *world = stream->node->world;
	struct sim_event *event =
		event_add(world, stream->node, sim_between(world, 1, SYSCALL_NS_MAX), fire);

	event->object = stream;
	return event;
}

/* Something about the stream has changed: plan what can complete now. */
void stream_kick(struct io_stream *stream)
{
	if (stream->tls_op) {
		tls_kick(stream);
		return;
	}
	if (stream->recv_op && !stream->recv_event) {
		recv_gather(stream);
		if (recv_is_ready(stream))
			stream->recv_event = plan_soon(stream, fire_recv);
	}
	if (stream->send_op && !stream->send_event) {
		send_progress(stream);
		if (stream->send_done_bytes == stream->send_bytes ||
		    stream->conn->broken[stream->side])
			stream->send_event = plan_soon(stream, fire_send);
	}
}

static void drop_op(struct io_stream *stream, struct io_op **op, struct sim_event **event,
		    bool complete_it)
{
	if (*event && complete_it)
		event_cancel(*event);
	if (*op && complete_it)
		op_end_later(stream->node, *op, sim_between(stream->node->world, 1, SYSCALL_NS_MAX),
			     -ECANCELED);
	*event = NULL;
	*op = NULL;
}

void stream_drop_ops(struct io_stream *stream, bool complete_them)
{
	drop_op(stream, &stream->recv_op, &stream->recv_event, complete_them);
	drop_op(stream, &stream->send_op, &stream->send_event, complete_them);
	drop_op(stream, &stream->tls_op, &stream->tls_event, complete_them);
	if (stream->tls_timeout && complete_them)
		event_cancel(stream->tls_timeout);
	stream->tls_timeout = NULL;
	free(stream->send_copy);
	stream->send_copy = NULL;
}

void net_stream_close(struct io_stream *stream)
{
	struct sim_node *node = stream->node;
	struct net_conn *conn = stream->conn;

	check_stream(stream, "io_stream_close");
	node_must_be_up(node, "io_stream_close");
	trace_add(node->world, node, WHAT_CLOSE, conn->name, 0, 0, 0);
	/* A send that is not through is cut off: the peer must not take it for an orderly end. */
	end_goes(conn, stream->side, END_GONE, stream->send_op != NULL);
	stream_drop_ops(stream, true);
	stream->closed = true;
	list_remove(&stream->of_node);
	conn_unref(conn);
	stream->conn = NULL;
}

void net_stream_move(struct io_stream *stream, struct io *to)
{
	check_stream(stream, "io_stream_move");
	if (stream->recv_op || stream->send_op || stream->tls_op)
		sim_fail(stream->node->world, "%s: io_stream_move with an operation pending",
			 stream->node->name);
	if (to != stream->io)
		sim_fail(stream->node->world, "%s: io_stream_move to another process",
			 stream->node->name);
}

const struct io_peer *net_stream_peer(struct io_stream *stream)
{
	check_stream(stream, "io_stream_peer");
	return &stream->peer;
}

const char *net_stream_error(struct io_stream *stream)
{
	check_stream(stream, "io_stream_error");
	return stream->error;
}
