/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The offline reader over journals built by hand: whole, torn, given up and written again, damaged
 * at every place where damage can be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/journal_read.h"
#include "core/base/crc32c.h"
#include "core/base/macros.h"
#include "core/base/prng.h"

#define SLOTS	   4u
#define SLOT_BYTES (256u << 10)
#define DATA_BYTES 4096u
#define STORED	   8192u /* a segment of one record of DATA_BYTES, raw */

static char dir[64], error[1300];
static struct superblock sb;

struct writer {
	uint64_t seq, chain, epoch, bytes, durable_seq;
	uint32_t slot;
	uint64_t off;
};
static struct writer writer;

static int open_file(const char *name, int flags)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

static int open_slot(uint32_t slot)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "journal/%08u", slot);
	return open_file(name, O_RDWR | O_CREAT);
}

static void put(uint32_t slot, uint64_t off, const void *bytes, size_t length)
{
	int fd = open_slot(slot);

	assert_int_equal(pwrite(fd, bytes, length, (off_t)off), (ssize_t)length);
	assert_int_equal(close(fd), 0);
}

static void flip(uint32_t slot, uint64_t off)
{
	int fd = open_slot(slot);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)off), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)off), 1);
	assert_int_equal(close(fd), 0);
}

static void store(void)
{
	static uint8_t bytes[SUPERBLOCK_FILE_BYTES];
	int fd = open_file("superblock", O_RDWR | O_CREAT);

	memset(bytes, 0, sizeof(bytes));
	sb.generation++;
	superblock_encode(&sb, bytes);
	assert_int_equal(pwrite(fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	assert_int_equal(close(fd), 0);
}

static int setup(void **state)
{
	char path[96];

	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/test_journal.XXXXXX");
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/journal", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	memset(&sb, 0, sizeof(sb));
	memset(sb.group.bytes, 7, sizeof(sb.group.bytes));
	(void)snprintf(sb.name, sizeof(sb.name), "db");
	sb.role = GROUP_PRIMARY;
	sb.epoch = 1;
	sb.slot_bytes = SLOT_BYTES;
	sb.slots = SLOTS;
	sb.applied_chain = segment_chain_root(&sb.group);
	sb.history_count = 1;
	sb.history[0] = (struct history_entry){ 1, 1 };
	sb.volume_count = 1;
	sb.volumes[0].id = 1;
	memset(sb.volumes[0].uuid.bytes, 9, sizeof(sb.volumes[0].uuid.bytes));
	sb.volumes[0].size_bytes = 1u << 20;
	(void)snprintf(sb.volumes[0].name, sizeof(sb.volumes[0].name), "v");
	for (uint32_t i = 0; i < SLOTS; i++) {
		int fd = open_slot(i);

		assert_int_equal(ftruncate(fd, SLOT_BYTES), 0);
		assert_int_equal(close(fd), 0);
	}
	writer = (struct writer){ .seq = 1, .chain = sb.applied_chain, .epoch = 1 };
	store();
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

/* Appends `count` segments of one record each, into the next slot where one is full. */
static void append(unsigned count)
{
	static uint8_t stored[SEGMENT_TOTAL_MAX_BYTES] __attribute__((aligned(4096)));
	uint8_t data[DATA_BYTES], table[RECORD_BYTES];
	struct prng prng;

	for (; count > 0; count--) {
		struct record record = { .type = RECORD_WRITE, .volume = 1 };
		struct segment_header header = { .group = sb.group };

		/* Random bytes do not compress, so every segment is as long as the next. */
		prng_seed(&prng, writer.seq);
		prng_fill(&prng, data, sizeof(data));
		record.length_bytes = DATA_BYTES;
		record.data_crc = crc32c(0, data, sizeof(data));
		record_encode(&record, table);
		header.epoch = writer.epoch;
		header.first_seq = writer.seq;
		header.records = 1;
		header.data_raw_bytes = DATA_BYTES;
		header.first_time_ns = header.last_time_ns = 1000 + writer.seq;
		header.durable_seq = writer.durable_seq;
		header.bytes_end = writer.bytes + DATA_BYTES;
		header.chain = writer.chain;
		header.writer = 1;
		(void)segment_seal(&header, table, data, stored);
		if (writer.off + header.total_bytes > SLOT_BYTES) {
			writer.slot = (writer.slot + 1) % SLOTS;
			writer.off = 0;
		}
		put(writer.slot, writer.off, stored, header.total_bytes);
		writer.off += header.total_bytes;
		writer.chain = segment_chain(stored);
		writer.bytes += DATA_BYTES;
		writer.seq++;
	}
}

static void applied_here(void)
{
	sb.applied_seq = writer.seq - 1;
	sb.applied_chain = writer.chain;
	sb.applied_bytes = writer.bytes;
	sb.applied_slot = writer.slot;
	sb.applied_off = writer.off;
	store();
}

static struct journal_view *read_view(void)
{
	struct journal_view *view = calloc(1, sizeof(*view));

	assert_non_null(view);
	view->unpack = true;
	if (journal_view_read(view, dir, error, sizeof(error)) != 0)
		fail_msg("%s", error);
	return view;
}

struct walk {
	uint64_t next, count;
};

static void in_order(void *arg, const struct journal_segment *segment)
{
	struct walk *walk = arg;

	assert_int_equal(segment->header.first_seq, walk->next);
	walk->next = segment_last_seq(&segment->header) + 1;
	walk->count++;
}

/* The journal is seq first..last, in order, and damaged in `damage` places. */
static void expect(uint64_t first, uint64_t last, unsigned damage)
{
	struct journal_view *view = read_view();
	struct walk walk = { .next = first };

	for (unsigned i = 0; view->damage_count != damage && i < view->damage_count; i++)
		print_error("%s %lu: %s\n", view->damage[i].file, view->damage[i].off,
			    view->damage[i].reason);
	assert_int_equal(view->damage_count, damage);
	assert_int_equal(view->first_seq, first);
	assert_int_equal(view->end_seq, last + 1);
	journal_view_each(view, in_order, &walk);
	assert_int_equal(walk.next, last + 1);
	journal_view_free(view);
	free(view);
}

static void expect_damage(const char *file, uint64_t off)
{
	struct journal_view *view = read_view();

	assert_int_equal(view->damage_count, 1);
	assert_string_equal(view->damage[0].file, file);
	assert_int_equal(view->damage[0].off, off);
	assert_true(strlen(view->damage[0].reason) > 0);
	journal_view_free(view);
	free(view);
}

static void test_empty(void **state)
{
	(void)state;
	expect(1, 0, 0);
	sb.durable_seq = 3;
	store();
	expect_damage("journal/00000000", 0);
}

static void test_whole(void **state)
{
	(void)state;
	append(10);
	expect(1, 10, 0);
	append(60); /* two more slots */
	expect(1, 70, 0);
	applied_here();
	expect(1, 70, 0);
	append(5);
	expect(1, 75, 0);
}

static void test_recycled(void **state)
{
	(void)state;
	append(100);
	applied_here();
	append(100);
	/* 32 segments to a slot: the second lap is in slots 2 and 3, 0, 1. */
	applied_here();
	append(3);
	expect(203 - (203 - 1) % 32 - 96, 203, 0);
}

static void test_applied_at_slot_end(void **state)
{
	(void)state;
	append(32);
	applied_here();
	assert_int_equal(sb.applied_off, SLOT_BYTES);
	expect(1, 32, 0);
	append(1);
	expect(1, 33, 0);
	/* The same place, named as the start of the next slot. */
	sb.applied_slot = 1;
	sb.applied_off = 0;
	store();
	expect(1, 33, 0);
}

static void test_torn_tail(void **state)
{
	uint8_t zero[STORED] = { 0 };

	(void)state;
	append(10);
	put(0, 9 * STORED, zero, STORED);
	expect(1, 9, 0);
	/* Half of it arrived. */
	writer.seq = 1;
	writer.off = 0;
	writer.chain = segment_chain_root(&sb.group);
	append(10);
	put(0, 9 * STORED + 4096, zero, 4096);
	expect(1, 9, 0);
}

static void test_damaged_middle(void **state)
{
	(void)state;
	append(10);
	writer.durable_seq = 10;
	append(10);
	expect(1, 20, 0);
	for (unsigned at = 0; at < 3; at++) {
		const uint64_t places[] = { 5, 200, 6000 }; /* header, table, data */

		flip(0, 4 * STORED + places[at]);
		expect_damage("journal/00000000", 4 * STORED);
		flip(0, 4 * STORED + places[at]);
		expect(1, 20, 0);
	}
}

static void test_superblock_knows(void **state)
{
	(void)state;
	append(10);
	sb.durable_seq = 10;
	store();
	expect(1, 10, 0);
	flip(0, 9 * STORED + 6000);
	expect_damage("journal/00000000", 9 * STORED);
}

/* On a standby what a segment calls durable was durable elsewhere; many in a row still show it. */
static void test_standby_row(void **state)
{
	(void)state;
	sb.role = GROUP_STANDBY;
	store();
	append(4);
	writer.durable_seq = 4;
	append(11);
	flip(0, 3 * STORED + 100);
	expect(1, 3, 0);
	append(10);
	expect_damage("journal/00000000", 3 * STORED);
}

static void test_given_up(void **state)
{
	struct writer before;
	struct journal_view *view;

	(void)state;
	append(5);
	before = writer;
	append(4); /* written, not durable; then a write fails */
	writer = before;
	writer.slot = 1;
	writer.off = 0;
	append(6);
	expect(1, 11, 0);
	view = read_view();
	assert_int_equal(view->void_segments, 4);
	journal_view_free(view);
	free(view);
}

static void test_older_damage(void **state)
{
	(void)state;
	append(120);
	applied_here();
	expect(1, 120, 0);
	/* Before the applied place: recovery never reads it, followers may. */
	flip(1, 5 * STORED + 5000);
	expect_damage("journal/00000001", 5 * STORED);
}

static void test_other_group(void **state)
{
	struct superblock mine = sb;

	(void)state;
	memset(sb.group.bytes, 8, sizeof(sb.group.bytes));
	writer.chain = segment_chain_root(&sb.group);
	append(40);
	sb = mine;
	store();
	expect(1, 0, 0);
}

static void test_missing_file(void **state)
{
	char path[96];

	(void)state;
	append(40);
	(void)snprintf(path, sizeof(path), "%s/journal/00000002", dir);
	assert_int_equal(unlink(path), 0);
	expect_damage("journal/00000002", 0);
}

static void test_no_superblock(void **state)
{
	struct journal_view *view = calloc(1, sizeof(*view));
	int fd = open_file("superblock", O_RDWR);

	(void)state;
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_true(journal_view_read(view, dir, error, sizeof(error)) < 0);
	assert_non_null(strstr(error, "superblock"));
	journal_view_free(view);
	memset(view, 0, sizeof(*view));
	assert_int_equal(ftruncate(fd, SUPERBLOCK_FILE_BYTES), 0);
	assert_int_equal(journal_view_read(view, dir, error, sizeof(error)), -EUCLEAN);
	journal_view_free(view);
	free(view);
	assert_int_equal(close(fd), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty),
		TEST(test_whole),
		TEST(test_recycled),
		TEST(test_applied_at_slot_end),
		TEST(test_torn_tail),
		TEST(test_damaged_middle),
		TEST(test_superblock_knows),
		TEST(test_standby_row),
		TEST(test_given_up),
		TEST(test_older_damage),
		TEST(test_other_group),
		TEST(test_missing_file),
		TEST(test_no_superblock),
	};

	return cmocka_run_group_tests_name("journal_read", tests, NULL, NULL);
}
