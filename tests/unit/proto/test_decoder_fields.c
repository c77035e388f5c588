/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codecs and tests/decoder/hfdecode.py read the same out of random superblocks and frames, and
 * refuse the same ones of those in which one field was bent under a right checksum.
 */
#include "tests/unit/proto/decoder.h"
#include "tests/unit/proto/samples.h"

#define SUPERBLOCKS	 120u
#define FRAMES		 6000u
#define AT_END_OF_FIELDS offsetof(struct superblock_le, history)

static char expected[sizeof(output)];
static size_t expected_len;
static uint8_t file[4u << 20];

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list args;
	int r;

	va_start(args, format);
	r = vsnprintf(expected + expected_len, sizeof(expected) - expected_len, format, args);
	va_end(args);
	assert_true(r >= 0 && (size_t)r < sizeof(expected) - expected_len);
	expected_len += (size_t)r;
}

/* ---- what the decoder is to print -------------------------------------------------------------
 */

static const char *yes(bool value)
{
	return value ? "true" : "false";
}

static void say_history(const char *name, const struct history_entry *history, uint32_t count)
{
	uint32_t i;

	say(",\"%s\":[", name);
	for (i = 0; i < count; i++)
		say("%s{\"epoch\":%ju,\"first_seq\":%ju}", i > 0 ? "," : "",
		    (uintmax_t)history[i].epoch, (uintmax_t)history[i].first_seq);
	say("]");
}

static void say_peers(const struct superblock *sb)
{
	uint32_t i;

	say(",\"peers\":[");
	for (i = 0; i < sb->peer_count; i++) {
		const struct superblock_peer *peer = &sb->peers[i];

		say("%s{\"node\":\"%s\",\"durable_seq\":%ju,\"released_seq\":%ju,\"needs_sync\":%s,"
		    "\"needs_compare\":%s,\"verified_seq\":%ju,\"verified_time_ns\":%ju,"
		    "\"copy_seq\":%ju,\"copy_time_ns\":%ju,\"differing_ranges\":%ju,"
		    "\"differing_bytes\":%ju,\"copy_id\":%ju}",
		    i > 0 ? "," : "", peer->node, (uintmax_t)peer->durable_seq,
		    (uintmax_t)peer->released_seq, yes(peer->needs_sync), yes(peer->needs_compare),
		    (uintmax_t)peer->verified_seq, (uintmax_t)peer->verified_time_ns,
		    (uintmax_t)peer->copy_seq, (uintmax_t)peer->copy_time_ns,
		    (uintmax_t)peer->differing_ranges, (uintmax_t)peer->differing_bytes,
		    (uintmax_t)peer->copy_id);
	}
	say("]");
}

static void say_volumes(const struct superblock *sb)
{
	char uuid[UUID_TEXT_BYTES];
	uint32_t i;

	say(",\"volumes\":[");
	for (i = 0; i < sb->volume_count; i++)
		say("%s{\"id\":%u,\"name\":\"%s\",\"size\":%ju,\"uuid\":\"%s\",\"mtime_ns\":%ju,"
		    "\"sample\":%ju}",
		    i > 0 ? "," : "", sb->volumes[i].id, sb->volumes[i].name,
		    (uintmax_t)sb->volumes[i].size_bytes, uuid_format(&sb->volumes[i].uuid, uuid),
		    (uintmax_t)sb->stamps[i].mtime_ns, (uintmax_t)sb->stamps[i].sample);
	say("],\"openings\":[");
	for (i = 0; i < sb->opening_count; i++)
		say("%s{\"writer\":%ju,\"first_seq\":%ju}", i > 0 ? "," : "",
		    (uintmax_t)sb->openings[i].writer, (uintmax_t)sb->openings[i].first_seq);
	say("]");
}

struct number {
	const char *name;
	uint64_t value;
};

static void say_numbers(const struct number *numbers, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		say(",\"%s\":%ju", numbers[i].name, (uintmax_t)numbers[i].value);
}

static void say_superblock(const struct superblock *sb)
{
	const struct superblock_kept *kept = &sb->kept;
	const struct number geometry[] = {
		{ "slot_bytes", sb->slot_bytes },
		{ "slots", sb->slots },
		{ "applied_slot", sb->applied_slot },
		{ "applied_seq", sb->applied_seq },
		{ "applied_bytes", sb->applied_bytes },
		{ "applied_chain", sb->applied_chain },
		{ "applied_off", sb->applied_off },
		{ "durable_seq", sb->durable_seq },
		{ "sync_end_seq", sb->sync_end_seq },
		{ "heard_head_seq", sb->heard_head_seq },
		{ "heard_head_bytes", sb->heard_head_bytes },
		{ "heard_time_ns", sb->heard_time_ns },
		{ "promoted_time_ns", sb->promoted_time_ns },
		{ "volume_count", sb->volume_count },
		{ "history_count", sb->history_count },
		{ "peer_count", sb->peer_count },
		{ "kept_history_count", kept->history_count },
		{ "undo_id", kept->undo_id },
		{ "undo_bytes", kept->undo_bytes },
		{ "kept_seq", kept->seq },
		{ "kept_chain", kept->chain },
		{ "kept_bytes", kept->bytes },
		{ "kept_epoch", kept->epoch },
		{ "kept_time_ns", kept->time_ns },
		{ "handover_seq", sb->handover_seq },
	};
	const struct number rest[] = {
		{ "verified_seq", sb->verified_seq },
		{ "verified_time_ns", sb->verified_time_ns },
		{ "lost_writes", sb->lost_writes },
		{ "lost_bytes", sb->lost_bytes },
		{ "lost_ns", sb->lost_ns },
		{ "differing_ranges", sb->differing_ranges },
		{ "durable_time_ns", sb->durable_time_ns },
		{ "copy_id", sb->copy_id },
	};
	char uuid[UUID_TEXT_BYTES];

	say(",\"generation\":%ju,\"features_compat\":%ju,\"group\":\"%s\",\"role\":%u,"
	    "\"flags\":%u,\"name\":\"%s\",\"epoch\":%ju,\"fenced_by_epoch\":%ju,"
	    "\"fenced_by\":\"%s\"",
	    (uintmax_t)sb->generation, (uintmax_t)sb->features_compat,
	    uuid_format(&sb->group, uuid), sb->role, sb->flags, sb->name, (uintmax_t)sb->epoch,
	    (uintmax_t)sb->fenced_by_epoch, sb->fenced_by);
	say_numbers(geometry, array_len(geometry));
	say(",\"handover_node\":\"%s\"", sb->handover_node);
	say_numbers(rest, array_len(rest));
	say_history("history", sb->history, sb->history_count);
	say_peers(sb);
	say_volumes(sb);
	say_history("kept_history", kept->history, kept->history_count);
}

/* ---- superblocks ------------------------------------------------------------------------------
 */

static void compare(const char *args)
{
	decoder_well(args);
	assert_int_equal(strlen(output), expected_len);
	assert_memory_equal(output, expected, expected_len);
}

static void test_superblocks(void **state)
{
	static struct superblock sb, decoded;
	struct prng prng;
	unsigned i;

	(void)state;
	prng_seed(&prng, 31);
	expected_len = 0;
	for (i = 0; i < SUPERBLOCKS; i++) {
		uint8_t *slot = file + i * SUPERBLOCK_SLOT_BYTES;

		superblock_random(&sb, &prng);
		superblock_encode(&sb, slot);
		assert_int_equal(superblock_decode(slot, &decoded), 0);
		say("{\"offset\":%u,\"verdict\":\"right\"", i * SUPERBLOCK_SLOT_BYTES);
		say_superblock(&sb);
		say("}\n");
	}
	write_file("slots", file, SUPERBLOCKS * SUPERBLOCK_SLOT_BYTES);
	compare("verdicts superblock slots");
}

static void bend(struct prng *prng, uint8_t *bytes, size_t len)
{
	static const uint64_t values[] = { 0, 1, 2, 4, 256, 512, 4096, UINT64_MAX };
	size_t width = (size_t)1 << prng_below(prng, 4);
	size_t at = prng_below(prng, len / width) * width;
	uint64_t value;

	switch (prng_below(prng, 3)) {
	case 0:
		bytes[at] ^= (uint8_t)(1u << prng_below(prng, 8));
		return;
	case 1:
		value = values[prng_below(prng, array_len(values))];
		break;
	default:
		value = prng_next(prng) >> prng_below(prng, 64);
		break;
	}
	memcpy(bytes + at, &value, width);
}

/* Whether `output` line by line has a verdict of right exactly where `right` says so. */
static unsigned check_verdicts(const bool *right, unsigned count)
{
	const char *line = output;
	unsigned i, rights = 0;

	for (i = 0; i < count; i++) {
		bool said;

		assert_non_null(line);
		said = strstr(line, "\"verdict\":\"right\"") != NULL &&
		       strstr(line, "\"verdict\":\"right\"") < strchr(line, '\n');
		if (said != right[i])
			fail_msg("number %u is %s here, but there: %.200s", i,
				 right[i] ? "right" : "refused", line);
		rights += said;
		line = strchr(line, '\n') + 1;
	}
	assert_string_equal(line, "");
	return rights;
}

static void test_superblocks_bent(void **state)
{
	static struct superblock sb, decoded;
	static bool right[SUPERBLOCKS];
	struct prng prng;
	unsigned i, rights;

	(void)state;
	prng_seed(&prng, 32);
	for (i = 0; i < SUPERBLOCKS; i++) {
		uint8_t *slot = file + i * SUPERBLOCK_SLOT_BYTES;

		superblock_random(&sb, &prng);
		superblock_encode(&sb, slot);
		switch (prng_below(&prng, 4)) {
		case 0: /* numbers, names, flags */
			bend(&prng, slot + 56, AT_END_OF_FIELDS - 56);
			break;
		case 1: /* the new ones among them */
			bend(&prng, slot + offsetof(struct superblock_le, kept_history_count),
			     AT_END_OF_FIELDS - offsetof(struct superblock_le, kept_history_count));
			break;
		case 2:
			bend(&prng, slot + offsetof(struct superblock_le, kept_history), 128);
			break;
		default:
			bend(&prng, slot, SUPERBLOCK_SLOT_BYTES);
			break;
		}
		superblock_mend(slot);
		right[i] = superblock_decode(slot, &decoded) == 0;
	}
	write_file("slots", file, SUPERBLOCKS * SUPERBLOCK_SLOT_BYTES);
	decoder_well("verdicts superblock slots");
	rights = check_verdicts(right, SUPERBLOCKS);
	assert_true(rights > SUPERBLOCKS / 10 && rights < SUPERBLOCKS * 9 / 10);
}

/* ---- frames -----------------------------------------------------------------------------------
 */

/* Mostly right ones: what a field may be at most, and one more, are likely. */
static void random_frame(struct prng *prng, struct frame *frame)
{
	static const uint32_t lengths[] = { 0,	  1,	 15,	16,    17,	 4096,
					    8192, 65520, 65536, 65537, 1u << 20, 1064960 };
	static const uint64_t numbers[] = {
		0, 1, 2, 512, 513, VOLUME_BYTES_MAX - 512, VOLUME_BYTES_MAX, UINT64_MAX
	};
	static const uint32_t units[] = { 0, 1, 512, 2048, 2049, 1u << 20, UINT32_MAX };

	*frame = (struct frame){ .type = (uint16_t)prng_below(prng, FRAME_TYPE_MAX + 3),
				 .epoch = prng_next(prng) };
	if (prng_chance(prng, 1, 8))
		frame->flags = (uint16_t)prng_below(prng, 3);
	if (prng_chance(prng, 1, 2))
		frame->body_bytes = lengths[prng_below(prng, array_len(lengths))];
	if (prng_chance(prng, 1, 2))
		frame->seq = numbers[prng_below(prng, array_len(numbers))];
	if (prng_chance(prng, 1, 3))
		frame->arg1 = numbers[prng_below(prng, array_len(numbers))];
	if (prng_chance(prng, 1, 3))
		frame->arg2 = frame_range_arg((uint16_t)prng_next(prng),
					      units[prng_below(prng, array_len(units))]);
	if (prng_chance(prng, 1, 20))
		frame->arg2 = prng_next(prng);
	if (prng_chance(prng, 1, 8))
		frame->body_crc = (uint32_t)prng_next(prng);
}

static void test_frames(void **state)
{
	static bool right[FRAMES];
	unsigned i, rights, seen = 0;
	struct frame frame, decoded;
	struct prng prng;

	(void)state;
	prng_seed(&prng, 33);
	for (i = 0; i < FRAMES; i++) {
		uint8_t *bytes = file + (size_t)i * FRAME_BYTES;

		random_frame(&prng, &frame);
		frame_encode(&frame, bytes);
		if (prng_chance(&prng, 1, 50)) {
			bend(&prng, bytes, FRAME_BYTES - 4);
			frame_mend(bytes);
		}
		right[i] = frame_decode(bytes, FRAME_BYTES, &decoded) == 0;
		if (right[i])
			seen |= 1u << decoded.type;
	}
	assert_int_equal(seen, (2u << FRAME_TYPE_MAX) - 2);
	write_file("frames", file, (size_t)FRAMES * FRAME_BYTES);
	decoder_well("verdicts frame frames");
	rights = check_verdicts(right, FRAMES);
	assert_true(rights > FRAMES / 20);
}

/* The bodies of hashes and ranges. */
static void test_bodies(void **state)
{
	static const uint8_t ranges[2 * FRAME_RANGE_BYTES] = {
		0, 16, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, /* 4096, 8 sectors, volume 1 */
		0, 0,  2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, /* 131072, 1 sector, volume 256 */
	};
	struct frame frame = { .type = FRAME_RANGES, .seq = 1, .body_bytes = sizeof(ranges) };
	uint8_t hash[FRAME_HASH_BYTES];
	size_t i;

	(void)state;
	frame.body_crc = frame_body_crc(ranges, sizeof(ranges));
	frame_encode(&frame, file);
	memcpy(file + FRAME_BYTES, ranges, sizeof(ranges));
	write_file("frames", file, FRAME_BYTES + sizeof(ranges));
	decoder_well("frames frames");
	assert_non_null(strstr(output, "\"ranges\":[{\"volume\":1,\"offset\":4096,\"length\":4096},"
				       "{\"volume\":256,\"offset\":131072,\"length\":512}]}"));
	for (i = 0; i < sizeof(hash); i++)
		hash[i] = (uint8_t)(i * 17);
	frame = (struct frame){ .type = FRAME_SYNC_HASH,
				.arg2 = frame_range_arg(1, 1),
				.body_bytes = sizeof(hash),
				.body_crc = frame_body_crc(hash, sizeof(hash)) };
	frame_encode(&frame, file);
	memcpy(file + FRAME_BYTES, hash, sizeof(hash));
	write_file("frames", file, FRAME_BYTES + sizeof(hash));
	decoder_well("frames frames");
	assert_non_null(strstr(output, "\"hash\":\"00112233445566778899aabbccddeeff\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblocks),
		cmocka_unit_test(test_superblocks_bent),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_bodies),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
