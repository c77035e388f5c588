/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/hash64.h"
#include "core/base/macros.h"
#include "tests/unit/unit.h"

/* The values lie on disks, so they may never change. Computed with the xxhash reference tool. */
UNIT(known_values)
{
	assert_true(hash64(0, "", 0) == UINT64_C(0x2d06800538d394c2));
	assert_true(hash64(0, "123456789", 9) == UINT64_C(0x72dcb18b67a17dff));
}

/* They go over the wire: the big endian form of xxhsum -H2. */
UNIT(known_values_128)
{
	static const struct {
		const char *bytes;
		uint8_t hash[HASH128_BYTES];
	} known[] = {
		{ "",
		  { 0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8, 0x60, 0x01, 0xc3, 0x24, 0x46,
		    0x8d, 0x49, 0x7f } },
		{ "a",
		  { 0xa9, 0x6f, 0xaf, 0x70, 0x5a, 0xf1, 0x68, 0x34, 0xe6, 0xc6, 0x32, 0xb6, 0x1e,
		    0x96, 0x4e, 0x1f } },
	};
	uint8_t hash[HASH128_BYTES];

	for (size_t i = 0; i < array_len(known); i++) {
		hash128(known[i].bytes, strlen(known[i].bytes), hash);
		assert_memory_equal(hash, known[i].hash, sizeof(hash));
	}
}

UNIT(zeroes_128)
{
	static uint8_t zeroes[100000];
	static const size_t lengths[] = { 0, 1, 511, 512, 4095, 4096, 4097, 65536, 100000 };
	uint8_t hash[HASH128_BYTES], same[HASH128_BYTES];

	for (size_t i = 0; i < array_len(lengths); i++) {
		hash128(zeroes, lengths[i], hash);
		hash128_zeroes(lengths[i], same);
		assert_memory_equal(hash, same, sizeof(hash));
	}
	zeroes[99999] = 1;
	hash128(zeroes, sizeof(zeroes), hash);
	assert_memory_not_equal(hash, same, sizeof(hash));
}

UNIT(seed_and_every_byte_count)
{
	uint8_t bytes[256] = { 0 };
	uint64_t plain = hash64(0, bytes, sizeof(bytes));
	size_t i;

	assert_true(hash64(1, bytes, sizeof(bytes)) != plain);
	assert_true(hash64(0, bytes, sizeof(bytes) - 1) != plain);
	for (i = 0; i < sizeof(bytes); i++) {
		bytes[i] = 1;
		assert_true(hash64(0, bytes, sizeof(bytes)) != plain);
		bytes[i] = 0;
	}
	assert_true(hash64(0, bytes, sizeof(bytes)) == plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(known_values_128),
		cmocka_unit_test(zeroes_128),
		cmocka_unit_test(seed_and_every_byte_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
