/* SPDX-License-Identifier: Apache-2.0 */
/* What clients are told, and when: acknowledgements, reads, group commit, backpressure, marks. */
#include "tests/unit/agent/stage.h"

static void writethrough(struct stage *stage)
{
	stage->group_conf.cache = CONF_WRITETHROUGH;
}

static void slow_flush(struct stage *stage)
{
	stage->group_conf.flush_interval_ns = 10 * SIM_SECOND;
}

/* Delays the journal's operations of one kind, so that what waits for them can be seen waiting. */
static void delay_journal(struct stage *stage, uint32_t ops, uint64_t delay_ns)
{
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "*journal/*",
							 .ops = ops,
							 .action = SIM_DELAY,
							 .delay_ns = delay_ns });
}

static void acks_writeback(struct stage *stage)
{
	struct stage_request *write, *flush, *fua;

	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->exports[0].export.limits.volatile_cache);
	write = stage_write(stage, 0, 0, 4096, 0);
	sim_check(stage->world, write->busy); /* never from inside the call */
	sim_check(stage->world, stage_wait(stage, write) == 0);
	/* It is with the kernel, and nothing more was waited for. */
	sim_check(stage->world, stage->group->journal.written_seq == 1);
	sim_check(stage->world, stage->group->journal.durable_seq == 0);
	flush = stage_flush(stage);
	sim_check(stage->world, stage_wait(stage, flush) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq == 1);
	fua = stage_write(stage, 0, 4096, 4096, EXPORT_FUA);
	sim_check(stage->world, stage_wait(stage, fua) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq == 2);
	/* The journal becomes durable by itself, too. */
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 512, 0)) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq == 2);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->group->journal.durable_seq == 3);
	sim_check(stage->world, stage_status(stage)->flushes == 1 && stage->status.writes == 3);
}

UNIT(test_acks_writeback)
{
	stage_run_raw(acks_writeback, 0, NULL);
}

static void acks_writethrough(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, !stage->group->exports[0].export.limits.volatile_cache);
	for (unsigned i = 0; i < 20; i++) {
		uint64_t before = stage->group->journal.durable_seq;

		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, i * 4096, 4096, 0)) == 0);
		sim_check(stage->world, stage->group->journal.durable_seq == before + 1);
	}
	sim_check(stage->world, stage_wait(stage, stage_flush(stage)) == 0);
	sim_check(stage->world, stage->group->journal.flushes == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->head_seq == 20);
	stage_check_read(stage, "after power loss");
}

UNIT(test_acks_writethrough)
{
	stage_run_raw(acks_writethrough, 0, writethrough);
}

/* R2: whichever connection asks, and it does not wait for what came later. */
static void flush_covers(struct stage *stage)
{
	struct stage_request *writes[8], *flush, *later;

	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 8; i++)
		writes[i] = stage_write(stage, i % 2, i * 8192, 8192, 0);
	for (unsigned i = 0; i < 8; i++)
		sim_check(stage->world, stage_wait(stage, writes[i]) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq == 0);
	flush = stage_flush(stage);
	delay_journal(stage, SIM_WRITE, SIM_SECOND);
	later = stage_write(stage, 0, 65536, 4096, 0);
	sim_check(stage->world, stage_wait(stage, flush) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq >= 8);
	sim_check(stage->world, later->busy);
	sim_fault_clear(stage->world);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->head_seq >= 8);
}

UNIT(test_flush_covers)
{
	stage_run_raw(flush_covers, 0, slow_flush);
}

/* A killed agent has forgotten nothing that it acknowledged. */
static void kill_keeps(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 30; i++)
		sim_check(stage->world,
			  stage_wait(stage,
				     stage_write(stage, i % 2, (i * 12288) % 200000 / 512 * 512,
						 8192, 0)) == 0);
	sim_check(stage->world, stage->group->journal.durable_seq < 30);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->head_seq == 30);
	stage_check_read(stage, "after a kill");
	stage_check_volumes(stage, "replayed");
}

UNIT(test_kill_keeps)
{
	stage_run_raw(kill_keeps, 0, slow_flush);
}

/* Reads see every write that was submitted before, whatever apply is doing. */
static void reads(struct stage *stage)
{
	static uint8_t before[STAGE_VOLUME_BYTES];
	uint64_t state = 7;

	sim_check(stage->world, stage_start(stage) == 0);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "/vol/*",
							 .ops = SIM_READ | SIM_WRITE,
							 .action = SIM_DELAY,
							 .delay_ns = 3 * SIM_MS });
	for (unsigned i = 0; i < 400; i++) {
		struct stage_request *read;
		uint64_t off, len;

		state = state * 6364136223846793005ull + 1442695040888963407ull;
		off = (state >> 33) % 64 * 512;
		len = ((state >> 40) % 24 + 1) * 512;
		if (i % 9 == 4)
			stage_zero(stage, i % 2 ? EXPORT_TRIM : EXPORT_WRITE_ZEROES, 0, off, len);
		else
			stage_write(stage, 0, off, len, 0);
		read = stage_request(stage, EXPORT_READ, 0, 0, 64 * 1024, 0);
		memcpy(before, stage->content[0], 64 * 1024);
		stage_submit(stage, read);
		sim_check(stage->world, stage_wait(stage, read) == 0);
		sim_check(stage->world, !memcmp(read->buf, before, 64 * 1024));
	}
	sim_check(stage->world, stage->group->apply.written_bytes > 0);
	sim_check(stage->world, stage->group->writeset.map.count < 200);
	sim_fault_clear(stage->world);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stage->group->writeset.map.count == 0);
	sim_check(stage->world, stage->group->ring.used_bytes == 0);
	stage_check_volumes(stage, "applied");
}

UNIT(test_reads)
{
	stage_run_raw(reads, 0, NULL);
}

/* R1: a read that is slow keeps what is applied meanwhile in the write set. */
static void slow_read(struct stage *stage)
{
	struct stage_request *read;

	sim_check(stage->world, stage_start(stage) == 0);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "/vol/*",
							 .ops = SIM_READ,
							 .action = SIM_DELAY,
							 .delay_ns = SIM_SECOND,
							 .count = 1 });
	read = stage_request(stage, EXPORT_READ, 0, 0, 16384, 0);
	stage_submit(stage, read);
	for (unsigned i = 0; i < 4; i++)
		stage_write(stage, 0, i * 4096, 4096, 0);
	sim_run_for(stage->world, 200 * SIM_MS);
	sim_check(stage->world, read->busy && stage->group->applied_seq == 4);
	sim_check(stage->world, stage->group->writeset.map.count == 4);
	sim_check(stage->world, stage_wait(stage, read) == 0);
	sim_check(stage->world, !memcmp(read->buf, stage->content[0], 16384));
	sim_check(stage->world, stage->group->writeset.map.count == 0);
}

UNIT(test_slow_read)
{
	stage_run_raw(slow_read, 0, NULL);
}

/* What comes in one turn shares a segment; what comes while four are on their way, the next one. */
static void batching(struct stage *stage)
{
	struct stage_request *last = NULL;

	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 16; i++)
		last = stage_write(stage, 0, i * 512, 512, 0);
	sim_check(stage->world, stage_wait(stage, last) == 0);
	sim_check(stage->world, stage->group->segments == 1);
	delay_journal(stage, SIM_WRITE, 100 * SIM_MS);
	for (unsigned i = 0; i < 20; i++) {
		last = stage_write(stage, 0, i * 512, 512, 0);
		sim_run_for(stage->world, SIM_MS);
	}
	sim_check(stage->world, stage->group->segments == 1 + JOURNAL_WRITES_MAX);
	sim_check(stage->world, stage->group->open->header.records == 20 - JOURNAL_WRITES_MAX);
	sim_check(stage->world, stage_wait(stage, last) == 0);
	sim_check(stage->world, stage->group->segments == 2 + JOURNAL_WRITES_MAX);
	/* Nothing waits for company. */
	sim_fault_clear(stage->world);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 512, 0)) == 0);
	sim_check(stage->world, stage->group->segments == 3 + JOURNAL_WRITES_MAX);
}

UNIT(test_batching)
{
	stage_run_raw(batching, 0, NULL);
}

/* Larger than a segment: several records; one that a segment can hold stays in one piece. */
static void large(struct stage *stage)
{
	struct stage_request *write;

	sim_check(stage->world, stage_start(stage) == 0);
	write = stage_write(stage, 0, 4096, 300 << 10, 0);
	sim_check(stage->world, stage_wait(stage, write) == 0);
	sim_check(stage->world, stage->group->head_seq == 4); /* 80 KiB of data each */
	stage_write(stage, 1, 0, 4096, 0);
	write = stage_write(stage, 1, 4096, stage->group->segment_data_max, 0);
	sim_check(stage->world, stage_wait(stage, write) == 0);
	sim_check(stage->world, stage->group->head_seq == 6);
	stage_check_read(stage, "large writes");
	sim_check(stage->world, stage_wait(stage, stage_flush(stage)) == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_check_read(stage, "large writes after power loss");
}

UNIT(test_large)
{
	stage_run_raw(large, 0, NULL);
}

/* Memory full: requests wait, in order, and all are done; long flush intervals do not count. */
static void backpressure(struct stage *stage)
{
	struct stage_request *writes[40];
	uint64_t since;

	sim_check(stage->world, stage_start(stage) == 0);
	since = sim_now(stage->world);
	for (unsigned i = 0; i < 40; i++)
		writes[i] = stage_write(stage, i % 2, (uint64_t)(i % 20) * 49152, 49152, 0);
	sim_check(stage->world, !list_empty(&stage->group->stalled));
	for (unsigned i = 0; i < 40; i++) {
		sim_check(stage->world, stage_wait(stage, writes[i]) == 0);
		sim_check(stage->world, i == 0 || writes[i]->order > writes[i - 1]->order);
	}
	sim_check(stage->world, sim_now(stage->world) - since < SIM_SECOND);
	sim_check(stage->world, stage_status(stage)->stalls > 0 && stage->status.stall_ns > 0);
	sim_check(stage->world, list_empty(&stage->group->stalled));
	stage_check_read(stage, "after waiting");
}

UNIT(test_backpressure)
{
	stage_run_raw(backpressure, 0, slow_flush);
}

/* More reads and maps than there are places for: the last ones wait, none is forgotten. */
static void crowd(struct stage *stage)
{
	struct stage_request *all[STAGE_REQUESTS];

	sim_check(stage->world, stage_start(stage) == 0);
	/* Leave eight places. */
	for (unsigned i = 0; i < CAPTURE_OPS_MAX - 8; i++)
		(void)list_pop_front(&stage->group->free_ops);
	for (unsigned i = 0; i < 60; i++) {
		all[i] = stage_request(stage, i < 40 ? EXPORT_MAP : EXPORT_READ, 1, i * 4096, 4096,
				       0);
		stage_submit(stage, all[i]);
	}
	for (unsigned i = 0; i < 60; i++)
		sim_check(stage->world, stage_wait(stage, all[i]) == (i < 40 ? 4096 : 0));
}

UNIT(test_crowd)
{
	stage_run_raw(crowd, 0, NULL);
}

static void expect_map(struct stage *stage, uint64_t off, uint64_t len, int64_t run, bool hole)
{
	struct stage_request *map = stage_request(stage, EXPORT_MAP, 1, off, len, 0);

	stage_submit(stage, map);
	if (stage_wait(stage, map) != run || map->request.hole != hole)
		sim_fail(stage->world, "map at %lu: %ld, hole %d", (unsigned long)off,
			 (long)map->res, map->request.hole);
}

static void maps(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	expect_map(stage, 0, 65536, 65536, true);
	stage_write(stage, 1, 8192, 4096, 0);
	expect_map(stage, 0, 65536, 8192, true);
	expect_map(stage, 8192, 65536, 4096, false);
	expect_map(stage, 12288, 65536, 65536, true);
	stage_zero(stage, EXPORT_TRIM, 1, 8192, 4096);
	expect_map(stage, 8192, 4096, 4096, true);
	stage_write(stage, 1, 0, 4096, 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stage->group->writeset.map.count == 0);
	expect_map(stage, 0, 4096, 4096, false);
	stage_check_read(stage, "maps");
}

UNIT(test_maps)
{
	stage_run_raw(maps, 0, NULL);
}

/* Vain tries to compress become rarer; one success, and every segment is tried again. */
static void lz4(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 80; i++) {
		stage->next_id |= 1;
		stage->next_id++; /* odd after the next ++ */
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 32768, 0)) == 0);
	}
	sim_check(stage->world, stage->group->lz4_step == 32 && stage->group->lz4_pause > 0);
	/* What carries no data says nothing. */
	sim_check(stage->world, stage_wait(stage, stage_zero(stage, EXPORT_TRIM, 0, 0, 4096)) == 0);
	for (unsigned i = 0; i < 40; i++) {
		stage->next_id = 2 * i + 1; /* even after the ++: compresses */
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 32768, 0)) == 0);
	}
	sim_check(stage->world, stage->group->lz4_step == 0 && stage->group->lz4_pause == 0);
	sim_check(stage->world,
		  stage_status(stage)->segment_stored_bytes < stage->status.segment_raw_bytes);
	stage_zero(stage, EXPORT_TRIM, 0, 65536, 4096);
	sim_check(stage->world, stage_wait(stage, stage_flush(stage)) == 0);
	sim_check(stage->world, stage->group->lz4_step == 0);
	stage_check_read(stage, "compressed");
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_check_read(stage, "compressed, replayed");
}

UNIT(test_lz4)
{
	stage_run_raw(lz4, 0, NULL);
}

static int64_t mark(struct stage *stage, const char *name)
{
	struct stage_op wait = { .op.done = stage_op_done };

	agent_group_mark(stage->group, name, &wait.op);
	sim_check(stage->world, !wait.done);
	sim_check(stage->world, sim_run_until(stage->world, stage_op_is_done, &wait, STAGE_LIMIT));
	return wait.res;
}

static void marks(struct stage *stage)
{
	struct stage_op first = { .op.done = stage_op_done }, second = first;
	char longest[MARK_NAME_MAX + 2];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_write(stage, 0, 0, 4096, 0);
	sim_check(stage->world, mark(stage, "before upgrade") == 2);
	sim_check(stage->world, stage->group->journal.durable_seq == 2);
	stage_write(stage, 0, 4096, 4096, 0);
	sim_check(stage->world, mark(stage, "") == -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[MARK_NAME_MAX + 1] = 0;
	sim_check(stage->world, mark(stage, longest) == -EINVAL);
	longest[MARK_NAME_MAX] = 0;
	sim_check(stage->world, mark(stage, longest) == 4);
	agent_group_mark(stage->group, "a", &first.op);
	agent_group_mark(stage->group, "b", &second.op);
	sim_check(stage->world, sim_run_until(stage->world, stage_op_is_done, &first, STAGE_LIMIT));
	sim_check(stage->world, first.res == 5 && second.done && second.res == -EBUSY);
	stage_check_read(stage, "beside marks");
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->head_seq == 5);
	stage_check_volumes(stage, "marks replayed");
	stage_stop(stage);
}

UNIT(test_marks)
{
	stage_run_raw(marks, 0, NULL);
}

/* Marks alone fill the ring's table of segments before they fill a batch. */
static void marks_only(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 60; i++)
		sim_check(stage->world, mark(stage, "m") == i + 1);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->head_seq == 60);
}

static void rare_checkpoints(struct stage *stage)
{
	stage->group_conf.checkpoint_interval_ns = 3600 * SIM_SECOND;
	stage->group_conf.memory_bytes = 400 << 10; /* of 20 segments at most */
}

UNIT(test_marks_only)
{
	stage_run_raw(marks_only, 0, rare_checkpoints);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acks_writeback), cmocka_unit_test(test_acks_writethrough),
		cmocka_unit_test(test_flush_covers),   cmocka_unit_test(test_kill_keeps),
		cmocka_unit_test(test_reads),	       cmocka_unit_test(test_slow_read),
		cmocka_unit_test(test_batching),       cmocka_unit_test(test_large),
		cmocka_unit_test(test_backpressure),   cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_maps),	       cmocka_unit_test(test_lz4),
		cmocka_unit_test(test_marks),	       cmocka_unit_test(test_marks_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
