/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core/block/fake_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/must.h"

#define OP_BUSY 1u

static struct fake_io *fake_of(struct io *io)
{
	return container_of(io, struct fake_io, io);
}

uint64_t fake_random(struct fake_io *fake)
{
	uint64_t x = fake->seed += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* ---- operations --------------------------------------------------------------------------------
 */

static void op_begin(struct io_op *op)
{
	must(op->state == IO_OP_IDLE && op->done);
	op->state = OP_BUSY;
}

static void push(struct io_op **head, struct io_op **tail, struct io_op *op)
{
	op->next = NULL;
	if (*head)
		(*tail)->next = op;
	else
		*head = op;
	*tail = op;
}

static void complete(struct io *io, struct io_op *op, int64_t res)
{
	struct fake_io *fake = fake_of(io);

	op->res = res;
	push(&fake->ready_head, &fake->ready_tail, op);
}

static bool deliver_one(struct fake_io *fake)
{
	struct io_op *op = fake->ready_head;

	if (!op) {
		/* The end of a turn: what was deferred so far. */
		fake->ready_head = fake->deferred_head;
		fake->ready_tail = fake->deferred_tail;
		fake->deferred_head = NULL;
		op = fake->ready_head;
	}
	if (!op)
		return false;
	fake->ready_head = op->next;
	must(op->state == OP_BUSY);
	op->state = IO_OP_IDLE;
	op->done(op, op->res);
	return true;
}

static void pump(struct fake_io *fake);

static bool step(struct fake_io *fake)
{
	pump(fake);
	return deliver_one(fake);
}

void fake_run(struct fake_io *fake)
{
	while (step(fake))
		continue;
}

void fake_run_all(struct fake_io **fakes, unsigned count)
{
	bool busy = true;

	while (busy) {
		busy = false;
		for (unsigned i = 0; i < count; i++)
			busy |= step(fakes[i]);
	}
}

static void io_defer_fake(struct io *io, struct io_op *op, int64_t res)
{
	struct fake_io *fake = fake_of(io);

	op_begin(op);
	op->res = res;
	push(&fake->deferred_head, &fake->deferred_tail, op);
}

static void io_post_fake(struct io *io, struct io_op *op)
{
	op_begin(op);
	complete(io, op, 0);
}

/* ---- memory, time ------------------------------------------------------------------------------
 */

static void *alloc_fake(struct io *io, size_t size, size_t align)
{
	void *memory;

	if (fake_of(io)->fail_alloc || posix_memalign(&memory, max_size(align, 8), size) != 0)
		return NULL;
	memset(memory, 0, size);
	fake_of(io)->allocations++;
	return memory;
}

static void free_fake(struct io *io, void *memory)
{
	must(memory);
	fake_of(io)->allocations--;
	free(memory);
}

static uint64_t now_fake(struct io *io)
{
	return fake_of(io)->now_ns;
}

static uint64_t random_fake(struct io *io)
{
	return fake_random(fake_of(io));
}

static void timer_stop_fake(struct io *io, struct io_timer *timer)
{
	struct fake_io *fake = fake_of(io);

	for (unsigned i = 0; i < fake->timer_count; i++) {
		if (fake->timers[i] != timer)
			continue;
		fake->timers[i] = fake->timers[--fake->timer_count];
		timer->deadline_ns = 0;
		return;
	}
}

static void timer_start_fake(struct io *io, struct io_timer *timer, uint64_t delay_ns)
{
	struct fake_io *fake = fake_of(io);

	timer_stop_fake(io, timer);
	must(fake->timer_count < array_len(fake->timers));
	timer->deadline_ns = fake->now_ns + delay_ns;
	timer->order = fake->timer_order++;
	fake->timers[fake->timer_count++] = timer;
}

void fake_advance(struct fake_io *fake, uint64_t delay_ns)
{
	uint64_t end_ns = fake->now_ns + delay_ns;

	fake_run(fake);
	for (;;) {
		struct io_timer *first = NULL;

		for (unsigned i = 0; i < fake->timer_count; i++) {
			struct io_timer *timer = fake->timers[i];

			if (timer->deadline_ns <= end_ns &&
			    (!first || timer->deadline_ns < first->deadline_ns))
				first = timer;
		}
		if (!first)
			break;
		fake->now_ns = first->deadline_ns;
		timer_stop_fake(&fake->io, first);
		first->fire(first);
		fake_run(fake);
	}
	fake->now_ns = end_ns;
}

/* ---- streams -----------------------------------------------------------------------------------
 */

static void bytes_add(struct fake_bytes *bytes, const void *data, size_t length_bytes)
{
	if (bytes->end + length_bytes > bytes->max) {
		bytes->max = (bytes->end + length_bytes) * 2;
		bytes->data = realloc(bytes->data, bytes->max);
		must(bytes->data);
	}
	memcpy(bytes->data + bytes->end, data, length_bytes);
	bytes->end += length_bytes;
}

static void bytes_take(struct fake_bytes *bytes, void *data, size_t length_bytes)
{
	must(length_bytes <= bytes->end - bytes->start);
	memcpy(data, bytes->data + bytes->start, length_bytes);
	bytes->start += length_bytes;
	if (bytes->start == bytes->end)
		bytes->start = bytes->end = 0;
}

static void pump_recv(struct fake_io *fake, struct fake_stream *stream)
{
	size_t there = stream->in.end - stream->in.start;
	struct io_op *op = stream->recv_op;
	size_t most = min_size(there, stream->recv_max);

	if (!op)
		return;
	if (there >= stream->recv_min) {
		if (!stream->whole)
			most = stream->recv_min + fake_random(fake) % (most - stream->recv_min + 1);
		bytes_take(&stream->in, stream->recv_buf, most);
		stream->recv_op = NULL;
		complete(stream->io, op, (int64_t)most);
	} else if (stream->reset || stream->in_ended) {
		stream->recv_op = NULL;
		complete(stream->io, op, stream->reset || there > 0 ? -ECONNRESET : 0);
	}
}

static void pump_send(struct fake_stream *stream)
{
	struct io_op *op = stream->send_op;

	if (!op || (stream->send_blocked && !stream->reset))
		return;
	stream->send_op = NULL;
	if (stream->reset) {
		complete(stream->io, op, -EPIPE);
		return;
	}
	for (unsigned i = 0; i < stream->send_count; i++)
		bytes_add(&stream->out, stream->send_iov[i].iov_base, stream->send_iov[i].iov_len);
	complete(stream->io, op, 0);
}

static void pump_accept(struct fake_io *fake)
{
	struct fake_listener *listener = fake->listener;
	struct io_op *op = listener ? listener->accept_op : NULL;

	if (!op)
		return;
	if (listener->closed) {
		listener->accept_op = NULL;
		complete(&fake->io, op, -ECANCELED);
	} else if (listener->queue_count > 0) {
		listener->accept_op = NULL;
		*listener->ret_stream = (struct io_stream *)listener->queue[0];
		listener->queue_count--;
		memmove(listener->queue, listener->queue + 1,
			listener->queue_count * sizeof(listener->queue[0]));
		complete(&fake->io, op, 0);
	}
}

static void pump(struct fake_io *fake)
{
	pump_accept(fake);
	for (struct fake_stream *stream = fake->streams; stream; stream = stream->next) {
		struct fake_io *home = fake_of(stream->io);

		if (stream->closed)
			continue;
		pump_recv(home, stream);
		pump_send(stream);
		if (stream->tls_op) {
			struct io_op *op = stream->tls_op;

			stream->tls_op = NULL;
			stream->tls = stream->tls_result == 0;
			complete(stream->io, op, stream->tls_result);
		}
	}
}

static int listen_fake(struct io *io, const struct io_address *address,
		       struct io_listener **ret_listener)
{
	struct fake_listener *listener = calloc(1, sizeof(*listener));

	(void)address;
	must(listener && !fake_of(io)->listener);
	listener->io = io;
	fake_of(io)->listener = listener;
	*ret_listener = (struct io_listener *)listener;
	return 0;
}

static void accept_fake(struct io_listener *handle, struct io_stream **ret_stream, struct io_op *op)
{
	struct fake_listener *listener = (struct fake_listener *)handle;

	must(!listener->accept_op && !listener->closed);
	op_begin(op);
	listener->accept_op = op;
	listener->ret_stream = ret_stream;
}

static void listener_close_fake(struct io_listener *handle)
{
	((struct fake_listener *)handle)->closed = true;
}

static void recv_fake(struct io_stream *handle, void *buf, size_t min, size_t max, struct io_op *op)
{
	struct fake_stream *stream = (struct fake_stream *)handle;

	must(!stream->closed && !stream->recv_op && !stream->tls_op && min >= 1 && min <= max);
	op_begin(op);
	stream->recv_op = op;
	stream->recv_buf = buf;
	stream->recv_min = min;
	stream->recv_max = max;
}

static void sendv_fake(struct io_stream *handle, const struct iovec *iov, unsigned iov_count,
		       struct io_op *op)
{
	struct fake_stream *stream = (struct fake_stream *)handle;

	must(!stream->closed && !stream->send_op && !stream->tls_op);
	must(iov_count >= 1 && iov_count <= IO_IOV_MAX);
	for (unsigned i = 0; i < iov_count; i++)
		must(iov[i].iov_len > 0);
	op_begin(op);
	memcpy(stream->send_iov, iov, iov_count * sizeof(*iov));
	stream->send_count = iov_count;
	stream->send_op = op;
	stream->sends++;
}

static void start_tls_fake(struct io_stream *handle, struct io_tls *tls, bool server,
			   const char *expect_identity, struct io_op *op)
{
	struct fake_stream *stream = (struct fake_stream *)handle;

	must(tls && server && !expect_identity);
	must(!stream->closed && !stream->recv_op && !stream->send_op && !stream->tls_op);
	op_begin(op);
	stream->tls_op = op;
}

static void stream_close_fake(struct io_stream *handle)
{
	struct fake_stream *stream = (struct fake_stream *)handle;
	struct io_op *ops[] = { stream->recv_op, stream->send_op, stream->tls_op };

	must(!stream->closed);
	stream->closed = true;
	for (unsigned i = 0; i < array_len(ops); i++) {
		if (ops[i])
			complete(stream->io, ops[i], -ECANCELED);
	}
	stream->recv_op = NULL;
	stream->send_op = NULL;
	stream->tls_op = NULL;
}

static void stream_move_fake(struct io_stream *handle, struct io *to)
{
	struct fake_stream *stream = (struct fake_stream *)handle;

	struct fake_stream **place = &fake_of(stream->io)->streams;

	must(!stream->closed && !stream->recv_op && !stream->send_op && !stream->tls_op);
	while (*place != stream)
		place = &(*place)->next;
	*place = stream->next;
	stream->io = to;
	stream->next = fake_of(to)->streams;
	fake_of(to)->streams = stream;
}

static const struct io_peer *stream_peer_fake(struct io_stream *handle)
{
	return &((struct fake_stream *)handle)->peer;
}

static const char *stream_error_fake(struct io_stream *handle)
{
	return ((struct fake_stream *)handle)->error;
}

static int buffers_fake(struct io *io, void *base, size_t len)
{
	(void)io;
	(void)base;
	(void)len;
	return -EOPNOTSUPP;
}

static const struct io_ops fake_ops = {
	.alloc = alloc_fake,
	.free = free_fake,
	.now = now_fake,
	.random = random_fake,
	.timer_start = timer_start_fake,
	.timer_stop = timer_stop_fake,
	.defer = io_defer_fake,
	.post = io_post_fake,
	.listen = listen_fake,
	.accept = accept_fake,
	.listener_close = listener_close_fake,
	.start_tls = start_tls_fake,
	.recv = recv_fake,
	.sendv = sendv_fake,
	.stream_close = stream_close_fake,
	.stream_move = stream_move_fake,
	.stream_peer = stream_peer_fake,
	.stream_error = stream_error_fake,
	.buffers = buffers_fake,
};

/* ---- the test's side ---------------------------------------------------------------------------
 */

void fake_io_init(struct fake_io *fake, uint64_t seed)
{
	memset(fake, 0, sizeof(*fake));
	fake->io.ops = &fake_ops;
	fake->seed = seed;
	fake->now_ns = 1000000;
}

void fake_io_done(struct fake_io *fake)
{
	struct fake_stream *stream = fake->streams;

	must(!fake->ready_head && !fake->deferred_head);
	must(fake->timer_count == 0);
	while (stream) {
		struct fake_stream *next = stream->next;

		must(stream->closed);
		free(stream->in.data);
		free(stream->out.data);
		free(stream);
		stream = next;
	}
	free(fake->listener);
}

struct fake_stream *fake_connect(struct fake_io *fake)
{
	struct fake_stream *stream = calloc(1, sizeof(*stream));
	struct fake_listener *listener = fake->listener;

	must(stream && listener && listener->queue_count < array_len(listener->queue));
	stream->io = &fake->io;
	stream->peer.uid = 1000;
	memcpy(stream->peer.address, "unix", sizeof("unix"));
	stream->next = fake->streams;
	fake->streams = stream;
	listener->queue[listener->queue_count++] = stream;
	return stream;
}

void fake_send(struct fake_stream *stream, const void *data, size_t length_bytes)
{
	bytes_add(&stream->in, data, length_bytes);
}

size_t fake_received(const struct fake_stream *stream)
{
	return stream->out.end - stream->out.start;
}

void fake_take(struct fake_stream *stream, void *data, size_t length_bytes)
{
	bytes_take(&stream->out, data, length_bytes);
}

void fake_end(struct fake_stream *stream)
{
	stream->in_ended = true;
}

void fake_reset(struct fake_stream *stream)
{
	stream->reset = true;
}

void fake_unblock(struct fake_stream *stream)
{
	stream->send_blocked = false;
}
