/* SPDX-License-Identifier: Apache-2.0 */
/* A standby that comes back from another history: what is copied to it is what differs, no less. */
#include "tests/unit/agent/stage.h"

#define CHUNK (64u << 10)

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static void cut(struct stage *stage)
{
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_RESET);
	sim_run_for(stage->world, 100 * SIM_MS);
}

/* The standby holds `common` records of ours; then each side goes its own way: ours overwrites
 * chunks 1 and 2, the other history wrote chunks 2 and 5 of volume 0, and 3 of volume 1. */
static void part(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	for (unsigned i = 0; i < 8; i++)
		stage_write(stage, 0, (uint64_t)i * CHUNK, CHUNK, 0);
	stage_converge(stage, "before");
	peer->common_seq = peer->seq;
	peer->common_chain = peer->chain;
	peer->own_seq = peer->seq + 3;
	peer->diverged = true;
	peer->ranges_per_frame = 2;
	cut(stage);
	for (unsigned i = 1; i <= 2; i++)
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, (uint64_t)i * CHUNK,
								      CHUNK, 0)) == 0);
	peer->ranges[0] = (struct stage_range){ 0, 2 * CHUNK, CHUNK };
	peer->ranges[1] = (struct stage_range){ 0, 5 * CHUNK + 4096, 8192 };
	peer->ranges[2] = (struct stage_range){ 1, 3 * CHUNK, 4096 };
	peer->range_count = 3;
	for (unsigned i = 0; i < peer->range_count; i++)
		memset(peer->content[peer->ranges[i].volume] + peer->ranges[i].off, 0x77,
		       peer->ranges[i].len);
}

static uint64_t copied(struct stage_peer *peer, uint64_t before)
{
	return peer->data_bytes + peer->zero_bytes - before;
}

static void difference(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t before;

	part(stage);
	before = peer->data_bytes + peer->zero_bytes;
	sim_heal_all(stage->world);
	stage_converge(stage, "returned");
	sim_check(stage->world, peer->start.reset && peer->start.sync && peer->start.from_seq > 1);
	/* Chunks 1, 2, 5 of volume 0, 3 of volume 1. */
	sim_check(stage->world, copied(peer, before) == 4 * CHUNK);
	sim_check(stage->world, !the_ship(stage)->peer->needs_sync);
	stage_write(stage, 1, 0, 4096, 0);
	stage_converge(stage, "went on");
}

UNIT(test_difference)
{
	stage_run_raw(difference, 1, NULL);
}

/* Its other history at the same seq: nothing that was held there is known to be the same (V4). */
static void everything(struct stage *stage, uint64_t chain)
{
	struct stage_peer *peer = &stage->peers[0];

	part(stage);
	peer->common_chain = chain;
	/* And it is not. */
	memset(peer->content[1], 0x13, CHUNK);
	sim_heal_all(stage->world);
	stage_converge(stage, "returned");
	sim_check(stage->world, peer->start.sync_bytes == STAGE_VOLUMES * STAGE_VOLUME_BYTES);
}

static void wrong_chain(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	part(stage);
	peer->common_chain = 4712;
	memset(peer->content[1], 0x13, CHUNK);
	sim_heal_all(stage->world);
	sim_run_for(stage->world, 3 * SIM_SECOND);
	/* What it keeps as salvage would begin too late: nothing is sent before it knows. */
	sim_check(stage->world,
		  peer->refuses > 0 && peer->said_refuse.code == LINK_REFUSE_DIVERGED);
	sim_check(stage->world, stage_status(stage)->peers[0].connected == false);
	peer->common_seq = peer->common_chain = 0;
	stage_converge(stage, "returned");
	sim_check(stage->world, peer->start.sync_bytes == STAGE_VOLUMES * STAGE_VOLUME_BYTES);
}

static void no_chain(struct stage *stage)
{
	everything(stage, 0);
}

UNIT(test_wrong_chain)
{
	stage_run_raw(wrong_chain, 1, NULL);
}

UNIT(test_no_chain)
{
	stage_run_raw(no_chain, 1, NULL);
}

/* Behind our end: nothing of ours has to be looked up. */
static void at_the_end(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t before;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "before");
	peer->common_seq = peer->seq;
	peer->common_chain = peer->chain;
	peer->own_seq = peer->seq + 9;
	peer->diverged = true;
	peer->ranges_per_frame = 1;
	peer->ranges[0] = (struct stage_range){ 1, CHUNK, 512 };
	peer->range_count = 1;
	memset(peer->content[1] + CHUNK, 0x77, 512);
	before = peer->data_bytes + peer->zero_bytes;
	cut(stage);
	sim_heal_all(stage->world);
	stage_converge(stage, "returned");
	sim_check(stage->world, copied(peer, before) == CHUNK);
}

UNIT(test_at_the_end)
{
	stage_run_raw(at_the_end, 1, NULL);
}

/* The link breaks between the ranges, again and again; writes go on. */
static void interrupted(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	part(stage);
	peer->ranges_cut = 1;
	sim_heal_all(stage->world);
	for (unsigned i = 0; i < 3; i++) {
		sim_run_for(stage->world, SIM_SECOND);
		stage_write(stage, 1, (uint64_t)(i + 6) * CHUNK, 4096, 0);
		link_close(peer->link);
	}
	sim_check(stage->world, peer->diverged && peer->starts == 1);
	peer->ranges_cut = 0;
	link_close(peer->link);
	stage_converge(stage, "returned");
}

UNIT(test_interrupted)
{
	stage_run_raw(interrupted, 1, NULL);
}

/* The primary loses power while it copies: what differs is in the map on its disk. */
static void power_lost(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t before;

	part(stage);
	peer->no_sync_ack = true;
	sim_heal_all(stage->world);
	for (unsigned i = 0; i < 100 && peer->diverged; i++)
		sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, !peer->diverged);
	peer->syncing = true; /* nothing is consistent there before it was told so durably */
	stage_crash(stage, SIM_POWER);
	peer->no_sync_ack = false;
	for (unsigned i = 0; i < peer->range_count; i++) /* none of it had been applied */
		memset(peer->content[peer->ranges[i].volume] + peer->ranges[i].off, 0x78,
		       peer->ranges[i].len);
	before = peer->data_bytes + peer->zero_bytes;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "returned");
	sim_check(stage->world, copied(peer, before) == 4 * CHUNK);
}

UNIT(test_power_lost)
{
	stage_run_raw(power_lost, 1, NULL);
}

/* Our own journal no longer reaches back to where the histories part. */
static void released(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	part(stage);
	for (uint64_t at = 0; at < 3u << 20; at += 16384)
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, at % (256 << 10),
								      16384, 0)) == 0);
	sim_check(stage->world, journal_oldest_seq(&stage->group->journal) > peer->common_seq + 1);
	sim_heal_all(stage->world);
	stage_converge(stage, "returned");
	sim_check(stage->world, peer->start.sync_bytes == STAGE_VOLUMES * STAGE_VOLUME_BYTES);
}

UNIT(test_released)
{
	stage_run_raw(released, 1, NULL);
}

/* What cannot be ends the connection, and changes nothing. */
static void impossible(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct stage_range last;

	part(stage);
	last = peer->ranges[2];
	peer->ranges[2] = (struct stage_range){ 1, STAGE_VOLUME_BYTES - 512, 1024 };
	sim_heal_all(stage->world);
	sim_run_for(stage->world, 5 * SIM_SECOND);
	sim_check(stage->world, peer->hellos > 2 && peer->starts == 1);
	peer->ranges[2] = (struct stage_range){ 9, 0, 512 };
	sim_run_for(stage->world, 5 * SIM_SECOND);
	peer->ranges[2] = last;
	peer->common_seq = stage->group->journal.durable_seq + 1;
	peer->own_seq = peer->common_seq + 1;
	sim_run_for(stage->world, 5 * SIM_SECOND);
	sim_check(stage->world, peer->starts == 1);
	sim_check(stage->world, strstr(stage_status(stage)->peers[0].error, "common") != NULL);
	peer->common_seq = peer->seq;
	stage_converge(stage, "returned");
}

UNIT(test_impossible)
{
	stage_run_raw(impossible, 1, NULL);
}

/* A standby whose directory was put back behind what it had acknowledged gets everything, also when
 * our journal still reaches back: its volumes may hold anything. */
static void put_back(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t seq, chain;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "before");
	seq = peer->seq;
	chain = peer->chain;
	stage_write(stage, 0, CHUNK, 4096, 0);
	stage_converge(stage, "acknowledged");
	cut(stage);
	peer->seq = seq;
	peer->chain = chain;
	memset(peer->content[1], 0x13, CHUNK);
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
	sim_check(stage->world, peer->start.reset);
}

UNIT(test_put_back)
{
	stage_run_raw(put_back, 1, NULL);
}

/* Our journal is damaged where the standby would be served from; what it said is on the volumes. */
static void damaged(struct stage *stage, uint64_t at)
{
	struct stage_peer *peer = &stage->peers[0];
	uint8_t byte = 0x5a;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "before");
	cut(stage);
	for (unsigned i = 1; i < 4; i++)
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, (uint64_t)i * CHUNK,
								      4096, 0)) == 0);
	sim_run_for(stage->world, 5 * SIM_SECOND); /* applied, and gone from memory */
	for (uint64_t off = 0; off < STAGE_SLOT_BYTES; off += 4096)
		sim_file_poke(stage->node, STAGE_DIR "/journal/00000000", off + at, &byte, 1);
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
	sim_check(stage->world, peer->start.reset);
}

static void damaged_header(struct stage *stage)
{
	damaged(stage, 40);
}

static void damaged_records(struct stage *stage)
{
	damaged(stage, 140);
}

UNIT(test_damaged)
{
	stage_run_raw(damaged_header, 1, NULL);
	stage_run_raw(damaged_records, 1, NULL);
}

/* Right behind a promote: nobody has acknowledged anything to us, and what came since is kept. */
static void promoted(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	static struct superblock sb;
	uint64_t seq, before;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	for (unsigned i = 0; i < 4; i++)
		stage_write(stage, 0, (uint64_t)i * CHUNK, 4096, 0);
	stage_converge(stage, "before");
	sim_check(stage->world, stage_stop(stage) == 0);
	stage_superblock(stage, &sb);
	seq = peer->seq;
	memset(sb.peers, 0, sizeof(sb.peers));
	sb.peer_count = 0;
	sb.epoch = 2;
	sb.history[sb.history_count++] = (struct history_entry){ 2, seq + 1 };
	stage_superblock_poke(stage, &sb);
	before = peer->data_bytes + peer->zero_bytes;
	cut(stage);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, the_ship(stage)->peer->durable_seq == seq);
	stage_write(stage, 1, 0, 4096, 0);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, stage->group->journal.floor_seq <= seq);
	sim_heal_all(stage->world);
	stage_converge(stage, "followed");
	sim_check(stage->world, copied(peer, before) == 0 && peer->start.from_seq == seq + 1);
}

UNIT(test_promoted)
{
	stage_run_raw(promoted, 1, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_difference),  cmocka_unit_test(test_wrong_chain),
		cmocka_unit_test(test_no_chain),    cmocka_unit_test(test_at_the_end),
		cmocka_unit_test(test_interrupted), cmocka_unit_test(test_power_lost),
		cmocka_unit_test(test_released),    cmocka_unit_test(test_impossible),
		cmocka_unit_test(test_damaged),	    cmocka_unit_test(test_put_back),
		cmocka_unit_test(test_promoted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
