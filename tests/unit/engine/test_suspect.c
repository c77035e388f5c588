/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes that were changed behind the engine's back: nothing is built on them before all of it was
 * copied or compared. */
#include "tests/unit/engine/stage.h"

#define VOLUME_BYTES (1u << 20)
#define RECORDS	     10u

static struct superblock sb;

static void fill(struct stage *stage)
{
	stage_fill(stage);
	for (unsigned i = 0; i < RECORDS; i++)
		stage_send_segment(stage, stage_write(stage, 0, (uint64_t)i << 16, 4096, 50 + i));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
}

static void poke(struct stage *stage)
{
	uint8_t bytes[512];

	memset(bytes, 0x77, sizeof(bytes));
	sim_file_poke(stage->standby, "/vol/v1", 700 << 10, bytes, sizeof(bytes));
}

static bool has(struct stage *stage, uint32_t flags)
{
	stage_superblock(stage, &sb);
	return (sb.flags & flags) == flags;
}

static bool has_stamps(struct stage *stage)
{
	stage_superblock(stage, &sb);
	return (sb.flags & SUPERBLOCK_CLEAN) && sb.stamps[0].sample && sb.stamps[1].sample;
}

static void restart(struct stage *stage, bool changed)
{
	stage_stop_engine(stage);
	sim_check(stage->world, has_stamps(stage));
	if (changed)
		poke(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !has_stamps(stage)); /* F2 */
	sim_check(stage->world, stage_status(stage)->suspect == changed);
}

static bool copied(void *context)
{
	struct stage *stage = context;

	return stage->sync_acked == STAGE_VOLUMES * (VOLUME_BYTES / STAGE_EXTENT_BYTES) + 1;
}

static void send_reset(struct stage *stage)
{
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = stage->hello.epoch,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes },
						      .sync_bytes = 2 * VOLUME_BYTES });
}

static void send_content(struct stage *stage)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		for (uint64_t off = 0; off < VOLUME_BYTES; off += STAGE_EXTENT_BYTES)
			stage_send_extent(stage, v, off, STAGE_EXTENT_BYTES, 7000 + off + v, v);
	stage_send_end(stage, stage->next_seq - 1);
}

static bool in_the_copy(void *context)
{
	return stage_status(context)->syncing;
}

/* It says so to its primary, takes nothing but a copy from the beginning, and cannot be promoted.
 */
static void expect_suspect(struct stage *stage)
{
	sim_check(stage->world, stage_status(stage)->suspect && !stage->status.consistent);
	sim_check(stage->world, stage_promote(stage, false) == -EPERM);
	sim_check(stage->world, strstr(stage->promote.text, "behind the engine's back") != NULL);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.diverged && !stage->welcome.common_chain &&
					!stage->welcome.ranges);
	sim_check(stage->world, stage->welcome.common_seq == stage->welcome.durable.seq);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->welcome.durable.seq + 1 });
	stage_expect_bye(stage, "given up");
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->welcome.durable.seq + 1,
						      .sync = true });
	stage_expect_bye(stage, "given up");
}

static void copy_all(struct stage *stage)
{
	stage_dial_welcome(stage);
	send_reset(stage);
	send_content(stage);
	sim_check(stage->world, stage_until(stage, copied));
	sim_check(stage->world, !stage_status(stage)->suspect && stage->status.consistent);
	stage_check_volumes(stage, "copied");
	stage_superblock(stage, &sb);
	sim_check(stage->world, !(sb.flags & (SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY)));
}

static void changed(struct stage *stage)
{
	fill(stage);
	restart(stage, false);
	restart(stage, false); /* met nobody in between */
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged);
	restart(stage, true);
	sim_check(stage->world, has(stage, SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY));
	expect_suspect(stage);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	expect_suspect(stage);
	restart(stage, true); /* found again */
	copy_all(stage);
	restart(stage, false);
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged && !stage->welcome.syncing);
	sim_check(stage->world, stage_promote(stage, true) == 0);
}

UNIT(test_changed)
{
	stage_run_sized(changed, 1, VOLUME_BYTES, 0, 0);
}

/* Behind a crash nobody can tell. */
static void crashed(struct stage *stage)
{
	fill(stage);
	restart(stage, false);
	stage_crash(stage, SIM_POWER);
	poke(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !stage_status(stage)->suspect);
}

UNIT(test_crashed)
{
	stage_run_sized(crashed, 1, VOLUME_BYTES, 0, 0);
}

/* A copy that mends it is broken off: what it keeps is suspect still, and no other primary takes it
 * for its own. */
static void broken_off(struct stage *stage)
{
	fill(stage);
	restart(stage, true);
	stage_dial_welcome(stage);
	send_reset(stage);
	stage_send_extent(stage, 0, 0, STAGE_EXTENT_BYTES, 7000, false);
	sim_check(stage->world, stage_until(stage, in_the_copy));
	sim_run_for(stage->world, 100 * SIM_MS);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, stage_status(stage)->suspect && stage->status.syncing);
	sim_check(stage->world, stage_promote(stage, false) == -EPERM);
	/* The same one goes on: its dirty map has what is missing. */
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged && stage->welcome.syncing);
	/* Another one begins. */
	stage->hello.epoch = 2;
	stage->hello.history[stage->hello.history_count++] =
		(struct history_entry){ 2, stage->next_seq };
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.diverged && !stage->welcome.common_chain);
	/* And it is changed once more: not even the same one may go on. */
	stage->hello.epoch = 1;
	stage->hello.history_count--;
	restart(stage, true);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.diverged && stage->welcome.syncing);
	copy_all(stage);
}

UNIT(test_broken_off)
{
	stage_run_sized(broken_off, 1, VOLUME_BYTES, 0, 0);
}

/* By force: as it is; and that stays known, for the agent to tell every standby. */
static void forced(struct stage *stage)
{
	fill(stage);
	restart(stage, true);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && (sb.flags & SUPERBLOCK_SUSPECT) &&
					!sb.stamps[1].sample);
}

static void forced_back(struct stage *stage)
{
	fill(stage);
	restart(stage, true);
	stage_dial_welcome(stage);
	send_reset(stage);
	stage_send_extent(stage, 0, 0, STAGE_EXTENT_BYTES, 7000, false);
	sim_check(stage->world, stage_until(stage, in_the_copy));
	sim_check(stage->world, stage_promote(stage, true) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && (sb.flags & SUPERBLOCK_SUSPECT) &&
					sb.applied_seq == RECORDS);
}

UNIT(test_forced)
{
	stage_run_sized(forced, 1, VOLUME_BYTES, 0, 0);
	stage_run_sized(forced_back, 1, VOLUME_BYTES, 0, 0);
}

/* What its agent has left: role `role`, stopped cleanly, changed since. */
static void old_primary(struct stage *stage, enum group_role role)
{
	static uint8_t slot[SUPERBLOCK_SLOT_BYTES];

	fill(stage);
	stage_stop_engine(stage);
	sim_check(stage->world, has_stamps(stage));
	sb.role = (uint8_t)role;
	sb.flags = SUPERBLOCK_CLEAN;
	sb.fenced_by_epoch = role == GROUP_FENCED ? 2 : 0;
	superblock_encode(&sb, slot);
	for (unsigned i = 0; i < 2; i++)
		sim_file_poke(stage->standby, STAGE_DIR "/superblock",
			      (uint64_t)i * SUPERBLOCK_SLOT_BYTES, slot, sizeof(slot));
	poke(stage);
	sim_check(stage->world, stage_start_engine(stage) == (role == GROUP_PRIMARY));
}

static void follows(struct stage *stage)
{
	sim_check(stage->world, has(stage, SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY));
	stage->hello.epoch = 2;
	stage->hello.history[stage->hello.history_count++] =
		(struct history_entry){ 2, stage->next_seq };
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.diverged && !stage->welcome.common_chain);
	copy_all(stage);
	sim_check(stage->world, sb.role == GROUP_STANDBY && sb.epoch == 2);
}

static void fenced(struct stage *stage)
{
	old_primary(stage, GROUP_FENCED);
	follows(stage);
}

static void on_task(struct engine_task *task)
{
	task->volume = "done";
}

static bool task_is_done(void *context)
{
	return ((struct engine_task *)context)->volume != NULL;
}

static void demoted(struct stage *stage)
{
	struct engine_task task = { .kind = ENGINE_REJOIN, .done = on_task };

	old_primary(stage, GROUP_PRIMARY);
	engine_group_task(stage->group, &task);
	sim_check(stage->world, sim_run_until(stage->world, task_is_done, &task, STAGE_LIMIT));
	sim_check(stage->world, task.res == 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	follows(stage);
}

UNIT(test_old_primary)
{
	stage_run_sized(fenced, 1, VOLUME_BYTES, 0, 0);
	stage_run_sized(demoted, 1, VOLUME_BYTES, 0, 0);
}

/* A first copy may be prepared by hand. */
static void prepared(struct stage *stage)
{
	stage_stop_engine(stage);
	poke(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !stage_status(stage)->suspect);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty && !stage->welcome.diverged);
}

UNIT(test_prepared)
{
	stage_run_sized(prepared, 1, VOLUME_BYTES, 0, 0);
}

/* ---- crashes ----------------------------------------------------------------------------------
 */

static unsigned crash_at;
static bool came_through;

/* Stopped, changed, started and mended, crashed anywhere in the start and the copy: it is never a
 * consistent copy that nobody suspects before everything was copied. And nobody is suspected of
 * what the engine does itself: a crash of the stop. */
static void crashes(struct stage *stage)
{
	fill(stage);
	stage_stop_engine(stage);
	poke(stage);
	stage_begin_engine(stage);
	for (unsigned i = 0; i < crash_at && !came_through; i++) {
		sim_check(stage->world, sim_step(stage->world));
		if (stage->starts && !stage->promise_sent) {
			stage->promise_sent = true;
			stage_dial_welcome(stage);
			sim_check(stage->world, stage->welcome.diverged);
			send_reset(stage);
			send_content(stage);
		}
		came_through = stage->promise_sent && copied(stage);
	}
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_status(stage);
	if (!stage->status.suspect)
		stage_check_volumes(stage, "nobody suspects it");
	copy_all(stage);
}

static void crashed_stop(struct stage *stage)
{
	fill(stage);
	restart(stage, false);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq });
	stage_send_segment(stage, stage_write(stage, 1, 4096, 4096, 99));
	engine_group_stop(stage->group);
	for (unsigned i = 0; i < crash_at && !came_through; i++) {
		sim_step(stage->world);
		came_through = stage->stops > 0;
	}
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !stage_status(stage)->suspect);
}

UNIT(test_crashes)
{
	came_through = false;
	for (crash_at = 0; !came_through; crash_at += 2 + crash_at / 15)
		stage_run_sized(crashes, 1, VOLUME_BYTES, 0, 0);
	came_through = false;
	for (crash_at = 0; !came_through; crash_at++)
		stage_run_sized(crashed_stop, 1, VOLUME_BYTES, 0, 0);
	assert_in_range(crash_at, 10, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changed),	    cmocka_unit_test(test_crashed),
		cmocka_unit_test(test_broken_off),  cmocka_unit_test(test_forced),
		cmocka_unit_test(test_old_primary), cmocka_unit_test(test_prepared),
		cmocka_unit_test(test_crashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
