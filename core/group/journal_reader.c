/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the journal back. The slot index in memory says where each seq lies; the chain and the
 * checksums say whether it is still what was written. Only bytes that were durable when they were
 * read are kept in the buffer: what is behind them may be half written.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/journal_internal.h"

/* A seek reads headers, not segments. */
#define SEEK_READ_BYTES (256u * 1024u)

enum reader_state {
	READER_IDLE = 0,
	READER_NEXT, /* reading the next segment */
	READER_SEEK, /* walking headers towards seek_seq */
	READER_DONE, /* the result is on its way */
};

static void seek_step(struct journal_reader *reader);

int journal_reader_init(struct journal_reader *reader, struct journal *journal)
{
	*reader = (struct journal_reader){ .journal = journal };
	reader->buf = io_alloc(journal->options.io, READER_BUF_BYTES, JOURNAL_BLOCK_BYTES);
	return reader->buf ? 0 : -ENOMEM;
}

void journal_reader_deinit(struct journal_reader *reader)
{
	must(reader->state == READER_IDLE);
	if (reader->buf)
		io_free(reader->journal->options.io, reader->buf);
	*reader = (struct journal_reader){ 0 };
}

void journal_reader_set(struct journal_reader *reader, const struct journal_position *at)
{
	must(reader->state == READER_IDLE);
	reader->at = *at;
	reader->unplaced = false;
	reader->buf_len = 0;
	reader->stored = NULL;
}

static void finished(struct io_op *op, int64_t res)
{
	struct journal_reader *reader = container_of(op, struct journal_reader, op);

	reader->state = READER_IDLE;
	reader->user->done(reader->user, res);
}

/* Busy until its owner knows. */
static void finish(struct journal_reader *reader, int64_t res)
{
	reader->state = READER_DONE;
	reader->op.done = finished;
	io_defer(reader->journal->options.io, &reader->op, res);
}

/* The slot is not what its first block says, and with it goes what is older: nothing leads from
 * there to here any more. Nobody was promised it, else it would not have been overwritten (J2). */
static bool left_out(struct journal_reader *reader)
{
	struct journal *journal = reader->journal;
	uint64_t first_seq = journal->slots[reader->at.slot].first_seq;

	if (first_seq >= journal->unread_seq || reader->at.slot == journal->head.slot)
		return false;
	for (uint32_t i = 0; i < journal->options.slots; i++)
		if (journal->slots[i].first_seq != 0 && journal->slots[i].first_seq <= first_seq)
			journal_slot_clear(&journal->slots[i]);
	return true;
}

static void damaged(struct journal_reader *reader, const char *reason)
{
	if (left_out(reader)) {
		reader->buf_len = 0;
		finish(reader, -ENOENT);
		return;
	}
	journal_slot_error(reader->journal, reader->at.slot,
			   "damaged at offset %" PRIu64 ": seq %" PRIu64 " must be there (%s)",
			   reader->at.off, reader->at.seq, reason);
	reader->buf_len = 0;
	finish(reader, -EBADMSG);
}

/* Turns "here, or where a slot begins" into a place. False: no slot holds that seq any more. */
static bool locate(struct journal_reader *reader)
{
	struct journal *journal = reader->journal;
	uint32_t slot = journal_slot_of(journal, reader->at.seq);

	if (slot == UINT32_MAX)
		return false;
	if (journal->slots[slot].first_seq == reader->at.seq) {
		reader->at.slot = slot;
		reader->at.off = journal->slots[slot].first_off;
		return true;
	}
	return slot == reader->at.slot;
}

/* [at, at + len) in the buffer, NULL when it is not there. */
static const uint8_t *buffered(const struct journal_reader *reader, uint64_t len)
{
	const struct journal_position *at = &reader->at;

	if (reader->buf_slot != at->slot ||
	    reader->buf_lap != reader->journal->slots[at->slot].lap || at->off < reader->buf_off ||
	    at->off + len > reader->buf_off + reader->buf_len)
		return NULL;
	return reader->buf + (at->off - reader->buf_off);
}

static void read_buffer(struct journal_reader *reader, uint64_t max_bytes, io_done_fn done)
{
	const struct journal_slot *slot = &reader->journal->slots[reader->at.slot];

	must(reader->at.off < slot->durable_off);
	reader->buf_slot = reader->at.slot;
	reader->buf_lap = slot->lap;
	reader->buf_off = reader->at.off;
	reader->buf_len = (uint32_t)min_u64(max_bytes, slot->durable_off - reader->at.off);
	reader->op.done = done;
	io_read(slot->file, reader->buf, reader->buf_len, reader->buf_off, &reader->op);
}

/* True when the bytes may be looked at; else the reader is finished. */
static bool read_succeeded(struct journal_reader *reader, int64_t res)
{
	struct journal *journal = reader->journal;

	if (res >= 0 && journal->slots[reader->buf_slot].lap == reader->buf_lap)
		return true;
	reader->buf_len = 0;
	if (res >= 0) {
		finish(reader, -ESTALE);
		return false;
	}
	journal_slot_error(journal, reader->buf_slot, "read at offset %" PRIu64 " failed: %s (%s)",
			   reader->buf_off, err_text((int)res), err_name((int)res));
	finish(reader, res);
	return false;
}

/* NULL when the header is the one that belongs here, else why it is not. */
static const char *header_wrong(const struct journal_reader *reader, const uint8_t *bytes,
				struct segment_header *ret_header)
{
	const struct journal *journal = reader->journal;
	int condition = segment_header_decode(bytes, SEGMENT_HEADER_BYTES, ret_header);

	if (condition)
		return segment_condition_text(condition);
	if (!uuid_equal(&ret_header->group, &journal->options.group))
		return "a segment of another group";
	if (ret_header->first_seq != reader->at.seq)
		return "a segment with another seq";
	if (ret_header->chain != reader->at.chain)
		return "a segment of another history";
	if (ret_header->total_bytes > journal->slots[reader->at.slot].durable_off - reader->at.off)
		return "a segment longer than what was written";
	return NULL;
}

static void move_behind(struct journal_reader *reader, const uint8_t *bytes,
			const struct segment_header *header)
{
	reader->at.seq = segment_last_seq(header) + 1;
	reader->at.chain = segment_chain(bytes);
	reader->at.bytes = header->bytes_end;
	reader->at.off += header->total_bytes;
}

/* ---- next --------------------------------------------------------------------------------------
 */

static void next_step(struct journal_reader *reader);

static void next_read(struct io_op *op, int64_t res)
{
	struct journal_reader *reader = container_of(op, struct journal_reader, op);

	if (read_succeeded(reader, res))
		next_step(reader);
}

static void next_step(struct journal_reader *reader)
{
	const struct journal_slot *slot;
	const uint8_t *stored;
	const char *reason;
	int condition;

	if (!locate(reader)) {
		finish(reader, -ESTALE);
		return;
	}
	slot = &reader->journal->slots[reader->at.slot];
	if (reader->at.off >= slot->durable_off) {
		damaged(reader, "the file ends");
		return;
	}
	stored = buffered(reader, JOURNAL_BLOCK_BYTES);
	if (stored) {
		reason = header_wrong(reader, stored, &reader->header);
		if (reason) {
			damaged(reader, reason);
			return;
		}
		stored = buffered(reader, reader->header.total_bytes);
	}
	if (!stored) {
		read_buffer(reader, READER_BUF_BYTES, next_read);
		return;
	}
	condition = segment_verify(stored, reader->header.total_bytes, &reader->header);
	if (condition) {
		damaged(reader, segment_condition_text(condition));
		return;
	}
	move_behind(reader, stored, &reader->header);
	reader->stored = stored;
	finish(reader, 1);
}

void journal_reader_next(struct journal_reader *reader, struct io_op *op)
{
	must(reader->state == READER_IDLE);
	reader->user = op;
	reader->stored = NULL;
	if (reader->at.seq > reader->journal->durable_seq) {
		finish(reader, 0);
		return;
	}
	if (reader->unplaced) {
		reader->state = READER_SEEK;
		reader->seek_seq = reader->at.seq;
		reader->next = true;
		seek_step(reader);
		return;
	}
	reader->state = READER_NEXT;
	next_step(reader);
}

/* ---- seek --------------------------------------------------------------------------------------
 */

static void seek_read(struct io_op *op, int64_t res)
{
	struct journal_reader *reader = container_of(op, struct journal_reader, op);

	if (read_succeeded(reader, res))
		seek_step(reader);
}

static void seek_found(struct journal_reader *reader)
{
	if (reader->next) {
		reader->state = READER_NEXT;
		next_step(reader);
	} else {
		finish(reader, 0);
	}
}

/* Over the headers of one slot, from its first segment; comes back from seek_read(). */
static void seek_step(struct journal_reader *reader)
{
	struct segment_header header;
	const uint8_t *bytes;
	const char *reason;

	if (reader->unplaced) {
		uint32_t index = journal_slot_of(reader->journal, reader->seek_seq);
		const struct journal_slot *slot;

		if (index == UINT32_MAX) {
			finish(reader, -ENOENT);
			return;
		}
		slot = &reader->journal->slots[index];
		reader->at = (struct journal_position){
			.seq = slot->first_seq,
			.chain = slot->first_chain,
			.bytes = slot->first_bytes,
			.slot = index,
			.off = slot->first_off,
		};
		reader->unplaced = false;
	}
	for (;;) {
		if (reader->at.off >= reader->journal->slots[reader->at.slot].durable_off) {
			damaged(reader, "the file ends");
			return;
		}
		bytes = buffered(reader, JOURNAL_BLOCK_BYTES);
		if (!bytes) {
			read_buffer(reader, SEEK_READ_BYTES, seek_read);
			return;
		}
		reason = header_wrong(reader, bytes, &header);
		if (reason) {
			damaged(reader, reason);
			return;
		}
		if (segment_last_seq(&header) >= reader->seek_seq) {
			seek_found(reader);
			return;
		}
		move_behind(reader, bytes, &header);
	}
}

void journal_reader_seek(struct journal_reader *reader, uint64_t seq, struct io_op *op)
{
	struct journal *journal = reader->journal;

	must(reader->state == READER_IDLE && seq >= 1 && seq <= journal->appended_seq + 1);
	reader->user = op;
	reader->stored = NULL;
	reader->unplaced = true;
	reader->at = (struct journal_position){ .seq = seq };
	if (seq > journal->durable_seq) {
		/* Its place is not final before it is durable: found by the next
		 * journal_reader_next(). */
		finish(reader, 0);
		return;
	}
	reader->state = READER_SEEK;
	reader->seek_seq = seq;
	reader->next = false;
	seek_step(reader);
}
