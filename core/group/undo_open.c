/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: walks the log from its root to the first byte that does not continue it. What is
 * known to be durable is believed by its headers (a check reads all of it before anything is rolled
 * back); what comes behind may be torn, so it is read whole. And it may be in a cache only, behind
 * a flush that failed, which no later flush tells again: so it is written once more, then flushed.
 *
 * Where the walk ends, what lies behind is looked through for segments of this log that say that
 * more had been durable: then it is damage, not the end (U3).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/err.h"
#include "core/group/undo_internal.h"

#define READ_TRIES	  3u
#define PROBE_BYTES	  (64u << 20) /* behind the end: far more than one run writes at a time */
#define PROBE_PIECE_BYTES (1u << 20)

static void scan_segment(struct undo *undo);

static struct undo *undo_of(struct io_op *op)
{
	return container_of(op, struct undo, op);
}

static uint8_t *window(struct undo *undo)
{
	return undo->slots[0].block;
}

static void scan_over(struct undo *undo, int64_t res)
{
	io_file_close(undo->scan.file);
	undo->scan.file = NULL;
	undo->open = res == 0;
	undo_finish(undo, res);
}

static void damaged(struct undo *undo, const char *what)
{
	const struct undo_scan *scan = &undo->scan;

	undo_say(undo,
		 "the undo log is damaged in file undo.%08" PRIu32 " at offset %" PRIu64 ": %s",
		 scan->stop_file, scan->stop_off, what);
	scan_over(undo, UNDO_E_DAMAGED);
}

/* Reads may be repeated; what stays unreadable is damage. True: it is being read again. */
static bool read_again(struct undo *undo, int64_t res, io_done_fn done)
{
	struct undo_scan *scan = &undo->scan;

	if (res >= 0) {
		scan->tries = 0;
		return false;
	}
	if (undo->cancelled || ++scan->tries == READ_TRIES) {
		scan->stop_file = scan->file_number;
		scan->stop_off = scan->off;
		damaged(undo, "it cannot be read");
		return true;
	}
	undo->op.done = done;
	io_read(scan->file, window(undo), scan->len, scan->off, &undo->op);
	return true;
}

static void scan_read(struct undo *undo, uint64_t len, io_done_fn done)
{
	struct undo_scan *scan = &undo->scan;

	scan->len = len;
	undo->op.done = done;
	io_read(scan->file, window(undo), len, scan->off, &undo->op);
}

/* 0; 1: there is no such file; negative errno, and the operation is over. */
static int enter_file(struct undo *undo, uint32_t number)
{
	struct undo_scan *scan = &undo->scan;
	struct io_file_info info;
	char path[UNDO_PATH_MAX];
	int r;

	io_file_close(scan->file);
	scan->file = NULL;
	undo_path(undo, number, path);
	r = io_file_open(undo->io, path, IO_OPEN_DIRECT, &scan->file);
	if (r == -ENOENT)
		return 1;
	if (r < 0) {
		undo_say(undo, "%s cannot be opened: %s", path, err_text(r));
		scan_over(undo, r);
		return r;
	}
	io_file_info(scan->file, &info);
	scan->file_number = number;
	scan->off = 0;
	/* One whose making was cut short has any length. */
	scan->size_bytes = round_down(info.size_bytes, SEGMENT_ALIGN_BYTES);
	return 0;
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void finish_open(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;
	struct io_file_info info;
	char path[UNDO_PATH_MAX];
	int r = 0;

	undo->placed = undo->durable = scan->at;
	if (scan->at.file > 0) {
		undo_path(undo, scan->at.file, path);
		r = io_file_open(undo->io, path, IO_OPEN_DIRECT, &undo->file);
	}
	if (r < 0)
		undo_say(undo, "%s cannot be opened: %s", path, err_text(r));
	if (r == 0 && undo->file) {
		io_file_info(undo->file, &info);
		undo->file_bytes = info.size_bytes;
	}
	scan_over(undo, r);
}

static void probe(struct undo *undo);

/* A segment of this log that was sealed when more was durable than what was found. */
static bool tells_of_more(const struct undo *undo, const uint8_t *bytes)
{
	struct segment_header header;

	return segment_header_decode(bytes, SEGMENT_ALIGN_BYTES, &header) == 0 &&
	       uuid_equal(&header.group, &undo->group) && header.epoch == undo->id &&
	       header.durable_seq >= undo->scan.at.seq;
}

static void probed(struct io_op *op, int64_t res)
{
	struct undo *undo = undo_of(op);
	struct undo_scan *scan = &undo->scan;

	if (read_again(undo, res, probed))
		return;
	for (uint64_t at = 0; at < scan->len; at += SEGMENT_ALIGN_BYTES) {
		if (!tells_of_more(undo, window(undo) + at))
			continue;
		damaged(undo, "what lies behind shows that it had been written");
		return;
	}
	scan->off += scan->len;
	probe(undo);
}

/* The rest of the file in which the walk ended, then the beginnings of those behind it. */
static void probe(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;
	int r;

	while (scan->off >= scan->probe_end) {
		r = enter_file(undo, scan->file_number + 1);
		if (r < 0)
			return;
		if (r > 0) {
			finish_open(undo);
			return;
		}
		scan->probe_end = min_u64(scan->size_bytes, SEGMENT_ALIGN_BYTES);
	}
	scan_read(undo, min_u64(PROBE_PIECE_BYTES, scan->probe_end - scan->off), probed);
}

static void scan_end(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;
	int r;

	if (scan->at.log_bytes < scan->known_bytes) {
		damaged(undo, "it ends before what is known to have been written");
		return;
	}
	scan->file_number = max_u32(scan->stop_file, 1) - 1;
	scan->off = scan->probe_end = 0;
	if (scan->stop_file > 0) {
		r = enter_file(undo, scan->stop_file);
		if (r != 0) {
			if (r > 0)
				scan_over(undo, -ENOENT);
			return;
		}
		scan->off = scan->stop_off;
		scan->probe_end = min_u64(scan->size_bytes, scan->off + PROBE_BYTES);
	}
	probe(undo);
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

static bool mark(struct undo *undo, const struct segment_header *header, const uint8_t *table)
{
	for (uint32_t i = 0; i < header->records; i++) {
		struct undo_volume *volume;
		struct record record;
		uint64_t first, end;

		if (record_decode(table + (size_t)i * RECORD_BYTES, header, &record) ||
		    (record.type != RECORD_WRITE && record.type != RECORD_WRITE_ZEROES))
			return false;
		volume = undo_volume(undo, record.volume);
		if (!volume || record.offset_bytes % volume->chunk_bytes ||
		    !range_valid(record.offset_bytes, record.length_bytes, volume->size_bytes))
			return false;
		first = record.offset_bytes / volume->chunk_bytes;
		end = div_round_up(record.offset_bytes + record.length_bytes, volume->chunk_bytes);
		bitmap_set_range(&volume->saved, first, end - first);
	}
	return true;
}

static void next_file(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;
	int r = enter_file(undo, scan->file_number + 1);

	if (r == 0)
		scan_segment(undo);
	else if (r > 0)
		scan_end(undo);
}

static void file_flushed(struct io_op *op, int64_t res)
{
	struct undo *undo = undo_of(op);

	if (res < 0) {
		undo_say(undo, "file undo.%08" PRIu32 " cannot be flushed: %s",
			 undo->scan.file_number, err_text((int)res));
		scan_over(undo, res);
		return;
	}
	next_file(undo);
}

/* Nothing here continues: at the end of a file the next one may. */
static void file_over(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;

	if (scan->off == 0 && scan->file_number > scan->at.file) {
		/* Not here either; the place before it is the end. */
		if (scan->stop_file == 0) {
			scan->stop_file = scan->file_number;
			scan->stop_off = 0;
		}
		scan_end(undo);
		return;
	}
	scan->stop_file = scan->file_number;
	scan->stop_off = scan->off;
	if (!scan->flush) {
		next_file(undo);
		return;
	}
	scan->flush = false;
	undo->op.done = file_flushed;
	io_flush(scan->file, &undo->op);
}

static void written_again(struct io_op *op, int64_t res)
{
	struct undo *undo = undo_of(op);

	if (res < 0) {
		undo_say(undo, "file undo.%08" PRIu32 " cannot be written: %s",
			 undo->scan.file_number, err_text((int)res));
		scan_over(undo, res);
		return;
	}
	undo->scan.off = undo->scan.at.off;
	scan_segment(undo);
}

static void take(struct undo *undo, const struct segment_header *header)
{
	struct undo_scan *scan = &undo->scan;

	if (!mark(undo, header, window(undo) + SEGMENT_HEADER_BYTES)) {
		scan->stop_file = scan->file_number;
		scan->stop_off = scan->off;
		damaged(undo, "it names a range that the volumes do not have");
		return;
	}
	if (scan->off == 0) {
		undo->files_bytes += scan->size_bytes;
		scan->at.file = scan->file_number;
		scan->at.off = 0;
	}
	scan->stop_file = 0;
	undo_advance(&scan->at, header, window(undo));
	if (scan->whole) {
		scan->flush = true;
		undo->op.done = written_again;
		io_write(scan->file, window(undo), header->total_bytes, scan->off, 0, &undo->op);
		return;
	}
	scan->off = scan->at.off;
	scan_segment(undo);
}

static void segment_read(struct io_op *op, int64_t res)
{
	struct undo *undo = undo_of(op);
	struct undo_scan *scan = &undo->scan;
	struct segment_header header;

	if (read_again(undo, res, segment_read))
		return;
	if (segment_header_decode(window(undo), scan->len, &header) ||
	    !undo_continues(undo, &scan->at, &header) ||
	    header.total_bytes > scan->size_bytes - scan->off) {
		file_over(undo);
		return;
	}
	if (scan->at.log_bytes + header.total_bytes <= scan->known_bytes) {
		take(undo, &header);
		return;
	}
	if (!scan->whole) {
		scan->whole = true;
		scan_read(undo, header.total_bytes, segment_read);
		return;
	}
	if (segment_verify(window(undo), scan->len, &header)) {
		file_over(undo);
		return;
	}
	take(undo, &header);
}

static void scan_segment(struct undo *undo)
{
	struct undo_scan *scan = &undo->scan;
	uint64_t left = scan->size_bytes - scan->off;

	if (undo->cancelled) {
		scan_over(undo, -ECANCELED);
		return;
	}
	scan->whole = false;
	if (left == 0)
		file_over(undo);
	else
		scan_read(undo, min_u64(left, SEGMENT_HEAD_MAX_BYTES), segment_read);
}

void undo_open(struct undo *undo, uint64_t id, uint64_t known_bytes, struct io_op *op)
{
	must(!undo->user && !undo->open && undo->remove_number == 0);
	undo->user = op;
	undo->cancelled = false;
	undo_start_at(undo, id);
	undo->scan = (struct undo_scan){ .at = undo->placed, .known_bytes = known_bytes };
	next_file(undo);
}
