/* SPDX-License-Identifier: Apache-2.0 */
/* The undo log without crashes: what is saved, how often, where it goes, what is full or damaged.
 */
#include <errno.h>

#include "proto/segment.h"
#include "tests/unit/core/group/undo_bench.h"

#define FILE_1 BENCH_DIR "/undo.00000001"
#define FILE_2 BENCH_DIR "/undo.00000002"
#define FILE_3 BENCH_DIR "/undo.00000003"

static void run_with(uint64_t seed, void (*body)(struct sim_world *world, void *context))
{
	struct waiting_world w;

	waiting_calm(seed, body, &w, NULL);
}

static void one(unsigned volume, uint64_t off, uint64_t len)
{
	bench.range_count = 0;
	bench_range(volume, off, len);
}

/* ---- what is saved ----------------------------------------------------------------------------
 */

static void body_saves(struct sim_world *world, void *context)
{
	uint64_t done, total, ops;

	bench_set_up(context, 1);
	bench_begin();
	sim_check(world, sim_file_size(bench.node, FILE_1) == -ENOENT);
	/* Nothing wanted, nothing done. */
	ops = sim_disk_ops(world);
	undo_run(bench.undo, waiting_op(&bench.wait));
	sim_check(world, !bench.wait.done && bench_wait() == 0 && sim_disk_ops(world) == ops);
	/* A sector costs its chunk; twice costs once; across a border two. */
	one(0, 5 * BENCH_CHUNK + 512, 512);
	bench_range(0, 5 * BENCH_CHUNK, 4096);
	sim_check(world, bench_batch() == 0 && undo_saved_bytes(bench.undo) == BENCH_CHUNK);
	one(0, 7 * BENCH_CHUNK - 512, 1024);
	sim_check(world, bench_batch() == 0 && undo_saved_bytes(bench.undo) == 3 * BENCH_CHUNK);
	ops = sim_disk_ops(world);
	one(0, 5 * BENCH_CHUNK, 3 * BENCH_CHUNK);
	bench_add();
	undo_run(bench.undo, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0 && undo_saved_bytes(bench.undo) == 3 * BENCH_CHUNK);
	sim_check(world, sim_disk_ops(world) == ops);
	/* The short chunk at the end of each. */
	one(0, BENCH_BIG - 512, 512);
	bench_range(1, BENCH_SMALL - 512, 512);
	sim_check(world, bench_batch() == 0);
	sim_check(world, undo_saved_bytes(bench.undo) == 4 * BENCH_CHUNK + 4096 - 512);
	/* Behind the end, as of a volume that has grown: nothing to keep. */
	undo_add(bench.undo, 0, BENCH_BIG - 512, 1 << 20);
	undo_add(bench.undo, 0, BENCH_BIG, 4096);
	undo_add(bench.undo, 0, 0, 0);
	ops = sim_disk_ops(world);
	undo_run(bench.undo, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0 && sim_disk_ops(world) == ops);
	sim_check(world, sim_file_unflushed(bench.node, FILE_1) == 0);
	bench_compare("written", bench.now);
	undo_progress(bench.undo, &done, &total);
	sim_check(world, done == 0 && total == 0);
	sim_check(world, bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	sim_check(world, bench.volumes.list[0].dirty && bench.volumes.list[1].dirty);
	undo_progress(bench.undo, &done, &total);
	sim_check(world, done == total && total == 2 * undo_durable_bytes(bench.undo));
	/* Again (U4), and it needs no second check. */
	sim_check(world, bench_roll_back() == 0);
	undo_progress(bench.undo, &done, &total);
	sim_check(world, done == total && total == undo_durable_bytes(bench.undo));
	bench_compare("rolled back twice", bench.before);
	undo_end(bench.undo);
	bench_quiet();
	sim_check(world, sim_file_size(bench.node, FILE_1) == -ENOENT);
	sim_check(world, !undo_is_open(bench.undo) && undo_log_bytes(bench.undo) == 0);
	bench_close();
	sim_check(world, sim_node_alloc_bytes(bench.node) == 0);
}

UNIT(test_saves)
{
	run_with(1, body_saves);
}

/* Several files, also read back; a log that goes on after a restart; and the one after it. */
static void body_files(struct sim_world *world, void *context)
{
	uint64_t saved, bytes;

	bench_set_up(context, 2);
	bench_begin();
	bench_batches(60);
	sim_check(world, sim_file_size(bench.node, FILE_1) == 4 << 20);
	sim_check(world, sim_file_size(bench.node, FILE_2) == 8 << 20);
	sim_check(world, undo_log_bytes(bench.undo) == 12 << 20);
	saved = undo_saved_bytes(bench.undo);
	bytes = undo_durable_bytes(bench.undo);
	sim_check(world, saved > 5 << 20 && bytes < saved);
	for (bench.known_bytes = 0;; bench.known_bytes = bytes) {
		sim_check(world, bench_reopen() == 0);
		sim_check(world, undo_saved_bytes(bench.undo) == saved);
		sim_check(world, undo_durable_bytes(bench.undo) == bytes);
		sim_check(world, undo_log_bytes(bench.undo) == 12 << 20);
		if (bench.known_bytes)
			break;
	}
	/* U2: all that was saved is known, so only what is new is saved. */
	one(0, 0, BENCH_BIG);
	bench_range(1, 0, BENCH_SMALL);
	sim_check(world, bench_batch() == 0);
	sim_check(world, undo_saved_bytes(bench.undo) == BENCH_BIG + BENCH_SMALL);
	undo_check(bench.undo, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0);
	bench_compare("a check changes nothing", bench.now);
	sim_check(world, bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	/* The next one begins when this one is gone. */
	undo_end(bench.undo);
	sim_check(world, !undo_is_quiet(bench.undo));
	bench.id++;
	bench_begin();
	sim_check(world, sim_file_size(bench.node, FILE_1) == -ENOENT);
	sim_check(world, undo_is_quiet(bench.undo) && undo_saved_bytes(bench.undo) == 0);
	memcpy(bench.before, bench.now, sizeof(bench.now));
	for (unsigned v = 0; v < 2; v++) {
		sim_file_peek(bench.node, bench_paths[v], 0, bench.before[v], bench_sizes[v]);
		memcpy(bench.now[v], bench.before[v], bench_sizes[v]);
	}
	bench_batches(5);
	sim_check(world, bench_roll_back() == 0);
	bench_compare("the second log", bench.before);
	bench_close();
	undo_clean(bench.io, BENCH_DIR, bench.id);
	sim_check(world, sim_file_size(bench.node, FILE_1) > 0);
	undo_clean(bench.io, BENCH_DIR, 0);
	sim_check(world, sim_file_size(bench.node, FILE_1) == -ENOENT);
}

UNIT(test_files)
{
	run_with(2, body_files);
}

/* ---- room -------------------------------------------------------------------------------------
 */

static void try_all(int64_t expect)
{
	undo_run(bench.undo, waiting_op(&bench.wait));
	sim_check(bench.world, bench_wait() == expect);
	sim_check(bench.world, undo_is_full(bench.undo) == (expect == UNDO_E_FULL));
}

static void body_full(struct sim_world *world, void *context)
{
	struct sim_fault fault = { .ops = SIM_WRITE,
				   .pattern = "*undo*",
				   .action = SIM_ERROR,
				   .error = -ENOSPC,
				   .skip = 1,
				   .count = 1 };
	uint64_t saved;

	bench_set_up(context, 3);
	bench_begin();
	sim_disk_set_free(bench.node, 1 << 20);
	one(0, 0, BENCH_BIG);
	bench_add();
	try_all(UNDO_E_FULL);
	/* What came of the attempt is gone. */
	sim_check(world, sim_file_size(bench.node, FILE_1) == -ENOENT);
	sim_check(world, undo_saved_bytes(bench.undo) == 0);
	/* A little room is used, and what fits is saved. */
	sim_disk_set_free(bench.node, 3 << 20);
	try_all(UNDO_E_FULL);
	saved = undo_saved_bytes(bench.undo);
	sim_check(world, saved > 1 << 20 && saved < 5 << 20);
	try_all(UNDO_E_FULL);
	sim_check(world, undo_saved_bytes(bench.undo) == saved);
	/* A write that finds none although it was set aside. */
	sim_disk_set_free(bench.node, UINT64_MAX);
	sim_fault_add(world, &fault);
	try_all(UNDO_E_FULL);
	sim_check(world, undo_saved_bytes(bench.undo) >= saved);
	try_all(0);
	sim_check(world, undo_saved_bytes(bench.undo) == BENCH_BIG);
	bench.next_write = 0;
	while (bench_write(waiting_op(&bench.wait)))
		sim_check(world, bench_wait() >= 0);
	bench.known_bytes = undo_durable_bytes(bench.undo);
	sim_check(world, bench_reopen() == 0 && bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	bench_close();
}

static void body_limit(struct sim_world *world, void *context)
{
	bench_set_up(context, 4);
	bench_close();
	bench.limit_bytes = 3 << 20;
	bench_open();
	bench_begin();
	one(0, 0, BENCH_BIG);
	bench_add();
	try_all(UNDO_E_FULL);
	sim_check(world, undo_log_bytes(bench.undo) <= bench.limit_bytes);
	sim_check(world, undo_saved_bytes(bench.undo) > 2 << 20);
	/* With another limit, after a restart. */
	bench.known_bytes = undo_durable_bytes(bench.undo);
	bench.limit_bytes = 64 << 20;
	sim_check(world, bench_reopen() == 0);
	sim_check(world, bench_batch() == 0);
	sim_check(world, bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	bench_close();
}

UNIT(test_full)
{
	run_with(3, body_full);
	run_with(4, body_limit);
}

/* ---- damage -----------------------------------------------------------------------------------
 */

/* Where the segments of a file lie. */
static unsigned find_segments(const char *path, uint64_t *offs, unsigned max)
{
	uint8_t head[SEGMENT_HEADER_BYTES];
	struct segment_header header;
	unsigned count = 0;
	uint64_t off = 0;

	while (count < max) {
		sim_file_peek(bench.node, path, off, head, sizeof(head));
		if (segment_header_decode(head, sizeof(head), &header))
			break;
		offs[count++] = off;
		off += header.total_bytes;
	}
	return count;
}

/* Any flipped bit of what is known to be durable: the open, or at the latest the check, finds it,
 * and nothing is written. */
static void body_damage(struct sim_world *world, void *context)
{
	static uint64_t offs[64];
	unsigned count, i, at_open = 0, at_check = 0;

	bench_set_up(context, 5);
	bench_begin();
	bench_batches(20);
	count = find_segments(FILE_1, offs, 64);
	sim_check(world, count > 10);
	bench.known_bytes = undo_durable_bytes(bench.undo);
	for (i = 0; i < 4 * count; i++) {
		static const unsigned places[4] = { 60, 130, 4000, 4096 + 77 };
		uint64_t bit = (offs[i / 4] + places[i % 4]) * 8 + i % 8;
		uint64_t end = i / 4 + 1 < count ? offs[i / 4 + 1] : 4 << 20;

		if (bit / 8 >= end || sim_file_size(bench.node, FILE_1) * 8 <= (int64_t)bit)
			continue;
		sim_file_flip(bench.node, FILE_1, bit);
		if (bench_reopen() == UNDO_E_DAMAGED) {
			at_open++;
		} else {
			sim_check(world, bench.wait.res == 0);
			sim_check(world, bench_roll_back() == UNDO_E_DAMAGED);
			at_check++;
		}
		sim_check(world, strstr(undo_error(bench.undo), "undo.0000000") != NULL);
		bench_compare("damage writes nothing", bench.now);
		sim_file_flip(bench.node, FILE_1, bit);
	}
	sim_check(world, at_open >= count && at_check >= count);
	sim_check(world, bench_reopen() == 0 && bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	bench_close();
}

/* Where only the log itself can tell: a segment that later ones know to be durable is damage, the
 * last one is a torn tail. */
static void body_gap(struct sim_world *world, void *context)
{
	static uint64_t offs[64];
	unsigned count;

	bench_set_up(context, 6);
	bench_begin();
	bench_batches(8);
	count = find_segments(FILE_1, offs, 64);
	sim_check(world, count > 5);
	bench.known_bytes = 0;
	sim_file_flip(bench.node, FILE_1, (offs[2] + 200) * 8);
	sim_check(world, bench_reopen() == UNDO_E_DAMAGED);
	sim_file_flip(bench.node, FILE_1, (offs[2] + 200) * 8);
	sim_file_flip(bench.node, FILE_1, (offs[count - 1] + 200) * 8);
	sim_check(world, bench_reopen() == 0);
	/* It goes on there. */
	bench_batches(8);
	sim_check(world, bench_reopen() == 0);
	bench_close();
}

static void body_lost_files(struct sim_world *world, void *context)
{
	bench_set_up(context, 7);
	bench_begin();
	one(0, 0, BENCH_BIG);
	sim_check(world, bench_batch() == 0);
	bench.known_bytes = undo_durable_bytes(bench.undo);
	/* Of another log: by id, and by group. */
	bench.id++;
	sim_check(world, bench_reopen() == UNDO_E_DAMAGED);
	bench.id--;
	bench.sb.group.bytes[0] ^= 1;
	sim_check(world, bench_reopen() == UNDO_E_DAMAGED);
	bench.sb.group.bytes[0] ^= 1;
	sim_check(world, bench_reopen() == 0);
	/* Gone between open and roll back, and between two opens. */
	sim_check(world, io_file_remove(bench.io, FILE_1) == 0);
	sim_check(world, bench_roll_back() == UNDO_E_DAMAGED);
	bench_compare("nothing was written", bench.now);
	sim_check(world, bench_reopen() == UNDO_E_DAMAGED);
	/* The first is gone, nothing is known, the second one tells. */
	bench.known_bytes = 0;
	sim_check(world, bench_reopen() == 0); /* files behind a gap are not looked for */
	sim_check(world, undo_saved_bytes(bench.undo) == 0);
	bench_close();
}

/* What a killed process had written and not flushed is found, counted on, and so made durable. */
static void body_flush(struct sim_world *world, void *context)
{
	bench_set_up(context, 11);
	bench_begin();
	sim_fault_add(world, &(struct sim_fault){ .ops = SIM_FLUSH,
						  .pattern = "*undo*",
						  .action = SIM_DELAY,
						  .delay_ns = 100 * SIM_SECOND,
						  .count = 1 });
	one(0, 0, 8 * BENCH_CHUNK);
	bench_add();
	undo_run(bench.undo, waiting_op(&bench.wait));
	sim_run_for(world, SIM_SECOND);
	sim_check(world, !bench.wait.done && sim_file_unflushed(bench.node, FILE_1) > 0);
	sim_node_crash(bench.node, SIM_KILL);
	sim_node_restart(bench.node);
	bench_open();
	undo_open(bench.undo, bench.id, 0, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0);
	sim_check(world, undo_saved_bytes(bench.undo) == 8 * BENCH_CHUNK);
	sim_check(world, sim_file_unflushed(bench.node, FILE_1) == 0);
	bench_close();
}

/* A flush that failed has lost anything, also what can still be read; the next one succeeds. */
static void body_failed_flush(struct sim_world *world, void *context)
{
	bench_set_up(context, sim_seed(world));
	bench_begin();
	sim_fault_add(world, &(struct sim_fault){ .ops = SIM_FLUSH,
						  .pattern = "*undo*",
						  .action = SIM_ERROR,
						  .error = -EIO,
						  .count = 1 });
	one(0, 0, 30 * BENCH_CHUNK);
	sim_check(world, bench_batch() == -EIO);
	/* What the open finds is counted on: here, that everything is saved. */
	sim_check(world, bench_reopen() == 0);
	sim_check(world, bench_batch() == 0);
	volumes_flush(&bench.volumes, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0);
	sim_node_crash(bench.node, SIM_POWER);
	sim_node_restart(bench.node);
	bench_open();
	undo_open(bench.undo, bench.id, 0, waiting_op(&bench.wait));
	sim_check(world, bench_wait() == 0 && bench_roll_back() == 0);
	bench_compare("behind a failed flush", bench.before);
	bench_close();
}

/* A range that the volumes do not have (they are smaller now, say). */
static void body_other_volumes(struct sim_world *world, void *context)
{
	bench_set_up(context, 8);
	bench_begin();
	one(1, 0, BENCH_SMALL);
	sim_check(world, bench_batch() == 0);
	bench.known_bytes = undo_durable_bytes(bench.undo);
	bench.sb.volumes[1].id = 9;
	sim_check(world, bench_reopen() == UNDO_E_DAMAGED);
	bench_close();
}

UNIT(test_damage)
{
	run_with(5, body_damage);
	run_with(6, body_gap);
	run_with(7, body_lost_files);
	run_with(8, body_other_volumes);
	run_with(11, body_flush);
	for (uint64_t seed = 20; seed < 40; seed++)
		run_with(seed, body_failed_flush);
}

/* ---- errors -----------------------------------------------------------------------------------
 */

static int64_t with_fault(const char *pattern, uint32_t ops, uint64_t skip, uint64_t count)
{
	struct sim_fault fault = { .ops = ops,
				   .pattern = pattern,
				   .action = SIM_ERROR,
				   .error = -EIO,
				   .skip = skip,
				   .count = count };

	sim_fault_clear(bench.world);
	sim_fault_add(bench.world, &fault);
	undo_run(bench.undo, waiting_op(&bench.wait));
	return bench_wait();
}

static void body_errors(struct sim_world *world, void *context)
{
	static const uint32_t log_ops[] = { SIM_WRITE, SIM_FLUSH, SIM_CREATE };
	uint64_t done, total;

	bench_set_up(context, 9);
	bench_begin();
	one(0, 0, 40 * BENCH_CHUNK);
	bench_add();
	/* The volume: it is said which, and the next run reads again. */
	sim_check(world, with_fault("/vol/big", SIM_READ, 2, 1) == -EIO);
	sim_check(world, strstr(undo_error(bench.undo), "\"big\"") != NULL);
	sim_check(world, undo_saved_bytes(bench.undo) == 0);
	for (unsigned i = 0; i < array_len(log_ops); i++) {
		/* The log: final until it is opened again, which finds what is there. */
		sim_check(world, with_fault("*undo*", log_ops[i], 0, 1) == -EIO);
		sim_check(world, strstr(undo_error(bench.undo), "undo log") != NULL);
		sim_fault_clear(world);
		undo_run(bench.undo, waiting_op(&bench.wait));
		if (log_ops[i] != SIM_CREATE || i == 0)
			sim_check(world, bench_wait() == -EIO);
		else
			bench_wait();
		sim_check(world, bench_reopen() == 0);
		bench_add();
		if (log_ops[i] == SIM_FLUSH) { /* a new log for the last one */
			undo_end(bench.undo);
			bench.id++;
			bench_begin();
			bench_add();
		}
	}
	sim_check(world, bench_batch() == 0);
	bench.known_bytes = undo_durable_bytes(bench.undo);
	/* Reads of the log may be repeated; what stays unreadable is damage. */
	sim_fault_clear(world);
	sim_fault_add(world, &(struct sim_fault){ .ops = SIM_READ,
						  .pattern = "*undo*",
						  .action = SIM_ERROR,
						  .error = -EIO,
						  .count = 2 });
	sim_check(world, bench_reopen() == 0);
	sim_fault_add(world, &(struct sim_fault){ .ops = SIM_READ,
						  .pattern = "*undo*",
						  .action = SIM_ERROR,
						  .error = -EIO,
						  .count = 3 });
	sim_check(world, bench_roll_back() == UNDO_E_DAMAGED);
	sim_fault_clear(world);
	/* A volume that refuses: the roll back can be run again (U4). */
	sim_fault_add(world, &(struct sim_fault){ .ops = SIM_WRITE,
						  .pattern = "/vol/big",
						  .action = SIM_ERROR,
						  .error = -EIO,
						  .skip = 1,
						  .count = 1 });
	sim_check(world, bench_roll_back() == -EIO);
	sim_check(world, strstr(undo_error(bench.undo), "\"big\"") != NULL);
	sim_check(world, bench_roll_back() == 0);
	bench_compare("rolled back", bench.before);
	/* Cancelled, it ends soon. */
	undo_roll_back(bench.undo, waiting_op(&bench.wait));
	undo_cancel(bench.undo);
	sim_check(world, bench_wait() == -ECANCELED);
	undo_progress(bench.undo, &done, &total);
	sim_check(world, done < total);
	sim_check(world, bench_roll_back() == 0);
	bench_close();
}

static void body_memory(struct sim_world *world, void *context)
{
	struct undo_options options;
	unsigned nth;

	bench_set_up(context, 10);
	bench.undo = undo_free(bench.undo);
	options = (struct undo_options){ .io = bench.io,
					 .dir = BENCH_DIR,
					 .volumes = &bench.volumes };
	for (nth = 1; nth <= 8; nth++) {
		uint64_t bytes = sim_node_alloc_bytes(bench.node);

		sim_node_fail_alloc(bench.node, nth);
		sim_check(world, undo_new(&options, &bench.undo) == -ENOMEM);
		sim_check(world, sim_node_alloc_bytes(bench.node) == bytes);
	}
	sim_check(world, undo_new(&options, &bench.undo) == 0);
	sim_check(world, undo_free(NULL) == NULL);
	bench_close();
}

UNIT(test_errors)
{
	run_with(9, body_errors);
	run_with(10, body_memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_saves),  cmocka_unit_test(test_files),
		cmocka_unit_test(test_full),   cmocka_unit_test(test_damage),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
