/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>

#include "tests/unit/core/block/nbd_client.h"

#define BOTH (NBD_CLIENT_FIXED_NEWSTYLE | NBD_CLIENT_NO_ZEROES)

static struct bench bench;
static struct client client;
static uint8_t data[FAKE_EXPORT_BYTES + 4096];
static uint8_t back[FAKE_EXPORT_BYTES + 4096];
static struct answer answer;

static int setup(void **state)
{
	(void)state;
	bench_init(&bench, 99);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bench_done(&bench);
	return 0;
}

static void begin(const char *name, bool structured)
{
	if (!bench.server)
		bench_start(&bench);
	client_open_flags(&client, &bench, BOTH);
	if (structured) {
		client_structured(&client);
		client_allocation(&client, name);
	}
	client_go(&client, name);
}

static void fill(uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(fake_random(&bench.fake) | 1);
}

UNIT(simple_replies)
{
	begin("disk", false);
	fill(data, 8192);
	assert_int_equal(client_do(&client, NBD_CMD_WRITE, 0, 4096, 8192, data), 0);
	assert_memory_equal(bench.disk.data + 4096, data, 8192);
	assert_int_equal(client_do(&client, NBD_CMD_READ, 0, 4096, 8192, back), 0);
	assert_memory_equal(back, data, 8192);
	assert_int_equal(client_do(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), 0);
	assert_int_equal(client_do(&client, NBD_CMD_CACHE, 0, 0, 4096, NULL), 0);
	assert_int_equal(client_do(&client, NBD_CMD_TRIM, 0, 4096, 4096, NULL), 0);
	assert_int_equal(bench.disk.data[4096], 0);
	assert_int_equal(client_do(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512, back),
			 NBD_EINVAL);
	assert_int_equal(client_do(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 512, back), NBD_EINVAL);
	assert_int_equal(bench.observed, 6 - 1);
	client_bye(&client);
}

UNIT(structured_replies)
{
	begin("disk", true);
	fill(data, 4096);
	assert_int_equal(client_do(&client, NBD_CMD_WRITE, 0, 0, 4096, data), 0);
	client_request(&client, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4096, NULL);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_true(answer.structured);
	assert_int_equal(answer.type, NBD_CHUNK_OFFSET_DATA);
	assert_memory_equal(back, data, 4096);
	/* Zeroes travel as a hole. */
	memset(back, 1, 4096);
	client_request(&client, NBD_CMD_READ, 0, 8192, 4096, NULL);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.type, NBD_CHUNK_OFFSET_HOLE);
	assert_int_equal(back[0] | back[4095], 0);
	/* But not when one byte, the last, is different. */
	bench.disk.data[12287] = 1;
	client_request(&client, NBD_CMD_READ, 0, 8192, 4096, NULL);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.type, NBD_CHUNK_OFFSET_DATA);
	assert_int_equal(back[4095], 1);
	client_bye(&client);
}

UNIT(flags_reach_the_export)
{
	begin("disk", true);
	fill(data, 4096);
	client_do(&client, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 0, 4096, data);
	assert_int_equal(bench.disk.last_flags, EXPORT_FUA);
	client_do(&client, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA, 0, 4096, NULL);
	assert_int_equal(bench.disk.last_flags, EXPORT_FUA);
	client_do(&client, NBD_CMD_WRITE_ZEROES,
		  NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, 4096, NULL);
	assert_int_equal(bench.disk.last_flags, EXPORT_FUA | EXPORT_NO_HOLE | EXPORT_FAST_ZERO);
	client_do(&client, NBD_CMD_READ, NBD_CMD_FLAG_FUA, 0, 4096, back);
	client_do(&client, NBD_CMD_FLUSH, NBD_CMD_FLAG_FUA, 0, 0, NULL);
	client_do(&client, NBD_CMD_WRITE_ZEROES, 0, 0, 4096, NULL);
	assert_int_equal(bench.disk.last_flags, 0);
	bench.disk.export.limits.fast_zero = false;
	assert_int_equal(
		client_do(&client, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 0, 4096, NULL),
		NBD_ENOTSUP);
	client_bye(&client);
}

struct refusal {
	uint16_t command, flags;
	uint64_t offset;
	uint32_t length;
	uint32_t error;
};

static void refused(const struct refusal *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		unsigned before = bench.observed;

		client_request(
			&client, list[i].command, list[i].flags, list[i].offset, list[i].length,
			list[i].command == NBD_CMD_WRITE && list[i].length > 0 ? data : NULL);
		fake_run(&bench.fake);
		client_answer(&client, &answer, back, 0);
		assert_int_equal(answer.error, list[i].error);
		assert_true(answer.cookie == client.cookie);
		if (client.structured) {
			assert_int_equal(answer.type, NBD_CHUNK_ERROR);
			assert_true(strlen(answer.text) > 10);
		}
		/* The export never saw it. */
		assert_int_equal(bench.observed, before);
		assert_int_equal(fake_received(client.stream), 0);
	}
}

UNIT(wrong_requests_are_refused_before_the_export_sees_them)
{
	static const struct refusal list[] = {
		{ NBD_CMD_READ, 0, 0, 0, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 1, 512, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 0, 513, NBD_EINVAL },
		{ NBD_CMD_READ, 0, FAKE_EXPORT_BYTES, 512, NBD_EINVAL },
		{ NBD_CMD_READ, 0, FAKE_EXPORT_BYTES - 512, 1024, NBD_EINVAL },
		{ NBD_CMD_READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL },
		{ NBD_CMD_READ, 0, UINT64_MAX - 511, 1024, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 0, UINT32_MAX, NBD_EINVAL },
		{ NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL },
		{ NBD_CMD_READ, 1 << 9, 0, 512, NBD_EINVAL },
		{ NBD_CMD_WRITE, 0, 0, 0, NBD_EINVAL },
		{ NBD_CMD_WRITE, 0, 100, 512, NBD_EINVAL },
		{ NBD_CMD_WRITE, 0, FAKE_EXPORT_BYTES, 512, NBD_ENOSPC },
		{ NBD_CMD_WRITE, 0, UINT64_MAX - 511, 4096, NBD_ENOSPC },
		{ NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 4096, NBD_EINVAL },
		{ NBD_CMD_WRITE, 0, 4096, FAKE_EXPORT_BYTES, NBD_ENOSPC },
		{ NBD_CMD_TRIM, 0, FAKE_EXPORT_BYTES, 512, NBD_EINVAL },
		{ NBD_CMD_TRIM, NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_EINVAL },
		{ NBD_CMD_WRITE_ZEROES, 0, FAKE_EXPORT_BYTES, 512, NBD_ENOSPC },
		{ NBD_CMD_WRITE_ZEROES, 0, 0, UINT32_MAX, NBD_ENOSPC },
		{ NBD_CMD_CACHE, 0, FAKE_EXPORT_BYTES, 512, NBD_EINVAL },
		{ NBD_CMD_FLUSH, 0, 512, 0, NBD_EINVAL },
		{ NBD_CMD_FLUSH, 0, 0, 512, NBD_EINVAL },
		{ NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL },
		{ NBD_CMD_BLOCK_STATUS, 0, FAKE_EXPORT_BYTES, 512, NBD_EINVAL },
		{ 8, 0, 0, 512, NBD_EINVAL },
		{ 65535, 0, 0, 512, NBD_EINVAL },
	};

	begin("disk", true);
	refused(list, array_len(list));
	client_bye(&client);
	begin("disk", false);
	refused(list, 24); /* BLOCK_STATUS has another reason there */
	client_bye(&client);
}

UNIT(read_only_exports_change_nothing)
{
	static const struct refusal list[] = {
		{ NBD_CMD_WRITE, 0, 0, 4096, NBD_EPERM },
		{ NBD_CMD_WRITE, 0, 0, FAKE_EXPORT_BYTES, NBD_EPERM },
		{ NBD_CMD_WRITE, 0, FAKE_EXPORT_BYTES, 4096, NBD_EPERM },
		{ NBD_CMD_TRIM, 0, 0, 4096, NBD_EPERM },
		{ NBD_CMD_WRITE_ZEROES, 0, 0, 4096, NBD_EPERM },
	};

	begin("readonly", true);
	refused(list, array_len(list));
	assert_int_equal(client_do(&client, NBD_CMD_READ, 0, 0, 4096, back), 0);
	assert_int_equal(client_do(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), 0);
	client_bye(&client);
}

/* 4 MiB of buffers allow 2 MiB requests, the export less. */
UNIT(requests_above_the_maximum_are_skipped)
{
	static const struct refusal list[] = {
		{ NBD_CMD_WRITE, 0, 0, 256 << 10, NBD_EINVAL },
		{ NBD_CMD_READ, 0, 0, 256 << 10, NBD_EINVAL },
	};

	bench.disk.export.limits.request_max_bytes = 128 << 10;
	begin("disk", true);
	refused(list, array_len(list));
	fill(data, 128 << 10);
	assert_int_equal(client_do(&client, NBD_CMD_WRITE, 0, 0, 128 << 10, data), 0);
	assert_memory_equal(bench.disk.data, data, 128 << 10);
	client_bye(&client);
}

UNIT(errors_of_the_export_carry_text)
{
	begin("disk", true);
	bench.disk.fail = -ENOSPC;
	client_request(&client, NBD_CMD_WRITE, 0, 0, 512, data);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.error, NBD_ENOSPC);
	assert_string_equal(answer.text, "No space left on device");
	bench.disk.fail = -EBADMSG;
	assert_int_equal(client_do(&client, NBD_CMD_READ, 0, 0, 512, back), NBD_EIO);
	assert_int_equal(client_do(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL), NBD_EIO);
	assert_int_equal(client_do(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 512, back), NBD_EIO);
	bench.disk.fail = 0;
	client_bye(&client);
}

static unsigned status(uint64_t offset, uint32_t length, uint16_t flags, uint32_t *extents)
{
	client_request(&client, NBD_CMD_BLOCK_STATUS, flags, offset, length, NULL);
	fake_run(&bench.fake);
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.error, 0);
	assert_int_equal(answer.type, NBD_CHUNK_BLOCK_STATUS);
	assert_int_equal(be32_load(back), 1);
	assert_int_equal((answer.length_bytes - 4) % 8, 0);
	for (unsigned i = 0; i < (answer.length_bytes - 4) / 4; i++)
		extents[i] = be32_load(back + 4 + (size_t)i * 4);
	return (answer.length_bytes - 4) / 8;
}

UNIT(block_status)
{
	static uint32_t e[2048];

	begin("disk", true);
	memset(bench.disk.hole, true, sizeof(bench.disk.hole));
	bench.disk.hole[2] = false;
	bench.disk.hole[3] = false;
	assert_int_equal(status(0, FAKE_EXPORT_BYTES, 0, e), 3);
	assert_int_equal(e[0], 8192);
	assert_int_equal(e[1], NBD_STATE_HOLE | NBD_STATE_ZERO);
	assert_int_equal(e[2], 8192);
	assert_int_equal(e[3], 0);
	assert_int_equal(e[4], FAKE_EXPORT_BYTES - 16384);
	assert_int_equal(status(8192, 4096, 0, e), 1);
	assert_int_equal(e[0], 4096);
	assert_int_equal(status(0, FAKE_EXPORT_BYTES, NBD_CMD_FLAG_REQ_ONE, e), 1);
	assert_int_equal(e[0], 8192);
	/* Every other block: as many descriptors as there are blocks. */
	for (unsigned i = 0; i < FAKE_BLOCKS; i++)
		bench.disk.hole[i] = i % 2;
	assert_int_equal(status(0, FAKE_EXPORT_BYTES, 0, e), FAKE_BLOCKS);
	/* A failure on the way: what is known is the answer. */
	bench.disk.map_fail_after = 6;
	assert_int_equal(status(0, FAKE_EXPORT_BYTES, 0, e), 5);
	bench.disk.map_fail_after = 1;
	assert_int_equal(client_do(&client, NBD_CMD_BLOCK_STATUS, 0, 0, 4096, back), NBD_EIO);
	client_bye(&client);
}

UNIT(replies_come_in_any_order_and_together)
{
	unsigned sends;

	begin("disk", true);
	bench.disk.hold = true;
	for (unsigned i = 0; i < 30; i++)
		client_request(&client, i % 3 ? NBD_CMD_FLUSH : NBD_CMD_READ, 0, 0, i % 3 ? 0 : 512,
			       NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 30);
	sends = client.stream->sends;
	fake_export_release(&bench.disk, true);
	fake_run(&bench.fake);
	assert_int_equal(client.stream->sends, sends + 1);
	for (uint64_t i = 30; i > 0; i--) {
		client_answer(&client, &answer, back, 0);
		assert_true(answer.cookie == i);
	}
	bench.disk.hold = false;
	client_bye(&client);
}

/* Many commands at random sizes and segmentations, against a plain copy of the disk. */
UNIT(random_pipelines_match_a_model)
{
	static uint8_t model[FAKE_EXPORT_BYTES];
	static const uint32_t most[] = { 4096, 40000, 300000 };

	for (unsigned round = 0; round < 60; round++) {
		bool structured = round % 2;
		unsigned count = 1 + (unsigned)(fake_random(&bench.fake) % 40);
		struct {
			uint64_t offset;
			uint32_t length;
			bool read;
		} sent[41];
		uint64_t place = 0;

		begin("disk", structured);
		/* Ranges of one round do not overlap: their order is free. */
		for (unsigned i = 1; i <= count; i++) {
			uint32_t length =
				(uint32_t)(1 + fake_random(&bench.fake) % (most[round % 3] / 512)) *
				512;

			sent[i].offset = place;
			sent[i].length = length;
			sent[i].read = fake_random(&bench.fake) % 2;
			if (place + length > FAKE_EXPORT_BYTES) {
				count = i - 1;
				break;
			}
			place += length;
			if (sent[i].read) {
				client_request(&client, NBD_CMD_READ, 0, sent[i].offset, length,
					       NULL);
				continue;
			}
			fill(model + sent[i].offset, length);
			client_request(&client, NBD_CMD_WRITE, 0, sent[i].offset, length,
				       model + sent[i].offset);
		}
		fake_run(&bench.fake);
		for (unsigned i = 0; i < count; i++) {
			/* Both kinds of reply have it there. */
			size_t at = client.stream->out.start + 8;
			uint64_t cookie = be64_load(client.stream->out.data + at);

			assert_in_range(cookie, 1, count);
			client_answer(&client, &answer, back,
				      sent[cookie].read ? sent[cookie].length : 0);
			assert_int_equal(answer.error, 0);
			if (sent[cookie].read)
				assert_memory_equal(back, model + sent[cookie].offset,
						    sent[cookie].length);
			sent[cookie].read = false;
		}
		assert_memory_equal(bench.disk.data, model, FAKE_EXPORT_BYTES);
		assert_int_equal(fake_received(client.stream), 0);
		client_bye(&client);
	}
}

UNIT(multi_megabyte_reads_leave_in_steps)
{
	static struct bench large;
	static uint8_t block[12 << 20];

	/* One request of 12 MiB is more than one send takes. */
	bench_start(&bench);
	bench_init(&large, 5);
	large.config.buffer_bytes = 64u << 20;
	free(large.disk.data);
	large.disk.data = malloc(sizeof(block));
	assert_non_null(large.disk.data);
	large.disk.export.limits.size_bytes = sizeof(block);
	bench_start(&large);
	client_open_flags(&client, &large, BOTH);
	client_go(&client, "disk");
	for (size_t i = 0; i < sizeof(block); i++)
		large.disk.data[i] = (uint8_t)(i >> 12 ^ i);
	unsigned sends = client.stream->sends;

	large.disk.hold = true;
	client_request(&client, NBD_CMD_READ, 0, 0, sizeof(block), NULL);
	client_request(&client, NBD_CMD_READ, 0, 0, 512, NULL);
	fake_run(&large.fake);
	fake_export_release(&large.disk, false);
	fake_run(&large.fake);
	assert_int_equal(client.stream->sends, sends + 2);
	client_answer(&client, &answer, block, sizeof(block));
	assert_int_equal(answer.cookie, 1);
	assert_memory_equal(block, large.disk.data, sizeof(block));
	client_answer(&client, &answer, block, 512);
	assert_int_equal(answer.cookie, 2);
	assert_int_equal(fake_received(client.stream), 0);
	bench_done(&large);
}

UNIT(disc_and_end_of_stream_wait_for_what_is_in_flight)
{
	begin("disk", true);
	bench.disk.hold = true;
	fill(data, 512);
	client_request(&client, NBD_CMD_WRITE, 0, 0, 512, data);
	client_request(&client, NBD_CMD_DISC, 0, 0, 0, NULL);
	fake_run(&bench.fake);
	assert_false(client_closed(&client));
	fake_advance(&bench.fake, 20000000000ull); /* a slow export is waited for */
	assert_false(client_closed(&client));
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	client_answer(&client, &answer, back, 0);
	assert_int_equal(answer.error, 0);
	assert_string_equal(bench.ended, "");

	begin("disk", true);
	client_request(&client, NBD_CMD_READ, 0, 0, 512, NULL);
	fake_end(client.stream);
	fake_run(&bench.fake);
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	client_answer(&client, &answer, back, 0);
	assert_memory_equal(back, data, 512);
	assert_int_equal(bench.disk.attached, 0);
	bench.disk.hold = false;
}

UNIT(a_client_that_breaks_off_harms_nobody)
{
	static const size_t cuts[] = { 1, 27, 28, 29, 28 + 4096, 28 + 60000 };

	/* In a header, in a small payload, in a large one; with requests in the export. */
	for (unsigned i = 0; i < 2 * array_len(cuts); i++) {
		static uint8_t wire[28 + 70000];
		struct wcursor out = wcursor_of(wire, sizeof(wire));
		struct nbd_request_header request = { .magic = NBD_MAGIC_REQUEST,
						      .command = NBD_CMD_WRITE,
						      .length_bytes = 69632 };

		begin("disk", true);
		bench.disk.hold = true;
		client_request(&client, NBD_CMD_READ, 0, 0, 65536, NULL);
		nbd_request_header_put(&out, &request);
		fake_send(client.stream, wire, cuts[i / 2]);
		fake_run(&bench.fake);
		if (i % 2)
			fake_reset(client.stream);
		else
			fake_end(client.stream);
		fake_run(&bench.fake);
		assert_true(client_closed(&client));
		assert_true(strlen(bench.ended) > 0);
		assert_int_equal(bench.disk.attached, 1);
		bench.disk.hold = false;
		fake_export_release(&bench.disk, false);
		fake_run(&bench.fake);
		assert_int_equal(bench.disk.attached, 0);
	}
	assert_int_equal(bench.disk.submitted[EXPORT_WRITE], 0);
	begin("disk", false);
	fake_send(client.stream, data, NBD_REQUEST_BYTES);
	fake_run(&bench.fake);
	assert_true(client_closed(&client));
	assert_string_equal(bench.ended, "sent something that is no NBD request");
}

UNIT(more_requests_than_slots_wait_in_the_stream)
{
	struct nbd_stats stats;

	bench.config.requests_max = 4;
	begin("disk", false);
	bench.disk.hold = true;
	for (unsigned i = 0; i < 20; i++)
		client_request(&client, NBD_CMD_FLUSH, 0, 0, 0, NULL);
	fake_run(&bench.fake);
	assert_int_equal(fake_export_held(&bench.disk), 4);
	for (unsigned left = 16; left > 0; left -= 4) {
		fake_export_release(&bench.disk, false);
		fake_run(&bench.fake);
		assert_int_equal(fake_export_held(&bench.disk), 4);
	}
	bench.disk.hold = false;
	fake_export_release(&bench.disk, false);
	fake_run(&bench.fake);
	for (unsigned i = 0; i < 20; i++)
		client_answer(&client, &answer, back, 0);
	client_bye(&client);
	nbd_server_stats(bench.server, &stats);
	assert_true(stats.op[EXPORT_FLUSH].ops == 20);
	assert_true(stats.op[EXPORT_FLUSH].latency[0] == 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(simple_replies),
		TEST(structured_replies),
		TEST(flags_reach_the_export),
		TEST(wrong_requests_are_refused_before_the_export_sees_them),
		TEST(read_only_exports_change_nothing),
		TEST(requests_above_the_maximum_are_skipped),
		TEST(errors_of_the_export_carry_text),
		TEST(block_status),
		TEST(replies_come_in_any_order_and_together),
		TEST(random_pipelines_match_a_model),
		TEST(multi_megabyte_reads_leave_in_steps),
		TEST(disc_and_end_of_stream_wait_for_what_is_in_flight),
		TEST(a_client_that_breaks_off_harms_nobody),
		TEST(more_requests_than_slots_wait_in_the_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
