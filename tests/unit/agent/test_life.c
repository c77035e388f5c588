/* SPDX-License-Identifier: Apache-2.0 */
/* Starting, settling, stopping, being fenced, failing. */
#include "tests/unit/agent/stage.h"

static void expect_refused(struct stage *stage, int res, const char *words)
{
	int got = stage_start(stage);

	if (got != res || !strstr(stage_status(stage)->detail, words))
		sim_fail(stage->world, "started with %d, not %d: \"%s\"", got, res,
			 stage->status.detail);
	sim_check(stage->world, !agent_group_export_at(stage->group, 0));
	sim_check(stage->world, stage_stop(stage) == res);
}

/* ---- start and stop ---------------------------------------------------------------------------
 */

static void clean_stop(struct stage *stage)
{
	static struct superblock sb;
	struct stage_request *last = NULL;

	stage_begin(stage);
	sim_check(stage->world, !strcmp(stage_status(stage)->state, "starting"));
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, !(sb.flags & SUPERBLOCK_CLEAN));
	for (unsigned i = 0; i < 10; i++)
		last = stage_write(stage, i % 2, i * 4096, 4096, 0);
	/* At once, with writes under way: what was submitted is part of it. */
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, !last->busy && last->res == 0 && stage->fails == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.flags & SUPERBLOCK_CLEAN);
	sim_check(stage->world, sb.applied_seq == 10 && sb.durable_seq == 10);
	stage_check_volumes(stage, "after a clean stop");
	sim_check(stage->world, stage_start(stage) == 0 && stage->group->head_seq == 10);
	stage_check_read(stage, "started again");
	agent_group_stop(stage->group);
	last = stage_write(stage, 0, 0, 4096, 0);
	sim_check(stage->world, stage_end_stop(stage) == 0);
	sim_check(stage->world, last->res == -ESHUTDOWN);
}

UNIT(test_clean_stop)
{
	stage_run_raw(clean_stop, 0, NULL);
}

static void refusals(struct stage *stage)
{
	static struct superblock good, sb;
	struct io_lock *lock;
	uint8_t zeroes[512] = { 0 };

	stage_superblock(stage, &good);
	sb = good;
	sb.role = GROUP_FENCED;
	sb.fenced_by_epoch = 7;
	snprintf(sb.fenced_by, sizeof(sb.fenced_by), "standby9");
	stage_superblock_poke(stage, &sb);
	expect_refused(stage, -ESTALE, "epoch 7 rules at standby9");
	sb = good;
	sb.role = GROUP_STANDBY;
	stage_superblock_poke(stage, &sb);
	expect_refused(stage, -EPERM, "holdfast promote");
	sb = good;
	stage_superblock_poke(stage, &sb);
	sim_check(stage->world, io_lock(sim_node_io(stage->node), STAGE_DIR "/lock", &lock) == 0);
	expect_refused(stage, -EWOULDBLOCK, "another process owns");
	io_unlock(lock);
	stage->volumes[1].name = (char *)(uintptr_t) "v9";
	expect_refused(stage, -ENOENT, "\"v1\" of the group has no path here");
	stage->volumes[1].name = (char *)(uintptr_t) "v1";
	/* More was durable than the journal holds. */
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, EXPORT_FUA)) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage_stop(stage) == 0);
	stage_superblock(stage, &sb);
	sb.applied_seq = 0;
	sb.applied_bytes = sb.applied_off = 0;
	sb.applied_slot = 0;
	sb.applied_chain = segment_chain_root(&sb.group);
	sb.flags = 0;
	stage_superblock_poke(stage, &sb);
	sim_file_poke(stage->node, STAGE_DIR "/journal/00000000", 0, zeroes, sizeof(zeroes));
	expect_refused(stage, -EUCLEAN, "journal/00000000");
	sim_file_poke(stage->node, STAGE_DIR "/superblock", 0, zeroes, sizeof(zeroes));
	sim_file_poke(stage->node, STAGE_DIR "/superblock", SUPERBLOCK_SLOT_BYTES, zeroes,
		      sizeof(zeroes));
	expect_refused(stage, -EUCLEAN, "");
}

UNIT(test_refusals)
{
	stage_run_raw(refusals, 0, NULL);
}

/* A stop at any moment of a start comes to an end. */
static void stop_while_starting(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	for (unsigned i = 0; i < 60; i++)
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, i * 8192, 8192,
								      EXPORT_FUA)) == 0);
	for (unsigned steps = 0; steps < 60; steps++) {
		stage_crash(stage, SIM_POWER);
		stage_begin(stage);
		for (unsigned i = 0; i < steps; i++)
			sim_step(stage->world);
		agent_group_stop(stage->group);
		stage_end_stop(stage);
		sim_check(stage->world, stage->fails == 0);
	}
	sim_check(stage->world, stage_start(stage) == 0 && stage->group->head_seq == 60);
	stage_check_read(stage, "after stops");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_stop_while_starting)
{
	stage_run_raw(stop_while_starting, 0, NULL);
}

/* ---- settling ---------------------------------------------------------------------------------
 */

static void settle_welcome(struct stage *stage)
{
	uint64_t since = sim_now(stage->world);

	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, sim_now(stage->world) - since < SIM_SECOND / 2);
	sim_check(stage->world, stage->peers[0].hellos == 1);
}

UNIT(test_settle_welcome)
{
	stage_run_raw(settle_welcome, 1, NULL);
}

static void settle_silent(struct stage *stage)
{
	uint64_t since = sim_now(stage->world);

	stage->peers[0].silent = true;
	stage_begin(stage);
	sim_run_for(stage->world, SIM_SECOND / 2);
	sim_check(stage->world, !strcmp(stage_status(stage)->state, "settling"));
	sim_check(stage->world, !agent_group_export_at(stage->group, 0) && !stage->starts);
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	since = sim_now(stage->world) - since;
	sim_check(stage->world, since >= SIM_SECOND && since < SIM_SECOND + 100 * SIM_MS);
	sim_check(stage->world, agent_group_export(stage->group, "v1") != NULL);
	sim_check(stage->world, !agent_group_export(stage->group, "v2"));
}

UNIT(test_settle_silent)
{
	stage_run_raw(settle_silent, 1, NULL);
}

/* The second one is asked as well; until then nothing is served. */
static void settle_two(struct stage *stage)
{
	stage->peers[1].silent = true;
	stage_begin(stage);
	sim_run_for(stage->world, SIM_SECOND / 2);
	sim_check(stage->world, stage->peers[0].starts == 1 && !stage->starts);
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
}

UNIT(test_settle_two)
{
	stage_run_raw(settle_two, 2, NULL);
}

static void expect_fenced(struct stage *stage, uint64_t epoch)
{
	static struct superblock sb;

	sim_check(stage->world, stage_status(stage)->fenced_by_epoch == epoch);
	sim_check(stage->world, !strcmp(stage->status.role, "fenced"));
	sim_check(stage->world, !strcmp(stage->status.fenced_by, "standby0"));
	sim_check(stage->world, !agent_group_export_at(stage->group, 0));
	sim_run_for(stage->world, 100 * SIM_MS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.role == GROUP_FENCED && sb.fenced_by_epoch == epoch);
}

/* S3: whoever cannot be asked, or cannot say, is asked again until the time is over. */
static void settle_refused(struct stage *stage)
{
	uint64_t since = sim_now(stage->world);

	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	stage_begin(stage);
	sim_run_for(stage->world, SIM_SECOND * 9 / 10);
	sim_check(stage->world, !stage->starts);
	sim_check(stage->world, strstr(stage_status(stage)->detail, "waiting for standby0"));
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	since = sim_now(stage->world) - since;
	sim_check(stage->world, since >= SIM_SECOND && since < SIM_SECOND + 100 * SIM_MS);
}

static void settle_refused_shortly(struct stage *stage)
{
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	stage_begin(stage);
	sim_run_for(stage->world, SIM_SECOND / 2);
	sim_check(stage->world, !stage->starts);
	sim_heal_all(stage->world);
	stage->peers[0].refuse_epoch = 2;
	sim_run_for(stage->world, SIM_SECOND * 2 / 5);
	sim_check(stage->world, stage->starts && stage->started == -ESTALE);
}

static void settle_busy(struct stage *stage)
{
	static const uint32_t codes[] = { LINK_REFUSE_BUSY, LINK_REFUSE_ERROR };

	for (unsigned i = 0; i < array_len(codes); i++) {
		stage->peers[0].refuse_epoch = 1;
		stage->peers[0].refuse_code = codes[i];
		stage_begin(stage);
		sim_run_for(stage->world, SIM_SECOND / 2);
		sim_check(stage->world, !stage->starts && stage->peers[0].hellos > i * 4 + 1);
		stage->peers[0].refuse_code = LINK_REFUSE_VOLUMES;
		sim_run_for(stage->world, SIM_SECOND * 2 / 5);
		sim_check(stage->world, stage->starts && stage->started == 0);
		sim_check(stage->world, stage_stop(stage) == 0);
	}
}

/* However long it was away: one that is busy with its start is asked again soon. */
static void busy_after_absence(struct stage *stage)
{
	unsigned hellos;

	stage_begin(stage);
	sim_check(stage->world, stage_until(stage, stage_is_started) && stage->started == 0);
	stage->peers[0].refuse_epoch = 1;
	stage->peers[0].refuse_code = LINK_REFUSE_BUSY;
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	sim_run_for(stage->world, 60 * SIM_SECOND);
	sim_heal_all(stage->world);
	sim_run_for(stage->world, 5 * SIM_SECOND); /* the longest pause */
	hellos = stage->peers[0].hellos;
	sim_run_for(stage->world, 4 * SIM_SECOND);
	sim_check(stage->world, stage->peers[0].hellos - hellos >= 9);
	sim_check(stage->world, stage->peers[0].hellos - hellos <= 25);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_busy)
{
	stage_run_raw(busy_after_absence, 1, NULL);
}

UNIT(test_settle_strict)
{
	stage_run_raw(settle_refused, 1, NULL);
	stage_run_raw(settle_refused_shortly, 1, NULL);
	stage_run_raw(settle_busy, 1, NULL);
}

/* G3: the directory is free for the engine of this host, although the agent's group is still there.
 */
static void expect_released(struct stage *stage)
{
	static struct group_dir dir;
	struct stage_op wait = { .op.done = stage_op_done };

	sim_check(stage->world, stage_until(stage, stage_is_released));
	sim_check(stage->world, stage->releases == 1);
	sim_check(stage->world, group_dir_init(&dir, sim_node_io(stage->node), "/state", "g") == 0);
	group_dir_open(&dir, &wait.op);
	sim_check(stage->world, sim_run_until(stage->world, stage_op_is_done, &wait, STAGE_LIMIT));
	sim_check(stage->world, wait.res == 0 && dir.sb.role == GROUP_FENCED);
	group_dir_deinit(&dir);
	sim_check(stage->world, !strcmp(stage_status(stage)->state, "fenced"));
}

static void settle_fenced(struct stage *stage)
{
	stage->peers[0].refuse_epoch = 2;
	sim_check(stage->world, stage_start(stage) == -ESTALE && stage->fails == 0);
	expect_fenced(stage, 2);
	expect_released(stage);
	sim_check(stage->world, stage_stop(stage) == -ESTALE);
	/* Found at the start, too. */
	sim_check(stage->world, stage_start(stage) == -ESTALE);
	expect_released(stage);
	sim_check(stage->world, stage_stop(stage) == -ESTALE);
	/* It stays like that without anybody to ask. */
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	expect_refused(stage, -ESTALE, "epoch 2 rules at standby0");
}

UNIT(test_settle_fenced)
{
	stage_run_raw(settle_fenced, 1, NULL);
}

/* S2: whatever part of whatever answer says so. */
static void fence_body(struct stage *stage)
{
	stage->peers[0].refuse_epoch = 1;
	stage->peers[0].refuse_body = 3;
	sim_check(stage->world, stage_start(stage) == -ESTALE);
	expect_fenced(stage, 3);
}

static void fence_header(struct stage *stage)
{
	stage->peers[0].refuse_epoch = 4;
	stage->peers[0].refuse_body = 1;
	sim_check(stage->world, stage_start(stage) == -ESTALE);
	expect_fenced(stage, 4);
}

static void fence_welcome(struct stage *stage)
{
	stage->peers[0].welcome_epoch = 5;
	sim_check(stage->world, stage_start(stage) == -ESTALE);
	expect_fenced(stage, 5);
	sim_check(stage->world, stage->peers[0].starts == 0);
}

UNIT(test_fence_answers)
{
	stage_run_raw(fence_body, 1, NULL);
	stage_run_raw(fence_header, 1, NULL);
	stage_run_raw(fence_welcome, 1, NULL);
}

/* ---- fenced while serving -----------------------------------------------------------------------
 */

static void send_fence(struct stage *stage)
{
	struct frame frame = { .type = FRAME_ACK, .epoch = 9, .seq = stage->peers[0].seq };

	stage_peer_send(&stage->peers[0], &frame, NULL);
}

/* G2, at every moment: `skip` events after the frame was sent. */
static void fence_serving(struct stage *stage, unsigned skip)
{
	struct stage_request *writes[30];
	uint64_t at = 0;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "before the fence");
	send_fence(stage);
	for (unsigned i = 0; i < skip; i++)
		sim_step(stage->world);
	for (unsigned i = 0; i < 30; i++)
		writes[i] = stage_write(stage, 0, i * 4096, 4096, i % 3 ? 0 : EXPORT_FUA);
	while (!stage->fails)
		sim_check(stage->world, sim_step(stage->world));
	at = stage->completions;
	for (unsigned i = 0; i < 30; i++) {
		stage_wait(stage, writes[i]);
		if (writes[i]->order > at)
			sim_check(stage->world, writes[i]->res == -ESHUTDOWN);
	}
	sim_check(stage->world, stage->failed == -ESTALE);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 512, 0)) < 0);
	expect_fenced(stage, 9);
	expect_released(stage);
	sim_check(stage->world, stage_stop(stage) == -ESTALE);
}

static unsigned fence_skip;

static void fence_serving_skip(struct stage *stage)
{
	fence_serving(stage, fence_skip);
}

UNIT(test_fence_serving)
{
	for (fence_skip = 0; fence_skip < 3; fence_skip++)
		stage_run_raw(fence_serving_skip, 1, NULL);
}

/* What is done and not told when the fence comes is not told as done. */
static void fence_untold(struct stage *stage)
{
	struct stage_request *read;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "before the fence");
	stage_write(stage, 0, 0, 4096, 0);
	read = stage_request(stage, EXPORT_READ, 0, 0, 4096, 0); /* from the write set: at once */
	stage_submit(stage, read);
	agent_fenced(stage->group, 9, "standby0");
	sim_check(stage->world, stage_wait(stage, read) == -ESHUTDOWN);
	expect_fenced(stage, 9);
}

UNIT(test_fence_untold)
{
	stage_run_raw(fence_untold, 1, NULL);
}

/* A fence in the middle of a stop, at each of its events: stored, and the stop comes to its end. */
static void fence_in_stop(struct stage *stage)
{
	static struct superblock sb;
	bool fenced = false;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "before the stop");
	for (unsigned i = 0; i < 5; i++)
		stage_write(stage, 0, i * 4096, 4096, 0);
	agent_group_stop(stage->group);
	for (unsigned i = 0; i < fence_skip && !stage->stops; i++)
		sim_step(stage->world);
	if (!stage->stops) {
		agent_fenced(stage->group, 9, "standby0");
		fenced = true;
	}
	sim_check(stage->world, stage_end_stop(stage) == (fenced ? -ESTALE : 0));
	stage_superblock(stage, &sb);
	sim_check(stage->world, (sb.role == GROUP_FENCED) == fenced);
	fence_skip = fenced ? fence_skip : UINT32_MAX; /* it was over before */
}

UNIT(test_fence_in_stop)
{
	for (unsigned i = 0; i < 200; i++) {
		fence_skip = i;
		stage_run_raw(fence_in_stop, 1, NULL);
		if (fence_skip == UINT32_MAX) {
			assert_true(i > 20);
			return;
		}
	}
	assert_true(false);
}

/* ---- failing ------------------------------------------------------------------------------------
 */

/* One error each of the disk while serving or stopping: told once, nothing acknowledged after, the
 * stop ends, and the next start has everything that was acknowledged. */
static void disk_fails(struct stage *stage, const char *pattern, uint32_t ops, bool in_stop)
{
	struct stage_request *write;
	int r;

	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 8192, EXPORT_FUA)) == 0);
	if (in_stop)
		agent_group_stop(stage->group);
	sim_fault_add(stage->world,
		      &(struct sim_fault){
			      .pattern = pattern, .ops = ops, .action = SIM_ERROR, .error = -EIO });
	if (!in_stop)
		sim_check(stage->world, stage_until(stage, stage_is_failed));
	else
		sim_check(stage->world, stage_until(stage, stage_is_stopped));
	sim_check(stage->world, stage->fails == 1 && stage->failed == -EIO);
	if (!in_stop) {
		sim_check(stage->world, !strcmp(stage_status(stage)->state, "failed"));
		sim_check(stage->world, strstr(stage->status.detail, "Input/output error"));
		write = stage_write(stage, 0, 65536, 512, 0);
		sim_check(stage->world, stage_wait(stage, write) == -EIO);
		memset(stage->content[0] + 65536, 0, 512);
		stage_pattern(stage->content[0], STAGE_VOLUME_BYTES, 99999);
		stage_pattern(stage->content[0], 8192, 1);
		agent_group_stop(stage->group);
	}
	sim_check(stage->world, stage_end_stop(stage) == -EIO);
	sim_fault_clear(stage->world);
	r = stage_start(stage);
	if (r)
		sim_fail(stage->world, "after %s failed: %d %s", pattern, r,
			 stage_status(stage)->detail);
	stage_check_read(stage, "after the failure");
	sim_check(stage->world, stage_stop(stage) == 0);
}

static void volume_write(struct stage *stage)
{
	disk_fails(stage, "/vol/*", SIM_WRITE, false);
}
static void volume_flush(struct stage *stage)
{
	disk_fails(stage, "/vol/*", SIM_FLUSH, false);
}
static void superblock_write(struct stage *stage)
{
	disk_fails(stage, "*superblock", SIM_WRITE, false);
}
static void volume_write_in_stop(struct stage *stage)
{
	disk_fails(stage, "/vol/*", SIM_WRITE, true);
}
static void superblock_in_stop(struct stage *stage)
{
	disk_fails(stage, "*superblock", SIM_WRITE, true);
}

UNIT(test_disk_fails)
{
	stage_run_raw(volume_write, 0, NULL);
	stage_run_raw(volume_flush, 0, NULL);
	stage_run_raw(superblock_write, 0, NULL);
	stage_run_raw(volume_write_in_stop, 0, NULL);
	stage_run_raw(superblock_in_stop, 0, NULL);
}

/* A journal that fails for good: nothing is acknowledged. */
static void journal_fails(struct stage *stage)
{
	struct stage_request *write;

	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, EXPORT_FUA)) == 0);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "*journal/*",
							 .ops = SIM_WRITE,
							 .action = SIM_ERROR,
							 .error = -EIO });
	write = stage_write(stage, 0, 0, 4096, 0);
	sim_check(stage->world, stage_wait(stage, write) == -EIO);
	sim_check(stage->world, stage->fails == 1);
	sim_check(stage->world, strstr(stage_status(stage)->detail, "journal/"));
	sim_check(stage->world, stage_stop(stage) == -EIO);
}

/* Once is survived: written again elsewhere, and only then acknowledged. */
static void journal_fails_once(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "*journal/*",
							 .ops = SIM_WRITE,
							 .action = SIM_ERROR,
							 .error = -EIO,
							 .count = 1 });
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, 0)) == 0);
	sim_check(stage->world, stage->group->journal.rewrites == 1 && stage->fails == 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0 && stage->group->head_seq == 1);
	stage_check_read(stage, "written again");
}

UNIT(test_journal_fails)
{
	stage_run_raw(journal_fails, 0, NULL);
	stage_run_raw(journal_fails_once, 0, NULL);
}

/* E1: standbys that are no longer configured are owed everything; the oldest makes room. */
static void former_standbys(struct stage *stage)
{
	static struct superblock sb;

	stage_superblock(stage, &sb);
	for (unsigned i = 0; i < GROUP_PEERS_MAX; i++)
		snprintf(sb.peers[i].node, sizeof(sb.peers[i].node), "former%u", i);
	sb.peer_count = GROUP_PEERS_MAX;
	stage_superblock_poke(stage, &sb);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "with a new standby");
	sim_check(stage->world, stage_stop(stage) == 0);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.peer_count == GROUP_PEERS_MAX);
	for (unsigned i = 0; i < GROUP_PEERS_MAX - 1; i++) {
		char former[32];

		snprintf(former, sizeof(former), "former%u", i + 1);
		sim_check(stage->world, !strcmp(sb.peers[i].node, former));
		sim_check(stage->world, sb.peers[i].needs_sync && sb.peers[i].needs_compare);
	}
	sim_check(stage->world, !strcmp(sb.peers[GROUP_PEERS_MAX - 1].node, "standby0"));
	sim_check(stage->world, !sb.peers[GROUP_PEERS_MAX - 1].needs_sync);
}

/* E1: one that leaves the configuration with something due, and comes back. */
static void comes_back(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "before");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "and a write");
	sim_check(stage->world, stage_stop(stage) == 0);
	stage->group_conf.peer_count = 0;
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_stop(stage) == 0);
	stage->group_conf.peer_count = 1;
	memset(peer->content[1], 0x13, 65536); /* what nobody here can know */
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "back again");
	sim_check(stage->world, !stage->group->ships[0]->peer->needs_sync);
}

/* The same of one whose entry is gone, or that never had one, in a group that has been served. */
static void not_known(struct stage *stage)
{
	static struct superblock sb;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "before");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "and a write");
	sim_check(stage->world, stage_stop(stage) == 0);
	stage_superblock(stage, &sb);
	memset(sb.peers, 0, sizeof(sb.peers));
	sb.peer_count = 0;
	stage_superblock_poke(stage, &sb);
	memset(stage->peers[0].content[1], 0x13, 65536);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "not known");
}

UNIT(test_comes_back)
{
	stage_run_raw(comes_back, 1, NULL);
	stage_run_raw(not_known, 1, NULL);
}

UNIT(test_former_standbys)
{
	stage_run_raw(former_standbys, 1, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean_stop),	cmocka_unit_test(test_comes_back),
		cmocka_unit_test(test_refusals),	cmocka_unit_test(test_stop_while_starting),
		cmocka_unit_test(test_settle_welcome),	cmocka_unit_test(test_settle_silent),
		cmocka_unit_test(test_settle_two),	cmocka_unit_test(test_busy),
		cmocka_unit_test(test_settle_strict),	cmocka_unit_test(test_settle_fenced),
		cmocka_unit_test(test_fence_answers),	cmocka_unit_test(test_fence_serving),
		cmocka_unit_test(test_fence_untold),	cmocka_unit_test(test_fence_in_stop),
		cmocka_unit_test(test_disk_fails),	cmocka_unit_test(test_journal_fails),
		cmocka_unit_test(test_former_standbys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
