/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/endian.h"
#include "tests/unit/unit.h"

static const uint8_t ascending[9] = { 0xff, 1, 2, 3, 4, 5, 6, 7, 8 };

/* From an odd address on purpose. */
UNIT(loads)
{
	const uint8_t *at = ascending + 1;

	assert_int_equal(le16_load(at), 0x0201);
	assert_int_equal(be16_load(at), 0x0102);
	assert_int_equal(le32_load(at), 0x04030201);
	assert_int_equal(be32_load(at), 0x01020304);
	assert_true(le64_load(at) == UINT64_C(0x0807060504030201));
	assert_true(be64_load(at) == UINT64_C(0x0102030405060708));
}

UNIT(stores)
{
	uint8_t bytes[9] = { 0 };

	le64_put(bytes + 1, UINT64_C(0x0807060504030201));
	assert_memory_equal(bytes + 1, ascending + 1, 8);
	be64_put(bytes + 1, UINT64_C(0x0102030405060708));
	assert_memory_equal(bytes + 1, ascending + 1, 8);
	memset(bytes, 0, sizeof(bytes));
	le32_put(bytes + 1, 0x04030201);
	assert_memory_equal(bytes + 1, ascending + 1, 4);
	be32_put(bytes + 1, 0x01020304);
	assert_memory_equal(bytes + 1, ascending + 1, 4);
	le16_put(bytes + 1, 0x0201);
	assert_memory_equal(bytes + 1, ascending + 1, 2);
	be16_put(bytes + 1, 0x0102);
	assert_memory_equal(bytes + 1, ascending + 1, 2);
	assert_int_equal(bytes[5], 0);
}

UNIT(fields)
{
	struct le16 a = le16_of(0xabcd);
	struct le32 b = le32_of(0xdeadbeef);
	struct le64 c = le64_of(UINT64_MAX - 1);
	struct be16 d = be16_of(0xabcd);
	struct be32 e = be32_of(0xdeadbeef);
	struct be64 f = be64_of(UINT64_MAX - 1);

	assert_int_equal(a.bytes[0], 0xcd);
	assert_int_equal(d.bytes[0], 0xab);
	assert_int_equal(b.bytes[0], 0xef);
	assert_int_equal(e.bytes[0], 0xde);
	assert_int_equal(c.bytes[0], 0xfe);
	assert_int_equal(f.bytes[0], 0xff);
	assert_int_equal(le16_get(a), 0xabcd);
	assert_int_equal(be16_get(d), 0xabcd);
	assert_int_equal(le32_get(b), 0xdeadbeef);
	assert_int_equal(be32_get(e), 0xdeadbeef);
	assert_true(le64_get(c) == UINT64_MAX - 1);
	assert_true(be64_get(f) == UINT64_MAX - 1);
	le32_set(&b, 1);
	be32_set(&e, 1);
	assert_int_equal(b.bytes[0], 1);
	assert_int_equal(e.bytes[3], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads),
		cmocka_unit_test(stores),
		cmocka_unit_test(fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
