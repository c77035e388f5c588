/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshake of the simulated network: each side sends who it is, judges the other and says what
 * it found. The messages travel in the stream itself, so a handshake meets cuts, resets and peers
 * that do not speak TLS like everything else does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "tests/sim/net.h"
#include "tests/sim/ops.h"

#define VERDICT_ACCEPTED 'y'
#define VERDICT_REFUSED	 'n'

struct hello {
	char magic[7];
	char role;
	struct sim_cred cred;
};
static const char hello_magic[7] = "simTLS1";

struct io_tls *sim_tls(struct sim_node *node, const char *identity, const char *ca)
{
	struct sim_cred *cred = sim_alloc(node->world, sizeof(*cred));

	snprintf(cred->identity, sizeof(cred->identity), "%s", identity);
	snprintf(cred->ca, sizeof(cred->ca), "%s", ca);
	return (struct io_tls *)(void *)cred;
}

static void fire_tls_done(struct sim_event *event)
{
	struct io_stream *stream = event->object;
	struct io_op *op = stream->tls_op;

	stream->tls_event = NULL;
	stream->tls_op = NULL;
	if (stream->tls_timeout)
		event_cancel(stream->tls_timeout);
	stream->tls_timeout = NULL;
	trace_add(event->world, event->node, WHAT_TLS_DONE, stream->conn->name, 0, 0, event->res);
	op_end(event->node, op, event->res);
}

static void tls_ends(struct io_stream *stream, int res)
{
	struct sim_world *world = stream->node->world;

	if (stream->tls_event)
		return;
	if (res == 0)
		stream->tls_state = TLS_DONE;
	stream->tls_event =
		event_add(world, stream->node, sim_between(world, SIM_US, SIM_MS), fire_tls_done);
	stream->tls_event->object = stream;
	stream->tls_event->res = res;
}

static void fire_tls_timeout(struct sim_event *event)
{
	struct io_stream *stream = event->object;

	stream->tls_timeout = NULL;
	snprintf(stream->error, sizeof(stream->error), "no answer to the TLS handshake");
	tls_ends(stream, -ETIMEDOUT);
}

/* True when the other's certificate is good enough; else the reason is in stream->error. */
static bool judge(struct io_stream *stream, const struct sim_cred *other)
{
	if (strcmp(other->ca, stream->cred->ca) != 0) {
		snprintf(stream->error, sizeof(stream->error),
			 "certificate of %.48s is signed by another CA", stream->peer.address);
		return false;
	}
	if (stream->tls_expect[0] && strcmp(stream->tls_expect, other->identity) != 0) {
		snprintf(stream->error, sizeof(stream->error), "peer is %.48s, not %.48s",
			 other->identity, stream->tls_expect);
		return false;
	}
	return true;
}

static void read_hello(struct io_stream *stream)
{
	struct net_conn *conn = stream->conn;
	struct hello hello;
	char verdict;

	if (pipe_ready(conn, stream->side) < sizeof(hello))
		return;
	pipe_read(conn, stream->side, &hello, sizeof(hello));
	if (memcmp(hello.magic, hello_magic, sizeof(hello_magic)) != 0 ||
	    hello.role == (stream->tls_server ? 's' : 'c')) {
		snprintf(stream->error, sizeof(stream->error), "peer does not speak TLS");
		tls_ends(stream, -EPROTO);
		return;
	}
	hello.cred.identity[sizeof(hello.cred.identity) - 1] = 0;
	hello.cred.ca[sizeof(hello.cred.ca) - 1] = 0;
	stream->tls_accepted = judge(stream, &hello.cred);
	if (stream->tls_accepted)
		snprintf(stream->peer.identity, sizeof(stream->peer.identity), "%s",
			 hello.cred.identity);
	verdict = stream->tls_accepted ? VERDICT_ACCEPTED : VERDICT_REFUSED;
	stream->tls_state = TLS_WAIT_VERDICT;
	pipe_write(conn, stream->side, &verdict, 1);
}

static void read_verdict(struct io_stream *stream)
{
	char verdict;

	if (pipe_ready(stream->conn, stream->side) < 1)
		return;
	pipe_read(stream->conn, stream->side, &verdict, 1);
	if (stream->tls_accepted && verdict == VERDICT_ACCEPTED) {
		tls_ends(stream, 0);
		return;
	}
	if (stream->tls_accepted) {
		stream->peer.identity[0] = 0;
		snprintf(stream->error, sizeof(stream->error), "%.64s refused our certificate",
			 stream->peer.address);
	}
	tls_ends(stream, -EKEYREJECTED);
}

void tls_kick(struct io_stream *stream)
{
	const struct net_conn *conn = stream->conn;

	if (stream->tls_event)
		return;
	if (stream->tls_state == TLS_WAIT_HELLO)
		read_hello(stream);
	if (stream->tls_state == TLS_WAIT_VERDICT && !stream->tls_event)
		read_verdict(stream);
	if (stream->tls_event)
		return;
	if (conn->broken[stream->side]) {
		snprintf(stream->error, sizeof(stream->error), "connection broke in the handshake");
		tls_ends(stream, conn->broken[stream->side]);
	} else if (conn->pipe[!stream->side].fin_arrived) {
		snprintf(stream->error, sizeof(stream->error), "peer ended the handshake");
		tls_ends(stream, -EPROTO);
	}
}

void net_start_tls(struct io_stream *stream, struct io_tls *tls, bool server,
		   const char *expect_identity, struct io_op *op)
{
	struct sim_node *node = stream->node;
	struct hello hello = { .role = server ? 's' : 'c' };

	if (stream->closed || stream->recv_op || stream->send_op || stream->tls_op ||
	    stream->tls_state != TLS_NONE)
		sim_fail(node->world, "%s: io_start_tls on a stream that is closed or in use",
			 node->name);
	if (!tls)
		sim_fail(node->world, "%s: io_start_tls without an identity", node->name);
	op_begin(node, op, "io_start_tls");
	stream->tls_op = op;
	stream->tls_server = server;
	stream->cred = (const struct sim_cred *)(const void *)tls;
	snprintf(stream->tls_expect, sizeof(stream->tls_expect), "%s",
		 expect_identity ? expect_identity : "");
	stream->tls_state = TLS_WAIT_HELLO;
	stream->tls_timeout = event_add(node->world, node, TLS_TIMEOUT_NS, fire_tls_timeout);
	stream->tls_timeout->object = stream;
	memcpy(hello.magic, hello_magic, sizeof(hello_magic));
	hello.cred = *stream->cred;
	pipe_write(stream->conn, stream->side, &hello, sizeof(hello));
	stream_kick(stream);
}
