/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/prng.h"
#include "tests/unit/unit.h"

/*
 * A seed in a bug report must mean the same run for ever, so the sequence is frozen. The first
 * value of xoshiro256** over splitmix64(0) is rotl(s1 * 5, 7) * 9 with s1 = 0x6e789e6aa1b965f4.
 */
UNIT(sequence_is_frozen)
{
	struct prng prng;

	prng_seed(&prng, 0);
	assert_true(prng.state[0] == UINT64_C(0xe220a8397b1dcdaf));
	assert_true(prng.state[1] == UINT64_C(0x6e789e6aa1b965f4));
	assert_true(prng.state[2] == UINT64_C(0x06c45d188009454f));
	assert_true(prng.state[3] == UINT64_C(0xf88bb8a8724c81ec));
	assert_true(prng_next(&prng) == UINT64_C(0x99ec5f36cb75f2b4));
	assert_true(prng_next(&prng) == UINT64_C(0xbf6e1f784956452a));
}

UNIT(same_seed_same_sequence)
{
	struct prng a;
	struct prng b;
	struct prng c;
	int differ = 0;
	int i;

	prng_seed(&a, 7);
	prng_seed(&b, 7);
	prng_seed(&c, 8);
	for (i = 0; i < 100; i++) {
		uint64_t value = prng_next(&a);

		assert_true(value == prng_next(&b));
		differ += value != prng_next(&c);
	}
	assert_int_equal(differ, 100);
}

UNIT(bounds_are_kept_and_even)
{
	unsigned counts[10] = { 0 };
	struct prng prng;
	unsigned hits = 0;
	int i;

	prng_seed(&prng, 1);
	for (i = 0; i < 100000; i++) {
		uint64_t between = prng_between(&prng, 5, 7);

		counts[prng_below(&prng, 10)]++;
		assert_true(between >= 5 && between <= 7);
		hits += prng_chance(&prng, 1, 4);
	}
	for (i = 0; i < 10; i++)
		assert_in_range(counts[i], 9500, 10500);
	assert_in_range(hits, 24000, 26000);
	assert_int_equal(prng_below(&prng, 1), 0);
	assert_int_equal(prng_between(&prng, 3, 3), 3);
	assert_false(prng_chance(&prng, 0, 5));
	assert_true(prng_chance(&prng, 5, 5));
	/* The whole range has no bound that fits. */
	prng_seed(&prng, 0);
	assert_true(prng_between(&prng, 0, UINT64_MAX) == UINT64_C(0x99ec5f36cb75f2b4));
}

UNIT(fill_is_the_sequence_in_bytes)
{
	struct prng prng;
	uint8_t bytes[12];

	prng_seed(&prng, 0);
	bytes[11] = 0xee;
	prng_fill(&prng, bytes, 11);
	assert_memory_equal(bytes, "\xb4\xf2\x75\xcb\x36\x5f\xec\x99\x2a\x45\x56", 11);
	assert_int_equal(bytes[11], 0xee);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequence_is_frozen),
		cmocka_unit_test(same_seed_same_sequence),
		cmocka_unit_test(bounds_are_kept_and_even),
		cmocka_unit_test(fill_is_the_sequence_in_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
