/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/frame.h"

#include <string.h>

#include "core/base/checked.h"
#include "core/base/crc32c.h"
#include "core/base/macros.h"
#include "proto/format.h"
#include "proto/payload.h"
#include "proto/segment.h"

void frame_encode(const struct frame *frame, uint8_t out[FRAME_BYTES])
{
	struct frame_le le = {
		.magic = le32_of(FRAME_MAGIC),
		.type = le16_of(frame->type),
		.flags = le16_of(frame->flags),
		.body_bytes = le32_of(frame->body_bytes),
		.body_crc = le32_of(frame->body_crc),
		.epoch = le64_of(frame->epoch),
		.seq = le64_of(frame->seq),
		.arg1 = le64_of(frame->arg1),
		.arg2 = le64_of(frame->arg2),
	};

	le.header_crc = le32_of(crc32c(0, &le, offsetof(struct frame_le, header_crc)));
	memcpy(out, &le, sizeof(le));
}

/* The bytes of a SYNC range are on one volume that can exist. */
static bool range_arg_valid(const struct frame *frame, uint64_t length_bytes)
{
	return length_bytes >= 1 && frame->arg2 >> 32 <= UINT16_MAX &&
	       range_valid(frame->arg1, length_bytes, VOLUME_BYTES_MAX);
}

static int sync_data_check(const struct frame *frame)
{
	uint32_t raw_bytes = (uint32_t)frame->arg2;

	if (frame->body_bytes < 1 || raw_bytes > FRAME_SYNC_MAX_BYTES)
		return FRAME_E_LENGTH;
	if (frame->flags & FRAME_LZ4) {
		if (!payload_lengths_valid(frame->body_bytes, raw_bytes))
			return FRAME_E_LENGTH;
	} else if (frame->body_bytes != raw_bytes) {
		return FRAME_E_LENGTH;
	}
	return range_arg_valid(frame, raw_bytes) ? 0 : FRAME_E_FIELD;
}

static int segment_frame_check(const struct frame *frame)
{
	if (frame->body_bytes < SEGMENT_ALIGN_BYTES ||
	    frame->body_bytes > SEGMENT_TOTAL_MAX_BYTES ||
	    !is_aligned(frame->body_bytes, SEGMENT_ALIGN_BYTES))
		return FRAME_E_LENGTH;
	if (frame->seq < 1 || frame->arg1 < frame->seq ||
	    frame->arg1 - frame->seq >= SEGMENT_RECORDS_MAX || frame->arg2 != 0 ||
	    frame->body_crc != 0)
		return FRAME_E_FIELD;
	return 0;
}

static int bodyless_check(const struct frame *frame, bool args_valid)
{
	if (frame->body_bytes != 0)
		return FRAME_E_LENGTH;
	return args_valid && frame->body_crc == 0 ? 0 : FRAME_E_FIELD;
}

static int fields_check(const struct frame *frame)
{
	switch ((enum frame_type)frame->type) {
	case FRAME_HELLO:
	case FRAME_WELCOME:
	case FRAME_REFUSE:
	case FRAME_START:
	case FRAME_HEARTBEAT:
	case FRAME_BYE:
		if (frame->body_bytes > FRAME_CONTROL_MAX_BYTES)
			return FRAME_E_LENGTH;
		return frame->seq == 0 && frame->arg1 == 0 && frame->arg2 == 0 ? 0 : FRAME_E_FIELD;
	case FRAME_SEGMENT:
		return segment_frame_check(frame);
	case FRAME_ACK:
		return bodyless_check(frame,
				      frame->arg1 <= frame->seq && frame->seq <= frame->arg2);
	case FRAME_SYNC_DATA:
		return sync_data_check(frame);
	case FRAME_SYNC_ZERO:
		return bodyless_check(frame, range_arg_valid(frame, frame_range_bytes(frame)));
	case FRAME_SYNC_HASH:
		if (frame->body_bytes != FRAME_HASH_BYTES)
			return FRAME_E_LENGTH;
		return range_arg_valid(frame, frame_range_bytes(frame)) &&
				       frame_range_bytes(frame) <= FRAME_SYNC_MAX_BYTES
			       ? 0
			       : FRAME_E_FIELD;
	case FRAME_HASH_RESULT:
		return bodyless_check(frame,
				      frame->seq >= 1 && frame->arg1 <= 1 && frame->arg2 == 0);
	case FRAME_RANGES:
		if (frame->body_bytes > FRAME_CONTROL_MAX_BYTES ||
		    frame->body_bytes % FRAME_RANGE_BYTES != 0)
			return FRAME_E_LENGTH;
		return frame->seq <= 1 && frame->arg1 == 0 && frame->arg2 == 0 ? 0 : FRAME_E_FIELD;
	case FRAME_HANDOVER:
		return bodyless_check(frame, frame->arg2 == 0);
	case FRAME_HANDED:
		if (frame->body_bytes > FRAME_CONTROL_MAX_BYTES)
			return FRAME_E_LENGTH;
		return frame->arg1 == 0 && frame->arg2 == 0 ? 0 : FRAME_E_FIELD;
	case FRAME_VERIFIED:
		return bodyless_check(frame, true);
	case FRAME_SYNC_END:
	case FRAME_SYNC_ACK:
		return bodyless_check(frame, frame->arg1 == 0 && frame->arg2 == 0);
	}
	return FRAME_E_TYPE;
}

int frame_decode(const uint8_t *bytes, size_t len, struct frame *ret_frame)
{
	static const uint8_t zeroes[sizeof((struct frame_le){ 0 }.reserved)];
	struct frame_le le;

	if (len < sizeof(le))
		return FRAME_E_SHORT;
	memcpy(&le, bytes, sizeof(le));
	if (le32_get(le.magic) != FRAME_MAGIC)
		return FRAME_E_MAGIC;
	if (le32_get(le.header_crc) != crc32c(0, &le, offsetof(struct frame_le, header_crc)))
		return FRAME_E_CRC;
	*ret_frame = (struct frame){
		.type = le16_get(le.type),
		.flags = le16_get(le.flags),
		.body_bytes = le32_get(le.body_bytes),
		.epoch = le64_get(le.epoch),
		.seq = le64_get(le.seq),
		.arg1 = le64_get(le.arg1),
		.arg2 = le64_get(le.arg2),
		.body_crc = le32_get(le.body_crc),
	};
	if (ret_frame->type < 1 || ret_frame->type > FRAME_TYPE_MAX ||
	    (ret_frame->flags & ~(ret_frame->type == FRAME_SYNC_DATA ? FRAME_LZ4 : 0u)) != 0 ||
	    memcmp(le.reserved, zeroes, sizeof(zeroes)) != 0)
		return FRAME_E_TYPE;
	return fields_check(ret_frame);
}

uint32_t frame_body_crc(const uint8_t *body, uint32_t body_bytes)
{
	return body_bytes == 0 ? 0 : crc32c(0, body, body_bytes);
}

int frame_body_check(const struct frame *frame, const uint8_t *body)
{
	if (frame->type == FRAME_SEGMENT)
		return 0;
	return frame_body_crc(body, frame->body_bytes) == frame->body_crc ? 0 : FRAME_E_CRC;
}

const char *frame_condition_text(int condition)
{
	switch ((enum frame_condition)condition) {
	case FRAME_E_SHORT:
		return "cut short";
	case FRAME_E_MAGIC:
		return "not a frame";
	case FRAME_E_CRC:
		return "checksum is wrong";
	case FRAME_E_TYPE:
		return "unknown type or flag, or reserved bytes are not zero";
	case FRAME_E_LENGTH:
		return "body has a length that its type does not allow";
	case FRAME_E_FIELD:
		return "a field is outside its limits";
	}
	return "unknown condition";
}

const char *frame_type_text(unsigned type)
{
	static const char *const texts[FRAME_TYPE_MAX + 1] = {
		[FRAME_HELLO] = "hello",	 [FRAME_WELCOME] = "welcome",
		[FRAME_REFUSE] = "refuse",	 [FRAME_START] = "start",
		[FRAME_SEGMENT] = "segment",	 [FRAME_ACK] = "ack",
		[FRAME_HEARTBEAT] = "heartbeat", [FRAME_SYNC_DATA] = "sync-data",
		[FRAME_SYNC_ZERO] = "sync-zero", [FRAME_SYNC_END] = "sync-end",
		[FRAME_SYNC_ACK] = "sync-ack",	 [FRAME_BYE] = "bye",
		[FRAME_SYNC_HASH] = "sync-hash", [FRAME_HASH_RESULT] = "hash-result",
		[FRAME_RANGES] = "ranges",	 [FRAME_HANDOVER] = "handover",
		[FRAME_HANDED] = "handed",	 [FRAME_VERIFIED] = "verified",
	};

	return type >= 1 && type <= FRAME_TYPE_MAX ? texts[type] : "unknown";
}
