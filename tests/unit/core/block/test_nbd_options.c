/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "tests/unit/core/block/nbd_client.h"

#define BOTH (NBD_CLIENT_FIXED_NEWSTYLE | NBD_CLIENT_NO_ZEROES)

static struct bench bench;
static struct client client;
static uint8_t data[1u << 16];
static struct reply reply;

static int setup(void **state)
{
	(void)state;
	bench_init(&bench, 42);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bench_done(&bench);
	return 0;
}

static void begin(void)
{
	bench_start(&bench);
	client_open_flags(&client, &bench, BOTH);
}

UNIT(abort_is_acknowledged)
{
	begin();
	assert_int_equal(client_ask(&client, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	assert_true(client_closed(&client));
	assert_string_equal(bench.ended, "");
	assert_int_equal(bench.ended_count, 1);
}

UNIT(unknown_client_flags_end_the_connection)
{
	bench_start(&bench);
	client_open_flags(&client, &bench, 4);
	assert_true(client_closed(&client));
}

UNIT(without_fixed_newstyle_only_export_name)
{
	bench_start(&bench);
	client_open_flags(&client, &bench, 0);
	client_option(&client, NBD_OPT_EXPORT_NAME, "disk", 4);
	assert_int_equal(fake_received(client.stream), 8 + 2 + 124);
	fake_take(client.stream, data, 134);
	assert_true(be64_load(data) == FAKE_EXPORT_BYTES);
	assert_int_equal(be16_load(data + 8),
			 NBD_EXPORT_HAS_FLAGS | NBD_EXPORT_SEND_FLUSH | NBD_EXPORT_SEND_FUA |
				 NBD_EXPORT_SEND_TRIM | NBD_EXPORT_SEND_WRITE_ZEROES |
				 NBD_EXPORT_MULTI_CONN | NBD_EXPORT_SEND_CACHE |
				 NBD_EXPORT_SEND_FAST_ZERO);
	client_bye(&client);
	client_open_flags(&client, &bench, 0);
	client_option(&client, NBD_OPT_LIST, NULL, 0);
	assert_true(client_closed(&client));
}

UNIT(export_name)
{
	begin();
	client_option(&client, NBD_OPT_EXPORT_NAME, "readonly", 8);
	assert_int_equal(fake_received(client.stream), 10);
	fake_take(client.stream, data, 10);
	assert_int_equal(be16_load(data + 8), NBD_EXPORT_HAS_FLAGS | NBD_EXPORT_READ_ONLY |
						      NBD_EXPORT_SEND_FLUSH | NBD_EXPORT_SEND_FUA |
						      NBD_EXPORT_MULTI_CONN |
						      NBD_EXPORT_SEND_CACHE);
	client_bye(&client);
	client_open_flags(&client, &bench, BOTH);
	client_option(&client, NBD_OPT_EXPORT_NAME, "nothing", 7);
	assert_true(client_closed(&client));
	assert_int_equal(fake_received(client.stream), 0);
	/* The default export. */
	client_open_flags(&client, &bench, BOTH);
	client_option(&client, NBD_OPT_EXPORT_NAME, NULL, 0);
	assert_int_equal(fake_received(client.stream), 10);
}

UNIT(list_shows_every_export)
{
	begin();
	client_option(&client, NBD_OPT_LIST, NULL, 0);
	client_reply(&client, &reply);
	assert_int_equal(reply.type, NBD_REP_SERVER);
	assert_int_equal(be32_load(reply.data), 4);
	assert_string_equal((char *)reply.data + 4, "diska disk");
	client_reply(&client, &reply);
	assert_int_equal(reply.type, NBD_REP_SERVER);
	assert_string_equal((char *)reply.data + 4, "readonly");
	client_reply(&client, &reply);
	assert_int_equal(reply.type, NBD_REP_ACK);
	assert_int_equal(client_ask(&client, NBD_OPT_LIST, "x", 1), NBD_REP_ERR_INVALID);
	bench.deny = true;
	assert_int_equal(client_ask(&client, NBD_OPT_LIST, NULL, 0), NBD_REP_ACK);
	bench.hooks.list = NULL;
	assert_int_equal(client_ask(&client, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_POLICY);
}

static char long_text[4001];

static struct export *list_many(void *owner, size_t index)
{
	struct bench *b = owner;

	return index < 40 ? &b->disk.export : NULL;
}

UNIT(a_long_list_leaves_in_parts)
{
	unsigned count = 0;

	memset(long_text, 'd', sizeof(long_text) - 1);
	bench.disk.export.description = long_text;
	bench.hooks.list = list_many;
	begin();
	client_option(&client, NBD_OPT_LIST, NULL, 0);
	for (;;) {
		client_reply(&client, &reply);
		if (reply.type == NBD_REP_ACK)
			break;
		assert_int_equal(reply.type, NBD_REP_SERVER);
		assert_int_equal(reply.length_bytes, 4 + 4 + 4000);
		count++;
	}
	assert_int_equal(count, 40);
	assert_true(client.stream->sends > 10);
	assert_int_equal(fake_received(client.stream), 0);
}

UNIT(go_tells_what_was_asked)
{
	static const uint16_t infos[] = { NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE,
					  NBD_INFO_NAME, 77 };
	unsigned seen = 0;

	begin();
	/* The default export tells its real name. */
	client_option(&client, NBD_OPT_INFO, data, client_go_data(data, "", 5, infos));
	for (;;) {
		client_reply(&client, &reply);
		if (reply.type == NBD_REP_ACK)
			break;
		assert_int_equal(reply.type, NBD_REP_INFO);
		unsigned info = be16_load(reply.data);

		assert_false(seen & (1u << info));
		seen |= 1u << info;
		switch (info) {
		case NBD_INFO_EXPORT:
			assert_int_equal(reply.length_bytes, 12);
			assert_true(be64_load(reply.data + 2) == FAKE_EXPORT_BYTES);
			break;
		case NBD_INFO_NAME:
			assert_string_equal((char *)reply.data + 2, "disk");
			break;
		case NBD_INFO_DESCRIPTION:
			assert_string_equal((char *)reply.data + 2, "a disk");
			break;
		case NBD_INFO_BLOCK_SIZE:
			assert_int_equal(reply.length_bytes, 14);
			assert_int_equal(be32_load(reply.data + 2), 512);
			assert_int_equal(be32_load(reply.data + 6), 4096);
			assert_int_equal(be32_load(reply.data + 10), 2u << 20);
			break;
		default:
			fail();
		}
	}
	assert_int_equal(seen, 0xf);
	assert_int_equal(bench.disk.attached, 0);
	client_go(&client, "disk");
	assert_int_equal(bench.disk.attached, 1);
	client_bye(&client);
	assert_int_equal(bench.disk.attached, 0);
}

UNIT(go_refuses_nonsense_and_goes_on)
{
	size_t length;

	begin();
	length = client_go_data(data, "nothing", 0, NULL);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_UNKNOWN);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, NULL, 0), NBD_REP_ERR_INVALID);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length - 1), NBD_REP_ERR_INVALID);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length + 1), NBD_REP_ERR_INVALID);
	be32_put(data, 0xffffffff);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_INVALID);
	/* More information requests than there are bytes. */
	length = client_go_data(data, "disk", 0, NULL);
	be16_put(data + length - 2, 0xffff);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_INVALID);
	/* A name longer than an export's can be. */
	memset(data, 'n', 400);
	be32_put(data, 300);
	be16_put(data + 304, 0);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, 306), NBD_REP_ERR_UNKNOWN);
	/* One with a NUL inside. */
	client_go_data(data, "disk", 0, NULL);
	data[6] = 0;
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, 10), NBD_REP_ERR_UNKNOWN);
	bench.disk.attach_result = -ESHUTDOWN;
	length = client_go_data(data, "disk", 0, NULL);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_SHUTDOWN);
	bench.disk.attach_result = 0;
	bench.deny = true;
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_POLICY);
	bench.deny = false;
	client_go(&client, "disk");
	client_bye(&client);
}

UNIT(out_of_memory_at_go_is_an_answer)
{
	begin();
	bench.fake.fail_alloc = true;
	assert_int_equal(
		client_ask(&client, NBD_OPT_GO, data, client_go_data(data, "disk", 0, NULL)),
		NBD_REP_ERR_PLATFORM);
	bench.fake.fail_alloc = false;
	client_go(&client, "disk");
	client_bye(&client);
}

UNIT(unknown_and_long_options_are_skipped)
{
	begin();
	assert_int_equal(client_ask(&client, 4711, data, 100), NBD_REP_ERR_UNSUP);
	assert_int_equal(client_ask(&client, 11, NULL, 0), NBD_REP_ERR_UNSUP);
	assert_int_equal(client_ask(&client, 4, NULL, 0), NBD_REP_ERR_UNSUP);
	memset(data, 0, sizeof(data));
	assert_int_equal(client_ask(&client, 4711, data, sizeof(data)), NBD_REP_ERR_UNSUP);
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, 16385), NBD_REP_ERR_TOO_BIG);
	assert_int_equal(client_ask(&client, NBD_OPT_INFO, data, 16384), NBD_REP_ERR_INVALID);
	client_go(&client, "disk");
	client_bye(&client);
}

UNIT(absurd_options_end_the_connection)
{
	uint8_t header[NBD_OPTION_HEADER_BYTES];
	struct wcursor out = wcursor_of(header, sizeof(header));

	begin();
	nbd_option_header_put(&out, 99, (1u << 20) + 1);
	fake_send(client.stream, header, sizeof(header));
	fake_run(&bench.fake);
	assert_true(client_closed(&client));

	client_open_flags(&client, &bench, BOTH);
	fake_send(client.stream, "GET / HTTP/1.0\r\n\r\n", 18);
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	assert_string_equal(bench.ended, "sent something that is no NBD option");

	memset(data, 'a', sizeof(data));
	client_open_flags(&client, &bench, BOTH);
	client_option(&client, NBD_OPT_EXPORT_NAME, data, 20000);
	assert_true(client_closed(&client));
}

UNIT(structured_replies_and_contexts)
{
	const char *both[] = { "base:allocation", "qemu:dirty-bitmap:x" };
	const char *base[] = { "base:" };
	size_t length;

	begin();
	length = client_meta_data(data, "disk", 2, both);
	assert_int_equal(client_ask(&client, NBD_OPT_SET_META_CONTEXT, data, length),
			 NBD_REP_ERR_INVALID);
	assert_int_equal(client_ask(&client, NBD_OPT_STRUCTURED_REPLY, "x", 1),
			 NBD_REP_ERR_INVALID);
	client_structured(&client);
	client_option(&client, NBD_OPT_SET_META_CONTEXT, data, length);
	client_reply(&client, &reply);
	assert_int_equal(reply.type, NBD_REP_META_CONTEXT);
	assert_int_equal(be32_load(reply.data), 1);
	assert_string_equal((char *)reply.data + 4, "base:allocation");
	client_reply(&client, &reply);
	assert_int_equal(reply.type, NBD_REP_ACK);
	/* LIST: none asked = all; "base:" = all of that namespace; ids are 0. */
	for (unsigned count = 0; count <= 1; count++) {
		length = client_meta_data(data, "disk", count, base);
		client_option(&client, NBD_OPT_LIST_META_CONTEXT, data, length);
		client_reply(&client, &reply);
		assert_int_equal(reply.type, NBD_REP_META_CONTEXT);
		assert_int_equal(be32_load(reply.data), 0);
		client_reply(&client, &reply);
		assert_int_equal(reply.type, NBD_REP_ACK);
	}
	/* SET: a bare namespace chooses nothing. */
	assert_int_equal(client_ask(&client, NBD_OPT_SET_META_CONTEXT, data, length), NBD_REP_ACK);
	length = client_meta_data(data, "nothing", 1, both);
	assert_int_equal(client_ask(&client, NBD_OPT_LIST_META_CONTEXT, data, length),
			 NBD_REP_ERR_UNKNOWN);
	/* Malformed in several ways. */
	length = client_meta_data(data, "disk", 2, both);
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(client_ask(&client, NBD_OPT_LIST_META_CONTEXT, data, cut),
				 NBD_REP_ERR_INVALID);
	be32_put(data + 8, 0xffffffff);
	assert_int_equal(client_ask(&client, NBD_OPT_LIST_META_CONTEXT, data, length),
			 NBD_REP_ERR_INVALID);
	bench.deny = true;
	length = client_meta_data(data, "disk", 1, both);
	assert_int_equal(client_ask(&client, NBD_OPT_SET_META_CONTEXT, data, length),
			 NBD_REP_ERR_POLICY);
}

UNIT(contexts_belong_to_their_export)
{
	begin();
	client_structured(&client);
	client_allocation(&client, "disk");
	client_go(&client, "readonly");
	assert_int_equal(client_do(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 4096, data), NBD_EINVAL);
	client_bye(&client);
}

UNIT(tls_off_refuses_starttls)
{
	begin();
	assert_int_equal(client_ask(&client, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_POLICY);
	client_go(&client, "disk");
	client_bye(&client);
}

static void require_tls(void)
{
	static char identity;

	bench.config.tls = NBD_TLS_REQUIRED;
	bench.config.tls_identity = (struct io_tls *)&identity;
	begin();
}

UNIT(tls_required)
{
	size_t length = client_go_data(data, "disk", 0, NULL);

	require_tls();
	assert_int_equal(client_ask(&client, NBD_OPT_GO, data, length), NBD_REP_ERR_TLS_REQD);
	assert_int_equal(client_ask(&client, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_TLS_REQD);
	assert_int_equal(client_ask(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
			 NBD_REP_ERR_TLS_REQD);
	assert_int_equal(client_ask(&client, 4711, data, 30000), NBD_REP_ERR_TLS_REQD);
	assert_int_equal(client_ask(&client, NBD_OPT_STARTTLS, "x", 1), NBD_REP_ERR_INVALID);
	assert_int_equal(client_ask(&client, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	assert_true(client.stream->tls);
	assert_int_equal(client_ask(&client, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_INVALID);
	client_go(&client, "disk");
	client_bye(&client);
	/* EXPORT_NAME cannot be refused in words. */
	client_open_flags(&client, &bench, BOTH);
	client_option(&client, NBD_OPT_EXPORT_NAME, "disk", 4);
	assert_true(client_closed(&client));
	/* ABORT is fine. */
	client_open_flags(&client, &bench, BOTH);
	assert_int_equal(client_ask(&client, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	assert_true(client_closed(&client));
}

UNIT(bytes_behind_starttls_end_the_connection)
{
	uint8_t header[2 * NBD_OPTION_HEADER_BYTES];
	struct wcursor out = wcursor_of(header, sizeof(header));

	require_tls();
	client.stream->whole = true;
	nbd_option_header_put(&out, NBD_OPT_STARTTLS, 0);
	nbd_option_header_put(&out, NBD_OPT_STRUCTURED_REPLY, 0);
	fake_send(client.stream, header, sizeof(header));
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	assert_false(client.stream->tls);
	assert_string_equal(bench.ended, "data in the clear behind STARTTLS");
}

UNIT(a_failed_tls_handshake_says_why)
{
	require_tls();
	client.stream->tls_result = -EKEYREJECTED;
	memcpy(client.stream->error, "another CA", sizeof("another CA"));
	assert_int_equal(client_ask(&client, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
	assert_true(client_closed(&client));
	assert_string_equal(bench.ended, "another CA");
}

UNIT(the_handshake_has_a_deadline)
{
	struct client silent;

	begin();
	client_open(&silent, &bench);
	fake_advance(&bench.fake, 9999000000ull);
	assert_false(client_closed(&client));
	fake_advance(&bench.fake, 2000000);
	assert_true(client_closed(&client));
	assert_true(client_closed(&silent));
	/* Once served, there is none. */
	client_open_flags(&client, &bench, BOTH);
	client_go(&client, "disk");
	fake_advance(&bench.fake, 100000000000ull);
	assert_false(client_closed(&client));
	client_bye(&client);
}

UNIT(peers_and_numbers_are_limited)
{
	struct client other;
	struct nbd_stats stats;

	bench.config.connections_max = 1;
	begin();
	/* Who has chosen no export makes room, who is served does not. */
	client_open_flags(&other, &bench, BOTH);
	assert_true(client_closed(&client));
	assert_non_null(strstr(bench.ended, "made room"));
	assert_false(client_closed(&other));
	client_go(&other, "disk");
	client_open(&client, &bench);
	assert_true(client_closed(&client));
	assert_string_equal(bench.ended, "too many connections");
	fake_reset(other.stream);
	fake_run(&bench.fake);
	assert_true(client_closed(&other));
	bench.deny_connect = true;
	client_open(&other, &bench);
	assert_true(client_closed(&other));
	assert_int_equal(fake_received(other.stream), 0);
	bench.deny_connect = false;
	bench.fake.fail_alloc = true;
	client_open(&other, &bench);
	bench.fake.fail_alloc = false;
	assert_true(client_closed(&other));
	client_open_flags(&client, &bench, BOTH);
	client_go(&client, "disk");
	client_bye(&client);
	nbd_server_stats(bench.server, &stats);
	assert_int_equal(stats.connections, 0);
	assert_int_equal(stats.connections_total, 3);
	assert_int_equal(stats.connections_refused, 4);
}

/* Everything a client may say before the first request, in one go, at any segmentation. */
UNIT(options_sent_ahead)
{
	const char *query = "base:allocation";
	static const uint8_t flags[4] = { 0, 0, 0, BOTH };
	static uint8_t stream[4096];

	bench_start(&bench);
	for (unsigned round = 0; round < 200; round++) {
		struct wcursor out = wcursor_of(stream, sizeof(stream));
		size_t length = client_meta_data(data, "disk", 1, &query);
		struct nbd_request_header request = { .magic = NBD_MAGIC_REQUEST,
						      .command = NBD_CMD_READ,
						      .length_bytes = 512 };

		client_open(&client, &bench);
		wcursor_bytes(&out, flags, 4);
		nbd_option_header_put(&out, NBD_OPT_STRUCTURED_REPLY, 0);
		nbd_option_header_put(&out, NBD_OPT_SET_META_CONTEXT, (uint32_t)length);
		wcursor_bytes(&out, data, length);
		length = client_go_data(data, "disk", 0, NULL);
		nbd_option_header_put(&out, NBD_OPT_GO, (uint32_t)length);
		wcursor_bytes(&out, data, length);
		nbd_request_header_put(&out, &request);
		request.command = NBD_CMD_DISC;
		nbd_request_header_put(&out, &request);
		assert_true(wcursor_ok(&out));
		fake_send(client.stream, stream, (size_t)(out.pos - stream));
		fake_run(&bench.fake);
		assert_true(client_closed(&client));
		assert_string_equal(bench.ended, "");
		/* Greeting, three ACKs, one context, two INFOs, one hole. */
		assert_int_equal(fake_received(client.stream),
				 18 + 3 * 20 + 20 + 19 + 20 + 12 + 20 + 14 + 20 + 12);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(abort_is_acknowledged),
		TEST(unknown_client_flags_end_the_connection),
		TEST(without_fixed_newstyle_only_export_name),
		TEST(export_name),
		TEST(list_shows_every_export),
		TEST(a_long_list_leaves_in_parts),
		TEST(go_tells_what_was_asked),
		TEST(go_refuses_nonsense_and_goes_on),
		TEST(out_of_memory_at_go_is_an_answer),
		TEST(unknown_and_long_options_are_skipped),
		TEST(absurd_options_end_the_connection),
		TEST(structured_replies_and_contexts),
		TEST(contexts_belong_to_their_export),
		TEST(tls_off_refuses_starttls),
		TEST(tls_required),
		TEST(bytes_behind_starttls_end_the_connection),
		TEST(a_failed_tls_handshake_says_why),
		TEST(the_handshake_has_a_deadline),
		TEST(peers_and_numbers_are_limited),
		TEST(options_sent_ahead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
