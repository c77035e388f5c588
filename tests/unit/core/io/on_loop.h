/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Straight-line tests of an event loop: submit, then run the loop on this thread until it is done.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_IO_ON_LOOP_H
#define HOLDFAST_TESTS_UNIT_CORE_IO_ON_LOOP_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/io/uring.h"
#include "tests/unit/unit.h"

#define MAYBE_UNUSED __attribute__((unused))

/* One operation that a test waits for. */
struct waited {
	struct io_op op;
	struct io *io;
	bool done;
	int64_t res;
};

MAYBE_UNUSED static void waited_done(struct io_op *op, int64_t res)
{
	struct waited *waited = container_of(op, struct waited, op);

	assert_false(waited->done);
	waited->done = true;
	waited->res = res;
	uring_stop(waited->io);
}

/* An idle operation, ready to be submitted. */
MAYBE_UNUSED static struct io_op *arm(struct waited *waited, struct io *io)
{
	waited->op.done = waited_done;
	waited->io = io;
	waited->done = false;
	return &waited->op;
}

MAYBE_UNUSED static int64_t finish(struct waited *waited)
{
	while (!waited->done)
		assert_int_equal(uring_run(waited->io), 0);
	return waited->res;
}

MAYBE_UNUSED static struct io *new_loop(void)
{
	const struct uring_config config = { .name = "test" };
	struct io *io;

	assert_int_equal(uring_new(&config, &io), 0);
	return io;
}

struct sleeper {
	struct io_timer timer;
	struct io *io;
	bool fired;
};

MAYBE_UNUSED static void sleeper_fire(struct io_timer *timer)
{
	struct sleeper *sleeper = container_of(timer, struct sleeper, timer);

	sleeper->fired = true;
	uring_stop(sleeper->io);
}

/* Runs the loop for that long. */
MAYBE_UNUSED static void run_for_ms(struct io *io, unsigned ms)
{
	struct sleeper sleeper = { .timer.fire = sleeper_fire, .io = io };

	io_timer_start(io, &sleeper.timer, ms * 1000000ull);
	while (!sleeper.fired)
		assert_int_equal(uring_run(io), 0);
}

/* A directory of the test's own. */
struct temp_dir {
	char path[256];
};

MAYBE_UNUSED static void temp_dir_make(struct temp_dir *dir)
{
	const char *base = getenv("TMPDIR");

	(void)snprintf(dir->path, sizeof(dir->path), "%.200s/holdfast-test-XXXXXX",
		       base ? base : "/tmp");
	assert_non_null(mkdtemp(dir->path));
}

MAYBE_UNUSED static int temp_remove_one(const char *path, const struct stat *st, int kind,
					struct FTW *walk)
{
	(void)st, (void)kind, (void)walk;
	return remove(path);
}

MAYBE_UNUSED static void temp_dir_remove(struct temp_dir *dir)
{
	assert_int_equal(nftw(dir->path, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* "DIR/NAME" in a buffer that lives until the next but three calls. */
MAYBE_UNUSED static const char *in_dir(const struct temp_dir *dir, const char *name)
{
	static char places[4][512];
	static unsigned next;
	char *place = places[next++ % 4];

	(void)snprintf(place, sizeof(places[0]), "%s/%s", dir->path, name);
	return place;
}

#endif
