/* SPDX-License-Identifier: Apache-2.0 */
/* Streams over unix sockets, TCP and TLS: the same rules for all three. */
#include <pthread.h>

#include "tests/unit/core/io/stream_pair.h"

#define PATTERN_BYTES (1u << 20)
#define PIECE_MAX     300000u

static uint8_t pattern[PATTERN_BYTES + PIECE_MAX];

static void make_pattern(void)
{
	uint64_t seed = 1;

	for (size_t i = 0; i < PATTERN_BYTES; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		pattern[i] = (uint8_t)(seed >> 56);
	}
	memcpy(pattern + PATTERN_BYTES, pattern, PIECE_MAX);
}

/* One direction of a transfer: pieces of random size, checked on arrival. */
struct flow {
	struct io *io;
	struct io_stream *from, *to;
	struct io_op send_op, recv_op;
	uint64_t total, sent, received;
	uint64_t random;
	size_t min;
	uint8_t buf[PIECE_MAX];
	unsigned *flows_left;
};

static uint64_t flow_random(struct flow *flow)
{
	flow->random = flow->random * 6364136223846793005u + 1442695040888963407u;
	return flow->random >> 33;
}

static void flow_send(struct flow *flow)
{
	struct iovec iov[IO_IOV_MAX];
	unsigned count =
		1 + (unsigned)(flow_random(flow) % (flow_random(flow) % 4 ? 3 : IO_IOV_MAX));
	uint64_t at = flow->sent;

	for (unsigned i = 0; i < count; i++) {
		size_t len = flow_random(flow) % (flow_random(flow) % 2 ? PIECE_MAX : 200);

		len = (size_t)min_u64(len, flow->total - at);
		iov[i] = (struct iovec){ pattern + at % PATTERN_BYTES, len };
		at += len;
	}
	io_sendv(flow->from, iov, count, &flow->send_op);
	memset(iov, 0xff, sizeof(iov));
	flow->sent = at;
}

static void flow_sent(struct io_op *op, int64_t res)
{
	struct flow *flow = container_of(op, struct flow, send_op);

	assert_true(res >= 0);
	if (flow->sent < flow->total)
		flow_send(flow);
}

static void flow_recv(struct flow *flow)
{
	size_t max = 1 + flow_random(flow) % (flow_random(flow) % 4 ? PIECE_MAX : 64);

	max = (size_t)min_u64(max, flow->total - flow->received);
	flow->min = 1 + flow_random(flow) % max;
	memset(flow->buf, 0, 16);
	io_recv(flow->to, flow->buf, flow->min, max, &flow->recv_op);
}

static void flow_received(struct io_op *op, int64_t res)
{
	struct flow *flow = container_of(op, struct flow, recv_op);

	assert_true(res >= (int64_t)flow->min);
	assert_memory_equal(flow->buf, pattern + flow->received % PATTERN_BYTES, (size_t)res);
	flow->received += (uint64_t)res;
	if (flow->received < flow->total)
		flow_recv(flow);
	else if (--*flow->flows_left == 0)
		uring_stop(flow->io);
}

static void flow_start(struct flow *flow, struct io *io, struct io_stream *from,
		       struct io_stream *to, uint64_t total, unsigned *flows_left)
{
	*flow = (struct flow){ .io = io, .from = from, .to = to, .total = total, .random = total };
	flow->send_op.done = flow_sent;
	flow->recv_op.done = flow_received;
	flow->flows_left = flows_left;
	flow_send(flow);
	flow_recv(flow);
}

static void both_ways_in_random_pieces(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	static struct flow there, back;
	unsigned flows_left = 2;

	make_pattern();
	flow_start(&there, pair->io, pair->client, pair->server, 64u << 20, &flows_left);
	flow_start(&back, pair->io, pair->server, pair->client, (48u << 20) + 12345, &flows_left);
	while (flows_left)
		assert_int_equal(uring_run(pair->io), 0);
	assert_int_equal(there.received, there.total);
	assert_int_equal(back.received, back.total);
	pair_free(pair);
}

static void minimum_and_maximum(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct waited waited = { 0 };
	uint8_t buf[64];

	/* Not before the minimum is there ... */
	io_recv(pair->server, buf, 6, sizeof(buf), arm(&waited, pair->io));
	assert_int_equal(do_send(pair->io, pair->client, "abc", 3), 3);
	run_for_ms(pair->io, 5);
	assert_false(waited.done);
	assert_int_equal(do_send(pair->io, pair->client, "defgh", 5), 5);
	assert_int_equal(finish(&waited), 8);
	assert_memory_equal(buf, "abcdefgh", 8);
	/* ... and never more than the maximum. */
	assert_int_equal(do_send(pair->io, pair->client, "12345", 5), 5);
	assert_int_equal(do_recv(pair->io, pair->server, buf, 1, 2), 2);
	assert_int_equal(do_recv(pair->io, pair->server, buf + 2, 1, 62), 3);
	assert_memory_equal(buf, "12345", 5);
	assert_int_equal(do_send(pair->io, pair->client, "", 0), 0);
	pair_free(pair);
}

static void the_end_of_the_stream(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	uint8_t buf[64];

	assert_int_equal(do_send(pair->io, pair->client, "bye", 3), 3);
	io_stream_close(pair->client);
	pair->client = NULL;
	assert_int_equal(do_recv(pair->io, pair->server, buf, 3, 64), 3);
	assert_int_equal(do_recv(pair->io, pair->server, buf, 1, 64), 0);
	assert_int_equal(do_recv(pair->io, pair->server, buf, 1, 64), 0);
	pair_free(pair);
}

static void the_end_in_between(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	uint8_t buf[64];

	assert_int_equal(do_send(pair->io, pair->client, "bye", 3), 3);
	io_stream_close(pair->client);
	pair->client = NULL;
	assert_int_equal(do_recv(pair->io, pair->server, buf, 4, 64), -ECONNRESET);
	assert_non_null(strstr(io_stream_error(pair->server), "in the middle of a message"));
	pair_free(pair);
}

/* Last words reach a peer that is still sending. */
static void closing_while_the_peer_talks(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	uint8_t buf[64];

	make_pattern();
	assert_int_equal(do_send(pair->io, pair->client, pattern, 100000), 100000);
	run_for_ms(pair->io, 5);
	assert_int_equal(do_send(pair->io, pair->server, "go away", 7), 7);
	io_stream_close(pair->server);
	pair->server = NULL;
	run_for_ms(pair->io, 5);
	assert_int_equal(do_recv(pair->io, pair->client, buf, 7, 64), 7);
	assert_memory_equal(buf, "go away", 7);
	/* An orderly end, no reset: what had arrived was read away. */
	assert_int_equal(do_recv(pair->io, pair->client, buf, 1, 64), 0);
	pair_free(pair);
}

static void closing_cancels_what_is_pending(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct waited receiving = { 0 }, sending = { 0 };
	const size_t len = 64u << 20;
	uint8_t *big = calloc(1, len);
	struct iovec iov = { big, len };
	uint8_t buf[64];

	assert_non_null(big);
	/* Nobody receives, so the send gets stuck. */
	io_sendv(pair->client, &iov, 1, arm(&sending, pair->io));
	io_recv(pair->client, buf, 1, 64, arm(&receiving, pair->io));
	run_for_ms(pair->io, 20);
	assert_false(sending.done || receiving.done);
	io_stream_close(pair->client);
	pair->client = NULL;
	assert_false(sending.done || receiving.done);
	assert_int_equal(finish(&sending), -ECANCELED);
	assert_int_equal(finish(&receiving), -ECANCELED);
	free(big);
	pair_free(pair);
}

/* Operations that never saw the kernel are cancelled as well. */
static void closing_at_once(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct waited receiving = { 0 }, sending = { 0 };
	struct iovec iov = { (void *)(uintptr_t) "x", 1 };
	uint8_t buf[64];

	io_sendv(pair->client, &iov, 1, arm(&sending, pair->io));
	io_recv(pair->client, buf, 1, 64, arm(&receiving, pair->io));
	io_stream_close(pair->client);
	pair->client = NULL;
	assert_false(sending.done || receiving.done);
	assert_int_equal(finish(&sending), -ECANCELED);
	assert_int_equal(finish(&receiving), -ECANCELED);
	pair_free(pair);
}

/* A result that was on its way when the stream was closed arrives as cancelled. */
static void closing_before_a_result_is_delivered(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct waited receiving = { 0 }, sending = { 0 };
	uint8_t buf[64];

	assert_int_equal(do_send(pair->io, pair->client, "hello", 5), 5);
	assert_int_equal(do_recv(pair->io, pair->server, buf, 1, 1), 1);
	io_recv(pair->server, buf, 1, 4, arm(&receiving, pair->io)); /* TLS has it already */
	io_sendv(pair->server, NULL, 0, arm(&sending, pair->io));    /* nothing to wait for */
	io_stream_close(pair->server);
	pair->server = NULL;
	assert_int_equal(finish(&sending), -ECANCELED);
	assert_int_equal(finish(&receiving), -ECANCELED);
	pair_free(pair);
}

static struct pair *closing_pair;
static int64_t closing_res[2];
static unsigned closing_done;

static void close_in_callback(struct io_op *op, int64_t res)
{
	(void)op;
	closing_res[closing_done++] = res;
	if (closing_done == 1) {
		io_stream_close(closing_pair->server);
		closing_pair->server = NULL;
	}
	if (closing_done == 2)
		uring_stop(closing_pair->io);
}

static void closing_from_a_callback(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct io_op receiving = { .done = close_in_callback }, sending = receiving;
	struct iovec iov = { (void *)(uintptr_t) "x", 1 };
	uint8_t buf[64];

	closing_pair = pair;
	closing_done = 0;
	assert_int_equal(do_send(pair->io, pair->client, "hello", 5), 5);
	io_recv(pair->server, buf, 1, 64, &receiving);
	io_sendv(pair->server, &iov, 1, &sending);
	while (closing_done < 2)
		assert_int_equal(uring_run(pair->io), 0);
	assert_true(closing_res[0] == 5 || closing_res[0] == 1);
	assert_int_equal(closing_res[1], -ECANCELED);
	pair_free(pair);
}

/* ---- moving ---- */

struct mover {
	struct io *io;
	struct io_stream *stream;
	struct io_op op;
	uint8_t buf[64];
};

static void mover_echoed(struct io_op *op, int64_t res)
{
	struct mover *mover = container_of(op, struct mover, op);

	assert_int_equal(res, 5);
	io_stream_close(mover->stream);
	uring_stop(mover->io);
}

static void mover_received(struct io_op *op, int64_t res)
{
	struct mover *mover = container_of(op, struct mover, op);
	struct iovec iov = { mover->buf, 5 };

	assert_int_equal(res, 5);
	op->done = mover_echoed;
	io_sendv(mover->stream, &iov, 1, op);
}

static void mover_takes_over(struct io_op *op, int64_t res)
{
	struct mover *mover = container_of(op, struct mover, op);

	assert_int_equal(res, 0);
	op->done = mover_received;
	io_recv(mover->stream, mover->buf, 5, 5, op);
}

static void *mover_main(void *argument)
{
	struct mover *mover = argument;

	assert_int_equal(uring_run(mover->io), 0);
	return NULL;
}

static void moving_to_another_loop(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct mover mover = { .io = new_loop(), .stream = pair->server };
	pthread_t thread;
	char buf[16];

	/* Bytes that TLS has already read from the socket travel with the stream. */
	assert_int_equal(do_send(pair->io, pair->client, "0hello", 6), 6);
	assert_int_equal(do_recv(pair->io, pair->server, buf, 1, 1), 1);
	assert_int_equal(pthread_create(&thread, NULL, mover_main, &mover), 0);
	io_stream_move(pair->server, mover.io);
	pair->server = NULL;
	mover.op.done = mover_takes_over;
	io_post(mover.io, &mover.op);
	assert_int_equal(do_recv(pair->io, pair->client, buf, 5, 5), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(pthread_join(thread, NULL), 0);
	uring_free(mover.io);
	assert_int_equal(do_recv(pair->io, pair->client, buf, 1, 5), 0);
	pair_free(pair);
}

#define ON_EACH(name)                                                                              \
	UNIT(name##_unix)                                                                          \
	{                                                                                          \
		name(TRANSPORT_UNIX);                                                              \
	}                                                                                          \
	UNIT(name##_tcp)                                                                           \
	{                                                                                          \
		name(TRANSPORT_TCP);                                                               \
	}                                                                                          \
	UNIT(name##_tls)                                                                           \
	{                                                                                          \
		name(TRANSPORT_TLS);                                                               \
	}
ON_EACH(both_ways_in_random_pieces)
ON_EACH(minimum_and_maximum)
ON_EACH(the_end_of_the_stream)
ON_EACH(the_end_in_between)
ON_EACH(closing_while_the_peer_talks)
ON_EACH(closing_cancels_what_is_pending)
ON_EACH(closing_at_once)
ON_EACH(closing_before_a_result_is_delivered)
ON_EACH(closing_from_a_callback)
ON_EACH(moving_to_another_loop)

/* ---- sockets of the kernel's own API at the other end ---- */

static void half_close_leaves_the_other_half(enum transport transport)
{
	struct pair *pair = pair_new(transport);
	struct waited accepted = { 0 };
	struct io_stream *stream;
	char buf[16];
	int fd = raw_client(pair);

	io_accept(pair->listener, &stream, arm(&accepted, pair->io));
	assert_int_equal(finish(&accepted), 0);
	assert_int_equal(write(fd, "last", 4), 4);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(do_recv(pair->io, stream, buf, 4, 16), 4);
	assert_int_equal(do_recv(pair->io, stream, buf, 1, 16), 0);
	assert_int_equal(do_send(pair->io, stream, "still here", 10), 10);
	assert_int_equal(read(fd, buf, sizeof(buf)), 10);
	io_stream_close(stream);
	assert_int_equal(close(fd), 0);
	pair_free(pair);
}

UNIT(half_close_leaves_the_other_half_unix)
{
	half_close_leaves_the_other_half(TRANSPORT_UNIX);
}

UNIT(half_close_leaves_the_other_half_tcp)
{
	half_close_leaves_the_other_half(TRANSPORT_TCP);
}

UNIT(a_reset_is_an_error_with_words)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	const struct linger hard = { .l_onoff = 1 };
	struct waited accepted = { 0 };
	struct io_stream *stream;
	char buf[16];
	int fd = raw_client(pair);

	io_accept(pair->listener, &stream, arm(&accepted, pair->io));
	assert_int_equal(finish(&accepted), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(do_recv(pair->io, stream, buf, 1, 16), -ECONNRESET);
	assert_non_null(strstr(io_stream_error(stream), "Connection reset by peer"));
	assert_int_equal(do_send(pair->io, stream, "x", 1), -EPIPE); /* and no SIGPIPE */
	io_stream_close(stream);
	pair_free(pair);
}

/* ---- addresses ---- */

static int64_t try_connect(struct io *io, const char *text, struct io_stream **ret_stream)
{
	struct io_address address;
	struct waited waited = { 0 };

	(void)snprintf(address.text, sizeof(address.text), "%.255s", text);
	io_connect(io, &address, ret_stream, arm(&waited, io));
	assert_false(waited.done);
	return finish(&waited);
}

static int try_listen(struct io *io, const char *text, struct io_listener **ret_listener)
{
	struct io_address address;

	(void)snprintf(address.text, sizeof(address.text), "%.255s", text);
	return io_listen(io, &address, ret_listener);
}

UNIT(connecting_to_nobody)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct io_listener *listener;
	struct io_stream *stream;
	char text[64];

	assert_int_equal(try_listen(pair->io, "127.0.0.1:0", &listener), 0);
	(void)snprintf(text, sizeof(text), "127.0.0.1:%d", uring_listener_port(listener));
	io_listener_close(listener);
	run_for_ms(pair->io, 1);
	assert_int_equal(try_connect(pair->io, text, &stream), -ECONNREFUSED);
	(void)snprintf(text, sizeof(text), "localhost:%s", strrchr(text, ':') + 1);
	assert_int_equal(try_connect(pair->io, text, &stream), -ECONNREFUSED);
	assert_int_equal(try_connect(pair->io, "unix:/no/such/socket", &stream), -ENOENT);
	assert_int_equal(try_connect(pair->io, "nonsense", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, "host:", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, "host:65536", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, "::1:80", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, "[::1]80", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, ":80", &stream), -EINVAL);
	assert_int_equal(try_connect(pair->io, "unix:", &stream), -EINVAL);
	pair_free(pair);
}

UNIT(names_are_looked_up_off_the_loop)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct io_stream *stream, *accepted_stream;
	struct waited accepted = { 0 };
	struct uring_stats before, after;
	char text[64];

	uring_stats(pair->io, &before);
	(void)snprintf(text, sizeof(text), "localhost:%s", strrchr(pair->address.text, ':') + 1);
	io_accept(pair->listener, &accepted_stream, arm(&accepted, pair->io));
	assert_int_equal(try_connect(pair->io, text, &stream), 0);
	assert_int_equal(finish(&accepted), 0);
	uring_stats(pair->io, &after);
	assert_int_equal(after.work_items - before.work_items, 1);
	assert_string_equal(io_stream_peer(stream)->address, pair->address.text);
	assert_int_equal(io_stream_peer(stream)->uid, UINT32_MAX);
	assert_memory_equal(io_stream_peer(accepted_stream)->address, "127.0.0.1:", 10);
	io_stream_close(stream);
	io_stream_close(accepted_stream);
	pair_free(pair);
}

UNIT(ipv6)
{
	struct io *io = new_loop();
	struct io_listener *listener;
	struct io_stream *client, *server;
	struct waited accepted = { 0 };
	char text[64];
	int res = try_listen(io, "[::1]:0", &listener);

	if (res == -EADDRNOTAVAIL || res == -EAFNOSUPPORT) {
		uring_free(io);
		skip(); /* no IPv6 on this machine */
	}
	assert_int_equal(res, 0);
	(void)snprintf(text, sizeof(text), "[::1]:%d", uring_listener_port(listener));
	io_accept(listener, &server, arm(&accepted, io));
	assert_int_equal(try_connect(io, text, &client), 0);
	assert_int_equal(finish(&accepted), 0);
	assert_string_equal(io_stream_peer(client)->address, text);
	io_stream_close(client);
	io_stream_close(server);
	io_listener_close(listener);
	run_for_ms(io, 1);
	uring_free(io);
}

UNIT(unix_sockets_know_their_peer)
{
	struct pair *pair = pair_new(TRANSPORT_UNIX);

	assert_int_equal(io_stream_peer(pair->server)->uid, getuid());
	assert_string_equal(io_stream_peer(pair->server)->address, "unix");
	assert_string_equal(io_stream_peer(pair->server)->identity, "");
	pair_free(pair);
}

UNIT(unix_socket_files)
{
	struct pair *pair = pair_new(TRANSPORT_UNIX);
	struct io_listener *second, *stale;
	const char *path = pair->address.text + 5;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char other[300], text[300];
	struct stat st;
	int fd;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	/* A live one is left alone. */
	assert_int_equal(try_listen(pair->io, pair->address.text, &second), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	/* One whose process died is replaced. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(other, sizeof(other), "%s/stale", pair->dir.path);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", other);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(close(fd), 0);
	(void)snprintf(text, sizeof(text), "unix:%.250s", other);
	assert_int_equal(try_listen(pair->io, text, &stale), 0);
	io_listener_close(stale);
	run_for_ms(pair->io, 1);
	assert_int_equal(stat(other, &st), -1);
	/* A file that is no socket is not ours to remove. */
	fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(close(fd), 0);
	assert_int_equal(try_listen(pair->io, text, &stale), -EADDRINUSE);
	assert_int_equal(stat(other, &st), 0);
	assert_int_equal(unlink(other), 0);
	/* A successor's file survives our closing. */
	assert_int_equal(try_listen(pair->io, text, &stale), 0);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(try_listen(pair->io, text, &second), 0);
	io_listener_close(stale);
	run_for_ms(pair->io, 1);
	assert_int_equal(stat(other, &st), 0);
	io_listener_close(second);
	(void)memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "unix:", 5);
	text[250] = 0;
	assert_int_equal(try_listen(pair->io, text, &second), -ENAMETOOLONG);
	pair_free(pair);
}

UNIT(tcp_port_in_use)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct io_listener *second;

	assert_int_equal(try_listen(pair->io, pair->address.text, &second), -EADDRINUSE);
	assert_int_equal(try_listen(pair->io, "127.0.0.1", &second), -EINVAL);
	assert_int_equal(try_listen(pair->io, "192.0.2.1:0", &second), -EADDRNOTAVAIL);
	pair_free(pair);
}

UNIT(closing_a_listener_cancels_its_accept)
{
	struct io *io = new_loop();
	struct io_listener *listener;
	struct io_stream *stream;
	struct waited accepted = { 0 };

	for (int wait_first = 0; wait_first < 2; wait_first++) {
		assert_int_equal(try_listen(io, "127.0.0.1:0", &listener), 0);
		io_accept(listener, &stream, arm(&accepted, io));
		if (wait_first)
			run_for_ms(io, 5);
		io_listener_close(listener);
		assert_false(accepted.done);
		assert_int_equal(finish(&accepted), -ECANCELED);
	}
	uring_free(io);
}

/* What is still open when a loop is freed goes with it; the leak checker looks on. */
UNIT(free_takes_streams_along)
{
	struct pair *pair = pair_new(TRANSPORT_TLS);
	struct io_stream *stream;
	struct waited waited[4] = { 0 };
	uint8_t buf[16];

	(void)memset(buf, 0, sizeof(buf));
	io_recv(pair->server, buf, 1, 16, arm(&waited[0], pair->io));
	io_accept(pair->listener, &stream, arm(&waited[1], pair->io));
	io_connect(pair->io, &(struct io_address){ "localhost:1" }, &stream,
		   arm(&waited[2], pair->io));
	run_for_ms(pair->io, 0);
	io_connect(pair->io, &(struct io_address){ "localhost:1" }, &stream,
		   arm(&waited[3], pair->io));
	uring_free(pair->io);
	assert_false(waited[0].done || waited[1].done || waited[3].done);
	tls_free(pair->tls);
	temp_dir_remove(&pair->dir);
	free(pair);
}

int main(void)
{
#define EACH(name)                                                                                 \
	cmocka_unit_test(name##_unix), cmocka_unit_test(name##_tcp), cmocka_unit_test(name##_tls)
	const struct CMUnitTest tests[] = {
		EACH(both_ways_in_random_pieces),
		EACH(minimum_and_maximum),
		EACH(the_end_of_the_stream),
		EACH(the_end_in_between),
		EACH(closing_while_the_peer_talks),
		EACH(closing_cancels_what_is_pending),
		EACH(closing_at_once),
		EACH(closing_before_a_result_is_delivered),
		EACH(closing_from_a_callback),
		EACH(moving_to_another_loop),
		cmocka_unit_test(half_close_leaves_the_other_half_unix),
		cmocka_unit_test(half_close_leaves_the_other_half_tcp),
		cmocka_unit_test(a_reset_is_an_error_with_words),
		cmocka_unit_test(connecting_to_nobody),
		cmocka_unit_test(names_are_looked_up_off_the_loop),
		cmocka_unit_test(ipv6),
		cmocka_unit_test(unix_sockets_know_their_peer),
		cmocka_unit_test(unix_socket_files),
		cmocka_unit_test(tcp_port_in_use),
		cmocka_unit_test(closing_a_listener_cancels_its_accept),
		cmocka_unit_test(free_takes_streams_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
