/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/journal_scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/base/err.h"
#include "core/base/macros.h"

static void walk(struct journal_scan *scan);
static void read_first_block(struct journal_scan *scan);

bool scan_epoch_rules(const struct journal_scan *scan, uint64_t epoch, uint64_t seq)
{
	const struct superblock *sb = &scan->sb;

	for (uint32_t i = sb->history_count; i > 0; i--) {
		if (sb->history[i - 1].first_seq <= seq)
			return epoch >= sb->history[i - 1].epoch;
	}
	return true;
}

void scan_finish(struct journal_scan *scan, int64_t res)
{
	struct journal *journal = scan->journal;
	struct io *io = journal->options.io;
	struct io_op *user = scan->user;

	journal->internal->scan = NULL;
	if (scan->buf)
		io_free(io, scan->buf);
	if (scan->nodes)
		io_free(io, scan->nodes);
	io_free(io, scan);
	io_defer(io, user, res);
}

void scan_read(struct journal_scan *scan, uint32_t slot, uint64_t off, io_done_fn done)
{
	const struct journal_options *options = &scan->journal->options;

	scan->buf_slot = slot;
	scan->buf_off = off;
	scan->buf_len = (uint32_t)min_u64(READER_BUF_BYTES, options->slot_bytes - off);
	scan->op.done = done;
	io_read(scan->journal->slots[slot].file, scan->buf, scan->buf_len, off, &scan->op);
}

void scan_read_failed(struct journal_scan *scan, int64_t res)
{
	journal_slot_error(scan->journal, scan->buf_slot,
			   "read at offset %" PRIu64 " failed: %s (%s)", scan->buf_off,
			   err_text((int)res), err_name((int)res));
	scan_finish(scan, res);
}

/* ---- walking -----------------------------------------------------------------------------------
 */

/* Notes which slots begin where the walk stands. */
static void reach(struct journal_scan *scan)
{
	const struct journal_position *at = &scan->place.at;
	uint64_t next_seq = UINT64_MAX;

	if (at->seq < scan->next_first_seq)
		return;
	for (uint32_t i = 0; i < scan_slots(scan); i++) {
		struct scan_node *node = &scan->nodes[i];

		if (!node->valid || node->reached)
			continue;
		if (node->first_seq > at->seq)
			next_seq = min_u64(next_seq, node->first_seq);
		if (node->first_seq != at->seq || node->first_chain != at->chain)
			continue;
		node->reached = true;
		node->from = scan->node;
		node->start = scan->place;
	}
	scan->next_first_seq = next_seq;
}

static void walk_node(struct journal_scan *scan, uint32_t node, const struct scan_place *place)
{
	scan->node = node;
	scan->place = *place;
	scan->next_first_seq = 0;
	walk(scan);
}

static void end_walk(struct journal_scan *scan, const char *reason)
{
	struct scan_node *node = &scan->nodes[scan->node];
	struct scan_place place;
	uint32_t i;

	if (scan->retaining) {
		scan_retained(scan, scan->node, false);
		return;
	}
	node->walked = true;
	node->reason = reason;
	node->end = scan->place;
	/* What went further rules; of two that went as far, the one that the writer had moved to.
	 */
	if (node->end.at.seq > scan->nodes[scan->best].end.at.seq ||
	    (node->end.at.seq == scan->nodes[scan->best].end.at.seq && node->end.at.off > 0))
		scan->best = scan->node;
	for (i = 0; i < scan_slots(scan); i++) {
		if (!scan->nodes[i].reached || scan->nodes[i].walked)
			continue;
		place = scan->nodes[i].start;
		place.at.slot = i;
		place.at.off = 0;
		walk_node(scan, i, &place);
		return;
	}
	for (i = scan->best; i != scan_slots(scan); i = scan->nodes[i].from)
		scan->nodes[i].on_path = true;
	scan_probe(scan);
}

/* NULL when the header is the one that follows, else why it is not. */
static const char *header_follows(const struct journal_scan *scan, const uint8_t *bytes,
				  struct segment_header *ret_header)
{
	const struct journal_position *at = &scan->place.at;
	int condition = segment_header_decode(bytes, SEGMENT_HEADER_BYTES, ret_header);

	if (condition)
		return segment_condition_text(condition);
	if (!uuid_equal(&ret_header->group, &scan->journal->options.group))
		return "a segment of another group";
	if (ret_header->first_seq != at->seq)
		return "a segment with another seq";
	if (ret_header->chain != at->chain)
		return "a segment of another history";
	if (ret_header->epoch < scan->place.epoch ||
	    !scan_epoch_rules(scan, ret_header->epoch, ret_header->first_seq))
		return "a segment of an epoch that has ended";
	if (ret_header->total_bytes > scan->journal->options.slot_bytes - at->off)
		return "a segment longer than the file";
	return NULL;
}

static void walk_read(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);

	if (res < 0)
		scan_read_failed(scan, res);
	else
		walk(scan);
}

/* Where [at, at + len) lies in the buffer, or NULL when it has to be read. */
static const uint8_t *buffered(const struct journal_scan *scan, uint64_t len)
{
	const struct journal_position *at = &scan->place.at;

	if (scan->buf_slot != at->slot || at->off < scan->buf_off ||
	    at->off + len > scan->buf_off + scan->buf_len)
		return NULL;
	return scan->buf + (at->off - scan->buf_off);
}

/* As far as the buffer goes; comes back from walk_read(). */
static void walk(struct journal_scan *scan)
{
	struct scan_place *place = &scan->place;
	struct segment_header header;
	const uint8_t *stored;
	const char *reason;
	int condition;

	for (;;) {
		if (!scan->retaining) {
			reach(scan);
		} else if (place->at.seq == scan->older.at.seq &&
			   place->at.chain == scan->older.at.chain) {
			scan_retained(scan, scan->node, true);
			return;
		}
		if (place->at.off >= scan->journal->options.slot_bytes) {
			end_walk(scan, "the file ends");
			return;
		}
		stored = buffered(scan, JOURNAL_BLOCK_BYTES);
		reason = stored ? header_follows(scan, stored, &header) : NULL;
		if (reason) {
			end_walk(scan, reason);
			return;
		}
		if (stored)
			stored = buffered(scan, header.total_bytes);
		if (!stored) {
			scan_read(scan, place->at.slot, place->at.off, walk_read);
			return;
		}
		condition = segment_verify(stored, header.total_bytes, &header);
		if (condition) {
			scan->nodes[scan->node].torn |= !scan->retaining;
			end_walk(scan, segment_condition_text(condition));
			return;
		}
		place->at.seq = segment_last_seq(&header) + 1;
		place->at.chain = segment_chain(stored);
		place->at.bytes = header.bytes_end;
		place->at.off += header.total_bytes;
		place->epoch = header.epoch;
		place->last_time_ns = max_u64(place->last_time_ns, header.last_time_ns);
		place->last_writer = header.writer;
	}
}

void scan_walk_retained(struct journal_scan *scan, uint32_t slot)
{
	scan->retaining = true;
	scan->node = slot;
	scan->place = (struct scan_place){
		.at = {
			.seq = scan->nodes[slot].first_seq,
			.chain = scan->nodes[slot].first_chain,
			.slot = slot,
		},
	};
	walk(scan);
}

static void start_walks(struct journal_scan *scan)
{
	struct scan_node *start = &scan->nodes[scan_slots(scan)];

	scan->best = scan_slots(scan);
	scan->buf_len = 0;
	start->reached = true;
	start->end = start->start;
	if (start->start.at.off > 0) {
		walk_node(scan, scan_slots(scan), &start->start);
		return;
	}
	/* The applied position is the beginning of a slot: one that is reached, or nothing is
	 * there. */
	scan->node = scan_slots(scan);
	scan->place = start->start;
	reach(scan);
	end_walk(scan, "the file begins with something else");
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* bytes_end before the segment in the first block: its own records' lengths taken off, as far as
 * the block holds them. */
static uint64_t bytes_before(const uint8_t *block, const struct segment_header *header)
{
	uint32_t count = min_u32(header->records,
				 (JOURNAL_BLOCK_BYTES - SEGMENT_HEADER_BYTES) / RECORD_BYTES);
	uint64_t bytes = header->bytes_end;

	for (uint32_t i = 0; i < count; i++) {
		struct record record;

		if (record_decode(block + SEGMENT_HEADER_BYTES + (size_t)i * RECORD_BYTES, header,
				  &record))
			break;
		bytes = sub_floor_u64(bytes, record.length_bytes);
	}
	return bytes;
}

static void first_block_read(struct io_op *op, int64_t res)
{
	struct journal_scan *scan = container_of(op, struct journal_scan, op);
	struct scan_node *node = &scan->nodes[scan->index];
	struct segment_header header;

	if (res < 0) {
		scan_read_failed(scan, res);
		return;
	}
	if (segment_header_decode(scan->buf, SEGMENT_HEADER_BYTES, &header) == 0 &&
	    uuid_equal(&header.group, &scan->journal->options.group) &&
	    scan_epoch_rules(scan, header.epoch, header.first_seq)) {
		node->valid = true;
		node->first_seq = header.first_seq;
		node->first_chain = header.chain;
		node->first_epoch = header.epoch;
		node->first_time_ns = header.first_time_ns;
		node->first_durable_seq = header.durable_seq;
		node->first_bytes = bytes_before(scan->buf, &header);
	}
	scan->index++;
	read_first_block(scan);
}

static void read_first_block(struct journal_scan *scan)
{
	if (scan->index == scan_slots(scan)) {
		start_walks(scan);
		return;
	}
	scan->buf_slot = scan->index;
	scan->buf_off = 0;
	scan->op.done = first_block_read;
	io_read(scan->journal->slots[scan->index].file, scan->buf, JOURNAL_BLOCK_BYTES, 0,
		&scan->op);
}

static int open_files(struct journal *journal)
{
	char path[JOURNAL_PATH_MAX];
	struct io_file_info info;
	int r;

	for (uint32_t i = 0; i < journal->options.slots; i++) {
		journal_slot_clear(&journal->slots[i]);
		r = io_file_open(journal->options.io, journal_slot_path(journal, i, path),
				 IO_OPEN_DIRECT, &journal->slots[i].file);
		if (r) {
			journal_slot_error(journal, i, "cannot be opened: %s (%s)", err_text(r),
					   err_name(r));
			return r;
		}
		io_file_info(journal->slots[i].file, &info);
		if (info.size_bytes < journal->options.slot_bytes) {
			journal_slot_error(journal, i,
					   "has %" PRIu64 " bytes, the superblock says %" PRIu64,
					   info.size_bytes, journal->options.slot_bytes);
			return JOURNAL_E_DAMAGED;
		}
	}
	return 0;
}

/* The superblock's word on where replay starts, from outside. */
static int start_position(const struct journal *journal, const struct superblock *sb,
			  struct journal_position *ret_at)
{
	if (sb->applied_slot >= journal->options.slots ||
	    sb->applied_off > journal->options.slot_bytes ||
	    !is_aligned(sb->applied_off, JOURNAL_BLOCK_BYTES) || sb->applied_seq == UINT64_MAX)
		return JOURNAL_E_DAMAGED;
	*ret_at = (struct journal_position){
		.seq = sb->applied_seq + 1,
		.chain = sb->applied_chain,
		.bytes = sb->applied_bytes,
		.slot = sb->applied_slot,
		.off = sb->applied_off,
	};
	return 0;
}

void journal_open(struct journal *journal, const struct superblock *sb, struct io_op *op)
{
	struct io *io = journal->options.io;
	struct journal_scan *scan;
	int r;

	must(!journal->opened && !journal->internal->scan);
	journal->error[0] = 0;
	journal->floor_seq = 0;
	r = open_files(journal);
	if (r) {
		io_defer(io, op, r);
		return;
	}
	scan = io_alloc(io, sizeof(*scan), _Alignof(struct journal_scan));
	if (!scan) {
		io_defer(io, op, -ENOMEM);
		return;
	}
	journal->internal->scan = scan;
	scan->journal = journal;
	scan->user = op;
	scan->sb = *sb;
	scan->buf = io_alloc(io, READER_BUF_BYTES, JOURNAL_BLOCK_BYTES);
	scan->nodes = io_alloc(io, (scan_slots(scan) + 1) * sizeof(*scan->nodes),
			       _Alignof(struct scan_node));
	if (!scan->buf || !scan->nodes) {
		scan_finish(scan, -ENOMEM);
		return;
	}
	r = start_position(journal, sb, &scan->nodes[scan_slots(scan)].start.at);
	if (r) {
		snprintf(journal->error, sizeof(journal->error),
			 "superblock: the applied position lies outside of the journal");
		scan_finish(scan, r);
		return;
	}
	read_first_block(scan);
}
