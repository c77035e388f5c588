/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "core/block/nbd_buffers.h"
#include "tests/unit/core/block/fake_io.h"

#define MIB (1u << 20)

UNIT(small_and_odd_regions)
{
	struct fake_io fake;
	struct nbd_buffers buffers;

	fake_io_init(&fake, 1);
	assert_int_equal(nbd_buffers_init(&buffers, &fake.io, MIB - 1), -EINVAL);
	fake.fail_alloc = true;
	assert_int_equal(nbd_buffers_init(&buffers, &fake.io, MIB), -ENOMEM);
	fake.fail_alloc = false;
	/* 3 MiB + 3 pages: a block of 2 MiB, one of 1 MiB, crumbs. */
	assert_int_equal(nbd_buffers_init(&buffers, &fake.io, 3 * MIB + 12288 + 100), 0);
	assert_int_equal(nbd_buffers_max_bytes(&buffers), MIB);
	uint8_t *a = nbd_buffers_get(&buffers, 2 * MIB);
	uint8_t *b = nbd_buffers_get(&buffers, MIB);
	uint8_t *c = nbd_buffers_get(&buffers, 8192);
	uint8_t *d = nbd_buffers_get(&buffers, 1);

	assert_true(a && b && c && d);
	assert_null(nbd_buffers_get(&buffers, 1));
	nbd_buffers_put(&buffers, b, MIB);
	nbd_buffers_put(&buffers, d, 1);
	nbd_buffers_put(&buffers, a, 2 * MIB);
	nbd_buffers_put(&buffers, c, 8192);
	assert_int_equal(buffers.unit_used, 0);
	assert_non_null(a = nbd_buffers_get(&buffers, 2 * MIB));
	nbd_buffers_put(&buffers, a, 2 * MIB);
	nbd_buffers_free(&buffers);
	assert_int_equal(fake.allocations, 0);
}

struct piece {
	uint8_t *block;
	size_t size;
	uint8_t mark;
};

/* Random use against the plain facts: blocks are aligned, inside, and never share a byte. */
UNIT(random_use_never_overlaps_and_always_coalesces)
{
	enum {
		PIECES = 64
	};
	struct piece pieces[PIECES] = { 0 };
	struct fake_io fake;
	struct nbd_buffers buffers;
	unsigned full = 0;

	fake_io_init(&fake, 7);
	assert_int_equal(nbd_buffers_init(&buffers, &fake.io, 8 * MIB), 0);
	assert_int_equal(nbd_buffers_max_bytes(&buffers), 4 * MIB);
	for (unsigned step = 0; step < 40000; step++) {
		struct piece *piece = &pieces[fake_random(&fake) % PIECES];
		unsigned order = (unsigned)(fake_random(&fake) % 11);

		if (piece->block) {
			assert_int_equal(piece->block[0], piece->mark);
			assert_int_equal(piece->block[piece->size - 1], piece->mark);
			nbd_buffers_put(&buffers, piece->block, piece->size);
			piece->block = NULL;
			continue;
		}
		piece->size = 1 + fake_random(&fake) % ((size_t)NBD_UNIT_BYTES << order);
		piece->block = nbd_buffers_get(&buffers, piece->size);
		if (!piece->block) {
			full++;
			continue;
		}
		assert_int_equal((uintptr_t)piece->block % NBD_UNIT_BYTES, 0);
		assert_true(piece->block >= buffers.base &&
			    piece->block + piece->size <= buffers.base + 8 * MIB);
		piece->mark = (uint8_t)step;
		memset(piece->block, piece->mark, piece->size);
	}
	assert_true(full > 0);
	for (unsigned i = 0; i < PIECES; i++) {
		if (pieces[i].block)
			nbd_buffers_put(&buffers, pieces[i].block, pieces[i].size);
	}
	assert_int_equal(buffers.unit_used, 0);
	pieces[0].block = nbd_buffers_get(&buffers, 8 * MIB);
	assert_ptr_equal(pieces[0].block, buffers.base);
	nbd_buffers_put(&buffers, pieces[0].block, 8 * MIB);
	nbd_buffers_free(&buffers);
	assert_int_equal(fake.allocations, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_and_odd_regions),
		cmocka_unit_test(random_use_never_overlaps_and_always_coalesces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
