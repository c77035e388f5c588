/* SPDX-License-Identifier: Apache-2.0 */
/* What a standby holds is the primary's own, or it is left alone (timeline.h). */
#include "core/group/openings.h"
#include "tests/unit/agent/stage.h"

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

/* What the journal has no room for any more. */
static void write_much(struct stage *stage)
{
	for (uint64_t at = 0; at < 1u << 20; at += 16384) {
		stage->next_id |= 1;
		stage->next_id++; /* does not compress */
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, at % 65536, 16384, 0)) == 0);
	}
}

/* The standby holds something and is away, and the journal moves on without it. */
static void outgrow(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "before");
	sim_check(stage->world, peer->writer && peer->writer == stage->group->writer);
	sim_cut_both(stage->node, peer->node, SIM_CUT_RESET);
	sim_run_for(stage->world, 100 * SIM_MS);
	write_much(stage);
	sim_check(stage->world, the_ship(stage)->peer->released_seq > peer->seq);
}

/* It comes, is told, and gets nothing. */
static void expect_parted(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	unsigned starts = peer->starts;

	sim_heal_all(stage->world);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, peer->starts == starts);
	sim_check(stage->world, peer->refuses > 0 &&
					peer->said_refuse.code == LINK_REFUSE_DIVERGED);
	sim_check(stage->world, the_ship(stage)->parted == PARTED_STANDBY);
	sim_check(stage->world, stage->group->state == AGENT_SERVING);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, 0)) == 0);
}

/* A primary that went on from an older image of itself: the same epoch, other content under a seq
 * that its journal holds no more. */
static void other_writer(struct stage *stage)
{
	outgrow(stage);
	stage->peers[0].writer++;
	expect_parted(stage);
}

UNIT(test_other_writer)
{
	stage_run_raw(other_writer, 1, NULL);
}

/* What it acknowledged to us proves nothing against another writer; without a name it does. */
static void acknowledged(struct stage *stage)
{
	outgrow(stage);
	stage->peers[0].writer = 0;
	sim_heal_all(stage->world);
	stage_converge(stage, "acknowledged");
}

UNIT(test_acknowledged)
{
	stage_run_raw(acknowledged, 1, NULL);
}

/* Nobody knows: not what it acknowledged, nor who wrote it, and the journal holds it no more. */
static void not_known(struct stage *stage)
{
	outgrow(stage);
	the_ship(stage)->peer->durable_seq = 0;
	stage->peers[0].writer = 0;
	expect_parted(stage);
}

UNIT(test_not_known)
{
	stage_run_raw(not_known, 1, NULL);
}

/* Its acknowledgement was lost with a crash: the opening proves it, across restarts. */
static void by_opening(struct stage *stage)
{
	uint64_t writer;

	outgrow(stage);
	writer = stage->group->writer;
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage->group->writer != writer);
	sim_check(stage->world,
		  openings_at(&stage->group->dir.sb, stage->peers[0].seq) == writer);
	sim_check(stage->world, !openings_at(&stage->group->dir.sb, 0));
	the_ship(stage)->peer->durable_seq = 0;
	sim_heal_all(stage->world);
	stage_converge(stage, "by its opening");
}

UNIT(test_by_opening)
{
	stage_run_raw(by_opening, 1, NULL);
}

/* O1: the opening is on the disk before anything that it writes. */
static void stored(struct stage *stage)
{
	static struct superblock sb;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world,
		  openings_at(&sb, stage->group->head_seq + 1) == stage->group->writer);
}

UNIT(test_stored)
{
	stage_run_raw(stored, 1, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_writer), cmocka_unit_test(test_acknowledged),
		cmocka_unit_test(test_not_known),    cmocka_unit_test(test_by_opening),
		cmocka_unit_test(test_stored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
