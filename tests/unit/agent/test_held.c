/* SPDX-License-Identifier: Apache-2.0 */
/* Groups that are not served because of what was found, and what the operator's word does. */
#include "tests/unit/agent/stage.h"

struct word {
	struct agent_task task;
	bool done;
};

static void said(struct agent_task *task)
{
	container_of(task, struct word, task)->done = true;
}

static bool is_said(void *context)
{
	return ((struct word *)context)->done;
}

static int accept_epoch(struct stage *stage, uint64_t epoch)
{
	struct word *word = sim_alloc(stage->world, sizeof(*word));

	word->task = (struct agent_task){
		.kind = AGENT_ACCEPT, .has_expect_epoch = true, .expect_epoch = epoch, .done = said
	};
	agent_group_task(stage->group, &word->task);
	sim_check(stage->world, sim_run_until(stage->world, is_said, word, STAGE_LIMIT));
	sim_check(stage->world, !word->task.res == !word->task.text[0]);
	return word->task.res;
}

static void serve(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 20; i++)
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, i % 2, i * 8192, 8192, 0)) == 0);
	stage_converge(stage, "before");
}

static void expect_flags(struct stage *stage, uint32_t set, uint32_t clear)
{
	static struct superblock sb;

	sim_run_for(stage->world, 50 * SIM_MS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, (sb.flags & set) == set && !(sb.flags & clear));
}

/* A1: not served, nobody is sent anything, for how long it takes. */
static void expect_held(struct stage *stage, const char *words)
{
	struct stage_peer *peer = &stage->peers[0];
	unsigned starts = peer->starts;

	sim_check(stage->world, stage_start(stage) == -EPERM);
	sim_run_for(stage->world, 20 * SIM_SECOND);
	if (!strstr(stage_status(stage)->held, words))
		sim_fail(stage->world, "held: \"%s\"", stage->status.held);
	sim_check(stage->world, !strcmp(stage->status.state, "held"));
	sim_check(stage->world, stage->starts == 1 && stage->fails == 0);
	sim_check(stage->world, !agent_group_export_at(stage->group, 0));
	sim_check(stage->world, peer->starts == starts);
	expect_flags(stage, SUPERBLOCK_HELD, 0);
}

static void expect_served(struct stage *stage, uint64_t epoch)
{
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	sim_check(stage->world, !stage_status(stage)->held[0]);
	sim_check(stage->world, stage->status.epoch == epoch);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, EXPORT_FUA)) == 0);
	expect_flags(stage, 0, SUPERBLOCK_HELD | SUPERBLOCK_HANDOVER | SUPERBLOCK_CLEAN);
	stage_superblock_is(stage, GROUP_PRIMARY, epoch);
}

static void accepted(struct stage *stage, uint64_t epoch)
{
	struct superblock *sb = &stage->group->dir.sb;
	uint64_t head = stage->group->head_seq;

	sim_check(stage->world, accept_epoch(stage, epoch + 7) == -ESTALE);
	stage->starts = 0;
	sim_check(stage->world, accept_epoch(stage, epoch) == 0);
	sim_check(stage->world, sb->history[sb->history_count - 1].epoch == epoch + 2);
	sim_check(stage->world, sb->history[sb->history_count - 1].first_seq == head + 1);
	expect_served(stage, epoch + 2);
	sim_check(stage->world, accept_epoch(stage, epoch + 2) == -EALREADY);
}

/* ---- older than its standby -------------------------------------------------------------------
 */

static void older(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_check(stage->world, accept_epoch(stage, 1) == -EALREADY);
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->seq += 100;
	peer->durable_epoch = 1;
	expect_held(stage, "older than its standby");
	sim_check(stage->world, stage_stop(stage) == -EPERM);
	/* Still so when nobody says it any more. */
	peer->silent = true;
	expect_held(stage, "earlier start");
	stage_crash(stage, SIM_POWER);
	expect_held(stage, "earlier start");
	peer->silent = false;
	link_close(peer->link);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, strstr(stage_status(stage)->held, "older than its standby"));
	accepted(stage, 1);
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->seq -= 100;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "with what was accepted");
}

/* A standby that was rolled back or changed is diverged at its own end: it has nothing that we
 * lack, and is copied anew. */
static void at_its_own_end(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->diverged = true;
	peer->common_seq = peer->own_seq = peer->seq;
	peer->common_chain = 0;
	peer->durable_epoch = 1;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "copied anew");
	sim_check(stage->world, peer->start.sync && peer->start.reset);
	expect_flags(stage, 0, SUPERBLOCK_HELD);
}

/* What it wrote under an older epoch is its own affair. */
static void older_epoch(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->refuse_epoch = 1;
	peer->refuse_code = LINK_REFUSE_DIVERGED;
	expect_held(stage, "older than its standby");
	accepted(stage, 1);
	sim_check(stage->world, stage_stop(stage) == 0);
	/* It says the same under its own epoch, which is not ours any more. */
	sim_check(stage->world, stage_start(stage) == 0);
}

static void other_content(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->chain_wrong = 1; /* at its end */
	expect_held(stage, "other content at seq 20");
	sim_check(stage->world, stage_stop(stage) == -EPERM);
	expect_flags(stage, SUPERBLOCK_HELD, 0);
}

/* The same where the journal has to be asked. */
static void other_content_before(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_cut_both(stage->node, peer->node, SIM_CUT_RESET);
	for (unsigned i = 0; i < 20; i++)
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, i % 2, i * 8192, 8192, 0)) == 0);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_heal_all(stage->world);
	peer->chain_wrong = 1;
	expect_held(stage, "other content at seq 20");
}

static void rival(struct stage *stage)
{
	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	stage->peers[0].refuse_epoch = 1;
	stage->peers[0].refuse_code = LINK_REFUSE_NOT_STANDBY;
	expect_held(stage, "primary under the same epoch");
	/* The other way out: that one rules. */
	stage->peers[0].refuse_epoch = 3;
	stage->peers[0].refuse_code = 0;
	sim_check(stage->world, stage_until(stage, stage_is_released));
	expect_flags(stage, 0, SUPERBLOCK_HELD);
	stage_superblock_is(stage, GROUP_FENCED, 1);
}

UNIT(test_older)
{
	stage_run_raw(older, 1, NULL);
	stage_run_raw(older_epoch, 1, NULL);
	stage_run_raw(at_its_own_end, 1, NULL);
}

UNIT(test_other_content)
{
	stage_run_raw(other_content, 1, NULL);
	stage_run_raw(other_content_before, 1, NULL);
}

UNIT(test_rival)
{
	stage_run_raw(rival, 1, NULL);
}

/* ---- asked to take over, and gone ---------------------------------------------------------------
 */

struct change {
	struct agent_switchover switchover;
	bool done;
};

static void changed(struct agent_switchover *switchover)
{
	container_of(switchover, struct change, switchover)->done = true;
}

static struct change *ask(struct stage *stage)
{
	struct change *change = sim_alloc(stage->world, sizeof(*change));

	serve(stage);
	change->switchover = (struct agent_switchover){ .node = "standby0",
							.timeout_ns = SIM_SECOND,
							.done = changed };
	agent_group_switchover(stage->group, &change->switchover);
	while (!stage->peers[0].asked)
		sim_check(stage->world, sim_step(stage->world));
	stage->peers[0].silent = true;
	link_close(stage->peers[0].link);
	return change;
}

/* While it is served, its requests held. */
static void gone_serving(struct stage *stage)
{
	struct change *change = ask(stage);
	struct stage_request *held = stage_write(stage, 0, 4096, 4096, 0);

	sim_run_for(stage->world, 5 * SIM_SECOND);
	sim_check(stage->world, change->done && change->switchover.res == -EINPROGRESS);
	sim_check(stage->world, held->busy);
	sim_check(stage->world, accept_epoch(stage, 1) == 0);
	sim_check(stage->world, stage_wait(stage, held) == 0);
	expect_flags(stage, 0, SUPERBLOCK_HANDOVER | SUPERBLOCK_HELD);
	stage_superblock_is(stage, GROUP_PRIMARY, 3);
	/* It did take over: above its epoch (A2), it is the one that is fenced. */
	stage->peers[0].silent = false;
	stage->peers[0].refuse_epoch = 2;
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, stage->fails == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, EXPORT_FUA)) == 0);
}

static void gone_restarted(struct stage *stage)
{
	(void)ask(stage);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == -EPERM);
	sim_check(stage->world, strstr(stage_status(stage)->held, "has not answered"));
	accepted(stage, 1);
}

/* Nobody is left to be asked. */
static void gone_unknown(struct stage *stage)
{
	(void)ask(stage);
	stage_crash(stage, SIM_POWER);
	snprintf(stage->peers[0].name, sizeof(stage->peers[0].name), "other");
	expect_held(stage, "no standby in the configuration");
	accepted(stage, 1);
}

UNIT(test_gone)
{
	stage_run_raw(gone_serving, 1, NULL);
	stage_run_raw(gone_restarted, 1, NULL);
	stage_run_raw(gone_unknown, 1, NULL);
}

/* ---- written to behind its back
 * ------------------------------------------------------------------
 */

static void poke(struct stage *stage, uint64_t off)
{
	static uint8_t bytes[4096];

	memset(bytes, 0x77, sizeof(bytes));
	memcpy(stage->content[1] + off, bytes, sizeof(bytes));
	sim_file_poke(stage->node, "/vol/v1", off, bytes, sizeof(bytes));
}

static void behind(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	expect_flags(stage, SUPERBLOCK_CLEAN, 0);
	/* Nobody did. */
	sim_check(stage->world, stage_start(stage) == 0);
	expect_flags(stage, 0, SUPERBLOCK_CLEAN);
	sim_check(stage->world, stage_stop(stage) == 0);
	poke(stage, 700 << 10);
	for (unsigned i = 0; i < 2; i++) {
		expect_held(stage, "\"v1\" was changed");
		expect_flags(stage, SUPERBLOCK_CLEAN | SUPERBLOCK_HELD | SUPERBLOCK_SUSPECT, 0);
		if (i == 0)
			sim_check(stage->world, stage_stop(stage) == -EPERM);
	}
	peer->data_bytes = 0;
	accepted(stage, 1);
	stage_converge(stage, "with what was written behind its back");
	sim_check(stage->world, peer->start.sync);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
}

/* A higher epoch does not make it any better: the engine has to know. */
static void behind_and_fenced(struct stage *stage)
{
	static struct superblock sb;

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	poke(stage, 700 << 10);
	stage->peers[0].refuse_epoch = 3;
	stage->peers[0].refuse_code = 0;
	stage_start(stage);
	sim_check(stage->world, stage_until(stage, stage_is_released));
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_FENCED && !(sb.flags & SUPERBLOCK_HELD));
	sim_check(stage->world,
		  (sb.flags & SUPERBLOCK_SUSPECT) && (sb.flags & SUPERBLOCK_SELF_DIRTY));
}

/* The stamps may look right again: it was changed. */
static void behind_and_undone(struct stage *stage)
{
	static struct superblock sb;

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	poke(stage, 700 << 10);
	expect_held(stage, "\"v1\" was changed");
	sim_check(stage->world, stage_stop(stage) == -EPERM);
	stage_superblock(stage, &sb);
	memset(sb.stamps, 0, sizeof(sb.stamps));
	stage_superblock_poke(stage, &sb);
	expect_held(stage, "behind the agent's back");
	accepted(stage, 1);
	expect_flags(stage, 0, SUPERBLOCK_SUSPECT | SUPERBLOCK_SELF_DIRTY);
	stage_converge(stage, "accepted");
}

/* A3: an engine made it primary by force; killed anywhere in its start. */
static unsigned forced_skip;
static bool forced_started;

static void forced(struct stage *stage)
{
	static struct superblock sb;

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	poke(stage, 700 << 10);
	stage_superblock(stage, &sb);
	memset(sb.stamps, 0, sizeof(sb.stamps));
	sb.flags |= SUPERBLOCK_SUSPECT;
	sb.peer_count = 0;
	memset(sb.peers, 0, sizeof(sb.peers));
	stage_superblock_poke(stage, &sb);
	stage_begin(stage);
	for (unsigned i = 0; i < forced_skip && !stage->starts; i++)
		sim_step(stage->world);
	forced_started = stage->starts;
	stage_crash(stage, SIM_POWER);
	link_close(stage->peers[0].link);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, !stage_status(stage)->suspect);
	expect_flags(stage, 0, SUPERBLOCK_SUSPECT);
	stage_converge(stage, "with what was written behind its back");
}

/* Behind a crash nobody can tell. */
static void behind_crash(struct stage *stage)
{
	serve(stage);
	stage_crash(stage, SIM_POWER);
	poke(stage, 700 << 10);
	sim_check(stage->world, stage_start(stage) == 0);
}

UNIT(test_behind)
{
	stage_run_raw(behind, 1, NULL);
	stage_run_raw(behind_crash, 1, NULL);
	stage_run_raw(behind_and_fenced, 1, NULL);
	stage_run_raw(behind_and_undone, 1, NULL);
}

UNIT(test_forced)
{
	forced_started = false;
	for (forced_skip = 0; !forced_started; forced_skip += 3)
		stage_run_raw(forced, 1, NULL);
	assert_in_range(forced_skip, 30, 2000);
}

/* Killed at every moment of it: held, or accepted and durable. */
static unsigned skip;

static void interrupted(struct stage *stage)
{
	struct word word = { .task = { .kind = AGENT_ACCEPT, .done = said } };
	static struct superblock sb;

	serve(stage);
	sim_check(stage->world, stage_stop(stage) == 0);
	stage->peers[0].seq += 100;
	stage->peers[0].durable_epoch = 1;
	sim_check(stage->world, stage_start(stage) == -EPERM);
	sim_run_for(stage->world, 100 * SIM_MS);
	agent_group_task(stage->group, &word.task);
	for (unsigned i = 0; i < skip; i++)
		sim_step(stage->world);
	stage_superblock(stage, &sb);
	if (word.done)
		sim_check(stage->world, word.task.res == 0 && sb.epoch == 3);
	stage_crash(stage, SIM_POWER);
	link_close(stage->peers[0].link);
	sim_check(stage->world,
		  stage_start(stage) == (sb.epoch == 3 ? 0 : -EPERM) || sb.epoch == 1);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.epoch == 3 || (sb.flags & SUPERBLOCK_HELD));
}

UNIT(test_interrupted)
{
	for (skip = 0; skip < 40; skip++)
		stage_run_raw(interrupted, 1, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_older),  cmocka_unit_test(test_other_content),
		cmocka_unit_test(test_rival),  cmocka_unit_test(test_gone),
		cmocka_unit_test(test_behind), cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_forced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
