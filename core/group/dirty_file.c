/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/dirty_internal.h"

#define DIRTY_MAGIC	   0x4d444648u /* "HFDM" */
#define DIRTY_VERSION	   1u
#define HEADER_BYTES	   8192u
#define HEADER_VOLUMES_OFF 2048u
#define VOLUME_ENTRY_BYTES 40u
#define DIRTY_E_DAMAGED	   1

_Static_assert(HEADER_VOLUMES_OFF + GROUP_VOLUMES_MAX * VOLUME_ENTRY_BYTES <= HEADER_BYTES - 4,
	       "every volume has its place in the header");

/* ---- bytes of the file ------------------------------------------------------------------ */

static uint64_t page_off(uint32_t page)
{
	return HEADER_BYTES + (uint64_t)page * DIRTY_PAGE_BYTES;
}

static uint32_t page_crc(const struct dirty_map *map, const uint8_t *bytes)
{
	return crc32c(map->salt, bytes + 4, DIRTY_PAGE_BYTES - 4);
}

static void page_encode(const struct dirty_map *map, uint32_t page, uint8_t *bytes)
{
	const uint64_t *words = map->words + (size_t)page * DIRTY_PAGE_WORDS;
	uint32_t i;

	le32_put(bytes + 4, page);
	for (i = 0; i < DIRTY_PAGE_WORDS; i++)
		le64_put(bytes + DIRTY_PAGE_HEAD_BYTES + (size_t)i * 8, words[i]);
	le32_put(bytes, page_crc(map, bytes));
}

/* The volume that a page belongs to. */
static struct dirty_volume *volume_of_page(struct dirty_map *map, uint32_t page)
{
	unsigned i;

	for (i = 0; i < map->volume_count; i++) {
		if (page - map->volumes[i].first_page < map->volumes[i].pages)
			return &map->volumes[i];
	}
	must_not_reach();
}

/* The bits of its volume that a page holds. */
static void page_range(const struct dirty_volume *volume, uint32_t page, uint64_t *ret_first,
		       uint64_t *ret_count)
{
	uint64_t first = (uint64_t)(page - volume->first_page) * DIRTY_PAGE_BITS;

	*ret_first = first;
	*ret_count = min_u64(DIRTY_PAGE_BITS, volume->bits.bits - first);
}

static bool page_valid(const struct dirty_map *map, const struct dirty_volume *volume,
		       uint32_t page, const uint8_t *bytes)
{
	uint64_t first, bits, i;

	if (le32_load(bytes) != page_crc(map, bytes) || le32_load(bytes + 4) != page)
		return false;
	page_range(volume, page, &first, &bits);
	for (i = bits / 64; i < DIRTY_PAGE_WORDS; i++) {
		uint64_t word = le64_load(bytes + DIRTY_PAGE_HEAD_BYTES + i * 8);
		uint64_t used = i == bits / 64 ? (UINT64_C(1) << (bits % 64)) - 1 : 0;

		if ((word & ~used) != 0)
			return false;
	}
	return true;
}

/* Takes a page over; `bytes` NULL or damaged: everything in it is dirty. */
static void page_load(struct dirty_map *map, uint32_t page, const uint8_t *bytes)
{
	struct dirty_volume *volume = volume_of_page(map, page);
	uint64_t *words = map->words + (size_t)page * DIRTY_PAGE_WORDS;
	uint64_t first, bits;
	uint32_t i;

	page_range(volume, page, &first, &bits);
	if (!bytes || !page_valid(map, volume, page, bytes)) {
		dirty_change(map, volume, first, bits, true);
		bitmap_set(&map->changed, page);
		return;
	}
	volume->count -= bitmap_count_range(&volume->bits, first, bits);
	for (i = 0; i < DIRTY_PAGE_WORDS; i++)
		words[i] = le64_load(bytes + DIRTY_PAGE_HEAD_BYTES + (size_t)i * 8);
	volume->count += bitmap_count_range(&volume->bits, first, bits);
	bitmap_clear(&map->changed, page);
}

static void header_encode(struct dirty_map *map, uint64_t salt, uint8_t *bytes)
{
	struct wcursor cursor = wcursor_of(bytes, HEADER_VOLUMES_OFF);
	unsigned i;

	memset(bytes, 0, HEADER_BYTES);
	wcursor_le32(&cursor, DIRTY_MAGIC);
	wcursor_le32(&cursor, DIRTY_VERSION);
	wcursor_bytes(&cursor, map->group.bytes, UUID_BYTES);
	wcursor_le64(&cursor, salt);
	wcursor_le32(&cursor, map->pages);
	wcursor_le32(&cursor, map->volume_count);
	must(wcursor_ok(&cursor));
	cursor = wcursor_of(bytes + HEADER_VOLUMES_OFF, HEADER_BYTES - HEADER_VOLUMES_OFF);
	for (i = 0; i < map->volume_count; i++) {
		wcursor_le16(&cursor, map->volumes[i].id.id);
		wcursor_zeroes(&cursor, 6);
		wcursor_le64(&cursor, map->volumes[i].id.size_bytes);
		wcursor_le64(&cursor, map->volumes[i].chunk_bytes);
		wcursor_bytes(&cursor, map->volumes[i].id.uuid.bytes, UUID_BYTES);
	}
	must(wcursor_ok(&cursor));
	map->salt = crc32c(0, bytes, HEADER_BYTES - 4);
	le32_put(bytes + HEADER_BYTES - 4, map->salt);
}

/* A header is right when it is, but for the salt, the one that we would write. */
static bool header_load(struct dirty_map *map, const uint8_t *bytes, uint8_t *scratch)
{
	const size_t salt_off = 4 + 4 + UUID_BYTES;

	header_encode(map, le64_load(bytes + salt_off), scratch);
	return memcmp(bytes, scratch, HEADER_BYTES) == 0;
}

void dirty_close(struct dirty_map *map)
{
	io_file_close(map->file);
	map->file = NULL;
}

/* ---- load ------------------------------------------------------------------------------- */

static void dirty_finish(struct dirty_map *map, int64_t res)
{
	struct io_op *user = map->user;

	map->user = NULL;
	user->done(user, res);
}

static void dirty_begin(struct dirty_map *map, struct io_op *op)
{
	must(!map->user);
	map->user = op;
	map->next_page = 0;
	map->batch_pages = 0;
}

static void dirty_pages_read(struct io_op *op, int64_t res);

static void dirty_read_next(struct dirty_map *map)
{
	map->batch_pages = min_u32(DIRTY_BATCH_PAGES, map->pages - map->next_page);
	if (map->batch_pages == 0) {
		dirty_finish(map, 0);
		return;
	}
	map->op.done = dirty_pages_read;
	io_read(map->file, map->buf, (size_t)map->batch_pages * DIRTY_PAGE_BYTES,
		page_off(map->next_page), &map->op);
}

static void dirty_pages_read(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);
	uint32_t i;

	for (i = 0; i < map->batch_pages; i++)
		page_load(map, map->next_page + i,
			  res < 0 ? NULL : map->buf + (size_t)i * DIRTY_PAGE_BYTES);
	map->next_page += map->batch_pages;
	dirty_read_next(map);
}

static void dirty_load_failed(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	dirty_close(map);
	if (res > 0)
		dirty_set_all(map);
	dirty_finish(map, res);
}

static void dirty_header_read(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	if (res < 0 || !header_load(map, map->buf, map->buf + HEADER_BYTES)) {
		dirty_load_failed(op, DIRTY_E_DAMAGED);
		return;
	}
	dirty_read_next(map);
}

void dirty_load(struct dirty_map *map, struct io_op *op)
{
	struct io_file_info info;
	int res;

	dirty_begin(map, op);
	dirty_close(map);
	map->failed = 0;
	res = io_file_open(map->io, map->path, IO_OPEN_DIRECT, &map->file);
	if (res == 0) {
		io_file_info(map->file, &info);
		res = info.size_bytes == page_off(map->pages) ? 0 : DIRTY_E_DAMAGED;
	}
	if (res != 0) {
		map->op.done = dirty_load_failed;
		io_defer(map->io, &map->op, res);
		return;
	}
	map->op.done = dirty_header_read;
	io_read(map->file, map->buf, HEADER_BYTES, 0, &map->op);
}

/* ---- save ------------------------------------------------------------------------------- */

/* Nothing is known about the file any more. */
static void dirty_fail(struct dirty_map *map, int64_t res)
{
	map->failed = (int)res;
	dirty_finish(map, res);
}

static void dirty_write_next(struct dirty_map *map);

static void dirty_pages_written(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	if (res < 0)
		dirty_fail(map, res);
	else
		dirty_write_next(map);
}

static void dirty_pages_flushed(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	if (res < 0)
		dirty_fail(map, res);
	else
		dirty_finish(map, 0);
}

/* The next run of changed pages; behind the last one, the flush. Pages changed behind next_page
 * wait for another save. */
static void dirty_write_next(struct dirty_map *map)
{
	uint64_t first = bitmap_next_set(&map->changed, map->next_page);
	uint32_t i;

	if (first == map->pages) {
		map->op.done = dirty_pages_flushed;
		io_flush(map->file, &map->op);
		return;
	}
	for (i = 0; i < DIRTY_BATCH_PAGES && first + i < map->pages; i++) {
		if (!bitmap_test(&map->changed, first + i))
			break;
		page_encode(map, (uint32_t)first + i, map->buf + (size_t)i * DIRTY_PAGE_BYTES);
	}
	bitmap_clear_range(&map->changed, first, i);
	map->next_page = (uint32_t)first + i;
	map->op.done = dirty_pages_written;
	io_write(map->file, map->buf, (size_t)i * DIRTY_PAGE_BYTES, page_off((uint32_t)first), 0,
		 &map->op);
}

static void dirty_refused(struct io_op *op, int64_t res)
{
	dirty_finish(container_of(op, struct dirty_map, op), res);
}

void dirty_save(struct dirty_map *map, struct io_op *op)
{
	must(map->file || map->failed != 0);
	dirty_begin(map, op);
	if (map->failed == 0) {
		dirty_write_next(map);
		return;
	}
	map->op.done = dirty_refused;
	io_defer(map->io, &map->op, map->failed);
}

/* ---- create ----------------------------------------------------------------------------- */

static void dirty_header_written(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	if (res < 0) {
		dirty_fail(map, res);
		return;
	}
	/* Until the last page is there, missing ones read as all dirty. */
	if (map->pages > 0)
		bitmap_set_range(&map->changed, 0, map->pages);
	dirty_write_next(map);
}

static void dirty_created(struct io_op *op, int64_t res)
{
	struct dirty_map *map = container_of(op, struct dirty_map, op);

	if (res >= 0)
		res = io_file_open(map->io, map->path, IO_OPEN_DIRECT, &map->file);
	if (res < 0) {
		dirty_fail(map, res);
		return;
	}
	header_encode(map, io_random(map->io), map->buf);
	map->op.done = dirty_header_written;
	io_write(map->file, map->buf, HEADER_BYTES, 0, 0, &map->op);
}

void dirty_create(struct dirty_map *map, struct io_op *op)
{
	dirty_begin(map, op);
	dirty_close(map);
	map->failed = 0;
	map->op.done = dirty_created;
	io_file_create(map->io, map->path, page_off(map->pages), &map->op);
}

bool dirty_busy(const struct dirty_map *map)
{
	return map->user != NULL;
}

bool dirty_has_file(const struct dirty_map *map)
{
	return map->file && map->failed == 0;
}

int dirty_remove(struct dirty_map *map)
{
	int res;

	must(!map->user);
	dirty_close(map);
	res = io_file_remove(map->io, map->path);
	return res == -ENOENT ? 0 : res;
}
