/* SPDX-License-Identifier: Apache-2.0 */
/* The journal under crashes and errors: some seeds, and the scripts with every event in turn. */
#include "tests/sim/scenario_journal.h"
#include "tests/unit/unit.h"

#define SEEDS	  80u
#define CASES_MAX 80u /* per script; holdfast-sim --enumerate runs all of them */

struct seed_run {
	uint64_t seed;
	int res;
};

static void run_body(struct sim_world *world, void *context)
{
	struct seed_run *run = context;

	run->res = scenario_journal.run(world, run->seed);
}

static bool run_seed(uint64_t seed, uint64_t *ret_hash)
{
	struct seed_run run = { .seed = seed, .res = -1 };
	struct sim_options options;
	struct sim_world *world;
	bool held;

	sim_options_swarm(&options, seed);
	world = sim_new(seed, &options);
	held = sim_run(world, run_body, &run) && run.res == 0;
	*ret_hash = sim_hash(world);
	sim_free(world);
	return held;
}

UNIT(test_seeds_hold)
{
	uint64_t first, second;

	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		assert_true(run_seed(seed, &first));
	assert_true(run_seed(3, &first));
	assert_true(run_seed(3, &second));
	assert_true(first == second);
}

UNIT(test_scripts_hold_at_every_event)
{
	struct sim_enum_options options = {
		.seed = 1,
		.cases_max = CASES_MAX,
		.samples = 2,
		.subset_sectors_max = 2,
		.report = stderr,
		.reports_max = 1,
	};
	const struct sim_enum_script *script;
	struct sim_enum_result result;

	for (script = journal_scripts; script->name; script++) {
		memset(&result, 0, sizeof(result));
		sim_enumerate(script, &options, &result);
		assert_true(result.cases > 20);
		assert_true(result.failures == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seeds_hold),
		cmocka_unit_test(test_scripts_hold_at_every_event),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
