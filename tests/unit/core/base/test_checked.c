/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/checked.h"
#include "tests/unit/unit.h"

UNIT(sums)
{
	uint64_t wide = 7;
	uint32_t narrow = 7;
	size_t size = 7;

	assert_false(add_u64(UINT64_MAX, 1, &wide));
	assert_int_equal(wide, 7);
	assert_true(add_u64(UINT64_MAX - 1, 1, &wide));
	assert_true(wide == UINT64_MAX);
	assert_false(sub_u64(1, 2, &wide));
	assert_true(sub_u64(5, 2, &wide));
	assert_int_equal(wide, 3);
	assert_false(add_u32(UINT32_MAX, 1, &narrow));
	assert_true(add_u32(UINT32_MAX - 1, 1, &narrow));
	assert_int_equal(narrow, UINT32_MAX);
	assert_false(add_size(SIZE_MAX, 1, &size));
	assert_int_equal(size, 7);
	assert_true(add_size(1, 2, &size));
	assert_int_equal(size, 3);
}

UNIT(products)
{
	uint64_t wide = 7;
	size_t size = 7;

	assert_false(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &wide));
	assert_int_equal(wide, 7);
	assert_true(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 31, &wide));
	assert_true(wide == UINT64_C(1) << 63);
	assert_false(mul_size(SIZE_MAX, 2, &size));
	assert_true(mul_size(6, 7, &size));
	assert_int_equal(size, 42);
}

UNIT(rounding)
{
	uint64_t wide = 7;

	assert_false(round_up_checked(UINT64_MAX, 4096, &wide));
	assert_int_equal(wide, 7);
	assert_true(round_up_checked(4097, 4096, &wide));
	assert_int_equal(wide, 8192);
}

UNIT(ranges)
{
	assert_true(range_valid(0, 10, 10));
	assert_true(range_valid(10, 0, 10));
	assert_false(range_valid(11, 0, 10));
	assert_false(range_valid(9, 2, 10));
	assert_false(range_valid(2, UINT64_MAX, 10));
	assert_false(range_valid(UINT64_MAX, UINT64_MAX, UINT64_MAX));
	assert_true(range_valid(0, UINT64_MAX, UINT64_MAX));
}

UNIT(overlaps)
{
	assert_true(ranges_overlap(0, 10, 9, 1));
	assert_false(ranges_overlap(0, 10, 10, 1));
	assert_true(ranges_overlap(5, 1, 0, 10));
	assert_false(ranges_overlap(10, 5, 0, 10));
	assert_false(ranges_overlap(5, 0, 0, 10));
	assert_false(ranges_overlap(0, 10, 5, 0));
	assert_true(ranges_overlap(UINT64_MAX - 1, 1, 0, UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums),	  cmocka_unit_test(products), cmocka_unit_test(rounding),
		cmocka_unit_test(ranges), cmocka_unit_test(overlaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
