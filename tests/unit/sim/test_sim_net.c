/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network: what arrives, what is cut, and what a peer learns of a death. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "tests/sim/sim.h"

#define ROUNDS	   40u
#define BULK_BYTES 300000u

struct op {
	struct io_op op;
	bool done;
	int64_t res;
};

static void op_done(struct io_op *io_op, int64_t res)
{
	struct op *op = container_of(io_op, struct op, op);

	op->done = true;
	op->res = res;
}

static bool is_done(void *context)
{
	const struct op *op = context;

	return op->done;
}

struct fixture {
	struct sim_world *world;
	struct sim_node *a, *b; /* a connects to b */
	struct io *io_a, *io_b;
	struct io_listener *listener;
	struct io_stream *client, *server;
	struct op ops[8];
};

static struct op *fresh(struct fixture *f, unsigned index)
{
	f->ops[index] = (struct op){ .op.done = op_done };
	return &f->ops[index];
}

static int64_t finish_in(struct fixture *f, struct op *op, uint64_t limit_ns)
{
	assert_true(sim_run_until(f->world, is_done, op, limit_ns));
	return op->res;
}

static int64_t finish(struct fixture *f, struct op *op)
{
	return finish_in(f, op, 60 * SIM_SECOND);
}

static void begin_with(struct fixture *f, uint64_t seed, const struct sim_options *options)
{
	memset(f, 0, sizeof(*f));
	f->world = sim_new(seed, options);
	f->a = sim_node_new(f->world, "a");
	f->b = sim_node_new(f->world, "b");
	f->io_a = sim_node_io(f->a);
	f->io_b = sim_node_io(f->b);
}

static void begin(struct fixture *f, uint64_t seed)
{
	struct sim_options options;

	sim_options_calm(&options);
	begin_with(f, seed, &options);
}

static void listen_on_b(struct fixture *f)
{
	assert_int_equal(io_listen(f->io_b, &(struct io_address){ "0.0.0.0:7400" }, &f->listener),
			 0);
}

static struct op *submit_connect(struct fixture *f, unsigned index, const char *text)
{
	struct op *op = fresh(f, index);
	struct io_address address;

	snprintf(address.text, sizeof(address.text), "%s", text);
	io_connect(f->io_a, &address, &f->client, &op->op);
	return op;
}

static void connect_ab(struct fixture *f)
{
	struct op *accept = fresh(f, 0), *connect;

	listen_on_b(f);
	io_accept(f->listener, &f->server, &accept->op);
	connect = submit_connect(f, 1, "b:7400");
	assert_int_equal(finish(f, connect), 0);
	assert_int_equal(finish(f, accept), 0);
}

static struct op *submit_recv(struct fixture *f, unsigned index, struct io_stream *stream,
			      void *buf, size_t min, size_t max)
{
	struct op *op = fresh(f, index);

	io_recv(stream, buf, min, max, &op->op);
	return op;
}

static struct op *submit_send(struct fixture *f, unsigned index, struct io_stream *stream,
			      const void *bytes, size_t len)
{
	struct op *op = fresh(f, index);
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = len };

	io_sendv(stream, &iov, 1, &op->op);
	return op;
}

static void test_bytes_arrive_in_order(void **state)
{
	static uint8_t sent[BULK_BYTES], got[BULK_BYTES];

	(void)state;
	for (size_t i = 0; i < BULK_BYTES; i++)
		sent[i] = (uint8_t)(i * 31 + i / 251);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct sim_options options;
		struct fixture f;
		struct op *send;
		size_t at = 0;

		sim_options_calm(&options);
		options.split_recv_ppm = SIM_PPM / 2;
		options.socket_bytes = 2048 << seed % 6;
		begin_with(&f, seed, &options);
		connect_ab(&f);
		memset(got, 0, sizeof(got));
		send = submit_send(&f, 2, f.client, sent, BULK_BYTES);
		while (at < BULK_BYTES) {
			size_t min = min_size(1 + at % 5000, BULK_BYTES - at);
			struct op *recv = submit_recv(&f, 3, f.server, got + at, min,
						      min_size(min + 3000, BULK_BYTES - at));

			assert_true(finish(&f, recv) >= (int64_t)min);
			at += (size_t)recv->res;
		}
		assert_int_equal(finish(&f, send), BULK_BYTES);
		assert_memory_equal(sent, got, BULK_BYTES);
		sim_free(f.world);
	}
}

static void test_a_full_pipe_holds_the_sender(void **state)
{
	static uint8_t bytes[BULK_BYTES];
	struct fixture f;
	struct op *send;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	send = submit_send(&f, 2, f.client, bytes, BULK_BYTES);
	sim_run_for(f.world, 10 * SIM_SECOND);
	assert_false(send->done);
	io_stream_close(f.client);
	assert_int_equal(finish(&f, send), -ECANCELED);
	sim_free(f.world);
}

static void test_end_of_stream(void **state)
{
	uint8_t buf[16];
	struct fixture f;
	struct op *recv;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	assert_int_equal(finish(&f, submit_send(&f, 2, f.client, "abc", 3)), 3);
	io_stream_close(f.client);
	recv = submit_recv(&f, 3, f.server, buf, 2, 2);
	assert_int_equal(finish(&f, recv), 2);
	recv = submit_recv(&f, 3, f.server, buf, 2, 16);
	assert_int_equal(finish(&f, recv), -ECONNRESET);
	sim_free(f.world);

	begin(&f, 1);
	connect_ab(&f);
	io_stream_close(f.client);
	recv = submit_recv(&f, 3, f.server, buf, 1, 16);
	assert_int_equal(finish(&f, recv), 0);
	/* The other direction: taken by the kernel, answered by a reset. */
	assert_int_equal(finish(&f, submit_send(&f, 2, f.server, "abc", 3)), 3);
	sim_run_for(f.world, SIM_SECOND);
	assert_true(finish(&f, submit_send(&f, 2, f.server, "abc", 3)) < 0);
	assert_string_not_equal(io_stream_error(f.server), "");
	sim_free(f.world);
}

static void test_close_cancels(void **state)
{
	uint8_t buf[16];
	struct fixture f;
	struct op *recv, *accept;
	struct io_stream *stream;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	recv = submit_recv(&f, 2, f.server, buf, 1, 16);
	io_stream_close(f.server);
	assert_false(recv->done);
	assert_int_equal(finish(&f, recv), -ECANCELED);
	accept = fresh(&f, 3);
	io_accept(f.listener, &stream, &accept->op);
	io_listener_close(f.listener);
	assert_false(accept->done);
	assert_int_equal(finish(&f, accept), -ECANCELED);
	assert_int_equal(finish(&f, submit_connect(&f, 4, "b:7400")), -ECONNREFUSED);
	sim_free(f.world);
}

static void test_connect_failures(void **state)
{
	struct fixture f;
	struct op *op;
	uint64_t begin_ns;

	(void)state;
	begin(&f, 1);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "b:7400")), -ECONNREFUSED);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "nowhere:7400")), -EHOSTUNREACH);
	listen_on_b(&f);
	assert_int_equal(io_listen(f.io_b, &(struct io_address){ "b:7400" }, &f.listener),
			 -EADDRINUSE);
	assert_int_equal(io_listen(f.io_b, &(struct io_address){ "a:7400" }, &f.listener),
			 -EADDRNOTAVAIL);
	sim_cut(f.b, f.a, SIM_CUT_SILENT);
	begin_ns = sim_now(f.world);
	op = submit_connect(&f, 0, "b:7400");
	assert_int_equal(finish(&f, op), -ETIMEDOUT);
	assert_in_range(sim_now(f.world) - begin_ns, 9 * SIM_SECOND, 11 * SIM_SECOND);
	sim_cut(f.b, f.a, SIM_CUT_RESET);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "b:7400")), -ECONNREFUSED);
	sim_heal_all(f.world);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "b:7400")), 0);
	sim_node_crash(f.b, SIM_POWER);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "b:7400")), -ETIMEDOUT);
	sim_node_restart(f.b);
	assert_int_equal(finish(&f, submit_connect(&f, 0, "b:7400")), -ECONNREFUSED);
	sim_free(f.world);
}

static void test_unix_sockets_stay_on_the_host(void **state)
{
	struct fixture f;
	struct op *accept;

	(void)state;
	begin(&f, 1);
	assert_int_equal(io_listen(f.io_a, &(struct io_address){ "unix:/run/x" }, &f.listener), 0);
	accept = fresh(&f, 0);
	io_accept(f.listener, &f.server, &accept->op);
	assert_int_equal(finish(&f, submit_connect(&f, 1, "unix:/run/x")), 0);
	assert_int_equal(finish(&f, accept), 0);
	assert_int_equal(io_stream_peer(f.server)->uid, 0);
	assert_string_equal(io_stream_peer(f.server)->address, "unix");
	io_listener_close(f.listener);
	assert_int_equal(io_listen(f.io_b, &(struct io_address){ "unix:/run/x" }, &f.listener), 0);
	assert_int_equal(finish(&f, submit_connect(&f, 1, "unix:/run/x")), -ECONNREFUSED);
	sim_free(f.world);
}

static void test_a_cut_delays_and_heals(void **state)
{
	uint8_t buf[16];
	struct fixture f;
	struct op *recv;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	recv = submit_recv(&f, 3, f.server, buf, 1, 16);
	sim_cut(f.a, f.b, SIM_CUT_SILENT);
	assert_int_equal(finish(&f, submit_send(&f, 2, f.client, "abc", 3)), 3);
	sim_run_for(f.world, 5 * SIM_SECOND);
	assert_false(recv->done);
	/* One way only: the other direction still works. */
	assert_int_equal(finish(&f, submit_send(&f, 4, f.server, "xy", 2)), 2);
	assert_int_equal(finish_in(&f, submit_recv(&f, 5, f.client, buf, 2, 2), SIM_SECOND), 2);
	sim_cut(f.a, f.b, SIM_CUT_NONE);
	assert_int_equal(finish(&f, recv), 3);
	assert_memory_equal(buf, "abc", 3);
	sim_free(f.world);
}

static void test_a_long_cut_breaks_the_sender_only(void **state)
{
	uint8_t buf[16], other[16];
	struct fixture f;
	struct op *recv, *peer_recv;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	recv = submit_recv(&f, 3, f.client, buf, 1, 16);
	peer_recv = submit_recv(&f, 4, f.server, other, 1, 16);
	sim_cut_both(f.a, f.b, SIM_CUT_SILENT);
	assert_int_equal(finish(&f, submit_send(&f, 2, f.client, "abc", 3)), 3);
	assert_int_equal(finish(&f, recv), -ETIMEDOUT);
	sim_run_for(f.world, 100 * SIM_SECOND);
	assert_false(peer_recv->done);
	sim_free(f.world);
}

static void test_a_reset_cut_breaks_both(void **state)
{
	uint8_t buf[16], other[16];
	struct fixture f;
	struct op *recv, *peer_recv;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	recv = submit_recv(&f, 3, f.client, buf, 1, 16);
	peer_recv = submit_recv(&f, 4, f.server, other, 1, 16);
	sim_cut(f.a, f.b, SIM_CUT_RESET);
	assert_int_equal(finish(&f, recv), -ECONNRESET);
	assert_int_equal(finish(&f, peer_recv), -ECONNRESET);
	sim_free(f.world);
}

/* After a power loss the peer knows nothing until it sends and the host is back. */
static void test_half_open(void **state)
{
	uint8_t buf[16];
	struct fixture f;
	struct op *recv;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	recv = submit_recv(&f, 3, f.client, buf, 1, 16);
	sim_node_crash(f.b, SIM_POWER);
	sim_run_for(f.world, 5 * SIM_SECOND);
	sim_node_restart(f.b);
	sim_run_for(f.world, 100 * SIM_SECOND);
	assert_false(recv->done);
	assert_int_equal(finish(&f, submit_send(&f, 2, f.client, "abc", 3)), 3);
	assert_int_equal(finish_in(&f, recv, 5 * SIM_SECOND), -ECONNRESET);
	sim_free(f.world);
}

static void test_a_killed_process_is_noticed(void **state)
{
	unsigned ends = 0, resets = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		uint8_t buf[16];
		struct fixture f;
		struct op *recv;

		begin(&f, seed);
		connect_ab(&f);
		recv = submit_recv(&f, 3, f.client, buf, 1, 16);
		sim_node_crash(f.b, SIM_KILL);
		assert_int_equal(sim_stream_count(f.b), 0);
		ends += finish(&f, recv) == 0;
		resets += recv->res == -ECONNRESET;
		sim_free(f.world);
	}
	assert_true(ends > 0 && resets > 0);
	assert_int_equal(ends + resets, ROUNDS);
}

struct tls_case {
	const char *client_ca, *client_expects, *server_expects;
	int res;
};

static void run_tls(const struct tls_case *c)
{
	struct fixture f;
	struct op *client, *server;
	uint8_t buf[8];

	begin(&f, 1);
	connect_ab(&f);
	client = fresh(&f, 2);
	server = fresh(&f, 3);
	io_start_tls(f.server, sim_tls(f.b, "b.example", "ca"), true, c->server_expects,
		     &server->op);
	io_start_tls(f.client, sim_tls(f.a, "a.example", c->client_ca), false, c->client_expects,
		     &client->op);
	assert_int_equal(finish(&f, client), c->res);
	assert_int_equal(finish(&f, server), c->res);
	if (c->res == 0) {
		assert_string_equal(io_stream_peer(f.client)->identity, "b.example");
		assert_string_equal(io_stream_peer(f.server)->identity, "a.example");
		assert_int_equal(finish(&f, submit_send(&f, 4, f.client, "hello", 5)), 5);
		assert_int_equal(finish(&f, submit_recv(&f, 5, f.server, buf, 5, 8)), 5);
		assert_memory_equal(buf, "hello", 5);
	} else {
		assert_string_equal(io_stream_peer(f.client)->identity, "");
		assert_string_not_equal(io_stream_error(f.client), "");
		assert_string_not_equal(io_stream_error(f.server), "");
	}
	sim_free(f.world);
}

static void test_tls(void **state)
{
	static const struct tls_case cases[] = {
		{ "ca", NULL, NULL, 0 },
		{ "ca", "b.example", "a.example", 0 },
		{ "ca", "c.example", "a.example", -EKEYREJECTED },
		{ "ca", "b.example", "c.example", -EKEYREJECTED },
		{ "other", NULL, NULL, -EKEYREJECTED },
	};

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++)
		run_tls(&cases[i]);
}

static void test_tls_meets_plain(void **state)
{
	static uint8_t noise[4096];
	struct fixture f;
	struct op *server;

	(void)state;
	begin(&f, 1);
	connect_ab(&f);
	server = fresh(&f, 3);
	io_start_tls(f.server, sim_tls(f.b, "b", "ca"), true, NULL, &server->op);
	submit_send(&f, 2, f.client, noise, sizeof(noise));
	assert_int_equal(finish(&f, server), -EPROTO);
	sim_free(f.world);

	begin(&f, 1);
	connect_ab(&f);
	server = fresh(&f, 3);
	io_start_tls(f.server, sim_tls(f.b, "b", "ca"), true, NULL, &server->op);
	assert_int_equal(finish(&f, server), -ETIMEDOUT);
	sim_free(f.world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_arrive_in_order),
		cmocka_unit_test(test_a_full_pipe_holds_the_sender),
		cmocka_unit_test(test_end_of_stream),
		cmocka_unit_test(test_close_cancels),
		cmocka_unit_test(test_connect_failures),
		cmocka_unit_test(test_unix_sockets_stay_on_the_host),
		cmocka_unit_test(test_a_cut_delays_and_heals),
		cmocka_unit_test(test_a_long_cut_breaks_the_sender_only),
		cmocka_unit_test(test_a_reset_cut_breaks_both),
		cmocka_unit_test(test_half_open),
		cmocka_unit_test(test_a_killed_process_is_noticed),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_tls_meets_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
