/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/base/bitmap.h"
#include "core/base/must.h"
#include "tests/nbdserve/exports.h"

#define BLOCK_BYTES 4096u

struct ram {
	struct export export;
	struct io *io;
	uint8_t *data; /* NULL: the null export */
	struct bitmap written;
	struct list queue; /* in order of arrival */
	struct io_op op;
	struct io_timer timer;
	uint64_t delay_ns;
	bool pending;
};

static uint64_t first_block(const struct export_request *request)
{
	return request->offset_bytes / BLOCK_BYTES;
}

static uint64_t block_count(const struct export_request *request)
{
	uint64_t end = request->offset_bytes + request->length_bytes;

	return (end + BLOCK_BYTES - 1) / BLOCK_BYTES - first_block(request);
}

static void zero(struct ram *ram, const struct export_request *request)
{
	uint64_t first = round_up(request->offset_bytes, BLOCK_BYTES) / BLOCK_BYTES;
	uint64_t end = (request->offset_bytes + request->length_bytes) / BLOCK_BYTES;

	memset(ram->data + request->offset_bytes, 0, request->length_bytes);
	if (request->flags & EXPORT_NO_HOLE)
		bitmap_set_range(&ram->written, first_block(request), block_count(request));
	else if (end > first)
		bitmap_clear_range(&ram->written, first, end - first);
}

static int64_t map(struct ram *ram, struct export_request *request)
{
	uint64_t block = first_block(request);
	uint64_t end;

	request->hole = !bitmap_test(&ram->written, block);
	end = request->hole ? bitmap_next_set(&ram->written, block)
			    : bitmap_next_clear(&ram->written, block);
	end *= BLOCK_BYTES;
	return (int64_t)min_u64(end - request->offset_bytes, request->length_bytes);
}

static int64_t execute(struct ram *ram, struct export_request *request)
{
	if (!ram->data) {
		request->hole = false;
		return request->op == EXPORT_MAP ? (int64_t)request->length_bytes : 0;
	}
	switch (request->op) {
	case EXPORT_READ:
		memcpy(request->buf, ram->data + request->offset_bytes, request->length_bytes);
		return 0;
	case EXPORT_WRITE:
		memcpy(ram->data + request->offset_bytes, request->buf, request->length_bytes);
		bitmap_set_range(&ram->written, first_block(request), block_count(request));
		return 0;
	case EXPORT_TRIM:
	case EXPORT_WRITE_ZEROES:
		zero(ram, request);
		return 0;
	case EXPORT_MAP:
		return map(ram, request);
	case EXPORT_FLUSH:
	case EXPORT_CACHE:
		return 0;
	}
	return -EINVAL;
}

static void run(struct ram *ram)
{
	struct export_request *request;
	struct list now;

	list_init(&now);
	list_splice_back(&now, &ram->queue);
	ram->pending = false;
	while ((request = list_pop_front_as(&now, struct export_request, link)) != NULL)
		request->done(request, execute(ram, request));
}

static void deferred(struct io_op *op, int64_t res)
{
	(void)res;
	run(container_of(op, struct ram, op));
}

static void fired(struct io_timer *timer)
{
	run(container_of(timer, struct ram, timer));
}

static void submit(struct export *export, struct export_request *request)
{
	struct ram *ram = container_of(export, struct ram, export);

	list_push_back(&ram->queue, &request->link);
	if (ram->pending)
		return;
	ram->pending = true;
	if (ram->delay_ns > 0)
		io_timer_start(ram->io, &ram->timer, ram->delay_ns);
	else
		io_defer(ram->io, &ram->op, 0);
}

static int attach(struct export *export)
{
	(void)export;
	return 0;
}

static void detach(struct export *export)
{
	(void)export;
}

static const struct export_ops ram_ops = { .submit = submit, .attach = attach, .detach = detach };

struct export *null_export_new(struct io *io, const char *name, uint64_t size_bytes)
{
	struct ram *ram = io_alloc(io, sizeof(*ram), 64);

	if (!ram)
		return NULL;
	ram->io = io;
	ram->op.done = deferred;
	ram->timer.fire = fired;
	list_init(&ram->queue);
	ram->export = (struct export){
		.ops = &ram_ops,
		.name = name,
		.description = "takes everything, keeps nothing",
		.limits =
			{
				.size_bytes = size_bytes,
				.block_min_bytes = 1,
				.block_preferred_bytes = BLOCK_BYTES,
				.request_max_bytes = 64u << 20,
				.fast_zero = true,
			},
	};
	return &ram->export;
}

struct export *ram_export_new(struct io *io, const char *name, uint64_t size_bytes,
			      uint64_t delay_ns)
{
	struct export *export = null_export_new(io, name, size_bytes);
	struct ram *ram = container_of(export, struct ram, export);
	uint64_t blocks = (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
	uint64_t *words;

	if (!export)
		return NULL;
	export->description = "memory";
	ram->delay_ns = delay_ns;
	ram->data = io_alloc(io, size_bytes, BLOCK_BYTES);
	words = io_alloc(io, bitmap_memory_bytes(blocks), 8);
	if (!ram->data || !words)
		return NULL;
	bitmap_init(&ram->written, words, blocks);
	return export;
}
