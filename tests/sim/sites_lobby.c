/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door of a site's standbys, as engine/lobby.c keeps it: accept, TLS, HELLO, then the group
 * that it names.
 */
#include <string.h>

#include "core/conf/conf.h"
#include "engine/engine.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "tests/sim/sites.h"

#define PORT "7400"

struct visitor {
	struct sites_lobby *lobby;
	struct io_stream *stream;
	struct io_op op;
	uint8_t header[FRAME_BYTES];
	struct frame frame;
	uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct link_hello hello;
	struct io_timer deadline;
	bool dead;
};

struct sites_lobby {
	struct sites_site *site;
	struct io *io;
	struct io_listener *listener;
	struct io_op op;
	struct io_stream *stream;
};

static void visitor_free(struct visitor *visitor)
{
	io_timer_stop(visitor->lobby->io, &visitor->deadline);
	io_free(visitor->lobby->io, visitor);
}

static bool visitor_bad(struct visitor *visitor, int64_t res)
{
	if (res > 0 && !visitor->dead)
		return false;
	if (!visitor->dead)
		io_stream_close(visitor->stream);
	visitor_free(visitor);
	return true;
}

static void visitor_late(struct io_timer *timer)
{
	struct visitor *visitor = container_of(timer, struct visitor, deadline);

	visitor->dead = true;
	io_stream_close(visitor->stream);
}

static struct place *place_called(struct sites_site *site, const char *group)
{
	for (unsigned i = 0; i < site->sites->group_count; i++)
		if (!strcmp(site->places[i].engine_conf->name, group) && site->places[i].engine)
			return &site->places[i];
	return NULL;
}

static void got_body(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);
	struct sites_site *site = visitor->lobby->site;
	struct place *place;

	if (visitor_bad(visitor, res))
		return;
	if (link_hello_unpack(visitor->body, visitor->frame.body_bytes, &visitor->hello)) {
		visitor_bad(visitor, 0);
		return;
	}
	place = place_called(site, visitor->hello.group);
	if (!place) {
		visitor_bad(visitor, 0);
		return;
	}
	engine_group_connect(place->engine, visitor->stream, &visitor->hello);
	visitor_free(visitor);
}

static void got_header(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);

	if (visitor_bad(visitor, res))
		return;
	if (frame_decode(visitor->header, FRAME_BYTES, &visitor->frame) ||
	    visitor->frame.type != FRAME_HELLO) {
		visitor_bad(visitor, 0);
		return;
	}
	op->done = got_body;
	io_recv(visitor->stream, visitor->body, visitor->frame.body_bytes,
		visitor->frame.body_bytes, op);
}

static void shook(struct io_op *op, int64_t res)
{
	struct visitor *visitor = container_of(op, struct visitor, op);

	if (visitor_bad(visitor, res < 0 ? res : 1))
		return;
	op->done = got_header;
	io_recv(visitor->stream, visitor->header, FRAME_BYTES, FRAME_BYTES, op);
}

static void accepted(struct io_op *op, int64_t res)
{
	struct sites_lobby *lobby = container_of(op, struct sites_lobby, op);
	struct visitor *visitor;

	if (res < 0)
		return;
	visitor = io_alloc(lobby->io, sizeof(*visitor), 64);
	sim_check(lobby->site->sites->world, visitor);
	visitor->lobby = lobby;
	visitor->stream = lobby->stream;
	visitor->op.done = shook;
	visitor->deadline.fire = visitor_late;
	io_timer_start(lobby->io, &visitor->deadline, 10 * SIM_SECOND);
	io_start_tls(visitor->stream, lobby->site->engine_tls, true, NULL, &visitor->op);
	io_accept(lobby->listener, &lobby->stream, &lobby->op);
}

void sites_lobby_open(struct sites_site *site)
{
	struct io_address address = { .text = "0.0.0.0:" PORT };
	struct io *io = sim_node_io(site->engine_node);

	site->lobby = io_alloc(io, sizeof(*site->lobby), 64);
	site->lobby->site = site;
	site->lobby->io = io;
	sim_check(site->sites->world, io_listen(io, &address, &site->lobby->listener) == 0);
	site->lobby->op.done = accepted;
	io_accept(site->lobby->listener, &site->lobby->stream, &site->lobby->op);
}
