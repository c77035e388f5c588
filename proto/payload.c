/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/payload.h"

#include <lz4.h>

#include "core/base/macros.h"

/* LZ4_sizeofState() of every release so far is 16416; a state is an array of 64-bit words. */
#define LZ4_STATE_BYTES 16416u
static _Thread_local uint64_t lz4_state[LZ4_STATE_BYTES / sizeof(uint64_t)];

uint32_t payload_pack(const uint8_t *data, uint32_t raw_bytes, uint8_t *out,
		      uint32_t packed_max_bytes)
{
	int packed_bytes;

	must(raw_bytes >= 1 && raw_bytes <= PAYLOAD_RAW_MAX_BYTES);
	must((size_t)LZ4_sizeofState() <= sizeof(lz4_state));
	packed_max_bytes = min_u32(packed_max_bytes, raw_bytes - 1);
	if (packed_max_bytes == 0)
		return 0;
	packed_bytes = LZ4_compress_fast_extState(lz4_state, (const char *)data, (char *)out,
						  (int)raw_bytes, (int)packed_max_bytes, 1);
	must(packed_bytes >= 0 && (uint32_t)packed_bytes <= packed_max_bytes);
	return (uint32_t)packed_bytes;
}

bool payload_unpack(const uint8_t *packed, uint32_t packed_bytes, uint8_t *data, uint32_t raw_bytes)
{
	if (!payload_lengths_valid(packed_bytes, raw_bytes))
		return false;
	return LZ4_decompress_safe((const char *)packed, (char *)data, (int)packed_bytes,
				   (int)raw_bytes) == (int)raw_bytes;
}
