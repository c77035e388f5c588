/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded cursors: the only way in which bytes from a wire or a disk become numbers.
 *
 * A cursor that is asked for more than it has fails, and stays failed: from then on reads give 0 or
 * NULL, writes do nothing. So a codec reads all its fields and asks rcursor_ok() once, before it
 * believes any of them. The cursor borrows the bytes; it owns nothing. One thread.
 */
#ifndef HOLDFAST_CORE_BASE_CURSOR_H
#define HOLDFAST_CORE_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/endian.h"
#include "core/base/macros.h"

struct rcursor {
	const uint8_t *pos;
	size_t left_bytes;
	bool failed;
};

struct wcursor {
	uint8_t *pos;
	size_t left_bytes;
	bool failed;
};

static inline struct rcursor rcursor_of(const void *bytes, size_t length_bytes)
{
	return (struct rcursor){ .pos = bytes, .left_bytes = length_bytes, .failed = false };
}

/* Whether every read so far was within the bytes. */
__must_check static inline bool rcursor_ok(const struct rcursor *cursor)
{
	return !cursor->failed;
}

/* Whether every read so far was within the bytes and nothing is left. */
__must_check static inline bool rcursor_done(const struct rcursor *cursor)
{
	return !cursor->failed && cursor->left_bytes == 0;
}

static inline size_t rcursor_left(const struct rcursor *cursor)
{
	return cursor->left_bytes;
}

/* The next `length_bytes` bytes, borrowed; NULL when there are fewer. */
static inline const uint8_t *rcursor_bytes(struct rcursor *cursor, size_t length_bytes)
{
	const uint8_t *bytes = cursor->pos;

	if (cursor->failed || length_bytes > cursor->left_bytes) {
		cursor->failed = true;
		cursor->left_bytes = 0;
		return NULL;
	}
	if (length_bytes > 0)
		cursor->pos += length_bytes;
	cursor->left_bytes -= length_bytes;
	return bytes;
}

/* Copies the next `length_bytes` bytes; zeroes when there are fewer. */
static inline void rcursor_copy(struct rcursor *cursor, void *target, size_t length_bytes)
{
	const uint8_t *bytes = rcursor_bytes(cursor, length_bytes);

	if (length_bytes == 0)
		return;
	if (bytes)
		memcpy(target, bytes, length_bytes);
	else
		memset(target, 0, length_bytes);
}

static inline void rcursor_skip(struct rcursor *cursor, size_t length_bytes)
{
	(void)rcursor_bytes(cursor, length_bytes);
}

/* Skips bytes that the format reserves: they must be zero, or the cursor fails. */
static inline void rcursor_zeroes(struct rcursor *cursor, size_t length_bytes)
{
	const uint8_t *bytes = rcursor_bytes(cursor, length_bytes);
	size_t i;

	for (i = 0; bytes && i < length_bytes; i++) {
		if (bytes[i] != 0) {
			cursor->failed = true;
			cursor->left_bytes = 0;
		}
	}
}

/* A cursor over the next `length_bytes` bytes alone; a failed one when there are fewer. */
static inline struct rcursor rcursor_sub(struct rcursor *cursor, size_t length_bytes)
{
	const uint8_t *bytes = rcursor_bytes(cursor, length_bytes);
	struct rcursor sub = rcursor_of(bytes, length_bytes);

	if (cursor->failed) {
		sub.failed = true;
		sub.left_bytes = 0;
	}
	return sub;
}

static inline uint8_t rcursor_u8(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 1);

	return bytes ? bytes[0] : 0;
}

static inline uint16_t rcursor_le16(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 2);

	return bytes ? le16_load(bytes) : 0;
}

static inline uint32_t rcursor_le32(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 4);

	return bytes ? le32_load(bytes) : 0;
}

static inline uint64_t rcursor_le64(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 8);

	return bytes ? le64_load(bytes) : 0;
}

static inline uint16_t rcursor_be16(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 2);

	return bytes ? be16_load(bytes) : 0;
}

static inline uint32_t rcursor_be32(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 4);

	return bytes ? be32_load(bytes) : 0;
}

static inline uint64_t rcursor_be64(struct rcursor *cursor)
{
	const uint8_t *bytes = rcursor_bytes(cursor, 8);

	return bytes ? be64_load(bytes) : 0;
}

static inline struct wcursor wcursor_of(void *bytes, size_t length_bytes)
{
	return (struct wcursor){ .pos = bytes, .left_bytes = length_bytes, .failed = false };
}

/* Whether everything written so far had room. */
__must_check static inline bool wcursor_ok(const struct wcursor *cursor)
{
	return !cursor->failed;
}

static inline size_t wcursor_left(const struct wcursor *cursor)
{
	return cursor->left_bytes;
}

/* The next `length_bytes` bytes to be filled by the caller; NULL when there is no room. */
static inline uint8_t *wcursor_reserve(struct wcursor *cursor, size_t length_bytes)
{
	uint8_t *bytes = cursor->pos;

	if (cursor->failed || length_bytes > cursor->left_bytes) {
		cursor->failed = true;
		cursor->left_bytes = 0;
		return NULL;
	}
	if (length_bytes > 0)
		cursor->pos += length_bytes;
	cursor->left_bytes -= length_bytes;
	return bytes;
}

static inline void wcursor_bytes(struct wcursor *cursor, const void *source, size_t length_bytes)
{
	uint8_t *bytes = wcursor_reserve(cursor, length_bytes);

	if (bytes && length_bytes > 0)
		memcpy(bytes, source, length_bytes);
}

static inline void wcursor_zeroes(struct wcursor *cursor, size_t length_bytes)
{
	uint8_t *bytes = wcursor_reserve(cursor, length_bytes);

	if (bytes && length_bytes > 0)
		memset(bytes, 0, length_bytes);
}

static inline void wcursor_u8(struct wcursor *cursor, uint8_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 1);

	if (bytes)
		bytes[0] = value;
}

static inline void wcursor_le16(struct wcursor *cursor, uint16_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 2);

	if (bytes)
		le16_put(bytes, value);
}

static inline void wcursor_le32(struct wcursor *cursor, uint32_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 4);

	if (bytes)
		le32_put(bytes, value);
}

static inline void wcursor_le64(struct wcursor *cursor, uint64_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 8);

	if (bytes)
		le64_put(bytes, value);
}

static inline void wcursor_be16(struct wcursor *cursor, uint16_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 2);

	if (bytes)
		be16_put(bytes, value);
}

static inline void wcursor_be32(struct wcursor *cursor, uint32_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 4);

	if (bytes)
		be32_put(bytes, value);
}

static inline void wcursor_be64(struct wcursor *cursor, uint64_t value)
{
	uint8_t *bytes = wcursor_reserve(cursor, 8);

	if (bytes)
		be64_put(bytes, value);
}

#endif
