/* SPDX-License-Identifier: Apache-2.0 */
#include "core/io/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/macros.h"
#include "core/base/units.h"

struct loop {
	struct io *io;
	pthread_t thread;
	void (*broken)(const char *name, int res);
	char name[32];

	/* The watchdog's round trip; `lock` protects `answered`. */
	struct io_op ping;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool pinged, answered;
};

/* One synchronous call: the caller sleeps until the loop has filled it in. */
struct call {
	struct io_op op;
	void (*fn)(void *arg);
	void (*start)(void *arg, struct io_op *op);
	void *arg;
	int64_t res;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done;
};

static void *run(void *arg)
{
	struct loop *loop = arg;
	int res = uring_run(loop->io);

	if (res < 0)
		loop->broken(loop->name, res);
	return NULL;
}

static void init_cond(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr) == 0);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_cond_init(cond, &attr) == 0);
	must(pthread_condattr_destroy(&attr) == 0);
}

int loop_start(const struct uring_config *config, void (*broken)(const char *name, int res),
	       struct loop **ret_loop)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int res;

	if (!loop)
		return -ENOMEM;
	loop->broken = broken;
	(void)snprintf(loop->name, sizeof(loop->name), "%s", config->name ? config->name : "io");
	res = uring_new(config, &loop->io);
	if (res < 0) {
		free(loop);
		return res;
	}
	must(pthread_mutex_init(&loop->lock, NULL) == 0);
	init_cond(&loop->changed);
	res = -pthread_create(&loop->thread, NULL, run, loop);
	if (res < 0) {
		uring_free(loop->io);
		free(loop);
		return res;
	}
	*ret_loop = loop;
	return 0;
}

struct io *loop_io(struct loop *loop)
{
	return loop->io;
}

static void call_done(struct io_op *op, int64_t res)
{
	struct call *call = container_of(op, struct call, op);

	must(pthread_mutex_lock(&call->lock) == 0);
	call->res = res;
	call->done = true;
	must(pthread_cond_signal(&call->changed) == 0);
	/* The caller owns `call` again from here. */
	must(pthread_mutex_unlock(&call->lock) == 0);
}

static void call_arrived(struct io_op *op, int64_t res)
{
	struct call *call = container_of(op, struct call, op);

	if (call->start) {
		op->done = call_done;
		call->start(call->arg, op);
		return;
	}
	call->fn(call->arg);
	call_done(op, res);
}

static int64_t call_and_wait(struct loop *loop, struct call *call)
{
	call->op.done = call_arrived;
	must(pthread_mutex_init(&call->lock, NULL) == 0);
	init_cond(&call->changed);
	io_post(loop->io, &call->op);
	must(pthread_mutex_lock(&call->lock) == 0);
	while (!call->done)
		must(pthread_cond_wait(&call->changed, &call->lock) == 0);
	must(pthread_mutex_unlock(&call->lock) == 0);
	must(pthread_cond_destroy(&call->changed) == 0);
	must(pthread_mutex_destroy(&call->lock) == 0);
	return call->res;
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct call call = { .fn = fn, .arg = arg };

	(void)call_and_wait(loop, &call);
}

int64_t loop_submit(struct loop *loop, void (*start)(void *arg, struct io_op *op), void *arg)
{
	struct call call = { .start = start, .arg = arg };

	return call_and_wait(loop, &call);
}

static void ping_arrived(struct io_op *op, int64_t res)
{
	struct loop *loop = container_of(op, struct loop, ping);

	(void)res;
	must(pthread_mutex_lock(&loop->lock) == 0);
	loop->answered = true;
	must(pthread_cond_signal(&loop->changed) == 0);
	must(pthread_mutex_unlock(&loop->lock) == 0);
}

bool loop_alive(struct loop *loop, unsigned ms)
{
	struct timespec until;
	uint64_t ns;
	bool answered;
	int res = 0;

	must(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
	ns = (uint64_t)until.tv_nsec + (uint64_t)ms * NS_PER_MS;
	until.tv_sec += (time_t)(ns / NS_PER_S);
	until.tv_nsec = (long)(ns % NS_PER_S);
	if (!loop->pinged) {
		loop->pinged = true;
		loop->answered = false;
		loop->ping.done = ping_arrived;
		io_post(loop->io, &loop->ping);
	}
	must(pthread_mutex_lock(&loop->lock) == 0);
	while (!loop->answered && res != ETIMEDOUT)
		res = pthread_cond_timedwait(&loop->changed, &loop->lock, &until);
	answered = loop->answered;
	must(pthread_mutex_unlock(&loop->lock) == 0);
	loop->pinged = !answered;
	return answered;
}

struct loop *loop_stop(struct loop *loop)
{
	if (!loop)
		return NULL;
	uring_stop(loop->io);
	must(pthread_join(loop->thread, NULL) == 0);
	uring_free(loop->io);
	must(pthread_cond_destroy(&loop->changed) == 0);
	must(pthread_mutex_destroy(&loop->lock) == 0);
	free(loop);
	return NULL;
}
