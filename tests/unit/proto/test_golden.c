/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frozen files of tests/golden/v1 decode to what they were made of, and that encodes to the
 * same bytes. They are never made anew: `test_golden --make DIR` is how they came to be and how
 * those of a next version will, and it refuses to overwrite.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/payload.h"
#include "tests/unit/proto/samples.h"

static struct sample sample;
static struct superblock sb;
static struct link_hello hello;
static struct link_welcome welcome;
static uint8_t golden[4u << 20], made[4u << 20], unpacked[SEGMENT_DATA_MAX_BYTES];

/* ---- what the files were made of --------------------------------------------------------------
 */

static void fill(uint8_t *bytes, size_t len, uint32_t state, bool noise)
{
	size_t i;

	for (i = 0; i < len; i++) {
		state = state * 1664525u + 1013904223u;
		bytes[i] = noise ? (uint8_t)(state >> 24) : (uint8_t)(i / 64);
	}
}

static void make_segment_records(bool noise)
{
	uint8_t data[5000];

	sample_begin(&sample, 1000, 0x0123456789abcdefull);
	fill(data, sizeof(data), 1, noise);
	sample_add(&sample,
		   (struct record){ .type = RECORD_WRITE,
				    .flags = RECORD_FUA,
				    .volume = 1,
				    .length_bytes = 4096,
				    .offset_bytes = 1ull << 33 },
		   data);
	sample_add(&sample,
		   (struct record){ .type = RECORD_DISCARD,
				    .volume = 2,
				    .length_bytes = 1u << 30,
				    .offset_bytes = 1ull << 40,
				    .delta_us = 1 },
		   NULL);
	sample_add(&sample,
		   (struct record){ .type = RECORD_WRITE_ZEROES,
				    .flags = RECORD_NO_HOLE | RECORD_FUA,
				    .volume = 65535,
				    .length_bytes = 512,
				    .delta_us = 1000 },
		   NULL);
	sample_add(
		&sample,
		(struct record){ .type = RECORD_MARK, .length_bytes = 14, .delta_us = UINT32_MAX },
		"before upgrade");
	fill(data, sizeof(data), 2, noise);
	sample_add(&sample,
		   (struct record){ .type = RECORD_WRITE, .length_bytes = 5000, .delta_us = 2000 },
		   data);
}

static size_t make_raw(uint8_t *out)
{
	make_segment_records(true);
	must(!segment_seal(&sample.header, sample.table, sample_data(&sample), out));
	return sample.header.total_bytes;
}

static size_t make_lz4(uint8_t *out)
{
	make_segment_records(false);
	must(segment_seal(&sample.header, sample.table, sample_data(&sample), out));
	return sample.header.total_bytes;
}

/* The first of a group and of an epoch, without data. */
static size_t make_first(uint8_t *out)
{
	struct uuid group = sample_uuid(1);

	sample_begin(&sample, 1, segment_chain_root(&group));
	sample.header.epoch = 1;
	sample.header.flags = SEGMENT_EPOCH_FIRST;
	sample.header.bytes_end = 4096;
	sample_add(&sample, (struct record){ .type = RECORD_DISCARD, .length_bytes = 4096 }, NULL);
	must(!segment_seal(&sample.header, sample.table, sample_data(&sample), out));
	return sample.header.total_bytes;
}

static size_t make_superblock(uint8_t *out)
{
	superblock_sample(&sb, GROUP_VOLUMES_MAX, HISTORY_MAX, GROUP_PEERS_MAX);
	superblock_encode(&sb, out);
	superblock_sample(&sb, 1, 1, 0);
	sb.generation = 42;
	sb.role = GROUP_PRIMARY;
	sb.flags = SUPERBLOCK_CLEAN;
	superblock_encode(&sb, out + SUPERBLOCK_SLOT_BYTES);
	return SUPERBLOCK_FILE_BYTES;
}

/* A volume that grew: alone in its segment. It would pack; raw, it is frozen to the last byte. */
static size_t make_volume(uint8_t *out)
{
	struct superblock_volume volume = {
		.id = 513, .uuid = sample_uuid(9), .size_bytes = 1ull << 41, .name = "orders-wal"
	};
	uint8_t entry[RECORD_VOLUME_BYTES], *stored;

	record_volume_encode(&volume, entry);
	sample_begin(&sample, 1000, 0x0123456789abcdefull);
	sample_add(&sample,
		   (struct record){ .type = RECORD_VOLUME,
				    .volume = 513,
				    .length_bytes = RECORD_VOLUME_BYTES },
		   entry);
	stored = segment_seal_raw(&sample.header, sample.table, sample_data(&sample));
	memcpy(out, stored, sample.header.total_bytes);
	return sample.header.total_bytes;
}

/* Slot 0: a standby that is being copied to and keeps a position; slot 1: a primary that handed
 * over, and knows its standbys and stamps. */
static size_t make_kept(uint8_t *out)
{
	uint32_t i;

	superblock_sample(&sb, 2, 3, 0);
	sb.flags = SUPERBLOCK_EVER_CONSISTENT | SUPERBLOCK_SYNCING | SUPERBLOCK_REJOIN |
		   SUPERBLOCK_SELF_DIRTY | SUPERBLOCK_ROLLBACK;
	sb.verified_seq = 123450000;
	sb.verified_time_ns = 1700000000222222222ull;
	sb.kept = (struct superblock_kept){ .undo_id = 0x0123456789abcdefull,
					    .undo_bytes = 3ull << 20,
					    .seq = 123400000,
					    .chain = 0xfeedfacecafebeefull,
					    .bytes = 0x1234000000ull,
					    .epoch = 999,
					    .time_ns = 1700000000333333333ull,
					    .history_count = 2 };
	sb.kept.history[0] = sb.history[0];
	sb.kept.history[1] = sb.history[1];
	superblock_encode(&sb, out);

	superblock_sample(&sb, 2, 1, 2);
	sb.generation = 42;
	sb.role = GROUP_PRIMARY;
	sb.flags = SUPERBLOCK_CLEAN | SUPERBLOCK_HANDOVER | SUPERBLOCK_HELD;
	sb.handover_seq = 123456789;
	snprintf(sb.handover_node, sizeof(sb.handover_node), "holdfast://node/b.example");
	sb.lost_writes = 17;
	sb.lost_bytes = 69632;
	sb.lost_ns = UINT64_MAX;
	for (i = 0; i < 2; i++) {
		sb.peers[i].needs_compare = i == 1;
		sb.peers[i].verified_seq = 123000000 + i;
		sb.peers[i].verified_time_ns = 1700000000444444444ull + i;
		sb.peers[i].copy_seq = 122000000 + i;
		sb.peers[i].copy_time_ns = 1700000000555555555ull + i;
		sb.stamps[i].mtime_ns = 1700000000666666666ull + i;
		sb.stamps[i].sample = 0x1020304050607080ull + i;
	}
	superblock_encode(&sb, out + SUPERBLOCK_SLOT_BYTES);
	return SUPERBLOCK_FILE_BYTES;
}

static size_t put_frame(uint8_t *out, struct frame frame, const uint8_t *body)
{
	frame.epoch = 3;
	if (frame.type != FRAME_SEGMENT)
		frame.body_crc = frame_body_crc(body, frame.body_bytes);
	frame_encode(&frame, out);
	if (frame.body_bytes > 0)
		memcpy(out + FRAME_BYTES, body, frame.body_bytes);
	return FRAME_BYTES + frame.body_bytes;
}

static size_t put_message(uint8_t *out, uint16_t type, const uint8_t *body, int len)
{
	must(len >= 0);
	return put_frame(out, (struct frame){ .type = type, .body_bytes = (uint32_t)len }, body);
}

static const struct link_refuse refuse = {
	.code = LINK_REFUSE_STALE_EPOCH, .epoch = 4, .node = "b.example", .text = "epoch 4 rules"
};
static const struct link_start start = {
	.from_seq = 1000,
	.sync = true,
	.reset = true,
	.base = { .epoch = 2, .seq = 999, .chain = 77, .bytes = 88 },
	.sync_bytes = 1ull << 40
};
static const struct link_heartbeat heartbeat = { .head = { .epoch = 3, .seq = 1010, .bytes = 9000 },
						 .durable = { 3, 1004, 0xabcdef, 8000 },
						 .wall_time_ns = 1700000000000000000ull,
						 .behind_ns = 250000000,
						 .sync_left_bytes = 1ull << 39 };
static const struct link_bye bye = { .text = "stopping" };

static size_t put_messages(uint8_t *out)
{
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	size_t len = 0;

	hello_sample(&hello, 3, 2);
	welcome = (struct link_welcome){
		.protocol = 1,
		.software = "holdfast 0.1.0",
		.node = "b.example",
		.epoch = 3,
		.durable = { .epoch = 3, .seq = 999, .chain = 77, .bytes = 88 },
		.applied_seq = 998,
		.empty = true,
		.window_bytes = 1u << 26,
		.history_count = 1,
		.history = { { .epoch = 1, .first_seq = 1 } },
	};
	len += put_message(out + len, FRAME_HELLO, body,
			   link_hello_pack(&hello, body, sizeof(body)));
	len += put_message(out + len, FRAME_WELCOME, body,
			   link_welcome_pack(&welcome, body, sizeof(body)));
	len += put_message(out + len, FRAME_REFUSE, body,
			   link_refuse_pack(&refuse, body, sizeof(body)));
	len += put_message(out + len, FRAME_START, body,
			   link_start_pack(&start, body, sizeof(body)));
	len += put_message(out + len, FRAME_HEARTBEAT, body,
			   link_heartbeat_pack(&heartbeat, body, sizeof(body)));
	len += put_message(out + len, FRAME_BYE, body, link_bye_pack(&bye, body, sizeof(body)));
	return len;
}

/* A whole dialogue; LZ4's output may change with its version, so the packed block is spelled out.
 */
static size_t make_frames(uint8_t *out)
{
	/* One literal 'x', 4 + 15 + 15 x 255 + 246 = 4090 more of it, then "xxxx" and a zero. */
	static const uint8_t block[] = { 0x1f, 'x', 1,	  0,   255, 255, 255, 255, 255,
					 255,  255, 255,  255, 255, 255, 255, 255, 255,
					 255,  246, 0x50, 'x', 'x', 'x', 'x', 0 };
	static uint8_t body[SEGMENT_TOTAL_MAX_BYTES];
	size_t len = put_messages(out);

	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_SEGMENT,
					 .seq = 1000,
					 .arg1 = 1004,
					 .body_bytes = (uint32_t)make_raw(body) },
			 body);
	len += put_frame(
		out + len,
		(struct frame){ .type = FRAME_ACK, .seq = 1004, .arg1 = 999, .arg2 = 1010 }, NULL);
	fill(body, 512, 3, true);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_SYNC_DATA,
					 .seq = 1000,
					 .arg1 = 1ull << 41,
					 .arg2 = frame_range_arg(513, 512),
					 .body_bytes = 512 },
			 body);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_SYNC_DATA,
					 .flags = FRAME_LZ4,
					 .seq = 1001,
					 .arg2 = frame_range_arg(1, 4096),
					 .body_bytes = sizeof(block) },
			 block);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_SYNC_ZERO,
					 .seq = 1001,
					 .arg1 = 4096,
					 .arg2 = frame_range_arg(1, 2097152) },
			 NULL);
	len += put_frame(out + len, (struct frame){ .type = FRAME_SYNC_END, .seq = 1001 }, NULL);
	len += put_frame(out + len, (struct frame){ .type = FRAME_SYNC_ACK, .seq = 3 }, NULL);
	return len;
}

/* The frames and fields of return, comparison and switchover. */
static size_t put_return_messages(uint8_t *out)
{
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	struct link_start compare = start;
	struct link_heartbeat lost = heartbeat;
	size_t len = 0;

	hello_sample(&hello, 1, 1);
	hello.mode = LINK_SYNC_ALL;
	welcome = (struct link_welcome){
		.protocol = 1,
		.node = "a.example",
		.epoch = 3,
		.durable = { .epoch = 2, .seq = 999, .chain = 77, .bytes = 88 },
		.applied_seq = 998,
		.syncing = true,
		.window_bytes = 1u << 26,
		.seeded = true,
		.diverged = true,
		.common_seq = 900,
		.ranges = 2,
		.kept = true,
		.kept_seq = 850,
	};
	compare.compare = true;
	lost.mode = LINK_SYNC_LOST;
	len += put_message(out + len, FRAME_HELLO, body,
			   link_hello_pack(&hello, body, sizeof(body)));
	len += put_message(out + len, FRAME_WELCOME, body,
			   link_welcome_pack(&welcome, body, sizeof(body)));
	len += put_message(out + len, FRAME_START, body,
			   link_start_pack(&compare, body, sizeof(body)));
	len += put_message(out + len, FRAME_HEARTBEAT, body,
			   link_heartbeat_pack(&lost, body, sizeof(body)));
	return len;
}

static size_t make_return(uint8_t *out)
{
	static const uint8_t ranges[2 * FRAME_RANGE_BYTES] = {
		0, 16, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, /* 4096, 8 sectors, volume 1 */
		0, 0,  2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, /* 131072, 1 sector, volume 256 */
	};
	static uint8_t body[FRAME_CONTROL_MAX_BYTES];
	size_t len = put_return_messages(out);
	struct frame handed = { .type = FRAME_HANDED, .seq = 1010 };

	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_RANGES, .body_bytes = FRAME_RANGE_BYTES },
			 ranges);
	len += put_frame(
		out + len,
		(struct frame){ .type = FRAME_RANGES, .seq = 1, .body_bytes = sizeof(ranges) },
		ranges);
	fill(body, FRAME_HASH_BYTES, 5, true);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_SYNC_HASH,
					 .seq = 1004,
					 .arg1 = 1ull << 41,
					 .arg2 = frame_range_arg(513, 2048),
					 .body_bytes = FRAME_HASH_BYTES },
			 body);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_HASH_RESULT, .seq = 1, .arg1 = 1 }, NULL);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_VERIFIED,
					 .seq = 1004,
					 .arg1 = 1700000000777777777ull,
					 .arg2 = 1 },
			 NULL);
	len += put_frame(out + len,
			 (struct frame){ .type = FRAME_HANDOVER, .seq = 1010, .arg1 = 0xabcdef },
			 NULL);
	len += put_frame(out + len, handed, NULL);
	handed.seq = 0;
	handed.body_bytes = (uint32_t)link_bye_pack(&bye, body, sizeof(body));
	len += put_frame(out + len, handed, body);
	return len;
}

struct golden_file {
	const char *name;
	size_t (*make)(uint8_t *out);
};

static const struct golden_file files[] = {
	{ "raw.seg", make_raw },	   { "lz4.seg", make_lz4 },
	{ "first.seg", make_first },	   { "superblock.sb", make_superblock },
	{ "dialogue.frame", make_frames }, { "volume.seg", make_volume },
	{ "kept.sb", make_kept },	   { "return.frame", make_return },
};

/* ---- files ------------------------------------------------------------------------------------
 */

static size_t golden_read(const char *name)
{
	const char *source = getenv("HOLDFAST_SOURCE");
	char path[4096];
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "%s/tests/golden/v1/%s", source ? source : ".", name);
	file = fopen(path, "re");
	if (file == NULL)
		fail_msg("%s: cannot be opened", path);
	len = fread(golden, 1, sizeof(golden), file);
	fclose(file);
	return len;
}

static int golden_make(const char *dir)
{
	char path[4096];
	size_t i, len;
	int fd;

	for (i = 0; i < array_len(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i].name);
		len = files[i].make(made);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, made, len) != (ssize_t)len || close(fd) != 0) {
			perror(path);
			return 1;
		}
	}
	return 0;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void check_same(const char *name, size_t (*make)(uint8_t *out))
{
	size_t len = golden_read(name);

	memset(made, 0xee, sizeof(made));
	assert_int_equal(make(made), len);
	assert_memory_equal(made, golden, len);
}

static void check_segment(const char *name)
{
	size_t len = golden_read(name);
	struct segment_header header;
	struct record record;
	uint32_t i;

	assert_int_equal(segment_header_decode(golden, len, &header), 0);
	assert_int_equal(header.total_bytes, len);
	assert_int_equal(segment_verify(golden, len, &header), 0);
	assert_int_equal(segment_unpack(golden, &header, unpacked), 0);
	assert_int_equal(header.data_raw_bytes, sample.header.data_raw_bytes);
	assert_memory_equal(unpacked, sample_data(&sample), header.data_raw_bytes);
	assert_int_equal(header.records, sample.header.records);
	segment_header_encode(&header, made);
	for (i = 0; i < header.records; i++) {
		uint8_t *bytes = made + SEGMENT_HEADER_BYTES + i * RECORD_BYTES;

		assert_memory_equal(golden + SEGMENT_HEADER_BYTES + i * RECORD_BYTES,
				    sample.table + i * RECORD_BYTES, RECORD_BYTES);
		assert_int_equal(record_decode(golden + SEGMENT_HEADER_BYTES + i * RECORD_BYTES,
					       &header, &record),
				 0);
		record_encode(&record, bytes);
	}
	assert_memory_equal(made, golden, SEGMENT_HEADER_BYTES + header.records * RECORD_BYTES);
}

static void test_segments(void **state)
{
	(void)state;
	check_same("raw.seg", make_raw);
	check_segment("raw.seg");
	check_same("first.seg", make_first);
	check_segment("first.seg");
	check_same("volume.seg", make_volume);
	check_segment("volume.seg");
	/* What LZ4 makes of the data may change with its version: only its meaning is frozen. */
	(void)make_lz4(made);
	check_segment("lz4.seg");
}

static void check_superblock(const char *name, size_t (*make)(uint8_t *out))
{
	static struct superblock decoded;
	unsigned i, chosen;

	check_same(name, make);
	assert_int_equal(superblock_choose(golden, &decoded, &chosen), 0);
	assert_int_equal(chosen, 1);
	assert_int_equal(decoded.generation, 42);
	for (i = 0; i < 2; i++) {
		assert_int_equal(superblock_decode(golden + i * SUPERBLOCK_SLOT_BYTES, &decoded),
				 0);
		superblock_encode(&decoded, made);
		assert_memory_equal(made, golden + i * SUPERBLOCK_SLOT_BYTES,
				    SUPERBLOCK_SLOT_BYTES);
	}
}

static void test_superblock(void **state)
{
	(void)state;
	check_superblock("superblock.sb", make_superblock);
	check_superblock("kept.sb", make_kept);
}

/* The messages' bytes are protobuf's; they decode and pack to the same. */
static int message_again(uint16_t type, const uint8_t *body, size_t len, uint8_t *out, size_t max)
{
	static union {
		struct link_hello hello;
		struct link_welcome welcome;
		struct link_refuse refuse;
		struct link_start start;
		struct link_heartbeat heartbeat;
		struct link_bye bye;
	} u;

	switch (type) {
	case FRAME_HELLO:
		assert_int_equal(link_hello_unpack(body, len, &u.hello), 0);
		return link_hello_pack(&u.hello, out, max);
	case FRAME_WELCOME:
		assert_int_equal(link_welcome_unpack(body, len, &u.welcome), 0);
		return link_welcome_pack(&u.welcome, out, max);
	case FRAME_REFUSE:
		assert_int_equal(link_refuse_unpack(body, len, &u.refuse), 0);
		return link_refuse_pack(&u.refuse, out, max);
	case FRAME_START:
		assert_int_equal(link_start_unpack(body, len, &u.start), 0);
		return link_start_pack(&u.start, out, max);
	case FRAME_HEARTBEAT:
		assert_int_equal(link_heartbeat_unpack(body, len, &u.heartbeat), 0);
		return link_heartbeat_pack(&u.heartbeat, out, max);
	case FRAME_BYE:
		assert_int_equal(link_bye_unpack(body, len, &u.bye), 0);
		return link_bye_pack(&u.bye, out, max);
	default:
		memcpy(out, body, len);
		return (int)len;
	}
}

/* Returns a bit for each type that stands in it. */
static unsigned check_frames(const char *name, size_t (*make)(uint8_t *out))
{
	unsigned seen = 0;
	struct frame frame;
	size_t len, at;

	check_same(name, make);
	len = golden_read(name);
	for (at = 0; at < len; at += FRAME_BYTES + frame.body_bytes) {
		const uint8_t *body = golden + at + FRAME_BYTES;

		assert_int_equal(frame_decode(golden + at, len - at, &frame), 0);
		assert_true(frame.body_bytes <= len - at - FRAME_BYTES);
		assert_int_equal(frame_body_check(&frame, body), 0);
		seen |= 1u << frame.type;
		frame_encode(&frame, made);
		assert_int_equal(message_again(frame.type, body, frame.body_bytes,
					       made + FRAME_BYTES, sizeof(made) - FRAME_BYTES),
				 frame.body_bytes);
		assert_memory_equal(made, golden + at, FRAME_BYTES + frame.body_bytes);
		if (frame.flags & FRAME_LZ4) {
			assert_true(payload_unpack(body, frame.body_bytes, unpacked, 4096));
			assert_true(unpacked[4094] == 'x' && unpacked[4095] == 0);
		}
	}
	assert_int_equal(at, len);
	return seen;
}

static void test_frames(void **state)
{
	unsigned first, later;

	(void)state;
	/* The types there were when it was made. */
	first = check_frames("dialogue.frame", make_frames);
	assert_int_equal(first, (2u << FRAME_BYE) - 2);
	later = check_frames("return.frame", make_return);
	assert_int_equal(first | later, (2u << FRAME_TYPE_MAX) - 2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_superblock),
		cmocka_unit_test(test_frames),
	};

	if (argc == 3 && strcmp(argv[1], "--make") == 0)
		return golden_make(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
