/* SPDX-License-Identifier: Apache-2.0 */
#include "core/block/nbd_server.h"

#include <errno.h>
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

#define SECOND_NS	   1000000000ull
#define ACCEPT_AGAIN_NS	   (SECOND_NS / 10)
#define CONNECTIONS_MAX	   64u
#define REQUESTS_MAX	   128u
#define HANDSHAKE_NS	   (10 * SECOND_NS)
#define STALL_NS	   (30 * SECOND_NS)
#define STOP_NS		   (5 * SECOND_NS)
#define BUFFER_BYTES	   (128ull << 20)
#define REQUESTS_MAX_LIMIT 4096u

static void accept_next(struct nbd_server *server);

/* ---- memory ------------------------------------------------------------------------------------
 */

bool nbd_server_get_buffer(struct nbd_server *server, struct nbd_slot *slot)
{
	struct nbd_conn *conn = slot->conn;

	/* Behind others that wait nobody overtakes: large requests would starve. */
	if (list_empty(&server->waiters) || list_first(&server->waiters) == &conn->wait_link) {
		slot->buf = nbd_buffers_get(&server->buffers, slot->buf_bytes);
		if (slot->buf)
			return true;
	}
	if (!list_linked(&conn->wait_link)) {
		if (list_empty(&server->waiters))
			io_timer_start(server->io, &server->stall, server->config.stall_ns);
		list_push_back(&server->waiters, &conn->wait_link);
		server->stats.memory_waits++;
	}
	return false;
}

static void wake_soon(struct nbd_server *server)
{
	if (server->wake_pending || list_empty(&server->waiters))
		return;
	server->wake_pending = true;
	io_defer(server->io, &server->wake_op, 0);
}

void nbd_server_put_buffer(struct nbd_server *server, struct nbd_slot *slot)
{
	if (!slot->buf)
		return;
	nbd_buffers_put(&server->buffers, slot->buf, slot->buf_bytes);
	slot->buf = NULL;
	wake_soon(server);
}

static void check_stopped(struct nbd_server *server)
{
	if (!server->stopping || server->stop_pending || server->accept_pending ||
	    server->wake_pending || !list_empty(&server->conns) ||
	    atomic_load(&server->adopting) > 0)
		return;
	server->stop_pending = true;
	io_defer(server->io, &server->stop_op, 0);
}

static void wake_done(struct io_op *op, int64_t res)
{
	struct nbd_server *server = container_of(op, struct nbd_server, wake_op);
	struct nbd_conn *conn;

	(void)res;
	server->wake_pending = false;
	while ((conn = list_first_as(&server->waiters, struct nbd_conn, wait_link)) != NULL) {
		if (!nbd_server_get_buffer(server, conn->receiving))
			break;
		list_remove(&conn->wait_link);
		nbd_receive_resume(conn);
	}
	if (list_empty(&server->waiters))
		io_timer_stop(server->io, &server->stall);
	check_stopped(server);
}

static void stop_waiting(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	if (!list_linked(&conn->wait_link))
		return;
	list_remove(&conn->wait_link);
	if (list_empty(&server->waiters))
		io_timer_stop(server->io, &server->stall);
	else
		wake_soon(server);
}

/* Whether the peer, by not taking or giving bytes, keeps buffers from others. */
static bool stalls_others(const struct nbd_conn *conn, uint64_t now_ns)
{
	bool holds = (conn->send_pending && conn->sending) ||
		     (conn->reply_head && conn->reply_head->head_sent) ||
		     conn->receive_state == NBD_RECEIVE_PAYLOAD;

	return conn->phase == NBD_SERVING && holds &&
	       now_ns - conn->progress_ns >= conn->server->config.stall_ns;
}

static void stall_fired(struct io_timer *timer)
{
	struct nbd_server *server = container_of(timer, struct nbd_server, stall);
	uint64_t now_ns = io_now(server->io);
	struct list *pos, *after;

	list_for_each_safe (pos, after, &server->conns) {
		struct nbd_conn *conn = container_of(pos, struct nbd_conn, link);

		if (!stalls_others(conn, now_ns))
			continue;
		server->stats.stalled++;
		nbd_conn_close(conn, "stalled in a transfer while others waited for memory");
	}
	if (!list_empty(&server->waiters))
		io_timer_start(server->io, &server->stall, server->config.stall_ns / 4 + 1);
}

/* ---- connections -------------------------------------------------------------------------------
 */

static void conn_free(struct nbd_conn *conn)
{
	struct nbd_server *server = conn->server;

	must(conn->phase == NBD_CLOSED && conn->pending == 0 && conn->slots_used == 0);
	if (conn->export)
		conn->export->ops->detach(conn->export);
	list_remove(&conn->link);
	server->stats.connections--;
	io_free(conn->io, conn->in);
	io_free(conn->io, conn->out);
	if (conn->slots)
		io_free(conn->io, conn->slots);
	io_free(conn->io, conn);
	check_stopped(server);
}

bool nbd_conn_leave(struct nbd_conn *conn)
{
	must(conn->pending > 0);
	conn->pending--;
	if (conn->phase != NBD_CLOSED)
		return true;
	if (conn->pending == 0)
		conn_free(conn);
	return false;
}

static void reap_done(struct io_op *op, int64_t res)
{
	(void)res;
	(void)nbd_conn_leave(container_of(op, struct nbd_conn, reap_op));
}

static void set_deadline(struct nbd_conn *conn, uint64_t delay_ns)
{
	conn->timed = true;
	io_timer_start(conn->io, &conn->deadline, delay_ns);
}

static void clear_deadline(struct nbd_conn *conn)
{
	if (conn->timed)
		io_timer_stop(conn->io, &conn->deadline);
	conn->timed = false;
}

void nbd_conn_close(struct nbd_conn *conn, const char *reason)
{
	struct nbd_server *server = conn->server;

	if (conn->phase == NBD_CLOSED)
		return;
	if (conn->phase != NBD_SERVING && reason[0] != '\0')
		server->stats.connections_refused++;
	conn->phase = NBD_CLOSED;
	clear_deadline(conn);
	stop_waiting(conn);
	if (server->hooks->ended)
		server->hooks->ended(server->config.owner, conn_peer(conn), conn->export, reason);
	io_stream_close(conn->stream);
	conn->stream = NULL;
	/* A request still in reception has no owner but us, unless the stream fills its buffer. */
	if (conn->receiving && !(conn->recv_pending && conn->recv_direct)) {
		nbd_slot_release(conn->receiving);
		conn->receiving = NULL;
	}
	nbd_reply_drop(conn);
	conn->pending++;
	io_defer(conn->io, &conn->reap_op, 0);
}

static void deadline_fired(struct io_timer *timer)
{
	struct nbd_conn *conn = container_of(timer, struct nbd_conn, deadline);

	conn->timed = false;
	if (conn->phase != NBD_SERVING) {
		nbd_conn_close(conn, "no export chosen within the time for the handshake");
	} else if (conn->submitted > 0 && !conn->send_pending) {
		/* The export is slow, not the client. */
		set_deadline(conn, conn->server->config.stop_ns);
	} else {
		nbd_conn_close(conn, "replies not taken while the connection was being ended");
	}
}

void nbd_conn_check_ended(struct nbd_conn *conn)
{
	if (conn->phase != NBD_SERVING || (!conn->ending && !conn->stopping))
		return;
	if (!conn->timed)
		set_deadline(conn, conn->server->config.stop_ns);
	/* A request that is half received is answered too. */
	if (conn->submitted == 0 && !conn->receiving && !conn->reply_head && !conn->send_pending)
		nbd_conn_close(conn, conn->stopping ? "the server is stopping" : "");
}

void nbd_conn_stop(struct nbd_conn *conn)
{
	if (conn->phase != NBD_SERVING) {
		nbd_conn_close(conn, "the server is stopping");
		return;
	}
	if (conn->stopping)
		return;
	conn->stopping = true;
	if (list_linked(&conn->wait_link)) {
		stop_waiting(conn);
		nbd_receive_resume(conn);
	}
	nbd_conn_check_ended(conn);
}

int nbd_conn_prepare_serving(struct nbd_conn *conn)
{
	unsigned count = conn->server->config.requests_max;
	size_t kept = conn->in_end - conn->in_start;
	uint8_t *in;

	if (conn->slots)
		return 0;
	in = io_alloc(conn->io, NBD_IN_BYTES, 64);
	conn->slots = io_alloc(conn->io, count * sizeof(*conn->slots), 64);
	if (!in || !conn->slots) {
		if (in)
			io_free(conn->io, in);
		if (conn->slots)
			io_free(conn->io, conn->slots);
		conn->slots = NULL;
		return -ENOMEM;
	}
	memcpy(in, conn->in + conn->in_start, kept);
	io_free(conn->io, conn->in);
	conn->in = in;
	conn->in_max = NBD_IN_BYTES;
	conn->in_start = 0;
	conn->in_end = kept;
	for (unsigned i = count; i-- > 0;) {
		conn->slots[i].conn = conn;
		conn->slots[i].next = conn->slot_free;
		conn->slot_free = &conn->slots[i];
	}
	return 0;
}

static struct nbd_conn *conn_new(struct nbd_server *server, struct io_stream *stream)
{
	struct nbd_conn *conn = io_alloc(server->io, sizeof(*conn), 64);

	if (!conn)
		return NULL;
	conn->io = server->io;
	conn->server = server;
	conn->stream = stream;
	conn->in_max = NBD_OPTIONS_IN_BYTES;
	conn->in = io_alloc(server->io, conn->in_max, 64);
	conn->out = io_alloc(server->io, NBD_OUT_BYTES, 64);
	if (!conn->in || !conn->out) {
		if (conn->in)
			io_free(server->io, conn->in);
		if (conn->out)
			io_free(server->io, conn->out);
		io_free(server->io, conn);
		return NULL;
	}
	conn->deadline.fire = deadline_fired;
	conn->reap_op.done = reap_done;
	conn->connected_ns = io_now(server->io);
	conn->deadline_ns = conn->connected_ns + server->config.handshake_ns;
	return conn;
}

static void conn_enter(struct nbd_conn *conn, struct nbd_server *server)
{
	list_push_back(&server->conns, &conn->link);
	server->stats.connections++;
	server->stats.connections_total++;
	set_deadline(conn, sub_floor_u64(conn->deadline_ns, io_now(server->io)));
}

/* ---- accepting ---------------------------------------------------------------------------------
 */

static void refuse(struct nbd_server *server, struct io_stream *stream, const char *reason)
{
	server->stats.connections_refused++;
	if (server->hooks->ended)
		server->hooks->ended(server->config.owner, io_stream_peer(stream), NULL, reason);
	io_stream_close(stream);
}

static void welcome(struct nbd_server *server, struct io_stream *stream)
{
	const struct nbd_hooks *hooks = server->hooks;
	struct nbd_conn *conn;

	if (server->stats.connections >= server->config.connections_max) {
		refuse(server, stream, "too many connections");
		return;
	}
	if (hooks->may_connect &&
	    !hooks->may_connect(server->config.owner, io_stream_peer(stream))) {
		refuse(server, stream, "this peer may not connect");
		return;
	}
	conn = conn_new(server, stream);
	if (!conn) {
		refuse(server, stream, "out of memory");
		return;
	}
	conn_enter(conn, server);
	nbd_options_start(conn);
}

static void accept_done(struct io_op *op, int64_t res)
{
	struct nbd_server *server = container_of(op, struct nbd_server, accept_op);
	struct io_stream *stream = server->accepted;

	server->accept_pending = false;
	server->accepted = NULL;
	if (res == 0 && stream) {
		if (server->stopping || !server->listener)
			io_stream_close(stream);
		else
			welcome(server, stream);
	}
	if (server->stopping || !server->listener)
		check_stopped(server);
	else if (res < 0) /* out of descriptors or the like: it passes */
		io_timer_start(server->io, &server->accept_again, ACCEPT_AGAIN_NS);
	else
		accept_next(server);
}

static void accept_next(struct nbd_server *server)
{
	server->accept_pending = true;
	server->accept_op.done = accept_done;
	io_accept(server->listener, &server->accepted, &server->accept_op);
}

static void accept_again_fired(struct io_timer *timer)
{
	struct nbd_server *server = container_of(timer, struct nbd_server, accept_again);

	if (server->listener && !server->stopping)
		accept_next(server);
}

/* ---- adoption ----------------------------------------------------------------------------------
 */

static void adopted(struct io_op *op, int64_t res)
{
	struct nbd_conn *conn = container_of(op, struct nbd_conn, step_op);
	struct nbd_server *server = conn->server;

	(void)res;
	conn->pending--;
	atomic_fetch_sub(&server->adopting, 1);
	conn->phase = NBD_OPTIONS;
	conn_enter(conn, server);
	if (server->stopping)
		nbd_conn_close(conn, "the server is stopping");
	else if (server->stats.connections > server->config.connections_max)
		nbd_conn_close(conn, "too many connections");
	else
		nbd_options_run(conn);
}

void nbd_conn_adopt(struct nbd_conn *conn, struct io *to, struct nbd_server *new_server)
{
	struct nbd_server *old = conn->server;

	must(conn->phase == NBD_OPTIONS && conn->pending == 0 && !conn->export);
	must(to == new_server->io);
	clear_deadline(conn);
	list_remove(&conn->link);
	old->stats.connections--;
	conn->phase = NBD_MOVING;
	conn->server = new_server;
	conn->io = to;
	conn->pending = 1;
	conn->step_op.done = adopted;
	atomic_fetch_add(&new_server->adopting, 1);
	io_stream_move(conn->stream, to);
	io_post(to, &conn->step_op);
	check_stopped(old);
}

const struct io_peer *nbd_conn_peer(const struct nbd_conn *conn)
{
	return conn_peer(conn);
}

/* ---- the server --------------------------------------------------------------------------------
 */

static void stop_done(struct io_op *op, int64_t res)
{
	struct nbd_server *server = container_of(op, struct nbd_server, stop_op);

	(void)res;
	/* The callback may free the server. */
	server->stop_done(server->stop_arg);
}

static int fill_defaults(struct nbd_server_config *config)
{
	if (config->connections_max == 0)
		config->connections_max = CONNECTIONS_MAX;
	if (config->requests_max == 0)
		config->requests_max = REQUESTS_MAX;
	if (config->handshake_ns == 0)
		config->handshake_ns = HANDSHAKE_NS;
	if (config->stall_ns == 0)
		config->stall_ns = STALL_NS;
	if (config->stop_ns == 0)
		config->stop_ns = STOP_NS;
	if (config->buffer_bytes == 0)
		config->buffer_bytes = BUFFER_BYTES;
	if (!config->hooks || !config->hooks->find || config->requests_max > REQUESTS_MAX_LIMIT)
		return -EINVAL;
	if (config->tls == NBD_TLS_REQUIRED && !config->tls_identity)
		return -EINVAL;
	if (config->lobby && !config->hooks->handover)
		return -EINVAL;
	return 0;
}

int nbd_server_new(struct io *io, const struct nbd_server_config *config,
		   struct nbd_server **ret_server)
{
	struct nbd_server *server = io_alloc(io, sizeof(*server), 64);
	int r;

	if (!server)
		return -ENOMEM;
	server->io = io;
	server->config = *config;
	r = fill_defaults(&server->config);
	if (r < 0)
		goto fail;
	server->hooks = server->config.hooks;
	list_init(&server->conns);
	list_init(&server->waiters);
	server->wake_op.done = wake_done;
	server->stop_op.done = stop_done;
	server->stall.fire = stall_fired;
	server->accept_again.fire = accept_again_fired;
	if (!server->config.lobby) {
		r = nbd_buffers_init(&server->buffers, io, server->config.buffer_bytes);
		if (r < 0)
			goto fail;
	}
	if (config->listen) {
		server->address = *config->listen;
		r = io_listen(io, &server->address, &server->listener);
		if (r < 0) {
			nbd_buffers_free(&server->buffers);
			goto fail;
		}
		accept_next(server);
	}
	*ret_server = server;
	return 0;
fail:
	io_free(io, server);
	return r;
}

void nbd_server_close_listener(struct nbd_server *server)
{
	io_timer_stop(server->io, &server->accept_again);
	io_listener_close(server->listener);
	server->listener = NULL;
}

void nbd_server_stop(struct nbd_server *server, void (*done)(void *arg), void *arg)
{
	struct list *pos, *after;

	must(!server->stopping);
	server->stopping = true;
	server->stop_done = done;
	server->stop_arg = arg;
	nbd_server_close_listener(server);
	list_for_each_safe (pos, after, &server->conns)
		nbd_conn_stop(container_of(pos, struct nbd_conn, link));
	check_stopped(server);
}

void nbd_server_drop_export(struct nbd_server *server, struct export *export)
{
	struct list *pos, *after;

	list_for_each_safe (pos, after, &server->conns) {
		struct nbd_conn *conn = container_of(pos, struct nbd_conn, link);

		if (conn->export == export)
			nbd_conn_stop(conn);
	}
}

void nbd_server_free(struct nbd_server *server)
{
	must(server->stop_pending && list_empty(&server->conns));
	if (!server->config.lobby)
		nbd_buffers_free(&server->buffers);
	io_free(server->io, server);
}

void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *ret_stats)
{
	*ret_stats = server->stats;
	ret_stats->buffer_bytes = (size_t)server->buffers.unit_count * NBD_UNIT_BYTES;
	ret_stats->buffer_used_bytes = (size_t)server->buffers.unit_used * NBD_UNIT_BYTES;
	ret_stats->buffer_peak_bytes = (size_t)server->buffers.unit_peak * NBD_UNIT_BYTES;
}

void nbd_server_each(struct nbd_server *server,
		     void (*visit)(void *arg, const struct nbd_conn_info *info), void *arg)
{
	struct list *pos;

	list_for_each (pos, &server->conns) {
		const struct nbd_conn *conn = container_of(pos, struct nbd_conn, link);
		struct nbd_conn_info info = {
			.export = conn->export,
			.tls = conn->tls,
			.structured = conn->structured,
			.requests_in_flight = conn->slots_used,
			.requests = conn->requests,
			.read_bytes = conn->read_bytes,
			.written_bytes = conn->written_bytes,
			.connected_ns = conn->connected_ns,
		};

		if (conn->phase == NBD_CLOSED)
			continue;
		info.peer = conn_peer(conn);
		visit(arg, &info);
	}
}

struct io_listener *nbd_server_listener(struct nbd_server *server)
{
	return server->listener;
}
