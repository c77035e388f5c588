/* SPDX-License-Identifier: Apache-2.0 */
/* The scenarios that holdfast-sim knows: one line for each. */
#include "tests/sim/pair.h"
#include "tests/sim/scenario_journal.h"
#include "tests/sim/selftest.h"
#include "tests/sim/sim.h"
#include "tests/sim/sites.h"

const struct sim_scenario *const sim_scenarios[] = {
	&scenario_selftest, &scenario_journal, &pair_scenario, &pair_diverge,
	&pair_scripts,	    &sites_scenario,   &sites_scripts, NULL,
};
