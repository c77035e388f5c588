/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A short life of a standby (copy, stream, promote), crashed at every event, and with every disk
 * operation failing in turn. Whatever happens: what was acknowledged is there, a standby or a
 * primary comes back, and in the end the volumes hold the history.
 */
#include <malloc.h>

#include "tests/unit/engine/stage.h"

#define WRITES 16u

static struct {
	struct stage *stage;
	enum sim_crash kind;
	uint64_t seed, begin, end; /* events of the script */
	uint64_t at;		   /* event to crash at; 0 none */
	uint64_t begin_op, end_op;
	uint64_t fail_op; /* disk operation to fail; 0 none */
	bool sticky, crashed, copied;
} plan;

static void crash_now(void *context)
{
	struct stage *stage = context;

	sim_node_crash(stage->standby, plan.kind);
	stage->group = NULL;
	plan.crashed = true;
}

/* ---- the primary ------------------------------------------------------------------------------
 */

static void send_content(struct stage *stage, unsigned volume)
{
	struct frame frame = { .type = FRAME_SYNC_DATA,
			       .seq = stage->next_seq - 1,
			       .arg2 = frame_range_arg((uint16_t)volume, STAGE_VOLUME_BYTES),
			       .body_bytes = STAGE_VOLUME_BYTES };

	stage_send(stage, &frame, stage->content[volume]);
}

static void send_missing(struct stage *stage)
{
	for (unsigned i = 1; i <= stage->count; i++)
		if (stage->segments[i].header.first_seq > stage->welcome.durable.seq)
			stage_send_segment(stage, i);
}

static void start_copy(struct stage *stage)
{
	struct link_start start = { .sync = true };

	if (stage->welcome.empty) {
		start.reset = true;
		start.from_seq = 1;
		start.base.chain = segment_chain_root(&stage->hello.group_uuid);
	} else {
		start.from_seq = stage->welcome.durable.seq + 1;
	}
	stage_send_start(stage, &start);
}

static bool answered(void *context)
{
	return stage_is_welcomed(context) || stage_is_over(context) || plan.crashed;
}

/* What a real primary does with a standby in whatever state. */
static void connect_again(struct stage *stage)
{
	if (!stage_try_dial(stage))
		return;
	stage_until(stage, answered);
	if (!stage->welcomed)
		return;
	sim_check(stage->world, stage->welcome.durable.seq >= stage->promised);
	if (stage->welcome.empty || stage->welcome.syncing) {
		/* Once a copy was acknowledged as whole it stays so. */
		sim_check(stage->world, !plan.copied);
		start_copy(stage);
		send_missing(stage);
		for (unsigned v = 0; v < STAGE_VOLUMES; v++)
			send_content(stage, v);
		stage_send_end(stage, stage->next_seq - 1);
	} else {
		stage_send_start(
			stage, &(struct link_start){ .from_seq = stage->welcome.durable.seq + 1 });
		send_missing(stage);
	}
}

static bool is_whole(struct stage *stage)
{
	const struct status_group *s = stage_status(stage);

	return s->consistent && s->applied_seq == stage->next_seq - 1;
}

/* Until the standby holds everything. */
static void converge(struct stage *stage)
{
	for (unsigned i = 0; i < 4000; i++) {
		if (is_whole(stage))
			return;
		if (stage_is_over(stage) || !stage->connected)
			connect_again(stage);
		else if (i % 20 == 0)
			stage_send_beat(stage, stage->next_seq - 1, stage->bytes, 0);
		sim_run_for(stage->world, 10 * SIM_MS);
	}
	sim_fail(stage->world, "crash at %lu: does not converge: %s %s, applied %lu of %lu",
		 (unsigned long)plan.at, stage->status.state, stage->status.detail,
		 (unsigned long)stage->status.applied_seq, (unsigned long)stage->next_seq - 1);
}

/* ---- the script -------------------------------------------------------------------------------
 */

static void pause_for(struct stage *stage, uint64_t ns)
{
	sim_run_for(stage->world, ns);
	plan.copied |= stage->sync_acked == STAGE_VOLUMES + 1 && !plan.crashed;
}

static void first_half(struct stage *stage)
{
	stage_try_dial(stage);
	if (plan.crashed || !stage->connected)
		return;
	stage_until(stage, answered);
	if (plan.crashed || !stage->welcomed)
		return;
	start_copy(stage);
	stage_send_extent(stage, 0, 0, STAGE_VOLUME_BYTES, 501, false);
	stage_send_segment(stage, stage_write(stage, 0, 0, 12288, 11));
	stage_send_extent(stage, 1, 0, STAGE_VOLUME_BYTES, 502, true);
	stage_send_segment(stage, stage_write(stage, 1, 4096, 8192, 12));
	stage_send_end(stage, 2);
	pause_for(stage, 5 * SIM_MS);
}

static void second_half(struct stage *stage)
{
	for (unsigned i = 2; i < WRITES; i++) {
		unsigned number =
			stage_write(stage, i % 2, i % 4 * 4096, 8192, i == 5 ? 0 : 20 + i);

		if (!stage_is_over(stage) && stage->connected)
			stage_send_segment(stage, number);
		pause_for(stage, i % 3 ? SIM_MS : 4 * SIM_MS);
	}
	pause_for(stage, 10 * SIM_MS);
}

static bool promote_over(void *context)
{
	return stage_is_promoted(context) || plan.crashed;
}

static void script(struct stage *stage)
{
	plan.begin = sim_events(stage->world);
	plan.begin_op = sim_disk_ops(stage->world);
	plan.crashed = plan.copied = false;
	if (plan.at)
		sim_at_event(stage->world, plan.begin + plan.at, crash_now, stage);
	if (plan.fail_op)
		sim_fail_op(stage->world, plan.begin_op + plan.fail_op, -EIO, plan.sticky);
	first_half(stage);
	second_half(stage);
	/* Failing operations are repaired after a while. */
	if (plan.fail_op) {
		pause_for(stage, 500 * SIM_MS);
		sim_fault_clear(stage->world);
		converge(stage);
	}
	if (!plan.crashed) {
		stage_begin_promote(stage, true);
		stage_until(stage, promote_over);
	}
	plan.end = sim_events(stage->world);
	plan.end_op = sim_disk_ops(stage->world);
}

/* ---- crashes ----------------------------------------------------------------------------------
 */

static void check_promoted(struct stage *stage)
{
	struct superblock sb;

	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_PRIMARY && sb.epoch == 2);
	sim_check(stage->world, sb.applied_seq == stage->next_seq - 1);
	stage_check_volumes(stage, "promoted");
}

static void come_back(struct stage *stage)
{
	struct superblock sb;
	int res;

	link_close(stage->link);
	plan.crashed = false;
	sim_node_restart(stage->standby);
	stage_superblock(stage, &sb);
	res = stage_start_engine(stage);
	if (sb.role == GROUP_PRIMARY) {
		/* Only the last store can have done that, and it was durable. */
		sim_check(stage->world, res == 1);
		sim_check(stage->world, stage_promote(stage, true) == -EALREADY);
		check_promoted(stage);
		return;
	}
	sim_check(stage->world, res == 0 && !(stage->promote_done && stage->promote.res == 0));
	sim_check(stage->world, !plan.copied || stage_status(stage)->consistent);
	stage->connected = false;
	converge(stage);
	stage_check_volumes(stage, "after the crash");
	sim_check(stage->world, stage_promote(stage, true) == 0);
	check_promoted(stage);
}

static void crashed_script(struct stage *stage)
{
	script(stage);
	if (!plan.at) {
		sim_check(stage->world, stage->promote.res == 0 && stage->promote.seq == WRITES);
		check_promoted(stage);
		return;
	}
	if (!plan.crashed) /* behind the last event */
		crash_now(stage);
	come_back(stage);
}

static void crash_everywhere(enum sim_crash kind, uint64_t seed)
{
	uint64_t events;

	plan.kind = kind;
	plan.fail_op = plan.at = 0;
	stage_run_sized(crashed_script, seed, 0, 0, 0);
	events = plan.end - plan.begin;
	assert_true(events > 200);
	for (plan.at = 1; plan.at <= events; plan.at++)
		stage_run_sized(crashed_script, seed, 0, 0, 0);
}

UNIT(test_power_loss_at_every_event)
{
	crash_everywhere(SIM_POWER, 1);
	crash_everywhere(SIM_POWER, 2);
}

UNIT(test_kill_at_every_event)
{
	crash_everywhere(SIM_KILL, 3);
	crash_everywhere(SIM_KILL, 4);
}

/* ---- failing operations -------------------------------------------------------------------------
 */

static void failing_script(struct stage *stage)
{
	script(stage);
	for (unsigned i = 0; i < 20 && stage->promote.res != 0; i++) {
		sim_run_for(stage->world, 2 * SIM_SECOND);
		stage_promote(stage, true);
		if (stage->promote.res == -EALREADY)
			break;
	}
	check_promoted(stage);
}

static void fail_everywhere(bool sticky)
{
	uint64_t ops;

	plan.at = plan.fail_op = 0;
	stage_run_sized(crashed_script, 1, 0, 0, 0);
	ops = plan.end_op - plan.begin_op;
	assert_true(ops > 40);
	plan.sticky = sticky;
	for (plan.fail_op = 1; plan.fail_op <= ops; plan.fail_op++)
		stage_run_sized(failing_script, 1, 0, 0, 0);
}

UNIT(test_every_operation_fails_once)
{
	fail_everywhere(false);
}

UNIT(test_every_operation_fails_for_a_while)
{
	fail_everywhere(true);
}

/* ---- checkpoints -------------------------------------------------------------------------------
 */

/* Batches end while a checkpoint's flush is under way: it must not count them. */
static void slow_flush(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .pattern = "/vol/*",
				  .ops = SIM_FLUSH,
				  .action = SIM_DELAY,
				  .delay_ns = 40 * SIM_MS };

	stage_fill(stage);
	sim_fault_add(stage->world, &slow);
	for (unsigned i = 0; i < 60; i++) {
		stage_send_segment(stage, stage_write(stage, i % 2, i % 15 * 4096, 4096, 20 + i));
		sim_run_for(stage->world, 5 * SIM_MS);
	}
	sim_run_for(stage->world, plan.at * SIM_MS);
	plan.kind = SIM_POWER;
	plan.copied = true;
	crash_now(stage);
	come_back(stage);
}

UNIT(test_batches_during_a_checkpoint)
{
	for (plan.at = 0; plan.at < 60; plan.at += 3)
		stage_run_sized(slow_flush, 1 + plan.at, 0, 0, 0);
}

/* ---- a new beginning ----------------------------------------------------------------------------
 */

/* A START that empties the journal while apply is behind and checkpoints go on, crashed on its way.
 */
static void new_beginning(struct stage *stage)
{
	struct sim_fault slow = { .node = stage->standby,
				  .ops = SIM_WRITE,
				  .action = SIM_DELAY,
				  .delay_ns = 20 * SIM_MS };

	stage_fill(stage);
	for (unsigned i = 0; i < 20; i++)
		stage_send_segment(stage, stage_write(stage, i % 2, i % 15 * 4096, 4096, 20 + i));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	sim_fault_add(stage->world, &slow);
	stage_send_segment(stage, stage_write(stage, 0, 4096, 4096, 90));
	sim_check(stage->world, stage_until(stage, stage_all_durable));
	stage_write(stage, 0, 4096, 8192, 91); /* never sent */
	stage_dial_welcome(stage);
	stage_send_start(stage, &(struct link_start){ .from_seq = stage->next_seq,
						      .sync = true,
						      .reset = true,
						      .base = { .epoch = 1,
								.seq = stage->next_seq - 1,
								.chain = stage->chain,
								.bytes = stage->bytes } });
	stage_send_segment(stage, stage_write(stage, 1, 0, 4096, 92));
	sim_run_for(stage->world, plan.at * SIM_MS);
	plan.kind = plan.at % 2 ? SIM_KILL : SIM_POWER;
	plan.copied = false;
	crash_now(stage);
	sim_fault_clear(stage->world);
	come_back(stage);
}

static void new_beginning_often(struct stage *stage)
{
	stage->group_conf.checkpoint_interval_ns = 15 * SIM_MS;
	new_beginning(stage);
}

UNIT(test_new_beginning)
{
	for (plan.at = 0; plan.at < 500; plan.at += 7) {
		stage_run_sized(new_beginning, 1 + plan.at, 0, 0, 0);
		stage_run_sized(new_beginning_often, 1 + plan.at, 0, 0, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_loss_at_every_event),
		cmocka_unit_test(test_kill_at_every_event),
		cmocka_unit_test(test_batches_during_a_checkpoint),
		cmocka_unit_test(test_new_beginning),
		cmocka_unit_test(test_every_operation_fails_once),
		cmocka_unit_test(test_every_operation_fails_for_a_while),
	};

	/* A life takes much memory and touches little of it: let calloc() find it zeroed. */
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
