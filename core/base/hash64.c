/* SPDX-License-Identifier: Apache-2.0 */
#include "core/base/hash64.h"

#include <xxhash.h>

uint64_t hash64(uint64_t seed, const void *bytes, size_t length_bytes)
{
	return XXH3_64bits_withSeed(bytes, length_bytes, seed);
}
