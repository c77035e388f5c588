/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/base/must.h"
#include "tests/nbdserve/exports.h"

/* Operations in flight on one file; further requests queue. */
#define TICKETS 1024u

struct file_export;

struct ticket {
	struct io_op op;
	struct file_export *fe;
	struct export_request *request;
	struct ticket *next;
	bool flushing;
};

struct file_export {
	struct export export;
	struct io *io;
	struct io_file *file;
	struct list queue;
	struct ticket *free;
	struct ticket tickets[TICKETS];
};

static void start(struct ticket *ticket)
{
	struct export_request *request = ticket->request;
	struct io_file *file = ticket->fe->file;
	unsigned zero_flags = 0;

	if (request->flags & EXPORT_NO_HOLE)
		zero_flags |= IO_NO_HOLE;
	if (request->flags & EXPORT_FAST_ZERO)
		zero_flags |= IO_FAST;
	switch (request->op) {
	case EXPORT_READ:
		io_read(file, request->buf, request->length_bytes, request->offset_bytes,
			&ticket->op);
		break;
	case EXPORT_WRITE:
		io_write(file, request->buf, request->length_bytes, request->offset_bytes,
			 request->flags & EXPORT_FUA ? IO_DSYNC : 0, &ticket->op);
		break;
	case EXPORT_FLUSH:
		io_flush(file, &ticket->op);
		break;
	case EXPORT_TRIM:
		io_discard(file, request->offset_bytes, request->length_bytes, &ticket->op);
		break;
	case EXPORT_WRITE_ZEROES:
		io_write_zeroes(file, request->offset_bytes, request->length_bytes, zero_flags,
				&ticket->op);
		break;
	case EXPORT_CACHE:
		io_defer(ticket->fe->io, &ticket->op, 0);
		break;
	case EXPORT_MAP:
		io_map(file, request->offset_bytes, request->length_bytes, &request->hole,
		       &ticket->op);
		break;
	}
}

static void next(struct file_export *fe)
{
	while (fe->free && !list_empty(&fe->queue)) {
		struct ticket *ticket = fe->free;

		fe->free = ticket->next;
		ticket->flushing = false;
		ticket->request = list_pop_front_as(&fe->queue, struct export_request, link);
		start(ticket);
	}
}

static void done(struct io_op *op, int64_t res)
{
	struct ticket *ticket = container_of(op, struct ticket, op);
	struct file_export *fe = ticket->fe;
	struct export_request *request = ticket->request;
	bool zeroing = request->op == EXPORT_TRIM || request->op == EXPORT_WRITE_ZEROES;

	if (res >= 0 && zeroing && (request->flags & EXPORT_FUA) && !ticket->flushing) {
		ticket->flushing = true;
		io_flush(fe->file, &ticket->op);
		return;
	}
	ticket->next = fe->free;
	fe->free = ticket;
	request->done(request, res < 0 || request->op == EXPORT_MAP ? res : 0);
	next(fe);
}

static void submit(struct export *export, struct export_request *request)
{
	struct file_export *fe = container_of(export, struct file_export, export);

	list_push_back(&fe->queue, &request->link);
	next(fe);
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

static const struct export_ops file_ops = { .submit = submit, .attach = attach, .detach = detach };

int file_export_new(struct io *io, const char *name, const char *path, struct export **ret_export)
{
	struct file_export *fe = io_alloc(io, sizeof(*fe), 64);
	struct io_file_info info;
	int r;

	if (!fe)
		return -ENOMEM;
	r = io_file_open(io, path, IO_OPEN_DIRECT, &fe->file);
	if (r < 0) {
		io_free(io, fe);
		return r;
	}
	io_file_info(fe->file, &info);
	fe->io = io;
	list_init(&fe->queue);
	for (unsigned i = 0; i < TICKETS; i++) {
		fe->tickets[i].fe = fe;
		fe->tickets[i].op.done = done;
		fe->tickets[i].next = fe->free;
		fe->free = &fe->tickets[i];
	}
	fe->export = (struct export){
		.ops = &file_ops,
		.name = name,
		.description = "a file",
		.limits =
			{
				.size_bytes = info.size_bytes,
				.block_min_bytes = info.direct ? info.block_bytes : 1,
				.block_preferred_bytes = 4096,
				.request_max_bytes = 64u << 20,
				.volatile_cache = true,
				.fast_zero = info.discards,
			},
	};
	*ret_export = &fe->export;
	return 0;
}
