/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/pool.h"
#include "core/base/prng.h"
#include "tests/unit/unit.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define CAPACITY     17u
#define OBJECT_BYTES 20u

UNIT(objects_are_distinct_and_all_come_back)
{
	size_t size = pool_memory_bytes(OBJECT_BYTES, CAPACITY);
	void *memory = malloc(size);
	uint8_t *objects[CAPACITY];
	struct pool pool;
	size_t i;
	size_t j;

	assert_int_equal(size, 24 * CAPACITY);
	pool_init(&pool, memory, OBJECT_BYTES, CAPACITY);
	assert_int_equal(pool.free_count, CAPACITY);
	for (i = 0; i < CAPACITY; i++) {
		objects[i] = pool_get(&pool);
		assert_non_null(objects[i]);
		memset(objects[i], (int)i, OBJECT_BYTES);
	}
	assert_int_equal(pool.free_count, 0);
	assert_null(pool_get(&pool));
	assert_null(pool_get_zeroed(&pool));
	for (i = 0; i < CAPACITY; i++) {
		for (j = 0; j < OBJECT_BYTES; j++)
			assert_int_equal(objects[i][j], i);
		pool_put(&pool, objects[i]);
	}
	pool_put(&pool, NULL);
	assert_int_equal(pool.free_count, CAPACITY);
	assert_ptr_equal(pool_get(&pool), objects[CAPACITY - 1]);
	pool_deinit(&pool);
	memset(memory, 0, size);
	free(memory);
}

UNIT(zeroed_objects)
{
	uint64_t memory[8];
	static const uint8_t zeroes[32];
	struct pool pool;
	uint8_t *object;

	pool_init(&pool, memory, 32, 2);
	object = pool_get(&pool);
	assert_non_null(object);
	memset(object, 0xff, 32);
	pool_put(&pool, object);
	object = pool_get_zeroed(&pool);
	assert_non_null(object);
	assert_memory_equal(object, zeroes, 32);
	pool_deinit(&pool);
}

UNIT(small_objects_still_hold_a_pointer)
{
	uint64_t memory[4];
	struct pool pool;

	assert_int_equal(pool_memory_bytes(1, 4), sizeof(memory));
	pool_init(&pool, memory, 1, 4);
	assert_ptr_equal(pool_get(&pool), &memory[0]);
	assert_ptr_equal(pool_get(&pool), &memory[1]);
	pool_deinit(&pool);
}

UNIT(sizes_that_overflow)
{
	assert_int_equal(pool_memory_bytes(SIZE_MAX, 1), 0);
	assert_int_equal(pool_memory_bytes(SIZE_MAX / 4, 8), 0);
}

UNIT(free_objects_are_poisoned)
{
#if defined(__SANITIZE_ADDRESS__)
	uint64_t memory[8];
	struct pool pool;
	uint8_t *object;

	pool_init(&pool, memory, 32, 2);
	object = pool_get(&pool);
	assert_false(__asan_address_is_poisoned(object));
	pool_put(&pool, object);
	assert_true(__asan_address_is_poisoned(object));
	assert_true(__asan_address_is_poisoned(object + 31));
	pool_deinit(&pool);
	assert_false(__asan_address_is_poisoned(object));
#else
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_distinct_and_all_come_back),
		cmocka_unit_test(zeroed_objects),
		cmocka_unit_test(small_objects_still_hold_a_pointer),
		cmocka_unit_test(sizes_that_overflow),
		cmocka_unit_test(free_objects_are_poisoned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
