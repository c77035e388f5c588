/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/bitmap.h"
#include "core/base/prng.h"
#include "tests/unit/unit.h"

#define BITS_MAX 300u

/* Everything the bitmap says, against one bool per bit. */
static void compare(const struct bitmap *bitmap, const bool *model, struct prng *prng)
{
	uint64_t first = prng_below(prng, bitmap->bits + 1);
	uint64_t count = prng_below(prng, bitmap->bits - first + 1);
	uint64_t total = 0;
	uint64_t in_range = 0;
	uint64_t i;
	uint64_t from;
	uint64_t set;
	uint64_t clear;

	for (i = 0; i < bitmap->bits; i++) {
		assert_int_equal(bitmap_test(bitmap, i), model[i]);
		total += model[i];
		in_range += model[i] && i >= first && i < first + count;
	}
	assert_int_equal(bitmap_count(bitmap), total);
	assert_int_equal(bitmap_count_range(bitmap, first, count), in_range);
	from = prng_below(prng, bitmap->bits + 2);
	for (set = from; set < bitmap->bits && !model[set]; set++)
		;
	for (clear = from; clear < bitmap->bits && model[clear]; clear++)
		;
	assert_int_equal(bitmap_next_set(bitmap, from), set < bitmap->bits ? set : bitmap->bits);
	assert_int_equal(bitmap_next_clear(bitmap, from),
			 clear < bitmap->bits ? clear : bitmap->bits);
	/* No stray bits behind the end. */
	if (bitmap->bits % 64 != 0)
		assert_int_equal(bitmap->words[bitmap->bits / 64] >> (bitmap->bits % 64), 0);
}

UNIT(against_a_model)
{
	static const uint64_t sizes[] = { 1, 63, 64, 65, 127, 128, 129, BITS_MAX };
	uint64_t words[(BITS_MAX + 63) / 64];
	struct bitmap bitmap;
	struct prng prng;
	size_t s;
	int step;

	prng_seed(&prng, 1);
	for (s = 0; s < array_len(sizes); s++) {
		bool model[BITS_MAX] = { 0 };

		bitmap_init(&bitmap, words, sizes[s]);
		for (step = 0; step < 2000; step++) {
			uint64_t first = prng_below(&prng, sizes[s]);
			uint64_t count = prng_below(&prng, sizes[s] - first + 1);
			uint64_t i;

			switch (prng_below(&prng, 4)) {
			case 0:
				bitmap_set(&bitmap, first);
				model[first] = true;
				break;
			case 1:
				bitmap_clear(&bitmap, first);
				model[first] = false;
				break;
			case 2:
				bitmap_set_range(&bitmap, first, count);
				for (i = 0; i < count; i++)
					model[first + i] = true;
				break;
			default:
				bitmap_clear_range(&bitmap, first, count);
				for (i = 0; i < count; i++)
					model[first + i] = false;
				break;
			}
			compare(&bitmap, model, &prng);
		}
	}
}

UNIT(memory)
{
	struct bitmap bitmap;

	assert_int_equal(bitmap_memory_bytes(0), 0);
	assert_int_equal(bitmap_memory_bytes(1), 8);
	assert_int_equal(bitmap_memory_bytes(64), 8);
	assert_int_equal(bitmap_memory_bytes(65), 16);
	bitmap_init(&bitmap, NULL, 0);
	assert_int_equal(bitmap_count(&bitmap), 0);
	assert_int_equal(bitmap_next_set(&bitmap, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_a_model),
		cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
