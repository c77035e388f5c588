/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/hash64.h"

#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

#include "core/base/macros.h"
#include "core/base/must.h"

_Static_assert(sizeof(XXH128_canonical_t) == HASH128_BYTES, "as it goes over the wire");

uint64_t hash64(uint64_t seed, const void *bytes, size_t length_bytes)
{
	return XXH3_64bits_withSeed(bytes, length_bytes, seed);
}

static void put(XXH128_hash_t hash, uint8_t out[HASH128_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, hash);
	memcpy(out, canonical.digest, HASH128_BYTES);
}

void hash128(const void *bytes, size_t length_bytes, uint8_t out[HASH128_BYTES])
{
	put(XXH3_128bits(bytes, length_bytes), out);
}

void hash128_zeroes(size_t length_bytes, uint8_t out[HASH128_BYTES])
{
	static const uint8_t zeroes[4096];
	XXH3_state_t state __attribute__((aligned(64)));

	XXH3_INITSTATE(&state);
	must(XXH3_128bits_reset(&state) == XXH_OK);
	for (size_t at = 0; at < length_bytes; at += sizeof(zeroes))
		must(XXH3_128bits_update(&state, zeroes,
					 min_size(length_bytes - at, sizeof(zeroes))) == XXH_OK);
	put(XXH3_128bits_digest(&state), out);
}
