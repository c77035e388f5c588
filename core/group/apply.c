/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch is one extent map over all volumes: the key is the volume's id in the bits above
 * VOLUME_KEY_SHIFT and the offset below. Its owner pointer is the data area that the bytes are
 * in, or one of the markers below for ranges that become zeroes.
 */
#include "core/group/apply.h"

#include <errno.h>
#include <string.h>

#include "core/base/checked.h"

static uint8_t marker_discard, marker_zero, marker_zero_keep;

static bool is_marker(const void *owner)
{
	return owner == &marker_discard || owner == &marker_zero || owner == &marker_zero_keep;
}

int apply_init(struct apply *apply, struct io *io, struct volumes *volumes, size_t records_max)
{
	memset(apply, 0, sizeof(*apply));
	apply->io = io;
	apply->volumes = volumes;
	apply->node_count = 2 * records_max + 2;
	apply->nodes = io_alloc(io, apply->node_count * sizeof(*apply->nodes), 64);
	apply->slots = io_alloc(io, APPLY_WRITES_MAX * sizeof(*apply->slots), 64);
	if (!apply->nodes || !apply->slots) {
		apply_deinit(apply);
		return -ENOMEM;
	}
	extmap_init(&apply->map, apply->nodes, apply->node_count, io_random(io));
	for (unsigned i = 0; i < APPLY_WRITES_MAX; i++) {
		apply->slots[i].apply = apply;
		apply->free_slots[apply->free_count++] = i;
	}
	return 0;
}

void apply_deinit(struct apply *apply)
{
	if (!apply->io)
		return;
	must(!apply->running);
	if (apply->nodes)
		io_free(apply->io, apply->nodes);
	if (apply->slots)
		io_free(apply->io, apply->slots);
	memset(apply, 0, sizeof(*apply));
}

bool apply_is_empty(const struct apply *apply)
{
	return apply->map.count == 0;
}

static int add_extent(struct apply *apply, unsigned volume_id, uint64_t off, uint64_t len,
		      const void *owner, uint64_t data_off)
{
	struct extmap_value value = { .owner = (void *)(uintptr_t)owner,
				      .data_offset_bytes = data_off };
	struct volume *volume = volumes_by_id(apply->volumes, volume_id);

	if (!volume || volume_id > VOLUME_ID_MAX || !len ||
	    !range_valid(off, len, min_u64(volume->id.size_bytes, VOLUME_KEY_BYTES_MAX)))
		return APPLY_E_RECORD;
	return extmap_insert(&apply->map, ((uint64_t)volume_id << VOLUME_KEY_SHIFT) | off, len,
			     &value);
}

int apply_add_range(struct apply *apply, unsigned volume_id, uint64_t off, uint64_t len,
		    const uint8_t *data)
{
	must(!apply->running);
	if (apply->map.free_count < 2)
		return APPLY_E_FULL;
	return add_extent(apply, volume_id, off, len, data ? data : &marker_discard, 0);
}

static const void *record_owner(const struct record *record, const uint8_t *data)
{
	if (record->type == RECORD_WRITE)
		return data;
	if (record->type == RECORD_DISCARD)
		return &marker_discard;
	return record->flags & RECORD_NO_HOLE ? &marker_zero_keep : &marker_zero;
}

int apply_add(struct apply *apply, const struct segment_header *header, const uint8_t *table,
	      const uint8_t *data)
{
	must(!apply->running);
	if (apply->map.free_count < 2 * (size_t)header->records)
		return APPLY_E_FULL;
	for (uint32_t i = 0; i < header->records; i++) {
		struct record record;
		int r = record_decode(table + (size_t)i * RECORD_BYTES, header, &record);

		if (r)
			return APPLY_E_RECORD;
		if (!record_has_range(&record))
			continue;
		r = add_extent(apply, record.volume, record.offset_bytes, record.length_bytes,
			       record_owner(&record, data), record.data_off);
		if (r)
			return APPLY_E_RECORD;
	}
	return 0;
}

static void pump(struct apply *apply);

static void batch_finished(struct io_op *op, int64_t res)
{
	struct apply *apply = container_of(op, struct apply, done_op);
	struct io_op *user = apply->user;

	(void)res;
	apply->running = false;
	extmap_clear(&apply->map);
	user->done(user, apply->res);
}

static void slot_done(struct io_op *op, int64_t res)
{
	struct apply_slot *slot = container_of(op, struct apply_slot, op);
	struct apply *apply = slot->apply;

	/* At completion: a flush that was submitted while this was in flight does not cover it. */
	slot->volume->dirty = true;
	if (res < 0 && !apply->res)
		apply->res = (int)res;
	if (res >= 0)
		apply->written_bytes += slot->bytes;
	apply->free_slots[apply->free_count++] = (unsigned)(slot - apply->slots);
	pump(apply);
}

/* Zero runs of one kind that touch become one call. */
static void issue_zeroes(struct apply *apply, struct apply_slot *slot, uint64_t end,
			 struct extmap_piece piece)
{
	uint64_t at = piece.offset_bytes, len = piece.length_bytes;
	const void *owner = piece.value.owner;
	uint64_t off = at & ((1ull << VOLUME_KEY_SHIFT) - 1);

	while (at + len < end) {
		piece = extmap_piece_at(&apply->map, at + len, end);
		if (!piece.covered || piece.value.owner != owner)
			break;
		len += piece.length_bytes;
	}
	apply->at = at + len;
	slot->bytes = 0;
	apply->discards++;
	if (owner == &marker_discard)
		io_discard(slot->volume->file, off, len, &slot->op);
	else
		io_write_zeroes(slot->volume->file, off, len,
				owner == &marker_zero_keep ? IO_NO_HOLE : 0, &slot->op);
}

/* Data runs that touch become one gathered write. */
static void issue_write(struct apply *apply, struct apply_slot *slot, uint64_t end,
			struct extmap_piece piece)
{
	uint64_t at = piece.offset_bytes, len = 0;
	uint64_t off = at & ((1ull << VOLUME_KEY_SHIFT) - 1);
	unsigned n = 0;

	for (;;) {
		uint64_t take = min_u64(piece.length_bytes, APPLY_WRITE_MAX_BYTES - len);

		slot->iov[n].iov_base =
			(uint8_t *)piece.value.owner + piece.value.data_offset_bytes;
		slot->iov[n++].iov_len = take;
		len += take;
		if (n == IO_IOV_MAX || len == APPLY_WRITE_MAX_BYTES || at + len >= end)
			break;
		piece = extmap_piece_at(&apply->map, at + len, end);
		if (!piece.covered || is_marker(piece.value.owner))
			break;
	}
	apply->at = at + len;
	slot->bytes = len;
	apply->writes++;
	io_writev(slot->volume->file, slot->iov, n, off, 0, &slot->op);
}

/* The next piece of the walk; false at the end of the batch. */
static bool next_piece(struct apply *apply, struct extmap_piece *ret_piece)
{
	const uint64_t end = (uint64_t)(VOLUME_ID_MAX + 1) << VOLUME_KEY_SHIFT;

	while (apply->at < end) {
		*ret_piece = extmap_piece_at(&apply->map, apply->at, end);
		if (ret_piece->covered)
			return true;
		apply->at += ret_piece->length_bytes;
	}
	return false;
}

static void pump(struct apply *apply)
{
	struct extmap_piece piece;

	while (!apply->walked && !apply->res && apply->free_count) {
		struct apply_slot *slot;
		uint64_t volume_end;
		unsigned id;

		if (!next_piece(apply, &piece)) {
			apply->walked = true;
			break;
		}
		id = (unsigned)(piece.offset_bytes >> VOLUME_KEY_SHIFT);
		volume_end = (uint64_t)(id + 1) << VOLUME_KEY_SHIFT;
		slot = &apply->slots[apply->free_slots[--apply->free_count]];
		slot->volume = volumes_by_id(apply->volumes, id);
		slot->op.done = slot_done;
		if (is_marker(piece.value.owner))
			issue_zeroes(apply, slot, volume_end, piece);
		else
			issue_write(apply, slot, volume_end, piece);
	}
	if ((apply->walked || apply->res) && apply->free_count == APPLY_WRITES_MAX) {
		apply->done_op.done = batch_finished;
		io_defer(apply->io, &apply->done_op, 0);
	}
}

void apply_run(struct apply *apply, struct io_op *op)
{
	must(!apply->running);
	apply->running = true;
	apply->walked = false;
	apply->res = 0;
	apply->at = 0;
	apply->user = op;
	pump(apply);
}
