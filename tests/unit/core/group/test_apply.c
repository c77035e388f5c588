/* SPDX-License-Identifier: Apache-2.0 */
/* Apply against a plain array: the newest version of each byte, in few writes, also twice. */
#include <errno.h>

#include "core/base/crc32c.h"
#include "core/group/apply.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define VOLUMES	     3u
#define VOLUME_BYTES (4u << 20)
#define MODEL_BYTES  65536u /* of each volume, that the random tests use */
#define LIMIT	     (60 * SIM_SECOND)

struct fixture {
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
	struct superblock sb;
	struct volumes volumes;
	struct apply apply;
	struct io_op op;
	bool done;
	int64_t res;
	uint8_t model[VOLUMES][MODEL_BYTES];
	void (*body)(struct fixture *f);
};

static void on_done(struct io_op *op, int64_t res)
{
	struct fixture *f = container_of(op, struct fixture, op);

	f->done = true;
	f->res = res;
}

static bool is_done(void *context)
{
	return ((struct fixture *)context)->done;
}

static int run_batch(struct fixture *f)
{
	f->done = false;
	f->op.done = on_done;
	apply_run(&f->apply, &f->op);
	sim_check(f->world, !f->done);
	sim_check(f->world, sim_run_until(f->world, is_done, f, LIMIT));
	sim_check(f->world, apply_is_empty(&f->apply));
	return (int)f->res;
}

static void open_all(struct fixture *f)
{
	static const struct volume_path paths[VOLUMES] = { { "v0", "/vol/v0" },
							   { "v1", "/vol/v1" },
							   { "v2", "/vol/v2" } };
	char error[256];

	f->io = sim_node_io(f->node);
	sim_check(f->world,
		  volumes_open(&f->volumes, f->io, &f->sb, paths, VOLUMES, error, 256) == 0);
	sim_check(f->world, apply_init(&f->apply, f->io, &f->volumes, SEGMENT_RECORDS_MAX) == 0);
}

static void go(struct sim_world *world, void *context)
{
	struct fixture *f = context;

	f->world = world;
	f->node = sim_node_new(world, "node");
	f->sb.volume_count = VOLUMES;
	for (unsigned i = 0; i < VOLUMES; i++) {
		char path[16];

		/* Ids that are not their places. */
		f->sb.volumes[i].id = (uint16_t)(i * 5);
		f->sb.volumes[i].size_bytes = VOLUME_BYTES;
		snprintf(f->sb.volumes[i].name, sizeof(f->sb.volumes[i].name), "v%u", i);
		snprintf(path, sizeof(path), "/vol/v%u", i);
		sim_file_make(f->node, path, VOLUME_BYTES, false, false);
		memset(f->model[i], 0xc3, MODEL_BYTES);
		sim_file_poke(f->node, path, 0, f->model[i], MODEL_BYTES);
	}
	open_all(f);
	f->body(f);
	apply_deinit(&f->apply);
	volumes_close(&f->volumes);
}

static void run(void (*body)(struct fixture *f))
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sim_options options;
	struct sim_world *world;
	bool held;

	assert_non_null(f);
	sim_options_calm(&options);
	world = sim_new(3, &options);
	f->body = body;
	held = sim_run(world, go, f);
	sim_free(world);
	free(f);
	assert_true(held);
}

/* ---- segments -----------------------------------------------------------------------------------
 */

struct made {
	struct segment_header header;
	uint8_t table[SEGMENT_RECORDS_MAX * RECORD_BYTES];
	uint8_t data[SEGMENT_DATA_MAX_BYTES] __attribute__((aligned(4096)));
};

static void begin(struct made *made)
{
	memset(&made->header, 0, sizeof(made->header));
	made->header.first_seq = 1;
}

static void put(struct fixture *f, struct made *made, enum record_type type, unsigned place,
		uint64_t off, uint32_t len, uint8_t flags)
{
	struct segment_header *header = &made->header;
	struct record record = { .type = (uint8_t)type,
				 .flags = flags,
				 .volume = type == RECORD_MARK ? 0 : (uint16_t)(place * 5),
				 .offset_bytes = off,
				 .length_bytes = len };

	if (record_has_data(&record)) {
		uint8_t *bytes = made->data + header->data_raw_bytes;

		for (uint32_t i = 0; i < len; i++)
			bytes[i] = (uint8_t)sim_random(f->world);
		record.data_off = header->data_raw_bytes;
		record.data_crc = crc32c(0, bytes, len);
		header->data_raw_bytes += len;
		if (type == RECORD_WRITE && off + len <= MODEL_BYTES)
			memcpy(f->model[place] + off, bytes, len);
	} else if (off + len <= MODEL_BYTES) {
		memset(f->model[place] + off, 0, len);
	}
	record_encode(&record, made->table + header->records++ * RECORD_BYTES);
}

static int add(struct fixture *f, const struct made *made)
{
	return apply_add(&f->apply, &made->header, made->table, made->data);
}

static void check(struct fixture *f, const char *what)
{
	static uint8_t bytes[MODEL_BYTES];

	for (unsigned v = 0; v < VOLUMES; v++) {
		char path[16];

		snprintf(path, sizeof(path), "/vol/v%u", v);
		sim_file_peek(f->node, path, 0, bytes, MODEL_BYTES);
		for (unsigned i = 0; i < MODEL_BYTES; i++)
			if (bytes[i] != f->model[v][i])
				sim_fail(f->world, "%s: volume %u differs at %u", what, v, i);
	}
}

static struct made made[4];

/* ---- tests --------------------------------------------------------------------------------------
 */

/* Later wins, inside a segment and between segments; what touches becomes one write. */
static void newest_wins(struct fixture *f)
{
	begin(&made[0]);
	begin(&made[1]);
	put(f, &made[0], RECORD_WRITE, 0, 0, 8192, 0);
	put(f, &made[0], RECORD_WRITE, 0, 4096, 8192, 0);
	put(f, &made[1], RECORD_WRITE, 0, 2048, 512, 0);
	put(f, &made[1], RECORD_WRITE, 0, 12288, 4096, 0);
	sim_check(f->world, apply_is_empty(&f->apply));
	sim_check(f->world, add(f, &made[0]) == 0 && add(f, &made[1]) == 0);
	sim_check(f->world, !apply_is_empty(&f->apply));
	sim_check(f->world, run_batch(f) == 0);
	check(f, "newest wins");
	sim_check(f->world, f->apply.writes == 1 && f->apply.written_bytes == 16384);
	sim_check(f->world, f->volumes.list[0].dirty && !f->volumes.list[1].dirty);
}

UNIT(test_newest_wins)
{
	run(newest_wins);
}

static void zeroes(struct fixture *f)
{
	begin(&made[0]);
	put(f, &made[0], RECORD_WRITE, 1, 0, 16384, 0);
	put(f, &made[0], RECORD_DISCARD, 1, 0, 4096, 0);
	put(f, &made[0], RECORD_DISCARD, 1, 4096, 4096, 0); /* touches: one call */
	put(f, &made[0], RECORD_WRITE_ZEROES, 1, 8192, 512, 0);
	put(f, &made[0], RECORD_WRITE_ZEROES, 1, 8704, 512, RECORD_NO_HOLE); /* of another kind */
	put(f, &made[0], RECORD_WRITE, 1, 1024, 512, 0); /* cuts the first in two */
	put(f, &made[0], RECORD_MARK, 0, 0, 9, 0);
	sim_check(f->world, add(f, &made[0]) == 0 && run_batch(f) == 0);
	check(f, "zeroes");
	sim_check(f->world, f->apply.discards == 4 && f->apply.writes == 2);
	sim_check(f->world, f->apply.written_bytes == 512 + 16384 - 9216);
}

UNIT(test_zeroes)
{
	run(zeroes);
}

/* The end of one volume and the beginning of the next touch as keys, not as bytes. */
static void borders(struct fixture *f)
{
	static uint8_t expect[4096] __attribute__((aligned(4096)));
	uint8_t bytes[4096];

	memset(expect, 7, sizeof(expect));
	for (unsigned v = 0; v < VOLUMES; v++) {
		sim_check(f->world, apply_add_range(&f->apply, v * 5, VOLUME_BYTES - 4096, 4096,
						    expect) == 0);
		sim_check(f->world, apply_add_range(&f->apply, v * 5, 0, 4096, NULL) == 0);
		memset(f->model[v], 0, 4096);
	}
	sim_check(f->world, run_batch(f) == 0);
	check(f, "borders");
	sim_file_peek(f->node, "/vol/v2", VOLUME_BYTES - 4096, bytes, sizeof(bytes));
	sim_check(f->world, !memcmp(bytes, expect, sizeof(bytes)));
	sim_check(f->world, f->apply.writes == VOLUMES && f->apply.discards == VOLUMES);
}

UNIT(test_borders)
{
	run(borders);
}

/* Long runs are cut at what one write gathers, in pieces and in bytes. */
static void gathers(struct fixture *f)
{
	static uint8_t bytes[VOLUME_BYTES] __attribute__((aligned(4096)));
	static uint8_t there[VOLUME_BYTES];

	for (unsigned i = 0; i < VOLUME_BYTES; i++)
		bytes[i] = (uint8_t)(i >> 9) ^ (uint8_t)(i >> 17);
	sim_check(f->world, apply_add_range(&f->apply, 0, 0, VOLUME_BYTES, bytes) == 0);
	sim_check(f->world, run_batch(f) == 0);
	sim_check(f->world, f->apply.writes == VOLUME_BYTES / APPLY_WRITE_MAX_BYTES);
	for (unsigned i = 0; i < 4 * IO_IOV_MAX; i++)
		sim_check(f->world, apply_add_range(&f->apply, 5, i * 512, 512,
						    bytes + (size_t)i * 512) == 0);
	sim_check(f->world, run_batch(f) == 0);
	sim_check(f->world, f->apply.writes == VOLUME_BYTES / APPLY_WRITE_MAX_BYTES + 4);
	sim_file_peek(f->node, "/vol/v0", 0, there, VOLUME_BYTES);
	sim_check(f->world, !memcmp(there, bytes, VOLUME_BYTES));
	sim_file_peek(f->node, "/vol/v1", 0, there, 4 * IO_IOV_MAX * 512);
	sim_check(f->world, !memcmp(there, bytes, 4 * IO_IOV_MAX * 512));
}

UNIT(test_gathers)
{
	run(gathers);
}

/* More writes than fly at once. */
static void many(struct fixture *f)
{
	begin(&made[0]);
	for (unsigned i = 0; i < 3 * 42; i++)
		put(f, &made[0], RECORD_WRITE, i % 3, i / 3 * 1536, 512, 0);
	sim_check(f->world, 3 * 42 > APPLY_WRITES_MAX);
	sim_check(f->world, add(f, &made[0]) == 0 && run_batch(f) == 0);
	sim_check(f->world, f->apply.writes == 3 * 42);
	check(f, "many");
}

UNIT(test_many)
{
	run(many);
}

/* FULL adds nothing; a record that does not fit the volumes is said. */
static void refuses(struct fixture *f)
{
	static uint8_t bytes[512];
	size_t count;

	begin(&made[0]);
	for (unsigned i = 0; i < SEGMENT_RECORDS_MAX; i++)
		put(f, &made[0], RECORD_DISCARD, 0, 4 * i * 512 % (VOLUME_BYTES - 512), 512, 0);
	sim_check(f->world, add(f, &made[0]) == 0);
	count = f->apply.map.count;
	sim_check(f->world, count == SEGMENT_RECORDS_MAX);
	sim_check(f->world, add(f, &made[0]) == APPLY_E_FULL && f->apply.map.count == count);
	sim_check(f->world, run_batch(f) == 0);
	sim_check(f->world, add(f, &made[0]) == 0 && run_batch(f) == 0);
	sim_check(f->world, apply_add_range(&f->apply, 1, 0, 512, bytes) == APPLY_E_RECORD);
	sim_check(f->world,
		  apply_add_range(&f->apply, 0, VOLUME_BYTES, 512, bytes) == APPLY_E_RECORD);
	sim_check(f->world,
		  apply_add_range(&f->apply, 0, UINT64_MAX - 100, 512, bytes) == APPLY_E_RECORD);
	begin(&made[1]);
	put(f, &made[1], RECORD_WRITE, 2, VOLUME_BYTES - 512, 1024, 0);
	sim_check(f->world, add(f, &made[1]) == APPLY_E_RECORD);
	/* Nothing at all is a batch, too. */
	sim_check(f->world, apply_is_empty(&f->apply) && run_batch(f) == 0);
}

UNIT(test_refuses)
{
	run(refuses);
}

/* The first error is the result, and comes when nothing is in flight any more. */
static void errors(struct fixture *f)
{
	sim_fault_add(f->world, &(struct sim_fault){ .pattern = "/vol/v1",
						     .ops = SIM_WRITE,
						     .action = SIM_ERROR,
						     .error = -ENOSPC,
						     .skip = 3,
						     .count = 1 });
	begin(&made[0]);
	for (unsigned i = 0; i < 42; i++)
		put(f, &made[0], RECORD_WRITE, 1, i * 1536, 512, 0);
	sim_check(f->world, add(f, &made[0]) == 0 && run_batch(f) == -ENOSPC);
	sim_check(f->world, f->apply.free_count == APPLY_WRITES_MAX && !f->apply.running);
	/* The same again brings the volumes to where they should be. */
	sim_check(f->world, add(f, &made[0]) == 0 && run_batch(f) == 0);
	check(f, "after an error");
}

UNIT(test_errors)
{
	run(errors);
}

static void random_segment(struct fixture *f, struct made *to)
{
	unsigned records = (unsigned)sim_between(f->world, 1, 60);

	begin(to);
	for (unsigned i = 0; i < records; i++) {
		uint64_t dice = sim_between(f->world, 0, 9);
		uint64_t off = sim_between(f->world, 0, MODEL_BYTES / 512 - 17) * 512;
		uint32_t len = (uint32_t)sim_between(f->world, 1, 16) * 512;

		put(f, to,
		    dice < 6   ? RECORD_WRITE
		    : dice < 8 ? RECORD_DISCARD
			       : RECORD_WRITE_ZEROES,
		    (unsigned)sim_between(f->world, 0, VOLUMES - 1), off, len,
		    dice == 9 ? RECORD_NO_HOLE : 0);
	}
}

static void random_model(struct fixture *f)
{
	for (unsigned round = 0; round < 150; round++) {
		unsigned count = (unsigned)sim_between(f->world, 1, 4);

		for (unsigned i = 0; i < count; i++) {
			random_segment(f, &made[i]);
			sim_check(f->world, add(f, &made[i]) == 0);
		}
		sim_check(f->world, run_batch(f) == 0);
		check(f, "random");
	}
}

UNIT(test_random_model)
{
	run(random_model);
}

/* A2: killed or without power in the middle of a batch, and again from its beginning. */
static void crashes(struct fixture *f)
{
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned i = 0; i < 3; i++) {
			random_segment(f, &made[i]);
			sim_check(f->world, add(f, &made[i]) == 0);
		}
		f->op.done = on_done;
		apply_run(&f->apply, &f->op);
		for (unsigned i = 0; i < round; i++)
			sim_step(f->world);
		sim_node_crash(f->node, round % 2 ? SIM_POWER : SIM_KILL);
		sim_node_restart(f->node);
		memset(&f->op, 0, sizeof(f->op));
		open_all(f);
		for (unsigned i = 0; i < 3; i++)
			sim_check(f->world, add(f, &made[i]) == 0);
		sim_check(f->world, run_batch(f) == 0);
		check(f, "replayed");
		f->done = false;
		f->op.done = on_done;
		volumes_flush(&f->volumes, &f->op);
		sim_check(f->world, sim_run_until(f->world, is_done, f, LIMIT) && f->res == 0);
	}
}

UNIT(test_crashes)
{
	run(crashes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_newest_wins), cmocka_unit_test(test_zeroes),
		cmocka_unit_test(test_borders),	    cmocka_unit_test(test_gathers),
		cmocka_unit_test(test_many),	    cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_errors),	    cmocka_unit_test(test_random_model),
		cmocka_unit_test(test_crashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
