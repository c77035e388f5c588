/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting, segments, and what a primary may not do. */
#include "tests/unit/engine/stage.h"

/* ---- the ordinary -----------------------------------------------------------------------------
 */

static void ordinary(struct stage *stage)
{
	stage_fill(stage);
	for (unsigned i = 0; i < 40; i++) {
		stage_send_segment(stage,
				   stage_write(stage, i % 2, (i * 3 % 14) * 4096, 8192, 100 + i));
		if (i == 20)
			stage_send_segment(stage, stage_write(stage, 0, 4096, 4096, 0));
		if (i % 8 == 7)
			sim_check(stage->world, stage_until(stage, stage_all_durable));
	}
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "stream");
	/* What is acknowledged survives a power loss, and the stream goes on behind it. */
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_resume(stage);
	sim_check(stage->world, stage->welcome.durable.seq == stage->next_seq - 1);
	sim_check(stage->world, stage->welcome.durable.chain == stage->chain);
	sim_check(stage->world, stage->welcome.durable.bytes == stage->bytes);
	sim_check(stage->world, !stage->welcome.empty && !stage->welcome.syncing);
	stage_send_segment(stage, stage_write(stage, 1, 512, 1024, 900));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "after a crash");
	sim_check(stage->world, stage_status(stage)->rejected_corrupt == 0);
}

UNIT(test_ordinary)
{
	stage_run(ordinary);
}

static void many_slots(struct stage *stage)
{
	stage_fill(stage);
	/* Several laps of the journal. */
	for (unsigned i = 0; i < 120; i++) {
		stage_send_segment(stage, stage_write(stage, 0, i % 4 * 8192, 24576, 101 + 2 * i));
		if (i % 4 == 3)
			sim_check(stage->world, stage_until(stage, stage_all_durable));
	}
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "laps");
}

UNIT(test_laps_of_the_journal)
{
	stage_run(many_slots);
}

/* Volumes so slow that memory and journal fill: receiving stops and goes on, nothing is lost. */
static void slow_volumes(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = 300 * SIM_MS };

	stage_fill(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 20; i++)
		stage_send_segment(
			stage, stage_write(stage, i % 2, i % 5 * 65536, 900 << 10, 201 + 2 * i));
	sim_run_for(stage->world, 200 * SIM_MS);
	sim_check(stage->world, !stage_all_durable(stage) && !stage_is_over(stage));
	sim_check(stage->world, stage_status(stage)->write_set_bytes > 2u << 20);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "slow volumes");
	sim_check(stage->world, stage->acks > 4);
}

UNIT(test_back_pressure)
{
	/* 4 files of 2 MiB. */
	stage_run_sized(slow_volumes, 1, 1280u << 10, 2u << 20, 4);
}

/* The journal holds more than memory: apply reads it back. */
static void read_back(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = 400 * SIM_MS,
				  .count = 40 };

	stage_fill(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 16; i++)
		stage_send_segment(stage,
				   stage_write(stage, i % 2, i % 5 * 65536, 900 << 10, 200 + i));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	sim_check(stage->world, stage->ack.arg1 < stage->acked);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "read back");
}

UNIT(test_apply_reads_back)
{
	stage_run_sized(read_back, 1, 1280u << 10, 4u << 20, 8);
}

/* ---- resuming ---------------------------------------------------------------------------------
 */

static void duplicates_and_gaps(struct stage *stage)
{
	unsigned first, second, third;

	stage_fill(stage);
	first = stage_write(stage, 0, 0, 4096, 11);
	second = stage_write(stage, 0, 4096, 4096, 12);
	third = stage_write(stage, 0, 0, 8192, 13);
	stage_send_segment(stage, first);
	stage_send_segment(stage, first);
	stage_send_segment(stage, second);
	stage_send_segment(stage, first);
	stage_send_segment(stage, second);
	stage_send_segment(stage, third);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_check(stage->world, stage_status(stage)->received_segments == 3);
	stage_check_volumes(stage, "duplicates");
	first = stage_write(stage, 1, 0, 4096, 14);
	second = stage_write(stage, 1, 0, 4096, 15);
	stage_send_segment(stage, second);
	stage_expect_bye(stage, "does not continue");
	stage_resume(stage);
	sim_check(stage->world, stage->welcome.durable.seq == 3);
	stage_send_segment(stage, first);
	stage_send_segment(stage, second);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "after a gap");
}

UNIT(test_duplicates_and_gaps)
{
	stage_run(duplicates_and_gaps);
}

static void wrong_start(struct stage *stage)
{
	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 11));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	for (uint64_t from = 1; from <= 3; from += 2) {
		stage_dial_welcome(stage);
		stage_send_start(stage, &(struct link_start){ .from_seq = from });
		stage_expect_bye(stage, "does not continue");
	}
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 1, .sync = true, .reset = true });
	stage_expect_bye(stage, "go back");
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 10,
						      .reset = true,
						      .base = { .epoch = 1, .seq = 9 } });
	stage_expect_bye(stage, "begin with a copy");
	stage_dial_welcome(stage);
	stage_send_start(stage,
			 &(struct link_start){ .from_seq = UINT64_MAX - 1,
					       .sync = true,
					       .reset = true,
					       .base = { .epoch = 1, .seq = UINT64_MAX - 2 } });
	stage_expect_bye(stage, "cannot be");
	stage_resume(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 2 });
	stage_expect_bye(stage, "START");
	stage_dial_welcome(stage);
	stage_send_segment(stage, 1);
	stage_expect_bye(stage, "before START");
	stage_dial_welcome(stage);
	stage_send_end(stage, 1);
	stage_expect_bye(stage, "where none belongs");
	sim_check(stage->world, stage_is_consistent(stage));
}

UNIT(test_wrong_start)
{
	stage_run(wrong_start);
}

/* A START behind the journal's end begins anew there, and is not consistent until copied. */
static void reset_forward(struct stage *stage)
{
	struct superblock sb;

	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 11));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_write(stage, 0, 4096, 4096, 12); /* never sent */
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 3,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = 1,
								.seq = 2,
								.chain = stage->chain,
								.bytes = stage->bytes } });
	stage_send_segment(stage, stage_write(stage, 1, 0, 4096, 13));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	sim_check(stage->world, !stage_status(stage)->consistent);
	sim_check(stage->world, stage_status(stage)->kept && stage_status(stage)->kept_seq == 1);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world,
		  (sb.flags & SUPERBLOCK_SYNCING) && (sb.flags & SUPERBLOCK_EVER_CONSISTENT));
	/* What it held before stays, until the copy is whole. */
	sim_check(stage->world, sb.kept.undo_id && sb.kept.seq == 1);
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.syncing && stage->welcome.durable.seq == 3);
	stage_send_start(stage, &(struct link_start){ .from_seq = 4 });
	stage_expect_bye(stage, "begin with a copy");
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = 4, .sync = true });
	stage_send_extent(stage, 0, 0, 8192, 14, true);
	stage_send_end(stage, 3);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_run_for(stage->world, 20 * SIM_MS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, !sb.kept.undo_id && !stage_status(stage)->kept);
	stage_check_volumes(stage, "reset");
}

UNIT(test_reset_forward)
{
	stage_run(reset_forward);
}

/* The same while apply is far behind: what was not applied is not needed any more. */
static void reset_behind(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = 50 * SIM_MS };
	struct sim_fault slow_store = { .node = stage->standby,
					.pattern = STAGE_DIR "/*",
					.ops = SIM_WRITE,
					.action = SIM_DELAY,
					.delay_ns = 30 * SIM_MS };

	stage_fill(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 30; i++) {
		stage_send_segment(stage, stage_write(stage, i % 2, i % 15 * 4096, 4096, 20 + i));
		sim_run_for(stage->world, SIM_MS);
	}
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	sim_fault_add(stage->world, &slow_store);
	stage_write(stage, 0, 4096, 4096, 12); /* never sent */
	stage_dial_welcome(stage);
	sim_check(stage->world, stage->welcome.applied_seq < 30);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = 1,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes } });
	stage_send_segment(stage, stage_write(stage, 1, 0, 4096, 13));
	stage_send_extent(stage, 0, 0, STAGE_VOLUME_BYTES, 14, true);
	stage_send_segment(stage, stage_write(stage, 0, 512, 4096, 15));
	stage_send_extent(stage, 1, 0, STAGE_VOLUME_BYTES, 16, false);
	stage_send_segment(stage, stage_write(stage, 1, 8192, 4096, 17));
	stage_send_end(stage, stage->next_seq - 1);
	sim_check(stage->world, stage_until(stage, stage_is_consistent));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "reset behind");
	sim_run_for(stage->world, 200 * SIM_MS);
	sim_check(stage->world, stage->sync_acked == 3);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, stage_is_consistent(stage));
	sim_check(stage->world, stage_promote(stage, true) == 0);
	stage_check_volumes(stage, "promoted");
}

UNIT(test_reset_while_apply_is_behind)
{
	for (uint64_t seed = 1; seed < 6; seed++)
		stage_run_sized(reset_behind, seed, 0, 0, 0);
}

/* ---- damage -----------------------------------------------------------------------------------
 */

static void damage(struct stage *stage)
{
	unsigned number;

	stage_fill(stage);
	for (unsigned i = 0; i < 6; i++) {
		/* Raw and LZ4; in the magic, the header, the table, the data, the padding. */
		static const unsigned at[] = { 0, 40, 140, 4200 };
		struct stage_segment *segment;

		number = stage_write(stage, 0, i * 4096, 8192, 20 + i);
		segment = &stage->segments[number];
		for (unsigned k = 0; k < array_len(at); k++) {
			unsigned off = min_u32(at[k], segment->header.total_bytes - 1);
			uint64_t before = stage_status(stage)->rejected_corrupt;

			segment->bytes[off] ^= 0x10;
			stage_send_segment(stage, number);
			stage_expect_bye(stage, "damaged");
			segment->bytes[off] ^= 0x10;
			sim_check(stage->world,
				  stage_status(stage)->rejected_corrupt == before + 1);
			stage_resume(stage);
			sim_check(stage->world, stage->welcome.durable.seq == i);
		}
		stage_send_segment(stage, number);
		sim_check(stage->world, stage_until(stage, stage_all_applied));
	}
	stage_check_volumes(stage, "damage");
}

UNIT(test_damage)
{
	stage_run(damage);
}

static void bad_records(struct stage *stage)
{
	static const struct stage_write bad[] = {
		{ 2, 0, 4096, 5, false },			/* no such volume */
		{ 0, STAGE_VOLUME_BYTES, 4096, 5, false },	/* behind the end */
		{ 1, STAGE_VOLUME_BYTES - 512, 1024, 5, true }, /* over the end */
		{ 1, STAGE_VOLUME_BYTES, 4096, 0, false },	/* discard behind the end */
		{ 0, 8, 4096, 5, false },			/* not aligned */
		{ 0, 0, 1000, 5, false },			/* length not aligned */
	};

	stage_fill(stage);
	for (unsigned i = 0; i < array_len(bad); i++) {
		uint64_t chain = stage->chain, bytes = stage->bytes;

		stage_send_segment(stage, stage_make(stage, &bad[i], 1));
		stage_expect_bye(stage, "not there");
		stage->chain = chain;
		stage->bytes = bytes;
		stage->next_seq--;
		stage->count--;
		stage_resume(stage);
		sim_check(stage->world, stage->welcome.durable.seq == 0);
	}
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "bad records");
}

UNIT(test_bad_records)
{
	stage_run(bad_records);
}

static void wrong_chain(struct stage *stage)
{
	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	stage->chain ^= 1;
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 8));
	stage_expect_bye(stage, "does not continue");
	/* The right chain, but another seq. */
	stage->chain = stage->segments[1].chain_next;
	stage->next_seq = 7;
	stage_resume(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 8));
	stage_expect_bye(stage, "does not continue");
	stage->chain = stage->segments[1].chain_next;
	stage->next_seq = 2;
	stage->bytes = 4096;
	stage->count = 1;
	stage_resume(stage);
	sim_check(stage->world, stage->welcome.durable.seq == 1);
	stage->hello.group_uuid.bytes[3] ^= 1;
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 8));
	stage_expect_bye(stage, "another group");
}

UNIT(test_wrong_chain_and_group)
{
	stage_run(wrong_chain);
}

/* ---- who may connect --------------------------------------------------------------------------
 */

static void refusals(struct stage *stage)
{
	struct link_hello good;

	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	good = stage->hello;
	stage->hello.protocol_min = stage->hello.protocol_max = PROTOCOL_VERSION + 1;
	stage_dial_refused(stage, LINK_REFUSE_VERSION);
	stage->hello = good;
	stage->hello.features_required = 1;
	stage_dial_refused(stage, LINK_REFUSE_VERSION);
	stage->hello = good;
	stage->hello.group_uuid.bytes[0] ^= 1;
	stage_dial_refused(stage, LINK_REFUSE_WRONG_GROUP);
	stage->hello = good;
	stage->hello.volume_count = 1;
	stage_dial_refused(stage, LINK_REFUSE_VOLUMES);
	stage->hello = good;
	stage->hello.volumes[1].name[1] = 'x';
	stage_dial_refused(stage, LINK_REFUSE_VOLUMES);
	stage->hello = good;
	stage->hello.volumes[0].uuid.bytes[5] ^= 1;
	stage_dial_refused(stage, LINK_REFUSE_VOLUMES);
	stage->hello = good;
	stage->hello.volumes[2] = stage->hello.volumes[1];
	stage->hello.volumes[2].name[1] = 'z';
	stage->hello.volume_count = 3;
	stage_dial_refused(stage, LINK_REFUSE_VOLUMES);
	/* Behind these nothing could count on. */
	for (uint64_t epoch = UINT64_MAX; epoch > INT64_MAX; epoch = epoch / 2 + 1) {
		stage->hello = good;
		stage->hello.epoch = epoch;
		stage_dial_refused(stage, LINK_REFUSE_ERROR);
	}
	/* It has less than what is here: it is not the one that wrote it. */
	stage->hello = good;
	stage->next_seq = 1;
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	stage->next_seq = 2;
	/* A higher epoch that began before what is here. */
	stage->hello.epoch = 2;
	stage->hello.history_count = 2;
	stage->hello.history[1] = (struct history_entry){ 2, 1 };
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	/* It rules all the same: the lower one is told. */
	stage->hello = good;
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 2);
	good.epoch = 3;
	good.history_count = 2;
	good.history[1] = (struct history_entry){ 3, 2 };
	stage->hello = good;
	stage->hello.history[0].epoch = 9; /* beyond its own epoch */
	stage_dial_refused(stage, LINK_REFUSE_ERROR);
	stage->hello = good;
	stage->hello.history_count = 0;
	stage_dial_refused(stage, LINK_REFUSE_ERROR);
	stage->hello = good;
	stage_resume(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 8));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
}

UNIT(test_refusals)
{
	stage_run(refusals);
}

/* A primary of a lower epoch, and segments of one. */
static void epochs(struct stage *stage)
{
	struct link_hello old;
	unsigned number;

	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	old = stage->hello;
	stage->hello.epoch = 3;
	stage->hello.history_count = 2;
	stage->hello.history[1] = (struct history_entry){ 3, 3 };
	/* Seq 2 was still written under epoch 1: shipped as it is. */
	stage_resume(stage);
	stage->hello.epoch = 1;
	number = stage_write(stage, 0, 4096, 4096, 8);
	stage->hello.epoch = 3;
	stage_send_segment(stage, number);
	stage_send_segment(stage, stage_write(stage, 0, 8192, 4096, 9));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	sim_check(stage->world, stage_status(stage)->epoch == 3);
	stage_check_volumes(stage, "two epochs");
	/* What the deposed primary writes behind the cut is not. */
	stage->hello.epoch = 1;
	number = stage_make(stage, &(struct stage_write){ 0, 0, 4096, 10, false }, 1);
	stage->hello.epoch = 3;
	stage_send_segment(stage, number);
	sim_check(stage->world, stage_until(stage, stage_is_refused));
	sim_check(stage->world, stage->refuse.code == LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage_status(stage)->rejected_epoch == 1);
	stage->hello = old;
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 3);
	sim_check(stage->world, stage_status(stage)->rejected_epoch == 2);
	/* Also after a restart. */
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 3);
	/* However close. */
	stage->hello.epoch = 2;
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
}

UNIT(test_epochs)
{
	stage_run(epochs);
}

static void stale_frame(struct stage *stage)
{
	struct frame frame = { .type = FRAME_SYNC_END, .epoch = 1 };

	stage->hello.epoch = 2;
	stage->hello.history[0].epoch = 2;
	stage_fill(stage);
	stage_send(stage, &frame, NULL);
	sim_check(stage->world, stage_until(stage, stage_is_refused));
	sim_check(stage->world,
		  stage->refuse.code == LINK_REFUSE_STALE_EPOCH && stage->refuse.epoch == 2);
}

UNIT(test_stale_frame)
{
	stage_run(stale_frame);
}

/* The newest connection wins; a dead one is noticed. */
static void connections(struct stage *stage)
{
	uint64_t since;

	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	for (unsigned i = 0; i < 5; i++) {
		stage_write(stage, 0, i * 512, 4096, 8 + i);
		stage_resend(stage);
		if (i % 2)
			sim_check(stage->world, stage_until(stage, stage_all_durable));
		else
			sim_run_for(stage->world, SIM_MS / 2);
	}
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "after reconnecting");
	sim_check(stage->world, stage_status(stage)->connected);
	sim_cut_both(stage->primary, stage->standby, SIM_CUT_SILENT);
	since = sim_now(stage->world);
	while (stage_status(stage)->connected)
		sim_run_for(stage->world, 10 * SIM_MS);
	since = sim_now(stage->world) - since;
	sim_check(stage->world, since > 1900 * SIM_MS && since < 2400 * SIM_MS);
	sim_check(stage->world, !strcmp(stage_status(stage)->state, "waiting"));
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage_status(stage)->heard_ns_ago > 2900 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->lag.ns > 2900 * SIM_MS);
	sim_heal_all(stage->world);
	stage_resume(stage);
	stage_send_beat(stage, stage->next_seq - 1, stage->bytes, 0);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->lag.ns < 50 * SIM_MS);
}

UNIT(test_connections)
{
	stage_run(connections);
}

static void lag(struct stage *stage)
{
	const struct status_group *s = stage_status(stage);

	sim_check(stage->world, s->heard_ns_ago == UINT64_MAX && s->lag.ns == UINT64_MAX);
	stage_fill(stage);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 7));
	stage_send_beat(stage, 11, 4096 + 5000, 700 * SIM_MS);
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	s = stage_status(stage);
	sim_check(stage->world, s->lag.writes == 10 && s->lag.bytes == 5000);
	sim_check(stage->world, s->lag.ns >= 700 * SIM_MS && s->lag.ns < 800 * SIM_MS);
	sim_run_for(stage->world, SIM_SECOND);
	s = stage_status(stage);
	sim_check(stage->world, s->lag.ns >= 1700 * SIM_MS && s->lag.ns < 1800 * SIM_MS);
	/* A primary that claims the impossible: unknown, not a small number. */
	stage_send_beat(stage, 11, 4096 + 5000, UINT64_MAX - 1);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->lag.ns == UINT64_MAX);
	stage_send_beat(stage, 11, 4096 + 5000, 700 * SIM_MS);
	sim_run_for(stage->world, SIM_SECOND);
	/* It is remembered. */
	stage_stop_engine(stage);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	s = stage_status(stage);
	sim_check(stage->world, s->lag.writes == 10 && s->lag.bytes == 5000);
	sim_check(stage->world, s->lag.ns >= 2 * SIM_SECOND && s->heard_ns_ago >= SIM_SECOND);
}

UNIT(test_lag)
{
	stage_run(lag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ordinary),
		cmocka_unit_test(test_laps_of_the_journal),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_apply_reads_back),
		cmocka_unit_test(test_duplicates_and_gaps),
		cmocka_unit_test(test_wrong_start),
		cmocka_unit_test(test_reset_forward),
		cmocka_unit_test(test_reset_while_apply_is_behind),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_wrong_chain_and_group),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_epochs),
		cmocka_unit_test(test_stale_frame),
		cmocka_unit_test(test_connections),
		cmocka_unit_test(test_lag),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
