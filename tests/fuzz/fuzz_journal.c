/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group directory as `holdfast journal` reads it. The input is, behind one byte of choices, the
 * journal's files one behind the other; checksums of what looks like a segment are made right,
 * since guessing them is no test. Whatever is there, what the view shows is in order and complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/journal_read.h"
#include "core/base/crc32c.h"
#include "core/base/must.h"
#include "proto/format.h"
#include "tests/fuzz/fuzz.h"

#define SLOTS	   3u
#define SLOT_BYTES (4u * SEGMENT_ALIGN_BYTES)

static char dir[64];
static uint8_t files[SLOTS][SLOT_BYTES] __attribute__((aligned(64)));

static void put_file(const char *name, const void *bytes, size_t len)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
	(void)close(fd);
}

static void drop(const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)remove(path);
}

static void clean_up(void)
{
	drop("superblock");
	drop("journal/00000000");
	drop("journal/00000001");
	drop("journal/00000002");
	drop("journal");
	drop("");
}

static void prepare(void)
{
	char path[128];

	if (dir[0])
		return;
	(void)snprintf(dir, sizeof(dir), "/tmp/holdfast-fuzz.XXXXXX");
	must(mkdtemp(dir) != NULL);
	(void)snprintf(path, sizeof(path), "%s/journal", dir);
	must(mkdir(path, 0700) == 0);
	must(atexit(clean_up) == 0);
}

static void put_superblock(uint8_t how)
{
	static uint8_t bytes[SUPERBLOCK_FILE_BYTES];
	static struct superblock sb;
	const struct segment_header_le *le;

	memset(&sb, 0, sizeof(sb));
	sb.generation = 1;
	sb.role = how & 1 ? GROUP_STANDBY : GROUP_PRIMARY;
	memset(sb.group.bytes, 0x61, sizeof(sb.group.bytes));
	sb.name[0] = 'g';
	sb.epoch = 1;
	sb.history_count = 1;
	sb.history[0] = (struct history_entry){ 1, 1 };
	sb.slots = SLOTS;
	sb.slot_bytes = SLOT_BYTES;
	sb.applied_slot = (how >> 1) % SLOTS;
	sb.applied_off = (uint64_t)((how >> 3) & 3) * SEGMENT_ALIGN_BYTES;
	sb.applied_seq = (uint64_t)(how >> 5) + 1;
	sb.applied_chain = segment_chain_root(&sb.group);
	/* The applied place is in front of the segment there, if there is one. */
	le = (const struct segment_header_le *)(const void *)(files[sb.applied_slot] +
							      sb.applied_off % SLOT_BYTES);
	if (le32_get(le->magic) == SEGMENT_MAGIC && le64_get(le->first_seq) > 0) {
		sb.group = le->group;
		sb.applied_seq = le64_get(le->first_seq) - 1;
		sb.applied_chain = le64_get(le->chain);
	}
	memset(bytes, 0, sizeof(bytes));
	superblock_encode(&sb, bytes);
	put_file("superblock", bytes, sizeof(bytes));
}

static void mend(uint8_t *bytes, size_t len)
{
	struct segment_header_le *le = (struct segment_header_le *)(void *)bytes;
	uint64_t table_bytes = (uint64_t)le32_get(le->records) * RECORD_BYTES;
	uint64_t data_off = le32_get(le->data_off), data_bytes = le32_get(le->data_stored_bytes);
	uint32_t crc;

	if (table_bytes > len - sizeof(*le) || data_off > len || data_bytes > len - data_off)
		return;
	crc = crc32c((uint32_t)le64_get(le->chain), bytes + sizeof(*le), table_bytes);
	le->payload_crc = le32_of(crc32c(crc, bytes + data_off, data_bytes));
	le->header_crc = le32_of(crc32c(0, le, offsetof(struct segment_header_le, header_crc)));
}

static uint64_t next_seq;

static void visit(void *arg, const struct journal_segment *segment)
{
	uint64_t *count = arg;

	must(*count == 0 || segment->header.first_seq == next_seq);
	must(segment->slot < SLOTS && segment->off + segment->header.total_bytes <= SLOT_BYTES);
	next_seq = segment_last_seq(&segment->header) + 1;
	++*count;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	struct journal_view view = { .unpack = true };
	char name[32], error[1024] = "";
	uint64_t count = 0;

	if (size < 1 || size > 1 + sizeof(files))
		return 0;
	prepare();
	memset(files, 0, sizeof(files));
	memcpy(files, input + 1, size - 1);
	put_superblock(input[0]);
	for (unsigned i = 0; i < SLOTS; i++) {
		for (size_t off = 0; off < SLOT_BYTES; off += SEGMENT_ALIGN_BYTES)
			mend(files[i] + off, SLOT_BYTES - off);
		(void)snprintf(name, sizeof(name), "journal/%08u", i);
		put_file(name, files[i], SLOT_BYTES);
	}
	if (journal_view_read(&view, dir, error, sizeof(error)) < 0)
		must(error[0] != '\0');
	else
		journal_view_each(&view, visit, &count);
	must(view.damage_count <= JOURNAL_DAMAGE_MAX);
	journal_view_free(&view);
	return 0;
}
