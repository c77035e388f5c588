/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What crosses threads: the mailbox of a loop and its workers.
 *
 * An operation that is handed over is owned by the queue it is in; the queue's mutex orders all
 * memory that travels with it. The mutexes are leaves: nothing is locked while one is held, and
 * nothing is called but the wake-up.
 */
#include "core/io/internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

void mailbox_wake(struct uring *loop)
{
	uint64_t one = 1;
	ssize_t res;

	/* EAGAIN: the counter is at its limit, so the loop has been woken already. */
	do {
		res = write(loop->wake_fd, &one, sizeof(one));
	} while (res < 0 && errno == EINTR);
}

static void mailbox_push(struct uring *loop, struct io_op *op)
{
	bool was_empty;

	must(pthread_mutex_lock(&loop->mailbox_lock) == 0);
	was_empty = !loop->mailbox.first;
	op_queue_push(&loop->mailbox, op);
	/* Somebody who found it empty wakes the loop; it takes everything at once. Under the lock:
	 * the op can be the last thing that the loop lives for. */
	if (was_empty)
		mailbox_wake(loop);
	must(pthread_mutex_unlock(&loop->mailbox_lock) == 0);
}

static void wake_prep(struct uring_req *req, struct io_uring_sqe *sqe)
{
	struct uring *loop = container_of(req, struct uring, wake_req);

	io_uring_prep_read(sqe, loop->wake_fd, &loop->wake_value, sizeof(loop->wake_value), 0);
}

static void wake_done(struct uring_req *req, int res)
{
	struct uring *loop = container_of(req, struct uring, wake_req);
	struct op_queue batch;
	struct io_op *op;

	(void)res; /* whatever woke us, the queue says what there is */
	must(pthread_mutex_lock(&loop->mailbox_lock) == 0);
	batch = loop->mailbox;
	loop->mailbox = (struct op_queue){ 0 };
	must(pthread_mutex_unlock(&loop->mailbox_lock) == 0);
	loop_queue(loop, req);
	while ((op = op_queue_pop(&batch)))
		loop_complete(loop, op, op->res);
}

int mailbox_init(struct uring *loop)
{
	must(pthread_mutex_init(&loop->mailbox_lock, NULL) == 0);
	must(pthread_mutex_init(&loop->worker_lock, NULL) == 0);
	must(pthread_cond_init(&loop->worker_cond, NULL) == 0);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (loop->wake_fd < 0)
		return -errno;
	loop->wake_req.prep = wake_prep;
	loop->wake_req.done = wake_done;
	return 0;
}

void mailbox_start(struct uring *loop)
{
	loop_queue(loop, &loop->wake_req);
}

void mailbox_free(struct uring *loop)
{
	/* A poster whose op has long been delivered may still be waking us. */
	must(pthread_mutex_lock(&loop->mailbox_lock) == 0);
	must(pthread_mutex_unlock(&loop->mailbox_lock) == 0);
	if (loop->wake_fd >= 0)
		(void)close(loop->wake_fd);
	must(pthread_cond_destroy(&loop->worker_cond) == 0);
	must(pthread_mutex_destroy(&loop->worker_lock) == 0);
	must(pthread_mutex_destroy(&loop->mailbox_lock) == 0);
}

void uring_post(struct io *io, struct io_op *op)
{
	op_begin(op);
	op->res = 0;
	mailbox_push(uring_of(io), op);
}

typedef void (*work_fn)(struct io_op *op);

void uring_work(struct io *io, work_fn fn, struct io_op *op)
{
	struct uring *loop = uring_of(io);

	op_begin(op);
	_Static_assert(sizeof(fn) == sizeof(op->priv[0]), "a function fits a word");
	memcpy(&op->priv[0], &fn, sizeof(fn));
	op->res = 0;
	loop->stats.work_items++;
	must(pthread_mutex_lock(&loop->worker_lock) == 0);
	op_queue_push(&loop->worker_queue, op);
	must(pthread_mutex_unlock(&loop->worker_lock) == 0);
	must(pthread_cond_signal(&loop->worker_cond) == 0);
}

static void *worker_main(void *argument)
{
	struct uring *loop = argument;
	struct io_op *op;
	work_fn fn;

	(void)prctl(PR_SET_NAME, loop->name);
	for (;;) {
		must(pthread_mutex_lock(&loop->worker_lock) == 0);
		while (!loop->worker_quit && !loop->worker_queue.first)
			must(pthread_cond_wait(&loop->worker_cond, &loop->worker_lock) == 0);
		op = loop->worker_quit ? NULL : op_queue_pop(&loop->worker_queue);
		must(pthread_mutex_unlock(&loop->worker_lock) == 0);
		if (!op)
			return NULL;
		memcpy(&fn, &op->priv[0], sizeof(fn));
		fn(op);
		mailbox_push(loop, op);
	}
}

int workers_start(struct uring *loop, unsigned count)
{
	sigset_t all, before;
	int err = 0;

	/* Signals are the main thread's business. */
	(void)sigfillset(&all);
	must(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
	while (loop->worker_count < min_u32(count, WORKERS_MAX) && err == 0) {
		err = pthread_create(&loop->workers[loop->worker_count], NULL, worker_main, loop);
		if (err == 0)
			loop->worker_count++;
	}
	must(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	return -err;
}

void workers_stop(struct uring *loop)
{
	must(pthread_mutex_lock(&loop->worker_lock) == 0);
	loop->worker_quit = true;
	must(pthread_mutex_unlock(&loop->worker_lock) == 0);
	must(pthread_cond_broadcast(&loop->worker_cond) == 0);
	for (unsigned i = 0; i < loop->worker_count; i++)
		must(pthread_join(loop->workers[i], NULL) == 0);
	loop->worker_count = 0;
}
