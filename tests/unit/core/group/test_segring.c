/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/segring.h"

#include <errno.h>

#include "core/base/prng.h"
#include "tests/unit/core/group/waiting.h"

#define RING_BYTES (1u << 20)
#define ROUNDS	   20000u

struct model_block {
	struct segment *segment;
	uint8_t stamp;
	uint64_t first_seq, last_seq;
	unsigned holds;
};

static struct segring ring;

static void run(void (*body)(struct sim_world *world, void *context))
{
	struct waiting_world w;

	waiting_calm(1, body, &w, NULL);
}

static void seal(struct segment *segment, uint64_t first_seq, uint32_t records)
{
	segment->header.first_seq = first_seq;
	segment->header.records = records;
	segment->stored = segment->block;
}

static void body_begin_trim(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct segment *a, *b;

	sim_check(world, segring_init(&ring, w->io, RING_BYTES) == 0);
	a = segring_begin(&ring, 100000);
	sim_check(world, a && a->holds == 1 && a->live && a->block_bytes == 102400);
	sim_check(world, ((uintptr_t)a->block & 4095) == 0);
	sim_check(world, a->stored == NULL && a->header.records == 0);
	sim_check(world, segring_free_bytes(&ring) == RING_BYTES - 102400);
	/* Taken back entirely. */
	segring_trim(&ring, a, 0);
	sim_check(world, segring_free_bytes(&ring) == RING_BYTES && ring.count == 0);
	a = segring_begin(&ring, RING_BYTES);
	sim_check(world, a != NULL);
	segring_trim(&ring, a, 5000);
	sim_check(world, a->block_bytes == 8192);
	b = segring_begin(&ring, 4096);
	sim_check(world, b && b->block == a->block + 8192);
	segring_trim(&ring, b, 1);
	sim_check(world, !segring_begin(&ring, RING_BYTES - 8192));
	sim_check(world, !segring_begin(&ring, RING_BYTES + 1));
	sim_check(world, !segring_release(&ring, b));
	sim_check(world, segring_release(&ring, a));
	sim_check(world, ring.count == 0 && segring_free_bytes(&ring) == RING_BYTES);
	segring_deinit(&ring);
	sim_check(world, sim_node_alloc_bytes(w->node) == 0);
}

/* A block that does not fit behind the head goes to the beginning; the rest is freed with it. */
static void body_wrap(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct segment *a, *b, *c;

	sim_check(world, segring_init(&ring, w->io, 10 * 4096) == 0);
	a = segring_begin(&ring, 5 * 4096);
	segring_trim(&ring, a, 5 * 4096);
	sim_check(world, ring.capacity >= 2);
	b = segring_begin(&ring, 2 * 4096);
	segring_trim(&ring, b, 2 * 4096);
	sim_check(world, !segring_begin(&ring, 4 * 4096));
	segring_release(&ring, a);
	c = segring_begin(&ring, 4 * 4096);
	sim_check(world, c && c->block == ring.base && c->skip_bytes == 3 * 4096);
	sim_check(world, segring_free_bytes(&ring) == 4096);
	/* Taken back, the three blocks behind b are free again. */
	segring_trim(&ring, c, 0);
	c = segring_begin(&ring, 3 * 4096);
	sim_check(world, c && c->block == b->block + 2 * 4096 && c->skip_bytes == 0);
	segring_trim(&ring, c, 3 * 4096);
	sim_check(world, ring.head == 0);
	segring_release(&ring, b);
	segring_release(&ring, c);
	sim_check(world, segring_free_bytes(&ring) == 10 * 4096);
	segring_deinit(&ring);
}

static void body_no_memory(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;

	for (unsigned nth = 1; nth <= 2; nth++) {
		sim_node_fail_alloc(w->node, nth);
		sim_check(world, segring_init(&ring, w->io, RING_BYTES) == -ENOMEM);
		sim_check(world, sim_node_alloc_bytes(w->node) == 0);
	}
	sim_check(world, segring_init(&ring, w->io, 0) == -ENOMEM);
	sim_check(world, segring_init(&ring, w->io, SIZE_MAX) == -ENOMEM);
}

static void body_find(struct sim_world *world, void *context)
{
	struct waiting_world *w = context;
	struct segment *segments[20], *open;
	uint64_t seq = 100;

	sim_check(world, segring_init(&ring, w->io, RING_BYTES) == 0);
	sim_check(world, segring_find(&ring, 1) == NULL);
	for (unsigned i = 0; i < 20; i++) {
		segments[i] = segring_begin(&ring, 4096);
		seal(segments[i], seq, i + 1);
		segring_trim(&ring, segments[i], 4096);
		seq += i + 1;
	}
	open = segring_begin(&ring, 4096);
	open->header.first_seq = seq;
	sim_check(world, segring_find(&ring, 99) == NULL);
	sim_check(world, segring_find(&ring, seq) == NULL);
	for (uint64_t s = 100; s < seq; s++) {
		struct segment *found = segring_find(&ring, s);

		sim_check(world, found && found->header.first_seq <= s &&
					 s <= segment_last_seq(&found->header));
	}
	/* Let go of, but not yet freed: still there. */
	segring_release(&ring, segments[5]);
	sim_check(world, segring_find(&ring, segments[5]->header.first_seq) == segments[5]);
	segring_release(&ring, segments[0]);
	sim_check(world, segring_find(&ring, 100) == NULL);
	segring_deinit(&ring);
}

/* Random holds and releases against a list of what is in the ring: nothing is ever overwritten. */
static void body_random(struct sim_world *world, void *context)
{
	static struct model_block blocks[512];
	struct waiting_world *w = context;
	unsigned first = 0, count = 0;
	uint64_t seq = 1, laps = 0;
	struct prng prng;

	prng_seed(&prng, 5);
	sim_check(world, segring_init(&ring, w->io, RING_BYTES) == 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct model_block *block;
		struct segment *segment;
		size_t bytes = prng_between(&prng, 1, 120000);

		if (prng_chance(&prng, 1, 2) && count < 512 &&
		    (segment = segring_begin(&ring, bytes))) {
			laps += segment->skip_bytes > 0;
			bytes = prng_between(&prng, 0, bytes);
			if (bytes > 0) {
				block = &blocks[(first + count++) % 512];
				*block = (struct model_block){ segment, (uint8_t)round, seq, seq,
							       1 };
				seal(segment, seq++, 1);
				memset(segment->block, block->stamp, bytes);
			}
			segring_trim(&ring, segment, bytes);
		} else if (count > 0) {
			uint64_t which = prng_chance(&prng, 1, 2) ? 0 : prng_below(&prng, count);

			block = &blocks[(first + which) % 512];
			if (prng_chance(&prng, 1, 3) && block->holds > 0) {
				segring_hold(block->segment);
				block->holds++;
			} else if (block->holds > 0) {
				block->holds--;
				segring_release(&ring, block->segment);
			}
			while (count > 0 && blocks[first % 512].holds == 0) {
				first++;
				count--;
			}
		}
		sim_check(world, ring.count == count && ring.used_bytes <= RING_BYTES);
		for (unsigned i = 0; i < count; i++) {
			block = &blocks[(first + i) % 512];
			sim_check(world, segring_find(&ring, block->first_seq) == block->segment);
			sim_check(world, block->segment->block[0] == block->stamp);
		}
	}
	sim_check(world, laps > 50);
	segring_deinit(&ring);
}

UNIT(test_begin_and_trim)
{
	run(body_begin_trim);
}

UNIT(test_wrap_skips_the_end)
{
	run(body_wrap);
}

UNIT(test_no_memory)
{
	run(body_no_memory);
}

UNIT(test_find)
{
	run(body_find);
}

UNIT(test_random_holds)
{
	run(body_random);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_begin_and_trim), cmocka_unit_test(test_wrap_skips_the_end),
		cmocka_unit_test(test_no_memory),      cmocka_unit_test(test_find),
		cmocka_unit_test(test_random_holds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
