/* SPDX-License-Identifier: Apache-2.0 */
/* Appending, flushing, what happens after a failure, and the journal's space. */
#include "core/group/journal.h"

#include <errno.h>

#include "tests/unit/core/group/journal_bench.h"

static const struct journal *journal_of(const struct journal_model *model)
{
	return &model->run->journal;
}

static unsigned length_of(const struct list *head)
{
	const struct list *link;
	unsigned count = 0;

	list_for_each (link, head)
		count++;
	return count;
}

/* ---- written and durable ------------------------------------------------------------------------
 */

static void body_writeback(struct journal_model *model)
{
	const struct journal *journal = journal_of(model);
	struct sim_world *world = model->world;

	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 5000);
	sim_check(world, journal_busy(journal) == 3 && !journal_is_quiet(journal));
	bench_await_written(model);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, model->durable_seq == 0 && journal->flushes == 0);
	sim_check(world, journal_busy(journal) == 0 && journal_is_quiet(journal));
	journal_flush(&model->run->journal, 1);
	bench_await_durable(model);
	sim_check(world, journal->flushes == 1 && journal->dsync_writes == 0);
	sim_check(world, model->run->ring.count == 0);
	journal_model_flush(model);
	sim_check(world, journal_is_quiet(journal));
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model) && model->durable_seq > 2);
}

/* Wishes that come while a flush is under way share the next one. */
static void body_flushes_are_shared(struct journal_model *model)
{
	for (unsigned i = 0; i < 40; i++) {
		bench_append(model, 3000);
		bench_append(model, 3000);
		journal_model_flush(model);
		sim_run_for(model->world, 50 * SIM_US);
	}
	bench_await_durable(model);
	sim_check(model->world, journal_of(model)->flushes < 15);
	sim_check(model->world, journal_of(model)->flushes > 1);
}

/* A lone segment whose flush is wanted in the same turn is one operation. */
static void body_direct(struct journal_model *model)
{
	bench_append_durably(model, 100);
	sim_check(model->world, journal_of(model)->dsync_writes == 1);
	sim_check(model->world, journal_of(model)->flushes == 0);
	bench_append(model, 100);
	bench_append(model, 100);
	journal_model_flush(model);
	bench_await_durable(model);
	sim_check(model->world, journal_of(model)->dsync_writes == 1);
	sim_check(model->world, journal_of(model)->flushes == 1);
}

/* J5: behind a slow write no more than the window is submitted, however fast the rest is. */
static void body_window(struct journal_model *model)
{
	struct sim_fault slow = {
		.ops = SIM_WRITE, .action = SIM_DELAY, .delay_ns = SIM_SECOND, .count = 1
	};

	sim_fault_add(model->world, &slow);
	for (unsigned i = 0; i < 10; i++)
		bench_append(model, 3000);
	sim_run_for(model->world, SIM_SECOND / 2);
	sim_check(model->world, length_of(&journal_of(model)->flight) == 4);
	sim_check(model->world, journal_of(model)->writes_in_flight == 1);
	sim_check(model->world, model->written_seq == 0);
	bench_await_durable(model);
	sim_check(model->world, journal_of(model)->dsync_writes == 10);
}

/* ---- failures (J4) ------------------------------------------------------------------------------
 */

static void body_write_fails(struct journal_model *model)
{
	struct sim_world *world = model->world;
	uint64_t durable_seq;

	bench_append_durably(model, 20000);
	durable_seq = model->durable_seq;
	bench_fault(model, BENCH_FILES, SIM_WRITE, 1, 1);
	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 20000);
	journal_model_flush(model);
	bench_await_durable(model);
	sim_check(world, model->state == MODEL_RUNNING && journal_of(model)->rewrites == 1);
	sim_check(world, journal_of(model)->head.slot == 1 && journal_of(model)->failures == 0);
	sim_check(world, journal_of(model)->slots[0].last_seq == durable_seq);
	sim_check(world, journal_of(model)->slots[1].first_seq == durable_seq + 1);
	sim_check(world,
		  strstr(journal_of(model)->error, "journal/00000000: write at offset") != 0);
	bench_append_durably(model, 20000);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
	sim_check(world, journal_oldest_seq(journal_of(model)) == 1);
}

/* Written and told, then the flush fails: told again only when it is durable. */
static void body_flush_fails(struct journal_model *model)
{
	struct sim_world *world = model->world;

	for (unsigned i = 0; i < 3; i++)
		bench_append(model, 20000);
	bench_await_written(model);
	bench_fault(model, BENCH_FILES, SIM_FLUSH, 0, 1);
	journal_model_flush(model);
	bench_append(model, 4000);
	bench_await_durable(model);
	sim_check(world, journal_of(model)->rewrites == 1 && journal_of(model)->flushes == 1);
	sim_check(world, journal_of(model)->slots[0].first_seq == 0);
	sim_check(world, journal_oldest_seq(journal_of(model)) == 1);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
}

/* Two files, one flush fails, the other one does not: neither counts. */
static void body_one_of_two_flushes_fails(struct journal_model *model)
{
	struct sim_fault slow = { .pattern = BENCH_FILES "2",
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = SIM_SECOND,
				  .count = 1 };

	bench_append(model, BENCH_LARGE);
	bench_append(model, BENCH_LARGE);
	bench_await_written(model);
	sim_fault_add(model->world, &slow);
	bench_fault(model, BENCH_FILES "0", SIM_FLUSH, 0, 1);
	journal_model_flush(model);
	sim_run_for(model->world, SIM_SECOND / 2);
	sim_check(model->world, journal_of(model)->flushes == 2 && model->durable_seq == 0);
	bench_await_durable(model);
	sim_check(model->world, journal_of(model)->rewrites == 1);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
}

/* The slot in which the failure strikes holds nothing: recovery finds the way past it. */
static void body_slot_left_out(struct journal_model *model)
{
	struct sim_world *world = model->world;

	bench_append_durably(model, BENCH_LARGE);
	bench_fault(model, BENCH_FILES "1", SIM_WRITE, 0, 1);
	bench_append_durably(model, BENCH_LARGE);
	sim_check(world, journal_of(model)->head.slot == 2);
	bench_append_durably(model, 3000);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
	sim_check(world, journal_of(model)->head.slot == 2);
	/* And once more where the slot left out is not on the path any more. */
	journal_model_apply(model, model->durable_seq);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
	sim_check(world, journal_oldest_seq(journal_of(model)) == 1);
}

static void body_one_file_is_bad(struct journal_model *model)
{
	for (unsigned lap = 0; lap < 3; lap++) {
		bench_fault(model, BENCH_FILES "2", SIM_WRITE | SIM_FLUSH, 0, 0);
		for (unsigned i = 0; i < 4; i++) {
			bench_append_durably(model, BENCH_LARGE);
			journal_model_apply(model, model->durable_seq);
			journal_model_floor(model, model->durable_seq);
		}
		sim_fault_clear(model->world);
	}
	sim_check(model->world, journal_of(model)->rewrites >= 3);
	bench_crash(model, SIM_POWER);
	sim_check(model->world, bench_restart(model));
}

static void body_second_failure_is_final(struct journal_model *model)
{
	struct sim_world *world = model->world;
	uint64_t durable_seq, written_seq;

	bench_append_durably(model, 3000);
	durable_seq = model->durable_seq;
	written_seq = model->written_seq;
	bench_fault(model, BENCH_FILES, SIM_WRITE, 0, 2);
	bench_append(model, 3000);
	journal_model_flush(model);
	bench_await_durable(model);
	sim_check(world, model->state == MODEL_FAILED && model->res == -EIO);
	sim_check(world, model->durable_seq == durable_seq && model->written_seq == written_seq);
	sim_check(world, journal_of(model)->failed && journal_is_quiet(journal_of(model)));
	sim_fault_clear(world);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, model->durable_seq == durable_seq);
	/* Not by this process: nothing is known about the disk before a new start. */
	bench_crash(model, SIM_KILL);
	sim_check(world, bench_restart(model));
}

/* After a failure there is no slot to go on in: it waits, and goes on when there is. */
static void body_failure_while_full(struct journal_model *model)
{
	struct sim_world *world = model->world;

	for (unsigned i = 0; i < 4; i++)
		bench_append_durably(model, BENCH_LARGE);
	bench_fault(model, BENCH_FILES "3", SIM_WRITE, 0, 1);
	bench_append(model, 3000);
	journal_model_flush(model);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, journal_of(model)->blocked && model->blocked == 1);
	sim_check(world, journal_is_quiet(journal_of(model)));
	journal_model_apply(model, model->durable_seq);
	journal_model_floor(model, model->durable_seq);
	bench_await_durable(model);
	sim_check(world, model->state == MODEL_RUNNING && !journal_of(model)->blocked);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
}

/* ---- space --------------------------------------------------------------------------------------
 */

static void body_space(struct journal_model *model)
{
	struct journal *journal = &model->run->journal;
	struct sim_world *world = model->world;
	uint64_t last_seq[5] = { 0 };

	sim_check(world, journal_free_slots(journal) == 3 && journal_oldest_seq(journal) == 1);
	sim_check(world, journal_oldest_time_ns(journal) == 0 && journal_used_bytes(journal) == 0);
	sim_check(world, journal_next_release_seq(journal) == 0);
	for (unsigned i = 0; i < 4; i++) {
		sim_run_for(world, SIM_SECOND);
		bench_append_durably(model, BENCH_LARGE);
		last_seq[i] = model->durable_seq;
		sim_check(world, journal_free_slots(journal) == 3 - i);
	}
	sim_check(world, journal_used_bytes(journal) ==
				 3 * journal->options.slot_bytes + journal->head.off);
	sim_check(world, journal_next_release_seq(journal) == last_seq[0]);
	/* Full: the next one waits until the oldest slot is given up, and not a moment longer. */
	bench_append(model, BENCH_LARGE);
	journal_model_flush(model);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, journal->blocked && model->blocked == 1);
	sim_check(world, model->written_seq == last_seq[3]);
	journal_model_apply(model, last_seq[2]);
	journal_model_floor(model, last_seq[0] - 1);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, journal->blocked && model->blocked == 2);
	journal_model_floor(model, last_seq[0]);
	bench_await_durable(model);
	sim_check(world, !journal->blocked && journal->head.slot == 0);
	sim_check(world, journal_oldest_seq(journal) == last_seq[0] + 1);
	sim_check(world, journal_next_release_seq(journal) == last_seq[1]);
	sim_check(world,
		  journal_time_floor_ns(journal, last_seq[1]) == journal->slots[2].first_time_ns);
	sim_check(world, journal_time_floor_ns(journal, model->durable_seq) == 0);
	/* The floor never goes down, nor beyond what is durable. */
	journal_set_floor(journal, 1);
	sim_check(world, journal->floor_seq == last_seq[0]);
	journal_set_floor(journal, UINT64_MAX);
	sim_check(world, journal->floor_seq == model->durable_seq);
}

static void body_expire(struct journal_model *model)
{
	struct journal *journal = &model->run->journal;
	struct sim_world *world = model->world;
	uint64_t last_seq[3], now_ns[3];

	for (unsigned i = 0; i < 3; i++) {
		bench_append_durably(model, BENCH_LARGE);
		last_seq[i] = model->durable_seq;
		sim_run_for(world, SIM_SECOND);
		now_ns[i] = io_wall(journal->options.io);
	}
	journal_model_apply(model, last_seq[1]);
	sim_check(world, journal_expire(journal, UINT64_MAX) == 0); /* the floor is lower */
	journal_model_floor(model, last_seq[1]);
	sim_check(world, journal_expire(journal, now_ns[0] - 2 * SIM_SECOND) == 0);
	sim_check(world, journal_expire(journal, now_ns[0]) == 1);
	sim_check(world, journal_oldest_seq(journal) == last_seq[0] + 1);
	sim_check(world, !journal_is_quiet(journal));
	/* What is being zeroed is not entered before it is. */
	sim_check(world, journal_free_slots(journal) == 1);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, journal_is_quiet(journal) && journal_free_slots(journal) == 3);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
	journal = &model->run->journal;
	sim_check(world, journal_oldest_seq(journal) == last_seq[0] + 1);
	journal_model_floor(model, last_seq[1]);
	sim_check(world, journal_expire(journal, UINT64_MAX) == 1);
	/* Never the slot that is being written. */
	journal_model_apply(model, last_seq[2]);
	journal_model_floor(model, last_seq[2]);
	sim_check(world, journal_expire(journal, UINT64_MAX) == 0);
	bench_append_durably(model, BENCH_LARGE);
	bench_append_durably(model, BENCH_LARGE);
}

static void body_reset(struct journal_model *model)
{
	struct sim_world *world = model->world;
	struct journal *journal = &model->run->journal;

	bench_append_durably(model, BENCH_LARGE);
	bench_append_durably(model, BENCH_LARGE);
	journal_model_apply(model, model->durable_seq);
	journal_model_floor(model, model->durable_seq);
	/* Also while old content is being expired. */
	sim_check(world, journal_expire(journal, UINT64_MAX) == 1);
	journal_model_reset(model, 100);
	sim_check(world, !journal_is_quiet(journal));
	sim_check(world, journal_expire(journal, UINT64_MAX) == 0);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, !model->run->resetting && model->state == MODEL_RUNNING);
	sim_check(world, journal->head.slot == 0 && journal->head.off == 0);
	bench_append_durably(model, 3000);
	bench_crash(model, SIM_POWER);
	sim_check(world, bench_restart(model));
	sim_check(world, journal_oldest_seq(&model->run->journal) == model->base_seq);
	bench_fault(model, BENCH_FILES "2", SIM_WRITE, 0, 1);
	journal_model_reset(model, 1);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, model->state == MODEL_FAILED && model->run->journal.failed);
}

/* ---- life ---------------------------------------------------------------------------------------
 */

static void body_clean_stop(struct journal_model *model)
{
	uint64_t begin, clean_ops, unclean_ops;

	bench_append(model, BENCH_LARGE);
	bench_append(model, BENCH_LARGE);
	journal_model_stop(model, true);
	begin = sim_disk_ops(model->world);
	sim_check(model->world, bench_restart(model));
	sim_check(model->world, model->run->journal.head.slot == 1);
	clean_ops = sim_disk_ops(model->world) - begin;
	model->sb.flags = 0;
	bench_crash(model, SIM_KILL);
	begin = sim_disk_ops(model->world);
	sim_check(model->world, bench_restart(model));
	unclean_ops = sim_disk_ops(model->world) - begin;
	/* Nothing to look for behind a clean end. */
	sim_check(model->world, clean_ops + 3 == unclean_ops);
}

/* A journal that waits for room can be closed: what was never durable is let go of. */
static void body_close_while_blocked(struct journal_model *model)
{
	struct model_run *run = model->run;

	for (unsigned i = 0; i < 5; i++)
		bench_append(model, BENCH_LARGE);
	sim_run_for(model->world, SIM_SECOND);
	sim_check(model->world, run->journal.blocked && journal_is_quiet(&run->journal));
	sim_check(model->world, run->ring.count == 1);
	tail_deinit(&run->tail);
	journal_reader_deinit(&run->reader);
	journal_close(&run->journal);
	sim_check(model->world, run->ring.count == 0);
	journal_deinit(&run->journal);
	segring_deinit(&run->ring);
}

static void body_no_memory(struct journal_model *model)
{
	uint64_t allocs, before;

	bench_append_durably(model, 5000);
	journal_model_stop(model, false);
	before = sim_node_allocs(model->node);
	sim_check(model->world, bench_restart(model));
	allocs = sim_node_allocs(model->node) - before;
	sim_check(model->world, allocs > 5);
	for (uint64_t nth = 1; nth <= allocs; nth++) {
		bench_crash(model, SIM_KILL);
		sim_node_fail_alloc(model->node, nth);
		sim_check(model->world, !bench_restart(model) && model->res == -ENOMEM);
	}
	bench_crash(model, SIM_KILL);
	sim_check(model->world, bench_restart(model));
}

static void body_geometry(struct journal_model *model)
{
	struct journal_options options = model->run->journal.options;
	static struct journal journal;

	options.slots = 1;
	sim_check(model->world, journal_init(&journal, &options) == -EINVAL);
	options.slots = 2;
	options.slot_bytes = 2 * SEGMENT_HEAD_MAX_BYTES - 4096;
	sim_check(model->world, journal_init(&journal, &options) == -EINVAL);
	options.slot_bytes = 2 * SEGMENT_HEAD_MAX_BYTES + 512;
	sim_check(model->world, journal_init(&journal, &options) == -EINVAL);
	journal_deinit(&journal);
	options.slot_bytes = 2 * SEGMENT_HEAD_MAX_BYTES;
	sim_check(model->world, journal_init(&journal, &options) == 0);
	journal_deinit(&journal);
	journal_deinit(&journal);
}

#define RUN(name, options)                                                                         \
	UNIT(test_##name)                                                                          \
	{                                                                                          \
		bench_run(body_##name, &(options));                                                \
	}
RUN(writeback, bench_writeback)
RUN(flushes_are_shared, bench_writeback)
RUN(direct, bench_writeback)
RUN(window, bench_dsync)
RUN(write_fails, bench_writeback)
RUN(flush_fails, bench_writeback)
RUN(one_of_two_flushes_fails, bench_writeback)
RUN(slot_left_out, bench_dsync)
RUN(one_file_is_bad, bench_writeback)
RUN(second_failure_is_final, bench_dsync)
RUN(failure_while_full, bench_writeback)
RUN(space, bench_writeback)
RUN(expire, bench_writeback)
RUN(reset, bench_standby)
RUN(clean_stop, bench_writeback)
RUN(close_while_blocked, bench_writeback)
RUN(no_memory, bench_dsync)
RUN(geometry, bench_writeback)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writeback),
		cmocka_unit_test(test_flushes_are_shared),
		cmocka_unit_test(test_direct),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_write_fails),
		cmocka_unit_test(test_flush_fails),
		cmocka_unit_test(test_one_of_two_flushes_fails),
		cmocka_unit_test(test_slot_left_out),
		cmocka_unit_test(test_one_file_is_bad),
		cmocka_unit_test(test_second_failure_is_final),
		cmocka_unit_test(test_failure_while_full),
		cmocka_unit_test(test_space),
		cmocka_unit_test(test_expire),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_clean_stop),
		cmocka_unit_test(test_close_while_blocked),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_geometry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
