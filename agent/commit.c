/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group commit: records become segments, segments go to the journal.
 *
 * One segment is open at a time. It is sealed at the end of a turn while fewer than
 * JOURNAL_WRITES_MAX are on their way to the journal, so that whatever arrives while the disk is
 * busy shares the next one; or when it is full. No timer delays a write.
 *
 * Invariant C1: a request is finished only from commit_written() / commit_promise(), or by
 * capture_fail_all().
 */
#include <errno.h>
#include <string.h>

#include "agent/internal.h"
#include "core/base/crc32c.h"

#define LZ4_STEP_MAX 32u

static bool open_segment(struct agent_group *group)
{
	struct segment *segment;

	if (group->open)
		return true;
	segment = segring_begin(&group->ring,
				2 * (size_t)(SEGMENT_HEAD_MAX_BYTES + group->segment_data_max));
	if (!segment)
		return false;
	segment->table = segment->block + SEGMENT_HEADER_BYTES;
	segment->data = segment->block + SEGMENT_HEAD_MAX_BYTES;
	segment->header.first_seq = group->head_seq + 1;
	segment->header.first_time_ns = io_wall(group->io);
	segment->header.last_time_ns = segment->header.first_time_ns;
	group->open = segment;
	group->open_data = 0;
	return true;
}

uint64_t commit_room(struct agent_group *group)
{
	if (group->open && (group->open->header.records == SEGMENT_RECORDS_MAX ||
			    group->open_data == group->segment_data_max))
		commit_seal(group);
	if (!writeset_has_room(&group->writeset, 1) || !open_segment(group))
		return 0;
	return group->segment_data_max - group->open_data;
}

static void stamp_time(struct segment *segment, struct record *record, uint64_t now_ns)
{
	uint64_t delta_us;

	/* The wall clock may step back: times inside a segment never do. */
	if (now_ns < segment->header.last_time_ns)
		now_ns = segment->header.last_time_ns;
	segment->header.last_time_ns = now_ns;
	delta_us = (now_ns - segment->header.first_time_ns) / 1000;
	record->delta_us = delta_us > UINT32_MAX ? UINT32_MAX : (uint32_t)delta_us;
}

int commit_record(struct agent_group *group, struct record *record, const uint8_t *data)
{
	uint64_t room = commit_room(group);
	uint32_t data_bytes = record_has_data(record) ? record->length_bytes : 0;
	struct segment *segment = group->open;

	if (!room)
		return COMMIT_NO_ROOM;
	if (data_bytes > room) {
		commit_seal(group);
		if (!commit_room(group))
			return COMMIT_NO_ROOM;
		segment = group->open;
	}
	record->data_off = data_bytes ? group->open_data : 0;
	record->data_crc = data_bytes ? crc32c(0, data, data_bytes) : 0;
	stamp_time(segment, record, io_wall(group->io));
	if (data_bytes)
		memcpy(segment->data + group->open_data, data, data_bytes);
	record_encode(record, segment->table + segment->header.records * RECORD_BYTES);
	segment->header.records++;
	group->open_data += data_bytes;
	segment->header.data_raw_bytes = group->open_data;
	group->head_seq++;
	group->head_bytes += record->length_bytes;
	writeset_insert(&group->writeset, segment, record);
	commit_schedule(group);
	return COMMIT_OK;
}

/*
 * Whether the LZ4 form is worth it: what does not shrink by an eighth costs the followers more than
 * it saves the disk. Data that does not compress mostly comes in runs, so after a vain try some
 * segments are stored raw at once, twice as many after each further one.
 */
static bool try_lz4(struct agent_group *group, struct segment *segment, uint8_t *stored)
{
	struct segment_header *header = &segment->header;

	if (!header->data_raw_bytes)
		return false; /* says nothing about the data around it */
	if (group->lz4_pause) {
		group->lz4_pause--;
		return false;
	}
	if (segment_seal_lz4(header, segment->table, segment->data, stored) &&
	    header->total_bytes <= (header->data_raw_bytes + SEGMENT_ALIGN_BYTES) / 8 * 7) {
		group->lz4_step = 0;
		return true;
	}
	group->lz4_step = (unsigned)min_u64(max_u64(2ull * group->lz4_step, 1), LZ4_STEP_MAX);
	group->lz4_pause = group->lz4_step;
	return false;
}

void commit_seal(struct agent_group *group)
{
	struct segment *segment = group->open;
	struct segment_header *header;
	const struct history_entry *history = group->dir.sb.history;
	size_t data_end, used;
	uint8_t *lz4;

	if (!segment || !segment->header.records)
		return;
	header = &segment->header;
	header->group = group->dir.sb.group;
	header->epoch = group->dir.sb.epoch;
	header->durable_seq = group->journal.durable_seq;
	header->bytes_end = group->head_bytes;
	header->chain = group->journal.head.chain;
	header->writer = group->writer;
	header->flags = history[group->dir.sb.history_count - 1].first_seq == header->first_seq
				? SEGMENT_EPOCH_FIRST
				: 0;
	data_end = SEGMENT_HEAD_MAX_BYTES + round_up(group->open_data, SEGMENT_ALIGN_BYTES);
	lz4 = segment->block + data_end;
	if (try_lz4(group, segment, lz4)) {
		segment->stored = lz4;
		used = data_end + header->total_bytes;
	} else {
		segment->stored = segment_seal_raw(header, segment->table, segment->data);
		segment->table = segment->stored + SEGMENT_HEADER_BYTES;
		used = data_end;
	}
	segment->chain_next = segment_chain(segment->stored);
	segring_trim(&group->ring, segment, used);
	group->open = NULL;
	group->segments++;
	group->raw_bytes += header->data_raw_bytes;
	group->stored_bytes += header->total_bytes;
	/* The group's hold from segring_begin() is kept until the segment is retired. */
	list_push_back(&group->unapplied, &segment->owner_link);
	group->unapplied_bytes += segment->block_bytes;
	journal_append(&group->journal, segment);
	if (group->flush_at_seal_seq >= header->first_seq)
		journal_flush(&group->journal, segment_last_seq(header));
}

static void end_of_turn(struct io_op *op, int64_t res)
{
	struct agent_group *group = container_of(op, struct agent_group, turn_op);

	(void)res;
	group->turn_pending = false;
	if (agent_is_out(group))
		return;
	if (journal_busy(&group->journal) < JOURNAL_WRITES_MAX)
		commit_seal(group);
}

void commit_schedule(struct agent_group *group)
{
	if (group->turn_pending)
		return;
	group->turn_pending = true;
	group->turn_op.done = end_of_turn;
	io_defer(group->io, &group->turn_op, 0);
}

void commit_flush(struct agent_group *group, uint64_t seq)
{
	if (seq <= group->journal.durable_seq)
		return;
	if (seq <= group->journal.appended_seq) {
		journal_flush(&group->journal, seq);
		return;
	}
	/* Still in the open segment: what arrives until it is sealed shares the flush. */
	group->flush_at_seal_seq = max_u64(group->flush_at_seal_seq, seq);
	commit_schedule(group);
}

static void flush_due(struct io_timer *timer)
{
	struct agent_group *group = container_of(timer, struct agent_group, flush_timer);

	if (!agent_is_out(group))
		commit_flush(group, group->journal.written_seq);
}

static void finish_up_to(struct agent_group *group, struct list *waiting, uint64_t seq)
{
	struct export_request *request;

	while ((request = list_first_as(waiting, struct export_request, link)) &&
	       request->priv[REQUEST_SEQ] <= seq) {
		list_remove(&request->link);
		capture_finish(group, request, 0);
	}
}

void commit_written(void *owner, uint64_t seq)
{
	struct agent_group *group = owner;

	if (agent_is_out(group))
		return;
	finish_up_to(group, &group->wait_written, seq);
	if (seq > group->journal.durable_seq && !group->flush_timer.deadline_ns) {
		group->flush_timer.fire = flush_due;
		io_timer_start(group->io, &group->flush_timer, group->conf->flush_interval_ns);
	}
	commit_schedule(group);
}

uint64_t commit_promised_seq(const struct agent_group *group)
{
	return min_u64(group->journal.durable_seq, syncmode_limit(group));
}

void commit_promise(struct agent_group *group)
{
	uint64_t seq = commit_promised_seq(group);

	syncmode_promised(group, seq);
	finish_up_to(group, &group->wait_durable, seq);
	if (group->mark_op && group->mark_seq <= seq) {
		struct io_op *op = group->mark_op;

		group->mark_op = NULL;
		io_defer(group->io, op, (int64_t)group->mark_seq);
	}
}

void commit_durable(void *owner, uint64_t seq)
{
	struct agent_group *group = owner;

	(void)seq;
	if (agent_is_out(group))
		return;
	syncmode_step(group);
	for (unsigned i = 0; i < group->ship_count; i++)
		ship_kick(group->ships[i]);
	agent_drain_kick(group, false);
	commit_schedule(group);
	agent_step_stop(group);
}

void commit_stop(struct agent_group *group)
{
	io_timer_stop(group->io, &group->flush_timer);
	syncmode_stop(group);
	ladder_stop(group);
}
