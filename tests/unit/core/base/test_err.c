/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>

#include "core/base/err.h"
#include "tests/unit/unit.h"

UNIT(names)
{
	assert_string_equal(err_name(-ENOSPC), "ENOSPC");
	assert_string_equal(err_name(EIO), "EIO");
	assert_string_equal(err_name(-3999), "EUNKNOWN");
	assert_string_equal(err_name(INT_MIN), "EUNKNOWN");
	assert_string_equal(err_name(INT_MAX), "EUNKNOWN");
}

UNIT(texts)
{
	assert_string_equal(err_text(-ENOENT), "No such file or directory");
	assert_string_equal(err_text(INT_MIN), "Unknown error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
