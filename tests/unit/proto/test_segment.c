/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/segment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/checked.h"
#include "core/base/hash64.h"
#include "proto/payload.h"
#include "tests/unit/proto/samples.h"

static struct sample sample;
static uint8_t unpacked[SEGMENT_DATA_MAX_BYTES];

/* Everything a reader does with bytes from outside. */
static int read_segment(const uint8_t *stored, size_t len, struct segment_header *ret_header)
{
	int r = segment_header_decode(stored, len, ret_header);

	if (r == 0)
		r = segment_verify(stored, len, ret_header);
	if (r == 0)
		r = segment_unpack(stored, ret_header, unpacked);
	return r;
}

/* By what they encode to: structures have padding. */
static void assert_header_equal(const struct segment_header *a, const struct segment_header *b)
{
	uint8_t a_bytes[SEGMENT_HEADER_BYTES], b_bytes[SEGMENT_HEADER_BYTES];

	segment_header_encode(a, a_bytes);
	segment_header_encode(b, b_bytes);
	assert_memory_equal(a_bytes, b_bytes, sizeof(a_bytes));
	assert_int_equal(a->header_crc, b->header_crc);
	assert_int_equal(a->header_crc, le32_load(a_bytes + 124));
}

static void assert_record_equal(const struct record *a, const struct record *b)
{
	uint8_t a_bytes[RECORD_BYTES], b_bytes[RECORD_BYTES];

	record_encode(a, a_bytes);
	record_encode(b, b_bytes);
	assert_memory_equal(a_bytes, b_bytes, sizeof(a_bytes));
}

static void check_stored(const uint8_t *stored)
{
	struct segment_header header;
	struct record record;
	uint32_t i;

	assert_int_equal(read_segment(stored, sample.header.total_bytes, &header), 0);
	assert_header_equal(&header, &sample.header);
	assert_memory_equal(unpacked, sample_data(&sample), header.data_raw_bytes);
	for (i = 0; i < header.records; i++) {
		assert_int_equal(record_decode(stored + SEGMENT_HEADER_BYTES + i * RECORD_BYTES,
					       &header, &record),
				 0);
		assert_record_equal(&record, &sample.records[i]);
	}
	assert_int_equal(header.total_bytes % SEGMENT_ALIGN_BYTES, 0);
	if (!(header.flags & SEGMENT_LZ4)) {
		assert_int_equal(header.data_off % SEGMENT_ALIGN_BYTES, 0);
		assert_int_equal(segment_unpack(stored, &header, NULL), 0);
	}
}

/* One small write whose data is noise, or not. */
static void make_small(unsigned noise)
{
	struct prng prng;
	uint8_t data[1000];

	prng_seed(&prng, 7);
	sample_fill(&prng, data, sizeof(data), noise);
	sample_begin(&sample, 10, 0x123456789abcdef0ull);
	sample_add(&sample,
		   (struct record){ .type = RECORD_WRITE, .volume = 1, .length_bytes = 1000 },
		   data);
	sample_add(&sample,
		   (struct record){ .type = RECORD_DISCARD, .volume = 2, .length_bytes = 4096 },
		   NULL);
	sample_add(&sample, (struct record){ .type = RECORD_MARK, .length_bytes = 4 }, "noon");
	assert_int_equal(
		segment_seal(&sample.header, sample.table, sample_data(&sample), sample.stored),
		noise == 0);
}

static void test_round_trip(void **state)
{
	unsigned i, packed = 0, raw = 0;
	struct prng prng;
	bool lz4;

	(void)state;
	prng_seed(&prng, 1);
	for (i = 0; i < 300; i++) {
		struct segment_header before;
		uint8_t *stored;

		sample_random(&sample, &prng, prng_between(&prng, 1, 1 << 20), prng_next(&prng),
			      i % 3 == 0 ? SEGMENT_RECORDS_MAX : 8,
			      i % 7 == 0 ? SEGMENT_DATA_MAX_BYTES : 65536);
		before = sample.header;
		memset(sample.stored, 0xee, sizeof(sample.stored));
		lz4 = segment_seal(&sample.header, sample.table, sample_data(&sample),
				   sample.stored);
		assert_int_equal(lz4, (sample.header.flags & SEGMENT_LZ4) != 0);
		check_stored(sample.stored);
		packed += lz4;
		raw += !lz4;
		sample.header = before;
		memset(sample.space, 0xee, SEGMENT_HEAD_MAX_BYTES);
		stored = segment_seal_raw(&sample.header, sample.table, sample_data(&sample));
		assert_ptr_equal(stored + sample.header.data_off, sample_data(&sample));
		check_stored(stored);
		if (!lz4)
			assert_memory_equal(stored, sample.stored, sample.header.total_bytes);
	}
	assert_true(packed > 50 && raw > 50);
}

static void test_largest(void **state)
{
	static uint8_t data[SEGMENT_DATA_MAX_BYTES];
	struct prng prng;
	uint32_t i, length_bytes = SEGMENT_DATA_MAX_BYTES / SEGMENT_RECORDS_MAX;

	(void)state;
	prng_seed(&prng, 2);
	prng_fill(&prng, data, sizeof(data));
	sample_begin(&sample, UINT64_MAX - SEGMENT_RECORDS_MAX, 5);
	for (i = 0; i < SEGMENT_RECORDS_MAX; i++) {
		if (i == SEGMENT_RECORDS_MAX - 1)
			length_bytes = SEGMENT_DATA_MAX_BYTES - sample.header.data_raw_bytes;
		sample_add(&sample,
			   (struct record){ .type = RECORD_WRITE,
					    .volume = UINT16_MAX,
					    .length_bytes = length_bytes,
					    .offset_bytes = VOLUME_BYTES_MAX - length_bytes,
					    .delta_us = UINT32_MAX },
			   data + sample.header.data_raw_bytes);
	}
	assert_false(
		segment_seal(&sample.header, sample.table, sample_data(&sample), sample.stored));
	assert_int_equal(sample.header.total_bytes, SEGMENT_TOTAL_MAX_BYTES);
	assert_int_equal(segment_last_seq(&sample.header), UINT64_MAX - 1);
	check_stored(sample.stored);
}

/* LZ4 is used exactly when it saves a block. */
static void test_saves_a_block(void **state)
{
	static uint8_t packed[SEGMENT_DATA_MAX_BYTES];
	uint8_t block[4096] = { 0 };
	unsigned i, near = 0;
	struct prng prng;

	(void)state;
	prng_seed(&prng, 3);
	for (i = 0; i < 400; i++) {
		uint32_t raw_total_bytes, lz4_total_bytes, len;
		bool lz4;

		sample_random(&sample, &prng, 1, 0, 6, 20000);
		if (i % 10 == 0) {
			/* Packs a little, and not enough. */
			prng_fill(&prng, block, sizeof(block) - 64);
			sample_begin(&sample, 1, 0);
			sample_add(&sample,
				   (struct record){ .type = RECORD_WRITE,
						    .length_bytes = sizeof(block) },
				   block);
		}
		len = sample.header.data_raw_bytes == 0
			      ? 0
			      : payload_pack(sample_data(&sample), sample.header.data_raw_bytes,
					     packed, sample.header.data_raw_bytes);
		raw_total_bytes = (uint32_t)(4096 + round_up(sample.header.data_raw_bytes, 4096));
		lz4_total_bytes = (uint32_t)round_up(128 + sample.header.records * 32 + len, 4096);
		lz4 = segment_seal_lz4(&sample.header, sample.table, sample_data(&sample),
				       sample.stored);
		assert_int_equal(lz4, len > 0 && lz4_total_bytes + 4096 <= raw_total_bytes);
		near += len > 0 && lz4_total_bytes == raw_total_bytes;
	}
	assert_int_equal(near, 40);
}

static void test_every_bit(void **state)
{
	struct segment_header header;
	unsigned noise;
	size_t bit;

	(void)state;
	for (noise = 0; noise <= 100; noise += 100) {
		make_small(noise);
		assert_int_equal(read_segment(sample.stored, sample.header.total_bytes, &header),
				 0);
		for (bit = 0; bit < sample.header.total_bytes * 8ul; bit++) {
			sample.stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_not_equal(
				read_segment(sample.stored, sample.header.total_bytes, &header), 0);
			sample.stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

static void test_truncated(void **state)
{
	struct segment_header header;
	size_t len;

	(void)state;
	make_small(0);
	for (len = 0; len < sample.header.total_bytes; len++)
		assert_int_equal(read_segment(sample.stored, len, &header), SEGMENT_E_SHORT);
}

struct header_case {
	const char *what;
	size_t off;
	unsigned bytes;
	uint64_t value;
	int result;
};

#define HEADER(field) offsetof(struct segment_header_le, field)

static void check_header_case(const struct header_case *c)
{
	uint8_t bytes[SEGMENT_HEADER_BYTES];
	struct segment_header header;
	int r;

	memcpy(bytes, sample.stored, sizeof(bytes));
	if (c->bytes == 4)
		le32_put(bytes + c->off, (uint32_t)c->value);
	else
		le64_put(bytes + c->off, c->value);
	header_mend(bytes);
	r = segment_header_decode(bytes, sizeof(bytes), &header);
	if (r != c->result)
		fail_msg("%s = %ju: %d, not %d", c->what, (uintmax_t)c->value, r, c->result);
}

static void test_header_limits(void **state)
{
	/* Of make_small(0): 3 records, first_seq 10, LZ4, 1004 bytes of data. */
	const struct header_case cases[] = {
		{ "magic", HEADER(magic), 4, SEGMENT_MAGIC + 1, SEGMENT_E_MAGIC },
		{ "version", HEADER(version), 4, 0, SEGMENT_E_VERSION },
		{ "version", HEADER(version), 4, 2, SEGMENT_E_VERSION },
		{ "flags", HEADER(flags), 4, SEGMENT_LZ4 | SEGMENT_EPOCH_FIRST, 0 },
		{ "flags", HEADER(flags), 4, 0, SEGMENT_E_FIELD },
		{ "flags", HEADER(flags), 4, SEGMENT_LZ4 | 4, SEGMENT_E_FIELD },
		{ "flags", HEADER(flags), 4, SEGMENT_LZ4 | 1u << 31, SEGMENT_E_FIELD },
		{ "records", HEADER(records), 4, 0, SEGMENT_E_FIELD },
		{ "records", HEADER(records), 4, 2, SEGMENT_E_FIELD },
		{ "records", HEADER(records), 4, 4, SEGMENT_E_FIELD },
		{ "records", HEADER(records), 4, SEGMENT_RECORDS_MAX + 1, SEGMENT_E_FIELD },
		{ "records", HEADER(records), 4, UINT32_MAX, SEGMENT_E_FIELD },
		{ "epoch", HEADER(epoch), 8, 0, SEGMENT_E_FIELD },
		{ "epoch", HEADER(epoch), 8, UINT64_MAX, 0 },
		{ "first_seq", HEADER(first_seq), 8, 0, SEGMENT_E_FIELD },
		{ "first_seq", HEADER(first_seq), 8, 9, SEGMENT_E_FIELD }, /* durable_seq is 9 */
		{ "first_seq", HEADER(first_seq), 8, UINT64_MAX - 3, 0 },
		{ "first_seq", HEADER(first_seq), 8, UINT64_MAX - 2, SEGMENT_E_FIELD },
		{ "first_seq", HEADER(first_seq), 8, UINT64_MAX, SEGMENT_E_FIELD },
		{ "durable_seq", HEADER(durable_seq), 8, 10, SEGMENT_E_FIELD },
		{ "durable_seq", HEADER(durable_seq), 8, 0, 0 },
		{ "data_off", HEADER(data_off), 4, 128, SEGMENT_E_FIELD },
		{ "data_off", HEADER(data_off), 4, 225, SEGMENT_E_FIELD },
		{ "data_off", HEADER(data_off), 4, 4096, SEGMENT_E_FIELD },
		{ "data_off", HEADER(data_off), 4, UINT32_MAX, SEGMENT_E_FIELD },
		{ "data_stored", HEADER(data_stored_bytes), 4, 0, SEGMENT_E_FIELD },
		{ "data_stored", HEADER(data_stored_bytes), 4, 3, SEGMENT_E_FIELD }, /* a bomb */
		{ "data_stored", HEADER(data_stored_bytes), 4, 1003, 0 },
		{ "data_stored", HEADER(data_stored_bytes), 4, 1004, SEGMENT_E_FIELD },
		{ "data_stored", HEADER(data_stored_bytes), 4, UINT32_MAX, SEGMENT_E_FIELD },
		{ "data_raw", HEADER(data_raw_bytes), 4, 0, SEGMENT_E_FIELD },
		{ "data_raw", HEADER(data_raw_bytes), 4, SEGMENT_DATA_MAX_BYTES + 1,
		  SEGMENT_E_FIELD },
		{ "data_raw", HEADER(data_raw_bytes), 4, UINT32_MAX, SEGMENT_E_FIELD },
		{ "total", HEADER(total_bytes), 4, 0, SEGMENT_E_FIELD },
		{ "total", HEADER(total_bytes), 4, 8192, SEGMENT_E_FIELD },
		{ "total", HEADER(total_bytes), 4, 4095, SEGMENT_E_FIELD },
		{ "reserved", HEADER(reserved), 4, 1, SEGMENT_E_FIELD },
		{ "reserved", HEADER(reserved) + 4, 4, 1u << 31, SEGMENT_E_FIELD },
	};
	size_t i;

	(void)state;
	make_small(0);
	for (i = 0; i < array_len(cases); i++)
		check_header_case(&cases[i]);
}

/* A reader that takes a header on trust still never leaves the segment. */
static void test_lying_lengths(void **state)
{
	struct segment_header header;

	(void)state;
	make_small(0);
	header = sample.header;
	header.data_raw_bytes = 1003; /* one less than the block holds */
	assert_int_equal(segment_unpack(sample.stored, &header, unpacked), SEGMENT_E_LZ4);
	header.data_raw_bytes = 1005;
	assert_int_equal(segment_unpack(sample.stored, &header, unpacked), SEGMENT_E_LZ4);
	header = sample.header;
	header.data_stored_bytes--;
	assert_int_equal(segment_unpack(sample.stored, &header, unpacked), SEGMENT_E_LZ4);
	header.total_bytes = UINT32_MAX;
	assert_int_equal(segment_verify(sample.stored, sizeof(sample.stored), &header),
			 SEGMENT_E_FIELD);
	header = sample.header;
	header.records = UINT32_MAX;
	assert_int_equal(segment_verify(sample.stored, sizeof(sample.stored), &header),
			 SEGMENT_E_FIELD);
}

static uint32_t payload_crc(const uint8_t *stored, const struct segment_header *header)
{
	uint32_t crc = crc32c((uint32_t)header->chain, stored + SEGMENT_HEADER_BYTES,
			      (size_t)header->records * RECORD_BYTES);

	return crc32c(crc, stored + header->data_off, header->data_stored_bytes);
}

/* The writer itself is wrong: all checksums of the outside hold. */
static void test_lying_writer(void **state)
{
	struct segment_header header;
	uint8_t *record;

	(void)state;
	make_small(100);
	record = sample.stored + SEGMENT_HEADER_BYTES;

	sample.stored[sample.header.data_off + 5] ^= 1;
	header = sample.header;
	header.payload_crc = payload_crc(sample.stored, &header);
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header), 0);
	assert_int_equal(segment_unpack(sample.stored, &header, unpacked), SEGMENT_E_DATA_CRC);
	assert_int_equal(segment_unpack(sample.stored, &header, NULL), SEGMENT_E_DATA_CRC);
	sample.stored[sample.header.data_off + 5] ^= 1;

	/* Data that belongs to no record, to two, or lies in another order. */
	le32_put(record + offsetof(struct record_le, length_bytes), 999);
	header.payload_crc = payload_crc(sample.stored, &header);
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header),
			 SEGMENT_E_RECORD);
	le32_put(record + offsetof(struct record_le, length_bytes), 1000);
	le32_put(record + offsetof(struct record_le, data_off), 4);
	header.payload_crc = payload_crc(sample.stored, &header);
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header),
			 SEGMENT_E_RECORD);
	le32_put(record + offsetof(struct record_le, data_off), 0);
	record[2 * RECORD_BYTES] = RECORD_WRITE_ZEROES;
	header.payload_crc = payload_crc(sample.stored, &header);
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header),
			 SEGMENT_E_RECORD);
	record[2 * RECORD_BYTES] = RECORD_MARK;
	header.payload_crc = payload_crc(sample.stored, &header);
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header), 0);

	header.bytes_end = 1000 + 4096 + 3;
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header),
			 SEGMENT_E_RECORD);
	header.bytes_end++;
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header), 0);
}

/* A block that unpacks to more than it says is stopped at what it says. */
static void test_bomb(void **state)
{
	/* A literal, then a match of 15 + 255 * 200 + 4 bytes at distance 1, then five literals. */
	uint8_t block[1 + 1 + 2 + 200 + 1 + 6] = { 0x1f, 'x', 1, 0 };
	size_t i, end = 4;
	uint32_t honest_bytes;

	(void)state;
	for (i = 0; i < 200; i++)
		block[end++] = 255;
	block[end++] = 0;
	block[end++] = 0x50;
	for (i = 0; i < 5; i++)
		block[end++] = 'y';
	assert_int_equal(end, sizeof(block));
	honest_bytes = 1 + 15 + 255 * 200 + 4 + 5;
	memset(unpacked, 0xaa, sizeof(unpacked));
	assert_true(payload_unpack(block, sizeof(block), unpacked, honest_bytes));
	assert_int_equal(unpacked[honest_bytes - 6], 'x');
	assert_int_equal(unpacked[honest_bytes - 1], 'y');
	assert_int_equal(unpacked[honest_bytes], 0xaa);
	memset(unpacked, 0xaa, sizeof(unpacked));
	assert_false(payload_unpack(block, sizeof(block), unpacked, 5000));
	for (i = 5000; i < sizeof(unpacked); i++)
		assert_int_equal(unpacked[i], 0xaa);
	assert_false(payload_unpack(block, sizeof(block), unpacked, honest_bytes + 1));
	assert_false(payload_unpack(block, sizeof(block), unpacked, honest_bytes - 1));
	/* More than a block of this length can give is refused unseen. */
	assert_false(payload_lengths_valid(sizeof(block), 255 * sizeof(block) + 65));
	assert_true(payload_lengths_valid(sizeof(block), 255 * sizeof(block) + 64));
	assert_false(payload_lengths_valid(0, 64));
	assert_false(payload_lengths_valid(64, 64));
	assert_false(payload_lengths_valid(SEGMENT_DATA_MAX_BYTES, SEGMENT_DATA_MAX_BYTES + 1));
}

struct record_case {
	struct record record;
	int result;
};

static void test_record_limits(void **state)
{
	static const struct segment_header header = { .records = 1, .data_raw_bytes = 1000 };
	static const struct segment_header two = { .records = 2, .data_raw_bytes = 1000 };
	static const struct record_case cases[] = {
		{ { .type = 1, .length_bytes = 1000 }, 0 },
		{ { .type = 0, .length_bytes = 1000 }, 1 },
		{ { .type = 5, .length_bytes = 1000 }, 1 },
		{ { .type = 255, .length_bytes = 1000 }, 1 },
		{ { .type = 1, .length_bytes = 0 }, 1 },
		{ { .type = 1, .length_bytes = 1001 }, 1 },
		{ { .type = 1, .length_bytes = 999, .data_off = 1 }, 0 },
		{ { .type = 1, .length_bytes = 1000, .data_off = 1 }, 1 },
		{ { .type = 1, .length_bytes = UINT32_MAX, .data_off = 2 }, 1 },
		{ { .type = 1, .length_bytes = 2, .data_off = UINT32_MAX }, 1 },
		{ { .type = 1, .flags = RECORD_FUA, .length_bytes = 1 }, 0 },
		{ { .type = 1, .flags = RECORD_NO_HOLE, .length_bytes = 1 }, 1 },
		{ { .type = 1, .flags = 4, .length_bytes = 1 }, 1 },
		{ { .type = 1, .flags = 128, .length_bytes = 1 }, 1 },
		{ { .type = 1, .offset_bytes = VOLUME_BYTES_MAX - 1, .length_bytes = 1 }, 0 },
		{ { .type = 1, .offset_bytes = VOLUME_BYTES_MAX, .length_bytes = 1 }, 1 },
		{ { .type = 1, .offset_bytes = UINT64_MAX, .length_bytes = 2 }, 1 },
		{ { .type = 2, .length_bytes = UINT32_MAX }, 0 },
		{ { .type = 2, .length_bytes = 0 }, 1 },
		{ { .type = 2, .length_bytes = 1, .data_off = 1 }, 1 },
		{ { .type = 2, .length_bytes = 1, .data_crc = 1 }, 1 },
		{ { .type = 2, .flags = RECORD_FUA, .length_bytes = 1 }, 0 },
		{ { .type = 2, .flags = RECORD_NO_HOLE, .length_bytes = 1 }, 1 },
		{ { .type = 3, .flags = RECORD_FUA | RECORD_NO_HOLE, .length_bytes = 1 }, 0 },
		{ { .type = 3, .length_bytes = 1, .data_crc = 1 }, 1 },
		{ { .type = 4, .length_bytes = 1 }, 0 },
		{ { .type = 4, .length_bytes = 255 }, 0 },
		{ { .type = 4, .length_bytes = 0 }, 1 },
		{ { .type = 4, .length_bytes = 256 }, 1 },
		{ { .type = 4, .length_bytes = 1, .volume = 1 }, 1 },
		{ { .type = 4, .length_bytes = 1, .offset_bytes = 1 }, 1 },
		{ { .type = 4, .length_bytes = 1, .flags = RECORD_FUA }, 1 },
		{ { .type = 5, .length_bytes = 96, .volume = UINT16_MAX }, 0 },
		{ { .type = 5, .length_bytes = 96, .flags = RECORD_GONE }, 0 },
		{ { .type = 5, .length_bytes = 96, .flags = RECORD_FUA }, 1 },
		{ { .type = 5, .length_bytes = 95 }, 1 },
		{ { .type = 5, .length_bytes = 97 }, 1 },
		{ { .type = 5, .length_bytes = 96, .offset_bytes = 512 }, 1 },
		{ { .type = 5, .length_bytes = 96, .data_off = 905 }, 1 },
		{ { .type = 1, .length_bytes = 1, .flags = RECORD_GONE }, 1 },
	};
	uint8_t bytes[RECORD_BYTES];
	struct record record;
	size_t i, k;

	(void)state;
	for (i = 0; i < array_len(cases); i++) {
		record_encode(&cases[i].record, bytes);
		assert_int_equal(record_decode(bytes, &header, &record),
				 cases[i].result ? SEGMENT_E_RECORD : 0);
		assert_record_equal(&record, &cases[i].record);
		for (k = 28; k < RECORD_BYTES && cases[i].result == 0; k++) {
			bytes[k] = 1;
			assert_int_equal(record_decode(bytes, &header, &record), SEGMENT_E_RECORD);
			bytes[k] = 0;
		}
		/* Only a volume wants to be alone. */
		assert_int_equal(record_decode(bytes, &two, &record),
				 cases[i].result || cases[i].record.type == RECORD_VOLUME
					 ? SEGMENT_E_RECORD
					 : 0);
	}
}

/* Old bytes of a recycled file do not pass, even under a header that is right. */
static void test_chain(void **state)
{
	struct segment_header header;
	struct uuid other = sample_uuid(2);
	uint64_t chain;

	(void)state;
	make_small(0);
	chain = segment_chain(sample.stored);
	assert_int_equal(chain, hash64(0, sample.stored, 128));
	header = sample.header;
	header.chain ^= 1;
	assert_int_equal(segment_verify(sample.stored, header.total_bytes, &header),
			 SEGMENT_E_PAYLOAD_CRC);
	sample.stored[40] ^= 1;
	assert_int_not_equal(segment_chain(sample.stored), chain);
	assert_int_not_equal(segment_chain_root(&sample.header.group), segment_chain_root(&other));
}

static void test_texts(void **state)
{
	int i;

	(void)state;
	for (i = SEGMENT_E_SHORT; i <= SEGMENT_E_DATA_CRC; i++)
		assert_string_not_equal(segment_condition_text(i), "unknown condition");
	assert_string_equal(segment_condition_text(0), "unknown condition");
	assert_string_equal(segment_condition_text(SEGMENT_E_DATA_CRC + 1), "unknown condition");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_largest),
		cmocka_unit_test(test_saves_a_block), cmocka_unit_test(test_every_bit),
		cmocka_unit_test(test_truncated),     cmocka_unit_test(test_header_limits),
		cmocka_unit_test(test_lying_lengths), cmocka_unit_test(test_lying_writer),
		cmocka_unit_test(test_bomb),	      cmocka_unit_test(test_record_limits),
		cmocka_unit_test(test_chain),	      cmocka_unit_test(test_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
