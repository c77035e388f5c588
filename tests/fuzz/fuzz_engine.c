/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole session with an engine, in a simulated world: the input is a script of what a primary, or
 * somebody with its certificate, sends. Right segments and right frames are made on demand, and
 * bent by the script, so that the ways behind the checksums are reached.
 *
 * Whatever comes: no invariant breaks, nothing is acknowledged that did not arrive, and after it
 * the engine stops cleanly, or has failed with words and starts again.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/engine/stage.h"

#define STEPS_MAX 96u

static struct {
	const uint8_t *at, *end;
} script;

static uint64_t take(unsigned bytes)
{
	uint64_t value = 0;

	for (; bytes > 0 && script.at < script.end; bytes--)
		value = value << 8 | *script.at++;
	return value;
}

/* Numbers that matter, and any other. */
static uint64_t number(const struct stage *stage)
{
	const uint64_t near = stage->next_seq;

	switch (take(1) % 10) {
	case 0:
		return 0;
	case 1:
		return 1;
	case 2:
		return near - 1;
	case 3:
		return near;
	case 4:
		return near + 1;
	case 5:
		return UINT64_MAX;
	case 6:
		return INT64_MAX;
	case 7:
		return stage->volume_bytes;
	case 8:
		return take(2) * 512;
	default:
		return take(8);
	}
}

static void send_frame(struct stage *stage, struct frame *frame, const void *body)
{
	if (!frame->epoch)
		frame->epoch = stage->hello.epoch;
	/* Closed meanwhile, or no room: then it is not said. */
	if (link_is_open(stage->link))
		(void)link_send(stage->link, frame, body);
}

static void bent_segment(struct stage *stage)
{
	uint64_t how = take(1);
	struct stage_write write = { (unsigned)take(1) % 3, take(1) % 130 * 512,
				     (uint32_t)(take(1) % 17 + 1) * 512, take(1), how & 1 };
	uint64_t seq = stage->next_seq, chain = stage->chain, bytes = stage->bytes;
	uint64_t epoch = stage->hello.epoch;
	struct stage_segment *segment;
	struct frame frame = { .type = FRAME_SEGMENT };

	if (stage->count == STAGE_SEGMENTS)
		return;
	if (how & 2)
		stage->next_seq = max_u64(number(stage), 1) & INT64_MAX;
	if (how & 4)
		stage->chain ^= take(1);
	if (how & 8)
		stage->bytes += take(1);
	stage->hello.epoch = max_u64(how & 64 ? take(1) : epoch, 1);
	segment = &stage->segments[stage_make(stage, &write, 1)];
	stage->hello.epoch = epoch;
	frame.body_bytes = segment->header.total_bytes;
	frame.seq = segment->header.first_seq;
	frame.arg1 = segment_last_seq(&segment->header);
	if (how & 16)
		segment->bytes[take(2) % frame.body_bytes] ^= (uint8_t)take(1);
	if (how & 32)
		frame.epoch = take(1);
	send_frame(stage, &frame, segment->bytes);
	if (how & 0xfe) {
		stage->next_seq = seq;
		stage->chain = chain;
		stage->bytes = bytes;
	}
}

static void start(struct stage *stage)
{
	uint64_t how = take(1);
	struct link_start start = {
		.from_seq = how & 4 ? number(stage) : stage->next_seq,
		.sync = how & 1,
		.reset = how & 2,
		.base = { .epoch = stage->hello.epoch,
			  .chain = stage->chain,
			  .bytes = how & 8 ? number(stage) : stage->bytes },
		.sync_bytes = how & 16 ? number(stage) : 2 * stage->volume_bytes,
	};
	struct frame frame = { .type = FRAME_START };
	uint8_t body[512];

	start.base.seq = how & 32 ? number(stage) : start.from_seq - 1;
	frame.body_bytes = (uint32_t)link_start_pack(&start, body, sizeof(body));
	if (how & 64)
		body[take(1) % frame.body_bytes] ^= (uint8_t)take(1);
	send_frame(stage, &frame, body);
}

static void any_frame(struct stage *stage)
{
	static uint8_t body[8192];
	struct frame frame = {
		.type = (uint16_t)(take(1) % (FRAME_TYPE_MAX + 2)),
		.flags = (uint16_t)take(1) & 3,
		.epoch = take(1),
		.body_bytes = (uint32_t)(take(1) * 32),
		.seq = number(stage),
		.arg1 = number(stage),
		.arg2 = number(stage),
	};

	for (uint32_t i = 0; i < frame.body_bytes && i < 32; i++)
		body[i] = (uint8_t)take(1);
	send_frame(stage, &frame, body);
}

static void extent(struct stage *stage)
{
	static uint8_t body[64u << 10], packed[FRAME_SYNC_MAX_BYTES];
	uint64_t how = take(1);
	uint32_t len = (uint32_t)(take(1) % 128 + 1) * 512;
	struct frame frame = { .type = how & 1 ? FRAME_SYNC_ZERO : FRAME_SYNC_DATA,
			       .seq = how & 2 ? number(stage) : stage->next_seq - 1,
			       .arg1 = how & 4 ? number(stage) : take(1) % 128 * 512 };
	const uint8_t *bytes = body;

	stage_pattern(body, len, take(1), true);
	if (how & 64) { /* a question, now and then with the right hash */
		frame.type = FRAME_SYNC_HASH;
		frame.arg2 = frame_range_arg((uint16_t)(take(1) % 3), len / 512);
		frame.body_bytes = FRAME_HASH_BYTES;
		hash128(how & 128 ? body : stage->content[0], len, packed);
		stage->asked++;
		send_frame(stage, &frame, packed);
		return;
	}
	frame.arg2 = frame_range_arg((uint16_t)(take(1) % 3), how & 1 ? len / 512 : len);
	if (!(how & 1))
		frame.body_bytes = len;
	if ((how & 9) == 8) {
		frame.body_bytes = payload_pack(body, len, packed, sizeof(packed));
		frame.flags = FRAME_LZ4;
		bytes = packed;
		if (frame.body_bytes == 0)
			return;
		if (how & 16)
			packed[take(2) % frame.body_bytes] ^= (uint8_t)take(1);
	}
	if (how & 32)
		frame.body_bytes = 0;
	send_frame(stage, &frame, bytes);
}

static void beat(struct stage *stage)
{
	struct link_heartbeat beat = {
		.head = { .epoch = number(stage), .seq = number(stage), .bytes = number(stage) },
		.durable = { .seq = number(stage) },
		.wall_time_ns = number(stage),
		.behind_ns = number(stage),
		.sync_left_bytes = number(stage),
	};
	struct frame frame = { .type = FRAME_HEARTBEAT };
	uint8_t body[512];

	frame.body_bytes = (uint32_t)link_heartbeat_pack(&beat, body, sizeof(body));
	send_frame(stage, &frame, body);
}

/* Mostly as it should be: then it takes over, if it has everything. */
static void hand_over(struct stage *stage)
{
	uint64_t how = take(1);

	send_frame(stage,
		   &(struct frame){ .type = FRAME_HANDOVER,
				    .seq = how & 1 ? number(stage) : stage->next_seq - 1,
				    .arg1 = how & 2 ? number(stage) : stage->chain },
		   NULL);
}

static void hello(struct stage *stage, const struct link_hello *good)
{
	uint64_t how = take(1);

	stage->hello = *good;
	if (how & 1)
		stage->hello.epoch = number(stage);
	if (how & 2)
		stage->hello.history[0].first_seq = number(stage);
	if (how & 4) {
		stage->hello.history_count = 2;
		stage->hello.history[1] = (struct history_entry){ number(stage), number(stage) };
	}
	if (how & 8)
		stage->hello.volumes[take(1) % STAGE_VOLUMES].size_bytes = number(stage);
	if (how & 16)
		stage->hello.volume_count = (uint32_t)take(1) % (GROUP_VOLUMES_MAX + 1);
	if (how & 32)
		stage->hello.group_uuid.bytes[0] ^= (uint8_t)take(1);
	if (how & 64)
		stage->hello.head.seq = number(stage);
	(void)stage_try_dial(stage);
}

static void step(struct stage *stage, const struct link_hello *good)
{
	switch (take(1) % 13) {
	case 0:
		hello(stage, good);
		break;
	case 1:
	case 2:
		bent_segment(stage);
		break;
	case 3:
		start(stage);
		break;
	case 4:
		any_frame(stage);
		break;
	case 5:
	case 6:
		extent(stage);
		break;
	case 7:
		beat(stage);
		break;
	case 8:
		send_frame(stage, &(struct frame){ .type = FRAME_SYNC_END, .seq = number(stage) },
			   NULL);
		break;
	case 9:
		(void)stage_status(stage);
		sim_run_for(stage->world, take(1) * SIM_MS / 4);
		break;
	case 10:
		sim_run_for(stage->world, take(1) * 10 * SIM_MS);
		break;
	case 11:
		hand_over(stage);
		break;
	default:
		link_close(stage->link);
	}
}

static void session(struct stage *stage)
{
	struct link_hello good = stage->hello;
	unsigned steps = 0;
	int res;

	if (script.at < script.end && *script.at & 1)
		stage_fill(stage);
	else
		stage_dial(stage);
	(void)take(1);
	while (script.at < script.end && steps++ < STEPS_MAX)
		step(stage, &good);
	/* What it has become is promoted where that can be, and read again from the disk. */
	(void)stage_status(stage);
	res = stage_promote(stage, true);
	if (res != 0)
		sim_check(stage->world, stage->promote.text[0] != '\0');
	stage_stop_engine(stage);
	res = stage_start_engine(stage);
	if (res < 0)
		sim_fail(stage->world, "the engine cannot open what it left behind: %d", res);
	stage_stop_engine(stage);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static struct stage stage;
	struct sim_options options;
	struct sim_world *world;
	bool held;

	log_set_level(LOG_LEVEL_ERROR);
	script.at = input;
	script.end = input + size;
	memset(&stage, 0, sizeof(stage));
	stage.body = session;
	stage.volume_bytes = STAGE_VOLUME_BYTES;
	stage.slot_bytes = STAGE_SLOT_BYTES;
	stage.slots = STAGE_SLOTS;
	sim_options_calm(&options);
	world = sim_new(size, &options);
	held = sim_run(world, stage_open, &stage);
	sim_free(world);
	must(held);
	return 0;
}
