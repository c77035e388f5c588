/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the undo log share: two volumes in a simulated world, what they held when the
 * log began, and writes to them that keep the rule (add, run, then write). Header only.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_GROUP_UNDO_BENCH_H
#define HOLDFAST_TESTS_UNIT_CORE_GROUP_UNDO_BENCH_H

#include "core/base/prng.h"
#include "core/group/undo.h"
#include "tests/unit/core/group/waiting.h"

#define BENCH_DIR      "/state/db"
#define BENCH_CHUNK    ((uint64_t)UNDO_CHUNK_BYTES)
#define BENCH_BIG      (100 * BENCH_CHUNK + 4096)
#define BENCH_SMALL    (3 * BENCH_CHUNK - 512)
#define BENCH_SMALL_ID 7u
#define BENCH_RANGES   64u

struct bench_range {
	unsigned volume; /* 0 or 1 */
	uint64_t off, len;
};

static struct {
	struct sim_world *world;
	struct sim_node *node;
	struct io *io;
	struct superblock sb;
	struct volumes volumes;
	struct undo *undo;
	struct prng prng;
	struct waiting wait;
	uint64_t id, known_bytes, limit_bytes;
	struct bench_range ranges[BENCH_RANGES];
	unsigned range_count;
	unsigned next_write;
	uint8_t before[2][BENCH_BIG];
	uint8_t now[2][BENCH_BIG];
	uint8_t bytes[BENCH_BIG] __attribute__((aligned(4096)));
} bench;

static const char *const bench_paths[2] = { "/vol/big", "/vol/small" };
static const uint64_t bench_sizes[2] = { BENCH_BIG, BENCH_SMALL };

/* Random bytes, with whole chunks of zeroes and of one byte between them. */
static inline void bench_fill(uint8_t *bytes, uint64_t len)
{
	uint64_t at, i;

	for (at = 0; at < len; at += BENCH_CHUNK) {
		uint64_t n = min_u64(BENCH_CHUNK, len - at), kind = prng_below(&bench.prng, 8);

		if (kind < 2) {
			memset(bytes + at, kind ? 0 : 0x5a, n);
			continue;
		}
		for (i = 0; i < n; i += 8) {
			uint64_t word = prng_next(&bench.prng);

			memcpy(bytes + at + i, &word, 8);
		}
	}
}

static inline void bench_open(void)
{
	static const struct volume_path paths[2] = { { "big", "/vol/big" },
						     { "small", "/vol/small" } };
	struct undo_options options = { .io = bench.io,
					.dir = BENCH_DIR,
					.volumes = &bench.volumes,
					.group = &bench.sb.group,
					.limit_bytes = bench.limit_bytes };
	char error[256];

	sim_check(bench.world, volumes_open(&bench.volumes, bench.io, &bench.sb, paths, 2, error,
					    sizeof(error)) == 0);
	sim_check(bench.world, undo_new(&options, &bench.undo) == 0);
}

static inline void bench_close(void)
{
	bench.undo = undo_free(bench.undo);
	volumes_close(&bench.volumes);
}

static inline void bench_set_up(struct waiting_world *w, uint64_t seed)
{
	unsigned i;

	memset(&bench, 0, sizeof(bench));
	bench.world = w->world;
	bench.node = w->node;
	bench.io = w->io;
	bench.id = seed + 1000;
	prng_seed(&bench.prng, seed);
	memset(bench.sb.group.bytes, 0x11, UUID_BYTES);
	bench.sb.volume_count = 2;
	for (i = 0; i < 2; i++) {
		struct superblock_volume *volume = &bench.sb.volumes[i];

		volume->id = i ? BENCH_SMALL_ID : 0;
		volume->size_bytes = bench_sizes[i];
		snprintf(volume->name, sizeof(volume->name), "%s", i ? "small" : "big");
		sim_file_make(bench.node, bench_paths[i], bench_sizes[i], false, false);
		bench_fill(bench.before[i], bench_sizes[i]);
		sim_file_poke(bench.node, bench_paths[i], 0, bench.before[i], bench_sizes[i]);
		memcpy(bench.now[i], bench.before[i], bench_sizes[i]);
	}
	sim_file_make(bench.node, BENCH_DIR "/lock", 0, false, false);
	bench_open();
}

static inline int64_t bench_wait(void)
{
	return waiting_for(bench.world, &bench.wait);
}

static inline void bench_quiet(void)
{
	while (!undo_is_quiet(bench.undo))
		sim_check(bench.world, sim_step(bench.world));
}

static inline void bench_begin(void)
{
	undo_begin(bench.undo, bench.id, waiting_op(&bench.wait));
	sim_check(bench.world, bench_wait() == 0 && undo_is_open(bench.undo));
}

/* As after a clean stop, or with `known_bytes` of before a crash. */
static inline int64_t bench_reopen(void)
{
	bench_close();
	bench_open();
	undo_open(bench.undo, bench.id, bench.known_bytes, waiting_op(&bench.wait));
	return bench_wait();
}

static inline void bench_range(unsigned volume, uint64_t off, uint64_t len)
{
	bench.ranges[bench.range_count++] = (struct bench_range){ volume, off, len };
}

static inline void bench_random_ranges(void)
{
	unsigned count = (unsigned)prng_between(&bench.prng, 1, 12), i;

	bench.range_count = 0;
	for (i = 0; i < count; i++) {
		unsigned volume = prng_below(&bench.prng, 8) == 0;
		uint64_t sectors = bench_sizes[volume] / 512;
		uint64_t first = prng_below(&bench.prng, sectors);
		uint64_t most = prng_chance(&bench.prng, 1, 10) ? 2400 : 300;

		bench_range(volume, first * 512,
			    prng_between(&bench.prng, 1, min_u64(most, sectors - first)) * 512);
	}
}

static inline void bench_add(void)
{
	unsigned i;

	for (i = 0; i < bench.range_count; i++)
		undo_add(bench.undo, bench.ranges[i].volume ? BENCH_SMALL_ID : 0,
			 bench.ranges[i].off, bench.ranges[i].len);
}

/* Starts the next write of the batch; false when all were done. */
static inline bool bench_write(struct io_op *op)
{
	const struct bench_range *range = &bench.ranges[bench.next_write];

	if (bench.next_write == bench.range_count)
		return false;
	bench.next_write++;
	bench_fill(bench.bytes, range->len);
	memcpy(bench.now[range->volume] + range->off, bench.bytes, range->len);
	bench.volumes.list[range->volume].dirty = true;
	io_write(bench.volumes.list[range->volume].file, bench.bytes, range->len, range->off, 0,
		 op);
	return true;
}

/* A batch with the ranges that are set. */
static inline int64_t bench_batch(void)
{
	int64_t res;

	bench_add();
	undo_run(bench.undo, waiting_op(&bench.wait));
	res = bench_wait();
	if (res != 0)
		return res;
	bench.next_write = 0;
	while (bench_write(waiting_op(&bench.wait)))
		sim_check(bench.world, bench_wait() >= 0);
	return 0;
}

static inline void bench_batches(unsigned count)
{
	while (count-- > 0) {
		bench_random_ranges();
		sim_check(bench.world, bench_batch() == 0);
	}
}

static inline void bench_compare(const char *what, uint8_t expect[2][BENCH_BIG])
{
	static uint8_t there[BENCH_BIG];
	unsigned v;
	uint64_t i;

	for (v = 0; v < 2; v++) {
		sim_file_peek(bench.node, bench_paths[v], 0, there, bench_sizes[v]);
		if (memcmp(there, expect[v], bench_sizes[v]) == 0)
			continue;
		for (i = 0; i < bench_sizes[v]; i++)
			if (there[i] != expect[v][i])
				sim_fail(bench.world, "%s: volume %u differs in chunk %llu at %llu",
					 what, v, (unsigned long long)(i / BENCH_CHUNK),
					 (unsigned long long)i);
	}
}

static inline int64_t bench_roll_back(void)
{
	undo_roll_back(bench.undo, waiting_op(&bench.wait));
	return bench_wait();
}

#endif
