/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codecs here and tests/decoder/hfdecode.py, two programs that share no line, agree on random
 * segments field by field, on damage, and on the golden files.
 */
#include "tests/unit/proto/decoder.h"
#include "tests/unit/proto/samples.h"

static struct sample sample;

static void print_volume(char *out, size_t max, const uint8_t *data)
{
	struct superblock_volume volume;
	char text[UUID_TEXT_BYTES];
	int r;

	assert_int_equal(record_volume_decode(data, &volume), 0);
	r = snprintf(out, max, "\"entry\":{\"id\":%u,\"name\":\"%s\",\"size\":%ju,\"uuid\":\"%s\"}",
		     volume.id, volume.name, (uintmax_t)volume.size_bytes,
		     uuid_format(&volume.uuid, text));
	assert_true(r > 0 && (size_t)r < max);
}

static size_t print_record(char *out, size_t max, const struct record *record, uint64_t seq)
{
	static const char *const types[] = { "",     "write", "discard", "write-zeroes",
					     "mark", "volume" };
	const uint8_t *data = sample_data(&sample) + record->data_off;
	char where[400];
	int r;

	if (record->type == RECORD_MARK)
		snprintf(where, sizeof(where), "\"name\":\"%.*s\"", (int)record->length_bytes,
			 (const char *)data);
	else if (record->type == RECORD_VOLUME)
		print_volume(where, sizeof(where), data);
	else
		snprintf(where, sizeof(where), "\"volume\":%u,\"offset\":%ju", record->volume,
			 (uintmax_t)record->offset_bytes);
	r = snprintf(out, max,
		     "{\"seq\":%ju,\"type\":\"%s\",\"flags\":%u,%s,\"length\":%u,\"data_crc\":%u,"
		     "\"delta_us\":%u}",
		     (uintmax_t)seq, types[record->type], record->flags, where,
		     record->length_bytes, record->data_crc, record->delta_us);
	assert_true(r > 0 && (size_t)r < max);
	return (size_t)r;
}

/* The sample as the decoder is to print it. */
static size_t print_segment(char *out, size_t max, size_t offset, const uint8_t *stored)
{
	const struct segment_header *h = &sample.header;
	char group[UUID_TEXT_BYTES];
	uint32_t i;
	size_t len;
	int r;

	r = snprintf(out, max,
		     "{\"offset\":%zu,\"group\":\"%s\",\"epoch\":%ju,\"first_seq\":%ju,"
		     "\"last_seq\":%ju,\"flags\":%u,\"lz4\":%s,\"epoch_first\":%s,\"records\":%u,"
		     "\"first_time_ns\":%ju,\"last_time_ns\":%ju,\"durable_seq\":%ju,"
		     "\"bytes_end\":%ju,\"chain\":%ju,\"chain_behind\":%ju,\"writer\":%ju,"
		     "\"data_off\":%u,\"data_stored\":%u,\"data_raw\":%u,\"total\":%u,"
		     "\"payload_crc\":%u,\"table\":[",
		     offset, uuid_format(&h->group, group), (uintmax_t)h->epoch,
		     (uintmax_t)h->first_seq, (uintmax_t)segment_last_seq(h), h->flags,
		     h->flags & SEGMENT_LZ4 ? "true" : "false",
		     h->flags & SEGMENT_EPOCH_FIRST ? "true" : "false", h->records,
		     (uintmax_t)h->first_time_ns, (uintmax_t)h->last_time_ns,
		     (uintmax_t)h->durable_seq, (uintmax_t)h->bytes_end, (uintmax_t)h->chain,
		     (uintmax_t)segment_chain(stored), (uintmax_t)h->writer, h->data_off,
		     h->data_stored_bytes, h->data_raw_bytes, h->total_bytes, h->payload_crc);
	assert_true(r > 0 && (size_t)r < max);
	len = (size_t)r;
	for (i = 0; i < h->records; i++) {
		if (i > 0)
			out[len++] = ',';
		len += print_record(out + len, max - len, &sample.records[i], h->first_seq + i);
	}
	assert_true(max - len > 4);
	memcpy(out + len, "]}\n", 4);
	return len + 3;
}

static void test_segments(void **state)
{
	static char expected[sizeof(output)];
	static uint8_t file[12u << 20];
	size_t len = 0, offset = 0, i;
	struct prng prng;

	(void)state;
	prng_seed(&prng, 11);
	for (i = 0; i < 120; i++) {
		sample_random(&sample, &prng, prng_between(&prng, 1, UINT64_MAX / 2),
			      prng_next(&prng), i % 10 == 0 ? SEGMENT_RECORDS_MAX : 12,
			      i % 40 == 0 ? SEGMENT_DATA_MAX_BYTES : 20000);
		sample.header.flags = prng_chance(&prng, 1, 4) ? SEGMENT_EPOCH_FIRST : 0;
		sample.header.epoch = prng_next(&prng) | 1;
		sample.header.durable_seq = prng_below(&prng, sample.header.first_seq);
		sample.header.writer = prng_next(&prng);
		segment_seal(&sample.header, sample.table, sample_data(&sample), sample.stored);
		assert_true(offset + sample.header.total_bytes <= sizeof(file));
		memcpy(file + offset, sample.stored, sample.header.total_bytes);
		len += print_segment(expected + len, sizeof(expected) - len, offset, sample.stored);
		offset += sample.header.total_bytes;
	}
	write_file("segments", file, offset);
	decoder_well("segments --records segments");
	assert_int_equal(strlen(output), len);
	assert_memory_equal(output, expected, len);
}

static void test_damage_is_seen(void **state)
{
	struct prng prng;
	unsigned i;
	size_t bit;

	(void)state;
	prng_seed(&prng, 12);
	for (i = 0; i < 6; i++) {
		sample_random(&sample, &prng, 1, prng_next(&prng), 3, 3000);
		segment_seal(&sample.header, sample.table, sample_data(&sample), sample.stored);
		bit = prng_below(&prng, sample.header.total_bytes * 8ul);
		sample.stored[bit / 8] ^= (uint8_t)(1u << bit % 8);
		write_file("damaged", sample.stored, sample.header.total_bytes);
		assert_int_equal(decoder("segments damaged"), 1);
	}
}

static void test_golden(void **state)
{
	const char *source = getenv("HOLDFAST_SOURCE");
	static const char *const files[][2] = {
		{ "segments", "raw.seg" },    { "segments", "lz4.seg" },
		{ "segments", "first.seg" },  { "superblock", "superblock.sb" },
		{ "segments", "volume.seg" }, { "superblock", "kept.sb" },
		{ "frames", "return.frame" }, { "frames", "dialogue.frame" }
	};
	char args[1024], here[512];
	uint8_t content[4096] = { 0 };
	size_t i;

	(void)state;
	if (source == NULL)
		source = getcwd(here, sizeof(here));
	for (i = 0; i < array_len(files); i++) {
		snprintf(args, sizeof(args), "%s '%s/tests/golden/v1/%s'", files[i][0], source,
			 files[i][1]);
		decoder_well(args);
	}
	/* The last one: content as this program unpacks it. */
	memset(content, 'x', 4095);
	snprintf(args, sizeof(args), "\"content_crc\":%u}", crc32c(0, content, sizeof(content)));
	assert_non_null(strstr(output, args));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_damage_is_seen),
		cmocka_unit_test(test_golden),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
