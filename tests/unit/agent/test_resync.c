/* SPDX-License-Identifier: Apache-2.0 */
/* What a standby lacks when the journal moves on: dirty maps, and copies beside the stream. */
#include "core/conf/status_metrics.h"
#include "tests/unit/agent/stage.h"

#define DIRTY_FILE STAGE_DIR "/dirty.standby0"

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static void fill(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
}

/* And it has acknowledged something. */
static void fill_and_write(struct stage *stage)
{
	fill(stage);
	stage_write(stage, 0, 0, 4096, 0);
	stage_converge(stage, "first write");
}

/* S1: before the floor moves over what the standby has not acknowledged, the superblock on the disk
 * says that the map is in force. */
static void check_floor(struct stage *stage)
{
	static uint64_t seen;
	static struct superblock sb;
	uint64_t floor = stage->group->journal.floor_seq;

	if (floor == seen)
		return;
	seen = floor;
	if (floor <= the_ship(stage)->peer->durable_seq)
		return;
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.peers[0].needs_sync && sb.peers[0].released_seq >= floor);
}

/* Writes `bytes` into the first `range` of volume 0, 16 KiB each, one behind the other. */
static void write_much(struct stage *stage, uint64_t bytes, uint64_t range)
{
	for (uint64_t at = 0; at < bytes; at += 16384) {
		struct stage_request *write;

		stage->next_id |= 1;
		stage->next_id++; /* does not compress */
		write = stage_write(stage, 0, at % range, 16384, 0);
		while (write->busy) {
			sim_check(stage->world, sim_step(stage->world));
			check_floor(stage);
		}
		sim_check(stage->world, write->res == 0);
	}
}

static void cut(struct stage *stage, unsigned index)
{
	sim_cut_both(stage->node, stage->peers[index].node, SIM_CUT_RESET);
	sim_run_for(stage->world, 100 * SIM_MS);
}

/* The journal is released, the clients do not notice, only what is dirty is copied. */
static void released(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t copied, since;

	fill_and_write(stage);
	copied = peer->data_bytes;
	cut(stage, 0);
	since = sim_now(stage->world);
	write_much(stage, 3u << 20, 256 << 10);
	sim_check(stage->world, sim_now(stage->world) - since < 2 * SIM_SECOND);
	sim_check(stage->world, stage_status(stage)->peers[0].needs_sync);
	/* Behind since the cut, with all that was written since, whatever went into the map. */
	sim_check(stage->world,
		  stage->status.peers[0].lag.ns >= sim_now(stage->world) - since - SIM_MS);
	sim_check(stage->world, stage->status.peers[0].lag.ns != UINT64_MAX);
	sim_check(stage->world, stage->status.peers[0].lag.writes >= (3u << 20) / (256u << 10));
	sim_check(stage->world, dirty_bytes(the_ship(stage)->dirty) <= 256 << 10);
	sim_check(stage->world, stage->group->journal.floor_seq > peer->seq);
	stage_crash(stage, SIM_POWER);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 262144, 0)) == 0);
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
	sim_check(stage->world, peer->starts == 2 && peer->start.reset);
	sim_check(stage->world, peer->data_bytes - copied == 256 << 10);
	sim_check(stage->world, peer->start.sync_bytes == 256 << 10);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, sim_file_size(stage->node, DIRTY_FILE) == -ENOENT);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_released)
{
	stage_run_raw(released, 1, NULL);
}

/* The standby is in a copy, but not in the one that our map is of (one of both is back from an
 * older image): what the map says is of no use, all of it is copied. */
static void another_copy(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t copied;

	fill_and_write(stage);
	cut(stage, 0);
	write_much(stage, 3u << 20, 256 << 10);
	sim_check(stage->world, stage_status(stage)->peers[0].needs_sync);
	copied = peer->data_bytes;
	peer->syncing = true;
	peer->copy_id = the_ship(stage)->peer->copy_id ^ 2;
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
	sim_check(stage->world, peer->start.reset && peer->start.sync);
	sim_check(stage->world, peer->start.sync_bytes == 2 * STAGE_VOLUME_BYTES);
	sim_check(stage->world, peer->data_bytes > copied);
	sim_check(stage->world, peer->copy_id == peer->start.copy_id && peer->copy_id);
}

UNIT(test_another_copy)
{
	stage_run_raw(another_copy, 1, NULL);
}

/* Without the checkpoints that look by themselves: whatever ends looks again. */
static void blocked(struct stage *stage)
{
	struct stage_request *last = NULL;

	fill_and_write(stage);
	cut(stage, 0);
	write_much(stage, 3u << 20, 256 << 10);
	for (unsigned i = 0; i < 60; i++)
		last = stage_write(stage, 0, i % 4 * 65536, 65536, 0);
	agent_group_stop(stage->group); /* with a journal that is full */
	sim_check(stage->world, stage_end_stop(stage) == 0);
	sim_check(stage->world, !last->busy);
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 262144, 0)) == 0);
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
}

static void rare_checkpoints(struct stage *stage)
{
	stage->group_conf.checkpoint_interval_ns = 3600 * SIM_SECOND;
}

UNIT(test_blocked)
{
	stage_run_raw(blocked, 1, rare_checkpoints);
}

/* A standby that has not acknowledged anything yet, and cannot: what it was sent is recorded, too.
 */
static void never_acknowledged(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	sim_check(stage->world, peer->seq == 0 && the_ship(stage)->peer->durable_seq == 0);
	peer->mute = true;
	peer->window_bytes = 64 << 10;
	link_close(peer->link);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, the_ship(stage)->state == SHIP_STREAMING);
	write_much(stage, 700 << 10, 256 << 10);
	write_much(stage, 1u << 20, 64 << 10);
	sim_check(stage->world, stage_status(stage)->peers[0].needs_sync);
	sim_check(stage->world, dirty_bytes(the_ship(stage)->dirty) >= 256 << 10);
	/* Only the first writes had reached it. */
	peer->mute = false;
	peer->window_bytes = 16u << 20;
	stage_converge(stage, "copied");
}

UNIT(test_never_acknowledged)
{
	stage_run_raw(never_acknowledged, 1, NULL);
}

/* A standby whose disk was put back behind what it had acknowledged gets everything. */
static void went_back(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	static uint8_t old[STAGE_VOLUMES][STAGE_VOLUME_BYTES];
	uint64_t seq, chain;

	fill_and_write(stage);
	write_much(stage, 64 << 10, 64 << 10);
	stage_converge(stage, "before");
	seq = peer->seq;
	chain = peer->chain;
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(old[v], peer->content[v], STAGE_VOLUME_BYTES);
	stage_write(stage, 0, 512 << 10, 65536, 0); /* acknowledged, then gone again */
	stage_converge(stage, "acknowledged");
	cut(stage, 0);
	write_much(stage, 2u << 20, 128 << 10);
	sim_check(stage->world, the_ship(stage)->peer->released_seq > peer->seq);
	peer->seq = seq;
	peer->chain = chain;
	for (unsigned v = 0; v < STAGE_VOLUMES; v++)
		memcpy(peer->content[v], old[v], STAGE_VOLUME_BYTES);
	sim_heal_all(stage->world);
	stage_converge(stage, "copied");
}

UNIT(test_went_back)
{
	stage_run_raw(went_back, 1, NULL);
}

/* What is acknowledged but not durable yet when the copy is prepared lies before the new beginning,
 * too: it is copied. */
static void queued_at_return(struct stage *stage)
{
	uint64_t flush_interval_ns = stage->group_conf.flush_interval_ns, off = 256 << 10;

	fill_and_write(stage);
	stage_converge(stage, "before");
	cut(stage, 0);
	write_much(stage, 2u << 20, 128 << 10);
	sim_check(stage->world, the_ship(stage)->peer->released_seq > stage->peers[0].seq);
	stage->group_conf.flush_interval_ns = 60 * SIM_SECOND;
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_heal_all(stage->world);
	/* Each goes where nothing else is dirty. */
	while (!ship_sync_active(the_ship(stage)->sync) && off < STAGE_VOLUME_BYTES) {
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, off, 4096, 0)) == 0);
		off += 65536;
		sim_run_for(stage->world, 20 * SIM_MS);
	}
	stage->group_conf.flush_interval_ns = flush_interval_ns;
	stage_converge(stage, "copied");
}

UNIT(test_queued_at_return)
{
	stage_run_raw(queued_at_return, 1, NULL);
}

/* ---- maps that are not there
 * ---------------------------------------------------------------------
 */

static void lost_map(struct stage *stage, bool damaged)
{
	struct stage_peer *peer = &stage->peers[0];
	uint8_t dirt[512];
	uint64_t copied;

	fill_and_write(stage);
	copied = peer->data_bytes;
	cut(stage, 0);
	write_much(stage, 2u << 20, 128 << 10);
	sim_check(stage->world, stage_stop(stage) == 0);
	memset(dirt, 0x5a, sizeof(dirt));
	if (damaged)
		sim_file_poke(stage->node, DIRTY_FILE, 0, dirt, sizeof(dirt));
	else
		sim_check(stage->world, io_file_remove(sim_node_io(stage->node), DIRTY_FILE) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
	write_much(stage, 2u << 20, 128 << 10); /* released again, into a new one */
	sim_heal_all(stage->world);
	stage_converge(stage, "everything copied");
	sim_check(stage->world, peer->data_bytes - copied == STAGE_VOLUME_BYTES);
	sim_check(stage->world, stage->fails == 0 && stage_stop(stage) == 0);
}

static void map_damaged(struct stage *stage)
{
	lost_map(stage, true);
}
static void map_removed(struct stage *stage)
{
	lost_map(stage, false);
}

UNIT(test_lost_map)
{
	stage_run_raw(map_damaged, 1, NULL);
	stage_run_raw(map_removed, 1, NULL);
}

/* No space, or a disk that fails, for the map: the clients go on, everything will be copied. */
static void no_map(struct stage *stage, uint32_t ops, int error, bool crash)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t copied;

	fill_and_write(stage);
	copied = peer->data_bytes;
	cut(stage, 0);
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "*dirty.*",
							 .ops = ops,
							 .action = SIM_ERROR,
							 .error = error });
	for (uint64_t at = 0; at < 2u << 20; at += 16384)
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, at % 131072, 16384, 0)) == 0);
	if (stage->fails || !sim_fault_hits(stage->world))
		sim_fail(stage->world, "%lu faults: %s",
			 (unsigned long)sim_fault_hits(stage->world), stage_status(stage)->detail);
	if (crash) {
		sim_check(stage->world, stage_wait(stage, stage_flush(stage)) == 0);
		stage_crash(stage, SIM_POWER);
		sim_fault_clear(stage->world);
		sim_check(stage->world, stage_start(stage) == 0);
	}
	sim_heal_all(stage->world);
	stage_converge(stage, "everything copied");
	sim_check(stage->world, peer->data_bytes - copied == STAGE_VOLUME_BYTES);
	sim_check(stage->world, stage->fails == 0 && stage_stop(stage) == 0);
}

static void no_space(struct stage *stage)
{
	no_map(stage, SIM_CREATE, -ENOSPC, false);
}
static void no_space_crash(struct stage *stage)
{
	no_map(stage, SIM_CREATE, -ENOSPC, true);
}
static void no_write(struct stage *stage)
{
	no_map(stage, SIM_WRITE, -EIO, true);
}
static void no_flush(struct stage *stage)
{
	no_map(stage, SIM_FLUSH, -EIO, true);
}

UNIT(test_no_map)
{
	stage_run_raw(no_space, 1, NULL);
	stage_run_raw(no_space_crash, 1, NULL);
	stage_run_raw(no_write, 1, NULL);
	stage_run_raw(no_flush, 1, NULL);
}

/* ---- copies
 * --------------------------------------------------------------------------------------
 */

static void slow_copy(struct stage *stage)
{
	for (unsigned i = 0; i < STAGE_PEERS; i++)
		stage->peers_conf[i].sync_rate_bytes = 512 << 10;
}

static void rate(struct stage *stage)
{
	uint64_t since = sim_now(stage->world);

	fill(stage);
	since = sim_now(stage->world) - since;
	/* 1 MiB that does not compress, in four extents; the hole costs nothing. */
	sim_check(stage->world, since > 1400 * SIM_MS && since < 2500 * SIM_MS);
}

UNIT(test_rate)
{
	stage_run_raw(rate, 1, slow_copy);
}

/* A copy that was broken off goes on where the standby had acknowledged, also after a crash. */
static void goes_on(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	sim_check(stage->world, stage_start(stage) == 0);
	sim_run_for(stage->world, 1200 * SIM_MS); /* three of four; the map is saved each second */
	sim_check(stage->world, peer->data_frames == 3);
	stage_crash(stage, SIM_POWER);
	peer->data_bytes = 0;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "gone on");
	sim_check(stage->world, peer->data_bytes == 512 << 10); /* the third was behind the save */
	sim_check(stage->world, peer->starts == 2 && !peer->start.reset && peer->start.sync);
}

UNIT(test_goes_on)
{
	stage_run_raw(goes_on, 1, slow_copy);
}

/* Y2, and what the end of a copy is. */
static void acknowledged(struct stage *stage)
{
	static struct superblock sb;
	struct stage_peer *peer = &stage->peers[0];

	peer->no_sync_ack = true;
	sim_check(stage->world, stage_start(stage) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, peer->ends == 1 && peer->sync_frames > 1);
	sim_check(stage->world, dirty_bytes(the_ship(stage)->dirty) == 2 * STAGE_VOLUME_BYTES);
	sim_check(stage->world, stage_status(stage)->peers[0].sync.active);
	sim_check(stage->world, stage->status.peers[0].sync.done_bytes == 0);
	sim_check(stage->world, !strcmp(stage->status.peers[0].state, "syncing"));
	/* It has no position yet, so for how long it is behind is not known, and all is still to
	 * come. */
	sim_check(stage->world, stage->status.peers[0].lag.ns == UINT64_MAX);
	sim_check(stage->world, stage->status.peers[0].lag.bytes == 2 * STAGE_VOLUME_BYTES);
	sim_check(stage->world, !status_is_protected(&stage->status));
	/* All but the END. */
	peer->sync_frames--;
	stage_peer_sync_ack(peer);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, dirty_bytes(the_ship(stage)->dirty) == 0);
	sim_check(stage->world, stage_status(stage)->peers[0].needs_sync);
	stage_superblock(stage, &sb);
	sim_check(stage->world, sb.peers[0].needs_sync);
	peer->sync_frames++;
	stage_peer_sync_ack(peer);
	sim_run_for(stage->world, 100 * SIM_MS);
	sim_check(stage->world, !stage_status(stage)->peers[0].needs_sync);
	sim_check(stage->world, stage->status.peers[0].lag.ns == 0);
	sim_check(stage->world, stage->status.peers[0].lag.bytes == 0);
	sim_check(stage->world, status_is_protected(&stage->status));
	stage_superblock(stage, &sb);
	sim_check(stage->world, !sb.peers[0].needs_sync);
	sim_check(stage->world, sim_file_size(stage->node, DIRTY_FILE) == -ENOENT);
}

UNIT(test_acknowledged)
{
	stage_run_raw(acknowledged, 1, NULL);
}

/* A journal that a standby which keeps up never has to be released for. */
static void long_journal(struct stage *stage)
{
	stage->slots = 64;
}

static void slow_copy_long_journal(struct stage *stage)
{
	slow_copy(stage);
	long_journal(stage);
}

/* Y1: writes all over what is being copied. */
static void beside_writes(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t state = 11, rounds = 0;

	sim_check(stage->world, stage_start(stage) == 0);
	while (!peer->ends || rounds < 200) {
		struct stage_request *writes[4];

		for (unsigned i = 0; i < 4; i++) {
			uint64_t off, len;

			state = state * 6364136223846793005ull + 1442695040888963407ull;
			off = (state >> 33) % (STAGE_VOLUME_BYTES / 512) * 512;
			len = min_u64(((state >> 50) % 40 + 1) * 512, STAGE_VOLUME_BYTES - off);
			writes[i] = i == 3 ? stage_zero(stage, EXPORT_WRITE_ZEROES, rounds % 2, off,
							len)
					   : stage_write(stage, rounds % 2, off, len, 0);
		}
		for (unsigned i = 0; i < 4; i++)
			sim_check(stage->world, stage_wait(stage, writes[i]) == 0);
		sim_run_for(stage->world, 2 * SIM_MS); /* as much as the link carries */
		if (++rounds > 20000)
			sim_fail(stage->world, "the copy does not end: %lu left, %s, %s",
				 (unsigned long)dirty_bytes(the_ship(stage)->dirty),
				 stage_status(stage)->peers[0].state, stage->status.peers[0].error);
	}
	sim_check(stage->world, rounds > 200 && peer->starts == 1);
	stage_converge(stage, "beside writes");
	stage_check_read(stage, "beside writes");
}

UNIT(test_beside_writes)
{
	stage_run_raw(beside_writes, 1, slow_copy_long_journal);
}

/* A stop in the middle of a copy, of a release, of whatever: at each event of the way. */
static unsigned stop_at;

static void stop_anywhere(struct stage *stage)
{
	bool filled;

	sim_check(stage->world, stage_start(stage) == 0);
	cut(stage, 0);
	write_much(stage, 1u << 20, 128 << 10);
	sim_heal_all(stage->world);
	for (unsigned i = 0; i < stop_at; i++)
		sim_step(stage->world);
	filled = the_ship(stage)->peer->needs_sync;
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, filled ? "stopped in a copy" : "stopped behind it");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_stop_anywhere)
{
	for (stop_at = 0; stop_at < 700; stop_at += 13)
		stage_run_raw(stop_anywhere, 1, NULL);
}

/* A volume that cannot be read ends the session, not the service. */
static void unreadable(struct stage *stage)
{
	sim_fault_add(stage->world, &(struct sim_fault){ .pattern = "/vol/v0",
							 .ops = SIM_READ,
							 .action = SIM_ERROR,
							 .error = -EIO,
							 .count = 3 });
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "once it can be read");
	sim_check(stage->world, stage->peers[0].starts > 1 && stage->fails == 0);
}

UNIT(test_unreadable)
{
	stage_run_raw(unreadable, 1, NULL);
}

/* The journal is released for the one that is away only. */
static void two_standbys(struct stage *stage)
{
	struct stage_peer *here = &stage->peers[0], *away = &stage->peers[1];
	uint64_t copied[2];

	fill_and_write(stage);
	copied[0] = here->data_bytes;
	copied[1] = away->data_bytes;
	cut(stage, 1);
	for (unsigned i = 0; i < 1024; i++)
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, i % 8 * 16384, 16384, 0)) == 0);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, !stage_status(stage)->peers[0].needs_sync);
	sim_check(stage->world, stage->status.peers[1].needs_sync);
	sim_heal_all(stage->world);
	stage_converge(stage, "both");
	sim_check(stage->world, here->data_bytes == copied[0] && here->starts == 1);
	sim_check(stage->world, away->data_bytes - copied[1] == 128 << 10);
}

UNIT(test_two_standbys)
{
	stage_run_raw(two_standbys, 2, long_journal);
}

/* In the middle of a copy that somebody else began: what it is behind counts from what it keeps,
 * not from what it acknowledged; where it keeps nothing, that is not known. */
static void kept_there(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	const struct status_peer *s = &stage->status.peers[0];

	fill(stage);
	for (unsigned i = 0; i < 5; i++)
		sim_check(stage->world, stage_wait(stage, stage_write(stage, 0, 0, 4096, 0)) == 0);
	stage_converge(stage, "written");
	for (unsigned i = 0; i < 2; i++) {
		peer->syncing = true;
		peer->kept_seq = i ? 0 : 2;
		link_close(peer->link);
		sim_run_for(stage->world, 600 * SIM_MS);
		sim_check(stage->world, stage_status(stage)->peers[0].sync.active);
		if (i) {
			sim_check(stage->world, s->lag.ns == UINT64_MAX);
		} else {
			sim_check(stage->world, s->lag.writes == stage->group->head_seq - 2);
			sim_check(stage->world, s->lag.ns > 0);
			sim_check(stage->world, stage->group->ships[0]->peer->copy_seq == 2);
		}
		stage_converge(stage, "copied");
		sim_run_for(stage->world, 100 * SIM_MS);
		sim_check(stage->world, stage_status(stage)->peers[0].lag.writes == 0);
	}
}

UNIT(test_kept_there)
{
	stage_run_raw(kept_there, 1, slow_copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_released),      cmocka_unit_test(test_another_copy),
		cmocka_unit_test(test_blocked),	      cmocka_unit_test(test_never_acknowledged),
		cmocka_unit_test(test_went_back),     cmocka_unit_test(test_queued_at_return),
		cmocka_unit_test(test_lost_map),      cmocka_unit_test(test_no_map),
		cmocka_unit_test(test_rate),	      cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_acknowledged),  cmocka_unit_test(test_beside_writes),
		cmocka_unit_test(test_stop_anywhere), cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_two_standbys),  cmocka_unit_test(test_kept_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
