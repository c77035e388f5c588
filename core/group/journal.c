/* SPDX-License-Identifier: Apache-2.0 */
#include "core/group/journal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/base/macros.h"
#include "core/group/journal_internal.h"

const char *journal_slot_path(const struct journal *journal, uint32_t slot,
			      char path[JOURNAL_PATH_MAX])
{
	snprintf(path, JOURNAL_PATH_MAX, "%s/journal/%08u", journal->options.dir, slot);
	return path;
}

void journal_slot_error(struct journal *journal, uint32_t slot, const char *format, ...)
{
	int length = snprintf(journal->error, sizeof(journal->error), "journal/%08u: ", slot);
	va_list args;

	must(length > 0 && (size_t)length < sizeof(journal->error));
	va_start(args, format);
	vsnprintf(journal->error + length, sizeof(journal->error) - (size_t)length, format, args);
	va_end(args);
}

int journal_init(struct journal *journal, const struct journal_options *options)
{
	struct io *io = options->io;

	must(options->writes_max >= 1 && options->writes_max <= JOURNAL_WINDOW_MAX);
	/* The geometry is the superblock's, so from outside. */
	if (options->slots < 2 || options->slot_bytes < 2 * SEGMENT_HEAD_MAX_BYTES ||
	    !is_aligned(options->slot_bytes, JOURNAL_BLOCK_BYTES)) {
		*journal = (struct journal){ 0 };
		return -EINVAL;
	}
	*journal = (struct journal){ .options = *options };
	list_init(&journal->queue);
	list_init(&journal->flight);
	journal->slots = io_alloc(io, options->slots * sizeof(*journal->slots),
				  _Alignof(struct journal_slot));
	journal->internal =
		io_alloc(io, sizeof(*journal->internal), _Alignof(struct journal_internal));
	if (journal->internal)
		journal->internal->zeroes = io_alloc(io, JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_BYTES);
	if (!journal->slots || !journal->internal || !journal->internal->zeroes) {
		journal_deinit(journal);
		return -ENOMEM;
	}
	journal->internal->journal = journal;
	journal->internal->written_to = &journal->flight;
	return 0;
}

static void drop(struct list *segments)
{
	struct segment *segment;

	while ((segment = list_pop_front_as(segments, struct segment, journal_link))) {
		segment->journal_state = JOURNAL_SEGMENT_NONE;
		segring_release(segment->ring, segment);
	}
}

void journal_close(struct journal *journal)
{
	must(journal_is_quiet(journal));
	drop(&journal->flight);
	drop(&journal->queue);
	journal->internal->queue_count = journal->internal->flight_count = 0;
	for (uint32_t i = 0; i < journal->options.slots; i++) {
		io_file_close(journal->slots[i].file);
		journal->slots[i].file = NULL;
	}
	journal->opened = false;
}

void journal_deinit(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;
	struct io *io = journal->options.io;

	if (internal && internal->journal) {
		must(!internal->scan);
		journal_close(journal);
	}
	if (internal && internal->zeroes)
		io_free(io, internal->zeroes);
	if (internal)
		io_free(io, internal);
	if (journal->slots)
		io_free(io, journal->slots);
	journal->internal = NULL;
	journal->slots = NULL;
	journal->options.io = NULL;
}

void journal_append(struct journal *journal, struct segment *segment)
{
	const struct segment_header *header = &segment->header;

	must(journal->opened && segment->stored && header->records > 0);
	must(header->first_seq == journal->appended_seq + 1 &&
	     header->chain == journal->head.chain);
	must(header->total_bytes <= journal->options.slot_bytes);
	segring_hold(segment);
	segment->journal = journal;
	segment->journal_state = JOURNAL_SEGMENT_QUEUED;
	segment->chain_next = segment_chain(segment->stored);
	list_push_back(&journal->queue, &segment->journal_link);
	journal->internal->queue_count++;
	journal->appended_seq = segment_last_seq(header);
	journal->head.seq = journal->appended_seq + 1;
	journal->head.chain = segment->chain_next;
	journal->head.bytes = header->bytes_end;
	/* At the end of the turn: a flush wish that comes with it can then be part of the write. */
	journal_pump_soon(journal);
}

void journal_flush(struct journal *journal, uint64_t seq)
{
	struct journal_internal *internal = journal->internal;

	must(seq <= journal->appended_seq);
	if (seq <= journal->durable_seq)
		return;
	journal->flush_wanted_seq = max_u64(journal->flush_wanted_seq, seq);
	if (internal->flush_next_seq == 0)
		internal->flush_next_seq = seq;
	journal_pump_soon(journal);
}

unsigned journal_busy(const struct journal *journal)
{
	return journal->writes_in_flight + journal->internal->queue_count;
}

bool journal_is_quiet(const struct journal *journal)
{
	const struct journal_internal *internal = journal->internal;

	if (journal->writes_in_flight > 0 || internal->flushes_in_flight > 0 ||
	    internal->pump_pending || internal->zero_busy || internal->reset_user)
		return false;
	return list_empty(&journal->queue) || journal->blocked || journal->failed;
}

void journal_set_floor(struct journal *journal, uint64_t seq)
{
	seq = min_u64(seq, journal->durable_seq);
	if (seq <= journal->floor_seq)
		return;
	journal->floor_seq = seq;
	if (journal->blocked) {
		/* Tried again, and told again if it was not enough. */
		journal->blocked = false;
		journal_pump_soon(journal);
	}
}

void journal_start_at(struct journal *journal, const struct journal_position *at)
{
	struct journal_internal *internal = journal->internal;
	uint64_t seq = at->seq - 1;

	journal->head = *at;
	journal->appended_seq = journal->written_seq = journal->durable_seq = seq;
	journal->flush_wanted_seq = 0;
	journal->failures = 0;
	journal->failed = journal->blocked = false;
	journal->error[0] = 0;
	journal->opened = true;
	internal->told_written_seq = internal->told_durable_seq = seq;
	internal->placed_bytes = internal->durable_bytes = at->bytes;
	internal->flush_next_seq = 0;
	internal->new_slot = internal->failing = false;
	internal->written_to = &journal->flight;
}
