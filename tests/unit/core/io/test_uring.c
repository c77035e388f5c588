/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: timers, turns, what crosses threads, and its ends. */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "tests/unit/core/io/on_loop.h"

struct tick {
	struct io_timer timer;
	struct io *io;
	int number;
};

static int order[64];
static unsigned order_count;
static unsigned order_wanted;

static void note(struct io *io, int number)
{
	assert_true(order_count < array_len(order));
	order[order_count++] = number;
	if (order_count == order_wanted)
		uring_stop(io);
}

static void expect_order(struct io *io, const int *numbers, unsigned count)
{
	order_wanted = count;
	while (order_count < count)
		assert_int_equal(uring_run(io), 0);
	assert_int_equal(order_count, count);
	assert_memory_equal(order, numbers, count * sizeof(*numbers));
	order_count = 0;
}

static void tick_fire(struct io_timer *timer)
{
	struct tick *tick = container_of(timer, struct tick, timer);

	assert_int_equal(timer->deadline_ns, 0);
	note(tick->io, tick->number);
}

#define TICK(n)                                                                                    \
	{                                                                                          \
		.timer.fire = tick_fire, .io = io, .number = (n)                                   \
	}

UNIT(timers_fire_in_order_of_deadline_then_of_start)
{
	struct io *io = new_loop();
	struct tick a = TICK(1), b = TICK(2), c = TICK(3), d = TICK(4), e = TICK(5);
	uint64_t begin = io_now(io);

	io_timer_start(io, &a.timer, 30000000);
	io_timer_start(io, &b.timer, 10000000);
	io_timer_start(io, &c.timer, 20000000);
	io_timer_start(io, &d.timer, 1);
	io_timer_start(io, &e.timer, 20000000);
	io_timer_start(io, &d.timer, 15000000); /* moves it */
	expect_order(io, (const int[]){ 2, 4, 3, 5, 1 }, 5);
	assert_true(io_now(io) - begin >= 30000000);
	uring_free(io);
}

UNIT(stopped_timers_do_not_fire)
{
	struct io *io = new_loop();
	struct tick a = TICK(1), b = TICK(2), c = TICK(3);

	io_timer_stop(io, &a.timer);
	io_timer_start(io, &a.timer, 1000);
	io_timer_start(io, &b.timer, 2000);
	io_timer_start(io, &c.timer, 3000);
	io_timer_stop(io, &a.timer);
	io_timer_stop(io, &b.timer);
	io_timer_stop(io, &b.timer);
	expect_order(io, (const int[]){ 3 }, 1);
	run_for_ms(io, 5);
	assert_int_equal(order_count, 0);
	uring_free(io);
}

static unsigned fired_count;

static void random_fire(struct io_timer *timer)
{
	struct tick *tick = container_of(timer, struct tick, timer);

	fired_count++;
	if (fired_count == order_wanted)
		uring_stop(tick->io);
}

UNIT(a_thousand_timers_started_moved_and_stopped)
{
	static struct tick ticks[1000];
	struct io *io = new_loop();
	unsigned running = 0;

	fired_count = 0;
	for (size_t i = 0; i < array_len(ticks); i++) {
		ticks[i] = (struct tick){ .timer.fire = random_fire, .io = io };
		io_timer_start(io, &ticks[i].timer, io_random(io) % 20000000);
	}
	for (size_t i = 0; i < array_len(ticks); i++) {
		if (i % 3 == 0)
			io_timer_stop(io, &ticks[i].timer);
		else if (i % 3 == 1)
			io_timer_start(io, &ticks[i].timer, io_random(io) % 20000000);
		running += i % 3 != 0;
	}
	order_wanted = running;
	while (fired_count < running)
		assert_int_equal(uring_run(io), 0);
	run_for_ms(io, 5);
	assert_int_equal(fired_count, running);
	uring_free(io);
}

struct step {
	struct io_op op;
	struct io *io;
	int number;
	struct step *then; /* deferred from the callback */
};

static void step_done(struct io_op *op, int64_t res)
{
	struct step *step = container_of(op, struct step, op);

	assert_int_equal(res, step->number);
	if (step->then)
		io_defer(step->io, &step->then->op, step->then->number);
	note(step->io, step->number);
}

#define STEP(n, next)                                                                              \
	{                                                                                          \
		.op.done = step_done, .io = io, .number = (n), .then = (next)                      \
	}

UNIT(deferred_operations_run_in_order_and_may_defer_more)
{
	struct io *io = new_loop();
	struct step c = STEP(3, NULL), b = STEP(2, NULL), a = STEP(1, &c);

	io_defer(io, &a.op, 1);
	io_defer(io, &b.op, 2);
	assert_int_equal(order_count, 0); /* never from inside the call */
	expect_order(io, (const int[]){ 1, 2, 3 }, 3);
	uring_free(io);
}

/* Two posts that are ready in the same turn: what the first defers comes after the second. */
static struct step late;

static void post_done(struct io_op *op, int64_t res)
{
	struct step *step = container_of(op, struct step, op);

	assert_int_equal(res, 0);
	if (step->number == 1)
		io_defer(step->io, &late.op, late.number);
	note(step->io, step->number);
}

UNIT(deferred_operations_come_after_everything_that_is_ready)
{
	struct io *io = new_loop();
	struct step a = STEP(1, NULL), b = STEP(2, NULL);

	late = (struct step)STEP(9, NULL);
	a.op.done = post_done;
	b.op.done = post_done;
	io_post(io, &a.op);
	io_post(io, &b.op);
	expect_order(io, (const int[]){ 1, 2, 9 }, 3);
	uring_free(io);
}

/* An operation that defers itself for ever must not keep timers and completions out. */
static void forever_done(struct io_op *op, int64_t res)
{
	struct step *step = container_of(op, struct step, op);

	assert_int_equal(res, 7);
	step->number++;
	io_defer(step->io, op, 7);
}

UNIT(endless_deferring_does_not_starve_the_loop)
{
	struct io *io = new_loop();
	struct step forever = { .op.done = forever_done, .io = io };

	io_defer(io, &forever.op, 7);
	run_for_ms(io, 5);
	assert_true(forever.number > 100);
	uring_free(io);
}

/* ---- threads ---- */

static void sleep_ms(long ms)
{
	const struct timespec time = { .tv_nsec = ms * 1000000 };

	(void)nanosleep(&time, NULL);
}

#define POSTERS 4u
#define POSTS	20000u

struct poster {
	pthread_t thread;
	struct io *io;
	struct io_op ops[64];
	_Atomic unsigned received;
	unsigned sent;
	unsigned *posters_done;
};

static void posted(struct io_op *op, int64_t res)
{
	struct poster *poster = (struct poster *)(uintptr_t)op->priv[3];

	assert_int_equal(res, 0);
	if (++poster->received == POSTS && ++*poster->posters_done == POSTERS)
		uring_stop(poster->io);
}

static void *poster_main(void *argument)
{
	struct poster *poster = argument;

	while (poster->sent < POSTS) {
		struct io_op *op = &poster->ops[poster->sent % array_len(poster->ops)];

		/* An operation is free again once as many came back as are needed. */
		while (poster->sent - poster->received >= array_len(poster->ops))
			sched_yield();
		op->done = posted;
		op->priv[3] = (uintptr_t)poster;
		poster->sent++;
		io_post(poster->io, op);
	}
	return NULL;
}

UNIT(posts_from_threads_arrive_once_each)
{
	static struct poster posters[POSTERS];
	struct io *io = new_loop();
	unsigned posters_done = 0;

	for (unsigned i = 0; i < POSTERS; i++) {
		posters[i].io = io;
		posters[i].posters_done = &posters_done;
		assert_int_equal(pthread_create(&posters[i].thread, NULL, poster_main, &posters[i]),
				 0);
	}
	while (posters_done < POSTERS)
		assert_int_equal(uring_run(io), 0);
	for (unsigned i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_join(posters[i].thread, NULL), 0);
	uring_free(io);
}

static void *late_poster(void *argument)
{
	struct waited *waited = argument;

	sleep_ms(20);
	io_post(waited->io, &waited->op);
	return NULL;
}

UNIT(a_post_wakes_a_sleeping_loop)
{
	struct io *io = new_loop();
	struct waited waited = { 0 };
	pthread_t thread;

	(void)arm(&waited, io);
	assert_int_equal(pthread_create(&thread, NULL, late_poster, &waited), 0);
	assert_int_equal(finish(&waited), 0); /* no timer, no I/O: only the post can wake it */
	assert_int_equal(pthread_join(thread, NULL), 0);
	uring_free(io);
}

struct sum {
	struct waited waited;
	uint64_t from, result;
	pthread_t ran_on;
};

static void sum_work(struct io_op *op)
{
	struct sum *sum = container_of(op, struct sum, waited.op);

	for (uint64_t i = 0; i < 1000; i++)
		sum->result += sum->from + i;
	sum->ran_on = pthread_self();
	op->res = (int64_t)sum->from;
}

UNIT(work_runs_elsewhere_and_completes_here)
{
	struct io *io = new_loop();
	static struct sum sums[100];
	struct uring_stats stats;

	for (size_t i = 0; i < array_len(sums); i++) {
		sums[i] = (struct sum){ .from = i };
		io_work(io, sum_work, arm(&sums[i].waited, io));
	}
	for (size_t i = 0; i < array_len(sums); i++) {
		assert_int_equal(finish(&sums[i].waited), i);
		assert_int_equal(sums[i].result, 1000 * i + 499500);
		assert_false(pthread_equal(sums[i].ran_on, pthread_self()));
	}
	uring_stats(io, &stats);
	assert_int_equal(stats.work_items, array_len(sums));
	uring_free(io);
}

static void *stop_main(void *argument)
{
	sleep_ms(10);
	uring_stop(argument);
	return NULL;
}

UNIT(stop_from_another_thread_and_run_again)
{
	struct io *io = new_loop();
	pthread_t thread;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&thread, NULL, stop_main, io), 0);
		assert_int_equal(uring_run(io), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
	}
	uring_free(io);
}

static void *run_main(void *argument)
{
	return (void *)(intptr_t)uring_run(argument);
}

/* The usual life: made here, run there, freed here; posted to before it runs. */
UNIT(a_loop_made_here_runs_there)
{
	struct io *io = new_loop();
	struct waited waited = { 0 };
	struct io *other = new_loop();
	struct waited still_works = { 0 };
	pthread_t thread;
	void *res;

	io_post(io, arm(&waited, io)); /* its callback stops the loop */
	assert_int_equal(pthread_create(&thread, NULL, run_main, io), 0);
	io_defer(other, arm(&still_works, other), 5);
	assert_int_equal(finish(&still_works), 5);
	assert_int_equal(pthread_join(thread, &res), 0);
	assert_int_equal((intptr_t)res, 0);
	assert_true(waited.done);
	uring_free(io);
	/* Freeing another thread's ring leaves this thread's alone. */
	io_post(other, arm(&still_works, other));
	assert_int_equal(finish(&still_works), 0);
	uring_free(other);
}

static void forbidden_done(struct io_op *op, int64_t res)
{
	(void)op;
	fail_msg("delivered %lld after the loop had stopped", (long long)res);
}

static void slow_work(struct io_op *op)
{
	sleep_ms(20);
	op->res = 1;
}

UNIT(free_drops_what_is_under_way)
{
	struct io *io = new_loop();
	struct io_op posted_op = { .done = forbidden_done };
	struct io_op deferred_op = { .done = forbidden_done };
	struct io_op working[3] = { { .done = forbidden_done },
				    { .done = forbidden_done },
				    { .done = forbidden_done } };

	run_for_ms(io, 1);
	for (size_t i = 0; i < array_len(working); i++)
		io_work(io, slow_work, &working[i]);
	io_post(io, &posted_op);
	io_defer(io, &deferred_op, 0);
	uring_free(io);
}

UNIT(clocks_and_randomness)
{
	struct io *io = new_loop();
	uint64_t seen[100];
	uint64_t before = io_now(io);

	for (size_t i = 0; i < array_len(seen); i++) {
		seen[i] = io_random(io);
		for (size_t k = 0; k < i; k++)
			assert_true(seen[k] != seen[i]);
	}
	assert_true(io_now(io) >= before);
	assert_true(io_wall(io) > 1700000000ull * 1000000000ull);
	uring_free(io);
}

UNIT(memory_is_zeroed_and_aligned)
{
	struct io *io = new_loop();
	const size_t aligns[] = { 8, 64, 512, 4096, 65536 };

	for (size_t i = 0; i < array_len(aligns); i++) {
		uint8_t *memory = io_alloc(io, 100000, aligns[i]);

		assert_non_null(memory);
		assert_int_equal((uintptr_t)memory % aligns[i], 0);
		for (size_t k = 0; k < 100000; k++)
			assert_int_equal(memory[k], 0);
		memset(memory, 0xff, 100000);
		io_free(io, memory);
	}
	io_free(io, NULL);
	uring_free(io);
}

UNIT(probe_says_what_the_kernel_has)
{
	struct uring_features features;

	uring_probe(&features);
	assert_true(features.available);
	assert_true(features.kernel[0]);
	/* Every kernel since 6.1, the oldest that is supported. */
	assert_true(features.single_issuer && features.defer_taskrun);
	assert_true(features.registered_buffers && features.registered_files);
	assert_true(features.multishot_accept && features.msg_ring && features.send_zc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_order_of_deadline_then_of_start),
		cmocka_unit_test(stopped_timers_do_not_fire),
		cmocka_unit_test(a_thousand_timers_started_moved_and_stopped),
		cmocka_unit_test(deferred_operations_run_in_order_and_may_defer_more),
		cmocka_unit_test(deferred_operations_come_after_everything_that_is_ready),
		cmocka_unit_test(endless_deferring_does_not_starve_the_loop),
		cmocka_unit_test(posts_from_threads_arrive_once_each),
		cmocka_unit_test(a_post_wakes_a_sleeping_loop),
		cmocka_unit_test(work_runs_elsewhere_and_completes_here),
		cmocka_unit_test(stop_from_another_thread_and_run_again),
		cmocka_unit_test(a_loop_made_here_runs_there),
		cmocka_unit_test(free_drops_what_is_under_way),
		cmocka_unit_test(clocks_and_randomness),
		cmocka_unit_test(memory_is_zeroed_and_aligned),
		cmocka_unit_test(probe_says_what_the_kernel_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
