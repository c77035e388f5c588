/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's half of NBD for the unit tests, byte by byte, so that it can also say wrong things;
 * and a server with two exports to talk to.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_BLOCK_NBD_CLIENT_H
#define HOLDFAST_TESTS_UNIT_CORE_BLOCK_NBD_CLIENT_H

#include "core/block/nbd_server.h"
#include "proto/nbd.h"
#include "tests/unit/core/block/fake_export.h"
#include "tests/unit/core/block/fake_io.h"

struct bench {
	struct fake_io fake;
	struct fake_export disk;     /* "disk", also the default export */
	struct fake_export readonly; /* "readonly" */
	struct nbd_hooks hooks;
	struct nbd_server_config config;
	struct nbd_server *server;
	char ended[256]; /* the last reason */
	unsigned ended_count;
	unsigned observed;
	bool stopped;
	bool deny; /* may_open() says no */
	bool deny_connect;
};

/* Fills in hooks and defaults; change bench->config, then bench_start(). */
void bench_init(struct bench *bench, uint64_t seed);
void bench_start(struct bench *bench);
/* Stops the server, waits, frees; asserts that nothing leaked. */
void bench_done(struct bench *bench);

struct reply {
	uint32_t option, type, length_bytes;
	uint8_t data[5000];
};

struct client {
	struct bench *bench;
	struct fake_io *fake; /* whose loop is run while waiting */
	struct fake_stream *stream;
	bool structured;
	uint64_t cookie;
};

/* Connects; with flags, takes the greeting and sends them. */
void client_open(struct client *client, struct bench *bench);
void client_open_flags(struct client *client, struct bench *bench, uint32_t flags);
void client_option(struct client *client, uint32_t option, const void *data, size_t length_bytes);
/* Takes one option reply, which must be there. */
void client_reply(struct client *client, struct reply *ret_reply);
/* Sends the option, takes one reply, returns its type. */
uint32_t client_ask(struct client *client, uint32_t option, const void *data, size_t length_bytes);
/* GO, to the ACK; asserts success. */
void client_go(struct client *client, const char *name);
void client_structured(struct client *client);
void client_allocation(struct client *client, const char *name);
/* Data of GO and INFO: name and `count` info types. Returns its length. */
size_t client_go_data(uint8_t *data, const char *name, unsigned count, const uint16_t *infos);
/* Data of the META_CONTEXT options. */
size_t client_meta_data(uint8_t *data, const char *name, unsigned count, const char **queries);

/* Sends a request header (cookie = ++client->cookie) and `data`. */
void client_request(struct client *client, uint16_t command, uint16_t flags, uint64_t offset_bytes,
		    uint32_t length_bytes, const void *data);
struct answer {
	bool structured;
	uint32_t error;
	uint64_t cookie;
	uint16_t type; /* of the chunk */
	uint32_t length_bytes;
	char text[256];
};
/* Takes one reply; `data` receives what a READ brought (simple replies: `read_bytes` of it). */
void client_answer(struct client *client, struct answer *ret_answer, void *data, size_t read_bytes);
/* Request and its answer in one; returns the error. */
uint32_t client_do(struct client *client, uint16_t command, uint16_t flags, uint64_t offset_bytes,
		   uint32_t length_bytes, void *data);
bool client_closed(const struct client *client);
/* DISC, and the server closes. */
void client_bye(struct client *client);

#endif
