/* SPDX-License-Identifier: Apache-2.0 */
/* Is the instrument any good: a sound store holds in every case, each planted bug is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "tests/sim/selftest.h"

#define SEEDS_MAX 4000u

static struct sim_enum_result enumerate(enum selftest_bug bug, unsigned shard, unsigned shards)
{
	const struct sim_enum_options options = {
		.seed = 1, .subset_sectors_max = 4, .shard = shard, .shards = shards
	};
	struct sim_enum_result result = { 0 };

	selftest_script_bug = bug;
	sim_enumerate(&selftest_script, &options, &result);
	return result;
}

static void test_sound_store_holds(void **state)
{
	struct sim_enum_result result = enumerate(SELFTEST_SOUND, 0, 1);

	(void)state;
	assert_true(result.events > 20);
	assert_true(result.disk_ops >= 5);
	assert_true(result.cases > 4 * result.events);
	assert_int_equal(result.failures, 0);
	assert_int_equal(result.points_skipped, 0);
}

static void test_shards_share_the_cases(void **state)
{
	struct sim_enum_result whole = enumerate(SELFTEST_SOUND, 0, 1), part;
	uint64_t cases = 0;

	(void)state;
	for (unsigned shard = 0; shard < 3; shard++) {
		part = enumerate(SELFTEST_SOUND, shard, 3);
		assert_true(part.cases > 0);
		cases += part.cases;
	}
	assert_int_equal(cases, whole.cases);
}

static void test_one_case_by_name(void **state)
{
	static const char *const names[] = { "plain", "kill/0/9/0", "power/1/12/0", "eio-once/2" };

	(void)state;
	for (size_t i = 0; i < array_len(names); i++) {
		const struct sim_enum_options options = { .seed = 1, .only = names[i] };
		struct sim_enum_result result = { 0 };

		selftest_script_bug = SELFTEST_SOUND;
		sim_enumerate(&selftest_script, &options, &result);
		assert_int_equal(result.cases, 1);
	}
}

static void test_enumeration_finds_planted_bugs(void **state)
{
	(void)state;
	for (enum selftest_bug bug = SELFTEST_SOUND + 1; bug < SELFTEST_BUG_COUNT; bug++) {
		struct sim_enum_result result = enumerate(bug, 0, 1);

		if (result.failures == 0)
			fail_msg("planted bug %d was not found in %llu cases", (int)bug,
				 (unsigned long long)result.cases);
	}
}

struct seed_run {
	enum selftest_bug bug;
};

static void body(struct sim_world *world, void *context)
{
	const struct seed_run *run = context;

	selftest_run(world, run->bug);
}

static bool seed_holds(uint64_t seed, enum selftest_bug bug)
{
	struct seed_run run = { bug };
	struct sim_options options;
	struct sim_world *world;
	bool held;

	sim_options_swarm(&options, seed);
	world = sim_new(seed, &options);
	sim_report_to(world, NULL);
	held = sim_run(world, body, &run);
	sim_free(world);
	return held;
}

static void test_seeds_find_planted_bugs(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++)
		assert_true(seed_holds(seed, SELFTEST_SOUND));
	for (enum selftest_bug bug = SELFTEST_SOUND + 1; bug < SELFTEST_BUG_COUNT; bug++) {
		uint64_t seed = 1;

		while (seed <= SEEDS_MAX && seed_holds(seed, bug))
			seed++;
		if (seed > SEEDS_MAX)
			fail_msg("planted bug %d was not found in %u seeds", (int)bug, SEEDS_MAX);
		print_message("planted bug %d: seed %u\n", (int)bug, (unsigned)seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound_store_holds),
		cmocka_unit_test(test_shards_share_the_cases),
		cmocka_unit_test(test_one_case_by_name),
		cmocka_unit_test(test_enumeration_finds_planted_bugs),
		cmocka_unit_test(test_seeds_find_planted_bugs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
