/* SPDX-License-Identifier: Apache-2.0 */
/* The journal's scenario and its scripts, for holdfast-sim and for the unit tests. */
#ifndef HOLDFAST_TESTS_SIM_SCENARIO_JOURNAL_H
#define HOLDFAST_TESTS_SIM_SCENARIO_JOURNAL_H

#include "tests/sim/enumerate.h"

extern const struct sim_scenario scenario_journal;
/* Ends with a NULL name. */
extern const struct sim_enum_script journal_scripts[];

#endif
