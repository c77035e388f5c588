/* SPDX-License-Identifier: Apache-2.0 */
/* Links, addresses, listeners and connects of the simulated network. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/net.h"
#include "tests/sim/ops.h"

#define SYN_RETRY_NS SIM_SECOND

struct sim_net *net_new(struct sim_world *world)
{
	struct sim_net *net = calloc(1, sizeof(*net));

	must(net);
	net->world = world;
	list_init(&net->conns);
	list_init(&net->listeners);
	return net;
}

static void conn_free(struct net_conn *conn)
{
	list_remove(&conn->link);
	free(conn->pipe[0].ring);
	free(conn->pipe[1].ring);
	free(conn);
}

void net_free(struct sim_net *net)
{
	struct list *pos;

	while ((pos = list_first(&net->conns)))
		conn_free(container_of(pos, struct net_conn, link));
	free(net);
}

void conn_unref(struct net_conn *conn)
{
	must(conn->refs > 0);
	if (--conn->refs == 0)
		conn_free(conn);
}

/* The event holds the connection; its fire function gives that up. */
struct sim_event *net_event(struct net_conn *conn, uint64_t delay_ns,
			    void (*fire)(struct sim_event *event))
{
	struct sim_event *event = event_add(conn->net->world, NULL, delay_ns, fire);

	event->object = conn;
	conn->refs++;
	return event;
}

/* ---- links ------------------------------------------------------------------------------------
 */

uint64_t link_delay(struct sim_net *net, const struct sim_host *from, const struct sim_host *to)
{
	const struct sim_options *options = &net->world->options;
	const struct sim_link *link = &net->links[from->index][to->index];
	uint64_t delay_ns;

	if (from == to)
		return sim_between(net->world, 2 * SIM_US, 20 * SIM_US);
	delay_ns = link->own_latency
			   ? sim_between(net->world, link->min_ns, link->max_ns)
			   : sim_between(net->world, options->link_ns_min, options->link_ns_max);
	if (sim_chance(net->world, options->slow_link_ppm))
		delay_ns += sim_between(net->world, 0, options->slow_link_ns);
	return max_u64(delay_ns, 1);
}

enum sim_cut link_cut(const struct sim_net *net, const struct sim_host *from,
		      const struct sim_host *to)
{
	return from == to ? SIM_CUT_NONE : net->links[from->index][to->index].cut;
}

static bool conn_between(const struct net_conn *conn, const struct sim_host *a,
			 const struct sim_host *b)
{
	return (conn->host[0] == a && conn->host[1] == b) ||
	       (conn->host[0] == b && conn->host[1] == a);
}

/* What waits on this direction is sent again, some time after. */
static void direction_works_again(struct sim_net *net, const struct sim_host *from,
				  const struct sim_host *to)
{
	struct list *pos;

	list_for_each (pos, &net->conns) {
		struct net_conn *conn = container_of(pos, struct net_conn, link);

		for (unsigned side = 0; side < 2; side++) {
			if (conn->host[side] == from && conn->host[!side] == to)
				pipe_retry(conn, side);
		}
	}
}

static void break_streams(struct sim_net *net, const struct sim_host *a, const struct sim_host *b)
{
	struct list *pos;

	list_for_each (pos, &net->conns) {
		struct net_conn *conn = container_of(pos, struct net_conn, link);

		if (!conn_between(conn, a, b))
			continue;
		side_breaks(conn, 0, -ECONNRESET);
		side_breaks(conn, 1, -ECONNRESET);
	}
}

void sim_cut(struct sim_node *from, struct sim_node *to, enum sim_cut cut)
{
	struct sim_net *net = from->world->net;
	struct sim_link *link = &net->links[from->host->index][to->host->index];

	if (link->cut == cut || from->host == to->host)
		return;
	link->cut = cut;
	trace_add(net->world, from, WHAT_CUT, to->host->name, 0, 0, (int64_t)cut);
	if (cut == SIM_CUT_RESET)
		break_streams(net, from->host, to->host);
	if (cut == SIM_CUT_NONE) {
		/* Data of the one direction and acknowledgements of the other. */
		direction_works_again(net, from->host, to->host);
		direction_works_again(net, to->host, from->host);
	}
}

void sim_cut_both(struct sim_node *a, struct sim_node *b, enum sim_cut cut)
{
	sim_cut(a, b, cut);
	sim_cut(b, a, cut);
}

void sim_heal_all(struct sim_world *world)
{
	for (unsigned i = 0; i < world->node_count; i++) {
		for (unsigned j = 0; j < world->node_count; j++)
			sim_cut(world->nodes[i], world->nodes[j], SIM_CUT_NONE);
	}
}

void sim_link_latency(struct sim_node *from, struct sim_node *to, uint64_t min_ns, uint64_t max_ns)
{
	struct sim_link *link = &from->world->net->links[from->host->index][to->host->index];

	link->own_latency = min_ns != UINT64_MAX;
	link->min_ns = min_ns;
	link->max_ns = max_ns;
}

void sim_reset_streams(struct sim_node *a, struct sim_node *b)
{
	trace_add(a->world, a, WHAT_RESET, b->host->name, 0, 0, 0);
	break_streams(a->world->net, a->host, b->host);
}

void net_host_up(struct sim_host *host)
{
	struct sim_net *net = host->world->net;
	struct list *pos;

	list_for_each (pos, &net->conns) {
		struct net_conn *conn = container_of(pos, struct net_conn, link);

		for (unsigned side = 0; side < 2; side++) {
			if (conn->host[!side] == host)
				pipe_retry(conn, side);
		}
	}
}

/* ---- addresses --------------------------------------------------------------------------------
 */

static bool name_is(const char *name, size_t len, const char *const *names)
{
	for (; *names; names++) {
		if (strlen(*names) == len && memcmp(*names, name, len) == 0)
			return true;
	}
	return false;
}

/* "HOST\nREST": the host that the address is on, and what tells its listeners apart. */
static void split_address(const struct sim_host *host, const char *text, bool listening,
			  char *ret_host, size_t host_max, char *ret_rest, size_t rest_max)
{
	static const char *const local[] = { "localhost", "127.0.0.1", "[::1]", NULL };
	static const char *const any[] = { "", "0.0.0.0", "[::]", NULL };
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);

	if (strncmp(text, "unix:", 5) == 0) {
		snprintf(ret_host, host_max, "%s", host->name);
		snprintf(ret_rest, rest_max, "%s", text);
		return;
	}
	if (name_is(text, len, local) || (listening && name_is(text, len, any)))
		snprintf(ret_host, host_max, "%s", host->name);
	else
		snprintf(ret_host, host_max, "%.*s", (int)min_size(len, host_max - 1), text);
	snprintf(ret_rest, rest_max, "%s", colon ? colon + 1 : "");
}

static struct sim_host *host_find(const struct sim_world *world, const char *name)
{
	for (unsigned i = 0; i < world->host_count; i++) {
		if (strcmp(world->hosts[i]->name, name) == 0)
			return world->hosts[i];
	}
	return NULL;
}

static struct io_listener *listener_find(const struct sim_net *net, const struct sim_host *host,
					 const char *rest)
{
	struct list *pos;

	list_for_each (pos, &net->listeners) {
		struct io_listener *listener = container_of(pos, struct io_listener, of_net);

		if (listener->host == host && strcmp(listener->address, rest) == 0)
			return listener;
	}
	return NULL;
}

/* ---- listeners --------------------------------------------------------------------------------
 */

int net_listen(struct io *io, const struct io_address *address, struct io_listener **ret_listener)
{
	struct sim_node *node = node_of(io);
	struct sim_net *net = node->world->net;
	struct io_listener *listener;
	char host[64], rest[256];

	node_must_be_up(node, "io_listen");
	split_address(node->host, address->text, true, host, sizeof(host), rest, sizeof(rest));
	if (strcmp(host, node->host->name) != 0)
		return -EADDRNOTAVAIL;
	if (strcmp(rest, "0") == 0)
		snprintf(rest, sizeof(rest), "%u", (unsigned)node->host->next_port++);
	if (listener_find(net, node->host, rest))
		return -EADDRINUSE;
	listener = calloc(1, sizeof(*listener));
	must(listener);
	listener->io = io;
	listener->host = node->host;
	snprintf(listener->address, sizeof(listener->address), "%s", rest);
	list_init(&listener->backlog);
	list_push_back(&net->listeners, &listener->of_net);
	list_push_back(&node->listeners, &listener->of_node);
	trace_add(net->world, node, WHAT_LISTEN, NULL, 0, 0, 0);
	*ret_listener = listener;
	return 0;
}

static void fire_accept(struct sim_event *event)
{
	struct io_listener *listener = event->object;
	struct net_conn *conn = list_pop_front_as(&listener->backlog, struct net_conn, of_backlog);
	struct io_op *op = listener->accept_op;
	struct sim_node *node = event->node;

	must(conn && op);
	listener->backlog_count--;
	listener->accept_event = NULL;
	listener->accept_op = NULL;
	*listener->ret_stream = stream_new(conn, 1, node);
	trace_add(node->world, node, WHAT_ACCEPT, conn->name, 0, 0, 0);
	op_end(node, op, 0);
}

static void listener_kick(struct io_listener *listener)
{
	struct sim_node *node = node_of(listener->io);

	if (!listener->accept_op || listener->accept_event || !listener->backlog_count)
		return;
	listener->accept_event =
		event_add(node->world, node, sim_between(node->world, 1, 10 * SIM_US), fire_accept);
	listener->accept_event->object = listener;
}

void net_accept(struct io_listener *listener, struct io_stream **ret_stream, struct io_op *op)
{
	struct sim_node *node = node_of(listener->io);

	if (listener->accept_op)
		sim_fail(node->world, "%s: two accepts outstanding on one listener", node->name);
	op_begin(node, op, "io_accept");
	listener->accept_op = op;
	listener->ret_stream = ret_stream;
	listener_kick(listener);
}

static void listener_release(struct io_listener *listener)
{
	struct net_conn *conn;

	while ((conn = list_pop_front_as(&listener->backlog, struct net_conn, of_backlog))) {
		end_goes(conn, 1, END_GONE, true);
		conn_unref(conn);
	}
	list_remove(&listener->of_net);
	list_remove(&listener->of_node);
	free(listener);
}

void net_listener_close(struct io_listener *listener)
{
	struct sim_node *node = node_of(listener->io);

	node_must_be_up(node, "io_listener_close");
	if (listener->accept_event)
		event_cancel(listener->accept_event);
	if (listener->accept_op)
		op_end_later(node, listener->accept_op, 1, -ECANCELED);
	listener_release(listener);
}

/* ---- connect ----------------------------------------------------------------------------------
 */

struct io_stream *stream_new(struct net_conn *conn, unsigned side, struct sim_node *node)
{
	/* Kept to the end of the world, so that the use of a closed stream is noticed. */
	struct io_stream *stream = sim_alloc(node->world, sizeof(*stream));
	const struct sim_host *other = conn->host[!side];

	stream->io = &node->io;
	stream->node = node;
	stream->conn = conn;
	stream->side = side;
	conn->stream[side] = stream;
	list_push_back(&node->streams, &stream->of_node);
	stream->peer.uid = conn->local ? 0 : UINT32_MAX;
	if (conn->local)
		snprintf(stream->peer.address, sizeof(stream->peer.address), "unix");
	else
		snprintf(stream->peer.address, sizeof(stream->peer.address), "%s:%u", other->name,
			 conn->client_port);
	return stream;
}

static void connect_ends(struct net_connect *connect, int64_t res)
{
	struct sim_node *node = connect->node;
	struct io_op *op = connect->op;

	trace_add(node->world, node, WHAT_CONNECT_DONE, connect->conn ? connect->conn->name : NULL,
		  0, 0, res);
	list_remove(&connect->of_node);
	free(connect);
	op_end(node, op, res);
}

static void fire_connected(struct sim_event *event)
{
	struct net_connect *connect = event->object;
	struct net_conn *conn = connect->conn;
	int error = connect->refused;

	if (conn && conn->broken[0]) {
		error = conn->broken[0];
		end_goes(conn, 0, END_GONE, false);
		conn_unref(conn);
		connect->conn = NULL;
	} else if (conn) {
		*connect->ret_stream = stream_new(conn, 0, connect->node);
	}
	connect_ends(connect, error);
}

static struct net_conn *conn_new(struct sim_net *net, struct sim_host *from, struct sim_host *to,
				 const char *address)
{
	struct net_conn *conn = calloc(1, sizeof(*conn));
	size_t name_bytes = strlen(from->name) + strlen(address) + 32;
	char *name = sim_alloc(net->world, name_bytes);

	must(conn);
	snprintf(name, name_bytes, "%s>%s/%llu", from->name, address,
		 (unsigned long long)++net->conn_count);
	conn->net = net;
	conn->name = name;
	conn->host[0] = from;
	conn->host[1] = to;
	conn->local = strncmp(address, "unix:", 5) == 0;
	conn->client_port = from->next_port++;
	conn->refs = 2; /* one for each end */
	for (unsigned i = 0; i < 2; i++)
		conn->pipe[i].size_bytes =
			max_u64(net->world->options.socket_bytes, PIPE_BYTES_MIN);
	list_push_back(&net->conns, &conn->link);
	return conn;
}

static void connect_again(struct net_connect *connect, uint64_t delay_ns,
			  void (*fire)(struct sim_event *event))
{
	connect->event = event_add(connect->node->world, connect->node, delay_ns, fire);
	connect->event->object = connect;
}

/* The first packet reaches the other host, or does not. */
static void fire_syn(struct sim_event *event)
{
	struct net_connect *connect = event->object;
	struct sim_node *node = connect->node;
	struct sim_net *net = node->world->net;
	struct sim_host *target = host_find(node->world, connect->target);
	struct io_listener *listener;
	enum sim_cut there, back;

	if (!target) {
		connect_ends(connect, -EHOSTUNREACH);
		return;
	}
	there = link_cut(net, node->host, target);
	back = link_cut(net, target, node->host);
	listener = listener_find(net, target, connect->address);
	if (there == SIM_CUT_RESET || back == SIM_CUT_RESET) {
		connect_ends(connect, -ECONNREFUSED);
	} else if (there == SIM_CUT_SILENT || back == SIM_CUT_SILENT || !target->powered ||
		   (listener && listener->backlog_count >= BACKLOG_MAX)) {
		if (node->world->now_ns + SYN_RETRY_NS > connect->deadline_ns)
			connect_ends(connect, -ETIMEDOUT);
		else
			connect_again(connect, SYN_RETRY_NS, fire_syn);
	} else if (!listener) {
		connect->refused = -ECONNREFUSED;
		connect_again(connect, link_delay(net, target, node->host), fire_connected);
	} else {
		connect->conn = conn_new(net, node->host, target, connect->address);
		list_push_back(&listener->backlog, &connect->conn->of_backlog);
		listener->backlog_count++;
		connect_again(connect, link_delay(net, target, node->host), fire_connected);
		listener_kick(listener);
	}
}

void net_connect(struct io *io, const struct io_address *address, struct io_stream **ret_stream,
		 struct io_op *op)
{
	struct sim_node *node = node_of(io);
	struct net_connect *connect = calloc(1, sizeof(*connect));
	struct sim_world *world = node->world;
	const struct sim_host *target;

	must(connect);
	op_begin(node, op, "io_connect");
	connect->node = node;
	connect->op = op;
	connect->ret_stream = ret_stream;
	connect->deadline_ns = world->now_ns + CONNECT_TIMEOUT_NS;
	split_address(node->host, address->text, false, connect->target, sizeof(connect->target),
		      connect->address, sizeof(connect->address));
	list_push_back(&node->connecting, &connect->of_node);
	target = host_find(world, connect->target);
	trace_add(world, node, WHAT_CONNECT, target ? target->name : NULL, 0, 0, 0);
	connect_again(connect, target ? link_delay(world->net, node->host, target) : SIM_MS,
		      fire_syn);
}

/* ---- crash ------------------------------------------------------------------------------------
 */

/* The kernel ends the connections of a dead process, with or without having sent everything. */
void net_process_died(struct sim_node *node, enum sim_crash kind)
{
	struct sim_world *world = node->world;
	enum end_state state = kind == SIM_POWER ? END_LOST : END_GONE;
	struct list *pos;

	while ((pos = list_pop_front(&node->streams))) {
		struct io_stream *stream = container_of(pos, struct io_stream, of_node);

		stream_drop_ops(stream, false);
		stream->closed = true;
		end_goes(stream->conn, stream->side, state, sim_random(world) & 1);
		conn_unref(stream->conn);
		stream->conn = NULL;
	}
	while ((pos = list_pop_front(&node->connecting))) {
		struct net_connect *connect = container_of(pos, struct net_connect, of_node);

		if (connect->conn) {
			end_goes(connect->conn, 0, state, true);
			conn_unref(connect->conn);
		}
		free(connect);
	}
	while ((pos = list_first(&node->listeners)))
		listener_release(container_of(pos, struct io_listener, of_node));
}

unsigned sim_stream_count(const struct sim_node *node)
{
	const struct list *pos;
	unsigned count = 0;

	list_for_each (pos, &node->streams)
		count++;
	return count;
}
