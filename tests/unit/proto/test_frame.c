/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/proto/samples.h"

/* One good frame of each type. */
static const struct frame good[] = {
	{ .type = FRAME_HELLO, .body_bytes = 100, .epoch = 1, .body_crc = 5 },
	{ .type = FRAME_WELCOME, .body_bytes = FRAME_CONTROL_MAX_BYTES, .epoch = UINT64_MAX },
	{ .type = FRAME_REFUSE, .body_bytes = 1, .epoch = 1, .body_crc = 5 },
	{ .type = FRAME_START, .body_bytes = 1, .epoch = 1, .body_crc = 5 },
	{ .type = FRAME_SEGMENT, .body_bytes = 8192, .epoch = 2, .seq = 10, .arg1 = 12 },
	{ .type = FRAME_ACK, .epoch = 2, .seq = 10, .arg1 = 9, .arg2 = 11 },
	{ .type = FRAME_HEARTBEAT, .body_bytes = 60, .epoch = 1, .body_crc = 5 },
	{ .type = FRAME_SYNC_DATA,
	  .body_bytes = 4096,
	  .seq = 3,
	  .arg1 = 512,
	  .arg2 = 7ull << 32 | 4096 },
	{ .type = FRAME_SYNC_ZERO, .seq = 3, .arg1 = 512, .arg2 = 7ull << 32 | UINT32_MAX },
	{ .type = FRAME_SYNC_END, .seq = UINT64_MAX },
	{ .type = FRAME_SYNC_ACK, .seq = 5 },
	{ .type = FRAME_BYE, .body_bytes = 0 },
	{ .type = FRAME_SYNC_HASH,
	  .body_bytes = FRAME_HASH_BYTES,
	  .seq = 3,
	  .arg1 = 512,
	  .arg2 = 7ull << 32 | FRAME_SYNC_MAX_BYTES / 512 },
	{ .type = FRAME_HASH_RESULT, .seq = 1, .arg1 = 1 },
	{ .type = FRAME_RANGES, .body_bytes = 3 * FRAME_RANGE_BYTES, .seq = 1, .body_crc = 5 },
	{ .type = FRAME_HANDOVER, .seq = 9, .arg1 = UINT64_MAX },
	{ .type = FRAME_HANDED, .body_bytes = 10, .seq = 9, .body_crc = 5 },
	{ .type = FRAME_VERIFIED, .seq = 9, .arg1 = 1, .arg2 = 2 },
};
_Static_assert(sizeof(good) / sizeof(good[0]) == FRAME_TYPE_MAX, "one of each");

static int decode(const struct frame *frame)
{
	uint8_t bytes[FRAME_BYTES], again[FRAME_BYTES];
	struct frame decoded;
	int r;

	frame_encode(frame, bytes);
	r = frame_decode(bytes, sizeof(bytes), &decoded);
	if (r == 0) {
		frame_encode(&decoded, again);
		assert_memory_equal(again, bytes, sizeof(bytes));
	}
	return r;
}

static void test_round_trip(void **state)
{
	struct frame decoded;
	uint8_t bytes[FRAME_BYTES];
	size_t i, len;

	(void)state;
	for (i = 0; i < array_len(good); i++) {
		frame_encode(&good[i], bytes);
		assert_int_equal(frame_decode(bytes, sizeof(bytes), &decoded), 0);
		assert_int_equal(decoded.type, i + 1);
		assert_int_equal(decoded.flags, good[i].flags);
		assert_int_equal(decoded.body_bytes, good[i].body_bytes);
		assert_int_equal(decoded.epoch, good[i].epoch);
		assert_int_equal(decoded.seq, good[i].seq);
		assert_int_equal(decoded.arg1, good[i].arg1);
		assert_int_equal(decoded.arg2, good[i].arg2);
		assert_int_equal(decoded.body_crc, good[i].body_crc);
		for (len = 0; len < FRAME_BYTES; len++)
			assert_int_equal(frame_decode(bytes, len, &decoded), FRAME_E_SHORT);
	}
}

static void test_every_bit(void **state)
{
	struct frame decoded;
	uint8_t bytes[FRAME_BYTES];
	size_t i, bit;

	(void)state;
	for (i = 0; i < array_len(good); i++) {
		frame_encode(&good[i], bytes);
		for (bit = 0; bit < FRAME_BYTES * 8; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(frame_decode(bytes, sizeof(bytes), &decoded),
					 bit < 32 ? FRAME_E_MAGIC : FRAME_E_CRC);
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

static void test_reserved(void **state)
{
	struct frame decoded;
	uint8_t bytes[FRAME_BYTES];
	size_t i, k;

	(void)state;
	for (i = 0; i < array_len(good); i++) {
		frame_encode(&good[i], bytes);
		for (k = 48; k < 60; k++) {
			bytes[k] = 1;
			frame_mend(bytes);
			assert_int_equal(frame_decode(bytes, sizeof(bytes), &decoded),
					 FRAME_E_TYPE);
			bytes[k] = 0;
		}
	}
}

struct limit_case {
	struct frame frame;
	int result;
};

/* The range of a SYNC_DATA or SYNC_ZERO frame. */
#define RANGE(volume, units) .arg2 = (uint64_t)(volume) << 32 | (units)

static const struct limit_case limit_cases[] = {
	{ { .type = 0 }, FRAME_E_TYPE },
	{ { .type = FRAME_TYPE_MAX + 1 }, FRAME_E_TYPE },
	{ { .type = UINT16_MAX }, FRAME_E_TYPE },
	{ { .type = FRAME_HELLO, .flags = FRAME_LZ4 }, FRAME_E_TYPE },
	{ { .type = FRAME_ACK, .flags = 2 }, FRAME_E_TYPE },
	{ { .type = FRAME_HELLO, .body_bytes = FRAME_CONTROL_MAX_BYTES }, 0 },
	{ { .type = FRAME_HELLO, .body_bytes = FRAME_CONTROL_MAX_BYTES + 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_BYE, .body_bytes = UINT32_MAX }, FRAME_E_LENGTH },
	{ { .type = FRAME_HELLO, .seq = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_BYE, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HEARTBEAT, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 1, .arg1 = 1 }, 0 },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 1, .arg1 = 508 }, 0 },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 1, .arg1 = 509 }, FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 2, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 0, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 1, .arg1 = 1, .arg2 = 1 },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4096, .seq = 1, .arg1 = 1, .body_crc = 1 },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SEGMENT, .body_bytes = 0, .seq = 1, .arg1 = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4095, .seq = 1, .arg1 = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_SEGMENT, .body_bytes = 4608, .seq = 1, .arg1 = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_SEGMENT, .body_bytes = SEGMENT_TOTAL_MAX_BYTES, .seq = 1, .arg1 = 1 },
	  0 },
	{ { .type = FRAME_SEGMENT,
	    .body_bytes = SEGMENT_TOTAL_MAX_BYTES + 4096,
	    .seq = 1,
	    .arg1 = 1 },
	  FRAME_E_LENGTH },
	{ { .type = FRAME_ACK, .seq = 5, .arg1 = 5, .arg2 = 5 }, 0 },
	{ { .type = FRAME_ACK, .seq = 5, .arg1 = 6, .arg2 = 6 }, FRAME_E_FIELD },
	{ { .type = FRAME_ACK, .seq = 5, .arg1 = 5, .arg2 = 4 }, FRAME_E_FIELD },
	{ { .type = FRAME_ACK, .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_ACK, .body_crc = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 512, RANGE(1, 512) }, 0 },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 512, RANGE(UINT16_MAX, 512) }, 0 },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 512, RANGE(UINT16_MAX + 1, 512) },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 512, RANGE(1, 513) }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 0, RANGE(1, 0) }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 1 << 20, RANGE(1, 1 << 20) }, 0 },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = (1 << 20) + 1, RANGE(1, (1 << 20) + 1) },
	  FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA, .body_bytes = 512, .arg1 = UINT64_MAX, RANGE(1, 512) },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_DATA,
	    .body_bytes = 512,
	    .arg1 = VOLUME_BYTES_MAX - 512,
	    RANGE(1, 512) },
	  0 },
	{ { .type = FRAME_SYNC_DATA, .flags = FRAME_LZ4, .body_bytes = 100, RANGE(1, 4096) }, 0 },
	{ { .type = FRAME_SYNC_DATA, .flags = FRAME_LZ4, .body_bytes = 15, RANGE(1, 4096) },
	  FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA, .flags = FRAME_LZ4, .body_bytes = 4096, RANGE(1, 4096) },
	  FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA,
	    .flags = FRAME_LZ4,
	    .body_bytes = 8192,
	    RANGE(1, (1 << 20) + 1) },
	  FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_DATA, .flags = 2, .body_bytes = 512, RANGE(1, 512) }, FRAME_E_TYPE },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1, 1) }, 0 },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1, 0) }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1, 1), .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1ull << 16, 1) }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1, 2), .arg1 = VOLUME_BYTES_MAX - 1024 }, 0 },
	{ { .type = FRAME_SYNC_ZERO, RANGE(1, 3), .arg1 = VOLUME_BYTES_MAX - 1024 },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_END, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_ACK, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_END, .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 16, RANGE(1, 1) }, 0 },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 15, RANGE(1, 1) }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 17, RANGE(1, 1) }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 0, RANGE(1, 1) }, FRAME_E_LENGTH },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 16, RANGE(1, 0) }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 16, RANGE(UINT16_MAX, 2048) }, 0 },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 16, RANGE(1, 2049) }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_HASH, .body_bytes = 16, RANGE(1ull << 16, 1) }, FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_HASH,
	    .body_bytes = 16,
	    .arg1 = VOLUME_BYTES_MAX - 512,
	    RANGE(1, 2) },
	  FRAME_E_FIELD },
	{ { .type = FRAME_SYNC_HASH, .flags = FRAME_LZ4, .body_bytes = 16, RANGE(1, 1) },
	  FRAME_E_TYPE },
	{ { .type = FRAME_HASH_RESULT, .seq = 1 }, 0 },
	{ { .type = FRAME_HASH_RESULT, .seq = 0 }, FRAME_E_FIELD },
	{ { .type = FRAME_HASH_RESULT, .seq = 1, .arg1 = 2 }, FRAME_E_FIELD },
	{ { .type = FRAME_HASH_RESULT, .seq = 1, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HASH_RESULT, .seq = 1, .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_RANGES }, 0 },
	{ { .type = FRAME_RANGES, .body_bytes = 65536, .body_crc = 1, .seq = 1 }, 0 },
	{ { .type = FRAME_RANGES, .body_bytes = 65536 + 16 }, FRAME_E_LENGTH },
	{ { .type = FRAME_RANGES, .body_bytes = 24 }, FRAME_E_LENGTH },
	{ { .type = FRAME_RANGES, .body_bytes = 16, .seq = 2 }, FRAME_E_FIELD },
	{ { .type = FRAME_RANGES, .body_bytes = 16, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_RANGES, .body_bytes = 16, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HANDOVER, .seq = UINT64_MAX, .arg1 = UINT64_MAX }, 0 },
	{ { .type = FRAME_HANDOVER, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HANDOVER, .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_HANDED, .seq = UINT64_MAX }, 0 },
	{ { .type = FRAME_HANDED, .arg1 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HANDED, .arg2 = 1 }, FRAME_E_FIELD },
	{ { .type = FRAME_HANDED, .body_bytes = FRAME_CONTROL_MAX_BYTES }, 0 },
	{ { .type = FRAME_HANDED, .body_bytes = FRAME_CONTROL_MAX_BYTES + 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_VERIFIED, .seq = 1, .arg1 = UINT64_MAX, .arg2 = UINT64_MAX }, 0 },
	{ { .type = FRAME_VERIFIED, .body_bytes = 1 }, FRAME_E_LENGTH },
	{ { .type = FRAME_VERIFIED, .body_crc = 1 }, FRAME_E_FIELD },
};

static void test_limits(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < array_len(limit_cases); i++) {
		int r = decode(&limit_cases[i].frame);

		if (r != limit_cases[i].result)
			fail_msg("case %zu (%s): %d, not %d", i,
				 frame_type_text(limit_cases[i].frame.type), r,
				 limit_cases[i].result);
	}
}

static void test_range(void **state)
{
	struct frame frame = { .type = FRAME_SYNC_ZERO, .arg2 = frame_range_arg(513, UINT32_MAX) };

	(void)state;
	assert_int_equal(frame_range_volume(&frame), 513);
	assert_int_equal(frame_range_bytes(&frame), 0xffffffffull * 512);
	frame.type = FRAME_SYNC_DATA;
	assert_int_equal(frame_range_bytes(&frame), 0xffffffffull);
}

static void test_body(void **state)
{
	uint8_t body[100];
	struct frame frame = { .type = FRAME_HELLO, .body_bytes = sizeof(body) };
	size_t bit;

	(void)state;
	memset(body, 0x5a, sizeof(body));
	frame.body_crc = frame_body_crc(body, sizeof(body));
	assert_int_equal(frame_body_check(&frame, body), 0);
	for (bit = 0; bit < sizeof(body) * 8; bit++) {
		body[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(frame_body_check(&frame, body), FRAME_E_CRC);
		body[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	frame.body_bytes = 0;
	assert_int_equal(frame_body_check(&frame, NULL), FRAME_E_CRC);
	frame.body_crc = 0;
	assert_int_equal(frame_body_check(&frame, NULL), 0);
	assert_int_equal(frame_body_crc(NULL, 0), 0);
	frame = (struct frame){ .type = FRAME_SEGMENT, .body_bytes = sizeof(body) };
	assert_int_equal(frame_body_check(&frame, body), 0);
}

static void test_texts(void **state)
{
	unsigned type;
	int i;

	(void)state;
	for (i = FRAME_E_SHORT; i <= FRAME_E_FIELD; i++)
		assert_string_not_equal(frame_condition_text(i), "unknown condition");
	assert_string_equal(frame_condition_text(0), "unknown condition");
	for (type = 1; type <= FRAME_TYPE_MAX; type++)
		assert_string_not_equal(frame_type_text(type), "unknown");
	assert_string_equal(frame_type_text(0), "unknown");
	assert_string_equal(frame_type_text(FRAME_TYPE_MAX + 1), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_reserved),   cmocka_unit_test(test_limits),
		cmocka_unit_test(test_range),	   cmocka_unit_test(test_body),
		cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
