/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <time.h>

#include "core/base/prng.h"
#include "core/base/timefmt.h"
#include "core/base/units.h"
#include "tests/unit/unit.h"

UNIT(known_texts)
{
	char text[TIMEFMT_BYTES];

	assert_string_equal(timefmt_ns(0, text), "1970-01-01T00:00:00.000000000Z");
	assert_string_equal(timefmt_ms(UINT64_C(1777890030123999999), text),
			    "2026-05-04T10:20:30.123Z");
	assert_string_equal(timefmt_ns(UINT64_C(951782400000000001), text),
			    "2000-02-29T00:00:00.000000001Z");
	assert_string_equal(timefmt_ns(UINT64_MAX, text), "2554-07-21T23:34:33.709551615Z");
}

/* The C library's calendar is the oracle. */
UNIT(agrees_with_the_c_library_and_parses_back)
{
	struct prng prng;
	int round;

	prng_seed(&prng, 1);
	for (round = 0; round < 20000; round++) {
		uint64_t ns = prng_next(&prng);
		time_t seconds = (time_t)(ns / NS_PER_S);
		char text[TIMEFMT_BYTES];
		char expected[TIMEFMT_BYTES];
		uint64_t again = 0;
		struct tm tm;

		assert_non_null(gmtime_r(&seconds, &tm));
		assert_int_equal(strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.", &tm),
				 20);
		assert_memory_equal(timefmt_ns(ns, text), expected, 20);
		assert_int_equal(timefmt_parse(text, &again), 0);
		assert_true(again == ns);
	}
}

UNIT(parsing)
{
	static const struct {
		const char *text;
		int result;
		uint64_t ns;
	} cases[] = {
		{ "1970-01-01T00:00:00Z", 0, 0 },
		{ "1970-01-01t00:00:01.5z", 0, 1500000000 },
		{ "1970-01-01 00:00:00.000000001Z", 0, 1 },
		{ "1970-01-01T02:00:00+02:00", 0, 0 },
		{ "1969-12-31T23:30:00-00:30", 0, 0 },
		{ "1969-12-31T23:59:59Z", -ERANGE, 0 },
		{ "1970-01-01T00:00:00+00:01", -ERANGE, 0 },
		{ "0001-01-01T00:00:00Z", -ERANGE, 0 },
		{ "2554-07-21T23:34:33.709551615Z", 0, UINT64_MAX },
		{ "2554-07-21T23:34:33.709551616Z", -ERANGE, 0 },
		{ "9999-12-31T23:59:59Z", -ERANGE, 0 },
		{ "1972-06-30T23:59:60Z", 0, UINT64_C(78796800) * NS_PER_S },
		{ "2000-02-29T00:00:00Z", 0, UINT64_C(951782400) * NS_PER_S },
		{ "2100-02-29T00:00:00Z", -EINVAL, 0 },
		{ "2023-02-29T00:00:00Z", -EINVAL, 0 },
		{ "2023-00-01T00:00:00Z", -EINVAL, 0 },
		{ "2023-13-01T00:00:00Z", -EINVAL, 0 },
		{ "2023-01-00T00:00:00Z", -EINVAL, 0 },
		{ "2023-01-32T00:00:00Z", -EINVAL, 0 },
		{ "2023-01-01T24:00:00Z", -EINVAL, 0 },
		{ "2023-01-01T00:60:00Z", -EINVAL, 0 },
		{ "2023-01-01T00:00:61Z", -EINVAL, 0 },
		{ "2023-01-01T00:00:00", -EINVAL, 0 },
		{ "2023-01-01T00:00:00Zx", -EINVAL, 0 },
		{ "2023-01-01T00:00:00.Z", -EINVAL, 0 },
		{ "2023-01-01T00:00:00.1234567890Z", -EINVAL, 0 },
		{ "2023-01-01T00:00:00+24:00", -EINVAL, 0 },
		{ "2023-01-01T00:00:00+02:00x", -EINVAL, 0 },
		{ "2023-01-01T00:00:00+0200", -EINVAL, 0 },
		{ "2023-01-01", -EINVAL, 0 },
		{ "23-01-01T00:00:00Z", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
	};
	size_t i;

	for (i = 0; i < array_len(cases); i++) {
		uint64_t ns = 4711;
		int result = timefmt_parse(cases[i].text, &ns);

		if (result != cases[i].result)
			print_error("case %s\n", cases[i].text);
		assert_int_equal(result, cases[i].result);
		assert_true(ns == (result == 0 ? cases[i].ns : 4711));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_texts),
		cmocka_unit_test(agrees_with_the_c_library_and_parses_back),
		cmocka_unit_test(parsing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
