/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/openings.h"

#include "tests/unit/core/group/waiting.h"

static struct superblock sb;

UNIT(test_note)
{
	memset(&sb, 0, sizeof(sb));
	assert_int_equal(openings_at(&sb, 5), 0);
	openings_note(&sb, 11, 1);
	openings_note(&sb, 12, 10);
	assert_int_equal(openings_at(&sb, 9), 11);
	assert_int_equal(openings_at(&sb, 10), 12);
	/* The same writer goes on; what was noted from there on is noted anew. */
	openings_note(&sb, 12, 20);
	assert_int_equal(sb.opening_count, 2);
	openings_note(&sb, 13, 10);
	assert_int_equal(openings_at(&sb, 20), 13);
	openings_note(&sb, 11, 5);
	assert_int_equal(sb.opening_count, 1);
	assert_int_equal(openings_at(&sb, 0), 0);
}

UNIT(test_begin)
{
	memset(&sb, 0, sizeof(sb));
	openings_note(&sb, 11, 1);
	openings_begin(&sb, 12, 40);
	assert_int_equal(openings_at(&sb, 39), 0);
	assert_int_equal(openings_at(&sb, 40), 12);
	openings_begin(&sb, 0, 50);
	assert_int_equal(sb.opening_count, 0);
}

UNIT(test_full)
{
	memset(&sb, 0, sizeof(sb));
	for (uint64_t i = 1; i <= OPENINGS_MAX + 1; i++)
		openings_note(&sb, 100 + i, i);
	assert_int_equal(sb.opening_count, OPENINGS_MAX);
	assert_int_equal(openings_at(&sb, 1), 0);
	assert_int_equal(openings_at(&sb, 2), 102);
	assert_int_equal(openings_at(&sb, OPENINGS_MAX + 1), 100 + OPENINGS_MAX + 1);
	assert_true(openings_valid(sb.openings, sb.opening_count));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_begin),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
