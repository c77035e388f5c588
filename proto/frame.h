/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of the replication stream: a fixed header, then `body_bytes` of body.
 *
 * Control bodies are protobuf messages (proto/link.proto); SEGMENT bodies are segments as they lie
 * in the journal (with their own checksums); SYNC bodies are raw or LZ4 content of a volume's
 * range. A length is believed only after the header's CRC held and the length is within the type's
 * limit.
 *
 * The dialogue of one connection (one group, one standby; the agent connects, the engine listens):
 *
 *   agent                                             engine
 *     HELLO   group, volumes, epoch, history, head  ->
 *                                                   <- WELCOME durable position and chain, state,
 * window (or REFUSE code, words, ruling epoch; then close) START   where the stream begins, and why
 * -> SEGMENT, HEARTBEAT, SYNC_*                    ->
 *                                                   <- ACK received, durable, applied; SYNC_ACK
 *     BYE     words (orderly end, either side)     <->
 *
 * Pure codec: no I/O, any thread.
 */
#ifndef HOLDFAST_PROTO_FRAME_H
#define HOLDFAST_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC		0x52464648u /* "HFFR" */
#define FRAME_BYTES		64u
#define FRAME_CONTROL_MAX_BYTES (64u << 10)
#define FRAME_SYNC_MAX_BYTES	(1u << 20)
#define PROTOCOL_VERSION	1u

/*
 * What seq, arg1 and arg2 mean is said by type; where nothing is said they are 0. A SYNC range is a
 * part of one volume; frame_range_arg() below makes its arg2.
 */
enum frame_type {
	FRAME_HELLO = 1,     /* body: Hello */
	FRAME_WELCOME = 2,   /* body: Welcome */
	FRAME_REFUSE = 3,    /* body: Refuse */
	FRAME_START = 4,     /* body: Start */
	FRAME_SEGMENT = 5,   /* body: one segment; seq = its first seq, arg1 = its last seq */
	FRAME_ACK = 6,	     /* seq = durable, arg1 = applied, arg2 = received; no body */
	FRAME_HEARTBEAT = 7, /* body: Heartbeat */
	/* seq = stamp, arg1 = volume offset, arg2 = volume << 32 | unpacked length in bytes; body:
	 * the content, raw or FRAME_LZ4 */
	FRAME_SYNC_DATA = 8,
	/* seq = stamp, arg1 = volume offset, arg2 = volume << 32 | length in sectors of 512 B; no
	 * body */
	FRAME_SYNC_ZERO = 9,
	FRAME_SYNC_END = 10, /* seq = highest stamp: consistent once applied beyond; no body */
	/* seq = how many SYNC_DATA and SYNC_ZERO frames of this connection are durable on the
	 * volumes; SYNC_END counts as one more once the copy is durably consistent; no body */
	FRAME_SYNC_ACK = 11,
	FRAME_BYE = 12, /* body: Bye */
	/*
	 * In the place of a SYNC_DATA frame: is the range the same there? seq = stamp, arg1 =
	 * volume offset, arg2 = volume << 32 | length in sectors of 512 B; body: XXH3-128 of the
	 * content, canonical (big endian), FRAME_HASH_BYTES. Not counted by SYNC_ACK. Legal in any
	 * streaming session.
	 */
	FRAME_SYNC_HASH = 13,
	/* The answers, in the order of the questions: seq = how many SYNC_HASH frames of this
	 * connection are answered with this one, arg1 = 1 when the range differs, else 0 (and then
	 * it is durable there); no body */
	FRAME_HASH_RESULT = 14,
	/* Behind WELCOME, as many as it says: ranges that the standby holds otherwise than the
	 * history it shall follow has them. seq = 1 for the last one; body: entries of
	 * FRAME_RANGE_BYTES: le64 offset, le32 length in sectors of 512 B, le16 volume, le16 0 */
	FRAME_RANGES = 15,
	/* Switchover, agent to engine: become the primary behind seq, the last one I wrote (arg1 =
	 * chain value behind it); no body */
	FRAME_HANDOVER = 16,
	/* The answer; body: Bye with the reason when refused. Done when the frame's epoch is higher
	 * than the one that was handed over; then seq = last seq of the old epoch, else 0 */
	FRAME_HANDED = 17,
	/* Agent to engine: a verification has ended. seq = the position at which it began, arg1 =
	 * wall clock (ns), arg2 = ranges that differed; no body */
	FRAME_VERIFIED = 18,
};
#define FRAME_TYPE_MAX	  18u
#define FRAME_HASH_BYTES  16u
#define FRAME_RANGE_BYTES 16u

enum frame_flags {
	FRAME_LZ4 = 1u << 0, /* SYNC_DATA: the body is one LZ4 block */
};

struct frame {
	uint16_t type;
	uint16_t flags;
	uint32_t body_bytes;
	uint64_t epoch; /* the sender's; a receiver refuses a lower one */
	uint64_t seq, arg1, arg2;
	uint32_t body_crc; /* CRC32C of the body; 0 for SEGMENT (it has its own) and without body */
};

enum frame_condition {
	FRAME_E_SHORT = 1,
	FRAME_E_MAGIC,
	FRAME_E_CRC,
	FRAME_E_TYPE,	/* unknown type or flag, reserved bytes not zero */
	FRAME_E_LENGTH, /* body longer than the type allows, or of the wrong length */
	FRAME_E_FIELD,	/* seq, arg1 or arg2 outside their limits, or set where they mean nothing */
};
const char *frame_condition_text(int condition);
const char *frame_type_text(unsigned type);

void frame_encode(const struct frame *frame, uint8_t out[FRAME_BYTES]);
/* 0 or FRAME_E_*. The body is checked when it is there, by frame_body_check(). */
int frame_decode(const uint8_t *bytes, size_t len, struct frame *ret_frame);

/* What body_crc has to be, except for SEGMENT. */
uint32_t frame_body_crc(const uint8_t *body, uint32_t body_bytes);
/* `body` has frame->body_bytes. 0 or FRAME_E_CRC; always 0 for SEGMENT, which has its own. */
int frame_body_check(const struct frame *frame, const uint8_t *body);

/* Ranges of SYNC_DATA (units: bytes), SYNC_ZERO and SYNC_HASH (units: sectors of 512 B). */
static inline uint64_t frame_range_arg(uint16_t volume, uint32_t units)
{
	return (uint64_t)volume << 32 | units;
}
static inline uint16_t frame_range_volume(const struct frame *frame)
{
	return (uint16_t)(frame->arg2 >> 32);
}
static inline uint64_t frame_range_bytes(const struct frame *frame)
{
	return (uint64_t)(uint32_t)frame->arg2 * (frame->type == FRAME_SYNC_DATA ? 1 : 512);
}

#endif
