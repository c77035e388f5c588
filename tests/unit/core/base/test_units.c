/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "core/base/prng.h"
#include "core/base/units.h"
#include "tests/unit/unit.h"

typedef int (*parse_fn)(const char *text, uint64_t *ret_value);

struct parse_case {
	parse_fn parse;
	const char *text;
	int result;
	uint64_t value;
};

UNIT(parsing)
{
	static const struct parse_case cases[] = {
		{ units_parse_u64, "0", 0, 0 },
		{ units_parse_u64, "18446744073709551615", 0, UINT64_MAX },
		{ units_parse_u64, "18446744073709551616", -ERANGE, 0 },
		{ units_parse_u64, "99999999999999999999999", -ERANGE, 0 },
		{ units_parse_u64, "99999999999999999999999x", -EINVAL, 0 },
		{ units_parse_u64, "", -EINVAL, 0 },
		{ units_parse_u64, "-1", -EINVAL, 0 },
		{ units_parse_u64, "+1", -EINVAL, 0 },
		{ units_parse_u64, " 1", -EINVAL, 0 },
		{ units_parse_u64, "1 ", -EINVAL, 0 },
		{ units_parse_u64, "0x10", -EINVAL, 0 },
		{ units_parse_size, "512", 0, 512 },
		{ units_parse_size, "512B", 0, 512 },
		{ units_parse_size, "512KiB", 0, 524288 },
		{ units_parse_size, "3MiB", 0, 3145728 },
		{ units_parse_size, "4GiB", 0, UINT64_C(4294967296) },
		{ units_parse_size, "2TiB", 0, UINT64_C(2199023255552) },
		{ units_parse_size, "1PiB", 0, UINT64_C(1) << 50 },
		{ units_parse_size, "15EiB", 0, UINT64_C(15) << 60 },
		{ units_parse_size, "16EiB", -ERANGE, 0 },
		{ units_parse_size, "18446744073709551616", -ERANGE, 0 },
		{ units_parse_size, "4GB", -EINVAL, 0 },
		{ units_parse_size, "4G", -EINVAL, 0 },
		{ units_parse_size, "4gib", -EINVAL, 0 },
		{ units_parse_size, "4 GiB", -EINVAL, 0 },
		{ units_parse_size, "4GiB ", -EINVAL, 0 },
		{ units_parse_size, "GiB", -EINVAL, 0 },
		{ units_parse_size, "1.5GiB", -EINVAL, 0 },
		{ units_parse_size, "-1", -EINVAL, 0 },
		{ units_parse_duration, "0", 0, 0 },
		{ units_parse_duration, "7ns", 0, 7 },
		{ units_parse_duration, "7us", 0, 7000 },
		{ units_parse_duration, "250ms", 0, 250 * NS_PER_MS },
		{ units_parse_duration, "90s", 0, 90 * NS_PER_S },
		{ units_parse_duration, "5m", 0, 300 * NS_PER_S },
		{ units_parse_duration, "24h", 0, 86400 * NS_PER_S },
		{ units_parse_duration, "7d", 0, 604800 * NS_PER_S },
		{ units_parse_duration, "213504d", -ERANGE, 0 },
		{ units_parse_duration, "5", -EINVAL, 0 },
		{ units_parse_duration, "99999999999999999999999", -EINVAL, 0 },
		{ units_parse_duration, "1h30m", -EINVAL, 0 },
		{ units_parse_duration, "", -EINVAL, 0 },
	};
	size_t i;

	for (i = 0; i < array_len(cases); i++) {
		uint64_t value = 4711;
		int result = cases[i].parse(cases[i].text, &value);

		if (result != cases[i].result)
			print_error("case %s\n", cases[i].text);
		assert_int_equal(result, cases[i].result);
		assert_true(value == (result == 0 ? cases[i].value : 4711));
	}
}

UNIT(exact_texts)
{
	char text[UNITS_TEXT_BYTES];

	assert_string_equal(units_format_size_exact(0, text), "0B");
	assert_string_equal(units_format_size_exact(4 * GIB, text), "4GiB");
	assert_string_equal(units_format_size_exact(4 * GIB + 1, text), "4294967297B");
	assert_string_equal(units_format_size_exact(1536 * MIB, text), "1536MiB");
	assert_string_equal(units_format_duration_exact(1500 * NS_PER_MS, text), "1500ms");
	assert_string_equal(units_format_duration_exact(2 * NS_PER_DAY, text), "2d");
	assert_string_equal(units_format_duration_exact(0, text), "0ns");
}

UNIT(exact_texts_parse_back)
{
	struct prng prng;
	int round;

	prng_seed(&prng, 1);
	for (round = 0; round < 10000; round++) {
		uint64_t value = prng_next(&prng) >> prng_below(&prng, 64) << prng_below(&prng, 40);
		char text[UNITS_TEXT_BYTES];
		uint64_t again = value + 1;

		assert_int_equal(units_parse_size(units_format_size_exact(value, text), &again), 0);
		assert_true(again == value);
		assert_int_equal(
			units_parse_duration(units_format_duration_exact(value, text), &again), 0);
		assert_true(again == value);
	}
}

UNIT(texts_for_people)
{
	char text[UNITS_TEXT_BYTES];

	assert_string_equal(units_format_size(0, text), "0 B");
	assert_string_equal(units_format_size(1023, text), "1023 B");
	assert_string_equal(units_format_size(1536, text), "1.50 KiB");
	assert_string_equal(units_format_size(15 * MIB + 512 * KIB, text), "15.5 MiB");
	assert_string_equal(units_format_size(GIB - 1, text), "1023 MiB");
	assert_string_equal(units_format_size(UINT64_MAX, text), "15.9 EiB");
	assert_string_equal(units_format_duration(0, text), "0 s");
	assert_string_equal(units_format_duration(999, text), "999 ns");
	assert_string_equal(units_format_duration(1234567, text), "1.23 ms");
	assert_string_equal(units_format_duration(59999999999, text), "59.9 s");
	assert_string_equal(units_format_duration(60 * NS_PER_S, text), "1m 00s");
	assert_string_equal(units_format_duration(245 * NS_PER_S, text), "4m 05s");
	assert_string_equal(units_format_duration(3723 * NS_PER_S, text), "1h 02m");
	assert_string_equal(units_format_duration(51 * NS_PER_HOUR, text), "2d 03h");
	assert_string_equal(units_format_duration(UINT64_MAX, text), "213503d 23h");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parsing),
		cmocka_unit_test(exact_texts),
		cmocka_unit_test(exact_texts_parse_back),
		cmocka_unit_test(texts_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
