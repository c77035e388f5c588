/* SPDX-License-Identifier: Apache-2.0 */
/* A standby knows who wrote what it holds, and says so (core/group/openings.h). */
#include "core/group/openings.h"
#include "tests/unit/engine/stage.h"

#define WRITER 77u /* of the stage's segments */

static void check_welcome(struct stage *stage)
{
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.durable.seq > 0);
	sim_check(stage->world, stage->welcome.writer == WRITER);
}

/* O1, and across a crash and a stop: from the journal, and from the superblock when it is empty. */
static void named(struct stage *stage)
{
	static struct superblock sb;

	stage_fill(stage);
	for (unsigned i = 0; i < 5; i++)
		stage_send_segment(stage, stage_write(stage, 0, i * 4096ull, 4096, 50 + i));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	check_welcome(stage);
	stage_stop_engine(stage);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.applied_seq == stage->next_seq - 1);
	sim_check(stage->world, openings_at(&sb, sb.applied_seq) == WRITER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	check_welcome(stage);
	/* Promoted, it takes the list along. */
	sim_check(stage->world, stage_promote(stage, true) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, openings_at(&sb, stage->promote.seq) == WRITER);
}

UNIT(test_named)
{
	stage_run(named);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
