/* SPDX-License-Identifier: Apache-2.0 */
/* Copied extents: their place between segments, acknowledgements, the end of a copy. */
#include "tests/unit/engine/stage.h"

/* An extent is behind every segment sent before it and before every one sent after it. */
static void order(struct stage *stage)
{
	uint32_t kib = 1024;

	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1,
						      .sync = true,
						      .reset = true,
						      .base = { .chain = stage->chain },
						      .sync_bytes = 4096 });
	for (unsigned i = 0; i < 60; i++) {
		unsigned volume = i % 2;

		/* Everything overlaps: only the right order gives the right content. */
		stage_send_segment(stage, stage_write(stage, volume, i % 7 * kib, 8 * kib, 10 + i));
		if (i % 5 == 4)
			stage_send_zero(stage, volume, (i % 3 + 1) * kib, 3 * kib);
		if (i % 3)
			stage_send_extent(stage, volume, (i % 5 + 2) * kib, 4 * kib, 500 + i,
					  i % 3 == 1);
		if (i % 11 == 10)
			stage_send_segment(stage,
					   stage_write(stage, 1 - volume, 2 * kib, 4 * kib, 0));
		if (i % 16 == 15)
			sim_check(stage->world, stage_until(stage, stage_all_durable));
	}
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 40 + 12);
	stage_check_volumes(stage, "mixed");
	sim_check(stage->world, !strcmp(stage_status(stage)->state, "syncing"));
	sim_check(stage->world, stage_status(stage)->sync.active);
}

UNIT(test_order)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		stage_run_sized(order, seed, 0, 0, 0);
}

/* Consistent only behind the highest stamp, though the end of the copy came before. */
static void end_waits(struct stage *stage)
{
	struct superblock sb;
	unsigned first, second;

	first = stage_write(stage, 0, 0, 4096, 11);
	second = stage_write(stage, 0, 4096, 4096, 12);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){
					.from_seq = 1,
					.sync = true,
					.reset = true,
					.base = { .chain = stage->segments[1].header.chain } });
	stage_send_segment(stage, first);
	stage_send_zero(stage, 0, 8192, STAGE_VOLUME_BYTES - 8192);
	stage_send_zero(stage, 1, 0, STAGE_VOLUME_BYTES);
	stage_send_end(stage, 2);
	sim_run_for(stage->world, 500 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 2);
	sim_check(stage->world, stage_status(stage)->syncing && !stage_status(stage)->consistent);
	sim_check(stage->world, stage_promote(stage, true) == -EUCLEAN);
	stage_send_segment(stage, second);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 3);
	stage_superblock(stage, &sb);
	sim_check(stage->world,
		  !(sb.flags & SUPERBLOCK_SYNCING) && (sb.flags & SUPERBLOCK_EVER_CONSISTENT));
	sim_check(stage->world, sb.applied_seq == 2);
	stage_check_volumes(stage, "copied");
	/* The copy is over. */
	stage_send_zero(stage, 0, 0, 4096);
	stage_expect_bye(stage, "without having said so");
}

UNIT(test_end_waits_for_the_highest_stamp)
{
	stage_run(end_waits);
}

/* A copy that is cut is never taken for whole, whatever the earlier one had left. */
static void cut(struct stage *stage)
{
	stage_first_copy(stage, 50);
	/* Cut before the end can have been reached. */
	sim_run_for(stage->world, SIM_MS / 2);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing || stage->welcome.empty);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1,
						      .sync = true,
						      .reset = true,
						      .base = { .chain = stage->chain } });
	stage_send_extent(stage, 0, 0, 4096, 51, false);
	sim_run_for(stage->world, 500 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 1);
	sim_check(stage->world, !stage_status(stage)->consistent);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_extent(stage, 1, 0, 4096, 52, false);
	stage_send_extent(stage, 0, 0, STAGE_VOLUME_BYTES, 53, true);
	stage_send_extent(stage, 1, 0, STAGE_VOLUME_BYTES, 54, false);
	stage_send_end(stage, 0);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 4);
	stage_check_volumes(stage, "third attempt");
	sim_check(stage->world, !stage_is_over(stage));
}

UNIT(test_cut_copies)
{
	stage_run(cut);
}

/* The end of a copy that was cut is still on its way to the volumes when the next copy begins. */
static void late_end(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = 300 * SIM_MS,
				  .count = 2 };

	sim_fault_add(stage->world, &slow);
	stage_first_copy(stage, 50);
	sim_run_for(stage->world, 30 * SIM_MS);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_extent(stage, 0, 0, 4096, 51, false);
	for (unsigned i = 0; i < 4; i++) {
		stage_send_beat(stage, 0, 0, 0);
		sim_run_for(stage->world, SIM_SECOND);
	}
	sim_check(stage->world, stage->sync_acked == 1 && !stage_is_over(stage));
	sim_check(stage->world, !stage_status(stage)->consistent);
	stage_check_volumes(stage, "both copies");
	stage_send_end(stage, 0);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 2);
}

UNIT(test_late_end)
{
	stage_run(late_end);
}

/* A resync begins on a consistent standby: not consistent until it is over. */
static void resync(struct stage *stage)
{
	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 2, .sync = true });
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, !stage_status(stage)->consistent);
	sim_check(stage->world, stage_status(stage)->ever_consistent);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !stage_status(stage)->consistent);
	sim_check(stage->world, stage_status(stage)->kept && stage_status(stage)->kept_seq == 1);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing && stage->welcome.durable.seq == 1);
	sim_check(stage->world, stage->welcome.kept && stage->welcome.kept_seq == 1);
	stage_send_start(stage, &(struct link_start){ .from_seq = 2, .sync = true });
	stage_send_end(stage, 1);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_check(stage->world, !stage_status(stage)->kept);
	stage_check_volumes(stage, "resync");
}

UNIT(test_resync)
{
	stage_run(resync);
}

static void send_range(struct stage *stage, enum frame_type type, unsigned volume, uint64_t off,
		       uint32_t units)
{
	struct frame frame = { .type = (uint16_t)type,
			       .arg1 = off,
			       .arg2 = frame_range_arg((uint16_t)volume, units),
			       .body_bytes = type == FRAME_SYNC_DATA ? units : 0 };

	stage_send(stage, &frame, stage->body_buf);
}

static void begin_copy(struct stage *stage)
{
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1,
						      .sync = true,
						      .reset = true,
						      .base = { .chain = stage->chain } });
}

static void bad_extents(struct stage *stage)
{
	static const struct {
		enum frame_type type;
		unsigned volume;
		uint64_t off;
		uint32_t units;
	} bad[] = {
		{ FRAME_SYNC_DATA, 2, 0, 4096 },
		{ FRAME_SYNC_DATA, 0, STAGE_VOLUME_BYTES, 4096 },
		{ FRAME_SYNC_DATA, 1, STAGE_VOLUME_BYTES - 512, 1024 },
		{ FRAME_SYNC_DATA, 0, 100, 4096 },
		{ FRAME_SYNC_DATA, 0, 0, 100 },
		{ FRAME_SYNC_ZERO, 9, 0, 1 },
		{ FRAME_SYNC_ZERO, 0, STAGE_VOLUME_BYTES - 512, 2 },
		{ FRAME_SYNC_ZERO, 0, 0, UINT32_MAX },
		{ FRAME_SYNC_ZERO, 0, 1, 1 },
	};
	struct frame lz4 = { .type = FRAME_SYNC_DATA,
			     .flags = FRAME_LZ4,
			     .arg2 = frame_range_arg(0, 8192) };

	for (unsigned i = 0; i < array_len(bad); i++) {
		begin_copy(stage);
		send_range(stage, bad[i].type, bad[i].volume, bad[i].off, bad[i].units);
		stage_expect_bye(stage, "outside the volumes");
	}
	begin_copy(stage);
	memset(stage->body_buf, 0xff, 200); /* unpacks to something else */
	lz4.body_bytes = 200;
	stage_send(stage, &lz4, stage->body_buf);
	stage_expect_bye(stage, "damaged");
	sim_check(stage->world, stage_status(stage)->rejected_corrupt == 1);
	stage_check_volumes(stage, "nothing was written");
	begin_copy(stage);
	stage_send_extent(stage, 0, 0, 4096, 3, true);
	sim_run_for(stage->world, 300 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 1);
	stage_check_volumes(stage, "a good one");
}

UNIT(test_bad_extents)
{
	stage_run(bad_extents);
}

/* More than fits: data waits on the wire, what needs no memory is bounded. */
static void many(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_WRITE | SIM_DISCARD,
				  .action = SIM_DELAY,
				  .delay_ns = 100 * SIM_MS };

	sim_fault_add(stage->world, &slow);
	begin_copy(stage);
	for (unsigned i = 0; i < 64; i++)
		stage_send_extent(stage, i % 2, i % 16 * 4096, 4096, 70 + i, i % 3 == 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 0 && !stage_is_over(stage));
	for (unsigned i = 0; i < 10; i++) {
		stage_send_beat(stage, 0, 0, 0);
		sim_run_for(stage->world, SIM_SECOND);
	}
	sim_check(stage->world, stage->sync_acked == 64 && !stage_is_over(stage));
	stage_check_volumes(stage, "slowly");
	for (unsigned i = 0; i < 2000; i++)
		send_range(stage, FRAME_SYNC_ZERO, 0, 0, 1);
	stage_expect_bye(stage, "not acknowledged");
}

UNIT(test_many_extents)
{
	stage_run(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_end_waits_for_the_highest_stamp),
		cmocka_unit_test(test_cut_copies),
		cmocka_unit_test(test_late_end),
		cmocka_unit_test(test_resync),
		cmocka_unit_test(test_bad_extents),
		cmocka_unit_test(test_many_extents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
