/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3-64: a fast hash for identity and comparison, not against an adversary. The value is part of
 * formats on disk. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_HASH64_H
#define HOLDFAST_CORE_BASE_HASH64_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(uint64_t seed, const void *bytes, size_t length_bytes);

#endif
