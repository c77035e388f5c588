/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "core/base/macros.h"
#include "core/base/units.h"
#include "core/io/loop.h"

static struct loop *loop;
static pthread_t loop_thread;
static unsigned counter; /* loop thread only, and between calls */

static void broken(const char *name, int res)
{
	print_error("loop %s broke: %d\n", name, res);
	abort();
}

static void remember(void *arg)
{
	(void)arg;
	loop_thread = pthread_self();
}

static int setup(void **state)
{
	const struct uring_config config = { .name = "test" };

	(void)state;
	counter = 0;
	assert_int_equal(loop_start(&config, broken, &loop), 0);
	loop_call(loop, remember, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop = loop_stop(loop);
	assert_null(loop);
	assert_null(loop_stop(NULL));
	return 0;
}

static void add(void *arg)
{
	assert_true(pthread_equal(pthread_self(), loop_thread));
	counter += *(unsigned *)arg;
}

static void test_call(void **state)
{
	unsigned one = 1;

	(void)state;
	assert_false(pthread_equal(pthread_self(), loop_thread));
	for (unsigned i = 1; i <= 1000; i++) {
		loop_call(loop, add, &one);
		assert_int_equal(counter, i);
	}
}

static void *add_many(void *arg)
{
	for (unsigned i = 0; i < 500; i++)
		loop_call(loop, add, arg);
	return NULL;
}

static void test_many_callers(void **state)
{
	pthread_t threads[4];
	unsigned one = 1;

	(void)state;
	for (size_t i = 0; i < array_len(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &one), 0);
	for (size_t i = 0; i < array_len(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(counter, 500 * array_len(threads));
}

struct wait {
	struct io_timer timer;
	struct io_op *op;
	bool fired;
};

static void fire(struct io_timer *timer)
{
	struct wait *wait = container_of(timer, struct wait, timer);

	wait->fired = true;
	io_defer(loop_io(loop), wait->op, -42);
}

static void begin(void *arg, struct io_op *op)
{
	struct wait *wait = arg;

	wait->op = op;
	wait->timer.fire = fire;
	io_timer_start(loop_io(loop), &wait->timer, 5 * NS_PER_MS);
}

static void test_submit(void **state)
{
	struct wait wait = { .fired = false };

	(void)state;
	assert_int_equal(loop_submit(loop, begin, &wait), -42);
	assert_true(wait.fired);
}

struct held {
	struct io_op op;
	sem_t gate;
};

static void hold(struct io_op *op, int64_t res)
{
	struct held *held = container_of(op, struct held, op);

	(void)res;
	assert_int_equal(sem_wait(&held->gate), 0);
}

static void test_alive(void **state)
{
	struct held held = { .op.done = hold };

	(void)state;
	assert_true(loop_alive(loop, 5000));
	assert_true(loop_alive(loop, 5000));
	/* A callback that does not return is what a watchdog is for. */
	assert_int_equal(sem_init(&held.gate, 0, 0), 0);
	io_post(loop_io(loop), &held.op);
	assert_false(loop_alive(loop, 50));
	assert_false(loop_alive(loop, 50));
	assert_int_equal(sem_post(&held.gate), 0);
	assert_true(loop_alive(loop, 5000));
	assert_true(loop_alive(loop, 5000));
	loop_call(loop, remember, NULL);
	assert_int_equal(sem_destroy(&held.gate), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_call),
		TEST(test_many_callers),
		TEST(test_submit),
		TEST(test_alive),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
