/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a connection: made, served, stopped, moved to another loop, closed, freed. */
#include <errno.h>
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_conn.h"

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
	nbd_server_check_stopped(server);
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
	nbd_server_stop_waiting(conn);
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
		nbd_server_stop_waiting(conn);
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

struct nbd_conn *nbd_conn_new(struct nbd_server *server, struct io_stream *stream)
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

void nbd_conn_enter(struct nbd_conn *conn, struct nbd_server *server)
{
	list_push_back(&server->conns, &conn->link);
	server->stats.connections++;
	server->stats.connections_total++;
	set_deadline(conn, sub_floor_u64(conn->deadline_ns, io_now(server->io)));
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
	nbd_conn_enter(conn, server);
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
	nbd_server_check_stopped(old);
}

const struct io_peer *nbd_conn_peer(const struct nbd_conn *conn)
{
	return conn_peer(conn);
}
