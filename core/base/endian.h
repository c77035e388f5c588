/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers as they lie on a disk or a wire. Each type is an array of bytes: it has no alignment and
 * no padding, and using one byte order for the other, or for a plain number, does not compile. Our
 * own formats are little endian, NBD is big endian. Pure, any thread.
 *
 *   struct le32 x = le32_of(7);   uint32_t n = le32_get(x);
 *   le32_put(bytes, 7);           uint32_t n = le32_load(bytes);     (raw bytes, any alignment)
 */
#ifndef HOLDFAST_CORE_BASE_ENDIAN_H
#define HOLDFAST_CORE_BASE_ENDIAN_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ENDIAN_LE16(x) (x)
#define ENDIAN_LE32(x) (x)
#define ENDIAN_LE64(x) (x)
#define ENDIAN_BE16(x) __builtin_bswap16(x)
#define ENDIAN_BE32(x) __builtin_bswap32(x)
#define ENDIAN_BE64(x) __builtin_bswap64(x)
#elif __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ENDIAN_LE16(x) __builtin_bswap16(x)
#define ENDIAN_LE32(x) __builtin_bswap32(x)
#define ENDIAN_LE64(x) __builtin_bswap64(x)
#define ENDIAN_BE16(x) (x)
#define ENDIAN_BE32(x) (x)
#define ENDIAN_BE64(x) (x)
#else
#error "unknown byte order"
#endif

struct le16 {
	uint8_t bytes[2];
};

struct le32 {
	uint8_t bytes[4];
};

struct le64 {
	uint8_t bytes[8];
};

struct be16 {
	uint8_t bytes[2];
};

struct be32 {
	uint8_t bytes[4];
};

struct be64 {
	uint8_t bytes[8];
};

static inline uint16_t le16_load(const uint8_t *bytes)
{
	uint16_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_LE16(raw);
}

static inline void le16_put(uint8_t *bytes, uint16_t value)
{
	uint16_t raw = ENDIAN_LE16(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint16_t le16_get(struct le16 field)
{
	return le16_load(field.bytes);
}

static inline void le16_set(struct le16 *field, uint16_t value)
{
	le16_put(field->bytes, value);
}

static inline struct le16 le16_of(uint16_t value)
{
	struct le16 field = { { 0 } };

	le16_put(field.bytes, value);
	return field;
}

static inline uint32_t le32_load(const uint8_t *bytes)
{
	uint32_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_LE32(raw);
}

static inline void le32_put(uint8_t *bytes, uint32_t value)
{
	uint32_t raw = ENDIAN_LE32(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint32_t le32_get(struct le32 field)
{
	return le32_load(field.bytes);
}

static inline void le32_set(struct le32 *field, uint32_t value)
{
	le32_put(field->bytes, value);
}

static inline struct le32 le32_of(uint32_t value)
{
	struct le32 field = { { 0 } };

	le32_put(field.bytes, value);
	return field;
}

static inline uint64_t le64_load(const uint8_t *bytes)
{
	uint64_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_LE64(raw);
}

static inline void le64_put(uint8_t *bytes, uint64_t value)
{
	uint64_t raw = ENDIAN_LE64(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint64_t le64_get(struct le64 field)
{
	return le64_load(field.bytes);
}

static inline void le64_set(struct le64 *field, uint64_t value)
{
	le64_put(field->bytes, value);
}

static inline struct le64 le64_of(uint64_t value)
{
	struct le64 field = { { 0 } };

	le64_put(field.bytes, value);
	return field;
}

static inline uint16_t be16_load(const uint8_t *bytes)
{
	uint16_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_BE16(raw);
}

static inline void be16_put(uint8_t *bytes, uint16_t value)
{
	uint16_t raw = ENDIAN_BE16(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint16_t be16_get(struct be16 field)
{
	return be16_load(field.bytes);
}

static inline void be16_set(struct be16 *field, uint16_t value)
{
	be16_put(field->bytes, value);
}

static inline struct be16 be16_of(uint16_t value)
{
	struct be16 field = { { 0 } };

	be16_put(field.bytes, value);
	return field;
}

static inline uint32_t be32_load(const uint8_t *bytes)
{
	uint32_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_BE32(raw);
}

static inline void be32_put(uint8_t *bytes, uint32_t value)
{
	uint32_t raw = ENDIAN_BE32(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint32_t be32_get(struct be32 field)
{
	return be32_load(field.bytes);
}

static inline void be32_set(struct be32 *field, uint32_t value)
{
	be32_put(field->bytes, value);
}

static inline struct be32 be32_of(uint32_t value)
{
	struct be32 field = { { 0 } };

	be32_put(field.bytes, value);
	return field;
}

static inline uint64_t be64_load(const uint8_t *bytes)
{
	uint64_t raw;

	memcpy(&raw, bytes, sizeof(raw));
	return ENDIAN_BE64(raw);
}

static inline void be64_put(uint8_t *bytes, uint64_t value)
{
	uint64_t raw = ENDIAN_BE64(value);

	memcpy(bytes, &raw, sizeof(raw));
}

static inline uint64_t be64_get(struct be64 field)
{
	return be64_load(field.bytes);
}

static inline void be64_set(struct be64 *field, uint64_t value)
{
	be64_put(field->bytes, value);
}

static inline struct be64 be64_of(uint64_t value)
{
	struct be64 field = { { 0 } };

	be64_put(field.bytes, value);
	return field;
}

_Static_assert(sizeof(struct le16) == 2 && _Alignof(struct le16) == 1, "le16");
_Static_assert(sizeof(struct le32) == 4 && _Alignof(struct le32) == 1, "le32");
_Static_assert(sizeof(struct le64) == 8 && _Alignof(struct le64) == 1, "le64");
_Static_assert(sizeof(struct be16) == 2 && _Alignof(struct be16) == 1, "be16");
_Static_assert(sizeof(struct be32) == 4 && _Alignof(struct be32) == 1, "be32");
_Static_assert(sizeof(struct be64) == 8 && _Alignof(struct be64) == 1, "be64");

#endif
