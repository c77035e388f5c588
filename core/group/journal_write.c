/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's pump: from the queue to the disk.
 *
 *   QUEUED -> WRITING -> WRITTEN -> FLUSHING -> DURABLE      flight holds everything submitted, in
 *          `-> WRITING_DSYNC --------------------^           seq order, until its prefix is durable
 *
 * Every change happens in pump(), which runs at the end of a turn or behind a completion: never
 * inside a call of the owner's, so events can be told from its end. After a failure nothing is
 * marked any more: what comes back before the rewrite says nothing about the disk.
 */
#include <errno.h>
#include <inttypes.h>

#include "core/base/err.h"
#include "core/base/macros.h"
#include "core/group/journal_internal.h"

static void pump(struct journal *journal);

static struct segment *segment_of(struct list *link)
{
	return container_of(link, struct segment, journal_link);
}

static bool is_written(const struct segment *segment)
{
	return segment->journal_state >= JOURNAL_SEGMENT_WRITTEN;
}

static void note_failure(struct journal *journal, uint32_t slot, uint64_t off, const char *what,
			 int64_t res)
{
	struct journal_internal *internal = journal->internal;

	if (internal->failing)
		return;
	internal->failing = true;
	internal->failure_res = (int)res;
	journal_slot_error(journal, slot, "%s at offset %" PRIu64 " failed: %s (%s)", what, off,
			   err_text((int)res), err_name((int)res));
}

/* ---- what completed ----------------------------------------------------------------------------
 */

/* Moves written_seq and durable_seq over what is contiguous (J1). */
static void advance(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;
	struct list *link = internal->written_to->next;
	struct segment *segment;

	while (link != &journal->flight && is_written(segment_of(link))) {
		internal->written_to = link;
		journal->written_seq =
			max_u64(journal->written_seq, segment_last_seq(&segment_of(link)->header));
		link = link->next;
	}
	while ((segment = list_first_as(&journal->flight, struct segment, journal_link)) &&
	       segment->journal_state == JOURNAL_SEGMENT_DURABLE) {
		if (internal->written_to == &segment->journal_link)
			internal->written_to = &journal->flight;
		list_remove(&segment->journal_link);
		internal->flight_count--;
		journal->durable_seq = segment_last_seq(&segment->header);
		journal->failures = 0;
		internal->durable_bytes = segment->header.bytes_end;
		journal->slots[segment->slot].durable_off =
			segment->slot_off + segment->header.total_bytes;
		segring_release(segment->ring, segment);
	}
}

static void segment_done(struct io_op *op, int64_t res)
{
	struct segment *segment = container_of(op, struct segment, journal_op);
	struct journal *journal = segment->journal;

	journal->writes_in_flight--;
	if (res < 0)
		note_failure(journal, segment->slot, segment->slot_off, "write", res);
	else if (journal->internal->failing)
		; /* written again with the rest */
	else if (segment->journal_state == JOURNAL_SEGMENT_WRITING_DSYNC)
		segment->journal_state = JOURNAL_SEGMENT_DURABLE;
	else
		segment->journal_state = JOURNAL_SEGMENT_WRITTEN;
	pump(journal);
}

static void mark_flushed(struct journal *journal)
{
	struct list *link;

	list_for_each (link, &journal->flight) {
		if (segment_of(link)->journal_state == JOURNAL_SEGMENT_FLUSHING)
			segment_of(link)->journal_state = JOURNAL_SEGMENT_DURABLE;
	}
}

static void flush_done(struct io_op *op, int64_t res)
{
	struct journal_flush_op *flush = container_of(op, struct journal_flush_op, op);
	struct journal *journal = flush->journal;
	struct journal_internal *internal = journal->internal;

	internal->flushes_in_flight--;
	if (res < 0)
		note_failure(journal, flush->slot, 0, "flush", res);
	/* A flush that succeeds beside a failure proves nothing: the failure may have eaten its
	 * data. */
	if (internal->flushes_in_flight == 0 && !internal->failing)
		mark_flushed(journal);
	pump(journal);
}

/* ---- after a failure (J4) ----------------------------------------------------------------------
 */

/* Takes what is not durable out of the slot index: it will lie elsewhere. */
static void abandon_slots(struct journal *journal)
{
	for (uint32_t i = 0; i < journal->options.slots; i++) {
		struct journal_slot *slot = &journal->slots[i];

		if (slot->last_seq <= journal->durable_seq)
			continue;
		if (slot->first_seq > journal->durable_seq) {
			journal_slot_clear(slot);
		} else {
			slot->last_seq = journal->durable_seq;
			slot->end_off = slot->durable_off;
		}
	}
}

static void write_again(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;
	struct list *link;

	abandon_slots(journal);
	list_for_each (link, &journal->flight)
		segment_of(link)->journal_state = JOURNAL_SEGMENT_QUEUED_AGAIN;
	list_splice_back(&journal->flight, &journal->queue);
	list_splice_back(&journal->queue, &journal->flight);
	internal->queue_count += internal->flight_count;
	internal->flight_count = 0;
	internal->written_to = &journal->flight;
	internal->placed_bytes = internal->durable_bytes;
	internal->new_slot = true;
}

/* Once nothing is in flight: the failure is dealt with, or it is final. */
static void settle_failure(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;

	if (!internal->failing || journal->writes_in_flight > 0 || internal->flushes_in_flight > 0)
		return;
	if (++journal->failures > 1) {
		journal->failed = true;
		internal->tell_failed = true;
		return;
	}
	internal->failing = false;
	journal->rewrites++;
	write_again(journal);
}

/* ---- submitting --------------------------------------------------------------------------------
 */

static void enter_slot(struct journal *journal, uint32_t index)
{
	journal_slot_clear(&journal->slots[index]);
	journal->head.slot = index;
	journal->head.off = 0;
	journal->internal->new_slot = false;
	journal->internal->tell_space |= journal_free_slots(journal) < 2;
}

/* Gives the segment its place. False: the next slot is still needed. */
static bool place(struct journal *journal, struct segment *segment)
{
	const struct segment_header *header = &segment->header;
	struct journal_internal *internal = journal->internal;
	struct journal_slot *slot;

	if (internal->new_slot ||
	    header->total_bytes > journal->options.slot_bytes - journal->head.off) {
		uint32_t next = journal_slot_after(journal, journal->head.slot);

		if (!journal_slot_is_free(journal, next))
			return false;
		enter_slot(journal, next);
	}
	segment->slot = journal->head.slot;
	segment->slot_off = journal->head.off;
	journal->head.off += header->total_bytes;
	slot = &journal->slots[segment->slot];
	if (slot->first_seq == 0) {
		slot->first_seq = header->first_seq;
		slot->first_off = segment->slot_off;
		slot->first_chain = header->chain;
		slot->first_bytes = internal->placed_bytes;
		slot->first_time_ns = header->first_time_ns;
		slot->last_time_ns = header->last_time_ns;
	}
	slot->last_seq = segment_last_seq(header);
	slot->end_off = journal->head.off;
	slot->first_time_ns = min_u64(slot->first_time_ns, header->first_time_ns);
	slot->last_time_ns = max_u64(slot->last_time_ns, header->last_time_ns);
	internal->placed_bytes = header->bytes_end;
	return true;
}

static bool wants_dsync(const struct journal *journal, const struct segment *segment)
{
	const struct journal_internal *internal = journal->internal;

	if (journal->options.dsync || segment->journal_state == JOURNAL_SEGMENT_QUEUED_AGAIN)
		return true;
	/* Alone, and a flush is wanted behind it anyway: one operation instead of two. */
	return internal->flight_count == 0 && internal->queue_count == 1 &&
	       journal->flush_wanted_seq >= segment_last_seq(&segment->header);
}

static void submit(struct journal *journal, struct segment *segment)
{
	struct journal_internal *internal = journal->internal;
	bool dsync = wants_dsync(journal, segment);

	list_remove(&segment->journal_link);
	list_push_back(&journal->flight, &segment->journal_link);
	internal->queue_count--;
	internal->flight_count++;
	journal->writes_in_flight++;
	journal->segments++;
	journal->stored_bytes += segment->header.total_bytes;
	journal->dsync_writes += dsync;
	segment->journal_state = dsync ? JOURNAL_SEGMENT_WRITING_DSYNC : JOURNAL_SEGMENT_WRITING;
	segment->journal_op.done = segment_done;
	io_write(journal->slots[segment->slot].file, segment->stored, segment->header.total_bytes,
		 segment->slot_off, dsync ? IO_DSYNC : 0, &segment->journal_op);
}

static void submit_writes(struct journal *journal)
{
	const struct journal_options *options = &journal->options;
	struct journal_internal *internal = journal->internal;
	struct segment *segment;

	while ((segment = list_first_as(&journal->queue, struct segment, journal_link))) {
		/* J5: with dsync what is done behind a slow write counts, too. */
		if ((options->dsync ? internal->flight_count : journal->writes_in_flight) >=
		    options->writes_max)
			return;
		if (!place(journal, segment)) {
			internal->tell_blocked |= !journal->blocked;
			journal->blocked = true;
			return;
		}
		journal->blocked = false;
		submit(journal, segment);
	}
}

static void submit_flush(struct journal *journal, uint32_t slot)
{
	struct journal_internal *internal = journal->internal;
	struct journal_flush_op *flush = &internal->flushes[internal->flushes_in_flight++];

	journal->flushes++;
	flush->journal = journal;
	flush->slot = slot;
	flush->op.done = flush_done;
	io_flush(journal->slots[slot].file, &flush->op);
}

/* Flushes the files that hold what is written and not durable, the oldest first. */
static void submit_flushes(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;
	uint32_t slots[JOURNAL_FLUSH_FILES_MAX];
	unsigned count = 0, i;
	struct list *link;

	if (internal->flushes_in_flight > 0)
		return;
	if (internal->flush_next_seq <= journal->durable_seq)
		internal->flush_next_seq = journal->flush_wanted_seq > journal->durable_seq
						   ? journal->flush_wanted_seq
						   : 0;
	/* Blocked: the floor cannot rise over what is not durable, so do not wait for more. */
	if (!(journal->blocked && journal->writes_in_flight == 0) &&
	    (internal->flush_next_seq == 0 || journal->written_seq < internal->flush_next_seq))
		return;
	list_for_each (link, &journal->flight) {
		struct segment *segment = segment_of(link);

		if (segment->journal_state != JOURNAL_SEGMENT_WRITTEN)
			continue;
		for (i = 0; i < count && slots[i] != segment->slot; i++)
			;
		if (i == JOURNAL_FLUSH_FILES_MAX)
			break;
		if (i == count)
			slots[count++] = segment->slot;
		segment->journal_state = JOURNAL_SEGMENT_FLUSHING;
	}
	for (i = 0; i < count; i++)
		submit_flush(journal, slots[i]);
}

/* ---- the pump ----------------------------------------------------------------------------------
 */

/* Last in every turn: the owner may do anything in an event, even append. */
static void tell(struct journal *journal)
{
	const struct journal_events *events = &journal->options.events;
	struct journal_internal *internal = journal->internal;
	uint64_t written_seq = journal->written_seq, durable_seq = journal->durable_seq;
	bool space = internal->tell_space, blocked = internal->tell_blocked;
	bool failed = internal->tell_failed;

	internal->tell_space = internal->tell_blocked = internal->tell_failed = false;
	if (written_seq > internal->told_written_seq) {
		internal->told_written_seq = written_seq;
		events->written(events->owner, written_seq);
	}
	if (durable_seq > internal->told_durable_seq) {
		internal->told_durable_seq = durable_seq;
		events->durable(events->owner, durable_seq);
	}
	if (space || blocked)
		events->space(events->owner, blocked);
	if (failed)
		events->failed(events->owner, internal->failure_res, journal->error);
}

static void pump(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;

	if (!internal->failing)
		advance(journal);
	settle_failure(journal);
	if (!internal->failing && !journal->failed) {
		submit_writes(journal);
		submit_flushes(journal);
	}
	tell(journal);
}

static void pump_due(struct io_op *op, int64_t res)
{
	struct journal_internal *internal = container_of(op, struct journal_internal, pump_op);

	(void)res;
	internal->pump_pending = false;
	pump(internal->journal);
}

void journal_pump_soon(struct journal *journal)
{
	struct journal_internal *internal = journal->internal;

	if (internal->pump_pending || journal->failed)
		return;
	internal->pump_pending = true;
	internal->pump_op.done = pump_due;
	io_defer(journal->options.io, &internal->pump_op, 0);
}
