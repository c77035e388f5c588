/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/link.h"

#include "tests/unit/core/group/link_ends.h"

#define SEEDS	    80u
#define CHAOS_STEPS 60u

/* ---- everything arrives, in order, through whatever the network does --------------------------
 */

static bool all_arrived(void *context)
{
	(void)context;
	return both_open(NULL) && t.server.heard_start == t.client.start &&
	       t.client.heard_start == t.server.start && t.server.heard == t.client.sent_max &&
	       t.client.heard == t.server.sent_max && link_queued(t.client.link) == 0 &&
	       link_queued(t.server.link) == 0;
}

static void chaos_step(struct prng *prng)
{
	struct end *end = prng_chance(prng, 1, 2) ? &t.client : &t.server;

	sim_run_for(t.world, prng_below(prng, 30 * SIM_MS));
	switch (prng_below(prng, 12)) {
	case 0:
		sim_reset_streams(t.a, t.b);
		break;
	case 1:
		if (link_is_open(end->link)) {
			end_close(end);
			end_again(end, prng_below(prng, SIM_MS));
		}
		break;
	case 2:
		sim_cut(t.a, t.b, SIM_CUT_SILENT);
		break;
	case 3:
		sim_cut(t.b, t.a, SIM_CUT_RESET);
		break;
	case 4:
	case 5:
		sim_heal_all(t.world);
		break;
	default:
		break;
	}
}

static void body_chaos(struct sim_world *world, void *context)
{
	struct prng prng;
	unsigned i;

	(void)context;
	prng_seed(&prng, t.seed);
	ends_connect();
	t.client.chaos = t.server.chaos = true;
	t.client.sent_max = t.server.sent_max = UINT32_MAX;
	for (i = 0; i < CHAOS_STEPS; i++)
		chaos_step(&prng);
	sim_heal_all(world);
	t.client.chaos = t.server.chaos = false;
	t.client.sent_max = t.server.sent_max = 20;
	sim_reset_streams(t.a, t.b);
	if (link_is_open(t.client.link))
		end_close(&t.client);
	end_again(&t.client, 0);
	if (!sim_run_until(world, all_arrived, NULL, 60 * SIM_SECOND))
		sim_fail(world, "only %ju and %ju of 20 frames arrived", (uintmax_t)t.server.heard,
			 (uintmax_t)t.client.heard);
	sim_check(world, link_received_bytes(t.server.link) > 0);
	sim_check(world, link_sent_bytes(t.client.link) > 0);
	ends_free();
}

UNIT(test_chaos)
{
	uint64_t delivered = 0, starts = 0, released = 0;
	unsigned seed;

	for (seed = 1; seed <= SEEDS; seed++) {
		struct sim_options options;

		sim_options_calm(&options);
		options.split_recv_ppm = seed % 3 == 0 ? 700000 : 0;
		options.socket_bytes = seed % 2 == 0 ? 3000 : 500000;
		in_world(seed, seed % 4 >= 2, &options, body_chaos);
		delivered += t.server.delivered + t.client.delivered;
		starts += t.server.start + t.client.start;
		released += t.server.released + t.client.released;
	}
	/* The chaos was neither total nor absent. */
	assert_true(delivered > SEEDS * 100);
	assert_true(starts > SEEDS * 6);
	assert_true(released > SEEDS / 8);
}

/* ---- sending ------------------------------------------------------------------------------------
 */

static bool server_heard_all(void *context)
{
	(void)context;
	return t.server.heard == t.client.sent_max;
}

/* What one turn queues goes out in one send. */
static void body_gathered(struct sim_world *world, void *context)
{
	struct frame ack = { .type = FRAME_ACK };
	unsigned i;

	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	sim_run_for(world, 100 * SIM_MS);
	for (i = 0; i < 100; i++) {
		ack = frame_of(t.client.start << 32 | (i + 1));
		sim_check(world, link_send(t.client.link, &ack, body_of(&ack)) == 0);
		if (link_queued(t.client.link) > 400000)
			break;
	}
	sim_check(world, link_sent_bytes(t.client.link) == 0);
	t.client.sent_max = i;
	sim_check(world, sim_run_until(world, server_heard_all, NULL, 10 * SIM_SECOND));
	sim_run_for(world, SIM_SECOND);
	sim_check(world, link_queued(t.client.link) == 0);
	sim_check(world, link_sent_bytes(t.client.link) == link_received_bytes(t.server.link));
	ends_free();
}

UNIT(test_gathered)
{
	in_calm_world(body_gathered);
}

/* Nobody reads: the out buffer fills up, says so, and says when there is room again. */
static void body_back_pressure(struct sim_world *world, void *context)
{
	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	sim_cut_both(t.a, t.b, SIM_CUT_SILENT);
	t.client.sent_max = 500;
	end_fill(&t.client);
	sim_check(world, t.client.sent < 500);
	sim_check(world, link_room(t.client.link) + link_queued(t.client.link) == OUT_BYTES);
	sim_check(world, link_room(t.client.link) < FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES);
	sim_run_for(world, SIM_SECOND);
	sim_check(world, t.client.sent < 500 && t.server.heard == 0);
	sim_heal_all(world);
	sim_check(world, sim_run_until(world, server_heard_all, NULL, 60 * SIM_SECOND));
	ends_free();
}

UNIT(test_back_pressure)
{
	in_calm_world(body_back_pressure);
}

static void body_not_open(struct sim_world *world, void *context)
{
	struct frame ack = { .type = FRAME_ACK };

	(void)context;
	end_new(&t.client, t.a, 1, false);
	sim_check(world, !link_is_open(t.client.link));
	sim_check(world, link_send(t.client.link, &ack, NULL) == -ENOTCONN);
	link_resume(t.client.link);
	link_close(t.client.link);
	link_finish(t.client.link, &ack, NULL);
	sim_check(world, link_free(NULL) == NULL);
	link_free(t.client.link);
	io_free(t.client.io, t.client.place_memory);
	sim_check(world, sim_node_alloc_bytes(t.a) == 0);
}

UNIT(test_not_open)
{
	in_calm_world(body_not_open);
}

static void body_no_memory(struct sim_world *world, void *context)
{
	struct link_events events = { 0 };
	struct link *link = NULL;
	unsigned nth;

	(void)context;
	for (nth = 1; nth <= 3; nth++) {
		sim_node_fail_alloc(t.a, nth);
		sim_check(world, link_new(sim_node_io(t.a), OUT_BYTES, &events, &link) == -ENOMEM);
		sim_check(world, sim_node_alloc_bytes(t.a) == 0);
	}
}

UNIT(test_no_memory)
{
	in_calm_world(body_no_memory);
}

/* ---- finish -------------------------------------------------------------------------------------
 */

static bool client_placing(void *context)
{
	(void)context;
	return t.client.placing;
}

/* A BYE behind a full out buffer, while the other end is sending too. */
static void body_finish(struct sim_world *world, void *context)
{
	struct frame bye = { .type = FRAME_BYE, .body_bytes = 4 };
	uint32_t i;

	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	t.client.sent_max = 500;
	t.server.sent_max = UINT32_MAX;
	end_fill(&t.server);
	sim_check(world, sim_run_until(world, client_placing, NULL, SIM_SECOND));
	end_fill(&t.client);
	t.client.sent_max = t.client.sent;
	t.client.places_pending = link_places(t.client.link);
	sim_check(world, t.client.places_pending == t.direct);
	link_finish(t.client.link, &bye, "bye.");
	if (!t.direct)
		memset(t.client.place_memory, 0xee, SEGMENT_TOTAL_MAX_BYTES);
	sim_check(world, !link_is_open(t.client.link));
	sim_check(world, link_send(t.client.link, &bye, "bye.") == -ENOTCONN);
	sim_check(world, sim_run_until(world, server_ended, NULL, 2 * SIM_SECOND));
	sim_check(world, t.server.finished && t.server.heard == t.client.sent_max);
	sim_check(world, t.client.ended == 0);
	for (i = 0; i < SEGMENT_TOTAL_MAX_BYTES; i++)
		sim_check(world, t.client.place_memory[i] == 0xee);
	ends_free();
}

static void body_finish_deaf_peer(struct sim_world *world, void *context)
{
	struct frame bye = { .type = FRAME_BYE, .body_bytes = 4 };

	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	sim_cut_both(t.a, t.b, SIM_CUT_SILENT);
	link_finish(t.client.link, &bye, "bye.");
	sim_run_for(world, 900 * SIM_MS);
	sim_check(world, sim_stream_count(t.a) == 1);
	sim_run_for(world, 200 * SIM_MS);
	sim_check(world, sim_stream_count(t.a) == 0);
	sim_check(world, t.client.ended == 0);
	sim_heal_all(world);
	ends_free();
}

/* A new stream cuts a finish short. */
static void body_finish_and_start(struct sim_world *world, void *context)
{
	struct frame bye = { .type = FRAME_BYE };

	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	sim_cut_both(t.a, t.b, SIM_CUT_SILENT);
	t.client.sent_max = 30;
	end_fill(&t.client);
	link_finish(t.client.link, &bye, NULL);
	sim_run_for(world, 10 * SIM_MS);
	sim_heal_all(world);
	end_again(&t.client, 0);
	t.server.sent_max = 30;
	sim_check(world, sim_run_until(world, all_arrived, NULL, 20 * SIM_SECOND));
	sim_check(world, t.client.start == 2);
	ends_free();
}

UNIT(test_finish)
{
	in_calm_world(body_finish);
	in_calm_world(body_finish_deaf_peer);
	in_calm_world(body_finish_and_start);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chaos),	      cmocka_unit_test(test_gathered),
		cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_not_open),
		cmocka_unit_test(test_no_memory),     cmocka_unit_test(test_finish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
