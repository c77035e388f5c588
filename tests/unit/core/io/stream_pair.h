/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of one connection on one loop, over each kind of transport. */
#ifndef HOLDFAST_TESTS_UNIT_CORE_IO_STREAM_PAIR_H
#define HOLDFAST_TESTS_UNIT_CORE_IO_STREAM_PAIR_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/io/tls.h"
#include "tests/unit/core/io/on_loop.h"
#include "tests/unit/core/io/pki.h"

enum transport {
	TRANSPORT_UNIX,
	TRANSPORT_TCP,
	TRANSPORT_TLS,
};

struct pair {
	struct temp_dir dir;
	struct io *io;
	struct io_listener *listener;
	struct io_address address;
	struct io_stream *client, *server;
	struct io_tls *tls; /* both ends are the same node */
	enum transport transport;
};

MAYBE_UNUSED static struct io_tls *node_tls(const struct temp_dir *dir)
{
	const struct pki_spec spec = { .san = "URI:holdfast://node" };
	const struct tls_config config = { .ca_path = in_dir(dir, "ca"),
					   .cert_path = in_dir(dir, "cert"),
					   .key_path = in_dir(dir, "key") };
	struct pki_ca *ca = pki_ca_new(config.ca_path);
	struct io_tls *tls;
	char error[256] = "";

	pki_issue(ca, &spec, config.cert_path, config.key_path);
	pki_ca_free(ca);
	if (tls_new(&config, &tls, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return tls;
}

MAYBE_UNUSED static void pair_listen(struct pair *pair)
{
	const struct io_address any_port = { "127.0.0.1:0" };

	if (pair->transport == TRANSPORT_UNIX) {
		(void)snprintf(pair->address.text, sizeof(pair->address.text), "unix:%.200s/socket",
			       pair->dir.path);
		assert_int_equal(io_listen(pair->io, &pair->address, &pair->listener), 0);
	} else {
		assert_int_equal(io_listen(pair->io, &any_port, &pair->listener), 0);
		assert_true(uring_listener_port(pair->listener) > 0);
		(void)snprintf(pair->address.text, sizeof(pair->address.text), "127.0.0.1:%d",
			       uring_listener_port(pair->listener));
	}
}

/* A connection, still plain. */
MAYBE_UNUSED static void pair_connect(struct pair *pair)
{
	struct waited accepted = { 0 }, connected = { 0 };

	io_accept(pair->listener, &pair->server, arm(&accepted, pair->io));
	io_connect(pair->io, &pair->address, &pair->client, arm(&connected, pair->io));
	assert_int_equal(finish(&connected), 0);
	assert_int_equal(finish(&accepted), 0);
}

MAYBE_UNUSED static void pair_start_tls(struct pair *pair)
{
	struct waited server = { 0 }, client = { 0 };

	io_start_tls(pair->server, pair->tls, true, NULL, arm(&server, pair->io));
	io_start_tls(pair->client, pair->tls, false, "holdfast://node", arm(&client, pair->io));
	assert_int_equal(finish(&client), 0);
	assert_int_equal(finish(&server), 0);
	assert_string_equal(io_stream_peer(pair->server)->identity, "holdfast://node");
	assert_string_equal(io_stream_peer(pair->client)->identity, "holdfast://node");
}

MAYBE_UNUSED static struct pair *pair_new(enum transport transport)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	assert_non_null(pair);
	pair->transport = transport;
	pair->io = new_loop();
	temp_dir_make(&pair->dir);
	pair_listen(pair);
	pair_connect(pair);
	if (transport == TRANSPORT_TLS) {
		pair->tls = node_tls(&pair->dir);
		pair_start_tls(pair);
	}
	return pair;
}

MAYBE_UNUSED static void pair_free(struct pair *pair)
{
	io_stream_close(pair->client);
	io_stream_close(pair->server);
	io_listener_close(pair->listener);
	run_for_ms(pair->io, 1);
	uring_free(pair->io);
	tls_free(pair->tls);
	temp_dir_remove(&pair->dir);
	free(pair);
}

MAYBE_UNUSED static int64_t do_recv(struct io *io, struct io_stream *stream, void *buf, size_t min,
				    size_t max)
{
	struct waited waited = { 0 };

	io_recv(stream, buf, min, max, arm(&waited, io));
	return finish(&waited);
}

MAYBE_UNUSED static int64_t do_send(struct io *io, struct io_stream *stream, const void *buf,
				    size_t len)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct waited waited = { 0 };

	io_sendv(stream, &iov, 1, arm(&waited, io));
	return finish(&waited);
}

/* A blocking socket of the kernel's own API, connected to the listener. */
MAYBE_UNUSED static int raw_client(const struct pair *pair)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	int fd;

	if (pair->transport == TRANSPORT_UNIX) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		(void)snprintf(path.sun_path, sizeof(path.sun_path), "%.100s",
			       pair->address.text + 5);
		assert_int_equal(connect(fd, (struct sockaddr *)&path, sizeof(path)), 0);
		return fd;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = inet_addr("127.0.0.1");
	address.sin_port = __builtin_bswap16((uint16_t)uring_listener_port(pair->listener));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

#endif
