/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/macros.h"
#include "tests/unit/unit.h"

struct outer {
	int before;
	struct inner {
		int x;
	} member;
};

UNIT(container)
{
	struct outer outer = { .before = 1 };
	struct inner *inner = &outer.member;

	assert_ptr_equal(container_of(inner, struct outer, member), &outer);
}

UNIT(array_length)
{
	uint32_t numbers[7] = { 0 };

	assert_int_equal(array_len(numbers), 7);
}

UNIT(smallest_and_largest)
{
	assert_int_equal(min_u64(3, UINT64_MAX), 3);
	assert_true(max_u64(3, UINT64_MAX) == UINT64_MAX);
	assert_int_equal(min_u32(9, 4), 4);
	assert_int_equal(max_u32(9, 4), 9);
	assert_int_equal(min_size(9, 4), 4);
	assert_int_equal(max_size(9, 4), 9);
	assert_int_equal(sub_floor_u64(5, 3), 2);
	assert_int_equal(sub_floor_u64(3, 5), 0);
}

UNIT(rounding)
{
	assert_int_equal(round_up(0, 4096), 0);
	assert_int_equal(round_up(1, 4096), 4096);
	assert_int_equal(round_up(4096, 4096), 4096);
	assert_int_equal(round_down(8191, 4096), 4096);
	assert_true(round_up(UINT64_MAX - 4095, 4096) == UINT64_MAX - 4095);
	assert_true(is_aligned(8192, 4096));
	assert_false(is_aligned(8192 + 512, 4096));
	assert_int_equal(div_round_up(0, 10), 0);
	assert_int_equal(div_round_up(10, 10), 1);
	assert_int_equal(div_round_up(11, 10), 2);
	assert_true(div_round_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
}

UNIT(powers_of_two)
{
	assert_false(is_power_of_two(0));
	assert_true(is_power_of_two(1));
	assert_false(is_power_of_two(3));
	assert_true(is_power_of_two(UINT64_C(1) << 63));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(container),
		cmocka_unit_test(array_length),
		cmocka_unit_test(smallest_and_largest),
		cmocka_unit_test(rounding),
		cmocka_unit_test(powers_of_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
