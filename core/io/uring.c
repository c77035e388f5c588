/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop.
 *
 *	turn:	1. queued requests enter the submission queue; submit, and wait for a completion or
 *		   the first timer (not at all when something is ready already)
 *		2. reap every completion, deliver callbacks
 *		3. timers that are due; results that were decided without the kernel
 *		4. deferred operations, also those deferred meanwhile, in bounded passes
 *
 * With IORING_SETUP_DEFER_TASKRUN completions appear only inside io_uring_enter() of this thread,
 *so step 1 enters the kernel in every turn, and one enter carries everything the turn produced.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REAP_BATCH	    64u
#define DELIVERY_PASSES_MAX 16u

void op_begin(struct io_op *op)
{
	must(op->state == IO_OP_IDLE);
	must(op->done != NULL);
	op->state = IO_OP_BUSY;
}

static void op_deliver(struct io_op *op, int64_t res)
{
	must(op->state == IO_OP_BUSY);
	op->state = IO_OP_IDLE;
	op->res = res;
	op->done(op, res);
}

void loop_ready(struct uring *loop, struct io_op *op, int64_t res)
{
	op->res = res;
	op_queue_push(&loop->ready, op);
}

void loop_complete(struct uring *loop, struct io_op *op, int64_t res)
{
	if (loop->quiescing)
		loop_ready(loop, op, res);
	else
		op_deliver(op, res);
}

void loop_queue(struct uring *loop, struct uring_req *req)
{
	must(!req->busy);
	must(req->prep && req->done);
	req->magic = REQ_MAGIC;
	req->busy = true;
	req->next = NULL;
	if (loop->req_last)
		loop->req_last->next = req;
	else
		loop->req_first = req;
	loop->req_last = req;
	if (req->is_file)
		loop->files_in_flight++;
}

/* The one place that meets a full submission queue: what does not fit waits for the next turn. */
static void submit_queued(struct uring *loop)
{
	while (loop->req_first) {
		struct uring_req *req = loop->req_first;
		struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

		if (!sqe) {
			if (io_uring_submit(&loop->ring) <= 0)
				return;
			continue;
		}
		loop->req_first = req->next;
		if (!loop->req_first)
			loop->req_last = NULL;
		req->prep(req, sqe);
		io_uring_sqe_set_data(sqe, req);
		loop->stats.submits++;
	}
}

/* Results are copied out of the ring first: callbacks may take long and start anything. */
static void reap(struct uring *loop)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	struct {
		struct uring_req *req;
		int res;
	} results[REAP_BATCH];
	unsigned count;

	do {
		count = io_uring_peek_batch_cqe(&loop->ring, cqes, REAP_BATCH);
		for (unsigned i = 0; i < count; i++) {
			results[i].req = io_uring_cqe_get_data(cqes[i]);
			results[i].res = cqes[i]->res;
		}
		io_uring_cq_advance(&loop->ring, count);
		for (unsigned i = 0; i < count; i++) {
			struct uring_req *req = results[i].req;

			must(req && req->magic == REQ_MAGIC && req->busy);
			req->busy = false;
			if (req->is_file)
				loop->files_in_flight--;
			loop->stats.completions++;
			req->done(req, results[i].res);
		}
	} while (count == REAP_BATCH);
}

/* Delivers what is in the queue, and what that puts there, for a bounded number of passes. */
static void deliver(struct op_queue *queue)
{
	for (unsigned pass = 0; pass < DELIVERY_PASSES_MAX && queue->first; pass++) {
		struct op_queue batch = *queue;
		struct io_op *op;

		*queue = (struct op_queue){ 0 };
		while ((op = op_queue_pop(&batch)))
			op_deliver(op, op->res);
	}
}

/* 0, or the errno that the ring died of. */
static int submit_and_wait(struct uring *loop)
{
	struct io_uring_cqe *cqe;
	uint64_t wait_ns = timers_wait_ns(loop);
	int res;

	submit_queued(loop);
	if (loop->ready.first || loop->deferred.first || loop->req_first ||
	    atomic_load_explicit(&loop->stopping, memory_order_relaxed))
		wait_ns = 0;
	if (wait_ns == 0) {
		res = io_uring_submit_and_get_events(&loop->ring);
	} else if (wait_ns == UINT64_MAX) {
		res = io_uring_submit_and_wait(&loop->ring, 1);
	} else {
		struct __kernel_timespec timeout = {
			.tv_sec = (long long)(wait_ns / 1000000000),
			.tv_nsec = (long long)(wait_ns % 1000000000),
		};

		res = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, &timeout, NULL);
	}
	switch (res < 0 ? -res : 0) {
	case 0:
	case ETIME:
	case EINTR:
	case EAGAIN: /* short of memory for now: what is submitted goes on */
	case EBUSY:  /* completions first */
		return 0;
	default:
		return res;
	}
}

/* Waits for the file requests in the kernel: they move data to and from the callers' memory, which
 * may go away after uring_run(). Their results are kept. */
static void quiesce(struct uring *loop)
{
	loop->quiescing = true;
	while (loop->files_in_flight > 0) {
		submit_queued(loop);
		/* An error here (interrupted, short of memory) is met again by the next round. */
		(void)io_uring_submit_and_wait(&loop->ring, 1);
		reap(loop);
	}
	loop->quiescing = false;
}

int uring_run(struct io *io)
{
	struct uring *loop = uring_of(io);
	int err;

	if (!loop->ring_ready) {
		err = ring_create(&loop->ring, loop->entries, NULL);
		if (err < 0)
			return err;
		loop->ring_ready = true;
		regions_start(loop);
		fixed_files_start(loop);
		mailbox_start(loop);
	}
	/* Advice: saves a look-up of the file per enter. The slot is this thread's, so it is given
	 * back before another thread can free the ring. */
	(void)io_uring_register_ring_fd(&loop->ring);

	do {
		err = submit_and_wait(loop);
		if (err < 0)
			break;
		loop->stats.turns++;
		reap(loop);
		timers_run(loop);
		deliver(&loop->ready);
		deliver(&loop->deferred);
	} while (!atomic_load_explicit(&loop->stopping, memory_order_acquire));

	if (err == 0)
		quiesce(loop);
	(void)io_uring_unregister_ring_fd(&loop->ring);
	atomic_store(&loop->stopping, false);
	return err;
}

void uring_stop(struct io *io)
{
	struct uring *loop = uring_of(io);

	atomic_store_explicit(&loop->stopping, true, memory_order_release);
	mailbox_wake(loop);
}

uint64_t uring_now(struct io *io)
{
	struct timespec now;

	(void)io;
	must(clock_gettime(CLOCK_BOOTTIME, &now) == 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t uring_wall(struct io *io)
{
	struct timespec now;

	(void)io;
	must(clock_gettime(CLOCK_REALTIME, &now) == 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void uring_defer(struct io *io, struct io_op *op, int64_t res)
{
	op_begin(op);
	op->res = res;
	op_queue_push(&uring_of(io)->deferred, op);
}

static const struct io_ops uring_ops = {
	.alloc = uring_alloc,
	.free = uring_release,
	.now = uring_now,
	.wall = uring_wall,
	.random = uring_random,
	.timer_start = uring_timer_start,
	.timer_stop = uring_timer_stop,
	.defer = uring_defer,
	.post = uring_post,
	.work = uring_work,
	.mkdir = uring_mkdir,
	.lock = uring_lock,
	.unlock = uring_unlock,
	.file_open = uring_file_open,
	.file_close = uring_file_close,
	.file_info = uring_file_info,
	.file_grow = uring_file_grow,
	.file_create = uring_file_create,
	.file_reserve = uring_file_reserve,
	.file_remove = uring_file_remove,
	.read = uring_read,
	.writev = uring_writev,
	.flush = uring_flush,
	.discard = uring_discard,
	.write_zeroes = uring_write_zeroes,
	.map = uring_map,
	.listen = uring_listen,
	.accept = uring_accept,
	.listener_close = uring_listener_close,
	.connect = uring_connect,
	.start_tls = uring_start_tls,
	.recv = uring_recv,
	.sendv = uring_sendv,
	.stream_close = uring_stream_close,
	.stream_move = uring_stream_move,
	.stream_peer = uring_stream_peer,
	.stream_error = uring_stream_error,
	.buffers = uring_buffers,
};

int uring_new(const struct uring_config *config, struct io **ret_io)
{
	struct uring *loop = calloc(1, sizeof(*loop));
	int err;

	if (!loop)
		return -ENOMEM;
	loop->io.ops = &uring_ops;
	loop->entries = config->entries ? config->entries : RING_ENTRIES_DEFAULT;
	loop->wake_fd = -1;
	(void)snprintf(loop->name, sizeof(loop->name), "%s", config->name ? config->name : "io");
	list_init(&loop->streams);
	list_init(&loop->listeners);
	list_init(&loop->files);
	list_init(&loop->creates);
	list_init(&loop->connects);
	must(pthread_mutex_init(&loop->handles_lock, NULL) == 0);
	err = mailbox_init(loop);
	if (err == 0)
		err = workers_start(loop, config->workers ? config->workers : WORKERS_DEFAULT);
	if (err < 0) {
		uring_free(&loop->io);
		return err;
	}
	*ret_io = &loop->io;
	return 0;
}

void uring_free(struct io *io)
{
	struct uring *loop;

	if (!io)
		return;
	loop = uring_of(io);
	atomic_store(&loop->closing, true);
	workers_stop(loop);
	/* Receives and sends that are still waiting end with the ring: the kernel moves their data
	 * only in the context of the ring's thread, which does not enter it any more. */
	if (loop->ring_ready)
		io_uring_queue_exit(&loop->ring);
	connects_free(loop);
	listeners_free(loop);
	streams_free(loop);
	creates_free(loop);
	files_free(loop);
	file_reqs_free(loop);
	mailbox_free(loop);
	must(pthread_mutex_destroy(&loop->handles_lock) == 0);
	free(loop->timers);
	free(loop->zeroes);
	free(loop);
}

void uring_stats(struct io *io, struct uring_stats *ret_stats)
{
	*ret_stats = uring_of(io)->stats;
}
