/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3, 64 and 128 bits: fast hashes for identity and comparison, not against an adversary. The
 * values are part of formats on disk and on the wire. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_HASH64_H
#define HOLDFAST_CORE_BASE_HASH64_H

#include <stddef.h>
#include <stdint.h>

#define HASH128_BYTES 16u

uint64_t hash64(uint64_t seed, const void *bytes, size_t length_bytes);
/* XXH3-128 without a seed, in its canonical (big endian) form. */
void hash128(const void *bytes, size_t length_bytes, uint8_t out[HASH128_BYTES]);
/* The same of as many zeroes. */
void hash128_zeroes(size_t length_bytes, uint8_t out[HASH128_BYTES]);

#endif
