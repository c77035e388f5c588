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

/*
 * For small requests when the buffers are out: whoever holds them without taking or giving bytes
 * stops others of his kind only. A connection gets a few at a time.
 */
static bool take_reserve(struct nbd_server *server, struct nbd_slot *slot)
{
	struct nbd_conn *conn = slot->conn;

	if (server->reserve.unit_count == 0 || slot->buf_bytes > NBD_RESERVE_REQUEST_BYTES ||
	    conn->reserved == NBD_RESERVE_PER_CONN)
		return false;
	slot->buf = nbd_buffers_get(&server->reserve, slot->buf_bytes);
	slot->reserved = slot->buf != NULL;
	conn->reserved += slot->reserved;
	return slot->reserved;
}

bool nbd_server_get_buffer(struct nbd_server *server, struct nbd_slot *slot)
{
	struct nbd_conn *conn = slot->conn;

	/* Behind others that wait nobody overtakes: large requests would starve. */
	if (list_empty(&server->waiters) || list_first(&server->waiters) == &conn->wait_link) {
		slot->buf = nbd_buffers_get(&server->buffers, slot->buf_bytes);
		if (slot->buf)
			return true;
	}
	if (take_reserve(server, slot))
		return true;
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
	nbd_buffers_put(slot->reserved ? &server->reserve : &server->buffers, slot->buf,
			slot->buf_bytes);
	slot->conn->reserved -= slot->reserved;
	slot->reserved = false;
	slot->buf = NULL;
	wake_soon(server);
}

void nbd_server_check_stopped(struct nbd_server *server)
{
	if (!server->stopping || server->stop_pending || server->accept_pending ||
	    server->wake_pending || !list_empty(&server->conns) ||
	    atomic_load(&server->adopting) > 0)
		return;
	server->stop_pending = true;
	io_defer(server->io, &server->stop_op, 0);
}

/* Who is next: the first, or behind a first that must wait on, one that the reserve can serve. */
static struct nbd_conn *served_waiter(struct nbd_server *server)
{
	struct list *pos;

	list_for_each (pos, &server->waiters) {
		struct nbd_conn *conn = container_of(pos, struct nbd_conn, wait_link);

		if (nbd_server_get_buffer(server, conn->receiving))
			return conn;
	}
	return NULL;
}

static void wake_done(struct io_op *op, int64_t res)
{
	struct nbd_server *server = container_of(op, struct nbd_server, wake_op);
	struct nbd_conn *conn;

	(void)res;
	server->wake_pending = false;
	/* Resuming one may end others: the search begins anew each time. */
	while ((conn = served_waiter(server)) != NULL) {
		list_remove(&conn->wait_link);
		nbd_receive_resume(conn);
	}
	if (list_empty(&server->waiters))
		io_timer_stop(server->io, &server->stall);
	nbd_server_check_stopped(server);
}

void nbd_server_stop_waiting(struct nbd_conn *conn)
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

/* ---- accepting ---------------------------------------------------------------------------------
 */

static void refuse(struct nbd_server *server, struct io_stream *stream, const char *reason)
{
	server->stats.connections_refused++;
	if (server->hooks->ended)
		server->hooks->ended(server->config.owner, io_stream_peer(stream), NULL, reason);
	io_stream_close(stream);
}

/*
 * All places are taken. Whoever has connected and has not chosen an export yet does not keep one
 * from others: the oldest of these goes. False when there is none.
 */
static bool make_room(struct nbd_server *server)
{
	struct list *pos;

	list_for_each (pos, &server->conns) {
		struct nbd_conn *conn = container_of(pos, struct nbd_conn, link);

		if (conn->phase == NBD_SERVING || conn->phase == NBD_CLOSED)
			continue;
		nbd_conn_close(conn, "made room for another one: no export chosen so far");
		return true;
	}
	return false;
}

static void welcome(struct nbd_server *server, struct io_stream *stream)
{
	const struct nbd_hooks *hooks = server->hooks;
	struct nbd_conn *conn;

	/* Who is being closed counts until the last callback has come back, in a moment. */
	if (server->stats.connections >= server->config.connections_max && !make_room(server)) {
		refuse(server, stream, "too many connections");
		return;
	}
	if (hooks->may_connect &&
	    !hooks->may_connect(server->config.owner, io_stream_peer(stream))) {
		refuse(server, stream, "this peer may not connect");
		return;
	}
	conn = nbd_conn_new(server, stream);
	if (!conn) {
		refuse(server, stream, "out of memory");
		return;
	}
	nbd_conn_enter(conn, server);
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
		nbd_server_check_stopped(server);
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

static void free_buffers(struct nbd_server *server)
{
	if (server->config.lobby)
		return;
	nbd_buffers_free(&server->buffers);
	nbd_buffers_free(&server->reserve);
}

static int make_buffers(struct nbd_server *server)
{
	size_t bytes = server->config.buffer_bytes;
	int r = nbd_buffers_init(&server->buffers, server->io, bytes);

	/* Little memory is not worth dividing. */
	if (r < 0 || bytes < NBD_RESERVE_MIN_BYTES)
		return r;
	r = nbd_buffers_init(&server->reserve, server->io, bytes / NBD_RESERVE_SHARE);
	if (r < 0)
		nbd_buffers_free(&server->buffers);
	return r;
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
		r = make_buffers(server);
		if (r < 0)
			goto fail;
	}
	if (config->listen) {
		server->address = *config->listen;
		r = io_listen(io, &server->address, &server->listener);
		if (r < 0) {
			free_buffers(server);
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
	nbd_server_check_stopped(server);
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
	free_buffers(server);
	io_free(server->io, server);
}

void nbd_server_stats(const struct nbd_server *server, struct nbd_stats *ret_stats)
{
	const struct nbd_buffers *main = &server->buffers, *reserve = &server->reserve;

	*ret_stats = server->stats;
	ret_stats->buffer_bytes = NBD_UNIT_BYTES * ((size_t)main->unit_count + reserve->unit_count);
	ret_stats->buffer_used_bytes =
		NBD_UNIT_BYTES * ((size_t)main->unit_used + reserve->unit_used);
	ret_stats->buffer_peak_bytes =
		NBD_UNIT_BYTES * ((size_t)main->unit_peak + reserve->unit_peak);
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
