/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/link.h"

#include "core/base/err.h"
#include "core/base/prng.h"
#include "proto/segment.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define OUT_BYTES   (2u * (FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES))
#define SEEDS	    120u
#define CHAOS_STEPS 60u

/*
 * Two ends of a connection that is made again whenever it breaks. Frame n of an end's start s has
 * epoch s << 32 | n and a type, length and content that follow from it, so the other end knows what
 * must come: everything of one start, in order, from the first.
 */
struct end {
	struct sim_world *world;
	struct io *io;
	struct prng prng;
	struct link *link;
	struct end *other;
	bool chaos;	 /* refuses places, closes now and then */
	bool withhold;	 /* refuses the next place for 100 ms */
	bool friendly;	 /* the other end breaks no rule */
	bool once;	 /* does not connect again */
	bool keep_spare; /* accepts into `spare` beside the open link */
	struct io_stream *spare;
	uint64_t start, sent, sent_max; /* of this start; sent_max is where sending stops */
	uint64_t heard_start, heard;	/* of the other end */
	uint64_t delivered, released;
	bool finished; /* got a BYE */
	unsigned ended;
	int ended_res;
	char ended_text[256];

	bool placing, withheld;
	uint8_t *place, *place_memory;
	bool direct, places_pending;
	struct io_timer resume_timer, again_timer;
	/* connecting and accepting */
	struct io_address address;
	struct io_listener *listener;
	struct io_stream *stream;
	struct io_op connect_op;
	bool connecting;
};

static struct frame frame_of(uint64_t epoch)
{
	static const uint16_t types[] = { FRAME_ACK,	   FRAME_SEGMENT,  FRAME_HEARTBEAT,
					  FRAME_SYNC_DATA, FRAME_SYNC_END, FRAME_ACK,
					  FRAME_ACK,	   FRAME_SYNC_DATA };
	struct prng prng;
	struct frame frame = { .epoch = epoch };

	prng_seed(&prng, epoch);
	frame.type = types[prng_below(&prng, array_len(types))];
	switch (frame.type) {
	case FRAME_SEGMENT:
		frame.seq = frame.arg1 = epoch & 0xffff;
		frame.body_bytes = SEGMENT_ALIGN_BYTES;
		if (prng_chance(&prng, 1, 4))
			frame.body_bytes *= (uint32_t)prng_between(
				&prng, 1, SEGMENT_TOTAL_MAX_BYTES / SEGMENT_ALIGN_BYTES);
		break;
	case FRAME_SYNC_DATA:
		frame.body_bytes = (uint32_t)prng_between(&prng, 1, 100000);
		if (prng_chance(&prng, 1, 8))
			frame.body_bytes = FRAME_SYNC_MAX_BYTES;
		frame.arg2 = frame.body_bytes;
		break;
	case FRAME_HEARTBEAT:
		frame.body_bytes = (uint32_t)prng_below(&prng, 300);
		if (prng_chance(&prng, 1, 2))
			frame.body_bytes = FRAME_CONTROL_MAX_BYTES;
		break;
	default:
		break;
	}
	return frame;
}

/* Bodies are windows into one random text; where they begin tells them apart. */
static const uint8_t *body_of(const struct frame *frame)
{
	static uint8_t text[SEGMENT_TOTAL_MAX_BYTES + 65536];
	struct prng prng;

	if (text[0] == 0) {
		prng_seed(&prng, 77);
		prng_fill(&prng, text, sizeof(text));
		text[0] = 1;
	}
	prng_seed(&prng, frame->epoch + 1);
	return text + prng_below(&prng, 65536);
}

static void end_fill(struct end *end)
{
	while (end->sent < end->sent_max && link_is_open(end->link)) {
		struct frame frame = frame_of(end->start << 32 | (end->sent + 1));
		size_t room = link_room(end->link);
		int res = link_send(end->link, &frame, body_of(&frame));

		sim_check(end->world, (res == 0) == (FRAME_BYTES + frame.body_bytes <= room));
		if (res == -EAGAIN)
			return;
		sim_check(end->world, res == 0);
		end->sent++;
	}
}

static void end_close(struct end *end);
static void end_again(struct end *end, uint64_t delay_ns);
static void end_start(struct end *end);

/* From inside a callback: on with the spare stream. */
static void end_swap(struct end *end)
{
	end_close(end);
	end->stream = end->spare;
	end->spare = NULL;
	end_start(end);
}

static uint8_t *end_place(void *owner, const struct frame *frame)
{
	struct end *end = owner;

	sim_check(end->world, frame->type == FRAME_SEGMENT || frame->type == FRAME_SYNC_DATA);
	sim_check(end->world, !end->placing);
	if (end->withhold) {
		end->withhold = false;
		end->withheld = true;
		io_timer_start(end->io, &end->resume_timer, 100 * SIM_MS);
		return NULL;
	}
	if (end->chaos && prng_chance(&end->prng, 1, 4)) {
		end->withheld = true;
		io_timer_start(end->io, &end->resume_timer, prng_below(&end->prng, 5 * SIM_MS));
		return NULL;
	}
	end->withheld = false;
	if (end->chaos && prng_chance(&end->prng, 1, 100)) {
		end_close(end);
		end_again(end, 0);
		return end->place_memory;
	}
	if (end->spare) {
		end_swap(end);
		return end->place_memory;
	}
	end->placing = true;
	end->place = end->place_memory;
	return end->place;
}

static void end_close(struct end *end)
{
	end->places_pending = link_places(end->link);
	sim_check(end->world, end->direct || !end->places_pending);
	link_close(end->link);
	sim_check(end->world, !link_is_open(end->link) && link_queued(end->link) == 0);
	end->placing = end->withheld = false;
	io_timer_stop(end->io, &end->resume_timer);
}

static void end_again(struct end *end, uint64_t delay_ns)
{
	if (!end->listener && !end->connecting && !end->once)
		io_timer_start(end->io, &end->again_timer, delay_ns);
}

static int end_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct end *end = owner;
	struct frame expect;

	/* What the former stream still wrote to was given back first. */
	sim_check(end->world, link_heard_ns(end->link) > 0 && !end->places_pending);
	if (end->spare && frame->type == FRAME_ACK) {
		end_swap(end);
		return -ECANCELED;
	}
	if (frame->type == FRAME_BYE) {
		end->finished = true;
		return 0;
	}
	if (end->heard == 0)
		end->heard_start = frame->epoch >> 32;
	end->heard++;
	expect = frame_of(end->heard_start << 32 | end->heard);
	sim_check(end->world, frame->epoch == expect.epoch && frame->type == expect.type &&
				      frame->body_bytes == expect.body_bytes &&
				      frame->seq == expect.seq && frame->arg2 == expect.arg2);
	sim_check(end->world, memcmp(body, body_of(frame), frame->body_bytes) == 0);
	if (frame->type == FRAME_SEGMENT || frame->type == FRAME_SYNC_DATA) {
		sim_check(end->world, end->placing && body == end->place);
		end->placing = false;
	}
	end->delivered++;
	if (end->chaos && prng_chance(&end->prng, 1, 200)) {
		end_close(end);
		end_again(end, prng_below(&end->prng, 3 * SIM_MS));
	} else if (end->chaos && prng_chance(&end->prng, 1, 200)) {
		return -ECANCELED;
	}
	return 0;
}

static void end_writable(void *owner)
{
	end_fill(owner);
}

static void end_ended(void *owner, int res, const char *text)
{
	struct end *end = owner;

	sim_check(end->world, res <= 0 && text[0] != '\0');
	sim_check(end->world, !link_is_open(end->link));
	sim_check(end->world, !end->friendly || res != -EBADMSG);
	end->ended++;
	end->ended_res = res;
	snprintf(end->ended_text, sizeof(end->ended_text), "%s", text);
	end_close(end);
	end_again(end, prng_below(&end->prng, 3 * SIM_MS));
}

static void end_released(void *owner)
{
	struct end *end = owner;

	sim_check(end->world, end->places_pending);
	end->places_pending = false;
	end->released++;
	memset(end->place_memory, 0xee, SEGMENT_TOTAL_MAX_BYTES);
}

static void end_resume(struct io_timer *timer)
{
	struct end *end = container_of(timer, struct end, resume_timer);

	if (end->withheld)
		link_resume(end->link);
}

static void end_start(struct end *end)
{
	end->start++;
	end->sent = end->heard = 0;
	link_start(end->link, end->stream);
	end->stream = NULL;
	sim_check(end->world, link_is_open(end->link) && link_heard_ns(end->link) == 0);
	end_fill(end);
}

static void end_accept(struct end *end);

static void end_connected(struct io_op *op, int64_t res)
{
	struct end *end = container_of(op, struct end, connect_op);

	end->connecting = false;
	if (res < 0) {
		end_again(end, 5 * SIM_MS);
		return;
	}
	if (end->keep_spare && link_is_open(end->link)) {
		end->spare = end->stream;
	} else {
		end_close(end);
		end_start(end);
	}
	if (end->listener)
		end_accept(end);
}

static void end_accept(struct end *end)
{
	end->connecting = true;
	io_accept(end->listener, &end->stream, &end->connect_op);
}

static void end_connect(struct io_timer *timer)
{
	struct end *end = container_of(timer, struct end, again_timer);

	if (end->connecting || link_is_open(end->link))
		return;
	end->connecting = true;
	io_connect(end->io, &end->address, &end->stream, &end->connect_op);
}

static void end_new(struct end *end, struct sim_node *node, uint64_t seed, bool direct)
{
	struct link_events events = {
		.owner = end,
		.place = end_place,
		.frame = end_frame,
		.writable = end_writable,
		.ended = end_ended,
		.released = direct ? end_released : NULL,
	};

	memset(end, 0, sizeof(*end));
	end->world = sim_node_world(node);
	end->io = sim_node_io(node);
	prng_seed(&end->prng, seed);
	end->direct = direct;
	end->friendly = true;
	end->place_memory = io_alloc(end->io, SEGMENT_TOTAL_MAX_BYTES, 4096);
	end->resume_timer.fire = end_resume;
	end->again_timer.fire = end_connect;
	end->connect_op.done = end_connected;
	snprintf(end->address.text, sizeof(end->address.text), "b:1");
	sim_check(end->world, link_new(end->io, OUT_BYTES, &events, &end->link) == 0);
}

/* What a test works with; zeroed before each. */
static struct {
	struct sim_world *world;
	struct sim_node *a, *b;
	struct end client, server, third;
	uint64_t seed;
	bool direct;
} t;

static void ends_connect(void)
{
	end_new(&t.client, t.a, t.seed, t.direct);
	end_new(&t.server, t.b, t.seed + 1000, t.direct);
	t.client.other = &t.server;
	t.server.other = &t.client;
	sim_check(t.world, io_listen(t.server.io, &t.server.address, &t.server.listener) == 0);
	end_accept(&t.server);
	io_timer_start(t.client.io, &t.client.again_timer, 0);
}

static bool both_open(void *context)
{
	(void)context;
	return link_is_open(t.client.link) && link_is_open(t.server.link);
}

static void ends_free(void)
{
	io_timer_stop(t.client.io, &t.client.again_timer);
	io_timer_stop(t.client.io, &t.client.resume_timer);
	io_timer_stop(t.server.io, &t.server.resume_timer);
	t.client.places_pending = link_places(t.client.link) || t.client.places_pending;
	t.server.places_pending = link_places(t.server.link) || t.server.places_pending;
	t.client.link = link_free(t.client.link);
	t.server.link = link_free(t.server.link);
	io_listener_close(t.server.listener);
	sim_run_for(t.world, 5 * SIM_SECOND);
	sim_check(t.world, !t.client.places_pending && !t.server.places_pending);
	io_free(t.client.io, t.client.place_memory);
	io_free(t.server.io, t.server.place_memory);
	sim_check(t.world, sim_stream_count(t.a) == 0 && sim_stream_count(t.b) == 0);
	sim_check(t.world, sim_node_alloc_bytes(t.a) == 0 && sim_node_alloc_bytes(t.b) == 0);
}

static void in_world(uint64_t seed, bool direct, const struct sim_options *options,
		     void (*body)(struct sim_world *world, void *context))
{
	bool held;

	memset(&t, 0, sizeof(t));
	t.seed = seed;
	t.direct = direct;
	t.world = sim_new(seed, options);
	t.a = sim_node_new(t.world, "a");
	t.b = sim_node_new(t.world, "b");
	held = sim_run(t.world, body, NULL);
	sim_free(t.world);
	assert_true(held);
}

static void in_calm_world(void (*body)(struct sim_world *world, void *context))
{
	struct sim_options options;

	sim_options_calm(&options);
	in_world(1, false, &options, body);
	in_world(2, true, &options, body);
}

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

static bool server_ended(void *context)
{
	(void)context;
	return t.server.ended > 0;
}

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

/* ---- another stream, from inside a callback ---- */

static bool third_heard(void *context)
{
	(void)context;
	return t.server.start == 2 && t.server.heard == t.third.sent_max;
}

static bool has_spare(void *context)
{
	(void)context;
	return t.server.spare != NULL;
}

static void body_swap(struct sim_world *world, void *context)
{
	(void)context;
	ends_connect();
	sim_check(world, sim_run_until(world, both_open, NULL, SIM_SECOND));
	t.server.keep_spare = true;
	end_new(&t.third, t.a, 9, t.direct);
	t.third.start = 39;
	t.third.sent_max = 20;
	io_timer_start(t.third.io, &t.third.again_timer, 0);
	sim_check(world, sim_run_until(world, has_spare, NULL, SIM_SECOND));
	t.server.keep_spare = false;
	t.client.once = true;
	t.client.sent_max = 500;
	end_fill(&t.client);
	sim_check(world, sim_run_until(world, third_heard, NULL, 20 * SIM_SECOND));
	sim_check(world, t.server.heard_start == 40);
	sim_check(world, t.server.ended == 0);
	t.third.once = true;
	link_free(t.third.link);
	io_free(t.third.io, t.third.place_memory);
	ends_free();
}

UNIT(test_swap)
{
	struct sim_options options;
	unsigned seed;

	sim_options_calm(&options);
	for (seed = 1; seed <= 10; seed++)
		in_world(seed, seed % 2 == 0, &options, body_swap);
}

/* ---- what a peer may do wrong -------------------------------------------------------------------
 */

static struct {
	const uint8_t *bytes;
	size_t length_bytes;
	struct io_stream *stream;
	struct io_op op;
	bool close, talk; /* `talk`: the link has much to send meanwhile */
} raw;

static void raw_connect_done(struct io_op *op, int64_t res)
{
	(void)op;
	must(res == 0);
}

static void raw_sent(struct io_op *op, int64_t res)
{
	(void)op;
	(void)res;
	if (raw.close) {
		io_stream_close(raw.stream);
		raw.stream = NULL;
	}
}

static bool raw_connected(void *context)
{
	(void)context;
	return raw.stream && link_is_open(t.server.link);
}

/* Gives `bytes` to a link and returns when that has ended. */
static void body_raw(struct sim_world *world, void *context)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)raw.bytes,
			     .iov_len = raw.length_bytes };

	(void)context;
	end_new(&t.server, t.b, 1, t.direct);
	t.server.friendly = false;
	t.server.withhold = raw.talk;
	t.server.sent_max = raw.talk ? UINT32_MAX : 0;

	sim_check(world, io_listen(t.server.io, &t.server.address, &t.server.listener) == 0);
	end_accept(&t.server);
	raw.op = (struct io_op){ .done = raw_connect_done };
	raw.stream = NULL;
	io_connect(sim_node_io(t.a), &t.server.address, &raw.stream, &raw.op);
	sim_check(world, sim_run_until(world, raw_connected, NULL, SIM_SECOND));
	raw.op.done = raw_sent;
	if (iov.iov_len > 0) {
		io_sendv(raw.stream, &iov, 1, &raw.op);
	} else {
		io_stream_close(raw.stream);
		raw.stream = NULL;
	}
	if (!sim_run_until(world, server_ended, NULL, 10 * SIM_SECOND))
		sim_fail(world, "the link did not end");
	io_stream_close(raw.stream);
	link_free(t.server.link);
	io_listener_close(t.server.listener);
	sim_run_for(world, SIM_SECOND);
}

static void raw_case(const void *bytes, size_t length_bytes, bool close)
{
	raw.bytes = bytes;
	raw.length_bytes = length_bytes;
	raw.close = close;
	in_calm_world(body_raw);
}

UNIT(test_garbage)
{
	static uint8_t bytes[FRAME_BYTES + FRAME_CONTROL_MAX_BYTES];
	struct frame frame = { .type = FRAME_HEARTBEAT, .body_bytes = 100 };
	struct prng prng;
	unsigned i;

	prng_seed(&prng, 5);
	for (i = 0; i < 10; i++) {
		prng_fill(&prng, bytes, sizeof(bytes));
		raw_case(bytes, FRAME_BYTES + i * 1000, false);
		assert_int_equal(t.server.ended_res, -EBADMSG);
		assert_non_null(strstr(t.server.ended_text, "frame header"));
	}
	/* A body longer than its type allows, and one that is not what its checksum says. */
	frame.body_bytes = FRAME_CONTROL_MAX_BYTES + 1;
	frame_encode(&frame, bytes);
	raw_case(bytes, FRAME_BYTES, false);
	assert_int_equal(t.server.ended_res, -EBADMSG);
	frame.body_bytes = 100;
	frame.body_crc = 12345;
	frame_encode(&frame, bytes);
	raw_case(bytes, FRAME_BYTES + 100, false);
	assert_int_equal(t.server.ended_res, -EBADMSG);
	assert_non_null(strstr(t.server.ended_text, "heartbeat"));
	assert_non_null(strstr(t.server.ended_text, "checksum"));
	frame.type = FRAME_SYNC_DATA;
	frame.arg2 = 100;
	frame_encode(&frame, bytes);
	raw_case(bytes, FRAME_BYTES + 100, false);
	assert_int_equal(t.server.ended_res, -EBADMSG);
	assert_non_null(strstr(t.server.ended_text, "sync-data"));
	assert_int_equal(t.server.delivered, 0);
}

UNIT(test_end_of_stream)
{
	static uint8_t bytes[FRAME_BYTES + 8192];
	struct frame frame = frame_of(1ull << 32 | 1);
	struct frame segment = { .type = FRAME_SEGMENT, .body_bytes = 8192, .seq = 1, .arg1 = 1 };

	/* Between frames: an orderly end. */
	raw_case(NULL, 0, true);
	assert_int_equal(t.server.ended_res, 0);
	while (frame.type != FRAME_ACK)
		frame = frame_of(frame.epoch + (1ull << 32));
	frame_encode(&frame, bytes);
	raw_case(bytes, FRAME_BYTES, true);
	assert_int_equal(t.server.ended_res, 0);
	assert_int_equal(t.server.delivered, 1);
	/* Inside a header, and inside a body. */
	raw_case(bytes, FRAME_BYTES - 1, true);
	assert_int_equal(t.server.ended_res, -ECONNRESET);
	assert_int_equal(t.server.delivered, 0);
	frame_encode(&segment, bytes);
	raw_case(bytes, FRAME_BYTES + 5000, true);
	assert_int_equal(t.server.ended_res, -ECONNRESET);
	assert_non_null(strstr(t.server.ended_text, "inside a frame"));
}

/* What came before a connection broke is heard, although sending failed first. */
UNIT(test_last_words)
{
	static uint8_t bytes[2 * FRAME_BYTES + 4096];
	struct frame segment;
	struct frame bye = { .type = FRAME_BYE };
	uint64_t epoch = 1ull << 32 | 1;

	for (;; epoch += 1ull << 32) {
		segment = frame_of(epoch);
		if (segment.type == FRAME_SEGMENT && segment.body_bytes == 4096)
			break;
	}
	frame_encode(&segment, bytes);
	memcpy(bytes + FRAME_BYTES, body_of(&segment), 4096);
	frame_encode(&bye, bytes + FRAME_BYTES + 4096);
	raw.talk = true;
	raw_case(bytes, sizeof(bytes), true);
	raw.talk = false;
	assert_true(t.server.finished);
	assert_int_equal(t.server.heard, 1);
	assert_int_equal(t.server.ended, 1);
	assert_true(t.server.ended_res < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chaos),	      cmocka_unit_test(test_gathered),
		cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_not_open),
		cmocka_unit_test(test_no_memory),     cmocka_unit_test(test_finish),
		cmocka_unit_test(test_garbage),	      cmocka_unit_test(test_end_of_stream),
		cmocka_unit_test(test_last_words),    cmocka_unit_test(test_swap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
