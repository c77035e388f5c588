/* SPDX-License-Identifier: Apache-2.0 */
/* Switchover as the primary does it: held requests, and who may decide what. */
#include "tests/unit/agent/stage.h"

#define LOAD 24u

struct change {
	struct agent_switchover switchover;
	bool done;
};

static void changed(struct agent_switchover *switchover)
{
	container_of(switchover, struct change, switchover)->done = true;
}

static bool is_changed(void *context)
{
	return ((struct change *)context)->done;
}

static struct change *begin(struct stage *stage)
{
	struct change *change = sim_alloc(stage->world, sizeof(*change));

	change->switchover.timeout_ns = 3 * SIM_SECOND / 2;
	change->switchover.done = changed;
	agent_group_switchover(stage->group, &change->switchover);
	return change;
}

static int end(struct stage *stage, struct change *change)
{
	sim_check(stage->world, sim_run_until(stage->world, is_changed, change, STAGE_LIMIT));
	return change->switchover.res;
}

static void serve(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 40; i++)
		stage_write(stage, i % 2, i * 8192, 8192, 0);
	stage_converge(stage, "before");
}

static void expect_flag(struct stage *stage, bool set)
{
	static struct superblock sb;

	stage_superblock(stage, &sb);
	sim_check(stage->world, !(sb.flags & SUPERBLOCK_HANDOVER) == !set);
	sim_check(stage->world, !strcmp(sb.handover_node, set ? "standby0" : ""));
}

static struct stage_request *writes[LOAD];

/* Requests of all kinds, in flight while the switchover begins. */
static void load(struct stage *stage)
{
	for (unsigned i = 0; i < LOAD; i++)
		writes[i] = stage_write(stage, i % 2, i * 4096, 4096, i % 3 ? 0 : EXPORT_FUA);
}

/* How many of them were answered with 0; the others with `res`. */
static unsigned answers(struct stage *stage, int res)
{
	unsigned good = 0;

	for (unsigned i = 0; i < LOAD; i++) {
		int64_t got = stage_wait(stage, writes[i]);

		sim_check(stage->world, got == 0 || got == res);
		good += got == 0;
	}
	return good;
}

static void goes_on(struct stage *stage, const char *what)
{
	sim_check(stage->world, stage->fails == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, EXPORT_FUA)) == 0);
	stage_converge(stage, what);
	stage_check_read(stage, what);
	expect_flag(stage, false);
	stage_superblock_is(stage, GROUP_PRIMARY, 1);
}

/* ---- it takes over ----------------------------------------------------------------------------
 */

static unsigned skip; /* events between the begin and the load */

static void takes_over(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct change *change;
	uint64_t head;
	unsigned good;
	int refusal;

	serve(stage);
	peer->take = STAGE_TAKES_OVER;
	head = stage->group->head_seq;
	change = begin(stage);
	for (unsigned i = 0; i < skip && !change->done; i++)
		sim_step(stage->world);
	refusal = agent_is_out(stage->group) ? -EIO : -ESHUTDOWN;
	load(stage);
	sim_check(stage->world, end(stage, change) == 0);
	sim_check(stage->world, change->switchover.epoch == 2);
	sim_check(stage->world, change->switchover.seq == peer->asked_seq && peer->asked == 1);
	sim_check(stage->world, !strcmp(change->switchover.to, "standby0"));
	sim_check(stage->world, change->switchover.held_ns > 0 &&
					change->switchover.held_ns <= change->switchover.took_ns);
	good = answers(stage, refusal);
	/* What was acknowledged is what was handed over: H1. */
	sim_check(stage->world, peer->asked_seq >= head + good);
	for (unsigned i = 0; i < LOAD; i++)
		if (writes[i]->res == 0)
			sim_check(stage->world,
				  !memcmp(peer->content[i % 2] + i * 4096, writes[i]->buf, 4096));
	sim_check(stage->world, stage->fails == 1 && stage->failed == -ESTALE);
	sim_check(stage->world, stage_until(stage, stage_is_released));
	stage_superblock_is(stage, GROUP_FENCED, 1);
	expect_flag(stage, false);
	sim_check(stage->world, stage_stop(stage) == -ESTALE);
}

UNIT(test_takes_over)
{
	for (skip = 0; skip < 120; skip += 1 + skip / 6)
		stage_run_raw(takes_over, 1, NULL);
}

/* ---- it does not ------------------------------------------------------------------------------
 */

static void declines(struct stage *stage)
{
	struct change *change;

	serve(stage);
	stage->peers[0].take = STAGE_DECLINES;
	for (unsigned i = 0; i < 3; i++) {
		change = begin(stage);
		while (!stage->group->handover.held_since_ns)
			sim_check(stage->world, sim_step(stage->world));
		load(stage);
		sim_check(stage->world, end(stage, change) == -EAGAIN);
		sim_check(stage->world, strstr(change->switchover.text, "not now"));
		sim_check(stage->world, answers(stage, 0) == LOAD);
		goes_on(stage, "after it declined");
	}
	stage->peers[0].take = STAGE_TAKES_OVER;
	sim_check(stage->world, end(stage, begin(stage)) == 0);
}

UNIT(test_declines)
{
	stage_run_raw(declines, 1, NULL);
}

/* It does not acknowledge the last writes: nothing is asked, requests go on. */
static void too_slow(struct stage *stage)
{
	struct stage_request *held;
	struct change *change;

	serve(stage);
	stage->peers[0].mute = true;
	stage_write(stage, 0, 0, 4096, 0);
	change = begin(stage);
	sim_run_for(stage->world, SIM_SECOND / 2);
	held = stage_write(stage, 0, 0, 4096, 0);
	sim_run_for(stage->world, SIM_SECOND / 2);
	sim_check(stage->world, held->busy && !change->done);
	sim_check(stage->world, strstr(stage_status(stage)->detail, "held"));
	sim_check(stage->world, end(stage, change) == -ETIMEDOUT);
	sim_check(stage->world, stage_wait(stage, held) == 0);
	sim_check(stage->world, change->switchover.held_ns < 1600 * SIM_MS);
	stage->peers[0].mute = false;
	goes_on(stage, "after the time was over");
	sim_check(stage->world, stage->peers[0].asked == 0);
}

static void too_far(struct stage *stage)
{
	serve(stage);
	stage->peers[0].mute = true;
	for (unsigned i = 0; i < 40; i++)
		sim_check(stage->world,
			  stage_wait(stage,
				     stage_write(stage, i % 2, 0, STAGE_VOLUME_BYTES / 2, 0)) == 0);
	stage->group->ships[0]->unacked_bytes += 64u << 20;
	sim_check(stage->world, end(stage, begin(stage)) == -EAGAIN);
	sim_check(stage->world, !stage->group->handover.held_since_ns);
	sim_check(stage->world, stage->peers[0].asked == 0);
}

static void cut_before(struct stage *stage)
{
	struct change *change;

	serve(stage);
	stage->peers[0].mute = true;
	stage_write(stage, 0, 0, 4096, 0);
	change = begin(stage);
	while (!stage->group->handover.held_since_ns)
		sim_check(stage->world, sim_step(stage->world));
	load(stage);
	link_close(stage->peers[0].link);
	sim_check(stage->world, end(stage, change) == -EAGAIN);
	sim_check(stage->world, answers(stage, 0) == LOAD);
	stage->peers[0].mute = false;
	goes_on(stage, "after the cut");
	sim_check(stage->world, stage->peers[0].asked == 0);
}

UNIT(test_given_up)
{
	stage_run_raw(too_slow, 1, NULL);
	stage_run_raw(too_far, 1, NULL);
	stage_run_raw(cut_before, 1, NULL);
}

static void expect_no(struct stage *stage, const char *node, uint64_t expect_epoch, int res)
{
	struct change change = { .switchover = { .node = node,
						 .timeout_ns = SIM_SECOND,
						 .has_expect_epoch = expect_epoch != 0,
						 .expect_epoch = expect_epoch,
						 .done = changed } };

	agent_group_switchover(stage->group, &change.switchover);
	sim_check(stage->world, change.done && change.switchover.res == res);
	sim_check(stage->world, change.switchover.text[0]);
}

static void choices(struct stage *stage)
{
	serve(stage);
	expect_no(stage, NULL, 0, -EINVAL);
	expect_no(stage, "nobody", 0, -ENOENT);
	expect_no(stage, "standby1", 7, -ESTALE);
	stage->peers_conf[1].role = CONF_PEER_STANDBY;
	expect_no(stage, "standby1", 0, -EPERM);
	stage->peers_conf[1].role = CONF_PEER_BOTH;
	link_close(stage->peers[1].link);
	while (stage->group->ships[1]->state == SHIP_STREAMING)
		sim_check(stage->world, sim_step(stage->world));
	expect_no(stage, "standby1", 1, -EAGAIN);
	(void)begin(stage); /* of two: said at once */
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_choices)
{
	stage_run_raw(choices, 2, NULL);
}

/* ---- no answer: only its word decides -----------------------------------------------------------
 */

static struct change *ask(struct stage *stage)
{
	struct change *change;

	serve(stage);
	change = begin(stage);
	while (!stage->peers[0].asked)
		sim_check(stage->world, sim_step(stage->world));
	load(stage);
	return change;
}

/* H2: however long it takes. */
static void unknown(struct stage *stage)
{
	struct change *change = ask(stage);

	sim_check(stage->world, end(stage, change) == -EINPROGRESS);
	sim_run_for(stage->world, 20 * SIM_SECOND);
	for (unsigned i = 0; i < LOAD; i++)
		sim_check(stage->world, writes[i]->busy);
	expect_flag(stage, true);
	expect_no(stage, NULL, 0, -EBUSY);
	stage->peers[0].silent = true;
	link_close(stage->peers[0].link);
	sim_run_for(stage->world, 20 * SIM_SECOND);
	for (unsigned i = 0; i < LOAD; i++)
		sim_check(stage->world, writes[i]->busy);
	stage->peers[0].silent = false;
}

static void unknown_not(struct stage *stage)
{
	unknown(stage);
	sim_check(stage->world, answers(stage, 0) == LOAD);
	goes_on(stage, "after it was welcomed");
}

static void unknown_busy(struct stage *stage)
{
	unknown(stage);
	stage->peers[0].refuse_epoch = 1;
	stage->peers[0].refuse_code =
		LINK_REFUSE_VOLUMES; /* says nothing about an older question */
	sim_run_for(stage->world, 20 * SIM_SECOND);
	for (unsigned i = 0; i < LOAD; i++)
		sim_check(stage->world, writes[i]->busy);
	expect_flag(stage, true);
}

static void unknown_taken(struct stage *stage)
{
	unknown(stage);
	stage->peers[0].refuse_epoch = 2;
	sim_check(stage->world, answers(stage, -ESHUTDOWN) == 0);
	sim_check(stage->world, stage_until(stage, stage_is_released));
	stage_superblock_is(stage, GROUP_FENCED, 1);
	expect_flag(stage, false);
}

UNIT(test_unknown)
{
	stage_run_raw(unknown_not, 1, NULL);
	stage_run_raw(unknown_busy, 1, NULL);
	stage_run_raw(unknown_taken, 1, NULL);
}

/* The same across a restart: settle_timeout does not count. */
static void restarted(struct stage *stage, bool clean)
{
	(void)ask(stage);
	if (clean) {
		sim_check(stage->world, stage_stop(stage) == 0);
		sim_check(stage->world, answers(stage, -ESHUTDOWN) == 0);
	} else {
		stage_crash(stage, SIM_POWER);
		link_close(stage->peers[0].link);
	}
	expect_flag(stage, true);
	stage->peers[0].silent = true;
	stage_begin(stage);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	/* Who starts it is told after settle_timeout, and it is asked on. */
	sim_check(stage->world, stage->starts == 1 && stage->started == -EPERM);
	sim_check(stage->world, !agent_group_export_at(stage->group, 0));
	sim_check(stage->world, strstr(stage_status(stage)->held, "standby0"));
	stage->starts = 0;
}

static bool restart_clean;

static void restarted_not(struct stage *stage)
{
	restarted(stage, restart_clean);
	stage->peers[0].silent = false;
	link_close(stage->peers[0].link);
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	expect_flag(stage, false);
}

static void restarted_taken(struct stage *stage)
{
	restarted(stage, restart_clean);
	stage->peers[0].silent = false;
	stage->peers[0].refuse_epoch = 2;
	link_close(stage->peers[0].link);
	sim_check(stage->world, stage_until(stage, stage_is_released) && !stage->starts);
	stage_superblock_is(stage, GROUP_FENCED, 1);
	expect_flag(stage, false);
}

UNIT(test_restarted)
{
	for (unsigned i = 0; i < 2; i++) {
		restart_clean = i;
		stage_run_raw(restarted_not, 1, NULL);
		stage_run_raw(restarted_taken, 1, NULL);
	}
}

/* ---- stopped, and killed, at every moment -------------------------------------------------------
 */

static bool kill_it;

static void interrupted(struct stage *stage)
{
	static struct superblock sb;
	struct change *change;

	serve(stage);
	stage->peers[0].take = skip % 2 ? STAGE_DECLINES : STAGE_TAKES_OVER;
	change = begin(stage);
	load(stage);
	for (unsigned i = 0; i < skip; i++)
		sim_step(stage->world);
	if (kill_it) {
		stage_crash(stage, SIM_POWER);
		link_close(stage->peers[0].link);
	} else {
		(void)stage_stop(stage);
	}
	sim_check(stage->world, kill_it || change->done);
	stage_superblock(stage, &sb);
	/* It was not asked before the superblock said so. */
	if (stage->peers[0].asked && stage->peers[0].take == STAGE_TAKES_OVER)
		sim_check(stage->world,
			  sb.role == GROUP_FENCED || (sb.flags & SUPERBLOCK_HANDOVER));
	stage_begin(stage);
	sim_check(stage->world, stage_until(stage, stage_is_started));
	if (stage->peers[0].asked && stage->peers[0].take == STAGE_TAKES_OVER) {
		sim_check(stage->world, stage->started == -ESTALE);
		return;
	}
	sim_check(stage->world, stage->started == 0);
	expect_flag(stage, false);
}

UNIT(test_interrupted)
{
	for (unsigned i = 0; i < 2; i++) {
		kill_it = i;
		for (skip = 0; skip < 400; skip += 1 + skip / 8)
			stage_run_raw(interrupted, 1, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes_over),  cmocka_unit_test(test_declines),
		cmocka_unit_test(test_given_up),    cmocka_unit_test(test_choices),
		cmocka_unit_test(test_unknown),	    cmocka_unit_test(test_restarted),
		cmocka_unit_test(test_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
