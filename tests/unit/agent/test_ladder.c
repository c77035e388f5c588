/* SPDX-License-Identifier: Apache-2.0 */
/* When the journal will be full is said before it is. */
#include "tests/unit/agent/stage.h"

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static uint64_t predicted_ns(struct stage *stage)
{
	return stage_status(stage)->journal_full_ns;
}

/* A write of 4 KiB, half of them compressible, every `pace_ns`. */
static void write_for(struct stage *stage, uint64_t for_ns, uint64_t pace_ns)
{
	uint64_t end_ns = sim_now(stage->world) + for_ns;

	while (sim_now(stage->world) < end_ns && !the_ship(stage)->peer->needs_sync) {
		struct stage_request *request =
			stage_write(stage, 0, stage->next_id * 4096 % STAGE_VOLUME_BYTES, 4096, 0);

		sim_check(stage->world, stage_wait(stage, request) == 0);
		sim_run_for(stage->world, pace_ns);
	}
}

static void roomy(struct stage *stage)
{
	stage->slots = 300;
}

static void predicts(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t said_ns[4], at_ns[4];

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	/* It follows: nothing is in sight. */
	for (unsigned i = 0; i < 40; i++) {
		write_for(stage, 200 * SIM_MS, 2 * SIM_MS);
		sim_check(stage->world, predicted_ns(stage) == UINT64_MAX);
	}
	sim_check(stage->world, stage->status.released_seq == 0);
	peer->refuse_epoch = 1;
	link_close(peer->link);
	/* It is away, and nothing is written. */
	sim_run_for(stage->world, 10 * SIM_SECOND);
	sim_check(stage->world, predicted_ns(stage) == UINT64_MAX);
	write_for(stage, 3 * SIM_SECOND, 10 * SIM_MS);
	for (unsigned i = 0; i < 4; i++) {
		write_for(stage, 2 * SIM_SECOND, 10 * SIM_MS);
		said_ns[i] = predicted_ns(stage);
		at_ns[i] = sim_now(stage->world);
		sim_check(stage->world, said_ns[i] != UINT64_MAX);
		sim_check(stage->world, the_ship(stage)->ladder.told);
	}
	write_for(stage, 600 * SIM_SECOND, 10 * SIM_MS);
	sim_check(stage->world, the_ship(stage)->peer->needs_sync);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t took_ns = sim_now(stage->world) - at_ns[i];

		/* One slot is what it knows it by. */
		if (said_ns[i] < took_ns * 7 / 10 || said_ns[i] > took_ns * 13 / 10)
			sim_fail(stage->world, "%lu ms were said, it took %lu ms",
				 (unsigned long)(said_ns[i] / SIM_MS),
				 (unsigned long)(took_ns / SIM_MS));
	}
	/* Now it is in the dirty map, and nothing can become full for it. */
	sim_run_for(stage->world, 3 * SIM_SECOND);
	sim_check(stage->world, predicted_ns(stage) == UINT64_MAX);
	sim_check(stage->world, stage->status.released_seq > 0);
	sim_check(stage->world, stage->status.released_seq == the_ship(stage)->peer->released_seq);
	peer->refuse_epoch = 0;
	stage_converge(stage, "back");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_predicts)
{
	stage_run_raw(predicts, 1, roomy);
}

/* Slower writes, more time; a standby that catches up takes it out of sight. */
static void changes(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t fast_ns, slow_ns;

	sim_check(stage->world, stage_start(stage) == 0);
	write_for(stage, 10 * SIM_MS, SIM_MS);
	stage_converge(stage, "first copy");
	peer->refuse_epoch = 1;
	link_close(peer->link);
	write_for(stage, 5 * SIM_SECOND, 10 * SIM_MS);
	fast_ns = predicted_ns(stage);
	write_for(stage, 9 * SIM_SECOND, 100 * SIM_MS);
	slow_ns = predicted_ns(stage);
	sim_check(stage->world, fast_ns != UINT64_MAX && slow_ns != UINT64_MAX);
	sim_check(stage->world, slow_ns > 4 * fast_ns);
	peer->refuse_epoch = 0;
	stage_converge(stage, "back");
	write_for(stage, 3 * SIM_SECOND, 10 * SIM_MS);
	sim_check(stage->world, predicted_ns(stage) == UINT64_MAX);
	sim_check(stage->world, !the_ship(stage)->ladder.told);
	sim_check(stage->world, stage_stop(stage) == 0);
}

static uint64_t lag_bytes(struct stage *stage)
{
	return stage_status(stage)->peers[0].lag.bytes;
}

/* What a standby lacks is known after a restart as well, to within a slot; and what it lacked
 * before nobody takes for what came in a second. */
static void restarted(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t lacked;

	sim_check(stage->world, stage_start(stage) == 0);
	stage_converge(stage, "first copy");
	write_for(stage, 8 * SIM_SECOND, 5 * SIM_MS);
	stage_converge(stage, "before");
	sim_check(stage->world, stage_stop(stage) == 0);
	/* It has everything when the group starts: that is exact. */
	peer->refuse_epoch = 1;
	peer->refuse_code = LINK_REFUSE_VOLUMES;
	sim_check(stage->world, stage_start(stage) == 0);
	sim_check(stage->world, lag_bytes(stage) == 0);
	write_for(stage, 3 * SIM_SECOND, 10 * SIM_MS);
	lacked = (stage_status(stage)->head_seq - peer->seq) * 4096;
	sim_check(stage->world, lacked > 200 * 4096);
	sim_check(stage->world, lag_bytes(stage) >= lacked && lag_bytes(stage) < lacked + 8 * 4096);
	sim_check(stage->world, predicted_ns(stage) > 20 * SIM_SECOND);
	sim_check(stage->world, stage_stop(stage) == 0);
	/* It lacks what lies in slots that replay does not read. */
	sim_check(stage->world, stage_start(stage) == 0);
	lacked = (stage_status(stage)->head_seq - peer->seq) * 4096;
	sim_check(stage->world, lag_bytes(stage) >= lacked);
	sim_check(stage->world, lag_bytes(stage) < lacked + 2 * stage->slot_bytes);
	peer->refuse_epoch = 0;
	stage_converge(stage, "back");
	sim_check(stage->world, lag_bytes(stage) == 0);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_restarted)
{
	stage_run_raw(restarted, 1, roomy);
}

UNIT(test_changes)
{
	stage_run_raw(changes, 1, roomy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_predicts),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_restarted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
