/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/crc32c.h"
#include "core/base/prng.h"
#include "tests/unit/unit.h"

/* Bit by bit from the polynomial: slow, and nothing in common with the library. */
static uint32_t slow_crc32c(uint32_t seed, const uint8_t *bytes, size_t length_bytes)
{
	uint32_t state = ~seed;
	int bit;

	for (; length_bytes > 0; length_bytes--) {
		state ^= *bytes++;
		for (bit = 0; bit < 8; bit++)
			state = state >> 1 ^ (state & 1 ? 0x82f63b78u : 0);
	}
	return ~state;
}

UNIT(known_values)
{
	uint8_t bytes[32];

	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(crc32c(0, "", 0), 0);
	assert_int_equal(crc32c(0x12345678, "", 0), 0x12345678);
	/* RFC 3720, B.4 */
	memset(bytes, 0, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x8a9136aau);
	memset(bytes, 0xff, sizeof(bytes));
	assert_int_equal(crc32c(0, bytes, sizeof(bytes)), 0x62a8ab43u);
}

UNIT(agrees_with_the_definition_and_chains)
{
	uint8_t bytes[3000];
	struct prng prng;
	int round;

	prng_seed(&prng, 1);
	prng_fill(&prng, bytes, sizeof(bytes));
	for (round = 0; round < 300; round++) {
		size_t begin = prng_below(&prng, 64);
		size_t length = prng_below(&prng, sizeof(bytes) - begin);
		size_t cut = prng_below(&prng, length + 1);
		uint32_t seed = (uint32_t)prng_next(&prng);
		uint32_t whole = crc32c(seed, bytes + begin, length);
		uint32_t first = crc32c(seed, bytes + begin, cut);

		assert_int_equal(whole, slow_crc32c(seed, bytes + begin, length));
		assert_int_equal(whole, crc32c(first, bytes + begin + cut, length - cut));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(agrees_with_the_definition_and_chains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
