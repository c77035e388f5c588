/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core/block/nbd_client.h"

#include <stdio.h>
#include <string.h>

#include "core/base/must.h"

/* ---- the server --------------------------------------------------------------------------------
 */

static struct export *find(void *owner, const char *name, size_t name_length_bytes)
{
	struct bench *bench = owner;

	if (name_length_bytes == 0)
		return &bench->disk.export;
	if (name_length_bytes == 4 && memcmp(name, "disk", 4) == 0)
		return &bench->disk.export;
	if (name_length_bytes == 8 && memcmp(name, "readonly", 8) == 0)
		return &bench->readonly.export;
	return NULL;
}

static struct export *list(void *owner, size_t index)
{
	struct bench *bench = owner;

	if (index == 0)
		return &bench->disk.export;
	return index == 1 ? &bench->readonly.export : NULL;
}

static bool may_connect(void *owner, const struct io_peer *peer)
{
	struct bench *bench = owner;

	must(peer->uid == 1000);
	return !bench->deny_connect;
}

static bool may_open(void *owner, const struct io_peer *peer, const struct export *export)
{
	struct bench *bench = owner;

	must(peer && export);
	return !bench->deny;
}

static void observe(void *owner, const struct nbd_observation *observation)
{
	struct bench *bench = owner;

	must(observation->export && observation->op >= EXPORT_READ);
	bench->observed++;
}

static void ended(void *owner, const struct io_peer *peer, const struct export *export,
		  const char *reason)
{
	struct bench *bench = owner;

	must(peer);
	(void)export;
	(void)snprintf(bench->ended, sizeof(bench->ended), "%s", reason);
	bench->ended_count++;
}

void bench_init(struct bench *bench, uint64_t seed)
{
	memset(bench, 0, sizeof(*bench));
	fake_io_init(&bench->fake, seed);
	fake_export_init(&bench->disk, &bench->fake, "disk");
	bench->disk.export.description = "a disk";
	fake_export_init(&bench->readonly, &bench->fake, "readonly");
	bench->readonly.export.limits.read_only = true;
	bench->hooks = (struct nbd_hooks){
		.find = find,
		.list = list,
		.may_connect = may_connect,
		.may_open = may_open,
		.observe = observe,
		.ended = ended,
	};
	bench->config = (struct nbd_server_config){
		.hooks = &bench->hooks,
		.owner = bench,
		.buffer_bytes = 4u << 20,
	};
}

void bench_start(struct bench *bench)
{
	static const struct io_address address = { .text = "unix:/fake" };

	bench->config.listen = &address;
	must(nbd_server_new(&bench->fake.io, &bench->config, &bench->server) == 0);
	fake_run(&bench->fake);
}

static void stopped(void *arg)
{
	struct bench *bench = arg;

	bench->stopped = true;
	nbd_server_free(bench->server);
	bench->server = NULL;
}

void bench_done(struct bench *bench)
{
	if (bench->server)
		nbd_server_stop(bench->server, stopped, bench);
	fake_run(&bench->fake);
	must(bench->stopped);
	must(bench->fake.allocations == 0);
	fake_io_done(&bench->fake);
	fake_export_done(&bench->disk);
	fake_export_done(&bench->readonly);
}

/* ---- handshake ---------------------------------------------------------------------------------
 */

void client_open(struct client *client, struct bench *bench)
{
	memset(client, 0, sizeof(*client));
	client->bench = bench;
	client->fake = &bench->fake;
	client->stream = fake_connect(&bench->fake);
	fake_run(&bench->fake);
}

void client_open_flags(struct client *client, struct bench *bench, uint32_t flags)
{
	uint8_t greeting[NBD_GREETING_BYTES];
	uint8_t answer[4];
	struct rcursor in = rcursor_of(greeting, sizeof(greeting));
	struct wcursor out = wcursor_of(answer, sizeof(answer));

	client_open(client, bench);
	fake_take(client->stream, greeting, sizeof(greeting));
	must(rcursor_be64(&in) == NBD_MAGIC_GREETING);
	must(rcursor_be64(&in) == NBD_MAGIC_OPTION);
	must(rcursor_be16(&in) == (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
	wcursor_be32(&out, flags);
	fake_send(client->stream, answer, sizeof(answer));
	fake_run(client->fake);
}

void client_option(struct client *client, uint32_t option, const void *data, size_t length_bytes)
{
	uint8_t header[NBD_OPTION_HEADER_BYTES];
	struct wcursor out = wcursor_of(header, sizeof(header));

	nbd_option_header_put(&out, option, (uint32_t)length_bytes);
	fake_send(client->stream, header, sizeof(header));
	if (length_bytes > 0)
		fake_send(client->stream, data, length_bytes);
	fake_run(client->fake);
}

void client_reply(struct client *client, struct reply *ret_reply)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES];
	struct rcursor in = rcursor_of(header, sizeof(header));

	fake_take(client->stream, header, sizeof(header));
	must(rcursor_be64(&in) == NBD_MAGIC_OPTION_REPLY);
	ret_reply->option = rcursor_be32(&in);
	ret_reply->type = rcursor_be32(&in);
	ret_reply->length_bytes = rcursor_be32(&in);
	must(rcursor_done(&in) && ret_reply->length_bytes < sizeof(ret_reply->data));
	fake_take(client->stream, ret_reply->data, ret_reply->length_bytes);
	ret_reply->data[ret_reply->length_bytes] = 0;
}

uint32_t client_ask(struct client *client, uint32_t option, const void *data, size_t length_bytes)
{
	struct reply reply;

	client_option(client, option, data, length_bytes);
	client_reply(client, &reply);
	must(reply.option == option);
	return reply.type;
}

size_t client_go_data(uint8_t *data, const char *name, unsigned count, const uint16_t *infos)
{
	struct wcursor out = wcursor_of(data, 6 + strlen(name) + 2 * (size_t)count);

	wcursor_be32(&out, (uint32_t)strlen(name));
	wcursor_bytes(&out, name, strlen(name));
	wcursor_be16(&out, (uint16_t)count);
	for (unsigned i = 0; i < count; i++)
		wcursor_be16(&out, infos[i]);
	must(wcursor_ok(&out));
	return (size_t)(out.pos - data);
}

size_t client_meta_data(uint8_t *data, const char *name, unsigned count, const char **queries)
{
	struct wcursor out = wcursor_of(data, 4096);

	wcursor_be32(&out, (uint32_t)strlen(name));
	wcursor_bytes(&out, name, strlen(name));
	wcursor_be32(&out, count);
	for (unsigned i = 0; i < count; i++) {
		wcursor_be32(&out, (uint32_t)strlen(queries[i]));
		wcursor_bytes(&out, queries[i], strlen(queries[i]));
	}
	must(wcursor_ok(&out));
	return (size_t)(out.pos - data);
}

void client_go(struct client *client, const char *name)
{
	uint8_t data[512];
	struct reply reply;

	client_option(client, NBD_OPT_GO, data, client_go_data(data, name, 0, NULL));
	do {
		client_reply(client, &reply);
		must(reply.type == NBD_REP_INFO || reply.type == NBD_REP_ACK);
	} while (reply.type != NBD_REP_ACK);
}

void client_structured(struct client *client)
{
	must(client_ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK);
	client->structured = true;
}

void client_allocation(struct client *client, const char *name)
{
	const char *query = "base:allocation";
	uint8_t data[4096];
	struct reply reply;

	must(client_ask(client, NBD_OPT_SET_META_CONTEXT, data,
			client_meta_data(data, name, 1, &query)) == NBD_REP_META_CONTEXT);
	client_reply(client, &reply);
	must(reply.type == NBD_REP_ACK);
}

/* ---- requests ----------------------------------------------------------------------------------
 */

void client_request(struct client *client, uint16_t command, uint16_t flags, uint64_t offset_bytes,
		    uint32_t length_bytes, const void *data)
{
	uint8_t header[NBD_REQUEST_BYTES];
	struct wcursor out = wcursor_of(header, sizeof(header));
	struct nbd_request_header request = {
		.magic = NBD_MAGIC_REQUEST,
		.flags = flags,
		.command = command,
		.cookie = ++client->cookie,
		.offset_bytes = offset_bytes,
		.length_bytes = length_bytes,
	};

	nbd_request_header_put(&out, &request);
	fake_send(client->stream, header, sizeof(header));
	if (data)
		fake_send(client->stream, data, length_bytes);
}

static void take_chunk(struct client *client, struct answer *answer, struct rcursor in, void *data)
{
	uint8_t head[12];

	must(rcursor_be16(&in) == NBD_CHUNK_FLAG_DONE);
	answer->structured = true;
	answer->type = rcursor_be16(&in);
	answer->cookie = rcursor_be64(&in);
	fake_take(client->stream, head, 4);
	answer->length_bytes = be32_load(head);
	switch (answer->type) {
	case NBD_CHUNK_ERROR:
		fake_take(client->stream, head, 6);
		answer->error = be32_load(head);
		must(answer->length_bytes == 6u + be16_load(head + 4));
		must(answer->length_bytes - 6 < sizeof(answer->text));
		fake_take(client->stream, answer->text, answer->length_bytes - 6);
		break;
	case NBD_CHUNK_OFFSET_HOLE:
		fake_take(client->stream, head, 12);
		must(answer->length_bytes == 12);
		memset(data, 0, be32_load(head + 8));
		break;
	case NBD_CHUNK_OFFSET_DATA:
		fake_take(client->stream, head, 8);
		answer->length_bytes -= 8;
		fake_take(client->stream, data, answer->length_bytes);
		break;
	default:
		fake_take(client->stream, data, answer->length_bytes);
	}
}

void client_answer(struct client *client, struct answer *ret_answer, void *data, size_t read_bytes)
{
	uint8_t header[NBD_SIMPLE_REPLY_BYTES];
	struct rcursor in = rcursor_of(header, sizeof(header));
	uint32_t magic;

	memset(ret_answer, 0, sizeof(*ret_answer));
	fake_take(client->stream, header, sizeof(header));
	magic = rcursor_be32(&in);
	if (magic == NBD_MAGIC_CHUNK) {
		must(client->structured);
		take_chunk(client, ret_answer, in, data);
		return;
	}
	must(magic == NBD_MAGIC_SIMPLE_REPLY);
	ret_answer->error = rcursor_be32(&in);
	ret_answer->cookie = rcursor_be64(&in);
	if (read_bytes > 0 && ret_answer->error == NBD_OK) {
		must(!client->structured);
		fake_take(client->stream, data, read_bytes);
	}
}

uint32_t client_do(struct client *client, uint16_t command, uint16_t flags, uint64_t offset_bytes,
		   uint32_t length_bytes, void *data)
{
	struct answer answer;

	client_request(client, command, flags, offset_bytes, length_bytes,
		       command == NBD_CMD_WRITE ? data : NULL);
	fake_run(client->fake);
	client_answer(client, &answer, data, command == NBD_CMD_READ ? length_bytes : 0);
	must(answer.cookie == client->cookie);
	return answer.error;
}

bool client_closed(const struct client *client)
{
	return client->stream->closed;
}

void client_bye(struct client *client)
{
	client_request(client, NBD_CMD_DISC, 0, 0, 0, NULL);
	fake_run(client->fake);
	must(client->stream->closed);
}
