/* SPDX-License-Identifier: Apache-2.0 */
/* What the simulated disk keeps and loses: the promises of io.h, and no more than them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "tests/sim/sim.h"

#define FILE_PATH  "/d/file"
#define FILE_BYTES 65536u
#define ROUNDS	   60u

struct op {
	struct io_op op;
	bool done;
	int64_t res;
};

static void op_done(struct io_op *io_op, int64_t res)
{
	struct op *op = container_of(io_op, struct op, op);

	op->done = true;
	op->res = res;
}

static bool is_done(void *context)
{
	const struct op *op = context;

	return op->done;
}

static struct op *op_new(struct io *io)
{
	struct op *op = io_alloc(io, sizeof(*op), 8);

	op->op.done = op_done;
	return op;
}

static int64_t finish(struct sim_world *world, struct op *op)
{
	assert_true(sim_run_until(world, is_done, op, 100 * SIM_SECOND));
	return op->res;
}

struct fixture {
	struct sim_options options;
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
	struct io_file *file;
	uint8_t *buf;
};

static void begin(struct fixture *f, uint64_t seed)
{
	sim_options_calm(&f->options);
	f->world = sim_new(seed, &f->options);
	f->node = sim_node_new(f->world, "n");
	f->io = sim_node_io(f->node);
	sim_file_make(f->node, FILE_PATH, FILE_BYTES, false, false);
	assert_int_equal(io_file_open(f->io, FILE_PATH, IO_OPEN_DIRECT, &f->file), 0);
	f->buf = io_alloc(f->io, FILE_BYTES, 4096);
}

static void again(struct fixture *f)
{
	sim_node_restart(f->node);
	assert_int_equal(io_file_open(f->io, FILE_PATH, IO_OPEN_DIRECT, &f->file), 0);
	f->buf = io_alloc(f->io, FILE_BYTES, 4096);
}

static struct op *submit_write(struct fixture *f, uint8_t value, size_t len, uint64_t off,
			       unsigned flags)
{
	struct op *op = op_new(f->io);

	memset(f->buf + off, value, len);
	io_write(f->file, f->buf + off, len, off, flags, &op->op);
	return op;
}

static int64_t write_now(struct fixture *f, uint8_t value, size_t len, uint64_t off, unsigned flags)
{
	return finish(f->world, submit_write(f, value, len, off, flags));
}

static int64_t flush_now(struct fixture *f)
{
	struct op *op = op_new(f->io);

	io_flush(f->file, &op->op);
	return finish(f->world, op);
}

static uint8_t byte_at(struct fixture *f, uint64_t off)
{
	uint8_t byte;

	sim_file_peek(f->node, FILE_PATH, off, &byte, 1);
	return byte;
}

static void test_read_sees_completed_writes(void **state)
{
	struct fixture f;
	struct op *op;

	(void)state;
	begin(&f, 1);
	assert_int_equal(write_now(&f, 7, 4096, 8192, 0), 4096);
	memset(f.buf, 0, FILE_BYTES);
	op = op_new(f.io);
	io_read(f.file, f.buf, 8192, 4096, &op->op);
	assert_int_equal(f.buf[4096], 0xee);
	assert_int_equal(finish(f.world, op), 8192);
	assert_int_equal(f.buf[0], 0);
	assert_int_equal(f.buf[4095], 0);
	assert_int_equal(f.buf[4096], 7);
	assert_int_equal(f.buf[8191], 7);
	op = op_new(f.io);
	io_read(f.file, f.buf, 1024, FILE_BYTES - 512, &op->op);
	assert_int_equal(finish(f.world, op), -EIO);
	sim_free(f.world);
}

static void test_kill_keeps_what_completed(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;

		begin(&f, seed);
		assert_int_equal(write_now(&f, 9, 4096, 0, 0), 4096);
		sim_node_crash(f.node, SIM_KILL);
		again(&f);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(byte_at(&f, i * 512u), 9);
		/* The process has died, the cache has not: it is still not durable. */
		assert_int_equal(sim_file_unflushed(f.node, FILE_PATH), 8);
		sim_free(f.world);
	}
}

/* What a crash leaves of a write of 8 sectors: counts runs in which none, some, all are there. */
static void survivors_of(enum sim_crash kind, bool complete, unsigned flags, bool flush,
			 unsigned ret_runs[3])
{
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;
		unsigned count = 0;

		begin(&f, seed);
		if (complete)
			write_now(&f, 5, 4096, 4096, flags);
		else
			submit_write(&f, 5, 4096, 4096, flags);
		if (flush)
			assert_int_equal(flush_now(&f), 0);
		sim_node_crash(f.node, kind);
		for (unsigned i = 0; i < 8; i++) {
			uint8_t first = byte_at(&f, 4096 + i * 512u);

			assert_int_equal(first, byte_at(&f, 4096 + i * 512u + 511));
			count += first == 5;
		}
		ret_runs[count == 0 ? 0 : count == 8 ? 2 : 1]++;
		sim_free(f.world);
	}
}

static void test_what_a_crash_leaves(void **state)
{
	static const struct {
		enum sim_crash kind;
		bool complete, flush;
		unsigned flags;
		bool all_only;
	} cases[] = {
		{ SIM_POWER, true, false, 0, false },	      { SIM_POWER, false, false, 0, false },
		{ SIM_POWER, false, false, IO_DSYNC, false }, { SIM_POWER, true, true, 0, true },
		{ SIM_POWER, true, false, IO_DSYNC, true },   { SIM_KILL, true, false, 0, true },
		{ SIM_KILL, false, false, 0, false },
	};

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		unsigned runs[3] = { 0 };

		survivors_of(cases[i].kind, cases[i].complete, cases[i].flags, cases[i].flush,
			     runs);
		if (cases[i].all_only) {
			assert_int_equal(runs[2], ROUNDS);
			continue;
		}
		assert_true(runs[0] > 0);
		assert_true(runs[1] > 0);
		assert_true(runs[2] > 0);
	}
}

static void test_flush_covers_only_what_had_completed(void **state)
{
	unsigned lost = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;
		struct op *flush;

		begin(&f, seed);
		write_now(&f, 1, 512, 0, 0);
		flush = op_new(f.io);
		io_flush(f.file, &flush->op);
		write_now(&f, 2, 512, 512, 0);
		finish(f.world, flush);
		sim_node_crash(f.node, SIM_POWER);
		assert_int_equal(byte_at(&f, 0), 1);
		lost += byte_at(&f, 512) == 0;
		sim_free(f.world);
	}
	assert_true(lost > 0 && lost < ROUNDS);
}

static void test_older_write_never_beats_a_durable_one(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;

		begin(&f, seed);
		write_now(&f, 1, 2048, 0, 0);
		write_now(&f, 2, 1024, 512, IO_DSYNC);
		sim_node_crash(f.node, SIM_POWER);
		assert_int_equal(byte_at(&f, 512), 2);
		assert_int_equal(byte_at(&f, 1024), 2);
		sim_free(f.world);
	}
}

static void test_any_unflushed_version_may_survive(void **state)
{
	unsigned seen[3] = { 0 };

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;

		begin(&f, seed);
		write_now(&f, 1, 512, 0, 0);
		write_now(&f, 2, 512, 0, 0);
		sim_node_crash(f.node, SIM_POWER);
		seen[byte_at(&f, 0)]++;
		sim_free(f.world);
	}
	assert_true(seen[0] > 0 && seen[1] > 0 && seen[2] > 0);
}

static void test_exact_crash(void **state)
{
	(void)state;
	for (uint64_t mask = 0; mask < 16; mask++) {
		struct fixture f;

		begin(&f, 3);
		write_now(&f, 1, 1024, 0, 0);
		submit_write(&f, 2, 1024, 4096, 0);
		assert_int_equal(sim_node_volatile_sectors(f.node, SIM_POWER), 4);
		assert_int_equal(sim_node_volatile_sectors(f.node, SIM_KILL), 2);
		sim_node_crash_exactly(f.node, SIM_POWER, mask);
		assert_int_equal(byte_at(&f, 0), mask & 1 ? 1 : 0);
		assert_int_equal(byte_at(&f, 512), mask & 2 ? 1 : 0);
		assert_int_equal(byte_at(&f, 4096), mask & 4 ? 2 : 0);
		assert_int_equal(byte_at(&f, 4608), mask & 8 ? 2 : 0);
		sim_free(f.world);
	}
}

static void test_failed_flush_lies_afterwards(void **state)
{
	unsigned gone_at_once = 0, gone_later = 0, kept = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const struct sim_fault fault = {
			.ops = SIM_FLUSH, .action = SIM_ERROR, .error = -EIO, .count = 1
		};
		struct fixture f;
		uint8_t before;

		begin(&f, seed);
		sim_fault_add(f.world, &fault);
		write_now(&f, 4, 512, 0, 0);
		assert_int_equal(flush_now(&f), -EIO);
		assert_int_equal(flush_now(&f), 0);
		assert_int_equal(sim_fault_hits(f.world), 1);
		before = byte_at(&f, 0);
		sim_node_crash(f.node, SIM_POWER);
		if (byte_at(&f, 0) == 4)
			kept++;
		else if (before == 4)
			gone_later++;
		else
			gone_at_once++;
		sim_free(f.world);
	}
	assert_true(gone_at_once > 0 && gone_later > 0 && kept > 0);
}

static void test_discard_makes_holes(void **state)
{
	struct fixture f;
	struct op *op;
	bool hole;

	(void)state;
	begin(&f, 1);
	write_now(&f, 3, 16384, 0, IO_DSYNC);
	op = op_new(f.io);
	io_discard(f.file, 4096, 8192, &op->op);
	assert_int_equal(finish(f.world, op), 0);
	assert_int_equal(sim_disk_used(f.node), FILE_BYTES - 8192);
	assert_int_equal(byte_at(&f, 4096), 0);
	op = op_new(f.io);
	io_map(f.file, 0, FILE_BYTES, &hole, &op->op);
	assert_int_equal(finish(f.world, op), 4096);
	assert_false(hole);
	op = op_new(f.io);
	io_map(f.file, 4096, FILE_BYTES - 4096, &hole, &op->op);
	assert_int_equal(finish(f.world, op), 8192);
	assert_true(hole);
	op = op_new(f.io);
	io_write_zeroes(f.file, 4096, 4096, IO_NO_HOLE, &op->op);
	assert_int_equal(finish(f.world, op), 0);
	assert_int_equal(sim_disk_used(f.node), FILE_BYTES - 4096);
	sim_free(f.world);
}

static void test_discard_is_not_durable_by_itself(void **state)
{
	unsigned undone = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;
		struct op *op;

		begin(&f, seed);
		write_now(&f, 3, 512, 0, IO_DSYNC);
		op = op_new(f.io);
		io_discard(f.file, 0, 512, &op->op);
		finish(f.world, op);
		sim_node_crash(f.node, SIM_POWER);
		undone += byte_at(&f, 0) == 3;
		assert_int_equal(sim_disk_used(f.node),
				 FILE_BYTES - (byte_at(&f, 0) == 3 ? 0 : 512));
		sim_free(f.world);
	}
	assert_true(undone > 0 && undone < ROUNDS);
}

static void test_create(void **state)
{
	unsigned missing = 0, partial = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		struct fixture f;
		struct op *op;
		int64_t size;

		begin(&f, seed);
		op = op_new(f.io);
		io_file_create(f.io, "/d/new", 64u << 20, &op->op);
		assert_int_equal(finish(f.world, op), 0);
		assert_int_equal(sim_file_size(f.node, "/d/new"), 64u << 20);
		op = op_new(f.io);
		io_file_create(f.io, "/d/other", 1u << 20, &op->op);
		sim_node_crash(f.node, SIM_POWER);
		assert_int_equal(sim_file_size(f.node, "/d/new"), 64u << 20);
		size = sim_file_size(f.node, "/d/other");
		assert_true(size < 1 << 20);
		missing += size == -ENOENT;
		partial += size >= 0;
		sim_free(f.world);
	}
	assert_true(missing > 0 && partial > 0);
}

static void test_names(void **state)
{
	struct fixture f;
	struct io_file *file;
	struct io_lock *lock, *other;
	struct op *op;

	(void)state;
	begin(&f, 1);
	assert_int_equal(io_file_open(f.io, "/d/none", 0, &file), -ENOENT);
	assert_int_equal(io_mkdir(f.io, "/x/y"), -ENOENT);
	assert_int_equal(io_mkdir(f.io, "/x"), 0);
	assert_int_equal(io_mkdir(f.io, "/x"), 0);
	assert_int_equal(io_mkdir(f.io, "/x/y"), 0);
	op = op_new(f.io);
	io_file_create(f.io, "/z/file", 512, &op->op);
	assert_int_equal(finish(f.world, op), -ENOENT);
	assert_int_equal(io_lock(f.io, "/x/lock", &lock), 0);
	assert_int_equal(io_lock(f.io, "/x/lock", &other), -EWOULDBLOCK);
	io_unlock(lock);
	assert_int_equal(io_lock(f.io, "/x/lock", &lock), 0);
	assert_int_equal(io_file_remove(f.io, "/d/none"), -ENOENT);
	assert_int_equal(io_file_remove(f.io, FILE_PATH), 0);
	assert_int_equal(write_now(&f, 1, 512, 0, 0), 512);
	sim_node_crash(f.node, SIM_KILL);
	assert_int_equal(sim_file_size(f.node, FILE_PATH), -ENOENT);
	sim_node_restart(f.node);
	assert_int_equal(io_lock(f.io, "/x/lock", &lock), 0);
	sim_free(f.world);
}

static void test_space_runs_out(void **state)
{
	struct fixture f;
	struct op *op;

	(void)state;
	begin(&f, 1);
	sim_file_make(f.node, "/d/thin", 1u << 20, true, true);
	sim_disk_set_free(f.node, 8192);
	op = op_new(f.io);
	io_file_create(f.io, "/d/big", 16384, &op->op);
	assert_int_equal(finish(f.world, op), -ENOSPC);
	/* A beginning of it may have been left. */
	io_file_remove(f.io, "/d/big");
	io_file_close(f.file);
	assert_int_equal(io_file_open(f.io, "/d/thin", IO_OPEN_DIRECT, &f.file), 0);
	assert_int_equal(write_now(&f, 1, 8192, 0, 0), 8192);
	assert_int_equal(write_now(&f, 1, 8192, 0, 0), 8192);
	assert_int_equal(write_now(&f, 1, 512, 16384, 0), -ENOSPC);
	sim_free(f.world);
}

static void test_planned_faults(void **state)
{
	const struct sim_fault lose = {
		.pattern = "/d/*", .ops = SIM_WRITE, .action = SIM_LOSE, .count = 1
	};
	const struct sim_fault stray = { .ops = SIM_WRITE,
					 .action = SIM_MISDIRECT,
					 .offset_delta = 4096,
					 .skip = 1,
					 .count = 1 };
	struct fixture f;

	(void)state;
	begin(&f, 1);
	sim_fault_add(f.world, &lose);
	sim_fault_add(f.world, &stray);
	assert_int_equal(write_now(&f, 1, 512, 0, IO_DSYNC), 512);
	assert_int_equal(byte_at(&f, 0), 0);
	assert_int_equal(write_now(&f, 2, 512, 0, IO_DSYNC), 512);
	assert_int_equal(byte_at(&f, 0), 0);
	assert_int_equal(byte_at(&f, 4096), 2);
	assert_int_equal(write_now(&f, 3, 512, 0, IO_DSYNC), 512);
	assert_int_equal(byte_at(&f, 0), 3);
	sim_file_flip(f.node, FILE_PATH, 9);
	assert_int_equal(byte_at(&f, 1), 3 ^ 2);
	sim_fail_op(f.world, sim_disk_ops(f.world) + 2, -EIO, true);
	assert_int_equal(write_now(&f, 4, 512, 0, 0), 512);
	assert_int_equal(write_now(&f, 5, 512, 0, 0), -EIO);
	assert_int_equal(write_now(&f, 6, 512, 0, 0), -EIO);
	assert_int_equal(flush_now(&f), -EIO);
	sim_fault_clear(f.world);
	assert_int_equal(write_now(&f, 6, 512, 0, 0), 512);
	sim_free(f.world);
}

static void test_backup_is_restored(void **state)
{
	struct fixture f;
	struct sim_disk_copy *copy;

	(void)state;
	begin(&f, 1);
	write_now(&f, 1, 512, 0, IO_DSYNC);
	copy = sim_disk_save(f.node);
	write_now(&f, 2, 512, 0, IO_DSYNC);
	sim_node_crash(f.node, SIM_KILL);
	sim_disk_restore(f.node, copy);
	assert_int_equal(byte_at(&f, 0), 1);
	sim_disk_wipe(f.node);
	assert_int_equal(sim_file_size(f.node, FILE_PATH), -ENOENT);
	assert_int_equal(sim_disk_used(f.node), 0);
	sim_free(f.world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_sees_completed_writes),
		cmocka_unit_test(test_kill_keeps_what_completed),
		cmocka_unit_test(test_what_a_crash_leaves),
		cmocka_unit_test(test_flush_covers_only_what_had_completed),
		cmocka_unit_test(test_older_write_never_beats_a_durable_one),
		cmocka_unit_test(test_any_unflushed_version_may_survive),
		cmocka_unit_test(test_exact_crash),
		cmocka_unit_test(test_failed_flush_lies_afterwards),
		cmocka_unit_test(test_discard_makes_holes),
		cmocka_unit_test(test_discard_is_not_durable_by_itself),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_space_runs_out),
		cmocka_unit_test(test_planned_faults),
		cmocka_unit_test(test_backup_is_restored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
