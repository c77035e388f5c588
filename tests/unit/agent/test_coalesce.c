/* SPDX-License-Identifier: Apache-2.0 */
/* A backlog in which the same blocks are written again and again is not sent: a copy takes its
 * place.
 */
#include "tests/unit/agent/stage.h"

#define REGION_BYTES (128u << 10)

static struct ship *the_ship(struct stage *stage)
{
	return stage->group->ships[0];
}

static void narrow(struct stage *stage)
{
	stage->slots = 300;
	stage->peers_conf[0].bandwidth_bytes = 64 << 10;
	stage->peers_conf[0].coalesce_bytes = 512 << 10;
	stage->group_conf.peer_timeout_ns = 30 * SIM_SECOND;
}

static void narrow_without(struct stage *stage)
{
	narrow(stage);
	stage->peers_conf[0].coalesce_bytes = 0;
}

/* `bytes` of writes that do not compress, over `region_bytes` of volume 0. */
static void write_over(struct stage *stage, uint64_t bytes, uint64_t region_bytes)
{
	for (uint64_t at = 0; at < bytes; at += 8192) {
		struct stage_request *request;

		stage->next_id = stage->next_id / 2 * 2; /* odd ones do not compress */
		request = stage_write(stage, 0, at % region_bytes, 8192, 0);
		sim_check(stage->world, stage_wait(stage, request) == 0);
		stage->next_id++;
		sim_run_for(stage->world, 5 * SIM_MS);
	}
}

static void converge_slowly(struct stage *stage, const char *what)
{
	for (unsigned i = 0; i < 10 && !stage_in_sync(stage); i++)
		(void)stage_until(stage, stage_in_sync);
	stage_converge(stage, what);
}

static void overwrites(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t segment_bytes, data_bytes, coalesced;

	sim_check(stage->world, stage_start(stage) == 0);
	write_over(stage, 65536, REGION_BYTES);
	converge_slowly(stage, "first copy");
	segment_bytes = peer->segment_bytes;
	data_bytes = peer->data_bytes;
	write_over(stage, 4 << 20, REGION_BYTES);
	converge_slowly(stage, "behind the overwrites");
	coalesced = the_ship(stage)->coalesce.count;
	segment_bytes = peer->segment_bytes - segment_bytes;
	data_bytes = peer->data_bytes - data_bytes;
	if (stage->peers_conf[0].coalesce_bytes) {
		sim_check(stage->world, coalesced > 0);
		if (segment_bytes + data_bytes > 2 << 20)
			sim_fail(stage->world, "%lu bytes of segments, %lu of copies",
				 (unsigned long)segment_bytes, (unsigned long)data_bytes);
		sim_check(stage->world, peer->start.reset && data_bytes >= REGION_BYTES);
		/* Only what had changed. */
		sim_check(stage->world, data_bytes <= (coalesced + 1) * 2 * REGION_BYTES);
	} else {
		sim_check(stage->world, coalesced == 0 && data_bytes == 0);
		sim_check(stage->world, segment_bytes > 4 << 20);
	}
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_overwrites)
{
	stage_run_raw(overwrites, 1, narrow);
}

UNIT(test_overwrites_without)
{
	stage_run_raw(overwrites, 1, narrow_without);
}

static bool was_asked(void *context)
{
	return the_ship(context)->coalesce.again_bytes > 0;
}

/* Each block once: the stream is the shortest way. */
static void distinct(struct stage *stage)
{
	struct stage_peer *peer = &stage->peers[0];
	uint64_t data_bytes;
	unsigned starts;

	sim_check(stage->world, stage_start(stage) == 0);
	write_over(stage, 65536, REGION_BYTES);
	converge_slowly(stage, "first copy");
	starts = peer->starts;
	data_bytes = peer->data_bytes;
	write_over(stage, STAGE_VOLUME_BYTES, STAGE_VOLUME_BYTES);
	sim_check(stage->world, stage_until(stage, was_asked));
	converge_slowly(stage, "behind the writes");
	sim_check(stage->world, peer->starts == starts && peer->data_bytes == data_bytes);
	sim_check(stage->world, the_ship(stage)->coalesce.count == 0);
	sim_check(stage->world, !the_ship(stage)->peer->needs_sync);
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_distinct)
{
	stage_run_raw(distinct, 1, narrow);
}

/* Stops, and kills, at any moment of it. */
static void interrupted(struct stage *stage)
{
	sim_check(stage->world, stage_start(stage) == 0);
	write_over(stage, 65536, REGION_BYTES);
	converge_slowly(stage, "first copy");
	for (unsigned i = 0; i < 12; i++) {
		write_over(stage, 1 << 20, REGION_BYTES);
		while (!the_ship(stage)->coalesce.busy && !the_ship(stage)->coalesce.count &&
		       !the_ship(stage)->peer->needs_sync)
			sim_check(stage->world, sim_step(stage->world));
		sim_run_for(stage->world, i * i * 200 * SIM_US);
		if (i % 2)
			stage_crash(stage, SIM_KILL);
		else
			sim_check(stage->world, stage_stop(stage) == 0);
		sim_check(stage->world, stage_start(stage) == 0);
		if (i % 3 == 0)
			converge_slowly(stage, "after a restart");
	}
	converge_slowly(stage, "in the end");
	stage_check_read(stage, "in the end");
	sim_check(stage->world, stage_stop(stage) == 0);
}

UNIT(test_interrupted)
{
	stage_run_raw(interrupted, 1, narrow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overwrites),
		cmocka_unit_test(test_overwrites_without),
		cmocka_unit_test(test_distinct),
		cmocka_unit_test(test_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
