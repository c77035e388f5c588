/* SPDX-License-Identifier: Apache-2.0 */
/* Questions whether ranges are the same here: their place, their answers, what an answer promises.
 */
#include "tests/unit/engine/stage.h"

static void settle(struct stage *stage)
{
	if (!stage_until(stage, stage_all_answered))
		sim_fail(stage->world, "%lu of %lu answers: \"%s\"", (unsigned long)stage->answered,
			 (unsigned long)stage->asked, stage->bye.text);
}

/* A bit that was flipped behind the standby's back is found, where it is, and nothing else is. */
static void flipped(struct stage *stage)
{
	uint8_t byte;

	stage_fill(stage);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		for (uint64_t off = 0; off < STAGE_VOLUME_BYTES; off += 4096)
			stage_send_hash(stage, v, off, 4096);
	settle(stage);
	sim_check(stage->world, stage->asked == 32 && stage->differing == 0);
	byte = stage->content[1][20000] ^ 1;
	sim_file_poke(stage->standby, "/vol/v1", 20000, &byte, 1);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		for (uint64_t off = 0; off < STAGE_VOLUME_BYTES; off += 4096)
			stage_send_hash(stage, v, off, 4096);
	settle(stage);
	sim_check(stage->world, stage->differing == 1 && stage->differs[32 + 16 + 20000 / 4096]);
	stage_send_hash(stage, 1, 0, STAGE_VOLUME_BYTES);
	stage_send_hash(stage, 0, 0, STAGE_VOLUME_BYTES);
	settle(stage);
	sim_check(stage->world, stage->differs[64] && !stage->differs[65]);
}

UNIT(test_flipped_bit)
{
	stage_run(flipped);
}

/* Writes all over what is compared: each question is answered for its own position. */
static void beside_writes(struct stage *stage)
{
	uint64_t state = 7;

	stage_fill(stage);
	for (unsigned i = 0; i < 240; i++) {
		unsigned volume = i % 2;
		uint64_t off, len;

		state = state * 6364136223846793005ull + 1442695040888963407ull;
		off = (state >> 33) % (STAGE_VOLUME_BYTES / 512 - 32) * 512;
		len = ((state >> 50) % 32 + 1) * 512;
		if (i % 3 != 1)
			stage_send_hash(stage, volume, off, (uint32_t)len);
		stage_send_segment(stage, stage_write(stage, volume, off, (uint32_t)len,
						      i % 7 ? 5000 + i : 0));
		stage_send_hash(stage, volume, off, (uint32_t)len);
		if (i % 5 == 0)
			stage_send_hash(stage, 1 - volume, 0, STAGE_VOLUME_BYTES);
		if (i % 16 == 15)
			sim_check(stage->world, stage_until(stage, stage_all_durable));
	}
	settle(stage);
	sim_check(stage->world, stage->asked > 400 && stage->differing == 0);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "beside writes");
}

UNIT(test_no_false_difference_beside_writes)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		stage_run_sized(beside_writes, seed, 0, 0, 0);
}

/* Beside a copy: between the extents that came before and those that come behind. */
static void beside_extents(struct stage *stage)
{
	stage_fill(stage);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	for (unsigned i = 0; i < 20; i++) {
		stage_send_extent(stage, i % 2, 4096, 8192, 100 + i, i % 3 == 0);
		stage_send_hash(stage, i % 2, 0, 16384);
		stage_send_zero(stage, i % 2, 8192, 4096);
		stage_send_hash(stage, i % 2, 0, 16384);
	}
	settle(stage);
	sim_check(stage->world, stage->asked == 40 && stage->differing == 0);
	stage_send_end(stage, 0);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	/* Questions are not counted as extents. */
	sim_check(stage->world, stage->sync_acked == 41);
	stage_check_volumes(stage, "beside extents");
}

UNIT(test_beside_extents)
{
	stage_run(beside_extents);
}

/* Y4: an extent that nobody acknowledged, compared in the next session, lost with the power. */
static void lost_behind_same(struct stage *stage)
{
	stage_fill(stage);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_extent(stage, 0, 0, 32768, 77, false);
	sim_run_for(stage->world, 30 * SIM_MS); /* applied, not flushed */
	sim_check(stage->world, stage->sync_acked == 0);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_hash(stage, 0, 0, 32768);
	settle(stage);
	sim_check(stage->world, stage->differing == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_check_volumes(stage, "behind an answer");
}

UNIT(test_same_is_durable)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		stage_run_sized(lost_behind_same, seed, 0, 0, 0);
}

/* What a former process wrote may be in a cache only, too. */
static void lost_behind_a_kill(struct stage *stage)
{
	stage_fill(stage);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_extent(stage, 0, 0, 32768, 77, false);
	sim_run_for(stage->world, 30 * SIM_MS); /* applied, not flushed */
	sim_check(stage->world, stage->sync_acked == 0);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_hash(stage, 0, 0, 32768);
	settle(stage);
	sim_check(stage->world, stage->differing == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_check_volumes(stage, "behind an answer of the next process");
}

UNIT(test_same_is_durable_behind_a_kill)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		stage_run_sized(lost_behind_a_kill, seed, 0, 0, 0);
}

static bool has_failed(void *context)
{
	return !strcmp(stage_status(context)->state, "failed");
}

static bool is_back(void *context)
{
	return !has_failed(context);
}

/* A flush that failed: what is read since may be what a cache shows. Nothing is taken for equal
 * until the copy is done, also not by the next process. */
static void behind_a_failed_flush(struct stage *stage)
{
	struct superblock sb;

	stage_fill(stage);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	sim_fault_add(stage->world, &(struct sim_fault){ .node = stage->standby,
							 .pattern = "/vol/v0",
							 .ops = SIM_FLUSH,
							 .action = SIM_ERROR,
							 .error = -EIO,
							 .count = 1 });
	stage_send_extent(stage, 0, 0, 32768, 77, false);
	sim_check(stage->world, stage_until(stage, has_failed));
	sim_check(stage->world, stage_until(stage, is_back));
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.flags & SUPERBLOCK_DISTRUST);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_hash(stage, 0, 0, 32768);
	stage_send_hash(stage, 1, 0, 4096);
	settle(stage);
	sim_check(stage->world, stage->differing == 2);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true });
	stage_send_hash(stage, 0, 0, 32768);
	settle(stage);
	sim_check(stage->world, stage->differing == 1);
	stage_send_extent(stage, 0, 0, 32768, 77, false);
	stage_send_end(stage, 0);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 50 * SIM_MS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, !(sb.flags & SUPERBLOCK_DISTRUST));
	stage_send_hash(stage, 0, 0, 32768);
	settle(stage);
	sim_check(stage->world, stage->differing == 1);
	stage_check_volumes(stage, "behind a failed flush");
}

UNIT(test_nothing_is_the_same_behind_a_failed_flush)
{
	stage_run(behind_a_failed_flush);
}

/* A verification beside the stream makes the standby flush no more than it does anyway. */
static void no_flush(struct stage *stage)
{
	struct sim_fault held = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_FLUSH,
				  .action = SIM_DELAY,
				  .delay_ns = 20 * SIM_SECOND };

	stage_fill(stage);
	sim_fault_add(stage->world, &held);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 5));
	stage_send_hash(stage, 0, 0, 8192);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->answered == 1 && stage->differing == 0);
	sim_fault_clear(stage->world);
}

UNIT(test_whole_copy_answers_at_once)
{
	stage_run(no_flush);
}

/* What cannot be read is not the same; and it does not end anything. */
static void unreadable(struct stage *stage)
{
	stage_fill(stage);
	sim_fault_add(stage->world, &(struct sim_fault){ .node = stage->standby,
							 .pattern = "/vol/v0",
							 .ops = SIM_READ,
							 .action = SIM_ERROR,
							 .error = -EIO,
							 .count = 1 });
	stage_send_hash(stage, 0, 0, 4096);
	stage_send_hash(stage, 1, 0, 4096);
	settle(stage);
	sim_check(stage->world, stage->differs[0] && !stage->differs[1]);
	stage_send_hash(stage, 0, 0, 4096);
	settle(stage);
	sim_check(stage->world, !stage->differs[2] && !stage_is_over(stage));
}

UNIT(test_unreadable)
{
	stage_run(unreadable);
}

/* Questions of a session that is over are nobody's. */
static void next_session(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_READ,
				  .action = SIM_DELAY,
				  .delay_ns = 100 * SIM_MS,
				  .count = 4 };

	stage_fill(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 12; i++)
		stage_send_hash(stage, i % 2, i * 4096, 4096);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage->answered == 0);
	stage_resume(stage);
	memset(stage->content[0], 1, 4096); /* a question with another answer */
	stage_send_hash(stage, 0, 0, 4096);
	stage_send_hash(stage, 1, 0, 4096);
	settle(stage);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage->answered == 2 && stage->differs[0] && !stage->differs[1]);
}

UNIT(test_next_session)
{
	stage_run(next_session);
}

static void bounded(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_READ,
				  .action = SIM_DELAY,
				  .delay_ns = SIM_SECOND };

	stage_fill(stage);
	stage_send_hash(stage, 0, STAGE_VOLUME_BYTES - 512, 1024);
	stage_expect_bye(stage, "outside the volumes");
	stage_resume(stage);
	stage_send_hash(stage, 7, 0, 512);
	stage_expect_bye(stage, "a range to compare (volume 7");
	stage_resume(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 257; i++)
		stage_send_hash(stage, 0, 0, 512);
	stage_expect_bye(stage, "more than 256 ranges");
	sim_fault_clear(stage->world);
	stage_resume(stage);
	for (unsigned i = 0; i < 256; i++)
		stage_send_hash(stage, 0, i % 64 * 512, 512);
	settle(stage);
	sim_check(stage->world, stage->differing == 0);
	stage_check_volumes(stage, "only looked at");
}

UNIT(test_bounded)
{
	stage_run(bounded);
}

static void send_verified(struct stage *stage, uint64_t seq, uint64_t time_ns, uint64_t ranges)
{
	struct frame frame = {
		.type = FRAME_VERIFIED, .seq = seq, .arg1 = time_ns, .arg2 = ranges
	};

	stage_send(stage, &frame, NULL);
}

static void verified(struct stage *stage)
{
	struct superblock sb;

	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 5));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	send_verified(stage, 1, 1234, 2); /* not equal */
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->verified_seq == 0);
	sim_check(stage->world, stage->status.differing_ranges == 2);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, stage_status(stage)->differing_ranges == 2);
	stage_resume(stage);
	sim_run_for(stage->world, 50 * SIM_MS);
	send_verified(stage, 1, 1234, 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->differing_ranges == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.verified_seq == 1 && sb.verified_time_ns == 1234);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, stage_status(stage)->verified_seq == 1);
	sim_check(stage->world, stage->status.verified_time_ns == 1234);
	stage_resume(stage);
	sim_run_for(stage->world, 50 * SIM_MS);
	send_verified(stage, 2, 1234, 0);
	stage_expect_bye(stage, "has not sent");
}

UNIT(test_verified)
{
	stage_run(verified);
}

/* Whether comparing can pay is told before the first copy. */
static void seeded(struct stage *stage)
{
	static const uint8_t zeroes[STAGE_VOLUME_BYTES];
	uint8_t byte = 1;

	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty && stage->welcome.seeded);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		sim_file_poke(stage->standby, v ? "/vol/v1" : "/vol/v0", 0, zeroes, sizeof(zeroes));
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty && !stage->welcome.seeded);
	sim_file_poke(stage->standby, "/vol/v1", 511, &byte, 1);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.empty && stage->welcome.seeded);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		sim_file_peek(stage->standby, v ? "/vol/v1" : "/vol/v0", 0, stage->content[v],
			      STAGE_VOLUME_BYTES);
	stage_fill(stage);
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		sim_file_poke(stage->standby, v ? "/vol/v1" : "/vol/v0", 0, zeroes, sizeof(zeroes));
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.empty && stage->welcome.seeded);
}

UNIT(test_seeded)
{
	stage_run(seeded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flipped_bit),
		cmocka_unit_test(test_no_false_difference_beside_writes),
		cmocka_unit_test(test_beside_extents),
		cmocka_unit_test(test_same_is_durable),
		cmocka_unit_test(test_same_is_durable_behind_a_kill),
		cmocka_unit_test(test_nothing_is_the_same_behind_a_failed_flush),
		cmocka_unit_test(test_whole_copy_answers_at_once),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_next_session),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_verified),
		cmocka_unit_test(test_seeded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
