/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/hash64.h"
#include "tests/unit/unit.h"

/* The values lie on disks, so they may never change. Computed with the xxhash reference tool. */
UNIT(known_values)
{
	assert_true(hash64(0, "", 0) == UINT64_C(0x2d06800538d394c2));
	assert_true(hash64(0, "123456789", 9) == UINT64_C(0x72dcb18b67a17dff));
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
		cmocka_unit_test(seed_and_every_byte_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
