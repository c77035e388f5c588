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
	sim_check(stage->world,
		  peer->refuses > 0 && peer->said_refuse.code == LINK_REFUSE_DIVERGED);
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

static void said(struct agent_task *task)
{
	(void)task;
}

static bool has_epoch(void *context)
{
	const struct stage *stage = context;

	return stage->group->dir.sb.epoch == 3 && !stage->group->held.task;
}

/* A2, A3: the operator's word while it serves: a higher epoch behind our end, under which what was
 * asked for meanwhile is written; nobody has anything to say about it a second time. */
static void accepted(struct stage *stage)
{
	static struct agent_task task, again;
	struct agent_group *group;
	const struct superblock *sb;
	struct stage_request *before, *after;
	uint64_t head;

	outgrow(stage);
	group = stage->group;
	sb = &group->dir.sb;
	stage->peers[0].writer++;
	expect_parted(stage);
	sim_check(stage->world, !strcmp(stage_status(stage)->peers[0].parted, "standby"));
	task = again = (struct agent_task){
		.kind = AGENT_ACCEPT, .has_expect_epoch = true, .expect_epoch = 1, .done = said
	};
	before = stage_write(stage, 0, 0, 16384, 0);
	agent_group_task(group, &task);
	head = group->head_seq;
	after = stage_write(stage, 0, 65536, 16384, EXPORT_FUA);
	stage->peers[0].durable_epoch = 1;
	sim_check(stage->world, group->head_seq == head);
	sim_check(stage->world, stage_until(stage, has_epoch));
	sim_check(stage->world, task.res == 0 && task.seq == head);
	sim_check(stage->world, stage_wait(stage, before) == 0);
	sim_check(stage->world, stage_wait(stage, after) == 0);
	sim_check(stage->world, group->head_seq > head);
	sim_check(stage->world, sb->history[sb->history_count - 1].first_seq == head + 1);
	sim_check(stage->world, openings_at(sb, head) != openings_at(sb, head + 1));
	stage_superblock_is(stage, GROUP_PRIMARY, 3);
	/* It holds what was written under the old epoch: that waits for its own operator. */
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, !stage_status(stage)->peers[0].parted[0]);
	again.expect_epoch = 3;
	agent_group_task(group, &again);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, again.res == -EALREADY);
}

UNIT(test_accepted)
{
	stage_run_raw(accepted, 1, NULL);
}

/* Another primary under our epoch: both say so. */
static void rival(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	sim_cut_both(stage->node, peer->node, SIM_CUT_RESET);
	sim_run_for(stage->world, 100 * SIM_MS);
	peer->refuse_epoch = 1;
	peer->refuse_code = LINK_REFUSE_NOT_STANDBY;
	sim_heal_all(stage->world);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, !strcmp(stage_status(stage)->peers[0].parted, "rival"));
	sim_check(stage->world, stage->group->state == AGENT_SERVING);
	peer->refuse_epoch = 0;
	stage_converge(stage, "it follows");
	sim_check(stage->world, !stage_status(stage)->peers[0].parted[0]);
}

UNIT(test_rival)
{
	stage_run_raw(rival, 1, NULL);
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
	sim_check(stage->world, openings_at(&stage->group->dir.sb, stage->peers[0].seq) == writer);
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
		cmocka_unit_test(test_stored),	     cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_rival),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
