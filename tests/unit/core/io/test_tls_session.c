/* SPDX-License-Identifier: Apache-2.0 */
/* TLS sessions back to back in memory: segmentation, key updates, damage, ends. */
#include "core/io/tls.h"
#include "core/io/tls_session.h"
#include "tests/unit/core/io/on_loop.h"
#include "tests/unit/core/io/pki.h"

struct fixture {
	struct temp_dir dir;
	struct io_tls *tls;
	struct tls_session *client, *server;
	uint64_t random;
	size_t moved[2];
};

static uint64_t next_random(struct fixture *f)
{
	f->random = f->random * 6364136223846793005u + 1442695040888963407u;
	return f->random >> 33;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct pki_spec spec = { .san = "URI:holdfast://node,DNS:node.example" };
	struct tls_config config;
	struct pki_ca *ca;
	char error[256] = "";

	assert_non_null(f);
	temp_dir_make(&f->dir);
	config = (struct tls_config){ .ca_path = in_dir(&f->dir, "ca"),
				      .cert_path = in_dir(&f->dir, "cert"),
				      .key_path = in_dir(&f->dir, "key") };
	ca = pki_ca_new(config.ca_path);
	pki_issue(ca, &spec, config.cert_path, config.key_path);
	pki_ca_free(ca);
	if (tls_new(&config, &f->tls, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	assert_int_equal(tls_session_new(f->tls, false, "holdfast://node", "server", &f->client),
			 0);
	assert_int_equal(tls_session_new(f->tls, true, NULL, "client", &f->server), 0);
	f->random = 42;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	tls_session_free(f->client);
	tls_session_free(f->server);
	tls_free(f->tls);
	temp_dir_remove(&f->dir);
	free(f);
	return 0;
}

/* Moves up to `max` ciphertext bytes. */
static size_t carry(struct fixture *f, struct tls_session *from, struct tls_session *to, size_t max)
{
	size_t out_len, in_len, len;
	const uint8_t *out = tls_session_output(from, &out_len);
	uint8_t *in = tls_session_input(to, &in_len);

	assert_true(in_len > 0);
	len = min_size(min_size(out_len, in_len), max);
	memcpy(in, out, len);
	tls_session_output_taken(from, len);
	tls_session_input_filled(to, len);
	f->moved[to == f->server] += len;
	return len;
}

static void shake(struct fixture *f)
{
	int client = 1, server = 1;

	for (int i = 0; i < 10000 && (client || server); i++) {
		if (client)
			client = tls_session_handshake(f->client);
		if (server)
			server = tls_session_handshake(f->server);
		assert_true(client >= 0 && server >= 0);
		(void)carry(f, f->client, f->server, 1 + next_random(f) % 100);
		(void)carry(f, f->server, f->client, 1 + next_random(f) % 100);
	}
	assert_int_equal(client, 0);
	assert_int_equal(server, 0);
	while (carry(f, f->client, f->server, SIZE_MAX))
		;
}

static void handshake_in_small_pieces(void **state)
{
	struct fixture *f = *state;

	shake(f);
	assert_string_equal(tls_session_identity(f->client), "holdfast://node");
	assert_string_equal(tls_session_identity(f->server), "holdfast://node");
	assert_string_equal(tls_session_error(f->client), "");
}

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

/* Sends `total` bytes from one to the other in odd pieces and checks them. */
static void stream_through(struct fixture *f, struct tls_session *from, struct tls_session *to,
			   uint64_t total, size_t carry_max)
{
	static uint8_t out[300000], in[100000];
	uint64_t sent = 0, received = 0;

	while (received < total) {
		struct iovec iov[5];
		size_t len = 0, taken = 0;
		unsigned count = 1 + (unsigned)(next_random(f) % 5);
		int res;

		for (unsigned i = 0; i < count; i++) {
			size_t part = next_random(f) % (next_random(f) % 2 ? 100 : 60000);

			part = (size_t)min_u64(part, total - sent - len);
			iov[i] = (struct iovec){ out + len, part };
			len += part;
		}
		for (size_t i = 0; i < len; i++)
			out[i] = pattern(sent + i);
		res = tls_session_write(from, iov, count, &taken);
		assert_true(res == 0 || res == TLS_WANT_OUTPUT);
		sent += res == 0 ? taken : 0;
		(void)carry(f, from, to, 1 + next_random(f) % carry_max);
		for (;;) {
			res = tls_session_read(to, in, 1 + next_random(f) % sizeof(in), &len);
			if (res == TLS_WANT_INPUT)
				break;
			assert_int_equal(res, 0);
			for (size_t i = 0; i < len; i++)
				assert_int_equal(in[i], pattern(received + i));
			received += len;
		}
	}
	assert_int_equal(sent, total);
}

static void data_in_any_segmentation(void **state)
{
	struct fixture *f = *state;

	shake(f);
	stream_through(f, f->client, f->server, 200000, 700);
	stream_through(f, f->server, f->client, 200000, 700);
	stream_through(f, f->client, f->server, 8000000, 400000);
	stream_through(f, f->server, f->client, 8000000, 400000);
}

static void new_keys_on_the_way(void **state)
{
	struct fixture *f = *state;

	shake(f);
	tls_session_set_key_update(f->client, 50000);
	tls_session_set_key_update(f->server, 30000);
	stream_through(f, f->client, f->server, 3000000, 100000);
	stream_through(f, f->server, f->client, 3000000, 100000);
	stream_through(f, f->client, f->server, 3000000, 100000);
}

static void new_keys_are_announced(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[2 * TLS_RECORD_BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };
	size_t taken, len;

	shake(f);
	tls_session_set_key_update(f->client, 1);
	assert_int_equal(tls_session_write(f->client, &iov, 1, &taken), 0);
	(void)tls_session_output(f->client, &len);
	/* Two records and one key update between them (RFC 8446, 4.6.3). */
	assert_int_equal(len, 2 * (TLS_RECORD_BYTES + 22) + 22 + 5);
}

/* Small pieces share records; big ones are not copied together with more than needed. */
static void records_are_full(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[TLS_CHUNK_BYTES];
	struct iovec iov[3] = { { bytes, 60 },
				{ bytes, 0 },
				{ bytes, 10 * TLS_RECORD_BYTES - 60 } };
	size_t taken, len;

	shake(f);
	assert_int_equal(tls_session_write(f->client, iov, 3, &taken), 0);
	assert_int_equal(taken, 10 * TLS_RECORD_BYTES);
	(void)tls_session_output(f->client, &len);
	assert_int_equal(len, 10 * (TLS_RECORD_BYTES + 22));
}

static void output_is_bounded(void **state)
{
	struct fixture *f = *state;
	static uint8_t bytes[TLS_CHUNK_BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };
	size_t taken, len, total = 0;
	int res;

	shake(f);
	for (int i = 0; i < 10; i++) {
		res = tls_session_write(f->client, &iov, 1, &taken);
		(void)tls_session_output(f->client, &len);
		assert_true(len > 0);
		if (res == TLS_WANT_OUTPUT)
			break;
		assert_int_equal(res, 0);
		total += taken;
	}
	assert_int_equal(res, TLS_WANT_OUTPUT);
	assert_int_equal(total, 2 * TLS_CHUNK_BYTES);
}

static void a_flipped_bit_is_found(void **state)
{
	struct fixture *f = *state;
	struct iovec iov = { (void *)(uintptr_t) "hello", 5 };
	size_t taken, len;
	uint8_t *in;
	char got[16];

	shake(f);
	assert_int_equal(tls_session_write(f->client, &iov, 1, &taken), 0);
	in = tls_session_input(f->server, &len);
	len = carry(f, f->client, f->server, SIZE_MAX);
	in[len / 2] ^= 1;
	assert_int_equal(tls_session_read(f->server, got, sizeof(got), &len), -EPROTO);
	assert_string_equal(tls_session_error(f->server),
			    "data from client was changed on the way");
	/* It stays failed, and the other side is told. */
	assert_int_equal(tls_session_read(f->server, got, sizeof(got), &len), -EPROTO);
	assert_int_equal(tls_session_write(f->server, &iov, 1, &taken), -EPROTO);
	assert_true(carry(f, f->server, f->client, SIZE_MAX) > 0);
	assert_int_equal(tls_session_read(f->client, got, sizeof(got), &len), -EPROTO);
	assert_non_null(strstr(tls_session_error(f->client), "bad record mac"));
}

static void ends_with_and_without_goodbye(void **state)
{
	struct fixture *f = *state;
	struct iovec iov = { (void *)(uintptr_t) "hello", 5 };
	size_t taken, len;
	char got[16];

	shake(f);
	assert_int_equal(tls_session_write(f->client, &iov, 1, &taken), 0);
	tls_session_close(f->client);
	while (carry(f, f->client, f->server, SIZE_MAX))
		;
	assert_int_equal(tls_session_read(f->server, got, sizeof(got), &len), 0);
	assert_int_equal(len, 5);
	assert_int_equal(tls_session_read(f->server, got, sizeof(got), &len), TLS_CLOSED);
	assert_int_equal(tls_session_read(f->server, got, sizeof(got), &len), TLS_CLOSED);
	/* The other direction is cut. */
	tls_session_input_ended(f->client);
	assert_int_equal(tls_session_read(f->client, got, sizeof(got), &len), -ECONNRESET);
	assert_string_equal(tls_session_error(f->client),
			    "server ended the connection without closing TLS");
}

static void garbage_instead_of_tls(void **state)
{
	struct fixture *f = *state;
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	size_t len;

	memcpy(tls_session_input(f->server, &len), http, sizeof(http) - 1);
	tls_session_input_filled(f->server, sizeof(http) - 1);
	assert_int_equal(tls_session_handshake(f->server), -EPROTO);
	assert_string_equal(tls_session_error(f->server), "client does not speak TLS 1.3");
	for (int round = 0; round < 200; round++) {
		struct tls_session *session;
		uint8_t *in;

		assert_int_equal(tls_session_new(f->tls, round % 2, NULL, "x", &session), 0);
		(void)tls_session_handshake(session);
		in = tls_session_input(session, &len);
		for (size_t i = 0; i < 2000; i++)
			in[i] = (uint8_t)next_random(f);
		if (round % 3 == 0)
			memcpy(in, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
		tls_session_input_filled(session, 2000);
		tls_session_input_ended(session);
		assert_true(tls_session_handshake(session) < 0);
		assert_true(tls_session_error(session)[0]);
		tls_session_free(session);
	}
}

/* Whatever bit of the client's first message is flipped, no handshake comes of it. (Behind the
 * record's header: its version field means nothing.) */
static void damaged_handshakes(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 100; round++) {
		struct tls_session *client, *server;
		int client_res = 1, server_res = 1;
		size_t flip = 5 + next_random(f) % 195, seen = 0;

		assert_int_equal(tls_session_new(f->tls, false, NULL, "s", &client), 0);
		assert_int_equal(tls_session_new(f->tls, true, NULL, "c", &server), 0);
		for (int i = 0; i < 10; i++) {
			size_t room, len;
			uint8_t *in;

			if (client_res > 0)
				client_res = tls_session_handshake(client);
			in = tls_session_input(server, &room);
			len = carry(f, client, server, SIZE_MAX);
			if (flip >= seen && flip < seen + len)
				in[flip - seen] ^= (uint8_t)(1u << next_random(f) % 8);
			seen += len;
			if (server_res > 0)
				server_res = tls_session_handshake(server);
			(void)carry(f, server, client, SIZE_MAX);
		}
		assert_true(flip < seen);
		assert_int_not_equal(server_res, 0);
		tls_session_free(client);
		tls_session_free(server);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(handshake_in_small_pieces), TEST(data_in_any_segmentation),
		TEST(new_keys_on_the_way),	 TEST(new_keys_are_announced),
		TEST(records_are_full),		 TEST(output_is_bounded),
		TEST(a_flipped_bit_is_found),	 TEST(ends_with_and_without_goodbye),
		TEST(garbage_instead_of_tls),	 TEST(damaged_handshakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
