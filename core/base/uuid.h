/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UUIDs as 16 bytes in the order in which they are printed. Pure, any thread.
 */
#ifndef HOLDFAST_CORE_BASE_UUID_H
#define HOLDFAST_CORE_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/macros.h"

#define UUID_BYTES	16u
#define UUID_TEXT_BYTES 37u /* with the terminator */

struct uuid {
	uint8_t bytes[UUID_BYTES];
};

/* A version 4 UUID out of 16 random bytes. */
struct uuid uuid_from_random(const uint8_t random[UUID_BYTES]);

/* The same from two random numbers, as io_random() gives them. */
struct uuid uuid_from_random_u64(uint64_t a, uint64_t b);

/* Lower case, 8-4-4-4-12. Returns `text`. */
const char *uuid_format(const struct uuid *uuid, char text[UUID_TEXT_BYTES]);

/* Exactly what uuid_format() writes, upper case allowed. -EINVAL otherwise. */
__must_check int uuid_parse(const char *text, struct uuid *ret_uuid);

bool uuid_equal(const struct uuid *a, const struct uuid *b);

/* All bytes zero: no UUID. */
bool uuid_is_zero(const struct uuid *uuid);

#endif
