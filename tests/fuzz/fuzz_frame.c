/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a stream: frames and their bodies until something is refused. The first byte
 * says whether checksums are made right before they are checked (1).
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/crc32c.h"
#include "core/base/must.h"
#include "proto/format.h"
#include "proto/payload.h"
#include "tests/fuzz/fuzz.h"

static void check_content(const struct frame *frame, const uint8_t *body)
{
	uint64_t raw_bytes = frame_range_bytes(frame);
	struct segment_header header;
	uint8_t *data;

	if (frame->type == FRAME_SEGMENT) {
		if (segment_header_decode(body, frame->body_bytes, &header) == 0)
			(void)segment_verify(body, frame->body_bytes, &header);
	} else if (frame->type == FRAME_SYNC_DATA && (frame->flags & FRAME_LZ4)) {
		data = malloc(raw_bytes);
		must(data != NULL);
		(void)payload_unpack(body, frame->body_bytes, data, (uint32_t)raw_bytes);
		free(data);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	uint8_t again[FRAME_BYTES], head[FRAME_BYTES];
	struct frame frame;
	size_t at = 1;

	while (size > at && size - at >= FRAME_BYTES) {
		struct frame_le *le = (struct frame_le *)(void *)head;

		memcpy(head, input + at, sizeof(head));
		if (input[0] & 1)
			le->header_crc =
				le32_of(crc32c(0, le, offsetof(struct frame_le, header_crc)));
		if (frame_decode(head, sizeof(head), &frame) != 0)
			return 0;
		frame_encode(&frame, again);
		must(memcmp(again, head, sizeof(head)) == 0);
		at += FRAME_BYTES;
		if (frame.body_bytes > size - at)
			return 0;
		if (frame_body_check(&frame, input + at) != 0 && !(input[0] & 1))
			return 0;
		check_content(&frame, input + at);
		at += frame.body_bytes;
	}
	return 0;
}
