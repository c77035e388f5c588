/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing with a standby: copies that send only what differs, and verifications. */
#include "tests/unit/agent/stage.h"

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static const struct status_peer *status(struct stage *stage)
{
	return &stage_status(stage)->peers[0];
}

static void fill(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	stage->peers[0].seeded = true;
}

static void copy_there(struct stage *stage)
{
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(stage->peers[0].content[v], stage->content[v], STAGE_VOLUME_BYTES);
}

static void task_done(struct agent_task *task)
{
	(void)task;
}

static int run_task(struct stage *stage, struct agent_task *task)
{
	task->done = task_done;
	agent_group_task(stage->group, task);
	sim_check(stage->world, (task->res == 0) == (task->text[0] == 0));
	return task->res;
}

static int verify(struct stage *stage, bool repair)
{
	return run_task(stage, &(struct agent_task){ .kind = AGENT_VERIFY, .repair = repair });
}

static bool verify_over(void *context)
{
	return !status(context)->verify.active;
}

static void wait_verified(struct stage *stage)
{
	if (!stage_until(stage, verify_over))
		sim_fail(stage->world, "the verification does not end: %s, %lu of %lu",
			 status(stage)->state, (unsigned long)status(stage)->verify.done_bytes,
			 (unsigned long)status(stage)->verify.total_bytes);
	sim_run_for(stage->world, 10 * SIM_MS);
}

/* ---- copies -----------------------------------------------------------------------------------
 */

/* A copy of everything to a standby that holds it all moves next to nothing. */
static void equal(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	peer->seeded = true;
	copy_there(stage);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "compared");
	sim_check(stage->world, peer->start.reset && peer->start.compare);
	sim_check(stage->world, peer->data_frames == 0 && peer->differing == 0);
	sim_check(stage->world, peer->asked_bytes == STAGE_VOLUME_BYTES); /* the other is a hole */
	sim_check(stage->world, status(stage)->resync_sent_bytes == 0);
	sim_check(stage->world, stage->status.peers[0].resync_compared_bytes == STAGE_VOLUME_BYTES);
	sim_check(stage->world, link_sent_bytes(the_ship(stage)->link) < 4096);
}

UNIT(test_equal_copy)
{
	stage_run_raw(equal, 1, NULL);
}

/* Of a copy that differs in places only those are sent. */
static void some_differ(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	peer->seeded = true;
	copy_there(stage);
	peer->content[0][300000] ^= 1;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "compared");
	sim_check(stage->world, peer->differing == 1 && peer->data_frames == 1);
	sim_check(stage->world, peer->data_bytes == 256 << 10);
}

UNIT(test_differences_are_sent)
{
	stage_run_raw(some_differ, 1, NULL);
}

/* Configured otherwise; or the standby says that it holds nothing. */
static void never(struct stage *stage)
{
	stage->peers_conf[0].compare = CONF_COMPARE_NEVER;
	stage->peers[0].seeded = true;
}
static void always(struct stage *stage)
{
	stage->peers_conf[0].compare = CONF_COMPARE_ALWAYS;
}
static void not_asked(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "copied");
	sim_check(stage->world, stage->peers[0].asked_bytes == 0 && !stage->peers[0].start.compare);
	sim_check(stage->world, stage->peers[0].data_bytes == STAGE_VOLUME_BYTES);
}
static void asked(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "copied");
	sim_check(stage->world, stage->peers[0].asked_bytes == STAGE_VOLUME_BYTES);
}

UNIT(test_configured)
{
	stage_run_raw(not_asked, 1, NULL);
	stage_run_raw(not_asked, 1, never);
	stage_run_raw(asked, 1, always);
}

/* Broken off and gone on with, also behind a power loss: still by comparing, and without what was
 * answered before. */
static void goes_on(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	static struct superblock sb;

	peer->seeded = peer->no_answer = true;
	copy_there(stage);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, peer->questions == 4);
	stage_peer_answer(peer, false);
	stage_peer_answer(peer, false);
	sim_run_for(stage->world, 1500 * SIM_MS); /* the map is saved each second */
	sim_check(stage->world,
		  dirty_bytes(the_ship(stage)->dirty) == 2 * STAGE_VOLUME_BYTES - (512 << 10));
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.peers[0].needs_compare);
	stage_crash(stage, SIM_POWER);
	peer->asked_bytes = 0;
	peer->no_answer = false;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "gone on");
	sim_check(stage->world, peer->start.compare && !peer->start.reset);
	sim_check(stage->world, peer->asked_bytes == 512 << 10 && peer->data_frames == 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	stage_superblock(stage, &sb);
	sim_check(stage->world, !sb.peers[0].needs_compare && !sb.peers[0].needs_sync);
}

UNIT(test_comparing_goes_on)
{
	stage_run_raw(goes_on, 1, NULL);
}

static void slow_long(struct stage *stage)
{
	stage->peers_conf[0].sync_rate_bytes = 2 << 20;
	stage->slots = 64;
	stage->peers[0].seeded = true;
}

/* Writes all over what is being compared and sent. */
static void beside_writes(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t state = 5, rounds = 0;

	copy_there(stage);
	for (unsigned i = 0; i < 16; i += 3) /* some of it differs */
		memset(peer->content[i % 2] + i * 65536, 0x77, 4096);
	sim_check(stage->world, stage_start(stage) == 0);
	while (!peer->ends || rounds < 200) {
		uint64_t off, len;

		state = state * 6364136223846793005ull + 1442695040888963407ull;
		off = (state >> 33) % (STAGE_VOLUME_BYTES / 512) * 512;
		len = min_u64(((state >> 50) % 40 + 1) * 512, STAGE_VOLUME_BYTES - off);
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, rounds % 2, off, len, 0)) == 0);
		sim_run_for(stage->world, 2 * SIM_MS); /* as much as the link carries */
		if (++rounds > 20000)
			sim_fail(stage->world, "the copy does not end");
	}
	stage_converge(stage, "beside writes");
	sim_check(stage->world, peer->asked_bytes > 0 && peer->starts == 1);
}

UNIT(test_compared_beside_writes)
{
	stage_run_raw(beside_writes, 1, slow_long);
}

/* ---- asked for --------------------------------------------------------------------------------
 */

static void resync(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct agent_task task = { .kind = AGENT_RESYNC };
	uint64_t copied;

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	sim_check(stage->world, run_task(stage, &task) == -EINVAL);
	sim_check(stage->world, strstr(task.text, "nothing is known to differ"));
	task.node = "nobody";
	sim_check(stage->world, run_task(stage, &task) == -ENOENT);
	task.node = "standby0";
	task.has_expect_epoch = true;
	task.expect_epoch = 7;
	sim_check(stage->world, run_task(stage, &task) == -ESTALE);
	task.has_expect_epoch = false;
	copied = peer->data_bytes;
	memset(peer->content[1], 7, STAGE_VOLUME_BYTES); /* as nobody knows */
	task.everything = true;
	sim_check(stage->world, run_task(stage, &task) == 0);
	sim_check(stage->world, run_task(stage, &task) == -EAGAIN);
	stage_converge(stage, "copied again");
	sim_check(stage->world, peer->data_bytes - copied == STAGE_VOLUME_BYTES);
	sim_check(stage->world, peer->starts == 2 && !peer->start.reset && !peer->start.compare);
	/* And by comparing, with a power loss in between. */
	copied = peer->data_bytes;
	peer->content[0][5] ^= 1;
	task.compare = true;
	sim_check(stage->world, run_task(stage, &task) == 0);
	sim_run_for(stage->world, 20 * SIM_MS);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "compared again");
	sim_check(stage->world, peer->data_bytes - copied == 256 << 10);
}

UNIT(test_resync)
{
	stage_run_raw(resync, 1, NULL);
}

/* ---- verification -----------------------------------------------------------------------------
 */

static void verified(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	static struct superblock sb;
	uint64_t seq;

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	seq = stage->group->head_seq;
	sim_check(stage->world, verify(stage, false) == 0);
	sim_check(stage->world, status(stage)->verify.active);
	wait_verified(stage);
	sim_check(stage->world, peer->asked_bytes == 2 * STAGE_VOLUME_BYTES);
	sim_check(stage->world, peer->verified == 1 && peer->verified_seq == seq);
	sim_check(stage->world, peer->verified_ranges == 0 && !status(stage)->verify.failed);
	sim_check(stage->world, stage->status.peers[0].verify.done_bytes == 2 * STAGE_VOLUME_BYTES);
	sim_check(stage->world, stage->status.peers[0].verify.verified_seq == seq);
	sim_check(stage->world, stage->status.peers[0].verify.verified_time_ns > 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, status(stage)->verify.verified_seq == seq);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.peers[0].verified_seq == seq);
}

UNIT(test_verified)
{
	stage_run_raw(verified, 1, NULL);
}

/* What differs is found where it is; known, until it is asked for or repaired. */
static void found(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct agent_task task = { .kind = AGENT_RESYNC };
	const struct status_verify *s;
	uint64_t copied;

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	copied = peer->data_bytes;
	peer->content[0][70000] ^= 1;
	peer->content[0][140000] ^= 1;	/* in the next chunk: one range */
	peer->content[1][1000000] ^= 1; /* in a hole here */
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	s = &status(stage)->verify;
	sim_check(stage->world, s->differing_ranges == 2 && s->range_count == 2);
	sim_check(stage->world, !strcmp(s->ranges[0].volume, "v0") && s->ranges[0].off == 65536 &&
					s->ranges[0].len == 131072);
	sim_check(stage->world, !strcmp(s->ranges[1].volume, "v1") && s->ranges[1].off <= 1000000 &&
					s->ranges[1].off + s->ranges[1].len > 1000000);
	sim_check(stage->world, s->repaired_bytes == 0 && s->verified_seq == 0);
	sim_check(stage->world, peer->verified_ranges == 2 && peer->starts == 1);
	sim_check(stage->world, !stage->status.peers[0].needs_sync);
	sim_check(stage->world, s->known_ranges == 2 && s->known_bytes == s->differing_bytes);
	sim_check(stage->world, run_task(stage, &task) == 0);
	stage_converge(stage, "copied");
	sim_check(stage->world, status(stage)->verify.known_ranges == 0);
	sim_check(stage->world, peer->data_bytes - copied == 131072 && peer->starts == 2);
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, status(stage)->verify.differing_ranges == 0);
	sim_check(stage->world, stage->status.peers[0].verify.verified_seq == 1);
}

UNIT(test_found)
{
	stage_run_raw(found, 1, NULL);
}

/* It is known behind a restart, too: until it was sent again, or is found equal. A copy of
 * something else does not make it forgotten, nor does the end of that copy on the standby. */
static void remembered(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct agent_task everything = { .kind = AGENT_RESYNC, .everything = true };

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	peer->content[0][70000] ^= 1;
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, status(stage)->verify.known_ranges == 1);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, status(stage)->verify.known_ranges == 1 &&
					stage->status.peers[0].verify.known_bytes == 65536);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, status(stage)->connected);
	peer->verified = 0;
	dirty_set(stage->group->ships[0]->dirty, stage->group->volumes.list[1].id.id, 0, 65536);
	sim_check(stage->world, run_task(stage, &(struct agent_task){ .kind = AGENT_RESYNC }) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, !status(stage)->needs_sync);
	sim_check(stage->world, stage->status.peers[0].verify.known_ranges == 1);
	sim_check(stage->world, peer->verified == 1 && peer->verified_ranges == 1);
	sim_check(stage->world, run_task(stage, &everything) == 0);
	stage_converge(stage, "everything");
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, status(stage)->verify.known_ranges == 0);
	peer->content[0][70000] ^= 1;
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, status(stage)->verify.known_ranges == 1);
	peer->content[0][70000] ^= 1; /* by somebody else */
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, status(stage)->verify.known_ranges == 0);
}

UNIT(test_remembered)
{
	stage_run_raw(remembered, 1, NULL);
}

static void repaired(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t copied;

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	copied = peer->data_bytes;
	peer->content[0][70000] ^= 1;
	sim_check(stage->world, verify(stage, true) == 0);
	wait_verified(stage);
	stage_converge(stage, "repaired");
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, peer->data_bytes - copied == 65536 && peer->starts == 2);
	sim_check(stage->world, !peer->start.reset && !peer->start.compare);
	sim_check(stage->world, status(stage)->verify.repaired_bytes == 65536);
	sim_check(stage->world, !stage->status.peers[0].needs_sync);
	sim_check(stage->world, stage->status.peers[0].dirty_bytes == 0);
}

UNIT(test_repaired)
{
	stage_run_raw(repaired, 1, NULL);
}

static void long_journal(struct stage *stage)
{
	stage->slots = 64;
	stage->group_conf.verify_rate_bytes = 4 << 20;
}

/* Writes all over what is verified: nothing differs. */
static void hammered(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t state = 3, rounds = 0;

	fill(stage);
	sim_check(stage->world, verify(stage, true) == 0);
	while (status(stage)->verify.active || rounds < 200) {
		struct stage_request *writes[4];

		for (unsigned i = 0; i < 4; i++) {
			uint64_t off, len;

			state = state * 6364136223846793005ull + 1442695040888963407ull;
			off = (state >> 33) % (STAGE_VOLUME_BYTES / 512) * 512;
			len = min_u64(((state >> 50) % 40 + 1) * 512, STAGE_VOLUME_BYTES - off);
			writes[i] = i == 3 ? stage_zero(stage, EXPORT_TRIM, rounds % 2, off, len)
					   : stage_write(stage, rounds % 2, off, len, 0);
		}
		for (unsigned i = 0; i < 4; i++)
			sim_check(stage->world, stage_wait(stage, writes[i]) == 0);
		sim_run_for(stage->world, 2 * SIM_MS);
		if (++rounds > 20000)
			sim_fail(stage->world, "the verification does not end");
	}
	sim_run_for(stage->world, 20 * SIM_MS); /* what was said last is on its way */
	if (peer->verified != 1 || peer->differing || peer->starts != 1)
		sim_fail(stage->world, "%u verified, %lu differ, %u starts",
			 (unsigned)peer->verified, (unsigned long)peer->differing,
			 (unsigned)peer->starts);
	stage_converge(stage, "hammered");
	stage_check_read(stage, "hammered");
}

UNIT(test_no_false_difference_beside_writes)
{
	stage_run_raw(hammered, 1, long_journal);
}

/* Bursts, and a journal that is slow: records come into the very segment of a stamp. */
static void bursts(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t state = 9, rounds = 0;

	fill(stage);
	sim_fault_add(stage->world, &(struct sim_fault){ .node = stage->node,
							 .pattern = "*journal*",
							 .ops = SIM_WRITE,
							 .action = SIM_DELAY,
							 .delay_ns = 3 * SIM_MS });
	while (rounds++ < 150) {
		struct stage_request *writes[32];

		if (!status(stage)->verify.active)
			sim_check(stage->world, verify(stage, true) == 0);
		for (unsigned i = 0; i < array_len(writes); i++) {
			uint64_t off;

			state = state * 6364136223846793005ull + 1442695040888963407ull;
			off = (state >> 33) % (STAGE_VOLUME_BYTES / 512 - 8) * 512;
			writes[i] = stage_write(stage, i % 2, off, 4096, 0);
			sim_run_for(stage->world, (state >> 60) * 20000);
		}
		for (unsigned i = 0; i < array_len(writes); i++)
			sim_check(stage->world, stage_wait(stage, writes[i]) == 0);
	}
	sim_check(stage->world, peer->verified > 2 && peer->starts == 1);
	sim_check(stage->world, peer->differing == 0);
	stage_converge(stage, "bursts");
}

static void long_fast(struct stage *stage)
{
	stage->slots = 64;
	stage->group_conf.verify_rate_bytes = 64 << 20;
}

UNIT(test_no_false_difference_in_a_segment)
{
	stage_run_raw(bursts, 1, long_fast);
}

/* The link breaks: it goes on where it was. A copy in between: from the beginning. */
static void interrupted(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct agent_task copy = { .kind = AGENT_RESYNC, .everything = true };

	fill(stage);
	peer->content[0][70000] ^= 1;
	sim_check(stage->world, verify(stage, false) == 0);
	sim_run_for(stage->world, 250 * SIM_MS);
	sim_check(stage->world, status(stage)->verify.done_bytes >= 512 << 10);
	sim_check(stage->world, peer->differing == 1);
	link_close(peer->link);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, status(stage)->verify.active && !status(stage)->connected);
	wait_verified(stage);
	sim_check(stage->world, peer->verified == 1 && peer->verified_ranges == 1);
	sim_check(stage->world, peer->asked_bytes < 3u << 20);
	sim_check(stage->world, status(stage)->verify.differing_bytes == 65536);

	peer->asked_bytes = 0;
	sim_check(stage->world, verify(stage, false) == 0);
	sim_run_for(stage->world, 250 * SIM_MS);
	sim_check(stage->world, run_task(stage, &copy) == 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	sim_check(stage->world, verify(stage, false) == -EAGAIN);
	wait_verified(stage);
	sim_check(stage->world, peer->verified == 2 && peer->verified_ranges == 0);
	sim_check(stage->world, peer->asked_bytes >= (2u << 20) + (512 << 10));
	sim_check(stage->world, status(stage)->verify.differing_ranges == 0);
	stage_check_peer(stage, 0, "copied in between");
}

UNIT(test_interrupted)
{
	stage_run_raw(interrupted, 1, long_journal);
}

static void stopped(struct stage *stage)
{
	struct agent_task stop = { .kind = AGENT_VERIFY_STOP };
	uint64_t asked;

	fill(stage);
	sim_check(stage->world, run_task(stage, &stop) == -EINVAL);
	sim_check(stage->world, verify(stage, false) == 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, run_task(stage, &stop) == 0);
	asked = stage->peers[0].asked_bytes;
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage->peers[0].asked_bytes <= asked + (512 << 10));
	sim_check(stage->world, !status(stage)->verify.active && status(stage)->verify.failed);
	sim_check(stage->world, stage->peers[0].verified == 0);
	/* Again, and a stop of the whole in the middle. */
	sim_check(stage->world, verify(stage, false) == 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_stopped)
{
	stage_run_raw(stopped, 1, long_journal);
}

/* As fast as it is told, whatever the rate of copies. */
static void rated(struct stage *stage)
{
	uint64_t since;

	fill(stage);
	since = sim_now(stage->world);
	sim_check(stage->world,
		  run_task(stage, &(struct agent_task){ .kind = AGENT_VERIFY,
							.rate_bytes = 1 << 20 }) == 0);
	wait_verified(stage);
	since = sim_now(stage->world) - since;
	sim_check(stage->world, since > 900 * SIM_MS && since < 2200 * SIM_MS);
}

UNIT(test_rate)
{
	stage_run_raw(rated, 1, NULL);
}

static void by_itself(struct stage *stage)
{
	stage->group_conf.verify_interval_ns = 2 * SIM_SECOND;
}

static void background(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	sim_run_for(stage->world, 7 * SIM_SECOND);
	sim_check(stage->world, peer->verified >= 2 && peer->verified <= 4);
	peer->content[0][70000] ^= 1;
	sim_run_for(stage->world, 5 * SIM_SECOND);
	/* It is told, not repaired. */
	sim_check(stage->world, status(stage)->verify.differing_ranges == 1);
	sim_check(stage->world, peer->starts == 1 && peer->verified_ranges == 1);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_background)
{
	stage_run_raw(background, 1, by_itself);
}

static bool both_over(void *context)
{
	stage_status(context);
	return !((struct stage *)context)->status.peers[0].verify.active &&
	       !((struct stage *)context)->status.peers[1].verify.active;
}

/* Two at a time, of which one differs. */
static void two(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copies");
	stage->peers[1].content[1][70000] ^= 1;
	sim_check(stage->world, verify(stage, true) == 0);
	sim_check(stage->world, stage_status(stage)->peers[0].verify.active);
	sim_check(stage->world, stage->status.peers[1].verify.active);
	sim_check(stage->world, stage_until(stage, both_over));
	sim_run_for(stage->world, 500 * SIM_MS);
	stage_converge(stage, "repaired");
	sim_check(stage->world, stage->peers[0].starts == 1 && stage->peers[1].starts == 2);
	sim_check(stage->world, stage->peers[0].verified_ranges == 0);
}

UNIT(test_two_standbys)
{
	stage_run_raw(two, 2, NULL);
}

/* A volume that cannot be read here ends the verification, and nothing else. */
static void unreadable(struct stage *stage)
{
	fill(stage);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "/vol/v0",
							 .ops = SIM_READ,
							 .action = SIM_ERROR,
							 .error = -EIO,
							 .count = 1 });
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, status(stage)->verify.failed && status(stage)->connected);
	sim_check(stage->world, stage->peers[0].verified == 0 && stage->peers[0].starts == 1);
	sim_check(stage->world, verify(stage, false) == 0);
	wait_verified(stage);
	sim_check(stage->world, stage->peers[0].verified == 1 && !status(stage)->verify.failed);
}

UNIT(test_unreadable)
{
	stage_run_raw(unreadable, 1, NULL);
}

/* Answers to what was never asked end the session. */
static void wrong_answers(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	stage_peer_answer(peer, true);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, strstr(status(stage)->error, "never asked"));
	sim_run_for(stage->world, SIM_SECOND);
	peer->no_answer = true;
	sim_check(stage->world, verify(stage, false) == 0);
	sim_run_for(stage->world, 100 * SIM_MS);
	peer->answers++; /* one is left out */
	stage_peer_answer(peer, false);
	sim_run_for(stage->world, 20 * SIM_MS);
	sim_check(stage->world, strstr(status(stage)->error, "never asked"));
	sim_check(stage->world, stage_status(stage)->peers[0].verify.active);
	peer->no_answer = false;
	wait_verified(stage);
	sim_check(stage->world, peer->verified == 1 && peer->verified_ranges == 0);
}

UNIT(test_wrong_answers)
{
	stage_run_raw(wrong_answers, 1, NULL);
}

/* How long it has been behind is known behind a restart, too. */
static void behind(struct stage *stage)
{
	uint64_t since, before;

	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "written");
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	sim_run_for(stage->world, 100 * SIM_MS);
	since = sim_now(stage->world);
	for (unsigned i = 0; i < 200; i++) {
		stage->next_id |= 1;
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, i % 16 * 16384, 16384, 0)) == 0);
	}
	sim_check(stage->world, status(stage)->needs_sync);
	before = status(stage)->lag.ns;
	sim_check(stage->world, before != UINT64_MAX && before > 0);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, status(stage)->lag.ns != UINT64_MAX);
	sim_check(stage->world,
		  stage->status.peers[0].lag.ns >= sim_now(stage->world) - since - 100 * SIM_MS);
	sim_check(stage->world, stage->status.peers[0].lag.writes >= 150);
}

UNIT(test_behind_after_a_restart)
{
	stage_run_raw(behind, 1, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equal_copy),
		cmocka_unit_test(test_differences_are_sent),
		cmocka_unit_test(test_configured),
		cmocka_unit_test(test_comparing_goes_on),
		cmocka_unit_test(test_compared_beside_writes),
		cmocka_unit_test(test_resync),
		cmocka_unit_test(test_verified),
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_remembered),
		cmocka_unit_test(test_repaired),
		cmocka_unit_test(test_no_false_difference_beside_writes),
		cmocka_unit_test(test_no_false_difference_in_a_segment),
		cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_background),
		cmocka_unit_test(test_two_standbys),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_wrong_answers),
		cmocka_unit_test(test_behind_after_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
