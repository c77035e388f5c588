/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run. Two slots take turns: while one is written, the other is read. Segments are sealed in
 * order, because each names the one before it; a flush at the end of the run, and of each file,
 * makes them durable.
 *
 * What goes wrong ends the run, when nothing is in flight any more, and takes it back to the last
 * flush: the next run reads those chunks again and writes from there. Nothing that was not durable
 * is counted on, and nobody has overwritten a chunk that is not saved.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/err.h"
#include "core/group/undo_internal.h"

static void pump(struct undo *undo);

static bool no_room(int64_t res)
{
	return res == -ENOSPC || res == -EDQUOT || res == -EFBIG;
}

/* The first reason counts. */
static void stop(struct undo *undo, int64_t res)
{
	if (undo->res == 0)
		undo->res = no_room(res) ? UNDO_E_FULL : (int)res;
}

static void log_failed(struct undo *undo, int64_t res, const char *what)
{
	if (!no_room(res)) {
		undo_say(undo, "the undo log (file %" PRIu32 ") %s: %s", undo->placed.file, what,
			 err_text((int)res));
		undo->failed = (int)res;
	}
	stop(undo, res);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static void transfer_read(struct io_op *op, int64_t res)
{
	struct undo_transfer *transfer = container_of(op, struct undo_transfer, op);
	struct undo_slot *slot = transfer->slot;
	struct undo *undo = slot->undo;

	slot->in_flight--;
	if (res < 0 && undo->res == 0) {
		undo_say(undo, "volume \"%s\" cannot be read at %" PRIu64 ": %s",
			 transfer->volume->id.name, transfer->off, err_text((int)res));
		stop(undo, res);
	}
	if (slot->in_flight == 0)
		slot->state = UNDO_SLOT_READY;
	pump(undo);
}

static uint64_t chunk_end(const struct undo_volume *volume, uint64_t chunk)
{
	return min_u64((chunk + 1) * volume->chunk_bytes, volume->size_bytes);
}

/* The next run of wanted chunks, as far as the slot has room. False: there is none. */
static bool next_transfer(struct undo *undo, struct undo_slot *slot)
{
	struct undo_transfer *transfer = &slot->transfers[slot->transfer_count];
	struct undo_cursor *walk = &undo->walk;
	struct undo_volume *volume;
	uint64_t first, last;

	for (;; *walk = (struct undo_cursor){ .volume = walk->volume + 1 }) {
		if (walk->volume == undo->volume_count) {
			undo->walked = true;
			return false;
		}
		volume = &undo->volumes[walk->volume];
		walk->chunk = max_u64(walk->chunk, volume->low);
		if (walk->chunk < volume->high)
			break;
	}
	first = walk->chunk = bitmap_next_set(&volume->wanted, walk->chunk);
	for (last = first; last < volume->high && bitmap_test(&volume->wanted, last); last++)
		if (chunk_end(volume, last) - first * volume->chunk_bytes >
		    SEGMENT_DATA_MAX_BYTES - slot->data_bytes)
			break;
	if (last == first)
		return false;
	walk->chunk = last;
	*transfer = (struct undo_transfer){
		.op = { .done = transfer_read },
		.slot = slot,
		.volume = volumes_by_id(undo->options.volumes, volume->id),
		.index = (unsigned)(volume - undo->volumes),
		.off = first * volume->chunk_bytes,
		.len = (uint32_t)(chunk_end(volume, last - 1) - first * volume->chunk_bytes),
		.data_off = slot->data_bytes,
	};
	slot->data_bytes += transfer->len;
	slot->transfer_count++;
	return true;
}

static void fill(struct undo *undo, struct undo_slot *slot)
{
	slot->transfer_count = 0;
	slot->data_bytes = 0;
	slot->stored = NULL;
	while (slot->transfer_count < UNDO_TRANSFERS_MAX && next_transfer(undo, slot))
		;
	slot->end = undo->walk;
	if (slot->transfer_count == 0)
		return;
	slot->state = UNDO_SLOT_READING;
	slot->in_flight = slot->transfer_count;
	undo->fill_slot = (undo->fill_slot + 1) % UNDO_SLOTS;
	for (unsigned i = 0; i < slot->transfer_count; i++) {
		struct undo_transfer *transfer = &slot->transfers[i];

		io_read(transfer->volume->file,
			slot->block + SEGMENT_HEAD_MAX_BYTES + transfer->data_off, transfer->len,
			transfer->off, &transfer->op);
	}
}

/* ---- sealing ----------------------------------------------------------------------------------
 */

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static void add_record(struct undo_slot *slot, const struct undo_transfer *transfer, uint64_t off,
		       uint32_t len, bool zero)
{
	struct segment_header *header = &slot->header;
	struct record record = {
		.type = zero ? RECORD_WRITE_ZEROES : RECORD_WRITE,
		.volume = (uint16_t)transfer->volume->id.id,
		.offset_bytes = off,
		.length_bytes = len,
	};

	if (!zero) {
		record.data_off = header->data_raw_bytes;
		record.data_crc = crc32c(
			0, slot->block + SEGMENT_HEAD_MAX_BYTES + header->data_raw_bytes, len);
		header->data_raw_bytes += len;
	}
	must(header->records < SEGMENT_RECORDS_MAX);
	record_encode(&record, slot->table + (size_t)header->records++ * RECORD_BYTES);
	header->bytes_end += len;
}

/* What was read becomes records: chunks of one kind that touch are one. Data moves together. */
static void make_records(struct undo *undo, struct undo_slot *slot,
			 const struct undo_transfer *transfer)
{
	uint64_t chunk_bytes = undo->volumes[transfer->index].chunk_bytes;
	uint8_t *data = slot->block + SEGMENT_HEAD_MAX_BYTES;
	uint32_t at = 0;

	while (at < transfer->len) {
		const uint8_t *from = data + transfer->data_off + at;
		uint32_t len = (uint32_t)min_u64(chunk_bytes, transfer->len - at);
		bool zero = is_zero(from, len);

		while (at + len < transfer->len) {
			uint32_t more = (uint32_t)min_u64(chunk_bytes, transfer->len - at - len);

			if (is_zero(from + len, more) != zero)
				break;
			len += more;
		}
		if (!zero)
			memmove(data + slot->header.data_raw_bytes, from, len);
		add_record(slot, transfer, transfer->off + at, len, zero);
		at += len;
	}
}

static void seal(struct undo *undo, struct undo_slot *slot)
{
	struct segment_header *header = &slot->header;
	uint8_t *data = slot->block + SEGMENT_HEAD_MAX_BYTES;
	uint64_t now_ns = io_wall(undo->io);

	*header = (struct segment_header){
		.group = undo->group,
		.epoch = undo->id,
		.first_seq = undo->placed.seq,
		.first_time_ns = now_ns,
		.last_time_ns = now_ns,
		.durable_seq = undo->durable.seq - 1,
		.bytes_end = undo->placed.volume_bytes,
		.chain = undo->placed.chain,
		.writer = undo->writer,
	};
	for (unsigned i = 0; i < slot->transfer_count; i++)
		make_records(undo, slot, &slot->transfers[i]);
	slot->stored = slot->packed;
	if (!segment_seal_lz4(header, slot->table, data, slot->packed))
		slot->stored = segment_seal_raw(header, slot->table, data);
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* What is wanted of a volume up to `end` is saved. */
static void commit_volume(struct undo_volume *volume, uint64_t end)
{
	uint64_t chunk = volume->low;

	end = min_u64(end, volume->high);
	while (chunk < end) {
		if (bitmap_test(&volume->wanted, chunk)) {
			bitmap_set(&volume->saved, chunk);
			bitmap_clear(&volume->wanted, chunk);
		}
		chunk = bitmap_next_set(&volume->wanted, chunk);
	}
	volume->low = max_u64(volume->low, end);
	if (volume->low == volume->high)
		volume->low = volume->high = 0;
}

/* Everything placed is durable, and what it saves is saved. */
static void commit(struct undo *undo)
{
	const struct undo_cursor *to = &undo->placed_to;

	undo->unflushed = false;
	undo->durable = undo->placed;
	for (unsigned i = 0; i < undo->volume_count && i <= to->volume; i++)
		commit_volume(&undo->volumes[i], i < to->volume ? UINT64_MAX : to->chunk);
}

static void flushed(struct io_op *op, int64_t res)
{
	struct undo *undo = container_of(op, struct undo, op);

	undo->file_busy = false;
	if (res < 0)
		log_failed(undo, res, "cannot be flushed");
	else
		commit(undo);
	pump(undo);
}

static void flush(struct undo *undo)
{
	undo->file_busy = true;
	undo->op.done = flushed;
	io_flush(undo->file, &undo->op);
}

static void reserve(struct undo *undo);

static void reserved(struct io_op *op, int64_t res)
{
	struct undo *undo = container_of(op, struct undo, op);
	char path[UNDO_PATH_MAX];
	struct io_file_info info;

	undo->file_busy = false;
	undo_path(undo, undo->placed.file + 1, path);
	if (no_room(res) && undo->try_bytes > UNDO_FILE_MIN_BYTES) {
		undo->try_bytes = max_u64(round_down(undo->try_bytes / 2, SEGMENT_ALIGN_BYTES),
					  UNDO_FILE_MIN_BYTES);
		reserve(undo);
		return;
	}
	if (no_room(res))
		(void)io_file_remove(undo->io, path); /* what came of it takes room */
	if (res >= 0)
		res = io_file_open(undo->io, path, IO_OPEN_DIRECT, &undo->file);
	if (res < 0) {
		log_failed(undo, res, "cannot be given another file");
		pump(undo);
		return;
	}
	io_file_info(undo->file, &info);
	undo->file_bytes = info.size_bytes;
	undo->files_bytes += info.size_bytes;
	/* The same place: at the end of one file or at the beginning of the next. */
	undo->placed.file++;
	undo->placed.off = 0;
	undo->durable = undo->placed;
	pump(undo);
}

static void reserve(struct undo *undo)
{
	char path[UNDO_PATH_MAX];

	undo_path(undo, undo->placed.file + 1, path);
	undo->file_busy = true;
	undo->op.done = reserved;
	io_file_reserve(undo->io, path, undo->try_bytes, &undo->op);
}

static void next_file(struct undo *undo)
{
	uint64_t limit = undo->options.limit_bytes;

	undo->try_bytes = UNDO_FILE_MAX_BYTES;
	if (undo->placed.file < 8)
		undo->try_bytes = (uint64_t)UNDO_FILE_1_BYTES << undo->placed.file;
	if (limit != 0)
		undo->try_bytes =
			min_u64(undo->try_bytes, round_down(sub_floor_u64(limit, undo->files_bytes),
							    SEGMENT_ALIGN_BYTES));
	if (undo->try_bytes < UNDO_FILE_MIN_BYTES) {
		stop(undo, -ENOSPC);
		return;
	}
	io_file_close(undo->file);
	undo->file = NULL;
	undo->file_bytes = 0;
	reserve(undo);
}

static void segment_written(struct io_op *op, int64_t res)
{
	struct undo_slot *slot = container_of(op, struct undo_slot, op);
	struct undo *undo = slot->undo;

	undo->writes_in_flight--;
	slot->state = UNDO_SLOT_IDLE;
	if (res < 0) {
		/* A gap: what was placed behind it is no use. */
		undo->unflushed = false;
		log_failed(undo, res, "cannot be written");
	}
	pump(undo);
}

/* Places the next segment; false: it has to wait, or has no room. */
static bool place(struct undo *undo, struct undo_slot *slot)
{
	if (!slot->stored)
		seal(undo, slot);
	if (!undo->file || undo->placed.off + slot->header.total_bytes > undo->file_bytes) {
		if (undo->writes_in_flight)
			return false;
		if (undo->unflushed)
			flush(undo);
		else
			next_file(undo);
		return false;
	}
	slot->op.done = segment_written;
	io_write(undo->file, slot->stored, slot->header.total_bytes, undo->placed.off, 0,
		 &slot->op);
	undo_advance(&undo->placed, &slot->header, slot->stored);
	undo->placed_to = slot->end;
	undo->unflushed = true;
	undo->writes_in_flight++;
	slot->state = UNDO_SLOT_WRITING;
	undo->seal_slot = (undo->seal_slot + 1) % UNDO_SLOTS;
	return true;
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static bool reading(const struct undo *undo)
{
	for (unsigned i = 0; i < UNDO_SLOTS; i++)
		if (undo->slots[i].state == UNDO_SLOT_READING)
			return true;
	return false;
}

static bool all_idle(const struct undo *undo)
{
	for (unsigned i = 0; i < UNDO_SLOTS; i++)
		if (undo->slots[i].state != UNDO_SLOT_IDLE)
			return false;
	return true;
}

static void run_over(struct undo *undo)
{
	for (unsigned i = 0; i < UNDO_SLOTS; i++)
		undo->slots[i].state = UNDO_SLOT_IDLE;
	undo->placed = undo->durable;
	undo->unflushed = false;
	undo->full = undo->res == UNDO_E_FULL;
	undo_finish(undo, undo->res);
}

static void pump(struct undo *undo)
{
	struct undo_slot *slot;

	if (undo->file_busy)
		return;
	if (undo->cancelled && undo->res == 0)
		undo->res = -ECANCELED;
	while (undo->res == 0 && !undo->walked) {
		slot = &undo->slots[undo->fill_slot];
		if (slot->state != UNDO_SLOT_IDLE)
			break;
		fill(undo, slot);
	}
	while (undo->res == 0) {
		slot = &undo->slots[undo->seal_slot];
		if (slot->state != UNDO_SLOT_READY || !place(undo, slot))
			break;
	}
	if (undo->file_busy || undo->writes_in_flight || reading(undo))
		return;
	if (undo->res == 0 && !(undo->walked && all_idle(undo)))
		return;
	/* What was placed before the room ran out is saved all the same. */
	if (undo->unflushed && undo->res >= 0)
		flush(undo);
	else
		run_over(undo);
}

void undo_run(struct undo *undo, struct io_op *op)
{
	must(undo->open && !undo->user);
	undo->user = op;
	undo->cancelled = false;
	undo->res = undo->failed;
	undo->checked = false;
	undo->walk = undo->placed_to = (struct undo_cursor){ 0 };
	undo->walked = false;
	undo->fill_slot = undo->seal_slot = 0;
	pump(undo);
}
