/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ends that the tests of the link let talk in a simulated world. Header only: it needs the
 * simulator, which the unit tests of lower layers do not link.
 */
#ifndef HOLDFAST_TESTS_UNIT_CORE_GROUP_LINK_ENDS_H
#define HOLDFAST_TESTS_UNIT_CORE_GROUP_LINK_ENDS_H

#include "core/base/err.h"
#include "core/base/prng.h"
#include "core/group/link.h"
#include "proto/segment.h"
#include "tests/sim/sim.h"
#include "tests/unit/unit.h"

#define OUT_BYTES (2u * (FRAME_BYTES + SEGMENT_TOTAL_MAX_BYTES))

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
	unsigned ended, swaps_in_frame;
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

static inline struct frame frame_of(uint64_t epoch)
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
static inline const uint8_t *body_of(const struct frame *frame)
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

static inline void end_fill(struct end *end)
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

static inline void end_close(struct end *end);
static inline void end_again(struct end *end, uint64_t delay_ns);
static inline void end_start(struct end *end);

/* From inside a callback: on with the spare stream. */
static inline void end_swap(struct end *end)
{
	end_close(end);
	end->stream = end->spare;
	end->spare = NULL;
	end_start(end);
}

static inline uint8_t *end_place(void *owner, const struct frame *frame)
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

static inline void end_close(struct end *end)
{
	end->places_pending = link_places(end->link);
	sim_check(end->world, end->direct || !end->places_pending);
	link_close(end->link);
	sim_check(end->world, !link_is_open(end->link) && link_queued(end->link) == 0);
	end->placing = end->withheld = false;
	io_timer_stop(end->io, &end->resume_timer);
}

static inline void end_again(struct end *end, uint64_t delay_ns)
{
	if (!end->listener && !end->connecting && !end->once)
		io_timer_start(end->io, &end->again_timer, delay_ns);
}

static inline int end_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct end *end = owner;
	struct frame expect;

	/* What the former stream still wrote to was given back first. */
	sim_check(end->world, link_heard_ns(end->link) > 0 && !end->places_pending);
	if (end->spare && frame->type == FRAME_ACK) {
		end->swaps_in_frame++;
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
		return prng_chance(&end->prng, 1, 2) ? -ECANCELED : 0;
	} else if (end->chaos && prng_chance(&end->prng, 1, 200)) {
		return -ECANCELED;
	}
	return 0;
}

static inline void end_writable(void *owner)
{
	end_fill(owner);
}

static inline void end_ended(void *owner, int res, const char *text)
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

static inline void end_released(void *owner)
{
	struct end *end = owner;

	sim_check(end->world, end->places_pending);
	end->places_pending = false;
	end->released++;
	memset(end->place_memory, 0xee, SEGMENT_TOTAL_MAX_BYTES);
}

static inline void end_resume(struct io_timer *timer)
{
	struct end *end = container_of(timer, struct end, resume_timer);

	if (end->withheld)
		link_resume(end->link);
}

static inline void end_start(struct end *end)
{
	end->start++;
	end->sent = end->heard = 0;
	link_start(end->link, end->stream);
	end->stream = NULL;
	sim_check(end->world, link_is_open(end->link) && link_heard_ns(end->link) == 0);
	end_fill(end);
}

static inline void end_accept(struct end *end);

static inline void end_connected(struct io_op *op, int64_t res)
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

static inline void end_accept(struct end *end)
{
	end->connecting = true;
	io_accept(end->listener, &end->stream, &end->connect_op);
}

static inline void end_connect(struct io_timer *timer)
{
	struct end *end = container_of(timer, struct end, again_timer);

	if (end->connecting || link_is_open(end->link))
		return;
	end->connecting = true;
	io_connect(end->io, &end->address, &end->stream, &end->connect_op);
}

static inline void end_new(struct end *end, struct sim_node *node, uint64_t seed, bool direct)
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

static inline void ends_connect(void)
{
	end_new(&t.client, t.a, t.seed, t.direct);
	end_new(&t.server, t.b, t.seed + 1000, t.direct);
	t.client.other = &t.server;
	t.server.other = &t.client;
	sim_check(t.world, io_listen(t.server.io, &t.server.address, &t.server.listener) == 0);
	end_accept(&t.server);
	io_timer_start(t.client.io, &t.client.again_timer, 0);
}

static inline bool both_open(void *context)
{
	(void)context;
	return link_is_open(t.client.link) && link_is_open(t.server.link);
}

static inline void ends_free(void)
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

static inline void in_world(uint64_t seed, bool direct, const struct sim_options *options,
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

static inline void in_calm_world(void (*body)(struct sim_world *world, void *context))
{
	struct sim_options options;

	sim_options_calm(&options);
	in_world(1, false, &options, body);
	in_world(2, true, &options, body);
}

static inline bool server_ended(void *context)
{
	(void)context;
	return t.server.ended > 0;
}

#endif
