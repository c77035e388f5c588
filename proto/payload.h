/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LZ4 blocks: the data of segments and of SYNC_DATA frames. The only user of the LZ4 library.
 *
 * Borrows all buffers; the compressor's state is 16 KiB per thread that compresses. No allocation,
 * any thread.
 */
#ifndef HOLDFAST_PROTO_PAYLOAD_H
#define HOLDFAST_PROTO_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>

/* Longest data that is packed as one block. */
#define PAYLOAD_RAW_MAX_BYTES (1u << 20)

/*
 * Packs `raw_bytes` (1..PAYLOAD_RAW_MAX_BYTES) of `data` into `out`. Returns the packed length, at
 * most `packed_max_bytes` and less than raw_bytes; 0, with `out` unspecified, where it does not get
 * there.
 */
uint32_t payload_pack(const uint8_t *data, uint32_t raw_bytes, uint8_t *out,
		      uint32_t packed_max_bytes);

/* Whether an LZ4 block of the one length can be honest about unpacking to the other. */
static inline bool payload_lengths_valid(uint32_t packed_bytes, uint32_t raw_bytes)
{
	return packed_bytes >= 1 && packed_bytes < raw_bytes &&
	       raw_bytes <= PAYLOAD_RAW_MAX_BYTES && raw_bytes <= 255ull * packed_bytes + 64;
}

/* Unpacks a block into `data` (room for raw_bytes). False unless it gives exactly raw_bytes. */
bool payload_unpack(const uint8_t *packed, uint32_t packed_bytes, uint8_t *data,
		    uint32_t raw_bytes);

#endif
