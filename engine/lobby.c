/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lobby.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/base/units.h"
#include "proto/frame.h"

#define GUESTS_MAX	64u
#define HELLO_NS	(10 * NS_PER_S)
#define FAREWELL_NS	(2 * NS_PER_S)
#define ACCEPT_RETRY_NS (100 * NS_PER_MS)

/* A connection that has not come to its group yet. */
struct guest {
	struct engine_lobby *lobby;
	bool used, late; /* late: its deadline closed the stream */
	uint64_t number; /* in the order of arrival */
	struct io_stream *stream;
	struct io_op op; /* one at a time: TLS, receive, send, hand-over */
	struct io_timer deadline;
	struct frame frame;
	uint8_t header[FRAME_BYTES];
	uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct link_hello hello;
	struct engine_service *service; /* while it is handed over */
};

struct engine_lobby {
	const struct conf *conf;
	struct io_tls *tls;
	struct engine_service *services;
	unsigned service_count;
	struct loop *loop;
	struct io *io;
	struct io_listener *listener;
	struct io_stream *accepted;
	struct io_op accept_op;
	struct io_timer accept_again;
	bool accepting, stopping;
	unsigned used;
	uint64_t arrivals;
	struct guest *guests;
	struct io_op *stop_op;
	struct log_limit limit;
	int res; /* of begin() */
};

static void accept_next(struct engine_lobby *lobby);

static void leave(struct guest *guest)
{
	struct engine_lobby *lobby = guest->lobby;

	io_timer_stop(lobby->io, &guest->deadline);
	io_stream_close(guest->stream);
	guest->stream = NULL;
	guest->used = false;
	lobby->used--;
	if (lobby->stopping && lobby->used == 0 && !lobby->accepting)
		io_defer(lobby->io, lobby->stop_op, 0);
	else
		accept_next(lobby);
}

static void complain(struct guest *guest, const char *what, const char *why)
{
	const struct io_peer *peer = io_stream_peer(guest->stream);
	uint64_t suppressed;
	char quoted[300];

	if (!log_allowed(&guest->lobby->limit, io_now(guest->lobby->io), &suppressed))
		return;
	log_warning(what, "peer=%s identity=%s reason=%s suppressed=%" PRIu64, peer->address,
		    peer->identity[0] ? peer->identity : "-",
		    log_quote(why, quoted, sizeof(quoted)), suppressed);
}

static void deadline_passed(struct io_timer *timer)
{
	struct guest *guest = container_of(timer, struct guest, deadline);

	/* What it waits for completes with -ECANCELED and ends the visit. */
	guest->late = true;
	io_stream_close(guest->stream);
	guest->stream = NULL;
}

/* ---- refusing ----------------------------------------------------------------------------------
 */

static void farewell_done(struct io_op *op, int64_t res)
{
	(void)res;
	leave(container_of(op, struct guest, op));
}

/* Closing with bytes unread would reset the connection and take the answer with it. */
static void refusal_sent(struct io_op *op, int64_t res)
{
	struct guest *guest = container_of(op, struct guest, op);

	if (res < 0 || !guest->stream) {
		leave(guest);
		return;
	}
	guest->op.done = farewell_done;
	io_recv(guest->stream, guest->body, 1, 1, &guest->op);
}

static void refuse(struct guest *guest, enum link_refuse_code code, const char *text)
{
	struct link_refuse refuse = { .code = code };
	struct frame frame = { .type = FRAME_REFUSE };
	struct iovec iov[2];
	int length_bytes;

	guest->service = NULL;
	complain(guest, "primary refused", text);
	(void)snprintf(refuse.node, sizeof(refuse.node), "%s", guest->lobby->conf->node);
	(void)snprintf(refuse.text, sizeof(refuse.text), "%s", text);
	length_bytes = link_refuse_pack(&refuse, guest->body, sizeof(guest->body));
	must(length_bytes > 0);
	frame.body_bytes = (uint32_t)length_bytes;
	frame.body_crc = crc32c(0, guest->body, frame.body_bytes);
	frame_encode(&frame, guest->header);
	iov[0] = (struct iovec){ guest->header, FRAME_BYTES };
	iov[1] = (struct iovec){ guest->body, frame.body_bytes };
	io_timer_start(guest->lobby->io, &guest->deadline, FAREWELL_NS);
	guest->op.done = refusal_sent;
	io_sendv(guest->stream, iov, 2, &guest->op);
}

/* ---- HELLO -------------------------------------------------------------------------------------
 */

static struct engine_service *service_for(struct engine_lobby *lobby, const char *group,
					  const char *identity)
{
	for (unsigned i = 0; i < lobby->service_count; i++) {
		const struct conf_group *conf = lobby->services[i].group_conf;
		const struct conf_peer *peer;

		if (strcmp(conf->name, group) != 0)
			continue;
		peer = conf_peer(conf, identity);
		return peer && peer->role != CONF_PEER_STANDBY ? &lobby->services[i] : NULL;
	}
	return NULL;
}

static void guest_gone(struct io_op *op, int64_t res)
{
	(void)res;
	leave(container_of(op, struct guest, op));
}

/* On the group's loop: the group reads the message during the call, then the guest goes home. */
static void arrive(struct io_op *op, int64_t res)
{
	struct guest *guest = container_of(op, struct guest, op);
	struct engine_service *service = guest->service;
	struct io_stream *stream = guest->stream;
	enum service_state state = engine_service_state(service, NULL);

	(void)res;
	guest->stream = NULL;
	if (service->group && (state == SERVICE_READY || state == SERVICE_ELSEWHERE))
		engine_group_connect(service->group, stream, &guest->hello);
	else
		io_stream_close(stream); /* it went away meanwhile; the primary tries again */
	op->done = guest_gone;
	io_post(guest->lobby->io, op);
}

static void judge(struct guest *guest)
{
	struct engine_lobby *lobby = guest->lobby;
	const struct link_hello *hello = &guest->hello;
	const char *identity = io_stream_peer(guest->stream)->identity;
	enum service_state state;

	if (hello->protocol_min > PROTOCOL_VERSION || hello->protocol_max < PROTOCOL_VERSION ||
	    hello->features_required != 0) {
		refuse(guest, LINK_REFUSE_VERSION,
		       "no protocol version in common; run the same release on both sides");
		return;
	}
	/* A node speaks for itself only: its name goes into status and log. */
	if (strcmp(hello->node, identity) == 0)
		guest->service = service_for(lobby, hello->group, identity);
	if (!guest->service) {
		refuse(guest, LINK_REFUSE_UNKNOWN_GROUP,
		       "no such group for this peer; check group and peer on both sides");
		return;
	}
	state = engine_service_state(guest->service, NULL);
	if (state == SERVICE_FAILED || state == SERVICE_STOPPED) {
		refuse(guest, LINK_REFUSE_ERROR,
		       "the group cannot be opened on the standby; see its holdfast status");
		return;
	}
	if (state != SERVICE_READY && state != SERVICE_ELSEWHERE) {
		refuse(guest, LINK_REFUSE_BUSY, "the standby is starting or promoting");
		return;
	}
	io_timer_stop(lobby->io, &guest->deadline);
	guest->op.done = arrive;
	io_stream_move(guest->stream, loop_io(guest->service->loop));
	io_post(loop_io(guest->service->loop), &guest->op);
}

/* A receive or handshake is over: true when the visit goes on. */
static bool goes_on(struct guest *guest, int64_t res, int64_t want, const char *what)
{
	if (!guest->stream || guest->lobby->stopping) {
		if (guest->late)
			log_debug("a connection said nothing in time", "during=\"%s\"", what);
		leave(guest);
		return false;
	}
	if (res != want) {
		const char *why = io_stream_error(guest->stream);

		if (res != 0)
			complain(guest, what, why[0] ? why : err_text((int)res));
		leave(guest);
		return false;
	}
	return true;
}

static void body_arrived(struct io_op *op, int64_t res)
{
	struct guest *guest = container_of(op, struct guest, op);
	int condition;

	if (!goes_on(guest, res, guest->frame.body_bytes, "stream ended before its hello"))
		return;
	if (crc32c(0, guest->body, guest->frame.body_bytes) != guest->frame.body_crc) {
		complain(guest, "hello refused", "its checksum is wrong");
		leave(guest);
		return;
	}
	condition = link_hello_unpack(guest->body, guest->frame.body_bytes, &guest->hello);
	if (condition != 0) {
		refuse(guest, LINK_REFUSE_ERROR, link_condition_text(condition));
		return;
	}
	judge(guest);
}

static void header_arrived(struct io_op *op, int64_t res)
{
	struct guest *guest = container_of(op, struct guest, op);
	int condition;

	if (!goes_on(guest, res, FRAME_BYTES, "stream ended before its hello"))
		return;
	condition = frame_decode(guest->header, FRAME_BYTES, &guest->frame);
	if (condition != 0 || guest->frame.type != FRAME_HELLO || guest->frame.body_bytes == 0) {
		complain(guest, "hello refused",
			 condition ? frame_condition_text(condition) : "it is another frame");
		leave(guest);
		return;
	}
	must(guest->frame.body_bytes <= sizeof(guest->body));
	guest->op.done = body_arrived;
	io_recv(guest->stream, guest->body, guest->frame.body_bytes, guest->frame.body_bytes,
		&guest->op);
}

static void tls_done(struct io_op *op, int64_t res)
{
	struct guest *guest = container_of(op, struct guest, op);

	if (!goes_on(guest, res, 0, "TLS refused"))
		return;
	guest->op.done = header_arrived;
	io_recv(guest->stream, guest->header, FRAME_BYTES, FRAME_BYTES, &guest->op);
}

/* ---- accepting ---------------------------------------------------------------------------------
 */

/* Without the port. */
static bool same_host(const struct guest *a, const struct guest *b)
{
	const char *left = io_stream_peer(a->stream)->address;
	const char *right = io_stream_peer(b->stream)->address;
	const char *colon = strrchr(left, ':');
	size_t length = colon ? (size_t)(colon - left) + 1 : strlen(left) + 1;

	return strncmp(left, right, length) == 0;
}

/* May be sent away: it is here, and not on its way to its group. */
static bool sits(const struct guest *guest)
{
	return guest->used && guest->stream && !guest->service;
}

static unsigned company(const struct engine_lobby *lobby, const struct guest *guest)
{
	unsigned count = 0;

	for (unsigned i = 0; i < GUESTS_MAX; i++)
		count += sits(&lobby->guests[i]) && same_host(guest, &lobby->guests[i]);
	return count;
}

/*
 * Every seat is taken. Of the host that has most of them, the one who sits longest goes: whoever
 * connects and says nothing keeps neither the others nor, for longer than a handshake takes, a
 * primary on the same host out.
 */
static void make_room(struct engine_lobby *lobby)
{
	struct guest *longest = NULL;
	unsigned most = 0;

	for (unsigned i = 0; i < GUESTS_MAX; i++) {
		struct guest *guest = &lobby->guests[i];
		unsigned count = sits(guest) ? company(lobby, guest) : 0;

		if (count > most ||
		    (count > 0 && count == most && guest->number < longest->number)) {
			most = count;
			longest = guest;
		}
	}
	if (!longest)
		return; /* all are on their way; the first to leave makes room */
	complain(longest, "connection dropped", "too many wait without a word; it sat longest");
	io_stream_close(longest->stream);
	longest->stream = NULL;
}

static void welcome(struct engine_lobby *lobby, struct io_stream *stream)
{
	struct guest *guest = lobby->guests;

	while (guest->used)
		guest++;
	guest->used = true;
	guest->late = false;
	guest->number = lobby->arrivals++;
	guest->stream = stream;
	guest->service = NULL;
	lobby->used++;
	guest->deadline.fire = deadline_passed;
	io_timer_start(lobby->io, &guest->deadline, HELLO_NS);
	guest->op.done = tls_done;
	io_start_tls(stream, lobby->tls, true, NULL, &guest->op);
	if (lobby->used == GUESTS_MAX)
		make_room(lobby);
}

static void accept_done(struct io_op *op, int64_t res)
{
	struct engine_lobby *lobby = container_of(op, struct engine_lobby, accept_op);

	lobby->accepting = false;
	if (lobby->stopping) {
		if (res == 0)
			io_stream_close(lobby->accepted);
		if (lobby->used == 0)
			io_defer(lobby->io, lobby->stop_op, 0);
		return;
	}
	if (res == 0) {
		welcome(lobby, lobby->accepted);
		accept_next(lobby);
		return;
	}
	/* Out of descriptors, most likely: others may leave. */
	log_warning("cannot accept a connection", "reason=%s", err_name((int)res));
	io_timer_start(lobby->io, &lobby->accept_again, ACCEPT_RETRY_NS);
}

static void accept_later(struct io_timer *timer)
{
	accept_next(container_of(timer, struct engine_lobby, accept_again));
}

/* While every seat is taken nobody is accepted; the kernel's queue and its limit hold the rest. */
static void accept_next(struct engine_lobby *lobby)
{
	if (lobby->accepting || lobby->stopping || lobby->used == GUESTS_MAX)
		return;
	lobby->accepting = true;
	lobby->accept_op.done = accept_done;
	io_accept(lobby->listener, &lobby->accepted, &lobby->accept_op);
}

static void begin(void *arg)
{
	struct engine_lobby *lobby = arg;
	struct io_address address;

	lobby->accept_again.fire = accept_later;
	(void)snprintf(address.text, sizeof(address.text), "%s", lobby->conf->engine.listen);
	lobby->res = io_listen(lobby->io, &address, &lobby->listener);
	if (lobby->res == 0)
		accept_next(lobby);
}

static void begin_stop(void *arg, struct io_op *op)
{
	struct engine_lobby *lobby = arg;

	lobby->stopping = true;
	lobby->stop_op = op;
	io_timer_stop(lobby->io, &lobby->accept_again);
	io_listener_close(lobby->listener);
	lobby->listener = NULL;
	for (unsigned i = 0; i < GUESTS_MAX; i++) {
		struct guest *guest = &lobby->guests[i];

		/* A guest under way to its group comes back by itself. */
		if (guest->used && !guest->service) {
			io_stream_close(guest->stream);
			guest->stream = NULL;
		}
	}
	if (!lobby->accepting && lobby->used == 0)
		io_defer(lobby->io, op, 0);
}

struct engine_lobby *engine_lobby_stop(struct engine_lobby *lobby)
{
	if (!lobby)
		return NULL;
	if (lobby->listener)
		(void)loop_submit(lobby->loop, begin_stop, lobby);
	(void)loop_stop(lobby->loop);
	free(lobby->guests);
	free(lobby);
	return NULL;
}

int engine_lobby_start(const struct conf *conf, struct io_tls *tls, struct engine_service *services,
		       unsigned service_count, void (*broken)(const char *name, int res),
		       struct engine_lobby **ret_lobby, char *error, size_t error_max)
{
	const struct uring_config config = { .name = "lobby" };
	struct engine_lobby *lobby = calloc(1, sizeof(*lobby));
	int res = -ENOMEM;

	if (lobby)
		lobby->guests = calloc(GUESTS_MAX, sizeof(*lobby->guests));
	if (lobby && lobby->guests)
		res = loop_start(&config, broken, &lobby->loop);
	if (res < 0) {
		(void)snprintf(error, error_max, "cannot start the lobby: %s", err_text(res));
		if (lobby)
			free(lobby->guests);
		free(lobby);
		return res;
	}
	for (unsigned i = 0; i < GUESTS_MAX; i++)
		lobby->guests[i].lobby = lobby;
	lobby->conf = conf;
	lobby->tls = tls;
	lobby->services = services;
	lobby->service_count = service_count;
	lobby->io = loop_io(lobby->loop);
	lobby->limit = (struct log_limit)LOG_LIMIT(10, 10 * NS_PER_S);
	loop_call(lobby->loop, begin, lobby);
	if (lobby->res < 0) {
		res = lobby->res;
		(void)snprintf(error, error_max,
			       "%s: cannot listen on engine listen = %s: %s; choose a free address",
			       conf->file, conf->engine.listen, err_text(res));
		engine_lobby_stop(lobby);
		return res;
	}
	*ret_lobby = lobby;
	return 0;
}

bool engine_lobby_alive(struct engine_lobby *lobby, unsigned ms)
{
	return !lobby || loop_alive(lobby->loop, ms);
}
