/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of an input are what an NBD client sends, from its handshake flags on. The first byte
 * of the input chooses the circumstances: bit 0 TLS required, bit 1 the client takes no replies,
 * bit 2 little memory, bit 3 the export fails, bit 4 the connection breaks at the end instead of
 * ending, bits 5-7 seed the segmentation.
 */
#include <errno.h>
#include <string.h>

#include "core/base/must.h"
#include "core/block/nbd_server.h"
#include "tests/fuzz/fuzz.h"
/* The strict loop of the unit tests; their objects are not linked here. */
#include "tests/unit/core/block/fake_export.c"
#include "tests/unit/core/block/fake_io.c"

struct world {
	struct fake_io fake;
	struct fake_export disk;
	bool stopped;
};

static struct export *find(void *owner, const char *name, size_t length_bytes)
{
	struct world *world = owner;
	uint8_t sum = 0;

	/* Reads every byte, for the sanitizer. */
	for (size_t i = 0; i < length_bytes; i++)
		sum = (uint8_t)(sum + (uint8_t)name[i]);
	return length_bytes <= 4 || sum % 2 ? &world->disk.export : NULL;
}

static struct export *list(void *owner, size_t index)
{
	struct world *world = owner;

	return index < 3 ? &world->disk.export : NULL;
}

static void stopped(void *arg)
{
	struct world *world = arg;

	world->stopped = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length_bytes)
{
	static const struct nbd_hooks hooks = { .find = find, .list = list };
	static const struct io_address address = { .text = "unix:/fuzz" };
	static char identity;
	static struct world world;
	uint8_t how = length_bytes > 0 ? bytes[0] : 0;
	struct nbd_server_config config = {
		.listen = &address,
		.hooks = &hooks,
		.owner = &world,
		.requests_max = 8,
		.buffer_bytes = how & 4 ? 1u << 20 : 4u << 20,
		.tls = how & 1 ? NBD_TLS_REQUIRED : NBD_TLS_OFF,
		.tls_identity = (struct io_tls *)&identity,
	};
	struct nbd_server *server;
	struct fake_stream *stream;

	memset(&world, 0, sizeof(world));
	fake_io_init(&world.fake, how >> 5);
	fake_export_init(&world.disk, &world.fake, "disk");
	world.disk.fail = how & 8 ? -EIO : 0;
	must(nbd_server_new(&world.fake.io, &config, &server) == 0);
	stream = fake_connect(&world.fake);
	stream->send_blocked = (how & 2) != 0;
	if (length_bytes > 1)
		fake_send(stream, bytes + 1, length_bytes - 1);
	fake_run(&world.fake);
	if (how & 16)
		fake_reset(stream);
	else
		fake_end(stream);
	fake_run(&world.fake);
	fake_advance(&world.fake, 20000000000ull);
	must(stream->closed);
	nbd_server_stop(server, stopped, &world);
	fake_run(&world.fake);
	must(world.stopped);
	nbd_server_free(server);
	must(world.fake.allocations == 0);
	fake_io_done(&world.fake);
	fake_export_done(&world.disk);
	return 0;
}
