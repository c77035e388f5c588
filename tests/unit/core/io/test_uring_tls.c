/* SPDX-License-Identifier: Apache-2.0 */
/* TLS over real sockets: who is refused, and what each side is told. */
#include <openssl/ssl.h>
#include <pthread.h>

#include "tests/unit/core/io/stream_pair.h"

#define DAY_S (24L * 3600)

/* One side of a handshake: a certificate, and what it thinks of the other one. */
struct side {
	struct pki_spec spec;
	bool other_ca;	    /* its certificate is signed by another CA */
	const char *expect; /* the identity it expects */
	long crl_revokes;   /* -1: no list, 0: a list without entries */
	long crl_end_s;
};

struct refusal {
	const char *name;
	struct side server, client;
	int64_t server_res, client_res; /* of the handshake; the client's of its first receive */
	const char *server_words, *client_words;
};

#define GOOD(who)                                                                                  \
	{                                                                                          \
		.spec = { .san = "URI:holdfast://" who }, .crl_revokes = -1                        \
	}
#define SERVER_GOOD GOOD("server")
#define CLIENT_GOOD GOOD("client")

static const struct refusal refusals[] = {
	{ "nothing wrong", SERVER_GOOD, CLIENT_GOOD, 0, 0, "", "" },
	{ "expected names",
	  { .spec = { .san = "URI:holdfast://server,DNS:server.example" },
	    .expect = "client.example",
	    .crl_revokes = 0,
	    .crl_end_s = DAY_S },
	  { .spec = { .san = "DNS:client.example" },
	    .expect = "holdfast://server",
	    .crl_revokes = 0,
	    .crl_end_s = DAY_S },
	  0,
	  0,
	  "",
	  "" },
	{ "client of another CA",
	  SERVER_GOOD,
	  { .spec = { .san = "URI:holdfast://client" }, .other_ca = true, .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "signed by another CA",
	  "it is signed by another CA" },
	{ "server of another CA",
	  { .spec = { .san = "URI:holdfast://server" }, .other_ca = true, .crl_revokes = -1 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "it is signed by another CA",
	  "signed by another CA" },
	{ "client expired",
	  SERVER_GOOD,
	  { .spec = { .san = "URI:holdfast://client", .begin_s = -2 * DAY_S, .end_s = -DAY_S },
	    .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "expired on",
	  "it has expired" },
	{ "server expired",
	  { .spec = { .san = "URI:holdfast://server", .begin_s = -2 * DAY_S, .end_s = -DAY_S },
	    .crl_revokes = -1 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "it has expired",
	  "expired on" },
	{ "client not yet valid",
	  SERVER_GOOD,
	  { .spec = { .san = "URI:holdfast://client", .begin_s = DAY_S, .end_s = 2 * DAY_S },
	    .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "is not valid before",
	  "not valid yet" },
	{ "server not yet valid",
	  { .spec = { .san = "URI:holdfast://server", .begin_s = DAY_S, .end_s = 2 * DAY_S },
	    .crl_revokes = -1 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "not valid yet",
	  "is not valid before" },
	{ "client revoked",
	  { .spec = { .san = "URI:holdfast://server" }, .crl_revokes = 77, .crl_end_s = DAY_S },
	  { .spec = { .san = "URI:holdfast://client", .serial = 77 }, .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "has been revoked",
	  "it has been revoked" },
	{ "server revoked",
	  { .spec = { .san = "URI:holdfast://server", .serial = 77 }, .crl_revokes = -1 },
	  { .spec = { .san = "URI:holdfast://client" }, .crl_revokes = 77, .crl_end_s = DAY_S },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "it has been revoked",
	  "has been revoked" },
	{ "the server's revocation list is too old",
	  { .spec = { .san = "URI:holdfast://server" }, .crl_revokes = 0, .crl_end_s = -1800 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "revocation list has expired",
	  "refuses this node's certificate" },
	{ "client of the wrong name",
	  { .spec = { .san = "URI:holdfast://server" },
	    .expect = "holdfast://other",
	    .crl_revokes = -1 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "is for \"holdfast://client\", expected \"holdfast://other\"",
	  "wrong name" },
	{ "server of the wrong name",
	  SERVER_GOOD,
	  { .spec = { .san = "URI:holdfast://client" },
	    .expect = "holdfast://serve",
	    .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "wrong name",
	  "is for \"holdfast://server\", expected \"holdfast://serve\"" },
	{ "wildcards are names like any other",
	  { .spec = { .san = "DNS:*.example" }, .crl_revokes = -1 },
	  { .spec = { .san = "DNS:client" }, .expect = "a.example", .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "wrong name",
	  "is for \"*.example\"" },
	{ "client's certificate is for servers",
	  SERVER_GOOD,
	  { .spec = { .san = "URI:holdfast://client", .eku = "serverAuth" }, .crl_revokes = -1 },
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "extended key usage",
	  "extended key usage" },
	{ "server's certificate is for clients",
	  { .spec = { .san = "URI:holdfast://server", .eku = "clientAuth" }, .crl_revokes = -1 },
	  CLIENT_GOOD,
	  -EKEYREJECTED,
	  -EKEYREJECTED,
	  "extended key usage",
	  "extended key usage" },
};

static struct io_tls *side_tls(const struct temp_dir *dir, const char *who, const struct side *side,
			       struct pki_ca *ca, struct pki_ca *other)
{
	char cert[300], key[300], crl[300], ca_path[300], error[256] = "";
	struct tls_config config = { .ca_path = ca_path, .cert_path = cert, .key_path = key };
	struct io_tls *tls;

	(void)snprintf(ca_path, sizeof(ca_path), "%s/ca", dir->path);
	(void)snprintf(cert, sizeof(cert), "%s/%s.cert", dir->path, who);
	(void)snprintf(key, sizeof(key), "%s/%s.key", dir->path, who);
	(void)snprintf(crl, sizeof(crl), "%s/%s.crl", dir->path, who);
	pki_issue(side->other_ca ? other : ca, &side->spec, cert, key);
	if (side->crl_revokes >= 0) {
		pki_revoke(ca, side->crl_revokes, side->crl_end_s, crl);
		config.crl_path = crl;
	}
	if (tls_new(&config, &tls, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return tls;
}

static void expect_words(const char *name, const char *who, const char *said, const char *words)
{
	if (*words ? !strstr(said, words) : *said)
		fail_msg("%s: %s says \"%s\", which lacks \"%s\"", name, who, said, words);
}

static void expect_res(const char *name, const char *who, int64_t res, int64_t expected,
		       const char *said)
{
	if (res != expected)
		fail_msg("%s: %s has %lld instead of %lld (\"%s\")", name, who, (long long)res,
			 (long long)expected, said);
}

/* A client learns of its refusal with its first receive. */
static int64_t client_outcome(struct pair *pair, struct waited *handshake)
{
	int64_t res = finish(handshake);
	char byte;

	return res < 0 ? res : do_recv(pair->io, pair->client, &byte, 1, 1);
}

static void try_refusal(const struct refusal *refusal, struct pair *pair, struct pki_ca *ca,
			struct pki_ca *other)
{
	struct io_tls *server_tls = side_tls(&pair->dir, "server", &refusal->server, ca, other);
	struct io_tls *client_tls = side_tls(&pair->dir, "client", &refusal->client, ca, other);
	struct waited server = { 0 }, client = { 0 };
	int64_t res;

	pair_connect(pair);
	io_start_tls(pair->server, server_tls, true, refusal->server.expect,
		     arm(&server, pair->io));
	io_start_tls(pair->client, client_tls, false, refusal->client.expect,
		     arm(&client, pair->io));
	assert_false(server.done || client.done);
	res = finish(&server);
	expect_res(refusal->name, "server", res, refusal->server_res,
		   io_stream_error(pair->server));
	expect_words(refusal->name, "server", io_stream_error(pair->server), refusal->server_words);
	if (res == 0) {
		const char *expect = refusal->server.expect;

		assert_string_equal(io_stream_peer(pair->server)->identity,
				    expect ? expect : "holdfast://client");
		assert_int_equal(do_send(pair->io, pair->server, "x", 1), 1);
		assert_int_equal(client_outcome(pair, &client), 1);
		expect = refusal->client.expect;
		assert_string_equal(io_stream_peer(pair->client)->identity,
				    expect ? expect : "holdfast://server");
	} else {
		assert_string_equal(io_stream_peer(pair->server)->identity, "");
		/* A broken stream passes nothing, and says so each time. */
		assert_int_equal(do_send(pair->io, pair->server, "x", 1), res);
		io_stream_close(pair->server);
		pair->server = NULL;
		res = client_outcome(pair, &client);
		expect_res(refusal->name, "client", res, refusal->client_res,
			   io_stream_error(pair->client));
	}
	expect_words(refusal->name, "client", io_stream_error(pair->client), refusal->client_words);
	io_stream_close(pair->client);
	io_stream_close(pair->server);
	pair->client = pair->server = NULL;
	tls_free(server_tls);
	tls_free(client_tls);
}

static struct pair *plain_pair(void)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);

	io_stream_close(pair->client);
	io_stream_close(pair->server);
	pair->client = pair->server = NULL;
	return pair;
}

UNIT(who_is_refused_and_why)
{
	struct pair *pair = plain_pair();
	struct pki_ca *ca = pki_ca_new(in_dir(&pair->dir, "ca"));
	struct pki_ca *other = pki_ca_new(in_dir(&pair->dir, "other-ca"));

	for (size_t i = 0; i < array_len(refusals); i++)
		try_refusal(&refusals[i], pair, ca, other);
	pki_ca_free(ca);
	pki_ca_free(other);
	pair_free(pair);
}

/* The first thing that a refused client does may be to send: the reason must not be lost. */
UNIT(a_refused_client_that_sends_learns_why)
{
	static const struct side revoking = { .spec = { .san = "URI:holdfast://server" },
					      .crl_revokes = 77,
					      .crl_end_s = DAY_S };
	static const struct side revoked = {
		.spec = { .san = "URI:holdfast://client", .serial = 77 }, .crl_revokes = -1
	};
	struct pair *pair = plain_pair();
	struct pki_ca *ca = pki_ca_new(in_dir(&pair->dir, "ca"));
	struct io_tls *server_tls = side_tls(&pair->dir, "server", &revoking, ca, ca);
	struct io_tls *client_tls = side_tls(&pair->dir, "client", &revoked, ca, ca);
	struct waited server = { 0 }, client = { 0 };
	static uint8_t bytes[1 << 20];
	int64_t res;

	pair_connect(pair);
	io_start_tls(pair->server, server_tls, true, NULL, arm(&server, pair->io));
	io_start_tls(pair->client, client_tls, false, NULL, arm(&client, pair->io));
	assert_int_equal(finish(&server), -EKEYREJECTED);
	assert_int_equal(finish(&client), 0);
	io_stream_close(pair->server);
	pair->server = NULL;
	for (int i = 0; i < 100; i++) {
		res = do_send(pair->io, pair->client, bytes, sizeof(bytes));
		if (res < 0)
			break;
	}
	assert_int_equal(res, -EKEYREJECTED);
	assert_non_null(strstr(io_stream_error(pair->client), "it has been revoked"));
	tls_free(server_tls);
	tls_free(client_tls);
	pki_ca_free(ca);
	pair_free(pair);
}

/* ---- clients that are not ours ---- */

struct foreign {
	const char *name;
	struct pki_spec spec;
	bool no_cert;
	const char *alpn; /* NULL: none */
	int version_max;
	int64_t res;
	const char *words;
	/* for the thread */
	const struct pair *pair;
	bool read_byte;
};

static const struct foreign foreigners[] = {
	{ .name = "a client without ALPN", .spec = { .san = "DNS:nbd.client" } },
	{ .name = "a client with ours",
	  .spec = { .san = "DNS:nbd.client" },
	  .alpn = "\x0aholdfast/1" },
	{ .name = "a client of two protocols",
	  .spec = { .san = "DNS:nbd.client" },
	  .alpn = "\x02h2\x0aholdfast/1" },
	{ .name = "a client of another protocol",
	  .spec = { .san = "DNS:nbd.client" },
	  .alpn = "\x02h2",
	  .res = -EPROTO,
	  .words = "does not speak holdfast/1" },
	{ .name = "no certificate",
	  .no_cert = true,
	  .res = -EKEYREJECTED,
	  .words = "presented no certificate" },
	{ .name = "no name", .spec = { 0 }, .res = -EKEYREJECTED, .words = "no usable name" },
	{ .name = "a name with a NUL",
	  .spec = { .raw_dns = "client\0.evil", .raw_dns_len = 12 },
	  .res = -EKEYREJECTED,
	  .words = "no usable name" },
	{ .name = "no TLS 1.3",
	  .spec = { .san = "DNS:nbd.client" },
	  .version_max = TLS1_2_VERSION,
	  .res = -EPROTO,
	  .words = "offers no TLS 1.3" },
};

static void *foreign_main(void *argument)
{
	struct foreign *foreign = argument;
	const struct temp_dir *dir = &foreign->pair->dir;
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	int fd = raw_client(foreign->pair);
	char cert[300], key[300], byte;
	SSL *ssl;

	(void)snprintf(cert, sizeof(cert), "%s/client.cert", dir->path);
	(void)snprintf(key, sizeof(key), "%s/client.key", dir->path);
	must(context);
	if (!foreign->no_cert) {
		must(SSL_CTX_use_certificate_file(context, cert, SSL_FILETYPE_PEM) == 1);
		must(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1);
	}
	if (foreign->version_max)
		must(SSL_CTX_set_max_proto_version(context, foreign->version_max) == 1);
	ssl = SSL_new(context);
	must(ssl);
	if (foreign->alpn)
		must(SSL_set_alpn_protos(ssl, (const unsigned char *)foreign->alpn,
					 (unsigned)strlen(foreign->alpn)) == 0);
	must(SSL_set_fd(ssl, fd) == 1);
	foreign->read_byte = SSL_connect(ssl) == 1 && SSL_read(ssl, &byte, 1) == 1 && byte == 'x';
	if (foreign->read_byte)
		(void)SSL_shutdown(ssl);
	SSL_free(ssl);
	SSL_CTX_free(context);
	must(close(fd) == 0);
	return NULL;
}

static void try_foreign(struct foreign foreign, struct pair *pair, struct io_tls *tls,
			struct pki_ca *ca)
{
	struct waited waited = { 0 };
	pthread_t thread;
	const char *said;
	int64_t res;
	char byte;

	foreign.pair = pair;
	pki_issue(ca, &foreign.spec, in_dir(&pair->dir, "client.cert"),
		  in_dir(&pair->dir, "client.key"));
	assert_int_equal(pthread_create(&thread, NULL, foreign_main, &foreign), 0);
	io_accept(pair->listener, &pair->server, arm(&waited, pair->io));
	assert_int_equal(finish(&waited), 0);
	io_start_tls(pair->server, tls, true, NULL, arm(&waited, pair->io));
	res = finish(&waited);
	said = io_stream_error(pair->server);
	expect_res(foreign.name, "server", res, foreign.res, said);
	expect_words(foreign.name, "server", said, foreign.words ? foreign.words : "");
	if (res == 0) {
		assert_string_equal(io_stream_peer(pair->server)->identity, "nbd.client");
		assert_int_equal(do_send(pair->io, pair->server, "x", 1), 1);
		assert_int_equal(do_recv(pair->io, pair->server, &byte, 1, 1), 0);
	}
	io_stream_close(pair->server);
	pair->server = NULL;
	run_for_ms(pair->io, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(foreign.read_byte, res == 0);
}

UNIT(clients_that_are_not_ours)
{
	static const struct side server = SERVER_GOOD;
	struct pair *pair = plain_pair();
	struct pki_ca *ca = pki_ca_new(in_dir(&pair->dir, "ca"));
	struct io_tls *tls = side_tls(&pair->dir, "server", &server, ca, ca);

	for (size_t i = 0; i < array_len(foreigners); i++)
		try_foreign(foreigners[i], pair, tls, ca);
	tls_free(tls);
	pki_ca_free(ca);
	pair_free(pair);
}

/* ---- peers that fall silent, hang up or talk nonsense ---- */

UNIT(a_peer_that_does_not_speak_tls)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct waited waited = { 0 };

	pair->tls = node_tls(&pair->dir);
	assert_int_equal(do_send(pair->io, pair->client, "SSH-2.0-OpenSSH_9.2\r\n", 21), 21);
	io_start_tls(pair->server, pair->tls, true, NULL, arm(&waited, pair->io));
	assert_int_equal(finish(&waited), -EPROTO);
	assert_non_null(strstr(io_stream_error(pair->server), "does not speak TLS"));
	pair_free(pair);
}

UNIT(a_peer_that_hangs_up)
{
	struct pair *pair = pair_new(TRANSPORT_TCP);
	struct waited waited = { 0 };

	pair->tls = node_tls(&pair->dir);
	io_start_tls(pair->client, pair->tls, false, NULL, arm(&waited, pair->io));
	run_for_ms(pair->io, 5);
	io_stream_close(pair->server);
	pair->server = NULL;
	assert_int_equal(finish(&waited), -ECONNRESET);
	assert_non_null(strstr(io_stream_error(pair->client), "ended the connection"));
	pair_free(pair);
}

UNIT(closing_in_the_middle_of_a_handshake)
{
	for (int kind = 0; kind < 4; kind++) {
		bool server = kind & 1, wait_first = kind & 2;
		struct pair *pair = pair_new(TRANSPORT_TCP);
		struct io_stream **stream = server ? &pair->server : &pair->client;
		struct waited waited = { 0 };

		pair->tls = node_tls(&pair->dir);
		io_start_tls(*stream, pair->tls, server, NULL, arm(&waited, pair->io));
		if (wait_first)
			run_for_ms(pair->io, 5);
		io_stream_close(*stream);
		*stream = NULL;
		assert_false(waited.done);
		assert_int_equal(finish(&waited), -ECANCELED);
		pair_free(pair);
	}
}

/* A cut without goodbye must not look like the end of the stream: here the sender was closed in the
 * middle of a send, so its goodbye could not follow. */
UNIT(a_cut_is_not_an_end)
{
	struct pair *pair = pair_new(TRANSPORT_TLS);
	struct waited sending = { 0 };
	const size_t len = 64u << 20;
	uint8_t *big = calloc(1, len);
	struct iovec iov = { big, len };
	int64_t res;

	assert_non_null(big);
	io_sendv(pair->client, &iov, 1, arm(&sending, pair->io));
	run_for_ms(pair->io, 20);
	io_stream_close(pair->client);
	pair->client = NULL;
	assert_int_equal(finish(&sending), -ECANCELED);
	do {
		res = do_recv(pair->io, pair->server, big, 1, len);
	} while (res > 0);
	assert_int_equal(res, -ECONNRESET);
	assert_true(io_stream_error(pair->server)[0]);
	free(big);
	pair_free(pair);
}

/* Connections made after a reload use the new files, older ones live on. */
UNIT(reloading)
{
	static const struct side server = SERVER_GOOD, client = CLIENT_GOOD;
	struct pair *pair = plain_pair();
	struct pki_ca *ca = pki_ca_new(in_dir(&pair->dir, "ca"));
	struct io_tls *server_tls = side_tls(&pair->dir, "server", &server, ca, ca);
	struct io_tls *client_tls = side_tls(&pair->dir, "client", &client, ca, ca);
	struct waited served = { 0 }, connected = { 0 };
	struct io_stream *old_client = NULL, *old_server = NULL;
	struct pki_ca *new_ca = NULL;
	char error[256], byte;

	for (int round = 0; round < 2; round++) {
		pair_connect(pair);
		io_start_tls(pair->server, server_tls, true, NULL, arm(&served, pair->io));
		io_start_tls(pair->client, client_tls, false, NULL, arm(&connected, pair->io));
		assert_int_equal(finish(&served), round == 0 ? 0 : -EKEYREJECTED);
		(void)finish(&connected);
		if (round == 1)
			break;
		old_client = pair->client;
		old_server = pair->server;
		new_ca = pki_ca_new(in_dir(&pair->dir, "ca"));
		pki_issue(new_ca, &server.spec, in_dir(&pair->dir, "server.cert"),
			  in_dir(&pair->dir, "server.key"));
		assert_int_equal(tls_reload(server_tls, error, sizeof(error)), 0);
	}
	assert_int_equal(do_send(pair->io, old_client, "x", 1), 1);
	assert_int_equal(do_recv(pair->io, old_server, &byte, 1, 1), 1);
	io_stream_close(old_client);
	io_stream_close(old_server);
	tls_free(server_tls);
	tls_free(client_tls);
	pki_ca_free(ca);
	pki_ca_free(new_ca);
	pair_free(pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_refused_and_why),
		cmocka_unit_test(a_refused_client_that_sends_learns_why),
		cmocka_unit_test(clients_that_are_not_ours),
		cmocka_unit_test(a_peer_that_does_not_speak_tls),
		cmocka_unit_test(a_peer_that_hangs_up),
		cmocka_unit_test(closing_in_the_middle_of_a_handshake),
		cmocka_unit_test(a_cut_is_not_an_end),
		cmocka_unit_test(reloading),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
