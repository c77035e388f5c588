/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/writeset.h"

#include <errno.h>
#include <string.h>

#include "core/group/volume.h"
#include "proto/segment.h"

/* A data offset at or above this stands for zeroes; cutting an extent moves it up, never below. */
#define ZERO_BASE (1ull << 62)

static uint64_t key(unsigned volume_id, uint64_t off)
{
	return ((uint64_t)volume_id << VOLUME_KEY_SHIFT) | off;
}

int writeset_init(struct writeset *ws, struct io *io, size_t extents_max)
{
	size_t count = 2 * extents_max + 2;

	ws->io = io;
	ws->nodes = io_alloc(io, count * sizeof(*ws->nodes), 64);
	if (!ws->nodes)
		return -ENOMEM;
	extmap_init(&ws->map, ws->nodes, count, io_random(io));
	return 0;
}

void writeset_deinit(struct writeset *ws)
{
	if (ws->nodes)
		io_free(ws->io, ws->nodes);
	ws->nodes = NULL;
}

bool writeset_has_room(const struct writeset *ws, size_t records)
{
	return ws->map.free_count >= 2 * records;
}

void writeset_insert(struct writeset *ws, struct segment *segment, const struct record *record)
{
	struct extmap_value value = {
		.owner = segment,
		.data_offset_bytes = record->type == RECORD_WRITE ? record->data_off : ZERO_BASE,
	};
	int r;

	if (!record_has_range(record))
		return;
	r = extmap_insert(&ws->map, key(record->volume, record->offset_bytes), record->length_bytes,
			  &value);
	must(r == 0);
}

void writeset_remove(struct writeset *ws, struct segment *segment)
{
	for (uint32_t i = 0; i < segment->header.records; i++) {
		struct record record;
		int r = record_decode(segment->table + (size_t)i * RECORD_BYTES, &segment->header,
				      &record);

		must(r == 0);
		if (!record_has_range(&record))
			continue;
		r = extmap_remove(&ws->map, key(record.volume, record.offset_bytes),
				  record.length_bytes, segment, UINT64_MAX);
		must(r == 0);
	}
}

enum writeset_cover writeset_covers(const struct writeset *ws, unsigned volume_id, uint64_t off,
				    uint64_t len)
{
	uint64_t at = key(volume_id, off), end = at + len;
	struct extmap_piece piece = extmap_piece_at(&ws->map, at, end);
	bool covered = piece.covered;

	if (piece.length_bytes == len)
		return covered ? WRITESET_ALL : WRITESET_NONE;
	if (!covered)
		return WRITESET_SOME;
	extmap_for_each (piece, &ws->map, at + piece.length_bytes, end)
		if (!piece.covered)
			return WRITESET_SOME;
	return WRITESET_ALL;
}

void writeset_overlay(const struct writeset *ws, unsigned volume_id, uint64_t off, uint64_t len,
		      uint8_t *buf)
{
	uint64_t at = key(volume_id, off);
	struct extmap_piece piece;

	extmap_for_each (piece, &ws->map, at, at + len) {
		uint8_t *to = buf + (piece.offset_bytes - at);
		struct segment *segment = piece.value.owner;

		if (!piece.covered)
			continue;
		if (piece.value.data_offset_bytes >= ZERO_BASE)
			memset(to, 0, piece.length_bytes);
		else
			memcpy(to, segment->data + piece.value.data_offset_bytes,
			       piece.length_bytes);
	}
}

enum writeset_run writeset_run_at(const struct writeset *ws, unsigned volume_id, uint64_t off,
				  uint64_t len, uint64_t *ret_len)
{
	uint64_t at = key(volume_id, off);
	struct extmap_piece piece = extmap_piece_at(&ws->map, at, at + len);

	*ret_len = piece.length_bytes;
	if (!piece.covered)
		return WRITESET_GAP;
	return piece.value.data_offset_bytes >= ZERO_BASE ? WRITESET_ZERO : WRITESET_DATA;
}
