/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control message from outside: the first byte is the frame's type, the rest its body. What is
 * accepted packs, and unpacks again to what packs to the same bytes.
 */
#include <string.h>

#include "core/base/must.h"
#include "proto/frame.h"
#include "proto/link.h"
#include "tests/fuzz/fuzz.h"

static union {
	struct link_hello hello;
	struct link_welcome welcome;
	struct link_refuse refuse;
	struct link_start start;
	struct link_heartbeat heartbeat;
	struct link_bye bye;
} u;

/* The length of the message packed again into `out`; -1 when it was refused. */
static int through(uint8_t type, const uint8_t *body, size_t len, uint8_t *out, size_t max)
{
	switch (type) {
	case FRAME_HELLO:
		return link_hello_unpack(body, len, &u.hello) ? -1
							      : link_hello_pack(&u.hello, out, max);
	case FRAME_WELCOME:
		return link_welcome_unpack(body, len, &u.welcome)
			       ? -1
			       : link_welcome_pack(&u.welcome, out, max);
	case FRAME_REFUSE:
		return link_refuse_unpack(body, len, &u.refuse)
			       ? -1
			       : link_refuse_pack(&u.refuse, out, max);
	case FRAME_START:
		return link_start_unpack(body, len, &u.start) ? -1
							      : link_start_pack(&u.start, out, max);
	case FRAME_HEARTBEAT:
		return link_heartbeat_unpack(body, len, &u.heartbeat)
			       ? -1
			       : link_heartbeat_pack(&u.heartbeat, out, max);
	case FRAME_BYE:
		return link_bye_unpack(body, len, &u.bye) ? -1 : link_bye_pack(&u.bye, out, max);
	default:
		return -1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static uint8_t once[FRAME_CONTROL_MAX_BYTES], twice[FRAME_CONTROL_MAX_BYTES];
	int once_len, twice_len;

	if (size < 1)
		return 0;
	once_len = through(input[0], input + 1, size - 1, once, sizeof(once));
	if (once_len < 0)
		return 0;
	twice_len = through(input[0], once, (size_t)once_len, twice, sizeof(twice));
	must(twice_len == once_len && memcmp(once, twice, (size_t)once_len) == 0);
	return 0;
}
