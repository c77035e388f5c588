/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/tail.h"

#include <errno.h>

#include "core/base/macros.h"

int tail_init(struct tail *tail, struct journal *journal, struct segring *ring)
{
	*tail = (struct tail){ .journal = journal, .ring = ring, .next_seq = 1 };
	return journal_reader_init(&tail->reader, journal);
}

void tail_deinit(struct tail *tail)
{
	must(!tail->busy);
	tail_drop(tail);
	if (tail->journal)
		journal_reader_deinit(&tail->reader);
	*tail = (struct tail){ 0 };
}

void tail_drop(struct tail *tail)
{
	struct segment *segment = tail->segment;

	tail->segment = NULL;
	tail->header = NULL;
	tail->stored = NULL;
	if (segment)
		segring_release(tail->ring, segment);
}

void tail_seek(struct tail *tail, uint64_t seq)
{
	must(!tail->busy && seq >= 1);
	tail_drop(tail);
	tail->next_seq = seq;
	tail->reader_valid = false;
}

/* The reader follows for free where the journal itself placed the segment. */
static void reader_follow(struct tail *tail, const struct segment *segment)
{
	const struct journal_position at = {
		.seq = tail->next_seq,
		.chain = segment->chain_next,
		.bytes = segment->header.bytes_end,
		.slot = segment->slot,
		.off = segment->slot_off + segment->header.total_bytes,
	};

	tail->reader_valid = segment->journal == tail->journal &&
			     segment->journal_state == JOURNAL_SEGMENT_DURABLE;
	if (tail->reader_valid)
		journal_reader_set(&tail->reader, &at);
}

int tail_poll(struct tail *tail)
{
	struct segment *segment;

	must(!tail->busy);
	tail_drop(tail);
	if (tail->next_seq > tail->journal->durable_seq)
		return 0;
	segment = segring_find(tail->ring, tail->next_seq);
	if (!segment || segment_last_seq(&segment->header) > tail->journal->durable_seq)
		return -EAGAIN;
	segring_hold(segment);
	tail->segment = segment;
	tail->header = &segment->header;
	tail->stored = segment->stored;
	tail->next_seq = segment_last_seq(&segment->header) + 1;
	tail->memory_hits++;
	reader_follow(tail, segment);
	return 1;
}

static void finish(struct tail *tail, int64_t res)
{
	tail->busy = false;
	tail->user->done(tail->user, res);
}

static void polled(struct io_op *op, int64_t res)
{
	finish(container_of(op, struct tail, op), res);
}

static void read_done(struct io_op *op, int64_t res)
{
	struct tail *tail = container_of(op, struct tail, op);

	if (res == 1) {
		tail->header = &tail->reader.header;
		tail->stored = tail->reader.stored;
		tail->next_seq = segment_last_seq(tail->header) + 1;
		tail->disk_reads++;
	} else {
		tail->reader_valid = false;
	}
	finish(tail, res == -ESTALE ? -ENOENT : res);
}

static void seek_done(struct io_op *op, int64_t res)
{
	struct tail *tail = container_of(op, struct tail, op);

	if (res < 0) {
		finish(tail, res == -ESTALE ? -ENOENT : res);
		return;
	}
	tail->reader_valid = true;
	tail->op.done = read_done;
	journal_reader_next(&tail->reader, &tail->op);
}

void tail_next(struct tail *tail, struct io_op *op)
{
	int r = tail_poll(tail);

	tail->user = op;
	tail->busy = true;
	if (r != -EAGAIN) {
		tail->op.done = polled;
		io_defer(tail->journal->options.io, &tail->op, r);
		return;
	}
	tail->op.done = tail->reader_valid ? read_done : seek_done;
	if (tail->reader_valid)
		journal_reader_next(&tail->reader, &tail->op);
	else
		journal_reader_seek(&tail->reader, tail->next_seq, &tail->op);
}
