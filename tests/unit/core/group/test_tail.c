/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the journal back: the reader on disk, and the tail that prefers memory. */
#include "core/group/tail.h"

#include <errno.h>

#include "core/base/hash64.h"
#include "tests/unit/core/group/journal_bench.h"

static struct journal_reader reader;
static struct tail tail;
static struct waiting waits[2];

static int64_t seek_to(struct journal_model *model, uint64_t seq)
{
	journal_reader_seek(&reader, seq, waiting_op(&waits[0]));
	sim_check(model->world, !waits[0].done);
	return waiting_for(model->world, &waits[0]);
}

static int64_t read_next(struct journal_model *model)
{
	journal_reader_next(&reader, waiting_op(&waits[0]));
	sim_check(model->world, !waits[0].done);
	return waiting_for(model->world, &waits[0]);
}

static int64_t follow(struct journal_model *model)
{
	tail_next(&tail, waiting_op(&waits[1]));
	sim_check(model->world, !waits[1].done && tail.busy);
	return waiting_for(model->world, &waits[1]);
}

static void check_is(struct journal_model *model, const struct segment_header *header,
		     const uint8_t *stored, const struct model_segment *segment)
{
	sim_check(model->world, segment && header->first_seq == segment->first_seq);
	sim_check(model->world, header->total_bytes == segment->total_bytes);
	sim_check(model->world, hash64(0, stored, header->total_bytes) == segment->hash);
}

/* Segments of many sizes over all four slots, durable. */
static void fill(struct journal_model *model)
{
	for (unsigned i = 0; i < 2; i++) {
		bench_append_durably(model, BENCH_LARGE);
		for (unsigned k = 0; k < 7; k++)
			bench_append_durably(model, 100 + 900 * k);
		bench_append_durably(model, 200000);
	}
}

/* ---- reader ------------------------------------------------------------------------------------
 */

static void body_seek_everywhere(struct journal_model *model)
{
	const struct model_segment *segment;
	struct sim_world *world = model->world;
	struct journal_position at;

	fill(model);
	sim_check(world, journal_reader_init(&reader, &model->run->journal) == 0);
	for (uint64_t seq = 1; seq <= model->durable_seq; seq++) {
		segment = journal_model_find(model, seq);
		sim_check(world, seek_to(model, seq) == 0);
		sim_check(world, reader.at.seq == segment->first_seq);
		sim_check(world, reader.at.chain == segment->chain);
		sim_check(world,
			  segment == model->segments || reader.at.bytes == segment[-1].bytes_end);
		sim_check(world, read_next(model) == 1);
		check_is(model, &reader.header, reader.stored, segment);
		sim_check(world, reader.at.seq == segment->last_seq + 1 &&
					 reader.at.bytes == segment->bytes_end);
	}
	sim_check(world, read_next(model) == 0 && read_next(model) == 0);
	/* From a place that was kept, over the rest, in few reads. */
	sim_check(world, seek_to(model, 8) == 0);
	at = reader.at;
	journal_reader_set(&reader, &at);
	at.seq = sim_disk_ops(world);
	for (segment = journal_model_find(model, 8); read_next(model) == 1; segment++)
		check_is(model, &reader.header, reader.stored, segment);
	sim_check(world, segment == &model->segments[model->appended]);
	sim_check(world, sim_disk_ops(world) - at.seq < 12);
	journal_reader_deinit(&reader);
}

/* At the end a reader waits; what comes next may lie in another slot than the end seemed to say. */
static void body_waiting_at_the_end(struct journal_model *model)
{
	struct sim_world *world = model->world;

	bench_append_durably(model, 3000);
	sim_check(world, journal_reader_init(&reader, &model->run->journal) == 0);
	sim_check(world, seek_to(model, model->durable_seq + 1) == 0);
	sim_check(world, read_next(model) == 0);
	bench_append(model, 3000);
	bench_await_written(model);
	sim_check(world, read_next(model) == 0); /* written is not durable */
	bench_fault(model, BENCH_FILES, SIM_FLUSH, 0, 1);
	journal_model_flush(model);
	bench_await_durable(model);
	sim_check(world, model->run->journal.rewrites == 1);
	sim_check(world, read_next(model) == 1);
	check_is(model, &reader.header, reader.stored, &model->segments[1]);
	sim_check(world, read_next(model) == 0);
	bench_fault(model, BENCH_FILES, SIM_WRITE, 0, 1);
	bench_append_durably(model, 3000);
	sim_check(world, model->run->journal.rewrites == 2);
	sim_check(world, read_next(model) == 1);
	check_is(model, &reader.header, reader.stored, &model->segments[2]);
	journal_reader_deinit(&reader);
}

static void lap(struct journal_model *model)
{
	for (unsigned i = 0; i < 5; i++) {
		bench_append_durably(model, BENCH_LARGE);
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, model->durable_seq);
	}
}

static void body_overtaken(struct journal_model *model)
{
	struct sim_fault slow = {
		.ops = SIM_READ, .action = SIM_DELAY, .delay_ns = SIM_SECOND, .count = 1
	};
	struct sim_world *world = model->world;

	bench_append_durably(model, 3000);
	bench_append_durably(model, BENCH_LARGE);
	sim_check(world, journal_reader_init(&reader, &model->run->journal) == 0);
	sim_check(world, seek_to(model, 1) == 0);
	lap(model);
	sim_check(world, read_next(model) == -ESTALE);
	sim_check(world, seek_to(model, 1) == -ENOENT);
	/* Overtaken while the read is under way. */
	sim_check(world, seek_to(model, journal_oldest_seq(&model->run->journal)) == 0);
	reader.buf_len = 0;
	sim_fault_add(world, &slow);
	journal_reader_next(&reader, waiting_op(&waits[0]));
	lap(model);
	sim_check(world, !waits[0].done);
	sim_check(world, waiting_for(world, &waits[0]) == -ESTALE);
	/* And while a seek is. */
	slow.count = 1;
	sim_fault_add(world, &slow);
	journal_reader_seek(&reader, journal_oldest_seq(&model->run->journal) + 1,
			    waiting_op(&waits[0]));
	lap(model);
	sim_check(world, waiting_for(world, &waits[0]) == -ESTALE);
	journal_reader_deinit(&reader);
}

static void flip(struct journal_model *model, uint64_t off)
{
	sim_file_flip(model->node, JOURNAL_MODEL_DIR "/journal/00000000", off * 8);
}

static void body_damaged(struct journal_model *model)
{
	static const uint64_t offs[] = { 8192 + 3, 8192 + 127, 8192 + 200, 8192 + 5000,
					 8192 + 8191 };
	struct sim_world *world = model->world;

	for (unsigned i = 0; i < 3; i++)
		bench_append_durably(model, 3000);
	sim_check(world, model->segments[0].total_bytes == 8192);
	sim_check(world, journal_reader_init(&reader, &model->run->journal) == 0);
	for (unsigned i = 0; i < array_len(offs); i++) {
		flip(model, offs[i]);
		sim_check(world, seek_to(model, 1) == 0 && read_next(model) == 1);
		sim_check(world, read_next(model) == -EBADMSG);
		sim_check(world, strstr(model->run->journal.error,
					"journal/00000000: damaged at offset 8192") != NULL);
		flip(model, offs[i]);
	}
	flip(model, 8192 + 3);
	sim_check(world, seek_to(model, model->durable_seq) == -EBADMSG);
	flip(model, 8192 + 3);
	sim_check(world, seek_to(model, model->durable_seq) == 0 && read_next(model) == 1);
	bench_fault(model, BENCH_FILES, SIM_READ, 0, 1);
	reader.buf_len = 0;
	sim_check(world, seek_to(model, 1) == -EIO);
	sim_check(world, seek_to(model, 1) == 0 && read_next(model) == 1);
	journal_reader_deinit(&reader);
}

/* ---- tail --------------------------------------------------------------------------------------
 */

static void body_memory_then_disk(struct journal_model *model)
{
	struct segring *ring = &model->run->ring;
	struct sim_world *world = model->world;
	struct segment *held;

	sim_check(world, tail_init(&tail, &model->run->journal, ring) == 0);
	sim_check(world, tail_poll(&tail) == 0);
	for (unsigned i = 0; i < 4; i++)
		bench_append(model, 3000);
	bench_await_written(model);
	sim_check(world, tail_poll(&tail) == 0); /* in memory, but not durable */
	held = segring_find(ring, 1);
	segring_hold(held);
	journal_model_flush(model);
	bench_await_durable(model);
	/* The ring frees in order: the first one keeps all of them. */
	sim_check(world, tail_poll(&tail) == 1 && tail.segment == held && held->holds == 2);
	check_is(model, tail.header, tail.stored, &model->segments[0]);
	sim_check(world, tail_poll(&tail) == 1 && held->holds == 1);
	check_is(model, tail.header, tail.stored, &model->segments[1]);
	segring_release(ring, held);
	sim_check(world, ring->count == 3); /* the tail's own keeps the rest */
	tail_drop(&tail);
	sim_check(world, ring->count == 0 && !tail.header && !tail.stored);
	/* Gone from memory; the reader goes on where memory ended, without looking for the place.
	 */
	sim_check(world, tail_poll(&tail) == -EAGAIN && tail.reader_valid);
	sim_check(world, follow(model) == 1 && tail.segment == NULL);
	check_is(model, tail.header, tail.stored, &model->segments[2]);
	sim_check(world, follow(model) == 1);
	check_is(model, tail.header, tail.stored, &model->segments[3]);
	sim_check(world, follow(model) == 0 && follow(model) == 0);
	sim_check(world, tail.memory_hits == 2 && tail.disk_reads == 2);
	bench_append_durably(model, 3000);
	sim_check(world, follow(model) == 1 && tail.disk_reads == 3);
	tail_seek(&tail, 2);
	sim_check(world, follow(model) == 1 && tail.header->first_seq == 1);
	tail_deinit(&tail);
}

static void body_tail_overtaken(struct journal_model *model)
{
	struct sim_world *world = model->world;

	bench_append_durably(model, 3000);
	bench_append_durably(model, 3000);
	sim_check(world, tail_init(&tail, &model->run->journal, &model->run->ring) == 0);
	sim_check(world, follow(model) == 1);
	lap(model);
	sim_check(world, follow(model) == -ENOENT && follow(model) == -ENOENT);
	tail_seek(&tail, journal_oldest_seq(&model->run->journal));
	sim_check(world, follow(model) == 1);
	bench_fault(model, BENCH_FILES, SIM_READ, 0, 1);
	sim_check(world, follow(model) == -EIO);
	sim_check(world, follow(model) == 1);
	tail_deinit(&tail);
}

/* Follows a busy journal through laps and a failure, from memory and from disk in turn. */
static void body_tail_follows(struct journal_model *model)
{
	struct sim_world *world = model->world;
	uint64_t next_seq = 1;

	sim_check(world, tail_init(&tail, &model->run->journal, &model->run->ring) == 0);
	bench_fault(model, BENCH_FILES, SIM_WRITE, 70, 1);
	for (unsigned round = 0; round < 120; round++) {
		for (unsigned i = 0; i < 1 + round % 4; i++)
			bench_append(model, 20000);
		journal_model_flush(model);
		sim_run_for(world, round % 7 * 200 * SIM_US);
		while (round % 5 > 1 && follow(model) == 1) {
			check_is(model, tail.header, tail.stored,
				 journal_model_find(model, next_seq));
			next_seq = tail.next_seq;
		}
		journal_model_apply(model, model->durable_seq);
		journal_model_floor(model, next_seq - 1);
	}
	bench_await_durable(model);
	while (follow(model) == 1)
		next_seq = tail.next_seq;
	sim_check(world, next_seq == model->durable_seq + 1);
	sim_check(world, tail.disk_reads > 20 && model->run->journal.rewrites == 1);
	tail_deinit(&tail);
}

static void body_no_memory(struct journal_model *model)
{
	uint64_t bytes = sim_node_alloc_bytes(model->node);

	sim_node_fail_alloc(model->node, 1);
	sim_check(model->world,
		  tail_init(&tail, &model->run->journal, &model->run->ring) == -ENOMEM);
	tail_deinit(&tail);
	sim_check(model->world, sim_node_alloc_bytes(model->node) == bytes);
}

#define RUN(name)                                                                                  \
	UNIT(test_##name)                                                                          \
	{                                                                                          \
		bench_run(body_##name, &bench_writeback);                                          \
	}
RUN(seek_everywhere)
RUN(waiting_at_the_end)
RUN(overtaken)
RUN(damaged)
RUN(memory_then_disk)
RUN(tail_overtaken)
RUN(tail_follows)
RUN(no_memory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seek_everywhere),	 cmocka_unit_test(test_waiting_at_the_end),
		cmocka_unit_test(test_overtaken),	 cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_memory_then_disk), cmocka_unit_test(test_tail_overtaken),
		cmocka_unit_test(test_tail_follows),	 cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
