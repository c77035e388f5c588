/* SPDX-License-Identifier: Apache-2.0 */
/* A copy whose history has parted from the one that rules: refused, then kept aside and followed.
 */
#include "tests/unit/engine/stage.h"

#define VOLUME_BYTES (1u << 20)
#define RECORDS	     10u
#define COMMON	     5u

static struct superblock sb;

static void on_task(struct engine_task *task)
{
	task->volume = "done";
}

static bool task_is_done(void *context)
{
	return ((struct engine_task *)context)->volume != NULL;
}

static int demote(struct stage *stage, struct engine_task *task)
{
	*task = (struct engine_task){ .kind = ENGINE_REJOIN, .done = on_task };
	engine_group_task(stage->group, task);
	sim_check(stage->world, sim_run_until(stage->world, task_is_done, task, STAGE_LIMIT));
	return task->res;
}

static int demote_without(struct stage *stage, struct engine_task *task)
{
	*task = (struct engine_task){ .kind = ENGINE_REJOIN,
				      .without_salvage = true,
				      .done = on_task };
	engine_group_task(stage->group, task);
	sim_check(stage->world, sim_run_until(stage->world, task_is_done, task, STAGE_LIMIT));
	return task->res;
}

/* Ten records, one to a segment, 64 KiB apart on volume 0. */
static void fill(struct stage *stage)
{
	stage_fill(stage);
	for (unsigned i = 0; i < RECORDS; i++)
		stage_send_segment(stage, stage_write(stage, 0, (uint64_t)i << 16, 4096, 50 + i));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "before");
}

/* Somebody else was promoted behind `seq`, and has written `more` records since. */
static void part(struct stage *stage, uint64_t epoch, uint64_t seq, unsigned more)
{
	stage->hello.epoch = epoch;
	stage->hello.history[stage->hello.history_count++] =
		(struct history_entry){ epoch, seq + 1 };
	stage->count = (unsigned)seq;
	stage->next_seq = seq + 1;
	stage->chain = seq ? stage->segments[seq].chain_next
			   : segment_chain_root(&stage->hello.group_uuid);
	stage->bytes = seq ? stage->segments[seq].header.bytes_end : 0;
	for (unsigned i = 0; i < more; i++)
		(void)stage_write(stage, 1, (uint64_t)i << 16, 4096, 900 + i);
}

/* What was written behind COMMON is covered by the ranges, and little else is. */
static void check_ranges(struct stage *stage)
{
	sim_check(stage->world,
		  stage->ranges_ended && stage->welcome.ranges == 1 && stage->range_frames == 1);
	sim_check(stage->world, stage->range_count == 1);
	sim_check(stage->world, stage->ranges[0].volume == 0 &&
					stage->ranges[0].off == COMMON << 16 &&
					stage->ranges[0].len == (RECORDS - COMMON) << 16);
}

/* The salvage file is segments COMMON + 1 .. RECORDS of the old history, durably. */
static void check_salvage(struct stage *stage, const struct stage_segment *old)
{
	static uint8_t bytes[SEGMENT_TOTAL_MAX_BYTES];
	const char *path = STAGE_DIR "/salvage/1-6-10";
	uint64_t off = 0;

	for (unsigned i = COMMON + 1; i <= RECORDS; i++) {
		uint32_t len = old[i].header.total_bytes;

		sim_file_peek_durable(stage->standby, path, off, bytes, len);
		sim_check(stage->world, !memcmp(bytes, old[i].bytes, len));
		off += len;
	}
	sim_check(stage->world, sim_file_size(stage->standby, path) == (int64_t)off);
}

static bool ranges_are_there(void *context)
{
	struct stage *stage = context;

	return stage->welcomed && (!stage->welcome.ranges || stage->ranges_ended);
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

/* ---- the way back -----------------------------------------------------------------------------
 */

static struct stage_segment kept_segments[RECORDS + 1];

static void keep_segments(struct stage *stage)
{
	memcpy(kept_segments, stage->segments, sizeof(kept_segments));
}

static bool copied(void *context)
{
	struct stage *stage = context;

	return stage->sync_acked == STAGE_VOLUMES * (VOLUME_BYTES / STAGE_EXTENT_BYTES) + 1;
}

static void follow(struct stage *stage)
{
	send_reset(stage);
	send_content(stage);
	sim_check(stage->world, stage_until(stage, copied));
	sim_check(stage->world, stage_status(stage)->consistent);
	stage_check_volumes(stage, "followed");
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_STANDBY && sb.epoch == stage->hello.epoch);
	sim_check(stage->world, !(sb.flags & (SUPERBLOCK_REJOIN | SUPERBLOCK_SYNCING)));
	sim_check(stage->world, !stage_status(stage)->diverged);
	stage_send_segment(stage, stage_write(stage, 0, 0, 4096, 77));
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "and went on");
}

static void diverged(struct stage *stage)
{
	struct engine_task task;

	fill(stage);
	keep_segments(stage);
	sim_check(stage->world, demote(stage, &task) == -EALREADY);
	part(stage, 2, COMMON, 3);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, strstr(stage->refuse.text, "holdfast demote g") != NULL);
	sim_check(stage->world, stage->refuse.epoch == 1);
	sim_check(stage->world,
		  stage_status(stage)->diverged && stage->status.common_seq == COMMON);
	/* Nothing happens to it before somebody says so, also over a restart. But it knows who
	 * rules. */
	sim_run_for(stage->world, 10 * SIM_MS);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage->hello.epoch = 1;
	stage->hello.history_count = 1;
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 2);
	stage->hello.epoch = 2;
	stage->hello.history_count = 2;
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	task = (struct engine_task){
		.kind = ENGINE_REJOIN, .has_expect_epoch = true, .expect_epoch = 2, .done = on_task
	};
	engine_group_task(stage->group, &task);
	sim_check(stage->world, sim_run_until(stage->world, task_is_done, &task, STAGE_LIMIT));
	sim_check(stage->world, task.res == -ESTALE);
	sim_check(stage->world,
		  demote(stage, &task) == 0 && task.epoch == 1 && task.seq == RECORDS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.flags & SUPERBLOCK_REJOIN);
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	sim_check(stage->world, stage->welcome.diverged && stage->welcome.common_seq == COMMON);
	sim_check(stage->world, stage->welcome.durable.seq == RECORDS);
	sim_check(stage->world, stage->welcome.common_chain == kept_segments[COMMON].chain_next);
	check_ranges(stage);
	check_salvage(stage, kept_segments);
	/* Not from where it stands. */
	stage_send_start(stage, &(struct link_start){ .from_seq = RECORDS + 1, .sync = true });
	stage_expect_bye(stage, "given up");
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	follow(stage);
	check_salvage(stage, kept_segments);
}

UNIT(test_diverged)
{
	stage_run_sized(diverged, 1, VOLUME_BYTES, 0, 0);
}

static void check_unknown(struct stage *stage, const struct status_lag *lag)
{
	sim_check(stage->world,
		  lag->writes == UINT64_MAX && lag->bytes == UINT64_MAX && lag->ns == UINT64_MAX);
}

static void expect_refused(struct stage *stage, const char *words)
{
	sim_check(stage->world, stage_promote(stage, false) == -EPERM);
	if (!strstr(stage->promote.text, words))
		sim_fail(stage->world, "promote said \"%s\"", stage->promote.text);
}

/* It is the better copy, says the operator: its epoch is above the one that ruled. Nobody knows
 * what of the other history is lost. */
static void promoted_instead(struct stage *stage)
{
	fill(stage);
	part(stage, 6, COMMON, 1);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	check_unknown(stage, &stage_status(stage)->lag);
	expect_refused(stage, "epoch 6 rules at ");
	stage_stop_engine(stage); /* it is remembered */
	sim_check(stage->world, stage_start_engine(stage) == 0);
	check_unknown(stage, &stage_status(stage)->lag);
	expect_refused(stage, "holdfast demote g");
	sim_check(stage->world, stage_promote(stage, true) == 0);
	check_unknown(stage, &stage->promote.lost);
	sim_check(stage->world, stage->promote.loss == ENGINE_LOSS_UNKNOWN);
	sim_check(stage->world, stage->promote.epoch == 7 && stage->promote.seq == RECORDS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && !sb.fenced_by_epoch);
}

UNIT(test_promoted_instead)
{
	stage_run_sized(promoted_instead, 1, VOLUME_BYTES, 0, 0);
}

/* By configuration; and the ruling history is shorter than ours. */
static void by_itself(struct stage *stage)
{
	fill(stage);
	keep_segments(stage);
	stage->group_conf.rejoin_auto = true;
	part(stage, 2, COMMON, 0);
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	check_salvage(stage, kept_segments);
	follow(stage);
	/* What was applied from the old journal does not come back. */
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	stage_check_volumes(stage, "after a restart");
	sim_check(stage->world, stage_status(stage)->applied_seq == COMMON + 1);
}

UNIT(test_by_itself)
{
	stage_run_sized(by_itself, 1, VOLUME_BYTES, 0, 0);
}

/* A primary of our own epoch that lacks what we hold is older than us: nobody's word helps it. */
static void older_primary(struct stage *stage)
{
	struct engine_task task;

	fill(stage);
	stage->group_conf.rejoin_auto = true;
	stage->next_seq = COMMON + 1;
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, strstr(stage->refuse.text, "older than its standby") != NULL);
	sim_check(stage->world, demote(stage, &task) == -EPERM);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	stage->next_seq = RECORDS + 1;
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged);
}

UNIT(test_older_primary)
{
	stage_run_sized(older_primary, 1, VOLUME_BYTES, 0, 0);
}

/* Which may be serving: nobody is made primary beside it without a word. */
static void older_primary_lives(struct stage *stage)
{
	fill(stage);
	stage->next_seq = COMMON + 1;
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	expect_refused(stage, "primary of epoch 1, lacks the writes here behind seq 5");
	sim_check(stage->world, stage_promote(stage, true) == 0);
	check_unknown(stage, &stage->promote.lost);
	sim_check(stage->world, stage->promote.epoch == 2 && stage->promote.seq == RECORDS);
}

UNIT(test_older_primary_lives)
{
	stage_run_sized(older_primary_lives, 1, VOLUME_BYTES, 0, 0);
}

static void send_refuse(struct stage *stage, enum link_refuse_code code)
{
	struct link_refuse refuse = { .code = code, .epoch = stage->hello.epoch, .text = "chain" };
	struct frame frame = { .type = FRAME_REFUSE };

	frame.body_bytes =
		(uint32_t)link_refuse_pack(&refuse, stage->body_buf, sizeof(stage->body_buf));
	stage_send(stage, &frame, stage->body_buf);
	sim_check(stage->world, stage_until(stage, stage_is_over));
}

/* Two writers of one epoch: only the chain, which the primary checks, tells them apart. */
static void parted_unseen(struct stage *stage)
{
	char node[sizeof(stage->hello.node)];
	struct engine_task task;

	fill(stage);
	keep_segments(stage);
	memcpy(node, stage->hello.node, sizeof(node));
	stage_dial_welcome(stage);
	send_refuse(stage, LINK_REFUSE_BUSY);
	sim_check(stage->world, !stage_status(stage)->diverged);
	/* The other one still is of our epoch: it is older, or it must be accepted first. */
	stage_dial_welcome(stage);
	send_refuse(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, stage_status(stage)->diverged && stage->status.common_seq == 0);
	sim_check(stage->world, demote(stage, &task) == -EPERM);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	/* Another primary of that epoch may be the one whose history this is. */
	snprintf(stage->hello.node, sizeof(stage->hello.node), "the-right-one");
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged && !stage_status(stage)->diverged);
	snprintf(stage->hello.node, sizeof(stage->hello.node), "%s", node);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	part(stage, 2, RECORDS, 2);
	stage_dial_welcome(stage); /* it looks as if it continued */
	sim_check(stage->world, !stage->welcome.diverged);
	send_refuse(stage, LINK_REFUSE_DIVERGED);
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, strstr(stage->refuse.text, "holdfast demote g") != NULL);
	sim_check(stage->world, demote(stage, &task) == 0);
	/* The word outlives a restart, what the primary said does not: it says it again. */
	stage_stop_engine(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged);
	send_refuse(stage, LINK_REFUSE_DIVERGED);
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	/* From the very beginning on: that is what both are known to share. */
	sim_check(stage->world, stage->welcome.diverged && !stage->welcome.common_seq);
	sim_check(stage->world,
		  stage->welcome.common_chain == segment_chain_root(&stage->hello.group_uuid));
	sim_check(stage->world, stage->range_count == 1 && stage->ranges[0].off == 0 &&
					stage->ranges[0].len == RECORDS << 16);
	sim_check(stage->world, sim_file_size(stage->standby, STAGE_DIR "/salvage/1-1-10") > 0);
	follow(stage);
}

UNIT(test_parted_unseen)
{
	stage_run_sized(parted_unseen, 1, VOLUME_BYTES, 0, 0);
}

static bool is_kept(struct stage *stage)
{
	char path[96];
	uint64_t oldest = stage_status(stage)->journal_oldest_seq;

	snprintf(path, sizeof(path), STAGE_DIR "/salvage/1-%lu-%lu-lacks-%u", (unsigned long)oldest,
		 (unsigned long)stage->status.durable_seq, COMMON + 1);
	return sim_file_size(stage->standby, path) > 0;
}

/* Records that the journal no longer holds cannot become salvage: they are not given up by
 * configuration, nor by a word that does not say so (V5), also after a restart. And the ranges are
 * not known, so none is told (V3). */
static void reaches_back(struct stage *stage)
{
	struct engine_task task;

	fill(stage);
	for (unsigned i = 0; i < 40; i++) {
		stage_send_segment(
			stage, stage_write(stage, 0, (uint64_t)i % 4 << 16, 65536, 201 + 2 * i));
		sim_check(stage->world, stage_until(stage, stage_all_applied));
		sim_run_for(stage->world, 200 * SIM_MS);
	}
	sim_check(stage->world, stage_status(stage)->journal_oldest_seq > COMMON + 1);
	part(stage, 2, COMMON, 0);
	stage->group_conf.rejoin_auto = true;
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, strstr(stage->refuse.text, "--without-salvage") != NULL);
	sim_check(stage->world, stage_status(stage)->salvage_missing ==
					stage->status.journal_oldest_seq - COMMON - 1);
	sim_check(stage->world, demote(stage, &task) == -EPERM);
	sim_check(stage->world, strstr(task.text, "--without-salvage") != NULL);
	/* Not even when it is said again before a primary has come. */
	stage_stop_engine(stage);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, demote(stage, &task) == -EALREADY); /* as far as it knows now */
	stage_dial_refused(stage, LINK_REFUSE_DIVERGED);
	sim_check(stage->world, demote(stage, &task) == -EPERM);
	sim_check(stage->world, !is_kept(stage));
	sim_check(stage->world, demote_without(stage, &task) == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	sim_check(stage->world, stage->welcome.diverged && !stage->welcome.common_chain &&
					!stage->welcome.ranges);
	sim_check(stage->world, is_kept(stage));
	follow(stage);
	stage_superblock(stage, &sb);
	sim_check(stage->world, !(sb.flags & (SUPERBLOCK_REJOIN | SUPERBLOCK_REJOIN_LOSS)));
}

UNIT(test_reaches_back)
{
	stage_run_sized(reaches_back, 1, VOLUME_BYTES, 0, 0);
}

/* ---- an old primary's directory ---------------------------------------------------------------
 */

/* As its agent would have left it. */
static void turn_into(struct stage *stage, enum group_role role, uint64_t fenced_by)
{
	static uint8_t slot[SUPERBLOCK_SLOT_BYTES];

	stage_stop_engine(stage);
	stage_superblock(stage, &sb);
	sb.role = (uint8_t)role;
	sb.flags = 0;
	sb.fenced_by_epoch = fenced_by;
	snprintf(sb.fenced_by, sizeof(sb.fenced_by), "%s", fenced_by ? "beta.example" : "");
	sb.peer_count = 1;
	snprintf(sb.peers[0].node, sizeof(sb.peers[0].node), "beta.example");
	superblock_encode(&sb, slot);
	for (unsigned i = 0; i < 2; i++)
		sim_file_poke(stage->standby, STAGE_DIR "/superblock",
			      (uint64_t)i * SUPERBLOCK_SLOT_BYTES, slot, sizeof(slot));
}

static void round_trip(struct stage *stage)
{
	fill(stage);
	turn_into(stage, GROUP_FENCED, 2);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, !strcmp(stage_status(stage)->role, "fenced"));
	sim_check(stage->world, stage->status.fenced_by_epoch == 2 && stage->status.consistent);
	/* Who does not know of the higher epoch is told. */
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 2);
	part(stage, 2, RECORDS, 0);
	stage_write(stage, 1, 0, 4096, 3000);
	stage_dial_welcome(stage);
	sim_check(stage->world, !stage->welcome.diverged && !stage->welcome.syncing);
	sim_check(stage->world,
		  stage->welcome.durable.seq == RECORDS &&
			  stage->welcome.durable.chain == stage->segments[RECORDS].chain_next);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_FENCED);
	stage_send_start(stage, &(struct link_start){ .from_seq = RECORDS + 1 });
	stage_send_segment(stage, RECORDS + 1);
	sim_check(stage->world, stage_until(stage, stage_all_applied));
	stage_check_volumes(stage, "followed");
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_STANDBY && sb.epoch == 2 && !sb.peer_count &&
					!sb.fenced_by_epoch && !sb.fenced_by[0]);
	sim_check(stage->world, !strcmp(stage_status(stage)->role, "standby"));
	sim_check(stage->world, sim_file_size(stage->standby, STAGE_DIR "/salvage/1-6-10") < 0);
}

UNIT(test_round_trip)
{
	stage_run_sized(round_trip, 1, VOLUME_BYTES, 0, 0);
}

static void fenced_promote(struct stage *stage)
{
	fill(stage);
	turn_into(stage, GROUP_FENCED, 7);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	sim_check(stage->world, stage_promote(stage, false) == -EPERM);
	sim_check(stage->world, strstr(stage->promote.text, "fenced") != NULL);
	sim_check(stage->world, stage_promote(stage, true) == 0);
	sim_check(stage->world, stage->promote.epoch == 8 && stage->promote.seq == RECORDS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && !sb.fenced_by_epoch);
	stage_check_volumes(stage, "promoted");
}

UNIT(test_fenced_promote)
{
	stage_run_sized(fenced_promote, 1, VOLUME_BYTES, 0, 0);
}

static void unserved_primary(struct stage *stage)
{
	struct engine_task task;
	struct io_lock *lock;

	fill(stage);
	keep_segments(stage);
	turn_into(stage, GROUP_PRIMARY, 0);
	sim_check(stage->world, stage_start_engine(stage) == 1);
	part(stage, 2, COMMON, 1);
	stage_dial_refused(stage, LINK_REFUSE_NOT_STANDBY);
	/* Its agent has it. */
	sim_check(stage->world,
		  io_lock(sim_node_io(stage->standby), STAGE_DIR "/lock", &lock) == 0);
	sim_check(stage->world, demote(stage, &task) == -EPERM);
	sim_check(stage->world, strstr(task.text, "switchover") != NULL);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY);
	io_unlock(lock);
	sim_check(stage->world, demote(stage, &task) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_FENCED && sb.fenced_by_epoch == 1 &&
					(sb.flags & SUPERBLOCK_REJOIN));
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, !strcmp(stage_status(stage)->role, "fenced"));
	stage_dial(stage);
	sim_check(stage->world, stage_until(stage, ranges_are_there));
	check_ranges(stage);
	check_salvage(stage, kept_segments);
	follow(stage);
}

UNIT(test_unserved_primary)
{
	stage_run_sized(unserved_primary, 1, VOLUME_BYTES, 0, 0);
}

/* Its agent lets go of it a moment after it is fenced. */
static void locked(struct stage *stage)
{
	struct io_lock *lock;

	fill(stage);
	turn_into(stage, GROUP_FENCED, 2);
	sim_check(stage->world,
		  io_lock(sim_node_io(stage->standby), STAGE_DIR "/lock", &lock) == 0);
	sim_check(stage->world, stage_start_engine(stage) == 1);
	stage_dial_refused(stage, LINK_REFUSE_STALE_EPOCH);
	sim_check(stage->world, stage->refuse.epoch == 2);
	part(stage, 2, RECORDS, 0);
	stage_dial_refused(stage, LINK_REFUSE_BUSY);
	sim_run_for(stage->world, 100 * SIM_MS);
	io_unlock(lock);
	stage_dial_refused(stage, LINK_REFUSE_BUSY); /* this one has it opened */
	sim_run_for(stage->world, 100 * SIM_MS);
	stage_dial_welcome(stage);
}

UNIT(test_locked)
{
	stage_run_sized(locked, 1, VOLUME_BYTES, 0, 0);
}

/* ---- crashes ----------------------------------------------------------------------------------
 */

static unsigned crash_at;
static enum sim_crash crash_kind;
static bool came_through;

static bool comes_to_an_end(struct stage *stage)
{
	return stage_status(stage)->consistent && !stage->status.diverged &&
	       stage->status.epoch == 2;
}

/* What a real primary does with it, in whatever state it is. */
static void go_on(struct stage *stage)
{
	for (unsigned i = 0; i < 50 && !comes_to_an_end(stage); i++) {
		if (!stage_try_dial(stage))
			continue;
		sim_run_for(stage->world, 300 * SIM_MS);
		if (!ranges_are_there(stage))
			continue;
		if (stage->welcome.diverged) {
			check_salvage(stage, kept_segments); /* V2 */
			check_ranges(stage);
		}
		send_reset(stage);
		send_content(stage);
		sim_run_for(stage->world, 300 * SIM_MS);
	}
	sim_check(stage->world, comes_to_an_end(stage));
}

static void crashes(struct stage *stage)
{
	fill(stage);
	keep_segments(stage);
	stage->group_conf.rejoin_auto = true;
	part(stage, 2, COMMON, 2);
	stage_dial(stage);
	for (unsigned i = 0; i < crash_at && !came_through; i++) {
		sim_check(stage->world, sim_step(stage->world));
		if (ranges_are_there(stage) && !stage->promise_sent) {
			stage->promise_sent = true;
			send_reset(stage);
			send_content(stage);
		}
		came_through = stage->promise_sent && i % 16 == 0 && comes_to_an_end(stage);
	}
	stage_crash(stage, crash_kind);
	sim_check(stage->world, stage_start_engine(stage) == 0);
	go_on(stage);
	stage_check_volumes(stage, "in the end");
	check_salvage(stage, kept_segments);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_STANDBY && sb.epoch == 2);
}

UNIT(test_crashes)
{
	unsigned runs = 0;

	for (unsigned kind = 0; kind < 2; kind++) {
		crash_kind = kind ? SIM_POWER : SIM_KILL;
		came_through = false;
		for (crash_at = 0; !came_through; crash_at += 5 + crash_at / 20, runs++)
			stage_run_sized(crashes, 1, VOLUME_BYTES, 0, 0);
	}
	assert_in_range(runs, 30, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_diverged),
		cmocka_unit_test(test_by_itself),
		cmocka_unit_test(test_promoted_instead),
		cmocka_unit_test(test_older_primary),
		cmocka_unit_test(test_older_primary_lives),
		cmocka_unit_test(test_parted_unseen),
		cmocka_unit_test(test_reaches_back),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_fenced_promote),
		cmocka_unit_test(test_unserved_primary),
		cmocka_unit_test(test_locked),
		cmocka_unit_test(test_crashes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
