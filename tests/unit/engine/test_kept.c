/* SPDX-License-Identifier: Apache-2.0 */
/* The position that a copy keeps: promote goes back there, whatever happens on the way. */
#include "tests/unit/engine/stage.h"

#define BIG	 (4ull << 20)
#define UNDO_1	 STAGE_DIR "/undo.00000001"
#define KEPT_SEQ 3u

static uint8_t before[STAGE_VOLUMES][BIG];

/* A consistent standby at KEPT_SEQ, and what it holds then. */
static void settle(struct stage *stage)
{
	stage_fill(stage);
	for (unsigned i = 0; i < KEPT_SEQ; i++)
		stage_send_segment(stage, stage_write(stage, i % 2, i * 8192, 8192, 20 + i));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_run_for(stage->world, 50 * SIM_MS);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(before[v], stage->content[v], stage->volume_bytes);
}

/* It is away; the journal does not reach back; a copy begins at the primary's end. */
static void begin_resync(struct stage *stage)
{
	for (unsigned i = 0; i < 4; i++)
		stage_write(stage, i % 2, i * 4096, 4096, 40 + i); /* never sent */
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = stage->hello.epoch,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes } });
}

/* Some of the copy, and records beside it. */
static void part_of_it(struct stage *stage, uint64_t id)
{
	for (unsigned i = 0; i < 4; i++) {
		stage_send_extent(stage, i % 2, (i * 4096) % stage->volume_bytes, 4096, id + i,
				  false);
		stage_send_segment(stage,
				   stage_write(stage, i % 2, 32768 + i * 4096, 4096, id + 100 + i));
	}
	stage_send_zero(stage, 0, 16384, 8192);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_check(stage->world, !stage_status(stage)->consistent);
}

static void expect_before(struct stage *stage, const char *what)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(stage->content[v], before[v], stage->volume_bytes);
	stage_check_volumes(stage, what);
}

static void expect_promoted(struct stage *stage)
{
	struct superblock sb;

	sim_check(stage->world, stage->promote.res == 0 && stage->promote.seq == KEPT_SEQ);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && sb.applied_seq == KEPT_SEQ &&
					sb.durable_seq == KEPT_SEQ && !sb.kept.undo_id);
	sim_check(stage->world, sb.flags == (SUPERBLOCK_CLEAN | SUPERBLOCK_EVER_CONSISTENT));
	sim_check(stage->world, sb.history_count == 2 && sb.history[0].epoch == 1 &&
					sb.history[1].first_seq == KEPT_SEQ + 1);
	sim_check(stage->world, sim_file_size(stage->standby, UNDO_1) == -ENOENT);
	expect_before(stage, "promoted");
}

/* Copy, interrupted, begun anew with and without a reset, the host without power: the position
 * stays the one of before the first. */
static void promoted(struct stage *stage)
{
	const struct status_group *status;

	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing && stage->welcome.kept &&
					stage->welcome.kept_seq == KEPT_SEQ);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq, .sync = true });
	part_of_it(stage, 400);
	begin_resync(stage);
	part_of_it(stage, 600);
	status = stage_status(stage);
	sim_check(stage->world, status->kept && status->kept_seq == KEPT_SEQ);
	sim_check(stage->world,
		  status->kept_time_ns == stage->segments[KEPT_SEQ].header.last_time_ns);
	sim_check(stage->world, status->undo_saved_bytes == 2 * stage->volume_bytes);
	sim_check(stage->world, status->undo_bytes > 0 && !status->undo_full);
	stage_send_beat(stage, stage->next_seq - 1, stage->bytes, 0);
	sim_run_for(stage->world, 20 * SIM_MS);
	status = stage_status(stage); /* behind from there, though more is durable here */
	sim_check(stage->world,
		  status->durable_seq > KEPT_SEQ &&
			  status->lag.writes == stage->next_seq - 1 - KEPT_SEQ &&
			  status->lag.bytes ==
				  stage->bytes - stage->segments[KEPT_SEQ].header.bytes_end);
	sim_check(stage->world, stage_promote(stage, false) == -EAGAIN);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	sim_check(stage->world, stage->promote.lost.writes == stage->next_seq - 1 - KEPT_SEQ);
	sim_check(stage->world,
		  stage->promote.position_time_ns == stage->segments[KEPT_SEQ].header.last_time_ns);
	expect_promoted(stage);
}

UNIT(test_promoted)
{
	stage_run(promoted);
}

/* The engine was restarted cleanly in between: there was nothing to replay, and the time of the
 * last record is known all the same. */
static void time_is_known(struct stage *stage)
{
	settle(stage);
	stage_stop_engine(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	begin_resync(stage);
	part_of_it(stage, 200);
	sim_check(stage->world, stage_status(stage)->kept_time_ns ==
					stage->segments[KEPT_SEQ].header.last_time_ns);
}

UNIT(test_time_is_known)
{
	stage_run(time_is_known);
}

/* A copy that comes to its end keeps nothing; the next one keeps its own beginning. */
static void ended(struct stage *stage)
{
	settle(stage);
	begin_resync(stage);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		stage_send_extent(stage, v, 0, STAGE_EXTENT_BYTES, 800 + v, false);
	stage_send_end(stage, stage->next_seq - 1);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, !stage_status(stage)->kept);
	sim_check(stage->world, sim_file_size(stage->standby, UNDO_1) == -ENOENT);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 9));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(before[v], stage->content[v], stage->volume_bytes);
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.kept);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq, .sync = true });
	part_of_it(stage, 200);
	sim_check(stage->world, stage_status(stage)->kept_seq == 8);
	sim_check(stage->world, stage_promote(stage, true) == 0 && stage->promote.seq == 8);
	expect_before(stage, "the second copy's beginning");
}

UNIT(test_ended)
{
	stage_run(ended);
}

/* START comes while apply is far behind: what was acknowledged is part of the kept position. */
static void behind(struct stage *stage)
{
	settle(stage);
	sim_fault_add(stage->world, &(struct sim_fault){ .ops = SIM_WRITE,
							 .pattern = "/vol/*",
							 .action = SIM_DELAY,
							 .delay_ns = 400 * SIM_MS,
							 .count = 3 });
	for (unsigned i = 0; i < 5; i++)
		stage_send_segment(stage, stage_write(stage, i % 2, i * 8192, 8192, 60 + i));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	sim_check(stage->world, !stage_all_applied(stage));
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(before[v], stage->content[v], stage->volume_bytes);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq, .sync = true });
	part_of_it(stage, 200);
	sim_check(stage->world, stage_status(stage)->kept_seq == KEPT_SEQ + 5);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	sim_check(stage->world, stage->promote.seq == KEPT_SEQ + 5);
	expect_before(stage, "all that was acknowledged");
}

UNIT(test_behind)
{
	stage_run(behind);
}

/* ---- crashes ----------------------------------------------------------------------------------
 */

static uint64_t crash_at;
static enum sim_crash crash_kind;
static bool was_last;

static void crash_now(void *context)
{
	struct stage *stage = context;

	was_last = stage->promote_done;
	if (!was_last)
		sim_node_crash(stage->standby, crash_kind);
}

static bool down_or_done(void *context)
{
	struct stage *stage = context;

	return stage->promote_done || !sim_node_is_up(stage->standby);
}

/* Promote, with a crash behind event number crash_at of it; then the start that finishes it. */
static void crashed(struct stage *stage)
{
	struct superblock sb;
	int res;

	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	sim_at_event(stage->world, sim_events(stage->world) + crash_at, crash_now, stage);
	stage_begin_promote(stage, true);
	sim_check(stage->world, sim_run_until(stage->world, down_or_done, stage, STAGE_LIMIT));
	was_last = stage->promote_done;
	if (was_last)
		return;
	sim_node_restart(stage->standby);
	stage->group = NULL;
	res = stage_start_engine(stage);
	stage_superblock(stage, &sb);
	sim_check(stage->world,
		  !(sb.flags & SUPERBLOCK_ROLLBACK) && res == (sb.role == GROUP_PRIMARY));
	if (sb.role == GROUP_STANDBY)
		sim_check(stage->world,
			  !(sb.flags & SUPERBLOCK_SYNCING) == !!(sb.flags & SUPERBLOCK_SELF_DIRTY));
	if (sb.flags & SUPERBLOCK_SELF_DIRTY) {
		/* Finished by the start, and not promoted: whole, and the primary is told. */
		expect_before(stage, "rolled back by a start");
		sim_check(stage->world, stage_status(stage)->consistent);
		if (crash_at % 3 == 0) {
			stage_dial_welcome(stage);
			sim_check(stage->world, stage->welcome.diverged && !stage->welcome.syncing);
			sim_check(stage->world, stage->welcome.common_seq == KEPT_SEQ &&
							!stage->welcome.common_chain);
			stage_send_start(stage, &(struct link_start){ .from_seq = KEPT_SEQ + 1 });
			stage_expect_bye(stage, "given up here");
			begin_resync(stage);
			part_of_it(stage, 300);
			stage_superblock(stage, &sb);
			sim_check(stage->world,
				  !(sb.flags & SUPERBLOCK_SELF_DIRTY) && sb.kept.seq == KEPT_SEQ);
		}
	}
	if (sb.role == GROUP_STANDBY)
		sim_check(stage->world, stage_promote(stage, true) == 0);
	else
		sim_check(stage->world, stage_promote(stage, true) == -EALREADY &&
						stage->promote.seq == KEPT_SEQ);
	expect_before(stage, "promoted again");
}

UNIT(test_crashes)
{
	unsigned count = 0;

	for (unsigned kind = 0; kind < 2; kind++) {
		crash_kind = kind ? SIM_POWER : SIM_KILL;
		was_last = false;
		for (crash_at = 1; !was_last; crash_at++, count++)
			stage_run(crashed);
	}
	assert_true(count > 60);
}

/* ---- no room ----------------------------------------------------------------------------------
 */

static bool is_full(void *context)
{
	return stage_status(context)->undo_full;
}

static void send_all(struct stage *stage, uint64_t id)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		for (uint64_t off = 0; off < BIG; off += STAGE_EXTENT_BYTES)
			stage_send_extent(stage, v, off, STAGE_EXTENT_BYTES, id + off + v, false);
}

/* Eight MiB that do not pack, where a log has room for four. */
static void fill_up(struct stage *stage)
{
	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	sim_disk_set_free(stage->standby, 1 << 20);
	send_all(stage, 7001);
	sim_check(stage->world, stage_until(stage, is_full));
	/* Nothing else stops. */
	stage_send_beat(stage, stage->next_seq, stage->bytes, 0);
	sim_run_for(stage->world, 2 * SIM_SECOND);
	sim_check(stage->world, !stage_is_over(stage) && stage_status(stage)->undo_full);
}

static void room_again(struct stage *stage)
{
	fill_up(stage);
	sim_disk_set_free(stage->standby, 64 << 20);
	sim_run_for(stage->world, 3 * SIM_SECOND);
	sim_check(stage->world, !stage_status(stage)->undo_full);
	stage_check_volumes(stage, "room again");
	sim_check(stage->world, stage_promote(stage, true) == 0);
	expect_promoted(stage);
}

static void promoted_full(struct stage *stage)
{
	fill_up(stage);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	expect_promoted(stage);
}

static struct {
	struct engine_task task;
	bool done;
} drop;

static void dropped(struct engine_task *task)
{
	(void)task;
	drop.done = true;
}

static bool is_dropped(void *context)
{
	(void)context;
	return drop.done;
}

static int drop_kept(struct stage *stage, uint64_t epoch)
{
	memset(&drop, 0, sizeof(drop));
	drop.task = (struct engine_task){ .kind = ENGINE_DROP_KEPT,
					  .has_expect_epoch = true,
					  .expect_epoch = epoch,
					  .done = dropped };
	engine_group_task(stage->group, &drop.task);
	sim_check(stage->world, sim_run_until(stage->world, is_dropped, NULL, STAGE_LIMIT));
	return drop.task.res;
}

static void given_up(struct stage *stage)
{
	struct superblock sb;

	fill_up(stage);
	sim_check(stage->world, drop_kept(stage, 7) == -ESTALE);
	sim_check(stage->world, drop_kept(stage, 1) == 0);
	sim_run_for(stage->world, 500 * SIM_MS);
	stage_check_volumes(stage, "without undo");
	stage_superblock(stage, &sb);
	sim_check(stage->world, !sb.kept.undo_id && (sb.flags & SUPERBLOCK_SYNCING) &&
					!(sb.flags & SUPERBLOCK_EVER_CONSISTENT));
	sim_check(stage->world, sim_file_size(stage->standby, UNDO_1) == -ENOENT);
	sim_check(stage->world, drop_kept(stage, 1) == -EALREADY);
	sim_check(stage->world, stage_promote(stage, true) == -EUCLEAN);
	send_all(stage, 3001);
	stage_send_end(stage, stage->next_seq - 1);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	stage_check_volumes(stage, "copied");
}

static bool is_failed(void *context)
{
	return !strcmp(stage_status(context)->state, "failed");
}

/* A chunk that cannot be read cannot be saved: told, tried again, and given up by the operator. */
static void unreadable(struct stage *stage)
{
	settle(stage);
	begin_resync(stage);
	sim_fault_add(stage->world, &(struct sim_fault){ .ops = SIM_READ,
							 .pattern = "/vol/v0",
							 .action = SIM_ERROR,
							 .error = -EIO });
	stage_send_extent(stage, 0, 0, 4096, 200, false);
	sim_check(stage->world, stage_until(stage, is_failed));
	sim_check(stage->world, strstr(stage->status.detail, "cannot be read at 0") != NULL);
	sim_check(stage->world, strstr(stage->status.detail, "--drop-kept") != NULL);
	sim_check(stage->world, drop_kept(stage, 1) == 0);
	sim_check(stage->world, !stage_status(stage)->kept);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq, .sync = true });
	stage_send_extent(stage, 0, 0, STAGE_EXTENT_BYTES, 200, false);
	stage_send_extent(stage, 1, 0, STAGE_EXTENT_BYTES, 201, false);
	stage_send_end(stage, stage->next_seq - 1);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	stage_check_volumes(stage, "copied");
}

UNIT(test_no_room)
{
	stage_run(unreadable);
	stage_run_sized(room_again, 1, BIG, 0, 0);
	stage_run_sized(promoted_full, 1, BIG, 0, 0);
	stage_run_sized(given_up, 1, BIG, 0, 0);
}

/* ---- damage -----------------------------------------------------------------------------------
 */

/* Found at the start: told, and the copy goes on. */
static void damaged_at_start(struct stage *stage)
{
	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	stage_stop_engine(stage);
	sim_file_flip(stage->standby, UNDO_1, 100);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world,
		  !stage_status(stage)->kept && !stage_status(stage)->ever_consistent);
	sim_check(stage->world, strstr(stage->status.detail, "given up") != NULL);
	sim_check(stage->world, sim_file_size(stage->standby, UNDO_1) == -ENOENT);
	sim_check(stage->world, stage_promote(stage, true) == -EUCLEAN);
	stage_check_volumes(stage, "the copy so far");
}

/* Found by the promote: refused, nothing was written back, and the copy goes on. */
static void damaged_at_promote(struct stage *stage)
{
	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	sim_file_flip(stage->standby, UNDO_1, (4096 + 100) * 8);
	sim_check(stage->world, stage_promote(stage, true) == -EUCLEAN);
	sim_check(stage->world, strstr(stage->promote.text, "damaged") != NULL);
	stage->starts = 0;
	sim_run_for(stage->world, 3 * SIM_SECOND);
	sim_check(stage->world,
		  !stage_status(stage)->kept && !stage_status(stage)->ever_consistent);
	stage_check_volumes(stage, "the copy so far");
	stage_dial_welcome(stage);
	sim_check(stage->world,
		  stage->welcome.syncing && !stage->welcome.kept && !stage->welcome.empty);
}

static bool is_rolling(void *context)
{
	struct superblock sb;

	stage_superblock(context, &sb);
	return sb.flags & SUPERBLOCK_ROLLBACK;
}

static uint64_t damaged_byte;

/* Found when part of it may be written back already: the copy begins from nothing. */
static void damaged_on_the_way(struct stage *stage)
{
	struct superblock sb;

	settle(stage);
	begin_resync(stage);
	part_of_it(stage, 200);
	stage_begin_promote(stage, true);
	sim_check(stage->world, stage_until(stage, is_rolling));
	stage_crash(stage, SIM_POWER);
	sim_file_flip(stage->standby, UNDO_1, damaged_byte * 8);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.flags == SUPERBLOCK_SYNCING && !sb.applied_seq &&
					!sb.durable_seq && !sb.kept.undo_id);
	sim_check(stage->world, strstr(stage_status(stage)->detail, "given up") != NULL);
	sim_check(stage->world, stage_promote(stage, true) == -EUCLEAN);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty && stage->welcome.durable.seq == 0);
	/* As a new standby. */
	stage_first_copy(stage, 5000);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	stage_check_volumes(stage, "copied anew");
}

UNIT(test_damage)
{
	stage_run(damaged_at_start);
	stage_run(damaged_at_promote);
	damaged_byte = 100; /* a header: the open sees it */
	stage_run(damaged_on_the_way);
	damaged_byte = 4096 + 100; /* the check does */
	stage_run(damaged_on_the_way);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_promoted), cmocka_unit_test(test_time_is_known),
		cmocka_unit_test(test_ended),	 cmocka_unit_test(test_behind),
		cmocka_unit_test(test_crashes),	 cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
