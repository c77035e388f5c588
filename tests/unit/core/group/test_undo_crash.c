/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The undo log under crashes: batches that write what they saved, kills and power losses anywhere,
 * checkpoints that say how much of the log is durable, room that comes and goes; then a roll back
 * that is cut short as well. The volumes must be what they were when the log began (U1, U2, U4).
 */
#include "tests/unit/core/group/undo_bench.h"

static struct {
	bool crashed, rolling, over, in_batch;
	struct io_op op;
	uint64_t flushed_bytes, batches, crashes, fulls, roll_backs;
} c;

static void next(void);

static void crash(void *context)
{
	(void)context;
	c.crashed = true;
	c.crashes++;
	/* What a kill leaves is not durable yet. */
	sim_node_crash(bench.node, prng_chance(&bench.prng, 1, 2) ? SIM_KILL : SIM_POWER);
}

static bool is_over(void *context)
{
	(void)context;
	return c.crashed || c.over;
}

static void volumes_flushed(struct io_op *op, int64_t res)
{
	(void)op;
	sim_check(bench.world, res == 0);
	/* As a checkpoint stores it. */
	bench.known_bytes = max_u64(bench.known_bytes, c.flushed_bytes);
	next();
}

static void written(struct io_op *op, int64_t res)
{
	sim_check(bench.world, res >= 0);
	if (bench_write(op))
		return;
	c.batches++;
	c.in_batch = false;
	next();
}

static void saved(struct io_op *op, int64_t res)
{
	if (res == UNDO_E_FULL) {
		c.fulls++;
		sim_disk_set_free(bench.node, prng_below(&bench.prng, 24) << 20);
		undo_run(bench.undo, op);
		return;
	}
	sim_check(bench.world, res == 0);
	bench.next_write = 0;
	op->done = written;
	bench_write(op);
}

static void next(void)
{
	uint64_t dice = prng_below(&bench.prng, 10);

	if (c.over)
		return;
	if (dice == 0)
		sim_disk_set_free(bench.node, prng_below(&bench.prng, 3) << 20);
	if (dice < 3) {
		c.flushed_bytes = undo_durable_bytes(bench.undo);
		c.op = (struct io_op){ .done = volumes_flushed };
		volumes_flush(&bench.volumes, &c.op);
		return;
	}
	bench_random_ranges();
	bench_add();
	c.in_batch = true;
	c.op = (struct io_op){ .done = saved };
	undo_run(bench.undo, &c.op);
}

static void back_flushed(struct io_op *op, int64_t res)
{
	(void)op;
	sim_check(bench.world, res == 0);
	c.over = true;
}

static void back_done(struct io_op *op, int64_t res)
{
	sim_check(bench.world, res == 0);
	op->done = back_flushed;
	volumes_flush(&bench.volumes, op);
}

/* Until the next crash, or to the end. */
static void live(bool to_the_end)
{
	uint64_t events = prng_between(&bench.prng, 1, c.rolling ? 60 : 250);

	c.crashed = c.over = false;
	if (!to_the_end)
		sim_at_event(bench.world, sim_events(bench.world) + events, crash, NULL);
	if (c.rolling) {
		c.op = (struct io_op){ .done = back_done };
		undo_roll_back(bench.undo, &c.op);
		c.roll_backs++;
	} else {
		next();
	}
	sim_check(bench.world, sim_run_until(bench.world, is_over, NULL, 600 * SIM_SECOND));
}

static void restart(void)
{
	memset(&bench.volumes, 0, sizeof(bench.volumes));
	sim_node_restart(bench.node);
	sim_disk_set_free(bench.node, UINT64_MAX);
	bench_open();
	undo_open(bench.undo, bench.id, bench.known_bytes, waiting_op(&bench.wait));
	sim_check(bench.world, bench_wait() == 0);
	sim_check(bench.world, undo_durable_bytes(bench.undo) >= bench.known_bytes);
}

static void body(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	uint64_t seed = *(uint64_t *)w->context;
	unsigned i, lives;

	bench_set_up(w, seed);
	c.rolling = false;
	bench_begin();
	lives = (unsigned)prng_between(&bench.prng, 1, 5);
	for (i = 0; i < lives; i++) {
		live(false);
		restart();
	}
	c.rolling = true;
	lives = (unsigned)prng_below(&bench.prng, 4);
	for (i = 0; i < lives; i++) {
		live(false);
		/* Over before the crash was due, or cut short: either way once more. */
		sim_at_event(world, UINT64_MAX, crash, NULL);
		if (!c.crashed)
			crash(NULL);
		restart();
	}
	live(true);
	bench_compare("rolled back", bench.before);
	bench_close();
}

UNIT(test_crash)
{
	struct waiting_world w;
	uint64_t seed;

	memset(&c, 0, sizeof(c));
	for (seed = 1; seed <= 60; seed++)
		waiting_calm(seed, body, &w, &seed);
	print_message("%llu batches, %llu crashes, %llu times no room, %llu roll backs\n",
		      (unsigned long long)c.batches, (unsigned long long)c.crashes,
		      (unsigned long long)c.fulls, (unsigned long long)c.roll_backs);
	assert_true(c.batches > 1500);
	assert_true(c.crashes > 200);
	assert_true(c.fulls > 10);
	assert_true(c.roll_backs > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
