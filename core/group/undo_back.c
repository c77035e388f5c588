/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Check and roll back: the log from its root to its end, segment by segment. The order does not
 * matter (U2), but it is the only one in which segments can be found.
 *
 * Nothing is written before the whole log was read and every record in it fits the volumes (U3).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/err.h"
#include "core/group/undo_internal.h"

#define READ_TRIES 3u

static void next_segment(struct undo *undo);

static uint8_t *window(struct undo *undo)
{
	return undo->slots[0].block;
}

static void back_over(struct undo *undo, int64_t res)
{
	io_file_close(undo->back.file);
	undo->back.file = NULL;
	undo_finish(undo, res);
}

static void damaged(struct undo *undo, const struct undo_place *at, const char *what)
{
	undo_say(undo,
		 "the undo log is damaged in file undo.%08" PRIu32 " at offset %" PRIu64 ": %s",
		 at->file, at->off, what);
	back_over(undo, UNDO_E_DAMAGED);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static void write_records(struct undo *undo);

static void record_written(struct io_op *op, int64_t res)
{
	struct undo_transfer *transfer = container_of(op, struct undo_transfer, op);
	struct undo_slot *slot = transfer->slot;
	struct undo *undo = slot->undo;

	slot->in_flight--;
	transfer->volume->dirty = true;
	if (res < 0 && undo->res == 0) {
		undo_say(undo, "volume \"%s\" cannot be written at %" PRIu64 ": %s",
			 transfer->volume->id.name, transfer->off, err_text((int)res));
		undo->res = (int)res;
	}
	if (slot->in_flight > 0)
		return;
	if (undo->res != 0)
		back_over(undo, undo->res);
	else
		write_records(undo);
}

/* As many at a time as there are transfers, then the next ones. */
static void write_records(struct undo *undo)
{
	struct undo_back *back = &undo->back;
	struct undo_slot *slot = &undo->slots[0];
	const uint8_t *table = back->segment + SEGMENT_HEADER_BYTES;
	struct undo_transfer *transfer = slot->transfers;
	struct record record;

	if (back->record == back->header.records) {
		next_segment(undo);
		return;
	}
	for (;
	     back->record < back->header.records && transfer < slot->transfers + UNDO_TRANSFERS_MAX;
	     back->record++, transfer++) {
		/* take() has just seen it, in these bytes. */
		must(record_decode(table + (size_t)back->record * RECORD_BYTES, &back->header,
				   &record) == 0);
		*transfer = (struct undo_transfer){
			.op = { .done = record_written },
			.slot = slot,
			.volume = volumes_by_id(undo->options.volumes, record.volume),
			.off = record.offset_bytes,
		};
		must(transfer->volume);
		slot->in_flight++;
		if (record.type == RECORD_WRITE)
			io_write(transfer->volume->file, back->data + record.data_off,
				 record.length_bytes, record.offset_bytes, 0, &transfer->op);
		else
			io_write_zeroes(transfer->volume->file, record.offset_bytes,
					record.length_bytes, 0, &transfer->op);
	}
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static bool record_fits(struct undo *undo, const struct record *record)
{
	const struct volume *volume = volumes_by_id(undo->options.volumes, record->volume);

	return volume && (record->type == RECORD_WRITE || record->type == RECORD_WRITE_ZEROES) &&
	       is_aligned(record->offset_bytes | record->length_bytes | record->data_off,
			  UNDO_ALIGN_BYTES) &&
	       range_valid(record->offset_bytes, record->length_bytes, volume->info.size_bytes);
}

static bool records_fit(struct undo *undo)
{
	const struct undo_back *back = &undo->back;
	struct record record;

	for (uint32_t i = 0; i < back->header.records; i++)
		if (record_decode(back->segment + SEGMENT_HEADER_BYTES + (size_t)i * RECORD_BYTES,
				  &back->header, &record) ||
		    !record_fits(undo, &record))
			return false;
	return true;
}

/* The segment at the beginning of the window's rest is whole. */
static void take(struct undo *undo)
{
	struct undo_back *back = &undo->back;
	bool packed = back->header.flags & SEGMENT_LZ4;

	back->segment = window(undo) + back->used;
	back->data = packed ? undo->slots[0].packed : back->segment + back->header.data_off;
	if (segment_verify(back->segment, back->header.total_bytes, &back->header) ||
	    segment_unpack(back->segment, &back->header, packed ? undo->slots[0].packed : NULL) ||
	    !records_fit(undo)) {
		damaged(undo, &back->at, "a segment does not match its checksum, or the volumes");
		return;
	}
	back->used += back->header.total_bytes;
	back->done_bytes += back->header.total_bytes;
	undo_advance(&back->at, &back->header, back->segment);
	back->record = 0;
	if (back->write)
		write_records(undo);
	else
		next_segment(undo);
}

static void window_read(struct io_op *op, int64_t res)
{
	struct undo *undo = container_of(op, struct undo, op);
	struct undo_back *back = &undo->back;

	if (res >= 0) {
		back->tries = 0;
	} else if (++back->tries == READ_TRIES) {
		damaged(undo, &back->at, "it cannot be read");
		return;
	} else {
		back->len = 0; /* once more */
	}
	next_segment(undo);
}

static void read_window(struct undo *undo)
{
	struct undo_back *back = &undo->back;

	back->used = 0;
	back->len = min_u64(SEGMENT_TOTAL_MAX_BYTES, back->size_bytes - back->at.off);
	undo->op.done = window_read;
	io_read(back->file, window(undo), back->len, back->at.off, &undo->op);
}

static void next_file(struct undo *undo)
{
	struct undo_back *back = &undo->back;
	struct io_file_info info;
	char path[UNDO_PATH_MAX];
	int r;

	io_file_close(back->file);
	back->file = NULL;
	undo_path(undo, back->at.file + 1, path);
	r = io_file_open(undo->io, path, IO_OPEN_DIRECT | IO_OPEN_READ_ONLY, &back->file);
	if (r == -ENOENT) {
		damaged(undo, &back->at, "the segment that belongs there is not there");
		return;
	}
	if (r < 0) {
		undo_say(undo, "%s cannot be opened: %s", path, err_text(r));
		back_over(undo, r);
		return;
	}
	io_file_info(back->file, &info);
	back->size_bytes = round_down(info.size_bytes, SEGMENT_ALIGN_BYTES);
	back->gap = back->at;
	back->at.file++;
	back->at.off = 0;
	back->used = back->len = 0;
	next_segment(undo);
}

/* The whole log has been walked through once. */
static void pass_over(struct undo *undo)
{
	struct undo_back *back = &undo->back;

	undo->checked = true;
	if (!back->write_next) {
		back_over(undo, 0);
		return;
	}
	back->write_next = false;
	back->write = true;
	back->at = undo_root(undo);
	io_file_close(back->file);
	back->file = NULL;
	next_segment(undo);
}

static void next_segment(struct undo *undo)
{
	struct undo_back *back = &undo->back;
	uint64_t left = back->len - back->used;

	if (undo->cancelled) {
		back_over(undo, -ECANCELED);
	} else if (back->at.seq == undo->durable.seq) {
		pass_over(undo);
	} else if (!back->file) {
		next_file(undo);
	} else if (left == 0 && back->at.off < back->size_bytes) {
		read_window(undo);
	} else if (left > 0 &&
		   segment_header_decode(window(undo) + back->used, left, &back->header) == 0 &&
		   undo_continues(undo, &back->at, &back->header)) {
		if (back->header.total_bytes <= left)
			take(undo);
		else if (back->used > 0)
			read_window(undo);
		else
			damaged(undo, &back->at, "a segment reaches beyond its file");
	} else if (back->at.off > 0) {
		next_file(undo);
	} else {
		damaged(undo, back->gap.file ? &back->gap : &back->at,
			"the segment that belongs there is not there");
	}
}

static void back_start(struct undo *undo, bool check, bool write, struct io_op *op)
{
	must(undo->open && !undo->user);
	undo->user = op;
	undo->cancelled = false;
	undo->res = 0;
	undo->back = (struct undo_back){
		.at = undo_root(undo),
		.total_bytes = undo->durable.log_bytes * (check && write ? 2 : 1),
		.write = !check,
		.write_next = check && write,
	};
	next_segment(undo);
}

void undo_check(struct undo *undo, struct io_op *op)
{
	back_start(undo, true, false, op);
}

void undo_roll_back(struct undo *undo, struct io_op *op)
{
	back_start(undo, !undo->checked, true, op);
}
