/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: from the wire into the ring, judged, then to the journal as they are.
 *
 *   | stored form as received | unpacked data, if it was LZ4 |
 *
 * A received segment is held for apply until it is durable and applied. When memory runs low it
 * goes as soon as it is durable, oldest first; apply then reads it back from the journal. So memory
 * alone never stops receiving, and a full journal (apply far behind) does: back-pressure on the
 * wire, nothing is lost.
 *
 * Invariant R1: what reaches the journal continues it, unpacks, and fits the volumes: replay cannot
 * meet anything that it cannot apply.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/base/checked.h"
#include "engine/internal.h"

#define RECORD_ALIGN_BYTES 512u

/* ---- memory -----------------------------------------------------------------------------------
 */

static void note_durable(struct engine_group *group, const struct segment *segment)
{
	if (segment->header.bytes_end < group->durable_bytes)
		return;
	group->durable_bytes = segment->header.bytes_end;
	group->durable_time_ns = segment->header.last_time_ns;
	group->last_writer = segment->header.writer;
}

static bool memory_low(const struct engine_group *group)
{
	return group->place_wanted || segring_free_bytes(&group->ring) < group->ring.size_bytes / 3;
}

void receive_release(struct engine_group *group)
{
	struct segment *segment;
	bool freed = false;

	while ((segment = list_first_as(&group->held, struct segment, owner_link))) {
		uint64_t last_seq = segment_last_seq(&segment->header);

		if (last_seq > group->journal.durable_seq)
			break;
		note_durable(group, segment);
		if (last_seq > group->applied_seq && !memory_low(group))
			break;
		list_remove(&segment->owner_link);
		freed |= segring_release(&group->ring, segment);
	}
	if (freed)
		session_room(group);
}

void receive_forget(struct engine_group *group)
{
	struct segment *segment;

	while ((segment = list_pop_front_as(&group->held, struct segment, owner_link)))
		segring_release(&group->ring, segment);
}

void receive_written(void *owner, uint64_t seq)
{
	(void)owner;
	(void)seq; /* with dsync it is durable as well, and that is told next */
}

void receive_durable(void *owner, uint64_t seq)
{
	struct engine_group *group = owner;
	const struct segment *segment = segring_find(&group->ring, seq);

	if (segment)
		note_durable(group, segment);
	session_ack(group);
	applier_kick(group);
	receive_release(group);
	if (group->state == ENGINE_PROMOTING || group->session.state == SESSION_CHECKING)
		standby_poke(group);
}

/* ---- placing ----------------------------------------------------------------------------------
 */

static bool begin_block(struct engine_group *group, size_t bytes)
{
	group->receiving = segring_begin(&group->ring, bytes);
	return group->receiving != NULL;
}

uint8_t *receive_place(struct engine_group *group, const struct frame *frame)
{
	/* How much the data unpacks to is in the body; this is the most that it can be honest
	 * about. */
	uint64_t raw_max = min_u64(SEGMENT_DATA_MAX_BYTES, 255ull * frame->body_bytes + 64);
	size_t bytes = frame->body_bytes + (size_t)round_up(raw_max, SEGMENT_ALIGN_BYTES);

	must(!group->receiving);
	if (begin_block(group, bytes))
		return group->receiving->block;
	group->place_wanted = true; /* memory is low */
	receive_release(group);
	group->place_wanted = !begin_block(group, bytes);
	/* If not: what holds memory becomes durable, or its batch ends; both come to
	 * session_room(). */
	return group->receiving ? group->receiving->block : NULL;
}

void receive_drop(struct engine_group *group)
{
	if (group->receiving)
		segring_trim(&group->ring, group->receiving, 0);
	group->receiving = NULL;
	copy_place_drop(group);
	if (group->session.state == SESSION_CHECKING)
		standby_poke(group);
}

/* ---- judging ----------------------------------------------------------------------------------
 */

static void corrupt(struct engine_group *group, const struct segment_header *header,
		    const char *text)
{
	group->rejected_corrupt++;
	session_error(group, "the segment at seq %" PRIu64 " came damaged: %s; send it again",
		      header->first_seq, text);
}

static bool range_fits(const struct engine_group *group, const struct record *record)
{
	const struct volume *volume =
		volumes_by_id((struct volumes *)(uintptr_t)&group->volumes, record->volume);

	return volume &&
	       range_valid(record->offset_bytes, record->length_bytes, volume->id.size_bytes) &&
	       is_aligned(record->offset_bytes | record->length_bytes | record->data_off,
			  RECORD_ALIGN_BYTES);
}

/* The records' ranges, and that bytes_end goes on counting. */
static bool records_fit(const struct engine_group *group, const struct segment_header *header,
			const uint8_t *table)
{
	uint64_t bytes = group->journal.head.bytes;

	for (uint32_t i = 0; i < header->records; i++) {
		struct record record;

		if (record_decode(table + (size_t)i * RECORD_BYTES, header, &record) ||
		    !add_u64(bytes, record.length_bytes, &bytes))
			return false;
		if (record_has_range(&record) && !range_fits(group, &record))
			return false;
	}
	return bytes == header->bytes_end;
}

/* A segment of a primary that was deposed, shipped by one that does not know it. */
static bool epoch_rules(struct engine_group *group, const struct segment_header *header)
{
	const struct superblock *sb = &group->dir.sb;
	uint64_t epoch = history_epoch_at(sb->history, sb->history_count, header->first_seq);

	if (header->epoch < epoch) {
		group->rejected_epoch++;
		session_refuse(group, LINK_REFUSE_STALE_EPOCH,
			       "a segment of a lower epoch than the one that rules at its seq");
		return false;
	}
	if (header->epoch > sb->epoch || (epoch && header->epoch != epoch)) {
		session_error(group,
			      "the segment at seq %" PRIu64 " has epoch %" PRIu64
			      ", which the primary's history does not have there",
			      header->first_seq, header->epoch);
		return false;
	}
	return true;
}

/* Whether it is the next one. False: the session is over. */
static bool continues(struct engine_group *group, const struct frame *frame,
		      const struct segment_header *header)
{
	const struct journal *journal = &group->journal;

	if (header->total_bytes != frame->body_bytes || header->first_seq != frame->seq ||
	    segment_last_seq(header) != frame->arg1) {
		corrupt(group, header, "frame and segment disagree");
		return false;
	}
	if (!uuid_equal(&header->group, &group->dir.sb.group)) {
		session_error(group, "a segment of another group arrived");
		return false;
	}
	if (!epoch_rules(group, header))
		return false;
	if (header->first_seq != journal->appended_seq + 1 ||
	    header->chain != journal->head.chain) {
		session_error(group,
			      "the segment at seq %" PRIu64
			      " does not continue the journal at %" PRIu64,
			      header->first_seq, journal->appended_seq);
		return false;
	}
	if (header->total_bytes > journal->options.slot_bytes) {
		session_error(group,
			      "a segment of %" PRIu32
			      " bytes does not fit into a journal file here; init the "
			      "standby with journal files as large as the primary's",
			      header->total_bytes);
		return false;
	}
	return true;
}

/* Content and checksums; unpacks. False: the session is over. */
static bool sound(struct engine_group *group, struct segment *segment)
{
	const struct segment_header *header = &segment->header;
	bool lz4 = header->flags & SEGMENT_LZ4;
	int condition = segment_verify(segment->stored, header->total_bytes, header);

	if (!condition && !records_fit(group, header, segment->table)) {
		session_error(group,
			      "the segment at seq %" PRIu64
			      " touches a volume or range that is not there",
			      header->first_seq);
		return false;
	}
	if (!condition)
		condition = segment_unpack(segment->stored, header, lz4 ? segment->data : NULL);
	if (condition)
		corrupt(group, header, segment_condition_text(condition));
	return !condition;
}

static void keep(struct engine_group *group, struct segment *segment)
{
	const struct segment_header *header = &segment->header;
	size_t bytes = header->total_bytes;

	if (header->flags & SEGMENT_LZ4)
		bytes += round_up(header->data_raw_bytes, SEGMENT_ALIGN_BYTES);
	segring_trim(&group->ring, segment, bytes);
	group->receiving = NULL;
	group->received_segments++;
	group->raw_bytes += header->data_raw_bytes;
	group->stored_bytes += header->total_bytes;
	group->writes += header->records;
	group->written_bytes += header->bytes_end - group->journal.head.bytes;
	/* The hold of segring_begin() is the one for apply. */
	list_push_back(&group->held, &segment->owner_link);
	journal_append(&group->journal, segment);
	receive_release(group);
}

void receive_segment(struct engine_group *group, const struct frame *frame)
{
	struct segment *segment = group->receiving;
	struct segment_header *header;
	int condition;

	must(segment);
	group->received_bytes += frame->body_bytes;
	header = &segment->header;
	condition = segment_header_decode(segment->block, frame->body_bytes, header);
	if (condition) {
		*header = (struct segment_header){ .first_seq = frame->seq };
		corrupt(group, header, segment_condition_text(condition));
		receive_drop(group);
		return;
	}
	if (segment_last_seq(header) <= group->journal.appended_seq) {
		/* Held already; whatever is new follows. */
		*header = (struct segment_header){ 0 };
		receive_drop(group);
		return;
	}
	if (continues(group, frame, header)) {
		segment->stored = segment->block;
		segment->table = segment->stored + SEGMENT_HEADER_BYTES;
		segment->data = segment->stored + (header->flags & SEGMENT_LZ4 ? header->total_bytes
									       : header->data_off);
		if (sound(group, segment)) {
			keep(group, segment);
			return;
		}
	}
	receive_drop(group);
}
