/* SPDX-License-Identifier: Apache-2.0 */
/* Mode sync: what an acknowledgement waits for, what happens when no standby is there, and what the
 * standby is told of it. */
#include "tests/unit/agent/stage.h"

#define TIMEOUT_NS (800 * SIM_MS)

static void in_mode(struct stage *stage, enum conf_mode mode, enum conf_sync_loss loss,
		    enum conf_cache cache)
{
	stage->group_conf.mode = mode;
	stage->group_conf.on_sync_loss = loss;
	stage->group_conf.sync_timeout_ns = TIMEOUT_NS;
	stage->group_conf.cache = cache;
}

static void one_freeze(struct stage *stage)
{
	in_mode(stage, CONF_SYNC_ONE, CONF_LOSS_FREEZE, CONF_WRITETHROUGH);
}

static void one_freeze_writeback(struct stage *stage)
{
	in_mode(stage, CONF_SYNC_ONE, CONF_LOSS_FREEZE, CONF_WRITEBACK);
}

static void one_async(struct stage *stage)
{
	in_mode(stage, CONF_SYNC_ONE, CONF_LOSS_ASYNC, CONF_WRITETHROUGH);
}

static void all_freeze(struct stage *stage)
{
	in_mode(stage, CONF_SYNC_ALL, CONF_LOSS_FREEZE, CONF_WRITETHROUGH);
}

static bool state_is(struct stage *stage, const char *state)
{
	return !strcmp(stage_status(stage)->mode_state, state);
}

static void await_state(struct stage *stage, const char *state)
{
	for (unsigned i = 0; i < 2000 && !state_is(stage, state); i++)
		sim_run_for(stage->world, 5 * SIM_MS);
	if (!state_is(stage, state))
		sim_fail(stage->world, "the mode is %s, not %s", stage->status.mode_state, state);
}

static void await_beat(struct stage *stage, unsigned peer, uint32_t mode)
{
	for (unsigned i = 0; i < 400 && stage->peers[peer].beat.mode != mode; i++)
		sim_run_for(stage->world, 5 * SIM_MS);
	if (stage->peers[peer].beat.mode != mode)
		sim_fail(stage->world, "the standby was told mode %u, not %u",
			 stage->peers[peer].beat.mode, mode);
}

static void fill(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	await_state(stage, "in-sync");
}

static struct stage_request *write_one(struct stage *stage, unsigned flags)
{
	return stage_write(stage, 0, (stage->next_id * 4096) % (STAGE_VOLUME_BYTES / 2), 4096,
			   flags);
}

static void expect_busy(struct stage *stage, struct stage_request *request, uint64_t for_ns)
{
	sim_run_for(stage->world, for_ns);
	if (!request->busy)
		sim_fail(stage->world, "acknowledged (%d) although no standby holds it",
			 (int)request->res);
}

/* Keeps the link alive without acknowledging anything new. */
static void stand_still(struct stage *stage, uint64_t seq, uint64_t for_ns)
{
	for (uint64_t at = 0; at < for_ns; at += 50 * SIM_MS) {
		stage_peer_ack(&stage->peers[0], seq);
		sim_run_for(stage->world, 50 * SIM_MS);
	}
}

/* ---- what is waited for -------------------------------------------------------------------------
 */

static void waits(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *request;

	fill(stage);
	for (unsigned i = 0; i < 20; i++) {
		sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
		sim_check(stage->world, peer->seq == stage->group->head_seq);
	}
	peer->mute = true;
	request = write_one(stage, 0);
	expect_busy(stage, request, 300 * SIM_MS);
	sim_check(stage->world, peer->seq == stage->group->head_seq);
	sim_check(stage->world, stage->group->journal.durable_seq == stage->group->head_seq);
	peer->mute = false;
	stage_peer_ack(peer, peer->seq);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	sim_check(stage->world, stage_status(stage)->sync_losses == 0);
	sim_check(stage->world, stage->status.peers[0].in_sync);
	sim_check(stage->world, !strcmp(stage->status.mode, "sync"));
	sim_check(stage->world, peer->hello.mode == LINK_SYNC_ONE);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_a_write_waits_for_the_standby)
{
	stage_run_raw(waits, 1, one_freeze);
}

/* What is written back is acknowledged at once: FLUSH, FUA and marks are what promises. */
static void writeback(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *flush, *fua, *again;
	struct stage_op mark = { .op.done = stage_op_done };

	fill(stage);
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	sim_check(stage->world, stage_wait(stage, stage_flush(stage)) == 0);
	sim_check(stage->world, peer->seq == stage->group->head_seq);
	peer->mute = true;
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	flush = stage_flush(stage);
	expect_busy(stage, flush, 200 * SIM_MS);
	fua = write_one(stage, EXPORT_FUA);
	expect_busy(stage, fua, 100 * SIM_MS);
	agent_group_mark(stage->group, "m", &mark.op);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, !mark.done && flush->busy && fua->busy);
	/* Durable here, but not there: nothing to wait for is not what this is. */
	again = stage_flush(stage);
	expect_busy(stage, again, 100 * SIM_MS);
	peer->mute = false;
	stage_peer_ack(peer, peer->seq);
	sim_check(stage->world, stage_wait(stage, flush) == 0 && stage_wait(stage, fua) == 0);
	sim_check(stage->world, stage_wait(stage, again) == 0);
	sim_check(stage->world, sim_run_until(stage->world, stage_op_is_done, &mark, STAGE_LIMIT));
	sim_check(stage->world, mark.res == (int64_t)stage->group->head_seq);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_written_back)
{
	stage_run_raw(writeback, 1, one_freeze_writeback);
}

/* What a standby acknowledges while it is copied to is no position that it could be promoted to. */
static void copying(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *request;

	peer->no_sync_ack = true;
	sim_check(stage->world, stage_start(stage) == 0);
	request = write_one(stage, 0);
	expect_busy(stage, request, 3 * TIMEOUT_NS);
	sim_check(stage->world, stage->group->ships[0]->durable_seq == stage->group->head_seq);
	sim_check(stage->world, state_is(stage, "frozen") && !stage->status.peers[0].in_sync);
	sim_check(stage->world, peer->beat.mode == LINK_SYNC_LOST);
	peer->no_sync_ack = false;
	stage_peer_sync_ack(peer);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	await_state(stage, "in-sync");
	await_beat(stage, 0, LINK_SYNC_HELD);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_a_copy_is_not_in_sync)
{
	stage_run_raw(copying, 1, one_freeze);
}

static void both(struct stage *stage)
{
	struct stage_request *request;

	fill(stage);
	for (unsigned i = 0; i < 2; i++) {
		stage->peers[i].mute = true;
		request = write_one(stage, 0);
		expect_busy(stage, request, 200 * SIM_MS);
		stage->peers[i].mute = false;
		stage_peer_ack(&stage->peers[i], stage->peers[i].seq);
		sim_check(stage->world, stage_wait(stage, request) == 0);
	}
	sim_check(stage->world, !strcmp(stage_status(stage)->mode, "sync-all"));
	await_beat(stage, 0, LINK_SYNC_HELD);
	/* One of them gone: none of it is on all. */
	link_close(stage->peers[1].link);
	stage->peers[1].refuse_epoch = 1; /* the same epoch: refused, not fenced */
	request = write_one(stage, 0);
	expect_busy(stage, request, 3 * TIMEOUT_NS);
	sim_check(stage->world, state_is(stage, "frozen"));
	sim_check(stage->world, stage->status.peers[0].in_sync && !stage->status.peers[1].in_sync);
	stage->peers[1].refuse_epoch = 0;
	sim_check(stage->world, stage_wait(stage, request) == 0);
	await_state(stage, "in-sync");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_all_of_two)
{
	stage_run_raw(both, 2, all_freeze);
}

static void either(struct stage *stage)
{
	struct stage_request *request;

	fill(stage);
	await_beat(stage, 1, LINK_SYNC_ONE); /* nobody knows on which */
	stage->peers[1].mute = true;
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	stage->peers[0].mute = true;
	request = write_one(stage, 0);
	expect_busy(stage, request, 200 * SIM_MS);
	stage->peers[1].mute = false;
	stage_peer_ack(&stage->peers[1], stage->peers[1].seq);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	stage->peers[0].mute = false;
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_one_of_two)
{
	stage_run_raw(either, 2, one_freeze);
}

/* ---- loss ---------------------------------------------------------------------------------------
 */

static void hang_up(struct stage *stage)
{
	stage->peers[0].refuse_epoch = 1;
	link_close(stage->peers[0].link);
}

static void lost(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *request;
	uint64_t since;

	fill(stage);
	await_beat(stage, 0, LINK_SYNC_ALL);
	hang_up(stage);
	since = sim_now(stage->world);
	request = write_one(stage, 0);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	since = sim_now(stage->world) - since;
	if (since < TIMEOUT_NS * 3 / 4 || since > TIMEOUT_NS * 3 / 2)
		sim_fail(stage->world, "alone after %lu ms", (unsigned long)(since / SIM_MS));
	sim_check(stage->world, state_is(stage, "lost") && stage->status.lost_since_ns > 0);
	sim_check(stage->world, stage->status.sync_losses == 1);
	/* From here on nobody waits. */
	since = sim_now(stage->world);
	for (unsigned i = 0; i < 10; i++)
		sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	sim_check(stage->world, sim_now(stage->world) - since < TIMEOUT_NS / 2);
	/* And back by itself; it is told so only when it holds what was acknowledged alone. */
	peer->refuse_epoch = 0;
	await_state(stage, "in-sync");
	sim_check(stage->world, stage->status.lost_since_ns == 0);
	sim_check(stage->world, peer->seq == stage->group->head_seq);
	await_beat(stage, 0, LINK_SYNC_ALL);
	peer->mute = true;
	request = write_one(stage, 0);
	expect_busy(stage, request, TIMEOUT_NS / 4);
	peer->mute = false;
	stage_peer_ack(peer, peer->seq);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	sim_check(stage->world, stage_status(stage)->sync_losses == 1);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_lost_and_back)
{
	stage_run_raw(lost, 1, one_async);
}

/* Connected, alive, and does not keep up: that is a loss as well, of which it is told first. */
static void slow(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *request;
	uint64_t seq;

	fill(stage);
	seq = peer->seq;
	peer->mute = true;
	request = write_one(stage, 0);
	stand_still(stage, seq, TIMEOUT_NS / 2);
	sim_check(stage->world, request->busy && state_is(stage, "in-sync"));
	stand_still(stage, seq, TIMEOUT_NS);
	sim_check(stage->world, !request->busy && request->res == 0);
	sim_check(stage->world, state_is(stage, "lost"));
	sim_check(stage->world, peer->beat.mode == LINK_SYNC_LOST);
	sim_check(stage->world, !stage->status.peers[0].in_sync);
	/* It does not flap: first it has to catch up. */
	stand_still(stage, seq, 2 * TIMEOUT_NS);
	sim_check(stage->world, state_is(stage, "lost") && stage->status.sync_losses == 1);
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	/* What it holds now was promised with it, but not all that was promised. */
	stage_peer_ack(peer, seq + 1);
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, peer->beat.mode == LINK_SYNC_LOST);
	peer->mute = false;
	stage_peer_ack(peer, peer->seq);
	await_state(stage, "in-sync");
	await_beat(stage, 0, LINK_SYNC_ALL);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_too_slow)
{
	stage_run_raw(slow, 1, one_async);
}

static bool streaming(void *context)
{
	return ((struct stage *)context)->group->ships[0]->state == SHIP_STREAMING;
}

/* Back, and near enough; but what was acknowledged alone it does not hold yet. */
static void promises(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_request *request;
	uint64_t caught_seq, alone_seq;

	fill(stage);
	hang_up(stage);
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	sim_check(stage->world, state_is(stage, "lost"));
	peer->mute = true;
	peer->refuse_epoch = 0;
	sim_check(stage->world, stage_until(stage, streaming));
	sim_run_for(stage->world, TIMEOUT_NS / 7);
	caught_seq = stage->group->head_seq;
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	sim_check(stage->world, stage_wait(stage, write_one(stage, 0)) == 0);
	alone_seq = stage->group->head_seq;
	stage_peer_ack(peer, caught_seq);
	await_state(stage, "waiting");
	sim_check(stage->world, stage->status.lost_since_ns > 0);
	request = write_one(stage, 0);
	expect_busy(stage, request, TIMEOUT_NS / 3);
	sim_check(stage->world, peer->beat.mode == LINK_SYNC_LOST);
	stage_peer_ack(peer, alone_seq);
	await_state(stage, "in-sync");
	await_beat(stage, 0, LINK_SYNC_ALL);
	sim_check(stage->world, request->busy);
	peer->mute = false;
	stage_peer_ack(peer, peer->seq);
	sim_check(stage->world, stage_wait(stage, request) == 0);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_told_only_what_is_so)
{
	stage_run_raw(promises, 1, one_async);
}

static void frozen(struct stage *stage)
{
	struct stage_request *request;

	fill(stage);
	await_beat(stage, 0, LINK_SYNC_HELD);
	hang_up(stage);
	request = write_one(stage, 0);
	expect_busy(stage, request, 10 * TIMEOUT_NS);
	sim_check(stage->world, state_is(stage, "frozen") && stage->status.sync_losses == 1);
	stage->peers[0].refuse_epoch = 0;
	sim_check(stage->world, stage_wait(stage, request) == 0);
	await_state(stage, "in-sync");
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage->peers[0].seq > 0);
}

UNIT(test_frozen)
{
	stage_run_raw(frozen, 1, one_freeze);
}

/* A frozen group can be stopped: who waits learns that nothing was promised. */
static void stopped(struct stage *stage)
{
	struct stage_request *request;
	struct stage_op mark = { .op.done = stage_op_done };

	fill(stage);
	hang_up(stage);
	request = write_one(stage, 0);
	agent_group_mark(stage->group, "m", &mark.op);
	await_state(stage, "frozen");
	sim_check(stage->world, request->busy && !mark.done);
	agent_group_leave(stage->group);
	sim_check(stage->world, stage_wait(stage, request) == -ESHUTDOWN);
	sim_run_for(stage->world, SIM_MS);
	sim_check(stage->world, mark.done && mark.res == -ESHUTDOWN);
	sim_check(stage->world, stage_stop(stage) == 0);
	/* And without that notice. */
	stage->peers[0].refuse_epoch = 0;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "again");
	await_state(stage, "in-sync");
	hang_up(stage);
	request = write_one(stage, 0);
	sim_run_for(stage->world, 10 * SIM_MS);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, !request->busy && request->res == -ESHUTDOWN);
}

UNIT(test_stops_frozen)
{
	stage_run_raw(stopped, 1, one_freeze);
}

/* A start knows of no standby: it waits for one. */
static void starts(struct stage *stage)
{
	struct stage_request *request, *flush;

	fill(stage);
	hang_up(stage);
	request = write_one(stage, 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, request->busy);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start(stage) == 0);
	/* What was found in the journal is nowhere else yet: a flush promises it. */
	flush = stage_flush(stage);
	expect_busy(stage, flush, 5 * TIMEOUT_NS);
	stage->peers[0].refuse_epoch = 0;
	sim_check(stage->world, stage_wait(stage, flush) == 0);
	sim_check(stage->world, stage->peers[0].seq == stage->group->head_seq);
	await_state(stage, "in-sync");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_starts_waiting)
{
	stage_run_raw(starts, 1, one_freeze);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_write_waits_for_the_standby),
		cmocka_unit_test(test_written_back),
		cmocka_unit_test(test_a_copy_is_not_in_sync),
		cmocka_unit_test(test_all_of_two),
		cmocka_unit_test(test_one_of_two),
		cmocka_unit_test(test_lost_and_back),
		cmocka_unit_test(test_too_slow),
		cmocka_unit_test(test_told_only_what_is_so),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_stops_frozen),
		cmocka_unit_test(test_starts_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
