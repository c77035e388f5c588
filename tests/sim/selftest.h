/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator's own scenario: a register on a disk behind a connection. A client raises it step
 * by step; the store writes each value to one of two slots and answers when it is durable. Whatever
 * dies or breaks, the store never has less than the client was told, nor more than it was sent.
 *
 * The store can be built wrong on purpose, to show that the simulator notices.
 */
#ifndef HOLDFAST_TESTS_SIM_SELFTEST_H
#define HOLDFAST_TESTS_SIM_SELFTEST_H

#include "tests/sim/enumerate.h"

enum selftest_bug {
	SELFTEST_SOUND,
	SELFTEST_NOT_DURABLE,  /* answers when the write has completed, without making it durable */
	SELFTEST_EARLY_ANSWER, /* answers before the write */
	SELFTEST_ONE_SLOT,     /* overwrites the only copy */
	SELFTEST_NO_CHECKSUM,  /* takes a torn slot for whole */
	SELFTEST_TRUSTS_READ,  /* serves what it has read at its start, durable or not */
	SELFTEST_IGNORES_ERROR, /* answers though the write has failed */
	SELFTEST_BUG_COUNT,
};

/* One seed in a world that has its options; the nemesis runs, then everything must converge. */
int selftest_run(struct sim_world *world, enum selftest_bug bug);
/* The script of the enumeration; the bug is taken when it starts. */
extern const struct sim_enum_script selftest_script;
extern enum selftest_bug selftest_script_bug;

extern const struct sim_scenario scenario_selftest;

#endif
