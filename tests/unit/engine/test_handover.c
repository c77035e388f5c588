/* SPDX-License-Identifier: Apache-2.0 */
/* Switchover as the standby does it: taken over at once and exactly, or not at all. */
#include "tests/unit/engine/stage.h"

static void hand_over(struct stage *stage, uint64_t seq, uint64_t chain)
{
	struct frame frame = { .type = FRAME_HANDOVER, .seq = seq, .arg1 = chain };

	memset(&stage->handed, 0, sizeof(stage->handed));
	stage_send(stage, &frame, NULL);
}

static bool is_handed(void *context)
{
	return ((struct stage *)context)->handed.type == FRAME_HANDED;
}

static void fill(struct stage *stage)
{
	stage_fill(stage);
	for (unsigned i = 0; i < 10; i++)
		stage_send_segment(stage, stage_write(stage, i % 2, i * 4096, 8192, 20 + i));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
}

static void expect_role(struct stage *stage, uint8_t role, uint64_t epoch)
{
	struct superblock sb;

	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == role && sb.epoch == epoch);
}

static void takes_over(struct stage *stage)
{
	uint64_t seq;
	struct superblock sb;

	fill(stage);
	seq = stage->next_seq - 1;
	hand_over(stage, seq, stage->chain);
	sim_check(stage->world, stage_until(stage, is_handed));
	sim_check(stage->world, stage->handed.epoch == 2 && stage->handed.seq == seq);
	/* H6: it was durable before it was said. */
	expect_role(stage, GROUP_PRIMARY, 2);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.history[sb.history_count - 1].first_seq == seq + 1);
	sim_check(stage->world, sb.applied_seq == seq && !sb.peer_count);
	stage_check_volumes(stage, "taken over");
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
}

UNIT(test_takes_over)
{
	stage_run(takes_over);
}

static void declined(struct stage *stage, const char *words)
{
	sim_check(stage->world, stage_until(stage, is_handed));
	sim_check(stage->world, stage->handed.epoch == 1 && !stage->handed.seq);
	if (!strstr(stage->bye.text, words))
		sim_fail(stage->world, "declined: \"%s\"", stage->bye.text);
	sim_run_for(stage->world, SIM_SECOND);
	expect_role(stage, GROUP_STANDBY, 1);
}

/* H5; and the session goes on. */
static void declines(struct stage *stage)
{
	uint64_t seq;

	fill(stage);
	seq = stage->next_seq - 1;
	hand_over(stage, seq, stage->chain + 1);
	declined(stage, "history differs");
	hand_over(stage, seq + 1, stage->chain);
	declined(stage, "has applied");
	hand_over(stage, seq - 1, stage->chain);
	declined(stage, "has applied");
	for (unsigned i = 0; i < 10; i++)
		stage_send_segment(stage, stage_write(stage, i % 2, i * 4096, 8192, 50 + i));
	hand_over(stage, stage->next_seq - 1, stage->chain); /* they cannot be applied yet */
	declined(stage, "has applied");
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	hand_over(stage, stage->next_seq - 1, stage->chain);
	sim_check(stage->world, stage_until(stage, is_handed) && stage->handed.epoch == 2);
}

UNIT(test_declines)
{
	stage_run(declines);
}

/* H4: whoever is welcomed under the old epoch knows that nothing will come of what it asked. */
static unsigned skip;

static void dropped(struct stage *stage)
{
	fill(stage);
	hand_over(stage, stage->next_seq - 1, stage->chain);
	for (unsigned i = 0; i < skip; i++)
		sim_step(stage->world);
	stage_dial(stage);
	sim_check(stage->world,
		  stage_until(stage, stage_is_welcomed) || stage_until(stage, stage_is_refused));
	if (stage->welcomed) {
		sim_check(stage->world, stage->welcome.epoch == 1);
		sim_run_for(stage->world, 10 * SIM_SECOND);
		expect_role(stage, GROUP_STANDBY, 1);
		return;
	}
	sim_check(stage->world, stage->refuse.code == LINK_REFUSE_BUSY ||
					stage->refuse.code == LINK_REFUSE_STALE_EPOCH);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	expect_role(stage, GROUP_PRIMARY, 2);
}

UNIT(test_dropped)
{
	for (skip = 0; skip < 30; skip++)
		stage_run(dropped);
}

/* Killed at any moment: a standby or a primary, and never the new epoch said and not kept. */
static void killed(struct stage *stage)
{
	struct superblock sb;

	fill(stage);
	hand_over(stage, stage->next_seq - 1, stage->chain);
	for (unsigned i = 0; i < skip; i++)
		sim_step(stage->world);
	stage_crash(stage, SIM_POWER);
	stage_superblock(stage, &sb);
	if (is_handed(stage))
		sim_check(stage->world, sb.role == GROUP_PRIMARY && sb.epoch == 2);
	sim_check(stage->world, sb.role == (sb.epoch == 2 ? GROUP_PRIMARY : GROUP_STANDBY));
	sim_check(stage->world, stage_start_engine(stage) == (sb.epoch == 2 ? 1 : 0));
}

UNIT(test_killed)
{
	for (skip = 0; skip < 40; skip++)
		stage_run(killed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_over),
		cmocka_unit_test(test_declines),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
