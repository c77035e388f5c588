/* SPDX-License-Identifier: Apache-2.0 */
/* The dialogue with a standby, and the stream. */
#include "tests/unit/agent/stage.h"

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static void fill(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
}

static void write_some(struct stage *stage, unsigned count)
{
	struct stage_request *last = NULL;

	for (unsigned i = 0; i < count; i++) {
		last = stage_write(stage, i % 2, (stage->next_id * 4096) % (STAGE_VOLUME_BYTES / 2),
				   4096, 0);
		sim_check(stage->world, stage_wait(stage, last) == 0);
	}
}

static void expect_error(struct stage *stage, const char *words)
{
	for (unsigned i = 0; i < 500; i++) {
		if (strstr(stage_status(stage)->peers[0].error, words))
			return;
		sim_run_for(stage->world, 10 * SIM_MS);
	}
	sim_fail(stage->world, "\"%s\" is not said, but \"%s\"", words,
		 stage->status.peers[0].error);
}

/* Ends the connection from the standby's side, and waits until the primary knows. */
static void hang_up(struct stage *stage)
{
	link_close(stage->peers[0].link);
	while (the_ship(stage)->state == SHIP_STREAMING)
		sim_check(stage->world, sim_step(stage->world));
}

/* ---- first copy, then the stream ---------------------------------------------------------------
 */

static void streams(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	sim_check(stage->world, peer->starts == 1 && peer->start.reset && peer->start.sync);
	/* What is one hole is not sent. */
	sim_check(stage->world, peer->data_bytes == STAGE_VOLUME_BYTES);
	sim_check(stage->world, peer->zero_bytes == STAGE_VOLUME_BYTES);
	sim_check(stage->world, peer->zero_frames == 1 && peer->ends == 1);
	write_some(stage, 40);
	stage_zero(stage, EXPORT_TRIM, 0, 0, 65536);
	stage_converge(stage, "the stream");
	sim_check(stage->world, peer->data_bytes == STAGE_VOLUME_BYTES && peer->starts == 1);
	sim_check(stage->world, peer->segments > 0 && the_ship(stage)->tail.memory_hits > 0);
	sim_check(stage->world, !strcmp(stage_status(stage)->peers[0].state, "streaming"));
	sim_check(stage->world, stage->status.peers[0].lag.writes == 0);
	sim_check(stage->world, stage->status.peers[0].lag.ns == 0);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world,
		  peer->byes == 1 && !strcmp(peer->said_bye.text, "the primary stops"));
}

UNIT(test_streams)
{
	stage_run_raw(streams, 1, NULL);
}

/* Resumes right behind what the standby has (checked at START), from memory and from the disk. */
static void resumes(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t copied;

	fill(stage);
	write_some(stage, 10);
	stage_converge(stage, "before");
	copied = peer->data_bytes;
	for (unsigned i = 0; i < 6; i++) {
		hang_up(stage);
		write_some(stage, i * 3);
		sim_run_for(stage->world, i % 2 ? 10 : 300 * SIM_MS); /* applied: out of memory */
		stage_converge(stage, "after a break");
	}
	sim_check(stage->world, peer->starts == 7 && peer->data_bytes == copied);
	sim_check(stage->world, the_ship(stage)->tail.disk_reads > 0);
	/* And behind a restart, crash or not. */
	hang_up(stage);
	write_some(stage, 5);
	stage_crash(stage, SIM_KILL);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "after a kill");
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "after a stop");
	sim_check(stage->world, peer->data_bytes == copied && !peer->start.reset);
}

UNIT(test_resumes)
{
	stage_run_raw(resumes, 1, NULL);
}

/* ---- diverged ----------------------------------------------------------------------------------
 */

static void expect_diverged(struct stage *stage, const char *words)
{
	struct stage_peer *peer = &stage->peers[0];
	unsigned starts = peer->starts;
	uint64_t sent = peer->segments + peer->data_frames + peer->zero_frames;

	/* It says nothing before the group is served; if it did, the group would be held. */
	peer->silent = true;
	sim_check(stage->world, stage_start(stage) == 0);
	peer->silent = false;
	link_close(peer->link);
	expect_error(stage, words);
	write_some(stage, 5);
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, peer->starts == starts);
	sim_check(stage->world, peer->segments + peer->data_frames + peer->zero_frames == sent);
	sim_check(stage->world, stage_stop(stage) == 0);
}

static void diverges(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	write_some(stage, 10);
	stage_converge(stage, "before");
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->seq += 100;
	expect_diverged(stage, "holds writes that this primary does not");
	peer->seq -= 100;
	peer->chain_wrong = 1; /* inside what the journal holds */
	expect_diverged(stage, "history differs");
	/* The standby cannot see that: it is told. */
	sim_check(stage->world,
		  peer->refuses > 0 && peer->said_refuse.code == LINK_REFUSE_DIVERGED);
	peer->chain_wrong = 0;
	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "with the right one");
	sim_check(stage->world, stage_stop(stage) == 0);
	peer->chain_wrong = 1; /* at its very end */
	expect_diverged(stage, "history differs");
}

UNIT(test_diverges)
{
	stage_run_raw(diverges, 1, NULL);
}

/* ---- acknowledgements
 * ----------------------------------------------------------------------------
 */

static void ack_beyond(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t floor;

	fill(stage);
	write_some(stage, 10);
	stage_converge(stage, "before");
	floor = ship_floor(the_ship(stage));
	stage_peer_ack(peer, peer->seq + 1);
	expect_error(stage, "never sent");
	sim_check(stage->world, ship_floor(the_ship(stage)) == floor);
	stage_converge(stage, "connected again");
	stage_peer_ack(peer, peer->seq - 1);
	expect_error(stage, "never sent");
	stage_converge(stage, "and again");
}

UNIT(test_ack_beyond)
{
	stage_run_raw(ack_beyond, 1, NULL);
}

static void sync_ack_beyond(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	struct frame frame = { .type = FRAME_SYNC_ACK, .seq = 1000 };

	peer->no_sync_ack = true;
	sim_check(stage->world, stage_start(stage) == 0);
	sim_run_for(stage->world, 50 * SIM_MS);
	stage_peer_send(peer, &frame, NULL);
	expect_error(stage, "never sent");
	peer->no_sync_ack = false;
	stage_converge(stage, "once it says what it got");
}

UNIT(test_sync_ack_beyond)
{
	stage_run_raw(sync_ack_beyond, 1, NULL);
}

/* A standby that does not speak the protocol is left, and tried again. */
static void nonsense(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	static const uint16_t types[] = { FRAME_SYNC_END, FRAME_SYNC_ACK, FRAME_SEGMENT };

	fill(stage);
	for (unsigned i = 0; i < 3; i++) {
		struct frame frame = { .type = types[i], .seq = 1 };
		unsigned starts = peer->starts;

		if (types[i] == FRAME_SEGMENT) {
			frame.arg1 = 1;
			frame.body_bytes = 4096;
		}
		stage_peer_send(peer, &frame, peer->body);
		sim_run_for(stage->world, SIM_SECOND);
		stage_converge(stage, "after nonsense");
		sim_check(stage->world, peer->starts == starts + 1);
	}
	peer->bye = "its disk is full";
	hang_up(stage);
	expect_error(stage, "the standby ended the connection: its disk is full");
	peer->bye = NULL;
	stage_converge(stage, "after its BYE");
}

UNIT(test_nonsense)
{
	stage_run_raw(nonsense, 1, NULL);
}

/* ---- window, heartbeats, silence
 * -----------------------------------------------------------------
 */

static void window(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];

	fill(stage);
	peer->window_bytes = 64 << 10;
	peer->mute = true;
	hang_up(stage);
	for (unsigned i = 0; i < 20; i++)
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, i * 16384, 16384, 0)) == 0);
	peer->unacked_max_bytes = 0;
	sim_run_for(stage->world, SIM_SECOND);
	/* One segment may reach over its end. */
	sim_check(stage->world, peer->unacked_bytes >= 64 << 10);
	sim_check(stage->world, peer->unacked_max_bytes <= (64 << 10) + 20480);
	sim_check(stage->world, stage_status(stage)->peers[0].lag.writes == 20);
	sim_check(stage->world, !strcmp(stage->status.peers[0].state, "catching-up"));
	peer->mute = false;
	stage_converge(stage, "acknowledged");
	sim_check(stage->world, peer->unacked_max_bytes <= (64 << 10) + 20480);
}

UNIT(test_window)
{
	stage_run_raw(window, 1, NULL);
}

static void heartbeats(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	unsigned beats;

	fill(stage);
	write_some(stage, 3);
	stage_converge(stage, "before");
	beats = peer->beats;
	sim_run_for(stage->world, 2 * SIM_SECOND);
	sim_check(stage->world, peer->beats >= beats + 9 && peer->beats <= beats + 11);
	sim_check(stage->world, peer->beat.head.seq == 3 && peer->beat.durable.seq == 3);
	sim_check(stage->world, peer->beat.head.bytes == 3 * 4096 && peer->beat.head.epoch == 1);
	sim_check(stage->world, peer->beat.behind_ns == 0 && peer->beat.sync_left_bytes == 0);
	/* It receives, and does not say that anything is durable. */
	peer->mute = true;
	write_some(stage, 1);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, peer->beat.head.seq == 4);
	sim_check(stage->world, peer->beat.behind_ns > 600 * SIM_MS);
	sim_check(stage->world, peer->beat.behind_ns < 1100 * SIM_MS);
	sim_check(stage->world, stage_status(stage)->peers[0].lag.bytes == 4096);
}

UNIT(test_heartbeats)
{
	stage_run_raw(heartbeats, 1, NULL);
}

static void silence(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t since;

	fill(stage);
	sim_run_for(stage->world, 5 * SIM_SECOND); /* idle is not silent */
	sim_check(stage->world, stage_status(stage)->peers[0].connected && peer->starts == 1);
	sim_cut_both(stage->node, peer->node, SIM_CUT_SILENT);
	since = sim_now(stage->world);
	while (stage_status(stage)->peers[0].connected)
		sim_run_for(stage->world, 10 * SIM_MS);
	since = sim_now(stage->world) - since;
	sim_check(stage->world, since > 1800 * SIM_MS && since < 2400 * SIM_MS);
	sim_check(stage->world, strstr(stage->status.peers[0].error, "silent"));
	write_some(stage, 20); /* does not concern the clients */
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage_status(stage)->peers[0].heard_ns_ago > 2 * SIM_SECOND);
	sim_check(stage->world, stage->status.peers[0].lag.writes == 20);
	sim_check(stage->world, stage->status.peers[0].lag.ns > 900 * SIM_MS);
	sim_heal_all(stage->world);
	stage_converge(stage, "healed");
}

UNIT(test_silence)
{
	stage_run_raw(silence, 1, NULL);
}

/* A stop ends also with a standby that reads nothing. */
static void stop_silent(struct stage *stage)
{
	uint64_t since;

	fill(stage);
	sim_cut_both(stage->node, stage->peers[0].node, SIM_CUT_SILENT);
	write_some(stage, 20);
	since = sim_now(stage->world);
	sim_check(stage->world, stage_stop(stage) == 0);
	sim_check(stage->world, sim_now(stage->world) - since < 1200 * SIM_MS);
}

UNIT(test_stop_silent)
{
	stage_run_raw(stop_silent, 1, NULL);
}

/* Each at its own place. */
static void two_standbys(struct stage *stage)
{
	fill(stage);
	write_some(stage, 10);
	stage_converge(stage, "both");
	sim_cut_both(stage->node, stage->peers[1].node, SIM_CUT_RESET);
	write_some(stage, 10);
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage->peers[0].seq == 20 && stage->peers[1].seq == 10);
	sim_check(stage->world, stage_status(stage)->peers[0].durable_seq == 20);
	sim_check(stage->world, stage->status.peers[1].durable_seq == 10);
	sim_check(stage->world, stage->status.peers[1].lag.writes == 10);
	/* D2: the journal keeps what the second one lacks. */
	sim_check(stage->world, stage->group->journal.floor_seq == 10);
	sim_heal_all(stage->world);
	stage_converge(stage, "both again");
	sim_run_for(stage->world, SIM_SECOND);
	sim_check(stage->world, stage->group->journal.floor_seq == 20);
	sim_check(stage->world, stage->peers[1].starts == 2 && !stage->peers[1].start.sync);
}

UNIT(test_two_standbys)
{
	stage_run_raw(two_standbys, 2, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_diverges),	cmocka_unit_test(test_ack_beyond),
		cmocka_unit_test(test_sync_ack_beyond), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_window),		cmocka_unit_test(test_heartbeats),
		cmocka_unit_test(test_silence),		cmocka_unit_test(test_stop_silent),
		cmocka_unit_test(test_two_standbys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
