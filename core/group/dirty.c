/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/dirty.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/dirty_internal.h"

/* ---- memory ----------------------------------------------------------------------------- */

static uint64_t chunk_bytes_for(uint64_t size_bytes)
{
	uint64_t chunk_bytes = DIRTY_CHUNK_MIN_BYTES;

	while (div_round_up(size_bytes, chunk_bytes) > DIRTY_BITS_MAX)
		chunk_bytes *= 2;
	return chunk_bytes;
}

/* How the volumes' bits lie in pages. */
static void dirty_lay_out(struct dirty_map *map, const struct superblock *sb)
{
	unsigned i;

	for (i = 0; i < sb->volume_count; i++) {
		struct dirty_volume *volume = &map->volumes[i];

		volume->id = sb->volumes[i];
		volume->chunk_bytes = chunk_bytes_for(volume->id.size_bytes);
		volume->bits.bits = div_round_up(volume->id.size_bytes, volume->chunk_bytes);
		volume->first_page = map->pages;
		volume->pages = (uint32_t)div_round_up(volume->bits.bits, DIRTY_PAGE_BITS);
		map->pages += volume->pages;
	}
	map->volume_count = sb->volume_count;
}

int dirty_new(struct io *io, const char *path, const struct superblock *sb,
	      struct dirty_map **ret_map)
{
	struct dirty_map *map;
	unsigned i;

	if (strlen(path) >= GROUP_PATH_MAX)
		return -ENAMETOOLONG;
	map = io_alloc(io, sizeof(*map), _Alignof(struct dirty_map));
	if (!map)
		return -ENOMEM;
	map->io = io;
	memcpy(map->path, path, strlen(path) + 1);
	map->group = sb->group;
	map->volumes = io_alloc(io, sizeof(*map->volumes) * max_u32(sb->volume_count, 1),
				_Alignof(struct dirty_volume));
	if (!map->volumes) {
		dirty_free(map);
		return -ENOMEM;
	}
	dirty_lay_out(map, sb);
	map->words = io_alloc(io, (size_t)max_u32(map->pages, 1) * DIRTY_PAGE_WORDS * 8, 64);
	map->changed.words = io_alloc(io, max_size(bitmap_memory_bytes(map->pages), 8), 64);
	map->buf = io_alloc(io, (size_t)DIRTY_BATCH_PAGES * DIRTY_PAGE_BYTES, DIRTY_PAGE_BYTES);
	if (!map->words || !map->changed.words || !map->buf) {
		dirty_free(map);
		return -ENOMEM;
	}
	bitmap_init(&map->changed, map->changed.words, map->pages);
	for (i = 0; i < map->volume_count; i++) {
		struct dirty_volume *volume = &map->volumes[i];

		bitmap_init(&volume->bits,
			    map->words + (size_t)volume->first_page * DIRTY_PAGE_WORDS,
			    volume->bits.bits);
	}
	*ret_map = map;
	return 0;
}

struct dirty_map *dirty_free(struct dirty_map *map)
{
	if (!map)
		return NULL;
	must(!map->user);
	dirty_close(map);
	if (map->volumes)
		io_free(map->io, map->volumes);
	if (map->words)
		io_free(map->io, map->words);
	if (map->changed.words)
		io_free(map->io, map->changed.words);
	if (map->buf)
		io_free(map->io, map->buf);
	io_free(map->io, map);
	return NULL;
}

/* ---- bits ------------------------------------------------------------------------------- */

static struct dirty_volume *dirty_volume(const struct dirty_map *map, unsigned volume_id)
{
	unsigned i;

	/* Ids are given out from 0 in order, so the place is nearly always the id. */
	if (volume_id < map->volume_count && map->volumes[volume_id].id.id == volume_id)
		return &map->volumes[volume_id];
	for (i = 0; i < map->volume_count; i++) {
		if (map->volumes[i].id.id == volume_id)
			return &map->volumes[i];
	}
	must_not_reach();
}

void dirty_change(struct dirty_map *map, struct dirty_volume *volume, uint64_t first,
		  uint64_t count, bool set)
{
	uint64_t were_set, first_page, last_page;

	if (count == 0)
		return;
	were_set = bitmap_count_range(&volume->bits, first, count);
	if (were_set == (set ? count : 0))
		return;
	if (set) {
		bitmap_set_range(&volume->bits, first, count);
		volume->count += count - were_set;
	} else {
		bitmap_clear_range(&volume->bits, first, count);
		volume->count -= were_set;
	}
	first_page = volume->first_page + first / DIRTY_PAGE_BITS;
	last_page = volume->first_page + (first + count - 1) / DIRTY_PAGE_BITS;
	bitmap_set_range(&map->changed, first_page, last_page - first_page + 1);
}

void dirty_set(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len)
{
	struct dirty_volume *volume = dirty_volume(map, volume_id);
	uint64_t first, last;

	must(range_valid(off, len, volume->id.size_bytes));
	if (len == 0)
		return;
	first = off / volume->chunk_bytes;
	last = (off + len - 1) / volume->chunk_bytes;
	dirty_change(map, volume, first, last - first + 1, true);
}

void dirty_set_all(struct dirty_map *map)
{
	unsigned i;

	for (i = 0; i < map->volume_count; i++)
		dirty_change(map, &map->volumes[i], 0, map->volumes[i].bits.bits, true);
}

void dirty_clear(struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t len)
{
	struct dirty_volume *volume = dirty_volume(map, volume_id);
	uint64_t first, end;

	must(range_valid(off, len, volume->id.size_bytes));
	first = div_round_up(off, volume->chunk_bytes);
	end = off + len == volume->id.size_bytes ? volume->bits.bits
						 : (off + len) / volume->chunk_bytes;
	if (first < end)
		dirty_change(map, volume, first, end - first, false);
}

bool dirty_next(const struct dirty_map *map, unsigned volume_id, uint64_t off, uint64_t max,
		uint64_t *ret_off, uint64_t *ret_len)
{
	const struct dirty_volume *volume = dirty_volume(map, volume_id);
	uint64_t first, last, start, end;

	must(max > 0);
	if (off >= volume->id.size_bytes)
		return false;
	first = bitmap_next_set(&volume->bits, off / volume->chunk_bytes);
	if (first == volume->bits.bits)
		return false;
	start = max_u64(first * volume->chunk_bytes, off);
	end = start + min_u64(max, volume->id.size_bytes - start);
	/* Chunk by chunk: runs may be long, `max` is what is asked for. */
	for (last = first + 1; last * volume->chunk_bytes < end; last++) {
		if (!bitmap_test(&volume->bits, last))
			break;
	}
	*ret_off = start;
	*ret_len = min_u64(last * volume->chunk_bytes, end) - start;
	return true;
}

int dirty_regrow(const struct dirty_map *map, const struct superblock *sb,
		 struct dirty_map **ret_map)
{
	struct dirty_map *grown;
	int r = dirty_new(map->io, map->path, sb, &grown);

	if (r)
		return r;
	for (unsigned i = 0; i < map->volume_count; i++) {
		unsigned id = map->volumes[i].id.id;
		uint64_t off = 0, len;

		while (dirty_next(map, id, off, UINT64_MAX >> 1, &off, &len)) {
			dirty_set(grown, id, off, len);
			off += len;
		}
	}
	*ret_map = grown;
	return 0;
}

uint64_t dirty_bytes(const struct dirty_map *map)
{
	uint64_t total_bytes = 0;
	unsigned i;

	for (i = 0; i < map->volume_count; i++) {
		const struct dirty_volume *volume = &map->volumes[i];
		uint64_t bits = volume->bits.bits;

		total_bytes += volume->count * volume->chunk_bytes;
		if (bits > 0 && bitmap_test(&volume->bits, bits - 1))
			total_bytes -= bits * volume->chunk_bytes - volume->id.size_bytes;
	}
	return total_bytes;
}

uint64_t dirty_chunk_bytes(const struct dirty_map *map, unsigned volume_id)
{
	return dirty_volume(map, volume_id)->chunk_bytes;
}
