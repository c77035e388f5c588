/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, waiting for memory, stopping, and moving a connection to another loop. */
#include "tests/unit/unit.h"

#include <errno.h>

#include "tests/unit/core/block/nbd_client.h"

#define BOTH	  (NBD_CLIENT_FIXED_NEWSTYLE | NBD_CLIENT_NO_ZEROES)
#define SECOND_NS 1000000000ull
#define KIB512	  (512u << 10)

static struct bench bench;
static struct client client, other;
static uint8_t data[FAKE_EXPORT_BYTES];
static uint8_t back[FAKE_EXPORT_BYTES];
static struct answer answer;

static int setup(void **state)
{
	(void)state;
	bench_init(&bench, 3);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bench_done(&bench);
	return 0;
}

static void serve(struct client *c, bool structured)
{
	if (!bench.server)
		bench_start(&bench);
	client_open_flags(c, &bench, BOTH);
	if (structured)
		client_structured(c);
	client_go(c, "disk");
}

static struct nbd_stats stats(void)
{
	struct nbd_stats now;

	nbd_server_stats(bench.server, &now);
	return now;
}

UNIT(configuration_is_checked)
{
	struct nbd_server_config wrong = bench.config;
	struct nbd_server *server;

	wrong.hooks = NULL;
	assert_int_equal(nbd_server_new(&bench.fake.io, &wrong, &server), -EINVAL);
	wrong = bench.config;
	wrong.tls = NBD_TLS_REQUIRED;
	assert_int_equal(nbd_server_new(&bench.fake.io, &wrong, &server), -EINVAL);
	wrong = bench.config;
	wrong.buffer_bytes = 4096;
	assert_int_equal(nbd_server_new(&bench.fake.io, &wrong, &server), -EINVAL);
	wrong = bench.config;
	wrong.lobby = true;
	assert_int_equal(nbd_server_new(&bench.fake.io, &wrong, &server), -EINVAL);
	bench.fake.fail_alloc = true;
	assert_int_equal(nbd_server_new(&bench.fake.io, &bench.config, &server), -ENOMEM);
	bench.fake.fail_alloc = false;
	assert_int_equal(bench.fake.allocations, 0);
	bench_start(&bench);
}

/* 1 MiB of buffers: two requests of 512 KiB fill it; small ones queue behind large ones. */
UNIT(requests_wait_for_memory_in_order)
{
	bench.config.buffer_bytes = 1u << 20;
	serve(&client, false);
	serve(&other, false);
	bench.disk.hold = true;
	for (unsigned i = 0; i < 3; i++)
		client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 2);
	client_request(&other, NBD_CMD_READ, 0, 0, 512, NULL);
	client_request(&other, NBD_CMD_FLUSH, 0, 0, 0, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 2);
	assert_int_equal(stats().memory_waits, 2);
	assert_int_equal(stats().buffer_used_bytes, 1u << 20);
	/* Both replies leave, so the third large one and then the small one get theirs. */
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 3);
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(stats().buffer_used_bytes, 0);
	for (unsigned i = 0; i < 3; i++)
		client_answer(&client, &answer, back, KIB512);
	client_answer(&other, &answer, back, other.cookie == 2 ? 512 : 0);
	bench.disk.hold = false;
	client_bye(&client);
}

UNIT(a_write_waits_before_its_payload_is_taken)
{
	bench.config.buffer_bytes = 1u << 20;
	serve(&client, true);
	serve(&other, true);
	bench.disk.hold = true;
	client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	memset(data, 7, KIB512);
	client_request(&other, NBD_CMD_WRITE, 0, KIB512, KIB512, data);
	fake_run(&bench.fake);
	assert_int_equal(bench.disk.submitted[EXPORT_WRITE], 0);
	assert_true(other.stream->in.end - other.stream->in.start >= KIB512 - (128u << 10));
	fake_export_release(&bench.disk, false);
	bench.disk.hold = false;
	fake_run(&bench.fake);
	client_answer(&other, &answer, back, 0);
	assert_int_equal(answer.error, 0);
	assert_memory_equal(bench.disk.data + KIB512, data, KIB512);
	client_bye(&other);
	client_bye(&client);
}

UNIT(a_waiting_connection_that_leaves_lets_others_on)
{
	struct client third;

	bench.config.buffer_bytes = 1u << 20;
	serve(&client, false);
	serve(&other, false);
	serve(&third, false);
	bench.disk.hold = true;
	client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	client_request(&client, NBD_CMD_READ, 0, 0, 4096, NULL);
	fake_run(&bench.fake);
	/* Does not fit; the one behind it would. */
	client_request(&other, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	client_request(&third, NBD_CMD_READ, 0, 0, 4096, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 2);
	/* While it waits nothing is received from it, so only the stop of its export ends it. */
	assert_int_equal(stats().memory_waits, 2);
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 2);
	bench.disk.hold = false;
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(stats().buffer_used_bytes, 0);
	client_bye(&third);
}

UNIT(who_holds_memory_and_does_not_move_is_dropped_when_others_wait)
{
	bench.config.buffer_bytes = 1u << 20;
	serve(&client, false);
	serve(&other, false);
	/* Takes no replies. */
	client.stream->send_blocked = true;
	for (unsigned i = 0; i < 2; i++)
		client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	fake_advance(&bench.fake, 3600 * SECOND_NS);
	assert_false(client_closed(&client));
	client_request(&other, NBD_CMD_READ, 0, 0, 4096, NULL);
	fake_run(&bench.fake);
	fake_advance(&bench.fake, 29 * SECOND_NS);
	assert_false(client_closed(&client));
	fake_advance(&bench.fake, 2 * SECOND_NS);
	assert_true(client_closed(&client));
	assert_int_equal(stats().stalled, 1);
	client_answer(&other, &answer, back, 4096);
	assert_int_equal(answer.error, 0);
	/* The same with a write whose data does not come. */
	serve(&client, false);
	client_request(&client, NBD_CMD_WRITE, 0, 0, KIB512, NULL);
	client_request(&client, NBD_CMD_WRITE, 0, 0, 40000 - 40000 % 512, NULL);
	fake_run(&bench.fake);
	client_request(&other, NBD_CMD_WRITE, 0, 0, KIB512, data);
	client_request(&other, NBD_CMD_READ, 0, 0, KIB512, NULL);
	bench.disk.hold = true;
	fake_run(&bench.fake);
	fake_advance(&bench.fake, 31 * SECOND_NS);
	assert_true(client_closed(&client));
	assert_false(client_closed(&other));
	assert_int_equal(stats().stalled, 2);
	bench.disk.hold = false;
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	client_bye(&other);
}

/* 8 MiB of buffers are out: large requests wait, small ones go on, a few of each connection. */
UNIT(small_requests_go_on_when_large_ones_hold_the_memory)
{
	struct client third;

	bench.config.buffer_bytes = 8u << 20;
	serve(&client, false);
	serve(&other, false);
	serve(&third, false);
	bench.disk.hold = true;
	for (unsigned i = 0; i < 17; i++)
		client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 16);
	client_request(&other, NBD_CMD_READ, 0, 0, 257u << 10, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 16);
	assert_int_equal(stats().memory_waits, 2);
	for (unsigned i = 0; i < 3; i++)
		client_request(&third, NBD_CMD_READ, 0, 0, 256u << 10, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 19);
	assert_int_equal(stats().memory_waits, 2);
	/* 1 MiB of reserve: one more of 256 KiB fills it, the next one waits. */
	for (unsigned i = 0; i < 2; i++)
		client_request(&third, NBD_CMD_READ, 0, 0, 256u << 10, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 20);
	assert_int_equal(stats().memory_waits, 3);
	assert_int_equal(stats().buffer_used_bytes, 9u << 20);
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 3);
	/* No connection gets more than eight. */
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(stats().buffer_used_bytes, 0);
	for (unsigned i = 0; i < 16; i++)
		client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	for (unsigned i = 0; i < 9; i++)
		client_request(&third, NBD_CMD_READ, 0, 0, 4096, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 16 + 8);
	client_request(&other, NBD_CMD_READ, 0, 0, 4096, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 16 + 9);
	bench.disk.hold = false;
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_int_equal(stats().buffer_used_bytes, 0);
	client_bye(&third);
}

static void note_stopped(void *arg)
{
	struct bench *b = arg;

	b->stopped = true;
	nbd_server_free(b->server);
	b->server = NULL;
}

UNIT(stopping_finishes_what_is_in_flight_and_refuses_the_rest)
{
	struct client young;

	serve(&client, true);
	serve(&other, true);
	client_open_flags(&young, &bench, BOTH);
	bench.disk.hold = true;
	memset(data, 9, 4096);
	client_request(&client, NBD_CMD_WRITE, 0, 0, 4096, data);
	fake_run(&bench.fake);
	nbd_server_stop(bench.server, note_stopped, &bench);
	fake_run(&bench.fake);
	assert_true(client_closed(&young));
	assert_true(client_closed(&other));
	assert_false(client_closed(&client));
	client_request(&client, NBD_CMD_READ, 0, 0, 512, NULL);
	client_request(&client, NBD_CMD_WRITE, 0, 0, 512, data);
	fake_run(&bench.fake);
	for (unsigned i = 0; i < 2; i++) {
		client_answer(&client, &answer, back, 0);
		assert_int_equal(answer.error, NBD_ESHUTDOWN);
		assert_string_equal(answer.text, "the server is stopping");
	}
	fake_advance(&bench.fake, 60 * SECOND_NS);
	assert_false(bench.stopped);
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.error, 0);
	assert_true(client_closed(&client));
	assert_true(bench.stopped);
	assert_int_equal(bench.disk.data[0], 9);
	assert_int_equal(bench.disk.attached, 0);
	bench.disk.hold = false;
}

UNIT(stopping_does_not_wait_for_a_client_that_takes_nothing)
{
	serve(&client, true);
	client.stream->send_blocked = true;
	client_request(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL);
	fake_run(&bench.fake);
	nbd_server_stop(bench.server, note_stopped, &bench);
	fake_advance(&bench.fake, 4 * SECOND_NS);
	assert_false(bench.stopped);
	fake_advance(&bench.fake, 2 * SECOND_NS);
	assert_true(bench.stopped);
}

UNIT(stopping_ends_the_wait_for_memory)
{
	bench.config.buffer_bytes = 1u << 20;
	serve(&client, true);
	serve(&other, true);
	bench.disk.hold = true;
	client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	client_request(&client, NBD_CMD_READ, 0, 0, KIB512, NULL);
	fake_run(&bench.fake);
	client_request(&other, NBD_CMD_WRITE, 0, 0, 4096, data);
	fake_run(&bench.fake);
	nbd_server_stop(bench.server, note_stopped, &bench);
	fake_run(&bench.fake);
	client_answer(&other, &answer, back, 0);
	assert_int_equal(answer.error, NBD_ESHUTDOWN);
	assert_true(client_closed(&other));
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_true(bench.stopped);
	assert_int_equal(bench.disk.submitted[EXPORT_WRITE], 0);
	bench.disk.hold = false;
}

UNIT(connections_outlive_the_listener_and_exports_end_alone)
{
	serve(&client, true);
	client_open_flags(&other, &bench, BOTH);
	client_go(&other, "readonly");
	nbd_server_close_listener(bench.server);
	fake_run(&bench.fake);
	assert_null(nbd_server_listener(bench.server));
	assert_int_equal(client_do(&client, NBD_CMD_READ, 0, 0, 512, back), 0);
	nbd_server_drop_export(bench.server, &bench.disk.export);
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	assert_int_equal(bench.disk.attached, 0);
	assert_int_equal(client_do(&other, NBD_CMD_READ, 0, 0, 512, back), 0);
}

static void visit(void *arg, const struct nbd_conn_info *info)
{
	unsigned *count = arg;

	(*count)++;
	assert_string_equal(info->peer->address, "unix");
	if (!info->export)
		return;
	assert_string_equal(info->export->name, "disk");
	assert_true(info->structured && !info->tls);
	assert_true(info->written_bytes == 4096 && info->read_bytes == 512);
	assert_true(info->requests == 3);
	assert_int_equal(info->requests_in_flight, 1);
}

UNIT(connections_can_be_looked_at)
{
	unsigned count = 0;

	serve(&client, true);
	client_open(&other, &bench);
	client_do(&client, NBD_CMD_WRITE, 0, 0, 4096, data);
	client_do(&client, NBD_CMD_READ, 0, 0, 512, back);
	bench.disk.hold = true;
	client_request(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL);
	fake_run(&bench.fake);
	nbd_server_each(bench.server, visit, &count);
	assert_int_equal(count, 2);
	assert_true(stats().op[EXPORT_WRITE].bytes == 4096);
	bench.disk.hold = false;
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	client_bye(&client);
}

/* ---- a lobby and the loop of an export ---------------------------------------------------------
 */

static struct fake_io second;
static struct fake_export remote;
static struct nbd_server *remote_server;
static int handover_result;
static bool remote_stopped;

static int handover(void *owner, struct nbd_conn *conn, struct export *export)
{
	(void)owner;
	assert_string_equal(nbd_conn_peer(conn)->address, "unix");
	assert_string_equal(export->name, "disk");
	if (handover_result == 0)
		nbd_conn_adopt(conn, &second.io, remote_server);
	return handover_result;
}

static struct export *find_remote(void *owner, const char *name, size_t length)
{
	(void)owner;
	return length == 4 && memcmp(name, "disk", 4) == 0 ? &remote.export : NULL;
}

static void note_remote_stopped(void *arg)
{
	(void)arg;
	remote_stopped = true;
	nbd_server_free(remote_server);
}

static void run_both(void)
{
	struct fake_io *both[] = { &bench.fake, &second };

	fake_run_all(both, 2);
}

static void start_lobby(unsigned connections_max)
{
	static struct nbd_hooks hooks;
	struct nbd_server_config config = {
		.hooks = &hooks,
		.connections_max = connections_max,
		.buffer_bytes = 4u << 20,
	};

	hooks = (struct nbd_hooks){ .find = find_remote };
	fake_io_init(&second, 11);
	second.now_ns = bench.fake.now_ns;
	fake_export_init(&remote, &second, "disk");
	assert_int_equal(nbd_server_new(&second.io, &config, &remote_server), 0);
	handover_result = 0;
	remote_stopped = false;
	bench.hooks.handover = handover;
	bench.config.lobby = true;
	bench_start(&bench);
}

static void end_lobby(void)
{
	if (!remote_stopped)
		nbd_server_stop(remote_server, note_remote_stopped, NULL);
	run_both();
	assert_true(remote_stopped);
	/* What was taken on one loop and freed on the other is even over both. */
	bench.fake.allocations += second.allocations;
	second.allocations = 0;
	fake_io_done(&second);
	fake_export_done(&remote);
}

/* Sends GO by hand: the answer comes from the other loop. */
static uint32_t go(struct client *c, const char *name)
{
	uint8_t option[64];
	struct reply reply;

	client_option(c, NBD_OPT_GO, option, client_go_data(option, name, 0, NULL));
	run_both();
	do {
		client_reply(c, &reply);
	} while (reply.type == NBD_REP_INFO);
	return reply.type;
}

UNIT(a_connection_moves_to_the_loop_of_its_export)
{
	start_lobby(0);
	client_open_flags(&client, &bench, BOTH);
	client_structured(&client);
	client_allocation(&client, "disk");
	/* Requests sent ahead travel with it. */
	uint8_t ahead[512];
	size_t length = client_go_data(ahead + NBD_OPTION_HEADER_BYTES, "disk", 0, NULL);
	struct wcursor out = wcursor_of(ahead, sizeof(ahead));
	struct reply reply;

	nbd_option_header_put(&out, NBD_OPT_GO, (uint32_t)length);
	fake_send(client.stream, ahead, NBD_OPTION_HEADER_BYTES + length);
	memset(data, 5, 4096);
	client_request(&client, NBD_CMD_WRITE, 0, 4096, 4096, data);
	client.stream->whole = true;
	run_both();
	do {
		client_reply(&client, &reply);
	} while (reply.type == NBD_REP_INFO);
	assert_int_equal(reply.type, NBD_REP_ACK);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.error, 0);
	assert_int_equal(remote.data[4096], 5);
	assert_int_equal(bench.disk.attached, 0);
	assert_int_equal(remote.attached, 1);
	/* What was negotiated in the lobby holds. */
	client.fake = &second;
	assert_int_equal(client_do(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 4096, back), 0);
	/* The lobby is not needed any more. */
	nbd_server_stop(bench.server, note_stopped, &bench);
	run_both();
	assert_true(bench.stopped);
	assert_int_equal(client_do(&client, NBD_CMD_READ, 0, 4096, 4096, back), 0);
	assert_memory_equal(back, data, 4096);
	client_bye(&client);
	end_lobby();
}

UNIT(a_lobby_answers_info_and_refuses_what_is_not_handed_over)
{
	start_lobby(0);
	client_open_flags(&client, &bench, BOTH);
	handover_result = -ESHUTDOWN;
	assert_int_equal(go(&client, "disk"), NBD_REP_ERR_SHUTDOWN);
	handover_result = NBD_STAY;
	assert_int_equal(go(&client, "disk"), NBD_REP_ERR_SHUTDOWN);
	assert_int_equal(go(&client, "nothing"), NBD_REP_ERR_UNKNOWN);
	client_option(&client, NBD_OPT_EXPORT_NAME, "disk", 4);
	run_both();
	assert_true(client_closed(&client));
	end_lobby();
}

UNIT(the_other_loop_may_refuse)
{
	start_lobby(1);
	client_open_flags(&client, &bench, BOTH);
	assert_int_equal(go(&client, "disk"), NBD_REP_ACK);
	client_open_flags(&other, &bench, BOTH);
	uint8_t option[64];

	client_option(&other, NBD_OPT_GO, option, client_go_data(option, "disk", 0, NULL));
	run_both();
	assert_true(client_closed(&other));
	fake_end(client.stream);
	run_both();
	/* Gone from there between the look-up and the arrival: the handshake goes on. */
	client_open_flags(&other, &bench, BOTH);
	remote.attach_result = -ESHUTDOWN;
	assert_int_equal(go(&other, "disk"), NBD_REP_ERR_SHUTDOWN);
	remote.attach_result = 0;
	other.fake = &second;
	assert_int_equal(go(&other, "disk"), NBD_REP_ACK);
	assert_int_equal(remote.attached, 1);
	nbd_server_stop(remote_server, note_remote_stopped, NULL);
	run_both();
	assert_true(client_closed(&other));
	end_lobby();
}

UNIT(a_connection_under_way_is_waited_for)
{
	uint8_t option[64];

	start_lobby(0);
	client_open_flags(&client, &bench, BOTH);
	client_option(&client, NBD_OPT_GO, option, client_go_data(option, "disk", 0, NULL));
	/* The lobby's loop has run, the other one has not yet. */
	nbd_server_stop(remote_server, note_remote_stopped, NULL);
	assert_false(remote_stopped);
	run_both();
	assert_true(remote_stopped);
	assert_true(client_closed(&client));
	end_lobby();
}

UNIT(the_deadline_moves_along)
{
	start_lobby(0);
	remote.attach_result = -ESHUTDOWN;
	client_open_flags(&client, &bench, BOTH);
	fake_advance(&bench.fake, 6 * SECOND_NS);
	fake_advance(&second, 6 * SECOND_NS);
	assert_int_equal(go(&client, "disk"), NBD_REP_ERR_SHUTDOWN);
	fake_advance(&second, 3 * SECOND_NS);
	assert_false(client_closed(&client));
	fake_advance(&second, 2 * SECOND_NS);
	assert_true(client_closed(&client));
	end_lobby();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(configuration_is_checked),
		TEST(requests_wait_for_memory_in_order),
		TEST(a_write_waits_before_its_payload_is_taken),
		TEST(a_waiting_connection_that_leaves_lets_others_on),
		TEST(small_requests_go_on_when_large_ones_hold_the_memory),
		TEST(who_holds_memory_and_does_not_move_is_dropped_when_others_wait),
		TEST(stopping_finishes_what_is_in_flight_and_refuses_the_rest),
		TEST(stopping_does_not_wait_for_a_client_that_takes_nothing),
		TEST(stopping_ends_the_wait_for_memory),
		TEST(connections_outlive_the_listener_and_exports_end_alone),
		TEST(connections_can_be_looked_at),
		TEST(a_connection_moves_to_the_loop_of_its_export),
		TEST(a_lobby_answers_info_and_refuses_what_is_not_handed_over),
		TEST(the_other_loop_may_refuse),
		TEST(a_connection_under_way_is_waited_for),
		TEST(the_deadline_moves_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
