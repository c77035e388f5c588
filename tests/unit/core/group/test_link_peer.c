/* SPDX-License-Identifier: Apache-2.0 */
/* The link against peers that break rules, and streams that change under it. */
#include "tests/unit/core/group/link_ends.h"

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
	/* Other frames with each seed. */
	t.client.start = 100 + t.seed;
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
	unsigned seed, in_frame = 0;

	sim_options_calm(&options);
	for (seed = 1; seed <= 10; seed++) {
		in_world(seed, seed % 2 == 0, &options, body_swap);
		in_frame += t.server.swaps_in_frame;
	}
	/* The others came while a place was asked for. */
	assert_in_range(in_frame, 1, 9);
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
		cmocka_unit_test(test_swap),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_end_of_stream),
		cmocka_unit_test(test_last_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
