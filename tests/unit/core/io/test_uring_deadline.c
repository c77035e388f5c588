/* SPDX-License-Identifier: Apache-2.0 */
/* The network deadlines. They are 10 s, so all are waited for at the same time. */
#include "tests/unit/core/io/stream_pair.h"

#define DEADLINE_S 10u

/* A listening socket whose backlog is full drops further connection requests in silence. */
static int full_backlog(int fillers[], unsigned count, struct io_address *address)
{
	struct sockaddr_in place = { .sin_family = AF_INET };
	socklen_t len = sizeof(place);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	place.sin_addr.s_addr = inet_addr("127.0.0.1");
	assert_int_equal(bind(fd, (struct sockaddr *)&place, sizeof(place)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&place, &len), 0);
	for (unsigned i = 0; i < count; i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)connect(fillers[i], (struct sockaddr *)&place, sizeof(place));
	}
	(void)snprintf(address->text, sizeof(address->text), "127.0.0.1:%u",
		       __builtin_bswap16(place.sin_port));
	return fd;
}

UNIT(silence_ends_after_the_deadline)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct waited client = { 0 }, server = { 0 }, connecting = { 0 };
	struct io_stream *quiet_client = pair->client, *quiet_server = pair->server, *stream;
	struct io_address address;
	int fillers[4];
	int fd = full_backlog(fillers, array_len(fillers), &address);
	uint64_t begin = io_now(pair->io), spent;

	pair->tls = node_tls(&pair->dir);
	/* One side starts TLS and the other says nothing; another pair the other way around. */
	io_start_tls(quiet_server, pair->tls, true, NULL, arm(&server, pair->io));
	pair_connect(pair);
	io_start_tls(pair->client, pair->tls, false, NULL, arm(&client, pair->io));
	io_connect(pair->io, &address, &stream, arm(&connecting, pair->io));
	run_for_ms(pair->io, (DEADLINE_S - 1) * 1000);
	assert_false(client.done || server.done || connecting.done);
	assert_int_equal(finish(&server), -ETIMEDOUT);
	assert_int_equal(finish(&client), -ETIMEDOUT);
	assert_int_equal(finish(&connecting), -ETIMEDOUT);
	spent = io_now(pair->io) - begin;
	assert_true(spent >= DEADLINE_S * 1000000000ull &&
		    spent < (DEADLINE_S + 3) * 1000000000ull);
	assert_non_null(strstr(io_stream_error(pair->client), "took longer than 10 s"));
	assert_non_null(strstr(io_stream_error(quiet_server), "took longer than 10 s"));
	io_stream_close(quiet_client);
	io_stream_close(quiet_server);
	for (size_t i = 0; i < array_len(fillers); i++)
		assert_int_equal(close(fillers[i]), 0);
	assert_int_equal(close(fd), 0);
	pair_free(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silence_ends_after_the_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
