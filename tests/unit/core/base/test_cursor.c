/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/cursor.h"
#include "tests/unit/unit.h"

UNIT(writes_and_reads_back)
{
	uint8_t bytes[48];
	struct wcursor out = wcursor_of(bytes, sizeof(bytes));
	struct rcursor in = rcursor_of(bytes, sizeof(bytes));
	uint8_t text[3];

	wcursor_u8(&out, 1);
	wcursor_le16(&out, 2);
	wcursor_le32(&out, 3);
	wcursor_le64(&out, 4);
	wcursor_be16(&out, 5);
	wcursor_be32(&out, 6);
	wcursor_be64(&out, 7);
	wcursor_bytes(&out, "abc", 3);
	wcursor_zeroes(&out, 16);
	assert_true(wcursor_ok(&out));
	assert_int_equal(wcursor_left(&out), 0);

	assert_int_equal(rcursor_u8(&in), 1);
	assert_int_equal(rcursor_le16(&in), 2);
	assert_int_equal(rcursor_le32(&in), 3);
	assert_int_equal(rcursor_le64(&in), 4);
	assert_int_equal(rcursor_be16(&in), 5);
	assert_int_equal(rcursor_be32(&in), 6);
	assert_int_equal(rcursor_be64(&in), 7);
	rcursor_copy(&in, text, 3);
	assert_memory_equal(text, "abc", 3);
	assert_int_equal(rcursor_left(&in), 16);
	assert_false(rcursor_done(&in));
	rcursor_zeroes(&in, 16);
	assert_true(rcursor_done(&in));
}

UNIT(a_read_beyond_the_end_fails_for_good)
{
	const uint8_t bytes[5] = { 1, 2, 3, 4, 5 };
	struct rcursor in = rcursor_of(bytes, sizeof(bytes));
	uint8_t copy[2] = { 9, 9 };

	assert_int_equal(rcursor_le32(&in), 0x04030201);
	assert_int_equal(rcursor_le16(&in), 0);
	assert_false(rcursor_ok(&in));
	assert_false(rcursor_done(&in));
	/* One byte is there, but a failed cursor gives nothing any more. */
	assert_int_equal(rcursor_u8(&in), 0);
	assert_null(rcursor_bytes(&in, 0));
	rcursor_copy(&in, copy, 2);
	assert_int_equal(copy[0], 0);
	assert_int_equal(rcursor_left(&in), 0);
}

UNIT(a_huge_length_does_not_wrap)
{
	const uint8_t bytes[4] = { 0 };
	struct rcursor in = rcursor_of(bytes, sizeof(bytes));

	rcursor_skip(&in, 1);
	assert_null(rcursor_bytes(&in, SIZE_MAX));
	assert_false(rcursor_ok(&in));
}

UNIT(reserved_bytes_must_be_zero)
{
	const uint8_t bytes[4] = { 0, 0, 1, 0 };
	struct rcursor in = rcursor_of(bytes, sizeof(bytes));

	rcursor_zeroes(&in, 2);
	assert_true(rcursor_ok(&in));
	rcursor_zeroes(&in, 2);
	assert_false(rcursor_ok(&in));
}

UNIT(a_sub_cursor_ends_where_it_should)
{
	const uint8_t bytes[4] = { 1, 2, 3, 4 };
	struct rcursor in = rcursor_of(bytes, sizeof(bytes));
	struct rcursor sub = rcursor_sub(&in, 2);
	struct rcursor none;

	assert_int_equal(rcursor_le16(&sub), 0x0201);
	assert_true(rcursor_done(&sub));
	assert_int_equal(rcursor_u8(&sub), 0);
	assert_false(rcursor_ok(&sub));
	assert_true(rcursor_ok(&in));
	none = rcursor_sub(&in, 3);
	assert_false(rcursor_ok(&none));
	assert_false(rcursor_ok(&in));
}

UNIT(nothing_is_written_beyond_the_end)
{
	uint8_t bytes[8];
	struct wcursor out = wcursor_of(bytes, 6);

	memset(bytes, 0xaa, sizeof(bytes));
	wcursor_le32(&out, 1);
	wcursor_le32(&out, 2);
	assert_false(wcursor_ok(&out));
	wcursor_u8(&out, 3);
	assert_null(wcursor_reserve(&out, 0));
	assert_int_equal(bytes[4], 0xaa);
	assert_int_equal(bytes[6], 0xaa);
}

UNIT(an_empty_cursor_over_nothing)
{
	struct rcursor in = rcursor_of(NULL, 0);
	struct wcursor out = wcursor_of(NULL, 0);

	assert_true(rcursor_done(&in));
	rcursor_copy(&in, NULL, 0);
	wcursor_bytes(&out, NULL, 0);
	assert_true(wcursor_ok(&out));
	assert_int_equal(rcursor_u8(&in), 0);
	assert_false(rcursor_ok(&in));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_and_reads_back),
		cmocka_unit_test(a_read_beyond_the_end_fails_for_good),
		cmocka_unit_test(a_huge_length_does_not_wrap),
		cmocka_unit_test(reserved_bytes_must_be_zero),
		cmocka_unit_test(a_sub_cursor_ends_where_it_should),
		cmocka_unit_test(nothing_is_written_beyond_the_end),
		cmocka_unit_test(an_empty_cursor_over_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
