/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/crc32c.h"

#include <isa-l/crc.h>

/* ISA-L takes an int; longer runs go in pieces. */
#define PIECE_MAX_BYTES ((size_t)1 << 30)

uint32_t crc32c(uint32_t seed, const void *bytes, size_t length_bytes)
{
	/* ISA-L reads only, its prototype just does not say so. */
	unsigned char *at = (unsigned char *)(uintptr_t)bytes;
	uint32_t state = ~seed;

	while (length_bytes > 0) {
		size_t piece = length_bytes < PIECE_MAX_BYTES ? length_bytes : PIECE_MAX_BYTES;

		state = crc32_iscsi(at, (int)piece, state);
		at += piece;
		length_bytes -= piece;
	}
	return ~state;
}
