/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "core/base/uuid.h"
#include "tests/unit/unit.h"

UNIT(random_ones_are_version_4)
{
	uint8_t random[16];
	struct uuid uuid;
	char text[UUID_TEXT_BYTES];

	memset(random, 0xff, sizeof(random));
	uuid = uuid_from_random(random);
	assert_string_equal(uuid_format(&uuid, text), "ffffffff-ffff-4fff-bfff-ffffffffffff");
	memset(random, 0, sizeof(random));
	uuid = uuid_from_random(random);
	assert_string_equal(uuid_format(&uuid, text), "00000000-0000-4000-8000-000000000000");
	uuid = uuid_from_random_u64(UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908));
	assert_string_equal(uuid_format(&uuid, text), "00010203-0405-4607-8809-0a0b0c0d0e0f");
}

UNIT(parses_what_it_formats)
{
	const char *text = "00112233-4455-6677-8899-aabbccddeeff";
	char again[UUID_TEXT_BYTES];
	struct uuid uuid;
	struct uuid upper;

	assert_int_equal(uuid_parse(text, &uuid), 0);
	assert_int_equal(uuid.bytes[0], 0);
	assert_int_equal(uuid.bytes[15], 0xff);
	assert_string_equal(uuid_format(&uuid, again), text);
	assert_int_equal(uuid_parse("00112233-4455-6677-8899-AABBCCDDEEFF", &upper), 0);
	assert_true(uuid_equal(&uuid, &upper));
	upper.bytes[15] = 0;
	assert_false(uuid_equal(&uuid, &upper));
}

UNIT(refuses_everything_else)
{
	static const char *const texts[] = {
		"",
		"0",
		"00112233-4455-6677-8899-aabbccddeef",
		"00112233-4455-6677-8899-aabbccddeeff0",
		"00112233445566778899aabbccddeeff",
		"00112233-4455-6677-8899aabbccddeeff-",
		"0011223g-4455-6677-8899-aabbccddeeff",
		" 0112233-4455-6677-8899-aabbccddeeff",
		"{0112233-4455-6677-8899-aabbccddeeff}",
	};
	struct uuid uuid = { { 42 } };
	size_t i;

	for (i = 0; i < array_len(texts); i++)
		assert_int_equal(uuid_parse(texts[i], &uuid), -EINVAL);
	assert_int_equal(uuid.bytes[0], 42);
}

UNIT(zero)
{
	struct uuid uuid = { { 0 } };

	assert_true(uuid_is_zero(&uuid));
	uuid.bytes[15] = 1;
	assert_false(uuid_is_zero(&uuid));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_ones_are_version_4),
		cmocka_unit_test(parses_what_it_formats),
		cmocka_unit_test(refuses_everything_else),
		cmocka_unit_test(zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
