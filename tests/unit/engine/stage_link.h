/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primary's side of the link, by hand: what stage.h leaves to a file of its own. Included
 * there.
 */
#ifndef HOLDFAST_TESTS_UNIT_ENGINE_STAGE_LINK_H
#define HOLDFAST_TESTS_UNIT_ENGINE_STAGE_LINK_H

#include "tests/unit/engine/stage.h"

/* ---- the primary's side of the link ------------------------------------------------------------
 */

static inline uint8_t *stage_on_place(void *owner, const struct frame *frame)
{
	struct stage *stage = owner;

	sim_fail(stage->world, "a standby sends bulk: %s", frame_type_text(frame->type));
}

static inline void stage_on_ranges(struct stage *stage, const struct frame *frame,
				   const uint8_t *body)
{
	sim_check(stage->world, stage->welcomed && stage->welcome.diverged);
	sim_check(stage->world, !stage->ranges_ended);
	for (uint32_t at = 0; at < frame->body_bytes; at += FRAME_RANGE_BYTES) {
		struct stage_range *range = &stage->ranges[stage->range_count++];

		sim_check(stage->world, stage->range_count <= STAGE_RANGES);
		range->off = le64_load(body + at);
		range->len = 512ull * le32_load(body + at + 8);
		range->volume = le16_load(body + at + 12);
	}
	stage->range_frames++;
	stage->ranges_ended = frame->seq == 1;
}

static inline int stage_on_frame(void *owner, const struct frame *frame, const uint8_t *body)
{
	struct stage *stage = owner;

	switch (frame->type) {
	case FRAME_WELCOME:
		sim_check(stage->world, !stage->welcomed);
		sim_check(stage->world,
			  !link_welcome_unpack(body, frame->body_bytes, &stage->welcome));
		stage->welcomed = true;
		break;
	case FRAME_REFUSE:
		sim_check(stage->world,
			  !link_refuse_unpack(body, frame->body_bytes, &stage->refuse));
		stage->refused = true;
		break;
	case FRAME_BYE:
		sim_check(stage->world, !link_bye_unpack(body, frame->body_bytes, &stage->bye));
		stage->said_bye = true;
		break;
	case FRAME_ACK:
		sim_check(stage->world, frame->seq >= stage->acked);
		stage->ack = *frame;
		stage->acked = frame->seq;
		stage->promised = max_u64(stage->promised, frame->seq);
		stage->acks++;
		break;
	case FRAME_SYNC_ACK:
		sim_check(stage->world, frame->seq > stage->sync_acked);
		stage->sync_acked = frame->seq;
		break;
	case FRAME_HASH_RESULT:
		sim_check(stage->world, frame->seq == stage->answered + 1);
		sim_check(stage->world, stage->answered < stage->asked);
		if (stage->answered < array_len(stage->differs))
			stage->differs[stage->answered] = frame->arg1;
		stage->answered++;
		stage->differing += frame->arg1;
		break;
	case FRAME_HANDED:
		sim_check(stage->world, !link_bye_unpack(body, frame->body_bytes, &stage->bye));
		stage->handed = *frame;
		break;
	case FRAME_RANGES:
		stage_on_ranges(stage, frame, body);
		break;
	default:
		sim_fail(stage->world, "a standby sends %s", frame_type_text(frame->type));
	}
	return 0;
}

static inline void stage_on_writable(void *owner)
{
	(void)owner;
}

static inline void stage_on_ended(void *owner, int res, const char *text)
{
	struct stage *stage = owner;

	(void)res;
	(void)text;
	stage->ended = true;
	link_close(stage->link);
}

static inline void stage_send(struct stage *stage, struct frame *frame, const void *body)
{
	if (!frame->epoch)
		frame->epoch = stage->hello.epoch;
	/* The other side may have closed already. */
	if (link_is_open(stage->link))
		sim_check(stage->world, link_send(stage->link, frame, body) == 0);
}

static inline void stage_send_segment(struct stage *stage, unsigned number)
{
	const struct stage_segment *segment = &stage->segments[number];
	struct frame frame = { .type = FRAME_SEGMENT,
			       .body_bytes = segment->header.total_bytes,
			       .seq = segment->header.first_seq,
			       .arg1 = segment_last_seq(&segment->header) };

	stage_send(stage, &frame, segment->bytes);
}

static inline void stage_send_start(struct stage *stage, const struct link_start *start)
{
	struct frame frame = { .type = FRAME_START };

	frame.body_bytes =
		(uint32_t)link_start_pack(start, stage->body_buf, sizeof(stage->body_buf));
	stage_send(stage, &frame, stage->body_buf);
}

static inline void stage_send_beat(struct stage *stage, uint64_t head_seq, uint64_t head_bytes,
				   uint64_t behind_ns)
{
	struct link_heartbeat beat = {
		.head = { .epoch = stage->hello.epoch, .seq = head_seq, .bytes = head_bytes },
		.behind_ns = behind_ns,
		.mode = stage->beat_mode
	};
	struct frame frame = { .type = FRAME_HEARTBEAT };

	frame.body_bytes =
		(uint32_t)link_heartbeat_pack(&beat, stage->body_buf, sizeof(stage->body_buf));
	stage_send(stage, &frame, stage->body_buf);
}

/* Content of a range as it is now in the model, or of `id`. */
static inline void stage_send_extent(struct stage *stage, unsigned volume, uint64_t off,
				     uint32_t len, uint64_t id, bool lz4)
{
	struct frame frame = { .type = FRAME_SYNC_DATA,
			       .seq = stage->next_seq - 1,
			       .arg1 = off,
			       .arg2 = frame_range_arg((uint16_t)volume, len),
			       .body_bytes = len };
	const uint8_t *body = stage->body_buf;

	stage_pattern(stage->body_buf, len, id, lz4);
	if (volume < STAGE_VOLUMES && off + len <= stage->volume_bytes)
		memcpy(stage->content[volume] + off, stage->body_buf, len);
	if (lz4) {
		frame.body_bytes =
			payload_pack(stage->body_buf, len, stage->packed, sizeof(stage->packed));
		sim_check(stage->world, frame.body_bytes > 0);
		frame.flags = FRAME_LZ4;
		body = stage->packed;
	}
	stage_send(stage, &frame, body);
}

static inline void stage_send_zero(struct stage *stage, unsigned volume, uint64_t off, uint32_t len)
{
	struct frame frame = { .type = FRAME_SYNC_ZERO,
			       .seq = stage->next_seq - 1,
			       .arg1 = off,
			       .arg2 = frame_range_arg((uint16_t)volume, len / 512) };

	memset(stage->content[volume] + off, 0, len);
	stage_send(stage, &frame, NULL);
}

static inline void stage_send_end(struct stage *stage, uint64_t seq)
{
	struct frame frame = { .type = FRAME_SYNC_END, .seq = seq };

	stage_send(stage, &frame, NULL);
}

/* Asks whether a range there is what the model holds now. */
static inline void stage_send_hash(struct stage *stage, unsigned volume, uint64_t off, uint32_t len)
{
	struct frame frame = { .type = FRAME_SYNC_HASH,
			       .seq = stage->next_seq - 1,
			       .arg1 = off,
			       .arg2 = frame_range_arg((uint16_t)volume, len / 512),
			       .body_bytes = FRAME_HASH_BYTES };
	uint8_t hash[FRAME_HASH_BYTES] = { 0 };

	if (volume < STAGE_VOLUMES && off + len <= stage->volume_bytes)
		hash128(stage->content[volume] + off, len, hash);
	stage->asked++;
	stage_send(stage, &frame, hash);
}

static inline bool stage_all_answered(void *context)
{
	struct stage *stage = context;

	return stage->answered == stage->asked;
}

#endif
