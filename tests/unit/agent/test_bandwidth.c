/* SPDX-License-Identifier: Apache-2.0 */
/* The bandwidth of a standby: the limit holds for all that is sent to it, and costs nothing below.
 */
#include "tests/unit/agent/stage.h"

#define RATE	  (512u << 10)
#define MINUTE_NS 60000000000ull

/* ---- the bucket ---------------------------------------------------------------------------------
 */

/* Sends frames of `frame_bytes` as fast as it may for `span_ns`; the bytes that went. */
static uint64_t drive(struct bandwidth *bandwidth, uint64_t *total, uint64_t *now_ns, uint64_t rate,
		      uint64_t frame_bytes, uint64_t span_ns)
{
	uint64_t end_ns = *now_ns + span_ns, from = *total;

	while (*now_ns < end_ns) {
		uint64_t wait_ns = bandwidth_wait_ns(bandwidth, rate, *now_ns);

		if (wait_ns) {
			*now_ns += wait_ns;
			continue;
		}
		*total += frame_bytes;
		bandwidth_count(bandwidth, *total, rate, *now_ns);
	}
	return *total - from;
}

UNIT(test_limit_holds)
{
	static const uint64_t rates[] = { 64 << 10, 1 << 20, 100 << 20, 1ull << 40 };
	static const uint64_t frames[] = { 64, 4096 + 64, (1 << 20) + 64 };

	for (unsigned r = 0; r < array_len(rates); r++)
		for (unsigned f = 0; f < array_len(frames); f++) {
			struct bandwidth bandwidth = { 0 };
			uint64_t total = 0, now_ns = 5 * SIM_SECOND, rate = rates[r];
			/* As many frames as are worth looking at. */
			uint64_t span_ns = min_u64(20 * SIM_SECOND,
						   200000 * frames[f] * SIM_SECOND / rate + 1);
			double most = (double)rate * ((double)(span_ns + BANDWIDTH_BURST_NS) / 1e9);
			uint64_t went;

			if (rate / frames[f] > 10000000)
				continue; /* the burst alone takes minutes to count */
			went = drive(&bandwidth, &total, &now_ns, rate, frames[f], span_ns);
			assert_true((double)went <= most + (double)frames[f] + 1);
			assert_true((double)went >= (double)rate * (double)span_ns / 1e9 * 0.99 -
							    (double)frames[f]);
		}
}

UNIT(test_nothing_waits_below)
{
	struct bandwidth bandwidth = { 0 };
	uint64_t total = 0, now_ns = 1;

	/* Half of the limit, in frames that are larger than what the burst is worth. */
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(bandwidth_wait_ns(&bandwidth, RATE, now_ns), 0);
		total += 1 << 20;
		bandwidth_count(&bandwidth, total, RATE, now_ns);
		now_ns += 4 * SIM_SECOND;
	}
	/* And none at all. */
	assert_int_equal(drive(&bandwidth, &total, &now_ns, 0, 1 << 20, 0), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(bandwidth_wait_ns(&bandwidth, 0, now_ns), 0);
		total += 1 << 20;
		bandwidth_count(&bandwidth, total, 0, now_ns);
	}
	/* What went without a limit is not owed under the next one. */
	assert_int_equal(bandwidth_wait_ns(&bandwidth, RATE, now_ns), 0);
}

UNIT(test_another_limit)
{
	struct bandwidth bandwidth = { 0 };
	uint64_t wait_ns;

	bandwidth_count(&bandwidth, 4 * RATE, RATE, SIM_SECOND);
	wait_ns = bandwidth_wait_ns(&bandwidth, RATE, SIM_SECOND);
	assert_int_equal(wait_ns, 4 * SIM_SECOND - BANDWIDTH_BURST_NS);
	/* The same debt under a limit four times as high, then no limit. */
	assert_int_equal(bandwidth_wait_ns(&bandwidth, 4 * RATE, SIM_SECOND),
			 SIM_SECOND - BANDWIDTH_BURST_NS);
	assert_int_equal(bandwidth_wait_ns(&bandwidth, 0, SIM_SECOND), 0);
	/* A connection that went took what was queued with it. */
	bandwidth_count(&bandwidth, 3 * RATE, RATE, 2 * SIM_SECOND);
	assert_int_equal(bandwidth_wait_ns(&bandwidth, RATE, 2 * SIM_SECOND), 0);
	bandwidth_count(&bandwidth, 5 * RATE, RATE, 2 * SIM_SECOND);
	assert_int_equal(bandwidth_wait_ns(&bandwidth, RATE, 2 * SIM_SECOND),
			 2 * SIM_SECOND - BANDWIDTH_BURST_NS);
}

UNIT(test_windows)
{
	struct conf_peer peer = {
		.bandwidth_bytes = 1000,
		.windows = { { 8 * 60, 18 * 60, 100 }, { 22 * 60, 6 * 60, 0 }, { 1439, 1440, 7 } },
		.window_count = 2,
	};
	uint64_t day_ns = 20000 * 1440 * MINUTE_NS;

	assert_int_equal(bandwidth_limit(&peer, day_ns + (8 * 60) * MINUTE_NS), 100);
	assert_int_equal(bandwidth_limit(&peer, day_ns + (8 * 60) * MINUTE_NS - 1), 1000);
	assert_int_equal(bandwidth_limit(&peer, day_ns + (18 * 60) * MINUTE_NS - 1), 100);
	assert_int_equal(bandwidth_limit(&peer, day_ns + (18 * 60) * MINUTE_NS), 1000);
	assert_int_equal(bandwidth_limit(&peer, day_ns + (22 * 60) * MINUTE_NS), 0);
	assert_int_equal(bandwidth_limit(&peer, day_ns + 3 * MINUTE_NS), 0);
	assert_int_equal(bandwidth_limit(&peer, day_ns + (6 * 60) * MINUTE_NS), 1000);
	peer.windows[0] = (struct conf_window){ 0, 1440, 55 };
	assert_int_equal(bandwidth_limit(&peer, day_ns + 1439 * MINUTE_NS), 55);
	peer.windows[0] = peer.windows[2];
	peer.window_count = 1;
	assert_int_equal(bandwidth_limit(&peer, day_ns + 1439 * MINUTE_NS), 7);
	assert_int_equal(bandwidth_limit(&peer, day_ns), 1000);
}

UNIT(test_measures)
{
	struct bandwidth bandwidth = { 0 };
	uint64_t total = 0, now_ns = 7 * SIM_SECOND, rate;

	drive(&bandwidth, &total, &now_ns, RATE, 4096, 10 * SIM_SECOND);
	rate = bandwidth_sent_rate(&bandwidth, now_ns);
	assert_true(rate > RATE / 100 * 90 && rate < RATE / 100 * 115);
	assert_int_equal(bandwidth_sent_rate(&bandwidth, now_ns + 60 * SIM_SECOND) > RATE / 20, 0);
	assert_int_equal(bandwidth_sent_rate(&bandwidth, now_ns + 120 * SIM_SECOND), 0);
}

/* ---- a standby ----------------------------------------------------------------------------------
 */

static void limited(struct stage *stage)
{
	stage->peers_conf[0].bandwidth_bytes = RATE;
	stage->slots = 64; /* nothing is released */
}

static void at_least(struct stage *stage, uint64_t since_ns, uint64_t bytes, const char *what)
{
	uint64_t took_ns = sim_now(stage->world) - since_ns;
	uint64_t least_ns = sub_floor_u64(bytes, SEGMENT_TOTAL_MAX_BYTES) * SIM_SECOND / RATE;

	least_ns = sub_floor_u64(least_ns, BANDWIDTH_BURST_NS);
	if (took_ns < least_ns || took_ns > bytes * SIM_SECOND / RATE * 3 / 2 + SIM_SECOND)
		sim_fail(stage->world, "%s: %lu bytes in %lu ms", what, (unsigned long)bytes,
			 (unsigned long)(took_ns / SIM_MS));
}

static void copies_and_segments(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t since_ns = sim_now(stage->world), bytes = 0;
	struct stage_request *request;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	bytes = stage_status(stage)->peers[0].sent_bytes;
	/* Half of the volume does not compress. */
	sim_check(stage->world, bytes > STAGE_VOLUME_BYTES / 2);
	at_least(stage, since_ns, bytes, "the copy");
	sim_run_for(stage->world, 5 * SIM_SECOND);
	since_ns = sim_now(stage->world);
	bytes = stage_status(stage)->peers[0].sent_bytes;
	for (unsigned i = 0; i < 64; i++) {
		stage->next_id = (stage->next_id + 1) | 1;
		stage->next_id++; /* odd ids do not compress */
		sim_check(stage->world,
			  stage_wait(stage, stage_write(stage, 0, i * 16384, 16384, 0)) == 0);
	}
	stage_converge(stage, "the stream");
	bytes = stage_status(stage)->peers[0].sent_bytes - bytes;
	sim_check(stage->world, bytes > 64 * 16384);
	at_least(stage, since_ns, bytes, "the stream");
	sim_check(stage->world, stage->status.peers[0].bandwidth_bytes == RATE);
	sim_check(stage->world, stage->status.peers[0].sent_rate_bytes_per_s > RATE / 2);
	sim_check(stage->world, stage->status.peers[0].sent_rate_bytes_per_s < RATE * 3 / 2);
	sim_check(stage->world, stage->status.peers[0].reconnects == 0);
	/* Below it, a write is there as fast as ever. */
	sim_run_for(stage->world, 5 * SIM_SECOND);
	for (unsigned i = 0; i < 20; i++) {
		request = stage_write(stage, 1, i * 4096, 4096, EXPORT_FUA);
		sim_check(stage->world, stage_wait(stage, request) == 0);
		since_ns = sim_now(stage->world);
		while (peer->seq < stage->group->head_seq)
			sim_check(stage->world, sim_step(stage->world));
		if (sim_now(stage->world) - since_ns > 5 * SIM_MS)
			sim_fail(stage->world, "a lone write took %lu us to the standby",
				 (unsigned long)((sim_now(stage->world) - since_ns) / SIM_US));
		sim_run_for(stage->world, 100 * SIM_MS);
	}
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_copies_and_segments)
{
	stage_run_raw(copies_and_segments, 1, limited);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit_holds),   cmocka_unit_test(test_nothing_waits_below),
		cmocka_unit_test(test_another_limit), cmocka_unit_test(test_windows),
		cmocka_unit_test(test_measures),      cmocka_unit_test(test_copies_and_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
